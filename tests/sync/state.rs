//! The state that comes with a timeline, by each of its names.

use super::*;

/// How it is asked for, and how it is called in the answer: clients of the time of the proposal know only its names.
const NAMES: [(&str, &str); 3] = [
    ("&use_state_after=true", "state_after"),
    ("&org.matrix.msc4222.use_state_after=true", "org.matrix.msc4222.state_after"),
    ("&org.matrix.msc4222.use_state_after=true&use_state_after=true", "state_after"),
];

#[tokio::test]
async fn sy05_the_state_after_the_timeline_replaces_that_before_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    for (name, after) in NAMES {
        let mut device = Device::with(&bob, name);
        let first = device.next().await;
        let body = join(&first, &room);
        assert_eq!(body["state"], Value::Null, "{name}");
        let state = bob.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
        assert_eq!(keys(&body[after]), keys(&json!({ "events": state })), "{name}: all of it");

        alice.send_text(&room, "hello").await;
        let answer = device.next().await;
        assert_eq!(join(&answer, &room)[after], json!({ "events": [] }), "{name}: always there");
        assert_eq!(join(&answer, &room)["state"], Value::Null, "{name}");

        alice.topic(&room, "first").await;
        let topic = alice.topic(&room, name).await;
        alice.send_text(&room, "hello").await;
        let answer = device.next().await;
        let body = join(&answer, &room);
        assert_eq!(ids(&body[after]), [topic], "{name}: also what is in the timeline");
        assert_eq!(ids(&body["timeline"]).len(), 3, "{name}");

        // In a gap.
        let name_event = alice.send_state(&room, "m.room.name", "", json!({ "name": name })).await;
        for number in 0..12 {
            alice.send_text(&room, &number.to_string()).await;
        }
        let answer = device.next().await;
        assert_eq!(ids(&join(&answer, &room)[after]), [name_event], "{name}");
    }
}

#[tokio::test]
async fn sy07_full_state_waits_for_nothing_and_tells_all() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (room, other) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&bob]).await);
    let invited = alice.create_room(json!({ "invite": [bob.user_id] })).await;
    let mut device = Device::ready(&bob).await;
    let since = device.since.clone();
    let answer = bob.sync_with(since.as_deref(), FOR_EVER, "&full_state=true").await;
    assert!(answer["rooms"]["invite"].get(&invited).is_some());
    for room in [&room, &other] {
        let state = bob.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
        let body = join(&answer, room);
        assert_eq!(keys(&body["state"]), keys(&json!({ "events": state })));
        assert_eq!(body["timeline"]["events"], json!([]), "nothing is new");
        assert_eq!(body["timeline"]["limited"], false);
    }
    let topic = alice.topic(&room, "new").await;
    let answer = device.next_with("&full_state=true").await;
    assert_eq!(ids(&join(&answer, &room)["timeline"]), [topic]);
    assert!(
        find(&join(&answer, &room)["state"], "m.room.topic", Some("")).is_none(),
        "it is the state before"
    );
    assert!(find(&join(&answer, &other)["state"], "m.room.create", Some("")).is_some());
    assert_eq!(device.next().await["rooms"], Value::Null, "the token is a usual one");
}

#[tokio::test]
async fn sy12_heroes_are_told_when_members_change() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[]).await;
    let mut device = Device::ready(&alice).await;
    alice.invite(&room, &bob.user_id).await;
    let answer = device.next().await;
    let summary = &join(&answer, &room)["summary"];
    assert_eq!(summary["m.invited_member_count"], 1);
    assert_eq!(summary["m.joined_member_count"], 1);
    assert_eq!(summary["m.heroes"], json!([bob.user_id]));
    bob.join(&room).await;
    let answer = device.next().await;
    assert_eq!(join(&answer, &room)["summary"]["m.joined_member_count"], 2);
    alice.send_text(&room, "hello").await;
    assert_eq!(join(&device.next().await, &room)["summary"], Value::Null, "unchanged: nothing to tell");
    bob.leave(&room).await;
    let answer = device.next().await;
    let summary = &join(&answer, &room)["summary"];
    assert_eq!(summary["m.heroes"], json!([bob.user_id]), "those who left name an empty room");
    assert_eq!(summary["m.joined_member_count"], 1);
}

/// State that the filter keeps out of the timeline isn't lost.
#[tokio::test]
async fn state_that_the_timeline_filter_hides_is_among_the_state() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let messages = filter(&json!({ "room": { "timeline": { "types": ["m.room.message"] } } }));
    let mut device = Device::with(&bob, &messages);
    let first = device.next().await;
    let state = bob.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
    assert_eq!(keys(&join(&first, &room)["state"]), keys(&json!({ "events": state })));
    assert_eq!(ids(&join(&first, &room)["timeline"]), Vec::<String>::new());

    let before = alice.send_text(&room, "before").await;
    alice.topic(&room, "one").await;
    let topic = alice.topic(&room, "two").await;
    let after = alice.send_text(&room, "after").await;
    let answer = device.next().await;
    let body = join(&answer, &room);
    assert_eq!(ids(&body["timeline"]), [before, after]);
    assert_eq!(body["timeline"]["limited"], false);
    assert_eq!(ids(&body["state"]), [topic]);
}
