//! Properties over rooms that chance has made.

use std::collections::BTreeSet;

use hearth_federation::{StateMap, resolve};
use rand::{
    Rng, RngExt, SeedableRng,
    rngs::StdRng,
    seq::{IndexedRandom, SliceRandom},
};
use ruma::{OwnedEventId, RoomVersionId};
use serde_json::{Value, json};

use crate::{
    dag::{ALICE, BOB, CAROL, DAVE, Dag, Verdict, versions},
    oracle,
};

const USERS: [&str; 5] = [ALICE, BOB, CAROL, DAVE, "@erin:a"];

/// `many` where `HEARTH_TEST_MORE` is set.
fn rounds(few: u64, many: u64) -> u64 {
    if std::env::var_os("HEARTH_TEST_MORE").is_some() { many } else { few }
}

/// A room with forks, of everything that changes who may do what. Some of its events are rejected.
fn room(version: &RoomVersionId, seed: u64) -> Dag {
    let mut random = StdRng::seed_from_u64(seed);
    let rule = *["public", "invite"].choose(&mut random).unwrap();
    let mut dag = Dag::new(version.clone(), rule);
    dag.member("bob", &["rule"], ALICE, BOB, "invite");
    dag.member("bob-2", &["bob"], BOB, BOB, "join");
    dag.member("carol", &["bob-2"], ALICE, CAROL, "invite");
    dag.member("carol-2", &["carol"], CAROL, CAROL, "join");
    let mut last = vec!["carol-2".to_owned()];
    for nth in 0..random.random_range(8..40) {
        let name = format!("e{:04}x{nth}", random.random_range(0..10_000));
        let followed = last.choose_multiple_of(&mut random);
        let refs: Vec<_> = followed.iter().map(String::as_str).collect();
        let power_levels = dag.content_in(&dag.resolved(&refs), "m.room.power_levels");
        let (sender, kind, state_key, content) = action(power_levels, &mut random);
        let mut event = dag.event(&name, sender, kind, Some(&state_key), &content);
        // Clocks are wrong, and agree too often.
        event.timestamp = random.random_range(0..20);
        dag.place(&mut event, &refs);
        match dag.judge(&event) {
            Verdict::Allowed => (),
            Verdict::ByState(_) => event.rejected = true,
            Verdict::ByAuthEvents(_) => continue,
        }
        let rejected = event.rejected;
        dag.adopt(event);
        if rejected {
            continue;
        }
        // Some of what was followed is followed again, and so the room forks.
        last.retain(|name| !followed.contains(name) || random.random_bool(0.4));
        last.push(name);
    }
    dag
}

trait ChooseSome {
    fn choose_multiple_of(&self, random: &mut StdRng) -> Vec<String>;
}

impl ChooseSome for Vec<String> {
    fn choose_multiple_of(&self, random: &mut StdRng) -> Vec<String> {
        let count = random.random_range(1..=self.len().min(3));
        let mut all = self.clone();
        all.shuffle(random);
        all.truncate(count);
        all
    }
}

/// Something that somebody may try; `power_levels` is what they are where it happens.
fn action(mut power_levels: Value, random: &mut StdRng) -> (&'static str, &'static str, String, Value) {
    let sender = *USERS.choose(random).unwrap();
    let target = *USERS.choose(random).unwrap();
    let member = |target: &str, membership: &str| {
        (sender, "m.room.member", target.to_owned(), json!({ "membership": membership }))
    };
    match random.random_range(0..16) {
        0..3 => member(sender, "join"),
        3 => member(sender, "leave"),
        4 => member(target, "leave"),
        5 => member(target, "ban"),
        6 => member(target, "invite"),
        7..9 => {
            let rule = *["public", "public", "invite", "private"].choose(random).unwrap();
            (sender, "m.room.join_rules", String::new(), json!({ "join_rule": rule }))
        }
        9..13 => {
            let user = [BOB, CAROL, DAVE].choose(random).unwrap();
            power_levels["users"][user] = json!(*[0, 40, 50, 60, 100].choose(random).unwrap());
            power_levels["state_default"] = json!(*[0, 50].choose(random).unwrap());
            (sender, "m.room.power_levels", String::new(), power_levels)
        }
        13 => (sender, "own", sender.to_owned(), json!({})),
        _ => (sender, "m.room.topic", String::new(), json!({ "topic": random.random_range(0..9) })),
    }
}

/// The states after the events that nothing follows, and after some others.
fn states(dag: &Dag, random: &mut impl Rng) -> Vec<StateMap> {
    let followed: BTreeSet<&OwnedEventId> =
        dag.events.values().flat_map(|event| &event.prev_events).collect();
    let mut ids: Vec<_> = dag.events.keys().collect();
    ids.sort();
    ids.iter()
        .filter(|id| !followed.contains(**id) || random.random_bool(0.1))
        .map(|id| dag.states_after[*id].clone())
        .collect()
}

