//! What readers of `/sync` hear of a room whose history forks.

use std::{sync::Arc, time::Duration};

use ruma::{OwnedUserId, events::room::member::MembershipState, owned_user_id};
use serde_json::{Value, json};

use super::{
    Direction, Entry, Event, EventFilter, Given, Outcome, Paging,
    received_tests::{Story, text},
};
use crate::{
    account::Session,
    live::{
        self, StateForm, SyncFilter, Syncs, Wanted,
        brief_tests::{log_in, syncs_of},
        sliding::{Config, Key, Request, Required, Sliding, Wishes},
    },
    queue::{Token, flags},
};

/// A device of somebody who is in the room.
struct Reader {
    syncs: Arc<Syncs>,
    session: Session,
    since: Option<Token>,
    form: StateForm,
}

impl Reader {
    /// Joins the room of a story, and hears of that.
    async fn joined(story: &Story, name: &str, form: StateForm) -> Self {
        let world = &story.world;
        let (session, syncs) = (log_in(world, name).await, syncs_of(world));
        world.rooms.join(&story.room, &session.user_id, None).await.unwrap();
        let mut reader = Self { syncs, session, since: None, form };
        reader.next().await;
        reader
    }

    /// What is new, without waiting.
    async fn next(&mut self) -> Value {
        let filter = Arc::new(SyncFilter::new(ruma::api::client::filter::FilterDefinition::default()));
        let wanted = Wanted { filter, full_state: false, state: self.form };
        let request = live::Request { since: self.since, timeout: Duration::ZERO, wanted };
        let body = self.syncs.sync(self.session.clone(), request).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        self.since = Some(answer["next_batch"].as_str().unwrap().parse().unwrap());
        answer
    }
}

fn ids(events: &Value) -> Vec<&str> {
    events.as_array().into_iter().flatten().map(|event| event["event_id"].as_str().unwrap()).collect()
}

/// Somebody elsewhere who may set the topic, and the topic that Alice has set before.
async fn guest_with_power(story: &mut Story) -> (OwnedUserId, String) {
    let guest = owned_user_id!("@guest:elsewhere");
    let levels = json!({ "users": { "@rita:elsewhere": 100, guest.as_str(): 50 } });
    story.set("m.room.power_levels", levels).await;
    let state = story.room.snapshot().state.clone();
    let join = json!({ "membership": "join" });
    let join = story.event_under(&state, &guest, "m.room.member", Some(guest.as_str()), join, &[]);
    story.bring(&[join]).await;
    let first = story.set("m.room.topic", json!({ "topic": "first" })).await;
    (guest, first.to_string())
}

/// SY-05, SR-11: state that comes back by resolution, without an event, reaches those who sync, in each form.
#[tokio::test]
async fn sy_05_state_that_resolution_brings_back_is_told() {
    for form in [StateForm::Before, StateForm::After] {
        let mut story = Story::new().await;
        let (guest, first) = guest_with_power(&mut story).await;
        let mut carol = Reader::joined(&story, "carol", form).await;
        let (branch, then) = (story.ends(), story.room.snapshot().state.clone());
        let second = json!({ "topic": "second" });
        let second = story.event_under(&then, &guest, "m.room.topic", Some(""), second, &[]);
        story.bring(std::slice::from_ref(&second)).await;
        let news = carol.next().await;
        let timeline = &news["rooms"]["join"][story.room.room_id.as_str()]["timeline"]["events"];
        assert_eq!(ids(timeline), [second.event_id.as_str()]);

        // On the other branch the guest was banned before that.
        let ban =
            story.by_rita("m.room.member", Some(guest.as_str()), json!({ "membership": "ban" }), &branch);
        story.bring(std::slice::from_ref(&ban)).await;
        assert_eq!(story.topic().as_deref(), Some("first"));
        let news = carol.next().await;
        let room = &news["rooms"]["join"][story.room.room_id.as_str()];
        assert_eq!(ids(&room["timeline"]["events"]), [ban.event_id.as_str()]);
        let state = match form {
            StateForm::Before => &room["state"]["events"],
            _ => &room["state_after"]["events"],
        };
        assert!(ids(state).contains(&first.as_str()), "{form:?}: {room}");
        assert!(!ids(state).contains(&second.event_id.as_str()), "{room}");
        assert_eq!(carol.next().await["rooms"], Value::Null, "it is told once");
        // Whoever comes anew finds the same.
        carol.since = None;
        let whole = carol.next().await["rooms"]["join"][story.room.room_id.as_str()].to_string();
        assert!(whole.contains("\"first\"") && story.reloaded().await.state.iter().count() > 3);
    }
}

