//! Texts and fields at their limits and beyond.

use serde_json::{Value, json};

use crate::{common::history::whole_log, encoded, local_room, server};

/// The limit itself is taken and one more is not, in every place where a message has a text.
#[tokio::test]
async fn ev_12_texts_of_an_edit_have_the_limit_of_texts() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = local_room(&alice, &[]).await;
    let event = alice.send_text(&room, "first").await;
    let edit = |body: &str, html: &str| {
        json!({
            "msgtype": "m.text", "body": "* edited",
            "m.new_content": { "msgtype": "m.text", "body": body, "format": "org.matrix.custom.html", "formatted_body": html },
            "m.relates_to": { "rel_type": "m.replace", "event_id": event },
        })
    };
    let (fits, over) = ("ü".repeat(100_000), "ü".repeat(100_001));
    let send = async |txn: &str, content: Value| {
        alice.put(&format!("/v3/rooms/{room}/send/m.room.message/{txn}"), content).await
    };
    send("fits", edit(&fits, &fits)).await.expect(200);
    let before = whole_log(&alice, &room).await.len();
    for (txn, content) in [("body", edit(&over, "")), ("html", edit("", &over))] {
        let error = send(txn, content).await.expect_error(413, "M_TOO_LARGE");
        let text = error["error"].as_str().expect("a sentence");
        assert!(text.contains("100000") && text.contains("100001"), "names limit and size: {text}");
    }
    assert_eq!(whole_log(&alice, &room).await.len(), before);
}

/// EV-01 by the byte: the longest text that is taken, and one byte more.
#[tokio::test]
async fn ev_01_the_last_byte_that_fits() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let send = async |length: usize| {
        let content = json!({ "msgtype": "m.text", "body": "a".repeat(length) });
        let path = format!("/v3/rooms/{room}/send/m.room.message/{}", crate::common::transaction_id());
        alice.put(&path, content).await
    };
    // The answer to what is too large says how large it is, so one look tells where the limit is.
    let error = send(66_000).await.expect_error(413, "M_TOO_LARGE");
    let text = error["error"].as_str().expect("a sentence");
    let numbers: Vec<usize> =
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    let size = *numbers.iter().find(|number| **number > 66_000).unwrap_or_else(|| panic!("no size: {text}"));
    assert!(numbers.contains(&65_536), "{text}");
    let longest = 66_000 - (size - 65_536);
    send(longest + 1).await.expect_error(413, "M_TOO_LARGE");
    send(longest).await.expect(200);
    send(longest + 1).await.expect_error(413, "M_TOO_LARGE");
}

/// Names, topics, reasons, aliases of a megabyte, where events are small and where they may be large.
#[tokio::test]
async fn ev_12_a_megabyte_belongs_in_no_field() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let megabyte = "x".repeat(1_000_000);
    let global = alice.create_room(json!({ "preset": "public_chat" })).await;
    let local = local_room(&alice, &[]).await;
    for room in [&global, &local] {
        bob.join(room).await;
        let before = whole_log(&alice, room).await.len();
        let of_bob = json!({ "user_id": bob.user_id, "reason": megabyte });
        for action in ["kick", "ban"] {
            let path = format!("/v3/rooms/{room}/{action}");
            alice.post(&path, of_bob.clone()).await.expect_error(413, "M_TOO_LARGE");
        }
        let leave = format!("/v3/rooms/{room}/leave");
        bob.post(&leave, json!({ "reason": megabyte })).await.expect_error(413, "M_TOO_LARGE");
        for (kind, key) in [("m.room.topic", "topic"), ("m.room.name", "name"), ("org.example", "own")] {
            let path = format!("/v3/rooms/{room}/state/{kind}");
            alice.put(&path, json!({ key: megabyte })).await.expect_error(413, "M_TOO_LARGE");
        }
        let own = format!("/v3/rooms/{room}/state/m.room.member/{}", alice.user_id);
        let content = json!({ "membership": "join", "displayname": megabyte });
        alice.put(&own, content).await.expect_error(413, "M_TOO_LARGE");
        let event = alice.send_text(room, "hi").await;
        let redact = format!("/v3/rooms/{room}/redact/{event}/1");
        alice.put(&redact, json!({ "reason": megabyte })).await.expect_error(413, "M_TOO_LARGE");
        assert_eq!(whole_log(&alice, room).await.len(), before + 1, "only the message");
    }
    for create in
        [json!({ "topic": megabyte }), json!({ "name": megabyte }), json!({ "room_alias_name": megabyte })]
    {
        let answer = alice.post("/v3/createRoom", create).await;
        assert!([400, 413].contains(&answer.status), "{}", answer.text());
    }
    let alias = format!("/v3/directory/room/{}", encoded(&format!("#{}:localhost", "a".repeat(20_000))));
    let answer = alice.put(&alias, json!({ "room_id": global })).await;
    assert!([400, 413, 414, 431].contains(&answer.status), "{}", answer.status);
    let fits = format!("#{}:localhost", "a".repeat(244));
    assert_eq!(fits.len(), 255);
    let path = |alias: &str| format!("/v3/directory/room/{}", encoded(alias));
    alice.put(&path(&fits), json!({ "room_id": global })).await.expect(200);
    let over = format!("#{}:localhost", "a".repeat(245));
    let answer = alice.put(&path(&over), json!({ "room_id": global })).await;
    assert!([400, 413].contains(&answer.status), "EV-02: {}", answer.text());
    let device = format!("/v3/devices/{}", alice.device_id);
    alice.put(&device, json!({ "display_name": megabyte })).await.expect_error(413, "M_TOO_LARGE");
    let filter = format!("/v3/user/{}/filter", alice.user_id);
    alice
        .post(&filter, json!({ "room": { "timeline": { "types": [megabyte] } } }))
        .await
        .expect_error(413, "M_TOO_LARGE");
    let report = json!({ "new_password": megabyte });
    let answer = alice.post("/v3/account/password", report).await;
    assert!([400, 413].contains(&answer.status), "{}", answer.text());
}

