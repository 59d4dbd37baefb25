//! What this server can do ("Capabilities negotiation"), and the small answers that say that it can't do something:
//! calls through a relay, bridges, pushes.

use hearth_federation::supported_versions;
use ruma::{
    RoomVersionId,
    api::client::{
        discovery::get_capabilities::v3 as get_capabilities, push::get_pushers::v3 as get_pushers,
        thirdparty::get_protocols::v3 as get_protocols,
        voip::get_turn_server_info::v3 as get_turn_server_info,
    },
    room_version_rules::RoomVersionDisposition,
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

async fn capabilities(
    app: App,
    session: Session,
    _: get_capabilities::Request,
) -> Result<Json<Value>, MatrixError> {
    let limits = app.delayed.limits();
    let delayed = json!({ "max_delay_ms": limits.max_delay, "max_scheduled": limits.max_scheduled });
    let versions: serde_json::Map<String, Value> = supported_versions()
        .filter_map(|version| Some((version.to_string(), json!(stability(&version)?))))
        .collect();
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
        // MB-03: who leaves a room forgets it when they say so.
        "m.forget_forced_upon_leave": no,
    });
    // LK-03: only for those who may do it.
    if session.admin {
        let moderation = json!({ "lock": true, "suspend": true });
        capabilities["m.account_moderation"] = moderation.clone();
        capabilities["uk.timedout.msc4323"] = moderation;
    }
    Ok(Json(json!({ "capabilities": capabilities })))
}

/// Whether a room version is one that anybody may use, or one for trying out what isn't in the specification yet.
fn stability(version: &RoomVersionId) -> Option<&'static str> {
    match hearth_federation::rules(version).ok()?.disposition {
        RoomVersionDisposition::Stable => Some("stable"),
        RoomVersionDisposition::Unstable => Some("unstable"),
    }
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
