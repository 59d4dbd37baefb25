//! Transactions with what can't be believed in them: it is an error for that event alone.

use hearth_federation::{Pdu, SigningKey};
use http::Method;
use serde_json::{Value, json};

use crate::{
    World,
    common::eventually,
    handshakes::named,
    peer::{Peer, wire},
    room::{Room, message},
};

/// Sends one event among good ones. The bad one must not be seen, and the others must.
async fn is_dropped(world: &World, room: &crate::Shared, what: &str, bad: &Value, id: Option<&str>) {
    let (before, after) = {
        let mut room = room.lock();
        (room.say(&format!("before: {what}")), room.say(&format!("after: {what}")))
    };
    let answer = world.peer.send(&world.here, &[wire(&before), bad.clone(), wire(&after)], &[]).await;
    let answer = answer.expect(200);
    for good in [&before, &after] {
        assert_eq!(answer["pdus"][good.event_id.as_str()], json!({}), "{what}: {answer}");
        world.sees_soon(room, good.event_id.as_str()).await;
    }
    if let Some(id) = id {
        assert!(!world.sees(room, id).await, "{what}");
    }
    let page = format!("/v3/rooms/{}/messages?dir=b&limit=100", room.lock().id);
    let page = world.alice.get(&page).await.expect(200);
    assert!(!page.to_string().contains("not to be seen"), "{what}: {page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sg_04_signatures_are_of_the_sender_and_right() {
    let world = World::new().await;
    let room = world.shared("11", "signed").await;
    let creator = room.lock().creator.clone();
    let draft = || room.lock().draft(&creator, "m.room.message", None, message("not to be seen"));

    let pdu = draft();
    let mut unsigned = wire(&pdu);
    unsigned["signatures"] = json!({});
    is_dropped(&world, &room, "unsigned", &unsigned, Some(pdu.event_id.as_str())).await;

    let pdu = draft();
    let mut other_place = wire(&pdu);
    let own = other_place["signatures"][world.peer.name.as_str()].clone();
    other_place["signatures"] = json!({ "127.0.0.1:1": own });
    is_dropped(&world, &room, "signed by another server", &other_place, Some(pdu.event_id.as_str())).await;

    let pdu = draft();
    let mut unknown_key = wire(&pdu);
    let signature = own_signature(&world.peer, &unknown_key);
    unknown_key["signatures"] = json!({ world.peer.name.as_str(): { "ed25519:never": signature } });
    is_dropped(&world, &room, "by a key that nobody published", &unknown_key, Some(pdu.event_id.as_str()))
        .await;

    let pdu = draft();
    let mut wrong = wire(&pdu);
    let signature = SigningKey::new("peer", [9; 32]).unwrap().sign(b"something else");
    wrong["signatures"][world.peer.name.as_str()] = json!({ world.peer.key.id().as_str(): signature });
    is_dropped(&world, &room, "a wrong signature", &wrong, Some(pdu.event_id.as_str())).await;

    // The sender is of this server, but the other signs.
    let alice = ruma::OwnedUserId::try_from(world.alice.user_id.as_str()).unwrap();
    let pdu = room.lock().draft(&alice, "m.room.message", None, message("not to be seen"));
    is_dropped(&world, &room, "in the name of alice", &wire(&pdu), Some(pdu.event_id.as_str())).await;
}

fn own_signature(peer: &Peer, event: &Value) -> Value {
    event["signatures"][peer.name.as_str()][peer.key.id().as_str()].clone()
}

/// What was changed on the way is redacted; what isn't an event is no obstacle.
#[tokio::test(flavor = "multi_thread")]
async fn pd_01_what_is_changed_or_no_event_stops_nothing() {
    let world = World::new().await;
    let room = world.shared("11", "changed").await;
    let creator = room.lock().creator.clone();
    let draft = || room.lock().draft(&creator, "m.room.message", None, message("harmless"));
    let mut changed = wire(&draft());
    changed["content"]["body"] = json!("not to be seen");
    is_dropped(&world, &room, "changed content", &changed, None).await;
    let mut more = wire(&draft());
    more["depth"] = json!(1.5);
    is_dropped(&world, &room, "a fraction", &more, None).await;
    let mut deep = wire(&draft());
    deep["depth"] = json!(9_007_199_254_741_000_i64);
    is_dropped(&world, &room, "a depth past all numbers", &deep, None).await;
    let mut large = wire(&draft());
    large["content"]["x"] = json!("not to be seen".repeat(6000));
    is_dropped(&world, &room, "too large", &large, None).await;
    for (what, bad) in [
        ("a number", json!(7)),
        ("a list", json!([[]])),
        ("nothing", Value::Null),
        ("an empty object", json!({})),
        ("only a room", json!({ "room_id": room.lock().id, "type": "m.room.message" })),
        ("an unknown room", json!({ "room_id": "!none:elsewhere", "type": "x", "sender": creator })),
    ] {
        is_dropped(&world, &room, what, &bad, None).await;
    }
}

/// What a room doesn't allow isn't let in, and nothing that is built on it is state.
#[tokio::test(flavor = "multi_thread")]
async fn pd_01_what_the_room_does_not_allow_is_rejected_for_good() {
    let world = World::new().await;
    let room = world.shared("11", "allowed").await;
    let stranger = world.peer.user("stranger");
    let topic = room.lock().draft(&stranger, "m.room.topic", Some(""), json!({ "topic": "not to be seen" }));
    is_dropped(&world, &room, "by who isn't in", &wire(&topic), Some(topic.event_id.as_str())).await;
    // Again, and in the state that is given for a gap.
    is_dropped(&world, &room, "by who isn't in, again", &wire(&topic), Some(topic.event_id.as_str())).await;
    let (hidden, after) = {
        let mut room = room.lock();
        let hidden = room.say("nobody gives this");
        (hidden.clone(), room.say("after the gap"))
    };
    room.lock().events.remove(&hidden.event_id);
    let state: Vec<Value> = {
        let room = room.lock();
        room.state
            .values()
            .filter(|pdu| pdu.kind.to_string() != "m.room.topic")
            .chain([&topic])
            .map(wire)
            .collect()
    };
    let ids: Vec<String> = {
        let room = room.lock();
        room.state.values().chain([&topic]).map(|pdu| pdu.event_id.to_string()).collect()
    };
    let id = room.lock().id.clone();
    world.peer.on(&format!("/_matrix/federation/v1/state/{id}"), move |_| {
        (200, json!({ "pdus": state, "auth_chain": state }))
    });
    world.peer.on(&format!("/_matrix/federation/v1/state_ids/{id}"), move |_| {
        (200, json!({ "pdu_ids": ids, "auth_chain_ids": ids }))
    });
    let topics = topic.clone();
    world.peer.on(&format!("/_matrix/federation/v1/event/{}", topic.event_id), move |_| {
        (200, json!({ "pdus": [wire(&topics)] }))
    });
    world.peer.send(&world.here, &[wire(&after)], &[]).await.expect(200);
    let next = room.lock().say("and on");
    world.peer.send(&world.here, &[wire(&next)], &[]).await.expect(200);
    world.sees_soon(&room, next.event_id.as_str()).await;
    assert_eq!(world.state(&room, "m.room.topic").await["topic"], Value::Null);
    assert!(!world.sees(&room, topic.event_id.as_str()).await);
}

/// Nothing of one room is taken for another's.
#[tokio::test(flavor = "multi_thread")]
async fn pd_05_events_of_another_room_allow_nothing() {
    let world = World::new().await;
    let (one, other) = (world.shared("11", "one").await, world.shared("11", "other").await);
    let creator = one.lock().creator.clone();
    // An event of one room that says it is of the other: its references are all of the first.
    let mut moved = wire(&one.lock().draft(&creator, "m.room.message", None, message("not to be seen")));
    moved["room_id"] = json!(other.lock().id);
    is_dropped(&world, &other, "moved", &moved, None).await;
    let mixed = {
        let (one, mut other) = (one.lock(), other.lock());
        let id = std::mem::replace(&mut other.id, one.id.clone());
        let pdu = other.draft_after(&one.ends, &creator, "m.room.message", None, message("not to be seen"));
        other.id = id;
        pdu
    };
    is_dropped(&world, &one, "allowed by another room", &wire(&mixed), Some(mixed.event_id.as_str())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tx_01_transactions_have_bounds() {
    let world = World::new().await;
    let room = world.shared("11", "many").await;
    let first = room.lock().say("too many come with it");
    let many: Vec<Value> = std::iter::once(wire(&first)).chain((0..50).map(|_| json!({}))).collect();
    let answer = world.peer.send(&world.here, &many, &[]).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let edus = vec![json!({ "edu_type": "m.typing", "content": {} }); 101];
    assert_eq!(world.peer.send(&world.here, &[wire(&first)], &edus).await.status, 400);
    assert!(!world.sees(&room, first.event_id.as_str()).await);
    world.peer.send(&world.here, &[wire(&first)], &edus[..100]).await.expect(200);
    world.sees_soon(&room, first.event_id.as_str()).await;
}

/// ED-05: nobody tells what users of others do.
#[tokio::test(flavor = "multi_thread")]
async fn ed_05_typing_and_receipts_are_of_the_users_of_who_tells_them() {
    let world = World::new().await;
    let room = world.shared("11", "edus").await;
    let bob = world.here.server.register("bob").await;
    let id = room.lock().id.clone();
    let creator = room.lock().creator.clone();
    bob.post(&format!("/v3/join/{id}"), json!({})).await.expect(200);
    let said = world.alice.send_text(id.as_str(), "read me").await;
    let receipt = |user: &str| {
        let data = json!({ "event_ids": [said], "data": { "ts": 1 } });
        json!({ "edu_type": "m.receipt", "content": { id.as_str(): { "m.read": { user: data } } } })
    };
    let typing = |user: &str| json!({ "edu_type": "m.typing", "content": { "room_id": id, "user_id": user, "typing": true } });
    let stranger = world.peer.user("stranger");
    let mut edus = Vec::new();
    for user in [bob.user_id.as_str(), stranger.as_str(), "@somebody:127.0.0.1:1", creator.as_str()] {
        edus.extend([receipt(user), typing(user)]);
    }
    edus.splice(
        0..0,
        [json!(7), json!({}), json!({ "edu_type": "m.receipt", "content": { id.as_str(): 7 } })],
    );
    world.peer.send(&world.here, &[], &edus).await.expect(200);
    let (typing, receipts) = eventually("alice hears of it", || async {
        let answer = world.alice.sync(None, 0).await;
        let events = answer["rooms"]["join"][id.as_str()]["ephemeral"]["events"].clone();
        let content = |kind: &str| {
            let event = events.as_array()?.iter().find(|event| event["type"] == kind)?;
            Some(event["content"].clone())
        };
        Some((content("m.typing")?["user_ids"].clone(), content("m.receipt")?[&said]["m.read"].clone()))
    })
    .await;
    assert_eq!(typing, json!([creator]));
    assert_eq!(receipts.as_object().unwrap().keys().collect::<Vec<_>>(), [creator.as_str()]);
}

/// I10: a server that isn't in a room learns nothing of it.
#[tokio::test(flavor = "multi_thread")]
async fn i10_what_is_asked_about_rooms_of_others_is_not_there() {
    let world = World::new().await;
    let room = world.alice.create_room(json!({ "preset": "private_chat" })).await;
    let event = world.alice.send_text(&room, "secret").await;
    let outsider = Peer::start(&world.authority).await;
    let unknown = Room::new(&outsider, "11", "unknown").lock().id.clone();
    for id in [room.as_str(), unknown.as_str()] {
        for uri in [
            format!("/_matrix/federation/v1/state/{id}?event_id={event}"),
            format!("/_matrix/federation/v1/state_ids/{id}?event_id={event}"),
            format!("/_matrix/federation/v1/backfill/{id}?v={event}&limit=10"),
            format!("/_matrix/federation/v1/event_auth/{id}/{event}"),
            format!("/_matrix/federation/v1/event/{event}"),
            format!("/_matrix/federation/v1/timestamp_to_event/{id}?ts=0&dir=f"),
        ] {
            let answer = outsider.request(&world.here, Method::GET, &uri, None).await;
            assert!(matches!(answer.status, 403 | 404), "{uri}: {answer:?}");
            assert!(!answer.text().contains("secret"));
        }
        let body = json!({ "latest_events": [event], "earliest_events": [], "limit": 10 });
        let uri = format!("/_matrix/federation/v1/get_missing_events/{id}");
        let answer = outsider.request(&world.here, Method::POST, &uri, Some(&body)).await;
        assert!(matches!(answer.status, 403 | 404), "{answer:?}");
    }
}

/// I7: what nobody has stops nobody from looking further back, and neither does what came in another way.
#[tokio::test(flavor = "multi_thread")]
async fn i7_what_nobody_gives_hides_nothing_before_it() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "holes");
    let first = room.lock().say("before alice came");
    world.peer.keeps(&room);
    world.join(&room).await;
    let (hidden, after) = {
        let mut room = room.lock();
        let hidden = room.say("nobody gives this");
        (hidden.clone(), room.say("after the gap"))
    };
    room.lock().events.remove(&hidden.event_id);
    world.peer.send(&world.here, &[wire(&after)], &[]).await.expect(200);
    world.sees_soon(&room, after.event_id.as_str()).await;
    let page = format!("/v3/rooms/{}/messages?dir=b&limit=100", room.lock().id);
    let page = async || world.alice.get(&page).await.expect(200).to_string();
    let seen = page().await;
    assert!(seen.contains(first.event_id.as_str()), "{seen}");
    assert!(!seen.contains("nobody gives this"));
    // It comes after all, by itself.
    world.peer.send(&world.here, &[wire(&hidden)], &[]).await.expect(200);
    world.sees_soon(&room, hidden.event_id.as_str()).await;
    let asked = world.peer.asked("/_matrix/federation/v1/backfill/").len();
    assert!(page().await.contains("nobody gives this"));
    assert_eq!(world.peer.asked("/_matrix/federation/v1/backfill/").len(), asked, "nothing is missing");
}

/// I7: what one answer lacks is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn i7_history_that_comes_in_parts_comes_whole() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "parts");
    let (one, other) = {
        let mut room = room.lock();
        let ends = room.ends.clone();
        let creator = room.creator.clone();
        let one = room.draft_after(&ends, &creator, "m.room.message", None, message("one side"));
        let other = room.draft_after(&ends, &creator, "m.room.message", None, message("the other side"));
        room.add(one.clone());
        room.add(other.clone());
        room.ends = vec![one.event_id.clone(), other.event_id.clone()];
        (one, other)
    };
    world.peer.keeps(&room);
    world.join(&room).await;
    room.lock().events.remove(&other.event_id);
    let page = format!("/v3/rooms/{}/messages?dir=b&limit=100", room.lock().id);
    // Nobody is asked for what the filter leaves out.
    let elsewhere = "&filter=%7B%22rooms%22:[%22!other:localhost%22]%7D";
    let nothing = world.alice.get(&format!("{page}{elsewhere}")).await.expect(200);
    assert_eq!((&nothing["chunk"], &nothing["end"]), (&json!([]), &Value::Null), "{nothing}");
    assert!(world.peer.asked("/_matrix/federation/v1/backfill/").is_empty());
    let page = async || world.alice.get(&page).await.expect(200).to_string();
    let seen = page().await;
    assert!(seen.contains(one.event_id.as_str()) && seen.contains("m.room.create"), "{seen}");
    assert!(!seen.contains(other.event_id.as_str()), "{seen}");
    room.lock().events.insert(other.event_id.clone(), other.clone());
    let seen = page().await;
    assert!(seen.contains(other.event_id.as_str()), "{seen}");
}

