//! Sliding sync (MSC4186): a client names windows on the list of its rooms, and gets what is new in them.
//!
//! It is one more reader of the user's queue. A `pos` is a place in it, as the tokens of `/sync` are, with the number of
//! the answer that it came with: [`connection`] knows by that what the client has. [`order`] keeps the user's rooms by
//! their last events, [`answer`] chooses those of the windows and waits, [`room`] tells what is new in one of them,
//! [`extensions`] and [`profiles`] what isn't rooms. A change in one room costs the same however many there are: as long as
//! the windows show all rooms and the client has them all, only rooms that the queue speaks of are looked at.
//!
//! Both wire forms are the same question here ([`request`]) and nearly the same answer ([`body`]).

mod answer;
mod body;
mod bump;
mod connection;
mod extensions;
mod handover;
mod order;
mod profiles;
mod request;
mod room;

use std::sync::Arc;

pub use self::request::{
    Config, Extensions, Fields, Filters, Form, Key, List, Mail, Profiles, Request, Required, Scope, Wishes,
};
use self::{bump::Bumps, connection::Connections, order::Orders};
use super::syncs::Syncs;

/// Answers sliding sync.
pub struct Sliding {
    syncs: Arc<Syncs>,
    connections: Connections,
    orders: Orders,
    bumps: Bumps,
}

impl Sliding {
    pub fn new(syncs: Arc<Syncs>) -> Self {
        // Anywhere in a range that no run comes to the end of.
        let number = syncs.queues.tails().boot() >> 24;
        Self { syncs, connections: Connections::new(number), orders: Orders::new(), bumps: Bumps::new() }
    }

    /// A user has forgotten a room.
    pub fn forgotten(&self, recipient: i64) {
        self.orders.forget(recipient);
    }
}
