//! What a socket is told, and that it is the same as `/sync` tells.

use super::*;

#[tokio::test]
async fn a_first_sync_has_everything_and_the_next_ones_what_is_new() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    alice.send_text(&room, "before").await;

    let mut client = Client::open(&server).await;
    client.auth(&bob, json!({})).await;
    let first = client.sync().await;
    assert_eq!(texts(&first, &room), ["before"]);
    assert!(first["account_data"]["events"].as_array().is_some_and(|events| !events.is_empty()), "{first}");

    alice.send_text(&room, "after").await;
    assert_eq!(texts(&client.sync().await, &room), ["after"]);
}

#[tokio::test]
async fn its_positions_are_those_of_sync_in_both_directions() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let polled = bob.sync(None, 0).await;
    let since = polled["next_batch"].as_str().expect("a token");
    alice.send_text(&room, "one").await;

    let mut client = Client::resumed(&server, &bob, since).await;
    assert_eq!(texts(&client.sync().await, &room), ["one"]);
    let position = client.pos.clone().expect("a position");
    drop(client);
    alice.send_text(&room, "two").await;
    let polled = bob.sync(Some(&position), 30_000).await;
    assert_eq!(texts(&polled, &room), ["two"]);

    let mut again = Client::resumed(&server, &bob, &position).await;
    assert_eq!(texts(&again.sync().await, &room), ["two"]);
}

#[tokio::test]
async fn a_sync_is_what_long_poll_would_have_answered() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut client = Client::ready(&server, &bob).await;
    let before = client.pos.clone().expect("a position");
    alice.send_state(&room, "m.room.topic", "", json!({ "topic": "cake" })).await;
    let streamed = client.sync().await;
    let mut polled = bob.sync(Some(&before), 0).await;
    polled["next_batch"] = streamed["next_batch"].clone();
    for body in [&mut polled] {
        // The age goes on.
        if let Some(events) = body["rooms"]["join"][&room]["timeline"]["events"].as_array_mut() {
            for (event, streamed) in events
                .iter_mut()
                .zip(streamed["rooms"]["join"][&room]["timeline"]["events"].as_array().expect("events"))
            {
                event["unsigned"]["age"] = streamed["unsigned"]["age"].clone();
            }
        }
    }
    assert_eq!(polled, streamed);
}

#[tokio::test]
async fn filters_and_the_form_of_state_are_those_of_sync() {
    let server = server().await;
    let alice = server.register("alice").await;
    let (kept, other) = (room(&alice, &[]).await, room(&alice, &[]).await);
    let filter = json!({ "room": { "rooms": [kept] } });

    let mut client = Client::open(&server).await;
    client.auth(&alice, json!({ "filter": filter, "use_state_after": true })).await;
    let first = client.sync().await;
    let joined = first["rooms"]["join"].as_object().expect("rooms");
    assert_eq!(joined.keys().collect::<Vec<_>>(), [&kept]);
    assert!(joined[&kept].get("state_after").is_some(), "{first}");

    alice.send_text(&other, "not for this socket").await;
    alice.send_text(&kept, "for it").await;
    let next = client.sync().await;
    assert_eq!(next["rooms"]["join"].as_object().expect("rooms").keys().collect::<Vec<_>>(), [&kept]);

    let answer = alice.post(&format!("/v3/user/{}/filter", alice.user_id), filter).await.expect(200);
    let mut stored = Client::open(&server).await;
    stored.auth(&alice, json!({ "filter": answer["filter_id"] })).await;
    let first = stored.sync().await;
    assert_eq!(first["rooms"]["join"].as_object().expect("rooms").keys().collect::<Vec<_>>(), [&kept]);

    let mut wrong = Client::open(&server).await;
    let params = json!({ "access_token": alice.access_token, "filter": "nothing" });
    let error = wrong.request("auth", params).await.expect_err("no such filter");
    assert_eq!(error["errcode"], "M_INVALID_PARAM");
    wrong.auth(&alice, json!({})).await;
}

#[tokio::test]
async fn pr_01_a_device_is_there_while_its_socket_is() {
    let server = Server::start(toml::toml! {
        [presence]
        offline_after_ms = 300
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    room(&alice, &[&bob]).await;
    let mut reader = Client::ready(&server, &alice).await;
    let of_bob = |wanted: &'static str| {
        let sender = json!(bob.user_id);
        move |body: &Value| {
            let events = body["presence"]["events"].as_array()?;
            let event = events.iter().rev().find(|event| event["sender"] == sender)?;
            (event["content"]["presence"] == wanted).then_some(())
        }
    };
    let mut client = Client::open(&server).await;
    client.auth(&bob, json!({ "set_presence": "unavailable" })).await;
    reader.sync_with(of_bob("unavailable")).await;
    client.sync().await;
    let since = client.pos.clone();
    client.auth(&bob, json!({ "since": since })).await;
    reader.sync_with(of_bob("online")).await;
    let away = json!({ "presence": "unavailable", "status_msg": "out" });
    client.request("presence", away).await.expect("said");
    reader.sync_with(of_bob("unavailable")).await;
    drop(client);
    reader.sync_with(of_bob("offline")).await;
}

#[tokio::test]
async fn what_fades_comes_over_it_too() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut client = Client::ready(&server, &bob).await;
    let path = format!("/v3/rooms/{room}/typing/{}", alice.user_id);
    alice.put(&path, json!({ "typing": true, "timeout": 30_000 })).await.expect(200);
    let typing = |body: &Value| {
        let events = body["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?;
        events
            .iter()
            .find(|event| event["type"] == "m.typing")
            .map(|event| event["content"]["user_ids"].clone())
    };
    assert_eq!(client.sync_with(typing).await, json!([alice.user_id]));
}

#[tokio::test]
async fn who_is_removed_hears_of_that_and_then_nothing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (left, kept) = (room(&alice, &[&bob]).await, room(&alice, &[&bob]).await);
    let mut client = Client::ready(&server, &bob).await;
    alice.post(&format!("/v3/rooms/{left}/kick"), json!({ "user_id": bob.user_id })).await.expect(200);
    let body = client.sync().await;
    assert!(body["rooms"]["leave"].get(&left).is_some(), "{body}");
    alice.send_text(&left, "secret").await;
    alice.send_text(&kept, "public").await;
    let body = client.sync().await;
    assert_eq!(texts(&body, &kept), ["public"]);
    assert!(!body.to_string().contains("secret") && !body.to_string().contains(&left), "{body}");
}

