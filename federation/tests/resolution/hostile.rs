//! Graphs that no honest server makes: resolution ends, quickly, and they harm nothing but themselves.

use std::{cell::Cell, collections::HashSet};

use hearth_federation::{MAX_EVENTS, ResolveError, StateMap, Wanted, resolve};
use ruma::{OwnedEventId, OwnedRoomId, RoomVersionId};
use serde_json::json;

use crate::dag::{ALICE, BOB, Dag, TestEvent, id, key, versions};

/// A room where Alice set a topic on one branch and a name on the other.
fn forked(version: &RoomVersionId) -> Dag {
    let mut dag = Dag::new(version.clone(), "public");
    dag.member("bob", &["rule"], BOB, BOB, "join");
    dag.topic("topic", &["bob"], ALICE);
    dag.state("name", &["bob"], ALICE, "m.room.name", "", &json!({}));
    dag
}

/// The state of an honest branch and one of a branch that ends in a hostile event.
fn with(dag: &Dag, hostile: &TestEvent) -> StateMap {
    let offered = (hostile.kind.to_string().as_str().into(), hostile.state_key.clone().unwrap_or_default());
    let mut state = dag.states_after[&id("name")].clone();
    state.insert(offered, hostile.id.clone());
    let states = [dag.states_after[&id("topic")].clone(), state];
    let resolved = resolve(&dag.version, &states, |id| dag.find(id)).unwrap();
    // The honest events are as if it weren't there.
    assert_eq!(resolved[&key("m.room.topic", "")], id("topic"));
    assert_eq!(resolved[&key("m.room.name", "")], id("name"));
    resolved
}

