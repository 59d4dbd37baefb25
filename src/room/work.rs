//! The making of events: on a copy of the room, none of them durable yet.
//!
//! A [`Work`] is what the room's writer does with one batch of requests: it checks what this server and the room's rules
//! say of each event, builds, signs and stores it, and fans it out. Nothing of it is seen by anybody before
//! [`Work::commit`].

use std::{collections::HashMap, sync::Arc};

use hearth_federation::{Draft, MAX_PREV_EVENTS, Pdu, Position};
use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Appended, Core, Error, Event, NOT_A_MEMBER, NewEvent, Outcome, Room, Txn, content,
    event::{SentBy, Verdict},
    fan_out::{Outward, Touched, Wishes, fan_out},
    guests::{self, Access},
    prefetch::Fetched,
    relations::{self, Related},
    search,
    snapshot::{LocalMember, Snapshot, State},
};
use crate::{
    account::InviteVerdict,
    store::{
        self, Batch, Delivery, EventRow, Extent, Item, Kind, Parts, StateRow, TxnRow, account::account_came,
        event as event_table, flags, followed, room as room_table, search as search_table, unread,
    },
};

/// A copy of the room with events that aren't durable yet.
pub(super) struct Work<'a> {
    pub(super) core: &'a Arc<Core>,
    pub(super) snapshot: Snapshot,
    pub(super) wishes: Wishes,
    pub(super) batch: Batch,
    /// The step of the last event.
    last_step: u32,
    /// New events and the redacted forms of old ones.
    pub(super) events: Vec<Arc<Event>>,
    /// The `seq` that events had as outliers which get their place in the log in this batch.
    pub(super) outliers: HashMap<OwnedEventId, i64>,
    /// The states after the events of this batch, by `seq`.
    pub(super) states: HashMap<i64, State>,
    /// Whose device has sent the event that is received next, if it was made here.
    pub(super) sent_by: Option<SentBy>,
    /// What was read for the events that are received.
    pub(super) fetched: Fetched,
    /// Users of this server's name without an account, each with the event that is about them.
    strangers: Vec<(OwnedUserId, i64)>,
    /// The ends of the room as they are stored, see [`stored_ends`].
    ends: Vec<i64>,
    /// Whether guests may be here, before all this.
    access: Access,
    /// When the events happen, if that isn't now.
    time: Option<MilliSecondsSinceUnixEpoch>,
    /// When they are put into the log: now, whatever they say themselves, and never before those that were there.
    pub(super) arrived: i64,
}

/// A moment of a work.
pub(super) struct Mark {
    snapshot: Snapshot,
    batch: Extent,
    events: usize,
    strangers: usize,
    last_step: u32,
}

impl<'a> Work<'a> {
    pub(super) async fn start(core: &'a Arc<Core>, snapshot: Snapshot) -> Result<Self, Error> {
        let mut wishes = Wishes::default();
        for member in snapshot.local.iter() {
            wishes.learn(&core.accounts, member.recipient).await?;
        }
        let arrived = snapshot.arrived.max(core.environment.clock.now_ms());
        Ok(Self {
            core,
            access: Access::of(&snapshot),
            ends: stored_ends(&snapshot),
            snapshot,
            wishes,
            batch: Batch::new(),
            last_step: 0,
            events: Vec::new(),
            outliers: HashMap::new(),
            states: HashMap::new(),
            sent_by: None,
            fetched: Fetched::default(),
            strangers: Vec::new(),
            time: None,
            arrived,
        })
    }

    /// Events get this time and not that of the clock.
    pub(super) fn at(mut self, time: MilliSecondsSinceUnixEpoch) -> Self {
        self.time = Some(time);
        self
    }

    /// More for the same batch, such as the row of a new room.
    pub(super) fn batch(&mut self) -> &mut Batch {
        &mut self.batch
    }

