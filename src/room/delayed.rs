//! Delayed events (MSC4140): scheduled now, sent later, by the server and on behalf of a user who may be gone by then.
//!
//! The database has the schedule, and one task sleeps until the next is due; after a pause of the server it begins with
//! what is overdue, in the order of the times. An event is sent in a transaction that is named after it, so it is in the
//! room once even if the server dies between sending it and noting that it did. What is refused when it is due is noted
//! and not tried again; only an error of the database is.
//!
//! Each room is sent to by itself, in the order of the times: one whose policy server is slow holds up no other.
//!
//! Nothing limits how fast due events are sent: scheduling is limited, and so is how many a user may have scheduled.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use hearth_federation::Task;
use parking_lot::Mutex;
use ruma::{
    OwnedEventId, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Value, value::RawValue};
use tokio::sync::Notify;

use super::{Error, Rooms, Txn, content};
use crate::{
    environment::Environment,
    shutdown::Shutdown,
    store::{
        self, Batch, Store,
        delayed_event::{self as table, DelayedRow},
    },
};

/// The largest content, in bytes: what an event may have as a whole that can go to other servers.
const MAX_CONTENT: usize = 65_536;

/// Due events that are taken from the database at a time.
const DUE: i64 = 500;

/// Rooms that are sent to at a time. Most of them are done at once; those that aren't wait for their policy servers.
const ROOMS: usize = 256;

/// The longest sleep while something is scheduled, so that a change of the machine's clock is noticed.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// How long to wait after an error of the database.
const PAUSE: Duration = Duration::from_secs(1);

/// What became of an event is told for this long: seven days, as the proposal recommends …
const KEPT_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// … and of this many events of a user.
const KEPT: i64 = 1_000;
const TRIM_EVERY_MS: i64 = 60 * 60 * 1000;

/// What the operator allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Milliseconds.
    pub max_delay: i64,
    /// Of one user at a time; 0: nobody may schedule anything.
    pub max_scheduled: i64,
}

/// An event to schedule. Its sender is in the room.
#[derive(Clone, Debug)]
pub struct New {
    pub recipient: i64,
    pub device: i64,
    pub room: i64,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    /// Milliseconds, more than zero.
    pub delay: i64,
    pub txn: Option<Txn>,
}

/// A scheduled event, or for a while one that was.
#[derive(Clone, Debug)]
pub struct Delayed {
    pub delay_id: String,
    pub room_id: String,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    pub delay: i64,
    pub scheduled_ts: i64,
    pub finalised_ts: Option<i64>,
    pub event_id: Option<String>,
    /// A Matrix error.
    pub error: Option<Value>,
}

/// What may be done with a scheduled event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Send,
    Restart,
    Cancel,
}

#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    #[error("this server schedules no events")]
    Disallowed,
    #[error("the delay is longer than the {most} ms that this server allows")]
    TooLong { most: i64 },
    /// `next` is how long it takes until one of them is sent.
    #[error("you have as many events scheduled as this server allows")]
    TooMany { next: Duration },
    #[error("{0}")]
    TooLarge(String),
    #[error(transparent)]
    Room(#[from] Error),
}

