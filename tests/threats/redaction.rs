//! What was redacted is gone, whichever way one looks for it (I9, RD-04).

use serde_json::json;

use crate::{
    common::{Server, User},
    server,
};

/// What every way of reading a room gives, as one text.
async fn everything(server: &Server, user: &User, room: &str, ids: &[&str], since: &str) -> String {
    let mut all = String::new();
    let mut paths = vec![
        format!("/v3/rooms/{room}/state"),
        format!("/v3/rooms/{room}/state/m.room.topic"),
        format!("/v3/rooms/{room}/state/m.room.topic?format=event"),
        format!("/v3/rooms/{room}/members"),
        format!("/v3/rooms/{room}/joined_members"),
        "/v3/publicRooms".to_owned(),
        "/v3/sync?full_state=true".to_owned(),
        "/v3/sync?use_state_after=true".to_owned(),
        format!("/v3/sync?since={since}"),
        "/v3/sync?filter=%7B%22event_format%22%3A%22federation%22%7D".to_owned(),
    ];
    for direction in ["f", "b"] {
        paths.push(format!("/v3/rooms/{room}/messages?dir={direction}&limit=100"));
    }
    for id in ids {
        paths.push(format!("/v3/rooms/{room}/event/{id}"));
        paths.push(format!("/v3/rooms/{room}/context/{id}?limit=100"));
    }
    for path in paths {
        let answer = server.http().get(&path, Some(&user.access_token)).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        all += &answer.text();
    }
    all
}

#[tokio::test]
async fn i9_what_was_redacted_is_served_by_no_endpoint() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "visibility": "public" })).await;
    bob.join(&room).await;
    let message = alice.send_text(&room, "hush-message").await;
    let edit = json!({
        "msgtype": "m.text", "body": "hush-edit", "m.new_content": { "msgtype": "m.text", "body": "hush-new" },
        "m.relates_to": { "rel_type": "m.replace", "event_id": message },
    });
    let edit = alice.send_event(&room, "m.room.message", edit).await;
    // State that another replaces, and state that is in force.
    let first = alice.send_state(&room, "m.room.topic", "", json!({ "topic": "hush-topic" })).await;
    let second = alice.send_state(&room, "m.room.topic", "", json!({ "topic": "hush-second" })).await;
    let since = bob.sync(None, 0).await["next_batch"].as_str().expect("a token").to_owned();
    let member = json!({ "membership": "join", "displayname": "hush-name" });
    let member = alice.send_state(&room, "m.room.member", &alice.user_id, member).await;
    let late = alice.send_text(&room, "hush-late").await;
    let ids = [&message, &edit, &first, &second, &member, &late].map(String::as_str);
    // They are found before.
    let before = everything(&server, &bob, &room, &ids, &since).await;
    for secret in ["message", "edit", "new", "topic", "second", "name", "late"] {
        assert!(before.contains(&format!("hush-{secret}")), "{secret}");
    }
    let mut redactions = Vec::new();
    for (number, id) in ids.iter().enumerate() {
        let path = format!("/v3/rooms/{room}/redact/{id}/{number}");
        let answer = alice.put(&path, json!({ "reason": "hush-reason" })).await.expect(200);
        redactions.push(answer["event_id"].as_str().expect("an id").to_owned());
    }
    // A redaction is an event too, and the redaction of one brings nothing back.
    for (number, id) in redactions.iter().enumerate() {
        alice.put(&format!("/v3/rooms/{room}/redact/{id}/again{number}"), json!({})).await.expect(200);
    }
    for round in ["at once", "after a restart"] {
        for user in [&alice, &bob] {
            let after = everything(&server, user, &room, &ids, &since).await;
            if let Some(at) = after.find("hush-") {
                panic!("{round}: {}", &after[at.saturating_sub(700)..(at + 200).min(after.len())]);
            }
        }
        server.restart().await;
    }
    let members = bob.get(&format!("/v3/rooms/{room}/joined_members")).await.expect(200);
    assert!(members["joined"].get(&alice.user_id).is_some(), "PD-09: redacted is not gone");
}
