//! State that is its owner's, in the room versions of MSC3757; and that it is nobody's elsewhere.

use hearth_federation::{Rejected, rules, supported_versions};
use ruma::{RoomVersionId, room_version_rules::RoomVersionDisposition};
use serde_json::json;

use crate::{
    authorisation::{ALICE, BOB, Room, reason},
    common::{number, versions},
};

const CAROL: &str = "@carol:domain";

fn owned() -> [RoomVersionId; 2] {
    ["org.matrix.msc3757.10", "org.matrix.msc3757.11"].map(|name| RoomVersionId::try_from(name).unwrap())
}

/// Alice has 100, Bob 60, Carol 60; 50 is needed for any state.
fn room(version: RoomVersionId) -> Room {
    let mut room = Room::new(version, "public");
    room.member(BOB, BOB, "join").unwrap();
    room.member(CAROL, CAROL, "join").unwrap();
    room.levels(&json!({ "users": { BOB: 60, CAROL: 60, "@dave_x:domain": 20 } })).unwrap();
    room
}

fn sends(room: &mut Room, by: &str, state_key: &str) -> bool {
    room.send(by, "x", Some(state_key), &json!({})).is_ok()
}

#[test]
fn state_is_its_owners_and_of_those_with_more_power() {
    for version in owned() {
        let mut room = room(version);
        for suffix in ["", "_", "_device", "__", "_@alice:domain", "_ü"] {
            let bobs = format!("{BOB}{suffix}");
            assert!(sends(&mut room, BOB, &bobs), "{bobs}: his own");
            assert!(sends(&mut room, ALICE, &bobs), "{bobs}: she has more power");
            assert!(!sends(&mut room, CAROL, &bobs), "{bobs}: she has as much");
            assert!(!sends(&mut room, BOB, &format!("{ALICE}{suffix}")), "{suffix}: he has less");
        }
        // The underscore of a local part is part of the name.
        assert!(sends(&mut room, BOB, "@dave_x:domain_device"));
        // Of people who aren't there, too.
        assert!(sends(&mut room, BOB, "@nobody:elsewhere_x"));
    }
}

#[test]
fn state_keys_that_only_look_owned_are_refused() {
    for version in owned() {
        let mut room = room(version);
        for state_key in [
            "@",
            "@bob",
            "@_",
            "@bob_:",
            "@:",
            "@bob:",
            "@bob:_x",
            "@bob:domain-x",
            "@bob:domain x",
            "@@bob:domain",
            "@bob:domain:x",
        ] {
            let verdict = room.send(BOB, "x", Some(state_key), &json!({}));
            // Names of users and servers may look odd: these are somebody's, who has less power.
            let somebodys = ["@bob:domain-x", "@@bob:domain"].contains(&state_key);
            let expected = if somebodys { Ok(()) } else { Err(Rejected::StateKey) };
            assert_eq!(verdict, expected, "{state_key}");
        }
        for state_key in ["", "x", "_@bob:domain", "bob:domain", "x@bob:domain"] {
            assert!(sends(&mut room, BOB, state_key) && sends(&mut room, CAROL, state_key), "{state_key}");
        }
    }
}

#[test]
fn owning_state_gives_no_power_to_send_it() {
    for version in owned() {
        let mut room = room(version);
        room.levels(&json!({ "users": { BOB: 49 } })).unwrap();
        assert!(!sends(&mut room, BOB, BOB) && !sends(&mut room, BOB, &format!("{BOB}_x")));
        room.member(BOB, BOB, "leave").unwrap();
        assert!(!sends(&mut room, BOB, &format!("{BOB}_x")));
    }
}

/// A room without power levels: its creator has 100, and others nothing.
#[test]
fn creators_own_more_before_there_are_power_levels() {
    for version in owned() {
        let mut room = room(version);
        room.state.remove(&("m.room.power_levels".into(), String::new()));
        assert!(sends(&mut room, ALICE, &format!("{BOB}_x")));
        assert!(!sends(&mut room, BOB, &format!("{BOB}_x")));
    }
}

/// Who may join, kick or invite is for other rules.
#[test]
fn memberships_are_as_elsewhere() {
    for version in owned() {
        let mut room = room(version);
        room.member(BOB, "@dave:domain", "invite").unwrap();
        let suffixed = format!("{BOB}_x");
        assert!(room.member(BOB, &suffixed, "join").is_err());
        assert!(room.send(BOB, "m.room.third_party_invite", Some(&format!("{ALICE}_t")), &json!({})).is_ok());
        // As power levels they have no meaning, but they are still of their form.
        let mut levels = |levels| room.send(BOB, "m.room.power_levels", Some(&suffixed), &levels);
        assert!(levels(json!({ "users": { BOB: 1000 } })).is_ok());
        assert!(levels(json!({ "users": { "bob": 1000 } })).is_err());
    }
}

#[test]
fn state_is_owned_in_no_other_version() {
    for version in versions() {
        let mut room = room(version);
        assert!(sends(&mut room, BOB, BOB));
        assert!(!sends(&mut room, BOB, &format!("{BOB}_x")) && !sends(&mut room, ALICE, BOB));
        let refused = room.send(BOB, "x", Some(&format!("{BOB}_x")), &json!({}));
        assert!(reason(refused).starts_with("sender cannot send event with `state_key`"));
    }
}

#[test]
fn supported_versions_say_which_are_stable() {
    let stable =
        |version: &RoomVersionId| rules(version).unwrap().disposition == RoomVersionDisposition::Stable;
    let supported: Vec<_> = supported_versions().collect();
    assert_eq!(
        supported.iter().filter(|version| stable(version)).cloned().collect::<Vec<_>>(),
        versions().collect::<Vec<_>>()
    );
    assert_eq!(supported.iter().filter(|version| !stable(version)).cloned().collect::<Vec<_>>(), owned());
    for version in owned() {
        let base = RoomVersionId::try_from(number(&version).to_string()).unwrap();
        let written = |version| format!("{:?}", rules(version).unwrap().authorization);
        assert_eq!(written(&version), written(&base));
    }
}
