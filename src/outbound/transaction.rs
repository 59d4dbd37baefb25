//! A transaction: what is sent to a server in one request.
//!
//! Specification: [Transactions](https://spec.matrix.org/v1.19/server-server-api/#transactions).

use std::collections::BTreeMap;

use ruma::{OwnedRoomId, OwnedUserId, ServerName};
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::{
    backlog::{Item, Waiting},
    devices,
};
use crate::store::{self, Store};

/// Events that one transaction may have (TX-01).
pub(super) const MOST_PDUS: usize = 50;
/// … and other data.
pub(super) const MOST_EDUS: usize = 100;

/// People of whom one transaction tells how they are: more aren't listened to.
const MOST_PRESENT: usize = 500;

/// What fades, for one server: the last word of each.
#[derive(Clone, Debug, Default)]
pub(super) struct Fading {
    pub(super) typing: BTreeMap<(OwnedRoomId, OwnedUserId), bool>,
    pub(super) presence: BTreeMap<OwnedUserId, Value>,
}

impl Fading {
    pub(super) fn is_empty(&self) -> bool {
        self.typing.is_empty() && self.presence.is_empty()
    }

    /// As much of it as fits.
    fn take(&mut self, most: usize) -> Vec<Value> {
        let mut edus = Vec::new();
        while edus.len() < most
            && let Some(((room_id, user_id), typing)) = self.typing.pop_first()
        {
            let content = json!({ "room_id": room_id, "user_id": user_id, "typing": typing });
            edus.push(json!({ "edu_type": "m.typing", "content": content }));
        }
        if edus.len() < most && !self.presence.is_empty() {
            let push = std::iter::from_fn(|| self.presence.pop_first()).take(MOST_PRESENT);
            let push: Vec<Value> = push.map(|(_, content)| content).collect();
            edus.push(json!({ "edu_type": "m.presence", "content": { "push": push } }));
        }
        edus
    }
}

#[derive(Serialize)]
struct Body<'a> {
    origin: &'a ServerName,
    origin_server_ts: i64,
    pdus: Vec<&'a RawValue>,
    edus: Vec<Value>,
}

/// The body for some items, and for what fades as far as there is room. Each item has a bounded size, and so has the whole.
pub(super) async fn body(
    store: &Store,
    recipient: i64,
    us: &ServerName,
    now: i64,
    items: &[Waiting],
    fading: &mut Fading,
) -> Result<String, store::Error> {
    let pdus = items.iter().filter_map(|(_, item)| match item {
        Item::Event(event) => Some(&*event.pdu.json),
        _ => None,
    });
    // Messages come after word of the devices that sent them.
    let mut edus = devices::edus(store, items).await?;
    edus.extend(messages(store, recipient, items).await?);
    let receipts = receipts(store, items).await?.into_iter();
    edus.extend(receipts.map(|content| json!({ "edu_type": "m.receipt", "content": content })));
    edus.extend(fading.take(MOST_EDUS.saturating_sub(edus.len())));
    let body = Body { origin: us, origin_server_ts: now, pdus: pdus.collect(), edus };
    serde_json::to_string(&body).map_err(|cause| store::Error::Encoding(cause.to_string()))
}

/// TD-04: messages to devices, in their order.
async fn messages(store: &Store, recipient: i64, items: &[Waiting]) -> Result<Vec<Value>, store::Error> {
    let positions: Vec<i64> = items
        .iter()
        .filter(|(_, item)| matches!(item, Item::Message))
        .map(|(position, _)| *position)
        .collect();
    if positions.is_empty() {
        return Ok(Vec::new());
    }
    let rows = store.messages_at(recipient, &positions).await?;
    let content = |text: &str| serde_json::from_str::<Value>(text).ok();
    let contents = rows.iter().filter_map(|row| content(&row.message));
    Ok(contents.map(|content| json!({ "edu_type": "m.direct_to_device", "content": content })).collect())
}

/// Receipts by room and user.
type OfRooms = BTreeMap<String, BTreeMap<String, Value>>;

/// ED-04: the public receipts among some items, by room and user. One of these has one receipt of a user in a room, so whoever
/// has read in several threads is in several.
async fn receipts(store: &Store, items: &[Waiting]) -> Result<Vec<Value>, store::Error> {
    let mut rooms: BTreeMap<String, (i64, Vec<i64>)> = BTreeMap::new();
    for (_, item) in items {
        if let Item::Receipt { room, changed } = item {
            rooms.entry(room.room_id.to_string()).or_insert((room.number, Vec::new())).1.push(*changed);
        }
    }
    let mut parts: Vec<OfRooms> = Vec::new();
    for (room_id, (number, changed)) in rooms {
        let rows = store.receipts_changed(number, &changed).await?;
        for row in rows.into_iter().filter(|row| row.kind == "m.read") {
            let mut data = json!({ "ts": row.ts });
            if !row.thread.is_empty() {
                data["thread_id"] = json!(row.thread);
            }
            let receipt = json!({ "event_ids": [row.event_id], "data": data });
            let has =
                |part: &OfRooms| part.get(&room_id).is_some_and(|users| users.contains_key(&row.user_id));
            let free = parts.iter().position(|part| !has(part)).unwrap_or(parts.len());
            if free == parts.len() {
                parts.push(BTreeMap::new());
            }
            parts[free].entry(room_id.clone()).or_default().insert(row.user_id, receipt);
        }
    }
    let content = |part: OfRooms| {
        part.into_iter().map(|(room_id, users)| (room_id, json!({ "m.read": users }))).collect::<Value>()
    };
    Ok(parts.into_iter().map(content).collect())
}
