//! What people here see of history that comes to its place late.

#![allow(clippy::cloned_ref_to_slice_refs)]

use std::{collections::HashSet, time::Duration};

use ruma::UserId;

use super::*;
use crate::room::{self, Chunk, Direction, Entry, EventFilter, Given, Paging, Reader, Room};

fn state_ids(story: &Story) -> Vec<OwnedEventId> {
    story.room.snapshot().state.iter().map(|event| event.pdu.event_id.clone()).collect()
}

/// How somebody comes into the room of another story by this event: with its state, and what that cites.
async fn entry_into(elsewhere: &Story, event: &Pdu) -> Entry {
    let state = state_ids(elsewhere);
    let log = elsewhere.world.rooms.log_backwards(&elsewhere.room, i64::MAX, 100).await.unwrap();
    let before = Given { state, events: log.iter().map(|event| event.pdu.clone()).collect() };
    let (room_id, version) = (elsewhere.room.room_id.clone(), elsewhere.room.version.clone());
    Entry { room_id, version, event: event.clone(), before, forks: false }
}

impl Meeting {
    /// The room elsewhere, whose invite somebody here heard of and joins by.
    async fn follow(&self, elsewhere: &Story, invite: &Pdu, join: &Pdu) -> Arc<Room> {
        let rooms = &self.story.world.rooms;
        let (room_id, version) = (elsewhere.room.room_id.clone(), elsewhere.room.version.clone());
        rooms.hear(Hearsay { room_id, version, event: invite.clone(), about: None }).await.unwrap();
        rooms.enter(entry_into(elsewhere, join).await).await.unwrap()
    }

    /// The newest events of a room that somebody gets to see, those included that are asked for then.
    async fn newest_shown(&self, room: &Arc<Room>, user_id: &UserId) -> Vec<OwnedEventId> {
        let filter = EventFilter::default();
        let (page, _) = self.inbound.history.page(room, user_id, back(i64::MAX, 10, &filter)).await.unwrap();
        page.events.iter().map(|event| event.id().to_owned()).collect()
    }
}

fn back(from: i64, limit: usize, filter: &EventFilter) -> Paging<'_> {
    Paging { direction: Direction::Backwards, from: Some(from), to: None, limit, filter }
}

/// I10: while Bob, who was only invited by then for those who speak, looks at where history is missing, it comes: he sees
/// none of it.
#[tokio::test]
async fn i10_history_that_comes_while_somebody_looks_is_not_shown_to_whom_it_is_not_for() {
    let mut meeting = Meeting::new().await;
    let bob = owned_user_id!("@bob:localhost");
    meeting.story.set("m.room.history_visibility", json!({ "history_visibility": "joined" })).await;
    let invited = json!({ "membership": "invite" });
    let invite = meeting.story.by_rita("m.room.member", Some(bob.as_str()), invited, &[]);
    meeting.story.bring(&[invite]).await;
    let mut state = state_ids(&meeting.story);
    let topic = meeting.story.by_rita("m.room.topic", Some(""), json!({ "topic": "for members" }), &[]);
    let said = meeting.story.by_rita("m.room.message", None, text("too"), &[topic.event_id.clone()]);
    let later = meeting.story.by_rita("m.room.message", None, text("later"), &[said.event_id.clone()]);
    let (rooms, room) = (Arc::clone(&meeting.story.world.rooms), Arc::clone(&meeting.story.room));
    rooms.join(&room, &bob, None).await.unwrap();

    state.push(topic.event_id.clone());
    meeting.there.keeps(&state, &[(&topic.event_id, wire(&topic))]);
    let answer = meeting.take("1", &[wire(&later)]).await;
    assert_eq!(answer["pdus"][later.event_id.as_str()], json!({}), "{answer}");
    let hole = rooms.holes(&room).await.unwrap().remove(0);
    let early = rooms.reading(&room, &bob).await.unwrap();
    assert!(early.may_see(hole.seq) && !early.may_see(hole.seq - 1), "nobody knows what comes there");

    state.pop();
    meeting.there.keeps(&state, &[]);
    meeting.there.has(&[&topic, &said]);
    let filter = EventFilter::default();
    let history = &meeting.inbound.history;
    let (page, sight) = history.page(&room, &bob, back(hole.seq - 1, 10, &filter)).await.unwrap();
    let (topic, said) = (
        rooms.event(&room, &topic.event_id).await.unwrap(),
        rooms.event(&room, &said.event_id).await.unwrap(),
    );
    assert!(!topic.is_outlier() && !said.is_outlier(), "both have come");
    let shown: Vec<_> = page.events.iter().map(|event| event.id()).collect();
    assert!(!shown.contains(&topic.id()) && !shown.contains(&said.id()), "{shown:?}");
    assert!(!sight.may_see(topic.seq) && !early.may_see(topic.seq));
    // Alice was in the room all the time.
    let alice = meeting.story.alice.clone();
    let (page, _) = history.page(&room, &alice, back(hole.seq - 1, 2, &filter)).await.unwrap();
    let shown: Vec<_> = page.events.iter().map(|event| event.id()).collect();
    assert_eq!(shown, [said.id(), topic.id()]);
}

