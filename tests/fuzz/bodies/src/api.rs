//! Requests to the whole server, by whoever: a line `alice PUT /path`, the body below it, an empty line, the next. Who isn't
//! `alice`, `bob` or `eve` (the other server) has no token.
//!
//! No request is the server's fault, every refusal has an errcode, and afterwards those who weren't asked about are as they
//! were.

use http::Method;
use serde_json::Value;

use crate::world::{World, encoded, within};

const MOST: usize = 8;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.len() > 16_384 {
        return;
    }
    within(async |world| {
        for request in text.split("\n\n").take(MOST) {
            ask(world, request).await;
        }
        world.is_whole().await && world.is_readable_by(&world.alice).await
    });
}

async fn ask(world: &World, request: &str) {
    let (line, body) = request.split_once('\n').unwrap_or((request, ""));
    let mut words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    let who = words.first().copied().unwrap_or_default();
    if ["alice", "bob", "eve"].contains(&who) {
        words.remove(0);
    }
    let [method, uri] = words[..] else { return };
    let Ok(method) = method.parse::<Method>() else { return };
    let uri = world.filled(uri, encoded);
    let body = world.filled(body, |value| value.escape_default().to_string());
    if who == "eve" {
        let content = serde_json::from_str::<Value>(&body).ok();
        world.signed(method, &uri, content.as_ref()).await;
        return;
    }
    let token = match who {
        "alice" => &world.alice,
        "bob" => &world.bob,
        _ => "",
    };
    world.ask(token, &method, &uri, body.into_bytes()).await;
}
