//! What each message to a user asks of their account data, kept in memory.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
};

use lru::LruCache;
use parking_lot::Mutex;

use crate::store;

/// Users of whom it is kept.
const USERS: usize = 4_096;

pub(super) struct Kept<T> {
    values: Mutex<LruCache<i64, T>>,
    /// Counts the changes, so that what was read before one is not kept after it.
    changes: AtomicU64,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { values: Mutex::new(LruCache::unbounded()), changes: AtomicU64::new(0) }
    }
}

impl<T: Clone> Kept<T> {
    /// What is kept of a user, or else what `read` finds.
    pub(super) async fn get(
        &self,
        recipient: i64,
        read: impl Future<Output = Result<T, store::Error>>,
    ) -> Result<T, store::Error> {
        if let Some(value) = self.values.lock().get(&recipient) {
            return Ok(value.clone());
        }
        let changes = self.changes.load(Ordering::Acquire);
        let value = read.await?;
        let mut values = self.values.lock();
        if self.changes.load(Ordering::Acquire) == changes {
            values.put(recipient, value.clone());
            if values.len() > USERS {
                values.pop_lru();
            }
        }
        Ok(value)
    }

    pub(super) fn forget(&self, recipient: i64) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.values.lock().pop(&recipient);
    }
}
