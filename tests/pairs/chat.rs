//! How long a message takes from a client of one server to one of another, and how many go through.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

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
    synapse::Synapse,
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

/// Two servers, each with its clients.
struct Pair {
    kind: &'static str,
    pids: [u32; 2],
    name: String,
    senders: Vec<User>,
    readers: Vec<User>,
}

const ROOMS: usize = 8;

impl Pair {
    /// Everybody sends as fast as it is acknowledged, for some seconds.
    async fn measure(self) {
        let mut rooms = Vec::new();
        for (sender, reader) in self.senders.iter().zip(&self.readers) {
            let room = sender.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
            join(reader, &room, &self.name).await;
            rooms.push(room);
        }
        let mut times = latencies(&self.senders[0], &self.readers[0], &rooms[0], 40).await;
        let (median, p99) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
        let over = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let before = self.pids.map(cpu);
        let began = Instant::now();
        let mut tasks = Vec::new();
        for ((sender, reader), room) in self.senders.into_iter().zip(self.readers).zip(rooms) {
            let (over, sent) = (Arc::clone(&over), Arc::clone(&sent));
            tasks.push(tokio::spawn(async move {
                let since = next(&reader.sync(None, 0).await);
                let mine = Arc::new(AtomicUsize::new(0));
                let counted = Arc::clone(&mine);
                let stop = Arc::clone(&over);
                let sending = tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        sender.send_text(&room, "a message of some length, as people write them").await;
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                });
                let (mut since, mut read) = (since, 0);
                while !(over.load(Ordering::Relaxed)
                    && sending.is_finished()
                    && read >= mine.load(Ordering::Relaxed))
                {
                    let sync = reader
                        .sync_with(
                            Some(&since),
                            500,
                            "&filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22limit%22%3A1000%7D%7D%7D",
                        )
                        .await;
                    since = next(&sync);
                    read += bodies(&sync).len();
                }
                sent.fetch_add(read, Ordering::Relaxed);
            }));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        let took = began.elapsed().as_secs_f64();
        let used: f64 = self.pids.map(cpu).iter().zip(before).map(|(after, before)| after - before).sum();
        let count = sent.load(Ordering::Relaxed) as f64;
        println!(
            "a pair of {}: {:.0} messages/s from client to client, {:.2} ms CPU a message on both servers; one at a time \
             median {median:.1} ms, p99 {p99:.1} ms",
            self.kind,
            count / took,
            used / count
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn pairs() {
    let authority = Authority::new();
    {
        let here = Federating::start(&authority, Table::new()).await;
        let there = Federating::start(&authority, Table::new()).await;
        let (mut senders, mut readers) = (Vec::new(), Vec::new());
        for number in 0..ROOMS {
            senders.push(here.server.register(&format!("sender{number}")).await);
            readers.push(there.server.register(&format!("reader{number}")).await);
        }
        let (pids, name) = ([here.server.pid(), there.server.pid()], here.name.clone());
        Pair { kind: "Hearth", pids, name, senders, readers }.measure().await;
    }
    let here = Synapse::start(&authority).await;
    let there = Synapse::start(&authority).await;
    let (mut senders, mut readers) = (Vec::new(), Vec::new());
    for number in 0..ROOMS {
        senders.push(here.register(&format!("sender{number}")).await);
        readers.push(there.register(&format!("reader{number}")).await);
    }
    let (pids, name) = ([here.pid(), there.pid()], here.name.clone());
    Pair { kind: "Synapse", pids, name, senders, readers }.measure().await;
}