/// BF-02: what others said between an invite and the join that followed it. Of the invite alone one knows nothing of the room.
#[tokio::test(flavor = "multi_thread")]
async fn bf_02_what_follows_an_invite_is_judged_by_what_the_room_was() {
    let world = World::new().await;
    for version in ["11", "12"] {
        let room = Room::new(&world.peer, version, "between");
        world.peer.keeps(&room);
        let alice = world.alice.user_id.clone();
        let (id, creator, invite) = {
            let mut room = room.lock();
            let creator = room.creator.clone();
            let invite = room.put(&creator, "m.room.member", &alice, json!({ "membership": "invite" }));
            (room.id.clone(), creator, invite)
        };
        let uri = format!("/_matrix/federation/v2/invite/{id}/{}", invite.event_id);
        let body = json!({ "event": wire(&invite), "room_version": version, "invite_room_state": room.lock().state_events() });
        world.peer.request(&world.here, Method::PUT, &uri, Some(&body)).await.expect(200);
        world.join(&room).await;

        let (between, topic, after) = {
            let mut room = room.lock();
            let joined = room.ends.clone();
            let follows = [invite.event_id.clone()];
            let between = room.draft_after(&follows, &creator, "m.room.message", None, message("meanwhile"));
            room.add(between.clone());
            let topic = room.put(&creator, "m.room.topic", "", json!({ "topic": "meanwhile" }));
            room.ends.extend(joined);
            (between, topic, room.say("of both"))
        };
        world.peer.send(&world.here, &[wire(&after)], &[]).await.expect(200);
        for event in [after, between, topic] {
            world.sees_soon(&room, event.event_id.as_str()).await;
        }
        assert_eq!(world.state(&room, "m.room.topic").await["topic"], "meanwhile");
    }
}

