//! Reactions: each of them once, and nowhere but in lists. References.

use super::*;
use futures_util::future::join_all;

#[tokio::test]
async fn rl_09_annotations_are_not_bundled() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "one").await;
    let reaction = bob.react(&room, &message, "👍").await;
    assert_eq!(alice.bundle(&room, &message).await, Value::Null);
    let list = alice.relations(&room, &format!("{message}/m.annotation/m.reaction")).await;
    assert_eq!(chunk(&list), [reaction]);
}

async fn try_react(user: &User, room: &str, kind: &str, parent: &str, key: &str) -> common::Answer {
    let path = format!("/v3/rooms/{room}/send/{kind}/{}", common::transaction_id());
    user.put(&path, reaction_to(parent, key)).await
}

#[tokio::test]
async fn rl_09_nobody_annotates_an_event_twice_in_the_same_way() {
    let (mut server, alice, bob, room) = two().await;
    let (one, other) = (alice.send_text(&room, "one").await, alice.send_text(&room, "two").await);
    let path = format!("/v3/rooms/{room}/send/m.reaction/first");
    let first = bob.put(&path, reaction_to(&one, "👍")).await.expect(200);

    let refused = async || try_react(&bob, &room, "m.reaction", &one, "👍").await;
    refused().await.expect_error(400, "M_DUPLICATE_ANNOTATION");
    server.restart().await;
    refused().await.expect_error(400, "M_DUPLICATE_ANNOTATION");
    // I3: the same request has the same answer.
    assert_eq!(bob.put(&path, reaction_to(&one, "👍")).await.expect(200), first);

    // Another key, another type, another event, another user.
    bob.react(&room, &one, "👎").await;
    bob.react(&room, &one, &"long ".repeat(500)).await;
    try_react(&bob, &room, "org.example.vote", &one, "👍").await.expect(200);
    bob.react(&room, &other, "👍").await;
    alice.react(&room, &one, "👍").await;

    bob.redact(&room, first["event_id"].as_str().expect("an event id")).await;
    bob.react(&room, &one, "👍").await;
    refused().await.expect_error(400, "M_DUPLICATE_ANNOTATION");
}

#[tokio::test]
async fn rl_09_of_many_at_once_one_annotation_is_taken() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "one").await;
    let answers = join_all((0..20).map(|_| try_react(&bob, &room, "m.reaction", &message, "👍"))).await;
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(taken, 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 200) {
        answer.expect_error(400, "M_DUPLICATE_ANNOTATION");
    }
    assert_eq!(chunk(&alice.relations(&room, &message).await).len(), 1);
}

#[tokio::test]
async fn rl_12_references_are_bundled_in_the_order_in_which_they_came() {
    let (mut server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "one").await;
    let first = bob.refer(&room, &message).await;
    let second = alice.refer(&room, &message).await;
    let third = bob.refer(&room, &message).await;
    let expected = |events: &[&String]| {
        let chunk: Vec<Value> = events.iter().map(|event| json!({ "event_id": event })).collect();
        json!({ "m.reference": { "chunk": chunk } })
    };
    assert_eq!(bob.bundle(&room, &message).await, expected(&[&first, &second, &third]));
    // RL-06
    alice.redact(&room, &second).await;
    assert_eq!(bob.bundle(&room, &message).await, expected(&[&first, &third]));
    server.restart().await;
    assert_eq!(bob.bundle(&room, &message).await, expected(&[&first, &third]));
}

#[tokio::test]
async fn rl_02_what_is_no_relation_is_an_event_like_others() {
    let (_server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "one").await;
    for relates_to in [
        json!("text"),
        json!([]),
        json!(null),
        json!({}),
        json!({ "rel_type": "m.annotation" }),
        json!({ "rel_type": 5, "event_id": message }),
        json!({ "rel_type": "m.thread", "event_id": ["x"] }),
        json!({ "rel_type": "m.thread", "event_id": "no id" }),
        json!({ "rel_type": "x".repeat(1000), "event_id": message }),
        json!({ "rel_type": "m.reference", "event_id": "$nowhere" }),
        json!({ "m.in_reply_to": { "event_id": message } }),
    ] {
        let mut content = text("two");
        content["m.relates_to"] = relates_to;
        let event = bob.send_event(&room, "m.room.message", content.clone()).await;
        assert_eq!(alice.event(&room, &event).await["content"], content);
    }
    // A key that is none: it counts as an annotation, as often as it comes.
    for _ in 0..2 {
        let relates_to = json!({ "rel_type": "m.annotation", "event_id": message, "key": 5 });
        bob.send_event(&room, "m.reaction", json!({ "m.relates_to": relates_to })).await;
    }
    assert_eq!(alice.bundle(&room, &message).await, Value::Null);
    assert_eq!(chunk(&alice.relations(&room, &message).await).len(), 2);
    assert_eq!(chunk(&alice.threads(&room, "").await), Vec::<&str>::new());
}
