//! A room's one writer: it alone gives events their place.
//!
//! Whoever wants to append leaves a request in the room's inbox. If the room has no writer at work, one is started; it
//! takes all that waits, makes the events one after the other on a copy of the room, hands them to the store as one
//! batch, and puts the copy in the room's place once the batch is durable. While the disk works, the next requests
//! gather. A writer that has nothing left to do ends, so a quiet room costs nothing.

use std::{collections::HashMap, sync::Arc};

use hearth_federation::{Draft, Position};
use parking_lot::Mutex;
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType, room::member::MembershipState},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{
    Core, Error, Event, NOT_A_MEMBER, Room, content,
    event::SentBy,
    fan_out::{Wishes, fan_out},
    snapshot::{LocalMember, Snapshot},
};
use crate::store::{
    self, Batch, EventRow, StateRow, TxnRow, event as event_table, receipt::clear_unread, room as room_table,
};

/// The most requests that one batch takes.
const BATCH: usize = 64;

/// An event that somebody here wants to send.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub sender: OwnedUserId,
    pub kind: TimelineEventType,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    pub redacts: Option<OwnedEventId>,
}

/// A transaction id and the scope in which it counts: the device and a hash of the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_field_names, reason = "the specification's name")]
pub struct Txn {
    pub device: i64,
    pub path: i64,
    pub txn_id: String,
}

/// An event in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub event_id: OwnedEventId,
}

/// Events that are appended together or not at all.
pub(super) struct Request {
    events: Vec<NewEvent>,
    txn: Option<Txn>,
    done: oneshot::Sender<Result<Vec<Appended>, Error>>,
}

#[derive(Default)]
pub(super) struct Inbox {
    waiting: Vec<Request>,
    /// A writer is at work and will look here again before it ends.
    working: bool,
}

/// Leaves a request with the room and waits until it is durable or refused.
pub(super) async fn append(
    core: &Arc<Core>,
    room: &Arc<Room>,
    events: Vec<NewEvent>,
    txn: Option<Txn>,
) -> Result<Vec<Appended>, Error> {
    let (done, result) = oneshot::channel();
    let idle = {
        let mut inbox = room.inbox.lock();
        inbox.waiting.push(Request { events, txn, done });
        !std::mem::replace(&mut inbox.working, true)
    };
    if idle {
        // A task of its own: a client that goes away must not stop the writer half-way.
        tokio::spawn(write(Arc::clone(core), Arc::clone(room)));
    }
    result.await.map_err(|_| Error::Internal("the room's writer failed".to_owned()))?
}

/// If the writer panics, those who wait hear that it failed, and the next request starts another.
struct AtWork<'a>(&'a Mutex<Inbox>);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut inbox = self.0.lock();
        inbox.working = false;
        inbox.waiting.clear();
    }
}

async fn write(core: Arc<Core>, room: Arc<Room>) {
    let at_work = AtWork(&room.inbox);
    loop {
        let requests: Vec<Request> = {
            let mut inbox = room.inbox.lock();
            if inbox.waiting.is_empty() {
                inbox.working = false;
                std::mem::forget(at_work);
                return;
            }
            let most = inbox.waiting.len().min(BATCH);
            inbox.waiting.drain(..most).collect()
        };
        write_batch(&core, &room, requests).await;
    }
}

async fn write_batch(core: &Arc<Core>, room: &Arc<Room>, requests: Vec<Request>) {
    let mut answers = try_batch(core, room, &requests, HashMap::new()).await;
    if matches!(answers, Err(Error::Store(store::Error::Conflict))) {
        // Somebody tried again what an earlier process, or the command line, has done: now we look.
        let txns = requests.iter().filter_map(|request| request.txn.as_ref());
        answers = match sent_before(core, txns).await {
            Ok(sent) => try_batch(core, room, &requests, sent).await,
            Err(cause) => Err(cause.into()),
        };
    }
    // A client that went away doesn't hear of it.
    match answers {
        Ok(answers) => {
            for (request, answer) in requests.into_iter().zip(answers) {
                let _ = request.done.send(answer);
            }
        }
        Err(cause) => {
            for request in requests {
                let _ = request.done.send(Err(cause.to_all()));
            }
        }
    }
}

