//! Events that follow others which aren't here.

#![allow(clippy::cloned_ref_to_slice_refs)]

use super::*;
use crate::room::{Event, State};

/// A line of events, each following the one before; none of them has come.
pub(super) fn line(meeting: &mut Meeting, length: usize) -> Vec<Pdu> {
    let mut events: Vec<Pdu> = Vec::new();
    for n in 0..length {
        let previous: Vec<OwnedEventId> = events.last().map(|pdu| pdu.event_id.clone()).into_iter().collect();
        events.push(meeting.story.by_rita("m.room.message", None, text(&n.to_string()), &previous));
    }
    meeting.there.has(&events.iter().collect::<Vec<_>>());
    events
}

/// BF-02: events that are missing are fetched, verified and put before what came.
#[tokio::test]
async fn bf_02_missing_events_are_fetched_in_their_order() {
    let mut meeting = Meeting::new().await;
    let line = line(&mut meeting, 120);
    let last = line.last().unwrap();
    let answer = meeting.take("1", &[wire(last)]).await;
    assert_eq!(answer["pdus"], json!({ last.event_id.as_str(): {} }));
    assert_eq!(meeting.story.ends(), [last.event_id.clone()]);
    let room = &meeting.story.room;
    let log = meeting.story.world.rooms.log_backwards(room, i64::MAX, line.len() as i64).await.unwrap();
    let ids: Vec<_> = log.iter().rev().map(|event| event.pdu.event_id.clone()).collect();
    assert_eq!(ids, line.iter().map(|event| event.event_id.clone()).collect::<Vec<_>>());
    let asked = meeting.there.asked.lock();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked.iter().all(|(_, body)| body["limit"].as_u64().unwrap() <= 50));
}

/// Threats: what comes as missing goes through the same verifier, and is of the same room or nothing.
#[tokio::test]
async fn missing_events_are_verified_like_all_others() {
    let mut meeting = Meeting::new().await;
    let line = line(&mut meeting, 3);
    let mut unsigned = wire(&line[1]);
    unsigned["signatures"]["elsewhere"] = json!({});
    let lie = json!({ "events": [wire(&line[0]), unsigned, 7, {}, "x"] });
    *meeting.there.lies.lock() = Some(lie);
    let answer = meeting.take("1", &[wire(&line[2])]).await;
    assert!(answer["pdus"][line[2].event_id.as_str()]["error"].is_string(), "{answer}");
    assert!(meeting.has(&line[0].event_id).await);
    assert!(!meeting.has(&line[1].event_id).await);
    assert!(!meeting.has(&line[2].event_id).await);
}

/// I7: what can't be had is an error for what follows it alone, and nobody is asked for ever.
#[tokio::test]
async fn i7_a_gap_that_stays_stops_nothing_else() {
    let mut meeting = Meeting::new().await;
    let line = line(&mut meeting, 5);
    let other = meeting.say("other");
    for lie in [json!({ "events": [] }), json!({}), json!({ "events": [wire(&line[4])] }), json!([])] {
        *meeting.there.lies.lock() = Some(lie.clone());
        meeting.there.asked.lock().clear();
        let txn_id = lie.to_string();
        let answer = meeting.take(&txn_id[..txn_id.len().min(200)], &[wire(&line[4]), wire(&other)]).await;
        assert!(answer["pdus"][line[4].event_id.as_str()]["error"].is_string(), "{answer}");
        assert_eq!(answer["pdus"][other.event_id.as_str()], json!({}), "{answer}");
        assert!(meeting.there.asked.lock().len() <= 2);
    }
    *meeting.there.lies.lock() = None;
    let answer = meeting.take("honest", &[wire(&line[4])]).await;
    assert_eq!(answer["pdus"][line[4].event_id.as_str()], json!({}), "{answer}");
}

