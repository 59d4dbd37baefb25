//! Requests to other servers: found, connected to, signed, sent, and their answers read within bounds.
//!
//! Owns the way of a request. It doesn't try again later and knows nothing of rooms: whoever sends decides what a failure
//! means.
//!
//! - Every connection goes through [`Connector`], to servers and to what stands under `/.well-known`: certificates are
//!   verified before anything is sent, and addresses that aren't the internet's are refused unless allowed.
//! - Everything ends: an attempt to connect, an answer that stalls, a request as a whole.
//! - Everything is bounded: the answer by what its request allows, connections by number, kept ones by time too.
//! - Who doesn't answer holds up nobody else: to such a server, thousands of requests may wait, and to thousands of them.
//!
//! Specification: [API standards](https://spec.matrix.org/v1.19/server-server-api/#api-standards) (FT-01, FT-02, FA-06).

mod connect;
mod dials;
mod exchange;
mod guard;
mod pool;
mod request;
mod settings;
mod web;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::Full;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use tokio::time;

pub use self::{
    connect::{ClientSetupError, ConnectError, Connector},
    exchange::Response,
    guard::is_public,
    request::{ClientError, ServerRequest},
    settings::ClientSettings,
    web::HttpsWeb,
};
use self::{
    exchange::{ExchangeError, exchange, open},
    pool::{Place, Pool},
};
use crate::{
    Clock, Random, Task,
    discovery::{Destination, Discovery, Dns},
    json::write_string,
    key_ring::KeyFetch,
    request::SignedRequest,
    server_keys::{MAX_KEYS_BYTES, MAX_NOTARY_BYTES},
    signing_key::SigningKey,
};

/// Keys, whole: a request or an event waits for them.
const KEYS_TIMEOUT: Duration = Duration::from_secs(15);

/// Sends requests to other servers, in our name.
pub struct FederationClient {
    us: OwnedServerName,
    key: Arc<SigningKey>,
    settings: ClientSettings,
    connector: Arc<Connector>,
    discovery: Discovery,
    pool: Arc<Pool>,
}

impl FederationClient {
    /// With these names and this web of its own; each connection is within `settings`.
    pub fn new(
        us: OwnedServerName,
        key: Arc<SigningKey>,
        settings: ClientSettings,
        connector: Arc<Connector>,
        discovery: Discovery,
    ) -> Self {
        let ClientSettings { idle_timeout, max_idle, max_idle_per_server, .. } = settings;
        let pool = Pool::new(idle_timeout, max_idle, max_idle_per_server);
        Self { us, key, settings, connector, discovery, pool }
    }

    /// With the names that `dns` knows and the web that they lead to.
    pub fn over(
        dns: Arc<dyn Dns>,
        us: OwnedServerName,
        key: Arc<SigningKey>,
        settings: ClientSettings,
        clock: Clock,
        random: Random,
    ) -> Result<Self, ClientSetupError> {
        let connector = Arc::new(Connector::new(&settings)?);
        let web = HttpsWeb::new(Arc::clone(&connector), Arc::clone(&dns), &settings);
        let discovery = Discovery::new(dns, Arc::new(web), clock, random);
        Ok(Self::new(us, key, settings, connector, discovery))
    }

    /// Where servers are, for whoever wants that explained.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// What connections are made with, to probe a destination by.
    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Whether the operator's lists allow to speak to a server, in either direction. They are about others: a server that
    /// looks at itself from outside isn't on them.
    pub fn allows(&self, server: &ServerName) -> bool {
        server == self.us || self.settings.allows(server)
    }

    /// A server has spoken to us: if it didn't answer before, it will now.
    pub fn heard_from(&self, server: &ServerName) {
        self.connector.trust(server.as_str());
    }

    /// How many connections wait for another request.
    pub fn idle_connections(&self) -> usize {
        self.pool.len()
    }

    /// Send a request to a server and read its answer, which is one of success.
    pub async fn send(&self, server: &ServerName, request: ServerRequest) -> Result<Response, ClientError> {
        if !self.allows(server) {
            return Err(ClientError::NotAllowed(server.to_owned()));
        }
        let timeout = request.timeout.unwrap_or(self.settings.request_timeout);
        let response = time::timeout(timeout, self.attempt(server, &request)).await;
        let response = response.unwrap_or(Err(ClientError::TimedOut))?;
        if response.status.is_success() { Ok(response) } else { Err(ClientError::refused(&response)) }
    }

