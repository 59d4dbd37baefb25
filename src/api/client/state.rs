//! The state of a room for clients, and its members.

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    api::client::{
        membership::{get_member_events, joined_members},
        state::{
            get_state_event_for_key::{self, v3::StateEventFormat},
            get_state_events,
        },
    },
    events::{StateEventType, room::member::MembershipState},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    room::{Event, Reader, Room},
};

/// GN-15: an empty state key may be left out. (So may the slash before it, as at the end of any path.)
pub(super) const KEYLESS: [&str; 2] = [
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
];

pub(super) fn routes() -> Routes {
    let routes = Routes::default().add(all).add(one).add(members).add(joined);
    KEYLESS.iter().fold(routes, |routes, path| routes.alias(path, one))
}

async fn all(
    app: App,
    session: Session,
    request: get_state_events::v3::Request,
) -> Result<Json<Vec<Box<RawValue>>>, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let view = app.rooms.view(&room, &session.user_id).await?;
    let mut events: Vec<Arc<Event>> = app.rooms.state_at(&room, view.at).await?.iter().cloned().collect();
    events.sort_unstable_by_key(|event| event.seq);
    Ok(Json(client_events(&app, &session, &room, &events).await?))
}

async fn one(
    app: App,
    session: Session,
    request: get_state_event_for_key::v3::Request,
) -> Result<Json<Option<Box<RawValue>>>, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let view = app.rooms.view(&room, &session.user_id).await?;
    let event = app.rooms.state_entry(&room, &request.event_type, &request.state_key, view).await?;
    let event = event.ok_or_else(|| MatrixError::not_found("the room has no such state"))?;
    Ok(Json(match request.format {
        StateEventFormat::Event => client_events(&app, &session, &room, &[event]).await?.pop(),
        _ => Some(event.pdu.content.clone()),
    }))
}

#[derive(Serialize)]
struct Members {
    chunk: Vec<Box<RawValue>>,
}

async fn members(
    app: App,
    session: Session,
    request: get_member_events::v3::Request,
) -> Result<Json<Members>, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let mut view = app.rooms.view(&room, &session.user_id).await?;
    if let Some(at) = request.at.filter(|at| !at.is_empty()) {
        let at = app.rooms.place(&room, &at).await?;
        view = app.rooms.view_at(&room, &session.user_id, view, at).await?;
    }
    let state = app.rooms.state_at(&room, view.at).await?;
    let (wanted, unwanted) = (request.membership, request.not_membership);
    let fits = |membership: &MembershipState| match (&wanted, &unwanted) {
        (None, None) => true,
        (wanted, unwanted) => {
            wanted.as_ref() == Some(membership) || unwanted.as_ref().is_some_and(|other| other != membership)
        }
    };
    let members = state.of_type(&StateEventType::RoomMember).map(|(_, event)| event);
    let mut members: Vec<Arc<Event>> = members
        .filter(|event| event.pdu.membership().is_some_and(|membership| fits(&membership)))
        .cloned()
        .collect();
    members.sort_unstable_by_key(|event| event.seq);
    Ok(Json(Members { chunk: client_events(&app, &session, &room, &members).await? }))
}

#[derive(Serialize)]
struct Joined {
    joined: BTreeMap<String, Profile>,
}

#[derive(Serialize)]
struct Profile {
    display_name: Option<String>,
    avatar_url: Option<String>,
}

async fn joined(
    app: App,
    session: Session,
    request: joined_members::v3::Request,
) -> Result<Json<Joined>, MatrixError> {
    let room = app.rooms.of_member(&request.room_id, &session.user_id).await?;
    let snapshot = room.snapshot();
    let members = snapshot.state.of_type(&StateEventType::RoomMember);
    let joined = members.filter(|(_, event)| event.pdu.membership() == Some(MembershipState::Join));
    let joined = joined.map(|(user_id, event)| (user_id.to_owned(), profile(event))).collect();
    Ok(Json(Joined { joined }))
}

/// What a member event says of its user. Members put what they like into it.
fn profile(event: &Event) -> Profile {
    #[derive(Default, Deserialize)]
    struct Content {
        displayname: Option<Value>,
        avatar_url: Option<Value>,
    }
    let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
    let content: Content = event.pdu.content_as().unwrap_or_default();
    Profile { display_name: text(content.displayname), avatar_url: text(content.avatar_url) }
}

async fn client_events(
    app: &App,
    session: &Session,
    room: &Room,
    events: &[Arc<Event>],
) -> Result<Vec<Box<RawValue>>, MatrixError> {
    let sight = app.rooms.sight(room, &session.user_id).await?;
    let reader = Reader::of(session);
    Ok(app.rooms.client_events(room, reader, events, Some(&sight)).await?)
}