    /// The room as it will be.
    pub(super) fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Appends events, or none of them.
    pub(super) async fn append_all(
        &mut self,
        events: &[NewEvent],
        txn: Option<&Txn>,
    ) -> Result<Vec<Appended>, Error> {
        let mark = self.mark();
        // Until the end it counts within this batch; steps count from 1.
        let last_step = std::mem::take(&mut self.last_step);
        let mut batch = Batch::new();
        let mut appended = Vec::with_capacity(events.len());
        for event in events {
            match self.append(&mut batch, event.clone(), txn).await {
                Ok(event_id) => appended.push(Appended { event_id }),
                Err(cause) => {
                    self.back_to(mark);
                    return Err(cause);
                }
            }
        }
        if let (Some(txn), Some(last)) = (txn, appended.last()) {
            batch.txn(self.txn_row(txn, &last.event_id));
        }
        let shift = self.batch.append(batch);
        self.last_step = if self.last_step == 0 { last_step } else { shift + self.last_step };
        Ok(appended)
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            snapshot: self.snapshot.clone(),
            batch: self.batch.extent(),
            events: self.events.len(),
            strangers: self.strangers.len(),
            last_step: self.last_step,
        }
    }

    /// Nothing that was done since then is done.
    pub(super) fn back_to(&mut self, mark: Mark) {
        self.states.retain(|seq, _| *seq <= mark.snapshot.last_seq);
        self.snapshot = mark.snapshot;
        self.batch.cut(mark.batch);
        self.events.truncate(mark.events);
        self.strangers.truncate(mark.strangers);
        self.last_step = mark.last_step;
    }

    /// Goes back if what was tried since failed, which is for those who tried to know; an error of the database is
    /// everybody's.
    pub(super) fn kept_if_done<T>(
        &mut self,
        mark: Mark,
        done: Result<T, Error>,
    ) -> Result<Result<T, Error>, Error> {
        if done.is_err() {
            self.back_to(mark);
        }
        match done {
            Err(cause @ Error::Store(_)) => Err(cause),
            done => Ok(done),
        }
    }

    /// Takes in what was done for one event, which happened at a step of `batch`.
    pub(super) fn absorb(&mut self, batch: Batch, step: u32) {
        self.last_step = self.batch.append(batch) + step;
    }

    fn txn_row(&self, txn: &Txn, event_id: &EventId) -> TxnRow {
        TxnRow {
            device: txn.device,
            path: txn.path,
            txn_id: txn.txn_id.clone(),
            event: event_id.to_string(),
            created_ts: self.core.environment.clock.now_ms(),
        }
    }

    /// Appends an event that was made here before, for others to sign it.
    pub(super) async fn append_made(&mut self, pdu: &Pdu, txn: Option<&Txn>) -> Result<Outcome, Error> {
        self.sent_by = txn.map(|txn| SentBy { device: txn.device, txn_id: txn.txn_id.clone() });
        let outcome = self.receive(pdu, &Outward::Everybody).await;
        self.sent_by = None;
        let outcome = outcome?;
        if let (Outcome::Accepted, Some(txn)) = (&outcome, txn) {
            let row = self.txn_row(txn, &pdu.event_id);
            self.batch.txn(row);
        }
        Ok(outcome)
    }

    async fn append(
        &mut self,
        batch: &mut Batch,
        new: NewEvent,
        txn: Option<&Txn>,
    ) -> Result<OwnedEventId, Error> {
        // Before anything else is said of the room: those outside of it learn nothing (I10).
        let of_members = !matches!(new.kind, TimelineEventType::RoomMember | TimelineEventType::RoomCreate);
        if of_members && !self.snapshot.is_joined(&new.sender) {
            return Err(Error::forbidden(NOT_A_MEMBER));
        }
        if let Some(same) = self.already_so(&new) {
            return Ok(same);
        }
        self.check_policy(&new)?;
        let redacted = match &new.redacts {
            Some(target) => self.redaction_target(&new.sender, target).await?,
            None => None,
        };
        let target = self.target(&new).await?;
        self.wishes.uninviting = None;
        self.wishes.outward = Outward::Everybody;
        if let Some(target) = &target
            && !self.snapshot.local.contains(target)
        {
            self.wishes.learn(&self.core.accounts, target.recipient).await?;
            let permissions = self.core.accounts.invite_permissions(target.recipient).await?;
            let unwanted = permissions.verdict(&new.sender) != InviteVerdict::Allowed;
            self.wishes.uninviting = unwanted.then_some(target.recipient);
        }
        let mut event = self.build(new, txn).await?;
        if event.pdu.redacts.is_some() && redacted.is_none() {
            event.verdict = Verdict::Held;
        }
        let event = Arc::new(event);
        if let Some(target) = &target {
            self.check_guest(target, &event).await?;
        }
        let related = self.core.related(&self.snapshot, &self.events, &event).await?;
        if let Some(related) = &related {
            self.core.check_relation(&self.snapshot, &self.events, &event, related).await?;
        }

        if target.is_none()
            && event.pdu.membership().is_some()
            && let Some(Ok(user_id)) = event.pdu.state_key.as_deref().map(UserId::parse)
            && user_id.server_name() == self.core.server_name
        {
            self.strangers.push((user_id, event.seq));
        }
        let before = self.snapshot.clone();
        if before.extremities.len() > MAX_PREV_EVENTS {
            // It leaves some ends aside, so it has to say what it was judged by.
            self.keep_state_before(batch, event.seq, &before.state);
        }
        self.snapshot.follow(&event, target.clone());
        if let (Some(_), Some(Ok(user_id))) =
            (event.pdu.membership(), event.pdu.state_key.as_deref().map(<&UserId>::try_from))
        {
            self.note_remote(user_id).await?;
        }
        let step = batch.step();
        self.last_step = step;
        self.store(batch, step, &event);
        let thread = related.as_ref().map_or("", Related::thread).to_owned();
        if let Some(related) = &related {
            related.store(batch, &mut self.snapshot, &event);
        }
        self.wishes.learn_thread(&self.core.accounts, &before.local, before.number, &thread).await?;
        self.states.insert(event.seq, self.snapshot.state.clone());
        let touched = Touched { members: target.as_slice(), state: event.pdu.is_state() };
        self.wishes.servers = self.servers_to_tell(&before, &event).await?;
        fan_out(batch, step, &before, &self.snapshot, &event, touched, thread, &self.wishes);
        match redacted {
            Some(redacted) => self.redact(batch, &redacted, event.seq)?,
            None => self.apply_held(batch, &event, Vec::new()).await?,
        }
        if let Some(target) = target
            && event.pdu.membership() != Some(MembershipState::Join)
        {
            // Who comes back finds nothing unread from before.
            batch.settle(Parts::of(target.recipient));
            batch.extend(unread::clear_unread(target.recipient, self.snapshot.number, event.seq));
        }
        let event_id = event.pdu.event_id.clone();
        self.events.push(event);
        Ok(event_id)
    }

    /// State that is set to what it is already needs no event.
    fn already_so(&self, new: &NewEvent) -> Option<OwnedEventId> {
        let kind = StateEventType::from(new.kind.to_string());
        let current = self.snapshot.state.get(&kind, new.state_key.as_deref()?)?;
        let same = current.pdu.sender == new.sender && same_json(&current.pdu.content, &new.content);
        same.then(|| current.pdu.event_id.clone())
    }

    /// What this server refuses to its own users though the room's rules allow it.
    pub(super) fn check_policy(&self, new: &NewEvent) -> Result<(), Error> {
        match new.kind {
            TimelineEventType::RoomMessage => {
                content::check_text(&new.content, self.core.policy.max_text_chars)?;
            }
            TimelineEventType::RoomPowerLevels => content::check_power_levels(&new.content)?,
            // One that this server doesn't apply would look to clients as if it had.
            TimelineEventType::RoomRedaction if new.state_key.is_some() || new.redacts.is_none() => {
                return Err(Error::BadState("a redaction names its target and is not state".to_owned()));
            }
            _ => {}
        }
        if let Some((user, membership)) = member_of(new) {
            let full = match membership {
                MembershipState::Join => {
                    !self.snapshot.is_joined(user) && self.snapshot.joined >= self.core.policy.max_members
                }
                MembershipState::Invite if self.snapshot.membership(user) != MembershipState::Invite => {
                    self.snapshot.joined + self.snapshot.invited >= self.core.policy.max_members
                }
                _ => false,
            };
            if full {
                return Err(Error::full(self.core.policy.max_members));
            }
        }
        Ok(())
    }

    /// The account here whose membership the event is about.
    async fn target(&self, new: &NewEvent) -> Result<Option<LocalMember>, Error> {
        match member_of(new) {
            Some((user_id, _)) => self.local(user_id).await,
            None => Ok(None),
        }
    }

    /// Somebody who has an account here.
    pub(super) async fn local(&self, user_id: &UserId) -> Result<Option<LocalMember>, Error> {
        if user_id.server_name() != self.core.server_name {
            return Ok(None);
        }
        let recipient = self.core.accounts.recipient(user_id).await?;
        Ok(recipient.map(|recipient| LocalMember { recipient, user_id: user_id.to_owned() }))
    }

    /// Whether the server of a user of elsewhere has somebody in the room, now that their membership is another.
    pub(super) async fn note_remote(&mut self, user_id: &UserId) -> Result<(), Error> {
        let server = user_id.server_name();
        if server != self.core.server_name {
            let number = self.core.destinations.number(server).await?;
            let present = self.snapshot.has_member_of(server);
            self.snapshot.set_remote(number, server, present);
        }
        Ok(())
    }

    /// The servers that are told of an event: those that have somebody in the room before or after it (TX-05), and that of
    /// whoever it keeps from coming in.
    pub(super) async fn servers_to_tell(&self, before: &Snapshot, event: &Event) -> Result<Vec<i64>, Error> {
        if self.wishes.outward == Outward::Nobody || !self.snapshot.federates() {
            return Ok(Vec::new());
        }
        let present = before.remote.iter().chain(self.snapshot.remote.iter());
        let mut servers: Vec<i64> = present.map(|(number, _)| *number).collect();
        if let Some(server) = Event::keeps_out(&event.pdu).filter(|server| *server != self.core.server_name) {
            servers.push(self.core.destinations.number(server).await?);
        }
        servers.sort_unstable();
        servers.dedup();
        if let Outward::EverybodyBut(origin) = &self.wishes.outward
            && let Some(origin) = self.core.destinations.known(origin)
        {
            servers.retain(|server| *server != origin);
        }
        Ok(servers)
    }

    /// An event of the room, one of this batch among them.
    pub(super) async fn event(&self, event_id: &EventId) -> Result<Arc<Event>, Error> {
        match self.events.iter().rev().find(|event| event.pdu.event_id == *event_id) {
            Some(event) => Ok(Arc::clone(event)),
            None => self.core.event_in(self.snapshot.number, &self.snapshot.version, event_id).await,
        }
    }

    /// The event that a redaction is about, if the sender may redact it. One that isn't here may be so elsewhere, and is
    /// certainly somebody else's.
    async fn redaction_target(
        &self,
        sender: &UserId,
        target: &OwnedEventId,
    ) -> Result<Option<Arc<Event>>, Error> {
        let with_power = self.snapshot.power_levels().user_can_redact_event_of_other(sender);
        let event = match self.event(target).await {
            Err(Error::NotFound(_)) if with_power && !self.snapshot.remote.is_empty() => return Ok(None),
            event => event?,
        };
        if event.pdu.kind == TimelineEventType::RoomCreate {
            return Err(Error::forbidden("the event that made the room can't be redacted"));
        }
        if event.pdu.sender != *sender && !with_power {
            return Err(Error::forbidden("you lack the power to redact events of others"));
        }
        Ok(Some(event))
    }

    /// Makes, hashes, signs and authorises the event at the end of the room.
    pub(super) async fn build(&self, new: NewEvent, txn: Option<&Txn>) -> Result<Event, Error> {
        let snapshot = &self.snapshot;
        let pdu = self.built(new).await?;
        hearth_federation::authorize_built(&snapshot.version, &pdu, |kind, key| {
            snapshot.state.get(kind, key).map(|event| &event.pdu)
        })?;
        let sent_by = txn.map(|txn| SentBy { device: txn.device, txn_id: txn.txn_id.clone() });
        Ok(Event::new(snapshot.last_seq + 1, pdu, sent_by))
    }

    /// Makes, hashes and signs it, whether it is allowed or not.
    pub(super) async fn built(&self, new: NewEvent) -> Result<Pdu, Error> {
        let snapshot = &self.snapshot;
        let version = &snapshot.version;
        let state_key = new.state_key.as_deref();
        let auth_types =
            hearth_federation::auth_types(version, &new.kind, &new.sender, state_key, &new.content)?;
        let auth_events: Vec<&Arc<Event>> =
            auth_types.iter().filter_map(|(kind, key)| snapshot.state.get(kind, key)).collect();
        let mut position = Position::new(
            // EV-05: all of them, and of too many the newest.
            snapshot.extremities.iter().rev().take(MAX_PREV_EVENTS).map(|end| end.event_id.clone()).collect(),
            auth_events.iter().map(|event| event.pdu.event_id.clone()).collect(),
            snapshot.depth.saturating_add(1),
            self.time.unwrap_or_else(|| self.core.environment.clock.now()),
        );
        if snapshot.rules.event_id_format == ruma::room_version_rules::EventIdFormatVersion::V1 {
            position.reference_hashes = self.reference_hashes(&auth_events).await?;
        }
        let names_room = !(new.kind == TimelineEventType::RoomCreate
            && snapshot.rules.authorization.room_create_event_id_as_room_id);
        let draft = Draft {
            room_id: names_room.then(|| snapshot.room_id.clone()),
            sender: new.sender,
            kind: new.kind,
            state_key: new.state_key,
            content: new.content,
            redacts: new.redacts,
        };
        let limits = snapshot.limits(self.core.policy.max_text_chars);
        Ok(draft.build(version, position, &self.core.server_name, &self.core.key, limits)?)
    }

    /// Versions 1 and 2 name events together with their hashes.
    async fn reference_hashes(&self, auth: &[&Arc<Event>]) -> Result<Vec<(OwnedEventId, String)>, Error> {
        let mut hashes = Vec::new();
        let mut previous = Vec::new();
        for end in self.snapshot.extremities.iter() {
            previous.push(self.event(&end.event_id).await?);
        }
        for event in auth.iter().copied().chain(&previous) {
            let hash = event.pdu.reference_hash(&self.snapshot.version)?;
            hashes.push((event.pdu.event_id.clone(), hash));
        }
        Ok(hashes)
    }

    fn store(&self, batch: &mut Batch, step: u32, event: &Event) {
        self.store_event(batch, step, event);
        let (room, seq) = (self.snapshot.number, event.seq);
        if let Some((kind, state_key)) = event.pdu.state() {
            let (kind, state_key) = (kind.to_string(), state_key.to_owned());
            if let Some(membership) = event.pdu.membership() {
                batch.push(room_table::set_membership(&state_key, room, membership.as_str(), seq));
                self.follow_membership(batch, &state_key, &membership);
            }
            if matches!(kind.as_str(), "m.room.join_rules" | "m.room.history_visibility") {
                batch.push(room_table::set_open(room, self.snapshot.is_open()));
            }
            batch.state(StateRow { room, kind, state_key, seq, event: seq });
        }
    }

    /// What follows from a membership. Whoever comes may have an account that has ended; where one ends what was shared with
    /// somebody elsewhere, their devices are of no interest any more.
    pub(super) fn follow_membership(&self, batch: &mut Batch, user_id: &str, membership: &MembershipState) {
        let is_local = user_id.split_once(':').is_some_and(|(_, server)| server == self.core.server_name);
        if is_local && !matches!(membership, MembershipState::Leave | MembershipState::Ban) {
            batch.push(account_came(user_id));
        }
        if *membership == MembershipState::Join {
            return;
        }
        let statements = if is_local {
            followed::unfollow_who_stay(self.snapshot.number)
        } else {
            followed::unfollow_who_left(user_id)
        };
        batch.extend(statements);
    }

    /// The event alone, whatever its verdict.
    pub(super) fn store_event(&self, batch: &mut Batch, step: u32, event: &Event) {
        batch.event(self.row(step, event));
    }

    /// An event that is put between others, at the position of that above it.
    pub(super) fn store_backfilled(&self, batch: &mut Batch, step: u32, position: i64, event: &Event) {
        let redacted_by = event.redacted_by;
        batch.event(EventRow { position: Some(position), searchable: false, ..self.row(step, event) });
        if let Some(redacted_by) = redacted_by {
            let (room, pdu) = (self.snapshot.number, event.pdu.json.get());
            batch.push(event_table::redact(room, event.seq, pdu, redacted_by));
        }
    }

    fn row(&self, step: u32, event: &Event) -> EventRow {
        EventRow {
            room: self.snapshot.number,
            seq: event.seq,
            event_id: event.pdu.event_id.to_string(),
            step,
            position: None,
            pdu: Arc::from(event.pdu.json.get()),
            verdict: event.verdict as i64,
            ts: event.pdu.origin_server_ts.get().into(),
            arrived: self.arrived,
            searchable: event.is_visible() && !event.is_outlier() && search::has_text(&event.pdu),
            sender_device: event.sent_by.as_ref().map(|by| by.device),
            txn_id: event.sent_by.as_ref().map(|by| by.txn_id.clone()),
            outlier: self.outliers.get(event.id()).copied(),
        }
    }

    pub(super) fn redact(&mut self, batch: &mut Batch, event: &Event, by: i64) -> Result<(), Error> {
        if event.redacted_by.is_some() {
            return Ok(());
        }
        let redacted = Arc::new(event.redacted(by, &self.snapshot.version)?);
        let (room, pdu) = (self.snapshot.number, redacted.pdu.json.get());
        batch.push(event_table::redact(room, event.seq, pdu, by));
        // RL-06: it is no longer part of what is said of its parent.
        relations::forget(batch, room, event);
        batch.extend(search_table::remove(room, event.seq, search::words_of(room, &event.pdu)));
        let members: Vec<i64> = self.snapshot.local.iter().map(|member| member.recipient).collect();
        batch.settle(Parts::ALL);
        batch.extend(unread::clear_unread_event(&format!("{members:?}"), room, event.seq));
        self.snapshot.replace(&redacted);
        self.events.push(redacted);
        Ok(())
    }

    /// Makes all of it durable; then `room` is what the copy was. A new room is in nobody's memory yet.
    pub(super) async fn commit(mut self, room: Option<&Arc<Room>>) -> Result<(), store::Error> {
        let (core, number) = (Arc::clone(self.core), self.snapshot.number);
        let strangers = std::mem::take(&mut self.strangers);
        let batch = self.into_batch(room);
        if !batch.is_empty() {
            core.store.commit(batch).await?;
        }
        for (user_id, seq) in strangers {
            if let Err(cause) = core.tell_newcomer(&user_id, number, seq).await {
                // What was asked for is durable; their next first sync has it.
                tracing::warn!(%user_id, room = number, seq, %cause, "a new account may not hear of an event about it");
            }
        }
        Ok(())
    }

    /// All of it as one batch, for [`Self::commit`] or to go along with another.
    pub(super) fn into_batch(mut self, room: Option<&Arc<Room>>) -> Batch {
        let ends = stored_ends(&self.snapshot);
        if ends != self.ends {
            self.batch.extend(room_table::replace_extremities(self.snapshot.number, &ends));
        }
        let guests_leave = self.access.ends(&self.snapshot);
        if guests_leave {
            guests::revoke(&mut self.batch, &self.snapshot);
        }
        let (core, room) = (Arc::clone(self.core), room.map(Arc::clone));
        let (mut snapshot, events, last_step) = (self.snapshot, self.events, self.last_step);
        let arrived = self.arrived;
        let mut batch = self.batch;
        batch.on_commit(move |base| {
            if last_step > 0 {
                snapshot.position = base + i64::from(last_step);
                snapshot.arrived = arrived;
            }
            for event in events {
                core.events.insert(snapshot.number, event);
            }
            if let Some(room) = room {
                core.note_arrivals(&room, &snapshot);
                room.adopt(snapshot);
            }
            if guests_leave {
                core.departing.notify_one();
            }
        });
        batch
    }
}

