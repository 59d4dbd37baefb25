//! Which thread an event counts in.

use super::*;

const APART: &str =
    "&filter=%7B%22room%22:%7B%22timeline%22:%7B%22unread_thread_notifications%22:true%7D%7D%7D";

/// Unread events by thread, as a client that asks for that is told; the main timeline's name is empty.
async fn counts(user: &User, room: &str) -> Vec<(String, i64, i64)> {
    let sync = user.sync_with(None, 0, APART).await;
    counts_in(&sync, room)
}

fn counts_in(sync: &Value, room: &str) -> Vec<(String, i64, i64)> {
    let room = &sync["rooms"]["join"][room];
    let count = |name: &str, counts: &Value| {
        let number = |name: &str| counts[name].as_i64().unwrap_or_else(|| panic!("no {name} in {room}"));
        (name.to_owned(), number("notification_count"), number("highlight_count"))
    };
    let mut all = vec![count("", &room["unread_notifications"])];
    let threads = room["unread_thread_notifications"].as_object().expect("counts by thread");
    all.extend(threads.iter().map(|(root, counts)| count(root, counts)));
    all.retain(|(name, notifications, highlights)| name.is_empty() || notifications + highlights > 0);
    all[1..].sort();
    all
}

fn mention(user: &User, mut content: Value) -> Value {
    content["m.mentions"] = json!({ "user_ids": [user.user_id] });
    content
}

async fn read(user: &User, room: &str, kind: &str, event: &str, thread: Option<&str>) {
    let body = thread.map_or(json!({}), |thread| json!({ "thread_id": thread }));
    user.post(&format!("/v3/rooms/{room}/receipt/{kind}/{event}"), body).await.expect(200);
}

/// RC-23, PU-11: events count in the thread that they lead to by no more than three relations.
#[tokio::test]
async fn rc_23_what_relates_to_a_thread_counts_in_it() {
    let (mut server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "root").await;
    read(&bob, &room, "m.read", &message, None).await;
    let reply = alice.reply(&room, &message, "reply").await;
    // One relation away, then two, then more than three.
    let note = |parent: &str| mention(&bob, with(text("note"), "m.reference", parent));
    let second = alice.send_event(&room, "m.room.message", note(&reply)).await;
    let third = alice.send_event(&room, "m.room.message", note(&second)).await;
    let in_thread = vec![(String::new(), 0, 0), (message.clone(), 3, 2)];
    assert_eq!(counts(&bob, &room).await, in_thread);
    let fourth = alice.send_event(&room, "m.room.message", note(&third)).await;
    // What relates to a root is in the main timeline.
    let about_root = alice.send_event(&room, "m.room.message", note(&message)).await;
    let expected = vec![(String::new(), 2, 2), (message.clone(), 3, 2)];
    assert_eq!(counts(&bob, &room).await, expected);
    server.restart().await;
    assert_eq!(counts(&bob, &room).await, expected);

    // RC-22: receipts may be where the events are.
    for (event, thread, fits) in [
        (&reply, &*message, true),
        (&reply, "main", false),
        (&third, &*message, true),
        (&third, "main", false),
        (&fourth, "main", true),
        (&fourth, &*message, false),
        (&about_root, "main", true),
        (&about_root, &*message, true),
        (&message, "main", true),
        (&message, &*message, true),
        (&message, &*reply, false),
        (&reply, &*reply, false),
    ] {
        let path = format!("/v3/rooms/{room}/receipt/m.read/{event}");
        let answer = alice.post(&path, json!({ "thread_id": thread })).await;
        if fits {
            answer.expect(200);
        } else {
            answer.expect_error(400, "M_INVALID_PARAM");
        }
    }
    read(&bob, &room, "m.read", &second, Some(&message)).await;
    assert_eq!(counts(&bob, &room).await, [(String::new(), 2, 2), (message.clone(), 1, 1)]);
    read(&bob, &room, "m.read", &about_root, Some("main")).await;
    assert_eq!(counts(&bob, &room).await, [(String::new(), 0, 0), (message.clone(), 1, 1)]);
}

