//! Which members' events a device already has, under lazy loading. Forgetting costs nothing but saying it again.

use std::{collections::HashSet, num::NonZeroUsize};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{OwnedUserId, UserId};

/// Rooms of devices.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

pub(super) struct LazyMembers(Mutex<LruCache<(i64, i64), HashSet<OwnedUserId>>>);

impl LazyMembers {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }

    /// Whether the device has to be told about a member; after this call it counts as told.
    pub(super) fn is_news(&self, device: i64, room: i64, user_id: &UserId) -> bool {
        let mut told = self.0.lock();
        let told = told.get_or_insert_mut((device, room), HashSet::new);
        !told.contains(user_id) && told.insert(user_id.to_owned())
    }

    /// A device that starts over has nothing.
    pub(super) fn forget(&self, device: i64, room: i64) {
        self.0.lock().pop(&(device, room));
    }
}
