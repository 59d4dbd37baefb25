//! What servers ask of each other: their keys, where they are.

#![allow(clippy::unwrap_used)]

mod common;
mod key_ring;
