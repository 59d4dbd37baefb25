//! The algorithm of version 1: SR-12.

use hearth_federation::{StateMap, resolve};
use ruma::RoomVersionId;
use serde_json::json;
use sha1::{Digest, Sha1};

use crate::dag::{ALICE, BOB, CAROL, Dag, id, key};

/// A public room with Bob, who has power 50, and Carol, who has none: `carol` is the last event.
fn room() -> Dag {
    let mut dag = Dag::new(RoomVersionId::V1, "public");
    dag.member("bob", &["rule"], BOB, BOB, "join");
    dag.member("carol", &["bob"], CAROL, CAROL, "join");
    dag
}

/// A chain of `count` messages behind an event, so that what follows lies deeper.
fn deepen(dag: &mut Dag, from: &str, count: usize) -> String {
    let mut last = from.to_owned();
    for nth in 0..count {
        let name = format!("{from}-{nth}");
        let mut message = dag.event(&name, ALICE, "m.room.message", None, &json!({}));
        dag.place(&mut message, &[&last]);
        dag.adopt(message);
        last = name;
    }
    last
}

/// Two names, that of the lower SHA-1 of its id first.
fn by_sha1<'n>(one: &'n str, other: &'n str) -> [&'n str; 2] {
    let sha1 = |name: &str| Sha1::digest(id(name).as_bytes()).to_vec();
    if sha1(one) < sha1(other) { [one, other] } else { [other, one] }
}

#[test]
fn sr_12_of_other_events_the_deepest_that_passes_is_picked() {
    let mut dag = room();
    dag.topic("shallow", &["carol"], ALICE);
    let deep = deepen(&mut dag, "carol", 3);
    // Neither time nor power decides.
    dag.at(1).topic("deep", &[&deep], BOB);
    assert_eq!(dag.current(&["shallow", "deep"], "m.room.topic", "").as_deref(), Some("deep"));

    // Where Bob has lost his power, his is the deepest, but it doesn't pass.
    dag.power("demotion", &["shallow"], ALICE, &[]);
    let after = deepen(&mut dag, "demotion", 9);
    assert_eq!(dag.current(&[&after, "deep"], "m.room.power_levels", "").as_deref(), Some("demotion"));
    assert_eq!(dag.current(&[&after, "deep"], "m.room.topic", "").as_deref(), Some("shallow"));
}

#[test]
fn sr_12_of_other_events_of_one_depth_that_of_the_lowest_sha1_is_picked() {
    let [lower, higher] = by_sha1("one", "other");
    let mut dag = room();
    dag.topic(higher, &["carol"], ALICE);
    dag.topic(lower, &["carol"], BOB);
    assert_eq!(dag.current(&["one", "other"], "m.room.topic", "").as_deref(), Some(lower));
}

#[test]
fn sr_12_power_levels_go_by_depth_as_long_as_each_allows_the_next() {
    let mut dag = room();
    dag.power("shallow", &["carol"], ALICE, &[(BOB, 50), (CAROL, 1)]);
    let deep = deepen(&mut dag, "carol", 3);
    dag.at(1).power("deep", &[&deep], BOB, &[(BOB, 50), (CAROL, 2)]);
    assert_eq!(dag.current(&["shallow", "deep"], "m.room.power_levels", "").as_deref(), Some("deep"));

    // Alice's forbids Bob's, and so also Alice's own that is deeper: there the row ends.
    dag.power("demotion", &["carol"], ALICE, &[]);
    let deeper = deepen(&mut dag, "deep", 3);
    dag.power("deepest", &[&deeper], ALICE, &[(BOB, 50), (CAROL, 3)]);
    let find = |id: &ruma::EventId| dag.find(id);
    let states = ["demotion", "deep", "deepest"].map(|name| dag.states_after[&id(name)].clone());
    let resolved = resolve(&RoomVersionId::V1, &states, find).unwrap();
    assert_eq!(resolved[&key("m.room.power_levels", "")], id("demotion"));
}

