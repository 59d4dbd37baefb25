//! Many at once in one room: in the end all ways of reading agree.

use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use crate::{
    common::{
        Server, User,
        history::{Reader, check, ids, whole_log},
    },
    server, state_of,
};

const USERS: usize = 25;

async fn crowd(server: &Server) -> Vec<User> {
    join_all((0..USERS).map(|number| {
        let name = format!("u{number}");
        async move { server.register(&name).await }
    }))
    .await
}

/// The state as a client has it that applies the log to nothing.
fn applied(log: &[Value]) -> BTreeMap<(String, String), String> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let state = log.iter().filter(|event| event.get("state_key").is_some());
    state.map(|event| ((text(&event["type"]), text(&event["state_key"])), text(&event["event_id"]))).collect()
}

fn synced_state(sync: &Value, room: &str) -> BTreeMap<(String, String), String> {
    let room = &sync["rooms"]["join"][room];
    let mut all: Vec<Value> = room["state"]["events"].as_array().expect("a list").clone();
    all.extend(room["timeline"]["events"].as_array().expect("a list").iter().cloned());
    applied(&all)
}

/// I2, I4: joins, leaves, names, state, kicks and messages of many users at once.
#[tokio::test(flavor = "multi_thread")]
async fn i4_after_a_tumult_all_ways_of_reading_agree() {
    let mut server = server().await;
    let owner = server.register("owner").await;
    let room = owner.create_room(json!({ "preset": "public_chat" })).await;
    let mut levels = owner.get(&format!("/v3/rooms/{room}/state/m.room.power_levels")).await.expect(200);
    levels["state_default"] = json!(0);
    owner.send_state(&room, "m.room.power_levels", "", levels).await;
    let users = crowd(&server).await;
    let mut reader = Reader::new(&owner, &room);
    reader.advance(0).await;

    let acts = users.iter().enumerate().map(|(number, user)| {
        let (user, room, owner) = (user.clone(), room.clone(), owner.clone());
        tokio::spawn(async move {
            user.join(&room).await;
            let name = format!("/v3/profile/{}/displayname", user.user_id);
            let tag = format!("/v3/user/{}/rooms/{room}/tags/u.{number}", user.user_id);
            let own = format!("/v3/rooms/{room}/state/org.example.own/{number}");
            let shared = format!("/v3/rooms/{room}/state/org.example.shared");
            let (named, tagged, own, shared, _) = tokio::join!(
                user.put(&name, json!({ "displayname": format!("User {number}") })),
                user.put(&tag, json!({})),
                user.put(&own, json!({ "number": number })),
                user.put(&shared, json!({ "number": number })),
                user.send_text(&room, "hello"),
            );
            for answer in [named, tagged, own, shared] {
                answer.expect(200);
            }
            match number % 3 {
                0 => drop(user.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200)),
                1 => {
                    let kick = json!({ "user_id": user.user_id });
                    owner.post(&format!("/v3/rooms/{room}/kick"), kick).await.expect(200);
                    user.join(&room).await;
                }
                _ => {}
            }
        })
    });
    for act in join_all(acts).await {
        act.expect("an act");
    }

    let log = whole_log(&owner, &room).await;
    let last = log.last().expect("a log")["event_id"].as_str().expect("an id").to_owned();
    reader.read_until(&last).await;
    let order = ids(&Value::Array(log.clone()));
    check(&reader.events, &order, &[]);
    assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), order.len(), "no event twice");
    let expected = applied(&log);
    for round in ["at once", "after a restart"] {
        assert_eq!(state_of(&owner, &room).await, expected, "/state, {round}");
        assert_eq!(synced_state(&owner.sync(None, 0).await, &room), expected, "/sync, {round}");
        let full = owner.sync_with(None, 0, "&full_state=true").await;
        assert_eq!(synced_state(&full, &room), expected, "full_state, {round}");
        assert_eq!(ids(&Value::Array(whole_log(&owner, &room).await)), order, "{round}");
        let joined =
            owner.get(&format!("/v3/rooms/{room}/joined_members")).await.expect(200)["joined"].clone();
        for (number, user) in users.iter().enumerate() {
            let there = joined.get(&user.user_id);
            assert_eq!(there.is_some(), number % 3 != 0, "{}, {round}", user.user_id);
            if let Some(there) = there {
                assert_eq!(there["display_name"], format!("User {number}"), "{round}");
            }
            let rooms = user.get("/v3/joined_rooms").await.expect(200);
            assert_eq!(rooms["joined_rooms"] == json!([room]), number % 3 != 0, "{round}");
            let tags = user.get(&format!("/v3/user/{}/rooms/{room}/tags", user.user_id)).await.expect(200);
            assert_eq!(tags["tags"], json!({ format!("u.{number}"): {} }), "{round}");
        }
        server.restart().await;
    }
}

