//! A device that its user leaves here and brings to life on the next login (MSC3814).

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::{FromRequestParts as _, RawPathParams, Request, State},
};
use http::{Method, request::Parts};
use ruma::OwnedDeviceId;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    account::{Session, checked_display_name},
    app::App,
    http::{Caller as _, Json, MatrixError, Routes, read},
    keys::{Dehydrated, Upload, to_device::PAGE},
    limits::Class,
};

const PATH: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device";
const EVENTS: &str = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device/{device_id}/events";

pub(super) fn routes() -> Routes {
    Routes::default()
        .mount(Method::PUT, PATH, put)
        .mount(Method::GET, PATH, get)
        .mount(Method::DELETE, PATH, delete)
        .mount(Method::POST, EVENTS, post_events)
        .mount(Method::GET, EVENTS, get_events)
}

async fn enter(app: &App, parts: &Parts) -> Result<Session, MatrixError> {
    let session = Session::identify(app, parts).await?;
    app.limits.check(Class::Default, session.limit_key()).map_err(MatrixError::limit_exceeded)?;
    Ok(session)
}

async fn content<T: DeserializeOwned>(parts: &Parts, body: Body) -> Result<T, MatrixError> {
    let body = read(parts, body).await?;
    let body = if body.is_empty() { b"{}".as_slice() } else { &body };
    let value: &RawValue =
        serde_json::from_slice(body).map_err(|cause| MatrixError::not_json(cause.to_string()))?;
    serde_json::from_str(value.get()).map_err(|cause| MatrixError::bad_json(cause.to_string()))
}

fn none() -> MatrixError {
    MatrixError::not_found("you have no dehydrated device")
}

#[derive(Deserialize)]
struct Put {
    device_id: OwnedDeviceId,
    device_data: Box<RawValue>,
    initial_device_display_name: Option<String>,
    device_keys: Map<String, Value>,
    one_time_keys: Option<BTreeMap<String, Value>>,
    fallback_keys: Option<BTreeMap<String, Value>>,
}

/// What is known of what it takes to bring a device to life.
#[derive(Deserialize)]
struct Data {
    #[serde(rename = "algorithm")]
    _algorithm: String,
}

async fn put(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (parts, body) = request.into_parts();
    let session = enter(&app, &parts).await?;
    let put: Put = content(&parts, body).await?;
    serde_json::from_str::<Data>(put.device_data.get())
        .map_err(|cause| MatrixError::bad_json(format!("`device_data`: {cause}")))?;
    let display_name = put.initial_device_display_name.as_deref();
    let new = Dehydrated {
        device_id: put.device_id.clone(),
        display_name: display_name.map(checked_display_name).transpose()?,
        data: put.device_data.get().to_owned(),
        keys: Upload {
            device_keys: Some(put.device_keys),
            one_time_keys: put.one_time_keys.unwrap_or_default(),
            fallback_keys: put.fallback_keys.unwrap_or_default(),
        },
    };
    let now = app.environment.clock.now_ms();
    app.keys.dehydrate(&session.user_id, session.recipient, new, now).await?;
    Ok(Json(json!({ "device_id": put.device_id })))
}

async fn get(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (parts, _) = request.into_parts();
    let session = enter(&app, &parts).await?;
    let device = app.keys.dehydrated(session.recipient).await?.ok_or_else(none)?;
    let data: Value = serde_json::from_str(&device.data).map_err(|cause| MatrixError::internal(&cause))?;
    Ok(Json(json!({ "device_id": device.device_id, "device_data": data })))
}

async fn delete(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (parts, _) = request.into_parts();
    let session = enter(&app, &parts).await?;
    let device = app.keys.dehydrated(session.recipient).await?.ok_or_else(none)?;
    app.accounts.delete_devices(session.recipient, &[device.device_id.as_str().into()]).await?;
    Ok(Json(json!({ "device_id": device.device_id })))
}

/// Messages of the device in the path after a place, and the place after these. The flag says whether there are more.
async fn page(
    app: &App,
    parts: &mut Parts,
    session: &Session,
    after: Option<&str>,
) -> Result<(Vec<Box<RawValue>>, i64, bool), MatrixError> {
    let params = RawPathParams::from_request_parts(parts, app).await;
    let params = params.map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let device_id = params.iter().next().map(|(_, id)| id).unwrap_or_default();
    let device = app.keys.dehydrated(session.recipient).await?;
    let device = device.filter(|device| device.device_id == device_id);
    let device = device.ok_or_else(|| MatrixError::forbidden("this is not your dehydrated device"))?;
    let after = after.map_or(Some(0), |after| after.parse().ok().filter(|after| *after >= 0));
    let after =
        after.ok_or_else(|| MatrixError::invalid_param("the token is not from an answer of this request"))?;
    let to = app.queues.head();
    let page = app.to_device.page(device.device, after, to, PAGE).await?;
    Ok((page.messages, page.up_to, page.up_to < to))
}

#[derive(Deserialize)]
struct After {
    next_batch: Option<String>,
}

/// Clients that ask in this way go on until there are no events in an answer.
async fn post_events(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (mut parts, body) = request.into_parts();
    let session = enter(&app, &parts).await?;
    let After { next_batch } = content(&parts, body).await?;
    let (events, up_to, _) = page(&app, &mut parts, &session, next_batch.as_deref()).await?;
    Ok(Json(json!({ "events": events, "next_batch": up_to.to_string() })))
}

/// Clients that ask in this way, the proposal's newer one, go on until there is no `next_batch`.
async fn get_events(State(app): State<App>, request: Request) -> Result<Json<Value>, MatrixError> {
    let (mut parts, _) = request.into_parts();
    let session = enter(&app, &parts).await?;
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let from = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "from");
    let from = from.map(|(_, value)| value.into_owned());
    let (events, up_to, more) = page(&app, &mut parts, &session, from.as_deref()).await?;
    let mut answer = json!({ "events": events });
    if more {
        answer["next_batch"] = up_to.to_string().into();
    }
    Ok(Json(answer))
}
