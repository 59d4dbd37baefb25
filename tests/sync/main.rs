//! `/sync` as clients use it. The names of tests begin with the number of the requirement they hold the server to, where
//! there is one.

#[path = "../common/mod.rs"]
mod common;

mod device_lists;
mod filters;
mod ignored;
mod lazy;
mod membership;
mod model;
mod sessions;
mod state;
mod timeline;
mod tokens;
mod unread;
mod waking;

use common::{
    Server, User,
    device::{Device, FOR_EVER, next_batch},
};
use serde_json::{Value, json};

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

/// The part of a room that the user is in.
fn join<'a>(answer: &'a Value, room: &str) -> &'a Value {
    &answer["rooms"]["join"][room]
}

fn events(list: &Value) -> &[Value] {
    list["events"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn ids(list: &Value) -> Vec<String> {
    common::history::ids(&list["events"])
}

/// `type|state_key` of state events, sorted.
fn keys(list: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let mut keys: Vec<String> = events(list)
        .iter()
        .map(|event| format!("{}|{}", text(&event["type"]), text(&event["state_key"])))
        .collect();
    keys.sort_unstable();
    keys
}

/// The event of a type and key.
fn find<'a>(list: &'a Value, kind: &str, state_key: Option<&str>) -> Option<&'a Value> {
    events(list).iter().find(|event| event["type"] == kind && event["state_key"].as_str() == state_key)
}

/// The query that asks for this filter.
fn filter(filter: &Value) -> String {
    format!("&filter={}", encoded(&filter.to_string()))
}

fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn public_room(owner: &User, others: &[&User]) -> String {
    let room = owner.create_room(json!({ "preset": "public_chat" })).await;
    for other in others {
        other.join(&room).await;
    }
    room
}

impl User {
    async fn leave(&self, room: &str) {
        self.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    }

    /// `kick`, `ban` or `unban`.
    async fn act_on(&self, action: &str, room: &str, target: &User) {
        let body = json!({ "user_id": target.user_id });
        self.post(&format!("/v3/rooms/{room}/{action}"), body).await.expect(200);
    }

    async fn topic(&self, room: &str, topic: &str) -> String {
        self.send_state(room, "m.room.topic", "", json!({ "topic": topic })).await
    }

    async fn redact(&self, room: &str, event: &str) -> String {
        let path = format!("/v3/rooms/{room}/redact/{event}/{}", common::transaction_id());
        let answer = self.put(&path, json!({})).await.expect(200);
        answer["event_id"].as_str().expect("event_id").to_owned()
    }

    async fn receipt(&self, room: &str, kind: &str, event: &str) {
        self.post(&format!("/v3/rooms/{room}/receipt/{kind}/{event}"), json!({})).await.expect(200);
    }

    async fn typing(&self, room: &str, typing: bool) {
        let path = format!("/v3/rooms/{room}/typing/{}", self.user_id);
        self.put(&path, json!({ "typing": typing, "timeout": 60_000 })).await.expect(200);
    }

    async fn account_data(&self, below: &str, kind: &str, content: Value) {
        let path = format!("/v3/user/{}{below}/account_data/{kind}", self.user_id);
        self.put(&path, content).await.expect(200);
    }
}
