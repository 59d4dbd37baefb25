//! How long rooms keep their history: as `m.room.retention` has it (MSC1763), within what the operator allows.
//!
//! Nothing of this happens unless the operator turns it on. Then it owns two things:
//!
//! - The *horizon* of a room: the last event of its log that is older than the room keeps history. Everything up to there is
//!   hidden at once, from everybody and by every endpoint, because each [`Sight`] begins after it.
//! - The *purge*: a task that deletes what is hidden, a few events at a time, so that a large room keeps no other waiting.
//!
//! An event's age is counted from when this server put it into the log: a time that another server gives would hide events
//! of others, or keep them. What another server sends that is too old by its own account isn't shown at all
//! ([`Core::comes_too_late`]). History fetched from others (negative `seq`) goes with the room's first event.
//!
//! State events are hidden with the others but never deleted: the room's state and the rules need them. Of the events that
//! have no follower yet, and of a room's last one, the row stays without its content: what comes next follows them, and no
//! `seq` is given twice. An event that was purged is like one that never was: a peer's event that follows it is told that it
//! is missing.
//!
//! It never touches a room's writer or its copy in memory; what it deletes can't come to be needed again.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::LazyLock, time::Duration};

use hearth_federation::Pdu;
use lru::LruCache;
use parking_lot::Mutex;
use ruma::{RoomVersionId, events::StateEventType};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;

use super::{Core, Error, Event, Room, Rooms, Sight, Snapshot, event::Verdict, relations::Relation, search};
use crate::{
    queue::{self, Kind},
    shutdown::Shutdown,
    store::{self, Batch, Parts, retention as table, search as search_table, unread::clear_unread},
};

/// The event type.
static RETENTION: LazyLock<StateEventType> = LazyLock::new(|| StateEventType::from("m.room.retention"));

/// The greatest number that an event may hold (GN-02).
const MAX_MS: u64 = (1 << 53) - 1;

/// Rooms whose horizons are remembered.
const ROOMS: NonZeroUsize = NonZeroUsize::new(4_096).unwrap();

/// Rooms that are looked at together.
const PAGE: i64 = 500;

/// Events that are deleted in one commit, during which nothing else is written: few enough that nobody notices.
const BATCH: usize = 25;

/// How long the purge rests after a commit, in times of what that took: of four sends that come meanwhile, three meet none.
const REST: u32 = 3;

/// Unread events of a user that are forgotten in one commit.
const UNREAD: i64 = 1_000;

/// What the operator says, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of rooms that say nothing; `None`: for ever.
    pub default: Option<i64>,
    /// Bounds of what rooms say.
    pub shortest: i64,
    pub longest: Option<i64>,
}

impl Lifetimes {
    /// How long a room keeps its history, by the content of its `m.room.retention`; `None`: for ever. Content that isn't as
    /// the proposal has it says nothing.
    fn of(&self, content: Option<&RawValue>) -> Option<i64> {
        let asked = content.and_then(asked).unwrap_or_default();
        let lifetime = match asked {
            Asked { most: Some(most), .. } => Some(most),
            // Who wants to have it for some time at least doesn't want it for less.
            Asked { least: Some(least), .. } => self.default.map(|default| default.max(least)),
            Asked { .. } => return self.default,
        };
        let longest = self.longest.unwrap_or(i64::MAX);
        lifetime.map(|lifetime| lifetime.clamp(self.shortest.min(longest), longest))
    }
}

/// What a room asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Asked {
    least: Option<i64>,
    most: Option<i64>,
}

fn asked(content: &RawValue) -> Option<Asked> {
    #[derive(Deserialize)]
    struct Content {
        #[serde(default)]
        min_lifetime: Value,
        #[serde(default)]
        max_lifetime: Value,
    }
    // `None`: it isn't one. `Some(None)`: there is none.
    let number = |value: &Value| match value {
        Value::Null => Some(None),
        value => value.as_u64().filter(|number| *number <= MAX_MS).map(|number| Some(number as i64)),
    };
    let content: Content = serde_json::from_str(content.get()).ok()?;
    let asked = Asked { least: number(&content.min_lifetime)?, most: number(&content.max_lifetime)? };
    let contradicts = asked.most.is_some_and(|most| asked.least.is_some_and(|least| least > most));
    (!contradicts).then_some(asked)
}