/// The answers to the requests, or what failed for all of them. Transactions in `sent` were carried out before; that no
/// other was is found out by the commit, which then fails for a conflict.
async fn try_batch(
    core: &Arc<Core>,
    room: &Arc<Room>,
    requests: &[Request],
    mut sent: HashMap<Txn, OwnedEventId>,
) -> Result<Vec<Result<Vec<Appended>, Error>>, Error> {
    let mut work = Work::start(core, Snapshot::clone(&room.snapshot())).await?;
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        let txn = request.txn.as_ref();
        if let Some(event_id) = txn.and_then(|txn| sent.get(txn)) {
            answers.push(Ok(vec![Appended { event_id: event_id.clone() }]));
            continue;
        }
        let mut answer = work.append_all(&request.events, txn).await;
        match (&answer, txn) {
            (Ok(appended), Some(txn)) => {
                sent.extend(appended.last().map(|last| (txn.clone(), last.event_id.clone())));
            }
            // What was allowed once is answered as then, whatever has happened to the room since (I3).
            (Err(_), Some(txn)) => {
                if let Some(event_id) = sent_before(core, std::iter::once(txn)).await?.remove(txn) {
                    answer = Ok(vec![Appended { event_id }]);
                }
            }
            (_, None) => {}
        }
        answers.push(answer);
    }
    work.commit(Some(room)).await?;
    Ok(answers)
}

/// What was answered to these transactions before, by this process or an earlier one.
pub(super) async fn sent_before(
    core: &Core,
    txns: impl Iterator<Item = &Txn>,
) -> Result<HashMap<Txn, OwnedEventId>, store::Error> {
    let keys: Vec<(i64, i64, &str)> = txns.map(|txn| (txn.device, txn.path, txn.txn_id.as_str())).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let keys = serde_json::to_string(&keys).map_err(|cause| store::Error::Encoding(cause.to_string()))?;
    let rows = core.store.txns(keys).await?.into_iter();
    Ok(rows
        .filter_map(|(device, path, txn_id, event)| {
            Some((Txn { device, path, txn_id }, OwnedEventId::try_from(event).ok()?))
        })
        .collect())
}

/// A copy of the room with events that aren't durable yet.
pub(super) struct Work<'a> {
    core: &'a Arc<Core>,
    snapshot: Snapshot,
    wishes: Wishes,
    batch: Batch,
    /// The step of the last event.
    last_step: u32,
    /// New events and the redacted forms of old ones.
    events: Vec<Arc<Event>>,
    /// When the events happen, if that isn't now.
    time: Option<MilliSecondsSinceUnixEpoch>,
}