/// A server that makes up ever more events that follow others has an end.
#[tokio::test]
async fn a_line_without_an_end_is_given_up() {
    let mut meeting = Meeting::new().await;
    let mut line = line(&mut meeting, 700);
    // The first follows what nobody has.
    meeting.there.events.lock().remove(0);
    let last = line.pop().unwrap();
    let answer = meeting.take("1", &[wire(&last)]).await;
    assert!(answer["pdus"][last.event_id.as_str()]["error"].is_string(), "{answer}");
    assert!(meeting.there.asked.lock().len() <= 10 + 1, "and once for the state");
    let deadline = std::time::Instant::now() + PATIENCE / 2;
    while meeting.inbound.gaps.waiting.available_permits() < 64 * 1024 {
        assert!(std::time::Instant::now() < deadline, "something is held still");
        tokio::task::yield_now().await;
    }
}

/// TX-05, I7: whoever is banned is out, although their server isn't let see what led to that; nothing else is judged so.
#[tokio::test]
async fn tx_05_whom_a_server_bans_that_shows_nothing_more_is_out() {
    let mut meeting = Meeting::new().await;
    let bob = owned_user_id!("@bob:localhost");
    let join = async |story: &Story| story.world.rooms.join(&story.room, &bob, None).await.unwrap();
    join(&meeting.story).await;
    let unseen = meeting.story.by_rita("m.room.message", None, text("unseen"), &[]);
    let after = [unseen.event_id.clone()];
    let said = meeting.story.by_rita("m.room.message", None, text("said"), &after);
    let content = json!({ "membership": "ban" });
    let ban = meeting.story.by_rita("m.room.member", Some(bob.as_str()), content, &[said.event_id.clone()]);
    let answer = meeting.take("1", &[wire(&said), wire(&ban)]).await;
    assert!(answer["pdus"][said.event_id.as_str()]["error"].is_string(), "{answer}");
    assert_eq!(answer["pdus"][ban.event_id.as_str()], json!({}), "{answer}");
    let snapshot = meeting.story.room.snapshot();
    assert_eq!(snapshot.state.membership(&bob), MembershipState::Ban);

    // One who may not do so gets nothing by it.
    let mut meeting = Meeting::new().await;
    join(&meeting.story).await;
    let stranger = owned_user_id!("@stranger:elsewhere");
    let content = json!({ "membership": "leave" });
    let previous = [unseen.event_id.clone()];
    let kick = meeting.story.event(&stranger, "m.room.member", Some(bob.as_str()), content, &previous);
    let before = meeting.story.reloaded().await;
    let answer = meeting.take("1", &[wire(&kick)]).await;
    assert!(answer["pdus"][kick.event_id.as_str()]["error"].is_string(), "{answer}");
    assert!(meeting.story.room.snapshot().is_joined(&bob));
    // It may be that something which isn't known here allows it: then it can come again.
    assert!(!meeting.has(&kick.event_id).await);
    assert_eq!(meeting.story.reloaded().await.last_seq, before.last_seq);
}

/// Rita has set a topic of which nothing is known here, and then said many things; of these the server has the last.
struct Gap {
    topic: Pdu,
    /// What nobody gives at first, the topic among it, and what follows that.
    missing: Vec<Pdu>,
    line: Vec<Pdu>,
    /// The state by then.
    state: Vec<OwnedEventId>,
}

fn gap(meeting: &mut Meeting) -> Gap {
    let topic = meeting.story.by_rita("m.room.topic", Some(""), json!({ "topic": "meanwhile" }), &[]);
    let mut line = vec![topic.clone()];
    for n in 0..10 {
        let previous = line.last().unwrap().event_id.clone();
        line.push(meeting.story.by_rita("m.room.message", None, text(&n.to_string()), &[previous]));
    }
    let later = line.split_off(6);
    let (missing, line) = (line, later);
    meeting.there.has(&line.iter().collect::<Vec<_>>());
    let state = meeting.story.room.snapshot().state.clone();
    let mut state: Vec<OwnedEventId> = state.iter().map(|event| event.pdu.event_id.clone()).collect();
    state.push(topic.event_id.clone());
    Gap { topic, missing, line, state }
}

