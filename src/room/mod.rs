//! Rooms: the log of each room, its state, and what its members may see of it.
//!
//! A [`Room`] is loaded when somebody asks for it and can be dropped at any time: the database has all of it. There is
//! never more than one of the same room in memory, because its writer orders the log.

mod acl;
mod backfill;
mod cache;
mod client_event;
mod content;
mod create;
pub mod delayed;
mod departures;
mod directory;
mod doubt;
mod entering;
mod entry;
mod error;
mod event;
#[cfg(test)]
mod fairness_tests;
mod fan_out;
#[cfg(test)]
mod fault_tests;
mod filter;
mod forks;
mod guests;
mod handed;
mod history;
mod membership;
mod messages;
pub mod notices;
mod outliers;
mod policy_server;
mod prefetch;
mod preview;
#[cfg(test)]
mod random_tests;
mod receive;
#[cfg(test)]
pub mod received_tests;
mod relations;
pub mod retention;
#[cfg(test)]
mod retention_tests;
mod search;
mod send;
mod served;
#[cfg(test)]
mod served_tests;
mod snapshot;
mod spaces;
mod summary;
#[cfg(test)]
mod synced_tests;
#[cfg(test)]
pub mod tests;
mod upgrade;
mod visibility;
mod work;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use hearth_federation::SigningKey;
use lru::LruCache;
use parking_lot::{Mutex, RwLock};
use ruma::{
    EventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, events::StateEventType,
};
use serde_json::value::RawValue;
use tokio::sync::{
    Notify,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

pub use self::{
    acl::acl_allows,
    backfill::{Chunk, Hole, leading_to},
    client_event::Reader,
    create::{NewRoom, Preset},
    directory::{PublicRoom, PublicRooms, Search},
    entry::{Entry, Hearsay, last_after_hole},
    error::{Error, NO_EVENT},
    event::Event,
    filter::{EventFilter, Fields, LazyMembers, RelationFilter, listed, type_matches},
    history::{Direction, Page, Paging},
    outliers::Given,
    policy_server::{AskPolicy, Refusal},
    preview::Preview,
    receive::Outcome,
    relations::{Listing, RECURSION},
    retention::Lifetimes,
    search::{GroupBy, Match, Order, Query, Searched},
    send::reason,
    served::{MOST_MISSING, MOST_SERVED},
    snapshot::{LocalMember, STRIPPED, Snapshot, State, said},
    spaces::{Elsewhere, Hierarchy, SpaceRoom},
    summary::summary,
    visibility::{Sight, View},
    writer::{Appended, NewEvent, Txn},
};
use self::{
    cache::EventCache, entering::Entering, error::NOT_A_MEMBER, retention::Horizons, snapshot::Extremity,
    spaces::Walks, writer::Inbox,
};
use crate::{account::Accounts, environment::Environment, outbound::Destinations, store::Store};

/// Rooms kept in memory though nobody uses them at the moment.
const RECENT: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// Rooms that are loaded at a time share these locks.
const LOADING: usize = 64;

/// What this server allows its users beyond the rules of rooms.
#[derive(Clone, Debug)]
pub struct Policy {
    pub default_version: RoomVersionId,
    pub max_members: usize,
    pub max_text_chars: usize,
    /// Whether new rooms may have members on other servers.
    pub federate: bool,
    /// The account of server notices.
    pub notices: Option<OwnedUserId>,
    /// How long history is kept; `None`: for ever, whatever rooms say.
    pub retention: Option<Lifetimes>,
}

/// What all rooms share.
struct Core {
    store: Store,
    accounts: Arc<Accounts>,
    environment: Environment,
    destinations: Arc<Destinations>,
    server_name: OwnedServerName,
    key: Arc<SigningKey>,
    policy: Policy,
    events: EventCache,
    /// Somebody has to be seen off.
    departing: Notify,
    horizons: Horizons,
    ask_policy: OnceLock<Arc<dyn AskPolicy>>,
    arrivals: Mutex<Vec<UnboundedSender<Arrivals>>>,
    arrived: OnceLock<Arc<AtomicU64>>,
}

/// Who was in a room and who is after a write: people here, and other servers with their numbers as recipients.
#[derive(Clone, Debug)]
pub struct Arrivals {
    pub room: i64,
    /// The position of the write.
    pub position: i64,
    pub before: Present,
    pub after: Present,
}

impl Arrivals {
    /// The servers that weren't in the room before.
    pub fn new_servers(&self) -> impl Iterator<Item = &(i64, OwnedServerName)> {
        let known = &self.before.remote;
        self.after.remote.iter().filter(|(number, _)| known.iter().all(|(known, _)| known != number))
    }
}

/// Who is in a room.
#[derive(Clone, Debug)]
pub struct Present {
    pub local: Arc<Vec<LocalMember>>,
    pub remote: Arc<Vec<(i64, OwnedServerName)>>,
}

impl Present {
    fn of(snapshot: &Snapshot) -> Self {
        Self { local: Arc::clone(&snapshot.local), remote: Arc::clone(&snapshot.remote) }
    }
}

/// The version of a room. As long as nobody here has been in it, that is what somebody said who invited to it.
pub struct Version {
    said: RoomVersionId,
    /// If it was found to be another.
    found: OnceLock<RoomVersionId>,
}

impl std::ops::Deref for Version {
    type Target = RoomVersionId;

    fn deref(&self) -> &RoomVersionId {
        self.found.get().unwrap_or(&self.said)
    }
}

#[expect(clippy::struct_field_names, reason = "the specification's name")]
pub struct Room {
    pub number: i64,
    pub room_id: OwnedRoomId,
    pub version: Version,
    current: RwLock<Arc<Snapshot>>,
    inbox: Mutex<Inbox>,
}

impl Room {
    fn new(snapshot: Snapshot) -> Self {
        Self {
            number: snapshot.number,
            room_id: snapshot.room_id.clone(),
            version: Version { said: snapshot.version.clone(), found: OnceLock::new() },
            current: RwLock::new(Arc::new(snapshot)),
            inbox: Mutex::default(),
        }
    }

    /// The room as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.read())
    }

    fn adopt(&self, snapshot: Snapshot) {
        if snapshot.version != *self.version {
            // It is found out when somebody enters, and that once.
            let _ = self.version.found.set(snapshot.version.clone());
        }
        *self.current.write() = Arc::new(snapshot);
    }
}

