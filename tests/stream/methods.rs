//! Requests over a socket.

use super::*;

#[tokio::test]
async fn a_send_is_answered_with_its_event_and_place() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut sender = Client::ready(&server, &alice).await;
    let mut receiver = Client::ready(&server, &bob).await;
    let one = sender.request("send", text(&room, "one")).await.expect("sent");
    let two = sender.request("send", text(&room, "two")).await.expect("sent");
    assert_eq!(two["seq"].as_i64(), one["seq"].as_i64().map(|seq| seq + 1));
    // Two syncs, or one where both have come by then.
    let mut told = Vec::new();
    while told.len() < 2 {
        let body = receiver.sync().await;
        let events = body["rooms"]["join"][&room]["timeline"]["events"].as_array();
        told.extend(events.into_iter().flatten().map(|event| event["event_id"].clone()));
    }
    assert_eq!(told, [one["event_id"].clone(), two["event_id"].clone()]);
    let own = sender.sync_with(|body| {
        let events = body["rooms"]["join"][&room]["timeline"]["events"].as_array()?;
        Some(events[0]["unsigned"]["transaction_id"].clone())
    });
    assert!(own.await.is_string(), "the sender recognises its own");
}

#[tokio::test]
async fn its_ids_are_the_transaction_ids_of_rest() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = room(&alice, &[]).await;
    let mut client = Client::ready(&server, &alice).await;
    client.begin_as("same id", "send", text(&room, "one")).await;
    let first = client.answer("same id").await.expect("sent");
    client.begin_as("same id", "send", text(&room, "another text")).await;
    assert_eq!(client.answer("same id").await.expect("sent"), first);
    let path = format!("/v3/rooms/{room}/send/m.room.message/same%20id");
    let content = json!({ "msgtype": "m.text", "body": "one" });
    let rest = alice.put(&path, content).await.expect(200);
    assert_eq!(rest["event_id"], first["event_id"]);

    let mut parallel = Vec::new();
    for _ in 0..20 {
        client.begin_as("parallel", "send", text(&room, "once")).await;
    }
    for _ in 0..20 {
        parallel.push(client.answer("parallel").await.expect("sent"));
    }
    parallel.dedup();
    assert_eq!(parallel.len(), 1);
}

#[tokio::test]
async fn every_method_does_what_its_twin_does() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut client = Client::ready(&server, &alice).await;
    let mut other = Client::ready(&server, &bob).await;

    let topic = json!({ "room_id": room, "type": "m.room.topic", "content": { "topic": "cake" } });
    client.request("state", topic).await.expect("set");
    let path = format!("/v3/rooms/{room}/state/m.room.topic");
    assert_eq!(alice.get(&path).await.expect(200)["topic"], "cake");
    let keyed =
        json!({ "room_id": room, "type": "org.example.a/b", "state_key": "ä /?#", "content": { "x": 1 } });
    let event = client.request("state", keyed).await.expect("set")["event_id"].clone();
    let event = event.as_str().expect("an id");
    let event = alice.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200);
    assert_eq!((&event["type"], &event["state_key"]), (&json!("org.example.a/b"), &json!("ä /?#")));

    let sent = client.request("send", text(&room, "wrong")).await.expect("sent");
    let sent = sent["event_id"].as_str().expect("an id");
    let redact = json!({ "room_id": room, "event_id": sent, "reason": "typo" });
    client.request("redact", redact).await.expect("redacted");
    let event = alice.get(&format!("/v3/rooms/{room}/event/{sent}")).await.expect(200);
    assert_eq!(event["unsigned"]["redacted_because"]["content"]["reason"], "typo");

    client
        .request("typing", json!({ "room_id": room, "typing": true, "timeout": 30_000 }))
        .await
        .expect("done");
    let ephemeral = |body: &Value, kind: &str| {
        let events = body["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?;
        events.iter().find(|event| event["type"] == kind).map(|event| event["content"].clone())
    };
    let typing = other.sync_with(|body| ephemeral(body, "m.typing")).await;
    assert_eq!(typing["user_ids"], json!([alice.user_id]));

    let message = bob.send_text(&room, "read me").await;
    let receipt = json!({ "room_id": room, "type": "m.read", "event_id": message, "thread_id": "main" });
    client.request("receipt", receipt).await.expect("done");
    let receipt = other.sync_with(|body| ephemeral(body, "m.receipt")).await;
    assert_eq!(receipt[&message]["m.read"][&alice.user_id]["thread_id"], "main");
    let markers = json!({ "room_id": room, "m.fully_read": message });
    client.request("read_markers", markers).await.expect("done");
    let path = format!("/v3/user/{}/rooms/{room}/account_data/m.fully_read", alice.user_id);
    assert_eq!(alice.get(&path).await.expect(200)["event_id"], json!(message));
}

#[tokio::test]
async fn a_message_to_a_device_arrives_once_however_often_and_by_whatever_way_it_is_sent() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut line = Line::open(&server, &[]).await.unwrap_or_else(|answer| panic!("{answer:?}"));
    let Received::Frame(hello) = line.next().await else { panic!("no greeting") };
    assert!(hello["features"].as_array().is_some_and(|all| all.contains(&json!("to_device"))), "{hello}");

    let mut sender = Client::ready(&server, &alice).await;
    let mut receiver = Client::ready(&server, &bob).await;
    let messages = |text: &str| json!({ &bob.user_id: { "*": { "text": text } } });
    let one = json!({ "type": "org.example.a/b", "messages": messages("one") });
    for _ in 0..2 {
        sender.begin_as("same id", "to_device", one.clone()).await;
        assert_eq!(sender.answer("same id").await.expect("sent"), json!({}));
    }
    let body = json!({ "messages": messages("one") });
    alice.put("/v3/sendToDevice/org.example.a%2Fb/same%20id", body).await.expect(200);
    let two = json!({ "type": "org.example", "messages": messages("two") });
    sender.request("to_device", two).await.expect("sent");
    let mut told = Vec::new();
    while told.last().is_none_or(|event: &Value| event["content"]["text"] != "two") {
        let body = receiver.sync().await;
        told.extend(body["to_device"]["events"].as_array().into_iter().flatten().cloned());
    }
    let expected = [("org.example.a/b", "one"), ("org.example", "two")];
    let expected = expected
        .map(|(kind, text)| json!({ "type": kind, "sender": alice.user_id, "content": { "text": text } }));
    assert_eq!(told, expected);
}

