//! What is in a timeline, in which order, and how its gaps close.

use super::*;
use crate::common::history::{Reader, check, whole_log};

#[tokio::test]
async fn sy01_sy12_a_first_sync_has_the_whole_room() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    alice.topic(&room, "before").await;
    for number in 0..8 {
        alice.send_text(&room, &number.to_string()).await;
    }
    alice.topic(&room, "after").await;
    let answer = alice.sync(None, 0).await;
    let body = join(&answer, &room);
    let (state, timeline) = (&body["state"], &body["timeline"]);
    assert_eq!(events(timeline).len(), 10);
    assert_eq!(timeline["limited"], true);
    assert!(timeline["prev_batch"].is_string());
    assert_eq!(events(timeline)[0]["content"]["topic"], "before", "the timeline begins with it");
    assert!(find(state, "m.room.topic", Some("")).is_none(), "the state at the start has no topic");
    for (kind, key) in [
        ("m.room.create", ""),
        ("m.room.power_levels", ""),
        ("m.room.member", &*alice.user_id),
        ("m.room.member", &*bob.user_id),
    ] {
        assert!(find(state, kind, Some(key)).is_some(), "{kind} {key}");
    }
    assert_eq!(body["summary"]["m.joined_member_count"], 2);
    assert_eq!(body["summary"]["m.invited_member_count"], 0);
    assert_eq!(body["summary"]["m.heroes"], json!([bob.user_id]));
    assert_eq!(body["unread_notifications"], json!({ "highlight_count": 0, "notification_count": 0 }));
    assert_eq!(body["ephemeral"], Value::Null);
}

#[tokio::test]
async fn sy02_an_increment_has_what_came_and_no_state() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    let mut device = Device::ready(&alice).await;
    let topic = alice.topic(&room, "a topic").await;
    let message = alice.send_text(&room, "hello").await;
    let answer = device.next().await;
    let body = join(&answer, &room);
    assert_eq!(ids(&body["timeline"]), [topic, message]);
    assert_eq!(body["timeline"]["limited"], false);
    assert_eq!(body["state"], json!({ "events": [] }), "it is there, and empty");
    assert_eq!(device.next().await["rooms"], Value::Null);
}

#[tokio::test]
async fn sy03_a_gap_is_told_and_closes_exactly() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    for limit in [0, 1, 3, 25, 200] {
        let mut device = Device::with(&bob, &filter(&json!({ "room": { "timeline": { "limit": limit } } })));
        device.next().await;
        let since = device.since.clone().expect("a token");
        let mut sent = vec![alice.topic(&room, &format!("limit {limit}")).await];
        for number in 0..24 {
            sent.push(alice.send_text(&room, &number.to_string()).await);
        }
        let answer = device.next().await;
        let body = join(&answer, &room);
        let timeline = &body["timeline"];
        let shown = ids(timeline);
        assert_eq!(shown, sent[sent.len() - shown.len()..], "limit {limit}");
        assert_eq!(shown.len(), limit.min(25), "limit {limit}");
        assert_eq!(timeline["limited"], limit < 25, "limit {limit}");
        let prev_batch = timeline["prev_batch"].as_str().expect("prev_batch");
        let path = format!("/v3/rooms/{room}/messages?dir=f&limit=100&from={since}&to={prev_batch}");
        let mut all = common::history::ids(&bob.get(&path).await.expect(200)["chunk"]);
        let path = format!("/v3/rooms/{room}/messages?dir=b&limit=100&from={prev_batch}&to={since}");
        let mut back = common::history::ids(&bob.get(&path).await.expect(200)["chunk"]);
        back.reverse();
        assert_eq!(all, back, "limit {limit}");
        all.extend(shown);
        assert_eq!(all, sent, "limit {limit}");
        // SY-02: the topic that changed in the gap is among the state.
        let topic = find(&body["state"], "m.room.topic", Some("")).map(|event| event["event_id"].clone());
        assert_eq!(topic, (limit < 25).then(|| json!(sent[0])), "limit {limit}");
    }
}

#[tokio::test]
async fn a_timeline_longer_than_the_room_is_the_room() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    let all = filter(&json!({ "room": { "timeline": { "limit": 500 } } }));
    let answer = alice.sync_with(None, 0, &all).await;
    let body = join(&answer, &room);
    let log = whole_log(&alice, &room).await;
    assert_eq!(ids(&body["timeline"]), common::history::ids(&Value::Array(log)));
    assert_eq!(body["timeline"]["limited"], false);
    assert_eq!(body["state"], json!({ "events": [] }), "nothing was before the first event");
}

/// I4, I5: a first answer and what follows it meet without a gap and without overlap, whatever is sent meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn sy04_first_answers_amid_traffic_repeat_nothing_and_lose_nothing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (alice, room) = (alice.clone(), room.clone());
            tokio::spawn(async move {
                for number in 0..common::rounds(40, 400) {
                    alice.send_text(&room, &number.to_string()).await;
                }
            })
        })
        .collect();
    let mut readers = Vec::new();
    while !senders.iter().all(tokio::task::JoinHandle::is_finished) {
        let mut reader = Reader::new(&bob, &room);
        reader.first_page_only().await;
        reader.advance(0).await;
        readers.push(reader);
    }
    for sender in senders {
        sender.await.expect("a sender");
    }
    let log = common::history::ids(&Value::Array(whole_log(&bob, &room).await));
    // A reader that began late has not seen where the others' messages end, only where the room does.
    let last = log.last().expect("messages");
    for mut reader in readers {
        reader.read_until(last).await;
        check(&reader.events, &log, &[]);
        assert!(log.ends_with(&reader.events), "I5: something between two answers was lost");
    }
}

