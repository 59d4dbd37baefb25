//! Hearth, a federated Matrix homeserver.

mod account;
mod app;
mod config;
mod environment;
mod http;
mod queue;
mod room;
mod store;

fn main() {}
