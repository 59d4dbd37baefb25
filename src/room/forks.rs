//! The state of a room where its history forks: before an event, after it, and now ("State resolution").
//!
//! Before an event that follows all events without a follower it is the current state, which is nearly always. The others
//! keep theirs with them ([`Work::keep_state_before`]). A current state of several ends is resolved from the states after
//! each; what that changes enters the room's state log like any other change, at the `seq` where it took effect.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use hearth_federation::{StateMap, Wanted};
use ruma::{
    EventId, OwnedEventId, RoomVersionId, events::StateEventType, room_version_rules::EventIdFormatVersion,
};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Core, Error, Event, Room, event::Verdict, prefetch::Found, snapshot::State, work::Work};
use crate::store::{Batch, StateRow, fork};

/// A change of the current state under one key.
pub(super) struct Change {
    pub(super) kind: StateEventType,
    pub(super) state_key: String,
    /// `None`: there is nothing under the key any more.
    pub(super) event: Option<Arc<Event>>,
}

impl Change {
    pub(super) fn row(&self, room: i64, seq: i64) -> StateRow {
        StateRow {
            room,
            kind: self.kind.to_string(),
            state_key: self.state_key.clone(),
            seq,
            event: self.event.as_ref().map_or(0, |event| event.seq),
        }
    }
}

/// What is different in `after`.
pub(super) fn changes(before: &State, after: &State) -> Vec<Change> {
    let key = |event: &Arc<Event>| {
        let (kind, state_key) = event.pdu.state()?;
        Some((StateEventType::from(kind.to_string()), state_key.to_owned()))
    };
    let mut changes: BTreeMap<(StateEventType, String), Option<Arc<Event>>> = BTreeMap::new();
    for event in after.iter() {
        let Some((kind, state_key)) = key(event) else { continue };
        if before.get(&kind, &state_key).is_none_or(|old| old.seq != event.seq) {
            changes.insert((kind, state_key), Some(Arc::clone(event)));
        }
    }
    for event in before.iter() {
        let Some((kind, state_key)) = key(event) else { continue };
        if after.get(&kind, &state_key).is_none() {
            changes.insert((kind, state_key), None);
        }
    }
    let changes = changes.into_iter().map(|((kind, state_key), event)| Change { kind, state_key, event });
    changes.collect()
}

impl Work<'_> {
    /// The state before an event that follows these.
    pub(super) async fn state_before(&self, previous: &[Arc<Event>]) -> Result<State, Error> {
        let mut states = Vec::with_capacity(previous.len());
        for event in previous {
            states.push(self.state_after(event).await?);
        }
        self.resolved(states).await
    }

    pub(super) async fn state_after(&self, event: &Event) -> Result<State, Error> {
        match self.states.get(&event.seq) {
            Some(state) => Ok(state.clone()),
            None => self.core.state_after(self.snapshot.number, &self.snapshot.version, event).await,
        }
    }

    /// SR-01: the one state of several.
    pub(super) async fn resolved(&self, mut states: Vec<State>) -> Result<State, Error> {
        let maps: Vec<StateMap> = states.iter().map(ids).collect();
        if maps.windows(2).all(|pair| pair[0] == pair[1]) {
            return Ok(states.pop().unwrap_or_default());
        }
        let version = &self.snapshot.version;
        let mut known: HashMap<OwnedEventId, Arc<Event>> = HashMap::new();
        for event in states.iter().flat_map(State::iter).chain(&self.events) {
            known.insert(event.pdu.event_id.clone(), Arc::clone(event));
        }
        let mut wanted = Wanted::resolving(version, &maps)?;
        loop {
            let wave = wanted.take();
            if wave.is_empty() {
                break;
            }
            let unknown: Vec<&OwnedEventId> = wave.iter().filter(|id| !known.contains_key(*id)).collect();
            for event in self.core.events_by_ids(self.snapshot.number, version, &unknown).await? {
                known.insert(event.pdu.event_id.clone(), Arc::new(event));
            }
            for event in wave.iter().filter_map(|id| known.get(id)) {
                wanted.found(&event.pdu)?;
            }
        }
        let find = |id: &EventId| known.get(id).map(|event| &event.pdu);
        let resolved = hearth_federation::resolve(version, &maps, find)?;
        Ok(resolved.values().filter_map(|id| known.get(id).cloned()).collect())
    }

    /// Keeps the state before an event that is on a fork.
    pub(super) fn keep_state_before(&self, batch: &mut Batch, seq: i64, state: &State) {
        let room = self.snapshot.number;
        let mut seqs: Vec<i64> = state.iter().map(|event| event.seq).collect();
        seqs.sort_unstable();
        let events = json!(seqs).to_string();
        let hash = Sha256::digest(format!("{room} {events}"));
        let hash: String = hash.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(digit).collect();
        batch.extend(fork::set_state_before(room, seq, hash, events));
    }
}

fn digit(nibble: u8) -> Option<char> {
    char::from_digit(u32::from(nibble), 16)
}

/// The events of a state.
pub(super) fn ids(state: &State) -> StateMap {
    let entry = |event: &Arc<Event>| {
        let (kind, state_key) = event.pdu.state()?;
        Some(((StateEventType::from(kind.to_string()), state_key.to_owned()), event.pdu.event_id.clone()))
    };
    state.iter().filter_map(entry).collect()
}

