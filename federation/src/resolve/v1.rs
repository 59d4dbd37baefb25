//! The algorithm of version 1: by depth, and by auth rules where that goes wrong.
//!
//! SR-12. It looks at the states alone, never at auth chains. Where the specification is silent we do as Synapse does, for
//! a room has to come to one state everywhere: an event that can't be found gives way to the others, and where no event
//! for a key is allowed the one of least depth stays.

use std::{cmp::Reverse, collections::HashMap};

use ruma::{EventId, OwnedEventId, events::StateEventType, state_res::Event};
use sha1::{Digest, Sha1};

use super::{StateEvent, StateMap, split::Split};
use crate::auth::Judge;

type Key = (StateEventType, String);

pub(super) fn resolve<E: StateEvent>(judge: &Judge, split: Split, found: Vec<E>) -> StateMap {
    let events: HashMap<OwnedEventId, E> = found
        .into_iter()
        .filter(|event| !event.rejected())
        .map(|event| (event.event_id().clone(), event))
        .collect();
    let mut resolution = Resolution { judge, events: &events, state: split.unconflicted };

    let mut conflicts: HashMap<Key, Vec<&E>> = HashMap::new();
    for (key, id) in split.forks.into_iter().flatten() {
        let conflict = conflicts.entry(key).or_default();
        if let Some(event) = events.get(&id)
            && !conflict.iter().any(|other| *other.event_id() == id)
        {
            conflict.push(event);
        }
    }
    conflicts.retain(|_, events| !events.is_empty());
    for events in conflicts.values_mut() {
        events.sort_by_key(|event| (event.depth(), Reverse(sha1(event.event_id()))));
    }

    // Keys of one pass don't see each other's outcome, so that their order doesn't matter.
    let passes: [fn(&Key) -> bool; 3] = [
        |key| key.0 == StateEventType::RoomPowerLevels && key.1.is_empty(),
        |key| key.0 == StateEventType::RoomJoinRules,
        |key| key.0 == StateEventType::RoomMember,
    ];
    for of_pass in passes {
        let outcome: Vec<_> = conflicts
            .extract_if(|key, _| of_pass(key))
            .filter_map(|(key, events)| resolution.last_allowed(&events).map(|id| (key, id)))
            .collect();
        resolution.state.extend(outcome);
    }
    let outcome: Vec<_> = conflicts
        .into_iter()
        .filter_map(|(key, events)| resolution.deepest_allowed(&events).map(|id| (key, id)))
        .collect();
    resolution.state.extend(outcome);
    resolution.state
}

struct Resolution<'r, E> {
    judge: &'r Judge,
    events: &'r HashMap<OwnedEventId, E>,
    /// *R*.
    state: StateMap,
}

impl<E: StateEvent> Resolution<'_, E> {
    /// Of events that the rules ask for: the last of a row each of which is allowed by the one before.
    fn last_allowed(&self, events: &[&E]) -> Option<OwnedEventId> {
        let (mut last, rest) = events.split_first()?;
        for event in rest {
            if !self.allows(event, Some(last)) {
                break;
            }
            last = event;
        }
        Some(last.event_id().clone())
    }

    /// Of events that the rules don't ask for: the deepest that is allowed.
    fn deepest_allowed(&self, events: &[&E]) -> Option<OwnedEventId> {
        let event = events.iter().rev().find(|event| self.allows(event, None)).or(events.first())?;
        Some(event.event_id().clone())
    }

    /// Whether an event is allowed in *R*, to which `before` was added.
    fn allows(&self, event: &E, before: Option<&E>) -> bool {
        let fetch_state = |kind: &StateEventType, state_key: &str| {
            before
                .filter(|before| is(before, kind, state_key))
                .or_else(|| self.events.get(self.state.get(&(kind.clone(), state_key.to_owned()))?))
        };
        self.judge.by_state(event, fetch_state).is_ok()
    }
}

fn is(event: impl Event, kind: &StateEventType, state_key: &str) -> bool {
    event.event_type().to_string() == kind.to_string() && event.state_key() == Some(state_key)
}

fn sha1(id: &EventId) -> [u8; 20] {
    Sha1::digest(id.as_bytes()).into()
}
