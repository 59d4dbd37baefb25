//! Handshakes that come again: what was refused stays so, and what was let in is told of only as long as it holds.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};

use crate::{
    World,
    kept::{membership, proposed, put, put_honest, room_of_alice, signed},
    peer::wire,
};

/// JN-03: a join that was rejected isn't answered with the room's state because it is known by now. All that is needed to
/// build one is an event's id, as links have them.
#[tokio::test(flavor = "multi_thread")]
async fn jn_03_a_rejected_join_that_comes_again_tells_nothing() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let body = json!({ "preset": "private_chat", "room_version": "11", "name": "not to be seen" });
    let room = world.alice.create_room(body).await;
    let linked = world.alice.send_text(&room, "linked to").await;
    let join = |auth_events: Value| {
        let event = json!({
            "type": "m.room.member", "room_id": room, "sender": guest, "state_key": guest, "depth": 9,
            "content": { "membership": "join" }, "prev_events": [linked], "auth_events": auth_events,
        });
        signed(&world.peer, &event)
    };
    for pdu in [join(json!([])), join(json!([linked]))] {
        for again in 0..3 {
            let answer = put(&world, "join", &room, pdu.event_id.as_str(), &wire(&pdu)).await;
            assert!(!answer.text().contains("not to be seen"), "{again}: {answer:?}");
            answer.expect_error(403, "M_FORBIDDEN");
            // The same by the way that it is known from.
            world.peer.send(&world.here, &[wire(&pdu)], &[]).await.expect(200);
        }
    }
    assert_eq!(membership(&world, &room, guest.as_str()).await, Value::Null);
}

/// JN-03: neither is one that the room has allowed once and does no more.
#[tokio::test(flavor = "multi_thread")]
async fn jn_03_a_soft_failed_join_that_comes_again_tells_nothing() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let room = room_of_alice(&world).await;
    let join = signed(&world.peer, &proposed(&world, "join", &room, guest.as_str()).await);
    world.alice.send_state(&room, "m.room.join_rules", "", json!({ "join_rule": "invite" })).await;
    for _ in 0..3 {
        let answer = put(&world, "join", &room, join.event_id.as_str(), &wire(&join)).await;
        answer.expect_error(403, "M_FORBIDDEN");
        world.peer.send(&world.here, &[wire(&join)], &[]).await.expect(200);
    }
    assert_eq!(membership(&world, &room, guest.as_str()).await, Value::Null);
}

/// JN-03: an answer that was lost can be had by sending the join again.
#[tokio::test(flavor = "multi_thread")]
async fn jn_03_a_join_that_was_let_in_can_be_sent_again() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let room = room_of_alice(&world).await;
    let join = signed(&world.peer, &proposed(&world, "join", &room, guest.as_str()).await);
    let first = put_honest(&world, "join", &room, &join).await;
    let again = put_honest(&world, "join", &room, &join).await;
    assert_eq!(again["event"], first["event"]);
    assert_eq!(again["state"].as_array().unwrap().len(), first["state"].as_array().unwrap().len());
}

