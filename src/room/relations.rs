//! What events say of others: edits, reactions, threads and references ("Forming relationships between events").
//!
//! The writer keeps a row for each relation that counts. Here they are read: as lists of children and of threads, and
//! as what is told along with an event ([`Bundles`]). Relations are of clear text always (RL-01), so encrypted events
//! have them too. Whoever reads learns only of children that they may see and whose senders they don't ignore (RL-05).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use ruma::{EventId, OwnedEventId};
use serde::{Deserialize, Serialize};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{Core, Direction, Error, Event, Reader, Room, Rooms, Sight};
use crate::store::relation::{Seen, Wanted};

/// RC-23: how many relations away from its thread an event may be.
pub const HOPS: usize = 3;

/// RL-13: levels of children that `recurse` finds.
const LEVELS: i64 = 3;

/// References to one event that are told along with it.
const REFERENCES: i64 = 1000;

/// What an event says of another.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Relation {
    pub rel_type: String,
    #[serde(rename = "event_id")]
    pub target: OwnedEventId,
    /// What an annotation says.
    #[serde(default, deserialize_with = "text")]
    pub key: Option<String>,
}

/// A key that isn't a text is none: the relation is there even so.
fn text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Value::deserialize(deserializer)?.as_str().map(str::to_owned))
}

impl Relation {
    /// The relation in a content; `None` for a malformed one too (RL-02).
    pub fn of(content: &RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Content {
            #[serde(rename = "m.relates_to")]
            relates_to: Relation,
        }
        // Spares most events the parsing.
        if !content.get().contains("\"m.relates_to\"") {
            return None;
        }
        Some(serde_json::from_str::<Content>(content.get()).ok()?.relates_to)
    }

    /// Whether the relation that `event` has is one at all: an edit brings something new (RL-08), where that can be seen.
    pub(super) fn counts(&self, event: &Event) -> bool {
        #[derive(Deserialize)]
        struct Content {
            #[serde(rename = "m.new_content")]
            _new_content: serde_json::Map<String, Value>,
        }
        self.rel_type != "m.replace"
            || event.pdu.kind.to_string() == "m.room.encrypted"
            || event.pdu.content_as::<Content>().is_ok()
    }
}

impl Event {
    /// What it says of another event; state says nothing of others.
    pub fn relation(&self) -> Option<Relation> {
        if self.pdu.is_state() { None } else { Relation::of(&self.pdu.content) }
    }
}

/// Which children are asked for.
pub struct Children<'a> {
    pub parent: &'a EventId,
    pub rel_type: Option<&'a str>,
    pub kind: Option<&'a str>,
    pub recurse: bool,
    pub direction: Direction,
    /// Places in the room's log to start from and to stop at.
    pub from: Option<i64>,
    pub to: Option<i64>,
    pub limit: usize,
}

/// A page of children, or of the roots of threads.
pub struct RelationPage {
    pub events: Vec<Arc<Event>>,
    /// Where to go on.
    pub end: Option<i64>,
}

impl RelationPage {
    /// How many levels of children `recurse` goes down to.
    pub const DEPTH: i64 = LEVELS;
}

impl Rooms {
    /// The events that relate to one that the reader may see.
    pub async fn children(
        &self,
        room: &Room,
        reader: Reader<'_>,
        sight: &Sight,
        asked: Children<'_>,
    ) -> Result<RelationPage, Error> {
        self.visible_event(room, sight, asked.parent).await?;
        let seen = self.core.seen(reader, Some(sight)).await?;
        let forwards = asked.direction == Direction::Forwards;
        let wanted = Wanted {
            parent: asked.parent.as_str(),
            rel_type: asked.rel_type.unwrap_or_default(),
            kind: asked.kind.unwrap_or_default(),
            deeper: if asked.recurse { LEVELS - 1 } else { 0 },
        };
        let (low, high) = if forwards { (asked.from, asked.to) } else { (asked.to, asked.from) };
        let range = (low.unwrap_or(i64::MIN), high.unwrap_or(i64::MAX));
        let limit = asked.limit.max(1);
        let mut seqs =
            self.core.store.children(room.number, &wanted, range, forwards, limit as i64 + 1, &seen).await?;
        let more = seqs.len() > limit;
        seqs.truncate(limit);
        let end = seqs.last().filter(|_| more).map(|last| if forwards { *last } else { last - 1 });
        Ok(RelationPage { events: self.events(room, &seqs).await?, end })
    }

