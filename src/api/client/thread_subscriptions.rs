//! Subscriptions to threads (MSC4306) and the list of them (MSC4308), under the prefixes that clients use.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;
use ruma::{EventId, OwnedEventId, RoomId};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::history::glimpse;
use crate::{
    account::Session,
    api::bare::{Bare, Delete, Get, Put},
    app::App,
    http::{Json, MatrixError, Routes},
    limits::Class,
    queue::Token,
    room::{self, Room, Sight},
};

/// How many subscriptions a page has unless the client wants another number, and at most.
const USUAL: i64 = 100;
const MOST: i64 = 500;

pub(super) fn routes() -> Routes {
    let one = "/_matrix/client/unstable/io.element.msc4306/rooms/{room_id}/thread/{root}/subscription";
    let class = Class::Default;
    Routes::default()
        .limited_alias(class, one, get)
        .limited_alias(class, one, subscribe)
        .limited_alias(class, one, unsubscribe)
        .limited_alias(class, "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions", list)
}

/// A thread that the user may see.
struct Thread {
    room: Arc<Room>,
    sight: Sight,
    root: OwnedEventId,
}

/// Any event can have a thread, so it is there if its root is.
async fn thread<V, B>(app: &App, session: &Session, request: &Bare<V, B>) -> Result<Thread, MatrixError> {
    let [room_id, root] = request.parameters()?;
    let room_id =
        <&RoomId>::try_from(room_id).map_err(|cause| MatrixError::invalid_param(cause.to_string()))?;
    let root = event_id(root)?.to_owned();
    let (room, sight) = glimpse(app, session, room_id).await?;
    app.rooms.visible_event(&room, &sight, &root).await?;
    Ok(Thread { room, sight, root })
}

fn event_id(text: &str) -> Result<&EventId, MatrixError> {
    <&EventId>::try_from(text).map_err(|cause| MatrixError::invalid_param(cause.to_string()))
}

async fn get(app: App, session: Session, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    let Thread { room, root, .. } = thread(&app, &session, &request).await?;
    let found = app.accounts.thread_subscription(session.recipient, room.number, root.as_str()).await?;
    let automatic = found.ok_or_else(|| MatrixError::not_found("you are not subscribed to the thread"))?;
    Ok(Json(json!({ "automatic": automatic })))
}

#[derive(Deserialize)]
struct Subscribe {
    /// The event for which a client subscribes by itself.
    automatic: Option<String>,
}

async fn subscribe(
    app: App,
    session: Session,
    request: Bare<Put, Subscribe>,
) -> Result<Json<Value>, MatrixError> {
    let Thread { room, sight, root } = thread(&app, &session, &request).await?;
    let cause = match &request.content.automatic {
        None => None,
        Some(cause) => {
            let not_in_thread = || {
                let error = "the event that `automatic` names is not in the thread";
                MatrixError::new(StatusCode::BAD_REQUEST, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD", error)
            };
            let event = match app.rooms.visible_event(&room, &sight, event_id(cause)?).await {
                Err(room::Error::NotFound(_)) => return Err(not_in_thread()),
                other => other?,
            };
            if !app.rooms.is_in_thread(&room, &event, Some(&root)).await? {
                return Err(not_in_thread());
            }
            Some(event.seq)
        }
    };
    app.accounts.subscribe_thread(session.recipient, room.number, root.as_str(), cause).await?;
    Ok(Json(json!({})))
}

async fn unsubscribe(app: App, session: Session, request: Bare<Delete>) -> Result<Json<Value>, MatrixError> {
    let Thread { room, root, .. } = thread(&app, &session, &request).await?;
    let last_seq = room.snapshot().last_seq;
    app.accounts.unsubscribe_thread(session.recipient, room.number, root.as_str(), last_seq).await?;
    Ok(Json(json!({})))
}

/// A position as a token of this list.
fn token(position: i64) -> String {
    format!("ts{position}")
}

fn position(token: &str) -> Option<i64> {
    token.strip_prefix("ts")?.parse().ok()
}

/// The position that a token of the queue points to: 0 if it means nothing here.
fn position_of_sync(app: &App, token: &str) -> Option<i64> {
    match token.parse() {
        Ok(token @ Token::Queue { .. }) => Some(app.syncs.position(token).unwrap_or(0)),
        _ => None,
    }
}

async fn list(app: App, session: Session, request: Bare<Get>) -> Result<Json<Value>, MatrixError> {
    match request.query("dir").as_deref() {
        Some("b") => {}
        Some(_) => return Err(MatrixError::invalid_param("`dir` can only be b")),
        None => return Err(MatrixError::missing_param("the query has no `dir`")),
    }
    let bound = |name: &str, usual: i64, read: &dyn Fn(&str) -> Option<i64>| match request.query(name) {
        None => Ok(usual),
        Some(text) => read(&text)
            .ok_or_else(|| MatrixError::invalid_param(format!("`{name}` is no token of this list"))),
    };
    // MSC4308: what sliding sync left out lies after the `pos` that its request had.
    let end = |text: &str| position(text).or_else(|| position_of_sync(&app, text));
    let (upto, after) = (bound("from", i64::MAX, &position)?, bound("to", 0, &end)?);
    let limit = request.query("limit").map_or(Ok(USUAL), |limit| limit.parse::<i64>());
    let limit = limit.ok().filter(|limit| *limit > 0);
    let limit = limit.ok_or_else(|| MatrixError::invalid_param("`limit` is a positive number"))?.min(MOST);

    let rows = app.accounts.thread_subscriptions(session.recipient, after, upto, limit).await?;
    let end = rows.last().filter(|_| rows.len() as i64 == limit).map(|last| token(last.changed - 1));
    let mut lists = [("subscribed", BTreeMap::new()), ("unsubscribed", BTreeMap::new())];
    for row in rows {
        let mut entry = json!({ "bump_stamp": row.changed });
        if row.subscribed {
            entry["automatic"] = row.automatic.into();
        }
        let threads: &mut Map<String, Value> =
            lists[usize::from(!row.subscribed)].1.entry(row.room_id).or_default();
        threads.insert(row.root, entry);
    }
    let mut answer = json!({});
    for (name, rooms) in lists.into_iter().filter(|(_, rooms)| !rooms.is_empty()) {
        answer[name] = json!(rooms);
    }
    if let Some(end) = end {
        answer["end"] = end.into();
    }
    Ok(Json(answer))
}
