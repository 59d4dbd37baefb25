//! [Retrieving events](https://spec.matrix.org/v1.19/server-server-api/#retrieving-events) and
//! [backfilling](https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events).

use std::sync::Arc;

use hearth_federation::Pdu;
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, UInt};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    api::bare::{Bare, Get, Post},
    app::App,
    http::{Json, MatrixError, Origin, Routes},
    limits::Class,
    room::{Direction, Event, MOST_MISSING, MOST_SERVED, Room},
};

/// Events that one request may begin at.
const MOST_ENDS: usize = 100;

pub(super) fn routes() -> Routes {
    let free = Class::Free;
    Routes::default()
        .limited_alias(free, "/_matrix/federation/v1/event/{eventId}", event)
        .limited_alias(free, "/_matrix/federation/v1/state/{roomId}", state)
        .limited_alias(free, "/_matrix/federation/v1/state_ids/{roomId}", state_ids)
        .limited_alias(free, "/_matrix/federation/v1/event_auth/{roomId}/{eventId}", event_auth)
        .limited_alias(free, "/_matrix/federation/v1/backfill/{roomId}", backfill)
        .limited_alias(free, "/_matrix/federation/v1/timestamp_to_event/{roomId}", by_timestamp)
        .limited_alias(free, "/_matrix/federation/v1/get_missing_events/{roomId}", missing_events)
}

fn event_id(text: &str) -> Result<OwnedEventId, MatrixError> {
    EventId::parse(text).map_err(|cause| MatrixError::invalid_param(cause.to_string()))
}

/// A room for a server that is in it.
async fn room_of(app: &App, origin: &Origin, room_id: &str) -> Result<Arc<Room>, MatrixError> {
    let room_id = RoomId::parse(room_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    Ok(app.rooms.of_server(&room_id, origin).await?)
}

fn json_of(events: &[Arc<Event>]) -> Vec<&RawValue> {
    events.iter().map(|event| &*event.pdu.json).collect()
}

fn ids_of(events: &[Arc<Event>]) -> Vec<&EventId> {
    events.iter().map(|event| event.id()).collect()
}

fn answer(app: &App, pdus: &[Pdu]) -> Json<Value> {
    let pdus: Vec<&RawValue> = pdus.iter().map(|pdu| &*pdu.json).collect();
    let now = app.environment.clock.now_ms();
    Json(json!({ "origin": app.server_name, "origin_server_ts": now, "pdus": pdus }))
}

async fn event(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let [id] = request.parameters()?;
    let pdu = app.rooms.event_for(&event_id(id)?, &origin).await?;
    Ok(answer(&app, &[pdu]))
}

async fn state_at(
    app: &App,
    origin: &Origin,
    request: &Bare<Get>,
) -> Result<(Vec<Arc<Event>>, Vec<Arc<Event>>), MatrixError> {
    let [room_id] = request.parameters()?;
    let room = room_of(app, origin, room_id).await?;
    let id = request.query("event_id").ok_or_else(|| MatrixError::missing_param("`event_id` is missing"))?;
    Ok(app.rooms.state_for(&room, &event_id(&id)?).await?)
}

async fn state(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let (state, chain) = state_at(&app, &origin, &request).await?;
    Ok(Json(json!({ "pdus": json_of(&state), "auth_chain": json_of(&chain) })))
}

async fn state_ids(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let (state, chain) = state_at(&app, &origin, &request).await?;
    Ok(Json(json!({ "pdu_ids": ids_of(&state), "auth_chain_ids": ids_of(&chain) })))
}

async fn event_auth(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let [room_id, id] = request.parameters()?;
    let room = room_of(&app, &origin, room_id).await?;
    let chain = app.rooms.auth_chain_for(&room, &event_id(id)?).await?;
    Ok(Json(json!({ "auth_chain": json_of(&chain) })))
}

async fn backfill(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let [room_id] = request.parameters()?;
    let room = room_of(&app, &origin, room_id).await?;
    let from = request.queries("v");
    let from: Vec<OwnedEventId> =
        from.iter().take(MOST_ENDS).map(|id| event_id(id)).collect::<Result<_, _>>()?;
    if from.is_empty() {
        return Err(MatrixError::missing_param("`v` is missing"));
    }
    let limit = request.query("limit").ok_or_else(|| MatrixError::missing_param("`limit` is missing"))?;
    let limit: usize =
        limit.parse().map_err(|_| MatrixError::invalid_param("`limit` is a number of events"))?;
    let pdus = app.rooms.before(&room, &origin, from, limit.min(MOST_SERVED)).await?;
    Ok(answer(&app, &pdus))
}

/// The event closest to a time, of those that somebody of the asking server could see.
async fn by_timestamp(app: App, origin: Origin, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let [room_id] = request.parameters()?;
    let room = room_of(&app, &origin, room_id).await?;
    let ts = request.query("ts").ok_or_else(|| MatrixError::missing_param("`ts` is missing"))?;
    let ts: u64 = ts.parse().map_err(|_| MatrixError::invalid_param("`ts` is a time in milliseconds"))?;
    let time = MilliSecondsSinceUnixEpoch(UInt::new_saturating(ts));
    let direction = match request.query("dir").as_deref() {
        Some("f") => Direction::Forwards,
        Some("b") => Direction::Backwards,
        _ => return Err(MatrixError::invalid_param("`dir` is f or b")),
    };
    let event = app.rooms.nearest_for_server(&room, &origin, time, direction).await?;
    Ok(Json(json!({ "event_id": event.id(), "origin_server_ts": event.pdu.origin_server_ts })))
}

#[derive(Deserialize)]
struct Missing {
    earliest_events: Vec<OwnedEventId>,
    latest_events: Vec<OwnedEventId>,
    #[serde(default = "default_limit")]
    limit: i64,
    #[serde(default)]
    min_depth: i64,
}

fn default_limit() -> i64 {
    10
}

async fn missing_events(
    app: App,
    origin: Origin,
    request: Bare<Post, Missing>,
) -> Result<Json<Value>, MatrixError> {
    let [room_id] = request.parameters()?;
    let room = room_of(&app, &origin, room_id).await?;
    let Missing { mut earliest_events, mut latest_events, limit, min_depth } = request.content;
    earliest_events.truncate(MOST_ENDS);
    latest_events.truncate(MOST_ENDS);
    let limit = usize::try_from(limit).unwrap_or(0).min(MOST_MISSING);
    let events = app.rooms.between(&room, &origin, earliest_events, latest_events, min_depth, limit).await?;
    let events: Vec<&RawValue> = events.iter().map(|pdu| &*pdu.json).collect();
    Ok(Json(json!({ "events": events })))
}