/// JN-05: a server that does without the members gets those that the room is called after, and what allows what it gets
/// once. The servers of the room are those from before the join.
#[tokio::test(flavor = "multi_thread")]
async fn jn_05_members_that_nobody_needs_are_left_out() {
    let world = World::new().await;
    let room = room_of_alice(&world).await;
    let mut members = vec![world.alice.user_id.clone()];
    let mut last = None;
    for number in 1..=7 {
        let user = world.here.server.register(&format!("member{number}")).await;
        user.join(&room).await;
        members.push(user.user_id.clone());
        last = Some(user);
    }
    let last = last.unwrap();
    let levels = json!({ "users": { &world.alice.user_id: 100, &last.user_id: 50 } });
    world.alice.send_state(&room, "m.room.power_levels", "", levels).await;
    last.send_state(&room, "m.room.topic", "", json!({ "topic": "by one who is left out" })).await;

    let here = world.here.name.clone();
    for (name, servers) in
        [("first", vec![here.clone()]), ("second", vec![here, world.peer.name.to_string()])]
    {
        let guest = world.peer.user(name);
        let join = signed(&world.peer, &proposed(&world, "join", &room, guest.as_str()).await);
        let id = format!("{}?omit_members=true", join.event_id);
        let answer = put(&world, "join", &room, &id, &wire(&join)).await.expect(200);
        let events = |field: &str| answer[field].as_array().unwrap().clone();
        let is_member = |event: &Value| event["type"] == "m.room.member";
        let shown: BTreeSet<String> = events("state")
            .into_iter()
            .filter(is_member)
            .map(|event| event["state_key"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(shown, members[..5].iter().cloned().collect(), "{name}");
        assert_eq!(answer["members_omitted"], true);
        let told: BTreeSet<String> = serde_json::from_value(answer["servers_in_room"].clone()).unwrap();
        assert_eq!(told, servers.into_iter().collect(), "{name}");
        let (state, chain) = (events("state"), events("auth_chain"));
        assert!(chain.iter().any(|event| event["state_key"] == *last.user_id), "what allowed the topic");
        assert!(chain.iter().all(|event| !state.contains(event)), "nothing comes twice");
    }
}

/// JN-03: nor is one of somebody who has left since, or was thrown out, though it was let in once.
#[tokio::test(flavor = "multi_thread")]
async fn jn_03_a_join_that_holds_no_more_tells_nothing_when_it_comes_again() {
    let world = World::new().await;
    let room = room_of_alice(&world).await;
    for (how, user) in [
        ("leave", world.peer.user("leaver")),
        ("kick", world.peer.user("kicked")),
        ("ban", world.peer.user("banned")),
    ] {
        let join = signed(&world.peer, &proposed(&world, "join", &room, user.as_str()).await);
        put_honest(&world, "join", &room, &join).await;
        if how == "leave" {
            let leave = signed(&world.peer, &proposed(&world, "leave", &room, user.as_str()).await);
            put_honest(&world, "leave", &room, &leave).await;
        } else {
            let body = json!({ "user_id": user });
            world.alice.post(&format!("/v3/rooms/{room}/{how}"), body).await.expect(200);
        }
        for uri in ["", "?omit_members=true"] {
            let id = format!("{}{uri}", join.event_id);
            let answer = put(&world, "join", &room, &id, &wire(&join)).await;
            answer.expect_error(403, "M_FORBIDDEN");
        }
        assert_ne!(membership(&world, &room, user.as_str()).await, "join", "{how}");
    }
}

/// JN-03: nor does a knock that was turned down tell again what the room is.
#[tokio::test(flavor = "multi_thread")]
async fn jn_03_a_knock_that_was_turned_down_tells_nothing_when_it_comes_again() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let room = room_of_alice(&world).await;
    world.alice.send_state(&room, "m.room.join_rules", "", json!({ "join_rule": "knock" })).await;
    let knock = signed(&world.peer, &proposed(&world, "knock", &room, guest.as_str()).await);
    let first = put_honest(&world, "knock", &room, &knock).await;
    assert_eq!(put_honest(&world, "knock", &room, &knock).await, first);
    world.alice.post(&format!("/v3/rooms/{room}/ban"), json!({ "user_id": guest })).await.expect(200);
    world.alice.send_state(&room, "m.room.name", "", json!({ "name": "not to be seen" })).await;
    let answer = put(&world, "knock", &room, knock.event_id.as_str(), &wire(&knock)).await;
    assert!(!answer.text().contains("not to be seen"), "{answer:?}");
    answer.expect_error(403, "M_FORBIDDEN");
}

/// JN-08: nobody is vouched for once the room's rule lets nobody in by that; what was proposed before is worth nothing.
#[tokio::test(flavor = "multi_thread")]
async fn jn_08_a_proposal_of_before_gets_no_voucher_by_a_rule_that_is_over() {
    let world = World::new().await;
    let (guest, spy) = (world.peer.user("guest"), world.peer.user("spy"));
    let (club, room) = (room_of_alice(&world).await, room_of_alice(&world).await);
    for (user, room) in [(&guest, &club), (&spy, &room)] {
        let join = signed(&world.peer, &proposed(&world, "join", room, user.as_str()).await);
        put_honest(&world, "join", room, &join).await;
    }
    let rule =
        json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    world.alice.send_state(&room, "m.room.join_rules", "", rule).await;
    let proposal = proposed(&world, "join", &room, guest.as_str()).await;
    assert!(proposal["content"]["join_authorised_via_users_server"].is_string(), "{proposal}");
    world.alice.send_state(&room, "m.room.join_rules", "", json!({ "join_rule": "invite" })).await;

    let join = signed(&world.peer, &proposal);
    let answer = put(&world, "join", &room, join.event_id.as_str(), &wire(&join)).await;
    assert!(matches!(answer.status, 400 | 403), "{answer:?}");
    // Another user of that server is in the room, for whom it may ask for what is in it.
    let uri = format!("/_matrix/federation/v1/event/{}", join.event_id);
    let answer = world.peer.request(&world.here, Method::GET, &uri, None).await;
    assert!(!answer.text().contains(world.here.key().id().as_str()), "signed here: {answer:?}");
    answer.expect_error(404, "M_NOT_FOUND");
}
