//! Sending messages, state and redactions.

use ::http::{HeaderMap, Method};
use serde_json::{Value, json};

use crate::{
    common::{User, history::whole_log},
    encoded, server, state,
};

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

async fn event(user: &User, room: &str, event: &str) -> Value {
    user.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200)
}

#[tokio::test]
async fn i3_gn_05_fifty_sends_of_one_transaction_are_one_event() {
    let mut server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let before = whole_log(&alice, &room).await.len();
    let path = format!("/v3/rooms/{room}/send/m.room.message/same");
    let sends = (0..50).map(|_| {
        let (alice, path) = (alice.clone(), path.clone());
        tokio::spawn(async move { alice.put(&path, text("once")).await.expect(200) })
    });
    let sends: Vec<_> = sends.collect();
    let mut ids = Vec::new();
    for send in sends {
        ids.push(send.await.expect("no send panics")["event_id"].clone());
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(whole_log(&alice, &room).await.len(), before + 1);

    server.restart().await;
    let again = alice.put(&path, text("once")).await.expect(200);
    assert_eq!(again["event_id"], ids[0], "the same after a restart");
    assert_eq!(whole_log(&alice, &room).await.len(), before + 1);
}

#[tokio::test]
async fn gn_06_a_transaction_id_counts_for_one_device_room_and_type() {
    let server = server().await;
    let phone = server.register("alice").await;
    let laptop = server.login("alice").await;
    let (room, other) = (phone.create_room(json!({})).await, phone.create_room(json!({})).await);
    let mut ids = Vec::new();
    for (device, room, kind) in [
        (&phone, &room, "m.room.message"),
        (&laptop, &room, "m.room.message"),
        (&phone, &other, "m.room.message"),
        (&phone, &room, "org.example.own"),
    ] {
        let path = format!("/v3/rooms/{room}/send/{kind}/1");
        ids.push(device.put(&path, text("hi")).await.expect(200)["event_id"].clone());
    }
    let first = ids[0].as_str().expect("an id").to_owned();
    let redact = format!("/v3/rooms/{room}/redact/{first}/1");
    ids.push(phone.put(&redact, json!({})).await.expect(200)["event_id"].clone());
    assert_eq!(phone.put(&redact, json!({})).await.expect(200)["event_id"], ids[4]);
    for (at, id) in ids.iter().enumerate() {
        assert!(!ids[..at].contains(id), "{ids:?}");
    }
    // The path is the same in another spelling and under another version.
    let spelt = format!("/r0/rooms/{}/send/m%2Eroom.message/1", encoded(&room));
    assert_eq!(phone.put(&spelt, text("hi")).await.expect(200)["event_id"], ids[0]);
}

#[tokio::test]
async fn transaction_ids_are_any_text_up_to_255_bytes() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let send = async |txn: &str| {
        alice.put(&format!("/v3/rooms/{room}/send/m.room.message/{}", encoded(txn)), text("hi")).await
    };
    for txn in ["a/b", "%2F", "ü +", &"x".repeat(255)] {
        send(txn).await.expect(200);
    }
    send(&"x".repeat(256)).await.expect_error(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn gn_13_a_message_needs_a_type_and_a_text() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/v3/rooms/{room}/send/m.room.message/1");
    for content in [
        json!({}),
        json!({ "body": "hi" }),
        json!({ "msgtype": "m.text" }),
        json!({ "msgtype": 1, "body": "hi" }),
    ] {
        alice.put(&path, content).await.expect_error(400, "M_BAD_JSON");
    }
    alice.put(&path, text("hi")).await.expect(200);
}

#[tokio::test]
async fn content_of_any_type_comes_back_as_it_went_in() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let encrypted = json!({
        "algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgA\u{0}\"ü\u{1F600}", "session_id": "s", "org.example": null,
    });
    let odd = json!({ "a": [1, -9_007_199_254_740_991_i64, 9_007_199_254_740_991_i64, { "": {} }, true], "body": 7 });
    for (kind, content) in [("m.room.encrypted", encrypted), ("org.example.odd/ü #%", odd)] {
        let id = alice.send_event(&room, &encoded(kind), content.clone()).await;
        let found = event(&alice, &room, &id).await;
        assert_eq!((&found["type"], &found["content"]), (&json!(kind), &content));
        let id = alice.send_state(&room, &encoded(kind), &encoded("k/ü"), content.clone()).await;
        let found = event(&alice, &room, &id).await;
        assert_eq!((&found["state_key"], &found["content"]), (&json!("k/ü"), &content));
    }
}

