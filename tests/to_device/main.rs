//! Messages from device to device: each arrives once, in order, by whatever way its device reads. The names of tests begin
//! with the requirement that they hold the server to.

// A test that can't go on should stop where it is.
#![allow(clippy::unwrap_used)]

#[path = "../stream/client.rs"]
#[allow(dead_code)]
mod client;
#[path = "../common/mod.rs"]
mod common;

mod delivery;
mod federation;
mod readers;
mod sending;

use common::{Server, User, transaction_id};
use serde_json::{Map, Value, json};

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

/// Sends numbered messages to one device, each by a request of its own.
async fn send(from: &User, to: &User, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        send_to(from, json!({ &to.user_id: { &to.device_id: { "n": n } } })).await;
    }
}

async fn send_to(from: &User, messages: Value) {
    let path = format!("/v3/sendToDevice/m.test/{}", transaction_id());
    from.put(&path, json!({ "messages": messages })).await.expect(200);
}

/// The same message for many.
fn to_all<'a>(users: impl IntoIterator<Item = &'a str>, content: &Value) -> Value {
    Value::Object(
        users.into_iter().map(|user| (user.to_owned(), json!({ "*": content }))).collect::<Map<_, _>>(),
    )
}

/// The numbers of the messages in an answer.
fn numbers(answer: &Value) -> Vec<u64> {
    let events = answer["to_device"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().map(|event| event["content"]["n"].as_u64().unwrap()).collect()
}