/// SY-02, HV-04: a reader whose join is taken back, or who was banned on another branch, hears that they are out, and nothing
/// after.
#[tokio::test]
async fn sy_02_those_whom_resolution_takes_out_hear_of_it_and_of_nothing_after() {
    for banned in [true, false] {
        let mut story = Story::new().await;
        let branch = story.ends();
        let mut carol = Reader::joined(&story, "carol", StateForm::Before).await;
        let joined = if banned { story.ends() } else { branch };
        story.world.say(&story.room, &story.alice.clone(), "while in").await;
        carol.next().await;
        let id = carol.session.user_id.to_string();
        let out = if banned {
            story.by_rita("m.room.member", Some(&id), json!({ "membership": "ban" }), &joined)
        } else {
            story.by_rita("m.room.join_rules", Some(""), json!({ "join_rule": "invite" }), &joined)
        };
        story.bring(&[out]).await;
        assert!(!story.room.snapshot().is_joined(&carol.session.user_id));
        let secret = story.world.say(&story.room, &story.alice.clone(), "among ourselves").await;

        let news = carol.next().await;
        let room_id = story.room.room_id.as_str();
        assert_eq!(news["rooms"]["join"].get(room_id), None, "{news}");
        assert!(news["rooms"]["leave"].get(room_id).is_some(), "banned: {banned}: {news}");
        assert!(!news.to_string().contains(secret.as_str()), "{news}");
        story.world.say(&story.room, &story.alice.clone(), "more of it").await;
        assert_eq!(carol.next().await["rooms"], Value::Null);
        carol.since = None;
        let whole = carol.next().await;
        assert_eq!(whole["rooms"]["join"].get(room_id), None, "{whole}");
        assert!(!whole.to_string().contains(secret.as_str()), "{whole}");
    }
}

/// RD-01, RD-02, RD-04: an event whose redaction was there first comes redacted, with the redaction beside it, and notifies
/// nobody. The redaction is shown in its place in the log.
#[tokio::test]
async fn rd_02_an_event_whose_redaction_came_first_comes_redacted() {
    for one_batch in [false, true] {
        let mut story = Story::new().await;
        let mut carol = Reader::joined(&story, "carol", StateForm::Before).await;
        let start = story.ends();
        let mention = json!({ "body": "regretted", "m.mentions": { "user_ids": [carol.session.user_id] } });
        let message = story.by_rita("m.room.message", None, mention, &start);
        story.redacts = Some(message.event_id.clone());
        let redaction = story.by_rita("m.room.redaction", None, json!({ "reason": "oops" }), &start);
        let other =
            story.by_rita("m.room.message", None, text("kept"), std::slice::from_ref(&redaction.event_id));
        if one_batch {
            story.bring(&[redaction.clone(), other.clone(), message.clone()]).await;
        } else {
            story.bring(&[redaction.clone(), other.clone()]).await;
            let news = carol.next().await;
            let room = &news["rooms"]["join"][story.room.room_id.as_str()];
            assert_eq!(ids(&room["timeline"]["events"]), [other.event_id.as_str()], "it waits");
            assert_eq!(room["unread_notifications"]["notification_count"], 1);
            story.bring(std::slice::from_ref(&message)).await;
        }
        let news = carol.next().await;
        let room = &news["rooms"]["join"][story.room.room_id.as_str()];
        let events = room["timeline"]["events"].as_array().unwrap();
        let told = events.iter().find(|event| event["event_id"] == message.event_id.as_str()).unwrap();
        assert_eq!(told["content"], json!({}));
        assert_eq!(told["unsigned"]["redacted_because"]["event_id"], redaction.event_id.as_str(), "{told}");
        let counts = &room["unread_notifications"];
        assert_eq!((&counts["notification_count"], &counts["highlight_count"]), (&json!(1), &json!(0)));
        let entries = story.world.store.queue(carol.session.recipient, 0, i64::MAX).await.unwrap();
        let seq = story.world.rooms.event(&story.room, &message.event_id).await.unwrap().seq;
        let entry = entries.iter().find(|entry| entry.room == story.room.number && entry.item == seq);
        assert_eq!(entry.unwrap().flags & (flags::NOTIFY | flags::HIGHLIGHT), 0);
        let log = story.world.rooms.log_backwards(&story.room, i64::MAX, 3).await.unwrap();
        let log: Vec<_> = log.iter().map(|event| (event.is_visible(), event.id().to_owned())).collect();
        let expected = [message, other, redaction].map(|pdu| (true, pdu.event_id));
        assert_eq!(log, expected);
    }
}