/// Every kind of event, because each takes another way through the algorithm.
fn kinds() -> [(&'static str, serde_json::Value); 3] {
    [
        ("m.room.power_levels", json!({ "users": { ALICE: 100, BOB: 100 } })),
        ("m.room.join_rules", json!({ "join_rule": "invite" })),
        ("x", json!({})),
    ]
}

/// Events that break one thing each. What the room had of their key stays; `x` was never there.
fn check(break_it: impl Fn(&mut Dag, &mut TestEvent)) {
    for version in versions().skip(1) {
        for (kind, mut content) in kinds() {
            let mut dag = forked(&version);
            if dag.has_privileged_creators() && kind == "m.room.power_levels" {
                content = json!({ "users": { BOB: 100 } });
            }
            let mut hostile = dag.event("hostile", ALICE, kind, Some(""), &content);
            dag.place(&mut hostile, &["name"]);
            // Unbroken, it would be taken.
            dag.adopt(hostile.clone());
            assert_eq!(with(&dag, &hostile)[&key(kind, "")], id("hostile"), "version {version}, {kind}");
            dag.events.remove(&id("hostile"));
            break_it(&mut dag, &mut hostile);
            dag.events.insert(hostile.id.clone(), hostile.clone().into());
            let resolved = with(&dag, &hostile);
            assert_ne!(resolved.get(&key(kind, "")), Some(&id("hostile")), "version {version}, {kind}");
        }
    }
}

#[test]
fn events_whose_auth_events_are_not_found_are_left_out() {
    check(|_, hostile| hostile.auth_events.push(id("unknown")));
}

#[test]
fn events_that_are_not_found_are_left_out() {
    for version in versions().skip(1) {
        let mut dag = forked(&version);
        let hostile = dag.event("nowhere", ALICE, "x", Some(""), &json!({}));
        assert_eq!(with(&dag, &hostile).get(&key("x", "")), None, "version {version}");
    }
}

#[test]
fn events_that_cite_themselves_are_left_out() {
    check(|_, hostile| hostile.auth_events.push(id("hostile")));
}

/// Versions 1 and 2 let servers choose ids, so such a circle can really be made there.
#[test]
fn events_that_cite_each_other_in_a_circle_are_left_out() {
    check(|dag, hostile| {
        let mut last = hostile.id.clone();
        for nth in 0..5 {
            let mut next =
                dag.event(&format!("circle-{nth}"), ALICE, "m.room.power_levels", Some(""), &json!({}));
            dag.place(&mut next, &["name"]);
            next.auth_events.push(last);
            last = next.id.clone();
            dag.events.insert(last.clone(), next.into());
        }
        hostile.auth_events.push(last);
    });
}

#[test]
fn events_that_cite_events_of_another_room_are_left_out() {
    check(|dag, hostile| {
        let mut foreign = dag.event("foreign", ALICE, "m.room.power_levels", Some(""), &json!({}));
        foreign.room_id = Some(OwnedRoomId::try_from("!elsewhere:a").unwrap());
        dag.events.insert(foreign.id.clone(), foreign.into());
        hostile.auth_events.push(id("foreign"));
    });
}

#[test]
fn events_that_cite_messages_are_left_out() {
    check(|dag, hostile| {
        let mut message = dag.event("message", ALICE, "m.room.message", None, &json!({}));
        dag.place(&mut message, &["name"]);
        dag.events.insert(message.id.clone(), message.into());
        hostile.auth_events.push(id("message"));
    });
}

#[test]
fn events_that_are_no_state_are_left_out() {
    check(|_, hostile| hostile.state_key = None);
}

/// Content that the rules can't read is the event's own misfortune.
#[test]
fn events_with_content_of_other_types_harm_nobody() {
    for version in versions() {
        for content in [
            json!({ "users": 5 }),
            json!({ "users": { BOB: [] } }),
            json!({ "membership": {} }),
            json!({ "join_rule": [[]] }),
            json!({}),
        ] {
            for kind in
                ["m.room.power_levels", "m.room.join_rules", "m.room.member", "m.room.third_party_invite"]
            {
                let mut dag = forked(&version);
                let mut hostile = dag.event("hostile", BOB, kind, Some(""), &content);
                hostile.auth_events = [id("create"), id("power"), id("bob")].to_vec();
                if dag.has_privileged_creators() {
                    hostile.auth_events.remove(0);
                }
                dag.events.insert(hostile.id.clone(), hostile.clone().into());
                with(&dag, &hostile);
            }
        }
    }
}

/// A chain as long as the room of one person who changes it all day: no recursion, however long.
#[test]
fn long_chains_are_walked() {
    // Those between share version 2's algorithm.
    for version in [RoomVersionId::V2, RoomVersionId::V12] {
        let mut dag = forked(&version);
        let users = if dag.has_privileged_creators() { json!({}) } else { json!({ ALICE: 100 }) };
        let content = json!({ "users": users });
        let mut last = id("power");
        for nth in 0..20_000 {
            let mut next = dag.event(&format!("p{nth}"), ALICE, "m.room.power_levels", Some(""), &content);
            next.auth_events = vec![last, id("alice")];
            if !dag.has_privileged_creators() {
                next.auth_events.push(id("create"));
            }
            last = next.id.clone();
            dag.events.insert(last.clone(), next.into());
        }
        let hostile = dag.events[&last].clone();
        let resolved = with(&dag, &hostile);
        assert_eq!(resolved[&key("m.room.power_levels", "")], last, "version {version}");
    }
}

/// Each event cites two that each cite the same two, and so on: there are 2^60 ways down, and 120 events.
#[test]
fn chains_with_many_ways_down_are_walked_once() {
    for version in [RoomVersionId::V2, RoomVersionId::V11, RoomVersionId::V12] {
        let mut dag = forked(&version);
        let mut row = vec![id("alice")];
        for nth in 0..60 {
            let cited = row.clone();
            row = ["a", "b"]
                .map(|letter| {
                    let state_key = format!("@{letter}{nth}:a");
                    let content = json!({ "membership": "join" });
                    let name = format!("{letter}{nth}");
                    let mut next = dag.event(&name, ALICE, "m.room.member", Some(&state_key), &content);
                    next.auth_events.clone_from(&cited);
                    dag.events.insert(next.id.clone(), next.into());
                    id(&name)
                })
                .to_vec();
        }
        let hostile = dag.events[&row[0]].clone();
        let asked = Cell::new(0_usize);
        let mut offered = dag.states_after[&id("name")].clone();
        offered.insert(key("m.room.member", "@a59:a"), hostile.id.clone());
        let states = [dag.states_after[&id("topic")].clone(), offered];
        resolve(&version, &states, |id| {
            asked.set(asked.get() + 1);
            dag.find(id)
        })
        .unwrap();
        assert!(asked.get() < 200, "asked {} times", asked.get());
    }
}

/// CVE-2024-31208
#[test]
fn chains_past_the_cap_are_refused() {
    for version in versions().skip(1) {
        let dag = forked(&version);
        let endless = |event_id: &ruma::EventId| {
            dag.find(event_id).map(|event| (*event).clone()).or_else(|| {
                let number: u64 = event_id.as_str()[1..].parse().ok()?;
                let mut event = (*dag.events[&id("power")]).clone();
                event.id = event_id.to_owned();
                event.auth_events = (1..=10).map(|nth| id(&(number * 10 + nth).to_string())).collect();
                Some(event)
            })
        };
        let mut offered = dag.states_after[&id("name")].clone();
        offered.insert(key("m.room.power_levels", ""), id("1"));
        let states = [dag.states_after[&id("topic")].clone(), offered];
        let asked = Cell::new(0_usize);
        let verdict = resolve(&version, &states, |id| {
            asked.set(asked.get() + 1);
            endless(id)
        });
        assert_eq!(verdict, Err(ResolveError::TooLarge { limit: MAX_EVENTS }));
        assert!(asked.get() <= MAX_EVENTS);
    }
}

#[test]
fn what_is_wanted_is_what_is_asked_for() {
    for version in versions() {
        let dag = forked(&version);
        let states = ["topic", "name"].map(|name| dag.states_after[&id(name)].clone());
        let mut wanted = Wanted::resolving(&version, &states).unwrap();
        let mut loaded = HashSet::new();
        loop {
            let wave = wanted.take();
            if wave.is_empty() {
                break;
            }
            for id in wave {
                wanted.found(&dag.find(&id).unwrap()).unwrap();
                assert!(loaded.insert(id), "each is wanted once");
            }
        }
        let resolved = resolve(&version, &states, |id| {
            assert!(loaded.contains(id), "{id} was asked for but not wanted");
            dag.find(id)
        });
        assert_eq!(resolved.unwrap(), dag.resolved(&["topic", "name"]));
        // In version 1 these two don't conflict.
        assert_eq!(loaded.is_empty(), version == RoomVersionId::V1);
        assert!(Wanted::resolving(&version, &states[..1]).unwrap().take().is_empty());
    }
}

#[test]
fn auth_chains_are_capped() {
    let dag = forked(&RoomVersionId::V11);
    let walk = |limit: usize| -> Result<Vec<OwnedEventId>, ResolveError> {
        let mut wanted = Wanted::auth_chain([&id("topic")], limit)?;
        let mut chain = Vec::new();
        loop {
            let wave = wanted.take();
            if wave.is_empty() {
                return Ok(chain);
            }
            for id in wave {
                wanted.found(&dag.find(&id).unwrap())?;
                chain.push(id);
            }
        }
    };
    let mut chain = walk(4).unwrap();
    chain.sort();
    assert_eq!(chain, ["alice", "create", "power", "topic"].map(id));
    assert_eq!(walk(3), Err(ResolveError::TooLarge { limit: 3 }));
}
