//! What the operator of a server that federates relies on: certificates, keys, backups, limits, `hearth doctor`, and what requests of
//! other servers get for an answer.

// A test that can't go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod backup;
#[path = "../common/mod.rs"]
mod common;
mod doctor;
mod floods;
mod keys;
mod newcomers;
mod requests;
mod third_party;
mod tls;

use serde_json::json;

use self::common::{User, federating::Federating};

/// Joins a room by way of a server.
async fn join(user: &User, room: &str, via: &Federating) {
    user.post(&format!("/v3/join/{room}?via={}", via.name), json!({})).await.expect(200);
}
