//! Message queues: whatever must reach somebody is an entry in that somebody's queue.
//!
//! A queue is written by the store's writer in the transaction of whatever it announces. This module owns the reading
//! side: the ends of the queues that are being read right now, kept in memory ([`tails`]), waiting on one of them, and
//! the positions that readers hold ([`token`]). It never holds content: an entry is a pointer.

mod tails;
mod token;
mod trim;
mod unread;

use std::sync::Arc;

use self::trim::Cursors;
pub use self::{
    tails::{Tail, Tails},
    token::{Token, TokenError},
    trim::keep_trimmed,
    unread::Counts,
};
use crate::store::{Delivered, Delivery, Item, Store};

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
}

impl Kind {
    fn from_number(number: i16) -> Option<Self> {
        [Self::Event, Self::AccountData, Self::Receipt, Self::Unread]
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

/// A delivery of anything but an event: the entry points at a row that carries the step's position.
pub fn pointer(recipient: i64, step: u32, kind: Kind, room: i64) -> Delivery {
    Delivery { recipient, step, kind: kind as i16, room, item: Item::Position, flags: 0 }
}

fn entry(delivered: &Delivered) -> Option<Entry> {
    Some(Entry {
        position: delivered.position,
        kind: Kind::from_number(delivered.kind)?,
        room: delivered.room,
        item: delivered.item,
        flags: delivered.flags,
    })
}

/// The reading side of all queues.
#[derive(Clone)]
pub struct Queues {
    tails: Arc<Tails>,
    cursors: Arc<Cursors>,
    store: Store,
}

/// A part of a queue, or word that it is gone.
#[derive(Debug, PartialEq, Eq)]
pub enum Span {
    Entries(Vec<Entry>),
    /// Entries after the position asked for were trimmed: only the room logs know what happened since.
    Trimmed,
}

impl Queues {
    pub fn new(tails: Arc<Tails>, store: Store) -> Self {
        Self { tails, cursors: Arc::default(), store }
    }

    /// The last position that is visible. Everything at or below it can be read.
    pub fn head(&self) -> i64 {
        self.tails.head()
    }

    /// The end of a recipient's queue, to read from and to wait on.
    pub fn tail(&self, recipient: i64) -> Arc<Tail> {
        self.tails.of(recipient)
    }

    /// A device has presented a position: it will never ask for what lies at or below it.
    pub fn present(&self, device: i64, position: i64) {
        self.cursors.present(device, position);
    }

    pub fn tails(&self) -> &Tails {
        &self.tails
    }

    /// The entries with `after < position ≤ to`, in order.
    pub async fn read(&self, recipient: i64, after: i64, to: i64) -> Result<Span, crate::store::Error> {
        if after >= to {
            return Ok(Span::Entries(Vec::new()));
        }
        if let Some(entries) = self.tail(recipient).read(after, to) {
            return Ok(Span::Entries(entries));
        }
        if after < self.store.queue_trimmed(recipient).await? {
            return Ok(Span::Trimmed);
        }
        let rows = self.store.queue(recipient, after, to).await?;
        Ok(Span::Entries(rows.iter().filter_map(entry).collect()))
    }
}