/// I7: in versions 1 and 2 senders choose the ids of their events. One that an event of another room has stops nothing, and
/// nothing of either room is taken for the other's.
#[tokio::test(flavor = "multi_thread")]
async fn i7_an_id_that_an_event_of_another_room_has_is_no_obstacle() {
    let world = World::new().await;
    for version in ["1", "2"] {
        let one = world.shared(version, &format!("one{version}")).await;
        let other = world.shared(version, &format!("other{version}")).await;
        let (creator, guest) = (one.lock().creator.clone(), world.peer.user("guest"));
        let first = one.lock().say("of the one");
        world.peer.send(&world.here, &[wire(&first)], &[]).await.expect(200);
        world.sees_soon(&one, first.event_id.as_str()).await;
        let taken = one.lock().said_by(&creator, "of the one too");
        world.peer.send(&world.here, &[wire(&taken)], &[]).await.expect(200);
        world.sees_soon(&one, taken.event_id.as_str()).await;

        let sent = {
            let mut other = other.lock();
            let said = other.draft(&creator, "m.room.message", None, message("of the other"));
            let said = other.under_id(&said, &first.event_id);
            other.add(said.clone());
            let join = json!({ "membership": "join" });
            let join = other.draft(&guest, "m.room.member", Some(guest.as_str()), join);
            let join = other.under_id(&join, &taken.event_id);
            other.add(join.clone());
            // It cites the join.
            let kick = other.put(&creator, "m.room.member", guest.as_str(), json!({ "membership": "ban" }));
            [said, join, kick, other.say("and on")]
        };
        let answer = world.peer.send(&world.here, &sent.each_ref().map(wire), &[]).await.expect(200);
        for event in &sent {
            assert_eq!(answer["pdus"][event.event_id.as_str()], json!({}), "{version}: {answer}");
            world.sees_soon(&other, event.event_id.as_str()).await;
        }
        let membership = world.state(&other, &format!("m.room.member/{guest}")).await;
        assert_eq!(membership["membership"], "ban", "{version}");
        for (room, text) in [(&one, "of the one"), (&other, "of the other")] {
            let id = room.lock().id.clone();
            let event = format!("/v3/rooms/{id}/event/{}", first.event_id);
            let event = world.alice.get(&event).await.expect(200);
            assert_eq!((&event["content"]["body"], &event["room_id"]), (&json!(text), &json!(id)));
            let page = world.alice.get(&format!("/v3/rooms/{id}/messages?dir=b&limit=100")).await.expect(200);
            let shown = page["chunk"].as_array().unwrap();
            assert!(shown.iter().all(|event| event["room_id"] == id.as_str()), "{version}: {page}");
        }
        let uri = format!("/_matrix/federation/v1/event/{}", first.event_id);
        world.peer.request(&world.here, Method::GET, &uri, None).await.expect(200);
        world.alice.get(&format!("/v3/events/{}", first.event_id)).await.expect(200);
    }
}

