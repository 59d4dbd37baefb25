//! Stories about history that is not kept for ever, with a clock that the test turns.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    event::Verdict,
    received_tests::{Story, text},
    tests::{World, user},
    *,
};
use crate::{environment::Clock, shutdown::Shutdown, store::Parts};

/// An hour is the time unit of these stories.
const HOUR: i64 = 3_600_000;

pub(super) struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A clock that shows this time.
pub(super) fn clock(now: i64) -> (Arc<Hands>, Environment) {
    let hands = Arc::new(Hands(AtomicI64::new(now)));
    (Arc::clone(&hands), Environment { clock: hands, ..Environment::real() })
}

impl Hands {
    pub(super) fn pass(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

/// Rooms keep what they ask for, or else this.
fn keeping(default: Option<i64>) -> Lifetimes {
    Lifetimes { default, shortest: 1, longest: None }
}

/// A room of Alice and Bob.
struct Kept {
    world: World,
    clock: Arc<Hands>,
    room: Arc<Room>,
    alice: OwnedUserId,
    bob: OwnedUserId,
}

impl Kept {
    async fn new(retention: Option<Lifetimes>) -> Self {
        let (clock, environment) = clock(1_700_000_000_000);
        let (alice, bob) = (user("alice"), user("bob"));
        let world = World::keeping(&[alice.as_str(), bob.as_str()], environment, retention).await;
        let room = world.room(&alice).await;
        world.rooms.invite(&room, &alice, &bob, None).await.unwrap();
        world.rooms.join(&room, &bob, None).await.unwrap();
        Self { world, clock, room, alice, bob }
    }

    async fn say(&self, text: &str) -> OwnedEventId {
        self.world.say(&self.room, &self.alice, text).await
    }

    async fn relate(&self, rel_type: &str, parent: &OwnedEventId) -> OwnedEventId {
        let relates = json!({ "rel_type": rel_type, "event_id": parent });
        let content = json!({ "body": "child", "m.new_content": { "body": "new" }, "m.relates_to": relates });
        self.world.send(&self.room, &self.alice, TimelineEventType::RoomMessage, content).await
    }

    async fn set(&self, by: &UserId, kind: &str, content: Value) -> Result<OwnedEventId, Error> {
        let (kind, content) = (StateEventType::from(kind), to_raw_value(&content).unwrap());
        self.world.rooms.set_state(&self.room, by, kind, String::new(), content).await
    }

    async fn retain(&self, content: Value) {
        self.set(&self.alice, "m.room.retention", content).await.unwrap();
    }

    async fn purge(&self) {
        self.world.rooms.purge(&Shutdown::default()).await;
    }

    async fn is_shown(&self, event_id: &OwnedEventId) -> bool {
        let sight = self.world.rooms.reading(&self.room, &self.bob).await.unwrap();
        match self.world.rooms.visible_event(&self.room, &sight, event_id).await {
            Ok(_) => true,
            Err(Error::NotFound(NO_EVENT)) => false,
            Err(cause) => panic!("{cause}"),
        }
    }

    /// All that Bob gets by paging, oldest first; from either end the same.
    async fn pages(&self) -> Vec<i64> {
        let sight = self.world.rooms.reading(&self.room, &self.bob).await.unwrap();
        let filter = EventFilter::default();
        let mut both = Vec::new();
        for direction in [Direction::Backwards, Direction::Forwards] {
            let (mut seen, mut from) = (Vec::new(), None);
            loop {
                let paging = Paging { direction, from, to: None, limit: 3, filter: &filter };
                let page = self.world.rooms.page(&self.room, &sight, paging).await.unwrap();
                seen.extend(page.events.iter().map(|event| event.seq));
                let Some(end) = page.end else { break };
                assert_ne!(from, Some(end), "no page leads nowhere");
                assert!(!page.events.is_empty(), "what is gone isn't paged through");
                from = Some(end);
            }
            if direction == Direction::Backwards {
                seen.reverse();
            }
            both.push(seen);
        }
        assert_eq!(both[0], both[1]);
        both.remove(0)
    }

    /// The `seq` that have a row.
    async fn rows(&self) -> Vec<i64> {
        let rows = self.world.store.events_forwards(self.room.number, 0, i64::MAX, 10_000).await.unwrap();
        rows.into_iter().map(|row| row.seq).collect()
    }

    /// Those that have a row and aren't state.
    async fn messages(&self) -> Vec<i64> {
        let rows = self.world.store.events_forwards(self.room.number, 0, i64::MAX, 10_000).await.unwrap();
        let events = rows.into_iter().map(|row| Event::from_stored(row, &self.room.version).unwrap());
        events.filter(|event| !event.pdu.is_state()).map(|event| event.seq).collect()
    }

    async fn seq(&self, event_id: &OwnedEventId) -> i64 {
        self.world.rooms.event(&self.room, event_id).await.unwrap().seq
    }

    async fn find(&self, term: &str) -> usize {
        let reader = Reader { recipient: 2, user_id: &self.bob, device: 1 };
        let filter = EventFilter::default();
        let query = Query {
            term,
            keys: Vec::new(),
            filter: &filter,
            order: Order::Recent,
            groups: Vec::new(),
            limit: 10,
            from: None,
        };
        self.world.rooms.search(reader, query).await.unwrap().matches.len()
    }

    fn reader(&self) -> Reader<'_> {
        Reader { recipient: 2, user_id: &self.bob, device: 1 }
    }
}

/// I10: what is too old is shown by nothing, at the moment at which it becomes so and not before; paging ends there.
#[tokio::test]
async fn what_is_too_old_is_hidden_at_once() {
    let kept = Kept::new(Some(keeping(Some(HOUR)))).await;
    let old = kept.say("old apple").await;
    kept.clock.pass(HOUR / 2);
    let young = kept.say("young apple").await;
    let (old_seq, young_seq) = (kept.seq(&old).await, kept.seq(&young).await);
    kept.clock.pass(HOUR / 2 - 1);
    assert!(kept.is_shown(&old).await, "a moment before its time");
    assert_eq!(kept.pages().await, (1..=young_seq).collect::<Vec<_>>());
    assert_eq!(kept.find("apple").await, 2);

    kept.clock.pass(1);
    assert!(!kept.is_shown(&old).await);
    assert!(kept.is_shown(&young).await);
    assert_eq!(kept.pages().await, [young_seq]);
    assert_eq!(kept.find("apple").await, 1);
    let sight = kept.world.rooms.sight(&kept.room, &kept.bob).await.unwrap();
    let rooms = &kept.world.rooms;
    let around = rooms.around(&kept.room, &sight, &young, 10, &EventFilter::default()).await.unwrap();
    assert!(around.before.is_empty());
    assert!(around.state.len() > 4, "state is state, however old");
    for direction in [Direction::Backwards, Direction::Forwards] {
        let time = MilliSecondsSinceUnixEpoch(1_700_000_000_000_u64.try_into().unwrap());
        let nearest = rooms.nearest_in_time(&kept.room, &sight, time, direction).await;
        match direction {
            Direction::Forwards => assert_eq!(nearest.unwrap().seq, young_seq),
            Direction::Backwards => assert!(matches!(nearest, Err(Error::NotFound(_)))),
        }
    }
    assert!(kept.rows().await.contains(&old_seq), "hidden before it is purged");

    // With nothing left to see a member still is one.
    kept.clock.pass(HOUR);
    assert_eq!(kept.pages().await, Vec::<i64>::new());
    let stranger = user("carol");
    let refused = kept.world.rooms.reading(&kept.room, &stranger).await;
    assert!(matches!(refused, Err(Error::Forbidden(_))));
}

/// The purge deletes messages, and leaves state, what no other event follows yet, and the numbers of events.
#[tokio::test]
async fn a_purge_leaves_state_and_the_end_of_the_log() {
    let kept = Kept::new(Some(keeping(Some(HOUR)))).await;
    let first = kept.say("first apple").await;
    for number in 0..250 {
        kept.say(&format!("apple {number}")).await;
    }
    kept.set(&kept.alice, "m.room.topic", json!({ "topic": "kept" })).await.unwrap();
    let last = kept.say("last apple").await;
    let last_seq = kept.room.snapshot().last_seq;
    assert_eq!(kept.find("apple").await, 10, "they are in the index");
    kept.clock.pass(HOUR);
    kept.purge().await;

    assert_eq!(kept.messages().await, [last_seq], "the row of the last stays");
    let event = kept.world.rooms.event(&kept.room, &last).await.unwrap();
    assert_eq!((event.verdict, event.pdu.content.get()), (Verdict::Gone, "{}"), "without its content");
    assert!(!kept.is_shown(&last).await);
    assert!(matches!(kept.world.rooms.event(&kept.room, &first).await, Err(Error::NotFound(_))));
    for word in ["apple", "first"] {
        let word = crate::store::search::Word { text: word.to_owned(), prefix: false };
        assert_eq!(
            kept.world.store.search(&[word], &[], i64::MAX, 10).await.unwrap(),
            [],
            "not in the index"
        );
    }
    let reloaded = kept.world.rooms.core.load(kept.room.number).await.unwrap();
    let current = kept.room.snapshot();
    assert_eq!((reloaded.last_seq, reloaded.depth), (last_seq, current.depth), "after a restart too");
    assert_eq!(reloaded.extremities, current.extremities);
    assert_eq!(reloaded.state.iter().count(), current.state.iter().count());
    assert_eq!((reloaded.joined, reloaded.local.len()), (2, 2));

    // The room goes on, and what had to stay goes when nothing needs it any more.
    let next = kept.say("next").await;
    assert_eq!(kept.seq(&next).await, last_seq + 1);
    let next_event = kept.world.rooms.event(&kept.room, &next).await.unwrap();
    assert_eq!(next_event.pdu.prev_events, [last]);
    assert_eq!(kept.pages().await, [last_seq + 1]);
    kept.purge().await;
    assert_eq!(kept.messages().await, [last_seq + 1]);
    assert!(kept.world.store.purge_rest(kept.room.number).await.unwrap().is_empty());
}

/// Whoever may do it says how long their room keeps its history; other rooms and other users change nothing.
#[tokio::test]
async fn a_room_says_how_long_it_keeps_its_history() {
    let kept = Kept::new(Some(keeping(None))).await;
    let other = kept.world.room(&kept.bob).await;
    let elsewhere = kept.world.say(&other, &kept.bob, "elsewhere").await;
    let old = kept.say("old").await;
    kept.clock.pass(2 * HOUR);
    assert!(kept.is_shown(&old).await, "a room that says nothing keeps all");

    let refused = kept.set(&kept.bob, "m.room.retention", json!({ "max_lifetime": HOUR })).await;
    assert!(refused.is_err(), "Bob has no power");
    assert!(kept.is_shown(&old).await);
    kept.retain(json!({ "max_lifetime": "3600000" })).await;
    assert!(kept.is_shown(&old).await, "that is none");
    kept.purge().await;
    assert!(kept.is_shown(&old).await);

    kept.retain(json!({ "max_lifetime": HOUR })).await;
    assert!(!kept.is_shown(&old).await, "whatever held when it was sent");
    kept.retain(json!({ "max_lifetime": 3 * HOUR })).await;
    assert!(kept.is_shown(&old).await, "the last word counts");
    kept.retain(json!({ "max_lifetime": HOUR })).await;
    kept.purge().await;
    assert!(kept.messages().await.is_empty());
    // What is deleted doesn't come back, nor do holes.
    kept.retain(json!({ "max_lifetime": 3 * HOUR })).await;
    let seen = kept.pages().await;
    assert!(seen.windows(2).all(|pair| pair[0] + 1 == pair[1]) && !seen.contains(&1), "{seen:?}");

    let sight = kept.world.rooms.reading(&other, &kept.bob).await.unwrap();
    kept.world.rooms.visible_event(&other, &sight, &elsewhere).await.unwrap();
}

#[tokio::test]
async fn without_the_operators_word_history_is_for_ever() {
    let kept = Kept::new(None).await;
    let old = kept.say("old").await;
    kept.retain(json!({ "max_lifetime": 1 })).await;
    kept.clock.pass(1_000_000 * HOUR);
    kept.purge().await;
    assert!(kept.is_shown(&old).await);
    assert_eq!(kept.pages().await.len() as i64, kept.room.snapshot().last_seq);
}

/// HV-09, I5: positions lead to the same places when most of the log is gone.
#[tokio::test]
async fn hv_09_positions_lead_over_what_was_purged() {
    let kept = Kept::new(Some(keeping(Some(HOUR)))).await;
    let mut places = Vec::new();
    for number in 0..120 {
        if number == 100 {
            kept.clock.pass(HOUR);
        }
        kept.say("message").await;
        let snapshot = kept.room.snapshot();
        places.push((snapshot.position, snapshot.last_seq));
        if number % 40 == 0 {
            kept.set(&kept.alice, "m.room.topic", json!({ "topic": number.to_string() })).await.unwrap();
        }
    }
    kept.purge().await;
    assert_eq!(kept.messages().await.len(), 20);
    let horizon = kept.world.rooms.horizon(&kept.room).await.unwrap();
    for (position, seq) in places {
        let place = kept.world.store.seq_at(kept.room.number, position).await.unwrap();
        if seq > horizon {
            assert_eq!(place, seq);
        } else {
            assert!(place <= horizon, "{seq}: {place}");
        }
    }
    assert_eq!(kept.world.store.seq_at(kept.room.number, 0).await.unwrap(), 0);
}

/// RL-06, RL-10: relations go with the events that have them; a thread is what is left of it.
#[tokio::test]
async fn rl_06_purged_events_relate_to_nothing() {
    let kept = Kept::new(Some(keeping(Some(HOUR)))).await;
    let (root, edited) = (kept.say("root").await, kept.say("edited").await);
    kept.relate("m.replace", &edited).await;
    let gone_root = kept.say("another root").await;
    kept.relate("m.thread", &gone_root).await;
    for _ in 0..3 {
        kept.relate("m.thread", &root).await;
    }
    kept.clock.pass(HOUR);
    let late = [kept.relate("m.thread", &root).await, kept.relate("m.thread", &root).await];
    let store = &kept.world.store;
    let threads = async |root: &OwnedEventId| {
        store.threads_of(kept.room.number, json!([root]).to_string(), "@bob:localhost").await.unwrap()
    };
    assert_eq!(threads(&root).await[0].replies, 5);
    kept.purge().await;

    let (first, last) = (kept.seq(&late[0]).await, kept.seq(&late[1]).await);
    let thread = &threads(&root).await[0];
    assert_eq!((thread.oldest, thread.latest, thread.replies), (first, last, 2));
    assert!(threads(&gone_root).await.is_empty());
    let sight = kept.world.rooms.reading(&kept.room, &kept.bob).await.unwrap();
    let listed = kept.world.rooms.threads(&kept.room, &sight, kept.reader(), false, None, 10).await.unwrap();
    assert!(listed.roots.is_empty(), "their roots are gone");
    let listing = Listing {
        parent: &root,
        rel_type: None,
        kind: None,
        recurse: true,
        direction: Direction::Backwards,
        from: None,
        to: None,
        limit: 10,
    };
    let relations = kept.world.rooms.relations(&kept.room, &sight, kept.reader(), listing).await;
    assert!(matches!(relations, Err(Error::NotFound(NO_EVENT))));

    // What is said of the purged events goes on, as of any that aren't here.
    let reply = kept.relate("m.thread", &root).await;
    assert!(kept.is_shown(&reply).await);
    let events = kept.world.rooms.events(&kept.room, &[last, last + 1]).await.unwrap();
    kept.world.rooms.client_events(&kept.room, kept.reader(), &events, Some(&sight)).await.unwrap();
    kept.clock.pass(HOUR);
    kept.say("end").await;
    kept.purge().await;
    assert!(threads(&root).await.is_empty());
    assert_eq!(store.relations_extent(kept.room.number).await.unwrap(), (0, false));
}

/// SY-14: nothing counts as unread that can't be read.
#[tokio::test]
async fn sy_14_purged_events_are_not_unread() {
    let kept = Kept::new(Some(keeping(Some(HOUR)))).await;
    for _ in 0..3 {
        kept.say("old").await;
    }
    kept.clock.pass(HOUR);
    kept.say("new").await;
    let bob = kept.world.rooms.core.accounts.recipient(&kept.bob).await.unwrap().unwrap();
    let unread = async || {
        kept.world.store.settled(Parts::ALL).await.unwrap();
        kept.world.store.unread(bob, kept.room.number).await.unwrap().0.total().notifications
    };
    assert_eq!(unread().await, 4);
    let head = kept.world.store.queue(bob, 0, i64::MAX).await.unwrap().len();
    kept.purge().await;
    assert_eq!(unread().await, 1);
    let entries = kept.world.store.queue(bob, 0, i64::MAX).await.unwrap();
    let news: Vec<_> = entries[head..].iter().map(|entry| entry.kind).collect();
    assert_eq!(news, [crate::queue::Kind::Unread], "his devices hear of it");
}

/// An event's age is this server's to say: what another server claims hides and keeps nothing but its own events.
#[tokio::test]
async fn times_of_others_hide_and_keep_nobodys_events() {
    let (hands, environment) = clock(10 * HOUR);
    let mut story = Story::keeping(environment, Some(keeping(Some(HOUR)))).await;
    let sight = async |story: &Story| story.world.rooms.reading(&story.room, &story.alice).await.unwrap();
    let shown = async |story: &Story, id: &OwnedEventId| {
        let sight = sight(story).await;
        story.world.rooms.visible_event(&story.room, &sight, id).await.is_ok()
    };
    let ours = story.world.say(&story.room, &story.alice, "ours").await;
    // As old as can be, by her own account: nobody gets to see it, and it takes nothing along.
    story.time = 1;
    let ancient = story.by_rita("m.room.message", None, text("ancient"), &[]);
    assert_eq!(story.bring(std::slice::from_ref(&ancient)).await, [Outcome::Accepted]);
    assert!(!shown(&story, &ancient.event_id).await);
    assert!(shown(&story, &ours).await);
    let kept = story.world.rooms.event(&story.room, &ancient.event_id).await.unwrap();
    assert_eq!(kept.pdu.content.get(), "{}");
    assert_eq!(story.ends(), std::slice::from_ref(&ancient.event_id), "it is part of the history");
    // From the future: it keeps nothing, and goes with the others.
    story.time = u64::try_from(100 * HOUR).unwrap();
    let future = story.by_rita("m.room.message", None, text("future"), &[]);
    assert_eq!(story.bring(std::slice::from_ref(&future)).await, [Outcome::Accepted]);
    assert!(shown(&story, &future.event_id).await);
    hands.pass(HOUR / 2);
    let young = story.world.say(&story.room, &story.alice, "young").await;
    hands.pass(HOUR / 2);
    assert!(!shown(&story, &ours).await && !shown(&story, &future.event_id).await);
    assert!(shown(&story, &young).await);
    // Its state counts, however old it says that it is.
    story.time = 1;
    let topic = story.by_rita("m.room.topic", Some(""), json!({ "topic": "old" }), &[]);
    assert_eq!(story.bring(std::slice::from_ref(&topic)).await, [Outcome::Accepted]);
    assert_eq!(story.topic().as_deref(), Some("old"));
    assert!(shown(&story, &topic.event_id).await);
}

/// BF-04: what is too old to be shown here isn't given to other servers either.
#[tokio::test]
async fn bf_04_words_that_are_too_old_are_given_to_no_server() {
    let (hands, environment) = clock(10 * HOUR);
    let story = Story::keeping(environment, Some(keeping(Some(HOUR)))).await;
    let old = story.world.say(&story.room, &story.alice, "old").await;
    let topic = story.set("m.room.topic", json!({ "topic": "old" })).await;
    hands.pass(HOUR);
    let young = story.world.say(&story.room, &story.alice, "young").await;
    let server = ruma::server_name!("elsewhere");
    let content = async |id: &OwnedEventId| {
        story.world.rooms.event_for(id, server).await.unwrap().content.get().to_owned()
    };
    assert_eq!(content(&old).await, "{}");
    assert!(content(&young).await.contains("young"));
    assert!(content(&topic).await.contains("old"), "state is kept however old it is");
}

/// A clock that was set back makes no event older than those before it.
#[tokio::test]
async fn a_clock_that_goes_back_hides_nothing() {
    let kept = Kept::new(Some(keeping(Some(HOUR)))).await;
    let old = kept.say("old").await;
    kept.clock.pass(HOUR / 2);
    let young = kept.say("young").await;
    kept.clock.pass(-1_000 * HOUR);
    for _ in 0..40 {
        kept.say("confused").await;
    }
    kept.clock.pass(1_000 * HOUR + HOUR / 2);
    assert!(!kept.is_shown(&old).await);
    let (young, last) = (kept.seq(&young).await, kept.room.snapshot().last_seq);
    assert_eq!(kept.pages().await, (young..=last).collect::<Vec<_>>());
    kept.purge().await;
    assert_eq!(kept.messages().await, (young..=last).collect::<Vec<_>>());
}

/// SR-11: a purge leaves what a history with several ends needs: each end can be followed, and what follows is judged by the
/// state that was there.
#[tokio::test]
async fn ends_of_a_forked_history_survive_a_purge() {
    let (hands, environment) = clock(10 * HOUR);
    let mut story = Story::keeping(environment, Some(keeping(Some(HOUR)))).await;
    story.time = u64::try_from(10 * HOUR).unwrap();
    let start = story.ends();
    let middle = story.world.say(&story.room, &story.alice, "middle").await;
    story.set("m.room.topic", json!({ "topic": "here" })).await;
    let here = story.world.say(&story.room, &story.alice, "here").await;
    let there = story.by_rita("m.room.message", None, text("there"), &start);
    assert_eq!(story.bring(std::slice::from_ref(&there)).await, [Outcome::Accepted]);
    hands.pass(HOUR);
    story.time = u64::try_from(11 * HOUR).unwrap();
    story.world.rooms.purge(&Shutdown::default()).await;
    let ends = story.ends();
    assert_eq!(ends, [here, there.event_id.clone()]);
    assert_eq!(story.reloaded().await.extremities, story.room.snapshot().extremities);

    // One follows an end, one what is gone.
    let on = story.by_rita("m.room.message", None, text("on"), std::slice::from_ref(&there.event_id));
    let lost = story.by_rita("m.room.message", None, text("lost"), std::slice::from_ref(&middle));
    let missing = Outcome::Missing(vec![middle]);
    assert_eq!(story.bring(&[on.clone(), lost]).await, [Outcome::Accepted, missing]);
    let sight = story.world.rooms.reading(&story.room, &story.alice).await.unwrap();
    story.world.rooms.visible_event(&story.room, &sight, &on.event_id).await.unwrap();
    // The event that was purged itself doesn't come back.
    let again = story.bring(&[there]).await;
    assert_eq!(again, [Outcome::Known]);
    assert_eq!(story.topic().as_deref(), Some("here"));
    let joined = story.world.say(&story.room, &story.alice, "joined").await;
    assert_eq!(story.ends(), [joined]);
    story.world.rooms.purge(&Shutdown::default()).await;
    assert!(story.world.store.purge_rest(story.room.number).await.unwrap().is_empty());
}

/// I7: a room that can't be read keeps no other from being purged.
#[tokio::test]
async fn i7_a_damaged_room_keeps_no_other_from_being_purged() {
    let kept = Kept::new(Some(keeping(Some(HOUR)))).await;
    let damaged = kept.world.room(&kept.alice).await;
    kept.world.say(&damaged, &kept.alice, "damaged").await;
    let later = kept.world.room(&kept.alice).await;
    for room in [&kept.room, &damaged, &later] {
        kept.world.say(room, &kept.alice, "old").await;
        kept.world.say(room, &kept.alice, "end").await;
    }
    let break_it = crate::store::statement!("UPDATE room SET version = 'none' WHERE id = $1", damaged.number);
    kept.world.store.commit(break_it).await.unwrap();
    kept.clock.pass(HOUR);
    kept.purge().await;
    for (room, purged) in [(&kept.room, true), (&damaged, false), (&later, true)] {
        assert_eq!(kept.world.store.purged_up_to(room.number).await.unwrap() > 0, purged);
    }
}
