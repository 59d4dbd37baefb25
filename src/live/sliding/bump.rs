//! When something worth looking at last happened in a room: what clients sort their rooms by.

use std::num::NonZeroUsize;

use lru::LruCache;
use parking_lot::Mutex;

use crate::{
    live::syncs::{Error, Syncs},
    room::{Event, Room},
};

/// Rooms whose stamp is kept.
const ROOMS: NonZeroUsize = NonZeroUsize::new(16_384).unwrap();

/// How many events are looked at in search of one, and how many at a time.
const SCAN: i64 = 128;
const PAGE: i64 = 16;

/// MSC4186, with the names that polls and beacons still have.
const TYPES: [&str; 9] = [
    "m.room.create",
    "m.room.message",
    "m.room.encrypted",
    "m.sticker",
    "m.call.invite",
    "m.poll.start",
    "org.matrix.msc3381.poll.start",
    "m.beacon_info",
    "org.matrix.msc3672.beacon_info",
];

/// By room: the event up to which it was looked at, and the stamp.
pub(super) struct Bumps(Mutex<LruCache<i64, (i64, i64)>>);

impl Bumps {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(ROOMS)))
    }

    /// The position of the last such event up to event `end`. Where there is none for long, that of the oldest that was
    /// looked at: it says at least that there was nothing since.
    pub(super) async fn stamp(&self, syncs: &Syncs, room: &Room, end: i64) -> Result<i64, Error> {
        let known = self.0.lock().get(&room.number).copied();
        if let Some((seen, stamp)) = known
            && seen >= end
        {
            return Ok(stamp);
        }
        let seen = known.map_or(0, |(seen, _)| seen);
        let found = find(syncs, room, seen.max(end - SCAN), end).await?;
        let stamp = match (found, known) {
            (None, Some((_, stamp))) if end - seen <= SCAN => stamp,
            (found, _) => {
                let seq = found.unwrap_or_else(|| (end - SCAN).max(1));
                position(syncs, room, seq).await?
            }
        };
        let mut kept = self.0.lock();
        if kept.get(&room.number).is_none_or(|(seen, _)| *seen < end) {
            kept.put(room.number, (end, stamp));
        }
        Ok(stamp)
    }
}

/// The last such event after event `after`, up to and with `end`.
async fn find(syncs: &Syncs, room: &Room, after: i64, end: i64) -> Result<Option<i64>, Error> {
    let is_one = |event: &Event| event.is_visible() && TYPES.contains(&&*event.pdu.kind.to_string());
    let mut from = end;
    while from > after {
        // The last few are in memory mostly.
        let first = (from - PAGE).max(after) + 1;
        let seqs: Vec<i64> = if from == end { vec![end] } else { (first..=from).rev().collect() };
        let events = syncs.rooms.events(room, &seqs).await?;
        if let Some(event) = events.iter().find(|event| is_one(event)) {
            return Ok(Some(event.seq));
        }
        from = seqs.last().map_or(after, |seq| seq - 1);
    }
    Ok(None)
}

async fn position(syncs: &Syncs, room: &Room, seq: i64) -> Result<i64, Error> {
    let snapshot = room.snapshot();
    if seq == snapshot.last_seq {
        return Ok(snapshot.position);
    }
    Ok(syncs.store.event_position(room.number, seq).await?.unwrap_or_default())
}