/// The room's last states, and some of its others together: those are more often at odds.
#[test]
fn every_room_resolves_as_another_implementation_does() {
    let mut forked = 0;
    for version in versions() {
        for seed in 0..rounds(60, 1_000) {
            let dag = room(&version, seed);
            let mut random = StdRng::seed_from_u64(seed);
            let mut all: Vec<_> = dag.states_after.iter().collect();
            all.sort();
            let mut sets = vec![states(&dag, &mut random)];
            for _ in 0..4 {
                let count = random.random_range(2..4);
                sets.push((0..count).map(|_| all.choose(&mut random).unwrap().1.clone()).collect());
            }
            for states in sets {
                let resolved = resolve(&version, &states, |id| dag.find(id)).unwrap();
                assert_eq!(resolved, oracle::resolve(&dag, &states), "version {version}, seed {seed}");
                forked += usize::from(states.iter().any(|state| *state != resolved));
            }
        }
    }
    assert!(forked > 2_000, "only {forked} times was there something to resolve");
}

/// SR-13: every order of the states, and states said twice, come to one state.
#[test]
fn sr_13_the_order_of_the_states_does_not_matter() {
    for version in versions() {
        for seed in 0..rounds(60, 1_000) {
            let dag = room(&version, seed);
            let mut random = StdRng::seed_from_u64(seed);
            let mut states = states(&dag, &mut random);
            let resolved = resolve(&version, &states, |id| dag.find(id)).unwrap();
            for _ in 0..5 {
                states.shuffle(&mut random);
                assert_eq!(
                    resolve(&version, &states, |id| dag.find(id)).unwrap(),
                    resolved,
                    "{version} {seed}"
                );
            }
            let twice = [states.clone(), states].concat();
            assert_eq!(resolve(&version, &twice, |id| dag.find(id)).unwrap(), resolved, "{version} {seed}");
        }
    }
}

/// SR-13: servers that received the branches in any order, and so have resolved other parts of the room meanwhile, agree,
/// for the state before an event is made of the graph alone.
#[test]
fn sr_13_every_order_of_arrival_comes_to_one_state() {
    for version in versions() {
        for seed in 0..rounds(20, 300) {
            let dag = room(&version, seed);
            let mut random = StdRng::seed_from_u64(seed);
            for _ in 0..2 {
                let mut other = dag.clone();
                other.events.clear();
                other.states_after.clear();
                let mut waiting: Vec<_> = dag.events.values().cloned().collect();
                waiting.shuffle(&mut random);
                while !waiting.is_empty() {
                    let nth = waiting
                        .iter()
                        .position(|event| {
                            event.prev_events.iter().all(|id| other.events.contains_key(id))
                                && event.auth_events.iter().all(|id| other.events.contains_key(id))
                        })
                        .unwrap();
                    let event = (*waiting.swap_remove(nth)).clone();
                    let verdict =
                        if event.prev_events.is_empty() { Verdict::Allowed } else { other.judge(&event) };
                    assert_eq!(verdict != Verdict::Allowed, event.rejected, "{version} {seed}");
                    other.adopt(event);
                }
                assert_eq!(other.states_after, dag.states_after, "{version} {seed}");
            }
        }
    }
}

/// Every event of a resolved state was in one of the states or is in their auth chains, under its own key.
#[test]
fn resolution_makes_nothing_up() {
    for version in versions() {
        for seed in 0..rounds(60, 1_000) {
            let dag = room(&version, seed);
            let states = states(&dag, &mut StdRng::seed_from_u64(seed));
            for (key, id) in resolve(&version, &states, |id| dag.find(id)).unwrap() {
                let event = &dag.events[&id];
                assert_eq!(
                    (event.kind.to_string(), event.state_key.clone()),
                    (key.0.to_string(), Some(key.1))
                );
            }
        }
    }
}

/// Events of which not all is known, whatever is missing: the same result in every order, and no panic.
#[test]
fn rooms_with_holes_are_resolved_in_any_order_alike() {
    for version in versions() {
        for seed in 0..rounds(60, 1_000) {
            let mut dag = room(&version, seed);
            let mut random = StdRng::seed_from_u64(seed);
            let mut states = states(&dag, &mut random);
            let mut ids: Vec<_> = dag.events.keys().cloned().collect();
            ids.sort();
            for id in ids {
                if random.random_bool(0.1) {
                    dag.events.remove(&id);
                }
            }
            let resolved = resolve(&version, &states, |id| dag.find(id)).unwrap();
            states.reverse();
            assert_eq!(resolve(&version, &states, |id| dag.find(id)).unwrap(), resolved, "{version} {seed}");
        }
    }
}
