//! Joins and invites with a server that lies, on either side of them.

use hearth_federation::Pdu;
use http::Method;
use ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};
use serde_json::{Value, json};

use crate::{
    Shared, World,
    peer::{Peer, wire},
    room::{Room, message},
};

/// What becomes of a state.
type Lie = Box<dyn Fn(&mut Vec<Value>)>;
/// A document of keys, made by a server and one that has nothing to do with it.
type Document = fn(&Peer, &Peer) -> Value;

impl World {
    /// Alice tries to join a room, and can't.
    pub(crate) async fn cant_join(&self, room: &Shared, what: &str) {
        let id = room.lock().id.clone();
        let answer = self.alice.post(&format!("/v3/join/{id}?via={}", self.peer.name), json!({})).await;
        assert!((400..600).contains(&answer.status), "{what}: {answer:?}");
        assert!(answer.json["errcode"].is_string(), "{what}: {answer:?}");
        let joined = self.alice.get("/v3/joined_rooms").await.expect(200);
        assert!(!joined.to_string().contains(id.as_str()), "{what}: {joined}");
    }
}

/// A room's id and its creator.
pub(crate) fn named(room: &Shared) -> (OwnedRoomId, OwnedUserId) {
    let room = room.lock();
    (room.id.clone(), room.creator.clone())
}

/// Puts a value at a path of a JSON text, such as `/event/type`.
pub(crate) fn with(mut value: Value, pointer: &str, new: &Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    value.pointer_mut(parent).unwrap()[key] = new.clone();
    value
}

/// JN-07: that a server can't let alice in is no fault of any server's: she may not join.
#[tokio::test(flavor = "multi_thread")]
async fn jn_07_whom_another_server_cannot_let_in_may_not_join() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "closed");
    let id = room.lock().id.clone();
    for errcode in ["M_UNABLE_TO_AUTHORISE_JOIN", "M_UNABLE_TO_GRANT_JOIN"] {
        let refusal = json!({ "errcode": errcode, "error": "not by this server" });
        world.peer.on(&format!("/_matrix/federation/v1/make_join/{id}"), move |_| (400, refusal.clone()));
        let answer = world.alice.post(&format!("/v3/join/{id}?via={}", world.peer.name), json!({})).await;
        let answer = answer.expect_error(403, "M_FORBIDDEN");
        assert_eq!(answer["error"], "not by this server", "{errcode}");
    }
}

/// JN-09: where somebody says whom to ask nobody else is. Whose a room's id is says nothing about who is in it.
#[tokio::test(flavor = "multi_thread")]
async fn jn_09_the_servers_that_are_named_are_asked() {
    let world = World::new().await;
    let unable = Peer::start(&world.authority).await;
    let refusal = json!({ "errcode": "M_UNABLE_TO_GRANT_JOIN", "error": "not by this server" });
    unable.on("/_matrix/federation/v1/make_join/", move |_| (400, refusal.clone()));
    let join = async |room: &Shared, via: &str| {
        world.peer.keeps(room);
        let id = room.lock().id.clone();
        world.alice.post(&format!("/v3/join/{id}{via}"), json!({})).await
    };
    let room = Room::new(&world.peer, "11", "elsewhere");
    join(&room, &format!("?via={}", unable.name)).await.expect_error(403, "M_FORBIDDEN");
    assert_eq!(world.peer.asked("/_matrix/federation/v1/make_join/").len(), 0);
    join(&room, &format!("?via={}&via={}", unable.name, world.peer.name)).await.expect(200);
    assert_eq!(unable.asked("/_matrix/federation/v1/make_join/").len(), 2);
    // Neither are those that were in it when this server left it.
    let id = room.lock().id.clone();
    world.alice.post(&format!("/v3/rooms/{id}/leave"), json!({})).await.expect(200);
    join(&room, &format!("?via={}", unable.name)).await.expect_error(403, "M_FORBIDDEN");
    join(&room, "").await.expect(200);
    // The id is all that is known where nobody is named.
    join(&Room::new(&world.peer, "11", "named"), "").await.expect(200);
}

