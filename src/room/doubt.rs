//! Rooms whose state here may lack something that others have.
//!
//! A state is given by another server where somebody here joins, and where a gap in the history can't be closed. Events of it
//! may be impossible to have or to verify then, mostly because the server whose keys they need can't be reached. They are left
//! out, or such a server would hold the room for as long as it is gone. But what follows them must not be refused for
//! that: it would be refused for good, and the room would be two. So the room is *in doubt* from then on:
//!
//! - An event that the state refuses (and what it cites doesn't) is not kept. It is treated like one that follows what isn't
//!   here: by the state that is given for it ([`super::entry`]), with that which is here as a side of it.
//! - Whatever comes, the state is asked for again, more and more seldom ([`crate::inbound`]).
//!
//! What is lacking is known by its id. It is lacking no longer when a given state has it, or something newer in its place:
//! that another server doesn't have it either ends no doubt. After a day what is here counts, as with every server; so
//! what nobody can ever verify costs a day and no more.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use ruma::{OwnedEventId, events::StateEventType};

use super::{
    Error, Room, Rooms,
    event::Verdict,
    outliers::{Given, Known, given_state},
    snapshot::Snapshot,
    work::Work,
};
use crate::store::{
    Batch,
    lacking_state::{delete_lacking, insert_lacking},
};

/// How long a state that may lack something refuses nothing for good, in milliseconds.
const LONGEST: i64 = 24 * 60 * 60 * 1000;

/// Events of one room whose lack is remembered.
const MOST: usize = 4096;

impl Snapshot {
    /// Whether the state may be the reason why an event is refused. What is lacking for longer stays written down, or it would
    /// be new each time.
    fn is_in_doubt(&self, now: i64) -> bool {
        self.lacking.values().any(|since| now - since < LONGEST)
    }
}

impl Rooms {
    /// Whether the state of a room is worth being asked for again.
    pub fn is_in_doubt(&self, room: &Room) -> bool {
        room.snapshot().is_in_doubt(self.core.environment.clock.now_ms())
    }
}

impl Work<'_> {
    pub(super) fn is_in_doubt(&self) -> bool {
        self.snapshot.is_in_doubt(self.arrived)
    }

    /// Notes what a given state lacks.
    pub(super) fn note_lack(&mut self, batch: &mut Batch, given: &Given, known: &Known) {
        let unknown = given.state.iter().filter(|id| !known.contains_key(*id));
        let new = unknown.filter(|id| !self.snapshot.lacking.contains_key(*id));
        let new: Vec<OwnedEventId> =
            new.take(MOST.saturating_sub(self.snapshot.lacking.len())).cloned().collect();
        if new.is_empty() {
            return;
        }
        let lacking = Arc::make_mut(&mut self.snapshot.lacking);
        for id in new {
            batch.push(insert_lacking(self.snapshot.number, id.as_str(), self.arrived));
            lacking.insert(id, self.arrived);
        }
    }

    /// Notes what is lacking no longer once a given state has become part of the room's.
    pub(super) async fn end_lack(
        &mut self,
        batch: &mut Batch,
        given: &Given,
        known: &Known,
    ) -> Result<(), Error> {
        let before = Arc::clone(&self.snapshot.lacking);
        if before.is_empty() {
            return Ok(());
        }
        let (state, has) = (given_state(given, known)?, given.state.iter().collect::<HashSet<_>>());
        let others = self.known(before.keys().filter(|id| !has.contains(id)).collect()).await?;
        let is_settled = |id: &OwnedEventId| {
            let Some(event) = others.get(id) else { return known.contains_key(id) };
            let newer = event.pdu.state().and_then(|(kind, key)| {
                let kind = StateEventType::from(kind.to_string());
                state.get(&kind, key).filter(|newer| newer.pdu.depth > event.pdu.depth)
            });
            event.verdict == Verdict::Rejected || newer.is_some()
        };
        let (settled, lacking): (BTreeMap<_, _>, _) =
            before.iter().map(|(id, since)| (id.clone(), *since)).partition(|(id, _)| is_settled(id));
        for id in settled.keys() {
            batch.push(delete_lacking(self.snapshot.number, id.as_str()));
        }
        self.snapshot.lacking = Arc::new(lacking);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, owned_event_id, owned_room_id};

    use super::*;

    #[test]
    fn doubt_lasts_a_day_from_when_something_was_found_lacking() {
        let mut room = Snapshot::empty(1, owned_room_id!("!a:a"), RoomVersionId::V11).unwrap();
        assert!(!room.is_in_doubt(5));
        room.lacking = Arc::new(BTreeMap::from([(owned_event_id!("$a"), 5)]));
        assert!(room.is_in_doubt(5) && room.is_in_doubt(4 + LONGEST));
        assert!(!room.is_in_doubt(5 + LONGEST));
    }
}
