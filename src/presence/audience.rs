//! Who hears of whom: the rooms of those who are here, and what each has not been told yet.
//!
//! Only users with a device that is there, or was a moment ago, are in it. What changes is put down for each of those
//! whom it concerns, as an entry of a queue is: so a change costs the people who hear of it, and a reader looks only
//! at what is theirs. An entry is who changed and a number; what there is to tell is looked up when it is read.

use std::collections::{HashMap, HashSet};

/// Entries of a reader before the ones that others have replaced are dropped.
const LENGTH: usize = 64;

#[derive(Default)]
pub(super) struct Audience {
    /// Who is here, by room. No room is without anybody.
    rooms: HashMap<i64, Vec<i64>>,
    listeners: HashMap<i64, Listener>,
}

struct Listener {
    /// Sorted.
    rooms: Vec<i64>,
    /// The number of a change and who changed, oldest first. Nobody's latest change is missing above `floor`.
    news: Vec<(u64, i64)>,
    /// What was at this number or before isn't known here.
    floor: u64,
    /// How long the list may be until it is looked through.
    tidy_at: usize,
}

impl Audience {
    /// Somebody comes; all that others were told up to `floor` they have to be shown as a whole.
    pub(super) fn enter(&mut self, user: i64, rooms: Vec<i64>, floor: u64) {
        self.listeners.insert(user, Listener { rooms: Vec::new(), news: Vec::new(), floor, tidy_at: LENGTH });
        self.set_rooms(user, rooms);
    }

    /// Somebody's rooms are these; those that they were not in before are returned.
    pub(super) fn set_rooms(&mut self, user: i64, mut rooms: Vec<i64>) -> Vec<i64> {
        rooms.sort_unstable();
        rooms.dedup();
        let Some(listener) = self.listeners.get_mut(&user) else { return Vec::new() };
        let before = std::mem::replace(&mut listener.rooms, rooms.clone());
        for room in before.iter().filter(|room| rooms.binary_search(room).is_err()) {
            self.leave_room(user, *room);
        }
        rooms.retain(|room| before.binary_search(room).is_err());
        for room in &rooms {
            self.rooms.entry(*room).or_default().push(user);
        }
        rooms
    }

    /// Somebody is gone. `changed` was the last that others could hear of them here.
    pub(super) fn leave(&mut self, user: i64, changed: u64) {
        for peer in self.peers(user) {
            if let Some(listener) = self.listeners.get_mut(&peer) {
                listener.floor = listener.floor.max(changed);
            }
        }
        let Some(listener) = self.listeners.remove(&user) else { return };
        for room in listener.rooms {
            self.leave_room(user, room);
        }
    }

    fn leave_room(&mut self, user: i64, room: i64) {
        if let Some(users) = self.rooms.get_mut(&room) {
            users.retain(|other| *other != user);
            if users.is_empty() {
                self.rooms.remove(&room);
            }
        }
    }

