//! What another server proposes when somebody here wants to come into one of its rooms or out of it, and what it signs then.

use std::sync::Arc;

use hearth_federation::{Pdu, SigningKey};
use http::Method;
use ruma::RoomVersionId;
use serde_json::{Value, json};

use crate::{
    World,
    common::Answer,
    handshakes::{named, with},
    peer::{Asked, Peer, wire},
    room::{Room, Shared, last},
};

/// What the other server says is the join, signed by it too, when that is sent to it.
type Voucher = Box<dyn Fn(&Pdu) -> Value + Send + Sync>;

impl World {
    /// Alice wants to join a room, knocks at it, or rejects the invite to it that she gets for that.
    async fn asks(&self, handshake: &str, room: &Shared) -> Answer {
        let (id, creator) = named(room);
        if handshake != "leave" {
            return self.alice.post(&format!("/v3/{handshake}/{id}?via={}", self.peer.name), json!({})).await;
        }
        let content = json!({ "membership": "invite" });
        let invite = room.lock().draft(&creator, "m.room.member", Some(&self.alice.user_id), content);
        let uri = format!("/_matrix/federation/v2/invite/{id}/{}", invite.event_id);
        let body = json!({ "event": wire(&invite), "room_version": "11", "invite_room_state": [] });
        self.peer.request(&self.here, Method::PUT, &uri, Some(&body)).await.expect(200);
        self.alice.post(&format!("/v3/rooms/{id}/leave"), json!({})).await
    }

    /// A new room, about which the other server proposes this.
    fn room_with(&self, handshake: &str, name: &str, proposal: impl FnOnce(Value) -> Value) -> Shared {
        let room = Room::new(&self.peer, "11", name);
        self.peer.keeps(&room);
        let honest = room.lock().proposal(&self.alice.user_id);
        let proposal = proposal(with(honest, "/event/content/membership", &json!(handshake)));
        let path = format!("/_matrix/federation/v1/make_{handshake}/{}", room.lock().id);
        self.peer.on(&path, move |_| (200, proposal.clone()));
        room
    }

    /// The events that the other server was sent, all of them signed.
    fn sent(&self, handshake: &str) -> Vec<Value> {
        let version = if handshake == "knock" { "v1" } else { "v2" };
        let sent = self.peer.asked(&format!("/_matrix/federation/{version}/send_{handshake}/"));
        sent.into_iter().map(|asked| asked.body).collect()
    }
}

/// Whatever is proposed in the place of what alice asked for, nothing is signed.
async fn nothing_else_is_signed(handshake: &str) {
    let world = World::new().await;
    let bob = world.alice.user_id.replace("alice", "bob");
    let mut lies = vec![
        ("/event/type", json!("m.room.power_levels")),
        ("/event/type", json!("m.room.message")),
        ("/event/sender", json!(bob)),
        ("/event/state_key", json!(bob)),
        ("/event/state_key", json!("")),
        ("/event/state_key", Value::Null),
        ("/event/room_id", json!("!other:elsewhere")),
        ("/event/content", json!(handshake)),
        ("/event/prev_events", json!("x")),
        ("/event/prev_events", json!(vec!["$a"; 21])),
        ("/event/auth_events", json!(vec!["$a"; 11])),
        ("/event/depth", json!(-1)),
        ("/event/depth", json!(1.5)),
        ("/event", json!([])),
        ("/room_version", json!("org.example.unheard")),
        ("/room_version", json!(11)),
    ];
    let others = ["join", "knock", "leave", "invite", "ban"].into_iter().filter(|other| *other != handshake);
    lies.extend(others.map(|other| ("/event/content/membership", json!(other))));
    for (number, (pointer, lie)) in lies.into_iter().enumerate() {
        let room = world.room_with(handshake, &format!("lie{number}"), |honest| with(honest, pointer, &lie));
        let answer = world.asks(handshake, &room).await;
        let asked = format!("/_matrix/federation/v1/make_{handshake}/{}", room.lock().id);
        assert!(!world.peer.asked(&asked).is_empty(), "{pointer}: {lie}");
        assert_eq!(world.sent(handshake), [] as [Value; 0], "{pointer}: {lie}");
        // Whoever rejects an invite is rid of it all the same (JN-15).
        if handshake == "leave" {
            answer.expect(200);
        } else {
            assert!((400..600).contains(&answer.status), "{pointer}: {lie}: {answer:?}");
            assert!(answer.json["errcode"].is_string(), "{pointer}: {lie}: {answer:?}");
        }
    }
    let rooms = world.alice.sync(None, 0).await["rooms"].take();
    for kind in ["join", "knock", "invite"] {
        assert!(rooms[kind].as_object().is_none_or(serde_json::Map::is_empty), "{rooms}");
    }

    // Neither is what is put besides taken over.
    let room = world.room_with(handshake, "more", |mut more| {
        more["event"]["content"]["displayname"] = json!("not my name");
        more["event"]["content"]["more"] = json!(true);
        more["event"]["origin_server_ts"] = json!(1);
        more["event"]["unsigned"] = json!({ "age": 1 });
        more["event"]["redacts"] = json!("$x");
        more
    });
    for path in ["v1/send_knock", "v2/send_leave"] {
        world.peer.on(&format!("/_matrix/federation/{path}/"), |_| (200, json!({})));
    }
    world.asks(handshake, &room).await.expect(200);
    let sent = world.sent(handshake);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0]["content"]["membership"], handshake);
    assert_eq!(sent[0]["sender"], world.alice.user_id.as_str());
    assert_ne!(sent[0]["content"]["displayname"], "not my name");
    assert_eq!(sent[0]["content"]["more"], Value::Null);
    assert_ne!(sent[0]["origin_server_ts"], json!(1));
    assert_eq!((&sent[0]["unsigned"], &sent[0]["redacts"]), (&Value::Null, &Value::Null));
}