#[test]
fn sr_12_power_levels_of_one_depth_go_by_descending_sha1() {
    let [lower, higher] = by_sha1("one", "other");
    let mut dag = room();
    dag.power(lower, &["carol"], ALICE, &[(BOB, 50), (CAROL, 1)]);
    dag.power(higher, &["carol"], ALICE, &[(BOB, 50), (CAROL, 2)]);
    // The last of the row remains.
    assert_eq!(dag.current(&["one", "other"], "m.room.power_levels", "").as_deref(), Some(lower));
}

/// Power levels, then join rules, then memberships, then the rest: each is judged by what was resolved before it.
#[test]
fn sr_12_conflicts_are_resolved_in_their_order() {
    let mut dag = room();
    dag.power("trust", &["carol"], ALICE, &[(BOB, 100)]);
    // Here Alice demotes Bob and closes the room, deep down; there he opens it, and Carol comes back and is banned.
    let deep = deepen(&mut dag, "carol", 9);
    dag.power("demotion", &[&deep], ALICE, &[]);
    dag.join_rule("closed", &["demotion"], ALICE, "invite");
    dag.member("alices-kick", &["closed"], ALICE, CAROL, "leave");
    dag.topic("alices-topic", &["alices-kick"], ALICE);
    dag.member("leave", &["carol"], CAROL, CAROL, "leave");
    dag.join_rule("opened", &["leave"], BOB, "public");
    dag.member("back", &["opened"], CAROL, CAROL, "join");
    dag.topic("bobs-topic", &["back"], BOB);
    let state = dag.resolved(&["alices-topic", "bobs-topic"]);
    assert_eq!(state[&key("m.room.power_levels", "")], id("demotion"));
    assert_eq!(state[&key("m.room.join_rules", "")], id("closed"));
    assert_eq!(state[&key("m.room.member", CAROL)], id("alices-kick"));
    assert_eq!(state[&key("m.room.topic", "")], id("alices-topic"));
}

/// An event that only some states have is no conflict in version 1, whoever sent it.
#[test]
fn sr_12_states_that_lack_an_event_do_not_conflict_with_it() {
    let mut dag = room();
    dag.topic("topic", &["carol"], BOB);
    dag.member("ban", &["carol"], ALICE, BOB, "ban");
    assert_eq!(dag.current(&["topic", "ban"], "m.room.topic", "").as_deref(), Some("topic"));
}

/// Where no topic passes, the one of least depth stays, so that the room has one.
#[test]
fn sr_12_where_no_event_passes_the_shallowest_stays() {
    let mut dag = room();
    dag.topic("shallow", &["carol"], BOB);
    let deep = deepen(&mut dag, "carol", 3);
    dag.topic("deep", &[&deep], BOB);
    dag.member("ban-1", &["shallow"], ALICE, BOB, "ban");
    dag.member("ban-2", &["deep"], ALICE, BOB, "ban");
    assert_eq!(dag.current(&["ban-1", "ban-2"], "m.room.topic", "").as_deref(), Some("shallow"));
}

/// An event that nobody has gives way to those that are there; without any the states' own agreement remains.
#[test]
fn events_that_are_not_found_give_way() {
    let mut dag = room();
    dag.topic("topic", &["carol"], ALICE);
    let mut other: StateMap = dag.states_after[&id("topic")].clone();
    other.insert(key("m.room.topic", ""), id("unknown"));
    let states = [dag.states_after[&id("topic")].clone(), other];
    let resolved = resolve(&RoomVersionId::V1, &states, |id| dag.find(id)).unwrap();
    assert_eq!(resolved[&key("m.room.topic", "")], id("topic"));
    let nothing = resolve(&RoomVersionId::V1, &states, |_| None::<crate::dag::TestEvent>).unwrap();
    assert_eq!(nothing.get(&key("m.room.topic", "")), None);
    assert_eq!(nothing[&key("m.room.power_levels", "")], id("power"));
}
