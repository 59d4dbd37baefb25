//! The definitions and steps of the algorithms, one by one.

use hearth_federation::{ResolveError, StateMap, conflicted, resolve};
use ruma::RoomVersionId;
use serde_json::json;

use crate::dag::{ALICE, Dag, TestEvent, id, key};

/// Versions 1 to 12.
pub(crate) fn versions() -> impl Iterator<Item = RoomVersionId> {
    (1..=12).map(|number: u8| RoomVersionId::try_from(number.to_string()).unwrap())
}

fn topic(dag: &mut Dag, name: &str, prev_events: &[&str], sender: &str) {
    dag.state(name, prev_events, sender, "m.room.topic", "", &json!({ "topic": name }));
}

#[test]
fn sr_01_the_state_before_an_event_is_resolved_from_the_states_after_those_it_follows() {
    for version in versions() {
        let mut dag = Dag::new(version.clone(), "public");
        topic(&mut dag, "one", &["rule"], ALICE);
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
        topic(&mut dag, "two", &["message"], ALICE);
        assert_eq!(dag.current(&["two"], "m.room.topic", ""), Some("two".to_owned()));
    }
}

#[test]
fn no_states_give_none_and_one_gives_itself() {
    for version in versions() {
        let nobody_asks = |_: &ruma::EventId| -> Option<TestEvent> { panic!("asked for an event") };
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