/// What the request says beside it is in the join that another server is sent; what no event can hold isn't sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_elsewhere_has_what_its_request_says_beside_it() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "said");
    world.peer.keeps(&room);
    let path = format!("/v3/join/{}?via={}", named(&room).0, world.peer.name);
    let big = json!({ "org.example": "x".repeat(70_000) });
    world.alice.post(&path, big).await.expect_error(413, "M_TOO_LARGE");
    world.alice.post(&path, json!({ "org.example": 1.5 })).await.expect_error(400, "M_BAD_JSON");
    assert!(world.peer.asked("/_matrix/federation/v2/send_join/").is_empty());

    let said =
        json!({ "org.example": { "of": "spring" }, "reason": "rain", "membership": "ban", "displayname": 5 });
    world.alice.post(&path, said).await.expect(200);
    let sent = world.peer.asked("/_matrix/federation/v2/send_join/");
    let expected = json!({ "membership": "join", "org.example": { "of": "spring" }, "reason": "rain" });
    assert_eq!(sent[0].body["content"], expected);
}

/// What the state of a room is said to be is judged event by event.
#[tokio::test(flavor = "multi_thread")]
async fn jn_06_states_that_lie_let_nobody_in() {
    let world = World::new().await;
    let other = Room::new(&world.peer, "11", "other");
    let of_other = other.lock().state_events();
    let without = |kind: &'static str| -> Lie {
        Box::new(move |state: &mut Vec<Value>| state.retain(|event| event["type"] != kind))
    };
    let lies: Vec<(&str, Lie)> = vec![
        ("no create event", without("m.room.create")),
        ("no rule for joins", without("m.room.join_rules")),
        ("nothing", Box::new(Vec::clear)),
        ("another room's", Box::new(move |state| *state = of_other.clone())),
        ("unsigned", Box::new(|state| state.iter_mut().for_each(|event| event["signatures"] = json!({})))),
        (
            "no events",
            Box::new(|state| *state = vec![json!(7), json!({}), Value::Null, json!("x"), json!([])]),
        ),
    ];
    for (index, (what, lie)) in lies.into_iter().enumerate() {
        let room = Room::new(&world.peer, "11", &format!("lie{index}"));
        world.peer.keeps(&room);
        let mut state = room.lock().state_events();
        lie(&mut state);
        let id = room.lock().id.clone();
        world.peer.on(&format!("/_matrix/federation/v2/send_join/{id}"), move |asked| {
            let answer = json!({
                "state": state, "auth_chain": state, "event": asked.body, "members_omitted": false, "origin": "x",
            });
            (200, answer)
        });
        world.cant_join(&room, what).await;
        // The truth lets her in.
        world.peer.keeps(&room);
        world.join(&room).await;
    }
    for (what, answer) in [
        ("not an object", json!([])),
        ("no state", json!({ "auth_chain": [], "event": {} })),
        ("a state that is none", json!({ "state": 7, "auth_chain": 7 })),
        ("members that nobody left out", json!({ "state": [], "auth_chain": [], "members_omitted": true })),
    ] {
        let room = Room::new(&world.peer, "11", &format!("form{}", what.len()));
        world.peer.keeps(&room);
        let id = room.lock().id.clone();
        world.peer.on(&format!("/_matrix/federation/v2/send_join/{id}"), move |_| (200, answer.clone()));
        world.cant_join(&room, what).await;
    }
}

/// One bad event of a state doesn't matter to the others (I7), and isn't in the room.
#[tokio::test(flavor = "multi_thread")]
async fn i7_a_forged_event_in_a_state_is_left_out() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "forged");
    world.peer.keeps(&room);
    let creator = room.lock().creator.clone();
    let stranger = world.peer.user("stranger");
    let topic = room.lock().draft(&stranger, "m.room.topic", Some(""), json!({ "topic": "not to be seen" }));
    let mut unsigned =
        wire(&room.lock().draft(&creator, "m.room.name", Some(""), json!({ "name": "forged" })));
    unsigned["signatures"] = json!({});
    let mut state = room.lock().state_events();
    state.extend([wire(&topic), unsigned]);
    let id = room.lock().id.clone();
    world.peer.on(&format!("/_matrix/federation/v2/send_join/{id}"), move |asked| {
        let answer = json!({ "state": state, "auth_chain": state, "event": asked.body, "origin": "x" });
        (200, answer)
    });
    world.join(&room).await;
    assert_eq!(world.state(&room, "m.room.topic").await["topic"], Value::Null);
    assert_eq!(world.state(&room, "m.room.name").await["name"], Value::Null);
    assert_eq!(world.state(&room, "m.room.join_rules").await["join_rule"], "public");
}

