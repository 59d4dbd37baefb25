//! What users of other servers report of sliding sync, each a test that it isn't so here.

use super::*;

/// Reads the room on one device and looks at it on another.
#[tokio::test]
async fn reading_on_one_device_clears_the_unread_marker_of_another() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let phone = server.login("bob").await;
    let room_id = public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::of_all_rooms(&phone);
    sliding.next().await;
    let event = alice.send_text(&room_id, "hello bob").await;
    let answer = sliding.next().await;
    assert_eq!(room(&answer, &room_id)["notification_count"], 1);
    for kind in ["m.read", "m.read.private"] {
        let event = if kind == "m.read" { event.clone() } else { alice.send_text(&room_id, "more").await };
        let counted = |answer: &Value, count: u64| {
            (answer["rooms"][&room_id]["notification_count"].as_u64() == Some(count)).then_some(())
        };
        let change = bob.receipt(&room_id, kind, &event);
        sliding.woken_by(change, |answer| counted(answer, 0)).await;
        // A new connection says the same.
        let answer = Sliding::beside(&phone, all_rooms(json!({}))).next().await;
        assert_eq!(room(&answer, &room_id)["notification_count"], 0);
    }
    // … while the room is out of the window too.
    let other = bob.create_room(json!({})).await;
    let mut narrow = Sliding::new(&phone, all_rooms(json!({ "ranges": [[0, 0]] })));
    let event = alice.send_text(&room_id, "again").await;
    assert_eq!(room(&narrow.next().await, &room_id)["notification_count"], 1);
    bob.send_text(&other, "up").await;
    narrow.next().await;
    bob.receipt(&room_id, "m.read", &event).await;
    narrow.next().await;
    narrow.body = all_rooms(json!({ "ranges": [[0, 1]] }));
    assert_eq!(room(&narrow.next().await, &room_id)["notification_count"], 0);
}

#[tokio::test]
async fn receipts_of_rooms_outside_of_the_window_come_when_the_room_does() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let other = alice.create_room(json!({})).await;
    let event = alice.send_text(&room_id, "hello").await;
    let mut body = all_rooms(json!({ "ranges": [[0, 0]] }));
    body["extensions"] = json!({ "receipts": { "enabled": true } });
    let mut sliding = Sliding::new(&alice, body);
    let answer = sliding.next().await;
    assert_eq!(rooms(&answer), [room_id.as_str()]);
    assert_eq!(answer["extensions"].get("receipts"), None);
    alice.send_text(&other, "up").await;
    sliding.next().await;
    bob.receipt(&room_id, "m.read", &event).await;
    let answer = sliding.next().await;
    assert_eq!(answer["extensions"].get("receipts"), None, "{answer}");
    alice.send_text(&room_id, "up again").await;
    let answer = sliding.next().await;
    let receipts = &answer["extensions"]["receipts"]["rooms"][&room_id]["content"];
    assert!(receipts[&event]["m.read"].get(&bob.user_id).is_some(), "{answer}");
    assert_eq!(sliding.next().await["extensions"].get("receipts"), None, "once");
}

#[tokio::test]
async fn an_invite_that_came_while_offline_is_there() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut sliding = Sliding::of_all_rooms(&bob);
    sliding.next().await;
    let one = alice.create_room(json!({ "invite": [bob.user_id] })).await;
    for _ in 0..30 {
        bob.create_room(json!({})).await;
    }
    // It is older than all in the window, and a list of its own has it.
    sliding.body["lists"]["invites"] = json!({
        "ranges": [[0, 9]], "timeline_limit": 0, "required_state": [], "filters": { "is_invite": true },
    });
    let answer = sliding.next().await;
    assert!(room(&answer, &one)["invite_state"].is_array());
    server.restart().await;
    sliding.pos = None;
    assert!(room(&sliding.next().await, &one)["invite_state"].is_array());
}

/// After hours asleep there is more than fits: it is said so, and the way back is there.
#[tokio::test]
async fn after_a_long_sleep_nothing_is_missing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::of_all_rooms(&bob);
    let answer = sliding.next().await;
    let mut seen = common::history::ids(&room(&answer, &room_id)["timeline"]);
    let known = seen.len();
    let mut sent = Vec::new();
    // More than the end of the queue that is in memory.
    for number in 0..common::rounds(150, 400) {
        sent.push(alice.send_text(&room_id, &number.to_string()).await);
    }
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!((&shown["limited"], &shown["num_live"]), (&json!(true), &json!(10)));
    let mut gap = Vec::new();
    let mut from = shown["prev_batch"].as_str().expect("prev_batch").to_owned();
    while gap.len() + 10 < sent.len() {
        let page =
            bob.get(&format!("/v3/rooms/{room_id}/messages?dir=b&limit=50&from={from}")).await.expect(200);
        gap.extend(common::history::ids(&page["chunk"]));
        from = page["end"].as_str().unwrap_or_default().to_owned();
    }
    gap.truncate(sent.len() - 10);
    gap.reverse();
    seen.extend(gap);
    seen.extend(common::history::ids(&shown["timeline"]));
    assert_eq!(seen[known..], sent[..]);
}

