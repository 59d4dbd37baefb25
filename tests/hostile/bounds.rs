//! What is too large, too long or without end: it is refused before it costs much.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Method;
use ruma::{CanonicalJsonObject, canonical_json::redact};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    World,
    common::eventually,
    peer::{CHUNK, Peer, wire},
    room::{Room, message},
};

/// An event with a right hash and signature, whatever else is wrong with it, and its id.
fn sealed(peer: &Peer, version: &str, mut event: Value) -> (Value, String) {
    for field in ["hashes", "signatures", "unsigned"] {
        event.as_object_mut().unwrap().remove(field);
    }
    let canonical = |event: &Value| serde_json::from_value::<CanonicalJsonObject>(event.clone()).unwrap();
    let digest = |object: &CanonicalJsonObject| Sha256::digest(serde_json::to_string(object).unwrap());
    let hash = BASE64_STANDARD_NO_PAD.encode(digest(&canonical(&event)));
    event["hashes"] = json!({ "sha256": hash });
    let rules = hearth_federation::rules(&version.try_into().unwrap()).unwrap().redaction;
    let mut redacted = redact(canonical(&event), &rules, None).unwrap();
    let id = format!("${}", BASE64_URL_SAFE_NO_PAD.encode(digest(&redacted)));
    peer.key.sign_json(&peer.name, &mut redacted).unwrap();
    event["signatures"] = serde_json::to_value(&redacted["signatures"]).unwrap();
    (event, id)
}

/// EV-01, EV-02, EV-03: an event and its fields have bounds, whoever signed it.
#[tokio::test(flavor = "multi_thread")]
async fn ev_01_ev_02_ev_03_events_past_the_bounds_are_dropped_though_they_are_signed() {
    let world = World::new().await;
    for version in ["6", "11", "12"] {
        let room = world.shared(version, &format!("bounds{version}")).await;
        let creator = room.lock().creator.clone();
        let honest = || wire(&room.lock().draft(&creator, "org.example", None, message("not to be seen")));
        let with = |field: &str, value: Value| {
            let mut event = honest();
            event[field] = value;
            event
        };
        // What `sealed` makes of a harmless event is taken: what is refused below isn't for its signature.
        let (event, id) = sealed(&world.peer, version, with("type", json!("t".repeat(255))));
        world.peer.send(&world.here, &[event], &[]).await.expect(200);
        world.sees_soon(&room, &id).await;
        for (what, event) in [
            ("a type of 300 bytes", with("type", json!("t".repeat(300)))),
            ("a key of 300 bytes", with("state_key", json!("k".repeat(300)))),
            ("a type of 256 bytes, of fewer characters", with("type", json!("ä".repeat(128)))),
            ("more than 65536 bytes", with("content", json!({ "body": "x".repeat(65_536) }))),
            ("a depth below zero", with("depth", json!(-1))),
            ("21 events before it", with("prev_events", json!(vec![format!("${}", "a".repeat(43)); 21]))),
            ("11 that allow it", with("auth_events", json!(vec![format!("${}", "a".repeat(43)); 11]))),
        ] {
            let (bad, id) = sealed(&world.peer, version, event);
            let good = room.lock().say(&format!("beside {what}"));
            world.peer.send(&world.here, &[bad, wire(&good)], &[]).await.expect(200);
            world.sees_soon(&room, good.event_id.as_str()).await;
            assert!(!world.sees(&room, &id).await, "version {version}: {what}");
        }
        // The id doesn't depend on the content of such an event.
        let pdu = room.lock().draft(&creator, "org.example", None, message("not to be seen"));
        for number in [json!(1.5), json!(9_007_199_254_740_992_i64), json!(-9_007_199_254_740_992_i64)] {
            let mut bad = wire(&pdu);
            bad["content"]["number"] = number;
            let good = room.lock().say("beside a number");
            world.peer.send(&world.here, &[bad, wire(&good)], &[]).await.expect(200);
            world.sees_soon(&room, good.event_id.as_str()).await;
            assert!(!world.sees(&room, pdu.event_id.as_str()).await, "version {version}");
        }
    }
}

