//! Members that come when they are needed.

use super::*;

fn lazy(more: Value) -> String {
    let mut timeline = json!({ "limit": 5 });
    if let (Some(timeline), Value::Object(more)) = (timeline.as_object_mut(), more) {
        timeline.extend(more);
    }
    filter(&json!({ "room": { "state": { "lazy_load_members": true }, "timeline": timeline } }))
}

/// The members that a list tells about.
fn members(list: &Value) -> Vec<&str> {
    let mut members: Vec<&str> = events(list)
        .iter()
        .filter(|event| event["type"] == "m.room.member")
        .map(|event| event["state_key"].as_str().expect("a state key"))
        .collect();
    members.sort_unstable();
    members
}

struct World {
    _server: Server,
    users: Vec<User>,
    room: String,
}

impl World {
    /// A room of nine, whose members came in the order of their names.
    async fn new() -> Self {
        let server = server().await;
        let mut users = Vec::new();
        for name in ["alice", "bob", "carol", "dave", "eve", "frank", "grace", "heidi", "ivan"] {
            users.push(server.register(name).await);
        }
        let others: Vec<&User> = users[1..].iter().collect();
        let room = public_room(&users[0], &others).await;
        for _ in 0..5 {
            users[0].send_text(&room, "hello").await;
        }
        Self { _server: server, users, room }
    }
}

/// SY-13
#[tokio::test]
async fn ll01_a_first_sync_has_senders_heroes_and_oneself() {
    let world = World::new().await;
    let [alice, .., heidi, ivan] = &world.users[..] else { panic!("nine users") };
    heidi.send_text(&world.room, "hi").await;
    let answer = ivan.sync_with(None, 0, &lazy(json!({}))).await;
    let body = join(&answer, &world.room);
    let mut expected: Vec<&str> = world.users[..5].iter().map(|user| &*user.user_id).collect();
    expected.extend([&*heidi.user_id, &*ivan.user_id]);
    assert_eq!(members(&body["state"]), expected, "five heroes, a sender, the reader");
    let heroes: Vec<&str> = world.users[..5].iter().map(|user| &*user.user_id).collect();
    assert_eq!(body["summary"]["m.heroes"], json!(heroes));
    assert!(find(&body["state"], "m.room.power_levels", Some("")).is_some(), "other state comes whole");
    assert_eq!(expected[0], alice.user_id);
}

#[tokio::test]
async fn ll01_increments_bring_new_senders_once() {
    let world = World::new().await;
    let (frank, ivan) = (&world.users[5], &world.users[8]);
    let mut device = Device::with(ivan, &lazy(json!({})));
    device.next().await;
    let since = device.since.clone();
    frank.send_text(&world.room, "one").await;
    let answer = device.next().await;
    assert_eq!(members(&join(&answer, &world.room)["state"]), [&*frank.user_id], "news");
    frank.send_text(&world.room, "two").await;
    let answer = device.next().await;
    assert_eq!(members(&join(&answer, &world.room)["state"]), Vec::<&str>::new(), "known");

    // An answer that never arrived has told nothing.
    device.since = since;
    let answer = device.next().await;
    assert_eq!(members(&join(&answer, &world.room)["state"]), [&*frank.user_id], "asked once more");
}

/// SY-13: whoever names a room by its heroes needs their names.
#[tokio::test]
async fn ll01_a_new_hero_comes_once() {
    let world = World::new().await;
    let (bob, frank, ivan) = (&world.users[1], &world.users[5], &world.users[8]);
    let mut device = Device::with(ivan, &lazy(json!({})));
    device.next().await;
    world.users[0].leave(&world.room).await;
    let answer = device.next().await;
    let body = join(&answer, &world.room);
    let heroes: Vec<&str> = world.users[1..6].iter().map(|user| &*user.user_id).collect();
    assert_eq!(body["summary"]["m.heroes"], json!(heroes));
    assert_eq!(members(&body["state"]), [&*frank.user_id], "news");
    let name = json!({ "membership": "join", "displayname": "Grace" });
    let grace = &world.users[6];
    grace.send_state(&world.room, "m.room.member", &grace.user_id, name).await;
    bob.send_text(&world.room, "hello").await;
    let answer = device.next().await;
    let body = join(&answer, &world.room);
    assert_eq!(body["summary"]["m.heroes"], json!(heroes));
    assert_eq!(members(&body["state"]), Vec::<&str>::new(), "known");
}