/// BF-02: an event may cite what isn't in the history here. That is asked for, and judged by what it cites itself: what is
/// allowed by something that was rejected is rejected, and what comes after it isn't held up.
#[tokio::test(flavor = "multi_thread")]
async fn bf_02_what_an_event_cites_is_asked_for() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "cites");
    let member = world.peer.user("member");
    let key = member.as_str();
    let joined = room.lock().put(&member, "m.room.member", key, json!({ "membership": "join" }));
    world.peer.keeps(&room);
    world.join(&room).await;
    world
        .peer
        .on("/_matrix/federation/v1/state", |_| (404, json!({ "errcode": "M_NOT_FOUND", "error": "" })));
    let levels = room.lock().state[&("m.room.power_levels".to_owned(), String::new())].clone();
    let (good, rejected, bad, after) = {
        let mut room = room.lock();
        let set = |room: &mut Room, pdu: &Pdu| {
            room.state.insert((pdu.kind.to_string(), pdu.state_key.clone().unwrap()), pdu.clone());
            room.events.insert(pdu.event_id.clone(), pdu.clone());
        };
        let renamed = json!({ "membership": "join", "displayname": "elsewhere" });
        let renamed = room.draft(&member, "m.room.member", Some(key), renamed);
        set(&mut room, &renamed);
        let good = room.said_by(&member, "cites what can be had");
        set(&mut room, &joined);

        let rejected = room.draft(&member, "m.room.power_levels", Some(""), json!({ "users": { key: 100 } }));
        set(&mut room, &rejected);
        let renamed = json!({ "membership": "join", "displayname": "by rejected levels" });
        let renamed = room.draft(&member, "m.room.member", Some(key), renamed);
        set(&mut room, &levels);
        set(&mut room, &renamed);
        let bad = [room.said_by(&member, "one"), room.said_by(&member, "two")];
        set(&mut room, &joined);
        (good, rejected, bad, room.say("after all of it"))
    };
    world.peer.send(&world.here, &[wire(&good)], &[]).await.expect(200);
    world.sees_soon(&room, good.event_id.as_str()).await;
    world.peer.send(&world.here, &[wire(&rejected)], &[]).await.expect(200);
    world.peer.send(&world.here, &[wire(&bad[0]), wire(&bad[1]), wire(&after)], &[]).await.expect(200);
    world.sees_soon(&room, after.event_id.as_str()).await;
    for pdu in [&rejected, &bad[0], &bad[1]] {
        assert!(!world.sees(&room, pdu.event_id.as_str()).await, "{}", pdu.json);
    }
    assert!(world.peer.asked("/_matrix/federation/v1/state").is_empty(), "a state is much more than that");
}

