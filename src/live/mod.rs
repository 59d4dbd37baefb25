//! Readers for clients: what a user's queue announces, in the shape of `/sync`.
//!
//! [`changes`] turns a span of a queue into what changed a room, [`room`] makes a room's part of the answer, [`answer`] puts
//! it together; [`brief`] does all of that at once where only messages came; [`long_poll`] waits, [`stream`] holds a socket. A reader costs what changed for its user, whatever the number of their rooms.

mod answer;
mod body;
mod brief;
#[cfg(test)]
pub(crate) mod brief_tests;
mod changes;
mod device_lists;
mod filter;
mod initial;
mod lazy;
mod long_poll;
mod mail;
mod room;
pub mod sliding;
pub mod stream;
mod syncs;

pub use self::{
    body::StateForm,
    filter::SyncFilter,
    long_poll::Request,
    syncs::{Error, Syncs, Wanted},
};