/// How far the horizons of rooms have come.
pub(super) struct Horizons(Mutex<LruCache<i64, Horizon>>);

#[derive(Clone, Copy)]
struct Horizon {
    /// That it was worked out for.
    lifetime: i64,
    seq: i64,
    /// When the event after it came.
    next: Option<i64>,
}

impl Horizons {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(ROOMS)))
    }
}

impl Core {
    /// How long a room keeps its history, in ms; `None`: for ever.
    pub(super) fn lifetime(&self, room: &Snapshot) -> Option<i64> {
        let event = room.state.get(&RETENTION, "");
        self.policy.retention?.of(event.map(|event| &*event.pdu.content))
    }

    /// Whether an event from elsewhere is older than the room keeps its history, as it says itself: so nobody brings back
    /// what was purged. It decides of no other event. State is kept, and a redaction takes effect.
    pub(super) fn comes_too_late(&self, room: &Snapshot, pdu: &Pdu) -> bool {
        let Some(lifetime) = self.lifetime(room) else { return false };
        let cutoff = self.environment.clock.now_ms().saturating_sub(lifetime);
        !pdu.is_state() && pdu.redacts.is_none() && i64::from(pdu.origin_server_ts.get()) <= cutoff
    }

    /// The last event of a room's log, whose last of all is `last`, that is older than `lifetime`. It is never before what
    /// is purged.
    async fn horizon(&self, room: i64, last: i64, lifetime: i64) -> Result<i64, store::Error> {
        let cutoff = self.environment.clock.now_ms().saturating_sub(lifetime);
        let known = self.horizons.0.lock().get(&room).copied().filter(|known| known.lifetime == lifetime);
        let from = match known {
            // All that there is, or up to an event that isn't too old yet.
            Some(known) if known.seq >= last || known.next.is_some_and(|next| next > cutoff) => {
                return Ok(known.seq);
            }
            Some(known) => known.seq,
            None => self.store.purged_up_to(room).await?,
        };
        let (seq, next) = self.store.arrived_up_to(room, from, cutoff).await?;
        self.horizons.0.lock().put(room, Horizon { lifetime, seq, next });
        Ok(seq)
    }
}

impl Rooms {
    /// What of a room's log is too old to be shown, whoever asks: everything up to this event.
    pub async fn horizon(&self, room: &Room) -> Result<i64, Error> {
        let snapshot = room.snapshot();
        match self.core.lifetime(&snapshot) {
            Some(lifetime) => Ok(self.core.horizon(room.number, snapshot.last_seq, lifetime).await?),
            None => Ok(i64::MIN),
        }
    }

    pub(super) async fn without_expired(&self, room: &Room, sight: Sight) -> Result<Sight, Error> {
        Ok(match self.horizon(room).await? {
            i64::MIN => sight,
            horizon => sight.after(horizon),
        })
    }

