//! Events by date and by id, and the reading of rooms from before `/sync`: `/initialSync` and `/events` ("Syncing" and
//! "Room previews"; deprecated, and all that old bots and some guests know). These reshape what the other readers give.

use std::{collections::HashMap, str::FromStr, sync::Arc, time::Duration};

use axum::{
    extract::{FromRequestParts as _, RawPathParams, Request, State},
    response::Response,
};
use http::{Method, request::Parts};
use ruma::{
    OwnedEventId, OwnedRoomId,
    api::{
        Direction as AskedDirection,
        client::{peeking::get_current_state, room::get_event_by_timestamp},
    },
};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use super::history::{place, token};
use crate::{
    account::Session,
    app::App,
    http::{Caller as _, Json, MatrixError, Reply as _, Routes},
    live, presence,
    room::{Direction, Error, EventFilter, NO_EVENT, Paging, Reader, Room},
};

/// Events of a room that a first look shows, and the most.
const FIRST: usize = 20;
const MOST: usize = 100;

/// The longest that `/events` waits.
const LONGEST: Duration = Duration::from_secs(30);
/// How often somebody who isn't in a room looks whether something has happened there: they have no queue to wait on.
const PEEK: Duration = Duration::from_millis(500);

pub(super) fn routes() -> Routes {
    let mut routes = Routes::default().add(by_timestamp).add(room_initial_sync);
    for version in ["r0", "v3"] {
        let path = |end: &str| format!("/_matrix/client/{version}{end}");
        routes = routes
            .mount(Method::GET, &path("/initialSync"), initial_sync)
            .mount(Method::GET, &path("/events"), stream)
            .mount(Method::GET, &path("/events/{event_id}"), event);
    }
    routes
}

/// The parameters of a request that ruma has no type for.
struct Query(HashMap<String, String>);

