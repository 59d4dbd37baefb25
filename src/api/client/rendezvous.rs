//! Rendezvous, where two devices meet for signing in by a QR code, in both forms that clients speak: as a resource of its own
//! with an `ETag` (MSC4108, as of 2024) and as JSON with a `sequence_token` (MSC4388).

use std::time::{Duration, UNIX_EPOCH};

use axum::{
    extract::{FromRequestParts as _, RawPathParams, Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use ruma::http_headers::system_time_to_http_date;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    app::App,
    config::OpenTo,
    http::{Caller as _, Json, MatrixError, Reply as _, Routes, Visitor, base_url, read_up_to},
    limits::Class,
    rendezvous::{Error, Form, Payload, Replaced},
};

const MSC4108: &str = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous";
const MSC4388: &str = "/_matrix/client/unstable/io.element.msc4388/rendezvous";

/// Bytes of a body: room for a payload with each of its characters escaped.
const MAX_BODY: usize = 32 * 1024;

pub(super) fn routes() -> Routes {
    let one = |path: &str| format!("{path}/{{id}}");
    Routes::default()
        .mount(Method::POST, MSC4108, open_resource)
        .mount(Method::GET, &one(MSC4108), get_resource)
        .mount(Method::PUT, &one(MSC4108), put_resource)
        .mount(Method::DELETE, &one(MSC4108), delete_resource)
        .mount(Method::GET, MSC4388, discover)
        .mount(Method::POST, MSC4388, open)
        .mount(Method::GET, &one(MSC4388), get)
        .mount(Method::PUT, &one(MSC4388), put)
        .mount(Method::DELETE, &one(MSC4388), delete)
}

/// Names of features by which clients find this, as the operator has it.
pub(super) fn features(open_to: OpenTo) -> &'static [&'static str] {
    match open_to {
        OpenTo::Everybody => &["org.matrix.msc4108", "io.element.msc4388"],
        // The older form knows no access tokens.
        OpenTo::Users => &["io.element.msc4388"],
        OpenTo::Nobody => &[],
    }
}

impl From<Error> for MatrixError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error {
            Error::NotFound => Self::not_found(text),
            Error::ConcurrentWrite => {
                Self::new(StatusCode::CONFLICT, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE", text)
            }
            Error::TooLarge => Self::too_large(text),
            Error::TooMany { wait_ms } => Self::limit_exceeded(Duration::from_millis(wait_ms.unsigned_abs())),
        }
    }
}

