//! A server that has come into a room when its keys couldn't be had: the room must not become two for that.

use std::{sync::Arc, time::Duration};

use hearth_federation::Pdu;
use ruma::OwnedUserId;
use serde_json::json;

use crate::{
    World,
    common::{device::Device, eventually, eventually_within, history::ids},
    peer::{Peer, wire},
    room::{Room, Shared, message},
};

const KEYS: &str = "/_matrix/key/v2/server";

/// A room of one server, and another whose member's events can't be verified yet.
struct Split {
    world: World,
    other: Peer,
    member: OwnedUserId,
    room: Shared,
}

impl Split {
    async fn new(name: &str) -> Self {
        let world = World::new().await;
        let other = Peer::start(&world.authority).await;
        other.on(KEYS, |_| (503, json!({})));
        let member = other.user("member");
        let room = Room::new(&world.peer, "11", name);
        room.lock().signs(&other.name, &other.key);
        world.peer.keeps(&room);
        Self { world, other, member, room }
    }

    /// The other server's member sets some state.
    fn put_by_member(&self, kind: &str, key: &str, content: serde_json::Value) -> Pdu {
        self.room.lock().put(&self.member, kind, key, content)
    }

    fn member_joins(&self) {
        self.put_by_member("m.room.member", self.member.as_str(), json!({ "membership": "join" }));
    }

    /// An event comes that follows one which nobody gives. Returns that one.
    async fn gap(&self) -> Pdu {
        let (hidden, after) = self.after_gap();
        self.arrives(&after).await;
        hidden
    }

    /// One that nobody gives, and one that follows it.
    fn after_gap(&self) -> (Pdu, Pdu) {
        let mut room = self.room.lock();
        let hidden = room.say("nobody gives this");
        room.events.remove(&hidden.event_id);
        (hidden, room.say("after the gap"))
    }

    async fn arrives(&self, pdu: &Pdu) {
        self.world.peer.send(&self.world.here, &[wire(pdu)], &[]).await.expect(200);
        self.world.sees_soon(&self.room, pdu.event_id.as_str()).await;
    }

    /// The keys of the other server can be had from now on.
    fn heal(&self) {
        let document =
            hearth_federation::own_server_keys(&self.other.name, &[&self.other.key], &[], crate::peer::now());
        let document: serde_json::Value = serde_json::from_str(&document).unwrap();
        self.other.on(KEYS, move |_| (200, document.clone()));
        self.other.keeps(&self.room);
    }

    /// What the member says is seen, and the member is known.
    async fn member_speaks(&self) {
        let said = self.room.lock().said_by(&self.member, "here I am");
        self.is_heard(&said).await;
        self.world.sees_soon(&self.room, said.event_id.as_str()).await;
        assert!(self.knows_member().await);
    }

    async fn knows_member(&self) -> bool {
        let content = self.world.state(&self.room, &format!("m.room.member/{}", self.member)).await;
        content["membership"] == "join"
    }

    /// The other server sends an event, until it is believed to be who it says it is.
    async fn is_heard(&self, pdu: &Pdu) {
        eventually("the other server is believed", || async {
            let answer = self.other.send(&self.world.here, &[wire(pdu)], &[]).await;
            (answer.status == 200).then_some(())
        })
        .await;
    }
}

/// SR-11: what comes of it is judged by the state as it is, though the state as it was known here lacked its members.
#[tokio::test(flavor = "multi_thread")]
async fn sr_11_a_server_whose_keys_come_late_is_not_refused_for_good() {
    let split = Split::new("late").await;
    split.world.join(&split.room).await;
    split.member_joins();
    let hidden = split.gap().await;
    assert!(!split.knows_member().await, "the member can't be verified");
    split.heal();
    // The join becomes known as part of the history, which changes nothing of the state after it.
    split.room.lock().events.insert(hidden.event_id.clone(), hidden.clone());
    let page = format!("/v3/rooms/{}/messages?dir=b&limit=100", split.room.lock().id);
    eventually("the history comes", || async {
        let page = split.world.alice.get(&page).await.expect(200).to_string();
        (page.contains(hidden.event_id.as_str()) && page.contains(split.member.as_str())).then_some(())
    })
    .await;
    // It is had by a question, so nothing has asked for the state when it is judged.
    let first = split.room.lock().said_by(&split.member, "had by a question");
    split.member_speaks().await;
    assert!(split.world.sees(&split.room, first.event_id.as_str()).await);
    // The doubt has an end: what nobody allows is rejected again.
    let stranger = split.other.user("stranger");
    let bad = split.room.lock().draft(&stranger, "m.room.message", None, message("not to be seen"));
    split.is_heard(&bad).await;
    let states = split.other.asked("/_matrix/federation/v1/state_ids/").len();
    split.is_heard(&bad).await;
    assert_eq!(split.other.asked("/_matrix/federation/v1/state_ids/").len(), states);
    assert!(!split.world.sees(&split.room, bad.event_id.as_str()).await);
}

/// HV-08: a gap in the history lies between the answer before it and the one after it, and so does what fills it.
#[tokio::test(flavor = "multi_thread")]
async fn hv_08_what_fills_a_gap_is_between_the_answers_around_it() {
    let split = Split::new("between").await;
    split.world.join(&split.room).await;
    let said = split.room.lock().say("before the gap");
    split.arrives(&said).await;
    let mut device = Device::ready(&split.world.alice).await;
    let since = device.since.clone().unwrap();
    let hidden = split.gap().await;
    let answer = device.next().await;
    let id = split.room.lock().id.clone();
    let timeline = &answer["rooms"]["join"][id.as_str()]["timeline"];
    assert_eq!(timeline["limited"], true, "{answer}");
    let from = timeline["prev_batch"].as_str().unwrap();
    split.room.lock().events.insert(hidden.event_id.clone(), hidden.clone());
    let page = format!("/v3/rooms/{id}/messages?dir=b&limit=100&from={from}&to={since}");
    let between = async || ids(&split.world.alice.get(&page).await.expect(200)["chunk"]);
    assert_eq!(between().await, [hidden.event_id.as_str()], "and nothing from before");
    assert_eq!(between().await, [hidden.event_id.as_str()], "once the gap is filled too");
}

