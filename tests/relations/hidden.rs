//! Children that a reader may not see, or doesn't want to.

use super::*;

/// A room whose members see only what was sent while they were in it.
async fn closed_room(owner: &User, guests: &[&User]) -> String {
    let state =
        json!([{ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } }]);
    let room = owner.create_room(json!({ "preset": "public_chat", "initial_state": state })).await;
    for guest in guests {
        guest.join(&room).await;
    }
    room
}

#[tokio::test]
async fn rl_05_ignored_users_have_no_children() {
    let (server, alice, bob, room) = two().await;
    let carol = server.register("carol").await;
    carol.join(&room).await;
    let message = alice.send_text(&room, "parent").await;
    let kept = alice.reply(&room, &message, "kept").await;
    let reference = alice.refer(&room, &message).await;
    let edit = alice.edit(&room, &message, "edited").await;
    carol.reply(&room, &message, "unwanted").await;
    carol.refer(&room, &message).await;
    carol.react(&room, &message, "unwanted").await;
    bob.ignore(&[&carol.user_id]).await;

    let bundle = bob.bundle(&room, &message).await;
    assert_eq!(bundle["m.thread"]["count"], json!(1));
    assert_eq!(bundle["m.thread"]["latest_event"]["event_id"], json!(kept));
    assert_eq!(bundle["m.reference"]["chunk"], json!([{ "event_id": reference }]));
    assert_eq!(bundle["m.replace"]["event_id"], json!(edit));
    assert_eq!(chunk(&bob.relations(&room, &message).await), [&edit, &reference, &kept]);
    // Others see all of it.
    let bundle = alice.bundle(&room, &message).await;
    assert_eq!(bundle["m.thread"]["count"], json!(2));
    assert_eq!(bundle["m.reference"]["chunk"].as_array().map(Vec::len), Some(2));

    bob.ignore(&[&carol.user_id, &alice.user_id]).await;
    assert_eq!(bob.bundle(&room, &message).await, Value::Null);
    assert_eq!(chunk(&bob.relations(&room, &message).await), Vec::<&str>::new());
    bob.ignore(&[]).await;
    assert_eq!(bob.bundle(&room, &message).await["m.thread"]["count"], json!(2));
}

/// RL-14: a thread whose root an ignored user sent is there, but says nothing of them.
#[tokio::test]
async fn rl_14_an_ignored_root_comes_redacted() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "unwanted").await;
    alice.edit(&room, &message, "unwanted too").await;
    let reply = bob.reply(&room, &message, "reply").await;
    bob.ignore(&[&alice.user_id]).await;
    let threads = bob.threads(&room, "").await;
    assert_eq!(chunk(&threads), [&message]);
    let root = &threads["chunk"][0];
    assert_eq!(root["content"], json!({}));
    assert_eq!(root["unsigned"]["redacted_because"], Value::Null);
    let bundle = &root["unsigned"]["m.relations"];
    assert_eq!(bundle["m.replace"], Value::Null);
    assert_eq!(bundle["m.thread"]["latest_event"]["event_id"], json!(reply));
    assert!(!threads.to_string().contains("unwanted"), "{threads}");
}

/// RL-14: an ignored reply moves its thread for others alone.
#[tokio::test]
async fn rl_14_ignored_replies_order_no_threads() {
    let (server, alice, bob, room) = two().await;
    let carol = server.register("carol").await;
    carol.join(&room).await;
    let (one, two) = (alice.send_text(&room, "one").await, alice.send_text(&room, "two").await);
    let three = alice.send_text(&room, "three").await;
    alice.reply(&room, &one, "reply").await;
    alice.reply(&room, &two, "reply").await;
    for root in [&one, &three] {
        carol.reply(&room, root, "unwanted").await;
    }
    bob.ignore(&[&carol.user_id]).await;
    assert_eq!(chunk(&bob.threads(&room, "").await), [&two, &one]);
    assert_eq!(chunk(&alice.threads(&room, "").await), [&three, &one, &two]);
    let first = bob.threads(&room, "?limit=1").await;
    let next = first["next_batch"].as_str().expect("there is one more");
    assert_eq!(chunk(&bob.threads(&room, &format!("?limit=1&from={next}")).await), [&one]);
}

