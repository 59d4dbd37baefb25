//! Graphs in which version 2 is known to reset the state, and what version 2.1 makes of them.
//!
//! They are the problems of MSC4297, "State Resolution v2.1": a server has an outdated state of one branch from a peer.

use hearth_federation::{StateMap, resolve};
use ruma::RoomVersionId;
use serde_json::json;

use crate::dag::{ALICE, BOB, CAROL, DAVE, Dag, id, key, versions};

/// Resolved in both orders, which must agree.
fn resolved(dag: &Dag, states: [StateMap; 2]) -> StateMap {
    let [one, other] = states;
    let find = |id: &ruma::EventId| dag.find(id);
    let resolved = resolve(&dag.version, &[one.clone(), other.clone()], find).unwrap();
    assert_eq!(resolve(&dag.version, &[other, one], find).unwrap(), resolved);
    resolved
}

fn after(dag: &Dag, name: &str) -> StateMap {
    dag.states_after[&id(name)].clone()
}

/// All agree that the room was closed and that Alice, who closed it, has left. Then a peer tells a state in which the room
/// is still open. Judged in a room that she has left, neither of her join rules passes.
#[test]
fn sr_11_problem_a_the_join_rules_stay() {
    for version in versions().skip(1) {
        let mut dag = Dag::new(version.clone(), "public");
        dag.member("bob", &["rule"], BOB, BOB, "join");
        dag.member("carol", &["bob"], CAROL, CAROL, "join");
        dag.join_rule("closed", &["carol"], ALICE, "invite");
        dag.member("leave", &["closed"], ALICE, ALICE, "leave");
        let joined = json!({ "membership": "join", "displayname": "new" });
        dag.state("bob-2", &["leave"], BOB, "m.room.member", BOB, &joined);
        dag.state("carol-2", &["leave"], CAROL, "m.room.member", CAROL, &joined);
        let mut outdated = after(&dag, "carol-2");
        outdated.insert(key("m.room.join_rules", ""), id("rule"));

        let state = resolved(&dag, [after(&dag, "bob-2"), outdated]);
        let rule = state.get(&key("m.room.join_rules", ""));
        if version == RoomVersionId::V12 {
            assert_eq!(rule, Some(&id("closed")));
        } else {
            assert_eq!(rule, None, "version {version}: the reset");
        }
        assert_eq!(state[&key("m.room.member", ALICE)], id("leave"));
        assert_eq!(state[&key("m.room.member", BOB)], id("bob-2"));
        assert_eq!(state[&key("m.room.member", CAROL)], id("carol-2"));
    }
}

/// Alice gave Bob power, and Bob gave Carol some. Then a peer tells a state with the first power levels. That Bob got power
/// is in neither state, but in the auth chains of both; left out, his gift to Carol isn't allowed.
#[test]
fn sr_11_problem_b_the_power_levels_stay() {
    for version in versions().skip(1) {
        let mut dag = Dag::new(version.clone(), "public");
        dag.power("none", &["rule"], ALICE, &[]);
        dag.member("bob", &["none"], BOB, BOB, "join");
        dag.member("carol", &["bob"], CAROL, CAROL, "join");
        dag.power("bobs", &["carol"], ALICE, &[(BOB, 50)]);
        dag.power("carols", &["bobs"], BOB, &[(BOB, 50), (CAROL, 50)]);
        dag.member("dave", &["carols"], DAVE, DAVE, "join");
        let erin = "@erin:e";
        dag.member("erin", &["carols"], erin, erin, "join");
        let joined = json!({ "membership": "join", "displayname": "new" });
        dag.state("erin-2", &["erin"], erin, "m.room.member", erin, &joined);
        let mut outdated = after(&dag, "erin-2");
        outdated.insert(key("m.room.power_levels", ""), id("none"));

        let state = resolved(&dag, [after(&dag, "dave"), outdated]);
        let expected = if version == RoomVersionId::V12 { "carols" } else { "none" };
        assert_eq!(state[&key("m.room.power_levels", "")], id(expected), "version {version}");
        assert_eq!(state[&key("m.room.member", DAVE)], id("dave"));
        assert_eq!(state[&key("m.room.member", erin)], id("erin-2"));
    }
}

/// Bob's power was taken while his server was away; whatever he did since is undone, however much it was, and comes from
/// no reset: somebody took it back.
#[test]
fn what_a_demoted_moderator_did_meanwhile_is_undone() {
    for version in versions().skip(1) {
        let mut dag = Dag::new(version.clone(), "public");
        dag.member("bob", &["rule"], BOB, BOB, "join");
        dag.member("carol", &["bob"], CAROL, CAROL, "join");
        dag.at(900).power("demotion", &["carol"], ALICE, &[]);
        dag.at(100).join_rule("bobs-rule", &["carol"], BOB, "invite");
        dag.member("bobs-ban", &["bobs-rule"], BOB, CAROL, "ban");
        dag.power("bobs-power", &["bobs-ban"], BOB, &[(BOB, 50), (DAVE, 50)]);
        dag.topic("bobs-topic", &["bobs-power"], BOB);
        let state = dag.resolved(&["bobs-topic", "demotion"]);
        assert_eq!(state, after(&dag, "demotion"), "version {version}");
    }
}

/// A second create event, or an event that cites one, changes nothing.
#[test]
fn a_second_create_event_does_not_take_the_room_over() {
    for version in versions().skip(1) {
        let mut dag = Dag::new(version.clone(), "public");
        let content = json!({ "room_version": version.as_str(), "creator": BOB });
        let mut second = dag.event("second", BOB, "m.room.create", Some(""), &content);
        second.timestamp = 0;
        dag.adopt(second);
        let mut offered = after(&dag, "rule");
        offered.insert(key("m.room.create", ""), id("second"));
        let state = resolved(&dag, [after(&dag, "rule"), offered]);
        assert_eq!(state[&key("m.room.power_levels", "")], id("power"), "version {version}");
        assert_eq!(state[&key("m.room.member", ALICE)], id("alice"), "version {version}");
        assert_eq!(state.get(&key("m.room.member", BOB)), None);
    }
}
