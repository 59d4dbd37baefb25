//! Delayed events (MSC4140): scheduled here, looked at, restarted, sent early and cancelled.
//!
//! Every form that clients speak is served: the stable and the unstable paths of the accepted proposal, and the forms
//! before it, which scheduled by a parameter of `/send` and `/state` and named the action in the body.

use http::StatusCode;
use ruma::RoomId;
use serde::{Deserialize, Serialize};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};

use super::{
    send::txn,
    with::{Delay, With},
};
use crate::{
    account::Session,
    api::bare::{Bare, Get, Post, Put},
    app::App,
    http::{Json, MatrixError, Routes, Visitor},
    limits::Class,
    room::{
        self,
        delayed::{self, ActError, Action, Delayed, ScheduleError},
    },
};

const UNSTABLE: &str = "/_matrix/client/unstable/org.matrix.msc4140";

pub(super) fn routes() -> Routes {
    // The proposal wants limits on all of it. A client in a call restarts its event every few seconds.
    let class = Class::Default;
    let unstable = |path: &str| format!("{UNSTABLE}{path}");
    Routes::default()
        .limited_alias(
            Class::Message,
            "/_matrix/client/v3/rooms/{room_id}/delayed_event/{event_type}/{txn_id}",
            schedule,
        )
        .limited_alias(
            Class::Message,
            &unstable("/rooms/{room_id}/delayed_event/{event_type}/{txn_id}"),
            schedule,
        )
        .limited_alias(class, "/_matrix/client/v1/delayed_events", list)
        .limited_alias(class, &unstable("/delayed_events"), list_unstable)
        .limited_alias(class, "/_matrix/client/v1/delayed_events/{delay_id}", get)
        .limited_alias(class, &unstable("/delayed_events/{delay_id}"), get_unstable)
        .limited_alias(class, "/_matrix/client/v1/delayed_events/{delay_id}/{action}", manage)
        .limited_alias(class, &unstable("/delayed_events/{delay_id}/{action}"), manage_by_id)
        .limited_alias(class, &unstable("/delayed_events/{delay_id}"), manage_by_body)
}

/// A request that sends an event, now or later.
pub(super) type Delayable<R> = With<R, Delay>;

/// What became of an event: it was sent, or is to be.
#[derive(Serialize)]
pub enum Sent {
    #[serde(rename = "event_id")]
    Now(ruma::OwnedEventId),
    #[serde(rename = "delay_id")]
    Later(String),
}

/// An event that a request wants to be sent later.
pub(super) struct Wanted<'a> {
    pub room_id: &'a RoomId,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    pub txn: Option<room::Txn>,
}

/// Schedules what `/send` and `/state` were asked to delay.
pub(super) async fn schedule_by_query(
    app: &App,
    session: &Session,
    wanted: Wanted<'_>,
    delay: &str,
) -> Result<Sent, MatrixError> {
    let delay = delay.parse::<i64>().ok().filter(|delay| *delay > 0);
    let delay = delay.ok_or_else(|| MatrixError::invalid_param(BAD_DELAY))?;
    let scheduled = enter(app, session, wanted, delay).await;
    // Today's clients know these errors by what they were called in the proposal's drafts.
    let delay_id = scheduled.map_err(|error| match error {
        ScheduleError::TooLong { most } => MatrixError::new(
            StatusCode::BAD_REQUEST,
            "M_UNKNOWN",
            format!("the delay is longer than the {most} ms that this server allows"),
        )
        .with("org.matrix.msc4140.errcode", "M_MAX_DELAY_EXCEEDED")
        .with("org.matrix.msc4140.max_delay", most),
        error @ ScheduleError::TooMany { .. } => {
            MatrixError::from(error).with("org.matrix.msc4140.errcode", "M_MAX_DELAYED_EVENTS_EXCEEDED")
        }
        error => error.into(),
    })?;
    Ok(Sent::Later(delay_id))
}

const BAD_DELAY: &str = "the delay is a positive number of milliseconds";

async fn enter(
    app: &App,
    session: &Session,
    wanted: Wanted<'_>,
    delay: i64,
) -> Result<String, ScheduleError> {
    let room = app.rooms.of_member(wanted.room_id, &session.user_id).await?;
    let new = delayed::New {
        recipient: session.recipient,
        device: session.device,
        room: room.number,
        kind: wanted.kind,
        state_key: wanted.state_key,
        content: wanted.content,
        delay,
        txn: wanted.txn,
    };
    app.delayed.schedule(new).await
}

impl From<ScheduleError> for MatrixError {
    fn from(error: ScheduleError) -> Self {
        let text = error.to_string();
        match error {
            ScheduleError::Disallowed | ScheduleError::TooLong { .. } => Self::forbidden(text),
            ScheduleError::TooMany { next } => Self::limit_exceeded(next).with("error", text),
            ScheduleError::TooLarge(_) => Self::too_large(text),
            ScheduleError::Room(cause) => cause.into(),
        }
    }
}

impl From<ActError> for MatrixError {
    fn from(error: ActError) -> Self {
        let text = error.to_string();
        match error {
            ActError::NotFound => Self::not_found(text),
            ActError::Settled(_) => Self::new(StatusCode::CONFLICT, "M_UNKNOWN", text),
            ActError::Barred(_) => Self::forbidden(text),
            ActError::Room(cause) => cause.into(),
        }
    }
}

/// A stored reason why an event wasn't sent.
pub fn explain(error: ActError) -> Value {
    MatrixError::from(error).into_body()
}

