//! Hearth, a federated Matrix homeserver.

mod account;
mod app;
mod config;
mod environment;
mod http;
mod queue;
mod store;

fn main() {}
