//! Rooms as clients make, enter, fill and find them. The names of tests begin with the number of the requirement they
//! hold the server to, where there is one.

#[path = "../common/mod.rs"]
mod common;

mod create;
mod directory;
mod limits;
mod membership;
mod owned_state;
mod sending;
mod versions;

use common::{Server, User};
use serde_json::Value;

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

/// The content of a state event.
async fn state(user: &User, room: &str, kind: &str, key: &str) -> Value {
    user.get(&format!("/v3/rooms/{room}/state/{kind}/{key}")).await.expect(200)
}

/// The types of a room's events, oldest first.
async fn types(user: &User, room: &str) -> Vec<String> {
    let log = common::history::whole_log(user, room).await;
    log.iter().map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
}

/// The id that belongs in a path.
fn encoded(id: &str) -> String {
    id.bytes().fold(String::new(), |mut text, byte| {
        use std::fmt::Write as _;
        if byte.is_ascii_alphanumeric() {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("strings take everything");
        }
        text
    })
}
