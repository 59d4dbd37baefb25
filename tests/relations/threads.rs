//! Threads: what is told beside their roots, their list, and what can't begin one.

use super::*;

#[tokio::test]
async fn rl_10_a_root_tells_of_its_thread() {
    let (mut server, alice, bob, room) = two().await;
    let carol = server.register("carol").await;
    carol.join(&room).await;
    let message = alice.send_text(&room, "root").await;
    bob.reply(&room, &message, "one").await;
    let second = bob.reply(&room, &message, "two").await;
    let edit = bob.edit(&room, &second, "two, edited").await;
    let reference = alice.refer(&room, &second).await;

    for _ in 0..2 {
        let thread = alice.bundle(&room, &message).await["m.thread"].clone();
        assert_eq!(thread["count"], json!(2));
        let latest = &thread["latest_event"];
        assert_eq!(latest["event_id"], json!(second));
        assert_eq!(latest["content"]["body"], json!("two"));
        assert_eq!(latest["room_id"], json!(room));
        // … which tells of its own children.
        let nested = &latest["unsigned"]["m.relations"];
        assert_eq!(nested["m.replace"]["event_id"], json!(edit));
        assert_eq!(nested["m.reference"]["chunk"], json!([{ "event_id": reference }]));
        for (user, participated) in [(&alice, true), (&bob, true), (&carol, false)] {
            let thread = user.bundle(&room, &message).await["m.thread"].clone();
            assert_eq!(thread["current_user_participated"], json!(participated), "{}", user.user_id);
        }
        server.restart().await;
    }
    // RL-06
    alice.redact(&room, &second).await;
    let thread = alice.bundle(&room, &message).await["m.thread"].clone();
    assert_eq!(
        (thread["count"].clone(), thread["latest_event"]["content"]["body"].clone()),
        (json!(1), json!("one"))
    );
}

#[tokio::test]
async fn rl_11_no_thread_begins_with_an_event_that_relates_to_another() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "root").await;
    let reply = bob.reply(&room, &message, "reply").await;
    let reaction = bob.react(&room, &message, "👍").await;
    let edit = alice.edit(&room, &message, "edited").await;
    for parent in [&reply, &reaction, &edit] {
        let path = format!("/v3/rooms/{room}/send/m.room.message/{}", common::transaction_id());
        let answer = bob.put(&path, with(text("nested"), "m.thread", parent)).await;
        answer.expect_error(400, "M_UNKNOWN");
    }
    // A plain reply can, and so can what has lost its relation.
    let mut plain = text("a reply");
    plain["m.relates_to"] = json!({ "m.in_reply_to": { "event_id": message } });
    let plain = alice.send_event(&room, "m.room.message", plain).await;
    bob.reply(&room, &plain, "fine").await;
    bob.redact(&room, &reaction).await;
    bob.reply(&room, &reaction, "fine").await;
    assert_eq!(alice.bundle(&room, &plain).await["m.thread"]["count"], json!(1));
}

#[tokio::test]
async fn rl_14_threads_are_listed_by_their_latest_reply() {
    let (_server, alice, bob, room) = two().await;
    let mut roots = Vec::new();
    for number in 0..5 {
        roots.push(alice.send_text(&room, &format!("root {number}")).await);
    }
    alice.send_text(&room, "no thread").await;
    let own = bob.send_text(&room, "bob's").await;
    for root in [&roots[2], &roots[0], &own, &roots[4], &roots[2], &roots[1]] {
        alice.reply(&room, root, "reply").await;
    }
    let order = [&roots[1], &roots[2], &roots[4], &own, &roots[0]];
    let answer = bob.threads(&room, "").await;
    assert_eq!(chunk(&answer), order);
    assert_eq!(answer["next_batch"], Value::Null);
    for thread in answer["chunk"].as_array().expect("threads") {
        assert!(thread["unsigned"]["m.relations"]["m.thread"]["latest_event"].is_object(), "{thread}");
    }
    let old = bob.get(&format!("/unstable/org.matrix.msc3856/rooms/{room}/threads")).await.expect(200);
    assert_eq!(chunk(&old), order);

    // Pages.
    let mut found: Vec<String> = Vec::new();
    let mut query = "?limit=2".to_owned();
    let mut pages = 0;
    loop {
        let page = bob.threads(&room, &query).await;
        found.extend(chunk(&page).into_iter().map(str::to_owned));
        pages += 1;
        match page["next_batch"].as_str() {
            Some(next) => query = format!("?limit=2&from={next}"),
            None => break,
        }
    }
    assert_eq!((found.iter().collect::<Vec<_>>(), pages), (order.to_vec(), 3));

    // Those that bob has begun or replied to.
    bob.reply(&room, &roots[4], "reply").await;
    let participated = bob.threads(&room, "?include=participated").await;
    assert_eq!(chunk(&participated), [&roots[4], &own]);
    assert_eq!(chunk(&bob.threads(&room, "?include=participated&limit=1").await), [&roots[4]]);
    assert_eq!(chunk(&alice.threads(&room, "?include=all").await).len(), 5);
}

/// A thread in an encrypted room: what relates is in clear text.
#[tokio::test]
async fn rl_01_relations_of_encrypted_events_count() {
    let (_server, alice, bob, room) = two().await;
    let secret = |text: &str| json!({ "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": text });
    let message = alice.send_event(&room, "m.room.encrypted", secret("x")).await;
    let reply = bob.send_event(&room, "m.room.encrypted", with(secret("y"), "m.thread", &message)).await;
    assert_eq!(alice.bundle(&room, &message).await["m.thread"]["latest_event"]["event_id"], json!(reply));
    assert_eq!(chunk(&alice.threads(&room, "").await), [&message]);
    let list = alice.relations(&room, &format!("{message}/m.thread/m.room.encrypted")).await;
    assert_eq!(chunk(&list), [&reply]);
}
