//! What the tests share: a clock of their own, and peers with keys.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use hearth_federation::{Clock, SigningKey, own_server_keys};
use ruma::{MilliSecondsSinceUnixEpoch, ServerName, UInt};

/// A clock that stands still until it is moved.
#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1_700_000_000_000)))
    }

    pub(crate) fn now(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::new_saturating(self.0.load(Ordering::SeqCst)))
    }

    pub(crate) fn advance_seconds(&self, seconds: u64) {
        self.0.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self) -> Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

pub(crate) fn key(version: &str) -> SigningKey {
    let mut seed = [3; 32];
    seed[..version.len()].copy_from_slice(version.as_bytes());
    SigningKey::new(version, seed).unwrap()
}

/// The document that a server with these keys publishes; valid for a day.
pub(crate) fn document(server: &ServerName, keys: &[&SigningKey], clock: &TestClock) -> String {
    own_server_keys(server, keys, &[], clock.now())
}
