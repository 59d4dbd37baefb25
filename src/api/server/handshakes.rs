//! [Joining Rooms](https://spec.matrix.org/v1.19/server-server-api/#joining-rooms), Knocking upon a room, Inviting to a room
//! and Leaving Rooms: the side that keeps the room, and the side that is invited.

use http::StatusCode;
use ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, UserId, events::room::member::MembershipState};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::{
    api::bare::{Bare, Get, Put},
    app::App,
    handshakes::{self, Invited},
    http::{Json, MatrixError, Origin, Routes},
    limits::Class,
};

/// Versions of rooms that a server may say it knows.
const MOST_VERSIONS: usize = 100;

pub(super) fn routes() -> Routes {
    let free = Class::Free;
    Routes::default()
        .limited_alias(free, "/_matrix/federation/v1/make_join/{roomId}/{userId}", make_join)
        .limited_alias(free, "/_matrix/federation/v2/send_join/{roomId}/{eventId}", send_join)
        .limited_alias(free, "/_matrix/federation/v1/make_knock/{roomId}/{userId}", make_knock)
        .limited_alias(free, "/_matrix/federation/v1/send_knock/{roomId}/{eventId}", send_knock)
        .limited_alias(free, "/_matrix/federation/v1/make_leave/{roomId}/{userId}", make_leave)
        .limited_alias(free, "/_matrix/federation/v2/send_leave/{roomId}/{eventId}", send_leave)
        .limited_alias(free, "/_matrix/federation/v1/invite/{roomId}/{eventId}", invite_v1)
        .limited_alias(free, "/_matrix/federation/v2/invite/{roomId}/{eventId}", invite)
}

/// An event as it came, of which nothing is believed yet.
type Event = Box<RawValue>;

fn id<T, E: std::fmt::Display>(parsed: Result<T, E>) -> Result<T, MatrixError> {
    parsed.map_err(|cause| MatrixError::invalid_param(cause.to_string()))
}

fn ids<V, B>(request: &Bare<V, B>) -> Result<(OwnedRoomId, OwnedEventId), MatrixError> {
    let [room_id, event_id] = request.parameters()?;
    Ok((id(RoomId::parse(room_id))?, id(EventId::parse(event_id))?))
}

async fn make_join(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    make(&app, &origin, &request, MembershipState::Join).await
}

async fn make_knock(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    make(&app, &origin, &request, MembershipState::Knock).await
}

async fn make_leave(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    make(&app, &origin, &request, MembershipState::Leave).await
}

async fn make(
    app: &App,
    origin: &Origin,
    request: &Bare<Get>,
    membership: MembershipState,
) -> Result<Json<Value>, MatrixError> {
    let [room_id, user_id] = request.parameters()?;
    let (room_id, user_id) = (id(RoomId::parse(room_id))?, id(UserId::parse(user_id))?);
    // A server that names no version knows the first alone.
    let versions = (membership != MembershipState::Leave).then(|| {
        let mut versions = request.queries("ver");
        versions.truncate(MOST_VERSIONS);
        if versions.is_empty() { vec!["1".to_owned()] } else { versions }
    });
    let handshakes = &app.handshakes;
    Ok(Json(handshakes.propose(origin, &room_id, &user_id, membership, versions.as_deref()).await?))
}

async fn send_join(
    app: App,
    origin: Origin,
    request: Bare<Put, Event>,
) -> Result<Json<impl Serialize>, MatrixError> {
    #[derive(Serialize)]
    struct Answer {
        auth_chain: Vec<Box<RawValue>>,
        event: Box<RawValue>,
        members_omitted: bool,
        origin: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        servers_in_room: Option<Vec<String>>,
        state: Vec<Box<RawValue>>,
    }
    let (room_id, event_id) = ids(&request)?;
    let omit_members = request.query("omit_members").is_some_and(|omit| omit == "true");
    let handshakes = &app.handshakes;
    let joined =
        handshakes.take(&origin, &room_id, &event_id, &request.content, MembershipState::Join).await?;
    let answer = handshakes.answer_to_join(joined, omit_members).await?;
    let json = |events: Vec<std::sync::Arc<crate::room::Event>>| -> Vec<Box<RawValue>> {
        events.iter().map(|event| event.pdu.json.clone()).collect()
    };
    Ok(Json(Answer {
        auth_chain: json(answer.auth_chain),
        event: answer.event.json,
        members_omitted: answer.servers_in_room.is_some(),
        origin: app.server_name.to_string(),
        servers_in_room: answer.servers_in_room.map(|servers| servers.into_iter().map(Into::into).collect()),
        state: json(answer.state),
    }))
}

