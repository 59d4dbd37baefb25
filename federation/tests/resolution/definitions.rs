//! The definitions and steps of the algorithm of version 2, one by one. Where version 1 comes to the same it is tested too.

use hearth_federation::{ResolveError, StateMap, conflicted, resolve};
use ruma::{EventId, RoomVersionId};
use serde_json::json;

use crate::dag::{ALICE, BOB, CAROL, DAVE, Dag, TestEvent, Verdict, id, key, versions};

/// Versions 2 to 12.
fn versions_from_2() -> impl Iterator<Item = RoomVersionId> {
    versions().skip(1)
}

/// A public room in which Bob, who has power 50, and Carol and Dave, who have none, are joined: `dave` is the last event.
fn populated(version: &RoomVersionId) -> Dag {
    let mut dag = Dag::new(version.clone(), "public");
    dag.member("bob", &["rule"], BOB, BOB, "join");
    dag.member("carol", &["bob"], CAROL, CAROL, "join");
    dag.member("dave", &["carol"], DAVE, DAVE, "join");
    dag
}

#[track_caller]
fn assert_current(dag: &Dag, last: &[&str], kind: &str, state_key: &str, name: &str) {
    let current = dag.current(last, kind, state_key);
    assert_eq!(current.as_deref(), Some(name), "version {}", dag.version);
}

#[test]
fn sr_01_the_state_before_an_event_is_resolved_from_the_states_after_those_it_follows() {
    for version in versions() {
        let mut dag = Dag::new(version.clone(), "public");
        dag.topic("one", &["rule"], ALICE);
        dag.state("other", &["rule"], ALICE, "m.room.name", "", &json!({}));
        let state = dag.resolved(&["one", "other"]);
        assert_eq!(state[&key("m.room.topic", "")], id("one"), "version {version}");
        assert_eq!(state[&key("m.room.name", "")], id("other"), "version {version}");
        assert_eq!(state[&key("m.room.power_levels", "")], id("power"), "version {version}");
        assert_eq!(state.len(), 6);
        // A message changes nothing.
        let mut message = dag.event("message", ALICE, "m.room.message", None, &json!({}));
        dag.place(&mut message, &["one", "other"]);
        dag.adopt(message);
        assert_eq!(dag.resolved(&["message"]), state);
        dag.topic("two", &["message"], ALICE);
        assert_current(&dag, &["two"], "m.room.topic", "", "two");
    }
}

#[test]
fn no_states_give_none_and_one_gives_itself() {
    for version in versions() {
        let nobody_asks = |_: &EventId| -> Option<TestEvent> { panic!("asked for an event") };
        assert_eq!(resolve(&version, &[], nobody_asks), Ok(StateMap::new()));
        let state = Dag::new(version.clone(), "public").resolved(&["rule"]);
        for count in 1..4 {
            let states = vec![state.clone(); count];
            assert_eq!(resolve(&version, &states, nobody_asks), Ok(state.clone()));
            assert!(conflicted(&version, &states).unwrap().is_empty());
        }
    }
}

#[test]
fn unknown_versions_have_no_resolution() {
    let version = RoomVersionId::try_from("99").unwrap();
    let verdict = resolve(&version, &[], |_| None::<TestEvent>);
    assert!(matches!(verdict, Err(ResolveError::Version(_))));
}

/// In version 1 only two different events are a conflict; after it an event that another state hasn't got is one too, and
/// has to pass.
#[test]
fn sr_02_an_event_that_is_not_in_every_state_is_conflicted() {
    for version in versions() {
        let mut dag = populated(&version);
        dag.topic("topic", &["dave"], BOB);
        dag.member("ban", &["dave"], ALICE, BOB, "ban");
        let states = ["topic", "ban"].map(|name| dag.states_after[&id(name)].clone());
        let conflicts = conflicted(&version, &states).unwrap();
        let is_version_1 = version == RoomVersionId::V1;
        assert_eq!(conflicts.contains(&id("topic")), !is_version_1);
        assert!(conflicts.contains(&id("bob")) && conflicts.contains(&id("ban")));
        assert_eq!(dag.current(&["topic", "ban"], "m.room.topic", "").is_some(), is_version_1);
        assert_current(&dag, &["topic", "ban"], "m.room.member", BOB, "ban");
    }
}

