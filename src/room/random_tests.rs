//! Rooms whose history forks at random, brought in in any order: what the server makes of them is what a model makes, which
//! knows nothing of orders. `HEARTH_TEST_MORE` tries many more; `HEARTH_SEED` one of them again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hearth_federation::{Pdu, StateMap};
use ruma::{OwnedEventId, OwnedUserId, events::room::member::MembershipState, owned_user_id};
use serde_json::{Value, json};

use super::{
    forks::ids,
    received_tests::{Story, text},
    tests::user,
    *,
};
use crate::room::event::Verdict;

const EVENTS: usize = 40;
/// Ends of the history. More are joined by an event of the server.
const TIPS: usize = 7;

/// `SplitMix64`.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn of<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

/// What a server that has everything at once makes of the room.
struct Model {
    story: Story,
    chance: Chance,
    /// All events, by id, and the states after them.
    events: HashMap<OwnedEventId, Arc<Event>>,
    after: HashMap<OwnedEventId, State>,
    rejected: BTreeSet<OwnedEventId>,
    /// Those with no follower.
    tips: Vec<OwnedEventId>,
    /// What is brought in, in the order in which it was made.
    made: Vec<Pdu>,
    people: Vec<OwnedUserId>,
}

impl Model {
    async fn new(seed: u64) -> Self {
        let story = Story::new().await;
        let bob = user("bob");
        story.world.rooms.join(&story.room, &bob, None).await.unwrap();
        let log = story.world.rooms.log_backwards(&story.room, i64::MAX, 100).await.unwrap();
        let events = log.into_iter().map(|event| (event.pdu.event_id.clone(), event)).collect();
        let tips = story.ends();
        let after = tips.iter().map(|tip| (tip.clone(), story.room.snapshot().state.clone())).collect();
        let people = ["@rita:elsewhere", "@one:elsewhere", "@two:elsewhere", "@three:elsewhere"];
        let people = people.iter().map(|name| OwnedUserId::try_from(*name).unwrap()).chain([bob]).collect();
        let (rejected, made) = (BTreeSet::new(), Vec::new());
        Self { story, chance: Chance(seed), events, after, rejected, tips, made, people }
    }

    fn resolved(&self, states: &[&State]) -> State {
        let maps: Vec<StateMap> = states.iter().map(|state| ids(state)).collect();
        let find = |id: &EventId| self.events.get(id).map(|event| &event.pdu);
        let resolved = hearth_federation::resolve(&self.story.room.version, &maps, find).unwrap();
        resolved.values().map(|id| Arc::clone(&self.events[id])).collect()
    }

    fn allows(&self, state: &State, pdu: &Pdu) -> bool {
        let find = |kind: &StateEventType, key: &str| state.get(kind, key).map(|event| event.pdu.clone());
        hearth_federation::authorize_by_state(&self.story.room.version, pdu, find).is_ok()
    }

    /// Where the next event goes.
    fn previous(&mut self) -> Vec<OwnedEventId> {
        let many = self.tips.len() >= TIPS;
        if self.tips.len() > 1 && (many || self.chance.percent(25)) {
            let first = self.chance.below(self.tips.len() - 1);
            return self.tips[first..(first + 2 + usize::from(many)).min(self.tips.len())].to_vec();
        }
        // What follows a rejected event is judged as if that weren't there.
        let rejected: Vec<OwnedEventId> = self.rejected.iter().cloned().collect();
        if !rejected.is_empty() && self.chance.percent(10) {
            return vec![self.chance.of(&rejected).clone()];
        }
        if let Some(old) = self.made.len().checked_sub(8)
            && self.chance.percent(30)
        {
            let recent: Vec<OwnedEventId> = self.made[old..].iter().map(|pdu| pdu.event_id.clone()).collect();
            return vec![self.chance.of(&recent).clone()];
        }
        vec![self.chance.of(&self.tips.clone()).clone()]
    }

