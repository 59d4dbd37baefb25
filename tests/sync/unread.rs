//! Unread counts: in the answer that has the event, and lower again once it is read.

use super::*;

#[track_caller]
fn counts(answer: &Value, room: &str) -> (i64, i64) {
    let unread = &join(answer, room)["unread_notifications"];
    let count = |name: &str| unread[name].as_i64().unwrap_or_else(|| panic!("no {name} in {answer}"));
    (count("notification_count"), count("highlight_count"))
}

fn mention(user: &User) -> Value {
    json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": [user.user_id] } })
}

#[tokio::test]
async fn sy14_counts_come_with_the_event_and_go_with_the_receipt() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let (mut device, mut own) = (Device::ready(&bob).await, Device::ready(&alice).await);

    let first = alice.send_text(&room, "one").await;
    assert_eq!(counts(&device.next().await, &room), (1, 0));
    assert_eq!(counts(&own.next().await, &room), (0, 0), "nobody is notified of what they did");
    alice.send_event(&room, "m.room.message", mention(&bob)).await;
    assert_eq!(counts(&device.next().await, &room), (2, 1));
    alice.send_text(&room, "three").await;
    let last = alice.send_text(&room, "four").await;
    assert_eq!(counts(&device.next().await, &room), (4, 1));
    alice.send_event(&room, "m.reaction", json!({})).await;
    assert_eq!(counts(&device.next().await, &room), (4, 1));
    assert_eq!(counts(&Device::new(&bob).next().await, &room), (4, 1), "on an initial sync");

    bob.receipt(&room, "m.read", &first).await;
    assert_eq!(counts(&device.next().await, &room), (3, 1));
    // RC-24
    bob.receipt(&room, "m.read.private", &last).await;
    assert_eq!(counts(&device.next().await, &room), (0, 0));
    alice.send_text(&room, "five").await;
    assert_eq!(counts(&device.next().await, &room), (1, 0));
}

#[tokio::test]
async fn sy14_a_redacted_message_is_unread_no_more() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&bob).await;
    alice.send_text(&room, "one").await;
    let mention = alice.send_event(&room, "m.room.message", mention(&bob)).await;
    assert_eq!(counts(&device.next().await, &room), (2, 1));
    alice.redact(&room, &mention).await;
    assert_eq!(counts(&device.next().await, &room), (1, 0));
}

#[tokio::test]
async fn sy15_threads_are_counted_apart_for_those_who_ask() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let threads = json!({ "room": { "timeline": { "unread_thread_notifications": true } } });
    let mut apart = Device::with(&bob, &filter(&threads));
    apart.next().await;
    let mut together = Device::ready(&server.login("bob").await).await;

    let head = alice.send_text(&room, "root").await;
    let mut reply = mention(&bob);
    reply["m.relates_to"] = json!({ "rel_type": "m.thread", "event_id": head });
    let reply = alice.send_event(&room, "m.room.message", reply).await;
    let answer = apart.next().await;
    assert_eq!(counts(&answer, &room), (1, 0), "the main timeline alone");
    let expected = json!({ &head: { "notification_count": 1, "highlight_count": 1 } });
    assert_eq!(join(&answer, &room)["unread_thread_notifications"], expected);
    let answer = together.next().await;
    assert_eq!(counts(&answer, &room), (2, 1));
    assert_eq!(join(&answer, &room)["unread_thread_notifications"], Value::Null);

    let path = format!("/v3/rooms/{room}/receipt/m.read/{reply}");
    bob.post(&path, json!({ "thread_id": head })).await.expect(200);
    let answer = apart.next().await;
    assert_eq!(counts(&answer, &room), (1, 0));
    let left = &join(&answer, &room)["unread_thread_notifications"];
    assert!(left.get(&head).is_none_or(|counts| counts["notification_count"] == 0), "{left}");
    assert_eq!(counts(&together.next().await, &room), (1, 0));
}

#[tokio::test]
async fn who_comes_back_finds_nothing_unread_from_before() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&bob).await;
    alice.send_text(&room, "one").await;
    alice.send_text(&room, "two").await;
    assert_eq!(counts(&device.next().await, &room), (2, 0));
    bob.leave(&room).await;
    bob.join(&room).await;
    alice.send_text(&room, "three").await;
    assert_eq!(counts(&device.next().await, &room), (1, 0));
}

/// By an event of their own, as by a receipt: on all devices.
#[tokio::test]
async fn sy14_who_sends_has_read_what_came_before() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut devices = [Device::ready(&bob).await, Device::ready(&server.login("bob").await).await];
    for round in 0..2 {
        alice.send_text(&room, "one").await;
        alice.send_event(&room, "m.room.message", mention(&bob)).await;
        // The first time the server has counted for them before, the second time it hasn't.
        for device in devices.iter_mut().filter(|_| round == 0) {
            assert_eq!(counts(&device.next().await, &room), (2, 1));
        }
        bob.send_text(&room, "answer").await;
        for device in &mut devices {
            assert_eq!(counts(&device.next().await, &room), (0, 0));
        }
        assert_eq!(counts(&Device::new(&bob).next().await, &room), (0, 0), "on an initial sync");
    }
    alice.send_text(&room, "three").await;
    for device in &mut devices {
        assert_eq!(counts(&device.next().await, &room), (1, 0));
    }
    assert_eq!(counts(&Device::new(&bob).next().await, &room), (1, 0), "on an initial sync");
    let told = bob.get("/v3/notifications").await.expect(200);
    let read = told["notifications"].as_array().unwrap().iter().map(|one| one["read"] == true);
    assert_eq!(read.take(3).collect::<Vec<_>>(), [false, true, true]);
}

#[tokio::test]
async fn sy14_state_and_redactions_read_nothing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;
    let wrong = alice.send_text(&room, "wrong").await;
    bob.send_text(&room, "one").await;
    alice.redact(&room, &wrong).await;
    let path = format!("/v3/rooms/{room}/state/m.room.topic");
    alice.put(&path, json!({ "topic": "automatic" })).await.expect(200);
    assert_eq!(counts(&device.next().await, &room), (1, 0));
}
