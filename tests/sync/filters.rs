//! Filters, as far as `/sync` applies them.

use super::*;

/// What a filter leaves of two messages, a state event and a picture, in one increment.
async fn shown(device: &mut Device, alice: &User, bob: &User, room: &str) -> (Vec<&'static str>, Value) {
    let sent = [
        ("message", alice.send_text(room, "hello").await),
        ("topic", alice.topic(room, &common::transaction_id()).await),
        ("picture", {
            let content = json!({ "msgtype": "m.image", "body": "x", "url": "mxc://localhost/x" });
            alice.send_event(room, "m.room.message", content).await
        }),
        ("sticker", bob.send_event(room, "m.sticker", json!({ "body": "x" })).await),
    ];
    let answer = device.next().await;
    let ids = ids(&join(&answer, room)["timeline"]);
    let names = ids.iter().map(|id| sent.iter().find(|(_, sent)| sent == id).expect("an event of ours").0);
    (names.collect(), answer)
}

#[tokio::test]
async fn fi02_fi04_timelines_have_what_the_filter_lets_through() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    for (wanted, expected) in [
        (json!({}), vec!["message", "topic", "picture", "sticker"]),
        (json!({ "types": ["m.room.*"] }), vec!["message", "topic", "picture"]),
        (json!({ "types": ["m.room.*"], "not_types": ["m.room.topic"] }), vec!["message", "picture"]),
        (json!({ "not_types": ["m.*"], "types": ["m.sticker"] }), vec![]),
        (json!({ "types": [] }), vec![]),
        (json!({ "senders": [bob.user_id] }), vec!["sticker"]),
        (json!({ "not_senders": [bob.user_id] }), vec!["message", "topic", "picture"]),
        (json!({ "senders": [bob.user_id], "not_senders": [bob.user_id] }), vec![]),
        (json!({ "contains_url": true }), vec!["picture"]),
        (json!({ "contains_url": false }), vec!["message", "topic", "sticker"]),
        // Two that fit, after the limit.
        (json!({ "types": ["m.room.message"], "limit": 1 }), vec!["picture"]),
        (json!({ "types": ["m.room.message"], "limit": 2 }), vec!["message", "picture"]),
    ] {
        let mut device = Device::with(&bob, &filter(&json!({ "room": { "timeline": wanted } })));
        device.next().await;
        let (found, answer) = shown(&mut device, &alice, &bob, &room).await;
        assert_eq!(found, expected, "{wanted}");
        let limited = join(&answer, &room)["timeline"]["limited"] == true;
        assert_eq!(limited, wanted["limit"] == 1, "only what was left out for its number is a gap: {wanted}");
    }
}

#[tokio::test]
async fn fi01_filters_are_named_or_written_out() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let definition = json!({ "room": { "timeline": { "types": ["m.sticker"] } }, "org.example.unknown": 1 });
    let path = format!("/v3/user/{}/filter", bob.user_id);
    let answer = bob.post(&path, definition.clone()).await.expect(200);
    let id = answer["filter_id"].as_str().expect("filter_id");
    assert!(!id.starts_with('{'));
    for query in [format!("&filter={id}"), filter(&definition)] {
        let mut device = Device::with(&bob, &query);
        device.next().await;
        assert_eq!(shown(&mut device, &alice, &bob, &room).await.0, ["sticker"], "FI-08: {query}");
    }
    for bad in ["{", "{}}", "12345", "nonsense", r#"{"room":3}"#, r#"{"room":{"timeline":{"limit":"x"}}}"#] {
        let answer = bob.get(&format!("/v3/sync?filter={}", encoded(bad))).await;
        assert_eq!(answer.status, 400, "FI-08: {bad}: {}", answer.text());
        assert!(answer.json["errcode"].is_string());
    }
    let others = alice.get(&format!("/v3/sync?filter={id}")).await;
    assert_eq!(others.status, 400, "a filter belongs to its maker");
}

