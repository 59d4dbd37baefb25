//! The protocol as its users see it, in every room version.

#![allow(clippy::unwrap_used)]

mod common;
mod vectors;
mod versions;
