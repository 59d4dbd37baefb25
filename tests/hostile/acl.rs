//! Servers that a room's access control list doesn't let in: they get nothing of the room, and nothing into it.

use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use hearth_federation::SigningKey;
use http::Method;
use ruma::{CanonicalJsonObject, OwnedEventId};
use serde_json::{Value, json};

use crate::{
    World,
    common::{Answer, eventually},
    kept::{membership, proposed, put, put_honest, room_of_alice, signed},
    peer::wire,
};

/// The text of the error that such a server gets.
const DENIED: &str = "access control list";

fn denied(what: &str, answer: Answer) {
    assert!(answer.text().contains(DENIED), "{what}: {answer:?}");
    answer.expect_error(403, "M_FORBIDDEN");
}

/// AC-01: every endpoint that has a room in its path, and those that name none but an event of it.
#[tokio::test(flavor = "multi_thread")]
async fn ac_01_whom_a_room_does_not_let_in_gets_nothing_of_it() {
    let world = World::new().await;
    let (member, guest) = (world.peer.user("member"), world.peer.user("guest"));
    let bob = world.here.server.register("bob").await;
    let room = room_of_alice(&world).await;
    let join = signed(&world.peer, &proposed(&world, "join", &room, member.as_str()).await);
    put_honest(&world, "join", &room, &join).await;
    let joins = signed(&world.peer, &proposed(&world, "join", &room, guest.as_str()).await);
    let leaves = signed(&world.peer, &proposed(&world, "leave", &room, member.as_str()).await);
    world.alice.send_state(&room, "m.room.join_rules", "", json!({ "join_rule": "knock" })).await;
    let knocks = signed(&world.peer, &proposed(&world, "knock", &room, guest.as_str()).await);
    let last = world.alice.send_text(&room, "to be seen").await;
    let invites = {
        let mut event = wire(&leaves);
        event["content"] = json!({ "membership": "invite" });
        event["state_key"] = json!(bob.user_id);
        signed(&world.peer, &event)
    };

    let path = |version: &str, rest: &str| format!("/_matrix/federation/{version}/{rest}");
    let questions = [
        path("v1", &format!("state/{room}?event_id={last}")),
        path("v1", &format!("state_ids/{room}?event_id={last}")),
        path("v1", &format!("event_auth/{room}/{last}")),
        path("v1", &format!("backfill/{room}?v={last}&limit=1")),
        path("v1", &format!("timestamp_to_event/{room}?ts=1&dir=f")),
        path("v1", &format!("make_leave/{room}/{member}")),
        path("v1", &format!("make_join/{room}/{member}?ver=11")),
        path("v1", &format!("make_knock/{room}/{guest}?ver=11")),
    ];
    // Of these it isn't even told that there is something.
    let hidden = [path("v1", &format!("event/{last}")), path("v1", &format!("hierarchy/{room}"))];
    let missing = path("v1", &format!("get_missing_events/{room}"));
    let ask = async |uri: &str| world.peer.request(&world.here, Method::GET, uri, None).await;
    let ask_missing = async || {
        let body = json!({ "latest_events": [last], "earliest_events": [], "limit": 1 });
        world.peer.request(&world.here, Method::POST, &missing, Some(&body)).await
    };
    for uri in questions.iter().chain(&hidden) {
        ask(uri).await.expect(200);
    }
    ask_missing().await.expect(200);

    let acl = json!({ "allow": ["*"], "deny": [], "allow_ip_literals": false });
    world.alice.send_state(&room, "m.room.server_acl", "", acl).await;
    for uri in &questions {
        denied(uri, ask(uri).await);
    }
    denied(&missing, ask_missing().await);
    for uri in &hidden {
        ask(uri).await.expect_error(404, "M_NOT_FOUND");
    }
    for (handshake, pdu) in [("join", &joins), ("leave", &leaves), ("knock", &knocks), ("join", &join)] {
        denied(handshake, put(&world, handshake, &room, pdu.event_id.as_str(), &wire(pdu)).await);
    }
    let uri = path("v2", &format!("invite/{room}/{}", invites.event_id));
    let body = json!({ "event": wire(&invites), "room_version": "11", "invite_room_state": [] });
    denied("invite", world.peer.request(&world.here, Method::PUT, &uri, Some(&body)).await);
    assert_eq!(membership(&world, &room, bob.user_id.as_str()).await, Value::Null);
    assert_eq!(membership(&world, &room, member.as_str()).await, "join");
    assert_eq!(membership(&world, &room, guest.as_str()).await, Value::Null);
}