struct Registry {
    rooms: HashMap<i64, Weak<Room>>,
    recent: LruCache<i64, Arc<Room>>,
    numbers: LruCache<OwnedRoomId, i64>,
}

/// All rooms.
pub struct Rooms {
    core: Arc<Core>,
    registry: Mutex<Registry>,
    loading: Vec<tokio::sync::Mutex<()>>,
    last_number: AtomicI64,
    /// When the last room was created, in Unix milliseconds.
    last_created: AtomicI64,
    walks: Walks,
    /// Rooms of other servers are made one after the other, so that none is made twice.
    making: tokio::sync::Mutex<()>,
    entering: Entering,
    /// Whoever indexes messages does it alone.
    indexing: tokio::sync::Mutex<()>,
    /// Rooms that are being upgraded.
    upgrading: Mutex<HashSet<i64>>,
}

impl Rooms {
    pub async fn new(
        store: Store,
        accounts: Arc<Accounts>,
        environment: Environment,
        destinations: Arc<Destinations>,
        server_name: OwnedServerName,
        key: Arc<SigningKey>,
        policy: Policy,
    ) -> Result<Self, Error> {
        let last_number = AtomicI64::new(store.last_room().await?);
        let core = Core {
            store,
            accounts,
            environment,
            destinations,
            server_name,
            key,
            policy,
            events: EventCache::new(),
            departing: Notify::new(),
            horizons: Horizons::new(),
            ask_policy: OnceLock::new(),
            arrivals: Mutex::default(),
            arrived: OnceLock::new(),
        };
        let registry = Registry {
            rooms: HashMap::new(),
            recent: LruCache::new(RECENT),
            numbers: LruCache::new(RECENT.saturating_mul(NonZeroUsize::MIN.saturating_add(7))),
        };
        Ok(Self {
            core: Arc::new(core),
            registry: Mutex::new(registry),
            loading: (0..LOADING).map(|_| tokio::sync::Mutex::new(())).collect(),
            last_number,
            last_created: AtomicI64::new(0),
            walks: Walks::new(),
            making: tokio::sync::Mutex::default(),
            entering: Entering::default(),
            indexing: tokio::sync::Mutex::default(),
            upgrading: Mutex::default(),
        })
    }