#[tokio::test]
async fn fi03_rooms_are_chosen_before_anything_else() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (one, other) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&bob]).await);
    let invite = alice.create_room(json!({ "invite": [bob.user_id] })).await;
    for (wanted, expected) in [
        (json!({ "rooms": [one] }), vec![&one]),
        (json!({ "rooms": [one, other], "not_rooms": [one] }), vec![&other]),
        (json!({ "not_rooms": [one, other] }), vec![]),
        (json!({ "rooms": [] }), vec![]),
    ] {
        let mut device = Device::with(&bob, &filter(&json!({ "room": wanted })));
        let first = device.next().await;
        alice.send_text(&one, "hello").await;
        alice.send_text(&other, "hello").await;
        let second = device.next().await;
        for answer in [first, second] {
            let rooms = answer["rooms"]["join"].as_object().map(|rooms| rooms.keys().collect::<Vec<_>>());
            assert_eq!(rooms.unwrap_or_default(), expected, "{wanted}");
            let invited = answer["rooms"]["invite"].get(&invite).is_some();
            assert!(!invited || wanted.get("rooms").is_none(), "{wanted}");
        }
    }
}

#[tokio::test]
async fn fi02_state_ephemeral_and_account_data_have_filters_of_their_own() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let event = alice.send_text(&room, "hello").await;
    for kind in ["org.example.one", "org.example.two"] {
        bob.account_data("", kind, json!({})).await;
        bob.account_data(&format!("/rooms/{room}"), kind, json!({})).await;
    }
    alice.receipt(&room, "m.read", &event).await;
    alice.typing(&room, true).await;
    let wanted = filter(&json!({
        "account_data": { "types": ["org.example.*"], "not_types": ["*.two"] },
        "room": {
            "state": { "types": ["m.room.create"] },
            "timeline": { "limit": 1 },
            "ephemeral": { "not_types": ["m.typing"] },
            "account_data": { "types": ["org.example.two"] },
        },
    }));
    let answer = bob.sync_with(None, 0, &wanted).await;
    let types = |list: &Value| -> Vec<String> {
        events(list).iter().map(|event| event["type"].as_str().expect("a type").to_owned()).collect()
    };
    let body = join(&answer, &room);
    assert_eq!(types(&answer["account_data"]), ["org.example.one"]);
    assert_eq!(types(&body["account_data"]), ["org.example.two"]);
    assert_eq!(types(&body["state"]), ["m.room.create"]);
    assert_eq!(types(&body["ephemeral"]), ["m.receipt"]);
    assert_eq!(types(&body["timeline"]).len(), 1);
}

#[tokio::test]
async fn fi03_parts_of_rooms_choose_their_rooms_too() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (one, other) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&bob]).await);
    for room in [&one, &other] {
        let event = alice.send_text(room, "hello").await;
        alice.receipt(room, "m.read", &event).await;
        alice.typing(room, true).await;
        bob.account_data(&format!("/rooms/{room}"), "org.example", json!({})).await;
    }
    let parts = ["timeline", "state", "ephemeral", "account_data"];
    for part in parts {
        for wanted in [json!({ "not_rooms": [one] }), json!({ "rooms": [other] })] {
            // What a timeline shows isn't in the state before it.
            let mut definition = json!({ "room": { "timeline": { "limit": 1 } } });
            for (key, value) in wanted.as_object().expect("a filter") {
                definition["room"][part][key] = value.clone();
            }
            let mut device = Device::with(&bob, &filter(&definition));
            let answer = device.next().await;
            for (room, chosen) in [(&one, false), (&other, true)] {
                let body = join(&answer, room);
                for each in parts {
                    let expected = each != part || chosen;
                    assert_eq!(!events(&body[each]).is_empty(), expected, "{each} of {definition}: {body}");
                }
            }
            if part == "timeline" {
                for room in [&one, &other] {
                    alice.send_text(room, "more").await;
                }
                let answer = device.next().await;
                assert_eq!(events(&join(&answer, &one)["timeline"]), [] as [Value; 0], "{definition}");
                assert_eq!(events(&join(&answer, &other)["timeline"]).len(), 1, "{definition}");
            }
        }
    }
}