/// Lets in whoever may ask, and that often: whoever knows the name of a rendezvous may use it.
async fn enter(app: &App, parts: &Parts) -> Result<Visitor, MatrixError> {
    if app.config.qr_sign_in.rendezvous == OpenTo::Nobody {
        let text = "this server has no rendezvous";
        return Err(MatrixError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", text));
    }
    let visitor = Visitor::identify(app, parts).await?;
    app.limits.check(Class::Default, visitor.limit_key()).map_err(MatrixError::limit_exceeded)?;
    Ok(visitor)
}

fn may_open(app: &App, visitor: &Visitor) -> bool {
    app.config.qr_sign_in.rendezvous == OpenTo::Everybody || visitor.session.is_some()
}

fn check_may_open(app: &App, visitor: &Visitor) -> Result<(), MatrixError> {
    if may_open(app, visitor) {
        Ok(())
    } else {
        Err(MatrixError::forbidden("only users of this server can open a rendezvous"))
    }
}

/// The name of a rendezvous in the path.
async fn id(app: &App, parts: &mut Parts) -> Result<String, MatrixError> {
    let params = RawPathParams::from_request_parts(parts, app).await;
    let params = params.map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    params.iter().next().map(|(_, id)| id.to_owned()).ok_or_else(|| Error::NotFound.into())
}

// MSC4108

/// What the answer says of the payload. Browsers don't show an `ETag` to a page without being told to.
fn headers(payload: &Payload) -> Result<HeaderMap, MatrixError> {
    let date = |ts: i64| {
        let time = UNIX_EPOCH + Duration::from_millis(ts.unsigned_abs());
        system_time_to_http_date(&time).map_err(|cause| MatrixError::internal(&cause))
    };
    let etag = HeaderValue::try_from(format!("\"{}\"", payload.revision))
        .map_err(|cause| MatrixError::internal(&cause))?;
    Ok(HeaderMap::from_iter([
        (header::ETAG, etag),
        (header::EXPIRES, date(payload.expires_ts)?),
        (header::LAST_MODIFIED, date(payload.modified_ts)?),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform")),
        (header::PRAGMA, HeaderValue::from_static("no-cache")),
        (header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("ETag")),
    ]))
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain");

fn answer(mut response: Response, payload: &Payload) -> Result<Response, MatrixError> {
    response.headers_mut().extend(headers(payload)?);
    Ok(response)
}

fn text(parts: &Parts, name: &HeaderName) -> Result<Option<String>, MatrixError> {
    let invalid = || MatrixError::invalid_param(format!("the header {name} is not valid"));
    let mut values = parts.headers.get_all(name).iter();
    let value = values.next().map(|value| value.to_str().map(str::to_owned).map_err(|_| invalid()));
    if values.next().is_some() { Err(invalid()) } else { value.transpose() }
}

/// The payload that was sent. HTTP itself says how long it is, whether by a Content-Length or not.
async fn resource(parts: &Parts, body: axum::body::Body) -> Result<Bytes, MatrixError> {
    let kind = text(parts, &header::CONTENT_TYPE)?
        .ok_or_else(|| MatrixError::missing_param("the header Content-Type is missing"))?;
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/plain") {
        return Err(MatrixError::invalid_param("the Content-Type is not text/plain"));
    }
    read_up_to(MAX_BODY, parts, body).await
}

async fn open_resource(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    let (parts, body) = request.into_parts();
    let visitor = enter(&app, &parts).await?;
    check_may_open(&app, &visitor)?;
    let data = resource(&parts, body).await?;
    let base = app.config.public_base_url.clone().or_else(|| base_url(&parts));
    let base = base.ok_or_else(|| MatrixError::missing_param("the header Host is missing"))?;
    let (id, payload) = app.rendezvous.open(Form::Msc4108, visitor.limit_key(), data)?;
    let url = format!("{}{MSC4108}/{id}", base.trim_end_matches('/'));
    let mut response = Json(json!({ "url": url })).reply()?;
    *response.status_mut() = StatusCode::CREATED;
    answer(response, &payload)
}

/// An `ETag` as clients send it, without its quotes.
fn revision(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix('"').and_then(|etag| etag.strip_suffix('"')).unwrap_or(etag)
}

async fn get_resource(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    let (mut parts, _) = request.into_parts();
    enter(&app, &parts).await?;
    let known = text(&parts, &header::IF_NONE_MATCH)?;
    let payload = app.rendezvous.read(Form::Msc4108, &id(&app, &mut parts).await?)?;
    let matches = |etag: &str| {
        let etag = etag.trim();
        etag == "*" || revision(etag.strip_prefix("W/").unwrap_or(etag)) == payload.revision
    };
    let response = if known.is_some_and(|known| known.split(',').any(matches)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, TEXT)], payload.data.clone()).into_response()
    };
    answer(response, &payload)
}

async fn put_resource(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    let (mut parts, body) = request.into_parts();
    enter(&app, &parts).await?;
    let known = text(&parts, &header::IF_MATCH)?
        .ok_or_else(|| MatrixError::missing_param("the header If-Match is missing"))?;
    let known = revision(&known);
    if known.is_empty() || !known.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(MatrixError::invalid_param("If-Match is not one strong ETag of this server"));
    }
    let data = resource(&parts, body).await?;
    match app.rendezvous.replace(Form::Msc4108, &id(&app, &mut parts).await?, known, data) {
        // Some proxies take the ETag from an answer without a type.
        Ok(payload) => {
            answer((StatusCode::ACCEPTED, [(header::CONTENT_TYPE, TEXT)]).into_response(), &payload)
        }
        Err(Replaced { error, payload: Some(payload) }) => {
            // The proposal's own code comes with its prefix as long as it is one.
            let error = MatrixError::new(StatusCode::PRECONDITION_FAILED, "M_UNKNOWN", error.to_string())
                .with("org.matrix.msc4108.errcode", "M_CONCURRENT_WRITE");
            answer(error.into_response(), &payload)
        }
        Err(Replaced { error, payload: None }) => Err(error.into()),
    }
}

