//! Keys of devices and users: published, asked for, handed out and signed. The names of tests begin with the number of the
//! requirement they hold the server to, where there is one.

// A test that can't go on should stop where it is.
#![allow(clippy::unwrap_used)]

#[path = "../stream/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../common/mod.rs"]
mod common;

mod claims;
mod cross_signing;
mod dehydrated;
mod devices;
mod identity;
mod one_time_keys;
mod servers;
mod signatures;

use common::{Answer, Server, User, device::Device};
use identity::{Identity, Signer, sign};
use serde_json::{Value, json};

const CURVE: &str = "signed_curve25519";

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

/// What `viewer` sees of the keys of a user.
async fn query(viewer: &User, user_id: &str) -> Value {
    viewer.post("/v3/keys/query", json!({ "device_keys": { user_id: [] } })).await.expect(200)
}

/// A key of a device, as (name, key).
async fn claim(caller: &User, user_id: &str, device_id: &str) -> Option<(String, Value)> {
    let body = json!({ "one_time_keys": { user_id: { device_id: CURVE } } });
    let answer = caller.post("/v3/keys/claim", body).await.expect(200);
    assert_eq!(answer["failures"], json!({}));
    let keys = answer["one_time_keys"][user_id][device_id].as_object()?;
    assert_eq!(keys.len(), 1, "{answer}");
    keys.iter().next().map(|(name, key)| (name.clone(), key.clone()))
}
