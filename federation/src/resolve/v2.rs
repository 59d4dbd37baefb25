//! The algorithm of version 2, and of version 12 what became of it ("2.1").
//!
//! The events stand in a [`Graph`] in which whatever is cited comes first, so every walk of the specification is one pass
//! over it and no history is long enough to recur too deep.
//!
//! Three things are not by the letter but as Synapse does them, and so nearly every server in every room, for one that
//! came to another state would be alone with it: the full auth chain of a state holds the state's events too; the create
//! event is a power event; and what power events bring along of their auth chains is walked to inside the full
//! conflicted set only.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, HashSet},
};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedUserId,
    events::{
        StateEventType,
        room::{member::MembershipState, power_levels::UserPowerLevel},
    },
    int,
    room_version_rules::StateResolutionV2Rules,
    state_res::{
        Event,
        events::{RoomCreateEvent, RoomMemberEvent, RoomPowerLevelsEvent},
    },
};

use super::{
    StateEvent, StateMap,
    graph::{Graph, Node},
    split::Split,
};
use crate::auth::{Judge, power_level};

pub(super) fn resolve<E: StateEvent>(
    judge: &Judge,
    rules: StateResolutionV2Rules,
    split: Split,
    graph: &Graph<E>,
) -> StateMap {
    let full_conflicted_set = full_conflicted_set(rules, &split, graph);
    let resolution = Resolution { judge, graph };

    let mut state = State::default();
    if !rules.begin_iterative_auth_checks_with_empty_state_map {
        for nth in split.unconflicted.values().filter_map(|id| graph.place(id)) {
            state.insert(&graph.nodes()[nth], nth);
        }
    }

    let power_events = resolution.power_events(&full_conflicted_set);
    for nth in resolution.by_reverse_topological_power(&power_events) {
        resolution.apply(nth, &mut state);
    }
    let rest = (0..graph.nodes().len()).filter(|&nth| full_conflicted_set[nth] && !power_events[nth]);
    for nth in resolution.by_mainline(rest.collect(), &state) {
        resolution.apply(nth, &mut state);
    }

    let mut resolved: StateMap = state
        .places()
        .map(|nth| &graph.nodes()[nth])
        .map(|node| (node.key.clone(), node.event.event_id().clone()))
        .collect();
    resolved.extend(split.unconflicted);
    resolved
}

/// The conflicted state set, the auth difference, and in 2.1 the conflicted state subgraph.
fn full_conflicted_set<E: StateEvent>(
    rules: StateResolutionV2Rules,
    split: &Split,
    graph: &Graph<E>,
) -> Vec<bool> {
    let count = graph.nodes().len();
    let places = |state: &StateMap| {
        let mut marked = vec![false; count];
        state.values().filter_map(|id| graph.place(id)).for_each(|nth| marked[nth] = true);
        marked
    };
    // What all agree on and its auth chain are part of every state's; only what is beyond it can differ.
    let agreed = places(&split.unconflicted);
    let chain = graph.reached(&agreed, |_| true);
    let common: Vec<bool> = (0..count).map(|nth| agreed[nth] || chain[nth]).collect();
    let mut conflicted = vec![false; count];
    let mut chains_with = vec![0_usize; count];
    for fork in &split.forks {
        let fork = places(fork);
        let chain = graph.reached(&fork, |nth| !common[nth]);
        for nth in 0..count {
            conflicted[nth] |= fork[nth];
            chains_with[nth] += usize::from(chain[nth] || fork[nth]);
        }
    }
    let subgraph = if rules.consider_conflicted_state_subgraph {
        let before_conflicted = graph.reached(&conflicted, |_| true);
        let mut after_conflicted = vec![false; count];
        for (nth, node) in graph.nodes().iter().enumerate() {
            after_conflicted[nth] =
                node.auth.iter().any(|&cited| conflicted[cited] || after_conflicted[cited]);
        }
        (0..count).map(|nth| before_conflicted[nth] && after_conflicted[nth]).collect()
    } else {
        vec![false; count]
    };
    let in_some_but_not_all = |chains: usize| chains > 0 && chains < split.forks.len();
    (0..count).map(|nth| conflicted[nth] || subgraph[nth] || in_some_but_not_all(chains_with[nth])).collect()
}

