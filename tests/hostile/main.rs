//! Other servers that lie: real keys and real certificates, and all else as the test says. The names of tests begin with the
//! requirement that they hold this server to.

// A test that can't go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod acl;
mod again;
mod answers;
mod bounds;
#[path = "../common/mod.rs"]
mod common;
mod device_lists;
mod fading;
mod followed;
mod handshakes;
mod hanging_up;
mod kept;
mod messages;
mod peer;
mod proposals;
mod room;
mod silent;
mod splits;
mod storm;
mod transactions;

use serde_json::{Value, json};
use toml::Table;

use self::{
    common::{
        User, eventually,
        federating::{Authority, Federating},
    },
    peer::{Asked, Peer},
    room::{Room, Shared},
};

/// This server, with alice on it, and another.
struct World {
    here: Federating,
    peer: Peer,
    alice: User,
    authority: Authority,
}

impl World {
    async fn new() -> Self {
        let authority = Authority::new();
        let here = Federating::start(&authority, Table::new()).await;
        let peer = Peer::start(&authority).await;
        let alice = here.server.register("alice").await;
        // Until its keys are had it is nobody.
        eventually("the other server is believed", || async {
            (peer.send(&here, &[], &[]).await.status == 200).then_some(())
        })
        .await;
        Self { here, peer, alice, authority }
    }

    /// A room of the other server that alice has joined.
    async fn shared(&self, version: &str, name: &str) -> Shared {
        let room = Room::new(&self.peer, version, name);
        self.peer.keeps(&room);
        self.join(&room).await;
        room
    }

    async fn join(&self, room: &Shared) {
        let id = room.lock().id.clone();
        let path = format!("/v3/join/{id}?via={}", self.peer.name);
        self.alice.post(&path, json!({})).await.expect(200);
    }

    /// Whether alice sees an event.
    async fn sees(&self, room: &Shared, event: &str) -> bool {
        let id = room.lock().id.clone();
        self.alice.get(&format!("/v3/rooms/{id}/event/{event}")).await.status == 200
    }

    /// Waits until alice sees an event: what was sent before it has been judged by then.
    async fn sees_soon(&self, room: &Shared, event: &str) {
        eventually("alice sees an event", || async { self.sees(room, event).await.then_some(()) }).await;
    }

    /// The data of a type that this server has sent, in order.
    fn told(&self, kind: &str) -> Vec<Value> {
        self.told_by_transaction(kind).concat()
    }

    /// The same, for each transaction that it has sent.
    fn told_by_transaction(&self, kind: &str) -> Vec<Vec<Value>> {
        let of_kind = |asked: &Asked| -> Vec<Value> {
            let edus = asked.body["edus"].as_array().into_iter().flatten();
            edus.filter(|edu| edu["edu_type"] == kind).map(|edu| edu["content"].clone()).collect()
        };
        self.peer.asked("/_matrix/federation/v1/send/").iter().map(of_kind).collect()
    }

    /// A state event's content, as alice sees it.
    async fn state(&self, room: &Shared, kind: &str) -> Value {
        let id = room.lock().id.clone();
        self.alice.get(&format!("/v3/rooms/{id}/state/{kind}")).await.json
    }
}

/// The rig itself: a room of the other server, both ways.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_of_another_server_is_joined_and_spoken_in() {
    let world = World::new().await;
    for version in ["6", "10", "11", "12"] {
        let room = world.shared(version, &format!("honest{version}")).await;
        let said = room.lock().say("from there");
        world.peer.send(&world.here, &[peer::wire(&said)], &[]).await.expect(200);
        world.sees_soon(&room, said.event_id.as_str()).await;
        let id = room.lock().id.clone();
        let event_id = world.alice.send_text(id.as_str(), "from here").await;
        let sent = eventually("the message goes out", || async {
            let transactions = world.peer.asked("/_matrix/federation/v1/send/");
            let pdus = transactions.iter().filter_map(|asked| asked.body["pdus"].as_array().cloned());
            pdus.flatten().find(|pdu| pdu["content"]["body"] == "from here" && pdu["room_id"] == id.as_str())
        })
        .await;
        let pdu = hearth_federation::Pdu::from_stored(
            event_id.as_str().try_into().unwrap(),
            sent.to_string(),
            &room.lock().version,
        );
        assert_eq!(pdu.unwrap().prev_events, [said.event_id]);
    }
}
