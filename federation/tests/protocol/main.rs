//! The protocol as its users see it, in every room version.

#![allow(clippy::unwrap_used)]

mod authorisation;
mod common;
mod json;
mod limits;
mod owned_state;
mod power_levels;
mod received;
mod redaction;
mod requests;
mod rules;
mod rules_of_create;
mod server_keys;
mod vectors;
mod versions;