/// PF-01: of many names set at once one is the last, in the profile and in every room.
#[tokio::test(flavor = "multi_thread")]
async fn pf_01_names_set_at_once_end_as_one_name_everywhere() {
    let server = server().await;
    let (alice, tablet) = (server.register("alice").await, server.login("alice").await);
    let mut rooms = Vec::new();
    for _ in 0..4 {
        rooms.push(alice.create_room(json!({})).await);
    }
    let path = format!("/v3/profile/{}/displayname", alice.user_id);
    let sets = (0..50).map(|number| {
        let device = if number % 2 == 0 { &alice } else { &tablet };
        device.put(&path, json!({ "displayname": format!("Name {number}") }))
    });
    for answer in join_all(sets).await {
        answer.expect(200);
    }
    let name = alice.get(&path).await.expect(200)["displayname"].clone();
    for room in rooms {
        let member = format!("/v3/rooms/{room}/state/m.room.member/{}", alice.user_id);
        assert_eq!(alice.get(&member).await.expect(200)["displayname"], name);
    }
}

/// I4: two devices of one user, both sending and both reading, neither waking the other without end.
#[tokio::test(flavor = "multi_thread")]
async fn i4_two_devices_of_a_user_read_one_order() {
    let server = server().await;
    let phone = server.register("alice").await;
    let laptop = server.login("alice").await;
    let room = phone.create_room(json!({})).await;
    let (mut one, mut two) = (Reader::new(&phone, &room), Reader::new(&laptop, &room));
    one.advance(0).await;
    two.advance(0).await;
    let send = |device: &User| {
        let (device, room) = (device.clone(), room.clone());
        tokio::spawn(async move {
            let mut sent = Vec::new();
            for number in 0..60 {
                sent.push(device.send_text(&room, &number.to_string()).await);
            }
            sent
        })
    };
    let (from_one, from_two) = (send(&phone), send(&laptop));
    let mut acknowledged = from_one.await.expect("a sender");
    acknowledged.extend(from_two.await.expect("a sender"));
    let log = ids(&Value::Array(whole_log(&phone, &room).await));
    let last = log.last().expect("a log").clone();
    tokio::join!(one.read_until(&last), two.read_until(&last));
    check(&one.events, &log, &acknowledged);
    assert_eq!(one.events, two.events);
    // Nothing is left that would wake either.
    assert_eq!(tokio::join!(one.advance(0), two.advance(0)), (0, 0));
}

/// I7: while one room is flooded, others go on: their messages are answered among the flood's, not after it.
#[tokio::test(flavor = "multi_thread")]
async fn i7_a_flooded_room_keeps_no_other_waiting() {
    let server = server().await;
    let (flooder, bob) = (server.register("flooder").await, server.register("bob").await);
    let loud = flooder.create_room(json!({})).await;
    let quiet = bob.create_room(json!({})).await;
    let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let flood: Vec<_> = (0..64)
        .map(|_| {
            let (flooder, room) = (flooder.clone(), loud.clone());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    flooder.send_text(&room, "more").await;
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    crate::common::eventually("the flood runs", || {
        let running = answered.load(Ordering::SeqCst) > 200;
        async move { running.then_some(()) }
    })
    .await;
    let mut before_each = Vec::new();
    for number in 0..20 {
        let before = answered.load(Ordering::SeqCst);
        bob.send_text(&quiet, &number.to_string()).await;
        before_each.push(answered.load(Ordering::SeqCst) - before);
    }
    let after = answered.load(Ordering::SeqCst);
    crate::common::eventually("the flood goes on", || {
        let more = answered.load(Ordering::SeqCst) > after;
        async move { more.then_some(()) }
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    join_all(flood).await;
    // The flood has 64 waiting at any time: a message that waited for its turn behind them all, again and again, would
    // see hundreds answered before its own. What this test itself is slow to read counts as well, so not every one is judged.
    before_each.sort_unstable();
    let usual = before_each[before_each.len() / 2];
    assert!(usual < 640, "messages of the flood answered before one of the quiet room: {before_each:?}");
}