#[tokio::test]
async fn ll02_members_that_changed_in_a_gap_come_with_a_full_state_too() {
    let world = World::new().await;
    let (alice, grace, ivan) = (&world.users[0], &world.users[6], &world.users[8]);
    let mut device = Device::with(ivan, &lazy(json!({})));
    device.next().await;
    grace.send_text(&world.room, "hello").await;
    device.next().await;
    grace.leave(&world.room).await;
    for number in 0..7 {
        alice.send_text(&world.room, &number.to_string()).await;
    }
    let answer = device.next_with("&full_state=true").await;
    let state = &join(&answer, &world.room)["state"];
    let event = find(state, "m.room.member", Some(&grace.user_id)).expect("Grace is told about");
    assert_eq!(event["content"]["membership"], "leave");
}

#[tokio::test]
async fn ll03_redundant_members_come_every_time() {
    let world = World::new().await;
    let (frank, ivan) = (&world.users[5], &world.users[8]);
    let state = json!({ "lazy_load_members": true, "include_redundant_members": true });
    let mut device = Device::with(ivan, &filter(&json!({ "room": { "state": state } })));
    device.next().await;
    for _ in 0..2 {
        frank.send_text(&world.room, "hello").await;
        let answer = device.next().await;
        assert_eq!(members(&join(&answer, &world.room)["state"]), [&*frank.user_id]);
    }
}

#[tokio::test]
async fn ll02_members_that_changed_in_a_gap_always_come() {
    let world = World::new().await;
    let (alice, grace, ivan) = (&world.users[0], &world.users[6], &world.users[8]);
    let mut device = Device::with(ivan, &lazy(json!({})));
    device.next().await;
    grace.leave(&world.room).await;
    for number in 0..7 {
        alice.send_text(&world.room, &number.to_string()).await;
    }
    let answer = device.next().await;
    let body = join(&answer, &world.room);
    assert_eq!(body["timeline"]["limited"], true);
    assert_eq!(members(&body["state"]), [&*grace.user_id]);
}

/// Who speaks and then changes their name is shown by the old one first.
#[tokio::test]
async fn ll01_a_sender_who_changes_afterwards_is_told_as_they_were() {
    let world = World::new().await;
    let (frank, ivan) = (&world.users[5], &world.users[8]);
    for (state, after) in [("state", ""), ("state_after", "&use_state_after=true")] {
        let mut device = Device::with(ivan, &format!("{}{after}", lazy(json!({}))));
        device.next().await;
        let before = json!({ "membership": "join", "displayname": format!("before {state}") });
        let before = frank.send_state(&world.room, "m.room.member", &frank.user_id, before).await;
        // A device that starts here has not been told of Frank.
        let mut fresh = Device::with(ivan, &format!("{}{after}", lazy(json!({ "limit": 0 }))));
        fresh.next().await;
        frank.send_text(&world.room, "hello").await;
        let name = json!({ "membership": "join", "displayname": format!("after {state}") });
        let name = frank.send_state(&world.room, "m.room.member", &frank.user_id, name).await;
        fresh.more = format!("{}{after}", lazy(json!({})));
        let answer = fresh.next().await;
        let body = join(&answer, &world.room);
        let expected = if after.is_empty() { before } else { name };
        assert_eq!(ids(&body[state]), [expected], "{state}: {body}");
    }
}

#[tokio::test]
async fn ll01_who_comes_in_the_timeline_needs_no_copy() {
    let world = World::new().await;
    let (frank, ivan) = (&world.users[5], &world.users[8]);
    frank.leave(&world.room).await;
    let mut device = Device::with(ivan, &lazy(json!({})));
    device.next().await;
    frank.join(&world.room).await;
    frank.send_text(&world.room, "back").await;
    let answer = device.next().await;
    let body = join(&answer, &world.room);
    assert_eq!(members(&body["state"]), Vec::<&str>::new());
    assert_eq!(members(&body["timeline"]), [&*frank.user_id]);
    frank.send_text(&world.room, "again").await;
    let answer = device.next().await;
    assert_eq!(members(&join(&answer, &world.room)["state"]), Vec::<&str>::new(), "they are known");
}
