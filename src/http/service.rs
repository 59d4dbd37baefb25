//! The one way from a request to its answer: what holds for every request is done here, by one function, around the
//! router. Request ids and the log, CORS, preflights, panics, JSON for what isn't there, metrics.
//!
//! One function rather than layers: each layer would make the future of a waiting long poll larger and each request
//! slower.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use axum::{Router, body::Body, response::IntoResponse as _, routing::future::RouteFuture};
use futures_util::FutureExt as _;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
    uri::PathAndQuery,
};
use hyper::body::Incoming;
use tower_service::Service as _;
use tracing::{Instrument as _, debug, error_span};

use super::{MatrixError, Peer, metrics::Present};

/// Also in the log, so that a user's complaint leads to the line that explains it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What a listener answers with; made once, shared by all of its connections.
pub struct Site {
    router: Router,
    /// A reverse proxy says who the client is.
    behind_proxy: bool,
    /// The listener speaks TLS.
    secure: bool,
    /// The number of the next request. It begins at random, so that ids of two runs don't meet in one log.
    next: AtomicU64,
}

impl Site {
    pub fn new(router: Router, behind_proxy: bool, secure: bool, seed: u64) -> Arc<Self> {
        Arc::new(Self { router, behind_proxy, secure, next: AtomicU64::new(seed) })
    }

    /// Answers one request; never fails. What can be done at once is done before the future is made, which every waiting
    /// long poll keeps in memory.
    pub(super) fn answer(
        &self,
        peer: SocketAddr,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + use<> {
        let start = Instant::now();
        let present = Present::request();
        let id = HexId::new(self.next.fetch_add(1, Ordering::Relaxed));
        let span = error_span!(
            "request",
            id = id.as_str(),
            method = request.method().as_str(),
            path = request.uri().path()
        );
        // Whoever reads a request by its Content-Length although it is chunked sees another request in what follows. The
        // length is hidden from us by then, so nothing that follows a chunked request is read at all (RFC 9112, 6.1).
        let last = request.version() == Version::HTTP_11
            && request.headers().contains_key(header::TRANSFER_ENCODING);
        // A preflight asks about the headers alone, whether the path exists or not.
        let answer =
            (request.method() != Method::OPTIONS).then(|| span.in_scope(|| self.route(peer, request)));
        async move {
            let mut response = match answer {
                Some(answer) => caught(answer).instrument(span.clone()).await,
                None => StatusCode::NO_CONTENT.into_response(),
            };
            cors(response.headers_mut());
            if last {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            if let Ok(id) = HeaderValue::from_str(id.as_str()) {
                response.headers_mut().insert(REQUEST_ID, id);
            }
            span.in_scope(|| {
                let milliseconds = start.elapsed().as_millis() as u64;
                debug!(status = response.status().as_u16(), milliseconds, "answered");
            });
            drop(present);
            Ok(response)
        }
    }

    fn route(&self, peer: SocketAddr, request: Request<Incoming>) -> RouteFuture<Infallible> {
        let mut request = request.map(Body::new);
        let proxied = self.behind_proxy.then(|| request.headers());
        let client = proxied.and_then(forwarded_for);
        let address = client.map_or(peer, |client| SocketAddr::new(client, 0));
        let secure = self.secure || proxied.is_some_and(forwarded_securely);
        request.extensions_mut().insert(Peer { address, secure });
        if let Some(sent) = without_trailing_slash(request.uri_mut()) {
            request.extensions_mut().insert(AsSent(sent));
        }
        self.router.clone().call(request)
    }
}

/// The answer, whatever happens on the way. A handler that panicked has lost its own request only: state that it shared
/// is behind locks that don't poison.
pub async fn caught(answer: RouteFuture<Infallible>) -> Response<Body> {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(Ok(response)) => response,
        Err(panic) => {
            let cause = format!("its handler panicked: {}", reason(panic.as_ref()));
            MatrixError::internal(&cause).into_response()
        }
    }
}

/// The address that the nearest proxy has added, behind what its clients may have made up.
fn forwarded_for(headers: &HeaderMap) -> Option<IpAddr> {
    let last = headers.get_all("x-forwarded-for").iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

/// Whether the nearest proxy says that it was asked over HTTPS.
fn forwarded_securely(headers: &HeaderMap) -> bool {
    let last = headers.get_all("x-forwarded-proto").iter().next_back();
    last.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// For paths that no route has.
pub async fn unrecognized_path() -> MatrixError {
    MatrixError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "this server has no such endpoint")
}

/// For paths that have other methods only.
pub async fn unrecognized_method() -> MatrixError {
    MatrixError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "M_UNRECOGNIZED",
        "this endpoint doesn't know that method",
    )
}

/// The answer to any site of the web may be read by it: access tokens are never sent by a browser on its own.
fn cors(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("GET, POST, PUT, DELETE, OPTIONS"),
    );
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("X-Requested-With, Content-Type, Authorization, If-Match, If-None-Match"),
    );
    // Browsers ask before every request otherwise, which is half of their traffic.
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
}

