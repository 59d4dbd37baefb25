//! Who makes a request: from the access token to a session.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{header, request::Parts};

use super::{MatrixError, openness, route};
use crate::{
    account::{Origin, Session},
    app::App,
    limits::LimitKey,
};

/// The other end of the connection, put into each request's extensions by the listener.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// Whether what it sends is encrypted on its way.
    pub secure: bool,
}

/// Where a client found this server, if nobody has configured it: the address that it asked for.
pub fn base_url(parts: &Parts) -> Option<String> {
    let secure = parts.extensions.get::<Peer>().is_some_and(|peer| peer.secure);
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| parts.uri.authority().map(http::uri::Authority::as_str))?;
    Some(format!("{}://{host}", if secure { "https" } else { "http" }))
}

/// Where a request came from: the connection's other end, and what its client calls itself.
pub fn origin(parts: &Parts) -> Origin {
    let peer = parts.extensions.get::<Peer>();
    let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    Origin {
        ip: peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.address.ip()),
        user_agent: agent.map(|agent| agent.chars().take(256).collect()),
    }
}

/// Extracted from each request before its body is read. Who may not use the route isn't let in.
pub trait Caller: Sized + Send {
    fn identify(app: &App, parts: &Parts) -> impl Future<Output = Result<Self, MatrixError>> + Send;

    /// Whose budget the request counts against.
    fn limit_key(&self) -> LimitKey;

    /// The largest body that is read, in bytes.
    fn max_body(&self, _: &Parts) -> usize {
        route::MAX_BODY
    }

    /// For callers who sign their request as a whole: whether they are who they say, now that the body is here.
    fn confirm(&self, _: &App, _: &Parts, _: &Bytes) -> impl Future<Output = Result<(), MatrixError>> + Send {
        async { Ok(()) }
    }
}

/// Anybody: no token is looked at.
#[derive(Clone, Debug)]
pub struct Anonymous {
    pub origin: Origin,
}

/// Anybody, known by their token if they sent one. A bad token is an error even so.
#[derive(Clone, Debug)]
pub struct Visitor {
    pub session: Option<Session>,
    pub origin: Origin,
}

impl Caller for Anonymous {
    async fn identify(_: &App, parts: &Parts) -> Result<Self, MatrixError> {
        Ok(Self { origin: origin(parts) })
    }

    fn limit_key(&self) -> LimitKey {
        LimitKey::Address(self.origin.ip)
    }
}

/// Put into a request that comes from a socket, whose session is known.
#[derive(Clone)]
pub struct Attached(pub Session);

impl Caller for Session {
    async fn identify(app: &App, parts: &Parts) -> Result<Self, MatrixError> {
        let session = if let Some(Attached(session)) = parts.extensions.get() {
            app.sessions.again(session).await?
        } else {
            let token = token(parts).ok_or_else(MatrixError::missing_token)?;
            app.sessions.authenticate(&token, &origin(parts)).await?
        };
        openness::check(parts, &session)?;
        Ok(session)
    }

    fn limit_key(&self) -> LimitKey {
        LimitKey::Account(self.recipient)
    }
}

impl Caller for Visitor {
    async fn identify(app: &App, parts: &Parts) -> Result<Self, MatrixError> {
        let origin = origin(parts);
        let session = match token(parts) {
            Some(_) => Some(Session::identify(app, parts).await?),
            None => None,
        };
        Ok(Self { session, origin })
    }

    fn limit_key(&self) -> LimitKey {
        self.session.as_ref().map_or(LimitKey::Address(self.origin.ip), Caller::limit_key)
    }
}

/// The access token of the header or, for clients from before it, of the query.
pub fn token(parts: &Parts) -> Option<String> {
    if let Some(header) = parts.headers.get(header::AUTHORIZATION) {
        let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned());
    }
    let pairs = parts.uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .into_iter()
        .find(|(name, _)| *name == "access_token")
        .map(|(_, value)| value.to_owned())
        .filter(|token| !token.is_empty())
}
