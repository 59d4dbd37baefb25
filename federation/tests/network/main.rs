//! What servers ask of each other: their keys, where they are.

#![allow(clippy::unwrap_used)]

mod client;
mod common;
mod discovery;
mod dns;
mod key_ring;
mod servers;