    /// An event of anybody elsewhere that may be allowed.
    fn deed(&mut self, number: usize) -> (OwnedUserId, &'static str, Option<String>, Value) {
        let remote: Vec<OwnedUserId> =
            self.people.iter().filter(|person| person.server_name() == "elsewhere").cloned().collect();
        let (mut sender, other) = (self.chance.of(&remote).clone(), self.chance.of(&self.people).clone());
        let kind = self.chance.below(14);
        // She has the power.
        if kind > 3 && self.chance.percent(60) {
            sender = owned_user_id!("@rita:elsewhere");
        }
        let member = |membership: &str| json!({ "membership": membership });
        match kind {
            0 | 1 => (sender.clone(), "m.room.member", Some(sender.to_string()), member("join")),
            2 => (sender.clone(), "m.room.member", Some(sender.to_string()), member("leave")),
            3 | 4 => (sender, "m.room.message", None, text(&number.to_string())),
            5 => (sender, "m.room.member", Some(other.to_string()), member("ban")),
            6 => (sender, "m.room.member", Some(other.to_string()), member("leave")),
            7 => (sender, "m.room.member", Some(other.to_string()), member("invite")),
            8 | 9 => {
                let mut levels = BTreeMap::from([("@rita:elsewhere".to_owned(), 100)]);
                for person in &self.people[1..] {
                    if self.chance.percent(50) || *person == other {
                        levels.insert(person.to_string(), 25 * i64::try_from(number % 4).unwrap());
                    }
                }
                (sender, "m.room.power_levels", Some(String::new()), json!({ "users": levels }))
            }
            10 => {
                let rule = *self.chance.of(&["public", "invite", "knock"]);
                (sender, "m.room.join_rules", Some(String::new()), json!({ "join_rule": rule }))
            }
            11 if !self.made.is_empty() => {
                let target = self.chance.of(&self.made).event_id.clone();
                self.story.redacts = Some(target);
                (sender, "m.room.redaction", None, json!({}))
            }
            _ => (sender, "m.room.topic", Some(String::new()), json!({ "topic": number.to_string() })),
        }
    }

    fn make(&mut self, number: usize) {
        let previous = self.previous();
        let states: Vec<&State> = previous.iter().map(|id| &self.after[id]).collect();
        let before = self.resolved(&states);
        let (sender, kind, state_key, content) = self.deed(number);
        self.story.time = u64::try_from(self.chance.below(1_000)).unwrap();
        let pdu = self.story.event_under(&before, &sender, kind, state_key.as_deref(), content, &previous);
        let allowed = self.allows(&before, &pdu);
        // Most of what isn't allowed nobody sends.
        if !allowed && self.chance.percent(80) {
            return;
        }
        let id = pdu.event_id.clone();
        let event = Arc::new(Event::new(1_000_000 + i64::try_from(number).unwrap(), pdu.clone(), None));
        let mut after = before;
        self.events.insert(id.clone(), Arc::clone(&event));
        if allowed {
            after.insert(event);
            self.tips.retain(|tip| !previous.contains(tip));
            self.tips.push(id.clone());
        } else {
            self.rejected.insert(id.clone());
        }
        self.after.insert(id, after);
        self.made.push(pdu);
    }

    /// Brings in everything, in an order of its own, some of it twice, until nothing is missing. Gives the state after each
    /// step by the last `seq` of the log, and whether something was soft-failed.
    async fn bring_all(&mut self) -> (Vec<(i64, StateMap)>, bool) {
        let mut waiting = self.made.clone();
        for at in (1..waiting.len()).rev() {
            // From everything mixed to nearly in order.
            let reach = self.chance.below(at + 1).max(at.saturating_sub(12));
            waiting.swap(at, reach);
        }
        let (mut steps, mut soft_failed) = (Vec::new(), false);
        let mut brought: Vec<Pdu> = Vec::new();
        while !waiting.is_empty() {
            let length = waiting.len();
            let mut still = Vec::new();
            for pdu in waiting {
                let before = self.story.room.snapshot();
                let outcome = self.story.bring(std::slice::from_ref(&pdu)).await.remove(0);
                let rejected = self.rejected.contains(&pdu.event_id);
                match &outcome {
                    Outcome::Missing(missing) => {
                        assert!(missing.iter().all(|id| !brought.iter().any(|other| other.event_id == *id)));
                        still.push(pdu);
                        continue;
                    }
                    Outcome::Rejected(_) => assert!(rejected),
                    Outcome::Accepted => assert!(!rejected && self.allows(&before.state, &pdu)),
                    // PD-06
                    Outcome::SoftFailed => assert!(!rejected && !self.allows(&before.state, &pdu)),
                    other => panic!("{other:?}: {}", pdu.json.get()),
                }
                soft_failed |= outcome == Outcome::SoftFailed;
                let sight = Sight::everything();
                let rooms = &self.story.world.rooms;
                let shown = rooms.visible_event(&self.story.room, &sight, &pdu.event_id).await.is_ok();
                // Redactions wait for what they redact, and may be of no effect.
                if pdu.redacts.is_none() {
                    assert_eq!(shown, outcome == Outcome::Accepted, "{outcome:?}");
                }
                let now = self.story.room.snapshot();
                steps.push((now.last_seq, ids(&now.state)));
                brought.push(pdu);
                if self.chance.percent(10) {
                    let again = self.chance.of(&brought).clone();
                    assert_eq!(self.story.bring(&[again]).await, [Outcome::Known]);
                }
            }
            assert!(still.len() < length, "what is missing was never made");
            waiting = still;
        }
        (steps, soft_failed)
    }

