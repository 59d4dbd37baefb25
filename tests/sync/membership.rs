//! Coming, going and being sent: which section a room is in, and what it has there.

use super::*;

/// The sections of the answer that the room is in.
fn sections(answer: &Value, room: &str) -> Vec<&'static str> {
    ["join", "invite", "knock", "leave"]
        .into_iter()
        .filter(|section| answer["rooms"][section].get(room).is_some())
        .collect()
}

fn membership(event: &Value) -> (&str, &str) {
    (
        event["state_key"].as_str().expect("a member event"),
        event["content"]["membership"].as_str().expect("one"),
    )
}

#[track_caller]
fn last_event<'a>(answer: &'a Value, section: &str, room: &str) -> &'a Value {
    let timeline = &answer["rooms"][section][room]["timeline"];
    events(timeline).last().unwrap_or_else(|| panic!("no timeline of {room} under {section}: {answer}"))
}

/// All state keys that a client knows from an answer about a room that is new to it.
fn known(body: &Value) -> std::collections::BTreeSet<String> {
    let in_timeline = events(&body["timeline"]).iter().filter(|event| event.get("state_key").is_some());
    let all: Vec<Value> = events(&body["state"]).iter().chain(in_timeline).cloned().collect();
    keys(&json!({ "events": all })).into_iter().collect()
}

async fn current(user: &User, room: &str) -> std::collections::BTreeSet<String> {
    let state = user.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
    keys(&json!({ "events": state })).into_iter().collect()
}

#[tokio::test]
async fn sy10_sy11_an_invite_shows_stripped_state_and_nothing_else() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "private_chat", "name": "secret plans" })).await;
    alice.send_state(&room, "org.example.secret", "", json!({ "x": 1 })).await;
    let mut device = Device::ready(&bob).await;
    alice.invite(&room, &bob.user_id).await;
    let (incremental, initial) = (device.next().await, bob.sync(None, 0).await);
    for answer in [incremental, initial] {
        assert_eq!(sections(&answer, &room), ["invite"]);
        let state = &answer["rooms"]["invite"][&room]["invite_state"];
        for (kind, key) in [
            ("m.room.create", ""),
            ("m.room.join_rules", ""),
            ("m.room.name", ""),
            ("m.room.member", &*alice.user_id),
            ("m.room.member", &*bob.user_id),
        ] {
            assert!(find(state, kind, Some(key)).is_some(), "{kind} {key}: {state}");
        }
        assert!(find(state, "org.example.secret", Some("")).is_none());
        for event in events(state) {
            let fields: Vec<&String> = event.as_object().expect("an event").keys().collect();
            assert_eq!(fields, ["content", "sender", "state_key", "type"], "SY-11");
        }
    }
    alice.send_text(&room, "not for the invited").await;
    assert_eq!(device.next().await["rooms"], Value::Null);
}

#[tokio::test]
async fn sy17_a_room_that_is_joined_comes_whole() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[]).await;
    alice.topic(&room, "a topic").await;
    for number in 0..15 {
        alice.send_text(&room, &number.to_string()).await;
    }
    let mut device = Device::ready(&bob).await;
    bob.join(&room).await;
    let answer = device.next().await;
    assert_eq!(sections(&answer, &room), ["join"]);
    let body = join(&answer, &room);
    assert_eq!(known(body), current(&bob, &room).await);
    assert_eq!(events(&body["timeline"]).len(), 10);
    assert_eq!(body["timeline"]["limited"], true);
    assert_eq!(body["summary"]["m.joined_member_count"], 2);
}

#[tokio::test]
async fn an_invite_that_is_rejected_or_taken_back_goes_away() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    alice.topic(&room, "secret").await;
    let mut device = Device::ready(&bob).await;
    for rejected in [true, false] {
        alice.invite(&room, &bob.user_id).await;
        assert_eq!(sections(&device.next().await, &room), ["invite"]);
        let by = if rejected { &bob } else { &alice };
        if rejected {
            bob.leave(&room).await;
        } else {
            alice.act_on("kick", &room, &bob).await;
        }
        let answer = device.next().await;
        assert_eq!(sections(&answer, &room), ["leave"]);
        let event = last_event(&answer, "leave", &room);
        assert_eq!(membership(event), (&*bob.user_id, "leave"));
        assert_eq!(event["sender"], by.user_id.as_str());
        assert!(!answer.to_string().contains("secret"), "they never were in: {answer}");
        assert_eq!(sections(&bob.sync(None, 0).await, &room), Vec::<&str>::new());
    }
    // Both within one gap.
    alice.invite(&room, &bob.user_id).await;
    bob.leave(&room).await;
    let answer = device.next().await;
    assert_eq!(sections(&answer, &room), ["leave"]);
    assert!(!answer.to_string().contains("secret"));
}

