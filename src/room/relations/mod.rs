//! What events say of one another: edits, reactions, references and threads ("Forming relationships between events" of the
//! Client-Server API).
//!
//! A relation is written in the transaction of the event that has it, and goes with the redaction of that event. It owns
//! nothing of its parent, which may be in none of our rooms. What others see of it is told beside the parent ([`bundle`]) and
//! listed ([`list`]).

mod asked;
mod bundle;
mod list;

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, RoomVersionId, ServerName, events::TimelineEventType};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

pub(super) use self::bundle::Scope;
pub use self::list::{Listing, RECURSION};
use super::{Core, Error, Event, Room, Rooms, Snapshot};
use crate::store::{
    Batch,
    relation::{RelationRow, relate, unrelate},
};

pub(super) const ANNOTATION: &str = "m.annotation";
pub(super) const REPLACE: &str = "m.replace";
pub(super) const THREAD: &str = "m.thread";

/// Bytes of a relation's type and of the id in it, as for those of events (EV-02).
const MAX_TYPE: usize = 255;
const MAX_ID: usize = 255;

/// RC-23: how many relations away from its thread an event may be.
const HOPS: usize = 3;

/// How an event relates to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub rel_type: String,
    pub target: OwnedEventId,
    /// What an annotation says.
    pub key: Option<String>,
}

impl Relation {
    /// RL-01, RL-02: from clear text alone. One that isn't as the specification has it is none.
    pub fn of(content: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Content {
            #[serde(rename = "m.relates_to")]
            relates_to: Value,
        }
        // Spares most events the parsing.
        if !content.get().contains("\"m.relates_to\"") {
            return None;
        }
        let content: Content = serde_json::from_str(content.get()).ok()?;
        // A NUL is nothing that every database keeps.
        let text = |name: &str| {
            content.relates_to.get(name)?.as_str().filter(|text| !text.contains('\0')).map(str::to_owned)
        };
        let rel_type = text("rel_type").filter(|kind| !kind.is_empty() && kind.len() <= MAX_TYPE)?;
        let target = text("event_id").filter(|id| id.len() <= MAX_ID)?;
        let target = OwnedEventId::try_from(target).ok()?;
        let key = if rel_type == ANNOTATION { text("key") } else { None };
        Some(Self { rel_type, target, key })
    }

    pub(super) fn is_thread(&self) -> bool {
        self.rel_type == THREAD
    }
}

impl Event {
    /// What it says of another event; state says nothing of others.
    pub fn relation(&self) -> Option<Relation> {
        if self.pdu.is_state() { None } else { Relation::of(&self.pdu.content) }
    }
}

/// Whether an event can be an edit, if it fits its parent (RL-08).
fn can_replace(event: &Event) -> bool {
    #[derive(Deserialize)]
    struct Content {
        #[serde(rename = "m.new_content")]
        new_content: Value,
    }
    // What an encrypted event has in its content nobody knows here.
    event.pdu.kind == TimelineEventType::RoomEncrypted
        || event.pdu.content_as::<Content>().is_ok_and(|content| content.new_content.is_object())
}

/// A relation of an event that is about to be appended, and where it leads.
#[derive(Debug)]
pub(super) struct Related {
    relation: Relation,
    /// If it is in the room.
    parent: Option<Arc<Event>>,
    /// The root of the thread that the event is in.
    thread: Option<OwnedEventId>,
}

impl Related {
    /// The name of the event's thread; empty in the main timeline.
    pub(super) fn thread(&self) -> &str {
        self.thread.as_deref().map_or("", EventId::as_str)
    }

    /// Puts the relation of `event` into the batch of the event, and takes note of it in `room`, the room as it will be.
    pub(super) fn store(&self, batch: &mut Batch, room: &mut Snapshot, event: &Event) {
        if !event.is_visible() {
            return;
        }
        let early = self.parent.is_none();
        room.last_relation = room.last_relation.max(event.seq);
        room.early_relations |= early;
        let relation = &self.relation;
        let kind = event.pdu.kind.to_string();
        let row = RelationRow {
            room: room.number,
            parent: relation.target.as_str(),
            seq: event.seq,
            event_id: event.id().as_str(),
            rel_type: &relation.rel_type,
            kind: &kind,
            sender: event.pdu.sender.as_str(),
            ts: i64::from(event.pdu.origin_server_ts.0),
            key: relation.key.as_deref(),
            replaces: relation.rel_type == REPLACE && can_replace(event),
            early,
        };
        batch.extend(relate(&row));
    }
}

/// RL-06: takes an event that is redacted out of what is told of its parent. `event` is as it was before.
pub(super) fn forget(batch: &mut Batch, room: i64, event: &Event) {
    if let Some(relation) = event.relation() {
        batch.extend(unrelate(room, relation.target.as_str(), event.seq, &relation.rel_type));
    }
}

impl Snapshot {
    /// Whether others may relate to an event. Nobody could name one of our own users before it was here.
    pub(super) fn may_have_children(&self, event: &Event, own: &ServerName) -> bool {
        let foreign = event.pdu.sender.server_name() != own;
        self.last_relation > event.seq || (self.early_relations && foreign)
    }
}

