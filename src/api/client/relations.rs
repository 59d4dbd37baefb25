//! Relations between events: the children of one, and the threads of a room.

use ruma::{
    EventId, RoomId, UInt,
    api::{
        Direction as AskedDirection,
        client::{
            relations::{
                get_relating_events, get_relating_events_with_rel_type,
                get_relating_events_with_rel_type_and_event_type,
            },
            threads::get_threads::{self, v1::IncludeThreads},
        },
    },
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::history::{place, token};
use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    room::{Children, Direction, Reader, RelationPage},
};

/// Events of an answer if the client doesn't say, and the most.
const USUAL: usize = 20;
const MOST: usize = 100;

pub(super) fn routes() -> Routes {
    Routes::default().add(any).add(of_rel_type).add(of_rel_type_and_event_type).add(threads)
}

#[derive(Serialize)]
struct Page {
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recursion_depth: Option<i64>,
}

/// What the three forms of the endpoint have in common.
struct Asked<'a> {
    room_id: &'a RoomId,
    event_id: &'a EventId,
    rel_type: Option<String>,
    kind: Option<String>,
    from: Option<String>,
    to: Option<String>,
    direction: AskedDirection,
    limit: Option<UInt>,
    recurse: bool,
}

async fn any(
    app: App,
    session: Session,
    request: get_relating_events::v1::Request,
) -> Result<Json<Page>, MatrixError> {
    let asked = Asked {
        room_id: &request.room_id,
        event_id: &request.event_id,
        rel_type: None,
        kind: None,
        from: request.from,
        to: request.to,
        direction: request.dir,
        limit: request.limit,
        recurse: request.recurse,
    };
    relations(&app, &session, asked).await
}

async fn of_rel_type(
    app: App,
    session: Session,
    request: get_relating_events_with_rel_type::v1::Request,
) -> Result<Json<Page>, MatrixError> {
    let asked = Asked {
        room_id: &request.room_id,
        event_id: &request.event_id,
        rel_type: Some(request.rel_type.to_string()),
        kind: None,
        from: request.from,
        to: request.to,
        direction: request.dir,
        limit: request.limit,
        recurse: request.recurse,
    };
    relations(&app, &session, asked).await
}

async fn of_rel_type_and_event_type(
    app: App,
    session: Session,
    request: get_relating_events_with_rel_type_and_event_type::v1::Request,
) -> Result<Json<Page>, MatrixError> {
    let asked = Asked {
        room_id: &request.room_id,
        event_id: &request.event_id,
        rel_type: Some(request.rel_type.to_string()),
        kind: Some(request.event_type.to_string()),
        from: request.from,
        to: request.to,
        direction: request.dir,
        limit: request.limit,
        recurse: request.recurse,
    };
    relations(&app, &session, asked).await
}

async fn relations(app: &App, session: &Session, asked: Asked<'_>) -> Result<Json<Page>, MatrixError> {
    let (room, sight) = super::history::glimpse(app, session, asked.room_id).await?;
    let from = place(app, &room, asked.from).await?;
    let children = Children {
        parent: asked.event_id,
        rel_type: asked.rel_type.as_deref(),
        kind: asked.kind.as_deref(),
        recurse: asked.recurse,
        direction: match asked.direction {
            AskedDirection::Backward => Direction::Backwards,
            AskedDirection::Forward => Direction::Forwards,
        },
        from,
        to: place(app, &room, asked.to).await?,
        limit: limit(asked.limit),
    };
    let reader = Reader::of(session);
    let page = app.rooms.children(&room, reader, &sight, children).await?;
    Ok(Json(Page {
        chunk: app.rooms.client_events(&room, reader, &page.events, Some(&sight)).await?,
        next_batch: page.end.map(token),
        prev_batch: from.map(token),
        recursion_depth: asked.recurse.then_some(RelationPage::DEPTH),
    }))
}

async fn threads(
    app: App,
    session: Session,
    request: get_threads::v1::Request,
) -> Result<Json<Page>, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let sight = app.rooms.reading(&room, &session.user_id).await?;
    let from = place(&app, &room, request.from).await?;
    let participated = request.include == IncludeThreads::Participated;
    let reader = Reader::of(&session);
    let page = app.rooms.threads(&room, reader, &sight, participated, from, limit(request.limit)).await?;
    Ok(Json(Page {
        chunk: app.rooms.client_events(&room, reader, &page.events, Some(&sight)).await?,
        next_batch: page.end.map(token),
        prev_batch: None,
        recursion_depth: None,
    }))
}

fn limit(asked: Option<UInt>) -> usize {
    asked.map_or(USUAL, |asked| usize::try_from(asked).unwrap_or(MOST).clamp(1, MOST))
}
