//! Rooms whose history forks: events of another server, made as that server would and brought in through the verifier.

#![allow(clippy::needless_pass_by_value, clippy::cloned_ref_to_slice_refs)]

use std::sync::Arc;

use hearth_federation::{Draft, Limits, Pdu, Position, Received, References, SigningKey, Verified};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, UInt, UserId,
    events::{StateEventType, room::member::MembershipState},
    owned_user_id,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    tests::{World, user},
    *,
};
use crate::room::event::Verdict;

pub(crate) const SEED: &str = "ed25519 1 ZKqG+aVMHPpD0hpy1RVCitB4AbispwkibsLbDq7wwlQ";

/// A room of Alice here and Rita elsewhere, who has as much power.
pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) room: Arc<Room>,
    pub(crate) alice: OwnedUserId,
    pub(crate) rita: OwnedUserId,
    /// That the last event of Rita gives.
    pub(crate) time: u64,
    /// What the next event redacts.
    pub(crate) redacts: Option<OwnedEventId>,
}

impl Story {
    pub(crate) async fn new() -> Self {
        Self::keeping(Environment::real(), None).await
    }

    /// One in which history isn't kept for ever.
    pub(crate) async fn keeping(environment: Environment, retention: Option<Lifetimes>) -> Self {
        let alice = user("alice");
        let world = World::keeping(&[alice.as_str(), "@bob:localhost"], environment, retention).await;
        let room = world.room(&alice).await;
        let rita = owned_user_id!("@rita:elsewhere");
        let mut story = Self { world, room, alice, rita, time: 0, redacts: None };
        story.set("m.room.join_rules", json!({ "join_rule": "public" })).await;
        story.set("m.room.power_levels", json!({ "users": { "@rita:elsewhere": 100 } })).await;
        let join =
            story.by_rita("m.room.member", Some("@rita:elsewhere"), json!({ "membership": "join" }), &[]);
        assert_eq!(story.bring(&[join]).await, [Outcome::Accepted]);
        story
    }

    pub(crate) async fn set(&self, kind: &str, content: Value) -> OwnedEventId {
        let (kind, content) = (StateEventType::from(kind), to_raw_value(&content).unwrap());
        self.world.rooms.set_state(&self.room, &self.alice, kind, String::new(), content).await.unwrap()
    }

    pub(crate) fn ends(&self) -> Vec<OwnedEventId> {
        self.room.snapshot().extremities.iter().map(|end| end.event_id.clone()).collect()
    }

    pub(crate) fn by_rita(
        &mut self,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        previous: &[OwnedEventId],
    ) -> Pdu {
        let sender = self.rita.clone();
        self.event(&sender, kind, state_key, content, previous)
    }

    /// An event that follows these, or else all ends; the current state allows it.
    pub(crate) fn event(
        &mut self,
        sender: &UserId,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        previous: &[OwnedEventId],
    ) -> Pdu {
        let state = self.room.snapshot().state.clone();
        self.event_under(&state, sender, kind, state_key, content, previous)
    }

    pub(crate) fn event_under(
        &mut self,
        state: &State,
        sender: &UserId,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        previous: &[OwnedEventId],
    ) -> Pdu {
        let version = &self.room.version;
        let previous = match previous {
            _ if kind == "m.room.create" => Vec::new(),
            [] => self.ends(),
            previous => previous.to_vec(),
        };
        let draft = Draft {
            // In version 12 a beginning is of the room that it begins.
            room_id: (kind != "m.room.create").then(|| self.room.room_id.clone()),
            sender: sender.to_owned(),
            kind: kind.into(),
            state_key: state_key.map(str::to_owned),
            content: to_raw_value(&content).unwrap(),
            redacts: self.redacts.take(),
        };
        let auth = draft.auth_types(version).unwrap();
        let auth = auth.iter().filter_map(|(kind, key)| Some(state.get(kind, key)?.pdu.event_id.clone()));
        self.time += 1;
        let time = MilliSecondsSinceUnixEpoch(UInt::try_from(self.time).unwrap());
        let position = Position::new(previous, auth.collect(), 50, time);
        let (key, server) = (SigningKey::from_text(SEED).unwrap(), sender.server_name());
        let made = draft.build(version, position, server, &key, Limits::FEDERATED).unwrap();
        let received = Received::parse(made.json.get(), version, References::Limited).unwrap();
        match received.verify(|_, _| Some(key.public_key())).unwrap() {
            Verified::Intact(pdu) => pdu,
            Verified::Redacted(_) => panic!("the hash is wrong"),
        }
    }

