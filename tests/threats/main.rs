//! What attackers and hurried clients send, and what happens when much happens at once. The names of tests begin with
//! the number of the requirement or invariant they hold the server to, where there is one.

#[path = "../common/mod.rs"]
mod common;

mod accounts;
mod concurrency;
mod fields;
mod identifiers;
mod power;
mod redaction;
mod rules;
mod stopping;
mod versions;

use common::{Answer, Server, User};
use serde_json::{Value, json};

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

/// A room of both that never federates, so that it takes the longest texts.
async fn local_room(owner: &User, others: &[&User]) -> String {
    let content = json!({ "m.federate": false });
    let room = owner.create_room(json!({ "preset": "public_chat", "creation_content": content })).await;
    for other in others {
        other.join(&room).await;
    }
    room
}

/// A text or id as one segment of a path.
fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("strings take everything");
        }
        out
    })
}

/// A body exactly as it is written here.
async fn put_raw(user: &User, path: &str, body: impl Into<bytes::Bytes>) -> Answer {
    let token = format!("Bearer {}", user.access_token).parse().expect("a header");
    let headers = http::HeaderMap::from_iter([(http::header::AUTHORIZATION, token)]);
    user.http.send(http::Method::PUT, path, headers, body).await.expect("an answer")
}

/// The room as an initial `/sync` has it, its events as servers have them.
async fn as_servers_have_it(user: &User, room: &str) -> Value {
    let filter = json!({ "event_format": "federation", "room": { "timeline": { "limit": 100 } } });
    let answer = user.sync_with(None, 0, &format!("&filter={}", encoded(&filter.to_string()))).await;
    answer["rooms"]["join"][room].clone()
}

/// The state of a room by key, as `/state` has it.
async fn state_of(user: &User, room: &str) -> std::collections::BTreeMap<(String, String), String> {
    let state = user.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let events = state.as_array().expect("a list").iter();
    events
        .map(|event| ((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"])))
        .collect()
}
