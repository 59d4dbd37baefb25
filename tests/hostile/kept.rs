//! Rooms that this server keeps: what a server that lies sends to get its users in and out, and what it asks.

use hearth_federation::{Draft, Limits, Pdu, Position};
use http::Method;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomVersionId};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    World,
    common::Answer,
    peer::{Peer, wire},
    room::message,
};

/// A public room of alice's, of version 11.
pub(crate) async fn room_of_alice(world: &World) -> String {
    world.alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await
}

/// What this server proposes for a user of the peer.
pub(crate) async fn proposed(world: &World, handshake: &str, room: &str, user: &str) -> Value {
    let uri = format!("/_matrix/federation/v1/make_{handshake}/{room}/{user}?ver=11");
    world.peer.request(&world.here, Method::GET, &uri, None).await.expect(200)["event"].take()
}

/// The event that is described, signed by a server.
pub(crate) fn signed(by: &Peer, event: &Value) -> Pdu {
    let draft = Draft {
        room_id: event["room_id"].as_str().map(|id| id.try_into().unwrap()),
        sender: event["sender"].as_str().unwrap().try_into().unwrap(),
        kind: event["type"].as_str().unwrap().into(),
        state_key: event["state_key"].as_str().map(str::to_owned),
        content: to_raw_value(&event["content"]).unwrap(),
        redacts: None,
    };
    let ids = |field: &str| serde_json::from_value::<Vec<OwnedEventId>>(event[field].clone()).unwrap();
    let depth = event["depth"].as_i64().unwrap();
    let now = MilliSecondsSinceUnixEpoch::now();
    let position = Position::new(ids("prev_events"), ids("auth_events"), depth, now);
    draft.build(&RoomVersionId::V11, position, &by.name, &by.key, Limits::FEDERATED).unwrap()
}

pub(crate) async fn put(world: &World, handshake: &str, room: &str, id: &str, event: &Value) -> Answer {
    let version = if handshake == "knock" { "v1" } else { "v2" };
    let uri = format!("/_matrix/federation/{version}/send_{handshake}/{room}/{id}");
    world.peer.request(&world.here, Method::PUT, &uri, Some(event)).await
}

pub(crate) async fn put_honest(world: &World, handshake: &str, room: &str, pdu: &Pdu) -> Value {
    put(world, handshake, room, pdu.event_id.as_str(), &wire(pdu)).await.expect(200)
}

/// What alice sees a user to be.
pub(crate) async fn membership(world: &World, room: &str, user: &str) -> Value {
    world.alice.get(&format!("/v3/rooms/{room}/state/m.room.member/{user}")).await.json["membership"].take()
}

