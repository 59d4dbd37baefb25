//! A request to a server, and what can come of it.

use std::time::Duration;

use http::{Method, StatusCode};
use ruma::OwnedServerName;

use super::{connect::ConnectError, exchange::Response};
use crate::{
    discovery::DiscoveryError,
    json::{self, JsonError, Value},
};

/// Bytes of an answer that are read unless the request says otherwise.
const DEFAULT_LIMIT: usize = 10 * 1024 * 1024;

/// A request to another server.
#[derive(Debug, Clone)]
pub struct ServerRequest {
    pub(super) method: Method,
    pub(super) uri: String,
    pub(super) body: Option<String>,
    pub(super) signed: bool,
    pub(super) limit: usize,
    pub(super) timeout: Option<Duration>,
}

impl ServerRequest {
    /// `uri` is the path and the query, percent-encoded; `body` is JSON.
    pub fn new(method: Method, uri: impl Into<String>, body: Option<String>) -> Self {
        Self { method, uri: uri.into(), body, signed: true, limit: DEFAULT_LIMIT, timeout: None }
    }

    /// A GET.
    pub fn get(uri: impl Into<String>) -> Self {
        Self::new(Method::GET, uri, None)
    }

    /// A PUT of JSON.
    pub fn put(uri: impl Into<String>, body: impl Into<String>) -> Self {
        Self::new(Method::PUT, uri, Some(body.into()))
    }

    /// A POST of JSON.
    pub fn post(uri: impl Into<String>, body: impl Into<String>) -> Self {
        Self::new(Method::POST, uri, Some(body.into()))
    }

    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path and the query.
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// The JSON that is sent, if any.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }

    /// Whether it is to be signed.
    pub fn is_signed(&self) -> bool {
        self.signed
    }

    /// How long it may take, if it says so.
    pub fn patience(&self) -> Option<Duration> {
        self.timeout
    }

    /// Don't sign it: keys and versions are for everybody.
    #[must_use]
    pub fn unsigned(self) -> Self {
        Self { signed: false, ..self }
    }

    /// Read at most so many bytes of the answer, instead of ten megabytes.
    #[must_use]
    pub fn limit(self, bytes: usize) -> Self {
        Self { limit: bytes, ..self }
    }

    /// Let it all take so long at most, instead of what the settings say.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self }
    }

    /// Whether to do it twice is as good as once.
    pub(super) fn is_repeatable(&self) -> bool {
        self.method != Method::POST
    }
}

/// Why a request had no good answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The operator's lists forbid to speak to it.
    #[error("{0} is not a server that we speak to")]
    NotAllowed(OwnedServerName),
    /// The request can't be sent to anybody.
    #[error("the request can't be sent: {0}")]
    Request(String),
    /// The body isn't JSON.
    #[error("the request can't be signed: {0}")]
    Content(#[from] JsonError),
    /// Nobody knows where it is.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// It isn't there, or isn't who it should be.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It took longer than it may in all.
    #[error("the request took too long")]
    TimedOut,
    /// The answer came too slowly to be waited for.
    #[error("the answer comes too slowly")]
    Stalled,
    /// The answer is longer than what was asked for can be.
    #[error("the answer is longer than {limit} bytes")]
    TooLarge {
        /// Bytes that are allowed.
        limit: usize,
    },
    /// What came isn't HTTP, or ended before its end.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It refused.
    #[error("{status}: {errcode}: {message}")]
    Refused {
        /// The status; redirects aren't followed, so they are here too.
        status: StatusCode,
        /// The code of the specification, or `M_UNKNOWN`.
        errcode: String,
        /// Its words; at most a thousand characters. For people, and not to be trusted.
        message: String,
        /// When it may be asked again, if it says so, in milliseconds.
        retry_after_ms: Option<u64>,
    },
}

impl ClientError {
    /// Whether the server is to blame and not the request: the next request would go no better.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NotAllowed(_) | Self::Request(_) | Self::Content(_) | Self::TooLarge { .. } => false,
            Self::Discovery(_) | Self::Connect(_) | Self::TimedOut | Self::Stalled | Self::Broken(_) => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
        }
    }

    /// From an answer that isn't a good one.
    pub(super) fn refused(response: &Response) -> Self {
        let parsed = json::parse_bytes(&response.body).ok();
        let object = parsed.as_ref().and_then(Value::as_object);
        let text = |key: &str, most: usize| {
            let text = object?.get(key)?.as_str()?;
            Some(text.chars().filter(|character| !character.is_control()).take(most).collect())
        };
        let retry_after = object.and_then(|object| object.get("retry_after_ms")).and_then(Value::as_integer);
        Self::Refused {
            status: response.status,
            errcode: text("errcode", 255).unwrap_or_else(|| "M_UNKNOWN".to_owned()),
            message: text("error", 1000).unwrap_or_default(),
            retry_after_ms: retry_after.and_then(|time| u64::try_from(time).ok()),
        }
    }
}
