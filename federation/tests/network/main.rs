//! What servers ask of each other: their keys, where they are.

#![allow(clippy::unwrap_used)]

mod common;
mod discovery;
mod key_ring;
