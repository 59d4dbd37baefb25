//! Which server makes a request: from the signatures of its `Authorization` headers.
//!
//! Specification: [Request Authentication](https://spec.matrix.org/v1.19/server-server-api/#request-authentication)
//! (FA-01 to FA-05).

use std::ops::Deref;

use bytes::Bytes;
use hearth_federation::{Authorization, AuthorizationError, Wants};
use http::{Method, StatusCode, header, request::Parts};
use ruma::{OwnedServerName, ServerName};

use super::{Caller, MatrixError, caller, service::AsSent};
use crate::{
    app::App,
    limits::{Activity, Class, Held, LimitKey},
};

/// Signatures of one request that are looked at.
const MAX_SIGNATURES: usize = 4;

/// The largest body: a transaction of events and other data, each as large as it may be.
const MAX_BODY: usize = 12 * 1024 * 1024;
/// The same for methods that have none, as a rule.
const MAX_BODY_OF_GET: usize = 64 * 1024;

/// Another server. What it says it is isn't known to be true before its body is here, which is signed too.
#[derive(Clone, Debug)]
pub struct Origin {
    pub server: OwnedServerName,
    address: std::net::IpAddr,
    signatures: Vec<Authorization>,
    /// Until the request is done.
    place: Held,
}

impl Deref for Origin {
    type Target = ServerName;

    fn deref(&self) -> &ServerName {
        &self.server
    }
}

fn unauthorized(cause: &AuthorizationError) -> MatrixError {
    MatrixError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", cause.to_string())
}

fn max_body(parts: &Parts) -> usize {
    if parts.method == Method::GET { MAX_BODY_OF_GET } else { MAX_BODY }
}

/// Bytes that the body may have, from what its headers say.
fn announced(parts: &Parts) -> usize {
    let most = max_body(parts);
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // What is too large isn't read.
    length.map_or(most, |length| if length > most { 0 } else { length })
}

impl Caller for Origin {
    async fn identify(app: &App, parts: &Parts) -> Result<Self, MatrixError> {
        let headers = parts.headers.get_all(header::AUTHORIZATION).iter().take(MAX_SIGNATURES);
        let mut signatures: Vec<Authorization> = Vec::new();
        for header in headers {
            let header = header.to_str().map_err(|_| AuthorizationError::Syntax("it isn't text"));
            let signature = header.and_then(Authorization::parse).map_err(|cause| unauthorized(&cause))?;
            signature.check_destination(&app.server_name).map_err(|cause| unauthorized(&cause))?;
            if signatures.first().is_some_and(|first| first.origin != signature.origin) {
                return Err(unauthorized(&AuthorizationError::Parameter("origin")));
            }
            signatures.push(signature);
        }
        let Some(first) = signatures.first() else {
            let text = "this request needs an X-Matrix signature";
            return Err(MatrixError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", text));
        };
        let server = first.origin.clone();
        if server == app.server_name || !app.peers.allows(&server) {
            return Err(MatrixError::forbidden("this server doesn't speak to yours"));
        }
        let address = caller::origin(parts).ip;
        let key = LimitKey::Address(address);
        app.limits.check(Class::Federation, key).map_err(MatrixError::limit_exceeded)?;
        let place = app.limits.enter(Activity::Unproven, key).map_err(MatrixError::limit_exceeded)?;
        let memory = app.limits.memory_for(announced(parts)).map_err(MatrixError::limit_exceeded)?;
        Ok(Self { server, address, signatures, place: Held::unproven(place, memory) })
    }

    fn limit_key(&self) -> LimitKey {
        LimitKey::Address(self.address)
    }

    fn max_body(&self, parts: &Parts) -> usize {
        max_body(parts)
    }

    async fn confirm(&self, app: &App, parts: &Parts, body: &Bytes) -> Result<(), MatrixError> {
        let sent = parts.extensions.get().map(|AsSent(sent)| sent);
        let uri = sent.or(parts.uri.path_and_query()).map_or("/", http::uri::PathAndQuery::as_str);
        let content = (!body.is_empty()).then(|| std::str::from_utf8(body)).transpose();
        let content = content.map_err(|_| MatrixError::not_json("the body is not UTF-8"))?;
        let mut wants = Wants::default();
        self.signatures.iter().for_each(|signature| wants.add_request(signature));
        let found = app.peers.keys.find(&wants).await;
        let mut wrong = None;
        for signature in &self.signatures {
            let Some(key) = found.for_request(signature) else { continue };
            match signature.verify(&app.server_name, parts.method.as_str(), uri, content, &key) {
                Ok(()) => {
                    app.peers.heard_from(&self.server);
                    let key = LimitKey::named(self.server.as_str());
                    app.limits.check(Class::Federation, key).map_err(MatrixError::limit_exceeded)?;
                    let place = app.limits.enter(Activity::Federation, key);
                    self.place.prove(place.map_err(MatrixError::limit_exceeded)?);
                    return Ok(());
                }
                Err(cause) => wrong = Some(cause),
            }
        }
        match wrong {
            Some(AuthorizationError::Content(cause)) => Err(MatrixError::not_json(cause.to_string())),
            Some(cause) => Err(unauthorized(&cause)),
            None => {
                let cause = app.peers.keys.problem(&self.server);
                let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
                let text = format!("the key of {} that signed this request can't be had{cause}", self.server);
                Err(MatrixError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", text))
            }
        }
    }
}
