//! What a queue entry says: the numbers that stand in the tables `delivery` and `queue`.

use std::sync::Arc;

/// What an entry announces, and what its `item` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum Kind {
    /// An event of a room: its `seq`.
    Event = 1,
    /// Account data of the recipient: the `changed` of the row. Room 0 is global.
    AccountData = 2,
    /// A receipt in a room: the `changed` of the row.
    Receipt = 3,
    /// The recipient's unread counts of the room changed without an event (another device read it).
    Unread = 4,
    /// The recipient subscribed to a thread of the room or unsubscribed: the `changed` of the row.
    ThreadSubscription = 5,
    /// A message to a device, by the position of the entry. In place of a room: the number of the device; 0 in the queue of a
    /// server.
    ToDevice = 6,
    /// Devices or keys of somebody changed: the position of the change. Room 0.
    DeviceList = 7,
    /// The one-time keys of a device of the recipient became fewer or more. In place of a room: its number.
    OneTimeKeys = 8,
    /// A field of the profile of somebody here changed: the `changed` of the row. Room 0.
    Profile = 9,
}

impl Kind {
    /// `None` for what only a newer version knows.
    pub(super) fn from_number(number: i16) -> Option<Self> {
        [
            Self::Event,
            Self::AccountData,
            Self::Receipt,
            Self::Unread,
            Self::ThreadSubscription,
            Self::ToDevice,
            Self::DeviceList,
            Self::OneTimeKeys,
            Self::Profile,
        ]
        .into_iter()
        .find(|kind| *kind as i16 == number)
    }
}

/// Facts about an event that were settled when it was accepted, for this recipient.
pub mod flags {
    /// A push rule of the recipient notifies.
    pub const NOTIFY: i64 = 1;
    /// … and highlights.
    pub const HIGHLIGHT: i64 = 2;
    /// The event is the recipient's own membership.
    pub const OWN_MEMBERSHIP: i64 = 4;
    /// The event changed the room's current state.
    pub const STATE: i64 = 8;
    /// The event redacts another, which may have been counted as unread.
    pub const REDACTION: i64 = 16;
    /// The push rule plays a sound …
    pub const SOUND: i64 = 32;
    /// … and it is that of a call.
    pub const RING: i64 = 64;
    /// The recipient sent the event from one of their devices, and has read what came before it in its thread.
    pub const READ: i64 = 128;
}

/// One entry of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub position: i64,
    pub kind: Kind,
    pub room: i64,
    pub item: i64,
    pub flags: i64,
}

impl Entry {
    /// Whether it announces an event that changes nothing but the log of its room.
    pub fn is_message(&self) -> bool {
        let more = flags::OWN_MEMBERSHIP | flags::STATE | flags::REDACTION;
        self.kind == Kind::Event && self.flags & more == 0
    }
}

/// An entry that has come into somebody's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub recipient: i64,
    pub entry: Entry,
    /// The root of the thread that an event is part of.
    pub thread: Option<Arc<str>>,
}

/// What an entry's `item` will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    Value(i64),
    /// The position of the entry itself: how entries point at rows that carry the position of their last change.
    Position,
}

/// An entry for the queues of all whom one step of a batch reaches.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub step: u32,
    pub kind: Kind,
    pub room: i64,
    pub item: Item,
    /// The root of the thread that an event is part of; empty for the main timeline.
    pub thread: String,
    /// Each with the flags of their entry.
    pub recipients: Vec<(i64, i64)>,
}

impl Delivery {
    /// The entries of all recipients, once the base of the batch is known.
    pub(super) fn delivered(&self, base: i64) -> impl Iterator<Item = Delivered> {
        let thread: Option<Arc<str>> = (!self.thread.is_empty()).then(|| Arc::from(self.thread.as_str()));
        self.recipients.iter().map(move |(recipient, flags)| Delivered {
            recipient: *recipient,
            entry: self.entry(base, *flags),
            thread: thread.clone(),
        })
    }

    /// The entry of a recipient with these flags, once the base of the batch is known.
    pub(super) fn entry(&self, base: i64, flags: i64) -> Entry {
        let position = base + i64::from(self.step);
        let item = match self.item {
            Item::Value(value) => value,
            Item::Position => position,
        };
        Entry { position, kind: self.kind, room: self.room, item, flags }
    }
}