impl<'a> Work<'a> {
    pub(super) async fn start(core: &'a Arc<Core>, snapshot: Snapshot) -> Result<Self, Error> {
        let mut wishes = Wishes::default();
        for member in snapshot.local.iter() {
            let recipient = member.recipient;
            if let Some(custom) = core.accounts.custom_push_rules(recipient).await? {
                wishes.rules.insert(recipient, custom);
            }
            let ignored = core.accounts.ignored_users(recipient).await?;
            if !ignored.is_empty() {
                wishes.ignored.insert(recipient, ignored);
            }
        }
        Ok(Self { core, snapshot, wishes, batch: Batch::new(), last_step: 0, events: Vec::new(), time: None })
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
        let (snapshot, length) = (self.snapshot.clone(), self.events.len());
        // Until the end it counts within this batch; steps count from 1.
        let last_step = std::mem::take(&mut self.last_step);
        let mut batch = Batch::new();
        let mut appended = Vec::with_capacity(events.len());
        for event in events {
            match self.append(&mut batch, event.clone(), txn).await {
                Ok(event_id) => appended.push(Appended { event_id }),
                Err(cause) => {
                    self.snapshot = snapshot;
                    self.events.truncate(length);
                    self.last_step = last_step;
                    return Err(cause);
                }
            }
        }
        if let (Some(txn), Some(last)) = (txn, appended.last()) {
            batch.txn(TxnRow {
                device: txn.device,
                path: txn.path,
                txn_id: txn.txn_id.clone(),
                event: last.event_id.to_string(),
                created_ts: self.core.environment.clock.now_ms(),
            });
        }
        let shift = self.batch.append(batch);
        self.last_step = if self.last_step == 0 { last_step } else { shift + self.last_step };
        Ok(appended)
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
            Some(target) => Some(self.redaction_target(&new.sender, target).await?),
            None => None,
        };
        let target = self.target(&new).await?;
        let event = Arc::new(self.build(new, txn).await?);