#[tokio::test]
async fn errors_are_those_of_rest_and_the_socket_goes_on() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[]).await;
    let mut client = Client::ready(&server, &bob).await;
    let errcode = |error: Result<Value, Value>| error.expect_err("an error")["errcode"].clone();
    assert_eq!(errcode(client.request("send", text(&room, "let me in")).await), "M_FORBIDDEN");
    assert_eq!(errcode(client.request("send", text("!nowhere", "hello")).await), "M_FORBIDDEN");
    for (method, params, expected) in [
        ("send", json!({ "room_id": room, "type": "m.room.message" }), "M_MISSING_PARAM"),
        ("send", json!({ "room_id": 5, "type": "m", "content": {} }), "M_BAD_JSON"),
        ("send", json!({ "room_id": "../../x", "type": "m", "content": {} }), "M_INVALID_PARAM"),
        ("send", json!({ "room_id": room, "type": "m", "content": 7 }), "M_BAD_JSON"),
        ("typing", json!({ "room_id": room }), "M_BAD_JSON"),
        ("receipt", json!({ "room_id": room, "type": "m.read" }), "M_MISSING_PARAM"),
        ("read_markers", json!([]), "M_BAD_JSON"),
        ("dance", json!({}), "M_UNRECOGNIZED"),
    ] {
        let id = client.begin_unchecked(method, params.clone()).await;
        assert_eq!(errcode(client.answer(&id).await), expected, "{method} {params}");
    }
    bob.join(&room).await;
    client.request("send", text(&room, "thank you")).await.expect("sent");
}

#[tokio::test]
async fn rate_limits_are_shared_with_rest() {
    let config = toml::toml! {
        [limits]
        enabled = true
        message = { per_second = 0.001, burst = 5 }
        login = { per_second = 100.0, burst = 100 }
        registration = { per_second = 100.0, burst = 100 }
    };
    let server = Server::start(config).await;
    let alice = server.register("alice").await;
    let room = room(&alice, &[]).await;
    alice.send_text(&room, "by REST").await;
    let mut client = Client::ready(&server, &alice).await;
    let mut sent = 0;
    let error = loop {
        match client.request("send", text(&room, "by socket")).await {
            Ok(_) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(sent, 4);
    assert_eq!(error["errcode"], "M_LIMIT_EXCEEDED");
    assert!(error["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0), "{error}");
}

#[tokio::test]
async fn a_thousand_requests_without_waiting_are_answered_in_the_order_of_their_room() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (room, elsewhere) = (room(&alice, &[]).await, room(&bob, &[]).await);
    let mut client = Client::ready(&server, &alice).await;
    let mut bystander = Client::ready(&server, &bob).await;
    let before = most_resident(&server);
    let (mut seqs, mut told) = (Vec::new(), Vec::new());
    let mut ids = Vec::new();
    for count in 0..1_000 {
        ids.push(client.begin("send", text(&room, &count.to_string())).await);
    }
    bystander.request("send", text(&elsewhere, "others don't notice")).await.expect("sent");
    for id in ids {
        seqs.push(client.answer(&id).await.expect("sent")["seq"].as_i64().expect("a number"));
        told.extend(client.syncs_read().await.iter().flat_map(|body| texts(body, &room)));
    }
    let grown = most_resident(&server).saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB more for one socket");
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
    // It was told in between, of many at once where it was slow.
    while !told.contains(&"999".to_owned()) {
        told.extend(texts(&client.sync().await, &room));
    }
}

/// GU-01: the socket is another way to `/sync`; what is closed to guests is closed on it.
#[tokio::test]
async fn gu_01_a_guest_is_refused_what_rest_refuses() {
    let server = Server::start(toml::toml! { registration.guests = true }).await;
    let alice = server.register("alice").await;
    let guest = server.http().post("/v3/register?kind=guest", None, json!({})).await.expect(200);
    let guest = User::new(server.http().clone(), &guest);
    let access = json!({ "type": "m.room.guest_access", "content": { "guest_access": "can_join" } });
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": [access] })).await;
    guest.post(&format!("/v3/rooms/{room}/join"), json!({})).await.expect(200);
    let bearer = format!("Bearer {}", guest.access_token);
    let mut client = Client::open_with(&server, &[("Authorization", &bearer)]).await;
    client.auth(&guest, json!({})).await;
    client.sync().await;
    client.request("send", text(&room, "hello")).await.expect("sent");
    let typing = client.request("typing", json!({ "room_id": room, "typing": true, "timeout": 1000 })).await;
    assert_eq!(typing.expect_err("not theirs")["errcode"], "M_GUEST_ACCESS_FORBIDDEN");
    let event = alice.send_text(&room, "hello").await;
    let receipt = json!({ "room_id": room, "type": "m.read", "event_id": event });
    let receipt = client.request("receipt", receipt).await;
    assert_eq!(receipt.expect_err("not theirs")["errcode"], "M_GUEST_ACCESS_FORBIDDEN");
}
