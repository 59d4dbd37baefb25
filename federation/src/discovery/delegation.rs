//! `/.well-known/matrix/server`: to whom a host delegates, and how long that is remembered.
//!
//! Owns redirects, the reading of an answer, and its lifetime. It remembers nothing itself.
//!
//! Specification: step 3 of [Resolving server
//! names](https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names) (SD-03, SD-04).

use std::time::{Duration, SystemTime};

use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName};
use url::Url;

use crate::{
    Task,
    json::{self, Value},
};

/// Bytes of an answer past which it isn't read.
pub const MAX_WELL_KNOWN_BYTES: usize = 50 * 1024;
const MAX_REDIRECTS: usize = 5;

const DEFAULT: Duration = Duration::from_hours(24);
const LONGEST: Duration = Duration::from_hours(48);
/// Whatever the answer says, so that it can't make us ask with every request.
const SHORTEST: Duration = Duration::from_mins(5);

/// An answer to a GET by HTTPS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WebAnswer {
    /// The status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// `Cache-Control`.
    pub cache_control: Option<String>,
    /// `Expires`.
    pub expires: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// HTTPS as browsers do it: certificates of the host in the address, port 443, addresses that are open to everybody.
pub trait Web: Send + Sync {
    /// A GET, without following redirects. Fails for a body of more than `limit` bytes, and after a time of its own.
    fn get<'a>(&'a self, url: &'a Url, limit: usize) -> Task<'a, Result<WebAnswer, String>>;
}

/// Why a host delegates to nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoDelegation {
    /// It can't be reached, or is troubled (5xx, 429): it may well delegate.
    #[error("it can't be reached: {0}")]
    Unreachable(String),
    /// It answers something else.
    #[error("{0}")]
    Invalid(String),
}

/// To whom a host delegates, and how long that holds.
pub(super) type Delegation = Result<(OwnedServerName, Duration), NoDelegation>;

/// Ask a host. Every address that was asked is appended to `asked`.
pub(super) async fn ask(
    web: &dyn Web,
    host: &str,
    now: MilliSecondsSinceUnixEpoch,
    asked: &mut Vec<String>,
) -> Delegation {
    let invalid = |what: &str| NoDelegation::Invalid(what.to_owned());
    let mut url = Url::parse(&format!("https://{host}/.well-known/matrix/server"))
        .map_err(|_| invalid("the host has no address on the web"))?;
    loop {
        if asked.iter().any(|before| before == url.as_str()) {
            return Err(invalid("its redirects go round in a circle"));
        }
        if asked.len() > MAX_REDIRECTS {
            return Err(invalid("it redirects too often"));
        }
        asked.push(url.to_string());
        let answer = web.get(&url, MAX_WELL_KNOWN_BYTES).await.map_err(NoDelegation::Unreachable)?;
        match answer.status {
            200 => {
                let lifetime = lifetime(&answer, now);
                return read(&answer.body).map(|server| (server, lifetime));
            }
            301 | 302 | 303 | 307 | 308 => {
                let next = answer.location.as_deref().and_then(|location| url.join(location).ok());
                url = next.ok_or_else(|| invalid("it redirects to nowhere"))?;
                url.set_fragment(None);
                // Anybody on the way could have written what comes in the open.
                if url.scheme() != "https" || !url.username().is_empty() || url.password().is_some() {
                    return Err(invalid("it redirects to an address that isn't HTTPS"));
                }
            }
            status @ (429 | 500..) => {
                return Err(NoDelegation::Unreachable(format!("it answers with status {status}")));
            }
            status => return Err(NoDelegation::Invalid(format!("it answers with status {status}"))),
        }
    }
}

/// `m.server`, whatever the answer's type.
fn read(body: &[u8]) -> Result<OwnedServerName, NoDelegation> {
    let invalid = |what: &str| NoDelegation::Invalid(what.to_owned());
    let value = json::parse_bytes(body).map_err(|_| invalid("its answer is not JSON"))?;
    let server = value.as_object().and_then(|object| object.get("m.server")).and_then(Value::as_str);
    let server = server.ok_or_else(|| invalid("its answer has no `m.server`"))?;
    OwnedServerName::try_from(server).map_err(|_| invalid("its `m.server` is not a server name"))
}

/// By `Cache-Control`, then `Expires` (RFC 9111, section 4.2.1).
fn lifetime(answer: &WebAnswer, now: MilliSecondsSinceUnixEpoch) -> Duration {
    let directives = answer.cache_control.as_deref().unwrap_or_default();
    let mut stated = None;
    for directive in directives.split(',').map(str::trim) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => stated = Some(Duration::ZERO),
            "max-age" if stated.is_none() => {
                let seconds = value.trim().trim_matches('"').parse::<u64>().ok();
                stated = seconds.map(Duration::from_secs);
            }
            _ => {}
        }
    }
    let expires = || {
        // What isn't a date, such as `0`, is in the past.
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now.get().into());
        let at = httpdate::parse_http_date(answer.expires.as_deref()?).unwrap_or(SystemTime::UNIX_EPOCH);
        Some(at.duration_since(now).unwrap_or_default())
    };
    stated.or_else(expires).unwrap_or(DEFAULT).clamp(SHORTEST, LONGEST)
}