    /// RL-14: the roots of threads, that with the latest reply first; `from` is a place in the room's log.
    pub async fn threads(
        &self,
        room: &Room,
        reader: Reader<'_>,
        sight: &Sight,
        participated: bool,
        from: Option<i64>,
        limit: usize,
    ) -> Result<RelationPage, Error> {
        let seen = self.core.seen(reader, Some(sight)).await?;
        let ignored = self.core.accounts.ignored_users(reader.recipient).await?;
        let limit = limit.max(1);
        let mut page = RelationPage { events: Vec::new(), end: None };
        let mut at = from.unwrap_or(i64::MAX);
        // What is looked at in vain is bounded; the next page goes on from there.
        for _ in 0..8 {
            let rows = self.core.store.threads(room.number, at, limit as i64 + 1, &seen).await?;
            let complete = rows.len() <= limit;
            let parents: Vec<&str> = rows.iter().map(|(parent, _)| parent.as_str()).collect();
            let joined_in = if participated {
                self.core.joined_in(room, reader, &parents, &seen).await?
            } else {
                Vec::new()
            };
            for (parent, last) in &rows {
                if page.events.len() == limit {
                    page.end = Some(at);
                    return Ok(page);
                }
                at = last - 1;
                let Ok(parent_id) = <&EventId>::try_from(parent.as_str()) else { continue };
                let event = match self.visible_event(room, sight, parent_id).await {
                    Ok(event) => event,
                    Err(Error::NotFound(_)) => continue,
                    Err(cause) => return Err(cause),
                };
                if participated && event.pdu.sender != *reader.user_id && !joined_in.contains(parent) {
                    continue;
                }
                let hidden = ignored.contains(&event.pdu.sender);
                page.events.push(if hidden { Arc::new(event.hidden(&room.version)?) } else { event });
            }
            if complete {
                return Ok(page);
            }
        }
        page.end = Some(at);
        Ok(page)
    }
}

/// What is told along with events, by their ids: the value of `m.relations` in `unsigned`.
pub(super) type Bundles = HashMap<OwnedEventId, Box<RawValue>>;

#[derive(Serialize)]
struct Thread {
    latest_event: Box<RawValue>,
    count: i64,
    current_user_participated: bool,
}

impl Core {
    /// Which children a reader may know of.
    async fn seen(&self, reader: Reader<'_>, sight: Option<&Sight>) -> Result<Seen, Error> {
        let ranges = match sight {
            Some(sight) => sight.to_json(),
            None => Sight::everything().to_json(),
        };
        let ignored = self.accounts.ignored_users(reader.recipient).await?;
        Ok(Seen { ranges, ignored: json!(ignored.iter().collect::<Vec<_>>()).to_string() })
    }

    /// The roots of the threads in which the reader has said something.
    async fn joined_in(
        &self,
        room: &Room,
        reader: Reader<'_>,
        parents: &[&str],
        seen: &Seen,
    ) -> Result<Vec<String>, Error> {
        let (parents, user_id) = (json!(parents).to_string(), reader.user_id.as_str());
        let threads = self.store.aggregates(room.number, parents, user_id, seen).await?;
        let threads = threads.into_iter().filter(|row| row.rel_type == "m.thread" && row.participated);
        Ok(threads.map(|row| row.parent).collect())
    }