#[tokio::test]
async fn fi02_ephemeral_events_are_of_those_who_are_asked_for() {
    let server = server().await;
    let people =
        [server.register("alice").await, server.register("bob").await, server.register("carol").await];
    let [alice, bob, carol] = &people;
    let room = public_room(alice, &[bob, carol]).await;
    let event = alice.send_text(&room, "hello").await;
    for person in [alice, carol] {
        person.receipt(&room, "m.read", &event).await;
        person.typing(&room, true).await;
    }
    for (wanted, expected) in [
        (json!({}), vec![alice, carol]),
        (json!({ "senders": [alice.user_id] }), vec![alice]),
        (json!({ "not_senders": [alice.user_id] }), vec![carol]),
        (json!({ "senders": [alice.user_id, carol.user_id], "not_senders": [carol.user_id] }), vec![alice]),
        (json!({ "senders": [] }), vec![]),
    ] {
        let answer = bob.sync_with(None, 0, &filter(&json!({ "room": { "ephemeral": wanted } }))).await;
        let ephemeral = &join(&answer, &room)["ephemeral"];
        let expected: Vec<&str> = expected.iter().map(|user| user.user_id.as_str()).collect();
        let of = |kind: &str| events(ephemeral).iter().find(|event| event["type"] == kind);
        let readers = of("m.receipt").map(|receipts| receipts["content"][&event]["m.read"].clone());
        let readers = readers.as_ref().and_then(Value::as_object);
        let mut readers: Vec<&str> = readers.into_iter().flatten().map(|(user, _)| user.as_str()).collect();
        readers.sort_unstable();
        assert_eq!(readers, expected, "{wanted}: {ephemeral}");
        let typing = of("m.typing").map(|typing| typing["content"]["user_ids"].clone());
        let mut typing: Vec<&str> =
            typing.iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect();
        typing.sort_unstable();
        assert_eq!(typing, expected, "{wanted}: {ephemeral}");
    }
}

#[tokio::test]
async fn fi05_only_the_fields_that_were_asked_for() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    let fields = filter(
        &json!({ "event_fields": ["type", "event_id", "state_key", r"content.m\.x.y", "content.body"] }),
    );
    let mut device = Device::with(&alice, &fields);
    device.next().await;
    let content = json!({ "body": "hello", "msgtype": "m.text", "m.x": { "y": 1, "z": 2 } });
    let id = alice.send_event(&room, "m.room.message", content).await;
    let answer = device.next().await;
    let event = &join(&answer, &room)["timeline"]["events"][0];
    assert_eq!(event["event_id"], id.as_str());
    assert_eq!(event["content"], json!({ "body": "hello", "m.x": { "y": 1 } }));
    assert_eq!(event["sender"], Value::Null);
}

#[tokio::test]
async fn fi06_events_come_as_servers_have_them() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    let raw = filter(&json!({ "event_format": "federation" }));
    alice.send_text(&room, "hello").await;
    let answer = alice.sync_with(None, 0, &raw).await;
    let body = join(&answer, &room);
    let event = events(&body["timeline"]).last().expect("an event");
    for field in ["auth_events", "prev_events", "hashes", "signatures", "depth", "origin_server_ts"] {
        assert!(event.get(field).is_some(), "{field}: {event}");
    }
    assert_eq!(event["content"]["body"], "hello");
    assert_eq!(event["event_id"], Value::Null, "an id is what it hashes to");
}

#[tokio::test]
async fn fi07_limits_have_a_default_and_an_end() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    for number in 0..12 {
        alice.send_text(&room, &number.to_string()).await;
    }
    assert_eq!(events(&join(&alice.sync(None, 0).await, &room)["timeline"]).len(), 10);
    let most = filter(&json!({ "room": { "timeline": { "limit": 9_007_199_254_740_991_u64 } } }));
    let answer = alice.sync_with(None, 0, &most).await;
    assert!(events(&join(&answer, &room)["timeline"]).len() > 12);
}
