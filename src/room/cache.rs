//! Events that were read or written lately, so that delivering a new event to its readers costs no database work.

use std::{collections::HashMap, sync::Arc};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{EventId, OwnedEventId};

use super::Event;

/// Ordinary events take about two kilobytes here.
const EVENTS: usize = 4_096;
/// … but those of rooms that don't federate may have hundreds.
const BYTES: usize = 32 * 1024 * 1024;

pub(super) struct EventCache(Mutex<Kept>);

/// The events, the least lately used last, and about the bytes that they take.
struct Kept {
    events: LruCache<(i64, i64), Arc<Event>>,
    /// Where they are, by their ids.
    places: HashMap<OwnedEventId, (i64, i64)>,
    bytes: usize,
}

impl Kept {
    fn put(&mut self, room: i64, event: Arc<Event>) {
        self.bytes += bytes_of(&event);
        let place = (room, event.seq);
        // An event goes from its place as an outlier to a greater one in the log, and never back.
        let known = self.places.entry(event.id().to_owned()).or_insert(place);
        *known = place.max(*known);
        if let Some(before) = self.events.put((room, event.seq), event) {
            self.bytes -= bytes_of(&before);
        }
        while self.events.len() > EVENTS || self.bytes > BYTES {
            let Some((place, event)) = self.events.pop_lru() else { break };
            self.forget(place, &event);
        }
    }

    /// What there is to tidy for an event that was taken out.
    fn forget(&mut self, place: (i64, i64), event: &Event) {
        self.bytes -= bytes_of(event);
        if self.places.get(event.id()) == Some(&place) {
            self.places.remove(event.id());
        }
    }
}

/// Its text, its content and what clients get of it, each once.
fn bytes_of(event: &Event) -> usize {
    1_024 + 3 * event.pdu.json.get().len()
}

impl EventCache {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Kept { events: LruCache::unbounded(), places: HashMap::new(), bytes: 0 }))
    }

    /// An event as the room's writer has just made it durable.
    pub(super) fn insert(&self, room: i64, event: Arc<Event>) {
        self.0.lock().put(room, event);
    }

    /// An event as it was read from the database. What is here already may be newer: an event that was redacted while
    /// somebody read it must not come back.
    pub(super) fn insert_read(&self, room: i64, event: Arc<Event>) {
        let mut kept = self.0.lock();
        if kept.events.get(&(room, event.seq)).is_none() {
            kept.put(room, event);
        }
    }

    /// An event of a room by its id, if it is here.
    pub(super) fn find(&self, room: i64, event_id: &EventId) -> Option<Arc<Event>> {
        let kept = &mut *self.0.lock();
        let place = kept.places.get(event_id).filter(|place| place.0 == room)?;
        kept.events.get(place).cloned()
    }

    /// Events of a room that were purged.
    pub(super) fn remove(&self, room: i64, seqs: &[i64]) {
        let mut kept = self.0.lock();
        for seq in seqs {
            if let Some(event) = kept.events.pop(&(room, *seq)) {
                kept.forget((room, *seq), &event);
            }
        }
    }

    /// The events that are here, and the `seq` of those that aren't.
    pub(super) fn get(&self, room: i64, seqs: &[i64]) -> (Vec<Arc<Event>>, Vec<i64>) {
        let cache = &mut self.0.lock().events;
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
    use ruma::RoomVersionId;
    use serde_json::json;

    use super::*;
    use crate::store::event::OUTLIER;

    fn id(seq: i64) -> OwnedEventId {
        OwnedEventId::try_from(format!("${seq}:localhost")).unwrap()
    }

    fn event(seq: i64, text: &str, redacted_by: Option<i64>) -> Arc<Event> {
        let pdu = json!({
            "auth_events": [], "content": { "body": text }, "depth": 1, "origin_server_ts": 1, "prev_events": [],
            "room_id": "!room:localhost", "sender": "@a:localhost", "type": "m.room.message",
        });
        let pdu = Pdu::from_stored(id(seq), pdu.to_string(), &RoomVersionId::V11).unwrap();
        let mut event = Event::new(seq, pdu, None);
        event.redacted_by = redacted_by;
        Arc::new(event)
    }

    /// I9
    #[test]
    fn a_slow_reader_brings_no_redacted_event_back() {
        let cache = EventCache::new();
        cache.insert(1, event(1, "", Some(2)));
        cache.insert_read(1, event(1, "", None));
        assert_eq!(cache.get(1, &[1]).0[0].redacted_by, Some(2));
        cache.insert_read(2, event(1, "", None));
        assert_eq!(cache.get(2, &[1]).0.len(), 1);
    }

    #[test]
    fn a_slow_reader_brings_no_event_back_to_where_it_was_as_an_outlier() {
        let cache = EventCache::new();
        let placed = event(5, "", None);
        let outlier = Arc::new(Event::new(OUTLIER - 1, placed.pdu.clone(), None));
        cache.insert(1, Arc::clone(&placed));
        cache.insert_read(1, Arc::clone(&outlier));
        assert_eq!(cache.find(1, &id(5)).unwrap().seq, 5);
        // Also when it was pushed out before, and is read again after.
        cache.remove(1, &[5, OUTLIER - 1]);
        cache.insert_read(1, outlier);
        cache.insert_read(1, placed);
        assert_eq!(cache.find(1, &id(5)).unwrap().seq, 5);
    }

    #[test]
    fn an_event_is_found_by_its_id_in_its_own_room_for_as_long_as_it_is_here() {
        let cache = EventCache::new();
        cache.insert(1, event(1, "", None));
        assert_eq!(cache.find(1, &id(1)).unwrap().seq, 1);
        assert!(cache.find(2, &id(1)).is_none(), "an id of another room is not there");
        for seq in 2..=EVENTS as i64 + 1 {
            cache.insert(1, event(seq, "", None));
        }
        assert!(cache.find(1, &id(1)).is_none());
        assert_eq!(cache.0.lock().places.len(), EVENTS);
    }

    /// I8
    #[test]
    fn many_events_and_large_ones_push_the_oldest_out() {
        let cache = EventCache::new();
        for seq in 1..=EVENTS as i64 + 1 {
            cache.insert(1, event(seq, "small", None));
        }
        assert_eq!(cache.get(1, &[1, 2]).1, [1]);
        let large = "x".repeat(800_000);
        for seq in 1..=100 {
            cache.insert(2, event(seq, &large, None));
            cache.insert(2, event(seq, &large, None));
            cache.insert_read(2, event(seq, &large, None));
        }
        let all: Vec<i64> = (1..=100).collect();
        let (found, _) = cache.get(2, &all);
        assert!((10..=14).contains(&found.len()), "{}", found.len());
        assert_eq!(found.last().unwrap().seq, 100, "the last one stays");
        let kept = cache.0.lock();
        assert_eq!(kept.bytes, kept.events.iter().map(|(_, event)| bytes_of(event)).sum::<usize>());
    }
}
