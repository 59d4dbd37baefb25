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
    unread::{Counts, Unread},
};
use crate::store::{self, Delivery, Store};
pub use crate::store::{Delivered, Entry, Kind, flags};

/// A delivery of anything but an event: the entries point at a row that carries the step's position.
pub fn pointer(recipients: impl IntoIterator<Item = i64>, step: u32, kind: Kind, room: i64) -> Delivery {
    let recipients = recipients.into_iter().map(|recipient| (recipient, 0)).collect();
    Delivery { step, kind, room, item: store::Item::Position, thread: String::new(), recipients }
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

    pub fn shared_tails(&self) -> Arc<Tails> {
        Arc::clone(&self.tails)
    }

    /// The entries with `after < position ≤ to`, in order.
    pub async fn read(&self, recipient: i64, after: i64, to: i64) -> Result<Span, store::Error> {
        if after >= to {
            return Ok(Span::Entries(Vec::new()));
        }
        if let Some(entries) = self.tail(recipient).read(after, to) {
            return Ok(Span::Entries(entries));
        }
        if after < self.store.queue_trimmed(recipient).await? {
            return Ok(Span::Trimmed);
        }
        Ok(Span::Entries(self.store.queue(recipient, after, to).await?))
    }
}
