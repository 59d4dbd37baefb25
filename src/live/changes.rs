//! From entries of a queue to what changed in each room.

use std::collections::BTreeMap;

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
}

impl Changes {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut changes = Self::default();
        for entry in entries {
            if entry.kind == Kind::AccountData && entry.room == GLOBAL {
                changes.account_data.push(entry.item);
                continue;
            }
            if entry.kind == Kind::ThreadSubscription {
                changes.threads = true;
                continue;
            }
            let room = changes.rooms.entry(entry.room).or_default();
            match entry.kind {
                Kind::Event => {
                    room.seqs.push(entry.item);
                    if entry.flags & flags::OWN_MEMBERSHIP != 0 {
                        room.own_memberships.push(entry.item);
                    }
                    room.state |= entry.flags & flags::STATE != 0;
                    // The event and the counts that it changes go out together (SY-14).
                    room.unread = true;
                }
                Kind::Receipt => room.receipts.push(entry.item),
                Kind::AccountData => room.account_data.push(entry.item),
                Kind::Unread => room.unread = true,
                // Not of a room, see above.
                Kind::ThreadSubscription => {}
            }
        }
        changes
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
