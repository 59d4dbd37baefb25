//! Sliding sync (MSC4186) as clients use it, in the form from before it was merged, which those in the field speak, and in
//! the merged one.

#[path = "../common/mod.rs"]
mod common;

mod connections;
mod device_lists;
mod extensions;
mod faults;
mod input;
mod lists;
mod membership;
mod merged;
mod presence;
mod profiles;
mod rooms;

use common::{Answer, Server, User, device::FOR_EVER};
use serde_json::{Value, json};

const EARLY: &str = "/unstable/org.matrix.simplified_msc3575/sync";
const MERGED: &str = "/_matrix/client/v4/sync";

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

/// One connection of a device, with what it asks each time.
struct Sliding {
    user: User,
    pos: Option<String>,
    body: Value,
}

impl Sliding {
    fn new(user: &User, body: Value) -> Self {
        Self { user: user.clone(), pos: None, body }
    }

    /// One list of all rooms, as matrix-sdk-ui asks for it.
    fn of_all_rooms(user: &User) -> Self {
        Self::new(user, all_rooms(json!({})))
    }

    /// Another connection of the same device, from its beginning.
    fn beside(user: &User, mut body: Value) -> Self {
        body["conn_id"] = json!("beside");
        Self::new(user, body)
    }

    /// What is new, without waiting.
    async fn next(&mut self) -> Value {
        let answer = self.ask(0).await.expect(200);
        self.pos = Some(pos(&answer).to_owned());
        answer
    }

    /// The same request as before: the answer got lost.
    async fn ask(&self, timeout: u64) -> Answer {
        let pos = self.pos.as_ref().map(|pos| format!("&pos={pos}")).unwrap_or_default();
        self.user.post(&format!("{EARLY}?timeout={timeout}{pos}"), self.body.clone()).await
    }

    /// Waits, while `change` happens, until an answer has what `wanted` looks for, and gives that.
    async fn woken_by<T>(
        &mut self,
        change: impl Future<Output = ()>,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> T {
        let mut poll = self.poll();
        change.await;
        loop {
            let answer = poll.await.expect("a request");
            self.pos = Some(pos(&answer).to_owned());
            if let Some(found) = wanted(&answer) {
                return found;
            }
            poll = self.poll();
        }
    }

    /// A request that waits for as long as it may.
    fn poll(&self) -> tokio::task::JoinHandle<Value> {
        let same = Self { user: self.user.clone(), pos: self.pos.clone(), body: self.body.clone() };
        tokio::spawn(async move { same.ask(FOR_EVER).await.expect(200) })
    }
}

/// A request for a window on all rooms, with more fields of that list.
fn all_rooms(more: Value) -> Value {
    let mut list = json!({
        "ranges": [[0, 19]],
        "timeline_limit": 10,
        "required_state": [
            ["m.room.create", ""], ["m.room.name", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"],
        ],
    });
    if let (Value::Object(list), Value::Object(more)) = (&mut list, more) {
        list.extend(more);
    }
    json!({ "lists": { "all": list } })
}

#[track_caller]
fn pos(answer: &Value) -> &str {
    answer["pos"].as_str().unwrap_or_else(|| panic!("no pos in {answer}"))
}

/// The ids of the rooms of an answer.
fn rooms(answer: &Value) -> Vec<&str> {
    answer["rooms"].as_object().map(|rooms| rooms.keys().map(String::as_str).collect()).unwrap_or_default()
}

#[track_caller]
fn room<'a>(answer: &'a Value, id: &str) -> &'a Value {
    answer["rooms"].get(id).unwrap_or_else(|| panic!("{id} is not in {answer}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The texts of the messages of a timeline.
fn texts(room: &Value) -> Vec<&str> {
    list(&room["timeline"]).iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

/// `type|state_key` of a room's `required_state`, sorted.
fn keys(room: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let keys = list(&room["required_state"]).iter();
    let mut keys: Vec<String> =
        keys.map(|event| format!("{}|{}", text(&event["type"]), text(&event["state_key"]))).collect();
    keys.sort_unstable();
    keys
}

fn count(answer: &Value, list: &str) -> u64 {
    answer["lists"][list]["count"].as_u64().unwrap_or_else(|| panic!("no count of {list} in {answer}"))
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

    /// `kick`, `ban`, `unban` or `forget`.
    async fn act_on(&self, action: &str, room: &str, target: &User) {
        let body = json!({ "user_id": target.user_id });
        self.post(&format!("/v3/rooms/{room}/{action}"), body).await.expect(200);
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