async fn delete_resource(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    let (mut parts, _) = request.into_parts();
    enter(&app, &parts).await?;
    app.rendezvous.close(Form::Msc4108, &id(&app, &mut parts).await?)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

// MSC4388

async fn discover(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (parts, _) = request.into_parts();
    let visitor = enter(&app, &parts).await?;
    Ok(Json(json!({ "create_available": may_open(&app, &visitor) })))
}

async fn content<T: DeserializeOwned>(parts: &Parts, body: axum::body::Body) -> Result<T, MatrixError> {
    let body = read_up_to(MAX_BODY, parts, body).await?;
    let value: Value =
        serde_json::from_slice(&body).map_err(|cause| MatrixError::not_json(cause.to_string()))?;
    serde_json::from_value(value).map_err(|cause| MatrixError::bad_json(cause.to_string()))
}

#[derive(Deserialize)]
struct Opened {
    data: String,
}

/// Milliseconds that a rendezvous still has.
fn expires_in(app: &App, payload: &Payload) -> i64 {
    (payload.expires_ts - app.environment.clock.now_ms()).max(0)
}

async fn open(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (parts, body) = request.into_parts();
    let visitor = enter(&app, &parts).await?;
    check_may_open(&app, &visitor)?;
    let Opened { data } = content(&parts, body).await?;
    let (id, payload) = app.rendezvous.open(Form::Msc4388, visitor.limit_key(), data.into())?;
    let expires_in = expires_in(&app, &payload);
    Ok(Json(json!({ "id": id, "sequence_token": payload.revision, "expires_in_ms": expires_in })))
}

/// Nobody is to be shown a payload as a page of this server ("Unsafe content"): browsers say when they would.
fn check_destination(headers: &HeaderMap) -> Result<(), MatrixError> {
    let is =
        |name: &str, bad: fn(&[u8]) -> bool| headers.get(name).is_some_and(|value| bad(value.as_bytes()));
    let shown = is("sec-fetch-dest", |value| value != b"empty")
        || is("sec-fetch-mode", |value| value == b"navigate")
        || is("sec-fetch-user", |value| value == b"?1")
        || is("sec-fetch-site", |value| value == b"none");
    if shown { Err(MatrixError::forbidden("a rendezvous can't be shown by a browser")) } else { Ok(()) }
}

async fn get(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    let (mut parts, _) = request.into_parts();
    enter(&app, &parts).await?;
    check_destination(&parts.headers)?;
    let payload = app.rendezvous.read(Form::Msc4388, &id(&app, &mut parts).await?)?;
    let data = str::from_utf8(&payload.data).map_err(|cause| MatrixError::internal(&cause))?;
    let expires_in = expires_in(&app, &payload);
    let body = json!({ "data": data, "sequence_token": payload.revision, "expires_in_ms": expires_in });
    let mut response = Json(body).reply()?;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[derive(Deserialize)]
struct Sent {
    sequence_token: String,
    data: String,
}

async fn put(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (mut parts, body) = request.into_parts();
    enter(&app, &parts).await?;
    let Sent { sequence_token, data } = content(&parts, body).await?;
    let id = id(&app, &mut parts).await?;
    let replaced = app.rendezvous.replace(Form::Msc4388, &id, &sequence_token, data.into());
    let payload = replaced.map_err(|replaced| replaced.error)?;
    Ok(Json(json!({ "sequence_token": payload.revision })))
}

async fn delete(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (mut parts, _) = request.into_parts();
    enter(&app, &parts).await?;
    app.rendezvous.close(Form::Msc4388, &id(&app, &mut parts).await?)?;
    Ok(Json(json!({})))
}