/// JN-06: an event of a state can't be judged without those that it cites. What an answer lacks of these is asked for, and a
/// server that hasn't got it is of no help.
#[tokio::test(flavor = "multi_thread")]
async fn jn_06_what_a_state_cites_and_lacks_is_asked_for() {
    let world = World::new().await;
    for gives in [true, false] {
        let room = Room::new(&world.peer, "11", &format!("lacks{gives}"));
        let moderator = world.peer.user("moderator");
        let joined = json!({ "membership": "join" });
        let renamed = json!({ "membership": "join", "displayname": "Other" });
        let before = {
            let mut room = room.lock();
            let (creator, key) = (room.creator.clone(), moderator.as_str());
            let levels = json!({ "users": { creator.as_str(): 100, key: 50 }, "state_default": 50 });
            room.put(&creator, "m.room.power_levels", "", levels);
            let before = room.put(&moderator, "m.room.member", key, joined);
            room.put(&moderator, "m.room.topic", "", json!({ "topic": "cites what was before" }));
            room.put(&moderator, "m.room.member", key, renamed);
            before
        };
        world.peer.keeps(&room);
        if gives {
            world.join(&room).await;
            assert_eq!(world.state(&room, "m.room.topic").await["topic"], "cites what was before");
        } else {
            room.lock().events.remove(&before.event_id);
            let id = room.lock().id.clone();
            let path = format!("/v3/join/{id}?via={}", world.peer.name);
            let answer = world.alice.post(&path, json!({})).await;
            assert!(answer.status >= 400, "{answer:?}");
            let error = answer.json["error"].as_str().unwrap();
            assert!(error.contains(before.event_id.as_str()), "{error}");
            world.cant_join(&room, "what allowed the topic isn't to be had").await;
        }
    }
}

/// A join as a peer builds it from what this server proposes, changed.
struct Visit {
    room: String,
    proposal: Value,
}

impl Visit {
    async fn new(world: &World, version: &str, user: &str) -> Self {
        let body = json!({ "preset": "public_chat", "room_version": version });
        let room = world.alice.create_room(body).await;
        let uri = format!("/_matrix/federation/v1/make_join/{room}/{user}?ver={version}");
        let proposal = world.peer.request(&world.here, Method::GET, &uri, None).await.expect(200);
        Self { room, proposal }
    }

    fn sign(&self, by: &Peer, change: impl FnOnce(&mut Value)) -> Pdu {
        let mut event = self.proposal["event"].clone();
        change(&mut event);
        let draft = hearth_federation::Draft {
            room_id: event["room_id"].as_str().map(|id| id.try_into().unwrap()),
            sender: event["sender"].as_str().unwrap().try_into().unwrap(),
            kind: event["type"].as_str().unwrap().into(),
            state_key: event["state_key"].as_str().map(str::to_owned),
            content: serde_json::value::to_raw_value(&event["content"]).unwrap(),
            redacts: None,
        };
        let ids = |field: &str| serde_json::from_value::<Vec<OwnedEventId>>(event[field].clone()).unwrap();
        let depth = event["depth"].as_i64().unwrap();
        let position = hearth_federation::Position::new(
            ids("prev_events"),
            ids("auth_events"),
            depth,
            ruma::MilliSecondsSinceUnixEpoch::now(),
        );
        let limits = hearth_federation::Limits::FEDERATED;
        draft.build(&RoomVersionId::V11, position, &by.name, &by.key, limits).unwrap()
    }
}