    pub fn policy(&self) -> &Policy {
        &self.core.policy
    }

    /// Word of rooms that other people here or other servers are in than before, from now on and after the commit.
    pub fn arrivals(&self) -> UnboundedReceiver<Arrivals> {
        let (sender, arrivals) = unbounded_channel();
        self.core.arrivals.lock().push(sender);
        arrivals
    }

    /// Counts the same there, before any later commit. The first that is given counts.
    pub fn count_arrivals_in(&self, count: Arc<AtomicU64>) {
        let _ = self.core.arrived.set(count);
    }

    /// The number of a room that this server knows.
    pub async fn number(&self, room_id: &RoomId) -> Result<i64, Error> {
        if let Some(number) = self.registry.lock().numbers.get(room_id) {
            return Ok(*number);
        }
        let row = self.core.store.room_by_id(room_id.as_str()).await?;
        let row = row.ok_or(Error::NotFound("this server doesn't know the room"))?;
        self.registry.lock().numbers.put(room_id.to_owned(), row.number);
        Ok(row.number)
    }

    pub async fn by_id(&self, room_id: &RoomId) -> Result<Arc<Room>, Error> {
        self.by_number(self.number(room_id).await?).await
    }

    pub async fn by_number(&self, number: i64) -> Result<Arc<Room>, Error> {
        if let Some(room) = self.in_memory(number) {
            return Ok(room);
        }
        // While a room is loaded nobody else loads it: one that is in use could change in between.
        let _loading = self.loading[number as usize % LOADING].lock().await;
        if let Some(room) = self.in_memory(number) {
            return Ok(room);
        }
        let snapshot = self.core.load(number).await?;
        Ok(self.register(Arc::new(Room::new(snapshot))))
    }

    /// A room to read and then to drop: it isn't kept in memory for others, and nothing may be appended to it. For those
    /// who go through many rooms.
    pub async fn by_number_once(&self, number: i64) -> Result<Arc<Room>, Error> {
        if let Some(room) = self.in_memory(number) {
            return Ok(room);
        }
        Ok(Arc::new(Room::new(self.core.load(number).await?)))
    }

    /// A room, if it is in memory at the moment.
    fn if_in_memory(&self, room_id: &RoomId) -> Option<Arc<Room>> {
        let number = *self.registry.lock().numbers.get(room_id)?;
        self.in_memory(number)
    }

    fn in_memory(&self, number: i64) -> Option<Arc<Room>> {
        let mut registry = self.registry.lock();
        if let Some(room) = registry.recent.get(&number) {
            return Some(Arc::clone(room));
        }
        let room = registry.rooms.get(&number)?.upgrade()?;
        registry.recent.put(number, Arc::clone(&room));
        Some(room)
    }

    fn register(&self, room: Arc<Room>) -> Arc<Room> {
        let mut registry = self.registry.lock();
        if registry.rooms.len() > 4 * RECENT.get() {
            registry.rooms.retain(|_, room| room.strong_count() > 0);
        }
        registry.rooms.insert(room.number, Arc::downgrade(&room));
        registry.numbers.put(room.room_id.clone(), room.number);
        registry.recent.put(room.number, Arc::clone(&room));
        room
    }