/// Path and query as they were sent, if the request has others by now: whoever signs a request signs these.
#[derive(Clone)]
pub(super) struct AsSent(pub(super) PathAndQuery);

/// A slash at the end means nothing: routes are mounted without it, and clients send it with and without. What was there, if
/// that is changed.
fn without_trailing_slash(uri: &mut Uri) -> Option<PathAndQuery> {
    let path = uri.path();
    if path.len() < 2 || !path.ends_with('/') {
        return None;
    }
    let sent = uri.path_and_query().cloned();
    let path = path.trim_end_matches('/');
    let path = if path.is_empty() { "/" } else { path };
    let trimmed = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = trimmed.ok();
    *uri = Uri::from_parts(parts).ok()?;
    sent
}

fn reason(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no reason given",
    }
}

/// A request's id in sixteen hexadecimal digits, without an allocation.
struct HexId([u8; 16]);

impl HexId {
    fn new(number: u64) -> Self {
        let digit = |shift: u32| b"0123456789abcdef"[(number >> shift) as usize & 15];
        Self(std::array::from_fn(|index| digit(60 - 4 * index as u32)))
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    #[test]
    fn ids_are_hexadecimal() {
        assert_eq!(HexId::new(0x01_23_45_67_89_ab_cd_ef).as_str(), "0123456789abcdef");
    }

    #[test]
    fn only_what_the_nearest_proxy_says_of_the_client_is_believed() {
        let of = |lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("x-forwarded-for", HeaderValue::from_static(line));
            }
            forwarded_for(&headers).map(|client| client.to_string())
        };
        assert_eq!(of(&["10.0.0.1, 192.0.2.7"]).as_deref(), Some("192.0.2.7"));
        assert_eq!(of(&["10.0.0.1", "2001:db8::1"]).as_deref(), Some("2001:db8::1"));
        assert_eq!(of(&["nonsense"]), None);
        assert_eq!(of(&[]), None);
    }

    #[tokio::test]
    async fn i8_a_handler_that_panics_loses_its_own_request_only() {
        let panics = || async {
            assert!(std::hint::black_box(false), "on purpose");
        };
        let mut router =
            Router::new().route("/panics", get(panics)).route("/works", get(|| async { "it does" }));
        let mut ask = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            caught(router.call(request))
        };
        let failed = ask("/panics").await;
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(failed.headers()[header::CONTENT_TYPE], "application/json");
        assert_eq!(ask("/works").await.status(), StatusCode::OK);
    }

    #[test]
    fn a_slash_at_the_end_means_nothing() {
        for (given, expected) in [
            ("/a/b/?c=/", "/a/b?c=/"),
            ("/a/%2F/", "/a/%2F"),
            ("/", "/"),
            ("//", "/"),
            ("/a", "/a"),
            ("http://host/a/", "http://host/a"),
        ] {
            let mut uri: Uri = given.parse().unwrap();
            without_trailing_slash(&mut uri);
            assert_eq!(uri.to_string(), expected);
        }
    }
}
