//! History that rooms don't keep for ever (MSC1763): what clients see of it, and what is left.

mod common;

use common::{Server, User, eventually};
use serde_json::{Value, json};
use toml::{Table, toml};

/// Rooms that ask for it keep history for a second.
fn short() -> Table {
    toml! {
        [retention]
        enabled = true
        shortest_lifetime_seconds = 1
        purge_interval_seconds = 1
    }
}

async fn status(user: &User, path: &str) -> u16 {
    user.get(path).await.status
}

async fn is_gone(user: &User, room: &str, event: &str) {
    eventually("the event is too old", || async {
        (status(user, &format!("/v3/rooms/{room}/event/{event}")).await == 404).then_some(())
    })
    .await;
}

/// The events of a room, oldest first.
async fn history(user: &User, room: &str) -> Vec<Value> {
    let page = user.get(&format!("/v3/rooms/{room}/messages?dir=f&limit=100")).await.expect(200);
    page["chunk"].as_array().expect("a chunk").clone()
}

/// The texts of a room, oldest first.
async fn texts(user: &User, room: &str) -> Vec<String> {
    let events = history(user, room).await.into_iter();
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

async fn found(user: &User, term: &str) -> usize {
    let body = json!({ "search_categories": { "room_events": { "search_term": term } } });
    let found = user.post("/v3/search", body).await.expect(200);
    found["search_categories"]["room_events"]["results"].as_array().expect("results").len()
}

async fn topic(user: &User, room: &str) -> Value {
    user.get(&format!("/v3/rooms/{room}/state/m.room.topic")).await.expect(200)["topic"].take()
}

/// A room of two; the first may do everything.
async fn room_of_two(alice: &User, bob: &User) -> String {
    let room = alice.create_room(json!({ "preset": "private_chat", "invite": [bob.user_id] })).await;
    bob.join(&room).await;
    room
}

/// I10: an event that is gone is like one that never was, whatever endpoint is asked, before and after a restart; the room's
/// state is there, and people go on talking.
#[tokio::test]
async fn i10_what_is_too_old_is_gone_from_every_endpoint() {
    let mut server = Server::start(short()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room_of_two(&alice, &bob).await;
    let other = room_of_two(&alice, &bob).await;
    alice.send_text(&other, "a pear elsewhere").await;
    let since = bob.sync(None, 0).await["next_batch"].as_str().expect("a token").to_owned();

    let root = alice.send_text(&room, "a pear").await;
    let relates = |rel_type: &str| json!({ "rel_type": rel_type, "event_id": root, "key": "+" });
    let child = json!({ "body": "child pear", "msgtype": "m.text", "m.relates_to": relates("m.thread") });
    let reply = bob.send_event(&room, "m.room.message", child).await;
    bob.send_event(&room, "m.reaction", json!({ "m.relates_to": relates("m.annotation") })).await;
    alice.send_state(&room, "m.room.topic", "", json!({ "topic": "fruit" })).await;
    let last = alice.send_text(&room, "the last pear").await;
    assert_eq!(found(&bob, "pear").await, 4);

    alice.send_state(&room, "m.room.retention", "", json!({ "max_lifetime": 1000 })).await;
    is_gone(&bob, &room, &last).await;
    let retention = alice.get(&format!("/v3/rooms/{room}/state/m.room.retention")).await.expect(200);
    assert_eq!(retention["max_lifetime"], 1000);
    let in_log = |server: &Server| server.log().matches("old history purged").count();
    eventually("it is purged", || async { (in_log(&server) > 0).then_some(()) }).await;
    for restarted in [false, true] {
        if restarted {
            server.restart().await;
        }
        for event in [&root, &reply, &last] {
            for path in ["event/{}", "context/{}"] {
                let path = format!("/v3/rooms/{room}/{}", path.replace("{}", event));
                let none = path.replace(event.as_str(), "$nothing");
                let (answer, never) = (bob.get(&path).await, bob.get(&none).await);
                assert_eq!(answer.expect(404), never.expect(404), "{path}");
            }
        }
        assert_eq!(status(&bob, &format!("/v1/rooms/{room}/relations/{root}")).await, 404);
        eventually("all is too old", || async { history(&bob, &room).await.is_empty().then_some(()) }).await;
        let threads = bob.get(&format!("/v1/rooms/{room}/threads")).await.expect(200);
        assert_eq!(threads["chunk"], json!([]));
        let jump = format!("/v1/rooms/{room}/timestamp_to_event?dir=f&ts=0");
        assert_eq!(status(&bob, &jump).await, 404);
        assert_eq!(found(&bob, "pear").await, 1, "elsewhere");
        for direction in ["f", "b"] {
            let page = format!("/v3/rooms/{room}/messages?dir={direction}");
            let page = bob.get(&page).await.expect(200);
            assert_eq!((&page["chunk"], page.get("end")), (&json!([]), None));
        }

        // State is state.
        assert_eq!(topic(&bob, &room).await, "fruit");
        let state = bob.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
        assert!(state.as_array().is_some_and(|state| state.len() > 7), "{state}");
        let sync = bob.sync(None, 0).await;
        let joined = &sync["rooms"]["join"][&room];
        assert_eq!(joined["timeline"]["events"], json!([]), "{joined}");
        assert!(joined["state"]["events"].as_array().is_some_and(|state| state.len() > 7));
        // A device that was away hears of the state that was set, and of nothing that was said.
        let sync = bob.sync(Some(&since), 0).await;
        let joined = &sync["rooms"]["join"][&room];
        assert_eq!(joined["timeline"]["events"], json!([]), "{joined}");
        let types: Vec<&str> = joined["state"]["events"]
            .as_array()
            .expect("state")
            .iter()
            .filter_map(|event| event["type"].as_str())
            .collect();
        assert_eq!(types, ["m.room.topic", "m.room.retention"]);
        eventually("nothing is unread", || async {
            let sync = bob.sync(None, 0).await;
            let count = &sync["rooms"]["join"][&room]["unread_notifications"]["notification_count"];
            (count == 0).then_some(())
        })
        .await;
        let notifications = bob.get("/v3/notifications").await.expect(200);
        let rooms = notifications["notifications"].as_array().expect("a list");
        assert!(rooms.iter().all(|notification| notification["room_id"] != room.as_str()));

        // It goes on.
        let next = alice.send_text(&room, "next").await;
        is_gone(&bob, &room, &next).await;
        assert_eq!(texts(&bob, &other).await, ["a pear elsewhere"]);
    }
}

/// What somebody may not do, or what makes no sense, changes nothing; nor does anything unless the operator wants it.
#[tokio::test]
async fn history_is_kept_unless_the_room_and_the_operator_say_otherwise() {
    let mut server = Server::start(short()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rooms = [room_of_two(&alice, &bob).await, room_of_two(&alice, &bob).await];
    let [room, ended] = &rooms;
    for room in &rooms {
        alice.send_text(room, "kept").await;
    }
    let path = format!("/v3/rooms/{room}/state/m.room.retention/");
    bob.put(&path, json!({ "max_lifetime": 1 })).await.expect(403);
    for nonsense in [json!("1"), json!(-1), json!([1]), json!({}), json!(true)] {
        alice.send_state(room, "m.room.retention", "", json!({ "max_lifetime": nonsense })).await;
    }
    let contradiction = json!({ "min_lifetime": 2000, "max_lifetime": 1000 });
    alice.send_state(room, "m.room.retention", "", contradiction).await;
    alice.send_state(room, "m.room.retention", "other", json!({ "max_lifetime": 1 })).await;
    let message = alice.send_text(ended, "not kept").await;
    alice.send_state(ended, "m.room.retention", "", json!({ "max_lifetime": 1 })).await;
    is_gone(&bob, ended, &message).await;
    assert_eq!(texts(&bob, room).await, ["kept"]);

    // From now on everything is kept.
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    std::fs::write(server.config_path(), config.replace("enabled = true", "enabled = false")).unwrap();
    server.restart().await;
    let fresh = alice.send_text(ended, "fresh").await;
    alice.send_state(ended, "m.room.retention", "", json!({ "max_lifetime": 2 })).await;
    assert!(texts(&bob, ended).await.contains(&"fresh".to_owned()));
    assert_eq!(status(&bob, &format!("/v3/rooms/{ended}/event/{fresh}")).await, 200);
    assert_eq!(texts(&bob, room).await, ["kept"]);
}

#[tokio::test]
async fn clients_are_told_how_long_history_is_kept() {
    let path = "/unstable/org.matrix.msc1763/retention/configuration";
    let server = Server::start(toml! {
        [retention]
        enabled = true
        default_lifetime_seconds = 90000
        longest_lifetime_seconds = 100_000
    })
    .await;
    let alice = server.register("alice").await;
    let expected = json!({
        "policies": { "*": { "max_lifetime": 90_000_000 } },
        "limits": { "max_lifetime": { "min": 86_400_000, "max": 100_000_000 } },
    });
    assert_eq!(alice.get(path).await.expect(200), expected);
    server.http().get(path, None).await.expect_error(401, "M_MISSING_TOKEN");

    let server = Server::start(short()).await;
    let alice = server.register("alice").await;
    let expected = json!({ "policies": {}, "limits": { "max_lifetime": { "min": 1000 } } });
    assert_eq!(alice.get(path).await.expect(200), expected);

    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    alice.get(path).await.expect_error(404, "M_UNRECOGNIZED");
}
