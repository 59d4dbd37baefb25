//! What create events may say in each version, and what follows from it.

use hearth_federation::{Draft, Limits, Pdu, Position, Rejected, authorize_built, authorize_received, rules};
use ruma::{RoomVersionId, owned_event_id, owned_user_id};
use serde_json::{Value, json};

use crate::{
    authorisation::{ALICE, BOB, Room, reason},
    common::{create, create_with, draft, key, now, number, server, versions},
};

/// The verdict on a create event, which is the same however it came.
fn judge(version: &RoomVersionId, create: &Pdu) -> Result<(), Rejected> {
    let verdict = authorize_received(version, create, |_| None::<&Pdu>);
    assert_eq!(authorize_built(version, create, |_, _| None::<&Pdu>), verdict, "{version}");
    verdict
}

fn allowed(version: &RoomVersionId, other: &Value) -> bool {
    judge(version, &create_with(version, other)).is_ok()
}

fn create_draft(version: &RoomVersionId) -> Draft {
    let mut draft = draft("m.room.create", Some(""), &json!({}));
    draft.content = create(version).content;
    if number(version) >= 12 {
        draft.room_id = None;
    }
    draft
}

#[test]
fn ar_03_create_events_follow_nothing() {
    for version in versions() {
        judge(&version, &create(&version)).unwrap();
        let prev = owned_event_id!("$ppppppppppppppppppppppppppppppppppppppppppp");
        let mut position = Position::new(vec![prev.clone()], Vec::new(), 2, now());
        position.reference_hashes = vec![(prev, "h".repeat(43))];
        let built = create_draft(&version).build(&version, position, server(), &key(), Limits::FEDERATED);
        let verdict = judge(&version, &built.unwrap());
        assert_eq!(reason(verdict), "`m.room.create` event cannot have previous events", "{version}");
    }
}

/// A peer can't have a room judged by other rules than those of the version that its create event names.
#[test]
fn ar_03_rv_03_create_events_name_the_version_they_are_judged_by() {
    for version in versions() {
        assert!(allowed(&version, &json!({})));
        // Without one it is version 1.
        assert_eq!(allowed(&version, &json!({ "room_version": null })), version == RoomVersionId::V1);
        let other = if version == RoomVersionId::V6 { "7" } else { "6" };
        for wrong in [json!(other), json!("99"), json!(""), json!(1), json!(["1"])] {
            assert!(!allowed(&version, &json!({ "room_version": wrong })), "{version}, {wrong}");
        }
    }
}

#[test]
fn rv_03_versions_of_another_grammar_have_no_rules() {
    for name in ["", "13", "0", "01", "1 ", "V1", "ä", &"9".repeat(33), "org.matrix.msc3757.9"] {
        let known = RoomVersionId::try_from(name).is_ok_and(|version| rules(&version).is_ok());
        assert!(!known, "{name:?}");
    }
}

#[test]
fn rv_22_create_events_name_their_creator_before_version_11() {
    for version in versions() {
        assert_eq!(allowed(&version, &json!({ "creator": null })), number(&version) >= 11, "{version}");
    }
}

/// RV-22: in version 11 whoever sent the create event is the creator, whatever it says.
#[test]
fn rv_22_the_creator_is_the_sender_from_version_11() {
    for version in versions() {
        let create = create_with(&version, &json!({ "creator": BOB }));
        let joins = |user: &str| {
            let room = Room {
                id: create.room_id.clone(),
                events: [(create.event_id.clone(), create.clone())].into(),
                state: [(("m.room.create".into(), String::new()), create.event_id.clone())].into(),
                last: create.event_id.clone(),
                version: version.clone(),
            };
            let draft = room.draft(user, "m.room.member", Some(user), &json!({ "membership": "join" }));
            let auth_events = room.auth_events(&draft).unwrap();
            room.authorize(&room.build(draft, auth_events)).is_ok()
        };
        let creator = if number(&version) < 11 { BOB } else { ALICE };
        assert_eq!([joins(ALICE), joins(BOB)], [creator == ALICE, creator == BOB], "{version}");
    }
}