/// Control characters, reversed text and lone surrogates: kept as they are or refused, and never in anybody's way.
#[tokio::test]
async fn odd_characters_in_names_are_kept_or_refused() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let odd = "\u{1}\u{7f}\u{202e}\u{feff}\r\n\t\u{0}\"\\</script>\u{10ffff}é";
    let room = alice
        .create_room(json!({ "preset": "public_chat", "visibility": "public", "name": odd, "topic": odd }))
        .await;
    bob.join(&room).await;
    let path = format!("/v3/profile/{}/displayname", alice.user_id);
    let named = alice.put(&path, json!({ "displayname": odd })).await;
    assert!([200, 400].contains(&named.status), "{}", named.text());
    let message = alice.send_text(&room, odd).await;
    let not_text: [&[u8]; 3] = [
        br#"{"msgtype":"m.text","body":"\ud800"}"#,
        b"{\"msgtype\":\"m.text\",\"body\":\"\x01\"}",
        b"{\"msgtype\":\"m.text\",\"body\":\"\xff\xfe\"}",
    ];
    for body in not_text {
        let path = format!("/v3/rooms/{room}/send/m.room.message/{}", crate::common::transaction_id());
        let answer = crate::put_raw(&alice, &path, body).await;
        assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
        let errcode = answer.json["errcode"].as_str();
        assert!([Some("M_NOT_JSON"), Some("M_BAD_JSON")].contains(&errcode), "{body:?}: {}", answer.text());
    }
    for _ in 0..2 {
        let name = bob.get(&format!("/v3/rooms/{room}/state/m.room.name")).await.expect(200);
        assert_eq!(name["name"], odd);
        let found = bob.get(&format!("/v3/rooms/{room}/event/{message}")).await.expect(200);
        assert_eq!(found["content"]["body"], odd);
        let listed = bob.get("/v3/publicRooms").await.expect(200);
        assert_eq!(listed["chunk"][0]["name"], odd);
        let members = bob.get(&format!("/v3/rooms/{room}/joined_members")).await.expect(200);
        let shown = &members["joined"][&alice.user_id]["display_name"];
        assert_eq!(shown, &if named.status == 200 { json!(odd) } else { Value::Null });
        assert!(bob.sync(None, 0).await["rooms"]["join"].get(&room).is_some());
        server.restart().await;
    }
}

/// A request that asks for very much gets a bounded amount, at once.
#[tokio::test]
async fn fi_07_many_of_everything_in_one_request() {
    let server = server().await;
    let alice = server.register("alice").await;
    let many = |count: usize| (0..count).map(|at| format!("@u{at}:localhost")).collect::<Vec<_>>();
    alice.post("/v3/createRoom", json!({ "invite": many(100_000) })).await.expect_error(403, "M_FORBIDDEN");
    let state: Vec<Value> = (0..20_000)
        .map(|at| json!({ "type": "org.example.own", "state_key": at.to_string(), "content": {} }))
        .collect();
    alice.post("/v3/createRoom", json!({ "initial_state": state })).await.expect_error(413, "M_TOO_LARGE");
    let creators = json!({ "additional_creators": many(10_000) });
    let answer = alice.post("/v3/createRoom", json!({ "creation_content": creators })).await;
    answer.expect_error(413, "M_TOO_LARGE");
    let devices = json!({ "devices": many(50_000) });
    let answer = alice.post("/v3/delete_devices", devices).await;
    assert!([400, 401, 413].contains(&answer.status), "{}", answer.text());
    let joined = alice.get("/v3/joined_rooms").await.expect(200);
    assert_eq!(joined["joined_rooms"], json!([]), "nothing came of it");
}
