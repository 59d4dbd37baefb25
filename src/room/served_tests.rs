//! What a server that is in a room is given of it, and what is kept from it.

use std::collections::HashSet;

use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, ServerName, owned_user_id, server_name};
use serde_json::json;

use super::{
    received_tests::{Story, text},
    *,
};

fn elsewhere() -> &'static ServerName {
    server_name!("elsewhere")
}

/// A number of messages by Alice, one after the other.
async fn said(story: &Story, texts: &[&str]) -> Vec<OwnedEventId> {
    let mut ids = Vec::new();
    for text in texts {
        ids.push(story.world.say(&story.room, &story.alice, text).await);
    }
    ids
}

/// The ids of what is given going back from an event, and whether the words are with them.
async fn back_from(story: &Story, from: &OwnedEventId, limit: usize) -> Vec<(OwnedEventId, bool)> {
    let pdus = story.world.rooms.before(&story.room, elsewhere(), vec![from.clone()], limit).await.unwrap();
    pdus.into_iter().map(|pdu| (pdu.event_id.clone(), pdu.content.get().contains("body"))).collect()
}

fn ids<'a>(events: impl IntoIterator<Item = &'a Arc<Event>>) -> HashSet<&'a EventId> {
    events.into_iter().map(|event| event.id()).collect()
}

/// BF-01: the events that are named and those before them, the nearest first, and no more than were asked for.
#[tokio::test]
async fn bf_01_history_is_given_back_from_the_events_that_are_named() {
    let story = Story::new().await;
    let said = said(&story, &["one", "two", "three", "four"]).await;
    let given = back_from(&story, &said[2], 3).await;
    let ids: Vec<&OwnedEventId> = given.iter().map(|(id, _)| id).collect();
    assert_eq!(ids[..3], [&said[2], &said[1], &said[0]]);
    assert_eq!(given.len(), 3);
    assert!(given.iter().all(|(_, whole)| *whole));
    assert_eq!(back_from(&story, &said[3], MOST_SERVED).await.last().unwrap().0, create(&story));
    assert_eq!(back_from(&story, &said[3], 0).await, []);
}

fn create(story: &Story) -> OwnedEventId {
    story.room.snapshot().create().unwrap().pdu.event_id.clone()
}

/// BF-01: what lies between, the oldest first; neither `latest` nor what `earliest` names, and nothing that is less deep.
#[tokio::test]
async fn bf_01_missing_events_are_those_between_the_earliest_and_the_latest() {
    let story = Story::new().await;
    let said = said(&story, &["one", "two", "three", "four"]).await;
    let rooms = &story.world.rooms;
    let between = async |earliest: &OwnedEventId, depth: i64, limit: usize| -> Vec<OwnedEventId> {
        let (earliest, latest) = (vec![earliest.clone()], vec![said[3].clone()]);
        let pdus = rooms.between(&story.room, elsewhere(), earliest, latest, depth, limit).await.unwrap();
        pdus.into_iter().map(|pdu| pdu.event_id).collect()
    };
    assert_eq!(between(&said[0], 0, 10).await, said[1..3]);
    assert_eq!(between(&said[0], 0, 1).await, said[2..3], "the nearest to the latest");
    let depth = rooms.event(&story.room, &said[2]).await.unwrap().pdu.depth;
    assert_eq!(between(&said[0], depth, 10).await, said[2..3]);
}

/// BF-03: the state is that before the event, and what allowed it comes with it.
#[tokio::test]
async fn bf_03_state_is_that_before_the_event() {
    let story = Story::new().await;
    let old = story.set("m.room.topic", json!({ "topic": "old" })).await;
    let new = story.set("m.room.topic", json!({ "topic": "new" })).await;
    let (state, chain) = story.world.rooms.state_for(&story.room, &new).await.unwrap();
    let (state, chain) = (ids(&state), ids(&chain));
    assert!(state.contains(&*old) && !state.contains(&*new));
    let create = create(&story);
    assert!(state.contains(&*create) && chain.contains(&*create));
    let (state, _) = story.world.rooms.state_for(&story.room, &create).await.unwrap();
    assert!(state.is_empty(), "nothing is before the beginning");
}