/// JN-03: what is sent as a join is one, of the server that sends it, and of the room and the id in the path.
#[tokio::test(flavor = "multi_thread")]
async fn jn_03_joins_that_are_sent_are_what_they_say() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let other = Peer::start(&world.authority).await;
    let visit = Visit::new(&world, "11", guest.as_str()).await;
    let second = world.alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
    let set = |pointer: &'static str, value: Value| {
        move |event: &mut Value| {
            *event = with(json!({ "event": event.clone() }), pointer, &value)["event"].take();
        }
    };
    let cases: Vec<(&str, Pdu, Option<String>)> = vec![
        ("a leave", visit.sign(&world.peer, set("/event/content/membership", json!("leave"))), None),
        (
            "a message",
            visit.sign(&world.peer, |event| {
                event["type"] = json!("m.room.message");
                event["content"] = message("hello");
                event.as_object_mut().unwrap().remove("state_key");
            }),
            None,
        ),
        ("another's", visit.sign(&world.peer, set("/event/state_key", json!("@else:127.0.0.1:1"))), None),
        (
            "of this server",
            visit.sign(&world.peer, |event| {
                event["sender"] = json!(world.alice.user_id);
                event["state_key"] = json!(world.alice.user_id);
            }),
            None,
        ),
        (
            "of a third server",
            visit.sign(&other, |event| {
                event["sender"] = json!(other.user("guest"));
                event["state_key"] = json!(other.user("guest"));
            }),
            None,
        ),
        ("signed by a third server", visit.sign(&other, |_| {}), None),
        ("of another room", visit.sign(&world.peer, set("/event/room_id", json!(second))), None),
        ("to another room", visit.sign(&world.peer, |_| {}), Some(second.clone())),
        (
            "vouched for by nobody",
            visit.sign(&world.peer, |event| {
                event["content"]["join_authorised_via_users_server"] = json!("@nobody:127.0.0.1:1");
            }),
            None,
        ),
        ("allowed by nothing", visit.sign(&world.peer, set("/event/auth_events", json!([]))), None),
    ];
    for (what, pdu, to) in cases {
        let to = to.unwrap_or_else(|| visit.room.clone());
        let uri = format!("/_matrix/federation/v2/send_join/{to}/{}", pdu.event_id);
        let answer = world.peer.request(&world.here, Method::PUT, &uri, Some(&wire(&pdu))).await;
        assert!(matches!(answer.status, 400 | 403 | 404), "{what}: {answer:?}");
        assert!(answer.json["errcode"].is_string(), "{what}: {answer:?}");
        assert!(answer.json["event"].is_null(), "{what}: nothing is signed");
    }
    let pdu = visit.sign(&world.peer, |_| {});
    let uri = |id: &str| format!("/_matrix/federation/v2/send_join/{}/{id}", visit.room);
    let wrong = world.peer.request(&world.here, Method::PUT, &uri("$wrong"), Some(&wire(&pdu))).await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
    for nonsense in [json!(7), json!({}), json!([])] {
        let answer =
            world.peer.request(&world.here, Method::PUT, &uri(pdu.event_id.as_str()), Some(&nonsense)).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    let members = world.alice.get(&format!("/v3/rooms/{}/joined_members", visit.room)).await.expect(200);
    assert_eq!(members["joined"].as_object().unwrap().len(), 1);
    let uri = uri(pdu.event_id.as_str());
    let answer = world.peer.request(&world.here, Method::PUT, &uri, Some(&wire(&pdu))).await.expect(200);
    assert!(answer["state"].as_array().is_some_and(|state| state.len() > 3), "{answer}");
}

/// JN-01: nobody asks for the joins of users of others.
#[tokio::test(flavor = "multi_thread")]
async fn jn_01_proposals_are_for_ones_own_users() {
    let world = World::new().await;
    let room = world.alice.create_room(json!({ "preset": "public_chat" })).await;
    for handshake in ["make_join", "make_leave", "make_knock"] {
        for user in [&*world.alice.user_id, "@somebody:127.0.0.1:1"] {
            let uri = format!("/_matrix/federation/v1/{handshake}/{room}/{user}?ver=12");
            let answer = world.peer.request(&world.here, Method::GET, &uri, None).await;
            answer.expect_error(403, "M_FORBIDDEN");
        }
    }
    let user = world.peer.user("guest");
    let uri = format!("/_matrix/federation/v1/make_join/{room}/{user}?ver=1");
    let answer = world.peer.request(&world.here, Method::GET, &uri, None).await;
    let answer = answer.expect_error(400, "M_INCOMPATIBLE_ROOM_VERSION");
    assert_eq!(answer["room_version"], "12");
}

