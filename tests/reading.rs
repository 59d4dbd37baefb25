//! Events by date, what somebody was notified of, and the reading of rooms from before `/sync`.

mod common;

use common::{Server, User};
use serde_json::{Value, json};
use toml::Table;

async fn at(user: &User, room: &str, ts: i64, direction: &str) -> common::Answer {
    user.get(&format!("/v1/rooms/{room}/timestamp_to_event?ts={ts}&dir={direction}")).await
}

async fn time(user: &User, room: &str, event: &str) -> i64 {
    let event = user.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200);
    event["origin_server_ts"].as_i64().unwrap_or_default()
}

/// The closest event at a time or beyond it; 404 where there is none.
#[tokio::test]
async fn the_closest_event_in_time_is_found() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let mut sent: Vec<(i64, String)> = Vec::new();
    while sent.len() < 5 {
        let event = alice.send_text(&room, "x").await;
        let ts = time(&alice, &room, &event).await;
        // Each in a millisecond of its own.
        if sent.last().is_none_or(|(last, _)| *last < ts) {
            sent.push((ts, event));
        }
    }
    let (first, last) = (sent[0].0, sent[4].clone());
    for (ts, event) in &sent {
        for direction in ["f", "b"] {
            let found = at(&alice, &room, *ts, direction).await.expect(200);
            let same = found["origin_server_ts"] == json!(ts);
            assert!(same || direction == "b", "{found}");
            if direction == "f" && *ts != first {
                assert_eq!(found["event_id"], event.as_str());
            }
        }
    }
    assert_eq!(at(&alice, &room, last.0 + 60_000, "b").await.expect(200)["event_id"], last.1.as_str());
    at(&alice, &room, last.0 + 60_000, "f").await.expect_error(404, "M_NOT_FOUND");
    at(&alice, &room, 0, "b").await.expect_error(404, "M_NOT_FOUND");
    let create = at(&alice, &room, 0, "f").await.expect(200);
    let create = alice.get(&format!("/v3/rooms/{room}/event/{}", create["event_id"].as_str().unwrap())).await;
    assert_eq!(create.expect(200)["type"], "m.room.create");
    at(&alice, &room, 5, "sideways").await.expect_error(400, "M_INVALID_PARAM");
    alice
        .get(&format!("/v1/rooms/{room}/timestamp_to_event?dir=f"))
        .await
        .expect_error(400, "M_MISSING_PARAM");
}

/// HV-05: by date nobody finds what they may not see.
#[tokio::test]
async fn hv_05_only_visible_events_are_found_by_date() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let joined = json!([{
        "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" },
    }]);
    let room = alice.create_room(json!({ "preset": "public_chat", "initial_state": joined })).await;
    let before = alice.send_text(&room, "before").await;
    let hidden = at(&bob, &room, 0, "f").await;
    let absent = at(&bob, "!nowhere:localhost", 0, "f").await;
    assert_eq!((hidden.status, hidden.text()), (absent.status, absent.text()));
    hidden.expect_error(403, "M_FORBIDDEN");
    bob.join(&room).await;
    let ts = time(&alice, &room, &before).await;
    let found = at(&bob, &room, ts, "f").await.expect(200);
    assert_ne!(found["event_id"], before.as_str());
    let event = bob.get(&format!("/v3/rooms/{room}/event/{}", found["event_id"].as_str().unwrap())).await;
    assert_eq!(event.expect(200)["state_key"], bob.user_id.as_str());
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    let after = alice.send_text(&room, "after").await;
    let ts = time(&alice, &room, &after).await;
    let last = at(&bob, &room, ts + 1000, "b").await.expect(200);
    assert_ne!(last["event_id"], after.as_str());
}

async fn notifications(user: &User, rest: &str) -> Value {
    user.get(&format!("/v3/notifications{rest}")).await.expect(200)
}

fn events(page: &Value) -> Vec<String> {
    let list = page["notifications"].as_array().cloned().unwrap_or_default();
    list.iter().map(|one| one["event"]["event_id"].as_str().unwrap_or_default().to_owned()).collect()
}

