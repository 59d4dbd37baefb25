//! The protocol as its users see it, in every room version.

#![allow(clippy::unwrap_used)]

mod authorisation;
mod common;
mod json;
mod limits;
mod received;
mod redaction;
mod vectors;
mod versions;
