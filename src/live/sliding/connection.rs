//! The connections of devices: what each client has been told, so that it is told only what is new.
//!
//! An answer may get lost on its way, so it counts only once its `pos` comes back. Until then a connection is two things:
//! what its client has for sure, and what it will have if the last answer has reached it. A request with the `pos` of that
//! answer makes it certain; a request with the one before undoes it. All this is in memory and can be dropped at any
//! time: a client whose connection is gone is told so (`M_UNKNOWN_POS`) and begins anew. Only over a planned restart it is
//! kept ([`super::handover`]).

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::request::{Config, Fields, Wishes};
use crate::live::syncs::Place;

/// Connections of a device: the least lately used one goes for the next.
const OF_A_DEVICE: usize = 10;
/// Devices that have connections.
const DEVICES: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Rooms of all connections together, of some hundred bytes each.
const ROOMS: usize = 2_000_000;

/// What a client has been told of a room.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    /// The last event that it has heard of.
    pub(super) seq: i64,
    /// How many events it was given that have no gap behind them.
    pub(super) limit: usize,
    pub(super) config: Arc<Config>,
    /// Which of these it has up to date, see [`told`].
    pub(super) told: u8,
    pub(super) dm: bool,
    /// Whether the user was in the room.
    pub(super) joined: bool,
}

/// Bits of [`Sent::told`].
pub(super) mod told {
    /// Events, state and unread counts.
    pub(in crate::live::sliding) const EVENTS: u8 = 1;
    pub(in crate::live::sliding) const ACCOUNT_DATA: u8 = 2;
    pub(in crate::live::sliding) const RECEIPTS: u8 = 4;
    pub(in crate::live::sliding) const TYPING: u8 = 8;
    /// Those of the people in the room.
    pub(in crate::live::sliding) const PROFILES: u8 = 16;
}

/// What a client has.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) place: Place,
    pub(super) rooms: HashMap<i64, Sent>,
    pub(super) rest: Rest,
}

/// What a client has beside rooms.
#[derive(Clone, Debug, Default)]
pub(super) struct Rest {
    /// How many rooms each list had.
    pub(super) counts: BTreeMap<String, u64>,
    /// The order of rooms that `counts` are of.
    pub(super) counted: Option<u64>,
    /// The lists show all their rooms, and the client has all of them up to date, as long as the order has this version.
    pub(super) settled: Option<u64>,
    pub(super) wishes: Arc<Wishes>,
    /// It has all global account data.
    pub(super) account_data: bool,
    /// It has all thread subscriptions.
    pub(super) threads: bool,
    /// The position up to which it knows whose devices changed, once it has asked.
    pub(super) device_lists: Option<i64>,
    /// Which fields it has of the profiles that it was told, all up to date.
    pub(super) profiles: Option<Fields>,
}

/// What an answer adds to [`Known`].
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) place: Place,
    pub(super) rooms: HashMap<i64, Sent>,
    pub(super) rest: Rest,
    /// Messages to the device up to here are not to be told any more.
    pub(super) mail: i64,
}

impl Draft {
    pub(super) fn of(known: &Known) -> Self {
        Self { place: known.place, rooms: HashMap::new(), rest: known.rest.clone(), mail: 0 }
    }
}

struct State {
    known: Arc<Known>,
    /// The number of the answer that led to `known`.
    number: Option<u64>,
    pending: Option<(u64, Draft)>,
    /// Counts the requests: the last one is the one that is answered.
    turn: u64,
    /// What was asked of rooms, each once.
    configs: Vec<Arc<Config>>,
}

pub(super) struct Connection {
    conn_id: String,
    /// What [`crate::live::lazy::LazyMembers`] knows it by.
    pub(super) key: i64,
    state: Mutex<State>,
    /// Another request has come.
    pub(super) replaced: Notify,
}

/// A request's hold of its connection.
pub(super) struct Held {
    pub(super) connection: Arc<Connection>,
    pub(super) known: Arc<Known>,
    turn: u64,
}