/// JN-12: an invite is signed only if it is one, of who sends it, for somebody here.
#[tokio::test(flavor = "multi_thread")]
async fn jn_12_invites_that_lie_are_not_signed() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "invites");
    let (id, creator) = {
        let room = room.lock();
        (room.id.clone(), room.creator.clone())
    };
    let alice = world.alice.user_id.clone();
    let member = |sender: &OwnedUserId, key: &str, membership: &str| {
        room.lock().draft(sender, "m.room.member", Some(key), json!({ "membership": membership }))
    };
    let honest = member(&creator, &alice, "invite");
    let mut unsigned = wire(&honest);
    unsigned["signatures"] = json!({});
    let of_alice = OwnedUserId::try_from(alice.as_str()).unwrap();
    let body = |event: Value, version: &str| json!({ "event": event, "room_version": version, "invite_room_state": [] });
    let invite = async |room: &str, id: &str, body: &Value| {
        let uri = format!("/_matrix/federation/v2/invite/{room}/{id}");
        world.peer.request(&world.here, Method::PUT, &uri, Some(body)).await
    };
    let mut cases: Vec<(&str, String, String, Value)> = vec![
        ("unsigned", id.to_string(), honest.event_id.to_string(), body(unsigned, "11")),
        ("another id", id.to_string(), "$other".to_owned(), body(wire(&honest), "11")),
        (
            "another room",
            "!other:elsewhere".to_owned(),
            honest.event_id.to_string(),
            body(wire(&honest), "11"),
        ),
        ("another version", id.to_string(), honest.event_id.to_string(), body(wire(&honest), "nonsense")),
        ("no version", id.to_string(), honest.event_id.to_string(), body(wire(&honest), &"x".repeat(33))),
        ("no event", id.to_string(), honest.event_id.to_string(), body(json!(7), "11")),
    ];
    for (what, pdu) in [
        ("a join", member(&creator, &alice, "join")),
        ("a ban", member(&creator, &alice, "ban")),
        ("nobody's", member(&creator, "@nobody:127.0.0.1:1", "invite")),
        ("of this server", member(&of_alice, &alice, "invite")),
        ("a message", room.lock().draft(&creator, "m.room.message", None, message("hello"))),
    ] {
        cases.push((what, id.to_string(), pdu.event_id.to_string(), body(wire(&pdu), "11")));
    }
    for (what, room, event, body) in cases {
        let answer = invite(&room, &event, &body).await;
        assert!(matches!(answer.status, 400 | 403 | 404), "{what}: {answer:?}");
        assert!(answer.json["errcode"].is_string(), "{what}: {answer:?}");
    }
    // CJ-04: what isn't JSON that an event can hold is told apart.
    let mut float = wire(&honest);
    float["content"]["float"] = json!(1.5);
    let answer = invite(id.as_str(), honest.event_id.as_str(), &body(float, "11")).await;
    answer.expect_error(400, "M_BAD_JSON");
    let sync = world.alice.sync(None, 0).await;
    assert_eq!(sync["rooms"]["invite"][id.as_str()], Value::Null, "{sync}");
    let answer = invite(id.as_str(), honest.event_id.as_str(), &body(wire(&honest), "11")).await.expect(200);
    assert!(answer["event"]["signatures"][world.here.name.as_str()].is_object(), "{answer}");
    let sync = world.alice.sync(None, 0).await;
    assert!(sync["rooms"]["invite"][id.as_str()].is_object(), "{sync}");
}

/// SS Leaving: of an invite to a room that this server isn't in, whoever made it alone can say that it holds no more.
#[tokio::test(flavor = "multi_thread")]
async fn an_invite_is_taken_back_by_whoever_made_it_alone() {
    let world = World::new().await;
    for end in ["leave", "ban"] {
        let room = Room::new(&world.peer, "11", &format!("until{end}"));
        let (id, creator) = named(&room);
        let (inviter, mallory) = (creator, world.peer.user("mallory"));
        let alice = world.alice.user_id.clone();
        let invite = {
            let mut room = room.lock();
            room.put(&mallory, "m.room.member", mallory.as_str(), json!({ "membership": "join" }));
            room.put(&inviter, "m.room.member", &alice, json!({ "membership": "invite" }))
        };
        let uri = format!("/_matrix/federation/v2/invite/{id}/{}", invite.event_id);
        let body = json!({ "event": wire(&invite), "room_version": "11", "invite_room_state": [] });
        world.peer.request(&world.here, Method::PUT, &uri, Some(&body)).await.expect(200);
        let ends = async |sender: &OwnedUserId| {
            let content = json!({ "membership": end });
            let event = room.lock().draft(sender, "m.room.member", Some(&alice), content);
            assert!(event.auth_events.contains(&invite.event_id), "{event:?}");
            let answer = world.peer.send(&world.here, &[wire(&event)], &[]).await.expect(200);
            answer["pdus"][event.event_id.as_str()]["error"].clone()
        };
        let invites = async || world.alice.sync(None, 0).await["rooms"]["invite"].clone();
        assert!(ends(&mallory).await.is_string(), "{end}");
        assert!(invites().await[id.as_str()].is_object(), "{end}: {}", invites().await);
        assert_eq!(ends(&inviter).await, Value::Null, "{end}");
        assert_eq!(invites().await[id.as_str()], Value::Null, "{end}");
    }
}