/// SY-02: whoever is in a room that this server was out of and enters gets all of it, whoever of them enters, also if the room
/// took them for joined already: the answer to an earlier join may have been lost.
#[tokio::test]
async fn sy_02_a_join_that_the_room_knew_of_before_brings_the_room() {
    for (form, by_another) in [
        (StateForm::Before, false),
        (StateForm::After, false),
        (StateForm::Before, true),
        (StateForm::After, true),
    ] {
        let mut story = Story::new().await;
        let mut carol = Reader::joined(&story, "carol", form).await;
        let (id, alice) = (carol.session.user_id.clone(), story.alice.clone());
        for user in [&id, &alice] {
            story.world.rooms.leave(&story.room, user, None).await.unwrap();
        }
        assert!(!story.room.snapshot().is_resident());
        carol.next().await;
        let mut state = story.room.snapshot().state.clone();
        let join = json!({ "membership": "join" });
        let lost = story.event_under(&state, &id, "m.room.member", Some(id.as_str()), join.clone(), &[]);
        state.insert(Arc::new(Event::new(1_000_000, lost.clone(), None)));
        let given = state.iter().map(|event| event.pdu.event_id.clone()).collect();
        let (ends, enters) = ([lost.event_id.clone()], if by_another { &alice } else { &id });
        let event = story.event_under(&state, enters, "m.room.member", Some(enters.as_str()), join, &ends);
        let (room_id, version) = (story.room.room_id.clone(), story.room.version.clone());
        let before = Given { state: given, events: vec![lost] };
        story
            .world
            .rooms
            .enter(Entry { room_id, version, event: event.clone(), before, forks: false })
            .await
            .unwrap();

        let news = carol.next().await;
        let room = &news["rooms"]["join"][story.room.room_id.as_str()];
        let key = if form == StateForm::Before { "state" } else { "state_after" };
        assert!(room[key].to_string().contains("m.room.create"), "{room}");
        assert_eq!(ids(&room["timeline"]["events"]), [event.event_id.as_str()]);
    }
}

/// SR-01: whoever reads by sliding sync what lost to another branch, hears what the state is.
#[tokio::test]
async fn sr_01_sliding_sync_tells_the_state_beside_what_lost_to_it() {
    let mut story = Story::new().await;
    let session = log_in(&story.world, "carol").await;
    story.world.rooms.join(&story.room, &session.user_id, None).await.unwrap();
    let branch = story.ends();
    let holds = story.set("m.room.topic", json!({ "topic": "holds" })).await;
    let sliding = Sliding::new(syncs_of(&story.world));
    let ask = async |pos: Option<&str>| {
        let key = Key { kind: Some("m.room.topic".to_owned()), state_key: Some(String::new()) };
        let state = vec![Required { include: vec![key], exclude: Vec::new(), lazy_members: false }];
        let config = Config { timeline_limit: 10, state };
        let answer =
            sliding.sync(session.clone(), Request::new(Wishes::rooms(config, 9), pos)).await.unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()
    };
    let begun = ask(None).await;
    // It is older, by its own account.
    let lost = story.by_rita("m.room.topic", Some(""), json!({ "topic": "lost" }), &branch);
    assert_eq!(story.bring(std::slice::from_ref(&lost)).await, [Outcome::Accepted]);
    assert_eq!(story.topic().as_deref(), Some("holds"));
    let news = ask(begun["pos"].as_str()).await;
    let room = &news["rooms"][story.room.room_id.as_str()];
    assert_eq!(ids(&room["timeline"]), [lost.event_id.as_str()], "{room}");
    assert_eq!(ids(&room["required_state"]), [holds.as_str()], "{room}");
}

