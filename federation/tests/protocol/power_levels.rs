//! Changes of power levels that are held against what is there, and against nothing else.

use ruma::RoomVersionId;
use serde_json::{Value, json};

use crate::{
    authorisation::{ALICE, BOB, Room},
    common::{number, versions},
};

const CAROL: &str = "@carol:domain";

/// A room in which Bob has a power of 40, which is enough to set states.
fn room(version: &RoomVersionId, levels: &Value) -> Room {
    let mut room = Room::new(version.clone(), "public");
    room.member(BOB, BOB, "join").unwrap();
    room.member(CAROL, CAROL, "join").unwrap();
    room.levels(&with(levels)).unwrap();
    room
}

fn with(levels: &Value) -> Value {
    let mut levels = levels.clone();
    levels["state_default"] = json!(40);
    levels["users"] = json!({ BOB: 40 });
    levels
}

/// AR-19: "for each entry being added, changed or removed": the usual value of one that isn't there is nobody's.
#[test]
fn ar_19_levels_that_are_not_there_are_not_compared() {
    for version in versions() {
        let change =
            |before: Value, after: Value| room(&version, &before).levels_by(BOB, &with(&after)).is_ok();
        for field in ["ban", "kick", "redact", "invite", "events_default"] {
            assert!(change(json!({ field: 10 }), json!({})), "{version}: {field} is removed");
            assert!(change(json!({ field: 40 }), json!({})), "{version}: {field} is removed");
            assert!(!change(json!({ field: 41 }), json!({})), "{version}: {field} is removed");
            assert!(change(json!({}), json!({ field: 10 })), "{version}: {field} is added");
            assert!(change(json!({}), json!({ field: 40 })), "{version}: {field} is added");
            assert!(!change(json!({}), json!({ field: 41 })), "{version}: {field} is added");
            // One that may be is no excuse for another.
            assert!(!change(json!({ field: 10 }), json!({ "events": { "own": 41 } })));
            assert!(!change(json!({ "events": { "own": 41 } }), json!({ field: 10 })));
        }
        // What nobody's own level is read from.
        assert!(
            change(json!({}), json!({ "users_default": 40 }))
                && !change(json!({}), json!({ "users_default": 41 }))
        );
        let by_default = json!({ "users_default": 40, "state_default": 40, "users": {} });
        let mut room = room(&version, &json!({}));
        room.levels(&by_default).unwrap();
        let mut without = by_default.clone();
        without.as_object_mut().unwrap().remove("users_default");
        assert!(room.levels_by(BOB, &without).is_ok(), "{version}: 40 is one's own until it is gone");
        assert!(room.levels_by(BOB, &by_default).is_err(), "{version}: now it is gone");
    }
}

/// What a value is has to be said right, also by whoever may set it (AR-20, RV-18).
#[test]
fn ar_20_levels_that_are_added_are_numbers() {
    for version in versions() {
        for (value, before_10) in
            [(json!("20"), true), (json!("x"), false), (json!([20]), false), (Value::Null, false)]
        {
            let result = room(&version, &json!({})).levels_by(BOB, &with(&json!({ "ban": value })));
            assert_eq!(result.is_ok(), before_10 && number(&version) < 10, "{version}: {value}");
        }
    }
}

/// The room's power levels are those of the empty key. Others may say what they like, in the form of the first.
#[test]
fn ar_19_power_levels_of_another_key_are_nobodys() {
    for version in versions() {
        let mut room = room(&version, &json!({ "ban": 41 }));
        let mut send = |content: Value| room.send(BOB, "m.room.power_levels", Some("other"), &content);
        send(json!({ "ban": 100, "users": { CAROL: 100, BOB: 100 }, "events": { "own": 100 } })).unwrap();
        send(json!({ "notifications": { "room": 100 } })).unwrap();
        assert!(send(json!({ "users": { "carol": 1 } })).is_err(), "{version}");
        assert_eq!(send(json!({ "ban": "1" })).is_ok(), number(&version) < 10, "{version}");
        assert_eq!(send(json!({ "users": { ALICE: 100 } })).is_ok(), number(&version) < 12, "{version}");
        assert!(room.member(BOB, CAROL, "ban").is_err(), "{version}: Bob has no more than before");
        assert!(room.send(CAROL, "m.room.power_levels", Some("other"), &json!({})).is_err(), "{version}");
    }
}
