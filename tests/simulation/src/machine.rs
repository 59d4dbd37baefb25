//! The machine that a server runs on: its clock, its randomness, and how long its work takes. One for each life of a server,
//! so that what is left of a life that has ended waits for ever at the next thing that it wants to do.

use std::{
    future::pending,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use hearth::testing::simulation::{Clock, Entropy, Environment, Machine, Network, Work, in_step};
use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::sleep;

use crate::{network::Way, os, trace};

/// The first of January 2027.
const BEGINNING_MS: i64 = 1_798_761_600_000;

pub(crate) struct Body {
    way: Arc<Way>,
    dead: Arc<AtomicBool>,
    chance: Mutex<StdRng>,
    /// How many times as slow as usual the disk is.
    slowness: Arc<AtomicU64>,
}

impl Body {
    pub(crate) fn new(seed: u64, way: Arc<Way>, slowness: Arc<AtomicU64>) -> Arc<Self> {
        let dead = Arc::clone(&way.dead);
        Arc::new(Self { way, dead, chance: Mutex::new(StdRng::seed_from_u64(seed)), slowness })
    }

    /// From now on nothing that is at work on it goes on.
    pub(crate) fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
    }

    pub(crate) fn environment(self: &Arc<Self>, seed: u64, skew_ms: i64) -> Environment {
        Environment {
            clock: Arc::new(Skewed(skew_ms)),
            entropy: Arc::new(Seeded(Mutex::new(StdRng::seed_from_u64(seed)))),
            machine: Some(Arc::<Self>::clone(self)),
        }
    }
}

impl Machine for Body {
    fn file_system(&self) -> &str {
        os::FILE_SYSTEM
    }

    fn network(&self) -> Arc<dyn Network> {
        Arc::<Way>::clone(&self.way)
    }

    fn pause(&self, work: Work) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        assert!(work != Work::Calculating || !in_step(), "I6: much is calculated while a room waits");
        let mut chance = self.chance.lock();
        let ms = match work {
            Work::Reading if chance.random_range(0..4) > 0 => 0,
            Work::Reading => chance.random_range(0..4),
            Work::Writing => chance.random_range(0..12) * self.slowness.load(Ordering::Relaxed),
            Work::Calculating => chance.random_range(0..20),
        };
        let dead = Arc::clone(&self.dead);
        Box::pin(async move {
            if ms > 0 {
                sleep(Duration::from_millis(ms)).await;
            }
            if dead.load(Ordering::SeqCst) {
                pending::<()>().await;
            }
        })
    }
}

struct Skewed(i64);

impl Clock for Skewed {
    fn now_ms(&self) -> i64 {
        BEGINNING_MS + trace::now() as i64 + self.0
    }
}

struct Seeded(Mutex<StdRng>);

impl Entropy for Seeded {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().fill_bytes(bytes);
    }
}