#[test]
fn rv_28_rooms_are_of_their_creators_server_before_version_12() {
    for version in versions().filter(|version| number(version) < 12) {
        let mut draft = create_draft(&version);
        draft.sender = owned_user_id!("@alice:elsewhere");
        let position = Position::new(Vec::new(), Vec::new(), 1, now());
        let built = draft.build(&version, position, server(), &key(), Limits::FEDERATED);
        assert!(reason(judge(&version, &built.unwrap())).ends_with("does not match sender's server name"));
    }
}

#[test]
fn rv_30_rv_34_additional_creators_are_user_ids_from_version_12_and_nothing_before() {
    for version in versions() {
        let may_be_anything = number(&version) < 12;
        for wrong in
            [json!("@bob:b"), json!(["bob"]), json!([5]), json!({}), json!([BOB, null]), json!(["@:"])]
        {
            let other = json!({ "additional_creators": wrong });
            assert_eq!(allowed(&version, &other), may_be_anything, "{version}, {wrong}");
        }
        for right in [json!([]), json!([BOB]), json!([BOB, ALICE])] {
            assert!(allowed(&version, &json!({ "additional_creators": right })), "{version}");
        }
    }
}

#[test]
fn rv_31_rv_34_additional_creators_have_infinite_power_from_version_12_and_none_before() {
    let carol = "@carol:domain";
    for version in versions() {
        let create = create_with(&version, &json!({ "additional_creators": [BOB] }));
        let mut room = Room::bare(create, version);
        room.send(ALICE, "m.room.join_rules", Some(""), &json!({ "join_rule": "public" })).unwrap();
        room.member(BOB, BOB, "join").unwrap();
        room.member(carol, carol, "join").unwrap();
        room.levels(&json!({ "users": { carol: 100 }, "state_default": 100 })).unwrap();
        let is_creator = number(&room.version) >= 12;
        let topic = room.send(BOB, "m.room.topic", Some(""), &json!({}));
        assert_eq!(topic.is_ok(), is_creator, "{}", room.version);
        assert_eq!(room.member(carol, BOB, "ban").is_ok(), !is_creator, "{}", room.version);
    }
}

#[test]
fn rv_32_power_levels_list_no_creator_from_version_12() {
    for version in versions() {
        let create = create_with(&version, &json!({ "additional_creators": [BOB] }));
        let mut room = Room::bare(create, version);
        let before_12 = number(&room.version) < 12;
        for users in [json!({ ALICE: 100 }), json!({ ALICE: 100, BOB: 0 })] {
            let verdict = room.send(ALICE, "m.room.power_levels", Some(""), &json!({ "users": users }));
            assert_eq!(verdict.is_ok(), before_12, "{}, {users}", room.version);
        }
        let users = json!({ "users": { BOB: 0 } });
        let verdict = room.send(ALICE, "m.room.power_levels", Some(""), &users);
        // Before version 12 Alice would lose her own by it, which she may.
        assert_eq!(verdict.is_ok(), before_12, "{}", room.version);
    }
}

#[test]
fn rv_35_rooms_that_do_not_federate_are_for_the_server_of_their_creator() {
    let stranger = "@stranger:elsewhere";
    for version in versions() {
        for federates in [true, false] {
            let create = create_with(&version, &json!({ "m.federate": federates }));
            let mut room = Room::bare(create, version.clone());
            room.send(ALICE, "m.room.join_rules", Some(""), &json!({ "join_rule": "public" })).unwrap();
            room.member(BOB, BOB, "join").unwrap();
            assert_eq!(room.member(stranger, stranger, "join").is_ok(), federates, "{version}");
            assert!(room.message(BOB).is_ok());
        }
        assert!(allowed(&version, &json!({ "m.federate": null })));
    }
}

#[test]
fn rv_36_without_power_levels_creators_may_do_everything_and_others_nothing() {
    for version in versions() {
        let mut room = Room::bare(create(&version), version);
        room.send(ALICE, "m.room.join_rules", Some(""), &json!({ "join_rule": "public" })).unwrap();
        room.member(BOB, BOB, "join").unwrap();
        room.message(BOB).unwrap();
        assert!(room.send(BOB, "m.room.topic", Some(""), &json!({})).is_err());
        assert!(room.levels_by(BOB, &json!({})).is_err());
        room.send(ALICE, "m.room.topic", Some(""), &json!({})).unwrap();
        assert!(room.member(BOB, ALICE, "leave").is_err());
        room.member(ALICE, BOB, "leave").unwrap();
        room.levels(&json!({})).unwrap();
    }
}