    /// The state after an event of the server, which the model may not know.
    async fn state_after(&self, id: &OwnedEventId) -> State {
        if let Some(state) = self.after.get(id) {
            return state.clone();
        }
        let joint = self.story.world.rooms.event(&self.story.room, id).await.unwrap();
        assert_eq!(joint.pdu.kind.to_string(), event::DUMMY);
        let mut states = Vec::new();
        for previous in &joint.pdu.prev_events {
            states.push(Box::pin(self.state_after(previous)).await);
        }
        self.resolved(&states.iter().collect::<Vec<_>>())
    }
}

/// SR-01, PD-06, PD-10, EV-05, I2: by whatever order events come, the state is that of the ends of the history; the log of the
/// state says what the state was after each; a fresh start finds the room as it is.
async fn one_room(seed: u64) -> [bool; 4] {
    let mut model = Model::new(seed).await;
    for number in 0..EVENTS {
        model.make(number);
    }
    let (steps, soft_failed) = model.bring_all().await;

    let now = model.story.room.snapshot();
    let ends = model.story.ends();
    assert!(ends.len() <= 11, "{} ends", ends.len());
    let mut states = Vec::new();
    for end in &ends {
        states.push(model.state_after(end).await);
    }
    let expected = ids(&model.resolved(&states.iter().collect::<Vec<_>>()));
    assert_eq!(ids(&now.state), expected, "the state of the ends");
    if !soft_failed && ends.iter().all(|end| model.after.contains_key(end)) {
        let set = |ids: &[OwnedEventId]| ids.iter().cloned().collect::<BTreeSet<_>>();
        assert_eq!(set(&ends), set(&model.tips), "the ends themselves");
    }

    let fresh = model.story.reloaded().await;
    assert_eq!(ids(&fresh.state), expected);
    assert_eq!(fresh.extremities, now.extremities);
    let numbers = |room: &Snapshot| {
        let early = room.early_relations;
        (room.last_seq, room.depth, room.joined, room.invited, room.last_relation, room.last_silent, early)
    };
    assert_eq!(numbers(&fresh), numbers(&now));
    let local = |room: &Snapshot| room.local.iter().map(|member| member.recipient).collect::<BTreeSet<_>>();
    assert_eq!(local(&fresh), local(&now));
    let bob = user("bob");
    let is_in = now.state.membership(&bob) == MembershipState::Join;
    assert_eq!(now.local.iter().any(|member| member.user_id == bob), is_in);
    for person in &model.people {
        let rows = model.story.world.store.memberships(person.as_str()).await.unwrap();
        let membership = rows.first().map(|row| row.membership.clone());
        assert_eq!(membership, now.member(person).map(|member| member.membership().to_string()), "{person}");
    }

    for (seq, expected) in &steps {
        let state = model.story.world.rooms.state_at(&model.story.room, *seq).await.unwrap();
        assert_eq!(ids(&state), *expected, "the state after {seq}");
    }
    let log = model.story.world.rooms.log_backwards(&model.story.room, i64::MAX, 1_000).await.unwrap();
    assert!(log.windows(2).all(|pair| pair[0].seq == pair[1].seq + 1));
    for event in &log {
        let redacted = event.redacted_by.map(|by| log.iter().find(|other| other.seq == by).unwrap());
        assert!(redacted.is_none_or(|by| by.verdict == Verdict::Accepted));
    }
    // EV-05: whoever speaks next joins the ends, and changes nothing.
    let joined = model.story.world.say(&model.story.room, &model.story.alice.clone(), "joined").await;
    assert_eq!(model.story.ends(), [joined]);
    assert_eq!(ids(&model.story.room.snapshot().state), ids(&now.state));
    let redacted = log.iter().any(|event| event.redacted_by.is_some());
    [soft_failed, now.last_silent > 0, !model.rejected.is_empty(), redacted]
}

#[tokio::test]
async fn sr_01_every_order_of_random_histories_gives_the_state_of_their_ends() {
    if let Ok(seed) = std::env::var("HEARTH_SEED") {
        one_room(seed.parse().unwrap()).await;
        return;
    }
    let rounds = if std::env::var_os("HEARTH_TEST_MORE").is_some() { 300 } else { 12 };
    let mut met = [0; 4];
    for seed in 0..rounds {
        eprintln!("HEARTH_SEED={seed}");
        for (met, one) in met.iter_mut().zip(one_room(seed).await) {
            *met += u32::from(one);
        }
    }
    // Soft-failed events, silent changes of the state, rejected events, redactions: how many rooms had some.
    eprintln!("{met:?}");
    assert!(met.iter().all(|met| *met > 0), "{met:?}");
}