/// BF-03, PD-02: of a fork that state which the event was made upon; what was rejected is in none, and is no event.
#[tokio::test]
async fn bf_03_the_state_of_a_fork_is_its_own_and_has_nothing_rejected() {
    let mut story = Story::new().await;
    let start = story.ends();
    let here = story.set("m.room.topic", json!({ "topic": "here" })).await;
    let there = story.by_rita("m.room.message", None, text("there"), &start);
    assert_eq!(story.bring(std::slice::from_ref(&there)).await, [Outcome::Accepted]);
    let stranger = owned_user_id!("@stranger:elsewhere");
    let bad = story.event(&stranger, "m.room.topic", Some(""), json!({ "topic": "bad" }), &[]);
    assert!(matches!(story.bring(std::slice::from_ref(&bad)).await[..], [Outcome::Rejected(_)]));
    let last = story.world.say(&story.room, &story.alice, "joined").await;

    let rooms = &story.world.rooms;
    let (state, _) = rooms.state_for(&story.room, &there.event_id).await.unwrap();
    assert!(!ids(&state).contains(&*here));
    let (state, chain) = rooms.state_for(&story.room, &last).await.unwrap();
    assert!(ids(&state).contains(&*here));
    assert!(!ids(state.iter().chain(&chain)).contains(&*bad.event_id));
    assert!(rooms.state_for(&story.room, &bad.event_id).await.is_err());
    assert!(rooms.auth_chain_for(&story.room, &bad.event_id).await.is_err());
    assert!(rooms.event_for(&bad.event_id, elsewhere()).await.is_err());
    assert!(back_from(&story, &bad.event_id, 10).await.is_empty());
}

/// I10: an event of another room is as one that doesn't exist, whichever way it is named.
#[tokio::test]
async fn i10_events_of_other_rooms_are_not_there() {
    let story = Story::new().await;
    let private = story.world.room(&story.alice).await;
    let secret = story.world.say(&private, &story.alice, "secret").await;
    let rooms = &story.world.rooms;
    let unknown = OwnedEventId::try_from("$unknown").unwrap();
    for id in [&secret, &unknown] {
        assert!(matches!(rooms.event_for(id, elsewhere()).await, Err(Error::NotFound(NO_EVENT))));
        assert!(matches!(rooms.state_for(&story.room, id).await, Err(Error::NotFound(NO_EVENT))));
        assert!(matches!(rooms.auth_chain_for(&story.room, id).await, Err(Error::NotFound(NO_EVENT))));
        assert!(back_from(&story, id, 10).await.is_empty());
        let (none, latest) = (Vec::new(), vec![id.clone()]);
        assert!(rooms.between(&story.room, elsewhere(), none, latest, 0, 10).await.unwrap().is_empty());
    }
    for room in [private.room_id.clone(), ruma::owned_room_id!("!unknown:localhost")] {
        assert!(matches!(rooms.of_server(&room, elsewhere()).await, Err(Error::Forbidden(_))));
    }
    assert!(rooms.of_server(&story.room.room_id, elsewhere()).await.is_ok());
}

/// BF-01, I7: those who stay can have what the last one here did, and what that cites, from nobody else.
#[tokio::test]
async fn bf_01_what_was_there_when_the_last_one_left_is_given_to_those_who_stay() {
    let story = Story::new().await;
    let said = story.world.say(&story.room, &story.alice, "farewell").await;
    story.world.rooms.leave(&story.room, &story.alice, None).await.unwrap();
    assert!(!story.room.snapshot().is_resident());
    let leave = story.ends().remove(0);
    let room = story.world.rooms.of_server(&story.room.room_id, elsewhere()).await.unwrap();
    let pdus = story.world.rooms.between(&room, elsewhere(), Vec::new(), vec![leave], 0, 1).await.unwrap();
    assert_eq!(pdus.iter().map(|pdu| &pdu.event_id).collect::<Vec<_>>(), [&said]);
}

