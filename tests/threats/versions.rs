//! Every room version, from its creation to what is read after a restart.

use hearth_federation::{Received, References, SigningKey, Verified};
use ruma::RoomVersionId;
use serde_json::{Value, json};

use crate::{
    as_servers_have_it,
    common::{Server, User, history::whole_log},
    encoded, put_raw, server,
};

const VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

async fn event(user: &User, room: &str, id: &str) -> Value {
    user.get(&format!("/v3/rooms/{}/event/{}", encoded(room), encoded(id))).await.expect(200)
}

/// Verifies events of one room as another server would: their form, their signatures and their hashes.
fn verify(server: &Server, version: &str, events: &[Value]) {
    let text = std::fs::read_to_string(server.data_dir().join("signing.key")).expect("the key is there");
    let key = SigningKey::from_text(&text).expect("the key is whole");
    let version = RoomVersionId::try_from(version).expect("a version");
    for event in events {
        let text = event.to_string();
        let received = Received::parse(&text, &version, References::Limited)
            .unwrap_or_else(|cause| panic!("version {version}: {cause}: {text}"));
        let public = |name: &ruma::ServerName, id: &str| {
            (name == "localhost" && id == key.id().as_str()).then(|| key.public_key())
        };
        match received.verify(public) {
            Ok(Verified::Intact(_)) => {}
            Ok(Verified::Redacted(_)) => {
                panic!("version {version}: the hash of its content is wrong: {text}")
            }
            Err(cause) => panic!("version {version}: {cause}: {text}"),
        }
    }
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

/// RV-01, RV-04, RV-23, RV-26, SG-03
#[tokio::test]
async fn rv_01_people_chat_in_rooms_of_every_version() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut rooms = Vec::new();
    for version in VERSIONS {
        let room = alice
            .create_room(json!({ "preset": "public_chat", "room_version": version, "name": version }))
            .await;
        bob.join(&encoded(&room)).await;
        let kept = bob.send_text(&encoded(&room), "kept").await;
        let gone = bob.send_text(&encoded(&room), "regretted").await;
        alice.send_state(&encoded(&room), "m.room.topic", "", json!({ "topic": "tea" })).await;
        let whole = as_servers_have_it(&alice, &room).await;
        verify(&server, version, &list(&whole["timeline"]["events"]));
        assert_eq!(whole["timeline"]["limited"], false, "version {version}: {whole}");

        let path = format!("/v3/rooms/{}/redact/{}/r{version}", encoded(&room), encoded(&gone));
        let redaction = bob.put(&path, json!({ "reason": "typo" })).await.expect(200)["event_id"].clone();
        let redaction = redaction.as_str().expect("an id").to_owned();
        rooms.push((version, room, kept, gone, redaction));
    }
    for round in ["at once", "after a restart"] {
        for (version, room, kept, gone, redaction) in &rooms {
            let synced = bob.sync(None, 0).await["rooms"]["join"][room]["timeline"]["events"].clone();
            let paged = whole_log(&bob, &encoded(room)).await;
            assert_eq!(paged[0]["content"].get("room_version").and_then(Value::as_str), Some(*version));
            for (way, events) in [("/sync", list(&synced)), ("/messages", paged)] {
                let find = |id: &str| events.iter().find(|event| event["event_id"] == id).cloned();
                let found = find(redaction).unwrap_or_else(|| panic!("version {version}, {round}, {way}"));
                assert_eq!(found["redacts"], gone.as_str(), "version {version}, {round}, {way}");
                assert_eq!(found["content"]["redacts"], gone.as_str(), "version {version}, {round}, {way}");
                assert_eq!(find(gone).expect("an event")["content"], json!({}), "{version}, {round}, {way}");
            }
            assert_eq!(
                event(&alice, room, kept).await["content"]["body"],
                "kept",
                "version {version}, {round}"
            );
            assert_eq!(event(&alice, room, gone).await["content"], json!({}), "version {version}, {round}");
            let name = bob.get(&format!("/v3/rooms/{}/state/m.room.name", encoded(room))).await.expect(200);
            assert_eq!(name["name"], *version);
        }
        server.restart().await;
    }
}

/// EV-06: what is hashed is what is stored and what is served, whatever a client wrote twice.
#[tokio::test]
async fn duplicate_keys_have_one_outcome_everywhere() {
    let server = server().await;
    let alice = server.register("alice").await;
    for version in ["1", "6", "11", "12"] {
        let room = alice.create_room(json!({ "room_version": version })).await;
        let twice = r#"{"msgtype":"m.text","body":"one","a":{"x":1,"x":2},"body":"two","\u0062ody":"three"}"#;
        let path = format!("/v3/rooms/{}/send/m.room.message/twice", encoded(&room));
        let answer = put_raw(&alice, &path, twice).await;
        if answer.status != 200 {
            answer.expect_error(400, "M_BAD_JSON");
            continue;
        }
        let id = answer.json["event_id"].as_str().expect("an id").to_owned();
        let whole = as_servers_have_it(&alice, &room).await;
        let events = list(&whole["timeline"]["events"]);
        verify(&server, version, &events);
        let stored = events.last().expect("an event")["content"].clone();
        let raw = alice.get(&format!("/v3/rooms/{}/event/{}", encoded(&room), encoded(&id))).await;
        assert_eq!(raw.text().matches(r#""body""#).count(), 1, "each key once: {}", raw.text());
        assert_eq!(raw.text().matches(r#""x""#).count(), 1, "each key once: {}", raw.text());
        assert_eq!(raw.json["content"], stored, "version {version}");
        let synced = alice.sync(None, 0).await["rooms"]["join"][&room]["timeline"]["events"].clone();
        assert_eq!(list(&synced).last().expect("an event")["content"], stored, "version {version}");
    }
}