impl Connection {
    fn new(conn_id: String, key: i64) -> Self {
        let place = Place { position: 0, mail: 0, fading: 0 };
        let known = Known { place, rooms: HashMap::new(), rest: Rest::default() };
        let state =
            State { known: Arc::new(known), number: None, pending: None, turn: 0, configs: Vec::new() };
        Self { conn_id, key, state: Mutex::new(state), replaced: Notify::new() }
    }

    /// One of the run before.
    pub(super) fn resumed(
        conn_id: String,
        key: i64,
        known: Known,
        number: Option<u64>,
        pending: Option<(u64, Draft)>,
        configs: Vec<Arc<Config>>,
    ) -> Self {
        let state = State { known: Arc::new(known), number, pending, turn: 0, configs };
        Self { conn_id, key, state: Mutex::new(state), replaced: Notify::new() }
    }

    pub(super) fn conn_id(&self) -> &str {
        &self.conn_id
    }

    /// What its client has, the number of the answer that led there, and the last answer.
    pub(super) fn with_state<T>(
        &self,
        look: impl FnOnce(&Known, Option<u64>, Option<&(u64, Draft)>) -> T,
    ) -> T {
        let state = self.state.lock();
        look(&state.known, state.number, state.pending.as_ref())
    }

    /// Goes on from the answer of that number.
    fn resume(self: &Arc<Self>, number: u64) -> Option<Held> {
        let held = {
            let state = &mut *self.state.lock();
            match state.pending.take() {
                Some((pending, draft)) if pending == number => {
                    let known = Arc::make_mut(&mut state.known);
                    known.place = draft.place;
                    known.rooms.extend(draft.rooms);
                    known.rest = draft.rest;
                    state.number = Some(number);
                }
                // The answer got lost: it never was.
                _ if state.number == Some(number) => {}
                pending => {
                    state.pending = pending;
                    return None;
                }
            }
            state.turn += 1;
            Held { connection: Arc::clone(self), known: Arc::clone(&state.known), turn: state.turn }
        };
        self.replaced.notify_waiters();
        Some(held)
    }

    pub(super) fn rooms(&self) -> usize {
        let state = self.state.lock();
        state.known.rooms.len() + state.pending.as_ref().map_or(0, |(_, draft)| draft.rooms.len())
    }

    /// Up to where its client has read for sure; of a new connection, what it was first told.
    fn position(&self) -> i64 {
        let state = self.state.lock();
        match (&state.number, &state.pending) {
            (None, Some((_, draft))) => draft.place.position,
            (None, None) => i64::MAX,
            (Some(_), _) => state.known.place.position,
        }
    }
}

impl Held {
    /// Whether no other request has come since.
    pub(super) fn is_current(&self) -> bool {
        self.connection.state.lock().turn == self.turn
    }

    /// The same configuration, as the connection keeps it: equal ones are one.
    pub(super) fn intern(&self, config: Config) -> Arc<Config> {
        let configs = &mut self.connection.state.lock().configs;
        if let Some(known) = configs.iter().find(|known| ***known == config) {
            return Arc::clone(known);
        }
        configs.retain(|config| Arc::strong_count(config) > 1);
        let config = Arc::new(config);
        configs.push(Arc::clone(&config));
        config
    }
}

/// All connections.
pub(super) struct Connections {
    devices: Mutex<LruCache<i64, Vec<Arc<Connection>>>>,
    /// Numbers of answers, of which there are never two with the same one.
    numbers: AtomicU64,
    keys: AtomicI64,
    rooms: Mutex<usize>,
}

impl Connections {
    /// The numbers of answers begin after `number`: best where those of another run don't come near.
    pub(super) fn new(number: u64) -> Self {
        Self {
            devices: Mutex::new(LruCache::new(DEVICES)),
            numbers: AtomicU64::new(number),
            keys: AtomicI64::new(0),
            rooms: Mutex::new(0),
        }
    }