#[tokio::test]
async fn knocks_are_shown_and_answered() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let rule = json!({ "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } });
    let room = alice.create_room(json!({ "preset": "private_chat", "initial_state": [rule] })).await;
    let (mut host, mut guest) = (Device::ready(&alice).await, Device::ready(&bob).await);
    let knock = async || drop(bob.post(&format!("/v3/knock/{room}"), json!({})).await.expect(200));

    knock().await;
    let answer = guest.next().await;
    assert_eq!(sections(&answer, &room), ["knock"]);
    let state = &answer["rooms"]["knock"][&room]["knock_state"];
    assert!(find(state, "m.room.create", Some("")).is_some());
    assert!(find(state, "m.room.member", Some(&bob.user_id)).is_some());
    assert_eq!(membership(last_event(&host.next().await, "join", &room)), (&*bob.user_id, "knock"));
    assert_eq!(sections(&bob.sync(None, 0).await, &room), ["knock"]);

    alice.act_on("kick", &room, &bob).await;
    let answer = guest.next().await;
    assert_eq!(sections(&answer, &room), ["leave"], "denied");
    assert_eq!(membership(last_event(&answer, "leave", &room)), (&*bob.user_id, "leave"));

    knock().await;
    guest.next().await;
    alice.invite(&room, &bob.user_id).await;
    assert_eq!(sections(&guest.next().await, &room), ["invite"], "let in");
    bob.join(&room).await;
    let answer = guest.next().await;
    assert_eq!(sections(&answer, &room), ["join"]);
    assert_eq!(known(join(&answer, &room)), current(&bob, &room).await);
}

/// Those who are sent away and those who stay hear of it, whoever did it.
#[tokio::test]
async fn sy09_leaving_reaches_everybody_and_ends_the_timeline() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    for action in ["leave", "kick", "ban"] {
        let room = public_room(&alice, &[&bob, &carol]).await;
        let (mut gone, mut stays) = (Device::ready(&bob).await, Device::ready(&carol).await);
        let last = alice.send_text(&room, "the last").await;
        if action == "leave" {
            bob.leave(&room).await;
        } else {
            alice.act_on(action, &room, &bob).await;
        }
        alice.send_text(&room, "behind their back").await;
        alice.topic(&room, "behind their back").await;
        let expected = (&*bob.user_id, if action == "ban" { "ban" } else { "leave" });

        let answer = gone.next().await;
        assert_eq!(sections(&answer, &room), ["leave"], "{action}");
        assert_eq!(membership(last_event(&answer, "leave", &room)), expected, "{action}");
        let timeline = &answer["rooms"]["leave"][&room]["timeline"];
        assert_eq!(ids(timeline)[0], last, "{action}");
        assert_eq!(ids(timeline).len(), 2, "{action}");
        assert!(!answer.to_string().contains("behind"), "{action}");
        let answer = stays.next().await;
        assert_eq!(membership(&events(&join(&answer, &room)["timeline"])[1]), expected, "{action}");

        assert_eq!(gone.next().await["rooms"], Value::Null, "{action}: that is all");
        assert_eq!(sections(&bob.sync(None, 0).await, &room), Vec::<&str>::new(), "SY-08");
        let leave = filter(&json!({ "room": { "include_leave": true } }));
        let answer = bob.sync_with(None, 0, &leave).await;
        assert_eq!(sections(&answer, &room), ["leave"], "SY-08: {action}");
        assert_eq!(membership(last_event(&answer, "leave", &room)), expected, "{action}");
        assert!(!answer.to_string().contains("behind"), "{action}");
        let state = &answer["rooms"]["leave"][&room];
        assert!(known(state).contains("m.room.create|"), "{action}: the state as they left it");
    }
}