    async fn attempt(&self, server: &ServerName, request: &ServerRequest) -> Result<Response, ClientError> {
        let destination = self.discovery.find(server).await?;
        let built = self.build(server, &destination, request)?;
        let (limit, stall) = (request.limit, self.settings.stall_timeout);
        // A kept connection may have been closed by the other side just now, which is nobody's fault.
        while let Some((sender, place)) = self.pool.take(server, &destination) {
            match exchange(sender, built.clone(), limit, stall).await {
                Ok((response, sender)) => {
                    self.keep(server, sender, place);
                    return Ok(response);
                }
                Err(ExchangeError::NotSent) => {}
                Err(ExchangeError::Closed) if request.is_repeatable() => {}
                Err(error) => return Err(failed(error)),
            }
        }
        let connected = self.connector.connect_to(server.as_str(), &destination).await;
        let stream = connected.inspect_err(|_| self.discovery.forget(server))?;
        let address = stream.get_ref().0.peer_addr();
        let address = address.map_err(|error| ClientError::Broken(error.to_string()))?;
        let place = Place { address, tls_name: destination.tls_name.clone() };
        let sender = open(stream).await.map_err(failed)?;
        let (response, sender) = exchange(sender, built, limit, stall).await.map_err(failed)?;
        self.keep(server, sender, place);
        Ok(response)
    }

    fn keep(&self, server: &ServerName, sender: Option<pool::Sender>, place: Place) {
        if let Some(sender) = sender {
            self.pool.keep(server, sender, place);
        }
    }

    fn build(
        &self,
        server: &ServerName,
        destination: &Destination,
        request: &ServerRequest,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        let unsendable = |error: http::Error| ClientError::Request(error.to_string());
        // What is signed is what is sent: as the parser has it, not as it was given.
        let uri: Uri =
            request.uri.parse().map_err(|error: http::uri::InvalidUri| unsendable(error.into()))?;
        let target = uri.path_and_query().map(http::uri::PathAndQuery::as_str);
        let target = target.filter(|target| uri.host().is_none() && target.starts_with('/'));
        let target = target.ok_or_else(|| ClientError::Request("its target isn't a path".to_owned()))?;
        let mut built = Request::builder()
            .method(request.method.clone())
            .uri(target)
            .header(header::HOST, &destination.host)
            .header(header::USER_AGENT, &self.settings.user_agent);
        if request.signed {
            let signed = SignedRequest {
                method: request.method.as_str(),
                uri: target,
                origin: &self.us,
                destination: server,
                content: request.body.as_deref(),
            };
            built = built.header(header::AUTHORIZATION, signed.sign(&self.key)?);
        }
        if request.body.is_some() {
            built = built.header(header::CONTENT_TYPE, "application/json");
        }
        let body = request.body.clone().unwrap_or_default();
        built.body(Full::new(Bytes::from(body))).map_err(unsendable)
    }
}

impl KeyFetch for FederationClient {
    fn ask_server<'a>(&'a self, server: &'a ServerName) -> Task<'a, Result<String, String>> {
        Box::pin(async move {
            let request = ServerRequest::get("/_matrix/key/v2/server").unsigned();
            self.text(server, request.limit(MAX_KEYS_BYTES)).await
        })
    }

    fn ask_notary<'a>(
        &'a self,
        notary: &'a ServerName,
        server: &'a ServerName,
        key_ids: &'a [String],
        minimum_valid_until: MilliSecondsSinceUnixEpoch,
    ) -> Task<'a, Result<String, String>> {
        Box::pin(async move {
            let body = key_query(server, key_ids, minimum_valid_until);
            let request = ServerRequest::post("/_matrix/key/v2/query", body).unsigned();
            self.text(notary, request.limit(MAX_NOTARY_BYTES)).await
        })
    }
}

impl FederationClient {
    async fn text(&self, server: &ServerName, request: ServerRequest) -> Result<String, String> {
        let request = request.timeout(KEYS_TIMEOUT.min(self.settings.request_timeout));
        let response = self.send(server, request).await.map_err(|error| error.to_string())?;
        String::from_utf8(response.body.into()).map_err(|_| "the answer isn't text".to_owned())
    }
}

/// The body of `/_matrix/key/v2/query`.
fn key_query(server: &ServerName, key_ids: &[String], minimum: MilliSecondsSinceUnixEpoch) -> String {
    let mut body = String::from(r#"{"server_keys":{"#);
    write_string(&mut body, server.as_str());
    body.push_str(":{");
    for (index, id) in key_ids.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        write_string(&mut body, id);
        body.push_str(":{\"minimum_valid_until_ts\":");
        body.push_str(&minimum.get().to_string());
        body.push('}');
    }
    body.push_str("}}}");
    body
}

fn failed(error: ExchangeError) -> ClientError {
    match error {
        ExchangeError::NotSent | ExchangeError::Closed => {
            ClientError::Broken("it was closed instead of an answer".to_owned())
        }
        ExchangeError::Broken(cause) => ClientError::Broken(cause),
        ExchangeError::Stalled => ClientError::Stalled,
        ExchangeError::TooLarge(limit) => ClientError::TooLarge { limit },
    }
}