    /// All connections, those of the devices that asked last first.
    pub(super) fn latest(&self) -> Vec<(i64, Arc<Connection>)> {
        let devices = self.devices.lock();
        let each = devices.iter().flat_map(|(device, connections)| {
            connections.iter().rev().map(|connection| (*device, Arc::clone(connection)))
        });
        each.collect()
    }

    /// Takes in a connection of the run before. Those that asked last come first, and are the last to go.
    pub(super) fn restore(&self, device: i64, connection: impl FnOnce(i64) -> Option<Connection>) {
        let key = self.keys.fetch_sub(1, Ordering::Relaxed) - 1;
        let Some(connection) = connection(key) else { return };
        let grown = connection.rooms();
        let connection = Arc::new(connection);
        {
            let mut devices = self.devices.lock();
            match devices.peek_mut(&device) {
                Some(connections) => connections.insert(0, connection),
                None => drop(devices.put(device, vec![connection])),
            }
            devices.demote(&device);
        }
        self.bound(grown);
    }

    /// A connection from its beginning. One of the same name is gone.
    pub(super) fn open(&self, device: i64, conn_id: &str) -> Held {
        let key = self.keys.fetch_sub(1, Ordering::Relaxed) - 1;
        let connection = Arc::new(Connection::new(conn_id.to_owned(), key));
        let mut devices = self.devices.lock();
        let connections = devices.get_or_insert_mut(device, Vec::new);
        connections.retain(|other| other.conn_id != conn_id);
        if connections.len() >= OF_A_DEVICE {
            connections.remove(0);
        }
        connections.push(Arc::clone(&connection));
        Held {
            known: Arc::clone(&connection.state.lock().known),
            connection: Arc::clone(&connection),
            turn: 0,
        }
    }

    /// A connection after the answer of that number; `None` if it isn't known, or is another one's.
    pub(super) fn resume(&self, device: i64, conn_id: &str, number: u64) -> Option<Held> {
        let connection = {
            let mut devices = self.devices.lock();
            let connections = devices.get_mut(&device)?;
            let at = connections.iter().position(|connection| connection.conn_id == conn_id)?;
            let connection = connections.remove(at);
            connections.push(Arc::clone(&connection));
            connection
        };
        connection.resume(number)
    }

    /// Up to where all connections of a device have read.
    pub(super) fn position(&self, device: i64) -> Option<i64> {
        let devices = self.devices.lock();
        let positions = devices.peek(&device)?.iter().map(|connection| connection.position());
        positions.min().filter(|position| *position < i64::MAX)
    }

