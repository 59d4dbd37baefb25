//! History that others have and this server lacks: put into the holes of a room's log ([`super::entry`]).
//!
//! Backfilled events are judged by what they cite and by the state that was theirs, which the server that sends them tells
//! with them. They get places below the event that they precede, and change nothing above but what they redact: no queue
//! hears of them, no member comes or goes. Their state is written into the state log at their own places, so that it is found there as
//! everywhere.
//!
//! Specification: [Backfilling and retrieving missing
//! events](https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hearth_federation::Pdu;
use ruma::{EventId, OwnedEventId, events::StateEventType};
use serde_json::json;

use super::{
    Error, Event, Room, Rooms,
    event::Verdict,
    outliers::{Given, given_state, in_order},
    snapshot::State,
    work::Work,
    writer,
};
use crate::store::{
    Batch,
    event::OUTLIER,
    hole::{HoleRow, delete_hole, insert_hole},
    room as room_table,
};

/// Events that are looked at to find out what a hole lacks.
const MOST_SEEN: usize = 2_000;

/// A place where history is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hole {
    /// The first event after it.
    pub seq: i64,
    /// The last event before it.
    pub floor: i64,
    /// The events that are missing there first.
    pub ends: Vec<OwnedEventId>,
}

/// Part of what is missing in a hole. Each event has been verified.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub hole: Hole,
    /// In any order. Those that don't lead to the hole's ends are left out.
    pub events: Vec<Pdu>,
    /// The state before the oldest of them.
    pub before: Given,
}

impl Rooms {
    /// The holes of a room, the last one first.
    pub async fn holes(&self, room: &Room) -> Result<Vec<Hole>, Error> {
        let rows = self.core.store.holes(room.number).await?;
        let hole = |row: HoleRow| {
            let damaged = |cause: serde_json::Error| {
                let (room, seq) = (room.number, row.seq);
                Error::Damaged { room, seq, cause: cause.to_string() }
            };
            let ends = serde_json::from_str(&row.ends).map_err(damaged)?;
            Ok(Hole { seq: row.seq, floor: row.floor, ends })
        };
        rows.into_iter().map(hole).collect()
    }

    /// What a hole lacks now; nothing if it is one no longer.
    pub async fn look_again(&self, room: &Arc<Room>, hole: Hole) -> Result<Option<Hole>, Error> {
        let seq = hole.seq;
        let nothing = Chunk { hole, events: Vec::new(), before: Given::default() };
        match self.fill(room, nothing).await {
            Ok(()) | Err(Error::BadState(_)) => {}
            Err(cause) => return Err(cause),
        }
        Ok(self.holes(room).await?.into_iter().find(|hole| hole.seq == seq))
    }

    /// Puts history into a hole.
    pub async fn fill(&self, room: &Arc<Room>, chunk: Chunk) -> Result<(), Error> {
        writer::fill(&self.core, room, chunk).await
    }

    /// Those of these events of a room that have no place in its log.
    pub async fn lacking(&self, room: &Room, ids: &[OwnedEventId]) -> Result<HashSet<OwnedEventId>, Error> {
        let wanted: Vec<&OwnedEventId> = ids.iter().collect();
        let known = self.core.events_by_ids(room.number, &room.version, &wanted).await?;
        let placed = known.iter().filter(|event| !event.is_outlier()).map(Event::id);
        let placed: HashSet<&EventId> = placed.collect();
        Ok(ids.iter().filter(|id| !placed.contains(&***id)).cloned().collect())
    }

    /// Those of these events of a room that aren't here at all.
    pub async fn unknown(&self, room: &Room, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        let wanted: Vec<&OwnedEventId> = ids.iter().collect();
        let known = self.core.events_by_ids(room.number, &room.version, &wanted).await?;
        let known: HashSet<&EventId> = known.iter().map(Event::id).collect();
        Ok(ids.iter().filter(|id| !known.contains(&***id)).cloned().collect())
    }
}

