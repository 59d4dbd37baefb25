//! Events that were read or written lately, so that delivering a new event to its readers costs no database work.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;

use super::Event;

/// Ordinary events take about two kilobytes here.
const EVENTS: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

pub(super) struct EventCache(Mutex<LruCache<(i64, i64), Arc<Event>>>);

impl EventCache {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(EVENTS)))
    }

    pub(super) fn insert(&self, room: i64, event: Arc<Event>) {
        self.0.lock().put((room, event.seq), event);
    }

    /// The events that are here, and the `seq` of those that aren't.
    pub(super) fn get(&self, room: i64, seqs: &[i64]) -> (Vec<Arc<Event>>, Vec<i64>) {
        let mut cache = self.0.lock();
        let (mut found, mut missing) = (Vec::with_capacity(seqs.len()), Vec::new());
        for seq in seqs {
            match cache.get(&(room, *seq)) {
                Some(event) => found.push(Arc::clone(event)),
                None => missing.push(*seq),
            }
        }
        (found, missing)
    }
}