/// Carol may change power levels. On one branch Alice takes that from her, and then Bob changes something; on the other
/// Carol takes Bob's power, and Alice bans Bob. What Alice did is in neither state, yet it is what remains.
#[test]
fn sr_03_the_auth_difference_takes_part() {
    for version in versions_from_2() {
        let mut dag = populated(&version);
        dag.power("trust", &["dave"], ALICE, &[(BOB, 50), (CAROL, 60)]);
        dag.power("distrust", &["trust"], ALICE, &[(BOB, 50)]);
        dag.power("by-bob", &["distrust"], BOB, &[(BOB, 50), (DAVE, 1)]);
        dag.power("by-carol", &["trust"], CAROL, &[(CAROL, 60)]);
        dag.member("ban", &["by-carol"], ALICE, BOB, "ban");
        assert_current(&dag, &["by-bob", "ban"], "m.room.power_levels", "", "distrust");
    }
}

/// The later of two events that don't mind each other wins, unless one is a power event: that comes first.
#[test]
fn sr_04_power_events_are_power_levels_join_rules_kicks_and_bans() {
    for version in versions_from_2() {
        // A ban, a kick: late, but before the topic of whom it hits.
        for membership in ["ban", "leave"] {
            let mut dag = populated(&version);
            dag.power("more", &["dave"], ALICE, &[(BOB, 50), (CAROL, 50)]);
            dag.at(100).topic("topic", &["more"], CAROL);
            dag.at(200).member("removal", &["more"], ALICE, CAROL, membership);
            assert_eq!(
                dag.current(&["topic", "removal"], "m.room.topic", ""),
                None,
                "{version} {membership}"
            );
        }
        // Power levels.
        let mut dag = populated(&version);
        dag.at(100).topic("topic", &["dave"], BOB);
        dag.at(200).power("less", &["dave"], ALICE, &[]);
        assert_eq!(dag.current(&["topic", "less"], "m.room.topic", ""), None, "{version}");
        // A join rule, before the join that it forbids.
        let mut dag = Dag::new(version.clone(), "public");
        dag.at(100).member("join", &["rule"], CAROL, CAROL, "join");
        dag.at(200).join_rule("closed", &["rule"], ALICE, "invite");
        assert_eq!(dag.current(&["join", "closed"], "m.room.member", CAROL), None, "{version}");
        // Who leaves takes power from nobody: it has its time.
        for (left_at, stays) in [(200, true), (50, false)] {
            let mut dag = populated(&version);
            dag.at(100).topic("topic", &["dave"], BOB);
            dag.at(left_at).member("leave", &["dave"], BOB, BOB, "leave");
            let topic = dag.current(&["topic", "leave"], "m.room.topic", "");
            assert_eq!(topic.is_some(), stays, "{version}, left at {left_at}");
        }
    }
}

/// Join rules do not forbid one another, so the last in the order is what remains.
#[test]
fn sr_05_power_events_go_by_power_then_time_then_id() {
    for version in versions_from_2() {
        let contest = |alice: u32, bob: u32, carol: u32, names: [&str; 3]| {
            let mut dag = populated(&version);
            dag.power("more", &["dave"], ALICE, &[(BOB, 60), (CAROL, 60)]);
            let [alices, bobs, carols] = names;
            dag.at(alice).join_rule(alices, &["more"], ALICE, "invite");
            dag.at(bob).join_rule(bobs, &["more"], BOB, "invite");
            dag.at(carol).join_rule(carols, &["more"], CAROL, "invite");
            dag.current(&names, "m.room.join_rules", "").unwrap()
        };
        // Alice's is late, but she has more power, so hers comes first.
        assert_eq!(contest(900, 200, 300, ["a", "b", "c"]), "c", "{version}: time");
        assert_eq!(contest(900, 300, 200, ["a", "b", "c"]), "b", "{version}: time");
        assert_eq!(contest(900, 200, 200, ["z", "x", "y"]), "y", "{version}: id");
        assert_eq!(contest(900, 200, 200, ["z", "y", "x"]), "y", "{version}: id");
    }
}

