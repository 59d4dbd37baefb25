//! States that others tell of: events without a place in the log of their room, each judged by the events that it cites.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hearth_federation::Pdu;
use ruma::{
    EventId, OwnedEventId,
    events::{StateEventType, TimelineEventType},
};

use super::{Error, Event, event::Verdict, snapshot::State, work::Work};
use crate::store::Batch;

/// A state as a server gives it. Each of the events has been verified.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The events that are the state, those among them that couldn't be had or verified.
    pub state: Vec<OwnedEventId>,
    /// Those of them that weren't here, and those that allowed them, and so on.
    pub events: Vec<Pdu>,
}

/// Events by their ids.
pub(super) type Known = HashMap<OwnedEventId, Arc<Event>>;

impl Work<'_> {
    /// The events of a given state, and those that these and `citing` cite, as far as they are known; those that weren't here
    /// yet become outliers.
    pub(super) async fn judged_outliers(
        &mut self,
        batch: &mut Batch,
        step: u32,
        given: &Given,
        citing: &Pdu,
    ) -> Result<Known, Error> {
        let mut new: HashMap<&EventId, &Pdu> = HashMap::new();
        for pdu in &given.events {
            if pdu.room_id == citing.room_id && pdu.is_state() && pdu.event_id != citing.event_id {
                new.insert(&pdu.event_id, pdu);
            }
        }
        let ids: HashSet<&OwnedEventId> = given
            .state
            .iter()
            .chain(&citing.auth_events)
            .chain(new.values().flat_map(|pdu| pdu.auth_events.iter().chain([&pdu.event_id])))
            .collect();
        let mut known = self.known(ids).await?;
        if let Some(create) = self.snapshot.create() {
            known.insert(create.pdu.event_id.clone(), Arc::clone(create));
        }
        let order = by_citation(&new);
        let mut seat = self.snapshot.outliers - order.len() as i64;
        self.snapshot.outliers = seat;
        for pdu in order {
            if known.contains_key(&pdu.event_id) {
                continue;
            }
            // What can't be judged isn't kept: it may be some day.
            let Some(verdict) = self.verdict_by_citation(pdu, &known) else { continue };
            let pdu = pdu.clone().with_rejected(verdict == Verdict::Rejected);
            let event = Arc::new(Event { verdict, ..Event::new(seat, pdu, None) });
            seat += 1;
            self.store_event(batch, step, &event);
            self.events.push(Arc::clone(&event));
            known.insert(event.pdu.event_id.clone(), event);
        }
        Ok(known)
    }

    /// Events of this room by their ids, those of this batch among them.
    pub(super) async fn known(&self, ids: HashSet<&OwnedEventId>) -> Result<Known, Error> {
        let mut known = Known::new();
        for event in &self.events {
            if ids.contains(&event.pdu.event_id) {
                known.insert(event.pdu.event_id.clone(), Arc::clone(event));
            }
        }
        let unknown: Vec<&OwnedEventId> = ids.into_iter().filter(|id| !known.contains_key(*id)).collect();
        let (room, version) = (self.snapshot.number, &self.snapshot.version);
        for event in self.core.events_by_ids(room, version, &unknown).await? {
            known.insert(event.pdu.event_id.clone(), Arc::new(event));
        }
        Ok(known)
    }

    /// What an event's citations make of it; `None` if not all of them are known.
    pub(super) fn verdict_by_citation(&self, pdu: &Pdu, known: &Known) -> Option<Verdict> {
        let mut cited: Vec<&Pdu> = Vec::new();
        for id in &pdu.auth_events {
            cited.push(&known.get(id)?.pdu);
        }
        let by_room_id = self.snapshot.rules.authorization.room_create_event_id_as_room_id;
        if by_room_id && pdu.kind != TimelineEventType::RoomCreate {
            cited.push(&known.values().find(|event| is_create(event))?.pdu);
        }
        let find = |id: &EventId| cited.iter().copied().find(|pdu| pdu.event_id == *id);
        match hearth_federation::authorize_received(&self.snapshot.version, pdu, find) {
            Ok(()) => Some(Verdict::Accepted),
            Err(cause) => {
                tracing::info!(event_id = %pdu.event_id, %cause, "an event from before is rejected");
                Some(Verdict::Rejected)
            }
        }
    }

    /// Those of these events that aren't in the log.
    pub(super) async fn not_in_log<'a>(
        &self,
        ids: impl IntoIterator<Item = &'a OwnedEventId>,
    ) -> Result<Vec<OwnedEventId>, Error> {
        let ids: Vec<&OwnedEventId> = ids.into_iter().collect();
        let known = self.known(ids.iter().copied().collect()).await?;
        let missing = ids.into_iter().filter(|id| known.get(*id).is_none_or(|event| event.is_outlier()));
        Ok(missing.cloned().collect())
    }
}

/// The state that others give, without what is rejected and what couldn't be judged.
pub(super) fn given_state(given: &Given, known: &Known) -> Result<State, Error> {
    let mut state = State::default();
    let mut keys = HashSet::new();
    for id in &given.state {
        let Some(event) = known.get(id).filter(|event| event.verdict != Verdict::Rejected) else { continue };
        let Some((kind, key)) = event.pdu.state() else { continue };
        if !keys.insert((kind.to_string(), key)) {
            return Err(Error::BadState("the state has two events under one key".to_owned()));
        }
        state.insert(Arc::clone(event));
    }
    let create = state.get(&StateEventType::RoomCreate, "");
    if !create.is_some_and(is_create) {
        return Err(Error::BadState("the state doesn't say how the room was created".to_owned()));
    }
    Ok(state)
}

fn is_create(event: &Arc<Event>) -> bool {
    event.pdu.kind == TimelineEventType::RoomCreate && event.verdict == Verdict::Accepted
}

/// Events in an order in which each comes after those that it cites. Those that cite each other in a circle are left out.
fn by_citation<'a>(given: &HashMap<&EventId, &'a Pdu>) -> Vec<&'a Pdu> {
    in_order(given, |pdu| &pdu.auth_events)
}

/// Events in an order in which each comes after those that it names.
pub(super) fn in_order<'a>(
    given: &HashMap<&EventId, &'a Pdu>,
    named: impl Fn(&'a Pdu) -> &'a [OwnedEventId],
) -> Vec<&'a Pdu> {
    let mut waiting: HashMap<&EventId, usize> = HashMap::new();
    let mut naming: HashMap<&EventId, Vec<&'a Pdu>> = HashMap::new();
    let mut ready = std::collections::BTreeMap::new();
    // For the order to be the same whatever that was in which they came.
    let place = |pdu: &'a Pdu| (pdu.depth, &*pdu.event_id);
    for pdu in given.values().copied() {
        let named: HashSet<&EventId> =
            named(pdu).iter().map(|id| &**id).filter(|id| given.contains_key(*id)).collect();
        if named.is_empty() {
            ready.insert(place(pdu), pdu);
        }
        waiting.insert(&pdu.event_id, named.len());
        for id in named {
            naming.entry(id).or_default().push(pdu);
        }
    }
    let mut order = Vec::with_capacity(given.len());
    while let Some((_, pdu)) = ready.pop_first() {
        order.push(pdu);
        for next in naming.remove(&*pdu.event_id).unwrap_or_default() {
            if let Some(left) = waiting.get_mut(&*next.event_id) {
                *left -= 1;
                if *left == 0 {
                    ready.insert(place(next), next);
                }
            }
        }
    }
    order
}