#[tokio::test]
async fn a_room_comes_back_after_leaving_and_joining_again() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::of_all_rooms(&bob);
    sliding.next().await;
    for seen in [true, false] {
        bob.leave(&room_id).await;
        if seen {
            sliding.next().await;
        }
        bob.join(&room_id).await;
        let answer = sliding.next().await;
        let shown = room(&answer, &room_id);
        assert_eq!((&shown["initial"], &shown["joined_count"]), (&json!(true), &json!(2)));
        assert_eq!(count(&answer, "all"), 1);
        alice.send_text(&room_id, "welcome back").await;
        assert_eq!(texts(room(&sliding.next().await, &room_id)), ["welcome back"]);
    }
    // Forgotten, then joined again.
    bob.leave(&room_id).await;
    bob.post(&format!("/v3/rooms/{room_id}/forget"), json!({})).await.expect(200);
    bob.join(&room_id).await;
    assert_eq!(room(&sliding.next().await, &room_id)["initial"], true);
    assert_eq!(count(&Sliding::of_all_rooms(&bob).next().await, "all"), 1);
}

/// A client that waits is answered when there is something, and not before: requests that are answered at once with
/// nothing make it go round for ever.
#[tokio::test]
async fn a_request_waits_until_there_is_something_for_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let other = public_room(&alice, &[&bob]).await;
    let mut body = all_rooms(json!({ "ranges": [[0, 0]] }));
    body["extensions"] = json!({
        "to_device": { "enabled": true }, "e2ee": { "enabled": true }, "account_data": { "enabled": true },
        "receipts": { "enabled": true }, "typing": { "enabled": true },
        "io.element.msc4308.thread_subscriptions": { "enabled": true },
    });
    let mut sliding = Sliding::new(&bob, body);
    sliding.next().await;
    assert!(rooms(&sliding.next().await).is_empty());
    let waiting = sliding.poll();
    // None of this is for it.
    bob.typing(&room_id, true).await;
    bob.typing(&room_id, false).await;
    let event = alice.create_room(json!({})).await;
    alice.send_text(&event, "elsewhere").await;
    assert!(!waiting.is_finished());
    alice.send_text(&other, "this is").await;
    let answer = waiting.await.expect("a request");
    assert_eq!(texts(room(&answer, &other)), ["this is"]);
    // A wait that is over is answered with nothing, and the next goes on from there.
    sliding.pos = Some(pos(&answer).to_owned());
    let answer = sliding.ask(1).await.expect(200);
    assert!(rooms(&answer).is_empty(), "{answer}");
    sliding.pos = Some(pos(&answer).to_owned());
    alice.send_text(&other, "and this").await;
    assert_eq!(texts(room(&sliding.next().await, &other)), ["and this"]);
}

/// I4, I5: one device sees all messages once and in order, however often answers get lost.
#[tokio::test]
async fn i4_i5_every_message_comes_once_and_in_order() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::new(&bob, all_rooms(json!({ "timeline_limit": 50 })));
    let answer = sliding.next().await;
    let mut seen = common::history::ids(&room(&answer, &room_id)["timeline"]);
    let writer = tokio::spawn({
        let (alice, room_id) = (alice.clone(), room_id.clone());
        async move {
            let mut sent = Vec::new();
            for number in 0..common::rounds(60, 1_000) {
                sent.push(alice.send_text(&room_id, &number.to_string()).await);
            }
            sent
        }
    });
    let mut turn = 0;
    let mut end = None;
    loop {
        turn += 1;
        let wait = if end.is_some() { 0 } else { 100 };
        if turn % 3 == 0 {
            sliding.ask(wait).await.expect(200);
        }
        let answer = sliding.ask(wait).await.expect(200);
        sliding.pos = Some(pos(&answer).to_owned());
        if let Some(shown) = answer["rooms"].get(&room_id) {
            assert_ne!(shown["limited"], true, "{shown}");
            seen.extend(common::history::ids(&shown["timeline"]));
        } else if end.is_some() {
            break;
        }
        if writer.is_finished() {
            end = Some(());
        }
    }
    let sent = writer.await.expect("a writer");
    let log: Vec<Value> = common::history::whole_log(&bob, &room_id).await;
    common::history::check(&seen, &common::history::ids(&json!(log)), &sent);
}