/// An order of power, time and id stands behind what cites what.
#[test]
fn sr_05_what_is_cited_comes_before_what_cites_it() {
    for version in versions_from_2() {
        let mut dag = populated(&version);
        // Alice's later levels cite Bob's, so his come first though she has more power and an earlier clock.
        dag.at(500).power("a-bob", &["dave"], BOB, &[(BOB, 50), (DAVE, 1)]);
        dag.at(100).power("b-alice", &["a-bob"], ALICE, &[(BOB, 50), (DAVE, 2)]);
        dag.at(300).join_rule("rule-2", &["dave"], BOB, "invite");
        assert_current(&dag, &["b-alice", "rule-2"], "m.room.power_levels", "", "b-alice");
    }
}

/// Carol had 100 when she set her join rule, on her branch; so it comes before Bob's, who had 50, though its time is later.
/// (In version 12 both stand behind their joining, which here is on the way from one conflicted event to another.)
#[test]
fn sr_06_power_for_the_order_is_read_from_the_events_own_auth_events() {
    for version in versions_from_2().filter(|version| *version != RoomVersionId::V12) {
        let mut dag = populated(&version);
        dag.power("promotion", &["dave"], ALICE, &[(BOB, 50), (CAROL, 100)]);
        dag.at(900).join_rule("carols", &["promotion"], CAROL, "invite");
        dag.at(500).join_rule("bobs", &["dave"], BOB, "invite");
        assert_current(&dag, &["carols", "bobs"], "m.room.join_rules", "", "bobs");
    }
}

#[test]
fn sr_06_creators_have_infinite_power_in_version_12_and_a_hundred_without_power_levels_before() {
    for version in versions_from_2() {
        let mut dag = populated(&version);
        dag.power("high", &["dave"], ALICE, &[(BOB, 100)]);
        dag.at(900).join_rule("alices", &["high"], ALICE, "invite");
        dag.at(500).join_rule("bobs", &["high"], BOB, "invite");
        let alice_comes_first = version == RoomVersionId::V12;
        let last = if alice_comes_first { "bobs" } else { "alices" };
        assert_current(&dag, &["alices", "bobs"], "m.room.join_rules", "", last);
    }
    for version in versions_from_2() {
        // No power levels yet: Alice, the creator, goes before Bob, who joins. Otherwise his join, made under a public
        // rule that hers replaces, would have come first by its time.
        let mut dag = Dag::bare(version.clone());
        dag.member("alice", &["create"], ALICE, ALICE, "join");
        dag.join_rule("public", &["alice"], ALICE, "public");
        dag.at(100).member("bob", &["public"], BOB, BOB, "join");
        dag.at(200).power("gift", &["bob"], ALICE, &[(BOB, 50)]);
        dag.at(900).join_rule("closed", &["public"], ALICE, "invite");
        assert_eq!(dag.current(&["gift", "closed"], "m.room.member", BOB), None, "{version}");
    }
}

#[test]
fn sr_07_other_events_go_by_the_power_levels_they_were_made_under() {
    for version in versions_from_2() {
        let mut dag = populated(&version);
        dag.power("newer", &["dave"], ALICE, &[(BOB, 50), (DAVE, 1)]);
        dag.at(100).topic("under-newer", &["newer"], BOB);
        dag.at(900).topic("under-older", &["dave"], BOB);
        assert_current(&dag, &["under-newer", "under-older"], "m.room.topic", "", "under-newer");
    }
}

#[test]
fn sr_07_events_made_under_the_same_power_levels_go_by_time_then_id() {
    for version in versions_from_2() {
        let mut dag = populated(&version);
        dag.at(100).topic("z", &["dave"], BOB);
        dag.at(200).topic("a", &["dave"], BOB);
        dag.at(200).topic("b", &["dave"], ALICE);
        assert_current(&dag, &["z", "a"], "m.room.topic", "", "a");
        assert_current(&dag, &["a", "b"], "m.room.topic", "", "b");
    }
}