/// RC-20, RC-24, PU-11: a receipt reads its thread, one without a thread reads all.
#[tokio::test]
async fn rc_24_receipts_clear_their_thread_alone_and_unthreaded_ones_all() {
    let (_server, alice, bob, room) = two().await;
    let (one, two) = (alice.send_text(&room, "one").await, alice.send_text(&room, "two").await);
    let first = alice.reply(&room, &one, "reply").await;
    alice.reply(&room, &two, "reply").await;
    let last = alice.send_text(&room, "three").await;
    let all = |main, one_count, two_count| {
        let mut all =
            vec![(String::new(), main, 0), (one.clone(), one_count, 0), (two.clone(), two_count, 0)];
        all.retain(|(name, count, _)| name.is_empty() || *count > 0);
        all[1..].sort();
        all
    };
    // The invitation to a public room notifies nobody.
    assert_eq!(counts(&bob, &room).await, all(3, 1, 1));
    read(&bob, &room, "m.read.private", &first, Some(&one)).await;
    assert_eq!(counts(&bob, &room).await, all(3, 0, 1));
    read(&bob, &room, "m.read", &two, Some("main")).await;
    assert_eq!(counts(&bob, &room).await, all(1, 0, 1));
    alice.reply(&room, &one, "reply").await;
    assert_eq!(counts(&bob, &room).await, all(1, 1, 1));
    read(&bob, &room, "m.read", &last, None).await;
    assert_eq!(counts(&bob, &room).await, all(0, 1, 0), "the last reply came after it");
}

/// SY-14, SY-15: counts by thread in the same answer as the event, however long the device has been there.
#[tokio::test]
async fn sy_15_counts_by_thread_come_with_the_event() {
    let (server, alice, bob, room) = two().await;
    let together = server.login("bob").await;
    let mut since = [Value::Null, Value::Null];
    let mut next = async || {
        let apart = bob.sync_with(since[0].as_str(), 0, APART).await;
        let sum = together.sync(since[1].as_str(), 0).await;
        since = [apart["next_batch"].clone(), sum["next_batch"].clone()];
        let (apart, fresh) = (counts_in(&apart, &room), counts(&bob, &room).await);
        assert_eq!(apart, fresh, "a device that begins is told the same");
        let unread = &sum["rooms"]["join"][&room]["unread_notifications"];
        let sum = (unread["notification_count"].as_i64(), unread["highlight_count"].as_i64());
        (apart, sum)
    };
    next().await;
    let message = alice.send_text(&room, "root").await;
    let main = (String::new(), 1, 0);
    assert_eq!(next().await, (vec![main.clone()], (Some(1), Some(0))));
    for replies in 1..4 {
        alice.send_event(&room, "m.room.message", mention(&bob, with(text("x"), "m.thread", &message))).await;
        let expected = vec![main.clone(), (message.clone(), replies, replies)];
        assert_eq!(next().await, (expected, (Some(1 + replies), Some(replies))));
    }
    let last = alice.reply(&room, &message, "last").await;
    assert_eq!(next().await, (vec![main.clone(), (message.clone(), 4, 3)], (Some(5), Some(3))));
    read(&bob, &room, "m.read", &last, Some(&message)).await;
    assert_eq!(next().await, (vec![main], (Some(1), Some(0))));
    let again = alice.reply(&room, &message, "again").await;
    alice.send_text(&room, "main").await;
    let expected = vec![(String::new(), 2, 0), (message.clone(), 1, 0)];
    assert_eq!(next().await, (expected, (Some(3), Some(0))));
    alice.redact(&room, &again).await;
    assert_eq!(next().await, (vec![(String::new(), 2, 0)], (Some(2), Some(0))));
}