/// SR-01: a kick that lost to another branch takes nobody out of the room, for those neither who load members as they need them.
#[tokio::test]
async fn sr_01_sliding_sync_tells_who_is_in_still_although_a_kick_is_shown() {
    let mut story = Story::new().await;
    let carol = log_in(&story.world, "carol").await;
    let bob = owned_user_id!("@bob:localhost");
    let rooms = Arc::clone(&story.world.rooms);
    rooms.join(&story.room, &carol.user_id, None).await.unwrap();
    rooms.join(&story.room, &bob, None).await.unwrap();
    let (branch, state) = (story.ends(), story.room.snapshot().state.clone());
    rooms.leave(&story.room, &bob, None).await.unwrap();
    rooms.join(&story.room, &bob, None).await.unwrap();
    let sliding = Sliding::new(syncs_of(&story.world));
    let ask = async |pos: Option<&str>| {
        let state = vec![Required { include: Vec::new(), exclude: Vec::new(), lazy_members: true }];
        let wishes = Wishes::rooms(Config { timeline_limit: 10, state }, 9);
        let answer = sliding.sync(carol.clone(), Request::new(wishes, pos)).await.unwrap();
        serde_json::from_slice::<Value>(&answer).unwrap()
    };
    let begun = ask(None).await;
    let content = json!({ "membership": "leave" });
    let rita = story.rita.clone();
    let kick = story.event_under(&state, &rita, "m.room.member", Some(bob.as_str()), content, &branch);
    assert_eq!(story.bring(std::slice::from_ref(&kick)).await, [Outcome::Accepted]);
    assert!(story.room.snapshot().is_joined(&bob));
    let news = ask(begun["pos"].as_str()).await;
    let room = &news["rooms"][story.room.room_id.as_str()];
    assert_eq!(ids(&room["timeline"]), [kick.event_id.as_str()], "{room}");
    let state = room["required_state"].as_array().unwrap();
    let told = state.iter().find(|event| event["state_key"] == bob.as_str());
    assert_eq!(told.unwrap()["content"]["membership"], "join", "{room}");
}

/// SR-01: state of which a room was told when somebody entered is the same event once it comes with a place of its own, for what
/// was written down before that and for what is afterwards.
#[tokio::test]
async fn sr_01_state_that_gets_its_place_later_stays_the_state() {
    for one_batch in [true, false] {
        let mut story = Story::new().await;
        let alice = story.alice.clone();
        story.world.rooms.leave(&story.room, &alice, None).await.unwrap();
        let (start, mut state) = (story.ends(), story.room.snapshot().state.clone());
        let topic = story.by_rita("m.room.topic", Some(""), json!({ "topic": "told" }), &start);
        state.insert(Arc::new(Event::new(1_000_000, topic.clone(), None)));
        let given = state.iter().map(|event| event.pdu.event_id.clone()).collect();
        let join = json!({ "membership": "join" });
        let key = Some(alice.as_str());
        let ends = std::slice::from_ref(&topic.event_id);
        let event = story.event_under(&state, &alice, "m.room.member", key, join, ends);
        let (room_id, version) = (story.room.room_id.clone(), story.room.version.clone());
        let before = Given { state: given, events: vec![topic.clone()] };
        let ends = [event.event_id.clone(), start[0].clone()];
        story.world.rooms.enter(Entry { room_id, version, event, before, forks: false }).await.unwrap();
        assert!(story.world.rooms.event(&story.room, &topic.event_id).await.unwrap().is_outlier());
        let fork = story.by_rita("m.room.message", None, text("on a fork"), &ends);
        let outcomes = if one_batch {
            story.bring(&[fork.clone(), topic.clone()]).await
        } else {
            let mut outcomes = story.bring(std::slice::from_ref(&topic)).await;
            outcomes.extend(story.bring(std::slice::from_ref(&fork)).await);
            outcomes
        };
        assert_eq!(outcomes, [Outcome::Accepted, Outcome::Accepted]);
        assert!(!story.world.rooms.event(&story.room, &topic.event_id).await.unwrap().is_outlier());

        let last =
            story.by_rita("m.room.message", None, text("after it"), std::slice::from_ref(&fork.event_id));
        assert_eq!(story.bring(&[last]).await, [Outcome::Accepted]);
        assert_eq!(story.topic().as_deref(), Some("told"), "in one batch: {one_batch}");
        let reloaded = story.reloaded().await;
        let told = reloaded.state.get(&"m.room.topic".into(), "").map(|event| event.pdu.event_id.clone());
        assert_eq!(told.as_ref(), Some(&topic.event_id), "in one batch: {one_batch}");
    }
}