/// JN-15: whoever doesn't want an invite is rid of it, also if the server that sent it helps with nothing, or is no more.
#[tokio::test(flavor = "multi_thread")]
async fn jn_15_an_invite_is_rejected_without_the_server_it_came_from() {
    let world = World::new().await;
    let gone = Peer::start(&world.authority).await;
    let mut rooms = Vec::new();
    for (inviting, name) in [(&world.peer, "unhelpful"), (&gone, "gone")] {
        let room = Room::new(inviting, "11", name);
        let (id, creator) = named(&room);
        let content = json!({ "membership": "invite" });
        let invite = room.lock().draft(&creator, "m.room.member", Some(&world.alice.user_id), content);
        let uri = format!("/_matrix/federation/v2/invite/{id}/{}", invite.event_id);
        let body = json!({ "event": wire(&invite), "room_version": "11", "invite_room_state": [] });
        inviting.request(&world.here, Method::PUT, &uri, Some(&body)).await.expect(200);
        rooms.push(id);
    }
    drop(gone);
    let sync = world.alice.sync(None, 0).await;
    assert_eq!(sync["rooms"]["invite"].as_object().unwrap().len(), 2, "{sync}");
    for id in rooms {
        world.alice.post(&format!("/v3/rooms/{id}/leave"), json!({})).await.expect(200);
    }
    let sync = world.alice.sync(None, 0).await;
    assert!(sync["rooms"].get("invite").is_none_or(|rooms| rooms.as_object().unwrap().is_empty()), "{sync}");
}

/// Threats: keys that aren't the server's make nobody believed.
#[tokio::test(flavor = "multi_thread")]
async fn ky_01_keys_that_lie_are_not_believed() {
    let world = World::new().await;
    let good = Peer::start(&world.authority).await;
    let document = good.request(&world.here, Method::GET, "/_matrix/federation/v1/version", None).await;
    document.expect(200);
    let lies: [(&str, Document); 4] = [
        ("another server's", |_, good| document_of(good, good.name.as_str())),
        ("another's under this name", |peer, good| document_of(good, peer.name.as_str())),
        ("unsigned", |peer, _| with(document_of(peer, peer.name.as_str()), "/signatures", &json!({}))),
        ("over", |peer, _| with(document_of(peer, peer.name.as_str()), "/valid_until_ts", &json!(1))),
    ];
    for (what, lie) in lies {
        let peer = Peer::start(&world.authority).await;
        let document = lie(&peer, &good);
        peer.on("/_matrix/key/v2/server", move |_| (200, document.clone()));
        let uri = "/_matrix/federation/v1/query/directory?room_alias=%23nothing:localhost";
        let answer = peer.request(&world.here, Method::GET, uri, None).await;
        assert_eq!(answer.status, 401, "{what}: {answer:?}");
        assert!(!peer.asked("/_matrix/key/v2/server").is_empty(), "{what}");
    }
}

/// A document that `peer` has signed with its keys, as if they were those of `name`.
fn document_of(peer: &Peer, name: &str) -> Value {
    let name = <&ruma::ServerName>::try_from(name).unwrap();
    let now = ruma::MilliSecondsSinceUnixEpoch::now();
    let document = hearth_federation::own_server_keys(name, &[&peer.key], &[], now);
    serde_json::from_str(&document).unwrap()
}
