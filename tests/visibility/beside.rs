//! What is told beside the events themselves: state at its time, notifications, receipts, typing, lists of rooms.

use super::*;

/// What every path is asked for too. The room's topic is the number of the moment.
pub(super) async fn beside(
    what: &str,
    owner: &User,
    reader: &User,
    room: &str,
    said: &[(String, String)],
    model: &Model,
) {
    topic(what, reader, room, model).await;
    synced(what, owner, reader, room, said, model).await;
    if is_guest(reader) {
        return;
    }
    receipts(what, reader, room, said, model).await;
    naming_events(what, reader, room, said, model).await;
    notifications(what, reader, room, said, model).await;
    sliding(what, reader, room, said, model).await;
    sliding_later(what, reader, room, model).await;
    for (path, list, is_there) in [
        ("/v3/joined_rooms".to_owned(), "joined_rooms", model.is_in()),
        (format!("/v1/mutual_rooms?user_id={}", owner.user_id), "joined", model.is_in()),
    ] {
        let rooms = reader.get(&path).await.expect(200)[list].clone();
        let listed = rooms.as_array().is_some_and(|rooms| rooms.iter().any(|listed| listed == room));
        assert_eq!(listed, is_there, "{what}: {path}");
    }
    let answer = reader.get(&format!("/v3/rooms/{room}/aliases")).await;
    if model.is_in() || model.is_world_readable() {
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    } else {
        same(what, &answer, &reader.get("/v3/rooms/!nowhere:localhost/aliases").await);
    }
}

/// HV-11: members and the world read the state of now, those who left that of when they left.
async fn topic(what: &str, reader: &User, room: &str, model: &Model) {
    let last_in = model.moments.iter().rposition(|moment| moment.membership == "join");
    let now = model.moments.len() - 1;
    let expected = match last_in.filter(|_| !model.forgotten) {
        Some(at) => Some(at),
        None => model.is_world_readable().then_some(now),
    };
    let path = format!("/v3/rooms/{room}/state/m.room.topic/");
    let answer = reader.get(&path).await;
    match expected {
        Some(at) => assert_eq!(answer.expect(200)["topic"], at.to_string(), "{what}: topic"),
        None => same(what, &answer, &reader.get(&path.replace(room, "!nowhere:localhost")).await),
    }
    for path in ["state", "messages?dir=b&limit=100", "initialSync"] {
        let answer = reader.get(&format!("/v3/rooms/{room}/{path}")).await;
        old_topics(&format!("{what}: /{path}"), &answer.json, model);
    }
}

/// The content that a topic replaced is told only to those who may see the event that it was in.
fn old_topics(what: &str, answer: &Value, model: &Model) {
    match answer {
        Value::Object(members) => {
            if let Some(old) = answer["prev_content"]["topic"].as_str() {
                let old: usize = old.parse().expect("a number");
                assert!(model.sees(old), "{what} has the topic of moment {old}");
            }
            members.values().for_each(|inner| old_topics(what, inner, model));
        }
        Value::Array(items) => items.iter().for_each(|inner| old_topics(what, inner, model)),
        _ => {}
    }
}

/// Nobody marks what they may not see as read; it is as if it weren't there.
async fn receipts(what: &str, reader: &User, room: &str, said: &[(String, String)], model: &Model) {
    for (number, (root, _)) in said.iter().enumerate() {
        let receipt = |event: &str| format!("/v3/rooms/{room}/receipt/m.read/{event}");
        let answer = reader.post(&receipt(root), json!({})).await;
        if model.is_in() && model.sees(number) {
            answer.expect(200);
        } else {
            let what = format!("{what}: a receipt for message {number}");
            same(&what, &answer, &reader.post(&receipt("$absent"), json!({})).await);
        }
    }
}