    fn next_number(&self) -> i64 {
        self.last_number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Appends events to a room's log, all or none. What is returned is durable.
    pub async fn append(
        &self,
        room: &Arc<Room>,
        events: Vec<NewEvent>,
        txn: Option<Txn>,
    ) -> Result<Vec<Appended>, Error> {
        if room.snapshot().policy_server().is_some() {
            return Box::pin(self.append_by_policy(room, events, txn)).await;
        }
        writer::append(&self.core, room, events, txn, None).await
    }

    /// [`Self::append`] for one event.
    pub async fn append_one(
        &self,
        room: &Arc<Room>,
        event: NewEvent,
        txn: Option<Txn>,
    ) -> Result<Appended, Error> {
        let appended = self.append(room, vec![event], txn).await?;
        appended.into_iter().next().ok_or_else(|| Error::Internal("nothing was appended".to_owned()))
    }

    /// The rooms that have an event of this id: of versions 1 and 2 there may be several.
    pub async fn of_event(&self, event_id: &EventId) -> Result<Vec<Arc<Room>>, Error> {
        let mut rooms = Vec::new();
        for number in self.core.store.rooms_of_event(event_id.as_str()).await? {
            rooms.push(self.by_number(number).await?);
        }
        Ok(rooms)
    }

    /// The events with these `seq`, in their order; those that don't exist are left out.
    pub async fn events(&self, room: &Room, seqs: &[i64]) -> Result<Vec<Arc<Event>>, Error> {
        self.core.events(room.number, &room.version, seqs).await
    }

    /// An event of this room by its id.
    pub async fn event(&self, room: &Room, event_id: &EventId) -> Result<Arc<Event>, Error> {
        self.core.event_in(room.number, &room.version, event_id).await
    }

    /// The time by which the ages of events count, in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.core.environment.clock.now_ms()
    }

    /// The state after event `at`.
    pub async fn state_at(&self, room: &Room, at: i64) -> Result<State, Error> {
        let current = room.snapshot();
        if at >= current.last_seq {
            return Ok(current.state.clone());
        }
        if current.last_silent > at {
            let rows = self.core.store.state_events_at(room.number, at).await?;
            return rows
                .into_iter()
                .map(|row| Event::from_stored(row, &room.version).map(Arc::new))
                .collect();
        }
        // What is under a key once is never gone, but for resolution. So only the keys that have changed since are asked
        // for, and the age of the room costs nothing.
        let (kept, changed): (Vec<_>, Vec<_>) = current.state.iter().partition(|event| event.seq <= at);
        let keys: Vec<(StateEventType, &str)> = changed
            .into_iter()
            .filter_map(|event| {
                let (kind, state_key) = event.pdu.state()?;
                Some((StateEventType::from(kind.to_string()), state_key))
            })
            .collect();
        let questions = keys.iter().map(|(kind, state_key)| (kind, *state_key, at));
        let before = self.core.states_at(room, questions).await?;
        Ok(kept.into_iter().cloned().chain(before.into_iter().flatten()).collect())
    }
}

