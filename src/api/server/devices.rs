//! [Device management](https://spec.matrix.org/v1.19/server-server-api/#device-management) and
//! [end-to-end encryption](https://spec.matrix.org/v1.19/server-server-api/#end-to-end-encryption): keys of this server's
//! users and their devices (DL-05).

use std::collections::BTreeMap;

use ruma::{OwnedDeviceId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    account,
    api::{
        bare::{Bare, Get, Post},
        client::{wanted_devices, wanted_keys},
    },
    app::App,
    http::{Json, MatrixError, Origin, Routes},
    keys::{PublicKeys, WantedDevices},
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
    let (stream_id, mut keys) = app.keys.list_of(&user_id).await?;
    let Some(devices) = keys.device_keys.remove(&user_id) else {
        return Err(account::Error::NotFound("user").into());
    };
    let devices: Vec<Value> = devices.into_iter().map(describe).collect();
    let mut answer = json!({ "user_id": user_id, "stream_id": stream_id, "devices": devices });
    for (name, mut keys) in [("master_key", keys.master_keys), ("self_signing_key", keys.self_signing_keys)] {
        if let Some(key) = keys.remove(&user_id) {
            answer[name] = key;
        }
    }
    Ok(Json(answer))
}

fn describe((device_id, mut keys): (OwnedDeviceId, Value)) -> Value {
    let unsigned = keys.as_object_mut().and_then(|keys| keys.remove("unsigned"));
    let mut device = Map::from_iter([("device_id".to_owned(), json!(device_id)), ("keys".to_owned(), keys)]);
    if let Some(name) =
        unsigned.and_then(|mut unsigned| unsigned.get_mut("device_display_name").map(Value::take))
    {
        device.insert("device_display_name".to_owned(), name);
    }
    device.into()
}

#[derive(Deserialize)]
struct Asked {
    device_keys: BTreeMap<String, Vec<OwnedDeviceId>>,
}

async fn query_keys(
    app: App,
    _: Origin,
    request: Bare<Post, Asked>,
) -> Result<Json<PublicKeys>, MatrixError> {
    let wanted: WantedDevices = wanted_devices(request.content.device_keys)?;
    Ok(Json(app.keys.query_local(None, &wanted).await?))
}

#[derive(Deserialize)]
struct Claimed {
    one_time_keys: BTreeMap<String, BTreeMap<OwnedDeviceId, String>>,
}

async fn claim_keys(app: App, _: Origin, request: Bare<Post, Claimed>) -> Result<Json<Value>, MatrixError> {
    let wanted = wanted_keys(request.content.one_time_keys)?;
    let claimed = app.keys.claim_local(&wanted).await?;
    Ok(Json(json!({ "one_time_keys": claimed })))
}
