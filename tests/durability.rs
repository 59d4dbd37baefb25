//! I1–I5: what was acknowledged is there, once, in one order for everybody, whatever happens to the process.

mod common;

use common::{
    Server, User,
    history::{Reader, check, ids, whole_log},
    rounds,
};
use http::Method;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

const SENDERS: usize = 8;

/// Counts acknowledgements, so that a test can strike after so many.
#[derive(Default)]
struct Acknowledged {
    count: AtomicUsize,
    more: Notify,
}

/// Sends numbered messages until the server is gone. The last number may or may not have arrived.
async fn send_until_cut(
    user: User,
    room: String,
    mut number: usize,
    total: Arc<Acknowledged>,
) -> (Vec<(usize, String)>, usize) {
    let mut acknowledged = Vec::new();
    loop {
        match send(&user, &room, number).await {
            Some(event) => {
                acknowledged.push((number, event));
                total.count.fetch_add(1, Ordering::SeqCst);
                total.more.notify_one();
                number += 1;
            }
            None => return (acknowledged, number),
        }
    }
}

/// Message `number` under its own transaction id; `None` if the connection broke.
async fn send(user: &User, room: &str, number: usize) -> Option<String> {
    let path = format!("/v3/rooms/{room}/send/m.room.message/n{number}");
    let body = json!({ "msgtype": "m.text", "body": number.to_string() });
    let answer =
        user.http.try_request(Method::PUT, &path, Some(&user.access_token), Some(body)).await.ok()?;
    let event = answer.expect(200)["event_id"].as_str().expect("event_id").to_owned();
    Some(event)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_among_eight_senders_loses_nothing_and_repeats_nothing() {
    let mut server = Server::start(toml::Table::new()).await;
    let mut users = Vec::new();
    for number in 0..SENDERS {
        users.push(server.register(&format!("sender{number}")).await);
    }
    let room = users[0].create_room(json!({ "preset": "public_chat" })).await;
    for user in &users[1..] {
        user.join(&room).await;
    }
    let watcher = server.register("watcher").await;
    watcher.join(&room).await;
    let mut reader = Reader::new(&watcher, &room);
    reader.advance(0).await;

    let mut next = [0; SENDERS];
    let mut acknowledged: BTreeMap<(usize, usize), String> = BTreeMap::new();
    for round in 0..rounds(50, 200) {
        let total = Arc::<Acknowledged>::default();
        let tasks: Vec<_> = users
            .iter()
            .zip(next)
            .map(|(user, number)| {
                tokio::spawn(send_until_cut(user.clone(), room.clone(), number, Arc::clone(&total)))
            })
            .collect();
        // Each time at another moment of the senders' work.
        while total.count.load(Ordering::SeqCst) < 3 + (round * 7) % 41 {
            total.more.notified().await;
        }
        server.kill().await;
        for (sender, task) in tasks.into_iter().enumerate() {
            let (sent, unsure) = task.await.expect("a sender");
            acknowledged.extend(sent.into_iter().map(|(number, event)| ((sender, number), event)));
            next[sender] = unsure;
        }
        server.start_again().await;
        // The clients try their last message again, under the same transaction id.
        for (sender, user) in users.iter().enumerate() {
            let event = send(user, &room, next[sender]).await.expect("the server is back");
            let again = send(user, &room, next[sender]).await.expect("the server is back");
            assert_eq!(event, again, "I3: the same transaction");
            acknowledged.insert((sender, next[sender]), event);
            next[sender] += 1;
        }
        reader.advance(0).await;
    }

    let log = whole_log(&watcher, &room).await;
    let messages: Vec<&Value> = log.iter().filter(|event| event["type"] == "m.room.message").collect();
    let mut per_sender: HashMap<&str, Vec<usize>> = HashMap::new();
    for message in &messages {
        let number =
            message["content"]["body"].as_str().and_then(|body| body.parse().ok()).expect("a number");
        per_sender.entry(message["sender"].as_str().expect("sender")).or_default().push(number);
    }
    for (sender, user) in users.iter().enumerate() {
        let expected: Vec<usize> = (0..next[sender]).collect();
        assert_eq!(per_sender[user.user_id.as_str()], expected, "every message of a sender, once, in order");
    }
    let last = messages.last().expect("messages")["event_id"].as_str().expect("event_id").to_owned();
    reader.read_until(&last).await;
    let log = ids(&Value::Array(log));
    let acknowledged: Vec<String> = acknowledged.into_values().collect();
    check(&reader.events, &log, &acknowledged);
    for user in &users {
        assert_eq!(ids(&Value::Array(whole_log(user, &room).await)), log, "I4: one order for all");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_transaction_sent_fifty_times_at_once_is_one_event() {
    let mut server = Server::start(toml::Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;

    let attempts: Vec<_> = (0..50)
        .map(|_| {
            let (alice, room) = (alice.clone(), room.clone());
            tokio::spawn(async move { send(&alice, &room, 1).await.expect("an answer") })
        })
        .collect();
    let mut events = Vec::new();
    for attempt in attempts {
        events.push(attempt.await.expect("an attempt"));
    }
    events.dedup();
    assert_eq!(events.len(), 1, "I3: {events:?}");

    server.restart().await;
    assert_eq!(send(&alice, &room, 1).await.as_ref(), events.first(), "I3: after a restart too");
    let log = whole_log(&alice, &room).await;
    assert_eq!(log.iter().filter(|event| event["type"] == "m.room.message").count(), 1);

    let other_device = server.login("alice").await;
    let other = send(&other_device, &room, 1).await.expect("an answer");
    assert_ne!(Some(&other), events.first(), "GN-06: another device has transactions of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_absence_ends_in_a_gap_that_closes_exactly() {
    let server = Server::start(toml::Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut reader = Reader::new(&bob, &room);
    reader.advance(0).await;

    let mut sent = Vec::new();
    for number in 0..345 {
        sent.push(alice.send_text(&room, &number.to_string()).await);
        if number == 200 {
            reader.advance(0).await;
        }
    }
    reader.advance(0).await;

    let log = ids(&Value::Array(whole_log(&bob, &room).await));
    check(&reader.events, &log, &sent);
    assert_eq!(reader.events, log, "I5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_room_is_not_forgotten_behind_a_busy_one() {
    let server = Server::start(toml::Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let quiet = alice.create_room(json!({ "preset": "public_chat" })).await;
    let busy = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&quiet).await;
    bob.join(&busy).await;
    let mut reader = Reader::new(&bob, &quiet);
    reader.advance(0).await;

    // More entries than the end of a queue keeps in memory come after the one that must not be lost.
    let said = alice.send_text(&quiet, "once").await;
    for number in 0..200 {
        alice.send_text(&busy, &number.to_string()).await;
    }
    reader.advance(0).await;

    assert_eq!(reader.events.last(), Some(&said), "I5");
}