impl Core {
    /// A room is about to become this.
    fn note_arrivals(&self, room: &Room, after: &Snapshot) {
        let (room, before) = (room.number, room.snapshot());
        if Arc::ptr_eq(&before.local, &after.local) && Arc::ptr_eq(&before.remote, &after.remote) {
            return;
        }
        if let Some(count) = self.arrived.get() {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let listeners = self.arrivals.lock();
        if !listeners.is_empty() && !after.local.is_empty() && !after.remote.is_empty() {
            let (position, before, after) = (after.position, Present::of(&before), Present::of(after));
            for listener in listeners.iter() {
                let (before, after) = (before.clone(), after.clone());
                // Nobody listens any more: the server ends.
                let _ = listener.send(Arrivals { room, position, before, after });
            }
        }
    }

    async fn events(
        &self,
        room: i64,
        version: &RoomVersionId,
        seqs: &[i64],
    ) -> Result<Vec<Arc<Event>>, Error> {
        let (mut found, missing) = self.events.get(room, seqs);
        if !missing.is_empty() {
            for row in self.store.events(room, &missing).await? {
                let event = Arc::new(Event::from_stored(row, version)?);
                self.events.insert_read(room, Arc::clone(&event));
                found.push(event);
            }
            let place: HashMap<i64, usize> = seqs.iter().enumerate().map(|(at, seq)| (*seq, at)).collect();
            found.sort_by_key(|event| place.get(&event.seq).copied());
        }
        Ok(found)
    }

    /// Every event that ever was the state under a key, with the `seq` at which it took effect, oldest first; none where
    /// there was nothing under it any more.
    async fn changes(
        &self,
        room: &Room,
        kind: &StateEventType,
        state_key: &str,
    ) -> Result<Vec<(i64, Option<Arc<Event>>)>, Error> {
        let rows = self.store.state_history(room.number, &kind.to_string(), state_key).await?;
        let seqs: Vec<i64> = rows.iter().map(|(_, event)| *event).collect();
        let events = self.events(room.number, &room.version, &seqs).await?;
        let events: HashMap<i64, Arc<Event>> = events.into_iter().map(|event| (event.seq, event)).collect();
        let changes = rows.into_iter().map(|(seq, event)| (seq, events.get(&event).cloned()));
        Ok(changes.collect())
    }

    async fn event_in(
        &self,
        room: i64,
        version: &RoomVersionId,
        event_id: &EventId,
    ) -> Result<Arc<Event>, Error> {
        // Mostly one that has just been sent: it is read, answered, reacted to, edited.
        if let Some(event) = self.events.find(room, event_id) {
            return Ok(event);
        }
        let row = self.store.event_by_id(room, event_id.as_str()).await?;
        let row = row.ok_or(Error::NotFound(NO_EVENT))?;
        Ok(Arc::new(Event::from_stored(row, version)?))
    }

    async fn load(&self, number: i64) -> Result<Snapshot, Error> {
        let row = self.store.room(number).await?.ok_or(Error::NotFound("there is no such room"))?;
        let damaged = |cause: String| Error::Damaged { room: number, seq: 0, cause };
        let version = RoomVersionId::try_from(row.version).map_err(|cause| damaged(cause.to_string()))?;
        let room_id = OwnedRoomId::try_from(row.room_id).map_err(|cause| damaged(cause.to_string()))?;
        let mut snapshot = Snapshot::empty(number, room_id, version)?;
        (snapshot.last_seq, snapshot.position, snapshot.arrived) = self.store.last_event(number).await?;
        let extremities = self.store.extremities(number).await?;
        let extremities = extremities.into_iter().map(|row| Event::from_stored(row, &snapshot.version));
        let extremities: Vec<Event> = extremities.collect::<Result<_, _>>()?;
        snapshot.depth = extremities.iter().map(|event| event.pdu.depth).max().unwrap_or(0);
        let end =
            |event: Event| Extremity { seq: event.seq, depth: event.pdu.depth, event_id: event.pdu.event_id };
        snapshot.extremities = extremities.into_iter().map(end).collect();
        snapshot.last_silent = self.store.last_silent_change(number).await?;
        let holes = self.store.holes(number).await?.into_iter().rev();
        snapshot.holes = holes.map(|hole| (hole.floor, hole.seq)).collect();
        let lacking = self.store.lacking_state(number).await?;
        let lacking = lacking.into_iter().filter_map(|(id, since)| Some((id.try_into().ok()?, since)));
        snapshot.lacking = Arc::new(lacking.collect());
        snapshot.outliers = self.store.last_outlier(number).await?;
        if let Some(hearsay) = self.store.hearsay(number).await? {
            let hearsay = serde_json::from_str::<Vec<Box<RawValue>>>(&hearsay);
            snapshot.hearsay = Some(hearsay.map_err(|cause| damaged(cause.to_string()))?.into());
        }
        (snapshot.last_relation, snapshot.early_relations) = self.store.relations_extent(number).await?;
        snapshot.early_redactions = self.store.has_held_redactions(number).await?;
        let state = self.store.state_events_at(number, snapshot.last_seq).await?;
        let state = state.into_iter().map(|row| Event::from_stored(row, &snapshot.version).map(Arc::new));
        snapshot.enter(state.collect::<Result<_, _>>()?);
        let local = self.store.local_members(number).await?.into_iter();
        let local = local.filter_map(|(recipient, user_id)| {
            Some(LocalMember { recipient, user_id: user_id.try_into().ok()? })
        });
        snapshot.local = Arc::new(local.collect());
        for server in snapshot.servers_of_members(&self.server_name) {
            let number = self.destinations.number(&server).await?;
            snapshot.set_remote(number, &server, true);
        }
        Ok(snapshot)
    }
}
