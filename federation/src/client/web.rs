//! HTTPS to any host of the web, for what stands under `/.well-known`.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, header};
use http_body_util::Full;
use rustls_pki_types::ServerName;
use tokio::time;
use url::{Host, Url};

use super::{
    connect::Connector,
    exchange::{ExchangeError, exchange, open},
    settings::ClientSettings,
};
use crate::{
    Task,
    discovery::{Destination, Dns, Web, WebAnswer, alternating},
};

/// A GET whole: a host that is slow to say where its server is has one for later.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The web, with the connections of [`Connector`] and hence within its bounds.
pub struct HttpsWeb {
    connector: Arc<Connector>,
    dns: Arc<dyn Dns>,
    user_agent: String,
    timeout: Duration,
    stall: Duration,
}

impl HttpsWeb {
    /// With the settings that hold for servers.
    pub fn new(connector: Arc<Connector>, dns: Arc<dyn Dns>, settings: &ClientSettings) -> Self {
        let timeout = TIMEOUT.min(settings.request_timeout);
        Self {
            connector,
            dns,
            user_agent: settings.user_agent.clone(),
            timeout,
            stall: settings.stall_timeout,
        }
    }

    async fn fetch(&self, url: &Url, limit: usize) -> Result<WebAnswer, String> {
        let port = url.port_or_known_default().ok_or("the address has no port")?;
        let (tls_name, addresses) = match url.host().ok_or("the address has no host")? {
            Host::Ipv4(address) => {
                (ServerName::IpAddress(std::net::IpAddr::V4(address).into()), vec![address.into()])
            }
            Host::Ipv6(address) => {
                (ServerName::IpAddress(std::net::IpAddr::V6(address).into()), vec![address.into()])
            }
            Host::Domain(name) => {
                let tls_name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
                let found = self.dns.addresses(name).await.map_err(|error| error.to_string())?;
                (tls_name, alternating(found.records))
            }
        };
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        let host = &url[url::Position::BeforeHost..url::Position::AfterPort];
        let destination = Destination { addresses, tls_name, host: host.to_owned() };
        let stream = self.connector.connect(&destination).await.map_err(|error| error.to_string())?;
        let request = Request::get(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(header::HOST, &destination.host)
            .header(header::USER_AGENT, &self.user_agent)
            .body(Full::<Bytes>::default())
            .map_err(|error| error.to_string())?;
        let sender = open(stream).await.map_err(told)?;
        let (response, _) = exchange(sender, request, limit, self.stall).await.map_err(told)?;
        Ok(WebAnswer {
            status: response.status.as_u16(),
            location: text(&response.headers, &header::LOCATION),
            cache_control: text(&response.headers, &header::CACHE_CONTROL),
            expires: text(&response.headers, &header::EXPIRES),
            body: response.body.into(),
        })
    }
}

impl Web for HttpsWeb {
    fn get<'a>(&'a self, url: &'a Url, limit: usize) -> Task<'a, Result<WebAnswer, String>> {
        Box::pin(async move {
            let fetched = time::timeout(self.timeout, self.fetch(url, limit)).await;
            fetched.unwrap_or_else(|_| Err("nobody answered in time".to_owned()))
        })
    }
}

fn told(error: ExchangeError) -> String {
    match error {
        ExchangeError::NotSent | ExchangeError::Closed => "the connection was closed".to_owned(),
        ExchangeError::Broken(cause) => cause,
        ExchangeError::Stalled => "the answer comes too slowly".to_owned(),
        ExchangeError::TooLarge(limit) => format!("the answer is longer than {limit} bytes"),
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}
