//! Reading a device's mailbox, and taking out of it what the device has.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use super::ToDevice;
use crate::store::{self, to_device::delete_messages};

/// Messages that are handed out at a time (TD-02), and bytes of them.
pub const PAGE: usize = 100;
const BYTES: usize = 1024 * 1024;

/// Devices of which it is known what they have acknowledged.
const DEVICES: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// The next messages of a mailbox.
#[derive(Debug, Default)]
pub struct Page {
    pub messages: Vec<Box<RawValue>>,
    /// All up to here is in this page or one before. What lies above is for the next.
    pub up_to: i64,
}

/// How far devices have said that they have what they were handed.
pub(super) struct Acknowledged(Mutex<LruCache<i64, Seen>>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Nothing above was handed out.
    handed: i64,
    /// Nothing at or below is there any more.
    acknowledged: i64,
}

impl Acknowledged {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(DEVICES)))
    }

    /// Messages up to a position are handed out to a device.
    fn hand(&self, device: i64, up_to: i64) {
        if let Some(seen) = self.0.lock().get_mut(&device) {
            seen.handed = seen.handed.max(up_to);
        }
    }

    /// Whether there may be something that a device which has all up to a position no longer needs.
    fn is_owed(&self, device: i64, up_to: i64) -> bool {
        let mut seen = self.0.lock();
        seen.get(&device).is_none_or(|seen| seen.handed.min(up_to) > seen.acknowledged)
    }

    /// All up to a position is gone. Of a device that wasn't known, anything that there is may have been handed out.
    fn acknowledge(&self, device: i64, up_to: i64, head: impl FnOnce() -> i64) {
        let mut seen = self.0.lock();
        let seen = seen.get_or_insert_mut(device, || Seen { handed: head(), acknowledged: 0 });
        seen.acknowledged = seen.acknowledged.max(up_to);
    }
}

impl ToDevice {
    /// The next messages for a device after a position and up to another, at most `limit`.
    pub async fn page(&self, device: i64, after: i64, to: i64, limit: usize) -> Result<Page, store::Error> {
        if after >= to {
            return Ok(Page { up_to: to, ..Page::default() });
        }
        let limit = limit.clamp(1, PAGE);
        let mut rows = self.store.messages(device, after, to, limit as i64 + 1).await?;
        let mut bytes = 0;
        let fits = rows.iter().take(limit).take_while(|row| {
            let first = bytes == 0;
            bytes += row.message.len();
            first || bytes <= BYTES
        });
        let fits = fits.count();
        let whole = fits == rows.len();
        rows.truncate(fits);
        let up_to = rows.last().filter(|_| !whole).map_or(to, |last| last.position);
        if let Some(last) = rows.last() {
            self.acknowledged.hand(device, last.position);
        }
        // What was put in is JSON.
        let messages = rows.into_iter().filter_map(|row| RawValue::from_string(row.message).ok()).collect();
        Ok(Page { messages, up_to })
    }

    /// A device has all up to a position: that goes (TD-01). Costs nothing if there is nothing.
    pub async fn acknowledge(&self, device: i64, up_to: i64) {
        if !self.acknowledged.is_owed(device, up_to) {
            return;
        }
        let gone = async {
            if self.store.has_messages(device, up_to).await? {
                self.store.commit(delete_messages(device, up_to)).await?;
            }
            Ok::<_, store::Error>(())
        };
        match gone.await {
            Ok(()) => self.acknowledged.acknowledge(device, up_to, || self.queues.head()),
            // Reading goes on; the next acknowledgement takes them along.
            Err(cause) if cause.is_of_the_machine() => {}
            Err(cause) => tracing::warn!(%cause, "messages that a device has got stay for the moment"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_have_been_handed_out_is_looked_for() {
        let known = Acknowledged::new();
        assert!(known.is_owed(1, 5), "what a run before has handed out isn't known");
        known.acknowledge(1, 5, || 20);
        assert!(!known.is_owed(1, 5));
        assert!(known.is_owed(1, 9), "that was before the first word of the device, too");
        known.acknowledge(1, 20, || 30);
        assert!(!known.is_owed(1, 30) && !known.is_owed(1, 7));
        known.hand(1, 25);
        assert!(!known.is_owed(1, 20), "a token from before");
        assert!(known.is_owed(1, 25) && known.is_owed(1, 30));
        known.acknowledge(1, 25, || 30);
        assert!(!known.is_owed(1, 30));
        assert!(known.is_owed(2, 1));
    }
}