    /// RL-03: what is said of these events. It asks the database nothing about those that are too young to have
    /// children, and a fixed number of questions about the others.
    pub(super) async fn bundles(
        &self,
        room: &Room,
        reader: Reader<'_>,
        events: &[Arc<Event>],
        sight: Option<&Sight>,
    ) -> Result<Bundles, Error> {
        let last_relation = room.snapshot().last_relation;
        // RL-04: nothing is told along with state.
        let parents: Vec<&Arc<Event>> =
            events.iter().filter(|event| event.seq < last_relation && !event.pdu.is_state()).collect();
        if parents.is_empty() {
            return Ok(Bundles::new());
        }
        let seen = self.seen(reader, sight).await?;
        let ids: Vec<&EventId> = parents.iter().map(|event| event.id()).collect();
        let (ids, user_id) = (json!(ids).to_string(), reader.user_id.as_str());
        let aggregates = self.store.aggregates(room.number, ids, user_id, &seen).await?;
        if aggregates.is_empty() {
            return Ok(Bundles::new());
        }
        let of_type = |rel_type: &'static str| aggregates.iter().filter(move |row| row.rel_type == rel_type);

        let latest: Vec<i64> = of_type("m.thread").map(|row| row.last).collect();
        let latest = self.events(room.number, &room.version, &latest).await?;
        // The last reply of a thread may have been edited in its turn.
        let replaced: Vec<&str> = of_type("m.replace").map(|row| row.parent.as_str()).collect();
        let edited = parents.iter().copied().filter(|event| replaced.contains(&event.id().as_str()));
        let mut edits = self.edits(room, reader, edited.chain(&latest), sight, &seen).await?;

        let mut threads: HashMap<i64, Box<RawValue>> = HashMap::new();
        let latest_json = self.write(room, reader, &latest, sight, |event| {
            let edit = edits.remove(event.id())?;
            to_raw_value(&json!({ "m.replace": edit })).ok()
        });
        for (event, text) in latest.iter().zip(latest_json.await?) {
            threads.insert(event.seq, text);
        }
        let mut references =
            self.references(room, of_type("m.reference").map(|row| &*row.parent), &seen).await?;

        let mut bundles = Bundles::new();
        for parent in parents {
            let mut bundle: BTreeMap<&str, Box<RawValue>> = BTreeMap::new();
            if let Some(edit) = edits.remove(parent.id()) {
                bundle.insert("m.replace", edit);
            }
            if let Some(row) = of_type("m.thread").find(|row| row.parent == parent.id().as_str())
                && let Some(latest_event) = threads.remove(&row.last)
            {
                let current_user_participated = row.participated || parent.pdu.sender == *reader.user_id;
                let thread = Thread { latest_event, count: row.count, current_user_participated };
                bundle.insert("m.thread", raw_json(&thread)?);
            }
            if let Some(ids) = references.remove(parent.id().as_str()) {
                let chunk: Vec<Value> = ids.iter().map(|id| json!({ "event_id": id })).collect();
                bundle.insert("m.reference", raw_json(&json!({ "chunk": chunk }))?);
            }
            if !bundle.is_empty() {
                bundles.insert(parent.id().to_owned(), raw_json(&bundle)?);
            }
        }
        Ok(bundles)
    }

    /// The last edit of each event, as the reader gets it. Of a redacted event there is none to show (RL-06), nor of an
    /// edit (RL-08).
    async fn edits(
        &self,
        room: &Room,
        reader: Reader<'_>,
        events: impl Iterator<Item = &Arc<Event>>,
        sight: Option<&Sight>,
        seen: &Seen,
    ) -> Result<HashMap<OwnedEventId, Box<RawValue>>, Error> {
        let editable = events.filter(|event| {
            event.redacted_by.is_none()
                && event.relation().is_none_or(|relation| relation.rel_type != "m.replace")
        });
        let editable: Vec<(&EventId, &str, String)> = editable
            .map(|event| (event.id(), event.pdu.sender.as_str(), event.pdu.kind.to_string()))
            .collect();
        if editable.is_empty() {
            return Ok(HashMap::new());
        }
        let rows = self.store.latest_edits(room.number, json!(editable).to_string(), seen).await?;
        let seqs: Vec<i64> = rows.iter().map(|(_, seq)| *seq).collect();
        let edits = self.events(room.number, &room.version, &seqs).await?;
        let texts = self.write(room, reader, &edits, sight, |_| None).await?;
        let mut texts: HashMap<i64, Box<RawValue>> = edits.iter().map(|event| event.seq).zip(texts).collect();
        let edits = rows
            .into_iter()
            .filter_map(|(parent, seq)| Some((OwnedEventId::try_from(parent).ok()?, texts.remove(&seq)?)));
        Ok(edits.collect())
    }

    /// The ids of the events that refer to each of these.
    async fn references(
        &self,
        room: &Room,
        parents: impl Iterator<Item = &str>,
        seen: &Seen,
    ) -> Result<HashMap<String, Vec<String>>, Error> {
        let parents: Vec<&str> = parents.collect();
        let mut references: HashMap<String, Vec<String>> = HashMap::new();
        if parents.is_empty() {
            return Ok(references);
        }
        let rows = self.store.references(room.number, json!(parents).to_string(), REFERENCES, seen).await?;
        for (parent, event_id) in rows {
            references.entry(parent).or_default().push(event_id);
        }
        Ok(references)
    }
}

fn raw_json(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|cause| Error::Internal(cause.to_string()))
}
