//! What of a transaction isn't an event: typing, receipts, presence. It is about users of the server that sent it, and about
//! rooms that let that server in, or it is nothing (ED-05). What a server says of others is dropped without a word.
//!
//! Specification: [EDUs](https://spec.matrix.org/v1.19/server-server-api/#edus) and the sections of its types.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Inbound;
use crate::{
    keys::{ListUpdates, to_device::DirectToDevice},
    presence::{Hearsay, State},
    receipts::{Heard, Thread},
    room::{self, Room},
};

/// Bytes of one.
const LONGEST: usize = 1024 * 1024;
/// Of all of a transaction: receipts, users whose presence is told.
const MOST_RECEIPTS: usize = 1_000;
const MOST_PRESENT: usize = 500;
/// How long somebody types whose server says nothing more. Servers say it again every forty seconds or so.
const TYPES_FOR: Duration = Duration::from_mins(1);
/// Events that one receipt names.
const MOST_EVENTS: usize = 10;

/// The other data of a transaction, by what they need. What isn't known, or can't be read, is nothing (ED-01).
#[derive(Default)]
pub(super) struct Edus {
    typing: Vec<Typing>,
    present: Vec<Present>,
    /// They name events, which may have come with them.
    receipts: Vec<Receipts>,
    pub(super) to_device: Vec<DirectToDevice>,
    pub(super) lists: ListUpdates,
}

#[derive(Deserialize)]
struct Edu<'a> {
    edu_type: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Typing {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    #[serde(rename = "typing")]
    begins: bool,
}

/// By room, whatever is in there.
type Receipts = BTreeMap<String, Box<RawValue>>;

#[derive(Deserialize)]
struct InRoom {
    /// By user. Other types are nobody's business (ED-04).
    #[serde(rename = "m.read", default)]
    read: BTreeMap<String, Box<RawValue>>,
}

#[derive(Deserialize)]
struct Receipt {
    event_ids: Vec<OwnedEventId>,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    ts: Option<i64>,
    #[serde(default)]
    thread_id: Option<String>,
}

#[derive(Deserialize)]
struct Presences {
    push: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Present {
    user_id: OwnedUserId,
    presence: State,
    #[serde(default)]
    status_msg: Option<String>,
    #[serde(default)]
    last_active_ago: Option<i64>,
}

impl Edus {
    pub(super) fn read(origin: &ServerName, edus: &[Box<RawValue>]) -> Self {
        let mut all = Self::default();
        for edu in edus.iter().filter(|edu| edu.get().len() <= LONGEST) {
            if let Err(cause) = all.add(origin, edu) {
                tracing::debug!(%origin, %cause, "data that can't be read are dropped");
            }
        }
        all
    }

    fn add(&mut self, origin: &ServerName, edu: &RawValue) -> serde_json::Result<()> {
        let edu: Edu<'_> = serde_json::from_str(edu.get())?;
        let content = edu.content.get();
        match edu.edu_type.as_str() {
            "m.typing" => self.typing.push(serde_json::from_str(content)?),
            "m.receipt" => self.receipts.push(serde_json::from_str(content)?),
            "m.presence" => {
                let presences: Presences = serde_json::from_str(content)?;
                let left = MOST_PRESENT.saturating_sub(self.present.len());
                let push = presences.push.iter().take(left);
                self.present.extend(push.filter_map(|push| serde_json::from_str(push.get()).ok()));
            }
            "m.direct_to_device" => self.to_device.push(serde_json::from_str(content)?),
            "m.device_list_update" => self.lists.devices.push(serde_json::from_str(content)?),
            "m.signing_key_update" | "org.matrix.signing_key_update" => {
                self.lists.keys.push(serde_json::from_str(content)?);
            }
            kind => tracing::debug!(%origin, kind, "data of an unknown type are passed over"),
        }
        Ok(())
    }
}

impl Inbound {
    /// Typing, which is of this moment.
    pub(super) async fn typing(&self, origin: &ServerName, edus: &Edus) {
        for edu in &edus.typing {
            if edu.user_id.server_name() != origin {
                continue;
            }
            let Some(room) = self.room_open_to(origin, &edu.room_id).await else { continue };
            if !edu.begins {
                self.typing.stop(&room, &edu.user_id);
            } else if room.snapshot().is_joined(&edu.user_id) {
                // ED-02
                self.typing.start(&room, &edu.user_id, Some(TYPES_FOR));
            }
        }
    }

    /// Presence, after the events by which its users may have come into rooms with people here.
    pub(super) async fn present(&self, origin: &ServerName, edus: &Edus) {
        for edu in edus.present.iter().filter(|edu| edu.user_id.server_name() == origin) {
            let hearsay = Hearsay {
                user_id: edu.user_id.clone(),
                state: edu.presence,
                status: edu.status_msg.clone(),
                last_active_ago: edu.last_active_ago,
            };
            if let Err(cause) = self.presence.hear(hearsay).await {
                tracing::warn!(%origin, %cause, "a user's presence is passed over");
            }
        }
    }

    /// Receipts, after the events that they may be about.
    pub(super) async fn receipts(&self, origin: &ServerName, edus: &Edus) {
        let mut by_room: HashMap<OwnedRoomId, Vec<Heard>> = HashMap::new();
        let mut left = MOST_RECEIPTS;
        for (room_id, receipts) in edus.receipts.iter().flatten() {
            let Ok(room_id) = RoomId::parse(room_id) else { continue };
            let Ok(receipts) = serde_json::from_str::<InRoom>(receipts.get()) else { continue };
            for (user_id, receipt) in receipts.read {
                let Ok(user_id) = UserId::parse(user_id) else { continue };
                let Some(heard) = heard(user_id, &receipt).filter(|_| left > 0) else { continue };
                if heard.user_id.server_name() == origin {
                    left -= 1;
                    by_room.entry(room_id.clone()).or_default().push(heard);
                }
            }
        }
        for (room_id, heard) in by_room {
            let Some(room) = self.room_open_to(origin, &room_id).await else { continue };
            if let Err(cause) = self.heard.hear(&room, heard).await {
                tracing::warn!(%origin, %room_id, %cause, "receipts of a room are passed over");
            }
        }
    }

    /// A room that somebody here is in and that lets a server in (AC-02).
    async fn room_open_to(&self, origin: &ServerName, room_id: &RoomId) -> Option<Arc<Room>> {
        let room = match self.rooms.by_id(room_id).await {
            Ok(room) => room,
            Err(room::Error::NotFound(_)) => return None,
            Err(cause) => {
                tracing::warn!(%room_id, %cause, "a room can't be read");
                return None;
            }
        };
        let snapshot = room.snapshot();
        (!snapshot.local.is_empty() && snapshot.lets_in(origin)).then_some(room)
    }
}

fn heard(user_id: OwnedUserId, receipt: &RawValue) -> Option<Heard> {
    let Receipt { mut event_ids, data } = serde_json::from_str(receipt.get()).ok()?;
    event_ids.truncate(MOST_EVENTS);
    let thread = match data.thread_id {
        None => Thread::Unthreaded,
        Some(thread) if thread == "main" => Thread::Main,
        Some(thread) => Thread::Root(EventId::parse(thread).ok()?),
    };
    Some(Heard { user_id, event_ids, thread, ts: data.ts.unwrap_or(i64::MAX) })
}
