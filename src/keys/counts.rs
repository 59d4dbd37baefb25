//! How many keys of each device are left, for `/sync`. What was counted is kept in memory until it changes.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lru::LruCache;
use parking_lot::Mutex;
use serde::Serialize;

use super::{Error, Keys};
use crate::store::Batch;

/// Devices of which it is kept.
const KEPT: usize = 65_536;

/// Devices share counters of changes, so that one that changes makes few others be counted again.
const SHARDS: usize = 64;

/// The algorithm that clients use today: it is named when there is nothing left of it, too.
const USUAL: &str = "signed_curve25519";

/// What of a device's keys is left.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Left {
    /// One-time keys by algorithm (`device_one_time_keys_count`).
    #[serde(rename = "device_one_time_keys_count")]
    pub one_time: BTreeMap<String, u64>,
    /// Algorithms whose fallback key was never handed out (`device_unused_fallback_key_types`).
    #[serde(rename = "device_unused_fallback_key_types")]
    pub unused_fallback: Vec<String>,
}

pub(super) struct KeyCounts {
    known: Mutex<LruCache<i64, Arc<Left>>>,
    /// Counts changes, so that what was read before one is not kept after it.
    changes: [AtomicU64; SHARDS],
}

impl Default for KeyCounts {
    fn default() -> Self {
        let changes = std::array::from_fn(|_| AtomicU64::new(0));
        Self { known: Mutex::new(LruCache::unbounded()), changes }
    }
}

fn shard(device: i64) -> usize {
    device.unsigned_abs() as usize % SHARDS
}

impl KeyCounts {
    pub(super) fn forget(&self, devices: &[i64]) {
        for device in devices {
            self.changes[shard(*device)].fetch_add(1, Ordering::AcqRel);
            self.known.lock().pop(device);
        }
    }

    /// When the batch is durable, these devices are to be counted anew.
    pub(super) fn forget_on_commit(self: &Arc<Self>, batch: &mut Batch, devices: Vec<i64>) {
        if !devices.is_empty() {
            let counts = Arc::clone(self);
            batch.on_commit(move |_| counts.forget(&devices));
        }
    }
}

impl Keys {
    /// What is left of a device's keys. Mostly costs nothing.
    pub async fn left(&self, device: i64) -> Result<Arc<Left>, Error> {
        if let Some(left) = self.counts.known.lock().get(&device) {
            return Ok(Arc::clone(left));
        }
        let changes = self.counts.changes[shard(device)].load(Ordering::Acquire);
        let mut left = Left::default();
        left.one_time.insert(USUAL.to_owned(), 0);
        left.one_time.extend(self.store.count_one_time_keys(device).await?);
        left.unused_fallback = self.store.unused_fallback_keys(device).await?;
        let left = Arc::new(left);
        let mut known = self.counts.known.lock();
        if self.counts.changes[shard(device)].load(Ordering::Acquire) == changes {
            known.put(device, Arc::clone(&left));
            if known.len() > KEPT {
                known.pop_lru();
            }
        }
        Ok(left)
    }
}
