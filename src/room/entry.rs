//! Entering a room that lives on other servers, and hearing of one from outside of it.
//!
//! A resident server answers a join with the state before it and with all that allowed this state. None of it is believed
//! for that: each event was verified before it came here, and is now judged by the events that it cites. What passes is
//! kept as *outliers*, events of the room without a place in its log; the log begins, or goes on, with the join. Between
//! its last event from before and the join is a hole, as wide as any history may be, where backfilled events get their
//! places: [`HOLE`]. So whatever happens, `seq` stays the order of the room.
//!
//! Specification: [Joining Rooms](https://spec.matrix.org/v1.19/server-server-api/#joining-rooms).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hearth_federation::Pdu;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, RoomVersionId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{json, value::RawValue};

use super::{
    Error, Event, Room, Rooms,
    event::Verdict,
    fan_out::{Touched, fan_out},
    forks,
    snapshot::{Snapshot, State},
    work::Work,
    writer,
};
use crate::store::{
    Batch, StateRow,
    event::OUTLIER,
    hole::{HoleRow, insert_hole},
    room as room_table,
};

/// Places that are left free for what a log lacks in the middle.
const HOLE: i64 = 1 << 20;

/// What a resident server says of a room that somebody here has just joined. Each event has been verified.
#[derive(Clone, Debug)]
pub struct Entry {
    pub room_id: OwnedRoomId,
    pub version: RoomVersionId,
    /// The join.
    pub event: Pdu,
    /// The state before it.
    pub state: Vec<Pdu>,
    /// What allowed the state, and what allowed that, and so on.
    pub auth_chain: Vec<Pdu>,
}

/// A membership of somebody here in a room that this server isn't in, as far as it goes.
#[derive(Clone, Debug)]
pub struct Hearsay {
    pub room_id: OwnedRoomId,
    pub version: RoomVersionId,
    /// The membership. It has been verified, and can't be judged.
    pub event: Pdu,
    /// Stripped events about the room; `None` leaves what is known.
    pub about: Option<Vec<Box<RawValue>>>,
}

impl Rooms {
    /// Makes a room, as others have it, one of this server's.
    pub async fn enter(&self, entry: Entry) -> Result<Arc<Room>, Error> {
        let room = self.known_or_new(&entry.room_id, &entry.version).await?;
        writer::enter(&self.core, &room, entry).await?;
        self.by_number(room.number).await
    }

    /// Tells somebody of their membership of a room that this server isn't in.
    pub async fn hear(&self, hearsay: Hearsay) -> Result<Arc<Room>, Error> {
        let room = self.known_or_new(&hearsay.room_id, &hearsay.version).await?;
        writer::hear(&self.core, &room, hearsay).await?;
        Ok(room)
    }

    /// A room, which is made if nobody knows it. It has no events then.
    async fn known_or_new(&self, room_id: &OwnedRoomId, version: &RoomVersionId) -> Result<Arc<Room>, Error> {
        let _making = self.making.lock().await;
        match self.by_id(room_id).await {
            Err(Error::NotFound(_)) => {}
            found => return found,
        }
        let number = self.next_number();
        let snapshot = Snapshot::empty(number, room_id.clone(), version.clone())?;
        let row = room_table::insert_room(number, room_id.as_str(), version.as_str(), false);
        self.core.store.commit(row).await?;
        Ok(self.register(Arc::new(Room::new(snapshot))))
    }
}