impl Core {
    /// The state before an event of the log, whichever fork it is on.
    pub(super) async fn state_before(&self, room: &Room, event: &Event) -> Result<State, Error> {
        let Some(before) = self.store.state_before_fork(room.number, event.seq).await? else {
            let rows = self.store.state_events_at(room.number, event.seq - 1).await?;
            return rows
                .into_iter()
                .map(|row| Event::from_stored(row, &room.version).map(Arc::new))
                .collect();
        };
        self.kept_state(room.number, &room.version, event, &before).await
    }

    /// The state after an event of the log, whichever fork it is on.
    async fn state_after(&self, room: i64, version: &RoomVersionId, event: &Event) -> Result<State, Error> {
        let Some(before) = self.store.state_before_fork(room, event.seq).await? else {
            let rows = self.store.state_events_at(room, event.seq).await?;
            return rows.into_iter().map(|row| Event::from_stored(row, version).map(Arc::new)).collect();
        };
        let mut state = self.kept_state(room, version, event, &before).await?;
        if event.pdu.is_state() && event.verdict != Verdict::Rejected {
            for event in self.events(room, version, &[event.seq]).await? {
                state.insert(event);
            }
        }
        Ok(state)
    }

    /// The state that is kept with an event, as `seq` in JSON.
    async fn kept_state(
        &self,
        room: i64,
        version: &RoomVersionId,
        event: &Event,
        seqs: &str,
    ) -> Result<State, Error> {
        let damaged =
            |cause: serde_json::Error| Error::Damaged { room, seq: event.seq, cause: cause.to_string() };
        let seqs: Vec<i64> = serde_json::from_str(seqs).map_err(damaged)?;
        Ok(self.events(room, version, &seqs).await?.into_iter().collect())
    }

    /// Events of a room by their ids, those of other rooms left out.
    pub(super) async fn events_by_ids(
        &self,
        room: i64,
        version: &RoomVersionId,
        ids: &[&OwnedEventId],
    ) -> Result<Vec<Event>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let rows = self.store.events_by_ids(json!(ids).to_string()).await?;
        rows.into_iter().filter(|row| row.room == room).map(|row| Event::from_stored(row, version)).collect()
    }
}

/// The events that an event names, as far as they are known.
pub(super) struct References {
    pub(super) auth: Vec<Arc<Event>>,
    pub(super) previous: Vec<Arc<Event>>,
    /// Events that this server doesn't have.
    pub(super) missing: Vec<OwnedEventId>,
    /// Some of them are in another room, which their ids prove.
    pub(super) elsewhere: bool,
}

impl Work<'_> {
    /// Finds what an event from elsewhere builds on.
    pub(super) async fn references(&self, pdu: &hearth_federation::Pdu) -> Result<References, Error> {
        let named: HashSet<&OwnedEventId> = pdu.auth_events.iter().chain(&pdu.prev_events).collect();
        let mut known: HashMap<&EventId, Arc<Event>> = HashMap::new();
        // The newest form of it: it may have been redacted.
        for event in self.events.iter().filter(|event| named.contains(&event.pdu.event_id)) {
            known.insert(event.id(), Arc::clone(event));
        }
        let mut elsewhere = HashSet::new();
        let mut unknown: Vec<&OwnedEventId> = Vec::new();
        for id in named.iter().copied().filter(|id| !known.contains_key(&***id)).collect::<Vec<_>>() {
            match self.fetched.find(id) {
                Found::Here(event) => drop(known.insert(id, event)),
                Found::Elsewhere => drop(elsewhere.insert(id.to_string())),
                Found::Nowhere => {}
                Found::Unasked => unknown.push(id),
            }
        }
        let rows = if unknown.is_empty() {
            Vec::new()
        } else {
            self.core.store.events_by_ids(json!(unknown).to_string()).await?
        };
        let mut found = Vec::new();
        for row in rows {
            if row.room == self.snapshot.number {
                found.push(Arc::new(Event::from_stored(row, &self.snapshot.version)?));
            } else {
                elsewhere.insert(row.event_id);
            }
        }
        known.extend(found.iter().map(|event| (event.id(), Arc::clone(event))));
        // Where senders choose ids, an event of this room may have the same.
        if self.snapshot.rules.event_id_format == EventIdFormatVersion::V1 {
            elsewhere.clear();
        }
        let pick = |ids: &[OwnedEventId]| ids.iter().filter_map(|id| known.get(&**id).cloned()).collect();
        // What an outlier follows isn't known, so neither is what follows it.
        let placed = |id: &EventId| known.get(id).is_some_and(|event| !event.is_outlier());
        let missing = named.iter().filter(|id| {
            !elsewhere.contains(id.as_str())
                && !placed(id)
                && (!known.contains_key(&****id) || pdu.prev_events.contains(id))
        });
        let mut missing: Vec<OwnedEventId> = missing.map(|id| (*id).clone()).collect();
        missing.sort_unstable();
        Ok(References {
            auth: pick(&pdu.auth_events),
            previous: pick(&pdu.prev_events),
            missing,
            elsewhere: !elsewhere.is_empty(),
        })
    }
}