/// A state while it is being resolved: the place of each key's event.
#[derive(Default)]
struct State(HashMap<StateEventType, HashMap<String, usize>>);

impl State {
    fn get(&self, kind: &StateEventType, state_key: &str) -> Option<usize> {
        self.0.get(kind)?.get(state_key).copied()
    }

    fn insert<E>(&mut self, node: &Node<E>, nth: usize) {
        let (kind, state_key) = &node.key;
        self.0.entry(kind.clone()).or_default().insert(state_key.clone(), nth);
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        self.0.values().flat_map(HashMap::values).copied()
    }
}

struct Resolution<'r, E> {
    judge: &'r Judge,
    graph: &'r Graph<E>,
}

impl<'r, E: StateEvent> Resolution<'r, E> {
    /// The power events of the full conflicted set, and what of the set they build on: SR-04, SR-09.
    fn power_events(&self, full_conflicted_set: &[bool]) -> Vec<bool> {
        let nodes = self.graph.nodes();
        let mut chosen: Vec<bool> = nodes
            .iter()
            .zip(full_conflicted_set)
            .map(|(node, &in_set)| in_set && is_power_event(node))
            .collect();
        let cited = self.graph.reached(&chosen, |nth| full_conflicted_set[nth]);
        chosen.iter_mut().zip(cited).for_each(|(chosen, cited)| *chosen |= cited);
        chosen
    }

