//! `GET /rooms/{roomId}/relations/{eventId}` and below: what relates to an event ("Relationships API").

use http::request::Parts;
use ruma::{
    OwnedEventId, OwnedRoomId, UInt,
    api::{
        Direction as AskedDirection,
        client::relations::{
            get_relating_events, get_relating_events_with_rel_type,
            get_relating_events_with_rel_type_and_event_type,
        },
    },
};
use serde::Serialize;
use serde_json::value::RawValue;

use super::history::{glimpse, place, token};
use crate::{
    account::Session,
    app::App,
    http::{Caller, Json, MatrixError, Routes},
    limits::LimitKey,
    room::{Direction, Listing, RECURSION, Reader},
};

/// Events of a page that names no number, and the most that it may name.
const USUAL: usize = 50;
const MOST: usize = 1000;

pub(super) fn routes() -> Routes {
    Routes::default()
        .add::<get_relating_events::v1::Request, Asker, _, _, _>(all)
        .add::<get_relating_events_with_rel_type::v1::Request, Asker, _, _, _>(of_type)
        .add::<get_relating_events_with_rel_type_and_event_type::v1::Request, Asker, _, _, _>(of_event_type)
}

/// A session, and whether the request asks for relations of relations by the name from before 1.10.
struct Asker {
    session: Session,
    recurse: bool,
}

impl Caller for Asker {
    async fn identify(app: &App, parts: &Parts) -> Result<Self, MatrixError> {
        let query = parts.uri.query().unwrap_or_default();
        let recurse = query.split('&').any(|pair| pair == "org.matrix.msc3981.recurse=true");
        Ok(Self { session: Session::identify(app, parts).await?, recurse })
    }

    fn limit_key(&self) -> LimitKey {
        self.session.limit_key()
    }
}

/// What the three endpoints have in common.
struct Asked {
    room_id: OwnedRoomId,
    event_id: OwnedEventId,
    rel_type: Option<String>,
    event_type: Option<String>,
    from: Option<String>,
    to: Option<String>,
    dir: AskedDirection,
    limit: Option<UInt>,
    recurse: bool,
}

#[derive(Serialize)]
struct Answer {
    chunk: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recursion_depth: Option<i64>,
}

/// The fields are those of three types, which have no other name in common.
macro_rules! asked {
    ($request:ident, $rel_type:expr, $event_type:expr) => {
        Asked {
            rel_type: $rel_type,
            event_type: $event_type,
            room_id: $request.room_id,
            event_id: $request.event_id,
            from: $request.from,
            to: $request.to,
            dir: $request.dir,
            limit: $request.limit,
            recurse: $request.recurse,
        }
    };
}

async fn all(
    app: App,
    asker: Asker,
    request: get_relating_events::v1::Request,
) -> Result<Json<Answer>, MatrixError> {
    answer(app, asker, asked!(request, None, None)).await
}

async fn of_type(
    app: App,
    asker: Asker,
    request: get_relating_events_with_rel_type::v1::Request,
) -> Result<Json<Answer>, MatrixError> {
    let rel_type = request.rel_type.to_string();
    answer(app, asker, asked!(request, Some(rel_type), None)).await
}

async fn of_event_type(
    app: App,
    asker: Asker,
    request: get_relating_events_with_rel_type_and_event_type::v1::Request,
) -> Result<Json<Answer>, MatrixError> {
    let (rel_type, event_type) = (request.rel_type.to_string(), request.event_type.to_string());
    answer(app, asker, asked!(request, Some(rel_type), Some(event_type))).await
}

async fn answer(app: App, asker: Asker, asked: Asked) -> Result<Json<Answer>, MatrixError> {
    let session = asker.session;
    let (room, sight) = glimpse(&app, &session, &asked.room_id).await?;
    let recurse = asked.recurse || asker.recurse;
    let from = place(&app, &room, asked.from).await?;
    let listing = Listing {
        parent: &asked.event_id,
        rel_type: asked.rel_type.as_deref(),
        kind: asked.event_type.as_deref(),
        recurse,
        direction: match asked.dir {
            AskedDirection::Backward => Direction::Backwards,
            AskedDirection::Forward => Direction::Forwards,
        },
        from,
        to: place(&app, &room, asked.to).await?,
        limit: asked.limit.map_or(USUAL, |limit| usize::try_from(limit).unwrap_or(MOST)).min(MOST),
    };
    let reader = Reader::of(&session);
    let page = app.rooms.relations(&room, &sight, reader, listing).await?;
    Ok(Json(Answer {
        chunk: app.rooms.client_events(&room, reader, &page.events, Some(&sight)).await?,
        next_batch: page.next.map(token),
        prev_batch: from.map(token),
        recursion_depth: recurse.then_some(RECURSION),
    }))
}