#[derive(Debug, thiserror::Error)]
pub enum ActError {
    #[error("there is no such delayed event")]
    NotFound,
    /// It was sent, or cancelled, and can't be otherwise any more.
    #[error("the delayed event was {0} already")]
    Settled(&'static str),
    #[error(transparent)]
    Room(#[from] Error),
    #[error("{0} may not send events")]
    Barred(&'static str),
}

impl From<store::Error> for ScheduleError {
    fn from(cause: store::Error) -> Self {
        Self::Room(cause.into())
    }
}

impl From<store::Error> for ActError {
    fn from(cause: store::Error) -> Self {
        Self::Room(cause.into())
    }
}

/// A Matrix error for those who ask later why an event wasn't sent.
pub type Explain = fn(ActError) -> Value;

pub struct DelayedEvents {
    store: Store,
    rooms: Arc<Rooms>,
    environment: Environment,
    limits: Limits,
    explain: Explain,
    turns: Turns,
    /// The next event may be due earlier than the task believes.
    sooner: Arc<Notify>,
}

impl DelayedEvents {
    pub fn new(
        store: Store,
        rooms: Arc<Rooms>,
        environment: Environment,
        limits: Limits,
        explain: Explain,
    ) -> Self {
        let (turns, sooner) = (Turns::default(), Arc::default());
        Self { store, rooms, environment, limits, explain, turns, sooner }
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Schedules an event and gives its `delay_id`: the same for the same transaction.
    pub async fn schedule(&self, new: New) -> Result<String, ScheduleError> {
        if self.limits.max_scheduled == 0 {
            return Err(ScheduleError::Disallowed);
        }
        if new.delay > self.limits.max_delay {
            return Err(ScheduleError::TooLong { most: self.limits.max_delay });
        }
        let size = new.content.get().len();
        if size > MAX_CONTENT {
            return Err(ScheduleError::TooLarge(format!(
                "the content has {size} bytes, more than the {MAX_CONTENT} of a delayed event"
            )));
        }
        let names = [Some(&new.kind), new.state_key.as_ref()];
        if names.into_iter().flatten().any(|name| name.len() > 255 || name.contains('\0')) {
            let cause = "a type and a state key have at most 255 bytes and no NUL".to_owned();
            return Err(Error::InvalidParam(cause).into());
        }
        if new.kind == "m.room.message" {
            content::check_message(&new.content)?;
        }
        // Whoever knows it may act on the event: it is a secret.
        let delay_id = self.environment.entropy.token(32);
        let now = self.environment.clock.now_ms();
        let row = table::NewDelayed {
            delay_id: delay_id.clone(),
            recipient: new.recipient,
            device: new.device,
            path: new.txn.as_ref().map_or(0, |txn| txn.path),
            txn_id: new.txn.as_ref().map(|txn| txn.txn_id.clone()),
            room: new.room,
            kind: new.kind,
            state_key: new.state_key,
            content: new.content.get().to_owned(),
            delay: new.delay,
            scheduled_ts: now,
        };
        let mut batch = Batch::from(table::schedule(row, self.limits.max_scheduled));
        let sooner = Arc::clone(&self.sooner);
        batch.on_commit(move |_| sooner.notify_one());
        match self.store.commit(batch).await {
            Ok(_) => Ok(delay_id),
            Err(store::Error::Conflict) => {
                if let Some(txn) = new.txn
                    && let Some(before) = self.store.delayed_in_txn(txn.device, txn.path, &txn.txn_id).await?
                {
                    return Ok(before);
                }
                let next = self.store.next_delayed_of(new.recipient).await?.unwrap_or(now);
                let wait = Duration::from_millis((next - now).max(1) as u64);
                Err(ScheduleError::TooMany { next: wait })
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// What a user has scheduled, the next to be sent first.
    pub async fn of(&self, recipient: i64) -> Result<Vec<Delayed>, Error> {
        self.store.delayed_of(recipient).await?.into_iter().map(Delayed::try_from).collect()
    }

    /// One that a user has scheduled, or had.
    pub async fn get(&self, delay_id: &str, recipient: i64) -> Result<Delayed, ActError> {
        let row = self.store.delayed(delay_id).await?;
        let row = row.filter(|row| row.recipient == recipient).ok_or(ActError::NotFound)?;
        Ok(row.try_into()?)
    }

    /// Sends now, begins the delay anew, or cancels. `owner` is who has to have scheduled it, if that matters. What was
    /// done before is done. An event that can't be sent now stays scheduled.
    pub async fn act(&self, delay_id: &str, owner: Option<i64>, action: Action) -> Result<(), ActError> {
        // Before the turn, so that invented ids cost nothing.
        self.find(delay_id, owner).await?;
        let _turn = self.turns.of(delay_id).await;
        let row = self.find(delay_id, owner).await?;
        match (action, row.finalised_ts.is_some(), row.event.is_some()) {
            (Action::Send, true, true) | (Action::Cancel, true, false) => return Ok(()),
            (_, true, true) => return Err(ActError::Settled("sent")),
            (_, true, false) => return Err(ActError::Settled("cancelled")),
            (_, false, _) => {}
        }
        let now = self.environment.clock.now_ms();
        match action {
            Action::Send => {
                let event_id = self.send(&row).await?;
                self.store.commit(table::finalise(delay_id, now, Some(event_id.to_string()), None)).await?;
            }
            // The task may wake too early for it, which does no harm.
            Action::Restart => drop(self.store.commit(table::restart(delay_id, now)).await?),
            Action::Cancel => drop(self.store.commit(table::finalise(delay_id, now, None, None)).await?),
        }
        Ok(())
    }

    async fn find(&self, delay_id: &str, owner: Option<i64>) -> Result<DelayedRow, ActError> {
        let row = self.store.delayed(delay_id).await?;
        row.filter(|row| owner.is_none_or(|owner| owner == row.recipient)).ok_or(ActError::NotFound)
    }

    /// Sends what is due, for as long as the server runs. What isn't sent by its end is sent by the next.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let (mut trimmed, mut sending) = (0, Sending::default());
        loop {
            let rest = match self.round(&mut trimmed, &mut sending).await {
                Ok(rest) => rest,
                Err(cause) => {
                    tracing::warn!(%cause, "delayed events are late; trying again");
                    Some(PAUSE)
                }
            };
            let sleep = async {
                match rest {
                    Some(rest) => tokio::time::sleep(rest).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = sleep => {}
                () = sending.some_are_done() => {}
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Begins to send what is due in rooms that aren't being sent to. How long to sleep then; `None`: until one of them is
    /// done, or something is scheduled.
    async fn round<'a>(
        &'a self,
        trimmed: &mut i64,
        sending: &mut Sending<'a>,
    ) -> Result<Option<Duration>, store::Error> {
        while sending.rooms.len() < ROOMS {
            let now = self.environment.clock.now_ms();
            if now - *trimmed >= TRIM_EVERY_MS {
                *trimmed = now;
                self.store.commit(Vec::from(table::trim(now - KEPT_MS, KEPT))).await?;
            }
            let busy: Vec<i64> = sending.rooms.iter().copied().collect();
            let due = self.store.delayed_due(now, DUE, &busy).await?;
            if due.is_empty() {
                let next = self.store.next_delayed(&busy).await?;
                return Ok(next.map(|next| {
                    let rest = next - self.environment.clock.now_ms();
                    Duration::from_millis(rest.max(1) as u64).min(LONGEST_SLEEP)
                }));
            }
            let mut by_room: BTreeMap<i64, (i64, Vec<String>)> = BTreeMap::new();
            for row in due {
                by_room.entry(row.room).or_insert((row.send_ts, Vec::new())).1.push(row.delay_id);
            }
            // Those come first that are most overdue.
            let mut by_room: Vec<_> = by_room.into_iter().collect();
            by_room.sort_by_key(|(_, (since, _))| *since);
            by_room.truncate(ROOMS - sending.rooms.len());
            for (room, (_, delay_ids)) in by_room {
                sending.begin(room, async move {
                    if let Err(cause) = self.send_due(&delay_ids).await {
                        tracing::warn!(%cause, room, "delayed events of a room are late; trying again");
                        tokio::time::sleep(PAUSE).await;
                    }
                    room
                });
            }
        }
        Ok(None)
    }

    /// Sends events of one room, one after the other.
    async fn send_due(&self, delay_ids: &[String]) -> Result<(), store::Error> {
        for delay_id in delay_ids {
            let _turn = self.turns.of(delay_id).await;
            // Somebody may have acted on it meanwhile.
            let Some(row) = self.store.delayed(delay_id).await? else { continue };
            let now = self.environment.clock.now_ms();
            if row.finalised_ts.is_some() || row.send_ts > now {
                continue;
            }
            let (event, error) = match self.send(&row).await {
                Ok(event_id) => (Some(event_id.to_string()), None),
                Err(ActError::Room(Error::Store(cause))) => return Err(cause),
                Err(cause) => {
                    tracing::debug!(delay_id, %cause, "a delayed event can't be sent");
                    (None, Some((self.explain)(cause).to_string()))
                }
            };
            self.store.commit(table::finalise(delay_id, now, event, error)).await?;
        }
        Ok(())
    }

    async fn send(&self, row: &DelayedRow) -> Result<OwnedEventId, ActError> {
        let account = self.store.account(row.recipient).await?.ok_or(ActError::NotFound)?;
        if account.deactivated_ts.is_some() {
            return Err(ActError::Barred("a deactivated account"));
        }
        if account.locked || account.suspended {
            return Err(ActError::Barred("a locked or suspended account"));
        }
        let user_id = UserId::parse(&account.user_id).map_err(|cause| Error::Internal(cause.to_string()))?;
        let room = self.rooms.by_number(row.room).await?;
        let content = RawValue::from_string(row.content.clone())
            .map_err(|cause| Error::Internal(format!("the stored content: {cause}")))?;
        // A transaction of no device, whose number nobody has: the account's own, negative.
        let txn = Txn { device: -row.recipient, path: 0, txn_id: row.delay_id.clone() };
        let kind = TimelineEventType::from(row.kind.clone());
        let event_id = match &row.state_key {
            None => self.rooms.send(&room, &user_id, kind, content, txn).await?,
            Some(state_key) => {
                let kind = StateEventType::from(row.kind.clone());
                self.rooms.set_state_once(&room, &user_id, kind, state_key.clone(), content, txn).await?
            }
        };
        Ok(event_id)
    }
}

impl TryFrom<DelayedRow> for Delayed {
    type Error = Error;

    fn try_from(row: DelayedRow) -> Result<Self, Error> {
        let damaged = |cause: serde_json::Error| Error::Internal(format!("a stored delayed event: {cause}"));
        Ok(Self {
            content: RawValue::from_string(row.content).map_err(damaged)?,
            error: row.error.map(|error| serde_json::from_str(&error)).transpose().map_err(damaged)?,
            delay_id: row.delay_id,
            room_id: row.room_id,
            kind: row.kind,
            state_key: row.state_key,
            delay: row.delay,
            scheduled_ts: row.scheduled_ts,
            finalised_ts: row.finalised_ts,
            event_id: row.event,
        })
    }
}

/// The rooms that are being sent to.
#[derive(Default)]
struct Sending<'a> {
    rooms: BTreeSet<i64>,
    /// Each ends with the number of its room.
    tasks: FuturesUnordered<Task<'a, i64>>,
}

impl<'a> Sending<'a> {
    fn begin(&mut self, room: i64, task: impl Future<Output = i64> + Send + 'a) {
        self.rooms.insert(room);
        self.tasks.push(Box::pin(task));
    }

    /// Resolves when a room is done, or several are. Never, while there is none.
    async fn some_are_done(&mut self) {
        match self.tasks.next().await {
            Some(room) => drop(self.rooms.remove(&room)),
            None => std::future::pending().await,
        }
        while let Some(Some(room)) = self.tasks.next().now_or_never() {
            self.rooms.remove(&room);
        }
    }
}

/// Whoever acts on an event does it alone. Events don't wait for each other.
#[derive(Default)]
struct Turns(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    async fn of(&self, delay_id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            // Those that nobody holds or waits for are of no use.
            if turns.len() > 64 {
                turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            }
            Arc::clone(turns.entry(delay_id.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use ruma::ServerName;
    use serde_json::json;

    use super::*;
    use crate::room::{
        AskPolicy, Refusal, Room,
        tests::{World, user},
    };

    /// A policy server that never answers. Says that it was asked.
    #[derive(Default)]
    struct Silent(Notify);

    impl AskPolicy for Silent {
        fn ask<'a>(&'a self, _: &'a ServerName, _: &'a RawValue) -> Task<'a, Result<String, Refusal>> {
            self.0.notify_one();
            Box::pin(std::future::pending())
        }
    }

    async fn in_time<T>(what: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_mins(1), what).await.expect("it comes in time")
    }

    fn delayed_events(world: &World) -> Arc<DelayedEvents> {
        let limits = Limits { max_delay: 1000, max_scheduled: 10 };
        let (rooms, environment) = (Arc::clone(&world.rooms), world.environment.clone());
        let explain = |cause: ActError| json!(cause.to_string());
        Arc::new(DelayedEvents::new(world.store.clone(), rooms, environment, limits, explain))
    }

    /// A message in a millisecond.
    fn soon(recipient: i64, room: &Room, body: &str) -> New {
        let content = json!({ "msgtype": "m.text", "body": body }).to_string();
        New {
            recipient,
            device: 1,
            room: room.number,
            kind: "m.room.message".to_owned(),
            state_key: None,
            content: RawValue::from_string(content).unwrap(),
            delay: 1,
            txn: None,
        }
    }

    /// What became of an event, once that is settled.
    async fn sent(world: &World, delay_id: &str) -> Option<String> {
        loop {
            let row = world.store.delayed(delay_id).await.unwrap().unwrap();
            if row.finalised_ts.is_some() {
                return row.event;
            }
            tokio::task::yield_now().await;
        }
    }

    /// The first request is gone when what it wrote is there; the second has nothing to write.
    #[tokio::test]
    async fn an_event_is_sent_though_whoever_scheduled_it_hung_up() {
        let alice = user("alice");
        let world = World::new(&[alice.as_str()]).await;
        let room = world.room(&alice).await;
        let recipient = world.accounts.recipient(&alice).await.unwrap().unwrap();
        let delayed = delayed_events(&world);
        let rest = delayed.round(&mut 0, &mut Sending::default()).await.unwrap();
        assert_eq!(rest, None, "nothing is scheduled");

        let txn = Some(Txn { device: 1, path: 0, txn_id: "once".to_owned() });
        let new = New { txn, ..soon(recipient, &room, "hello") };
        drop(delayed.schedule(new.clone()).now_or_never());
        let delay_id = delayed.schedule(new).await.unwrap();
        in_time(delayed.sooner.notified()).await;
        let shutdown = Shutdown::default();
        let running = tokio::spawn(Arc::clone(&delayed).run(shutdown.clone()));
        assert!(in_time(sent(&world, &delay_id)).await.is_some());
        shutdown.set();
        in_time(running).await.unwrap();
    }

    #[tokio::test]
    async fn a_room_that_waits_for_its_policy_server_holds_up_no_other() {
        let alice = user("alice");
        let world = World::new(&[alice.as_str()]).await;
        let (silent, other) = (world.room(&alice).await, world.room(&alice).await);
        let policy = Arc::new(Silent::default());
        world.rooms.ask_policy_servers_by(Arc::<Silent>::clone(&policy));
        world.set_policy(&silent, &alice, true).await;
        let recipient = world.accounts.recipient(&alice).await.unwrap().unwrap();
        let delayed = delayed_events(&world);
        let schedule =
            async |room: &Room, body: &str| delayed.schedule(soon(recipient, room, body)).await.unwrap();

        let shutdown = Shutdown::default();
        let running = tokio::spawn(Arc::clone(&delayed).run(shutdown.clone()));
        let held_up = schedule(&silent, "first").await;
        in_time(policy.0.notified()).await;
        schedule(&silent, "second").await;
        for body in ["one", "two"] {
            let delay_id = schedule(&other, body).await;
            assert!(in_time(sent(&world, &delay_id)).await.is_some(), "{body}");
        }
        let row = world.store.delayed(&held_up).await.unwrap().unwrap();
        assert_eq!(row.finalised_ts, None, "it waits still");
        shutdown.set();
        in_time(running).await.unwrap();
    }
}