async fn send_knock(app: App, origin: Origin, request: Bare<Put, Event>) -> Result<Json<Value>, MatrixError> {
    let (room_id, event_id) = ids(&request)?;
    let handshakes = &app.handshakes;
    let knocked =
        handshakes.take(&origin, &room_id, &event_id, &request.content, MembershipState::Knock).await?;
    let about = knocked.room.snapshot().about(&knocked.event.sender);
    let about: Vec<&RawValue> = about.iter().map(|event| &*event.pdu.json).collect();
    Ok(Json(json!({ "knock_room_state": about })))
}

async fn send_leave(app: App, origin: Origin, request: Bare<Put, Event>) -> Result<Json<Value>, MatrixError> {
    let (room_id, event_id) = ids(&request)?;
    app.handshakes.take(&origin, &room_id, &event_id, &request.content, MembershipState::Leave).await?;
    Ok(Json(json!({})))
}

async fn invite(app: App, origin: Origin, request: Bare<Put, Invited>) -> Result<Json<Value>, MatrixError> {
    let (room_id, event_id) = ids(&request)?;
    let event = app.handshakes.invited(&origin, &room_id, &event_id, request.content).await?;
    Ok(Json(json!({ "event": event })))
}

/// As it was before rooms had versions that differ: of the first two.
async fn invite_v1(app: App, origin: Origin, request: Bare<Put, Event>) -> Result<Json<Value>, MatrixError> {
    #[derive(Deserialize)]
    struct Whole {
        #[serde(default)]
        unsigned: Unsigned,
    }
    #[derive(Default, Deserialize)]
    struct Unsigned {
        #[serde(default)]
        invite_room_state: Vec<Box<RawValue>>,
    }
    let (room_id, event_id) = ids(&request)?;
    let whole: Whole = serde_json::from_str(request.content.get())
        .map_err(|cause| MatrixError::bad_json(cause.to_string()))?;
    let invite_room_state = whole.unsigned.invite_room_state;
    let invited = Invited { room_version: "1".to_owned(), event: request.content, invite_room_state };
    let event = app.handshakes.invited(&origin, &room_id, &event_id, invited).await?;
    Ok(Json(json!([StatusCode::OK.as_u16(), { "event": event }])))
}

impl From<handshakes::Error> for MatrixError {
    fn from(error: handshakes::Error) -> Self {
        use handshakes::Error as E;
        use hearth_federation::ClientError;
        let text = error.to_string();
        let answer = |status, errcode: &str| Self::new(status, errcode, text.clone());
        match error {
            E::Room(cause) => cause.into(),
            E::Account(cause) => cause.into(),
            // JN-14: what our own request lacked isn't the client's fault.
            E::Peer(ClientError::Refused { errcode, message, .. }) => match errcode.as_str() {
                "M_FORBIDDEN" | "M_INVITE_BLOCKED" => Self::new(StatusCode::FORBIDDEN, &errcode, message),
                "M_UNABLE_TO_AUTHORISE_JOIN" | "M_UNABLE_TO_GRANT_JOIN" => Self::forbidden(message),
                "M_NOT_FOUND" => Self::not_found(message),
                "M_INCOMPATIBLE_ROOM_VERSION" => {
                    let text = "this server doesn't support the room's version";
                    Self::new(StatusCode::BAD_REQUEST, &errcode, text)
                }
                _ => answer(StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            },
            E::Peer(ClientError::NotAllowed(_)) => Self::forbidden(text),
            E::Peer(_) | E::Answer(_) => answer(StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            E::Nobody => Self::not_found(text),
            E::Invalid(_) => Self::invalid_param(text),
            E::BadJson(_) => Self::bad_json(text),
            E::Incompatible(version) => answer(StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION")
                .with("room_version", version.as_str()),
            E::CannotAuthorise => answer(StatusCode::BAD_REQUEST, "M_UNABLE_TO_AUTHORISE_JOIN"),
            E::CannotGrant => answer(StatusCode::BAD_REQUEST, "M_UNABLE_TO_GRANT_JOIN"),
        }
    }
}