impl Work<'_> {
    /// Puts a join, and the state before it, into the log.
    pub(super) async fn enter_room(&mut self, entry: &Entry) -> Result<(), Error> {
        if entry.version != self.snapshot.version {
            let text = format!("the room is of version {}, not {}", self.snapshot.version, entry.version);
            return Err(Error::BadState(text));
        }
        let mut batch = Batch::new();
        let step = batch.step();
        let known = self.judged_outliers(&mut batch, step, entry).await?;
        let state = self.given_state(entry, &known)?;
        self.check_entry(&entry.event, &state, &known)?;

        let last = self.snapshot.last_seq;
        let gone = self.unknown_of(&entry.event.prev_events).await?;
        let (floor, before) = match last {
            0 => (OUTLIER, 0),
            last => (last, last + HOLE),
        };
        let seq = before + 1;
        if !gone.is_empty() {
            let hole = HoleRow { seq, floor, ends: json!(gone).to_string() };
            batch.push(insert_hole(self.snapshot.number, &hole));
        }
        // Until somebody looks into the hole, what was shown before the join is taken to be what is shown now.
        let visibility = StateEventType::RoomHistoryVisibility;
        if let Some(event) = state.get(&visibility, "") {
            batch.state(StateRow {
                room: self.snapshot.number,
                kind: visibility.to_string(),
                state_key: String::new(),
                seq: floor + 1,
                event: event.seq,
            });
        }
        let changes = forks::changes(&self.snapshot.state, &state);
        self.become_state(&mut batch, before, &changes, state).await?;
        if self.snapshot.hearsay.take().is_some() {
            batch.push(room_table::set_hearsay(self.snapshot.number, None));
        }
        self.snapshot.last_seq = before;
        self.snapshot.extremities = Arc::from([]);
        let event = Arc::new(Event::new(seq, entry.event.clone(), None));
        self.accept(&mut batch, step, &event, true).await?;
        self.states.insert(seq, self.snapshot.state.clone());
        self.absorb(batch, step);
        Ok(())
    }

    /// Puts a membership that can't be judged into the log of a room that nobody here is in.
    pub(super) async fn hear(&mut self, hearsay: &Hearsay) -> Result<(), Error> {
        if self.snapshot.is_resident() {
            return Err(Error::BadState("this server is in the room, and judges for itself".to_owned()));
        }
        if self.knows(&hearsay.event.event_id).await?.is_some() {
            return Ok(());
        }
        let mut batch = Batch::new();
        let step = batch.step();
        let number = self.snapshot.number;
        if let Some(about) = &hearsay.about {
            batch.push(room_table::set_hearsay(number, Some(json!(about).to_string())));
            self.snapshot.hearsay = Some(about.iter().cloned().collect());
        }
        let before = self.snapshot.clone();
        let event = Arc::new(Event::new(before.last_seq + 1, hearsay.event.clone(), None));
        self.snapshot.last_seq = event.seq;
        self.store_event(&mut batch, step, &event);
        self.events.push(Arc::clone(&event));
        let mut state = before.state.clone();
        state.insert(Arc::clone(&event));
        let changes = forks::changes(&before.state, &state);
        let members = self.become_state(&mut batch, event.seq, &changes, state).await?;
        for member in &members {
            self.wishes.learn(&self.core.accounts, member.recipient).await?;
        }
        let touched = Touched { members: &members, state: true };
        fan_out(&mut batch, step, &before, &self.snapshot, &event, touched, String::new(), &self.wishes);
        self.absorb(batch, step);
        Ok(())
    }

    /// All events of an entry but the join, judged by what they cite, by their ids. Those that aren't here yet become
    /// outliers.
    async fn judged_outliers(
        &mut self,
        batch: &mut Batch,
        step: u32,
        entry: &Entry,
    ) -> Result<HashMap<OwnedEventId, Arc<Event>>, Error> {
        let mut given: HashMap<&EventId, &Pdu> = HashMap::new();
        for pdu in entry.auth_chain.iter().chain(&entry.state) {
            if pdu.room_id == entry.room_id && pdu.is_state() && pdu.event_id != entry.event.event_id {
                given.insert(&pdu.event_id, pdu);
            }
        }
        let mut known: HashMap<OwnedEventId, Arc<Event>> = HashMap::new();
        let ids: Vec<&OwnedEventId> = given.values().map(|pdu| &pdu.event_id).collect();
        let (room, version) = (self.snapshot.number, self.snapshot.version.clone());
        for event in self.core.events_by_ids(room, &version, &ids).await? {
            known.insert(event.pdu.event_id.clone(), Arc::new(event));
        }
        let order = by_citation(&given);
        let mut seat = self.snapshot.outliers - order.len() as i64;
        self.snapshot.outliers = seat;
        for pdu in order {
            if known.contains_key(&pdu.event_id) {
                continue;
            }
            let verdict = self.verdict_of_outlier(pdu, &known);
            // What can't be judged isn't kept: it may be some day.
            let Some(verdict) = verdict else { continue };
            let pdu = pdu.clone().with_rejected(verdict == Verdict::Rejected);
            let event = Arc::new(Event { verdict, ..Event::new(seat, pdu, None) });
            seat += 1;
            self.store_event(batch, step, &event);
            self.events.push(Arc::clone(&event));
            known.insert(event.pdu.event_id.clone(), event);
        }
        Ok(known)
    }

    /// `None` if not all that it cites is here.
    fn verdict_of_outlier(&self, pdu: &Pdu, known: &HashMap<OwnedEventId, Arc<Event>>) -> Option<Verdict> {
        let mut cited: Vec<&Pdu> = Vec::new();
        for id in &pdu.auth_events {
            cited.push(&known.get(id)?.pdu);
        }
        let create = self.snapshot.rules.authorization.room_create_event_id_as_room_id;
        if create && pdu.kind != TimelineEventType::RoomCreate {
            cited.push(&known.values().find(|event| is_create(event))?.pdu);
        }
        let find = |id: &EventId| cited.iter().copied().find(|pdu| pdu.event_id == *id);
        match hearth_federation::authorize_received(&self.snapshot.version, pdu, find) {
            Ok(()) => Some(Verdict::Accepted),
            Err(cause) => {
                tracing::info!(event_id = %pdu.event_id, %cause, "an event of a room's state is rejected");
                Some(Verdict::Rejected)
            }
        }
    }

    /// The state that an entry gives, without what is rejected.
    fn given_state(&self, entry: &Entry, known: &HashMap<OwnedEventId, Arc<Event>>) -> Result<State, Error> {
        let mut state = State::default();
        let mut keys = HashSet::new();
        for pdu in &entry.state {
            let Some(event) = known.get(&pdu.event_id) else { continue };
            if event.verdict == Verdict::Rejected {
                continue;
            }
            if !keys.insert(event.pdu.state().map(|(kind, key)| (kind.to_string(), key))) {
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

    /// The join, by what it cites and by the state before it.
    fn check_entry(
        &self,
        pdu: &Pdu,
        state: &State,
        known: &HashMap<OwnedEventId, Arc<Event>>,
    ) -> Result<(), Error> {
        let version = &self.snapshot.version;
        if self.verdict_of_outlier(pdu, known) != Some(Verdict::Accepted) {
            return Err(Error::forbidden("the room doesn't let the user in by what its server says"));
        }
        let of = |kind: &StateEventType, key: &str| state.get(kind, key).map(|event| event.pdu.clone());
        hearth_federation::authorize_by_state(version, pdu, of)?;
        Ok(())
    }

    /// Those of these events that aren't in the log.
    async fn unknown_of(&self, ids: &[OwnedEventId]) -> Result<Vec<OwnedEventId>, Error> {
        let wanted: Vec<&OwnedEventId> = ids.iter().collect();
        let (room, version) = (self.snapshot.number, &self.snapshot.version);
        let known = self.core.events_by_ids(room, version, &wanted).await?;
        let known: HashSet<&EventId> =
            known.iter().filter(|event| !event.is_outlier()).map(Event::id).collect();
        Ok(ids.iter().filter(|id| !known.contains(&***id)).cloned().collect())
    }
}

fn is_create(event: &Arc<Event>) -> bool {
    event.pdu.kind == TimelineEventType::RoomCreate && event.verdict == Verdict::Accepted
}

/// Events in an order in which each comes after those that it cites. Those that cite each other in a circle are left out.
fn by_citation<'a>(given: &HashMap<&EventId, &'a Pdu>) -> Vec<&'a Pdu> {
    let mut waiting: HashMap<&EventId, usize> = HashMap::new();
    let mut citing: HashMap<&EventId, Vec<&'a Pdu>> = HashMap::new();
    let mut ready: Vec<&'a Pdu> = Vec::new();
    for pdu in given.values() {
        let cited: HashSet<&EventId> =
            pdu.auth_events.iter().map(|id| &**id).filter(|id| given.contains_key(*id)).collect();
        if cited.is_empty() {
            ready.push(pdu);
        }
        waiting.insert(&pdu.event_id, cited.len());
        for id in cited {
            if let Some((id, _)) = given.get_key_value(id) {
                citing.entry(*id).or_default().push(pdu);
            }
        }
    }
    // For the places to be the same whatever the order in which they came.
    let place = |pdu: &&Pdu| (pdu.depth, pdu.event_id.clone());
    ready.sort_by_key(place);
    let mut order = Vec::with_capacity(given.len());
    let mut next = 0;
    order.extend(ready);
    while let Some(pdu) = order.get(next).copied() {
        next += 1;
        let mut freed: Vec<&'a Pdu> = Vec::new();
        for citing in citing.remove(&*pdu.event_id).unwrap_or_default() {
            if let Some(left) = waiting.get_mut(&*citing.event_id) {
                *left -= 1;
                if *left == 0 {
                    freed.push(citing);
                }
            }
        }
        freed.sort_by_key(place);
        order.extend(freed);
    }
    order
}