impl Query {
    fn of(parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// An empty text is none.
    fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>, MatrixError> {
        let Some(value) = self.0.get(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        value.parse().map(Some).map_err(|_| MatrixError::invalid_param(format!("`{name}` is not valid")))
    }
}

async fn by_timestamp(
    app: App,
    session: Session,
    request: get_event_by_timestamp::v1::Request,
) -> Result<get_event_by_timestamp::v1::Response, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let direction = match request.dir {
        AskedDirection::Backward => Direction::Backwards,
        AskedDirection::Forward => Direction::Forwards,
    };
    let event = app.history.nearest_in_time(&room, &session.user_id, request.ts, direction).await?;
    Ok(get_event_by_timestamp::v1::Response::new(event.id().to_owned(), event.pdu.origin_server_ts))
}

/// One event, in whichever room the user may see it.
async fn event(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    let (mut parts, _) = request.into_parts();
    let session = Session::identify(&app, &parts).await?;
    let params = RawPathParams::from_request_parts(&mut parts, &app).await;
    let params = params.map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let event_id = params.iter().next().and_then(|(_, id)| OwnedEventId::try_from(id).ok());
    let event_id = event_id.ok_or_else(|| MatrixError::not_found(NO_EVENT))?;
    let reader = Reader::of(&session);
    for room in app.rooms.of_event(&event_id).await? {
        let sight = app.rooms.sight(&room, &session.user_id).await?;
        let event = match app.rooms.visible_event(&room, &sight, &event_id).await {
            Err(Error::NotFound(_)) => continue,
            found => found?,
        };
        return Json(app.rooms.client_events(&room, reader, &[event], Some(&sight)).await?.pop()).reply();
    }
    Err(MatrixError::not_found(NO_EVENT))
}

#[derive(Serialize)]
struct RoomNow {
    room_id: String,
    membership: Value,
    messages: LastMessages,
    state: Vec<Box<RawValue>>,
    visibility: &'static str,
    account_data: Vec<Value>,
    presence: Vec<Value>,
}

#[derive(Serialize)]
struct LastMessages {
    start: String,
    end: String,
    chunk: Vec<Box<RawValue>>,
}

async fn room_initial_sync(
    app: App,
    session: Session,
    request: get_current_state::v3::Request,
) -> Result<Json<RoomNow>, MatrixError> {
    let room = app.rooms.of_acquaintance(&request.room_id).await?;
    let sight = app.rooms.reading(&room, &session.user_id).await?;
    let view = app.rooms.view(&room, &session.user_id).await?;
    let reader = Reader::of(&session);
    let state: Vec<_> = app.rooms.state_at(&room, view.at).await?.iter().cloned().collect();
    let filter = EventFilter::default().without(app.accounts.ignored_users(session.recipient).await?);
    let last =
        Paging { direction: Direction::Backwards, from: None, to: None, limit: FIRST, filter: &filter };
    let mut page = app.rooms.page(&room, &sight, last).await?;
    let end = page.start;
    let start = page.events.last().map_or(end, |event| event.seq - 1);
    page.events.reverse();
    let account_data = app.store.account_data_of(session.recipient, room.number).await?;
    let account_data = account_data.into_iter().map(|row| {
        let content: Value = serde_json::from_str(&row.content).unwrap_or_default();
        json!({ "type": row.kind, "content": content })
    });
    Ok(Json(RoomNow {
        room_id: room.room_id.to_string(),
        membership: json!(room.snapshot().membership(&session.user_id)),
        messages: LastMessages {
            start: token(start),
            end: token(end),
            chunk: app.rooms.client_events(&room, reader, &page.events, Some(&sight)).await?,
        },
        state: app.rooms.client_events(&room, reader, &state, Some(&sight)).await?,
        visibility: if app.rooms.is_published(&room).await? { "public" } else { "private" },
        account_data: account_data.collect(),
        presence: Vec::new(),
    }))
}

/// What a first `/sync` says, in its older form.
async fn initial_sync(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    let (parts, _) = request.into_parts();
    let session = Session::identify(&app, &parts).await?;
    let query = Query::of(&parts);
    let limit = query.get::<usize>("limit")?.map_or(FIRST, |limit| limit.min(MOST));
    let archived = query.get::<bool>("archived")?.unwrap_or(false);
    let filter = json!({ "room": { "timeline": { "limit": limit }, "include_leave": archived } });
    let _held = app.presence.hold(&session, presence::State::Online).await;
    let sync = synced(&app, session, None, Duration::ZERO, &filter).await?;
    let mut rooms = Vec::new();
    for membership in ["join", "leave"] {
        for (room_id, room) in members(&sync["rooms"][membership]) {
            rooms.push(json!({
                "room_id": room_id,
                "membership": membership,
                "messages": {
                    "start": room["timeline"]["prev_batch"],
                    "end": sync["next_batch"],
                    "chunk": room["timeline"]["events"],
                },
                "state": room["state"]["events"],
                "account_data": room["account_data"]["events"].as_array().cloned().unwrap_or_default(),
            }));
        }
    }
    for (room_id, room) in members(&sync["rooms"]["invite"]) {
        let events = room["invite_state"]["events"].as_array().cloned().unwrap_or_default();
        let own = events
            .iter()
            .find(|event| event["type"] == "m.room.member" && event["content"]["membership"] == "invite");
        rooms.push(json!({
            "room_id": room_id, "membership": "invite", "invite": own, "inviter": own.map(|own| &own["sender"]),
        }));
    }
    Json(json!({
        "end": sync["next_batch"],
        "rooms": rooms,
        "presence": sync["presence"]["events"].as_array().cloned().unwrap_or_default(),
        "account_data": sync["account_data"]["events"].as_array().cloned().unwrap_or_default(),
    }))
    .reply()
}

/// What is new: for the user or, with a room, for somebody who only looks into that one.
async fn stream(State(app): State<App>, request: Request) -> Result<Response, MatrixError> {
    let (parts, _) = request.into_parts();
    let session = Session::identify(&app, &parts).await?;
    let query = Query::of(&parts);
    let timeout = Duration::from_millis(query.get("timeout")?.unwrap_or(0)).min(LONGEST);
    let from = query.get::<String>("from")?;
    if let Some(room_id) = query.get::<OwnedRoomId>("room_id")? {
        let room = app.rooms.of_acquaintance(&room_id).await?;
        return peek(&app, &session, &room, from, timeout).await?.reply();
    }
    // Whoever reads events is online.
    let _held = app.presence.hold(&session, presence::State::Online).await;
    let start = from.unwrap_or_else(|| app.syncs.token_of_now());
    let filter = json!({});
    let sync = synced(&app, session, Some(&start), timeout, &filter).await?;
    let mut chunk = sync["presence"]["events"].as_array().cloned().unwrap_or_default();
    for section in ["join", "leave"] {
        for (room_id, room) in members(&sync["rooms"][section]) {
            let ephemeral = room["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
            let timeline = room["timeline"]["events"].as_array().cloned().unwrap_or_default();
            chunk.extend(timeline.into_iter().chain(ephemeral).map(|mut event| {
                event["room_id"] = json!(room_id);
                event
            }));
        }
    }
    Json(json!({ "start": start, "end": sync["next_batch"], "chunk": chunk })).reply()
}

async fn peek(
    app: &App,
    session: &Session,
    room: &Arc<Room>,
    from: Option<String>,
    timeout: Duration,
) -> Result<Json<Value>, MatrixError> {
    let deadline = Instant::now() + timeout;
    // Those who may not read it learn nothing of its tokens either.
    app.rooms.reading(room, &session.user_id).await?;
    let start = place(app, room, from).await?.unwrap_or_else(|| room.snapshot().last_seq);
    loop {
        // Whether it may still be read is asked anew each time.
        let sight = app.rooms.reading(room, &session.user_id).await?;
        let filter = EventFilter::default().without(app.accounts.ignored_users(session.recipient).await?);
        let paging = Paging {
            direction: Direction::Forwards,
            from: Some(start),
            to: None,
            limit: MOST,
            filter: &filter,
        };
        let page = app.rooms.page(room, &sight, paging).await?;
        if !page.events.is_empty() || Instant::now() >= deadline || app.shutdown.is_set() {
            let end = page.events.last().map_or(start, |event| event.seq);
            let chunk =
                app.rooms.client_events(room, Reader::of(session), &page.events, Some(&sight)).await?;
            return Ok(Json(json!({ "start": token(start), "end": token(end), "chunk": chunk })));
        }
        tokio::time::sleep(PEEK.min(deadline - Instant::now())).await;
    }
}

async fn synced(
    app: &App,
    session: Session,
    since: Option<&str>,
    timeout: Duration,
    filter: &Value,
) -> Result<Value, MatrixError> {
    let since = since.map(str::parse).transpose();
    let since = since.map_err(|_| MatrixError::invalid_param("`from` is not a token of this server"))?;
    let filter = serde_json::from_value(filter.clone()).map_err(|cause| MatrixError::internal(&cause))?;
    let filter = Arc::new(live::SyncFilter::new(filter));
    let wanted = live::Wanted { filter, full_state: false, state: live::StateForm::Before };
    let request = live::Request { since, timeout, wanted };
    let body = app.syncs.sync(session, request).await?;
    serde_json::from_slice(&body).map_err(|cause| MatrixError::internal(&cause))
}

fn members(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}