#[tokio::test]
async fn gn_02_content_that_no_event_can_hold_is_refused() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let before = whole_log(&alice, &room).await.len();
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    for (body, errcode) in [
        (r#"{"a":0.5}"#, "M_BAD_JSON"),
        (r#"{"a":1e3}"#, "M_BAD_JSON"),
        (r#"{"a":9007199254740992}"#, "M_BAD_JSON"),
        (r#"{"a":-9007199254740992}"#, "M_BAD_JSON"),
        (r#"{"a":100000000000000000000}"#, "M_BAD_JSON"),
        ("[]", "M_BAD_JSON"),
        ("1", "M_BAD_JSON"),
        ("null", "M_BAD_JSON"),
        (r#"{"a":"#, "M_NOT_JSON"),
        (r#"{"a":NaN}"#, "M_NOT_JSON"),
        (r#"{"a":Infinity}"#, "M_NOT_JSON"),
        ("{'a':1}", "M_NOT_JSON"),
        (&deep, "M_BAD_JSON"),
    ] {
        for path in ["send/org.example.own/1", "state/org.example.own"] {
            let path = format!("/v3/rooms/{room}/{path}");
            let token = format!("Bearer {}", alice.access_token).parse().expect("a header");
            let headers = HeaderMap::from_iter([(::http::header::AUTHORIZATION, token)]);
            let answer =
                alice.http.send(Method::PUT, &path, headers, body.to_owned()).await.expect("an answer");
            let start: String = body.chars().take(40).collect();
            assert_eq!(
                (answer.status, answer.json["errcode"].as_str()),
                (400, Some(errcode)),
                "{path} {start}"
            );
        }
    }
    assert_eq!(whole_log(&alice, &room).await.len(), before);
}

#[tokio::test]
async fn who_is_not_in_a_room_sends_nothing_there() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let act = async |action: &str| {
        let body = json!({ "user_id": bob.user_id });
        alice.post(&format!("/v3/rooms/{room}/{action}"), body).await.expect(200);
    };
    let leave = async |then: &str| {
        bob.post(&format!("/v3/rooms/{room}/{then}"), json!({})).await.expect(200);
    };
    let silent = async |why: &str| {
        let before = whole_log(&alice, &room).await;
        let target = before.last().expect("an event")["event_id"].as_str().expect("an id").to_owned();
        for (path, body) in [
            ("send/m.room.message/1".to_owned(), text("hi")),
            ("send/m.room.encrypted/1".to_owned(), json!({})),
            ("state/m.room.topic".to_owned(), json!({ "topic": "mine" })),
            ("state/org.example.own/key".to_owned(), json!({ "mine": true })),
            (format!("redact/{target}/1"), json!({})),
            ("send/m.room.redaction/2".to_owned(), json!({ "redacts": target })),
        ] {
            let answer = bob.put(&format!("/v3/rooms/{room}/{path}"), body).await;
            assert_eq!(
                (answer.status, answer.json["errcode"].as_str()),
                (403, Some("M_FORBIDDEN")),
                "{why}: {path}"
            );
        }
        assert_eq!(whole_log(&alice, &room).await.len(), before.len(), "{why}");
    };
    silent("never joined").await;
    act("invite").await;
    silent("invited").await;
    bob.join(&room).await;
    let own = json!({ "mine": true });
    let levels = state(&alice, &room, "m.room.power_levels", "").await;
    let mut open = levels.clone();
    open["state_default"] = json!(0);
    alice.send_state(&room, "m.room.power_levels", "", open).await;
    bob.send_state(&room, "org.example.own", "key", own).await;
    leave("leave").await;
    silent("left").await;
    leave("forget").await;
    silent("forgotten").await;
    bob.join(&room).await;
    act("kick").await;
    silent("kicked").await;
    act("ban").await;
    silent("banned").await;
}

#[tokio::test]
async fn i3_who_has_left_is_told_again_what_they_sent_and_nothing_else() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let path = |txn: &str| format!("/v3/rooms/{room}/send/m.room.message/{txn}");
    let sent = bob.put(&path("1"), text("bye")).await.expect(200);
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    assert_eq!(bob.put(&path("1"), text("bye")).await.expect(200), sent);
    bob.put(&path("2"), text("bye")).await.expect_error(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn rd_03_rv_23_redactions_are_sent_both_ways_in_every_version() {
    let server = server().await;
    let alice = server.register("alice").await;
    for version in ["1", "3", "6", "10", "11", "12"] {
        let room = alice.create_room(json!({ "room_version": version })).await;
        for by_send in [true, false] {
            let target = alice.send_text(&room, "oops").await;
            let id = if by_send {
                let content = json!({ "redacts": target, "reason": "typo" });
                alice.send_event(&room, "m.room.redaction", content).await
            } else {
                let path = format!("/v3/rooms/{room}/redact/{}/r", encoded(&target));
                let answer = alice.put(&path, json!({ "reason": "typo" })).await.expect(200);
                answer["event_id"].as_str().expect("an id").to_owned()
            };
            let redaction = event(&alice, &room, &encoded(&id)).await;
            assert_eq!(redaction["redacts"], target.as_str(), "version {version}");
            assert_eq!(
                redaction["content"],
                json!({ "redacts": target, "reason": "typo" }),
                "version {version}"
            );
            let redacted = event(&alice, &room, &encoded(&target)).await;
            assert_eq!(redacted["content"], json!({}), "RD-04: version {version}");
            assert_eq!(redacted["unsigned"]["redacted_because"]["event_id"], id.as_str(), "EV-11");
        }
    }
}

#[tokio::test]
async fn redactions_of_what_can_not_be_redacted() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let other = alice.create_room(json!({})).await;
    bob.join(&room).await;
    let (mine, elsewhere) =
        (alice.send_text(&room, "mine").await, alice.send_text(&other, "elsewhere").await);
    let create = whole_log(&alice, &room).await[0]["event_id"].as_str().expect("an id").to_owned();
    let before = whole_log(&alice, &room).await.len();
    for (user, target, status, errcode) in [
        (&bob, mine.as_str(), 403, "M_FORBIDDEN"),
        (&alice, create.as_str(), 403, "M_FORBIDDEN"),
        (&alice, elsewhere.as_str(), 404, "M_NOT_FOUND"),
        (&alice, "$unheard-of", 404, "M_NOT_FOUND"),
        (&alice, "nothing", 400, "M_INVALID_PARAM"),
    ] {
        let path = format!("/v3/rooms/{room}/redact/{target}/1");
        user.put(&path, json!({})).await.expect_error(status, errcode);
    }
    let send = format!("/v3/rooms/{room}/send/m.room.redaction/1");
    alice.put(&send, json!({})).await.expect_error(400, "M_BAD_JSON");
    alice.put(&send, json!({ "redacts": 1 })).await.expect_error(400, "M_BAD_JSON");
    // As state it would look like a redaction to clients and be none.
    let as_state = format!("/v3/rooms/{room}/state/m.room.redaction");
    alice.put(&as_state, json!({ "redacts": mine })).await.expect_error(403, "M_BAD_STATE");
    assert_eq!(whole_log(&alice, &room).await.len(), before);
    assert_eq!(event(&alice, &room, &mine).await["content"]["body"], "mine");

    // Their own, and with power those of others.
    let own = bob.send_text(&room, "own").await;
    bob.put(&format!("/v3/rooms/{room}/redact/{own}/1"), json!({})).await.expect(200);
    let theirs = bob.send_text(&room, "theirs").await;
    alice.put(&format!("/v3/rooms/{room}/redact/{theirs}/2"), json!({})).await.expect(200);
    assert_eq!(event(&bob, &room, &theirs).await["content"], json!({}));
}

#[tokio::test]
async fn gn_15_an_empty_state_key_may_be_left_out() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    for (at, path) in
        ["v3/rooms/{}/state/m.room.name", "v3/rooms/{}/state/m.room.name/", "r0/rooms/{}/state/m.room.name"]
            .iter()
            .enumerate()
    {
        let name = json!({ "name": format!("name {at}") });
        alice.put(&format!("/{}", path.replace("{}", &room)), name.clone()).await.expect(200);
        assert_eq!(state(&alice, &room, "m.room.name", "").await, name);
    }
}

#[tokio::test]
async fn state_that_is_so_already_is_no_new_event() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let first = alice.send_state(&room, "m.room.name", "", json!({ "name": "a" })).await;
    assert_eq!(alice.send_state(&room, "m.room.name", "", json!({ "name": "a" })).await, first);
    let second = alice.send_state(&room, "m.room.name", "", json!({ "name": "b" })).await;
    assert_ne!(second, first);
    assert_ne!(alice.send_state(&room, "m.room.name", "", json!({ "name": "a" })).await, first);
}

#[tokio::test]
async fn state_that_the_rules_or_this_server_refuse() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "9" })).await;
    bob.join(&room).await;
    let put = async |user: &User, kind: &str, content: Value| {
        user.put(&format!("/v3/rooms/{room}/state/{kind}"), content).await
    };
    put(&alice, "m.room.create", json!({ "room_version": "12" })).await.expect_error(400, "M_INVALID_PARAM");
    let itself = json!({ "body": "moved", "replacement_room": room });
    put(&alice, "m.room.tombstone", itself).await.expect_error(400, "M_INVALID_PARAM");
    put(&bob, "m.room.name", json!({ "name": "mine" })).await.expect_error(403, "M_FORBIDDEN");
    // RV-21, though version 9 would take them.
    put(&alice, "m.room.power_levels", json!({ "ban": "50" })).await.expect_error(400, "M_BAD_JSON");
    let levels = json!({ "users": { "@alice:localhost": "100" } });
    put(&alice, "m.room.power_levels", levels).await.expect_error(400, "M_BAD_JSON");
    let of_alice = format!("org.example.own/{}", alice.user_id);
    put(&bob, &of_alice, json!({})).await.expect_error(403, "M_FORBIDDEN");
}

/// RV-32
#[tokio::test]
async fn rv_32_power_levels_that_name_creators_make_no_sense() {
    let server = server().await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    let creation = json!({ "additional_creators": [bob.user_id] });
    let body = json!({ "room_version": "12", "preset": "public_chat", "creation_content": creation });
    let room = alice.create_room(body).await;
    let put = async |sender: &User, named: &User| {
        let levels = json!({ "users": { &named.user_id: 100 } });
        sender.put(&format!("/v3/rooms/{room}/state/m.room.power_levels"), levels).await
    };
    put(&alice, &alice).await.expect_error(400, "M_BAD_JSON");
    put(&alice, &bob).await.expect_error(400, "M_BAD_JSON");
    put(&carol, &alice).await.expect_error(403, "M_FORBIDDEN");
    put(&alice, &carol).await.expect(200);

    let older = alice.create_room(json!({ "room_version": "11" })).await;
    let levels = json!({ "users": { &alice.user_id: 100 } });
    alice.put(&format!("/v3/rooms/{older}/state/m.room.power_levels"), levels).await.expect(200);
}