/// RL-05, HV-05: what came after somebody left isn't told to them, nor what came before they were in.
#[tokio::test]
async fn rl_05_children_that_may_not_be_seen_are_not_told() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = closed_room(&alice, &[&bob]).await;
    let message = alice.send_text(&room, "parent").await;
    let quiet = alice.send_text(&room, "another").await;
    let seen = [
        alice.reply(&room, &message, "seen").await,
        alice.refer(&room, &message).await,
        alice.edit(&room, &message, "seen").await,
    ];
    let leave = format!("/v3/rooms/{room}/leave");
    bob.post(&leave, json!({})).await.expect(200);
    for parent in [&message, &quiet] {
        alice.reply(&room, parent, "hidden").await;
        alice.refer(&room, parent).await;
        alice.edit(&room, parent, "hidden").await;
    }

    let check = async |edit: &str, count: i64| {
        let bundle = bob.bundle(&room, &message).await;
        assert_eq!(bundle["m.replace"]["event_id"], json!(edit));
        assert_eq!(bundle["m.reference"]["chunk"][0], json!({ "event_id": seen[1] }));
        assert_eq!(bundle["m.reference"]["chunk"].as_array().map(Vec::len), Some(count as usize));
        assert_eq!(bundle["m.thread"]["count"], json!(count));
        let answers = [
            bundle.to_string(),
            bob.relations(&room, &message).await.to_string(),
            bob.relations(&room, &format!("{message}?recurse=true")).await.to_string(),
            bob.threads(&room, "").await.to_string(),
            bob.bundle(&room, &quiet).await.to_string(),
            bob.relations(&room, &quiet).await.to_string(),
        ];
        for answer in answers {
            assert!(!answer.contains("hidden"), "{answer}");
        }
    };
    check(&seen[2], 1).await;
    assert_eq!(chunk(&bob.relations(&room, &message).await).len(), 3);
    assert_eq!(chunk(&bob.threads(&room, "").await), [&message]);
    assert_eq!(bob.bundle(&room, &quiet).await, Value::Null);

    // After they came back they see what comes from then on, with a hole in between.
    bob.join(&room).await;
    alice.reply(&room, &message, "seen again").await;
    alice.refer(&room, &message).await;
    let edit = alice.edit(&room, &message, "seen again").await;
    check(&edit, 2).await;
    assert_eq!(chunk(&bob.relations(&room, &message).await).len(), 6);
}

/// I10: a parent that may not be seen is like one that doesn't exist, and so is its room.
#[tokio::test]
async fn i10_a_hidden_parent_is_not_found() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room = closed_room(&alice, &[]).await;
    let hidden = alice.send_text(&room, "parent").await;
    alice.reply(&room, &hidden, "reply").await;
    bob.join(&room).await;
    let elsewhere = room_of(&[&bob, &carol]).await;
    let mut answers = Vec::new();
    for (user, room, event) in [
        (&bob, &*room, &*hidden),
        (&bob, &*room, "$nothing"),
        (&bob, &*elsewhere, &*hidden),
        (&carol, &*room, &*hidden),
        (&carol, "!nowhere:localhost", &*hidden),
        (&carol, "!nowhere", "$nothing"),
    ] {
        for more in ["", "/m.thread", "/m.thread/m.room.message", "?recurse=true"] {
            let answer = user.get(&format!("/v1/rooms/{room}/relations/{event}{more}")).await;
            answers.push(answer.expect_error(404, "M_NOT_FOUND"));
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");

    // The same for threads: of a root before their time members see nothing; to others the room isn't there.
    assert_eq!(bob.threads(&room, "").await["chunk"], json!([]));
    let closed = carol.get(&format!("/v1/rooms/{room}/threads")).await.expect_error(403, "M_FORBIDDEN");
    let absent = carol.get("/v1/rooms/!nowhere:localhost/threads").await.expect_error(403, "M_FORBIDDEN");
    assert_eq!(closed, absent);
    // A reply that is seen brings no root that isn't.
    alice.reply(&room, &hidden, "later").await;
    assert_eq!(bob.threads(&room, "").await["chunk"], json!([]));
}