/// HV-07: a page that is full where this server entered the room isn't the last one, for others have what was before.
#[tokio::test]
async fn hv_07_paging_goes_on_where_history_is_missing() {
    let meeting = Meeting::new().await;
    let mut elsewhere = Story::new().await;
    let bob = owned_user_id!("@bob:localhost");
    let said = elsewhere.by_rita("m.room.message", None, text("before"), &[]);
    let (key, join) = (Some(bob.as_str()), json!({ "membership": "join" }));
    let join = elsewhere.event(&bob, "m.room.member", key, join, &[said.event_id.clone()]);
    let entry = entry_into(&elsewhere, &join).await;
    meeting.there.keeps(&entry.before.state, &[]);
    let room = meeting.story.world.rooms.enter(entry).await.unwrap();
    meeting.there.has(&[&said]);

    let (filter, history) = (EventFilter::default(), &meeting.inbound.history);
    let (page, _) = history.page(&room, &bob, back(i64::MAX, 1, &filter)).await.unwrap();
    assert_eq!(page.events[0].id(), join.event_id);
    let end = page.end.expect("there is more to see");
    let (page, _) = history.page(&room, &bob, back(end, 1, &filter)).await.unwrap();
    assert_eq!(page.events[0].id(), said.event_id);
    // What nobody gives is not asked for without end.
    let (page, _) = history.page(&room, &bob, back(page.end.unwrap(), 1, &filter)).await.unwrap();
    assert!(page.events.is_empty() && page.end.is_none(), "{page:?}");
}

/// HV-07: once the last hole is filled, the one below it is known still, to whoever pages back and to the timelines that end there.
#[tokio::test]
async fn hv_07_paging_goes_on_below_a_hole_that_was_filled() {
    let meeting = Meeting::new().await;
    let mut elsewhere = Story::new().await;
    let bob = owned_user_id!("@bob:localhost");
    let before = elsewhere.by_rita("m.room.message", None, text("before"), &[]);
    let (key, join) = (Some(bob.as_str()), json!({ "membership": "join" }));
    let join = elsewhere.event(&bob, "m.room.member", key, join, &[before.event_id.clone()]);
    let missing = elsewhere.by_rita("m.room.message", None, text("missing"), &[join.event_id.clone()]);
    let later = elsewhere.by_rita("m.room.message", None, text("later"), &[missing.event_id.clone()]);
    let entry = entry_into(&elsewhere, &join).await;
    let given = entry.before.state.clone();
    let rooms = Arc::clone(&meeting.story.world.rooms);
    let room = rooms.enter(entry).await.unwrap();
    meeting.there.keeps(&[given.clone(), vec![join.event_id.clone()]].concat(), &[]);
    let answer = meeting.take("1", &[wire(&later)]).await;
    assert_eq!(answer["pdus"][later.event_id.as_str()], json!({}), "{answer}");
    assert_eq!(rooms.holes(&room).await.unwrap().len(), 2);

    meeting.there.has(&[&missing]);
    let (filter, history) = (EventFilter::default(), &meeting.inbound.history);
    let (page, _) = history.page(&room, &bob, back(i64::MAX, 3, &filter)).await.unwrap();
    let shown: Vec<_> = page.events.iter().map(|event| event.id()).collect();
    assert_eq!(shown, [&later.event_id, &missing.event_id, &join.event_id]);
    let end = page.end.expect("there is more to see");
    let joined = page.events[2].seq;
    assert_eq!(room.snapshot().last_hole(joined, i64::MAX), Some(joined));
    meeting.there.keeps(&given, &[]);
    meeting.there.has(&[&before]);
    let (page, _) = history.page(&room, &bob, back(end, 1, &filter)).await.unwrap();
    assert_eq!(page.events[0].id(), before.event_id);
    assert_eq!(room.snapshot().last_hole(joined, i64::MAX), None, "nothing is missing there any more");
}