/// Sends all that isn't the event that this server proposed, none of which may do anything; and then that.
async fn only_what_was_proposed(world: &World, handshake: &str, room: &str, user: &str) {
    let other = Peer::start(&world.authority).await;
    let second = room_of_alice(world).await;
    let proposal = proposed(world, handshake, room, user).await;
    let before = membership(world, room, user).await;
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut event = proposal.clone();
        change(&mut event);
        event
    };
    let mut lies: Vec<(String, Pdu)> = Vec::new();
    for wrong in ["join", "leave", "knock", "invite", "ban", "nonsense"] {
        if wrong != handshake {
            let event = changed(&|event| event["content"]["membership"] = json!(wrong));
            lies.push((wrong.to_owned(), signed(&world.peer, &event)));
        }
    }
    let lie =
        |what: &str, by: &Peer, change: &dyn Fn(&mut Value)| (what.to_owned(), signed(by, &changed(change)));
    let stranger = other.user("stranger");
    lies.push(lie("about alice", &world.peer, &|event| event["state_key"] = json!(world.alice.user_id)));
    lies.push(lie("about a third server's", &world.peer, &|event| event["state_key"] = json!(stranger)));
    lies.push(lie("in the name of alice", &world.peer, &|event| {
        event["sender"] = json!(world.alice.user_id);
        event["state_key"] = json!(world.alice.user_id);
    }));
    lies.push(lie("of a third server", &other, &|event| {
        event["sender"] = json!(stranger);
        event["state_key"] = json!(stranger);
    }));
    lies.push(lie("signed by a third server", &other, &|_| {}));
    lies.push(lie("of another room", &world.peer, &|event| event["room_id"] = json!(second)));
    lies.push(lie("allowed by nothing", &world.peer, &|event| event["auth_events"] = json!([])));
    lies.push(lie("another type", &world.peer, &|event| event["type"] = json!("m.room.topic")));
    lies.push(lie("a message", &world.peer, &|event| {
        event["type"] = json!("m.room.message");
        event["content"] = message("hello");
        event.as_object_mut().unwrap().remove("state_key");
    }));
    let refused = |what: &str, answer: &Answer| {
        assert!(matches!(answer.status, 400 | 403 | 404), "{handshake}, {what}: {answer:?}");
        assert!(answer.json["errcode"].is_string(), "{handshake}, {what}: {answer:?}");
    };
    for (what, pdu) in lies {
        refused(&what, &put(world, handshake, room, pdu.event_id.as_str(), &wire(&pdu)).await);
        assert_eq!(membership(world, room, user).await, before, "{handshake}, {what}");
    }
    let honest = signed(&world.peer, &proposal);
    let (id, event) = (honest.event_id.as_str(), wire(&honest));
    let mut unsigned = event.clone();
    unsigned["signatures"] = json!({});
    refused("unsigned", &put(world, handshake, room, id, &unsigned).await);
    // CJ-04
    let mut float = event.clone();
    float["content"]["float"] = json!(1.5);
    put(world, handshake, room, id, &float).await.expect_error(400, "M_BAD_JSON");
    refused("another id", &put(world, handshake, room, "$another", &event).await);
    refused("to another room", &put(world, handshake, &second, id, &event).await);
    refused("to no room", &put(world, handshake, "!none:elsewhere", id, &event).await);
    for nonsense in [json!(7), json!([]), json!({}), json!("x")] {
        refused("nonsense", &put(world, handshake, room, id, &nonsense).await);
    }
    assert_eq!(membership(world, room, user).await, before, "{handshake}");
    assert_eq!(membership(world, &second, user).await, Value::Null);
    assert_eq!(membership(world, room, &world.alice.user_id).await, "join");
    put_honest(world, handshake, room, &honest).await;
    assert_eq!(membership(world, room, user).await, handshake);
}

/// JN-03, JN-15: the same holds for leaves as for joins.
#[tokio::test(flavor = "multi_thread")]
async fn jn_15_leaves_that_are_sent_are_what_they_say() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let room = room_of_alice(&world).await;
    let join = signed(&world.peer, &proposed(&world, "join", &room, guest.as_str()).await);
    put_honest(&world, "join", &room, &join).await;
    // Whoever may put somebody out does so by other ways.
    let other = world.peer.user("other");
    let join = signed(&world.peer, &proposed(&world, "join", &room, other.as_str()).await);
    put_honest(&world, "join", &room, &join).await;
    let users = json!({ world.alice.user_id.as_str(): 100, guest.as_str(): 50 });
    world.alice.send_state(&room, "m.room.power_levels", "", json!({ "users": users })).await;
    let mut kick = proposed(&world, "leave", &room, guest.as_str()).await;
    kick["state_key"] = json!(other);
    kick["auth_events"].as_array_mut().unwrap().push(json!(join.event_id));
    let kick = signed(&world.peer, &kick);
    let answer = put(&world, "leave", &room, kick.event_id.as_str(), &wire(&kick)).await;
    assert!(matches!(answer.status, 400 | 403), "{answer:?}");
    assert_eq!(membership(&world, &room, other.as_str()).await, "join");
    only_what_was_proposed(&world, "leave", &room, guest.as_str()).await;
}

