//! What comes beside rooms: account data, receipts, typing, thread subscriptions.

use super::*;

fn with(extensions: Value) -> Value {
    let mut body = all_rooms(json!({}));
    body["extensions"] = extensions;
    body
}

const NAME: &str = "io.element.msc4308.thread_subscriptions";

/// The content of an event of a type.
fn content<'a>(events: &'a Value, kind: &str) -> Option<&'a Value> {
    list(events).iter().find(|event| event["type"] == kind).map(|event| &event["content"])
}

#[tokio::test]
async fn account_data_comes_whole_and_then_as_it_changes() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    alice.account_data("", "org.example", json!({ "x": 1 })).await;
    alice.account_data(&format!("/rooms/{room_id}"), "org.example", json!({ "y": 1 })).await;
    let mut sliding = Sliding::new(&alice, with(json!({ "account_data": { "enabled": true } })));
    let answer = sliding.next().await;
    let data = &answer["extensions"]["account_data"];
    assert_eq!(content(&data["global"], "org.example"), Some(&json!({ "x": 1 })));
    assert!(content(&data["global"], "m.push_rules").is_some());
    assert_eq!(content(&data["rooms"][&room_id], "org.example"), Some(&json!({ "y": 1 })));
    assert_eq!(sliding.next().await["extensions"].get("account_data"), None);

    let change = alice.account_data("", "org.example", json!({ "x": 2 }));
    let answer = sliding
        .woken_by(change, |answer| answer["extensions"].get("account_data").is_some().then(|| answer.clone()))
        .await;
    let data = &answer["extensions"]["account_data"];
    assert_eq!(content(&data["global"], "org.example"), Some(&json!({ "x": 2 })));
    assert_eq!(list(&data["global"]).len(), 1);
    assert!(rooms(&answer).is_empty());
    alice.account_data(&format!("/rooms/{room_id}"), "org.example", json!({ "y": 2 })).await;
    let answer = sliding.next().await;
    let data = &answer["extensions"]["account_data"];
    assert_eq!(content(&data["rooms"][&room_id], "org.example"), Some(&json!({ "y": 2 })));
    assert!(list(&data["global"]).is_empty());
}

#[tokio::test]
async fn what_changed_while_an_extension_was_off_comes_when_it_is_on() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let event = alice.send_text(&room_id, "hello").await;
    let all = json!({ "account_data": { "enabled": true }, "receipts": { "enabled": true } });
    let mut sliding = Sliding::new(&alice, with(all.clone()));
    sliding.next().await;
    sliding.body = with(json!({}));
    alice.account_data("", "org.example", json!({ "x": 1 })).await;
    alice.account_data(&format!("/rooms/{room_id}"), "org.example", json!({ "y": 1 })).await;
    bob.receipt(&room_id, "m.read", &event).await;
    let answer = sliding.next().await;
    assert_eq!(answer["extensions"], json!({}));
    sliding.body = with(all);
    let answer = sliding.next().await;
    let extensions = &answer["extensions"];
    assert_eq!(content(&extensions["account_data"]["global"], "org.example"), Some(&json!({ "x": 1 })));
    assert_eq!(
        content(&extensions["account_data"]["rooms"][&room_id], "org.example"),
        Some(&json!({ "y": 1 }))
    );
    let receipts = &extensions["receipts"]["rooms"][&room_id]["content"];
    assert!(receipts[&event]["m.read"].get(&bob.user_id).is_some());
    assert_eq!(sliding.next().await["extensions"], json!({}));
}

/// RC-21
#[tokio::test]
async fn rc21_receipts_come_for_the_timeline_and_then_as_they_move() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room_id = public_room(&alice, &[&bob, &carol]).await;
    let old = alice.send_text(&room_id, "old").await;
    carol.receipt(&room_id, "m.read", &old).await;
    alice.receipt(&room_id, "m.read.private", &old).await;
    let mut last = String::new();
    for number in 0..10 {
        last = alice.send_text(&room_id, &number.to_string()).await;
    }
    bob.receipt(&room_id, "m.read", &last).await;
    carol.receipt(&room_id, "m.read.private", &last).await;
    let mut sliding = Sliding::new(&alice, with(json!({ "receipts": { "enabled": true } })));
    let answer = sliding.next().await;
    let receipts = &answer["extensions"]["receipts"]["rooms"][&room_id];
    assert_eq!(receipts["type"], "m.receipt");
    assert!(receipts["content"][&last]["m.read"].get(&bob.user_id).is_some());
    assert!(receipts["content"][&old]["m.read.private"].get(&alice.user_id).is_some(), "their own");
    assert_eq!(receipts["content"][&old].get("m.read"), None, "of an event that isn't shown");
    assert_eq!(receipts["content"][&last].get("m.read.private"), None, "somebody else's secret");

    let change = carol.receipt(&room_id, "m.read", &last);
    let answer = sliding
        .woken_by(change, |answer| answer["extensions"].get("receipts").is_some().then(|| answer.clone()))
        .await;
    let receipts = &answer["extensions"]["receipts"]["rooms"][&room_id]["content"];
    assert!(receipts[&last]["m.read"].get(&carol.user_id).is_some());
    assert_eq!(receipts[&last]["m.read"].get(&bob.user_id), None, "only what moved");
}

