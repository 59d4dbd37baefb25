//! Where states agree and where they don't.

use std::collections::BTreeSet;

use ruma::{OwnedEventId, RoomVersionId, room_version_rules::StateResolutionVersion};

use super::{ResolveError, StateMap};
use crate::version::rules;

/// Several states, taken apart.
pub(super) struct Split {
    /// What they agree on.
    pub(super) unconflicted: StateMap,
    /// What is left of each.
    pub(super) forks: Vec<StateMap>,
}

impl Split {
    /// Version 1 wants two different events for a conflict; later, an event that isn't in every state is one (SR-02).
    pub(super) fn of(algorithm: StateResolutionVersion, states: &[StateMap]) -> Self {
        let absence_conflicts = matches!(algorithm, StateResolutionVersion::V2(_));
        let mut split = Self { unconflicted: StateMap::new(), forks: vec![StateMap::new(); states.len()] };
        for (nth, state) in states.iter().enumerate() {
            for (key, id) in state {
                let agreed = states.iter().all(|other| match other.get(key) {
                    Some(other) => other == id,
                    None => !absence_conflicts,
                });
                if !agreed {
                    split.forks[nth].insert(key.clone(), id.clone());
                } else if nth == 0 || !split.unconflicted.contains_key(key) {
                    split.unconflicted.insert(key.clone(), id.clone());
                }
            }
        }
        split
    }

    pub(super) fn is_settled(&self) -> bool {
        self.forks.iter().all(StateMap::is_empty)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &OwnedEventId> {
        self.unconflicted.values().chain(self.forks.iter().flat_map(StateMap::values))
    }
}

/// The events on which the states don't agree, as their room's version defines it. None: any one of the states, or in
/// version 1 all of them together, is the resolved one, and [`super::resolve`] asks for no event.
pub fn conflicted(
    version: &RoomVersionId,
    states: &[StateMap],
) -> Result<BTreeSet<OwnedEventId>, ResolveError> {
    let split = Split::of(rules(version)?.state_res, states);
    Ok(split.forks.into_iter().flat_map(StateMap::into_values).collect())
}