#[test]
fn sr_07_events_made_under_no_power_levels_come_first() {
    for version in versions_from_2() {
        let mut dag = Dag::bare(version.clone());
        dag.member("alice", &["create"], ALICE, ALICE, "join");
        dag.at(100).power("power", &["alice"], ALICE, &[]);
        dag.at(200).topic("under-power", &["power"], ALICE);
        dag.at(900).topic("under-none", &["alice"], ALICE);
        assert_current(&dag, &["under-power", "under-none"], "m.room.topic", "", "under-power");
    }
}

/// Carol joins and sets a topic; her clock says that the topic came first. She isn't in the state then, but the topic
/// cites her joining.
#[test]
fn sr_08_what_the_state_lacks_is_taken_from_auth_events_unless_rejected() {
    for version in versions_from_2() {
        for rejected in [false, true] {
            let mut dag = Dag::new(version.clone(), "public");
            dag.power("easy", &["rule"], ALICE, &[(CAROL, 50)]);
            dag.at(900).member("carol", &["easy"], CAROL, CAROL, "join");
            dag.at(100).topic("topic", &["carol"], CAROL);
            dag.state("other", &["easy"], ALICE, "m.room.name", "", &json!({}));
            std::sync::Arc::make_mut(dag.events.get_mut(&id("carol")).unwrap()).rejected = rejected;
            let topic = dag.current(&["topic", "other"], "m.room.topic", "");
            assert_eq!(topic.is_some(), !rejected, "version {version}");
        }
    }
}

/// Carol was invited. On one branch she joins and kicks Dave, which is a power event and cites her joining; on the other she
/// refuses, with a clock that says she did so before. Had her joining not gone along with the kick it would have come last.
#[test]
fn sr_09_power_events_bring_along_what_they_build_on() {
    for version in versions_from_2() {
        let mut dag = Dag::new(version.clone(), "public");
        dag.member("dave", &["rule"], DAVE, DAVE, "join");
        dag.power("trust", &["dave"], ALICE, &[(CAROL, 50)]);
        dag.member("invite", &["trust"], ALICE, CAROL, "invite");
        dag.at(900).member("join", &["invite"], CAROL, CAROL, "join");
        dag.member("kick", &["join"], CAROL, DAVE, "leave");
        dag.at(100).member("refusal", &["invite"], CAROL, CAROL, "leave");
        assert_current(&dag, &["kick", "refusal"], "m.room.member", CAROL, "refusal");
        assert_current(&dag, &["join", "refusal"], "m.room.member", CAROL, "join");
    }
}

/// Bob's join rule is in both states, for it won once over Alice's; Carol joined under hers, which is why it is in the auth
/// difference now, and is applied. All the same what the states agree on stays.
#[test]
fn sr_10_what_all_states_agree_on_stays() {
    for version in versions_from_2() {
        let mut dag = Dag::new(version.clone(), "invite");
        dag.member("invite-bob", &["rule"], ALICE, BOB, "invite");
        dag.member("bob", &["invite-bob"], BOB, BOB, "join");
        dag.join_rule("alices", &["bob"], ALICE, "public");
        dag.member("carol", &["alices"], CAROL, CAROL, "join");
        dag.join_rule("bobs", &["bob"], BOB, "public");
        dag.state("merge", &["carol", "bobs"], ALICE, "m.room.name", "", &json!({}));
        assert_current(&dag, &["merge"], "m.room.join_rules", "", "bobs");
        let states = ["merge", "bobs"].map(|name| dag.states_after[&id(name)].clone());
        assert!(!conflicted(&version, &states).unwrap().contains(&id("bobs")));
        assert_current(&dag, &["merge", "bobs"], "m.room.join_rules", "", "bobs");
        assert_current(&dag, &["merge", "bobs"], "m.room.member", CAROL, "carol");
    }
}