impl Core {
    /// The relation of an event of a room. `pending` are events of the room that aren't in the database yet.
    pub(super) async fn related(
        &self,
        room: &Snapshot,
        pending: &[Arc<Event>],
        event: &Event,
    ) -> Result<Option<Related>, Error> {
        let Some(relation) = event.relation() else { return Ok(None) };
        let find = async |event_id: &EventId| {
            // The newest form of it: it may have been redacted.
            if let Some(event) = pending.iter().rev().find(|event| event.id() == event_id) {
                return Ok(Some(Arc::clone(event)));
            }
            found(self.event_in(room.number, &room.version, event_id).await)
        };
        let parent = find(&relation.target).await?;
        let mut thread = relation.is_thread().then(|| relation.target.clone());
        let mut at = parent.clone().filter(|_| thread.is_none());
        for _ in 1..HOPS {
            let Some(next) = at.and_then(|event| event.relation()) else { break };
            if next.is_thread() {
                thread = Some(next.target);
                break;
            }
            at = find(&next.target).await?;
        }
        Ok(Some(Related { relation, parent, thread }))
    }

    /// What this server refuses to its own users of relations.
    pub(super) async fn check_relation(
        &self,
        room: &Snapshot,
        pending: &[Arc<Event>],
        event: &Event,
        related: &Related,
    ) -> Result<(), Error> {
        let relation = &related.relation;
        // RL-11
        let parent = related.parent.as_ref().filter(|_| relation.is_thread());
        if parent.is_some_and(|parent| parent.relation().is_some()) {
            return Err(Error::BadRelation(
                "a thread can't begin with an event that relates to another".to_owned(),
            ));
        }
        // RL-09
        let Some(key) = relation.key.as_deref() else { return Ok(()) };
        let same = |other: &Arc<Event>| {
            other.pdu.sender == event.pdu.sender
                && other.pdu.kind == event.pdu.kind
                && other.relation().as_ref() == Some(relation)
        };
        let redacted = |seq| pending.iter().any(|event| event.seq == seq && event.redacted_by.is_some());
        let (kind, sender) = (event.pdu.kind.to_string(), event.pdu.sender.as_str());
        let stored =
            self.store.annotations(room.number, relation.target.as_str(), sender, &kind, key).await?;
        if pending.iter().any(|other| same(other) && !redacted(other.seq))
            || stored.into_iter().any(|seq| !redacted(seq))
        {
            return Err(Error::DuplicateAnnotation);
        }
        Ok(())
    }

    /// The root of the thread that an event is in (RC-23), and whatever lies on the way there, the nearest first.
    async fn ancestry(
        &self,
        room: i64,
        version: &RoomVersionId,
        event: &Event,
    ) -> Result<(Option<OwnedEventId>, Vec<OwnedEventId>), Error> {
        let mut passed = Vec::new();
        let mut relation = event.relation();
        for _ in 0..HOPS {
            let Some(next) = relation else { break };
            if next.is_thread() {
                return Ok((Some(next.target), passed));
            }
            let parent = found(self.event_in(room, version, &next.target).await)?;
            relation = parent.and_then(|parent| parent.relation());
            passed.push(next.target);
        }
        Ok((None, passed))
    }
}

impl Rooms {
    /// RC-22, RC-23: whether an event may be read in a thread; without a root, in the main timeline. A thread's root, and
    /// what relates to that, is in the main timeline and may be read in the thread.
    pub async fn is_in_thread(
        &self,
        room: &Room,
        event: &Event,
        root: Option<&EventId>,
    ) -> Result<bool, Error> {
        let (thread, passed) = self.core.ancestry(room.number, &room.version, event).await?;
        Ok(match (thread, root) {
            (Some(thread), Some(root)) => thread == root,
            (Some(_), None) => false,
            (None, None) => true,
            (None, Some(root)) => event.id() == root || passed.iter().any(|passed| passed == root),
        })
    }
}

fn found(result: Result<Arc<Event>, Error>) -> Result<Option<Arc<Event>>, Error> {
    match result {
        Ok(event) => Ok(Some(event)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn relation(content: &Value) -> Option<Relation> {
        Relation::of(&to_raw_value(content).unwrap())
    }

    #[test]
    fn rl_01_a_relation_is_in_the_clear_text() {
        let id = "$parent:localhost";
        let given = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": id, "key": "+" } });
        let relation = relation(&given).unwrap();
        assert_eq!((relation.rel_type.as_str(), relation.target.as_str()), ("m.annotation", id));
        assert_eq!(relation.key.as_deref(), Some("+"));
    }

    #[test]
    fn rl_02_what_is_no_relation_is_none() {
        let id = "$parent:localhost";
        for content in [
            json!({}),
            json!({ "body": "\"m.relates_to\"" }),
            json!({ "m.relates_to": null }),
            json!({ "m.relates_to": [] }),
            json!({ "m.relates_to": { "m.in_reply_to": { "event_id": id } } }),
            json!({ "m.relates_to": { "rel_type": "m.thread" } }),
            json!({ "m.relates_to": { "event_id": id } }),
            json!({ "m.relates_to": { "rel_type": 1, "event_id": id } }),
            json!({ "m.relates_to": { "rel_type": "", "event_id": id } }),
            json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": { "x": 1 } } }),
            json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": "parent" } }),
            json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": format!("${}", "x".repeat(300)) } }),
            json!({ "m.relates_to": { "rel_type": "x".repeat(256), "event_id": id } }),
            json!({ "m.relates_to": { "rel_type": "x\0y", "event_id": id } }),
        ] {
            assert_eq!(relation(&content), None, "{content}");
        }
        let key = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": id, "key": 5 } });
        assert_eq!(relation(&key).unwrap().key, None);
    }
}
