//! A thousand servers that take connections and never say a word.

use std::time::{Duration, Instant};

use serde_json::json;
use toml::Table;

use crate::{
    common::{
        User, eventually,
        federating::{Authority, Federating},
    },
    crowd::Crowd,
    load::{cpu, memory, percentile},
    peer::Peer,
};

/// How long a message takes to be acknowledged, one every few milliseconds.
async fn acknowledged(user: &User, room: &str, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        user.send_text(room, "a message").await;
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    times
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn a_thousand_servers_that_are_silent() {
    const SERVERS: u32 = 1_000;
    let authority = Authority::new();
    let crowd = Crowd::start(&authority, SERVERS).await;
    let peer = Peer::start(&authority).await;
    let mut here = Federating::start(&authority, Table::new()).await;
    here.server.stop().await;
    here.configure(|config| {
        config.insert("rooms".to_owned(), toml::toml! { max_members = 2000 }.into());
    });
    here.start_again().await;
    let alice = here.server.register("alice").await;
    let bob = here.server.register("bob").await;
    let own = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&own).await;

    let room = crowd.room(&peer, "wide");
    let id = room.lock().id.to_string();
    let began = Instant::now();
    alice.post(&format!("/v3/join/{id}?via={}", peer.name), json!({})).await.expect(200);
    println!("join of a room on {SERVERS} servers: {:.1?}", began.elapsed());
    let taken = crowd.taken();
    alice.send_text(&id, "hello").await;
    eventually("everybody has it", || async { (crowd.taken() >= taken + u64::from(SERVERS)).then_some(()) })
        .await;

    let report = |what: &str, mut times: Vec<Duration>, used: f64, memory: f64| {
        let count = times.len() as f64;
        let (median, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        println!(
            "{what}: sends median {median:.2} ms, p99 {p99:.2} ms, {:.2} ms CPU each; {memory:.0} MiB",
            used / count
        );
    };
    let pid = here.server.pid();
    for (what, room) in [("own room, all answer", &own), ("wide room, all answer", &id)] {
        acknowledged(&alice, room, 50).await;
        let before = cpu(pid);
        let times = acknowledged(&alice, room, 500).await;
        report(what, times, cpu(pid) - before, memory(pid).0);
    }
    crowd.fall_silent();
    acknowledged(&alice, &id, 100).await;
    let before = cpu(pid);
    let times = acknowledged(&alice, &own, 500).await;
    report("own room, all have just fallen silent", times, cpu(pid) - before, memory(pid).0);
    tokio::time::sleep(Duration::from_mins(3)).await;
    for (what, room) in [("own room, all are silent", &own), ("wide room, all are silent", &id)] {
        acknowledged(&alice, room, 50).await;
        let before = cpu(pid);
        let times = acknowledged(&alice, room, 500).await;
        report(what, times, cpu(pid) - before, memory(pid).0);
    }
}
