//! From entries of a queue to what changed in each room.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    queue::{Entry, Kind, flags},
    store::account_data::GLOBAL,
};

/// What a span of a user's queue says of one room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RoomChanges {
    /// Events, oldest first.
    pub(super) seqs: Vec<i64>,
    /// Those that are the user's own membership.
    pub(super) own_memberships: Vec<i64>,
    /// Some of them are state.
    pub(super) state: bool,
    /// The `changed` of receipts.
    pub(super) receipts: Vec<i64>,
    /// The `changed` of room account data.
    pub(super) account_data: Vec<i64>,
    pub(super) unread: bool,
}

/// What a span of a user's queue says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) rooms: BTreeMap<i64, RoomChanges>,
    /// The `changed` of global account data.
    pub(super) account_data: Vec<i64>,
    /// Subscriptions to threads changed.
    pub(super) threads: bool,
    /// Devices of the user, by their numbers, that have messages of their own.
    pub(super) mailboxes: BTreeSet<i64>,
    /// Changes of devices and keys, by their positions.
    pub(super) device_lists: Vec<i64>,
    /// Devices of the user whose one-time keys became fewer or more.
    pub(super) one_time_keys: BTreeSet<i64>,
    /// The `changed` of fields of profiles.
    pub(super) profiles: Vec<i64>,
}

impl Changes {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut changes = Self::default();
        for entry in entries {
            match entry.kind {
                Kind::AccountData if entry.room == GLOBAL => changes.account_data.push(entry.item),
                Kind::ThreadSubscription => changes.threads = true,
                Kind::ToDevice => drop(changes.mailboxes.insert(entry.room)),
                Kind::DeviceList => changes.device_lists.push(entry.item),
                Kind::OneTimeKeys => drop(changes.one_time_keys.insert(entry.room)),
                Kind::Profile => changes.profiles.push(entry.item),
                Kind::Event | Kind::Receipt | Kind::AccountData | Kind::Unread => {
                    changes.rooms.entry(entry.room).or_default().add(entry);
                }
            }
        }
        changes
    }
}

impl RoomChanges {
    /// As if nothing had happened in the room after event `end`.
    pub(super) fn end_at(&mut self, end: i64) {
        self.seqs.retain(|seq| *seq <= end);
        self.own_memberships.retain(|seq| *seq <= end);
    }

    fn add(&mut self, entry: &Entry) {
        match entry.kind {
            Kind::Event => {
                self.seqs.push(entry.item);
                if entry.flags & flags::OWN_MEMBERSHIP != 0 {
                    self.own_memberships.push(entry.item);
                }
                self.state |= entry.flags & flags::STATE != 0;
                // The event and the counts that it changes go out together (SY-14).
                self.unread = true;
            }
            Kind::Receipt => self.receipts.push(entry.item),
            Kind::AccountData => self.account_data.push(entry.item),
            Kind::Unread => self.unread = true,
            Kind::ThreadSubscription
            | Kind::ToDevice
            | Kind::DeviceList
            | Kind::OneTimeKeys
            | Kind::Profile => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, room: i64, item: i64, flags: i64) -> Entry {
        Entry { position: item, kind, room, item, flags }
    }

    #[test]
    fn entries_are_sorted_by_room_and_keep_their_order() {
        let changes = Changes::of(&[
            entry(Kind::Event, 1, 5, 0),
            entry(Kind::AccountData, 0, 6, 0),
            entry(Kind::Receipt, 2, 7, 0),
            entry(Kind::Event, 1, 6, flags::STATE | flags::OWN_MEMBERSHIP),
        ]);
        assert_eq!(changes.account_data, [6]);
        assert_eq!(changes.rooms[&1].seqs, [5, 6]);
        assert_eq!(changes.rooms[&1].own_memberships, [6]);
        assert!(changes.rooms[&1].state);
        assert_eq!(changes.rooms[&2].receipts, [7]);
        assert!(!changes.rooms[&2].unread);
    }
}