    pub(crate) async fn bring(&self, pdus: &[Pdu]) -> Vec<Outcome> {
        self.world.rooms.receive(&self.room, pdus.to_vec()).await.unwrap()
    }

    /// The room as a fresh start would find it.
    pub(crate) async fn reloaded(&self) -> Snapshot {
        self.loaded(&self.room).await
    }

    pub(crate) async fn loaded(&self, room: &Room) -> Snapshot {
        self.world.rooms.core.load(room.number).await.unwrap()
    }

    pub(crate) fn topic(&self) -> Option<String> {
        let content: Option<Value> = self.room.snapshot().state.content(&StateEventType::RoomTopic);
        content.and_then(|content| content["topic"].as_str().map(str::to_owned))
    }
}

pub(crate) fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

/// EV-05: ends of a fork are named by the next event here, which joins them.
#[tokio::test]
async fn ev_05_messages_on_two_branches_are_both_shown_and_joined() {
    let mut story = Story::new().await;
    let start = story.ends();
    story.world.say(&story.room, &story.alice, "here").await;
    let there = story.by_rita("m.room.message", None, text("there"), &start);
    assert_eq!(story.bring(&[there]).await, [Outcome::Accepted]);
    assert_eq!(story.ends().len(), 2);
    assert_eq!(story.reloaded().await.extremities, story.room.snapshot().extremities);
    let joined = story.world.say(&story.room, &story.alice, "joined").await;
    assert_eq!(story.ends(), std::slice::from_ref(&joined));
    let joined = story.world.rooms.event(&story.room, &joined).await.unwrap();
    assert_eq!(joined.pdu.prev_events.len(), 2);
}

/// SR-01, SR-11: of two topics on two branches one holds, in memory, after a restart, and in the log of the state.
#[tokio::test]
async fn sr_01_conflicting_state_is_resolved() {
    let mut story = Story::new().await;
    let start = story.ends();
    story.set("m.room.topic", json!({ "topic": "here" })).await;
    let there = story.by_rita("m.room.topic", Some(""), json!({ "topic": "there" }), &start);
    assert_eq!(story.bring(&[there.clone()]).await, [Outcome::Accepted]);
    // Alice's is later, for Rita's clock is far behind: the mainline is the same, so the time decides.
    assert_eq!(story.topic().as_deref(), Some("here"));
    let reloaded = story.reloaded().await;
    let topic: Value = reloaded.state.content(&StateEventType::RoomTopic).unwrap();
    assert_eq!(topic["topic"], "here");
    // PD-10
    assert_eq!(story.bring(&[there]).await, [Outcome::Known]);
}

/// PD-06, I9: what somebody says on an old branch after they were banned is kept, and neither shown nor built upon.
#[tokio::test]
async fn pd_06_a_banned_users_old_branch_is_soft_failed() {
    let mut story = Story::new().await;
    let (start, before) = (story.ends(), story.room.snapshot().state.clone());
    let guest = owned_user_id!("@guest:elsewhere");
    let join =
        story.event(&guest, "m.room.member", Some(guest.as_str()), json!({ "membership": "join" }), &[]);
    story.bring(&[join]).await;
    let (branch, then) = (story.ends(), story.room.snapshot().state.clone());
    story.world.rooms.ban(&story.room, &story.alice, &guest, None).await.unwrap();
    let late = story.event_under(&then, &guest, "m.room.message", None, text("too late"), &branch);
    assert_eq!(story.bring(&[late.clone()]).await, [Outcome::SoftFailed]);
    assert_eq!(story.ends().len(), 1);
    // The last event isn't the end, and then the last is again.
    assert_eq!(story.reloaded().await.extremities, story.room.snapshot().extremities);
    story.world.say(&story.room, &story.alice, "on with it").await;
    assert_eq!(story.reloaded().await.extremities, story.room.snapshot().extremities);
    let kept = story.world.rooms.event(&story.room, &late.event_id).await.unwrap();
    assert_eq!(kept.verdict, Verdict::SoftFailed);
    let sight = Sight::everything();
    assert!(story.world.rooms.visible_event(&story.room, &sight, &late.event_id).await.is_err());
    // PD-01: without ever having been in, it is rejected by the state before it.
    let stranger = owned_user_id!("@stranger:elsewhere");
    let stranger = story.event_under(&before, &stranger, "m.room.message", None, text("who?"), &start);
    assert!(matches!(story.bring(&[stranger]).await[..], [Outcome::Rejected(_)]));
}