    /// Who is here and shares a room with somebody, and they themselves: all who hear of them, and all of whom they hear.
    pub(super) fn peers(&self, user: i64) -> Vec<i64> {
        let Some(listener) = self.listeners.get(&user) else { return Vec::new() };
        let rooms = listener.rooms.iter().filter_map(|room| self.rooms.get(room));
        let mut peers: Vec<i64> = rooms.flatten().copied().chain([user]).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// The rooms of somebody who is here.
    pub(super) fn rooms_of(&self, user: i64) -> &[i64] {
        self.listeners.get(&user).map(|listener| listener.rooms.as_slice()).unwrap_or_default()
    }

    /// Who is here of a room.
    pub(super) fn in_room(&self, room: i64) -> &[i64] {
        self.rooms.get(&room).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether one may hear of the other.
    pub(super) fn share(&self, one: i64, other: i64) -> bool {
        let (Some(few), Some(many)) = (self.listeners.get(&one), self.listeners.get(&other)) else {
            return false;
        };
        let (few, many) = (&few.rooms, &many.rooms);
        let (few, many) = if few.len() <= many.len() { (few, many) } else { (many, few) };
        one == other || few.iter().any(|room| many.binary_search(room).is_ok())
    }

    /// Puts down for a reader that somebody changed.
    pub(super) fn tell(&mut self, reader: i64, number: u64, subject: i64) {
        let Some(listener) = self.listeners.get_mut(&reader) else { return };
        listener.news.push((number, subject));
        if listener.news.len() > listener.tidy_at {
            let mut later = HashSet::new();
            listener.news.reverse();
            listener.news.retain(|(_, subject)| later.insert(*subject));
            listener.news.reverse();
            listener.tidy_at = LENGTH.max(2 * listener.news.len());
        }
    }

    /// Whose changes a reader hears of who knows everything up to `after`, each once. `None`: that isn't known here, and
    /// they have to be shown everybody.
    pub(super) fn news(&self, reader: i64, after: u64, to: u64) -> Option<Vec<i64>> {
        let listener = self.listeners.get(&reader).filter(|listener| listener.floor <= after)?;
        let start = listener.news.partition_point(|(number, _)| *number <= after);
        let news = listener.news.get(start..).unwrap_or_default();
        let mut seen = HashSet::new();
        let news = news.iter().take_while(|(number, _)| *number <= to).map(|(_, subject)| *subject);
        Some(news.filter(|subject| seen.insert(*subject) && self.share(reader, *subject)).collect())
    }

    #[cfg(test)]
    pub(super) fn entries_of(&self, reader: i64) -> usize {
        self.listeners.get(&reader).map_or(0, |listener| listener.news.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audience() -> Audience {
        let mut audience = Audience::default();
        audience.enter(1, vec![10, 11], 0);
        audience.enter(2, vec![11], 0);
        audience.enter(3, vec![12], 0);
        audience
    }

    #[test]
    fn pr_04_those_who_share_a_room_hear_of_each_other() {
        let mut audience = audience();
        assert_eq!(audience.peers(1), [1, 2]);
        assert_eq!(audience.peers(3), [3]);
        assert_eq!(audience.set_rooms(3, vec![12, 10]), [10]);
        assert_eq!(audience.peers(3), [1, 3]);
        assert!(audience.set_rooms(1, vec![11]).is_empty());
        assert_eq!(audience.peers(3), [3]);
        audience.leave(2, 0);
        assert_eq!(audience.peers(1), [1]);
        assert_eq!((audience.in_room(11), audience.in_room(10)), (&[1][..], &[3][..]));
    }

    #[test]
    fn each_change_is_read_once_and_only_while_a_room_is_shared() {
        let mut audience = audience();
        audience.tell(2, 5, 1);
        audience.tell(2, 6, 2);
        audience.tell(2, 7, 1);
        assert_eq!(audience.news(2, 4, 7), Some(vec![1, 2]));
        assert_eq!(audience.news(2, 5, 6), Some(vec![2]));
        assert_eq!(audience.news(2, 7, 9), Some(vec![]));
        audience.set_rooms(1, vec![]);
        assert_eq!(audience.news(2, 4, 7), Some(vec![2]));
    }

    #[test]
    fn who_was_away_longer_than_is_known_is_told_so() {
        let mut audience = audience();
        audience.enter(4, vec![11], 8);
        assert_eq!(audience.news(4, 7, 9), None);
        assert_eq!(audience.news(4, 8, 9), Some(vec![]));
        audience.leave(1, 9);
        assert_eq!(audience.news(2, 8, 9), None, "of somebody who is forgotten");
        assert!(audience.news(3, 8, 9).is_some(), "a stranger");
    }

    #[test]
    fn a_reader_who_never_reads_keeps_no_more_than_there_are_people() {
        let mut audience = audience();
        for number in 1..10_000 {
            audience.tell(2, number, 1 + (number as i64 % 2));
        }
        assert!(audience.entries_of(2) <= LENGTH + 1);
        assert_eq!(audience.news(2, 0, 10_000).map(|news| news.len()), Some(2));
    }
}
