//! Events that were made elsewhere: judged, and put into the room's log.
//!
//! [`Rooms::receive`] is the one way in, whatever brought the event; what it takes has passed
//! [`hearth_federation::Received::verify`] (the first three checks on receipt). Here are the others: by the events that it
//! cites, by the state before it, by the current state. An event is judged only when all that it names is here, so its
//! verdict never changes; until then the caller is told what is missing, and nothing of it is kept.
//!
//! - *Accepted*: it is an end of the room's history, may change the state, and is shown.
//! - *Soft-failed*: kept, and part of what others build on it; not shown, not an end of history.
//! - *Gone*: accepted, but by its own account older than the room keeps its history; kept without its content, not shown.
//! - *Rejected*: kept so that it stays rejected; it changes nothing, and whoever cites it is rejected.
//!
//! Every event, whatever its verdict, takes the next `seq`; its `depth` and its time decide nothing about its place.
//!
//! Specification: [Checks performed on receipt of a
//! PDU](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu), steps 4 to 6.

use std::{collections::HashSet, sync::Arc};

use hearth_federation::Pdu;
use ruma::{
    EventId, OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde_json::value::RawValue;

use super::{
    Error, Event, NewEvent, Room, Rooms,
    event::Verdict,
    fan_out::{Outward, Touched, fan_out},
    forks::{self, References},
    prefetch::Found,
    relations::Related,
    snapshot::{LocalMember, State},
    work::Work,
    writer,
};
use crate::store::{Batch, Parts, fork, room as room_table, unread::clear_unread};

/// Ends of a history that are left as they are. More are joined by an event of this server, so that nobody can make every
/// further event name, and every state be resolved from, hundreds of them.
const MOST_ENDS: usize = 10;

/// What became of a received event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    SoftFailed,
    /// With the rule that it broke, for people.
    Rejected(String),
    /// It is here already; nothing was done.
    Known,
    /// These events that it names aren't here; none, if it is the state that may lack something. Nothing was kept.
    Missing(Vec<OwnedEventId>),
    /// It can't be judged. Nothing was kept.
    Refused(String),
}

impl Rooms {
    /// Judges verified events of a room in the order given and puts them into its log, each with its own verdict. What is
    /// returned is durable. One that is bad stops none of the others.
    pub async fn receive(&self, room: &Arc<Room>, pdus: Vec<Pdu>) -> Result<Vec<Outcome>, Error> {
        writer::receive(&self.core, room, pdus, Outward::Nobody).await
    }
}