/// PD-02, PD-03, PD-05: a rejected event changes nothing; what follows it is judged, what cites it is rejected.
#[tokio::test]
async fn pd_05_what_cites_a_rejected_event_is_rejected() {
    let mut story = Story::new().await;
    let stranger = owned_user_id!("@stranger:elsewhere");
    let levels = json!({ "users": { stranger.as_str(): 100 } });
    let bad = story.event(&stranger, "m.room.power_levels", Some(""), levels, &[]);
    let ends = story.ends();
    assert!(matches!(story.bring(&[bad.clone()]).await[..], [Outcome::Rejected(_)]));
    assert_eq!(story.ends(), ends);
    assert_eq!(story.bring(&[bad.clone()]).await, [Outcome::Known], "it stays rejected");

    let follows = story.by_rita("m.room.message", None, text("after it"), &[bad.event_id.clone()]);
    assert_eq!(story.bring(&[follows]).await, [Outcome::Accepted]);
    let mut state = story.room.snapshot().state.clone();
    state.insert(story.world.rooms.event(&story.room, &bad.event_id).await.unwrap());
    let rita = story.rita.clone();
    let cites = story.event_under(&state, &rita, "m.room.message", None, text("cites it"), &[]);
    assert!(matches!(story.bring(&[cites]).await[..], [Outcome::Rejected(_)]));
}

/// I7: whoever pages comes past any number of events that nobody is shown.
#[tokio::test]
async fn i7_a_log_full_of_rejected_events_hides_nothing_before_it() {
    let mut story = Story::new().await;
    let alice = story.alice.clone();
    let before = story.world.say(&story.room, &alice, "before").await;
    let stranger = owned_user_id!("@stranger:elsewhere");
    for _ in 0..10 {
        let bad: Vec<Pdu> = (0..100)
            .map(|number| {
                let levels = json!({ "users": { stranger.as_str(): number } });
                story.event(&stranger, "m.room.power_levels", Some(""), levels, &[])
            })
            .collect();
        let outcomes = story.bring(&bad).await;
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Rejected(_))), "{outcomes:?}");
    }
    let (sight, filter) = (Sight::everything(), EventFilter::default());
    for (direction, begin) in [(Direction::Backwards, None), (Direction::Forwards, Some(0))] {
        let (mut from, mut shown, mut pages) = (begin, Vec::new(), 0);
        loop {
            let paging = Paging { direction, from, to: None, limit: 10, filter: &filter };
            let page = story.world.rooms.page(&story.room, &sight, paging).await.unwrap();
            shown.extend(page.events.iter().map(|event| event.id().to_owned()));
            pages += 1;
            assert!(pages < 100, "it never ends");
            let Some(end) = page.end else { break };
            assert_ne!(Some(end), from, "it stands still");
            from = Some(end);
        }
        assert!(shown.contains(&before), "{direction:?}: {pages} pages");
        assert!(shown.len() < 20, "rejected events are shown");
    }
}

