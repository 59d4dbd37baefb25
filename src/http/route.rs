//! From a Matrix endpoint's definition to a handler.
//!
//! A handler is `async fn(App, Caller, Request) -> Result<impl Reply, MatrixError>`. [`Routes::add`] mounts it under all
//! paths that the request's definition knows, with `r0` beside every `v3`, and keeps the table of what is served.

use std::{
    collections::BTreeSet,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{FromRequestParts as _, RawPathParams, Request},
    handler::Handler,
    response::{IntoResponse, Response},
    routing::{MethodFilter, on},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{Method, StatusCode, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ruma::api::{
    IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt,
    error::{DeserializationError, FromHttpRequestError},
    path_builder::PathBuilder,
};
use serde::de::IgnoredAny;

use super::{Caller, MatrixError, metrics::RouteMetrics, openness::Openness};
use crate::{app::App, limits::Class};

/// The largest body of a JSON request. The longest legal text (100,000 characters, plain and formatted) stays below it
/// with every character escaped, as some clients do: twelve bytes for an emoji.
pub const MAX_BODY: usize = 5 * 512 * 1024;

/// How long a body may take to arrive, also one that is too large.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);

/// What is read and thrown away of a body that is too large, so that its client gets to reading the answer. Neither a server
/// nor a client that stands still for a while should miss it.
const MOST_PASSED_OVER: usize = 4 * MAX_BODY;
const PASSING_OVER: Duration = Duration::from_secs(20);

/// What a handler may answer with.
pub trait Reply {
    fn reply(self) -> Result<Response, MatrixError>;
}

impl<T: OutgoingResponse> Reply for T {
    fn reply(self) -> Result<Response, MatrixError> {
        let response =
            self.try_into_http_response::<Vec<u8>>().map_err(|cause| MatrixError::internal(&cause))?;
        Ok(response.map(Body::from))
    }
}

/// A JSON body that ruma has no type for.
pub struct Json<T>(pub T);

impl<T: serde::Serialize> Reply for Json<T> {
    fn reply(self) -> Result<Response, MatrixError> {
        let body = serde_json::to_vec(&self.0).map_err(|cause| MatrixError::internal(&cause))?;
        Ok(json_response(StatusCode::OK, body))
    }
}

impl<T: serde::Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        self.reply().unwrap_or_else(IntoResponse::into_response)
    }
}

/// An answer that the handler has made whole.
pub struct Whole(pub Response);

impl Reply for Whole {
    fn reply(self) -> Result<Response, MatrixError> {
        Ok(self.0)
    }
}

pub fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, json);
    response
}

/// The endpoints of an API: a router, and the list of what is in it.
#[derive(Default)]
pub struct Routes {
    router: Router<App>,
    served: BTreeSet<(String, String)>,
    /// Those of them that count against a rate limit.
    limited: BTreeSet<(String, String)>,
}