impl Work<'_> {
    /// Judges one event and appends it. Errors are of this server, not of the event.
    pub(super) async fn receive(&mut self, pdu: &Pdu, outward: &Outward) -> Result<Outcome, Error> {
        self.wishes.outward = outward.clone();
        let mark = self.mark();
        let judged = self.judged(pdu).await;
        let outcome = match self.kept_if_done(mark, judged)? {
            Ok(outcome) => outcome,
            // What fails for this event alone, such as an auth chain that is too long, stops nothing else (I7).
            Err(cause) => return Ok(Outcome::Refused(cause.to_string())),
        };
        if outcome == Outcome::Accepted
            && let Err(cause) = self.join_ends().await
        {
            tracing::info!(room_id = %self.snapshot.room_id, %cause, "the ends of a history stay apart");
        }
        Ok(outcome)
    }

    async fn judged(&mut self, pdu: &Pdu) -> Result<Outcome, Error> {
        if pdu.room_id != self.snapshot.room_id {
            return Ok(Outcome::Refused("the event is of another room".to_owned()));
        }
        let outlier = match self.knows(&pdu.event_id).await? {
            Some(event) if event.is_outlier() => Some(event.seq),
            // PD-10
            Some(_) => return Ok(Outcome::Known),
            None => None,
        };
        if pdu.prev_events.contains(&pdu.event_id) || pdu.auth_events.contains(&pdu.event_id) {
            return Ok(Outcome::Refused("the event names itself".to_owned()));
        }
        let references = self.references(pdu).await?;
        match outlier {
            // What it follows is older than the log, or in a hole of it: so is it, and it has been judged.
            Some(_) if !references.missing.is_empty() || pdu.prev_events.is_empty() => {
                return Ok(Outcome::Known);
            }
            // It was told of as part of some state, and gets its place in the log now.
            Some(seq) => {
                self.outliers.insert(pdu.event_id.clone(), seq);
            }
            None if !references.missing.is_empty() => return Ok(Outcome::Missing(references.missing)),
            None => {}
        }
        let follows_all = self.follows_all(pdu);
        let before = if follows_all {
            self.snapshot.state.clone()
        } else {
            self.state_before(&references.previous).await?
        };
        // Whoever was asked in from elsewhere was told of that alone: what the room was then isn't known.
        let follows_here = !references.previous.is_empty() && !references.elsewhere;
        if follows_here && before.get(&StateEventType::RoomCreate, "").is_none() {
            return Ok(Outcome::Missing(pdu.prev_events.clone()));
        }
        let mut batch = Batch::new();
        let step = batch.step();
        let now = (!follows_all).then(|| self.snapshot.state.clone());
        self.take(batch, step, pdu, &references, before, now).await
    }

    /// Steps 4 to 6, and what follows from them. `now` is the current state, if it isn't that before the event, which then
    /// follows all others.
    pub(super) async fn take(
        &mut self,
        mut batch: Batch,
        step: u32,
        pdu: &Pdu,
        references: &References,
        before: State,
        now: Option<State>,
    ) -> Result<Outcome, Error> {
        let follows_all = now.is_none();
        let (verdict, why) = match self.check_citations(pdu, references) {
            Err(why) => (Verdict::Rejected, why),
            Ok(()) => match self.check_by_state(pdu, &before, now.as_ref()) {
                Ok(()) => (Verdict::Accepted, String::new()),
                Err(_) if self.is_in_doubt() => return Ok(Outcome::Missing(Vec::new())),
                Err(refused) => refused,
            },
        };
        let verdict = match verdict {
            Verdict::Accepted if !self.snapshot.recommends(pdu) => Verdict::SoftFailed,
            Verdict::Accepted if pdu.redacts.is_some() => self.redaction_verdict(pdu, &before).await?,
            Verdict::Accepted if self.core.comes_too_late(&self.snapshot, pdu) => Verdict::Gone,
            verdict => verdict,
        };
        let seq = self.snapshot.last_seq + 1;
        let pdu = if verdict == Verdict::Gone { pdu.redacted(&self.snapshot.version)? } else { pdu.clone() };
        let pdu = pdu.with_rejected(verdict == Verdict::Rejected);
        let event = Arc::new(Event { verdict, ..Event::new(seq, pdu, self.sent_by.take()) });

        if self.outliers.contains_key(event.id()) {
            self.replace_outlier(&event);
        }
        if !follows_all {
            self.keep_state_before(&mut batch, seq, &before);
        }
        let mut after = before;
        if event.pdu.is_state() && verdict != Verdict::Rejected {
            after.insert(Arc::clone(&event));
        }
        self.states.insert(seq, after);
        let counts = matches!(verdict, Verdict::Accepted | Verdict::Held | Verdict::Gone);
        let held = self.held_redactions(&event).await?;
        if counts {
            self.wishes.redacted = !held.is_empty();
            let accepted = self.accept(&mut batch, step, &event, follows_all).await;
            self.wishes.redacted = false;
            accepted?;
        } else {
            self.snapshot.last_seq = seq;
            self.store_event(&mut batch, step, &event);
            self.events.push(Arc::clone(&event));
        }
        self.absorb(batch, step);
        let mut batch = Batch::new();
        self.apply_held(&mut batch, &event, held).await?;
        self.batch.append(batch);
        Ok(match verdict {
            Verdict::Accepted | Verdict::Held | Verdict::Gone => Outcome::Accepted,
            Verdict::SoftFailed => Outcome::SoftFailed,
            Verdict::Rejected => Outcome::Rejected(why),
        })
    }

    pub(super) async fn knows(&self, event_id: &EventId) -> Result<Option<Arc<Event>>, Error> {
        if !self.events.iter().any(|event| event.id() == event_id) {
            match self.fetched.find(event_id) {
                Found::Here(event) => return Ok(Some(event)),
                Found::Elsewhere | Found::Nowhere => return Ok(None),
                Found::Unasked => {}
            }
        }
        match self.event(event_id).await {
            Ok(event) => Ok(Some(event)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    /// Whether it names exactly the events that have no follower: then the state before it is the current one.
    fn follows_all(&self, pdu: &Pdu) -> bool {
        let named: HashSet<&EventId> = pdu.prev_events.iter().map(|id| &**id).collect();
        let ends: HashSet<&EventId> = self.snapshot.extremities.iter().map(|end| &*end.event_id).collect();
        named == ends
    }

    /// Step 4.
    fn check_citations(&self, pdu: &Pdu, references: &References) -> Result<(), String> {
        let version = &self.snapshot.version;
        // A room has one beginning, whatever the rules of its version say of a second.
        if pdu.kind == TimelineEventType::RoomCreate || pdu.prev_events.is_empty() {
            return Err("the room has a beginning already".to_owned());
        }
        if references.elsewhere {
            return Err("it names events of another room".to_owned());
        }
        let create = self.snapshot.create();
        let auth = references
            .auth
            .iter()
            .chain(create.filter(|_| self.snapshot.rules.authorization.room_create_event_id_as_room_id));
        let auth: Vec<&Pdu> = auth.map(|event| &event.pdu).collect();
        let by_id = |id: &EventId| auth.iter().copied().find(|pdu| pdu.event_id == *id);
        hearth_federation::authorize_received(version, pdu, by_id).map_err(|why| why.to_string())
    }

    /// Steps 5 and 6.
    fn check_by_state(
        &self,
        pdu: &Pdu,
        before: &State,
        now: Option<&State>,
    ) -> Result<(), (Verdict, String)> {
        let version = &self.snapshot.version;
        let then = |kind: &StateEventType, key: &str| before.get(kind, key).map(|event| &event.pdu);
        let then = hearth_federation::authorize_by_state(version, pdu, then);
        then.map_err(|why| (Verdict::Rejected, why.to_string()))?;
        if let Some(current) = now {
            let now = |kind: &StateEventType, key: &str| current.get(kind, key).map(|event| &event.pdu);
            let now = hearth_federation::authorize_by_state(version, pdu, now);
            now.map_err(|why| (Verdict::SoftFailed, why.to_string()))?;
        }
        Ok(())
    }

    /// Puts an accepted event into the log: state, members, queues.
    pub(super) async fn accept(
        &mut self,
        batch: &mut Batch,
        step: u32,
        event: &Arc<Event>,
        follows_all: bool,
    ) -> Result<(), Error> {
        let related = self.core.related(&self.snapshot, &self.events, event).await?;
        let before = self.snapshot.clone();
        self.snapshot.last_seq = event.seq;
        self.snapshot.add_end(event);
        self.store_event(batch, step, event);
        self.events.push(Arc::clone(event));

        let state = if follows_all {
            let mut state = before.state.clone();
            if event.pdu.is_state() {
                state.insert(Arc::clone(event));
            }
            state
        } else {
            self.current_state().await?
        };
        // Mostly nothing changes, and to compare all of the state would cost much more than the event.
        let changes = match event.pdu.state() {
            None if follows_all => Vec::new(),
            _ => forks::changes(&before.state, &state),
        };
        let mut members = if changes.is_empty() {
            Vec::new()
        } else {
            self.become_state(batch, event.seq, &changes, state).await?
        };
        for member in std::mem::take(&mut self.wishes.entered) {
            if !members.contains(&member) {
                members.push(member);
            }
        }
        let touched = Touched { members: &members, state: !changes.is_empty() };
        if let Some(related) = &related
            && event.verdict == Verdict::Accepted
        {
            related.store(batch, &mut self.snapshot, event);
        }
        self.wishes.servers = self.servers_to_tell(&before, event).await?;
        if event.is_visible() || !changes.is_empty() || !self.wishes.servers.is_empty() {
            let thread = related.as_ref().map_or("", Related::thread).to_owned();
            self.wishes.learn_thread(&self.core.accounts, &before.local, before.number, &thread).await?;
            fan_out(batch, step, &before, &self.snapshot, event, touched, thread, &self.wishes);
        }
        if let (Verdict::Accepted, Some(target)) = (event.verdict, &event.pdu.redacts) {
            let target = self.event(target).await?;
            self.redact(batch, &target, event.seq)?;
        }
        for member in members.iter().filter(|member| !self.snapshot.local.contains(member)) {
            batch.settle(Parts::of(member.recipient));
            batch.extend(clear_unread(member.recipient, self.snapshot.number, event.seq));
        }
        Ok(())
    }

    /// The state after all ends of the history.
    async fn current_state(&self) -> Result<State, Error> {
        let mut ends = Vec::new();
        for end in self.snapshot.extremities.iter() {
            ends.push(self.event(&end.event_id).await?);
        }
        self.state_before(&ends).await
    }

    /// Makes a state the current one. Returns the members with an account here whose membership it changed.
    pub(super) async fn become_state(
        &mut self,
        batch: &mut Batch,
        seq: i64,
        changes: &[forks::Change],
        state: State,
    ) -> Result<Vec<LocalMember>, Error> {
        let room = self.snapshot.number;
        let (mut members, mut elsewhere) = (Vec::new(), Vec::new());
        for change in changes {
            batch.state(change.row(room, seq));
            if change.event.as_ref().is_none_or(|event| event.seq != seq) {
                self.snapshot.last_silent = seq;
            }
            if change.kind != StateEventType::RoomMember {
                continue;
            }
            batch.push(match &change.event {
                Some(event) => {
                    let membership = event.membership();
                    room_table::set_membership(&change.state_key, room, membership.as_str(), event.seq)
                }
                None => room_table::remove_membership(&change.state_key, room),
            });
            let membership = change.event.as_ref().map_or(MembershipState::Leave, |event| event.membership());
            self.follow_membership(batch, &change.state_key, &membership);
            if let Ok(user_id) = <&UserId>::try_from(change.state_key.as_str()) {
                members.extend(self.local(user_id).await?);
                elsewhere.push(user_id.to_owned());
            }
        }
        let opens = [StateEventType::RoomJoinRules, StateEventType::RoomHistoryVisibility];
        let joined: Vec<bool> =
            members.iter().map(|member| state.membership(&member.user_id) == MembershipState::Join).collect();
        self.snapshot.enter(state);
        for user_id in elsewhere {
            self.note_remote(&user_id).await?;
        }
        for (member, joined) in members.iter().zip(joined) {
            self.snapshot.set_local(member, joined);
        }
        if changes.iter().any(|change| opens.contains(&change.kind)) {
            batch.push(room_table::set_open(room, self.snapshot.is_open()));
        }
        Ok(members)
    }

    /// RD-01, RD-02: whether a redaction is applied now. One whose target isn't here waits for it, unseen; so does, for
    /// ever, one that nobody allows.
    pub(super) async fn redaction_verdict(&self, pdu: &Pdu, before: &State) -> Result<Verdict, Error> {
        let Some(target) = &pdu.redacts else { return Ok(Verdict::Accepted) };
        match self.event(target).await {
            Ok(target) if self.may_redact(pdu, &target, before) => Ok(Verdict::Accepted),
            Ok(_) | Err(Error::NotFound(_)) => Ok(Verdict::Held),
            Err(cause) => Err(cause),
        }
    }

    fn may_redact(&self, redaction: &Pdu, target: &Event, before: &State) -> bool {
        // RV-09: in versions 1 and 2 the rules of authorisation have said so.
        if self.snapshot.rules.authorization.special_case_room_redaction {
            return true;
        }
        let mut then = self.snapshot.clone();
        then.enter(before.clone());
        redaction.sender.server_name() == target.pdu.sender.server_name()
            || then.power_levels().user_can_redact_event_of_other(&redaction.sender)
    }

    /// Redactions that waited for this event and may redact it.
    pub(super) async fn held_redactions(&self, event: &Event) -> Result<Vec<Arc<Event>>, Error> {
        let room = self.snapshot.number;
        let mut waiting = if !self.snapshot.early_redactions || self.fetched.is_unawaited(event.id()) {
            Vec::new()
        } else {
            self.core.store.held_redactions(room, event.id().as_str()).await?
        };
        // Those of this very batch.
        let pending = self.events.iter().filter(|other| {
            other.verdict == Verdict::Held && other.pdu.redacts.as_ref() == Some(&event.pdu.event_id)
        });
        waiting.extend(pending.map(|other| other.seq));
        waiting.sort_unstable();
        waiting.dedup();
        let mut redactions = Vec::new();
        for seq in waiting {
            let pending = self.events.iter().rev().find(|other| other.seq == seq).cloned();
            let found = match pending {
                Some(redaction) => vec![redaction],
                None => self.core.events(room, &self.snapshot.version, &[seq]).await?,
            };
            for redaction in found {
                let then = self.state_after(&redaction).await?;
                if self.may_redact(&redaction.pdu, event, &then) {
                    redactions.push(redaction);
                }
            }
        }
        Ok(redactions)
    }

    /// Applies the redactions that waited for this event, or lets that event wait itself.
    ///
    /// From now on they are shown where they are in the log (RD-02). No queue has them: their places there are past, and
    /// whoever gets the event gets it as they left it, with the redaction beside it.
    pub(super) async fn apply_held(
        &mut self,
        batch: &mut Batch,
        event: &Arc<Event>,
        redactions: Vec<Arc<Event>>,
    ) -> Result<(), Error> {
        let room = self.snapshot.number;
        if let (Verdict::Held, Some(target)) = (event.verdict, &event.pdu.redacts)
            && self.knows(target).await?.is_none()
        {
            batch.push(fork::hold_redaction(room, target.as_str(), event.seq));
            self.snapshot.early_redactions = true;
        }
        for redaction in redactions {
            batch.extend(fork::release_redaction(room, event.id().as_str(), redaction.seq));
            let shown = Event {
                verdict: Verdict::Accepted,
                ..Event::new(redaction.seq, redaction.pdu.clone(), None)
            };
            self.events.push(Arc::new(shown));
            let target = self.event(event.id()).await?;
            self.redact(batch, &target, redaction.seq)?;
        }
        Ok(())
    }

    /// Joins the ends of the history by an event of somebody here, if there are too many.
    async fn join_ends(&mut self) -> Result<(), Error> {
        if self.snapshot.extremities.len() <= MOST_ENDS {
            return Ok(());
        }
        let levels = self.snapshot.power_levels();
        let kind = TimelineEventType::from(super::event::DUMMY);
        let able =
            self.snapshot.local.iter().find(|member| {
                levels.for_user(&member.user_id) >= levels.for_message(kind.to_string().into())
            });
        let Some(sender) = able.map(|member| member.user_id.clone()) else { return Ok(()) };
        let content =
            RawValue::from_string("{}".to_owned()).map_err(|cause| Error::Internal(cause.to_string()))?;
        let dummy = NewEvent { sender, kind, state_key: None, content, redacts: None };
        self.append_all(&[dummy], None).await.map(drop)
    }
}