/// EV-03: the deepest event that there may be stops neither what follows here nor what goes out.
#[tokio::test(flavor = "multi_thread")]
async fn ev_03_a_depth_at_its_end_stops_nothing() {
    const DEEPEST: i64 = (1 << 53) - 1;
    let world = World::new().await;
    for version in ["6", "12"] {
        let room = world.shared(version, &format!("deep{version}")).await;
        room.lock().depth = DEEPEST - 1;
        let deep = room.lock().say("as deep as can be");
        assert_eq!(deep.depth, DEEPEST);
        world.peer.send(&world.here, &[wire(&deep)], &[]).await.expect(200);
        world.sees_soon(&room, deep.event_id.as_str()).await;
        let id = room.lock().id.clone();
        for text in ["one", "other"] {
            world.alice.send_text(id.as_str(), text).await;
            let depth = eventually("what is said here goes out", || async {
                let sent = world.peer.asked("/_matrix/federation/v1/send/");
                let pdus = sent.iter().filter_map(|asked| asked.body["pdus"].as_array()).flatten();
                let of_room = |pdu: &&Value| pdu["content"]["body"] == text && pdu["room_id"] == id.as_str();
                pdus.filter(of_room).map(|pdu| pdu["depth"].clone()).next()
            })
            .await;
            assert_eq!(depth, json!(DEEPEST), "{version}");
        }
        let next = room.lock().say("no deeper");
        world.peer.send(&world.here, &[wire(&next)], &[]).await.expect(200);
        world.sees_soon(&room, next.event_id.as_str()).await;
    }
}

/// TX-03: what is sent twice is done once, and the second time is answered like the first.
#[tokio::test(flavor = "multi_thread")]
async fn tx_03_a_transaction_that_comes_again_does_nothing() {
    let world = World::new().await;
    let room = world.shared("11", "again").await;
    let (one, other) = {
        let mut room = room.lock();
        (room.say("one"), room.say("other"))
    };
    let send = async |pdus: &[Value]| {
        let body = json!({ "origin": world.peer.name, "origin_server_ts": 1, "pdus": pdus });
        let uri = "/_matrix/federation/v1/send/the-same";
        world.peer.request(&world.here, Method::PUT, uri, Some(&body)).await.expect(200)
    };
    let first = send(&[wire(&one), json!({ "room_id": "!x:y" })]).await;
    world.sees_soon(&room, one.event_id.as_str()).await;
    assert_eq!(send(&[wire(&one), json!({ "room_id": "!x:y" })]).await, first);
    // Nor is it read again if it holds something else.
    assert_eq!(send(&[wire(&other)]).await, first);
    // By the end of another transaction it would have been seen.
    let foreign = wire(&Room::new(&world.peer, "11", "foreign").lock().say("nowhere"));
    world.peer.send(&world.here, &[foreign], &[]).await.expect(200);
    assert!(!world.sees(&room, other.event_id.as_str()).await);
    world.peer.send(&world.here, &[wire(&other)], &[]).await.expect(200);
    world.sees_soon(&room, other.event_id.as_str()).await;
}

/// Nothing is kept of a room that nobody here is in, however well it is signed.
#[tokio::test(flavor = "multi_thread")]
async fn i10_events_of_rooms_that_nobody_here_is_in_are_dropped() {
    let world = World::new().await;
    let room = world.shared("11", "here").await;
    let foreign = Room::new(&world.peer, "11", "foreign");
    let said = foreign.lock().say("not to be seen");
    let good = room.lock().say("beside it");
    let mut pdus = foreign.lock().state_events();
    pdus.extend([wire(&said), wire(&good)]);
    let answer = world.peer.send(&world.here, &pdus, &[]).await.expect(200);
    assert_eq!(answer["pdus"][good.event_id.as_str()], json!({}), "{answer}");
    world.sees_soon(&room, good.event_id.as_str()).await;
    let id = foreign.lock().id.clone();
    let answer = world.alice.get(&format!("/v3/rooms/{id}/event/{}", said.event_id)).await;
    assert!(matches!(answer.status, 403 | 404), "{answer:?}");
    let sync = world.alice.sync(None, 0).await;
    assert!(!sync.to_string().contains(id.as_str()), "{sync}");
    let database = rusqlite::Connection::open(world.here.server.data_dir().join("hearth.db")).unwrap();
    let kept =
        |question: &str, id: &str| database.query_one(question, [id], |row| row.get::<_, i64>(0)).unwrap();
    let events = "SELECT COUNT(*) FROM event WHERE event_id = ?1";
    assert_eq!(kept(events, good.event_id.as_str()), 1);
    assert_eq!(kept(events, said.event_id.as_str()), 0);
    assert_eq!(kept("SELECT COUNT(*) FROM room WHERE room_id = ?1", id.as_str()), 0);
}

