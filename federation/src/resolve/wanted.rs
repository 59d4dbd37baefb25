//! Which events resolution needs, for somebody to load before it.

use std::{collections::HashSet, mem};

use ruma::{OwnedEventId, RoomVersionId, room_version_rules::StateResolutionVersion};

use super::{ResolveError, StateEvent, StateMap, split::Split};
use crate::version::rules;

/// How many events may take part in one resolution. A room of a hundred members that has changed its state ten thousand
/// times stays far below it.
pub const MAX_EVENTS: usize = 50_000;

/// A walk along `auth_events`, a wave at a time: [`take`](Self::take) the ids, load them, say what was
/// [`found`](Self::found), until none is left. Whatever isn't found needn't be mentioned.
#[derive(Debug)]
pub struct Wanted {
    seen: HashSet<OwnedEventId>,
    next: Vec<OwnedEventId>,
    chains: bool,
    limit: usize,
}

impl Wanted {
    /// What [`super::resolve`] will ask for: nothing where the states agree, else the states' events and from version 2 on
    /// their auth chains.
    pub fn resolving(version: &RoomVersionId, states: &[StateMap]) -> Result<Self, ResolveError> {
        let algorithm = rules(version)?.state_res;
        let split = Split::of(algorithm, states);
        let mut wanted = Self::nothing(MAX_EVENTS);
        wanted.chains = matches!(algorithm, StateResolutionVersion::V2(_));
        if !split.is_settled() {
            wanted.add(split.ids())?;
        }
        Ok(wanted)
    }

    /// These events and their auth chains, at most `limit` events in all.
    pub fn auth_chain<'i>(
        ids: impl IntoIterator<Item = &'i OwnedEventId>,
        limit: usize,
    ) -> Result<Self, ResolveError> {
        let mut wanted = Self::nothing(limit);
        wanted.add(ids)?;
        Ok(wanted)
    }

    fn nothing(limit: usize) -> Self {
        Self { seen: HashSet::new(), next: Vec::new(), chains: true, limit }
    }

    /// The ids to load next, none of which was given out before. Empty: that was all.
    pub fn take(&mut self) -> Vec<OwnedEventId> {
        mem::take(&mut self.next)
    }

    /// An event was found: what it cites is wanted too.
    pub fn found<E: StateEvent>(&mut self, event: &E) -> Result<(), ResolveError> {
        if self.chains { self.add(event.auth_events()) } else { Ok(()) }
    }

    fn add<'i>(&mut self, ids: impl IntoIterator<Item = &'i OwnedEventId>) -> Result<(), ResolveError> {
        for id in ids {
            if self.seen.contains(id) {
                continue;
            }
            if self.seen.len() == self.limit {
                return Err(ResolveError::TooLarge { limit: self.limit });
            }
            self.seen.insert(id.clone());
            self.next.push(id.clone());
        }
        Ok(())
    }
}