/// What notified somebody, the newest first, read or not, page by page, highlights alone on request.
#[tokio::test]
async fn people_look_up_what_they_were_notified_of() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut sent = Vec::new();
    for number in 0..5 {
        sent.insert(0, alice.send_text(&room, &number.to_string()).await);
        if number < 2 {
            bob.send_text(&room, "own").await;
        }
    }
    let mention = json!({ "msgtype": "m.text", "body": "hey", "m.mentions": { "user_ids": [bob.user_id] } });
    let mention = alice.send_event(&room, "m.room.message", mention).await;
    sent.insert(0, mention.clone());
    bob.post(&format!("/v3/rooms/{room}/receipt/m.read/{}", sent[2]), json!({})).await.expect(200);

    let page = notifications(&bob, "").await;
    assert_eq!(events(&page), sent);
    let read: Vec<&Value> =
        page["notifications"].as_array().unwrap().iter().map(|one| &one["read"]).collect();
    assert_eq!(json!(read), json!([false, false, true, true, true, true]));
    let sound = json!({ "set_tweak": "sound", "value": "default" });
    let first = &page["notifications"][0];
    assert_eq!(first["room_id"], room.as_str());
    assert_eq!(first["actions"], json!(["notify", sound, { "set_tweak": "highlight" }]));
    assert_eq!(first["ts"], first["event"]["origin_server_ts"]);
    assert_eq!(page["notifications"][1]["actions"], json!(["notify", sound]), "they are two in the room");

    let (mut found, mut from) = (Vec::new(), String::new());
    loop {
        let page = notifications(&bob, &format!("?limit=4{from}")).await;
        found.extend(events(&page));
        let Some(next) = page["next_token"].as_str() else { break };
        from = format!("&from={next}");
    }
    assert_eq!(found, sent);
    assert_eq!(events(&notifications(&bob, "?only=highlight").await), [mention]);
    bob.get("/v3/notifications?only=nonsense").await.expect_error(400, "M_INVALID_PARAM");
    bob.get("/v3/notifications?from=nonsense").await.expect_error(400, "M_INVALID_PARAM");
    // IG-01: not of what the ignored said.
    let list = format!("/v3/user/{}/account_data/m.ignored_user_list", bob.user_id);
    bob.put(&list, json!({ "ignored_users": { &alice.user_id: {} } })).await.expect(200);
    assert_eq!(events(&notifications(&bob, "").await), Vec::<String>::new());
}

/// `/rooms/{roomId}/initialSync`: the last messages, the state, and what the user keeps about the room.
#[tokio::test]
async fn a_room_is_shown_at_a_first_look() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "name": "Room" })).await;
    for number in 0..30 {
        alice.send_text(&room, &number.to_string()).await;
    }
    let tag = format!("/v3/user/{}/rooms/{room}/tags/m.favourite", alice.user_id);
    alice.put(&tag, json!({})).await.expect(200);
    let look = alice.get(&format!("/v3/rooms/{room}/initialSync")).await.expect(200);
    let chunk = look["messages"]["chunk"].as_array().unwrap();
    let last = &chunk.last().unwrap()["content"]["body"];
    assert_eq!((chunk.len(), last), (20, &json!("29")));
    assert_eq!((&look["room_id"], &look["membership"]), (&json!(room), &json!("join")));
    assert!(look["state"].as_array().unwrap().iter().any(|event| event["type"] == "m.room.name"));
    assert_eq!(look["account_data"][0]["type"], "m.tag");
    let start = look["messages"]["start"].as_str().unwrap();
    let page = alice.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=1&from={start}")).await.expect(200);
    assert_eq!(page["chunk"][0]["content"]["body"], "9");
    bob.get(&format!("/v3/rooms/{room}/initialSync")).await.expect_error(403, "M_FORBIDDEN");
    // HV-12: the world may look into what the world may read.
    let open = json!({ "history_visibility": "world_readable" });
    alice.send_state(&room, "m.room.history_visibility", "", open).await;
    let look = bob.get(&format!("/v3/rooms/{room}/initialSync")).await.expect(200);
    assert_eq!(look["membership"], "leave");
    assert!(
        look["messages"]["chunk"].as_array().unwrap().iter().all(|event| event["content"]["body"].is_null())
    );
}

