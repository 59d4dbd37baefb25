//! `GET /notifications` ("Push Notifications"): what a user was notified of lately.

use std::collections::HashMap;

use ruma::api::client::push::get_notifications::v3::Request;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    account::Session,
    app::App,
    http::{Json, MatrixError, Routes},
    push::Sound,
    queue::flags,
    room::Reader,
};

/// Notifications of a page if the client doesn't say, and the most.
const USUAL: usize = 20;
const MOST: usize = 100;
/// Pages that are read to fill one, if what they hold may not be seen any more.
const ROUNDS: usize = 10;

pub(super) fn routes() -> Routes {
    Routes::default().add(notifications)
}

#[derive(Serialize)]
struct Page {
    notifications: Vec<Notification>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
struct Notification {
    room_id: String,
    event: Box<RawValue>,
    actions: Value,
    profile_tag: Option<String>,
    read: bool,
    ts: i64,
}

async fn notifications(app: App, session: Session, request: Request) -> Result<Json<Page>, MatrixError> {
    let limit = request.limit.map_or(USUAL, |limit| usize::try_from(limit).unwrap_or(MOST).clamp(1, MOST));
    let mut before = match request.from.as_deref().filter(|from| !from.is_empty()) {
        None => i64::MAX,
        Some(from) => from
            .strip_prefix('n')
            .and_then(|position| position.parse().ok())
            .ok_or_else(|| MatrixError::invalid_param("`from` is not a token of this list"))?,
    };
    let wanted = match request.only.as_deref() {
        None | Some("") => flags::NOTIFY,
        Some("highlight") => flags::HIGHLIGHT,
        Some(other) => return Err(MatrixError::invalid_param(format!("`only`: `{other}` is not known"))),
    };
    let reader = Reader::of(&session);
    let ignored = app.accounts.ignored_users(session.recipient).await?;
    let mut notifications = Vec::new();
    let mut sights = HashMap::new();
    for _ in 0..ROUNDS {
        let rows = app.store.notifications(session.recipient, before, limit as i64, wanted).await?;
        let last = rows.len() < limit;
        for row in rows {
            if notifications.len() == limit {
                return Ok(Json(Page { notifications, next_token: Some(format!("n{before}")) }));
            }
            before = row.position;
            let room = app.rooms.by_number(row.room).await?;
            let sight = match sights.entry(row.room) {
                std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(app.rooms.sight(&room, &session.user_id).await?)
                }
            };
            let event = app.rooms.events(&room, &[row.seq]).await?.pop();
            let seen = event.filter(|event| event.is_visible() && sight.may_see(event.seq));
            let Some(event) = seen.filter(|event| !ignored.contains(&event.pdu.sender)) else { continue };
            let ts = event.pdu.origin_server_ts.get().into();
            let Some(event) = app.rooms.client_events(&room, reader, &[event], Some(sight)).await?.pop()
            else {
                continue;
            };
            notifications.push(Notification {
                room_id: room.room_id.to_string(),
                event,
                actions: actions(row.flags),
                profile_tag: None,
                read: !row.unread,
                ts,
            });
        }
        if last {
            return Ok(Json(Page { notifications, next_token: None }));
        }
    }
    Ok(Json(Page { notifications, next_token: Some(format!("n{before}")) }))
}

/// Those of the rule that matched, in the order that the specification's own rules have them.
fn actions(flags: i64) -> Value {
    let mut actions = vec![json!("notify")];
    if flags & flags::SOUND != 0 {
        let sound = if flags & flags::RING != 0 { Sound::Ring } else { Sound::Default };
        actions.push(json!({ "set_tweak": "sound", "value": sound.name() }));
    }
    if flags & flags::HIGHLIGHT != 0 {
        actions.push(json!({ "set_tweak": "highlight" }));
    }
    Value::Array(actions)
}
