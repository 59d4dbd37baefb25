//! Limits: of texts, events, fields and members.

use ::http::{HeaderMap, Method, header::AUTHORIZATION};
use serde_json::{Value, json};

use crate::{
    common::{Server, User, history::whole_log},
    encoded, server, state,
};

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

async fn send(user: &User, room: &str, txn: &str, content: Value) -> crate::common::Answer {
    user.put(&format!("/v3/rooms/{room}/send/m.room.message/{txn}"), content).await
}

#[tokio::test]
async fn ev_12_a_local_room_takes_texts_of_100_000_characters() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "creation_content": { "m.federate": false } })).await;
    let longest = "\u{1F600}".repeat(100_000);
    let id = send(&alice, &room, "1", text(&longest)).await.expect(200)["event_id"].clone();
    let path = format!("/v3/rooms/{room}/event/{}", id.as_str().expect("an id"));
    let found = alice.get(&path).await.expect(200);
    assert_eq!(found["content"]["body"].as_str(), Some(longest.as_str()), "never truncated");

    // Some clients escape whatever isn't ASCII; that is no longer a text.
    let escaped = r"\ud83d\ude00".repeat(100_000);
    let body = format!(r#"{{"msgtype":"m.text","body":"{escaped}","formatted_body":"{escaped}"}}"#);
    let token = format!("Bearer {}", alice.access_token).parse().expect("a header");
    let headers = HeaderMap::from_iter([(AUTHORIZATION, token)]);
    let path = format!("/v3/rooms/{room}/send/m.room.message/escaped");
    let answer = alice.http.send(Method::PUT, &path, headers, body).await.expect("an answer");
    answer.expect(200);

    let html = json!({
        "msgtype": "m.text", "body": "a".repeat(100_000),
        "format": "org.matrix.custom.html", "formatted_body": "b".repeat(100_000),
    });
    send(&alice, &room, "2", html).await.expect(200);

    let before = whole_log(&alice, &room).await.len();
    let over = "a".repeat(100_001);
    let formatted = json!({ "msgtype": "m.text", "body": "a", "formatted_body": over });
    for (txn, content) in [("3", text(&over)), ("4", formatted)] {
        let error = send(&alice, &room, txn, content).await.expect_error(413, "M_TOO_LARGE");
        let error = error["error"].as_str().expect("a sentence");
        assert!(error.contains("100000") && error.contains("100001"), "names limit and size: {error}");
    }
    assert_eq!(whole_log(&alice, &room).await.len(), before);
}

#[tokio::test]
async fn ev_01_an_event_that_can_federate_has_65_536_bytes() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    // What an event of this room takes without its text, give or take the digits of its depth.
    send(&alice, &room, "1", text(&"a".repeat(64_000))).await.expect(200);
    let error = send(&alice, &room, "2", text(&"a".repeat(65_500))).await.expect_error(413, "M_TOO_LARGE");
    let error = error["error"].as_str().expect("a sentence");
    assert!(error.contains("65536"), "names the limit: {error}");
    // It is bytes that count, not characters.
    send(&alice, &room, "3", text(&"\u{1F600}".repeat(17_000))).await.expect_error(413, "M_TOO_LARGE");
    let path = format!("/v3/rooms/{room}/state/org.example.own");
    alice.put(&path, json!({ "a": "b".repeat(66_000) })).await.expect_error(413, "M_TOO_LARGE");
    let body = json!({ "topic": "a".repeat(66_000) });
    alice.post("/v3/createRoom", body).await.expect_error(413, "M_TOO_LARGE");
}

#[tokio::test]
async fn a_server_without_federation_makes_local_rooms_only() {
    let server = Server::start(toml::toml! {
        [federation]
        enabled = false
    })
    .await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "creation_content": { "m.federate": true } })).await;
    assert_eq!(state(&alice, &room, "m.room.create", "").await["m.federate"], false);
    send(&alice, &room, "1", text(&"a".repeat(100_000))).await.expect(200);
}

#[tokio::test]
async fn ev_02_types_and_state_keys_have_255_bytes() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    // 2 bytes a character: bytes count.
    let (fits, over) = (format!("a{}", "ü".repeat(127)), "ü".repeat(128));
    assert_eq!((fits.len(), over.len()), (255, 256));
    for (path, status) in [
        (format!("send/{}/1", encoded(&fits)), 200),
        (format!("send/{}/2", encoded(&over)), 413),
        (format!("state/{}", encoded(&fits)), 200),
        (format!("state/{}", encoded(&over)), 413),
        (format!("state/org.example.own/{}", encoded(&fits)), 200),
        (format!("state/org.example.own/{}", encoded(&over)), 413),
    ] {
        let answer = alice.put(&format!("/v3/rooms/{room}/{path}"), json!({})).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if status == 413 {
            answer.expect_error(413, "M_TOO_LARGE");
        }
    }
}

#[tokio::test]
async fn the_hundred_and_first_member_is_refused() {
    let server = server().await;
    let alice = server.register("alice").await;
    let invitees = |count: usize| (0..count).map(|at| format!("@u{at}:localhost")).collect::<Vec<_>>();
    let error = alice.post("/v3/createRoom", json!({ "invite": invitees(100) })).await;
    let error = error.expect_error(403, "M_FORBIDDEN");
    assert!(error["error"].as_str().expect("a sentence").contains("100"), "{error}");

    let room = alice.create_room(json!({ "preset": "public_chat", "invite": invitees(99) })).await;
    let path = format!("/v3/rooms/{room}/invite");
    let error =
        alice.post(&path, json!({ "user_id": "@late:localhost" })).await.expect_error(403, "M_FORBIDDEN");
    assert!(error["error"].as_str().expect("a sentence").contains("100"), "names the limit: {error}");
    // Who is invited already can be invited again, and a place that is given back can be given away.
    alice.post(&path, json!({ "user_id": "@u0:localhost" })).await.expect(200);
    let kick = format!("/v3/rooms/{room}/kick");
    alice.post(&kick, json!({ "user_id": "@u0:localhost" })).await.expect(200);
    alice.post(&path, json!({ "user_id": "@late:localhost" })).await.expect(200);
}

#[tokio::test]
async fn a_full_room_lets_nobody_join_but_works_on() {
    let server = Server::start(toml::toml! {
        [rooms]
        max_members = 2
    })
    .await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let error = carol.post(&format!("/v3/join/{room}"), json!({})).await.expect_error(403, "M_FORBIDDEN");
    assert!(error["error"].as_str().expect("a sentence").contains('2'), "names the limit: {error}");
    let own = format!("/v3/rooms/{room}/state/m.room.member/{}", carol.user_id);
    carol.put(&own, json!({ "membership": "join" })).await.expect_error(403, "M_FORBIDDEN");
    bob.post(&format!("/v3/join/{room}"), json!({})).await.expect(200);
    bob.send_text(&room, "cosy").await;
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    carol.join(&room).await;
}

#[tokio::test]
async fn two_at_the_door_of_a_room_with_one_place() {
    let server = Server::start(toml::toml! {
        [rooms]
        max_members = 2
    })
    .await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let path = format!("/v3/join/{room}");
    let (one, two) = tokio::join!(bob.post(&path, json!({})), carol.post(&path, json!({})));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 403]);
}
