//! Hearth, a federated Matrix homeserver.

// In a program `pub` says which other modules may use an item; nothing is reachable from outside anyway.
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
mod shutdown;
mod signing_key;
mod store;
mod typing;

use std::process::ExitCode;

// Long-lived servers of many small allocations fragment with the system's allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run()
}