/// BF-04: what was said while nobody of a server was in, in a room that shows it to nobody else, is given without its words.
#[tokio::test]
async fn bf_04_words_that_nobody_of_a_server_could_see_are_kept_from_it() {
    let mut story = Story::new().await;
    let shared = story.world.say(&story.room, &story.alice, "while all was shared").await;
    story.set("m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
    let membership = |membership: &str| json!({ "membership": membership });
    let left = story.by_rita("m.room.member", Some("@rita:elsewhere"), membership("leave"), &[]);
    assert_eq!(story.bring(&[left]).await, [Outcome::Accepted]);
    let hidden = story.world.say(&story.room, &story.alice, "among ourselves").await;
    let topic = story.set("m.room.topic", json!({ "topic": "state" })).await;
    assert!(story.world.rooms.of_server(&story.room.room_id, elsewhere()).await.is_err(), "BF-05");
    let back = story.by_rita("m.room.member", Some("@rita:elsewhere"), membership("join"), &[]);
    assert_eq!(story.bring(&[back]).await, [Outcome::Accepted]);
    let open = story.world.say(&story.room, &story.alice, "with Rita").await;

    let given: HashMap<OwnedEventId, bool> = back_from(&story, &open, 100).await.into_iter().collect();
    assert_eq!([given[&shared], given[&hidden], given[&open]], [true, false, true]);
    let rooms = &story.world.rooms;
    assert_eq!(rooms.event_for(&hidden, elsewhere()).await.unwrap().content.get(), "{}");
    assert!(rooms.event_for(&topic, elsewhere()).await.unwrap().content.get().contains("state"));
    let pdus = rooms.between(&story.room, elsewhere(), Vec::new(), vec![open], 0, 20).await.unwrap();
    let there = pdus.iter().find(|pdu| pdu.event_id == hidden).unwrap();
    assert_eq!(there.content.get(), "{}");
}

/// BF-06, BF-04: by date only what somebody of the server may see is found.
#[tokio::test]
async fn bf_06_an_event_by_its_date_is_one_that_may_be_seen() {
    let mut story = Story::new().await;
    story.set("m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
    let member = |membership: &str| json!({ "membership": membership });
    let left = story.by_rita("m.room.member", Some("@rita:elsewhere"), member("leave"), &[]);
    story.bring(&[left]).await;
    let hidden = story.world.say(&story.room, &story.alice, "among ourselves").await;
    let back = story.by_rita("m.room.member", Some("@rita:elsewhere"), member("join"), &[]);
    story.bring(&[back]).await;
    let rooms = &story.world.rooms;
    let hidden = rooms.event(&story.room, &hidden).await.unwrap();
    let open = story.world.say(&story.room, &story.alice, "with Rita").await;
    let time = hidden.pdu.origin_server_ts;
    let found = rooms.nearest_for_server(&story.room, elsewhere(), time, Direction::Forwards).await.unwrap();
    assert_eq!(*found.id(), *open);
    let far = MilliSecondsSinceUnixEpoch(ruma::UInt::MAX);
    let none = rooms.nearest_for_server(&story.room, elsewhere(), far, Direction::Forwards).await;
    assert!(matches!(none, Err(Error::NotFound(NO_EVENT))));
}

/// PD-08: what is soft-failed is given by its id, and to nobody who only looks back.
#[tokio::test]
async fn pd_08_soft_failed_events_are_given_by_their_id_alone() {
    let mut story = Story::new().await;
    let guest = owned_user_id!("@guest:elsewhere");
    let join = json!({ "membership": "join" });
    let join = story.event(&guest, "m.room.member", Some(guest.as_str()), join, &[]);
    story.bring(&[join]).await;
    let (branch, then) = (story.ends(), story.room.snapshot().state.clone());
    story.world.rooms.ban(&story.room, &story.alice, &guest, None).await.unwrap();
    let late = story.event_under(&then, &guest, "m.room.message", None, text("too late"), &branch);
    assert_eq!(story.bring(std::slice::from_ref(&late)).await, [Outcome::SoftFailed]);
    let last = story.world.say(&story.room, &story.alice, "after it").await;
    assert!(back_from(&story, &last, 100).await.iter().all(|(id, _)| *id != late.event_id));
    let given = story.world.rooms.event_for(&late.event_id, elsewhere()).await.unwrap();
    assert_eq!(given.event_id, late.event_id);
}
