//! The stream (`api-spec/stream.md`), over real sockets.

#[path = "../common/mod.rs"]
mod common;

mod client;
mod delivery;
mod hostile;
mod methods;
mod mixed;
mod sessions;
mod slow;

use client::{Client, Line, Received, texts};
use common::{Server, User};
use serde_json::{Value, json};

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

/// A room that anybody joins, with these members besides its creator.
async fn room(creator: &User, members: &[&User]) -> String {
    let room = creator.create_room(json!({ "preset": "public_chat" })).await;
    for member in members {
        member.join(&room).await;
    }
    room
}

fn text(room: &str, text: &str) -> Value {
    json!({ "room_id": room, "type": "m.room.message", "content": { "msgtype": "m.text", "body": text } })
}

/// KiB of memory that the server has had at its most.
fn most_resident(server: &Server) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}