/// BF-02: what can't be had is passed over. The first event after it is judged by the state that its server gives, and a
/// place is left for what is missing.
#[tokio::test]
async fn bf_02_a_gap_that_stays_is_bridged_with_the_state_after_it() {
    let mut meeting = Meeting::new().await;
    let before = meeting.story.ends();
    let Gap { topic, line, state, .. } = gap(&mut meeting);
    meeting.there.keeps(&state, &[(&topic.event_id, wire(&topic))]);
    let last = line.last().unwrap();
    let answer = meeting.take("1", &[wire(last)]).await;
    assert_eq!(answer["pdus"], json!({ last.event_id.as_str(): {} }));
    for event in &line {
        assert!(meeting.has(&event.event_id).await);
    }
    assert_eq!(meeting.story.topic().as_deref(), Some("meanwhile"));
    let (rooms, room) = (&meeting.story.world.rooms, &meeting.story.room);
    let holes = rooms.holes(room).await.unwrap();
    let first = rooms.event(room, &line[0].event_id).await.unwrap();
    assert_eq!(holes.iter().map(|hole| hole.seq).collect::<Vec<_>>(), [first.seq]);
    assert_eq!(holes[0].ends, line[0].prev_events);
    assert!(crate::room::last_after_hole(first.seq, first.seq).is_some());
    // What was here stays an end of the history, for what is in the gap may not follow it.
    let ends = meeting.story.ends();
    assert!(ends.contains(&before[0]) && ends.contains(&last.event_id) && ends.len() == 2, "{ends:?}");
    let reloaded = meeting.story.reloaded().await;
    let ids = |snapshot: &crate::room::Snapshot| {
        let mut ids: Vec<_> = snapshot.state.iter().map(|event| event.pdu.event_id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&reloaded), ids(&room.snapshot()));
    // The next event here follows both, and life goes on.
    let next = meeting.story.world.say(room, &meeting.story.alice, "together again").await;
    assert_eq!(meeting.story.ends(), [next]);
}

/// BF-02: the first words of a guest, whose join is in the gap, follow what they cite. That is known as part of the state.
#[tokio::test]
async fn bf_02_what_follows_what_it_cites_is_bridged() {
    let mut meeting = Meeting::new().await;
    let guest = owned_user_id!("@guest:elsewhere");
    let (key, join) = (Some(guest.as_str()), json!({ "membership": "join" }));
    let join = meeting.story.event(&guest, "m.room.member", key, join, &[]);
    let joined = Arc::new(Event::new(0, join.clone(), None));
    let state: State = meeting.story.room.snapshot().state.iter().cloned().chain([joined]).collect();
    let follows = [join.event_id.clone()];
    let said = meeting.story.event_under(&state, &guest, "m.room.message", None, text("hello"), &follows);
    assert!(said.auth_events.contains(&join.event_id));
    let ids: Vec<OwnedEventId> = state.iter().map(|event| event.pdu.event_id.clone()).collect();
    meeting.there.keeps(&ids, &[(&join.event_id, wire(&join))]);
    let answer = meeting.take("1", &[wire(&said)]).await;
    assert_eq!(answer["pdus"], json!({ said.event_id.as_str(): {} }));
    let (rooms, room) = (&meeting.story.world.rooms, &meeting.story.room);
    assert!(rooms.event(room, &said.event_id).await.unwrap().is_visible());
    assert_eq!(room.snapshot().membership(&guest), MembershipState::Join);
    let holes = rooms.holes(room).await.unwrap();
    assert_eq!(holes.iter().map(|hole| &hole.ends[..]).collect::<Vec<_>>(), [&follows[..]]);
}

