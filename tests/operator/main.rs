//! What the operator of a server that federates relies on: certificates, keys, backups, limits, `hearth doctor`, and what requests of
//! other servers get for an answer.

// A test that can't go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod backup;
#[path = "../common/mod.rs"]
mod common;
mod doctor;
mod keys;
mod requests;
mod tls;