/// Dave is banned by both states, which disagree on his join rule, and only one of which has his topic. Version 1 has the
/// topic because nothing else claims its place; version 2 refuses both; version 2.1 doesn't ask about the ban.
#[test]
fn rv_08_each_version_has_its_algorithm() {
    for version in versions() {
        let mut dag = populated(&version);
        dag.power("trust", &["dave"], ALICE, &[(BOB, 50), (DAVE, 50)]);
        dag.join_rule("daves", &["trust"], DAVE, "invite");
        dag.member("ban", &["daves"], ALICE, DAVE, "ban");
        dag.topic("topic", &["trust"], DAVE);
        let one = dag.states_after[&id("ban")].clone();
        let mut other = one.clone();
        other.insert(key("m.room.join_rules", ""), id("rule"));
        other.insert(key("m.room.topic", ""), id("topic"));
        let resolved = resolve(&version, &[one, other], |id| dag.find(id)).unwrap();
        let outcome =
            (&resolved[&key("m.room.join_rules", "")], resolved.contains_key(&key("m.room.topic", "")));
        let expected = match version.as_str() {
            "1" => (&id("rule"), true),
            "12" => (&id("daves"), true),
            _ => (&id("rule"), false),
        };
        assert_eq!(outcome, expected, "version {version}");
    }
}

/// Dave is banned by both states, which version 2 begins with; so nothing of his passes. Version 2.1 begins with nothing,
/// and finds him joined in what his topic cites. (A peer claims the state of one branch; honest ones don't fork so.)
#[test]
fn sr_10_sr_11_version_2_begins_with_what_states_agree_on_and_2_1_with_nothing() {
    for version in versions_from_2() {
        let mut dag = populated(&version);
        dag.power("trust", &["dave"], ALICE, &[(DAVE, 50)]);
        dag.join_rule("daves", &["trust"], DAVE, "invite");
        dag.member("ban", &["daves"], ALICE, DAVE, "ban");
        let after = dag.states_after[&id("ban")].clone();
        let mut older = after.clone();
        older.insert(key("m.room.join_rules", ""), id("rule"));
        let resolved = resolve(&version, &[after, older], |id| dag.find(id)).unwrap();
        let expected = if version == RoomVersionId::V12 { "daves" } else { "rule" };
        assert_eq!(resolved[&key("m.room.join_rules", "")], id(expected), "version {version}");
        assert_eq!(resolved[&key("m.room.member", DAVE)], id("ban"), "version {version}");
    }
}

/// An event that was rejected because of the state before it, but not because of what it cites, may be right all the same
/// once branches meet.
#[test]
fn sr_14_events_rejected_by_state_take_part() {
    for version in versions_from_2() {
        let mut dag = populated(&version);
        let mut name = dag.event("name", BOB, "m.room.name", Some(""), &json!({}));
        dag.place(&mut name, &["dave"]);
        name.rejected = true;
        dag.adopt(name);
        let without = dag.states_after[&id("dave")].clone();
        let mut with = without.clone();
        with.insert(key("m.room.name", ""), id("name"));
        let resolved = resolve(&version, &[without, with], |id| dag.find(id)).unwrap();
        assert_eq!(resolved.get(&key("m.room.name", "")), Some(&id("name")), "version {version}");
    }
}

/// Carol is joined, but her event doesn't cite that: whoever looks only at the state lets it pass.
#[test]
fn events_rejected_by_their_auth_events_stay_out_of_state() {
    for version in versions() {
        for rejected in [false, true] {
            let mut dag = populated(&version);
            dag.power("trust", &["dave"], ALICE, &[(BOB, 50), (CAROL, 50)]);
            dag.state("right", &["trust"], BOB, "m.room.name", "", &json!({}));
            let joined = json!({ "membership": "join", "displayname": "new" });
            dag.state("carol-2", &["trust"], CAROL, "m.room.member", CAROL, &joined);
            let mut wrong = dag.event("wrong", CAROL, "m.room.name", Some(""), &json!({}));
            dag.place(&mut wrong, &["carol-2"]);
            wrong.auth_events.retain(|cited| *cited != id("carol-2"));
            assert!(matches!(dag.judge(&wrong), Verdict::ByAuthEvents(_)), "version {version}");
            wrong.rejected = rejected;
            dag.adopt(wrong);
            let right = dag.states_after[&id("right")].clone();
            let mut offered = dag.states_after[&id("carol-2")].clone();
            offered.insert(key("m.room.name", ""), id("wrong"));
            let resolved = resolve(&version, &[right, offered], |id| dag.find(id)).unwrap();
            let expected = if rejected { "right" } else { "wrong" };
            assert_eq!(resolved[&key("m.room.name", "")], id(expected), "version {version}");
        }
    }
}
