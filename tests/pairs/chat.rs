//! How long a message takes from a client of one server to one of another, alone and with many others. How many go through
//! between two servers, and beside Synapse, is a scenario of `tests/bench`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toml::Table;

use crate::{
    common::{
        User, eventually,
        federating::{Authority, Federating},
    },
    crowd::Crowd,
    load::{cpu, percentile},
    peer::Peer,
};

fn next(sync: &Value) -> String {
    sync["next_batch"].as_str().unwrap().to_owned()
}

fn bodies(sync: &Value) -> Vec<String> {
    let rooms = sync["rooms"]["join"].as_object();
    let events = rooms
        .into_iter()
        .flat_map(|rooms| rooms.values())
        .flat_map(|room| room["timeline"]["events"].as_array().into_iter().flatten());
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

/// Milliseconds from before the send until the other client has the message, one after the other.
async fn latencies(sender: &User, reader: &User, room: &str, count: usize) -> Vec<Duration> {
    let mut since = next(&reader.sync(None, 0).await);
    let mut times = Vec::new();
    for number in 0..count {
        let text = format!("number {number}");
        let began = Instant::now();
        let (_, last) = tokio::join!(sender.send_text(room, &text), async {
            let mut since = since.clone();
            loop {
                let sync = reader.sync(Some(&since), 30_000).await;
                since = next(&sync);
                if bodies(&sync).contains(&text) {
                    times.push(began.elapsed());
                    return since;
                }
            }
        });
        since = last;
    }
    times
}

async fn join(user: &User, room: &str, via: &str) {
    let path = format!("/v3/join/{room}?via={via}&server_name={via}");
    eventually("the room is joined", || async {
        user.post(&path, json!({})).await.status.eq(&200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn a_message_to_another_server() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    let alice = here.server.register("alice").await;
    let bob = there.server.register("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    join(&bob, &room, &here.name).await;
    let mut times = latencies(&alice, &bob, &room, 300).await;
    let (median, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    println!("a message to another server, 1 peer: median {median:.1} ms, p99 {p99:.1} ms");

    let crowd = Crowd::start(&authority, 97).await;
    let peer = Peer::start(&authority).await;
    let room = crowd.room(&peer, "crowded");
    let id = room.lock().id.to_string();
    join(&alice, &id, peer.name.as_str()).await;
    join(&bob, &id, &here.name).await;
    let before = cpu(here.server.pid());
    let taken = crowd.taken();
    let mut times = latencies(&alice, &bob, &id, 100).await;
    let (median, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    eventually("everybody has something", || async { (crowd.taken() > taken + 97).then_some(()) }).await;
    let used = (cpu(here.server.pid()) - before) / 100.0;
    println!(
        "a message to another server, 99 peers: median {median:.1} ms, p99 {p99:.1} ms, {used:.1} ms CPU a message, \
         {:.1} transactions each",
        (crowd.taken() - taken) as f64 / 97.0
    );
}
