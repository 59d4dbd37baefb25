//! A logged-in device of a user, with the few requests that nearly every test makes.

use super::{Answer, Http};
use ::http::Method;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, Ordering};

/// One device. Clones are the same device.
#[derive(Clone, Debug)]
// The fields are named as the specification names them.
#[allow(clippy::struct_field_names)]
pub(crate) struct User {
    pub(crate) user_id: String,
    pub(crate) access_token: String,
    pub(crate) device_id: String,
    pub(crate) http: Http,
}

impl User {
    /// From the answer to a login or a registration.
    #[track_caller]
    pub(crate) fn new(http: Http, answer: &Value) -> Self {
        let text =
            |key: &str| answer[key].as_str().unwrap_or_else(|| panic!("no {key} in {answer}")).to_owned();
        Self {
            user_id: text("user_id"),
            access_token: text("access_token"),
            device_id: text("device_id"),
            http,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.http.get(path, Some(&self.access_token)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.http.put(path, Some(&self.access_token), body).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.http.post(path, Some(&self.access_token), body).await
    }

    pub(crate) async fn delete(&self, path: &str, body: Option<Value>) -> Answer {
        self.http.request(Method::DELETE, path, Some(&self.access_token), body).await
    }

    /// `POST /createRoom`; the room's id.
    pub(crate) async fn create_room(&self, body: Value) -> String {
        let answer = self.post("/v3/createRoom", body).await.expect(200);
        answer["room_id"].as_str().expect("createRoom gives a room_id").to_owned()
    }

    /// `POST /rooms/{room}/invite`.
    pub(crate) async fn invite(&self, room: &str, user_id: &str) {
        self.post(&format!("/v3/rooms/{room}/invite"), json!({ "user_id": user_id })).await.expect(200);
    }

    /// `POST /join/{room}`.
    pub(crate) async fn join(&self, room: &str) {
        self.post(&format!("/v3/join/{room}"), json!({})).await.expect(200);
    }

    /// A text message under a new transaction id; its event id.
    pub(crate) async fn send_text(&self, room: &str, text: &str) -> String {
        self.send_event(room, "m.room.message", json!({ "msgtype": "m.text", "body": text })).await
    }

    /// Any event that isn't state, under a new transaction id; its event id.
    pub(crate) async fn send_event(&self, room: &str, kind: &str, content: Value) -> String {
        let path = format!("/v3/rooms/{room}/send/{kind}/{}", transaction_id());
        event_id(&self.put(&path, content).await.expect(200))
    }

    /// A state event; its event id.
    pub(crate) async fn send_state(&self, room: &str, kind: &str, state_key: &str, content: Value) -> String {
        let path = format!("/v3/rooms/{room}/state/{kind}/{state_key}");
        event_id(&self.put(&path, content).await.expect(200))
    }

    /// One `/sync`: `since` is `None` for the initial one, `timeout` is in milliseconds.
    pub(crate) async fn sync(&self, since: Option<&str>, timeout: u64) -> Value {
        self.sync_with(since, timeout, "").await
    }

    /// As [`User::sync`], with more of the query (`"&filter=…"`, encoded).
    pub(crate) async fn sync_with(&self, since: Option<&str>, timeout: u64, more: &str) -> Value {
        let since = since.map(|token| format!("&since={token}")).unwrap_or_default();
        self.get(&format!("/v3/sync?timeout={timeout}{since}{more}")).await.expect(200)
    }
}

/// A transaction id that this process hasn't used.
pub(crate) fn transaction_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[track_caller]
fn event_id(answer: &Value) -> String {
    answer["event_id"].as_str().unwrap_or_else(|| panic!("no event_id in {answer}")).to_owned()
}
