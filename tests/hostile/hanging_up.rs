//! Clients that hang up while another server has yet to answer: what that has taken is finished here (I1).

use hearth_federation::Pdu;
use ruma::OwnedServerName;
use serde_json::{Value, json};

use crate::{
    World,
    common::eventually,
    handshakes::named,
    kept::{membership, room_of_alice},
    peer::{Asked, wire},
    room::Room,
};

impl World {
    /// A client posts something for which the other server is asked at `path`, and is gone before that answers.
    async fn hangs_up(&self, path: &str, asks: &str, body: Value) {
        let held = self.peer.hold(path);
        let asked = eventually("the other server is asked", || async {
            (!self.peer.asked(path).is_empty()).then_some(())
        });
        tokio::select! {
            answer = self.alice.post(asks, body) => panic!("nobody has answered yet: {answer:?}"),
            () = asked => {}
        }
        // That the client is gone has been noticed when nothing is being answered but this question.
        eventually("the request is gone", || async {
            let metrics = self.here.server.http().get("/metrics", None).await.text();
            let in_flight =
                metrics.lines().find_map(|line| line.strip_prefix("hearth_http_requests_in_flight "));
            (in_flight == Some("1")).then_some(())
        })
        .await;
        held.close();
    }

    /// What alice's membership of a room is, by her own sync.
    async fn way(&self, room: &str) -> Option<String> {
        let sync = self.alice.sync(None, 0).await;
        let ways = sync["rooms"].as_object()?;
        ways.iter().find(|(_, rooms)| rooms.get(room).is_some()).map(|(way, _)| way.clone())
    }

    async fn is_soon(&self, room: &str, way: Option<&str>) {
        let what = format!("alice's way in {room} is {way:?}");
        eventually(&what, || async { (self.way(room).await.as_deref() == way).then_some(()) }).await;
    }
}

/// Of a proposal for a join, one for something else.
fn proposal(room: &Room, asked: &Asked, membership: &str) -> Value {
    let mut proposal = room.proposal(asked.path.rsplit('/').next().unwrap());
    proposal["event"]["content"]["membership"] = json!(membership);
    proposal
}

#[tokio::test(flavor = "multi_thread")]
async fn joins_and_knocks_are_finished_though_nobody_waits() {
    let world = World::new().await;
    let (joined, knocked) = (Room::new(&world.peer, "11", "joined"), Room::new(&world.peer, "11", "knocked"));
    let id = joined.lock().id.clone();
    world.peer.keeps(&joined);
    let asks = format!("/v3/join/{id}?via={}", world.peer.name);
    world.hangs_up(&format!("/_matrix/federation/v2/send_join/{id}"), &asks, json!({})).await;
    world.is_soon(id.as_str(), Some("join")).await;

    let (id, creator) = named(&knocked);
    knocked.lock().put(&creator, "m.room.join_rules", "", json!({ "join_rule": "knock" }));
    world.peer.on(&format!("/_matrix/federation/v1/make_knock/{id}"), move |asked| {
        (200, proposal(&knocked.lock(), asked, "knock"))
    });
    let path = format!("/_matrix/federation/v1/send_knock/{id}");
    world.peer.on(&path, |_| (200, json!({ "knock_room_state": [] })));
    let asks = format!("/v3/knock/{id}?via={}", world.peer.name);
    world.hangs_up(&path, &asks, json!({})).await;
    world.is_soon(id.as_str(), Some("knock")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invites_that_are_rejected_stay_so_though_nobody_waits() {
    let world = World::new().await;
    let room = Room::new(&world.peer, "11", "invites");
    let (id, creator) = named(&room);
    let content = json!({ "membership": "invite" });
    let invite = room.lock().draft(&creator, "m.room.member", Some(&world.alice.user_id), content);
    room.lock().add(invite.clone());
    let uri = format!("/_matrix/federation/v2/invite/{id}/{}", invite.event_id);
    let body = json!({ "event": wire(&invite), "room_version": "11", "invite_room_state": [] });
    world.peer.request(&world.here, http::Method::PUT, &uri, Some(&body)).await.expect(200);
    world.is_soon(id.as_str(), Some("invite")).await;

    world.peer.on(&format!("/_matrix/federation/v1/make_leave/{id}"), move |asked| {
        (200, proposal(&room.lock(), asked, "leave"))
    });
    let path = format!("/_matrix/federation/v2/send_leave/{id}");
    world.peer.on(&path, |_| (200, json!({})));
    world.hangs_up(&path, &format!("/v3/rooms/{id}/leave"), json!({})).await;
    world.is_soon(id.as_str(), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invites_that_were_signed_are_sent_though_nobody_waits() {
    let world = World::new().await;
    let room = room_of_alice(&world).await;
    let guest = world.peer.user("guest");
    let path = format!("/_matrix/federation/v2/invite/{room}");
    let (name, key) = (world.peer.name.clone(), world.peer.key.to_text());
    world.peer.on(&path, move |asked| (200, json!({ "event": cosigned(&asked.body["event"], &name, &key) })));
    world.hangs_up(&path, &format!("/v3/rooms/{room}/invite"), json!({ "user_id": guest })).await;
    eventually("the guest is invited", || async {
        (membership(&world, &room, guest.as_str()).await == "invite").then_some(())
    })
    .await;
}

/// An event of version 11, signed by one more server.
fn cosigned(event: &Value, name: &OwnedServerName, key: &str) -> Value {
    let key = hearth_federation::SigningKey::from_text(key).unwrap();
    let id = "$irrelevant".try_into().unwrap();
    let version = ruma::RoomVersionId::V11;
    let pdu = Pdu::from_stored(id, event.to_string(), &version).unwrap();
    wire(&pdu.cosigned(&version, name, &key).unwrap())
}
