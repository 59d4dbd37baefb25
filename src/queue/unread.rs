//! Unread counts of the rooms that a reader was told about lately, kept up by the entries that arrive, so that a new
//! message costs no count.

use std::collections::HashMap;

use super::{Entry, Kind, flags};
pub use crate::store::receipt::Counts;

/// Rooms kept a reader.
const ROOMS: usize = 256;

#[derive(Default)]
pub(super) struct UnreadCounts(HashMap<i64, (Counts, i64)>);

impl UnreadCounts {
    pub(super) fn get(&self, room: i64) -> Option<Counts> {
        self.0.get(&room).map(|(counts, _)| *counts)
    }

    pub(super) fn insert(&mut self, room: i64, counts: Counts, position: i64) {
        if self.0.len() >= ROOMS {
            self.0.clear();
        }
        self.0.insert(room, (counts, position));
    }

    pub(super) fn follow(&mut self, entry: &Entry) {
        let Some((counts, position)) = self.0.get_mut(&entry.room) else { return };
        if entry.position <= *position {
            return;
        }
        *position = entry.position;
        let simple =
            entry.kind == Kind::Event && entry.flags & (flags::OWN_MEMBERSHIP | flags::REDACTION) == 0;
        if simple {
            counts.notifications += i64::from(entry.flags & flags::NOTIFY != 0);
            counts.highlights += i64::from(entry.flags & flags::HIGHLIGHT != 0);
        } else if matches!(entry.kind, Kind::Event | Kind::Unread) {
            self.0.remove(&entry.room);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(position: i64, kind: Kind, flags: i64) -> Entry {
        Entry { position, kind, room: 1, item: position, flags }
    }

    #[test]
    fn entries_are_counted_once() {
        let mut counts = UnreadCounts::default();
        counts.insert(1, Counts { notifications: 2, highlights: 0 }, 10);
        counts.follow(&entry(10, Kind::Event, flags::NOTIFY));
        counts.follow(&entry(11, Kind::Event, flags::NOTIFY | flags::HIGHLIGHT));
        counts.follow(&entry(12, Kind::Event, 0));
        assert_eq!(counts.get(1), Some(Counts { notifications: 3, highlights: 1 }));
    }

    #[test]
    fn what_may_lower_the_counts_makes_them_unknown() {
        for changed in [
            entry(11, Kind::Unread, 0),
            entry(11, Kind::Event, flags::REDACTION),
            entry(11, Kind::Event, flags::OWN_MEMBERSHIP),
        ] {
            let mut counts = UnreadCounts::default();
            counts.insert(1, Counts::default(), 10);
            counts.follow(&changed);
            assert_eq!(counts.get(1), None);
        }
    }
}
