//! Hearth, a federated Matrix homeserver: all of it but `main`. A library only so that tests can take hold of it; what
//! others are to use is the program.

// `pub` says which other modules may use an item; nothing but `run` and `testing` is reachable from outside.
#![allow(unreachable_pub)]

mod account;
mod api;
mod app;
mod cli;
mod config;
mod environment;
mod handshakes;
mod history;
mod http;
mod inbound;
mod keys;
mod limits;
mod live;
mod outbound;
mod peers;
mod presence;
mod push;
mod queue;
mod receipts;
mod rendezvous;
mod room;
mod seldom;
mod shutdown;
mod signing_key;
mod store;
#[doc(hidden)]
pub mod testing;
mod typing;

use std::process::ExitCode;

/// Does what the command line says, and returns how that went.
#[must_use]
pub fn run() -> ExitCode {
    cli::run()
}
