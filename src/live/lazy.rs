//! Which members' events a device already has, under lazy loading. Forgetting costs nothing but saying it again.
//!
//! An answer may get lost on its way. So a member counts as told only for requests from the end of that answer on: who
//! asks once more from before it is told once more.

use std::{collections::HashMap, num::NonZeroUsize};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

/// Rooms of devices.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

pub(super) struct LazyMembers(Mutex<LruCache<(i64, i64), HashMap<OwnedUserId, i64>>>);

impl LazyMembers {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// Whether a device that has seen everything up to position `from` has to be told about a member. If so, it counts as
    /// told by the answer that ends at position `to`.
    pub(super) fn is_news(&self, device: i64, room: i64, user_id: &UserId, (from, to): (i64, i64)) -> bool {
        let mut told = self.0.lock();
        let told = told.get_or_insert_mut((device, room), HashMap::new);
        if told.get(user_id).is_some_and(|told| *told <= from) {
            return false;
        }
        told.insert(user_id.to_owned(), to);
        true
    }

    /// A device that starts over has nothing.
    pub(super) fn forget(&self, device: i64, room: i64) {
        self.0.lock().pop(&(device, room));
    }
}
