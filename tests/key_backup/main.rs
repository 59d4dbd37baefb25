//! What clients keep on the server so that a new device can read old messages: backups of keys, and secrets. The names of
//! tests begin with the number of the requirement they hold the server to.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod keys;
mod large;
mod secret_storage;
mod versions;

use common::{Answer, Server, User};
use serde_json::{Value, json};

const ALGORITHM: &str = "m.megolm_backup.v1.curve25519-aes-sha2";

async fn server_with_alice() -> (Server, User) {
    let server = Server::start(toml::Table::new()).await;
    let alice = server.register("alice").await;
    (server, alice)
}

fn auth_data(public_key: &str) -> Value {
    json!({ "public_key": public_key, "signatures": { "@alice:localhost": { "ed25519:ONE": "signature" } } })
}

/// A new version of the user's backup; its name.
async fn new_version(user: &User) -> String {
    let body = json!({ "algorithm": ALGORITHM, "auth_data": auth_data("YWJj") });
    let answer = user.post("/v3/room_keys/version", body).await.expect(200);
    answer["version"].as_str().expect("versions are texts").to_owned()
}

/// What `GET /room_keys/version/{version}` says of its keys: etag and count.
async fn held(user: &User, version: &str) -> (String, u64) {
    etag_and_count(&user.get(&format!("/v3/room_keys/version/{version}")).await.expect(200))
}

#[track_caller]
fn etag_and_count(answer: &Value) -> (String, u64) {
    let etag = answer["etag"].as_str().expect("`etag` is a text");
    (etag.to_owned(), answer["count"].as_u64().expect("`count` is a number"))
}

/// A key, whose content says which it is.
fn key(is_verified: bool, first_message_index: u64, forwarded_count: u64, ciphertext: &str) -> Value {
    json!({
        "first_message_index": first_message_index,
        "forwarded_count": forwarded_count,
        "is_verified": is_verified,
        "session_data": { "ephemeral": "YWJj", "ciphertext": ciphertext, "mac": "ZGVm" },
    })
}

/// The path of all keys of a version, of those of a room (`/!room`) or of one session (`/!room/session`).
fn path(which: &str, version: &str) -> String {
    format!("/v3/room_keys/keys{which}?version={version}")
}

async fn put(user: &User, which: &str, version: &str, body: Value) -> Answer {
    user.put(&path(which, version), body).await
}

async fn get(user: &User, which: &str, version: &str) -> Answer {
    user.get(&path(which, version)).await
}

async fn delete(user: &User, which: &str, version: &str) -> Answer {
    user.delete(&path(which, version), None).await
}