/// RD-01: whoever may redact what others say may redact also what hasn't come here. The redaction goes out at once, and is
/// applied when its target comes.
#[tokio::test(flavor = "multi_thread")]
async fn rd_01_what_is_not_here_is_redacted_by_those_with_power() {
    let world = World::new().await;
    for version in ["10", "11"] {
        let room = Room::new(&world.peer, version, &format!("unheard{version}"));
        world.peer.keeps(&room);
        let bob = world.here.server.register(&format!("bob{version}")).await;
        let (id, creator) = named(&room);
        let levels = json!({ "users": { creator.as_str(): 100, &*world.alice.user_id: 50 }, "redact": 50 });
        room.lock().put(&creator, "m.room.power_levels", "", levels);
        world.join(&room).await;
        bob.post(&format!("/v3/join/{id}?via={}", world.peer.name), json!({})).await.expect(200);

        let unheard = room.lock().draft(&creator, "m.room.message", None, message("unheard of here"));
        let path = format!("/v3/rooms/{id}/redact/{}", unheard.event_id);
        bob.put(&format!("{path}/1"), json!({})).await.expect_error(404, "M_NOT_FOUND");
        let answer = world.alice.put(&format!("{path}/2"), json!({ "reason": "spam" })).await.expect(200);
        assert_eq!(world.alice.put(&format!("{path}/2"), json!({})).await.expect(200), answer, "once");
        let redaction = answer["event_id"].as_str().unwrap();
        assert!(!world.sees(&room, redaction).await, "it waits");
        eventually("the redaction goes out", || async {
            let transactions = world.peer.asked("/_matrix/federation/v1/send/");
            let pdus = transactions.iter().filter_map(|asked| asked.body["pdus"].as_array().cloned());
            pdus.flatten().find(|pdu| pdu["type"] == "m.room.redaction" && pdu["room_id"] == id.as_str())
        })
        .await;

        world.peer.send(&world.here, &[wire(&unheard)], &[]).await.expect(200);
        world.sees_soon(&room, unheard.event_id.as_str()).await;
        let path = format!("/v3/rooms/{id}/event/{}", unheard.event_id);
        let event = world.alice.get(&path).await.expect(200);
        assert_eq!(event["content"], json!({}), "{event}");
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction);
    }
}

