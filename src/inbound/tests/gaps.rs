//! Events that follow others which aren't here.

#![allow(clippy::cloned_ref_to_slice_refs)]

use super::*;

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
    assert!(meeting.there.asked.lock().len() <= 10);
    assert_eq!(meeting.inbound.gaps.waiting.available_permits(), 64 * 1024, "nothing is held any more");
}