/// Only members hear of receipts and of who types; who has nothing to do with a room doesn't hear of it.
async fn synced(
    what: &str,
    owner: &User,
    reader: &User,
    room: &str,
    said: &[(String, String)],
    model: &Model,
) {
    let (last, _) = said.last().expect("a message");
    owner.post(&format!("/v3/rooms/{room}/receipt/m.read/{last}"), json!({})).await.expect(200);
    let typing = format!("/v3/rooms/{room}/typing/{}", owner.user_id);
    owner.put(&typing, json!({ "typing": true, "timeout": 60_000 })).await.expect(200);
    let sync = reader.sync_with(None, 0, "&filter=%7B%22room%22%3A%7B%22include_leave%22%3Atrue%7D%7D").await;
    for section in ["join", "leave"] {
        old_topics(&format!("{what}: /sync"), &sync["rooms"][section][room], model);
    }
    let ephemeral = &sync["rooms"]["join"][room]["ephemeral"]["events"];
    let of_type = |kind: &str| ephemeral.as_array()?.iter().find(|event| event["type"] == kind);
    if model.is_in() {
        let receipts = &of_type("m.receipt").expect("a receipt")["content"];
        assert!(receipts[last]["m.read"].get(&owner.user_id).is_some(), "{what}: {receipts}");
    } else {
        let text = sync["rooms"].to_string();
        assert!(!text.contains("m.receipt") && !text.contains("m.typing"), "{what}: {text}");
    }
    let membership = model.moments.last().map(|now| now.membership);
    if model.forgotten || membership == Some("none") {
        assert!(!sync.to_string().contains(room), "{what}: /sync names the room");
    }
    owner.put(&typing, json!({ "typing": false })).await.expect(200);
}

/// Requests that do something with an event.
async fn naming_events(what: &str, reader: &User, room: &str, said: &[(String, String)], model: &Model) {
    for (number, (root, _)) in said.iter().enumerate() {
        let what = format!("{what}, message {number}");
        let report = |event: &str| format!("/v3/rooms/{room}/report/{event}");
        let answer = reader.post(&report(root), json!({ "reason": "spam" })).await;
        if model.is_in() && model.sees(number) {
            answer.expect(200);
        } else {
            same(&what, &answer, &reader.post(&report("$absent"), json!({ "reason": "spam" })).await);
        }
        let thread =
            |event: &str| format!("/unstable/io.element.msc4306/rooms/{room}/thread/{event}/subscription");
        let answer = reader.put(&thread(root), json!({})).await;
        if model.sees(number) {
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        } else {
            same(&what, &answer, &reader.put(&thread("$absent"), json!({})).await);
        }
    }
}

/// What a user was notified of they see only while they may see the event; members are notified of what is said.
async fn notifications(what: &str, reader: &User, room: &str, said: &[(String, String)], model: &Model) {
    let list = reader.get("/v3/notifications?limit=100").await.expect(200)["notifications"].clone();
    let events = list.as_array().into_iter().flatten().filter(|one| one["room_id"] == room);
    let listed: BTreeSet<String> =
        events.filter_map(|one| one["event"]["event_id"].as_str().map(str::to_owned)).collect();
    for (number, (root, _)) in said.iter().enumerate() {
        let sees = model.sees(number);
        assert!(sees || !listed.contains(root), "{what}: /notifications has message {number}");
        if model.is_in() && model.moments[number].membership == "join" {
            assert!(listed.contains(root), "{what}: /notifications lacks message {number}");
        }
    }
}

/// Sliding sync, whether the room is in a list or asked for by its id.
async fn sliding(what: &str, reader: &User, room: &str, said: &[(String, String)], model: &Model) {
    let wanted = json!({ "timeline_limit": 50, "required_state": [["m.room.topic", ""]] });
    let mut list = wanted.clone();
    list["ranges"] = json!([[0, 99]]);
    for body in [json!({ "lists": { "all": list } }), json!({ "room_subscriptions": { room: wanted } })] {
        let path = "/unstable/org.matrix.simplified_msc3575/sync?timeout=0";
        let answer = reader.post(path, body.clone()).await.expect(200);
        let found: BTreeSet<String> = ids(&answer["rooms"][room]["timeline"]).into_iter().collect();
        for (number, (root, _)) in said.iter().enumerate() {
            let sees = model.sees(number);
            assert!(sees || !found.contains(root), "{what}: sliding sync has message {number}");
        }
        if model.is_in() {
            assert!(said.last().is_some_and(|(root, _)| found.contains(root)), "{what}: {body}");
        }
        old_topics(&format!("{what}: sliding sync"), &answer["rooms"][room], model);
        let reads_state = model.reads_state();
        let state = answer["rooms"][room]["required_state"].to_string();
        assert!(reads_state || !state.contains("topic"), "{what}: {state}");
    }
}