/// Of some events those that lead to `ends`, oldest first.
pub fn leading_to<'a>(ends: &[OwnedEventId], events: &'a [Pdu]) -> Vec<&'a Pdu> {
    let given: HashMap<&EventId, &Pdu> = events.iter().map(|pdu| (&*pdu.event_id, pdu)).collect();
    let mut wanted: Vec<&EventId> = ends.iter().map(|id| &**id).collect();
    let mut found: HashMap<&EventId, &Pdu> = HashMap::new();
    while let Some(id) = wanted.pop() {
        if let Some(pdu) = given.get(id)
            && found.insert(&pdu.event_id, pdu).is_none()
        {
            wanted.extend(pdu.prev_events.iter().map(|id| &**id));
        }
    }
    in_order(&found, |pdu| &pdu.prev_events)
}

impl Work<'_> {
    pub(super) async fn fill(&mut self, chunk: &Chunk) -> Result<(), Error> {
        let Chunk { hole, events, before } = chunk;
        let ends = self.open_ends(hole).await?;
        if ends != hole.ends {
            self.narrow(hole, &ends);
            return Ok(());
        }
        let order = leading_to(&hole.ends, events);
        let missing: HashSet<OwnedEventId> =
            self.not_in_log(order.iter().map(|pdu| &pdu.event_id)).await?.into_iter().collect();
        let room_id = self.snapshot.room_id.clone();
        let order: Vec<&Pdu> = order
            .into_iter()
            .filter(|pdu| missing.contains(&pdu.event_id) && pdu.room_id == room_id)
            .collect();
        let Some(oldest) = order.first() else {
            return Err(Error::BadState("nothing that is missing was sent".to_owned()));
        };
        // From the hole's upper end down, as far as there is room. No event has the place 0: where the state log names that,
        // there is nothing under a key.
        let top = if hole.seq == 1 { 0 } else { hole.seq };
        let room_for = usize::try_from(top - 1 - hole.floor).unwrap_or(0);
        let order = &order[order.len().saturating_sub(room_for)..];
        let mut batch = Batch::new();
        let step = batch.step();
        let mut known = self.judged_outliers(&mut batch, step, before, oldest).await?;
        let named = order.iter().flat_map(|pdu| pdu.auth_events.iter().chain([&pdu.event_id]));
        known.extend(self.known(named.collect()).await?);
        let mut state =
            if oldest.prev_events.is_empty() { State::default() } else { given_state(before, &known)? };
        let above = self.core.store.position_of(self.snapshot.number, hole.seq).await?;
        let first = top - order.len() as i64;
        self.write_base(&mut batch, first - 1, &state);
        let mut unjudged = Vec::new();
        for (pdu, seq) in order.iter().copied().zip(first..) {
            let outlier = known.get(&pdu.event_id).filter(|event| event.is_outlier());
            if let Some(outlier) = outlier {
                self.outliers.insert(pdu.event_id.clone(), outlier.seq);
            }
            // What was judged stays as it was judged: others build on it.
            let verdict = match outlier {
                Some(outlier) => Some(outlier.verdict),
                None => self.verdict_by_citation(pdu, &known),
            };
            // Not all that it cites is here. It stays missing, and is asked for with the state before it.
            let Some(verdict) = verdict else {
                unjudged.push(pdu.event_id.clone());
                continue;
            };
            let verdict = match verdict {
                Verdict::Accepted if pdu.redacts.is_some() => self.redaction_verdict(pdu, &state).await?,
                verdict => verdict,
            };
            let pdu = pdu.clone().with_rejected(verdict == Verdict::Rejected);
            let event = Arc::new(Event { verdict, ..Event::new(seq, pdu, None) });
            let event = match outlier.and_then(|outlier| outlier.redacted_by) {
                Some(redaction) => Arc::new(event.redacted(redaction, &self.snapshot.version)?),
                None => event,
            };
            let held = self.held_redactions(&event).await?;
            self.store_backfilled(&mut batch, step, above, &event);
            if verdict == Verdict::Accepted {
                if let Some((kind, key)) = event.pdu.state() {
                    let (room, kind) = (self.snapshot.number, kind.to_string());
                    batch.push(room_table::set_state(room, &kind, key, seq, seq));
                    state.insert(Arc::clone(&event));
                }
                if let Some(related) = self.core.related(&self.snapshot, &self.events, &event).await? {
                    related.store(&mut batch, &mut self.snapshot, &event);
                }
            }
            self.replace_outlier(&event);
            self.events.push(Arc::clone(&event));
            match (verdict, &event.pdu.redacts) {
                (Verdict::Accepted, Some(target)) => {
                    let target = self.event(target).await?;
                    self.redact(&mut batch, &target, seq)?;
                }
                // What it waits for may come with it.
                (Verdict::Held, _) => drop(self.states.insert(seq, state.clone())),
                _ => {}
            }
            self.apply_held(&mut batch, &event, held).await?;
            known.insert(event.pdu.event_id.clone(), event);
        }
        self.end_keys_of(&mut batch, hole.seq, &state).await?;
        batch.push(delete_hole(self.snapshot.number, hole.seq));
        self.snapshot.end_hole(hole.seq);
        // What was missing and didn't come stays so.
        let named: HashSet<&OwnedEventId> =
            order.iter().flat_map(|pdu| &pdu.prev_events).chain(&hole.ends).collect();
        let mut ends = self.not_in_log(named).await?;
        unjudged.retain(|id| !ends.contains(id));
        ends.extend(unjudged);
        if !ends.is_empty() && first > hole.floor + 1 {
            let row = HoleRow { seq: first, floor: hole.floor, ends: json!(ends).to_string() };
            batch.push(insert_hole(self.snapshot.number, &row));
            self.snapshot.add_hole(hole.floor, first);
        }
        self.batch.append(batch);
        Ok(())
    }

    /// What is missing in a hole first: what was, unless it has come since by another way. Then it is what that follows.
    async fn open_ends(&self, hole: &Hole) -> Result<Vec<OwnedEventId>, Error> {
        let mut ends: Vec<OwnedEventId> = Vec::new();
        let mut seen: HashSet<OwnedEventId> = HashSet::new();
        let mut wave = hole.ends.clone();
        while seen.len() < MOST_SEEN {
            wave.retain(|id| seen.insert(id.clone()));
            if wave.is_empty() {
                break;
            }
            let known = self.known(wave.iter().collect()).await?;
            let mut next = Vec::new();
            for id in wave {
                match known.get(&id).filter(|event| !event.is_outlier()) {
                    Some(event) if event.seq > hole.floor => {
                        next.extend(event.pdu.prev_events.iter().cloned());
                    }
                    Some(_) => {}
                    None => ends.push(id),
                }
            }
            wave = next;
        }
        Ok(ends)
    }

    /// A hole lacks something else now, or nothing any more.
    fn narrow(&mut self, hole: &Hole, ends: &[OwnedEventId]) {
        self.batch.push(delete_hole(self.snapshot.number, hole.seq));
        if ends.is_empty() {
            self.snapshot.end_hole(hole.seq);
        } else {
            let row = HoleRow { seq: hole.seq, floor: hole.floor, ends: json!(ends).to_string() };
            self.batch.push(insert_hole(self.snapshot.number, &row));
        }
    }

    /// The state at a place from which on backfilled events are.
    fn write_base(&self, batch: &mut Batch, at: i64, state: &State) {
        let at = at.max(OUTLIER + 1);
        for event in state.iter() {
            if let Some((kind, key)) = event.pdu.state() {
                batch.push(room_table::set_state(
                    self.snapshot.number,
                    &kind.to_string(),
                    key,
                    at,
                    event.seq,
                ));
            }
        }
    }

    /// What was state below `seq` and isn't any more there must not shine through.
    async fn end_keys_of(&self, batch: &mut Batch, seq: i64, state: &State) -> Result<(), Error> {
        let room = self.snapshot.number;
        let keys: Vec<(String, &str, i64)> = state
            .iter()
            .filter_map(|event| {
                let (kind, key) = event.pdu.state()?;
                Some((kind.to_string(), key, seq))
            })
            .collect();
        let above = self.core.store.state_entries_at(room, &keys).await?;
        for ((kind, key, _), above) in keys.iter().zip(above) {
            if above.is_none() {
                batch.push(room_table::end_state(room, kind, key, seq - 1));
            }
        }
        Ok(())
    }

    /// States name an event by the place that it has: the current one, and those that are known here.
    pub(super) fn replace_outlier(&mut self, event: &Arc<Event>) {
        let Some((kind, key)) = event.pdu.state() else { return };
        let kind = StateEventType::from(kind.to_string());
        for state in self.states.values_mut().chain([&mut self.snapshot.state]) {
            let named = state.get(&kind, key);
            if named.is_some_and(|named| named.pdu.event_id == event.pdu.event_id) {
                state.insert(Arc::clone(event));
            }
        }
    }
}