    /// SR-05: Kahn's algorithm, with the smallest candidate at each step.
    fn by_reverse_topological_power(&self, chosen: &[bool]) -> Vec<usize> {
        type Rank<'e> = Reverse<(Reverse<UserPowerLevel>, MilliSecondsSinceUnixEpoch, &'e EventId, usize)>;
        let nodes = self.graph.nodes();
        let mut levels = Levels::default();
        let mut rank = |nth: usize| -> Rank<'r> {
            let event = &nodes[nth].event;
            let level = self.level_of_sender(nth, &mut levels);
            Reverse((Reverse(level), event.origin_server_ts(), event.event_id(), nth))
        };
        let mut missing = vec![0_usize; nodes.len()];
        let mut cited_by: HashMap<usize, Vec<usize>> = HashMap::new();
        let mut candidates = BinaryHeap::new();
        for (nth, node) in nodes.iter().enumerate().filter(|(nth, _)| chosen[*nth]) {
            for &cited in node.auth.iter().filter(|&&cited| chosen[cited]) {
                missing[nth] += 1;
                cited_by.entry(cited).or_default().push(nth);
            }
            if missing[nth] == 0 {
                candidates.push(rank(nth));
            }
        }
        let mut sorted = Vec::new();
        while let Some(Reverse((.., nth))) = candidates.pop() {
            sorted.push(nth);
            for &citing in cited_by.get(&nth).into_iter().flatten() {
                missing[citing] -= 1;
                if missing[citing] == 0 {
                    candidates.push(rank(citing));
                }
            }
        }
        sorted
    }

    /// The power level of an event's sender, by the event's own `auth_events` (SR-06). What can't be read counts for nothing.
    fn level_of_sender(&self, nth: usize, levels: &mut Levels<'r, E>) -> UserPowerLevel {
        let rules = self.judge.rules();
        let node = &self.graph.nodes()[nth];
        let sender = node.event.sender();
        let is_creator = self.create_of(nth).is_some_and(|create| {
            let creators = levels.creators.entry(create.event_id());
            creators
                .or_insert_with(|| RoomCreateEvent::new(create).creators(rules).unwrap_or_default())
                .contains(sender)
        });
        let power_levels = self.cited(nth, &StateEventType::RoomPowerLevels, "").map(|cited| {
            let event = &self.graph.nodes()[cited].event;
            &*levels.power_levels.entry(cited).or_insert_with(|| RoomPowerLevelsEvent::new(event))
        });
        power_level(sender, is_creator, power_levels, rules).unwrap_or_else(|_| int!(0).into())
    }

    /// SR-07: by the place in the history of power levels that each was made under, oldest first.
    fn by_mainline(&self, mut events: Vec<usize>, state: &State) -> Vec<usize> {
        let nodes = self.graph.nodes();
        let power_levels: Vec<Option<usize>> =
            (0..nodes.len()).map(|nth| self.cited(nth, &StateEventType::RoomPowerLevels, "")).collect();
        let mut mainline = Vec::new();
        let mut next = state.get(&StateEventType::RoomPowerLevels, "");
        while let Some(nth) = next {
            mainline.push(nth);
            next = power_levels[nth];
        }
        // From the oldest, 0; nothing at all comes before that.
        let mut positions: Vec<Option<usize>> = vec![None; nodes.len()];
        for (position, &nth) in mainline.iter().rev().enumerate() {
            positions[nth] = Some(position);
        }
        for nth in 0..nodes.len() {
            if positions[nth].is_none() {
                positions[nth] = power_levels[nth].and_then(|cited| positions[cited]);
            }
        }
        events.sort_by_key(|&nth| {
            let event = &nodes[nth].event;
            (positions[nth], event.origin_server_ts(), event.event_id())
        });
        events
    }

    /// A step of the iterative auth checks: SR-08.
    fn apply(&self, nth: usize, state: &mut State) {
        let nodes = self.graph.nodes();
        let node = &nodes[nth];
        let Ok(types) = self.judge.auth_types(&node.event) else { return };
        let not_rejected = |nth: &usize| !nodes[*nth].event.rejected();
        let fetch_state = |kind: &StateEventType, state_key: &str| {
            let from_state = types
                .iter()
                .any(|of| of.0 == *kind && of.1 == state_key)
                .then(|| state.get(kind, state_key))
                .flatten()
                .filter(not_rejected)
                .map(|nth| &nodes[nth].event);
            from_state.or_else(|| {
                if *kind == StateEventType::RoomCreate {
                    return self.create_of(nth);
                }
                let cited = self.cited(nth, kind, state_key).filter(not_rejected)?;
                Some(&nodes[cited].event)
            })
        };
        if self.judge.by_state(&node.event, fetch_state).is_ok() {
            state.insert(node, nth);
        }
    }

    /// The event of a key among an event's `auth_events`.
    fn cited(&self, nth: usize, kind: &StateEventType, state_key: &str) -> Option<usize> {
        let nodes = self.graph.nodes();
        nodes[nth].auth.iter().copied().find(|&cited| nodes[cited].is(kind, state_key))
    }

    /// The create event that an event stands on: itself, the one it cites, or the one its room's id names.
    fn create_of(&self, nth: usize) -> Option<&'r E> {
        let nodes = self.graph.nodes();
        if nodes[nth].is(&StateEventType::RoomCreate, "") {
            return Some(&nodes[nth].event);
        }
        match self.cited(nth, &StateEventType::RoomCreate, "") {
            Some(cited) => Some(&nodes[cited].event).filter(|create| !create.rejected()),
            None => self.graph.create_of(&nodes[nth].event, self.judge).filter(|create| !create.rejected()),
        }
    }
}

/// What was read already of power levels.
struct Levels<'r, E: StateEvent> {
    creators: HashMap<&'r EventId, HashSet<OwnedUserId>>,
    power_levels: HashMap<usize, RoomPowerLevelsEvent<&'r E>>,
}

impl<E: StateEvent> Default for Levels<'_, E> {
    fn default() -> Self {
        Self { creators: HashMap::new(), power_levels: HashMap::new() }
    }
}

/// Whether an event might take away what somebody may do.
fn is_power_event<E: StateEvent>(node: &Node<E>) -> bool {
    match node.key.0 {
        StateEventType::RoomPowerLevels | StateEventType::RoomJoinRules | StateEventType::RoomCreate => {
            node.key.1.is_empty()
        }
        StateEventType::RoomMember => {
            let membership = RoomMemberEvent::new(&node.event).membership();
            matches!(membership, Ok(MembershipState::Leave | MembershipState::Ban))
                && node.event.sender() != node.key.1.as_str()
        }
        _ => false,
    }
}