/// I5: after a gap in the room's history a timeline begins anew, with all that has become of the state meanwhile.
#[tokio::test]
async fn sy_05_a_gap_that_was_bridged_limits_the_timeline() {
    for form in [StateForm::Before, StateForm::After] {
        let mut story = Story::new().await;
        let mut carol = Reader::joined(&story, "carol", form).await;
        let before = story.world.say(&story.room, &story.alice.clone(), "before").await;
        let missed = story.by_rita("m.room.message", None, text("missed"), &[]);
        let state = story.room.snapshot().state.clone();
        let rita = story.rita.clone();
        let topic = json!({ "topic": "meanwhile" });
        let topic = story.event_under(
            &state,
            &rita,
            "m.room.topic",
            Some(""),
            topic,
            std::slice::from_ref(&missed.event_id),
        );
        let event =
            story.by_rita("m.room.message", None, text("after"), std::slice::from_ref(&topic.event_id));
        let state = state.iter().map(|event| event.pdu.event_id.clone()).chain([topic.event_id.clone()]);
        let given = Given { state: state.collect(), events: vec![topic.clone()] };
        let outcome = story.world.rooms.bridge(&story.room, event.clone(), given).await.unwrap();
        assert_eq!(outcome, Outcome::Accepted);
        let since = carol.since.unwrap().to_string();
        let news = carol.next().await;
        let room = &news["rooms"]["join"][story.room.room_id.as_str()];
        assert_eq!(room["timeline"]["limited"], true, "{room}");
        assert_eq!(ids(&room["timeline"]["events"]), [event.event_id.as_str()], "not {before}");
        let seq = story.world.rooms.event(&story.room, &event.event_id).await.unwrap().seq;
        assert_eq!(room["timeline"]["prev_batch"], format!("r{}", seq - 1));
        let key = if form == StateForm::Before { "state" } else { "state_after" };
        assert!(ids(&room[key]["events"]).contains(&topic.event_id.as_str()), "{room}");

        // What the timeline leaves out is between the two answers, and nothing else.
        let (rooms, filter) = (&story.world.rooms, EventFilter::default());
        let prev_batch = room["timeline"]["prev_batch"].as_str().unwrap();
        let paging = Paging {
            direction: Direction::Backwards,
            from: Some(rooms.place(&story.room, prev_batch).await.unwrap()),
            to: Some(rooms.place(&story.room, &since).await.unwrap()),
            limit: 100,
            filter: &filter,
        };
        let sight = rooms.sight(&story.room, &carol.session.user_id).await.unwrap();
        let page = rooms.page(&story.room, &sight, paging).await.unwrap();
        let between: Vec<_> = page.events.iter().map(|event| event.id()).collect();
        assert_eq!((between, page.end), (vec![&*before], None));
    }
}

/// I10: where the membership of somebody who is out changes at an event of somebody else, they hear that it has changed, and
/// nothing of that event.
#[tokio::test]
async fn i10_who_is_out_is_not_shown_the_event_at_which_their_membership_changes() {
    for form in [StateForm::Before, StateForm::After] {
        let mut story = Story::new().await;
        let mut carol = Reader::joined(&story, "carol", form).await;
        let (id, alice, rita) = (carol.session.user_id.clone(), story.alice.clone(), story.rita.clone());
        let (branch, then) = (story.ends(), story.room.snapshot().state.clone());
        story.world.rooms.kick(&story.room, &alice, &id, None).await.unwrap();
        assert!(carol.next().await["rooms"]["leave"].is_object());

        // On another branch, of which nothing is known but the state, she was banned.
        let ban = json!({ "membership": "ban" });
        let ban = story.event_under(&then, &rita, "m.room.member", Some(id.as_str()), ban, &branch);
        let said = text("among ourselves");
        let ends = std::slice::from_ref(&ban.event_id);
        let said = story.event_under(&then, &rita, "m.room.message", None, said, ends);
        let own = |event: &&Arc<Event>| event.pdu.state_key.as_deref() == Some(id.as_str());
        let others = then.iter().filter(|event| !own(event)).map(|event| event.pdu.event_id.clone());
        let given = Given { state: others.chain([ban.event_id.clone()]).collect(), events: vec![ban] };
        let outcome = story.world.rooms.bridge(&story.room, said.clone(), given).await.unwrap();
        assert_eq!(outcome, Outcome::Accepted);
        assert_eq!(story.room.snapshot().membership(&id), MembershipState::Ban);

        let news = carol.next().await;
        let room = &news["rooms"]["leave"][story.room.room_id.as_str()];
        assert!(room.is_object(), "{news}");
        assert!(!news.to_string().contains(said.event_id.as_str()), "{news}");
    }
}