/// An event that names what isn't here isn't kept, and is judged once that has come. Others of its batch are.
#[tokio::test]
async fn events_wait_for_those_that_they_name() {
    let mut story = Story::new().await;
    let first = story.by_rita("m.room.message", None, text("first"), &[]);
    let second = story.by_rita("m.room.message", None, text("second"), &[first.event_id.clone()]);
    let missing = Outcome::Missing(vec![first.event_id.clone()]);
    let other = story.by_rita("m.room.message", None, text("other"), &[]);
    assert_eq!(story.bring(&[second.clone(), other]).await, [missing, Outcome::Accepted]);
    assert_eq!(story.bring(&[first, second]).await, [Outcome::Accepted, Outcome::Accepted]);
}

/// MB, SY-02: a membership that resolution takes away is gone everywhere: state, counts, queues.
#[tokio::test]
async fn sr_01_a_ban_on_another_branch_reaches_the_member() {
    let mut story = Story::new().await;
    let bob = user("bob");
    story.world.rooms.join(&story.room, &bob, None).await.unwrap();
    let branch = story.ends();
    story.world.say(&story.room, &bob, "still here").await;
    let ban = story.by_rita("m.room.member", Some(bob.as_str()), json!({ "membership": "ban" }), &branch);
    assert_eq!(story.bring(&[ban]).await, [Outcome::Accepted]);
    let snapshot = story.room.snapshot();
    assert!(!snapshot.is_joined(&bob));
    assert!(snapshot.local.iter().all(|member| member.user_id != bob));
    let reloaded = story.reloaded().await;
    assert_eq!((reloaded.joined, &reloaded.local), (snapshot.joined, &snapshot.local));
    let rows = story.world.store.memberships(bob.as_str()).await.unwrap();
    assert_eq!(rows[0].membership, "ban");
}

/// Ends are kept few: more than ten are joined by an event that nobody sees.
#[tokio::test]
async fn many_ends_are_joined() {
    let mut story = Story::new().await;
    let start = story.ends();
    let many: Vec<Pdu> =
        (0..40).map(|n| story.by_rita("m.room.message", None, text(&n.to_string()), &start)).collect();
    assert!(story.bring(&many).await.iter().all(|outcome| *outcome == Outcome::Accepted));
    assert!(story.ends().len() <= 11, "{}", story.ends().len());
    let log = story.world.rooms.log_backwards(&story.room, i64::MAX, 100).await.unwrap();
    assert!(log.iter().any(|event| !event.is_visible()));
    let seqs: Vec<i64> = log.iter().map(|event| event.seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[0] == pair[1] + 1), "gap-free: {seqs:?}");
}

/// A second beginning, an event of another room, one that names itself by another room's events: refused or rejected.
#[tokio::test]
async fn a_room_has_one_beginning() {
    let mut story = Story::new().await;
    let second = story.by_rita("m.room.create", Some(""), json!({ "room_version": "12" }), &[]);
    assert!(matches!(story.bring(&[second]).await[..], [Outcome::Rejected(_) | Outcome::Refused(_)]));
    let other = story.world.room(&story.alice).await;
    let foreign: Vec<OwnedEventId> =
        other.snapshot().extremities.iter().map(|end| end.event_id.clone()).collect();
    let elsewhere = story.by_rita("m.room.message", None, text("x"), &foreign);
    assert!(matches!(story.bring(&[elsewhere]).await[..], [Outcome::Rejected(_)]));
}

/// RD-01, RD-02: a redaction that comes before its target is unseen until the target comes, which is redacted then.
#[tokio::test]
async fn rd_01_a_redaction_waits_for_its_target() {
    let mut story = Story::new().await;
    let start = story.ends();
    let message = story.by_rita("m.room.message", None, text("regretted"), &start);
    story.redacts = Some(message.event_id.clone());
    let redaction = story.by_rita("m.room.redaction", None, json!({}), &start);
    assert_eq!(story.bring(&[redaction.clone()]).await, [Outcome::Accepted]);
    let sight = Sight::everything();
    let shown = async |story: &Story, id: &OwnedEventId| {
        story.world.rooms.visible_event(&story.room, &sight, id).await.ok()
    };
    assert!(shown(&story, &redaction.event_id).await.is_none());
    assert_eq!(story.bring(&[message.clone()]).await, [Outcome::Accepted]);
    let message = shown(&story, &message.event_id).await.unwrap();
    assert_eq!(message.pdu.content.get(), "{}");
    let redaction = shown(&story, &redaction.event_id).await.unwrap();
    assert_eq!(message.redacted_by, Some(redaction.seq));
    // Both in one batch, the redaction first.
    let message = story.by_rita("m.room.message", None, text("regretted too"), &start);
    story.redacts = Some(message.event_id.clone());
    let redaction = story.by_rita("m.room.redaction", None, json!({}), &start);
    story.bring(&[redaction, message.clone()]).await;
    let message = shown(&story, &message.event_id).await.unwrap();
    assert_eq!(message.pdu.content.get(), "{}");
}

