//! The events of auth chains, as far as somebody can have authorised them.

use std::collections::HashMap;

use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
};

use super::StateEvent;
use crate::auth::Judge;

/// A state event and what it cites.
pub(super) struct Node<E> {
    pub(super) event: E,
    pub(super) key: (StateEventType, String),
    /// Its `auth_events`, in their order.
    pub(super) auth: Vec<usize>,
}

impl<E: StateEvent> Node<E> {
    pub(super) fn is(&self, kind: &StateEventType, state_key: &str) -> bool {
        self.key.0 == *kind && self.key.1 == state_key
    }
}

/// Events that stand on their auth chains, each behind those that it cites.
pub(super) struct Graph<E> {
    nodes: Vec<Node<E>>,
    places: HashMap<OwnedEventId, usize>,
}

impl<E: StateEvent> Graph<E> {
    pub(super) fn of(found: Vec<E>, judge: &Judge) -> Self {
        let mut graph = Self { nodes: Vec::with_capacity(found.len()), places: HashMap::new() };
        let mut missing: Vec<usize> = Vec::with_capacity(found.len());
        let mut cited_by: HashMap<OwnedEventId, Vec<usize>> = HashMap::new();
        let mut ready = Vec::new();
        let mut waiting: Vec<Option<E>> = Vec::with_capacity(found.len());
        for (nth, event) in found.into_iter().enumerate() {
            let mut count = 0;
            for id in event.auth_events() {
                cited_by.entry(id.clone()).or_default().push(nth);
                count += 1;
            }
            if count == 0 {
                ready.push(nth);
            }
            missing.push(count);
            waiting.push(Some(event));
        }
        // Where room ids name the create event it isn't cited, and judging the others takes it all the same: it goes first.
        ready.sort_by_key(|&nth| {
            waiting[nth].as_ref().is_some_and(|event| *event.event_type() == TimelineEventType::RoomCreate)
        });
        while let Some(nth) = ready.pop() {
            let Some(event) = waiting[nth].take() else { continue };
            let id = event.event_id().clone();
            if !graph.add(event, judge) {
                continue;
            }
            for &citing in cited_by.get(&id).into_iter().flatten() {
                missing[citing] -= 1;
                if missing[citing] == 0 {
                    ready.push(citing);
                }
            }
        }
        graph
    }

    /// Takes an event all of whose `auth_events` are here. `false`: nobody can have authorised it.
    fn add(&mut self, event: E, judge: &Judge) -> bool {
        let Some(state_key) = event.state_key().map(str::to_owned) else { return false };
        let auth: Vec<usize> = event.auth_events().filter_map(|id| self.places.get(id).copied()).collect();
        if auth.iter().any(|&nth| self.nodes[nth].event.room_id() != event.room_id()) {
            return false;
        }
        // Who was rejected because of the state before it takes part all the same (SR-14), who was because of what it cites
        // doesn't.
        if event.rejected() && !self.stands_on(&event, &auth, judge) {
            return false;
        }
        let key = (event.event_type().to_string().into(), state_key);
        self.places.insert(event.event_id().clone(), self.nodes.len());
        self.nodes.push(Node { event, key, auth });
        true
    }

    /// Whether its `auth_events` allow an event.
    fn stands_on(&self, event: &E, auth: &[usize], judge: &Judge) -> bool {
        let cited = |kind: &StateEventType, state_key: &str| {
            auth.iter()
                .map(|&nth| &self.nodes[nth])
                .find(|node| node.is(kind, state_key))
                .map(|node| &node.event)
                .or_else(|| {
                    if *kind == StateEventType::RoomCreate { self.create_of(event, judge) } else { None }
                })
        };
        judge.by_auth_events(event, |id| self.get(id)).is_ok() && judge.by_state(event, cited).is_ok()
    }

    /// The create event of an event's room, where the room's id names it.
    pub(super) fn create_of(&self, event: &E, judge: &Judge) -> Option<&E> {
        judge.create_id_of(event).and_then(|id| self.get(&id))
    }

    fn get(&self, id: &EventId) -> Option<&E> {
        self.places.get(id).map(|&nth| &self.nodes[nth].event)
    }

    pub(super) fn place(&self, id: &EventId) -> Option<usize> {
        self.places.get(id).copied()
    }

    pub(super) fn nodes(&self) -> &[Node<E>] {
        &self.nodes
    }

    /// What can be reached from `starts` along `auth_events`, going only where `enter` allows.
    pub(super) fn reached(&self, starts: &[bool], enter: impl Fn(usize) -> bool) -> Vec<bool> {
        let mut reached = vec![false; self.nodes.len()];
        // What is cited stands before what cites it, so one pass from behind sees all.
        for (nth, node) in self.nodes.iter().enumerate().rev() {
            if starts[nth] || reached[nth] {
                for &cited in &node.auth {
                    reached[cited] |= enter(cited);
                }
            }
        }
        reached
    }
}