/// JN-10: an answer to a join that never ends is left, and the room with it.
#[tokio::test(flavor = "multi_thread")]
async fn jn_10_answers_to_joins_have_an_end() {
    let world = World::new().await;
    for (endpoint, start, most) in
        [("v1/make_join", "{", 16 << 20), ("v2/send_join", r#"{"state":["#, 128 << 20)]
    {
        let room = Room::new(&world.peer, "11", endpoint.rsplit('/').next().unwrap());
        world.peer.keeps(&room);
        let id = room.lock().id.clone();
        let before = world.peer.taken();
        world.peer.never_ends(&format!("/_matrix/federation/{endpoint}/{id}"), start);
        world.cant_join(&room, endpoint).await;
        let taken = world.peer.taken() - before;
        assert!((CHUNK..most).contains(&taken), "{endpoint}: {taken}");
        assert!(!world.alice.sync(None, 0).await.to_string().contains(id.as_str()), "{endpoint}");
    }
}

/// JN-10: one place in a state has one event, and the room was created once, as the version that was proposed.
#[tokio::test(flavor = "multi_thread")]
async fn jn_10_states_that_contradict_themselves_let_nobody_in() {
    let world = World::new().await;
    let creation = |version: &str| Room::new(&world.peer, version, "twin").lock().state_events();
    let create_of = |state: Vec<Value>| state.into_iter().find(|event| event["type"] == "m.room.create");
    for (what, twice) in [("two names", false), ("created twice", true)] {
        let room = Room::new(&world.peer, "11", &what.replace(' ', "-"));
        world.peer.keeps(&room);
        let (id, creator) = {
            let room = room.lock();
            (room.id.clone(), room.creator.clone())
        };
        let extra = {
            let mut room = room.lock();
            if twice {
                let content = json!({ "room_version": "11", "more": true });
                vec![room.draft_after(&[], &creator, "m.room.create", Some(""), content)]
            } else {
                let one = room.put(&creator, "m.room.name", "", json!({ "name": "one" }));
                let other = room.draft(&creator, "m.room.name", Some(""), json!({ "name": "other" }));
                vec![one, other]
            }
        };
        let mut state = room.lock().state_events();
        state.extend(extra.iter().map(wire));
        world.peer.on(&format!("/_matrix/federation/v2/send_join/{id}"), move |asked| {
            (200, json!({ "state": state, "auth_chain": state, "event": asked.body, "origin": "x" }))
        });
        world.cant_join(&room, what).await;
        let state = world.alice.get(&format!("/v3/rooms/{id}/state")).await;
        assert!(matches!(state.status, 403 | 404), "{what}: {state:?}");
        assert!(!world.alice.sync(None, 0).await.to_string().contains(id.as_str()), "{what}");
    }
    // Of another version than `make_join` said, and of the room that it says.
    let room = Room::new(&world.peer, "11", "twin");
    world.peer.keeps(&room);
    let id = room.lock().id.clone();
    let mut state = room.lock().state_events();
    state.retain(|event| event["type"] != "m.room.create");
    state.extend(create_of(creation("10")));
    world.peer.on(&format!("/_matrix/federation/v2/send_join/{id}"), move |asked| {
        (200, json!({ "state": state, "auth_chain": state, "event": asked.body, "origin": "x" }))
    });
    world.cant_join(&room, "created as another version").await;
}

/// JN-12, JN-13: what comes with an invite has bounds; what is past them isn't kept, and doesn't hide the invite.
#[tokio::test(flavor = "multi_thread")]
async fn jn_13_what_comes_with_an_invite_has_bounds() {
    let world = World::new().await;
    let alice = world.alice.user_id.clone();
    let invite = async |room: &crate::Shared, given: Vec<Value>| {
        let pdu = {
            let room = room.lock();
            let content = json!({ "membership": "invite" });
            room.draft(&room.creator, "m.room.member", Some(&alice), content)
        };
        let version = room.lock().version.clone();
        let body = json!({ "event": wire(&pdu), "room_version": version, "invite_room_state": given });
        let uri = format!("/_matrix/federation/v2/invite/{}/{}", pdu.room_id, pdu.event_id);
        world.peer.request(&world.here, Method::PUT, &uri, Some(&body)).await
    };
    let shown = async |room: &crate::Shared| {
        let id = room.lock().id.clone();
        world.alice.sync(None, 0).await["rooms"]["invite"][id.as_str()].clone()
    };
    let stripped = |name: &str| json!({ "type": "m.room.name", "state_key": "", "sender": world.peer.user("creator"), "content": { "name": name } });
    let room = Room::new(&world.peer, "11", "large");
    let answer = invite(&room, vec![stripped(&"x".repeat(10 << 20)), json!(7), json!({})]).await;
    answer.expect(200);
    let state = shown(&room).await;
    assert!(state.is_object() && state.to_string().len() < 10_000, "{}", state.to_string().len());

    let room = Room::new(&world.peer, "11", "many");
    let many = (0..5000).map(|index| stripped(&format!("name {index}"))).collect();
    invite(&room, many).await.expect(200);
    let state = shown(&room).await;
    assert!(state["invite_state"]["events"].as_array().unwrap().len() <= 51, "{state}");

    // From version 12 on the id of the room is that of the event that created it.
    let room = Room::new(&world.peer, "12", "created");
    let state = room.lock().state_events();
    let create = |event: &&Value| event["type"] == "m.room.create";
    let mut unsigned = state.iter().find(create).unwrap().clone();
    unsigned["signatures"] = json!({});
    let other = Room::new(&world.peer, "12", "another");
    let another = other.lock().draft_after(
        &[],
        &world.peer.user("else"),
        "m.room.create",
        Some(""),
        json!({ "room_version": "12" }),
    );
    for given in [
        Vec::new(),
        state.iter().filter(|event| !create(event)).cloned().collect(),
        vec![stripped("no event")],
        vec![unsigned],
        vec![wire(&another)],
    ] {
        let answer = invite(&room, given.clone()).await;
        assert_eq!(answer.status, 400, "{given:?}: {answer:?}");
        assert_eq!(shown(&room).await, Value::Null, "{given:?}");
    }
    invite(&room, state).await.expect(200);
    assert!(shown(&room).await.is_object());
}

/// JN-12: an invite comes from the server of who invites.
#[tokio::test(flavor = "multi_thread")]
async fn jn_12_nobody_brings_the_invites_of_others() {
    let world = World::new().await;
    let other = Peer::start(&world.authority).await;
    let room = Room::new(&other, "11", "others");
    let pdu = {
        let room = room.lock();
        let content = json!({ "membership": "invite" });
        room.draft(&room.creator, "m.room.member", Some(&world.alice.user_id), content)
    };
    let body = json!({ "event": wire(&pdu), "room_version": "11", "invite_room_state": [] });
    let uri = format!("/_matrix/federation/v2/invite/{}/{}", pdu.room_id, pdu.event_id);
    let answer = world.peer.request(&world.here, Method::PUT, &uri, Some(&body)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.json["event"].is_null(), "nothing is signed");
    other.request(&world.here, Method::PUT, &uri, Some(&body)).await.expect(200);
}

/// JN-12: whoever invites says of which version the room is. If that is a lie, what is true is found out by whoever joins,
/// and nobody is kept out of the room, or of their other rooms, by it.
#[tokio::test(flavor = "multi_thread")]
async fn jn_12_a_lie_about_a_rooms_version_keeps_nobody_out() {
    let mut world = World::new().await;
    let honest = Peer::start(&world.authority).await;
    let invite = async |world: &World, by: &Peer, version: &str, room: &str, times: usize| {
        let told = Room::new(by, version, "told");
        let mut answers = Vec::new();
        for _ in 0..times {
            let pdu = {
                let mut told = told.lock();
                told.id = room.try_into().unwrap();
                let content = json!({ "membership": "invite", "reason": times });
                let inviter = told.creator.clone();
                told.draft(&inviter, "m.room.member", Some(&world.alice.user_id), content)
            };
            let body = json!({ "event": wire(&pdu), "room_version": version, "invite_room_state": [] });
            let uri = format!("/_matrix/federation/v2/invite/{}/{}", pdu.room_id, pdu.event_id);
            answers.push(by.request(&world.here, Method::PUT, &uri, Some(&body)).await);
        }
        answers.pop().unwrap()
    };
    let mut rooms = Vec::new();
    for (index, (truth, before, after)) in [
        ("11", None, Some("10")),
        ("12", None, Some("6")),
        ("6", None, Some("11")),
        ("11", Some("11"), Some("4")),
        ("4", Some("4"), Some("11")),
    ]
    .into_iter()
    .enumerate()
    {
        let room = Room::new(&honest, truth, &format!("lied-about{index}"));
        honest.keeps(&room);
        let id = room.lock().id.clone();
        if let Some(version) = before {
            invite(&world, &honest, version, id.as_str(), 1).await.expect(200);
        }
        if let Some(lie) = after {
            invite(&world, &world.peer, lie, id.as_str(), 120).await.expect(200);
        }
        rooms.push((room, id));
    }
    // What is stored can be read.
    world.here.server.restart().await;
    let sync = world.alice.sync(None, 0).await;
    for (_, id) in &rooms {
        assert!(sync["rooms"]["invite"][id.as_str()].is_object(), "{id}: {sync}");
        world.alice.post(&format!("/v3/join/{id}?via={}", honest.name), json!({})).await.expect(200);
    }
    world.here.server.restart().await;
    let sync = world.alice.sync(None, 0).await;
    for (room, id) in &rooms {
        assert!(sync["rooms"]["join"][id.as_str()].is_object(), "{id}: {sync}");
        let (version, said) = {
            let mut room = room.lock();
            (room.version.clone(), room.say("welcome"))
        };
        honest.send(&world.here, &[wire(&said)], &[]).await.expect(200);
        world.sees_soon(room, said.event_id.as_str()).await;
        let create = world.state(room, "m.room.create").await;
        assert_eq!(create["room_version"], json!(version), "{id}");
        world.alice.get(&format!("/v3/rooms/{id}/messages?dir=b&limit=100")).await.expect(200);
    }
    // Of a room that somebody here was in the version is known.
    let (_, id) = &rooms[0];
    world.alice.post(&format!("/v3/rooms/{id}/leave"), json!({})).await.expect(200);
    for lie in ["10", "4"] {
        let answer = invite(&world, &world.peer, lie, id.as_str(), 1).await;
        assert!(matches!(answer.status, 400 | 403), "{lie}: {answer:?}");
    }
    world.here.server.restart().await;
    let sync = world.alice.sync(None, 0).await;
    assert_eq!(sync["rooms"]["invite"][id.as_str()], Value::Null, "{sync}");
}

/// KY-03: keys are few, and a document is believed for so long as it may be, however long it says.
#[tokio::test(flavor = "multi_thread")]
async fn ky_03_documents_of_keys_have_bounds() {
    const URI: &str = "/_matrix/federation/v1/query/directory?room_alias=%23nothing:localhost";
    let world = World::new().await;
    let document = |peer: &Peer, keys: usize, until: i64| {
        let mut all = json!({});
        for index in 0..keys {
            all[format!("ed25519:k{index}")] = json!({ "key": peer.key.public_key_text() });
        }
        all[peer.key.id().as_str()] = json!({ "key": peer.key.public_key_text() });
        let document = json!({
            "server_name": peer.name, "verify_keys": all, "old_verify_keys": {}, "valid_until_ts": until,
        });
        let mut document: CanonicalJsonObject = serde_json::from_value(document).unwrap();
        peer.key.sign_json(&peer.name, &mut document).unwrap();
        serde_json::to_value(document).unwrap()
    };
    let (year_9999, in_an_hour) = (253_402_214_400_000, i64::from(crate::peer::now().get()) + 3_600_000);
    for (what, keys, until, status) in [
        ("one", 0, in_an_hour, 404),
        ("until the year 9999", 0, year_9999, 404),
        ("65", 64, in_an_hour, 401),
        ("10,000", 10_000, in_an_hour, 401),
    ] {
        let peer = Peer::start(&world.authority).await;
        let answer = document(&peer, keys, until);
        peer.on("/_matrix/key/v2/server", move |_| (200, answer.clone()));
        let answer = peer.request(&world.here, Method::GET, URI, None).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
    let peer = Peer::start(&world.authority).await;
    peer.never_ends("/_matrix/key/v2/server", "{");
    let answer = peer.request(&world.here, Method::GET, URI, None).await;
    assert_eq!(answer.status, 401, "{answer:?}");
    assert!((CHUNK..8 << 20).contains(&peer.taken()), "{}", peer.taken());
    // Others are heard meanwhile and after.
    eventually("another server is believed", || async {
        let answer = world.peer.request(&world.here, Method::GET, URI, None).await;
        (answer.status == 404).then_some(())
    })
    .await;
}