#[tokio::test]
async fn who_types_is_told_in_the_rooms_that_are_asked_for() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (one, two) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&bob]).await);
    let mut body = with(json!({ "typing": { "enabled": true, "lists": [], "rooms": [one] } }));
    body["room_subscriptions"] = json!({ &one: { "timeline_limit": 1, "required_state": [] } });
    let mut sliding = Sliding::new(&alice, body);
    sliding.next().await;
    bob.typing(&two, true).await;
    let change = bob.typing(&one, true);
    let answer = sliding
        .woken_by(change, |answer| answer["extensions"].get("typing").is_some().then(|| answer.clone()))
        .await;
    let typing = &answer["extensions"]["typing"]["rooms"];
    assert_eq!(typing[&one]["content"]["user_ids"], json!([bob.user_id]));
    assert_eq!(typing.get(&two), None);
    let change = bob.typing(&one, false);
    let answer = sliding
        .woken_by(change, |answer| answer["extensions"].get("typing").is_some().then(|| answer.clone()))
        .await;
    assert_eq!(answer["extensions"]["typing"]["rooms"][&one]["content"]["user_ids"], json!([]));
    // All lists: the other room's typist is news.
    sliding.body["extensions"] = json!({ "typing": { "enabled": true } });
    let answer = sliding.next().await;
    assert_eq!(answer["extensions"]["typing"]["rooms"][&two]["content"]["user_ids"], json!([bob.user_id]));
}

#[tokio::test]
async fn thread_subscriptions_come_as_they_change() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let mut roots = Vec::new();
    for _ in 0..3 {
        roots.push(alice.send_text(&room_id, "root").await);
    }
    let path =
        |root: &str| format!("/unstable/io.element.msc4306/rooms/{room_id}/thread/{root}/subscription");
    alice.put(&path(&roots[0]), json!({})).await.expect(200);
    alice.put(&path(&roots[1]), json!({})).await.expect(200);
    let body = with(json!({ NAME: { "enabled": true, "limit": 1 } }));
    let mut sliding = Sliding::new(&alice, body);
    let answer = sliding.next().await;
    let threads = &answer["extensions"][NAME];
    assert_eq!(threads["subscribed"][&room_id][&roots[1]]["automatic"], false);
    assert_eq!(threads["subscribed"][&room_id].get(&roots[0]), None, "one at a time");
    let from = threads["prev_batch"].as_str().expect("prev_batch");
    let rest = alice
        .get(&format!("/unstable/io.element.msc4308/thread_subscriptions?dir=b&from={from}"))
        .await
        .expect(200);
    assert!(rest["subscribed"][&room_id].get(&roots[0]).is_some());
    assert_eq!(sliding.next().await["extensions"].get(NAME), None);

    let change = async { drop(alice.delete(&path(&roots[0]), None).await.expect(200)) };
    let answer = sliding
        .woken_by(change, |answer| answer["extensions"].get(NAME).is_some().then(|| answer.clone()))
        .await;
    assert!(answer["extensions"][NAME]["unsubscribed"][&room_id].get(&roots[0]).is_some());
    bob.put(&path(&roots[2]), json!({})).await.expect(200);
    assert_eq!(sliding.next().await["extensions"].get(NAME), None, "somebody else's");
}

/// MSC4308: what the list takes as its ends are the `prev_batch` of an answer and the `pos` of the request before it.
#[tokio::test]
async fn thread_subscriptions_that_an_answer_left_out_are_between_its_prev_batch_and_the_pos_before() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({})).await;
    let mut roots = Vec::new();
    for _ in 0..4 {
        roots.push(alice.send_text(&room_id, "root").await);
    }
    let path =
        |root: &str| format!("/unstable/io.element.msc4306/rooms/{room_id}/thread/{root}/subscription");
    alice.put(&path(&roots[0]), json!({})).await.expect(200);
    let mut sliding = Sliding::new(&alice, with(json!({ NAME: { "enabled": true, "limit": 1 } })));
    let before = pos(&sliding.next().await).to_owned();
    for root in &roots[1..] {
        alice.put(&path(root), json!({})).await.expect(200);
    }
    let answer = sliding.next().await;
    let threads = &answer["extensions"][NAME];
    assert!(threads["subscribed"][&room_id].get(&roots[3]).is_some());
    let from = threads["prev_batch"].as_str().expect("prev_batch");
    let list = async |to: &str| {
        let path = format!("/unstable/io.element.msc4308/thread_subscriptions?dir=b&from={from}&to={to}");
        let answer = alice.get(&path).await.expect(200);
        let threads = answer["subscribed"][&room_id].as_object().expect("threads").keys().cloned();
        threads.collect::<std::collections::BTreeSet<String>>()
    };
    assert_eq!(list(&before).await, roots[1..3].iter().cloned().collect());
    // One of another database, or of what this one has lost, bounds nothing.
    for foreign in ["s1_1_1_1_1", &before.replacen('_', "_9", 1)] {
        assert_eq!(list(foreign).await, roots[..3].iter().cloned().collect(), "{foreign}");
    }
}