/// RD-01: what nobody allows is neither applied nor shown.
#[tokio::test]
async fn rd_01_a_redaction_that_nobody_allows_does_nothing() {
    let mut story = Story::new().await;
    let guest = owned_user_id!("@guest:elsewhere");
    let join =
        story.event(&guest, "m.room.member", Some(guest.as_str()), json!({ "membership": "join" }), &[]);
    story.bring(&[join]).await;
    let message = story.world.say(&story.room, &story.alice, "stays").await;
    story.redacts = Some(message.clone());
    let redaction = story.event(&guest, "m.room.redaction", None, json!({}), &[]);
    assert_eq!(story.bring(&[redaction.clone()]).await, [Outcome::Accepted]);
    let message = story.world.rooms.event(&story.room, &message).await.unwrap();
    assert!(message.redacted_by.is_none() && message.pdu.content.get().contains("stays"));
    let hidden =
        story.world.rooms.visible_event(&story.room, &Sight::everything(), &redaction.event_id).await;
    assert!(hidden.is_err());
}

/// SR-11, HV-04: a join that resolution takes back is gone from the state, the members, the past and what may be seen.
#[tokio::test]
async fn sr_11_a_join_that_was_not_allowed_elsewhere_is_taken_back() {
    let mut story = Story::new().await;
    let bob = user("bob");
    let branch = story.ends();
    story.world.rooms.join(&story.room, &bob, None).await.unwrap();
    let joined_at = story.room.snapshot().last_seq;
    let closed = story.by_rita("m.room.join_rules", Some(""), json!({ "join_rule": "invite" }), &branch);
    assert_eq!(story.bring(&[closed]).await, [Outcome::Accepted]);
    let snapshot = story.room.snapshot();
    assert!(snapshot.member(&bob).is_none() && snapshot.last_silent == snapshot.last_seq);
    assert!(snapshot.local.iter().all(|member| member.user_id != bob));
    let rooms = &story.world.rooms;
    let at = async |seq| rooms.membership_at(&story.room, &bob, seq).await.unwrap();
    assert_eq!(at(joined_at).await, MembershipState::Join);
    assert_eq!(at(snapshot.last_seq).await, MembershipState::Leave);
    assert!(story.world.store.memberships(bob.as_str()).await.unwrap().is_empty());
    story.world.say(&story.room, &story.alice, "among ourselves").await;
    assert!(rooms.reading(&story.room, &bob).await.is_err());
    let reloaded = story.reloaded().await;
    assert_eq!((reloaded.joined, reloaded.last_silent), (snapshot.joined, snapshot.last_silent));
}

/// I7: an event that names itself, or one that is no event of the room, stops none of the others.
#[tokio::test]
async fn i7_a_bad_event_stops_none_of_its_batch() {
    let mut story = Story::new().await;
    let good = story.by_rita("m.room.message", None, text("good"), &[]);
    let mut stray = story.by_rita("m.room.message", None, text("of another room"), &[]);
    stray.room_id = ruma::owned_room_id!("!another:elsewhere");
    let mut own = story.by_rita("m.room.message", None, text("names itself"), &[]);
    own.prev_events.push(own.event_id.clone());
    let outcomes = story.bring(&[stray, own, good]).await;
    assert!(
        matches!(outcomes[..], [Outcome::Refused(_), Outcome::Refused(_), Outcome::Accepted]),
        "{outcomes:?}"
    );
}
