//! [Device management](https://spec.matrix.org/v1.19/server-server-api/#device-management) and
//! [end-to-end encryption](https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption): this server's users have
//! no keys yet, and the answers say so.

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    account,
    api::bare::{Bare, Get, Post},
    app::App,
    http::{Json, MatrixError, Origin, Routes},
    limits::Class,
};

pub(super) fn routes() -> Routes {
    let free = Class::Free;
    Routes::default()
        .limited_alias(free, "/_matrix/federation/v1/user/devices/{userId}", devices)
        .limited_alias(free, "/_matrix/federation/v1/user/keys/query", query_keys)
        .limited_alias(free, "/_matrix/federation/v1/user/keys/claim", claim_keys)
}

/// Of devices those that have keys.
async fn devices(app: App, _: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let [user_id] = request.parameters()?;
    let user_id = UserId::parse(user_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    // DL-05
    if user_id.server_name() != app.server_name || app.accounts.recipient(&user_id).await?.is_none() {
        return Err(account::Error::NotFound("user").into());
    }
    Ok(Json(json!({ "user_id": user_id, "stream_id": 0, "devices": [] })))
}

#[derive(Deserialize)]
struct Asked {
    device_keys: serde_json::Map<String, Value>,
}

async fn query_keys(app: App, _: Origin, request: Bare<Post, Asked>) -> Result<Json<Value>, MatrixError> {
    let mut device_keys = serde_json::Map::new();
    for (user_id, _) in request.content.device_keys {
        let Ok(user_id) = OwnedUserId::try_from(user_id) else { continue };
        if user_id.server_name() == app.server_name && app.accounts.recipient(&user_id).await?.is_some() {
            device_keys.insert(user_id.to_string(), json!({}));
        }
    }
    Ok(Json(json!({ "device_keys": device_keys })))
}

#[derive(Deserialize)]
struct Claimed {
    #[serde(rename = "one_time_keys")]
    _asked: serde_json::Map<String, Value>,
}

async fn claim_keys(_: App, _: Origin, _: Bare<Post, Claimed>) -> Result<Json<Value>, MatrixError> {
    Ok(Json(json!({ "one_time_keys": {} })))
}