/// Threats: a state without a beginning, with what is unsigned, or what nobody can have: nothing is believed for its sake.
#[tokio::test]
async fn a_state_that_is_given_is_not_believed() {
    let mut meeting = Meeting::new().await;
    let Gap { topic, line, state, .. } = gap(&mut meeting);
    let last = line.last().unwrap();
    let create = meeting.story.room.snapshot().create().unwrap().pdu.event_id.clone();
    let mut unsigned = wire(&topic);
    unsigned["signatures"] = json!({});
    let headless: Vec<OwnedEventId> = state.iter().filter(|id| **id != create).cloned().collect();
    meeting.there.keeps(&headless, &[(&topic.event_id, wire(&topic))]);
    let answer = meeting.take("1", &[wire(last)]).await;
    assert!(answer["pdus"][last.event_id.as_str()]["error"].is_string(), "{answer}");
    assert!(!meeting.has(&line[0].event_id).await);

    let stranger = owned_user_id!("@stranger:elsewhere");
    let coup = json!({ "users": { stranger.as_str(): 100 } });
    let coup = meeting.story.event(&stranger, "m.room.power_levels", Some(""), coup, &[]);
    let mut state = state;
    let levels = meeting.story.room.snapshot().state.clone();
    let levels = levels.get(&"m.room.power_levels".into(), "").unwrap().pdu.event_id.clone();
    state.retain(|id| *id != levels);
    state.push(coup.event_id.clone());
    meeting.there.keeps(&state, &[(&topic.event_id, unsigned), (&coup.event_id, wire(&coup))]);
    meeting.take("2", &[wire(last)]).await;
    assert_eq!(meeting.story.topic(), None, "what isn't signed was never set");
    let snapshot = meeting.story.room.snapshot();
    let kept = snapshot.state.get(&"m.room.power_levels".into(), "").unwrap();
    assert_eq!(kept.pdu.event_id, levels, "what is rejected is no state");
}

/// A topic of the gap comes by itself later, as an event of the room: it takes its place in the log then.
#[tokio::test]
async fn what_was_only_state_can_still_come_as_an_event() {
    let mut meeting = Meeting::new().await;
    let Gap { topic, line, state, .. } = gap(&mut meeting);
    meeting.there.keeps(&state, &[(&topic.event_id, wire(&topic))]);
    meeting.take("1", &[wire(&line[0])]).await;
    let follows =
        meeting.story.by_rita("m.room.message", None, text("on the topic"), &[topic.event_id.clone()]);
    meeting.there.has(&[&topic, &follows]);
    let answer = meeting.take("2", &[wire(&follows)]).await;
    assert_eq!(answer["pdus"][follows.event_id.as_str()], json!({}), "{answer}");
    let (rooms, room) = (&meeting.story.world.rooms, &meeting.story.room);
    assert!(!rooms.event(room, &topic.event_id).await.unwrap().is_outlier());
    assert_eq!(meeting.story.topic().as_deref(), Some("meanwhile"));
}

/// SR-11: what is put into the hole later changes nothing of the state after it, for a server that was restarted too.
#[tokio::test]
async fn sr_11_the_state_after_a_gap_stays_when_the_gap_is_filled() {
    let mut meeting = Meeting::new().await;
    let Gap { topic, missing, line, mut state } = gap(&mut meeting);
    // Of two topics on two branches this one holds, for Rita's clock is far behind.
    meeting.story.set("m.room.topic", json!({ "topic": "here" })).await;
    meeting.there.keeps(&state, &[(&topic.event_id, wire(&topic))]);
    meeting.take("1", &[wire(&line[3])]).await;
    assert_eq!(meeting.story.topic().as_deref(), Some("here"));
    let (rooms, room) = (&meeting.story.world.rooms, &meeting.story.room);
    let hole = rooms.holes(room).await.unwrap().remove(0);
    state.pop();
    let before = crate::room::Given { state, events: Vec::new() };
    rooms.fill(room, crate::room::Chunk { hole, events: missing.clone(), before }).await.unwrap();
    let filled = rooms.event(room, &topic.event_id).await.unwrap();
    assert!(!filled.is_outlier() && rooms.holes(room).await.unwrap().is_empty());
    assert_eq!(meeting.story.topic().as_deref(), Some("here"));
    let reloaded = meeting.story.reloaded().await;
    let content: Option<Value> = reloaded.state.content(&"m.room.topic".into());
    assert_eq!(content.unwrap()["topic"], "here");
    // At its own place the other one holds.
    let then = rooms.state_at(room, filled.seq).await.unwrap();
    assert_eq!(then.get(&"m.room.topic".into(), "").unwrap().id(), topic.event_id);
}