/// EV-08, EV-10
#[tokio::test]
async fn events_tell_each_reader_what_is_theirs_to_know() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let phone = server.login("alice").await;
    let (mut own, mut other, mut bobs) =
        (Device::ready(&alice).await, Device::ready(&phone).await, Device::ready(&bob).await);
    let path = format!("/v3/rooms/{room}/send/m.room.message/mine");
    alice.put(&path, json!({ "msgtype": "m.text", "body": "x" })).await.expect(200);
    for (device, transaction) in
        [(&mut own, json!("mine")), (&mut other, Value::Null), (&mut bobs, Value::Null)]
    {
        let answer = device.next().await;
        let event = &join(&answer, &room)["timeline"]["events"][0];
        assert_eq!(event["unsigned"]["transaction_id"], transaction, "EV-08");
        assert_eq!(event["unsigned"]["membership"], "join", "EV-10");
        assert!(event["unsigned"]["age"].is_number());
        for of_servers in ["auth_events", "prev_events", "hashes", "signatures", "depth"] {
            assert_eq!(event[of_servers], Value::Null, "EV-07: {of_servers}");
        }
    }
}

#[tokio::test]
async fn ev09_state_tells_what_it_replaces() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    let before = alice.topic(&room, "before").await;
    let mut device = Device::ready(&alice).await;
    alice.topic(&room, "after").await;
    let answer = device.next().await;
    let unsigned = &join(&answer, &room)["timeline"]["events"][0]["unsigned"];
    assert_eq!(unsigned["prev_content"]["topic"], "before");
    assert_eq!(unsigned["replaces_state"], before.as_str());
}

/// EV-11
#[tokio::test]
async fn sy20_what_was_redacted_while_away_comes_redacted() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&bob).await;
    let secret = alice.send_text(&room, "secret").await;
    let redaction = alice.redact(&room, &secret).await;
    let answer = device.next().await;
    let timeline = &join(&answer, &room)["timeline"];
    assert_eq!(ids(timeline), [secret, redaction.clone()]);
    let event = &events(timeline)[0];
    assert_eq!(event["content"], json!({}));
    assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction.as_str(), "EV-11");
    assert!(!answer.to_string().contains("secret"));

    // One that was seen before: the redaction comes, and later readers get nothing of the content.
    let seen = alice.send_text(&room, "seen by some").await;
    device.next().await;
    let redaction = alice.redact(&room, &seen).await;
    let answer = device.next().await;
    let event = &join(&answer, &room)["timeline"]["events"][0];
    assert_eq!(event["event_id"], redaction.as_str());
    assert_eq!((&event["redacts"], &event["content"]["redacts"]), (&json!(seen), &json!(seen)));
    assert!(!bob.sync(None, 0).await.to_string().contains("seen by some"));
}

#[tokio::test]
async fn sy23_newcomers_see_of_the_past_what_the_room_allows() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for (visibility, seen) in [
        ("world_readable", vec!["before", "invited", "joined"]),
        ("shared", vec!["before", "invited", "joined"]),
        ("invited", vec!["invited", "joined"]),
        ("joined", vec!["joined"]),
    ] {
        let rule = json!({
            "type": "m.room.history_visibility", "state_key": "",
            "content": { "history_visibility": visibility },
        });
        let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": [rule] })).await;
        let mut device = Device::with(&bob, &filter(&json!({ "room": { "timeline": { "limit": 50 } } })));
        device.next().await;
        alice.send_text(&room, "before").await;
        alice.topic(&room, "before").await;
        alice.invite(&room, &bob.user_id).await;
        alice.send_text(&room, "invited").await;
        bob.join(&room).await;
        alice.send_text(&room, "joined").await;
        let answer = device.next().await;
        let body = join(&answer, &room);
        let bodies = |list: &Value| -> Vec<String> {
            let messages = events(list).iter().filter(|event| event["type"] == "m.room.message");
            messages.map(|event| event["content"]["body"].as_str().expect("a body").to_owned()).collect()
        };
        assert_eq!(bodies(&body["timeline"]), seen, "{visibility}");
        let topic = [&body["state"], &body["timeline"]]
            .iter()
            .any(|list| find(list, "m.room.topic", Some("")).is_some());
        assert!(topic, "{visibility}: members know the state, however old it is");
        assert_eq!(
            bodies(&join(&bob.sync(None, 0).await, &room)["timeline"]),
            seen,
            "{visibility}, first sync"
        );

        // While away: nothing of that, nor in the gap.
        bob.leave(&room).await;
        alice.send_text(&room, "away").await;
        alice.invite(&room, &bob.user_id).await;
        bob.join(&room).await;
        let back = alice.send_text(&room, "back").await;
        let since = device.since.clone().expect("a token");
        let answer = device.next().await;
        let timeline = &join(&answer, &room)["timeline"];
        assert_eq!(ids(timeline).last(), Some(&back), "{visibility}");
        let mut all = Vec::new();
        if timeline["limited"] == true {
            let prev_batch = timeline["prev_batch"].as_str().expect("prev_batch");
            let path = format!("/v3/rooms/{room}/messages?dir=f&limit=50&from={since}&to={prev_batch}");
            let page = bob.get(&path).await.expect(200);
            all.extend(bodies(&json!({ "events": page["chunk"] })));
        }
        all.extend(bodies(timeline));
        let away = matches!(visibility, "world_readable" | "shared");
        assert_eq!(all, if away { vec!["away", "back"] } else { vec!["back"] }, "{visibility}: {answer}");
    }
}