/// AC-01: nor are its users invited by this server for being who somebody meant.
#[tokio::test(flavor = "multi_thread")]
async fn ac_01_whom_a_room_does_not_let_in_is_not_asked_to_sign_invites() {
    let world = World::new().await;
    let guest = world.peer.user("guest");
    let room = room_of_alice(&world).await;
    let identity = SigningKey::new("identity", [9; 32]).unwrap();
    let key = BASE64_STANDARD_NO_PAD.decode(identity.public_key_text()).unwrap();
    let key = BASE64_STANDARD_NO_PAD.encode(key);
    let invite = json!({
        "display_name": "g…", "public_key": key, "key_validity_url": "https://identity.invalid/valid",
        "public_keys": [{ "public_key": key }],
    });
    world.alice.send_state(&room, "m.room.third_party_invite", "token", invite).await;
    let mut signed: CanonicalJsonObject =
        serde_json::from_value(json!({ "mxid": guest, "token": "token" })).unwrap();
    identity.sign_json(<&ruma::ServerName>::try_from("identity.invalid").unwrap(), &mut signed).unwrap();
    let body = json!({
        "type": "m.room.member", "room_id": room, "sender": world.alice.user_id, "state_key": guest,
        "content": { "membership": "invite", "third_party_invite": { "display_name": "g…", "signed": signed } },
    });
    let uri = format!("/_matrix/federation/v1/exchange_third_party_invite/{room}");
    let exchange = async || world.peer.request(&world.here, Method::PUT, &uri, Some(&body)).await;
    let asked = || world.peer.asked("/_matrix/federation/v2/invite/").len();

    let acl = |literals: bool| json!({ "allow": ["*"], "deny": [], "allow_ip_literals": literals });
    world.alice.send_state(&room, "m.room.server_acl", "", acl(false)).await;
    denied("exchange", exchange().await);
    assert_eq!(asked(), 0);
    world.alice.send_state(&room, "m.room.server_acl", "", acl(true)).await;
    // What the peer answers is no event; but it was asked.
    exchange().await;
    assert_eq!(asked(), 1);
}

/// AC-02: of what it sends, each part of another room counts.
#[tokio::test(flavor = "multi_thread")]
async fn ac_02_what_it_sends_counts_in_other_rooms_alone() {
    let world = World::new().await;
    let member = world.peer.user("member");
    let (room, open) = (room_of_alice(&world).await, room_of_alice(&world).await);
    let mut after = Vec::new();
    for room in [&room, &open] {
        let join = signed(&world.peer, &proposed(&world, "join", room, member.as_str()).await);
        put_honest(&world, "join", room, &join).await;
        let mut message = wire(&signed(&world.peer, &proposed(&world, "leave", room, member.as_str()).await));
        message["type"] = json!("m.room.message");
        message["content"] = json!({ "msgtype": "m.text", "body": "hello" });
        message.as_object_mut().unwrap().remove("state_key");
        after.push(signed(&world.peer, &message));
    }
    let acl = json!({ "allow": ["*"], "deny": [], "allow_ip_literals": false });
    world.alice.send_state(&room, "m.room.server_acl", "", acl).await;
    let last = world.alice.send_text(&room, "hello").await;
    let since = world.alice.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();

    let last_open: OwnedEventId = world.alice.send_text(&open, "hello").await.try_into().unwrap();
    let receipt =
        |event: &str| json!({ "m.read": { member.as_str(): { "event_ids": [event], "data": { "ts": 1 } } } });
    let typing = |room: &str| json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": member, "typing": true } });
    let receipts = json!({ room.as_str(): receipt(&last), open.as_str(): receipt(last_open.as_str()) });
    let edus = [typing(&room), json!({ "edu_type": "m.receipt", "content": receipts }), typing(&open)];
    let pdus: Vec<Value> = after.iter().map(wire).collect();
    let answer = world.peer.send(&world.here, &pdus, &edus).await.expect(200);
    let verdict = |index: usize| answer["pdus"][after[index].event_id.as_str()].clone();
    assert!(verdict(0)["error"].as_str().unwrap().contains(DENIED), "{answer}");
    assert_eq!(verdict(1), json!({}), "{answer}");

    // Everything that there is of the open room, and nothing of the other.
    eventually("what counts is seen", || async {
        let sync = world.alice.sync(Some(&since), 0).await;
        let closed = sync["rooms"]["join"][room.as_str()].to_string();
        assert!(!closed.contains(member.as_str()), "{closed}");
        let open = sync["rooms"]["join"][open.as_str()].to_string();
        let all = [after[1].event_id.as_str(), "m.typing", "m.receipt"];
        all.iter().all(|part| open.contains(part)).then_some(())
    })
    .await;
}