/// JN-03: and for knocks, which tell who knocks no more than a knock may.
#[tokio::test(flavor = "multi_thread")]
async fn jn_03_knocks_that_are_sent_are_what_they_say() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let room = room_of_alice(&world).await;
    let uri = |handshake: &str| format!("/_matrix/federation/v1/make_{handshake}/{room}/{guest}?ver=11");
    let answer = world.peer.request(&world.here, Method::GET, &uri("knock"), None).await;
    answer.expect_error(403, "M_FORBIDDEN");
    world.alice.send_state(&room, "m.room.join_rules", "", json!({ "join_rule": "knock" })).await;
    world.alice.send_state(&room, "m.room.topic", "", json!({ "topic": "may be seen" })).await;
    world.alice.send_state(&room, "org.example.secret", "", json!({ "secret": "not to be seen" })).await;
    only_what_was_proposed(&world, "knock", &room, guest.as_str()).await;
    let knock =
        signed(&world.peer, &proposed(&world, "knock", &room, world.peer.user("other").as_str()).await);
    let told = put_honest(&world, "knock", &room, &knock).await;
    assert!(told["knock_room_state"].to_string().contains("m.room.create"), "{told}");
    assert!(!told.to_string().contains("not to be seen"), "{told}");
    // Who knocks isn't in.
    let uri = format!("/_matrix/federation/v1/state/{room}?event_id={}", knock.event_id);
    let answer = world.peer.request(&world.here, Method::GET, &uri, None).await;
    assert!(matches!(answer.status, 403 | 404), "{answer:?}");
    // What the room would allow is still no knock.
    let open = room_of_alice(&world).await;
    let join = signed(&world.peer, &proposed(&world, "join", &open, guest.as_str()).await);
    put_honest(&world, "join", &open, &join).await;
    let leave = signed(&world.peer, &proposed(&world, "leave", &open, guest.as_str()).await);
    let answer = put(&world, "knock", &open, leave.event_id.as_str(), &wire(&leave)).await;
    assert!(matches!(answer.status, 400 | 403), "{answer:?}");
    assert_eq!(membership(&world, &open, guest.as_str()).await, "join");
}

/// JN-07, JN-08: this server vouches for nobody whom the room's rule doesn't let in, whatever the join says.
#[tokio::test(flavor = "multi_thread")]
async fn jn_08_nobody_gets_in_by_a_voucher_of_their_own() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let room = room_of_alice(&world).await;
    let club = room_of_alice(&world).await;
    let mut proposal = proposed(&world, "join", &room, guest.as_str()).await;
    let rule =
        json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
    let rule = world.alice.send_state(&room, "m.room.join_rules", "", rule).await;
    let state = world.alice.get(&format!("/v3/rooms/{room}/state")).await.expect(200);
    let allowing = state.as_array().unwrap().iter().filter(|event| {
        let kind = event["type"].as_str().unwrap();
        matches!(kind, "m.room.create" | "m.room.join_rules" | "m.room.power_levels" | "m.room.member")
    });
    proposal["auth_events"] = allowing.map(|event| event["event_id"].clone()).collect();
    proposal["prev_events"] = json!([rule]);
    proposal["depth"] = json!(proposal["depth"].as_i64().unwrap() + 1);
    let here = world.here.name.as_str();
    for voucher in [world.alice.user_id.clone(), format!("@nobody:{here}"), guest.to_string(), "x".to_owned()]
    {
        let mut event = proposal.clone();
        event["content"]["join_authorised_via_users_server"] = json!(voucher);
        let pdu = signed(&world.peer, &event);
        let id = pdu.event_id.as_str();
        let mut forged = wire(&pdu);
        let own = forged["signatures"][world.peer.name.as_str()][world.peer.key.id().as_str()].clone();
        forged["signatures"][here] = json!({ world.here.key().id().as_str(): own });
        for event in [wire(&pdu), forged] {
            let answer = put(&world, "join", &room, id, &event).await;
            assert!(matches!(answer.status, 400 | 403), "{voucher}: {answer:?}");
            assert!(answer.json["event"].is_null(), "{voucher}: nothing is signed");
            // Nor is it believed when it comes by another way.
            world.peer.send(&world.here, &[event], &[]).await.expect(200);
            assert_ne!(membership(&world, &room, guest.as_str()).await, "join", "{voucher}");
        }
    }
    // Whoever is in the room that lets them in gets in.
    let join = signed(&world.peer, &proposed(&world, "join", &club, guest.as_str()).await);
    put_honest(&world, "join", &club, &join).await;
    let proposal = proposed(&world, "join", &room, guest.as_str()).await;
    assert_eq!(proposal["content"]["join_authorised_via_users_server"], json!(world.alice.user_id));
    let join = signed(&world.peer, &proposal);
    let answer = put_honest(&world, "join", &room, &join).await;
    assert!(answer["event"]["signatures"][here].is_object(), "{answer}");
    assert_eq!(membership(&world, &room, guest.as_str()).await, "join");
}

