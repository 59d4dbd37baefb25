//! Readers for clients: what a user's queue announces, in the shape of `/sync`.
//!
//! [`changes`] turns a span of a queue into what changed a room; [`room`] makes a room's part of the answer; [`long_poll`]
//! waits. A reader costs what changed for its user, whatever the number of their rooms.

mod body;
mod changes;
mod filter;
mod initial;
mod lazy;
mod long_poll;
mod room;

pub use self::{
    body::StateForm,
    filter::SyncFilter,
    long_poll::{Error, Request, Syncs},
};
