//! Unread counts of the rooms that a reader was told about lately, kept up by the entries that arrive, so that a new
//! message costs no count.

use std::{collections::HashMap, sync::Arc};

use super::{Entry, Kind, flags};
pub use crate::store::unread::{Counts, Unread};

/// Rooms kept a reader.
const ROOMS: usize = 256;

#[derive(Default)]
pub(super) struct UnreadCounts(HashMap<i64, (Unread, i64)>);

impl UnreadCounts {
    pub(super) fn get(&self, room: i64) -> Option<&Unread> {
        self.0.get(&room).map(|(unread, _)| unread)
    }

    pub(super) fn insert(&mut self, room: i64, unread: Unread, position: i64) {
        if self.0.len() >= ROOMS {
            self.0.clear();
        }
        self.0.insert(room, (unread, position));
    }

    /// `thread` is the root of the thread that an event is part of.
    pub(super) fn follow(&mut self, entry: &Entry, thread: Option<&Arc<str>>) {
        let Some((unread, position)) = self.0.get_mut(&entry.room) else { return };
        if entry.position <= *position {
            return;
        }
        *position = entry.position;
        let simple =
            entry.kind == Kind::Event && entry.flags & (flags::OWN_MEMBERSHIP | flags::REDACTION) == 0;
        if simple {
            // As they will be counted in the database.
            if entry.flags & flags::READ != 0 {
                unread.read(thread);
            }
            let notifies = entry.flags & flags::NOTIFY != 0;
            let highlights = notifies && entry.flags & flags::HIGHLIGHT != 0;
            let one = Counts { notifications: i64::from(notifies), highlights: i64::from(highlights) };
            unread.add(thread, one);
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

    fn counts(notifications: i64, highlights: i64) -> Counts {
        Counts { notifications, highlights }
    }

    #[test]
    fn entries_are_counted_once() {
        let mut kept = UnreadCounts::default();
        kept.insert(1, Unread { main: counts(2, 0), ..Unread::default() }, 10);
        kept.follow(&entry(10, Kind::Event, flags::NOTIFY), None);
        kept.follow(&entry(11, Kind::Event, flags::NOTIFY | flags::HIGHLIGHT), None);
        kept.follow(&entry(12, Kind::Event, 0), None);
        assert_eq!(kept.get(1).unwrap().main, counts(3, 1));
    }

    /// SY-15
    #[test]
    fn entries_are_counted_where_they_belong() {
        let mut kept = UnreadCounts::default();
        kept.insert(1, Unread::default(), 10);
        let (one, two): (Arc<str>, Arc<str>) = (Arc::from("$1"), Arc::from("$2"));
        kept.follow(&entry(11, Kind::Event, flags::NOTIFY), Some(&one));
        kept.follow(&entry(12, Kind::Event, flags::NOTIFY | flags::HIGHLIGHT), Some(&two));
        kept.follow(&entry(13, Kind::Event, flags::NOTIFY), Some(&one));
        kept.follow(&entry(14, Kind::Event, 0), Some(&Arc::from("$3")));
        kept.follow(&entry(15, Kind::Event, flags::NOTIFY), None);
        let unread = kept.get(1).unwrap();
        assert_eq!((unread.main, unread.total()), (counts(1, 0), counts(4, 1)));
        let threads: Vec<_> = unread.threads.iter().map(|(root, counts)| (&**root, *counts)).collect();
        assert_eq!(threads, [("$1", counts(2, 0)), ("$2", counts(1, 1))]);
    }

    #[test]
    fn who_sends_has_read_what_came_before() {
        let mut kept = UnreadCounts::default();
        let one: Arc<str> = Arc::from("$1");
        kept.insert(1, Unread { main: counts(2, 1), ..Unread::default() }, 10);
        kept.follow(&entry(11, Kind::Event, flags::NOTIFY), Some(&one));
        kept.follow(&entry(12, Kind::Event, flags::READ), None);
        kept.follow(&entry(13, Kind::Event, flags::NOTIFY), None);
        assert_eq!((kept.get(1).unwrap().main, kept.get(1).unwrap().total()), (counts(1, 0), counts(2, 0)));
        kept.follow(&entry(14, Kind::Event, flags::READ), Some(&one));
        assert_eq!(*kept.get(1).unwrap(), Unread { main: counts(1, 0), ..Unread::default() });
    }

    #[test]
    fn what_may_lower_the_counts_makes_them_unknown() {
        for changed in [
            entry(11, Kind::Unread, 0),
            entry(11, Kind::Event, flags::REDACTION),
            entry(11, Kind::Event, flags::OWN_MEMBERSHIP),
        ] {
            let mut kept = UnreadCounts::default();
            kept.insert(1, Unread::default(), 10);
            kept.follow(&changed, None);
            assert_eq!(kept.get(1), None);
        }
    }
}