    /// Deletes what is too old, again and again, for as long as the server runs.
    pub async fn keep_purged(&self, every: Duration, shutdown: Shutdown) {
        if self.core.policy.retention.is_none() {
            return;
        }
        loop {
            self.purge(&shutdown).await;
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(every) => {}
            }
        }
    }

    /// Deletes what is too old in all rooms. One that fails keeps no other from it (I7).
    pub(super) async fn purge(&self, shutdown: &Shutdown) {
        let Some(lifetimes) = self.core.policy.retention else { return };
        let (mut after, mut purged) = (0, Purged::default());
        loop {
            let rows = match self.core.store.retention_of_rooms(after, PAGE).await {
                Ok(rows) => rows,
                Err(cause) => {
                    tracing::warn!(%cause, "old history is not purged; trying again later");
                    return;
                }
            };
            let Some(last) = rows.last() else { break };
            after = last.room;
            for row in rows {
                if shutdown.is_set() {
                    return;
                }
                let Some(lifetime) = lifetimes.of(row.pdu.as_deref().and_then(content_of).as_deref()) else {
                    continue;
                };
                match self.purge_room(row.room, &row.version, lifetime, shutdown).await {
                    Ok(more) => purged.add(&more),
                    Err(cause) => {
                        tracing::warn!(room = row.room, %cause, "a room's old history is not purged; trying again later");
                    }
                }
            }
        }
        if purged.events > 0 {
            tracing::info!(rooms = purged.rooms, events = purged.events, "old history purged");
        }
    }

    async fn purge_room(
        &self,
        room: i64,
        version: &str,
        lifetime: i64,
        shutdown: &Shutdown,
    ) -> Result<Purged, Error> {
        let store = &self.core.store;
        let last = store.last_seq(room).await?;
        let horizon = self.core.horizon(room, last, lifetime).await?;
        let (mut upto, rest) = (store.purged_up_to(room).await?, store.purge_rest(room).await?);
        let mut purged = Purged::default();
        if horizon <= upto && rest.is_empty() {
            return Ok(purged);
        }
        let version = RoomVersionId::try_from(version).map_err(|cause| Error::Damaged {
            room,
            seq: 0,
            cause: cause.to_string(),
        })?;
        hearth_federation::rules(&version)?;
        // Nothing that isn't one of these now can become one.
        let ends = store.extremities(room).await?.into_iter().map(|end| end.seq);
        let needed: BTreeSet<i64> = ends.chain([last]).collect();
        let done: Vec<i64> = rest.into_iter().filter(|seq| !needed.contains(seq)).collect();
        if !done.is_empty() {
            store.commit(table::delete(room, &json!(done).to_string())).await?;
            self.core.events.remove(room, &done);
        }
        if horizon > upto {
            self.forget_unread(room, horizon, shutdown).await?;
        }
        while upto < horizon && !shutdown.is_set() {
            let start = Instant::now();
            let rows = store.events_forwards(room, upto, horizon, BATCH as i64).await?;
            upto = match rows.last() {
                Some(row) if rows.len() == BATCH => row.seq,
                _ => horizon,
            };
            let mut going = Going { room, ..Going::default() };
            for row in rows {
                let seq = row.seq;
                match Event::from_stored(row, &version) {
                    Ok(event) if event.pdu.is_state() => {}
                    Ok(event) => going.add(&event, needed.contains(&seq), &version)?,
                    // What can't be read is shown to nobody either.
                    Err(cause) => tracing::warn!(room, seq, %cause, "an old event stays"),
                }
            }
            purged.events += going.all.len();
            let all = std::mem::take(&mut going.all);
            store.commit(going.batch(&all, upto)).await?;
            self.core.events.remove(room, &all);
            tokio::time::sleep(REST * start.elapsed()).await;
        }
        purged.rooms = usize::from(purged.events > 0);
        Ok(purged)
    }

    /// Nobody is told of unread events that they can't read any more.
    async fn forget_unread(&self, room: i64, horizon: i64, shutdown: &Shutdown) -> Result<(), Error> {
        let store = &self.core.store;
        store.settled(Parts::ALL).await?;
        for (recipient, _) in store.local_members(room).await? {
            while let Some(last) = store.unread_up_to(recipient, room, horizon, UNREAD).await? {
                if shutdown.is_set() {
                    return Ok(());
                }
                let mut batch = Batch::from(clear_unread(recipient, room, last).to_vec());
                let step = batch.step();
                batch.deliver(queue::pointer([recipient], step, Kind::Unread, room));
                store.commit(batch).await?;
            }
        }
        Ok(())
    }
}

/// How much was purged.
#[derive(Default)]
struct Purged {
    rooms: usize,
    events: usize,
}

impl Purged {
    fn add(&mut self, more: &Self) {
        self.rooms += more.rooms;
        self.events += more.events;
    }
}

/// Events that go together.
#[derive(Default)]
struct Going {
    room: i64,
    all: Vec<i64>,
    deleted: Vec<i64>,
    /// The threads that some of them are in.
    roots: BTreeSet<String>,
    statements: Vec<store::Statement>,
}

impl Going {
    /// One whose row is needed stays without its content.
    fn add(&mut self, event: &Event, needed: bool, version: &RoomVersionId) -> Result<(), Error> {
        let (room, seq) = (self.room, event.seq);
        if needed {
            let emptied = event.pdu.redacted(version)?;
            self.statements.extend(table::empty(room, seq, emptied.json.get(), Verdict::Gone as i64));
        } else {
            self.deleted.push(seq);
        }
        self.all.push(seq);
        self.roots.extend(event.relation().filter(Relation::is_thread).map(|r| r.target.into()));
        if search::has_text(&event.pdu) {
            self.statements.extend(search_table::remove(room, seq, search::words_of(room, &event.pdu)));
        }
        Ok(())
    }

