//! State resolution: the one state of a room where its history forks.
//!
//! A function of its arguments for every room version: version 1 has its own algorithm ([`v1`]), versions 2 to 11 share
//! one, and version 12 mends that ("2.1", both in [`v2`]). Judged by [`crate::auth`]; nothing here reads a database, so the
//! caller loads the events first ([`Wanted`] says which).
//!
//! What nobody can have authorised counts as not there, so that no broken event stands in the way of the rest: an event
//! that isn't found, isn't state, was rejected because of its `auth_events`, or builds on such an event, on one of another
//! room, or (versions 1 and 2, whose ids are free) on itself. It stays in the result only where all states agree on it.
//!
//! Specification: "State resolution" of [version 1](https://spec.matrix.org/v1.19/rooms/v1/#state-resolution),
//! [version 2](https://spec.matrix.org/v1.19/rooms/v2/#state-resolution) and
//! [version 12](https://spec.matrix.org/v1.19/rooms/v12/#state-resolution).

mod graph;
mod split;
mod v1;
mod v2;
mod wanted;

use std::{collections::BTreeMap, sync::Arc};

use ruma::{
    EventId, OwnedEventId, RoomVersionId, events::StateEventType, room_version_rules::StateResolutionVersion,
    state_res::Event,
};

use crate::{
    auth::Judge,
    pdu::Pdu,
    version::{UnsupportedVersion, rules},
};

pub use split::conflicted;
pub use wanted::{MAX_EVENTS, Wanted};

use graph::Graph;
use split::Split;

/// A state of a room: the event of each type and state key. Ordered, so that whatever is made from it is the same
/// everywhere.
pub type StateMap = BTreeMap<(StateEventType, String), OwnedEventId>;

/// What resolution reads of an event.
pub trait StateEvent: Event<Id = OwnedEventId> {
    /// Its `depth`, which decides in version 1 and nowhere else.
    fn depth(&self) -> i64;
}

impl StateEvent for Pdu {
    fn depth(&self) -> i64 {
        self.depth
    }
}

impl<E: StateEvent> StateEvent for &E {
    fn depth(&self) -> i64 {
        (**self).depth()
    }
}

impl<E: StateEvent> StateEvent for Arc<E> {
    fn depth(&self) -> i64 {
        (**self).depth()
    }
}

/// Why states can't be resolved. Nothing that a single event holds is a reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// We don't know the room's version.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
    /// The auth chains are larger than a room of people makes them: somebody's attack on our memory and time.
    #[error("the auth chains hold more than {limit} events")]
    TooLarge {
        /// How many events may take part.
        limit: usize,
    },
}

/// The one state of several: SR-01.
///
/// The states are those after each event that the one in question follows. Neither their order nor that of anything else
/// changes the result; no states give the empty one, and one gives itself.
///
/// `event` finds an event by its id, with its stored verdict. It is asked for all that [`Wanted::resolving`] names, each
/// once, and not at all where the states agree.
pub fn resolve<E: StateEvent>(
    version: &RoomVersionId,
    states: &[StateMap],
    event: impl Fn(&EventId) -> Option<E>,
) -> Result<StateMap, ResolveError> {
    let algorithm = rules(version)?.state_res;
    let judge = Judge::of(version)?;
    let split = Split::of(algorithm, states);
    if split.is_settled() {
        return Ok(split.unconflicted);
    }
    let mut wanted = Wanted::resolving(version, states)?;
    let mut found = Vec::new();
    loop {
        let ids = wanted.take();
        if ids.is_empty() {
            break;
        }
        for event in ids.iter().filter_map(|id| event(id)) {
            wanted.found(&event)?;
            found.push(event);
        }
    }
    Ok(match algorithm {
        StateResolutionVersion::V2(rules) => v2::resolve(&judge, rules, split, &Graph::of(found, &judge)),
        // The enumeration is open, but `rules` knows no version with another algorithm.
        _ => v1::resolve(&judge, split, found),
    })
}