impl Core {
    /// Somebody may have made their account while an event about them was on its way, and have synced already: then they
    /// hear of it now. Whoever comes later finds it in their first sync.
    async fn tell_newcomer(&self, user_id: &UserId, room: i64, seq: i64) -> Result<(), store::Error> {
        let Some(recipient) = self.accounts.recipient(user_id).await? else { return Ok(()) };
        let mut batch = Batch::new();
        let recipients = vec![(recipient, flags::STATE | flags::OWN_MEMBERSHIP)];
        let (step, kind, item, thread) = (batch.step(), Kind::Event, Item::Value(seq), String::new());
        batch.deliver(Delivery { step, kind, room, item, thread, recipients });
        self.store.commit(batch).await.map(drop)
    }
}

/// The ends of a room as its rows of `extremity` have them. Where the last event is the only end, as it nearly always is,
/// these say just that, so that no message changes them.
fn stored_ends(snapshot: &Snapshot) -> Vec<i64> {
    match &*snapshot.extremities {
        [end] if end.seq == snapshot.last_seq => vec![event_table::LAST],
        ends => ends.iter().map(|end| end.seq).collect(),
    }
}

/// The user and the membership of a member event.
fn member_of(new: &NewEvent) -> Option<(&UserId, MembershipState)> {
    #[derive(Deserialize)]
    struct Content {
        membership: MembershipState,
    }
    if new.kind != TimelineEventType::RoomMember {
        return None;
    }
    let user_id = <&UserId>::try_from(new.state_key.as_deref()?).ok()?;
    let content: Content = serde_json::from_str(new.content.get()).ok()?;
    Some((user_id, content.membership))
}

fn same_json(one: &RawValue, two: &RawValue) -> bool {
    let parse = |text: &RawValue| serde_json::from_str::<serde_json::Value>(text.get()).ok();
    parse(one).is_some_and(|one| Some(one) == parse(two))
}
