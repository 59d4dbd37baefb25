//! Creation of rooms (`POST /createRoom`).

use http::StatusCode;
use ruma::{
    OwnedRoomAliasId, OwnedUserId, RoomAliasId, RoomId, UserId,
    api::client::room::create_room::v3::{Request, Response, RoomPreset},
    events::StateEventType,
    serde::{JsonObject, Raw},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use super::{directory::is_public, finished::finished};
use crate::{
    account::Session,
    app::App,
    http::{Caller as _, MatrixError, Routes},
    limits::Class,
    room::{NewRoom, Preset},
};

/// State events that a client may give for the start: far more than any has, and a bound on the work of one request.
const MAX_INITIAL_STATE: usize = 1000;

pub(super) fn routes() -> Routes {
    Routes::default().limited(Class::RoomCreation, create)
}

async fn create(app: App, session: Session, request: Request) -> Result<Response, MatrixError> {
    if !request.invite_3pid.is_empty() {
        return Err(MatrixError::invalid_param(
            "`invite_3pid` is not supported: this server has no identity server; invite by user id",
        ));
    }
    let published = is_public(&request.visibility)?;
    let preset = match request.preset {
        // RC-04
        None if published => Preset::PublicChat,
        None | Some(RoomPreset::PrivateChat) => Preset::PrivateChat,
        Some(RoomPreset::TrustedPrivateChat) => Preset::TrustedPrivateChat,
        Some(RoomPreset::PublicChat) => Preset::PublicChat,
        Some(other) => return Err(MatrixError::invalid_param(format!("`{other}` is not a preset"))),
    };
    let mut invites = Vec::with_capacity(request.invite.len());
    for invitee in request.invite {
        if invitee != session.user_id && !invites.contains(&invitee) {
            invites.push(invitee);
        }
        let most = app.rooms.policy().max_members;
        if invites.len() >= most {
            return Err(MatrixError::forbidden(format!(
                "too many invites: this server allows {most} members a room, its creator included"
            )));
        }
    }
    app.limits
        .take(Class::Invite, session.limit_key(), invites.len())
        .map_err(MatrixError::limit_exceeded)?;
    let initial_state = initial_state(&request.initial_state)?;
    let new = NewRoom {
        version: request.room_version.unwrap_or_else(|| app.rooms.policy().default_version.clone()),
        preset,
        published,
        alias: request.room_alias_name.map(|name| alias(&app, &name)).transpose()?,
        name: request.name,
        topic: request.topic,
        creation_content: object("creation_content", request.creation_content.map(Raw::into_json))?,
        power_levels: object(
            "power_level_content_override",
            request.power_level_content_override.map(Raw::into_json),
        )?,
        initial_state,
        invites,
        is_direct: request.is_direct,
        creator: session.user_id,
    };
    let (creator, is_direct) = (new.creator.clone(), new.is_direct);
    let remote = new.invites.iter().filter(|invitee| invitee.server_name() != app.server_name);
    let remote: Vec<OwnedUserId> = remote.cloned().collect();
    finished(async move {
        let room_id = app.rooms.create(new).await?;
        invite_others(&app, &room_id, &creator, &remote, is_direct).await?;
        Ok(Response::new(room_id))
    })
    .await
}

/// Invites users of other servers to a room that is there already, as far as they can be reached (MB-12).
async fn invite_others(
    app: &App,
    room_id: &RoomId,
    creator: &UserId,
    invitees: &[OwnedUserId],
    is_direct: bool,
) -> Result<(), MatrixError> {
    if invitees.is_empty() {
        return Ok(());
    }
    let room = app.rooms.by_id(room_id).await?;
    for invitee in invitees {
        let mut content = serde_json::json!({ "membership": "invite" });
        if is_direct {
            content["is_direct"] = true.into();
        }
        if let Err(cause) = app.handshakes.invite_with(&room, creator, invitee, content).await {
            tracing::info!(%room_id, %invitee, %cause, "a new room is made without somebody who was to be invited");
        }
    }
    Ok(())
}

/// The whole alias for a local part.
fn alias(app: &App, name: &str) -> Result<OwnedRoomAliasId, MatrixError> {
    let refused = || MatrixError::invalid_param(format!("`{name}` can't be the local part of an alias"));
    if name.is_empty() || name.contains([':', '\0']) {
        return Err(refused());
    }
    let alias = RoomAliasId::parse(format!("#{name}:{}", app.server_name)).map_err(|_| refused())?;
    app.rooms.check_local_alias(&alias)?;
    Ok(alias)
}

fn object(name: &str, raw: Option<Box<RawValue>>) -> Result<JsonObject, MatrixError> {
    raw.map_or_else(|| Ok(JsonObject::new()), |raw| parse(name, &raw))
}

fn initial_state<T>(events: &[Raw<T>]) -> Result<Vec<(StateEventType, String, Value)>, MatrixError> {
    #[derive(Deserialize)]
    struct Event {
        #[serde(rename = "type")]
        kind: StateEventType,
        #[serde(default)]
        state_key: String,
        content: JsonObject,
    }
    if events.len() > MAX_INITIAL_STATE {
        return Err(MatrixError::too_large(format!(
            "`initial_state` has {} events, more than the {MAX_INITIAL_STATE} allowed",
            events.len()
        )));
    }
    let mut state = Vec::with_capacity(events.len());
    for event in events {
        let event: Event = parse("initial_state", event.json())?;
        if matches!(event.kind, StateEventType::RoomCreate | StateEventType::RoomMember) {
            return Err(MatrixError::new(
                StatusCode::BAD_REQUEST,
                "M_INVALID_ROOM_STATE",
                format!("`{}` does not belong in `initial_state`", event.kind),
            ));
        }
        state.push((event.kind, event.state_key, Value::Object(event.content)));
    }
    Ok(state)
}

fn parse<T: DeserializeOwned>(name: &str, raw: &RawValue) -> Result<T, MatrixError> {
    serde_json::from_str(raw.get()).map_err(|cause| MatrixError::bad_json(format!("`{name}`: {cause}")))
}
