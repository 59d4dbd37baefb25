//! Messages from device to device: those that another server brings, and those that it doesn't take.

use serde_json::{Value, json};

use crate::{
    World,
    common::{User, eventually},
};

/// One of the peer's rita.
fn edu(world: &World, message_id: &str, messages: &Value) -> Value {
    let content = json!({
        "sender": world.peer.user("rita"), "type": "m.test", "message_id": message_id, "messages": messages,
    });
    json!({ "edu_type": "m.direct_to_device", "content": content })
}

/// The same for alice, with a number.
fn numbered(world: &World, message_id: &str, n: u64) -> Value {
    edu(world, message_id, &json!({ &world.alice.user_id: { "*": { "n": n } } }))
}

/// What waits for a device.
async fn waiting(user: &User) -> Vec<Value> {
    let answer = user.sync(None, 0).await;
    answer["to_device"]["events"].as_array().cloned().unwrap_or_default()
}

async fn numbers(user: &User) -> Vec<u64> {
    waiting(user).await.iter().map(|event| event["content"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn td_04_a_message_counts_once_whatever_brings_it_again() {
    let mut world = World::new().await;
    let edus = [numbered(&world, "a", 1), numbered(&world, "b", 2), numbered(&world, "a", 3)];
    world.peer.send(&world.here, &[], &edus).await.expect(200);
    world.peer.send(&world.here, &[], &edus).await.expect(200);
    assert_eq!(numbers(&world.alice).await, [1, 2]);
    world.here.server.kill().await;
    world.here.start_again().await;
    world.peer.send(&world.here, &[], &edus).await.expect(200);
    world
        .peer
        .send(&world.here, &[], &[numbered(&world, "b", 4), numbered(&world, "c", 5)])
        .await
        .expect(200);
    assert_eq!(numbers(&world.alice).await, [1, 2, 5]);
    // Also of those that the device has had, and that are gone.
    let answer = world.alice.sync(None, 0).await;
    world.alice.sync(answer["next_batch"].as_str(), 0).await;
    world.peer.send(&world.here, &[], &edus).await.expect(200);
    assert!(numbers(&world.alice).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_or_not_theirs_is_dropped_and_stops_nothing() {
    let world = World::new().await;
    let alice = &world.alice.user_id;
    let content = json!({ "n": 99 });
    let to_alice = json!({ alice: { "*": content } });
    let good = |n: u64| numbered(&world, &format!("good{n}"), n);
    let with = |key: &str, value: Value| {
        let mut edu = edu(&world, &format!("bad {key} {value}"), &to_alice);
        edu["content"][key] = value;
        edu
    };
    let mut without = good(99);
    without["content"].as_object_mut().unwrap().remove("message_id");
    let bad = [
        // In the name of others.
        with("sender", json!(alice)),
        with("sender", json!("@tom:127.0.0.1:1")),
        with("sender", json!("rita")),
        with("sender", json!(7)),
        // Shapes.
        with("message_id", json!(7)),
        with("message_id", json!("")),
        with("message_id", json!("x".repeat(1_000))),
        without,
        with("type", json!(null)),
        with("type", json!("x".repeat(256))),
        with("messages", json!([])),
        with("messages", json!({ alice: [content] })),
        with("messages", json!({ alice: { "*": "text" } })),
        with("messages", json!({ alice: { "*": [content] } })),
        with("messages", json!({ "alice": { "*": content } })),
        json!({ "edu_type": "m.direct_to_device" }),
        json!({ "edu_type": "m.direct_to_device", "content": [] }),
        json!([]),
        // Too large.
        with("messages", json!({ alice: { "*": { "n": 99, "text": "x".repeat(65_536) } } })),
        with("messages", json!({ alice: { "*": { "n": 99, "text": "x".repeat(2_000_000) } } })),
        // For nobody here.
        with("messages", json!({ alice: { "NONE": content }, "@none:127.0.0.1:1": { "*": content } })),
        with("messages", json!({ world.peer.user("sam").as_str(): { "*": content } })),
    ];
    let mut edus = Vec::new();
    for (bad, n) in bad.iter().zip(0..) {
        edus.extend([good(n), bad.clone()]);
    }
    let count = bad.len() as u64;
    edus.push(good(count));
    world.peer.send(&world.here, &[], &edus).await.expect(200);
    let waiting = waiting(&world.alice).await;
    let expected: Vec<Value> = (0..=count)
        .map(|n| json!({ "type": "m.test", "sender": world.peer.user("rita"), "content": { "n": n } }))
        .collect();
    assert_eq!(waiting, expected);
    // What was for others isn't passed on: alice's own message is the first that goes out.
    let sam = world.peer.user("sam");
    let body = json!({ "messages": { sam.as_str(): { "*": { "n": 1 } } } });
    world.alice.put("/v3/sendToDevice/m.test/1", body).await.expect(200);
    let sent = eventually("it goes out", || async { sent(&world).into_iter().next() }).await;
    assert_eq!(sent["content"]["messages"][sam.as_str()]["*"], json!({ "n": 1 }));
}

/// Data of all transactions, in order.
fn sent(world: &World) -> Vec<Value> {
    let transactions = world.peer.asked("/_matrix/federation/v1/send/").into_iter();
    let edus = transactions.filter_map(|asked| asked.body["edus"].as_array().cloned()).flatten();
    edus.filter(|edu| edu["edu_type"] == "m.direct_to_device").collect()
}

/// A server that minds a message for good, whatever else is in the transaction, gets all others, once and in order.
#[tokio::test(flavor = "multi_thread")]
async fn td_04_a_message_that_is_refused_holds_up_no_other() {
    let world = World::new().await;
    let sam = world.peer.user("sam");
    for status in [400, 413] {
        let poison = format!("poison {status}");
        let taken = std::sync::Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (bad, all) = (poison.clone(), std::sync::Arc::clone(&taken));
        world.peer.on("/_matrix/federation/v1/send/", move |asked| {
            let text = asked.body["edus"].to_string();
            if text.contains(&bad) {
                return (status, json!({ "errcode": "M_UNKNOWN", "error": "no" }));
            }
            let edus = asked.body["edus"].as_array().cloned().unwrap_or_default();
            let numbers = edus.iter().filter_map(|edu| {
                edu["content"]["messages"].as_object()?.values().next()?["*"]["n"].as_u64()
            });
            all.lock().extend(numbers);
            (200, json!({ "pdus": {} }))
        });
        for n in 0..12 {
            let text = if n == 5 { &*poison } else { "fine" };
            let body = json!({ "messages": { sam.as_str(): { "*": { "n": n, "text": text } } } });
            world.alice.put(&format!("/v3/sendToDevice/m.test/{status}{n}"), body).await.expect(200);
        }
        let expected: Vec<u64> = (0..12).filter(|n| *n != 5).collect();
        eventually("all others are taken", || async { taken.lock().contains(&11).then_some(()) }).await;
        assert_eq!(*taken.lock(), expected);
    }
}

/// TX-02, TD-04: an answer that got lost.
#[tokio::test(flavor = "multi_thread")]
async fn td_04_what_is_sent_again_is_the_same_transaction() {
    let world = World::new().await;
    let (sam, fails) = (world.peer.user("sam"), std::sync::atomic::AtomicU32::new(1));
    world.peer.on("/_matrix/federation/v1/send/", move |_| {
        use std::sync::atomic::Ordering::Relaxed;
        let failed = fails.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok();
        (if failed { 502 } else { 200 }, json!({ "pdus": {} }))
    });
    let send = async |n: u64| {
        let body = json!({ "messages": { sam.as_str(): { "*": { "n": n } } } });
        world.alice.put(&format!("/v3/sendToDevice/m.test/{n}"), body).await.expect(200);
    };
    let transactions = || world.peer.asked("/_matrix/federation/v1/send/");
    send(1).await;
    eventually("it fails once", || async { (!transactions().is_empty()).then_some(()) }).await;
    send(2).await;
    eventually("both are there", || async { (transactions().len() >= 3).then_some(()) }).await;
    let asked = transactions();
    assert_eq!((&asked[1].path, &asked[1].body["edus"]), (&asked[0].path, &asked[0].body["edus"]));
    assert_ne!(asked[2].path, asked[0].path);
    assert_eq!(asked[2].body["edus"][0]["content"]["messages"][sam.as_str()]["*"], json!({ "n": 2 }));
    assert_eq!(asked.len(), 3);
}