        let before = self.snapshot.clone();
        self.snapshot.follow(&event, target.clone());
        let step = batch.step();
        self.last_step = step;
        self.store(batch, step, &event);
        fan_out(batch, step, &before, &self.snapshot, &event, target.as_ref(), &self.wishes);
        if let Some(redacted) = redacted {
            self.redact(batch, &redacted, event.seq)?;
        }
        if let Some(target) = target
            && event.pdu.membership() != Some(MembershipState::Join)
        {
            // Who comes back finds nothing unread from before.
            batch.settle();
            batch.push(clear_unread(target.recipient, self.snapshot.number, event.seq));
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
    fn check_policy(&self, new: &NewEvent) -> Result<(), Error> {
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
                return Err(Error::Forbidden(format!(
                    "this room is full: this server allows {} members a room",
                    self.core.policy.max_members
                )));
            }
        }
        Ok(())
    }

    /// The account here whose membership the event is about.
    async fn target(&self, new: &NewEvent) -> Result<Option<LocalMember>, Error> {
        let Some((user_id, _)) = member_of(new) else { return Ok(None) };
        if user_id.server_name() != self.core.server_name {
            return Ok(None);
        }
        let recipient = self.core.accounts.recipient(user_id).await?;
        Ok(recipient.map(|recipient| LocalMember { recipient, user_id: user_id.to_owned() }))
    }

    /// The event that a redaction is about, if the sender may redact it.
    async fn redaction_target(&self, sender: &UserId, target: &OwnedEventId) -> Result<Arc<Event>, Error> {
        let pending = self.events.iter().rev().find(|event| event.pdu.event_id == *target);
        let event = match pending {
            Some(event) => Arc::clone(event),
            None => self.core.event_in(self.snapshot.number, &self.snapshot.version, target).await?,
        };
        if event.pdu.kind == TimelineEventType::RoomCreate {
            return Err(Error::forbidden("the event that made the room can't be redacted"));
        }
        let own = event.pdu.sender == *sender;
        if !own && !self.snapshot.power_levels().user_can_redact_event_of_other(sender) {
            return Err(Error::forbidden("you lack the power to redact events of others"));
        }
        Ok(event)
    }

    /// Makes, hashes, signs and authorises the event at the end of the room.
    async fn build(&self, new: NewEvent, txn: Option<&Txn>) -> Result<Event, Error> {
        let snapshot = &self.snapshot;
        let version = &snapshot.version;
        let state_key = new.state_key.as_deref();
        let auth_types =
            hearth_federation::auth_types(version, &new.kind, &new.sender, state_key, &new.content)?;
        let auth_events: Vec<&Arc<Event>> =
            auth_types.iter().filter_map(|(kind, key)| snapshot.state.get(kind, key)).collect();
        let mut position = Position::new(
            snapshot.extremities.to_vec(),
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
        let pdu = draft.build(version, position, &self.core.server_name, &self.core.key, limits)?;
        hearth_federation::authorize_built(version, &pdu, |kind, key| {
            snapshot.state.get(kind, key).map(|event| &event.pdu)
        })?;
        let sent_by = txn.map(|txn| SentBy { device: txn.device, txn_id: txn.txn_id.clone() });
        Ok(Event::new(snapshot.last_seq + 1, pdu, sent_by))
    }

    /// Versions 1 and 2 name events together with their hashes.
    async fn reference_hashes(&self, auth: &[&Arc<Event>]) -> Result<Vec<(OwnedEventId, String)>, Error> {
        let mut hashes = Vec::new();
        let mut previous = Vec::new();
        for id in self.snapshot.extremities.iter() {
            match self.events.iter().find(|event| event.pdu.event_id == *id) {
                Some(event) => previous.push(Arc::clone(event)),
                None => {
                    previous
                        .push(self.core.event_in(self.snapshot.number, &self.snapshot.version, id).await?);
                }
            }
        }
        for event in auth.iter().copied().chain(&previous) {
            let hash = event.pdu.reference_hash(&self.snapshot.version)?;
            hashes.push((event.pdu.event_id.clone(), hash));
        }
        Ok(hashes)
    }

    fn store(&self, batch: &mut Batch, step: u32, event: &Event) {
        let (room, seq) = (self.snapshot.number, event.seq);
        batch.event(EventRow {
            room,
            seq,
            event_id: event.pdu.event_id.to_string(),
            step,
            pdu: Arc::from(event.pdu.json.get()),
            verdict: event.verdict as i64,
            sender_device: event.sent_by.as_ref().map(|by| by.device),
            txn_id: event.sent_by.as_ref().map(|by| by.txn_id.clone()),
        });
        if let Some((kind, state_key)) = event.pdu.state() {
            let (kind, state_key) = (kind.to_string(), state_key.to_owned());
            if let Some(membership) = event.pdu.membership() {
                batch.push(room_table::set_membership(&state_key, room, membership.as_str(), seq));
            }
            batch.state(StateRow { room, kind, state_key, seq, event: seq });
        }
    }

    fn redact(&mut self, batch: &mut Batch, event: &Event, by: i64) -> Result<(), Error> {
        if event.redacted_by.is_some() {
            return Ok(());
        }
        let redacted = Arc::new(event.redacted(by, &self.snapshot.version)?);
        let (room, pdu) = (self.snapshot.number, redacted.pdu.json.get());
        batch.push(event_table::redact(room, event.seq, pdu, by));
        let members: Vec<i64> = self.snapshot.local.iter().map(|member| member.recipient).collect();
        batch.settle();
        batch.push(event_table::clear_unread_event(format!("{members:?}"), room, event.seq));
        self.snapshot.replace(&redacted);
        self.events.push(redacted);
        Ok(())
    }

    /// Makes all of it durable; then `room` is what the copy was. A new room is in nobody's memory yet.
    pub(super) async fn commit(mut self, room: Option<&Arc<Room>>) -> Result<(), store::Error> {
        if self.batch.is_empty() {
            return Ok(());
        }
        if let Some(last) = self.events.iter().map(|event| event.seq).max()
            && last == self.snapshot.last_seq
        {
            for statement in room_table::replace_extremities(self.snapshot.number, last) {
                self.batch.push(statement);
            }
        }
        let (core, room) = (Arc::clone(self.core), room.map(Arc::clone));
        let (mut snapshot, events, last_step) = (self.snapshot, self.events, self.last_step);
        self.batch.on_commit(move |base| {
            if last_step > 0 {
                snapshot.position = base + i64::from(last_step);
            }
            for event in events {
                core.events.insert(snapshot.number, event);
            }
            if let Some(room) = room {
                room.adopt(snapshot);
            }
        });
        self.core.store.commit(self.batch).await?;
        Ok(())
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