/// SR-11: the same where what bridges the gap isn't shown: its sender was banned here meanwhile.
#[tokio::test]
async fn sr_11_the_state_after_a_gap_stays_though_what_bridges_it_is_not_shown() {
    let mut meeting = Meeting::new().await;
    let guest = owned_user_id!("@guest:elsewhere");
    let join = json!({ "membership": "join" });
    let join = meeting.story.event(&guest, "m.room.member", Some(guest.as_str()), join, &[]);
    meeting.story.bring(&[join]).await;
    let mut state: Vec<OwnedEventId> =
        meeting.story.room.snapshot().state.iter().map(|event| event.pdu.event_id.clone()).collect();
    let topic = meeting.story.by_rita("m.room.topic", Some(""), json!({ "topic": "meanwhile" }), &[]);
    let said = meeting.story.event(&guest, "m.room.message", None, text("said"), &[topic.event_id.clone()]);
    let (rooms, room) = (Arc::clone(&meeting.story.world.rooms), Arc::clone(&meeting.story.room));
    meeting.story.set("m.room.topic", json!({ "topic": "here" })).await;
    rooms.ban(&room, &meeting.story.alice, &guest, None).await.unwrap();

    state.push(topic.event_id.clone());
    meeting.there.keeps(&state, &[(&topic.event_id, wire(&topic))]);
    meeting.take("1", &[wire(&said)]).await;
    assert!(!rooms.event(&room, &said.event_id).await.unwrap().is_visible());
    let hole = rooms.holes(&room).await.unwrap().remove(0);
    state.pop();
    let before = crate::room::Given { state, events: Vec::new() };
    rooms.fill(&room, crate::room::Chunk { hole, events: vec![topic], before }).await.unwrap();
    assert!(rooms.holes(&room).await.unwrap().is_empty());
    let reloaded = meeting.story.reloaded().await;
    let content: Option<Value> = reloaded.state.content(&"m.room.topic".into());
    assert_eq!(content.unwrap()["topic"], "here");
}

/// I7: who waits for what is missing keeps nobody waiting, in the same room neither; a gap is asked for once, whoever waits
/// for it.
#[tokio::test]
async fn i7_a_server_that_is_slow_to_give_what_is_missing_delays_nothing_else() {
    let mut meeting = Meeting::new().await;
    let line = line(&mut meeting, 4);
    let other = meeting.say("other");
    let slow = Arc::new(Semaphore::new(0));
    *meeting.there.slow.lock() = Some(Arc::clone(&slow));
    let meeting = &meeting;
    let (two, three) = ([wire(&line[2])], [wire(&line[3])]);
    let waiting = futures_util::future::join(meeting.take("1", &two), meeting.take("2", &three));
    let mut waiting = Box::pin(waiting);
    let good = async {
        while meeting.there.asked.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        meeting.take("3", &[wire(&other)]).await
    };
    let answer = tokio::select! {
        answer = good => answer,
        answers = &mut waiting => panic!("nobody had what is missing: {answers:?}"),
    };
    assert_eq!(answer["pdus"], json!({ other.event_id.as_str(): {} }));
    slow.add_permits(1);
    let (two, three) = waiting.await;
    assert_eq!(two["pdus"], json!({ line[2].event_id.as_str(): {} }));
    assert_eq!(three["pdus"], json!({ line[3].event_id.as_str(): {} }));
    assert_eq!(meeting.there.asked.lock().len(), 1);
}
