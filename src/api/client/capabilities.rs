//! What this server can do ("Capabilities negotiation"), and the small answers that say that it can't do something:
//! calls through a relay, bridges, pushes.

use ruma::{
    RoomVersionId,
    api::client::{
        discovery::get_capabilities::v3 as get_capabilities, push::get_pushers::v3 as get_pushers,
        thirdparty::get_protocols::v3 as get_protocols,
        voip::get_turn_server_info::v3 as get_turn_server_info,
    },
};
use serde_json::{Value, json};

use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
};

pub(super) fn routes() -> Routes {
    Routes::default()
        .add::<get_capabilities::Request, Session, _, _, _>(capabilities)
        .add::<get_turn_server_info::Request, Session, _, _, _>(turn_server)
        .add::<get_protocols::Request, Session, _, _, _>(protocols)
        .add::<get_pushers::Request, Session, _, _, _>(pushers)
}

/// Versions that rooms may be created with: all that are called stable.
const ROOM_VERSIONS: [RoomVersionId; 12] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V3,
    RoomVersionId::V4,
    RoomVersionId::V5,
    RoomVersionId::V6,
    RoomVersionId::V7,
    RoomVersionId::V8,
    RoomVersionId::V9,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

async fn capabilities(
    app: App,
    session: Session,
    _: get_capabilities::Request,
) -> Result<Json<Value>, MatrixError> {
    let limits = app.delayed.limits();
    let delayed = json!({ "max_delay_ms": limits.max_delay, "max_scheduled": limits.max_scheduled });
    let versions: serde_json::Map<String, Value> =
        ROOM_VERSIONS.iter().map(|version| (version.to_string(), json!("stable"))).collect();
    let yes = json!({ "enabled": true });
    let no = json!({ "enabled": false });
    let mut capabilities = json!({
        "m.room_versions": { "default": app.config.rooms.default_version, "available": versions },
        "m.change_password": yes,
        "m.delayed_events": delayed,
        "org.matrix.msc4140.delayed_events": delayed,
        "m.profile_fields": yes,
        // For clients from before profile fields.
        "m.set_displayname": yes,
        "m.set_avatar_url": yes,
        "m.3pid_changes": no,
        "m.get_login_token": no,
    });
    // LK-03: only for those who may do it.
    if session.admin {
        let moderation = json!({ "lock": true, "suspend": true });
        capabilities["m.account_moderation"] = moderation.clone();
        capabilities["uk.timedout.msc4323"] = moderation;
    }
    Ok(Json(json!({ "capabilities": capabilities })))
}

/// There is no relay for calls.
async fn turn_server(
    _: App,
    _: Session,
    _: get_turn_server_info::Request,
) -> Result<Json<Value>, MatrixError> {
    Ok(Json(json!({})))
}

/// There are no bridges.
async fn protocols(_: App, _: Session, _: get_protocols::Request) -> Result<Json<Value>, MatrixError> {
    Ok(Json(json!({})))
}

/// None can be set yet.
async fn pushers(_: App, _: Session, _: get_pushers::Request) -> Result<Json<Value>, MatrixError> {
    Ok(Json(json!({ "pushers": [] })))
}