/// RD-01, RD-02: a redaction that comes as history is applied to what is here, and waits for what isn't, like one that comes by
/// itself.
#[tokio::test(flavor = "multi_thread")]
async fn rd_02_a_redaction_that_comes_as_history_is_applied() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "regrets");
    let (creator, guest) = (room.lock().creator.clone(), world.peer.user("guest"));
    let early = {
        let mut room = room.lock();
        room.put(&guest, "m.room.member", guest.as_str(), json!({ "membership": "join" }));
        room.say("before alice came")
    };
    world.peer.keeps(&room);
    world.join(&room).await;
    let id = room.lock().id.clone();
    let stays = world.alice.send_text(id.as_str(), "stays").await;
    let late = room.lock().say("after alice came");
    world.peer.send(&world.here, &[wire(&late)], &[]).await.expect(200);
    world.sees_soon(&room, late.event_id.as_str()).await;
    let (hidden, after) = {
        let mut room = room.lock();
        let mut hidden = Vec::new();
        for (sender, target) in
            [(&creator, early.event_id.as_str()), (&guest, &stays), (&creator, late.event_id.as_str())]
        {
            let redaction = room.draft(sender, "m.room.redaction", None, json!({ "redacts": target }));
            room.add(redaction.clone());
            hidden.push(redaction);
        }
        let too = room.say("redacted beside it");
        let redaction = json!({ "redacts": too.event_id });
        let redaction = room.draft(&creator, "m.room.redaction", None, redaction);
        room.add(redaction.clone());
        hidden.extend([too, redaction]);
        for event in &hidden {
            room.events.remove(&event.event_id);
        }
        (hidden, room.say("after the gap"))
    };
    world.peer.send(&world.here, &[wire(&after)], &[]).await.expect(200);
    world.sees_soon(&room, after.event_id.as_str()).await;
    for event in &hidden {
        room.lock().events.insert(event.event_id.clone(), event.clone());
    }
    let page = async |limit: usize| {
        let page = format!("/v3/rooms/{id}/messages?dir=b&limit={limit}");
        world.alice.get(&page).await.expect(200)
    };
    let shown = async |event: &str| world.alice.get(&format!("/v3/rooms/{id}/event/{event}")).await.json;
    let [of_early, of_stays, of_late, too, of_too] = &hidden[..] else { panic!("{hidden:?}") };
    eventually("the history comes", || async {
        page(2).await;
        world.sees(&room, of_late.event_id.as_str()).await.then_some(())
    })
    .await;
    for (target, redaction) in [(&late, of_late), (too, of_too)] {
        let event = shown(target.event_id.as_str()).await;
        assert_eq!(event["content"], json!({}), "{event}");
        assert_eq!(event["unsigned"]["redacted_because"]["event_id"], redaction.event_id.as_str());
    }
    assert_eq!(shown(&stays).await["content"]["body"], "stays", "a guest may not redact it");
    for waiting in [of_early, of_stays] {
        assert!(!world.sees(&room, waiting.event_id.as_str()).await, "it redacts nothing");
    }
    page(100).await;
    world.sees_soon(&room, early.event_id.as_str()).await;
    let event = shown(early.event_id.as_str()).await;
    assert_eq!(event["content"], json!({}), "{event}");
    assert!(world.sees(&room, of_early.event_id.as_str()).await);
    assert!(!world.sees(&room, of_stays.event_id.as_str()).await);
}