impl Routes {
    /// Mounts a handler for a ruma request under all its paths.
    pub fn add<R, C, O, H, F>(self, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        C: Caller + 'static,
        O: Reply + 'static,
        H: Fn(App, C, R) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<O, MatrixError>> + Send + 'static,
    {
        let class = if R::RATE_LIMITED { Class::Default } else { Class::Free };
        self.limited(class, handler)
    }

    /// [`Self::add`] with a rate limit of its own.
    pub fn limited<R, C, O, H, F>(mut self, class: Class, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        C: Caller + 'static,
        O: Reply + 'static,
        H: Fn(App, C, R) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<O, MatrixError>> + Send + 'static,
    {
        let paths: BTreeSet<String> =
            R::PATH_BUILDER.all_paths().flat_map(|path| [path.to_owned(), historical(path)]).collect();
        for path in paths {
            self = self.limited_alias(class, &path, handler.clone());
        }
        self
    }

    /// Mounts the handler of a known request under one more path with the same parameters.
    pub fn alias<R, C, O, H, F>(self, path: &str, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        C: Caller + 'static,
        O: Reply + 'static,
        H: Fn(App, C, R) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<O, MatrixError>> + Send + 'static,
    {
        let class = if R::RATE_LIMITED { Class::Default } else { Class::Free };
        self.limited_alias(class, path, handler)
    }

    /// [`Self::alias`] with a rate limit of its own.
    pub fn limited_alias<R, C, O, H, F>(mut self, class: Class, path: &str, handler: H) -> Self
    where
        R: IncomingRequest + Send + 'static,
        C: Caller + 'static,
        O: Reply + 'static,
        H: Fn(App, C, R) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Result<O, MatrixError>> + Send + 'static,
    {
        if class != Class::Free {
            self.limited.insert((R::METHOD.to_string(), path.to_owned()));
        }
        self.mount(R::METHOD, path, Endpoint { class, handler })
    }

    /// Mounts a plain axum handler. Its parameters are known by their order alone, not by their names (see `by_order`);
    /// a slash at the end of the path means nothing.
    pub fn mount<H, T>(mut self, method: Method, path: &str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        // Paths of two definitions may be one after `r0` was added; the first stays.
        if self.served.insert((method.to_string(), path.to_owned())) {
            let metrics = RouteMetrics::new(method.as_str(), path);
            let open = Openness::of(&method, path);
            let filter = MethodFilter::try_from(method).unwrap_or(MethodFilter::GET);
            self.router = self.router.route(&by_order(path), on(filter, Measured { handler, metrics, open }));
        }
        self
    }

    pub fn merge(mut self, other: Self) -> Self {
        self.router = self.router.merge(other.router);
        self.served.extend(other.served);
        self.limited.extend(other.limited);
        self
    }

    /// Every (method, path) that is served.
    #[cfg(test)]
    pub fn served(&self) -> &BTreeSet<(String, String)> {
        &self.served
    }

    /// Every (method, path) that counts against a rate limit.
    #[cfg(test)]
    pub fn limited_paths(&self) -> &BTreeSet<(String, String)> {
        &self.limited
    }

    pub fn into_router(self) -> Router<App> {
        self.router
    }
}

/// The name of a path before the specification had version numbers of its own. Old clients know no other.
fn historical(path: &str) -> String {
    path.replacen("/_matrix/client/v3/", "/_matrix/client/r0/", 1)
}

/// A path whose parameters are called by their number. One router may hold `/rooms/{room_id}` and `/rooms/{id}/x`
/// then, whoever defined them.
fn by_order(path: &str) -> String {
    let mut count = 0;
    let segments = path.split('/').map(|segment| {
        if segment.starts_with('{') {
            count += 1;
            format!("{{{count}}}")
        } else {
            segment.to_owned()
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

/// A handler, the metrics of its route, and who may use that.
struct Measured<H> {
    handler: H,
    metrics: Arc<RouteMetrics>,
    open: Openness,
}

impl<H: Clone> Clone for Measured<H> {
    fn clone(&self) -> Self {
        Self { handler: self.handler.clone(), metrics: Arc::clone(&self.metrics), open: self.open }
    }
}

impl<T, H: Handler<T, App>> Handler<T, App> for Measured<H> {
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, mut request: Request, app: App) -> Self::Future {
        let start = Instant::now();
        request.extensions_mut().insert(self.open);
        let answer = self.handler.call(request, app);
        let metrics = self.metrics;
        Box::pin(answer.inspect(move |response| metrics.record(response.status(), start)))
    }
}

/// A handler with what is done before it is called.
#[derive(Clone)]
struct Endpoint<H> {
    class: Class,
    handler: H,
}

/// A handler at work.
type Answer<O> = Pin<Box<dyn Future<Output = Result<O, MatrixError>> + Send>>;

impl<R, C, O, H, F> Handler<(R, C, O, F), App> for Endpoint<H>
where
    R: IncomingRequest + Send + 'static,
    C: Caller + 'static,
    O: Reply + 'static,
    H: Fn(App, C, R) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<O, MatrixError>> + Send + 'static,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    /// The way to the handler is a future of its own, which is gone when the handler begins: a long poll that waits for
    /// an hour keeps the handler's state in memory, and nothing else.
    fn call(self, request: Request, app: App) -> Self::Future {
        let prepared = Box::pin(self.prepare(request, app));
        Box::pin(async move {
            let answer = prepared.await;
            let answer = match answer {
                Ok(answer) => answer.await.and_then(Reply::reply),
                Err(error) => Err(error),
            };
            answer.unwrap_or_else(IntoResponse::into_response)
        })
    }
}

impl<H> Endpoint<H> {
    async fn prepare<R, C, O, F>(self, request: Request, app: App) -> Result<Answer<O>, MatrixError>
    where
        R: IncomingRequest,
        C: Caller,
        H: Fn(App, C, R) -> F,
        F: Future<Output = Result<O, MatrixError>> + Send + 'static,
    {
        let (mut parts, body) = request.into_parts();
        let params = RawPathParams::from_request_parts(&mut parts, &app).await;
        let params = params.map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
        let caller = C::identify(&app, &parts).await?;
        app.limits.check(self.class, caller.limit_key()).map_err(MatrixError::limit_exceeded)?;
        let body = read_up_to(caller.max_body(&parts), &parts, body).await?;
        caller.confirm(&app, &parts, &body).await?;
        let request = parse::<R>(parts, &params, &body)?;
        Ok(Box::pin((self.handler)(app, caller, request)))
    }
}

/// The whole body, or an error as soon as it is clear that it is too large.
pub async fn read(parts: &Parts, body: Body) -> Result<Bytes, MatrixError> {
    read_up_to(MAX_BODY, parts, body).await
}

/// [`read`] with a limit of its own, in bytes.
pub async fn read_up_to(most: usize, parts: &Parts, body: Body) -> Result<Bytes, MatrixError> {
    read_within(BODY_TIMEOUT, most, parts, body).await
}

/// [`read_up_to`] for a body that may take another time to arrive.
pub(super) async fn read_within(
    time: Duration,
    most: usize,
    parts: &Parts,
    mut body: Body,
) -> Result<Bytes, MatrixError> {
    let end = tokio::time::Instant::now() + time;
    let too_large = || MatrixError::too_large(format!("the body is larger than the limit of {most} bytes"));
    let announced = parts
        .headers
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = announced.filter(|length| *length > most as u64) {
        if length <= MOST_PASSED_OVER as u64 {
            pass_over(&mut body, end).await;
        }
        return Err(too_large());
    }
    if parts.headers.get(http::header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(MatrixError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "M_UNKNOWN",
            "compressed requests are not accepted",
        ));
    }
    let collected =
        tokio::time::timeout_at(end, Limited::new(&mut body, most).collect()).await.map_err(|_| {
            MatrixError::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "the body came too slowly")
        })?;
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(cause) if cause.is::<LengthLimitError>() => {
            pass_over(&mut body, end).await;
            Err(too_large())
        }
        Err(_) => Err(MatrixError::bad_json("the body ended early")),
    }
}

/// Whoever still writes when the connection is closed gets a broken pipe for an answer.
async fn pass_over(body: &mut Body, end: tokio::time::Instant) {
    let rest = async {
        let mut left = MOST_PASSED_OVER;
        while let Some(Ok(frame)) = body.frame().await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length > left {
                break;
            }
            left -= length;
        }
    };
    // Whoever takes longer, or sends more, has had the chance.
    let end = end.min(tokio::time::Instant::now() + PASSING_OVER);
    let _ = tokio::time::timeout_at(end, rest).await;
}

fn parse<R: IncomingRequest>(parts: Parts, params: &RawPathParams, body: &Bytes) -> Result<R, MatrixError> {
    let params: Vec<&str> = params.iter().map(|(_, value)| value).collect();
    // Clients leave out bodies that would be `{}`.
    let body: &[u8] = if body.is_empty() && parts.method != Method::GET { b"{}" } else { body.as_ref() };
    // Whatever is read by its fields could be read by their order as well.
    if body.trim_ascii_start().starts_with(b"[") && is_json(body) {
        return Err(MatrixError::bad_json("the body has to be an object"));
    }
    R::try_from_http_request(http::Request::from_parts(parts, body), &params)
        .map_err(|cause| explain(cause, body))
}

fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// Tells broken JSON, JSON of the wrong shape and wrong parameters apart.
fn explain(cause: FromHttpRequestError, body: &[u8]) -> MatrixError {
    match cause {
        FromHttpRequestError::Deserialization(cause) => match cause {
            DeserializationError::Json(_) if !is_json(body) => MatrixError::not_json("the body is not JSON"),
            DeserializationError::Json(cause) => MatrixError::bad_json(cause.to_string()),
            DeserializationError::Utf8(_) => MatrixError::not_json("the body is not UTF-8"),
            DeserializationError::Query(cause) => {
                let text = cause.to_string();
                if text.contains("missing field") {
                    MatrixError::missing_param(text)
                } else {
                    MatrixError::invalid_param(text)
                }
            }
            cause => MatrixError::invalid_param(cause.to_string()),
        },
        cause => MatrixError::internal(&cause),
    }
}