/// MB-07, JN-07: who was in a room when this server left it may have left it since: that lets nobody in anywhere.
#[tokio::test(flavor = "multi_thread")]
async fn mb_07_who_was_in_a_room_that_this_server_has_left_is_not_vouched_for() {
    let mut world = World::new().await;
    let guest = world.peer.user("creator");
    let theirs = world.shared("11", "theirs").await;
    let theirs = theirs.lock().id.clone();
    let room = room_of_alice(&world).await;
    let rule =
        json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": theirs }] });
    world.alice.send_state(&room, "m.room.join_rules", "", rule).await;
    let make_join = format!("/_matrix/federation/v1/make_join/{room}/{guest}?ver=11");
    let hierarchy = format!("/_matrix/federation/v1/hierarchy/{room}");
    let asked = async |world: &World, uri: &str| {
        let answer = world.peer.request(&world.here, Method::GET, uri, None).await;
        (answer.status, answer.json["errcode"].as_str().map(str::to_owned))
    };
    for uri in [&make_join, &hierarchy] {
        assert_eq!(asked(&world, uri).await, (200, None), "{uri}");
    }
    world.alice.post(&format!("/v3/rooms/{theirs}/leave"), json!({})).await.expect(200);
    let mut told = vec![asked(&world, &make_join).await, asked(&world, &hierarchy).await];
    // The same from what is stored.
    world.here.server.restart().await;
    told.push(asked(&world, &make_join).await);
    let cannot = (400, Some("M_UNABLE_TO_AUTHORISE_JOIN".to_owned()));
    assert_eq!(told, [cannot.clone(), (404, Some("M_NOT_FOUND".to_owned())), cannot]);
}

/// MB-07, JN-07: a rule that names no room lets nobody in. That can be told here, so nobody else is asked, or sent elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn mb_07_a_rule_that_names_no_room_lets_nobody_in() {
    let world = World::new().await;
    let bob = world.here.server.register("bob").await;
    let (guest, stranger) = (world.peer.user("guest"), world.peer.user("stranger"));
    let room = room_of_alice(&world).await;
    let join = signed(&world.peer, &proposed(&world, "join", &room, guest.as_str()).await);
    put_honest(&world, "join", &room, &join).await;
    let refusal = json!({ "errcode": "M_UNABLE_TO_AUTHORISE_JOIN", "error": "not here either" });
    world.peer.on("/_matrix/federation/v1/make_join/", move |_| (400, refusal.clone()));
    for rule in [
        json!({ "join_rule": "knock_restricted" }),
        json!({ "join_rule": "restricted", "allow": [] }),
        json!({ "join_rule": "restricted", "allow": [{ "type": "org.example.other" }] }),
    ] {
        world.alice.send_state(&room, "m.room.join_rules", "", rule.clone()).await;
        let uri = format!("/_matrix/federation/v1/make_join/{room}/{stranger}?ver=11");
        let there = world.peer.request(&world.here, Method::GET, &uri, None).await;
        let here = bob.post(&format!("/v3/join/{room}"), json!({})).await;
        for answer in [there, here] {
            assert_eq!((answer.status, &answer.json["errcode"]), (403, &json!("M_FORBIDDEN")), "{rule}");
        }
        assert_eq!(world.peer.asked("/_matrix/federation/v1/make_join/").len(), 0, "{rule}");
    }
}

