//! What there is in a run, and what is known of what was done in it: all of which the checker holds the servers against.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{host::Host, keys::Keys, network::Net, receipts::Mark, trace::note};

/// Somebody with an account.
pub(crate) struct Person {
    pub(crate) user_id: String,
    pub(crate) host: Arc<Host>,
    /// Of the device that acts.
    pub(crate) token: String,
    /// All devices that read.
    pub(crate) devices: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Room {
    pub(crate) room_id: String,
    pub(crate) creator: usize,
    pub(crate) visibility: &'static str,
    /// People are thrown out of it, and leave.
    pub(crate) rough: bool,
}

/// Something that a server has acknowledged.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) room: String,
    pub(crate) event: String,
    pub(crate) by: usize,
    /// What stands in a message.
    pub(crate) body: Option<String>,
}

#[derive(Default)]
pub(crate) struct Plot {
    pub(crate) rooms: Vec<Room>,
    pub(crate) sent: Vec<Sent>,
    /// Own events that their senders have redacted: room, target, redaction.
    pub(crate) redacted: Vec<(String, String, String)>,
    /// Messages to devices: to whom (user, device), from whom, and what.
    pub(crate) mail: Vec<(String, String, String, String)>,
    /// Who may have come near a room by anybody's doing: (user, room).
    pub(crate) near: BTreeSet<(String, String)>,
    /// What of it has come.
    pub(crate) delivered: BTreeSet<String>,
    /// The last account data that was acknowledged, by user and type.
    pub(crate) account_data: BTreeMap<(String, String), String>,
    /// What people said that they have read, acknowledged or not.
    pub(crate) marks: Vec<Mark>,
    pub(crate) keys: Keys,
}

pub(crate) struct World {
    pub(crate) net: Arc<Net>,
    pub(crate) hosts: Vec<Arc<Host>>,
    pub(crate) people: Mutex<Arc<Vec<Person>>>,
    pub(crate) plot: Mutex<Plot>,
    wrong: Mutex<Vec<String>>,
    chance: Mutex<StdRng>,
    /// How many of a thousand requests of clients have trouble.
    trouble: AtomicU32,
    over: AtomicBool,
}

impl World {
    pub(crate) fn new(seed: u64, net: Arc<Net>, hosts: Vec<Arc<Host>>) -> Arc<Self> {
        Arc::new(Self {
            net,
            hosts,
            people: Mutex::default(),
            plot: Mutex::default(),
            wrong: Mutex::default(),
            chance: Mutex::new(StdRng::seed_from_u64(seed)),
            trouble: AtomicU32::new(0),
            over: AtomicBool::new(false),
        })
    }

    /// One that nobody else gets, by the seed.
    pub(crate) fn number(&self) -> u64 {
        self.chance.lock().next_u64()
    }

    pub(crate) fn people(&self) -> Arc<Vec<Person>> {
        Arc::clone(&self.people.lock())
    }

    /// Something that must not be.
    pub(crate) fn wrong(&self, what: String) {
        note!("WRONG: {what}");
        self.wrong.lock().push(what);
    }

    pub(crate) fn all_wrong(&self) -> Vec<String> {
        self.wrong.lock().clone()
    }

    pub(crate) fn trouble(&self) -> u32 {
        self.trouble.load(Ordering::Relaxed)
    }

    pub(crate) fn set_trouble(&self, of_thousand: u32) {
        self.trouble.store(of_thousand, Ordering::Relaxed);
    }

    /// From now on readers read to the end and stop.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
