//! Entering a room that lives on other servers, and hearing of one from outside of it.
//!
//! A resident server answers a join with the state before it and with all that allowed this state. None of it is believed
//! for that: each event was verified before it came here, and is now judged by the events that it cites. What passes is
//! kept as *outliers*, events of the room without a place in its log; the log begins, or goes on, with the join. Between
//! its last event from before and the join is a hole, as wide as any history may be, where backfilled events get their
//! places: [`HOLE`]. So whatever happens, `seq` stays the order of the room.
//!
//! Specification: [Joining Rooms](https://spec.matrix.org/v1.19/server-server-api/#joining-rooms).

use std::{collections::HashSet, sync::Arc};

use hearth_federation::Pdu;
use ruma::{
    OwnedEventId, OwnedRoomId, RoomVersionId, UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde_json::{json, value::RawValue};

use super::{
    Error, Event, Outcome, Room, Rooms,
    event::Verdict,
    fan_out::{Outward, Touched, fan_out},
    forks,
    outliers::{Given, Known, given_state},
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

/// Memberships heard of from outside, one following the other, that are looked at to find out what is missing before them.
const MOST_HEARD: usize = 10;

/// The newest event from `first` to `end` before which history was missing when it came, whether it still is or not.
pub fn last_after_hole(first: i64, end: i64) -> Option<i64> {
    let seq = end / HOLE * HOLE;
    (seq > 0 && seq >= first).then_some(seq)
}

/// What a resident server says of a room that somebody here has just joined. Each event has been verified.
#[derive(Clone, Debug)]
pub struct Entry {
    pub room_id: OwnedRoomId,
    pub version: RoomVersionId,
    /// The join.
    pub event: Pdu,
    /// The state before it.
    pub before: Given,
    /// That server hasn't been told of the last that was said here, so its history and this server's fork: the state is a side.
    pub forks: bool,
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

    /// Takes an event that follows others which can't be had, with the state before it as another server gives it.
    pub async fn bridge(&self, room: &Arc<Room>, event: Pdu, before: Given) -> Result<Outcome, Error> {
        writer::bridge(&self.core, room, event, before).await
    }

    /// Takes an event that keeps somebody of this server out, which isn't shown the state before it for that. An error is also that
    /// the room as it is here doesn't allow it: what isn't known here may, so nothing of it is kept.
    pub async fn keep_out(&self, room: &Arc<Room>, event: Pdu) -> Result<Outcome, Error> {
        writer::keep_out(&self.core, room, event).await
    }

    /// Judges an event along with others that it cites, and that these cite, and so on.
    pub async fn receive_citing(
        &self,
        room: &Arc<Room>,
        event: Pdu,
        cited: Vec<Pdu>,
    ) -> Result<Outcome, Error> {
        writer::receive_citing(&self.core, room, event, cited).await
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
    /// Nobody here has ever been in the room, so its version isn't known and may be the one that somebody says.
    fn check_unknown(&self, said: &RoomVersionId) -> Result<(), Error> {
        if self.snapshot.create().is_none() {
            return Ok(());
        }
        Err(Error::BadState(format!("the room is of version {}, not {said}", self.snapshot.version)))
    }

    /// Puts a join, and the state before it, into the log. If somebody here is in the room already, what it is isn't for
    /// others to say: the state is a side of it, as that of any event that they send. So it is if they don't know yet that all
    /// have left: what is said here from now on has to follow that, or they would hear of it as something newer.
    pub(super) async fn enter_room(&mut self, entry: &Entry) -> Result<(), Error> {
        if self.snapshot.hearsay.take().is_some() {
            let number = self.snapshot.number;
            self.batch().push(room_table::set_hearsay(number, None));
        }
        if entry.forks || !self.snapshot.local.is_empty() {
            if entry.version != self.snapshot.version {
                self.check_unknown(&entry.version)?;
            }
            return match self.bridge(&entry.event, &entry.before).await? {
                Outcome::Accepted | Outcome::Known => Ok(()),
                Outcome::SoftFailed => {
                    Err(Error::forbidden("the room doesn't let the user in by what this server knows of it"))
                }
                Outcome::Rejected(why) | Outcome::Refused(why) => Err(Error::Forbidden(why)),
                Outcome::Missing(_) => {
                    Err(Error::BadState("not all that allows the join is there".to_owned()))
                }
            };
        }
        let mut batch = Batch::new();
        let step = batch.step();
        if entry.version != self.snapshot.version {
            self.check_unknown(&entry.version)?;
            // Till now it was what somebody said who invited, and that may have been a lie.
            self.snapshot.rules = Arc::new(hearth_federation::rules(&entry.version)?);
            self.snapshot.version = entry.version.clone();
            batch.push(room_table::set_version(self.snapshot.number, entry.version.as_str()));
        }
        let known = self.judged_outliers(&mut batch, step, &entry.before, &entry.event).await?;
        let state = given_state(&entry.before, &known)?;
        self.note_lack(&mut batch, &entry.before, &known);
        self.end_lack(&mut batch, &entry.before, &known).await?;
        self.check_entry(&entry.event, &state, &known)?;

        let last = self.snapshot.last_seq;
        let gone = self.not_in_log(&entry.event.prev_events).await?;
        let followed = self.known(entry.event.prev_events.iter().collect()).await?;
        let gone = self.with_missing_before(gone, followed.into_values().collect()).await?;
        let (floor, before) = match last {
            0 => (OUTLIER, 0),
            last => (last, last + HOLE),
        };
        let seq = before + 1;
        if !gone.is_empty() {
            let hole = HoleRow { seq, floor, ends: json!(gone).to_string() };
            batch.push(insert_hole(self.snapshot.number, &hole));
            self.snapshot.add_hole(floor, seq);
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
        self.wishes.entered = self.become_state(&mut batch, before, &changes, state).await?;
        // Nothing was here before that a first entry wouldn't have written.
        if !gone.is_empty() && last > 0 {
            self.repeat_state(&mut batch, before);
        }
        self.snapshot.last_seq = before;
        self.snapshot.extremities = Arc::from([]);
        let event = Arc::new(Event::new(seq, entry.event.clone(), None));
        self.accept(&mut batch, step, &event, true).await?;
        self.states.insert(seq, self.snapshot.state.clone());
        self.absorb(batch, step);
        Ok(())
    }

    /// Judges an event that lacks nothing but what it cites, which gets no place in the log.
    pub(super) async fn receive_citing(&mut self, pdu: &Pdu, cited: &Given) -> Result<Outcome, Error> {
        let mut batch = Batch::new();
        let step = batch.step();
        self.judged_outliers(&mut batch, step, cited, pdu).await?;
        self.batch().append(batch);
        self.receive(pdu, &Outward::Nobody).await
    }

    /// Puts an event above a hole. Its place is a multiple of [`HOLE`], so that it is known for what it is for ever.
    pub(super) async fn bridge(&mut self, pdu: &Pdu, before: &Given) -> Result<Outcome, Error> {
        self.wishes.outward = Outward::Nobody;
        if pdu.room_id != self.snapshot.room_id {
            return Ok(Outcome::Refused("the event is of another room".to_owned()));
        }
        match self.knows(&pdu.event_id).await? {
            Some(event) if event.is_outlier() => {
                self.outliers.insert(pdu.event_id.clone(), event.seq);
            }
            Some(_) => return Ok(Outcome::Known),
            None => {}
        }
        let mark = self.mark();
        let mut batch = Batch::new();
        let step = batch.step();
        let known = self.judged_outliers(&mut batch, step, before, pdu).await?;
        let state = given_state(before, &known)?;
        self.note_lack(&mut batch, before, &known);
        let mut references = self.references(pdu).await?;
        // What it cites and follows may be known without a place: that is enough to judge by.
        let judged = |id: &OwnedEventId| references.auth.iter().any(|event| event.id() == id);
        let unjudged = references.missing.iter().filter(|id| pdu.auth_events.contains(id) && !judged(id));
        let unjudged: Vec<OwnedEventId> = unjudged.cloned().collect();
        if !unjudged.is_empty() {
            self.batch().append(batch);
            return Ok(Outcome::Missing(unjudged));
        }
        // What was known of the state here stays a side of it.
        let mut states = vec![state];
        for previous in references.previous.iter().filter(|event| !event.is_outlier()) {
            states.push(self.state_after(previous).await?);
        }
        let state = self.resolved(states).await?;
        // What others told of it now is part of what the room is now.
        let now = self.resolved(vec![self.snapshot.state.clone(), state.clone()]).await?;
        let floor = self.snapshot.last_seq;
        let gone = std::mem::take(&mut references.missing);
        let gone = self.with_missing_before(gone, references.previous.clone()).await?;
        if !gone.is_empty() {
            let seq = (floor / HOLE + 2) * HOLE;
            self.snapshot.last_seq = seq - 1;
            let hole = HoleRow { seq, floor, ends: json!(gone).to_string() };
            batch.push(insert_hole(self.snapshot.number, &hole));
            self.snapshot.add_hole(floor, seq);
        }
        let outcome = self.take(batch, step, pdu, &references, state, Some(now)).await?;
        if matches!(outcome, Outcome::Missing(_)) {
            let why = "the state that is given for it lacks what couldn't be had";
            self.back_to(mark);
            // Not for ever.
            let mut batch = Batch::new();
            self.note_lack(&mut batch, before, &known);
            self.batch().append(batch);
            return Ok(Outcome::Refused(why.to_owned()));
        }
        if outcome == Outcome::Accepted {
            let mut batch = Batch::new();
            self.end_lack(&mut batch, before, &known).await?;
            self.batch().append(batch);
        }
        // Whether the event is shown or not: it has a place above a hole.
        let placed = matches!(outcome, Outcome::Accepted | Outcome::SoftFailed | Outcome::Rejected(_));
        if placed && !gone.is_empty() {
            let mut batch = Batch::new();
            self.repeat_state(&mut batch, self.snapshot.last_seq);
            self.batch().append(batch);
        }
        Ok(outcome)
    }

    /// Puts an event above a hole that the state as it is here allows.
    pub(super) async fn keep_out(&mut self, pdu: &Pdu) -> Result<Outcome, Error> {
        let state = self.snapshot.state.iter().map(|event| event.pdu.event_id.clone()).collect();
        match self.bridge(pdu, &Given { state, events: Vec::new() }).await? {
            kept @ (Outcome::Accepted | Outcome::Known) => Ok(kept),
            _ => Err(Error::forbidden("the room as it is known here doesn't allow it")),
        }
    }

    /// Adds to what is missing that which is so before memberships that were heard of from outside ([`Self::hear`]), if some
    /// of the followed events are that. They are in the log without what they follow, and without a hole that says so.
    async fn with_missing_before(
        &self,
        mut missing: Vec<OwnedEventId>,
        followed: Vec<Arc<Event>>,
    ) -> Result<Vec<OwnedEventId>, Error> {
        let (mut seen, mut wave) = (HashSet::new(), followed);
        while let Some(event) = wave.pop() {
            if !self.may_be_heard(&event) || seen.len() >= MOST_HEARD || !seen.insert(event.seq) {
                continue;
            }
            let before = self.known(event.pdu.prev_events.iter().collect()).await?;
            for id in &event.pdu.prev_events {
                match before.get(id).filter(|event| !event.is_outlier()) {
                    Some(event) => wave.push(Arc::clone(event)),
                    None => missing.push(id.clone()),
                }
            }
        }
        missing.sort_unstable();
        missing.dedup();
        Ok(missing)
    }

    fn may_be_heard(&self, event: &Event) -> bool {
        let user_id = event.pdu.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok());
        let is_own = user_id.is_some_and(|user_id| user_id.server_name() == self.core.server_name);
        !event.is_outlier()
            && is_own
            && event.pdu.membership().is_some_and(|membership| membership != MembershipState::Join)
            && !self.snapshot.holes.iter().any(|(_, seq)| *seq == event.seq)
    }

    /// Writes the whole current state at a place above a hole, so that nothing that is put into that later shines through.
    fn repeat_state(&mut self, batch: &mut Batch, seq: i64) {
        let room = self.snapshot.number;
        for event in self.snapshot.state.iter() {
            if let Some((kind, key)) = event.pdu.state() {
                batch.push(room_table::set_state(room, &kind.to_string(), key, seq, event.seq));
            }
        }
        self.snapshot.last_silent = seq;
    }

    /// Puts a membership that can't be judged into the log of a room that nobody here is in.
    pub(super) async fn hear(&mut self, hearsay: &Hearsay) -> Result<(), Error> {
        if self.snapshot.is_resident() {
            return Err(Error::BadState("this server is in the room, and judges for itself".to_owned()));
        }
        if hearsay.version != self.snapshot.version {
            self.check_unknown(&hearsay.version)?;
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

    /// The join, by what it cites and by the state before it.
    fn check_entry(&self, pdu: &Pdu, state: &State, known: &Known) -> Result<(), Error> {
        let version = &self.snapshot.version;
        if self.verdict_by_citation(pdu, known) != Some(Verdict::Accepted) {
            return Err(Error::forbidden("the room doesn't let the user in by what its server says"));
        }
        let of = |kind: &StateEventType, key: &str| state.get(kind, key).map(|event| event.pdu.clone());
        hearth_federation::authorize_by_state(version, pdu, of)?;
        Ok(())
    }
}