/// `/initialSync`, `/events` and `/events/{eventId}`, for old clients.
#[tokio::test]
async fn old_clients_read_as_they_always_did() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    alice.send_text(&room, "one").await;
    alice.invite(&room, &bob.user_id).await;
    let first = alice.get("/v3/initialSync?limit=2").await.expect(200);
    assert_eq!(first["rooms"][0]["room_id"], room.as_str());
    assert_eq!(first["rooms"][0]["messages"]["chunk"].as_array().map(Vec::len), Some(2));
    let none = alice.get("/v3/initialSync?limit=0").await.expect(200);
    assert_eq!(none["rooms"][0]["messages"]["chunk"], json!([]));
    let invited = bob.get("/r0/initialSync").await.expect(200);
    assert_eq!(invited["rooms"][0]["membership"], "invite");
    assert_eq!(invited["rooms"][0]["inviter"], alice.user_id.as_str());

    let from = first["end"].as_str().unwrap().to_owned();
    let waiting = {
        let alice = alice.clone();
        tokio::spawn(async move { alice.get(&format!("/v3/events?from={from}&timeout=30000")).await })
    };
    bob.join(&room).await;
    // Who shares a room with somebody from then on hears who is there, too.
    let of_room = |news: &Value| {
        let events = news["chunk"].as_array().into_iter().flatten();
        events.filter(|event| event["type"] != "m.presence").cloned().collect::<Vec<_>>()
    };
    let mut news = waiting.await.unwrap().expect(200);
    assert_eq!(of_room(&news)[0]["state_key"], bob.user_id.as_str());
    assert_eq!(of_room(&news)[0]["room_id"], room.as_str());
    let event = bob.send_text(&room, "two").await;
    let found = loop {
        let next = news["end"].as_str().unwrap().to_owned();
        news = alice.get(&format!("/v3/events?from={next}&timeout=30000")).await.expect(200);
        if let Some(found) = of_room(&news).first() {
            break found.clone();
        }
    };
    assert_eq!(found["event_id"], event.as_str());
    alice.get("/v3/events?from=nonsense").await.expect_error(400, "M_INVALID_PARAM");
    alice.get("/v3/events?timeout=soon").await.expect_error(400, "M_INVALID_PARAM");

    let found = alice.get(&format!("/v3/events/{event}")).await.expect(200);
    assert_eq!(found["content"]["body"], "two");
    let carol = server.register("carol").await;
    let (hidden, absent) =
        (carol.get(&format!("/v3/events/{event}")).await, carol.get("/v3/events/$no").await);
    assert_eq!((hidden.status, hidden.text()), (absent.status, absent.text()));
    hidden.expect_error(404, "M_NOT_FOUND");
}

/// HV-12: who isn't in a room hears what happens there for as long as the world may read it.
#[tokio::test]
async fn hv_12_a_readable_room_is_followed_from_outside() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.get(&format!("/v3/events?room_id={room}")).await.expect_error(403, "M_FORBIDDEN");
    alice.send_text(&room, "secret").await;
    let open = json!({ "history_visibility": "world_readable" });
    alice.send_state(&room, "m.room.history_visibility", "", open).await;
    let now = bob.get(&format!("/v3/events?room_id={room}")).await.expect(200);
    assert_eq!(now["chunk"], json!([]));
    let from = now["end"].as_str().unwrap().to_owned();
    let waiting = {
        let (bob, path) = (bob.clone(), format!("/v3/events?room_id={room}&from={from}&timeout=30000"));
        tokio::spawn(async move { bob.get(&path).await })
    };
    let event = alice.send_text(&room, "open").await;
    let news = waiting.await.unwrap().expect(200);
    assert_eq!(news["chunk"][0]["event_id"], event.as_str());
}