/// BF-01, BF-05: however much is asked for there is an end to what is given; and a room is asked for its own events alone.
#[tokio::test(flavor = "multi_thread")]
async fn bf_01_questions_have_bounds() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let (room, secret) = (room_of_alice(&world).await, room_of_alice(&world).await);
    let hidden = world.alice.send_text(&secret, "not to be seen").await;
    let first = signed(&world.peer, &proposed(&world, "join", &room, guest.as_str()).await);
    put_honest(&world, "join", &room, &first).await;
    let mut last = String::new();
    for index in 0..120 {
        last = world.alice.send_text(&room, &format!("message {index}")).await;
    }
    let get = async |uri: String| world.peer.request(&world.here, Method::GET, &uri, None).await;
    let backfill =
        |event: &str, limit: &str| format!("/_matrix/federation/v1/backfill/{room}?v={event}&limit={limit}");
    for limit in ["1000000000", "18446744073709551615"] {
        let answer = get(backfill(&last, limit)).await.expect(200);
        assert_eq!(answer["pdus"].as_array().unwrap().len(), 100, "{limit}");
    }
    for nonsense in ["-1", "1.5", "x", "", "1000000000000000000000000000000"] {
        get(backfill(&last, nonsense)).await.expect_error(400, "M_INVALID_PARAM");
    }
    let missing = async |latest: &[&str], limit: Value| {
        let body = json!({ "latest_events": latest, "earliest_events": [], "limit": limit });
        let uri = format!("/_matrix/federation/v1/get_missing_events/{room}");
        world.peer.request(&world.here, Method::POST, &uri, Some(&body)).await
    };
    let answer = missing(&[&last], json!(1_000_000_000)).await.expect(200);
    assert_eq!(answer["events"].as_array().unwrap().len(), 20);
    assert_eq!(missing(&[&last], json!(-5)).await.expect(200)["events"], json!([]));
    assert_eq!(missing(&[&last], json!("x")).await.status, 400);
    let deepest = 9_007_199_254_740_991_i64;
    for (min_depth, count) in [(-deepest, 20), (-1, 20), (deepest, 0)] {
        let body = json!({
            "latest_events": [last], "earliest_events": [], "limit": 100, "min_depth": min_depth,
        });
        let uri = format!("/_matrix/federation/v1/get_missing_events/{room}");
        let answer = world.peer.request(&world.here, Method::POST, &uri, Some(&body)).await.expect(200);
        assert_eq!(answer["events"].as_array().unwrap().len(), count, "{min_depth}");
    }
    assert_eq!(
        missing(&vec![last.as_str(); 5000], json!(10)).await.expect(200)["events"].as_array().unwrap().len(),
        10
    );

    // Of the other room nothing is told, neither by its own name nor by this room's.
    for uri in [
        format!("/_matrix/federation/v1/state/{room}?event_id={hidden}"),
        format!("/_matrix/federation/v1/state_ids/{room}?event_id={hidden}"),
        format!("/_matrix/federation/v1/event_auth/{room}/{hidden}"),
        format!("/_matrix/federation/v1/event/{hidden}"),
    ] {
        let here = get(uri.clone()).await;
        let nowhere = get(uri.replace(&hidden, &format!("${}", "a".repeat(43)))).await;
        assert_eq!(here.status, 404, "{uri}: {here:?}");
        assert_eq!((nowhere.status, &nowhere.json["errcode"]), (404, &here.json["errcode"]), "{uri}");
    }
    let answer = get(backfill(&hidden, "10")).await;
    assert!(!answer.text().contains("not to be seen") && !answer.text().contains(&secret), "{answer:?}");
    let answer = missing(&[&hidden], json!(10)).await;
    assert!(!answer.text().contains(&secret), "{answer:?}");
    // A server that isn't in a room can't tell it from one that isn't there.
    let nowhere = format!("!none:{}", world.here.name);
    for uri in [
        format!("/_matrix/federation/v1/state/{secret}?event_id={hidden}"),
        format!("/_matrix/federation/v1/state_ids/{secret}?event_id={hidden}"),
        format!("/_matrix/federation/v1/event_auth/{secret}/{hidden}"),
        format!("/_matrix/federation/v1/backfill/{secret}?v={hidden}&limit=1"),
    ] {
        let there = get(uri.clone()).await;
        let nowhere = get(uri.replace(&secret, &nowhere)).await;
        assert!(matches!(there.status, 403 | 404), "{uri}: {there:?}");
        assert_eq!((there.status, &there.json), (nowhere.status, &nowhere.json), "{uri}");
    }
}