/// A client that asks for state only in its second request, when it has the room's events.
async fn sliding_later(what: &str, reader: &User, room: &str, model: &Model) {
    let path = "/unstable/org.matrix.simplified_msc3575/sync?timeout=0";
    let asked = |state: Value| {
        let config = json!({ "timeline_limit": 1, "required_state": state });
        json!({ "conn_id": "later", "room_subscriptions": { room: config } })
    };
    let first = reader.post(path, asked(json!([]))).await.expect(200);
    let pos = first["pos"].as_str().expect("a position");
    let second = reader.post(&format!("{path}&pos={pos}"), asked(json!([["m.room.topic", ""]]))).await;
    let second = second.expect(200);
    let state = &second["rooms"][room]["required_state"];
    old_topics(&format!("{what}: sliding sync, later"), state, model);
    assert!(!model.is_in() || state[0]["type"] == "m.room.topic", "{what}: {second}");
}

/// SP-01, RS: a room that one can't simply join is summarised for members, the invited, and for all if the world may read it.
#[tokio::test]
async fn hv_05_closed_rooms_are_summarised_for_few() {
    let server = Server::start(toml::Table::new()).await;
    let owner = server.register("owner").await;
    for visibility in ["world_readable", "shared", "invited", "joined"] {
        for (number, path) in [
            &[][..],
            &[Invite],
            &[Invite, Join],
            &[Invite, Leave],
            &[Invite, Kick],
            &[Invite, Join, Leave],
            &[Invite, Join, Ban],
            &[Invite, Join, Leave, Invite],
        ]
        .into_iter()
        .enumerate()
        {
            let reader = server.register(&format!("{visibility}{number}")).await;
            let content = json!({ "history_visibility": visibility });
            let state = json!([{ "type": "m.room.history_visibility", "state_key": "", "content": content }]);
            let body = json!({ "preset": "private_chat", "initial_state": state });
            let room = owner.create_room(body).await;
            for step in path {
                act(&owner, &reader, &room, *step).await;
            }
            let last = path.last();
            let may = visibility == "world_readable" || matches!(last, Some(Invite | Join));
            let what = format!("{visibility}, {path:?}");
            for name in ["/v1/room_summary/ROOM", "/v1/rooms/ROOM/hierarchy"] {
                let answer = reader.get(&name.replace("ROOM", &room)).await;
                if may {
                    assert_eq!(answer.status, 200, "{what}: {name}: {}", answer.text());
                } else {
                    let absent = reader.get(&name.replace("ROOM", "!nowhere:localhost")).await;
                    same(&format!("{what}: {name}"), &answer, &absent);
                }
            }
            let world = server.http().get(&format!("/v1/room_summary/{room}"), None).await;
            if visibility == "world_readable" {
                world.expect(200);
            } else {
                let absent = server.http().get("/v1/room_summary/!nowhere:localhost", None).await;
                same(&what, &world, &absent);
            }
            // In a space, for those who may look at that.
            let space = json!({ "preset": "public_chat", "creation_content": { "type": "m.space" } });
            let space = owner.create_room(space).await;
            owner.send_state(&space, "m.space.child", &room, json!({ "via": ["localhost"] })).await;
            let rooms =
                reader.get(&format!("/v1/rooms/{space}/hierarchy")).await.expect(200)["rooms"].clone();
            let listed =
                rooms.as_array().is_some_and(|rooms| rooms.iter().any(|one| one["room_id"] == *room));
            assert_eq!(listed, may, "{what}: in a space");
        }
    }
}