/// SR-11: a state of somebody who lacks the same is no reason to believe that nothing is lacking.
#[tokio::test(flavor = "multi_thread")]
async fn sr_11_a_state_that_lacks_it_too_ends_no_doubt() {
    let split = Split::new("both").await;
    split.world.join(&split.room).await;
    split.member_joins();
    split.gap().await;
    let ids = format!("/_matrix/federation/v1/state_ids/{}", split.room.lock().id);
    let (room, member) = (Arc::clone(&split.room), split.member.clone());
    split.world.peer.on(&ids, move |_| {
        let state = room.lock().state.clone();
        let state = state.values().filter(|pdu| pdu.sender != member);
        (200, json!({ "pdu_ids": state.map(|pdu| &pdu.event_id).collect::<Vec<_>>(), "auth_chain_ids": [] }))
    });
    let asked = || split.world.peer.asked(&ids).len();
    let before = asked();
    eventually("the state is asked for again", || async {
        let said = split.room.lock().say("all is well");
        split.arrives(&said).await;
        (asked() > before).then_some(())
    })
    .await;
    split.heal();
    split.member_speaks().await;
}

/// SR-11: what others send is enough for the state to become whole, and from then on the server is told what is said here.
#[tokio::test(flavor = "multi_thread")]
async fn sr_11_members_whose_keys_come_late_are_found_with_the_next_events() {
    let split = Split::new("next").await;
    split.world.join(&split.room).await;
    split.member_joins();
    split.gap().await;
    assert!(!split.knows_member().await, "the member can't be verified");
    split.heal();
    found(&split).await;
}

/// JN-05: so it is where somebody here comes into the room when those keys can't be had.
#[tokio::test(flavor = "multi_thread")]
async fn jn_05_members_who_could_not_be_verified_at_a_join_are_found_later() {
    let split = Split::new("join").await;
    split.member_joins();
    split.world.join(&split.room).await;
    assert!(!split.knows_member().await, "the member can't be verified");
    split.heal();
    found(&split).await;
}

/// What a state gives and can't be verified isn't asked for a second time because of what cites it.
#[tokio::test(flavor = "multi_thread")]
async fn jn_06_what_was_given_and_can_not_be_verified_is_not_asked_for_again() {
    let split = Split::new("cited").await;
    let guest = split.world.peer.user("guest");
    split.member_joins();
    split.put_by_member("m.room.member", guest.as_str(), json!({ "membership": "invite" }));
    split.room.lock().put(&guest, "m.room.member", guest.as_str(), json!({ "membership": "join" }));
    split.world.join(&split.room).await;
    assert_eq!(split.world.peer.asked("/_matrix/federation/v1/event/").len(), 0);
}

async fn found(split: &Split) {
    // Keys that couldn't be had aren't asked for again at once.
    eventually_within(Duration::from_mins(2), "the member is known", || async {
        let said = split.room.lock().say("and another thing");
        split.arrives(&said).await;
        split.knows_member().await.then_some(())
    })
    .await;
    let id = split.room.lock().id.clone();
    split.world.alice.send_text(id.as_str(), "for all").await;
    eventually("the other server is told", || async {
        let sent = split.other.asked("/_matrix/federation/v1/send/");
        sent.iter().any(|asked| asked.body.to_string().contains("for all")).then_some(())
    })
    .await;
}

/// I9: what can't be judged without levels that can't be verified is not rejected for that.
#[tokio::test(flavor = "multi_thread")]
async fn i9_an_incomplete_state_rejects_nothing_for_good() {
    let split = Split::new("levels").await;
    split.world.join(&split.room).await;
    split.member_joins();
    let guest = split.world.peer.user("guest");
    let (creator, member) = (split.room.lock().creator.clone(), split.member.clone());
    let levels = |guest_level: i64| {
        let users = json!({ creator.as_str(): 100, member.as_str(): 90, guest.as_str(): guest_level });
        json!({ "users": users, "users_default": 0, "state_default": 50 })
    };
    split.room.lock().put(&creator, "m.room.power_levels", "", levels(0));
    split.put_by_member("m.room.power_levels", "", levels(60));
    split.room.lock().put(&guest, "m.room.member", guest.as_str(), json!({ "membership": "join" }));
    let (_, after) = split.after_gap();
    let topic = split.room.lock().put(&guest, "m.room.topic", "", json!({ "topic": "by a guest" }));
    split.world.peer.send(&split.world.here, &[wire(&after), wire(&topic)], &[]).await.expect(200);
    assert!(!split.world.sees(&split.room, topic.event_id.as_str()).await);
    split.heal();
    eventually("the topic is there", || async {
        let said = split.room.lock().say("after the topic");
        split.world.peer.send(&split.world.here, &[wire(&said)], &[]).await.expect(200);
        (split.world.state(&split.room, "m.room.topic").await["topic"] == "by a guest").then_some(())
    })
    .await;
    let page = format!("/v3/rooms/{}/messages?dir=b&limit=100", split.room.lock().id);
    let page = split.world.alice.get(&page).await.expect(200).to_string();
    assert!(page.contains(topic.event_id.as_str()) && page.contains("after the gap"), "{page}");
}
