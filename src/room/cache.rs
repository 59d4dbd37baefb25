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

    /// An event as the room's writer has just made it durable.
    pub(super) fn insert(&self, room: i64, event: Arc<Event>) {
        self.0.lock().put((room, event.seq), event);
    }

    /// An event as it was read from the database. What is here already may be newer: an event that was redacted while
    /// somebody read it must not come back.
    pub(super) fn insert_read(&self, room: i64, event: Arc<Event>) {
        self.0.lock().get_or_insert((room, event.seq), || event);
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

#[cfg(test)]
mod tests {
    use hearth_federation::Pdu;
    use ruma::{RoomVersionId, event_id};
    use serde_json::json;

    use super::*;

    /// I9
    #[test]
    fn a_slow_reader_brings_no_redacted_event_back() {
        let event = |redacted_by| {
            let pdu = json!({
                "auth_events": [], "content": {}, "depth": 1, "origin_server_ts": 1, "prev_events": [],
                "room_id": "!room:localhost", "sender": "@a:localhost", "type": "m.room.message",
            });
            let id = event_id!("$0:localhost").to_owned();
            let pdu = Pdu::from_stored(id, pdu.to_string(), &RoomVersionId::V11).unwrap();
            let mut event = Event::new(1, pdu, None);
            event.redacted_by = redacted_by;
            Arc::new(event)
        };
        let cache = EventCache::new();
        cache.insert(1, event(Some(2)));
        cache.insert_read(1, event(None));
        assert_eq!(cache.get(1, &[1]).0[0].redacted_by, Some(2));
        cache.insert_read(2, event(None));
        assert_eq!(cache.get(2, &[1]).0.len(), 1);
    }
}