#[tokio::test]
async fn who_left_and_came_back_between_two_syncs_gets_the_room_whole() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for kicked in [true, false] {
        for busy in [true, false] {
            let case = format!("kicked {kicked}, busy {busy}");
            let room = public_room(&alice, &[&bob]).await;
            let mut device = Device::ready(&bob).await;
            let since = device.since.clone().expect("a token");
            let first = alice.send_text(&room, "before").await;
            if kicked {
                alice.act_on("kick", &room, &bob).await;
            } else {
                bob.leave(&room).await;
            }
            let topic = if busy { Some(alice.topic(&room, "while away").await) } else { None };
            bob.join(&room).await;
            alice.send_text(&room, "after").await;

            let answer = device.next().await;
            assert_eq!(sections(&answer, &room), ["join"], "{case}");
            let body = join(&answer, &room);
            assert!(known(body).is_superset(&current(&bob, &room).await), "{case}: {answer}");
            let timeline = &body["timeline"];
            if timeline["limited"] == false {
                assert_eq!(ids(timeline)[0], first, "{case}: no event is shown twice");
                let expected = if busy { 5 } else { 4 };
                assert_eq!(ids(timeline).len(), expected, "{case}: I5");
            } else {
                let prev_batch = timeline["prev_batch"].as_str().expect("prev_batch");
                let path = format!("/v3/rooms/{room}/messages?dir=f&from={since}&to={prev_batch}");
                let gap = common::history::ids(&bob.get(&path).await.expect(200)["chunk"]);
                assert_eq!(gap.first(), Some(&first), "{case}");
            }
            if let Some(topic) = topic {
                let told = find(&body["state"], "m.room.topic", Some(""))
                    .or_else(|| find(timeline, "m.room.topic", Some("")));
                assert_eq!(told.map(|event| event["event_id"].clone()), Some(json!(topic)), "{case}");
            }
        }
    }
}

#[tokio::test]
async fn a_room_that_was_joined_and_left_between_two_syncs_is_a_left_room() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[]).await;
    let mut device = Device::ready(&bob).await;
    bob.join(&room).await;
    let message = alice.send_text(&room, "hello").await;
    bob.leave(&room).await;
    alice.send_text(&room, "behind").await;
    let answer = device.next().await;
    assert_eq!(sections(&answer, &room), ["leave"]);
    assert_eq!(membership(last_event(&answer, "leave", &room)), (&*bob.user_id, "leave"));
    let body = &answer["rooms"]["leave"][&room];
    assert!(ids(&body["timeline"]).contains(&message));
    assert!(known(body).contains("m.room.create|"));
    assert!(!answer.to_string().contains("behind"));
}

#[tokio::test]
async fn a_ban_after_leaving_shows_nothing_of_the_time_between() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for in_one_gap in [true, false] {
        let room = public_room(&alice, &[&bob]).await;
        let mut device = Device::ready(&bob).await;
        bob.leave(&room).await;
        if !in_one_gap {
            device.next().await;
        }
        alice.topic(&room, "secret").await;
        alice.send_text(&room, "secret").await;
        alice.act_on("ban", &room, &bob).await;
        for more in ["", "&use_state_after=true"] {
            let mut twin = Device { user: bob.clone(), since: device.since.clone(), more: more.to_owned() };
            let answer = twin.next().await;
            assert_eq!(sections(&answer, &room), ["leave"]);
            assert_eq!(membership(last_event(&answer, "leave", &room)), (&*bob.user_id, "ban"));
            assert!(!answer.to_string().contains("secret"), "in one gap {in_one_gap}: {answer}");
            let length = if in_one_gap { 2 } else { 1 };
            assert_eq!(
                ids(&answer["rooms"]["leave"][&room]["timeline"]).len(),
                length,
                "nothing comes twice"
            );
        }
        device.next().await;
        alice.act_on("unban", &room, &bob).await;
        assert_eq!(sections(&device.next().await, &room), ["leave"]);
    }
}

#[tokio::test]
async fn a_forgotten_room_is_in_no_section() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut late = Device::ready(&bob).await;
    bob.leave(&room).await;
    bob.post(&format!("/v3/rooms/{room}/forget"), json!({})).await.expect(200);
    let leave = filter(&json!({ "room": { "include_leave": true } }));
    assert_eq!(sections(&bob.sync_with(None, 0, &leave).await, &room), Vec::<&str>::new());
    assert_eq!(sections(&late.next().await, &room), ["leave"], "other devices hear that it was left");
    bob.join(&room).await;
    assert_eq!(sections(&late.next().await, &room), ["join"], "and that it is joined again");
}

/// Account data of a left room is told without the room being told again.
#[tokio::test]
async fn a_tag_on_a_left_room_brings_no_timeline() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&bob).await;
    bob.leave(&room).await;
    device.next().await;
    let path = format!("/v3/user/{}/rooms/{room}/tags/u.old", bob.user_id);
    bob.put(&path, json!({})).await.expect(200);
    let answer = device.next().await;
    let body = &answer["rooms"]["leave"][&room];
    assert!(find(&body["account_data"], "m.tag", None).is_some(), "{answer}");
    assert_eq!(body["timeline"]["events"], json!([]));
}