#[tokio::test]
async fn a_position_of_another_database_or_of_the_future_closes_it() {
    let server = server().await;
    let alice = server.register("alice").await;
    let now = alice.sync(None, 0).await["next_batch"].as_str().expect("a token").to_owned();
    let mut parts: Vec<u64> = now[1..].split('_').map(|part| part.parse().expect("a number")).collect();
    parts[1] += 1_000_000;
    let future = format!("s{}_{}_{}_{}", parts[0], parts[1], parts[2], parts[3]);
    for since in [future.as_str(), "s1_0_0_0", "r5", "nonsense"] {
        let mut client = Client::open(&server).await;
        let id = client
            .begin_unchecked("auth", json!({ "access_token": alice.access_token, "since": since }))
            .await;
        let error = client.answer(&id).await.expect_err("not a position");
        assert_eq!(error["errcode"], "M_INVALID_PARAM");
        assert!(matches!(client.line.closed().await, Received::Close(4007, _)), "{since}");
    }
}

#[tokio::test]
async fn messages_are_compressed_if_the_client_can_and_it_pays() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let offers = [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
    ];
    for offer in offers {
        let mut client = Client::open_with(&server, &[("Sec-WebSocket-Extensions", offer)]).await;
        assert!(client.line.deflate, "{offer}");
        client.auth(&bob, json!({})).await;
        client.sync().await;
        let (compressed, plain) = client.line.compressed;
        assert!(compressed >= 1 && plain >= 2, "a long sync is, a greeting isn't: {compressed} {plain}");
        let long = "cake ".repeat(2_000);
        alice.send_text(&room, &long).await;
        assert_eq!(texts(&client.sync().await, &room), [long]);
        // And in the other direction.
        let ack = json!({ "id": "x", "method": "send", "params": text(&room, &"cake ".repeat(500)) });
        client.line.asked.insert("x".to_owned(), "send".to_owned());
        client.line.write(0xc1, &deflate(ack.to_string().as_bytes())).await.expect("a line");
        client.answer("x").await.expect("sent");
    }
    let unknown = Client::open_with(&server, &[("Sec-WebSocket-Extensions", "x-unknown; a=b")]).await;
    assert!(!unknown.line.deflate);
}

/// RFC 7692, 7.1: whoever can't do all that an offer asks for declines it.
#[tokio::test]
async fn compression_is_declined_where_the_client_wants_what_the_server_has_not() {
    let server = server().await;
    let bob = server.register("bob").await;
    for offer in [
        "permessage-deflate; server_max_window_bits=10",
        "permessage-deflate; client_max_window_bits; server_max_window_bits=15",
        "permessage-deflate; foo",
        "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
        "permessage-deflate; client_max_window_bits=16",
        "permessage-deflate; server_no_context_takeover=1",
        "permessage-deflate-2",
    ] {
        let mut client = Client::open_with(&server, &[("Sec-WebSocket-Extensions", offer)]).await;
        assert!(!client.line.deflate, "{offer}");
        client.auth(&bob, json!({})).await;
        client.sync().await;
        assert_eq!(client.line.compressed.0, 0, "{offer}");
    }
    // The next best is taken.
    let several = "permessage-deflate; server_max_window_bits=10, x-unknown, permessage-deflate ;client_max_window_bits = 12";
    let lines = [("Sec-WebSocket-Extensions", "x-unknown"), ("sec-websocket-extensions", several)];
    let mut client = Client::open_with(&server, &lines).await;
    assert!(client.line.deflate);
    client.auth(&bob, json!({})).await;
    client.sync().await;
    assert!(client.line.compressed.0 > 0);
}

/// A message as permessage-deflate has it (RFC 7692, 7.2.1).
pub(crate) fn deflate(text: &[u8]) -> Vec<u8> {
    let mut compress = flate2::Compress::new(flate2::Compression::fast(), false);
    let mut output = Vec::with_capacity(text.len() + 1024);
    compress.compress_vec(text, &mut output, flate2::FlushCompress::Sync).expect("compressed");
    output.truncate(output.len() - 4);
    output
}

#[tokio::test]
async fn ok_05_whose_devices_changed_comes_as_with_long_poll() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    room(&alice, &[&bob]).await;
    let mut client = Client::ready(&server, &bob).await;
    server.login("alice").await;
    let sync = client.sync().await;
    assert_eq!(sync["device_lists"], json!({ "changed": [alice.user_id], "left": [] }));
}