/// What looks like a command is a message, whoever it is from.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_another_servers_user_is_a_text() {
    let world = World::new().await;
    let room = world.shared("11", "commands").await;
    let (id, creator) = named(&room);
    let here = &world.here.name;
    let commands = [
        format!("!admin users deactivate {}", world.alice.user_id),
        "\\!admin server shutdown".to_owned(),
        format!("/op {creator}"),
        format!("@hearth:{here}: user list"),
    ];
    for command in &commands {
        let said = room.lock().say(command);
        world.peer.send(&world.here, &[wire(&said)], &[]).await.expect(200);
        world.sees_soon(&room, said.event_id.as_str()).await;
    }
    let page = world.alice.get(&format!("/v3/rooms/{id}/messages?dir=b&limit=4")).await.expect(200);
    let shown = page["chunk"].as_array().unwrap().iter().rev().map(|event| &event["content"]["body"]);
    assert_eq!(shown.collect::<Vec<_>>(), commands.each_ref());
    // Whoever answered would have done so before alice does.
    world.alice.send_text(id.as_str(), "nothing happened").await;
    let sent = eventually("the other server is sent something", || async {
        let transactions = world.peer.asked("/_matrix/federation/v1/send/");
        let pdus = transactions.iter().filter_map(|asked| asked.body["pdus"].as_array().cloned()).flatten();
        let sent: Vec<Value> = pdus.collect();
        (!sent.is_empty()).then_some(sent)
    })
    .await;
    assert_eq!(sent[0]["content"]["body"], "nothing happened");
}