#[derive(Deserialize)]
struct Schedule {
    delay_ms: Option<Value>,
    /// What ruma's definition calls it.
    delay: Option<Value>,
    state_key: Option<String>,
    content: Option<Box<RawValue>>,
}

async fn schedule(
    app: App,
    session: Session,
    request: Bare<Put, Schedule>,
) -> Result<Json<Sent>, MatrixError> {
    let [room_id, kind, txn_id] = request.parameters()?;
    let room_id =
        <&RoomId>::try_from(room_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let txn = txn(&session, txn_id, &["delayed_event", room_id.as_str(), kind])?;
    let kind = kind.to_owned();
    let body = &request.content;
    let delay = body.delay_ms.as_ref().or(body.delay.as_ref());
    let delay = delay.ok_or_else(|| MatrixError::missing_param("the body has no `delay_ms`"))?;
    let delay = delay.as_i64().filter(|delay| *delay > 0);
    let delay = delay.ok_or_else(|| MatrixError::invalid_param(BAD_DELAY))?;
    let content = body.content.clone();
    let content = content.ok_or_else(|| MatrixError::missing_param("the body has no `content`"))?;
    let content = object(&content)?;
    let state_key = body.state_key.clone();
    let wanted = Wanted { room_id, kind, state_key, content, txn: Some(txn) };
    Ok(Json(Sent::Later(enter(&app, &session, wanted, delay).await?)))
}

/// Content as `/send` would take it.
fn object(content: &RawValue) -> Result<Box<RawValue>, MatrixError> {
    let object: Map<String, Value> = serde_json::from_str(content.get())
        .map_err(|_| MatrixError::bad_json("`content` has to be an object"))?;
    to_raw_value(&object).map_err(|cause| MatrixError::internal(&cause))
}

/// As the proposal describes one. Clients of its drafts know two of the fields by other names.
fn describe(delayed: Delayed, unstable: bool) -> Value {
    let mut described = json!({
        "delay_id": delayed.delay_id,
        "room_id": delayed.room_id,
        "type": delayed.kind,
        "delay_ms": delayed.delay,
        "scheduled_at": delayed.scheduled_ts,
        "content": delayed.content,
    });
    if unstable {
        described["delay"] = described["delay_ms"].clone();
        described["running_since"] = described["scheduled_at"].clone();
    }
    let optional = [
        ("state_key", delayed.state_key.map(Value::from)),
        ("finalised_ts", delayed.finalised_ts.map(Value::from)),
        ("event_id", delayed.event_id.map(Value::from)),
        ("error", delayed.error),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            described[name] = value;
        }
    }
    described
}

async fn all(app: &App, session: &Session, unstable: bool) -> Result<Json<Value>, MatrixError> {
    let scheduled = app.delayed.of(session.recipient).await?;
    let described: Vec<Value> = scheduled.into_iter().map(|one| describe(one, unstable)).collect();
    Ok(Json(json!({ "delayed_events": described })))
}

async fn list(app: App, session: Session, _: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    all(&app, &session, false).await
}

async fn list_unstable(app: App, session: Session, _: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    all(&app, &session, true).await
}

async fn one(
    app: &App,
    session: &Session,
    request: &Bare<Get>,
    unstable: bool,
) -> Result<Json<Value>, MatrixError> {
    let [delay_id] = request.parameters()?;
    let delayed = app.delayed.get(delay_id, session.recipient).await?;
    Ok(Json(describe(delayed, unstable)))
}

async fn get(app: App, session: Session, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    one(&app, &session, &request, false).await
}

async fn get_unstable(app: App, session: Session, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    one(&app, &session, &request, true).await
}

async fn manage(app: App, session: Session, request: Bare<Post>) -> Result<Json<Value>, MatrixError> {
    let [delay_id, action] = request.parameters()?;
    act(&app, delay_id, Some(session.recipient), of_path(action)?).await
}

/// On the unstable path whoever knows the id may act, as clients and the servers of calls expect that speak to it.
async fn manage_by_id(app: App, _: Visitor, request: Bare<Post>) -> Result<Json<Value>, MatrixError> {
    let [delay_id, action] = request.parameters()?;
    act(&app, delay_id, None, of_path(action)?).await
}

#[derive(Deserialize)]
struct ActionBody {
    action: Option<String>,
}

async fn manage_by_body(
    app: App,
    _: Visitor,
    request: Bare<Post, ActionBody>,
) -> Result<Json<Value>, MatrixError> {
    let [delay_id] = request.parameters()?;
    let action = request.content.action.as_deref();
    let action = action.ok_or_else(|| MatrixError::missing_param("the body has no `action`"))?;
    let action =
        named(action).ok_or_else(|| MatrixError::invalid_param("the action is send, restart or cancel"))?;
    act(&app, delay_id, None, action).await
}

fn named(action: &str) -> Option<Action> {
    match action {
        "send" => Some(Action::Send),
        "restart" => Some(Action::Restart),
        "cancel" => Some(Action::Cancel),
        _ => None,
    }
}

/// Each action is an endpoint of its own, and there are no others.
fn of_path(action: &str) -> Result<Action, MatrixError> {
    let unrecognized =
        || MatrixError::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "the action is send, restart or cancel");
    named(action).ok_or_else(unrecognized)
}

async fn act(
    app: &App,
    delay_id: &str,
    owner: Option<i64>,
    action: Action,
) -> Result<Json<Value>, MatrixError> {
    app.delayed.act(delay_id, owner, action).await?;
    Ok(Json(json!({})))
}
