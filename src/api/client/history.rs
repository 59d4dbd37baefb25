//! A room's log for clients: pages of it, one event, and what is around an event.

use std::sync::Arc;

use ruma::{
    RoomId,
    api::{
        Direction as AskedDirection,
        client::{
            context::get_context, filter::RoomEventFilter, message::get_message_events, room::get_room_event,
        },
    },
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::with::{Filter, With};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    queue::Token,
    room::{Direction, Error, Event, EventFilter, LazyMembers, Paging, Reader, RelationFilter, Room, Sight},
};

/// The most events of one answer (FI-07).
const MOST: usize = 1000;

pub(super) fn routes() -> Routes {
    Routes::default().add(messages).add(context).add(event)
}

#[derive(Serialize)]
struct Messages {
    start: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    state: Vec<Box<RawValue>>,
}

async fn messages(
    app: App,
    session: Session,
    request: With<get_message_events::v3::Request, Filter>,
) -> Result<Json<Messages>, MatrixError> {
    let relations = request.more.relations()?;
    let request = request.request;
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let filter = filter(&app, &session, &request.filter, relations).await?;
    let asked = usize::try_from(request.limit).unwrap_or(MOST);
    let paging = Paging {
        direction: match request.dir {
            AskedDirection::Backward => Direction::Backwards,
            AskedDirection::Forward => Direction::Forwards,
        },
        from: place(&app, &room, request.from).await?,
        to: place(&app, &room, request.to).await?,
        limit: asked.min(filter.limit.unwrap_or(MOST)).min(MOST),
        filter: &filter,
    };
    let (page, sight) = app.history.page(&room, &session.user_id, paging).await?;
    let state = if filter.lazy_members == LazyMembers::Off {
        Vec::new()
    } else {
        app.rooms.senders(&room, &page.events).await?
    };
    Ok(Json(Messages {
        start: token(page.start),
        end: page.end.map(token),
        chunk: client_events(&app, &session, &room, &page.events, &sight).await?,
        state: client_events(&app, &session, &room, &state, &sight).await?,
    }))
}

#[derive(Serialize)]
struct Context {
    start: String,
    end: String,
    event: Option<Box<RawValue>>,
    events_before: Vec<Box<RawValue>>,
    events_after: Vec<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
}

async fn context(
    app: App,
    session: Session,
    request: With<get_context::v3::Request, Filter>,
) -> Result<Json<Context>, MatrixError> {
    let relations = request.more.relations()?;
    let request = request.request;
    let (room, sight) = glimpse(&app, &session, &request.room_id).await?;
    let filter = filter(&app, &session, &request.filter, relations).await?;
    let limit = usize::try_from(request.limit).unwrap_or(MOST).min(filter.limit.unwrap_or(MOST)).min(MOST);
    let around = app.rooms.around(&room, &sight, &request.event_id, limit, &filter).await?;
    Ok(Json(Context {
        start: token(around.start),
        end: token(around.end),
        event: client_events(&app, &session, &room, &[around.event], &sight).await?.pop(),
        events_before: client_events(&app, &session, &room, &around.before, &sight).await?,
        events_after: client_events(&app, &session, &room, &around.after, &sight).await?,
        state: client_events(&app, &session, &room, &around.state, &sight).await?,
    }))
}

async fn event(
    app: App,
    session: Session,
    request: get_room_event::v3::Request,
) -> Result<Json<Option<Box<RawValue>>>, MatrixError> {
    let (room, sight) = glimpse(&app, &session, &request.room_id).await?;
    let event = app.rooms.visible_event(&room, &sight, &request.event_id).await?;
    Ok(Json(client_events(&app, &session, &room, &[event], &sight).await?.pop()))
}

/// HV-06: an event of a room that doesn't exist is as little there as one that may not be seen.
pub(super) async fn glimpse(
    app: &App,
    session: &Session,
    room_id: &RoomId,
) -> Result<(Arc<Room>, Sight), MatrixError> {
    let room = app.rooms.by_id(room_id).await.map_err(|cause| match cause {
        Error::NotFound(_) => Error::NotFound(crate::room::NO_EVENT),
        cause => cause,
    })?;
    let sight = app.rooms.sight(&room, &session.user_id).await?;
    Ok((room, sight))
}

/// What a client wants to see, but for what those said whom its user ignores. An event that it asks for by its id is
/// another matter.
async fn filter(
    app: &App,
    session: &Session,
    wanted: &RoomEventFilter,
    relations: RelationFilter,
) -> Result<EventFilter, MatrixError> {
    let ignored = app.accounts.ignored_users(session.recipient).await?;
    Ok(EventFilter::new(wanted).with(relations).without(ignored))
}

/// An empty token is none.
pub(super) async fn place(app: &App, room: &Room, token: Option<String>) -> Result<Option<i64>, MatrixError> {
    match token.filter(|token| !token.is_empty()) {
        Some(token) => Ok(Some(app.rooms.place(room, &token).await?)),
        None => Ok(None),
    }
}

pub(super) fn token(seq: i64) -> String {
    Token::Room { seq }.to_string()
}

async fn client_events(
    app: &App,
    session: &Session,
    room: &Room,
    events: &[Arc<Event>],
    sight: &Sight,
) -> Result<Vec<Box<RawValue>>, MatrixError> {
    let reader = Reader::of(session);
    Ok(app.rooms.client_events(room, reader, events, Some(sight)).await?)
}