    fn batch(self, all: &[i64], upto: i64) -> Batch {
        let mut statements = self.statements;
        if !all.is_empty() {
            let (all, roots) = (json!(all).to_string(), json!(self.roots).to_string());
            statements.extend(table::unrelate(self.room, &all, &roots));
            statements.extend(table::delete(self.room, &json!(self.deleted).to_string()));
        }
        statements.push(table::set_purged(self.room, upto));
        Batch::from(statements)
    }
}

/// The content of a stored event.
fn content_of(pdu: &str) -> Option<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Stored {
        content: Box<RawValue>,
    }
    serde_json::from_str::<Stored>(pdu).ok().map(|stored| stored.content)
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;

    use super::*;

    const DAY: i64 = 86_400_000;

    fn lifetime(lifetimes: Lifetimes, content: &Value) -> Option<i64> {
        lifetimes.of(Some(&to_raw_value(content).unwrap()))
    }

    #[test]
    fn rooms_get_what_they_ask_for_within_bounds() {
        let lifetimes = Lifetimes { default: Some(30 * DAY), shortest: DAY, longest: Some(60 * DAY) };
        assert_eq!(lifetimes.of(None), Some(30 * DAY));
        for (asked, days) in [
            (json!({ "max_lifetime": 40 * DAY }), 40),
            (json!({ "max_lifetime": DAY }), 1),
            (json!({ "max_lifetime": DAY - 1 }), 1),
            (json!({ "max_lifetime": 0 }), 1),
            (json!({ "max_lifetime": 60 * DAY + 1 }), 60),
            (json!({ "max_lifetime": MAX_MS }), 60),
            (json!({ "min_lifetime": 2 * DAY, "max_lifetime": 2 * DAY }), 2),
            // Who asks for no more than a least time gets the usual one, or that.
            (json!({ "min_lifetime": 2 * DAY }), 30),
            (json!({ "min_lifetime": 50 * DAY }), 50),
            (json!({ "min_lifetime": 70 * DAY }), 60),
            (json!({ "min_lifetime": null, "max_lifetime": null }), 30),
            (json!({}), 30),
        ] {
            assert_eq!(lifetime(lifetimes, &asked), Some(days * DAY), "{asked}");
        }
        let unbound = Lifetimes { default: None, shortest: DAY, longest: None };
        assert_eq!(unbound.of(None), None);
        assert_eq!(lifetime(unbound, &json!({ "min_lifetime": 5 })), None);
        assert_eq!(lifetime(unbound, &json!({ "max_lifetime": 50_000 * DAY })), Some(50_000 * DAY));
    }

    #[test]
    fn what_is_no_policy_says_nothing() {
        let lifetimes = Lifetimes { default: Some(30 * DAY), shortest: DAY, longest: Some(60 * DAY) };
        let numbers = [
            json!("86400000"),
            json!(-1),
            json!(86_400_000.0),
            json!(1.5),
            json!(MAX_MS + 1),
            json!(u64::MAX),
            json!(1e300),
            json!(true),
            json!([DAY]),
            json!({ "ms": DAY }),
        ];
        for number in numbers {
            for name in ["max_lifetime", "min_lifetime"] {
                let mut asked = json!({ "max_lifetime": 40 * DAY, "min_lifetime": DAY });
                asked[name] = number.clone();
                assert_eq!(lifetime(lifetimes, &asked), Some(30 * DAY), "{asked}");
            }
        }
        for asked in [
            json!({ "min_lifetime": 3 * DAY, "max_lifetime": 2 * DAY }),
            json!([]),
            json!(null),
            json!("max_lifetime"),
        ] {
            assert_eq!(lifetime(lifetimes, &asked), Some(30 * DAY), "{asked}");
        }
        // What no room can hold, and a database may.
        for text in [r#"{"max_lifetime":1e999}"#, r#"{"max_lifetime":99999999999999999999999999}"#] {
            let content = RawValue::from_string(text.to_owned()).unwrap();
            assert_eq!(lifetimes.of(Some(&content)), Some(30 * DAY), "{text}");
        }
    }
}
