//! Edits, reactions, references and threads: what is told of them beside their parents, how they are listed and counted.
//! The names of tests begin with the number of the requirement they hold the server to, where there is one.

#[path = "../common/mod.rs"]
mod common;

mod annotations;
mod edits;
mod everywhere;
mod filters;
mod hidden;
mod listing;
mod threads;
mod unread;

use std::time::{SystemTime, UNIX_EPOCH};

use common::{Server, User};
use serde_json::{Value, json};

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

/// A public room that the first of these has made and the others have joined.
async fn room_of(people: &[&User]) -> String {
    let room = people[0].create_room(json!({ "preset": "public_chat" })).await;
    for guest in &people[1..] {
        guest.join(&room).await;
    }
    room
}

async fn two() -> (Server, User, User, String) {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room_of(&[&alice, &bob]).await;
    (server, alice, bob, room)
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn with(mut content: Value, rel_type: &str, parent: &str) -> Value {
    content["m.relates_to"] = json!({ "rel_type": rel_type, "event_id": parent });
    content
}

fn edit_of(parent: &str, body: &str) -> Value {
    let mut content = text(&format!("* {body}"));
    content["m.new_content"] = text(body);
    with(content, "m.replace", parent)
}

fn reaction_to(parent: &str, key: &str) -> Value {
    json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": parent, "key": key } })
}

impl User {
    /// The next edit is of a later millisecond: of those of the same the greater id counts.
    async fn edit(&self, room: &str, parent: &str, body: &str) -> String {
        let event = self.send_event(room, "m.room.message", edit_of(parent, body)).await;
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis();
        let sent = now();
        while now() == sent {
            tokio::task::yield_now().await;
        }
        event
    }

    async fn react(&self, room: &str, parent: &str, key: &str) -> String {
        self.send_event(room, "m.reaction", reaction_to(parent, key)).await
    }

    async fn reply(&self, room: &str, root: &str, body: &str) -> String {
        self.send_event(room, "m.room.message", with(text(body), "m.thread", root)).await
    }

    async fn refer(&self, room: &str, parent: &str) -> String {
        self.send_event(room, "org.example.note", with(json!({}), "m.reference", parent)).await
    }

    async fn redact(&self, room: &str, event: &str) -> String {
        let path = format!("/v3/rooms/{room}/redact/{event}/{}", common::transaction_id());
        let answer = self.put(&path, json!({})).await.expect(200);
        answer["event_id"].as_str().expect("an event id").to_owned()
    }

    async fn ignore(&self, users: &[&str]) {
        let users: serde_json::Map<String, Value> =
            users.iter().map(|user| ((*user).to_owned(), json!({}))).collect();
        let path = format!("/v3/user/{}/account_data/m.ignored_user_list", self.user_id);
        self.put(&path, json!({ "ignored_users": users })).await.expect(200);
    }

    /// One event by `/event`.
    async fn event(&self, room: &str, event: &str) -> Value {
        self.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200)
    }

    /// The `m.relations` of one event.
    async fn bundle(&self, room: &str, event: &str) -> Value {
        self.event(room, event).await["unsigned"]["m.relations"].clone()
    }

    /// `/relations/…`: what is below the room.
    async fn relations(&self, room: &str, path: &str) -> Value {
        self.get(&format!("/v1/rooms/{room}/relations/{path}")).await.expect(200)
    }

    async fn threads(&self, room: &str, query: &str) -> Value {
        self.get(&format!("/v1/rooms/{room}/threads{query}")).await.expect(200)
    }
}

/// The ids of the events of a list.
fn ids(events: &Value) -> Vec<&str> {
    let events = events.as_array().unwrap_or_else(|| panic!("no list: {events}"));
    events.iter().map(|event| event["event_id"].as_str().expect("an event id")).collect()
}

fn chunk(answer: &Value) -> Vec<&str> {
    ids(&answer["chunk"])
}