    /// Writes down what a request is answered with, and gives the answer's number. `None` if another request has come
    /// since: nobody waits for this answer.
    pub(super) fn answer(&self, held: &Held, draft: Draft) -> Option<u64> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let grown = draft.rooms.len();
        {
            let mut state = held.connection.state.lock();
            if state.turn != held.turn {
                return None;
            }
            state.pending = Some((number, draft));
        }
        self.bound(grown);
        Some(number)
    }

    /// Forgets those that were used least lately, when there are more rooms than there may be.
    fn bound(&self, grown: usize) {
        // About: what is replaced counts again, until it is counted anew.
        let mut rooms = self.rooms.lock();
        *rooms += grown;
        if *rooms <= ROOMS {
            return;
        }
        let mut devices = self.devices.lock();
        let count =
            |connections: &[Arc<Connection>]| connections.iter().map(|one| one.rooms()).sum::<usize>();
        *rooms = devices.iter().map(|(_, connections)| count(connections)).sum();
        while *rooms > ROOMS / 2
            && let Some((_, connections)) = devices.pop_lru()
        {
            *rooms -= count(&connections);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(seq: i64) -> Sent {
        Sent { seq, limit: 1, config: Arc::default(), told: told::EVENTS, dm: false, joined: true }
    }

    fn draft(held: &Held, position: i64, rooms: &[(i64, i64)]) -> Draft {
        let mut draft = Draft::of(&held.known);
        draft.place.position = position;
        draft.rooms = rooms.iter().map(|(room, seq)| (*room, sent(*seq))).collect();
        draft
    }

    fn known(held: &Held) -> Vec<(i64, i64)> {
        let mut rooms: Vec<_> = held.known.rooms.iter().map(|(room, sent)| (*room, sent.seq)).collect();
        rooms.sort_unstable();
        rooms
    }

    #[test]
    fn an_answer_counts_once_its_pos_comes_back() {
        let connections = Connections::new(0);
        let held = connections.open(1, "a");
        let first = connections.answer(&held, draft(&held, 5, &[(1, 10)])).unwrap();
        let held = connections.resume(1, "a", first).unwrap();
        assert_eq!(known(&held), [(1, 10)]);
        let lost = connections.answer(&held, draft(&held, 9, &[(1, 11), (2, 3)])).unwrap();

        let held = connections.resume(1, "a", first).unwrap();
        assert_eq!((known(&held), held.known.place.position), (vec![(1, 10)], 5), "that answer never was");
        assert!(connections.resume(1, "a", lost).is_none(), "and can't be gone on from");
        let second = connections.answer(&held, draft(&held, 12, &[(2, 4)])).unwrap();
        let held = connections.resume(1, "a", second).unwrap();
        assert_eq!((known(&held), held.known.place.position), (vec![(1, 10), (2, 4)], 12));
        assert!(connections.resume(1, "a", first).is_none(), "what lies before is gone");
    }

    #[test]
    fn a_connection_belongs_to_one_device_and_name() {
        let connections = Connections::new(0);
        let held = connections.open(1, "a");
        let number = connections.answer(&held, draft(&held, 5, &[])).unwrap();
        for (device, name) in [(2, "a"), (1, "b"), (1, "")] {
            if device == 1 {
                connections.open(device, name);
            }
            assert!(connections.resume(device, name, number).is_none());
        }
        assert!(connections.resume(1, "a", number + 1).is_none() && connections.resume(1, "a", 0).is_none());
        assert!(connections.resume(1, "a", number).is_some());
    }

    #[test]
    fn the_last_request_is_the_one_that_is_answered() {
        let connections = Connections::new(0);
        let held = connections.open(1, "a");
        let number = connections.answer(&held, draft(&held, 5, &[])).unwrap();
        let one = connections.resume(1, "a", number).unwrap();
        let other = connections.resume(1, "a", number).unwrap();
        assert!(!one.is_current() && other.is_current());
        assert!(connections.answer(&one, draft(&one, 6, &[])).is_none());
        assert!(connections.answer(&other, draft(&other, 6, &[])).is_some());
    }

    /// I8
    #[test]
    fn a_device_has_a_bounded_number_of_connections() {
        let connections = Connections::new(0);
        let numbers: Vec<u64> = (0..=OF_A_DEVICE)
            .map(|name| {
                let held = connections.open(1, &name.to_string());
                connections.answer(&held, draft(&held, 5, &[])).unwrap()
            })
            .collect();
        assert!(connections.resume(1, "0", numbers[0]).is_none(), "the first one made room");
        assert!(connections.resume(1, "1", numbers[1]).is_some());
    }

    /// I8
    #[test]
    fn rooms_of_all_connections_are_bounded() {
        let connections = Connections::new(0);
        let mut numbers = Vec::new();
        for device in 1..=3 {
            let held = connections.open(device, "");
            let rooms: Vec<(i64, i64)> = (0..ROOMS as i64 / 2).map(|room| (room, 1)).collect();
            numbers.push(connections.answer(&held, draft(&held, 5, &rooms)).unwrap());
        }
        assert!(connections.resume(1, "", numbers[0]).is_none());
        assert!(connections.resume(3, "", numbers[2]).is_some());
    }
}
