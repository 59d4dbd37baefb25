//! Rooms that this server keeps, and how another's users get in and out of them.

use hearth_federation::{Draft, Limits, Pdu, Position};
use http::Method;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, RoomVersionId};
use serde_json::{Value, json, value::to_raw_value};

use crate::{
    World,
    common::Answer,
    peer::{Peer, wire},
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
