//! What federation costs: a release build in pairs and with many other servers. `make bench-federation` builds that and runs
//! these, one after the other; each prints its figures.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod chat;
#[path = "../common/mod.rs"]
mod common;
mod cost;
mod crowd;
mod load;
#[path = "../hostile/peer.rs"]
#[allow(dead_code)]
mod peer;
#[path = "../hostile/room.rs"]
#[allow(dead_code)]
mod room;
mod silence;