/// HV-08: what is given as history goes through the same verifier as all else, and is of the room or nothing.
#[tokio::test]
async fn hv_08_history_that_is_not_signed_or_of_another_room_is_dropped() {
    let meeting = Meeting::new().await;
    let (mut elsewhere, mut other) = (Story::new().await, Story::new().await);
    let (state, ends, rita) =
        (elsewhere.room.snapshot().state.clone(), elsewhere.ends(), elsewhere.rita.clone());
    // All of them follow and cite what is in the room.
    let said = |story: &mut Story, body: &str| {
        story.event_under(&state, &rita, "m.room.message", None, text(body), &ends)
    };
    let [good, unsigned, forged] =
        ["good", "not signed", "signed as another"].map(|body| said(&mut elsewhere, body));
    let strange = said(&mut other, "of another room");
    let all = [&good, &unsigned, &forged, &strange];
    let bob = owned_user_id!("@bob:localhost");
    let (key, join) = (Some(bob.as_str()), json!({ "membership": "join" }));
    let join = elsewhere.event(&bob, "m.room.member", key, join, &all.map(|pdu| pdu.event_id.clone()));
    let entry = entry_into(&elsewhere, &join).await;
    meeting.there.keeps(&entry.before.state, &[]);
    let rooms = Arc::clone(&meeting.story.world.rooms);
    let room = rooms.enter(entry).await.unwrap();

    let mut given = all.map(wire);
    given[1]["signatures"] = json!({});
    given[2]["signatures"] = given[0]["signatures"].clone();
    *meeting.there.lies.lock() = Some(json!({ "pdus": given }));
    let (filter, history) = (EventFilter::default(), &meeting.inbound.history);
    let shown = async || {
        let (page, _) = history.page(&room, &bob, back(i64::MAX, 10, &filter)).await.unwrap();
        page.events.iter().map(|event| event.id().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown().await, [join.event_id.clone(), good.event_id.clone()]);
    let mut kept = Vec::new();
    for pdu in all {
        kept.push(rooms.event(&room, &pdu.event_id).await.is_ok());
    }
    assert_eq!(kept, [true, false, false, false]);

    // What was forged is no worse for it: as it is it comes.
    *meeting.there.lies.lock() = None;
    meeting.there.has(&[&unsigned, &forged]);
    let shown = shown().await;
    assert!(shown.contains(&unsigned.event_id) && shown.contains(&forged.event_id), "{shown:?}");
    assert!(!shown.contains(&strange.event_id), "{shown:?}");
}

/// I7: what others say while somebody here comes in, and their server has taken the join already, is there afterwards.
#[tokio::test]
async fn i7_what_comes_while_somebody_comes_in_waits_for_them() {
    let meeting = Meeting::new().await;
    let mut elsewhere = Story::new().await;
    let bob = owned_user_id!("@bob:localhost");
    let ends = elsewhere.ends();
    let (key, join) = (Some(bob.as_str()), json!({ "membership": "join" }));
    let event = elsewhere.event(&bob, "m.room.member", key, join, &ends);
    let said = elsewhere.by_rita("m.room.message", None, text("welcome"), &[event.event_id.clone()]);
    let entry = entry_into(&elsewhere, &event).await;

    let rooms = Arc::clone(&meeting.story.world.rooms);
    let turn = rooms.turn_to_enter(&entry.room_id);
    let entering = turn.lock().await;
    let pdus = [wire(&said)];
    let taking = meeting.take("1", &pdus);
    tokio::pin!(taking);
    // Long enough to find that there is no such room.
    let early = tokio::time::timeout(Duration::from_millis(50), &mut taking).await;
    assert!(early.is_err(), "it waits: {early:?}");
    let room = rooms.enter(entry).await.unwrap();
    drop(entering);
    let answer = taking.await;
    assert_eq!(answer["pdus"][said.event_id.as_str()], json!({}), "{answer}");
    assert!(rooms.event(&room, &said.event_id).await.unwrap().is_visible());
}

/// SR-11: whoever comes back has the state by which they came in, whatever was set meanwhile on branches that didn't hold.
#[tokio::test]
async fn sr_11_the_state_of_who_comes_back_stays_when_history_comes() {
    let mut meeting = Meeting::new().await;
    let alice = meeting.story.alice.clone();
    meeting.story.set("m.room.topic", json!({ "topic": "holds" })).await;
    let (rooms, room) = (Arc::clone(&meeting.story.world.rooms), Arc::clone(&meeting.story.room));
    rooms.leave(&room, &alice, None).await.unwrap();
    let (start, ids) = (meeting.story.ends(), state_ids(&meeting.story));
    let topic = meeting.story.by_rita("m.room.topic", Some(""), json!({ "topic": "doesn't" }), &start);
    let said = meeting.story.by_rita("m.room.message", None, text("meanwhile"), &start);
    let (key, join) = (Some(alice.as_str()), json!({ "membership": "join" }));
    let ends = [topic.event_id.clone(), said.event_id.clone()];
    let event = meeting.story.event(&alice, "m.room.member", key, join, &ends);
    let (room_id, version) = (room.room_id.clone(), room.version.clone());
    let before = Given { state: ids.clone(), events: Vec::new() };
    rooms.enter(Entry { room_id, version, event, before: before.clone(), forks: false }).await.unwrap();
    assert_eq!(meeting.story.topic().as_deref(), Some("holds"));

    let hole = rooms.holes(&room).await.unwrap().remove(0);
    rooms.fill(&room, Chunk { hole, events: vec![topic.clone(), said], before }).await.unwrap();
    assert!(!rooms.event(&room, &topic.event_id).await.unwrap().is_outlier());
    assert_eq!(meeting.story.topic().as_deref(), Some("holds"));
    let reloaded = meeting.story.reloaded().await;
    let content: Option<Value> = reloaded.state.content(&"m.room.topic".into());
    assert_eq!(content.unwrap()["topic"], "holds");
}

/// SR-11: what was set right before this server entered the room, and didn't hold, is no state.
#[tokio::test]
async fn sr_11_the_last_event_before_the_first_one_here_is_not_taken_for_nothing() {
    let mut meeting = Meeting::new().await;
    let mut elsewhere = Story::new().await;
    let bob = owned_user_id!("@bob:localhost");
    let topic = elsewhere.by_rita("m.room.topic", Some(""), json!({ "topic": "doesn't hold" }), &[]);
    let (key, join) = (Some(bob.as_str()), json!({ "membership": "join" }));
    let event = elsewhere.event(&bob, "m.room.member", key, join, &[topic.event_id.clone()]);
    let entry = entry_into(&elsewhere, &event).await;
    let before = entry.before.clone();
    let rooms = Arc::clone(&meeting.story.world.rooms);
    let room = rooms.enter(entry).await.unwrap();

    let hole = rooms.holes(&room).await.unwrap().remove(0);
    rooms.fill(&room, Chunk { hole, events: vec![topic.clone()], before }).await.unwrap();
    let filled = rooms.event(&room, &topic.event_id).await.unwrap();
    assert!(!filled.is_outlier() && filled.seq != 0);
    meeting.story.room = room;
    assert_eq!(meeting.story.topic(), None);
    let reloaded = meeting.story.reloaded().await;
    assert!(reloaded.state.get(&"m.room.topic".into(), "").is_none());
}

/// EV-09: what was known as part of the state before it had its place replaces nothing, itself least of all.
#[tokio::test]
async fn ev_09_an_event_does_not_replace_itself() {
    let mut meeting = Meeting::new().await;
    let topic = meeting.story.by_rita("m.room.topic", Some(""), json!({ "topic": "meanwhile" }), &[]);
    let missing = meeting.story.by_rita("m.room.message", None, text("1"), &[topic.event_id.clone()]);
    let said = meeting.story.by_rita("m.room.message", None, text("2"), &[missing.event_id.clone()]);
    let mut state = state_ids(&meeting.story);
    state.push(topic.event_id.clone());
    meeting.there.keeps(&state, &[(&topic.event_id, wire(&topic))]);
    meeting.take("1", &[wire(&said)]).await;
    let follows = meeting.story.by_rita("m.room.message", None, text("3"), &[topic.event_id.clone()]);
    meeting.there.has(&[&topic, &follows]);
    meeting.take("2", &[wire(&follows)]).await;
    let (rooms, room) = (&meeting.story.world.rooms, &meeting.story.room);
    let topic = rooms.event(room, &topic.event_id).await.unwrap();
    assert!(topic.seq > rooms.event(room, &said.event_id).await.unwrap().seq);
    let alice = &meeting.story.alice;
    let reader = Reader { recipient: 1, user_id: alice, device: 1 };
    let shown = rooms.client_events(room, reader, &[topic], None).await.unwrap().remove(0);
    let shown: Value = serde_json::from_str(shown.get()).unwrap();
    assert!(shown["unsigned"].get("replaces_state").is_none(), "{shown}");
    assert!(shown["unsigned"].get("prev_content").is_none(), "{shown}");
}

/// HV-08: what was before an invite is missing where the join follows that, for the invite alone says nothing of it.
#[tokio::test]
async fn hv_08_what_was_before_an_invite_is_fetched_when_a_join_follows_it() {
    let meeting = Meeting::new().await;
    let mut elsewhere = Story::new().await;
    let bob = owned_user_id!("@bob:localhost");
    let said = elsewhere.by_rita("m.room.message", None, text("before"), &[]);
    elsewhere.bring(&[said.clone()]).await;
    let state = state_ids(&elsewhere);
    let key = Some(bob.as_str());
    let invite = elsewhere.by_rita("m.room.member", key, json!({ "membership": "invite" }), &[]);
    elsewhere.bring(&[invite.clone()]).await;
    let join = elsewhere.event(&bob, "m.room.member", key, json!({ "membership": "join" }), &[]);
    assert_eq!(join.prev_events, [invite.event_id.clone()]);
    let room = meeting.follow(&elsewhere, &invite, &join).await;
    meeting.there.keeps(&state, &[]);
    meeting.there.has(&[&said]);
    let shown = meeting.newest_shown(&room, &bob).await;
    assert!(shown.contains(&said.event_id), "{shown:?}");
}

/// HV-08: the same for what follows the invite on another way than the join.
#[tokio::test]
async fn hv_08_what_was_before_an_invite_is_fetched_when_a_bridge_follows_it() {
    let meeting = Meeting::new().await;
    let mut elsewhere = Story::new().await;
    let bob = owned_user_id!("@bob:localhost");
    let (ends, state) = (elsewhere.ends(), state_ids(&elsewhere));
    let key = Some(bob.as_str());
    let said = elsewhere.by_rita("m.room.message", None, text("before"), &ends);
    let invite =
        elsewhere.by_rita("m.room.member", key, json!({ "membership": "invite" }), &[said.event_id.clone()]);
    let after = elsewhere.by_rita("m.room.message", None, text("after"), &[invite.event_id.clone()]);
    let join = elsewhere.event(&bob, "m.room.member", key, json!({ "membership": "join" }), &ends);
    let room = meeting.follow(&elsewhere, &invite, &join).await;
    meeting.there.keeps(&[state.clone(), vec![invite.event_id.clone()]].concat(), &[]);
    let answer = meeting.take("1", &[wire(&after)]).await;
    assert_eq!(answer["pdus"][after.event_id.as_str()], json!({}), "{answer}");
    meeting.there.keeps(&state, &[]);
    meeting.there.has(&[&said]);
    let shown = meeting.newest_shown(&room, &bob).await;
    assert!(shown.contains(&said.event_id), "{shown:?}");
}

/// SR-01: whoever comes back by a server that hasn't heard of their leave says all else after both, so that no server takes the
/// leave for the newer of the two.
#[tokio::test]
async fn sr_01_who_comes_back_before_the_leave_was_heard_of_follows_both() {
    let mut meeting = Meeting::new().await;
    let (alice, elsewhere) = (meeting.story.alice.clone(), owned_server_name!("elsewhere"));
    let (rooms, room) = (Arc::clone(&meeting.story.world.rooms), Arc::clone(&meeting.story.room));
    let (start, ids) = (meeting.story.ends(), state_ids(&meeting.story));
    let state = room.snapshot().state.clone();
    rooms.leave(&room, &alice, None).await.unwrap();
    let leave = meeting.story.ends();
    let forks = rooms.is_untold(&room, &elsewhere).await.unwrap();
    assert!(forks, "nothing has been sent");
    let (key, join) = (Some(alice.as_str()), json!({ "membership": "join" }));
    meeting.story.time = meeting.story.world.environment.clock.now_ms().unsigned_abs();
    let event = meeting.story.event_under(&state, &alice, "m.room.member", key, join, &start);
    let (room_id, version) = (room.room_id.clone(), room.version.clone());
    let before = Given { state: ids, events: Vec::new() };
    rooms.enter(Entry { room_id, version, event: event.clone(), before, forks }).await.unwrap();
    assert!(room.snapshot().is_joined(&alice));
    let said = meeting.story.world.say(&room, &alice, "back").await;
    let said = rooms.event(&room, &said).await.unwrap();
    let followed: HashSet<_> = said.pdu.prev_events.iter().collect();
    assert_eq!(followed, HashSet::from([&leave[0], &event.event_id]));

    let Story { world, .. } = &meeting.story;
    let recipient = world.destinations.known(&elsewhere).unwrap();
    world.store.commit_soon(store::destination::sent(recipient, world.queues.head())).await;
    assert!(!rooms.is_untold(&room, &elsewhere).await.unwrap(), "all has been sent");
}

/// A join that isn't taken leaves nothing of itself behind: what the room knew of an invite, its places, its state.
#[tokio::test]
async fn a_join_that_is_refused_leaves_the_room_as_it_was() {
    let mut meeting = Meeting::new().await;
    let alice = meeting.story.alice.clone();
    let (rooms, room) = (Arc::clone(&meeting.story.world.rooms), Arc::clone(&meeting.story.room));
    meeting.story.set("m.room.join_rules", json!({ "join_rule": "invite" })).await;
    let (start, ids) = (meeting.story.ends(), state_ids(&meeting.story));
    let state = room.snapshot().state.clone();
    rooms.leave(&room, &alice, None).await.unwrap();
    let left = meeting.story.reloaded().await;
    let key = Some(alice.as_str());
    // Elsewhere she is in, and follows something of which nothing is known here.
    let unseen = meeting.story.by_rita("m.room.message", None, text("unseen"), &start);
    let join = json!({ "membership": "join" });
    let event = meeting.story.event_under(&state, &alice, "m.room.member", key, join, &[unseen.event_id]);
    let (room_id, version) = (room.room_id.clone(), room.version.clone());
    let before = Given { state: ids, events: Vec::new() };
    let entry = Entry { room_id: room_id.clone(), version: version.clone(), event, before, forks: true };
    let refused = rooms.enter(entry).await;
    assert!(matches!(refused, Err(room::Error::Forbidden(_))), "{:?}", refused.map(drop));
    let reloaded = meeting.story.reloaded().await;
    assert_eq!((reloaded.last_seq, &reloaded.holes), (left.last_seq, &left.holes));

    let content = json!({ "membership": "invite" });
    let invite = meeting.story.by_rita("m.room.member", key, content, &[]);
    rooms.hear(Hearsay { room_id, version, event: invite, about: None }).await.unwrap();
    let reloaded = meeting.story.reloaded().await;
    assert_eq!(reloaded.state.membership(&alice), MembershipState::Invite);
}

/// What was known of the room that somebody is invited to stays known when their join fails.
#[tokio::test]
async fn a_join_that_fails_leaves_what_is_known_of_the_invite() {
    let meeting = Meeting::new().await;
    let mut elsewhere = Story::new().await;
    let bob = owned_user_id!("@bob:localhost");
    let key = Some(bob.as_str());
    let invite = elsewhere.by_rita("m.room.member", key, json!({ "membership": "invite" }), &[]);
    elsewhere.bring(&[invite.clone()]).await;
    let join = elsewhere.event(&bob, "m.room.member", key, json!({ "membership": "join" }), &[]);
    let rooms = Arc::clone(&meeting.story.world.rooms);
    let (room_id, version) = (elsewhere.room.room_id.clone(), elsewhere.room.version.clone());
    let name = json!({ "type": "m.room.name", "sender": "@rita:elsewhere", "state_key": "", "content": {} });
    let about = Some(vec![to_raw_value(&name).unwrap()]);
    let hearsay = Hearsay { room_id, version, event: invite, about };
    let room = rooms.hear(hearsay).await.unwrap();
    let entry = Entry { before: Given::default(), ..entry_into(&elsewhere, &join).await };
    rooms.enter(entry).await.map(drop).unwrap_err();
    assert!(room.snapshot().hearsay.is_some());
    assert!(meeting.story.loaded(&room).await.hearsay.is_some());
}