/// CVE-2026-24471: nothing but the join that alice asked for is ever signed.
#[tokio::test(flavor = "multi_thread")]
async fn jn_02_what_another_server_proposes_for_a_join_is_never_signed() {
    nothing_else_is_signed("join").await;
}

/// CVE-2026-24471: the same holds for knocks.
#[tokio::test(flavor = "multi_thread")]
async fn jn_02_what_another_server_proposes_for_a_knock_is_never_signed() {
    nothing_else_is_signed("knock").await;
}

/// CVE-2026-24471: and for leaves, which nobody waits for.
#[tokio::test(flavor = "multi_thread")]
async fn jn_02_what_another_server_proposes_for_a_leave_is_never_signed() {
    nothing_else_is_signed("leave").await;
}

/// JN-01: that this server doesn't know the version of a room is told apart, and which it is.
#[tokio::test(flavor = "multi_thread")]
async fn jn_01_a_room_of_an_unknown_version_is_told_by_its_version() {
    let world = World::new().await;
    for handshake in ["join", "knock"] {
        let version = json!("org.example.unheard");
        let room = world.room_with(handshake, handshake, |honest| with(honest, "/room_version", &version));
        let answer = world.asks(handshake, &room).await;
        let error = answer.expect_error(400, "M_INCOMPATIBLE_ROOM_VERSION");
        assert_eq!(error["room_version"], version, "{handshake}");
        assert!(world.sent(handshake).is_empty(), "{handshake}");
    }
}

/// JN-07: a join that another server has to sign too and doesn't sign rightly is none, and that is its fault.
#[tokio::test(flavor = "multi_thread")]
async fn jn_07_a_join_that_is_not_signed_rightly_is_none() {
    let world = World::new().await;
    let other = Peer::start(&world.authority).await;
    let name = world.peer.name.clone();
    let signed = |key: &SigningKey| {
        let (name, key) = (name.clone(), Arc::new(SigningKey::from_text(&key.to_text()).unwrap()));
        move |pdu: &Pdu| pdu.cosigned(&RoomVersionId::V11, &name, &key).unwrap()
    };
    let (right, wrong) = (signed(&world.peer.key), signed(&other.key));
    let text = |signature: Value| -> Voucher {
        let name = name.clone();
        Box::new(move |pdu| {
            let mut event = wire(pdu);
            event["signatures"][name.as_str()] = signature.clone();
            event
        })
    };
    let (changing, honest) = (right.clone(), right);
    let lies: Vec<(&str, Voucher)> = vec![
        ("no signature", text(json!({}))),
        ("what is none", text(json!({ "ed25519:peer": "none" }))),
        ("nothing", Box::new(|_| Value::Null)),
        ("no event", Box::new(|_| json!([]))),
        ("what no event can hold", Box::new(|_| json!({ "depth": 1.5 }))),
        ("the join as it was sent", Box::new(wire)),
        ("by another key", Box::new(move |pdu| wire(&wrong(pdu)))),
        (
            "of another event",
            Box::new(move |pdu| {
                let mut event = wire(pdu);
                event["depth"] = json!(pdu.depth + 1);
                let id = pdu.event_id.clone();
                wire(&changing(&Pdu::from_stored(id, event.to_string(), &RoomVersionId::V11).unwrap()))
            }),
        ),
    ];
    for (number, (what, lie)) in lies.into_iter().enumerate() {
        let room = restricted(&world, &format!("lie{number}"), lie);
        let answer = world.asks("join", &room).await;
        assert_eq!(
            (answer.status, &answer.json["errcode"]),
            (502, &json!("M_UNKNOWN")),
            "{what}: {answer:?}"
        );
        assert_eq!(world.sent("join").len(), number + 1, "{what}");
    }
    let joined = world.alice.get("/v3/joined_rooms").await.expect(200);
    assert_eq!(joined["joined_rooms"], json!([]));
    // The truth lets her in.
    let room = restricted(&world, "honest", Box::new(move |pdu| wire(&honest(pdu))));
    world.asks("join", &room).await.expect(200);
}

/// A restricted room, of which the other server says that its creator lets alice in.
fn restricted(world: &World, name: &str, voucher: Voucher) -> Shared {
    let room = world.room_with("join", name, |honest| honest);
    let (state, proposal) = {
        let mut room = room.lock();
        let creator = room.creator.clone();
        let allow = json!([{ "type": "m.room_membership", "room_id": "!club:elsewhere" }]);
        let rule = json!({ "join_rule": "restricted", "allow": allow });
        room.put(&creator, "m.room.join_rules", "", rule);
        let mut proposal = room.proposal(&world.alice.user_id);
        let membership = &room.state[&("m.room.member".to_owned(), creator.to_string())];
        proposal["event"]["auth_events"].as_array_mut().unwrap().push(json!(membership.event_id));
        proposal["event"]["content"]["join_authorised_via_users_server"] = json!(creator);
        (room.state_events(), proposal)
    };
    let id = room.lock().id.clone();
    world.peer.on(&format!("/_matrix/federation/v1/make_join/{id}"), move |_| (200, proposal.clone()));
    let send_join = move |asked: &Asked| {
        let id = last(asked).try_into().unwrap();
        let pdu = Pdu::from_stored(id, asked.body.to_string(), &RoomVersionId::V11).unwrap();
        let event = voucher(&pdu);
        (200, json!({ "state": state, "auth_chain": state, "event": event, "origin": "x" }))
    };
    world.peer.on(&format!("/_matrix/federation/v2/send_join/{id}"), send_join);
    room
}
