//! The authorisation rules one by one, in every version.

use hearth_federation::{Pdu, Verified, authorize_by_state};
use ruma::{RoomVersionId, events::StateEventType};
use serde_json::{Value, json};

use crate::{
    authorisation::{ALICE, BOB, Room, reason},
    common::{create, create_with, key, number, value, verify, versions},
};

const CAROL: &str = "@carol:domain";

/// A public room with Alice, Bob and Carol in it, and these power levels.
fn populated(version: RoomVersionId, levels: &Value) -> Room {
    let mut room = Room::new(version, "public");
    room.member(BOB, BOB, "join").unwrap();
    room.member(CAROL, CAROL, "join").unwrap();
    room.levels(levels).unwrap();
    room
}

#[test]
fn ar_04_memberships_have_a_user_and_a_known_value() {
    for version in versions() {
        let mut room = Room::new(version, "public");
        for content in [json!({}), json!({ "membership": null }), json!({ "membership": 5 })] {
            assert!(room.send(BOB, "m.room.member", Some(BOB), &content).is_err(), "{content}");
        }
        for membership in ["joined", "", "JOIN", "org.example.join"] {
            assert!(room.member(BOB, BOB, membership).is_err(), "{membership}");
            assert!(room.member(ALICE, BOB, membership).is_err(), "{membership}");
        }
        let join = json!({ "membership": "join" });
        assert!(room.send(BOB, "m.room.member", None, &join).is_err());
        for nobody in ["", "bob", "@bob", "bob:domain"] {
            assert!(room.send(BOB, "m.room.member", Some(nobody), &join).is_err(), "{nobody}");
        }
        room.member(BOB, BOB, "join").unwrap();
    }
}

/// AR-06: the creator's first joining needs no join rule; later it does.
#[test]
fn ar_06_creators_join_right_behind_their_create_event() {
    for version in versions() {
        let mut room = Room::bare(create(&version), version);
        room.member(ALICE, ALICE, "leave").unwrap();
        assert!(room.member(ALICE, ALICE, "join").is_err(), "{}", room.version);
        let mut bobs = Room::bare(create(&room.version), room.version.clone());
        bobs.state.retain(|(kind, _), _| *kind == StateEventType::RoomCreate);
        bobs.last = bobs.state.values().next().unwrap().clone();
        assert!(bobs.member(BOB, BOB, "join").is_err(), "not the creator");
    }
}

#[test]
fn ar_07_joins_are_ones_own_and_not_of_the_banned() {
    for version in versions() {
        let mut room = Room::new(version, "public");
        assert!(room.member(ALICE, BOB, "join").is_err(), "not Alice's to do");
        room.member(ALICE, BOB, "ban").unwrap();
        assert!(room.member(BOB, BOB, "join").is_err());
        for rule in ["invite", "knock", "private", "x"] {
            let mut room = Room::new(room.version.clone(), rule);
            assert!(room.member(BOB, BOB, "join").is_err(), "{rule}");
            room.member(ALICE, BOB, "invite").unwrap();
            let opens_to_invited = rule == "invite" || (rule == "knock" && number(&room.version) >= 7);
            assert_eq!(room.member(BOB, BOB, "join").is_ok(), opens_to_invited, "{}, {rule}", room.version);
        }
    }
}

/// A state in which the join rules were lost by resolution: members can still change their names, and invited people join.
#[test]
fn ar_07_without_join_rules_the_invited_may_join() {
    for version in versions() {
        let mut room = Room::new(version, "public");
        room.member(BOB, BOB, "join").unwrap();
        room.member(ALICE, CAROL, "invite").unwrap();
        room.state.remove(&("m.room.join_rules".into(), String::new()));
        room.send(BOB, "m.room.member", Some(BOB), &json!({ "membership": "join", "displayname": "B" }))
            .unwrap();
        room.member(CAROL, CAROL, "join").unwrap();
        assert!(room.member("@dave:domain", "@dave:domain", "join").is_err());
        assert!(room.member(BOB, "@dave:domain", "join").is_err());
        room.member(ALICE, BOB, "ban").unwrap();
        assert!(room.member(BOB, BOB, "join").is_err());
        room.member(CAROL, CAROL, "leave").unwrap();
        assert!(room.member(CAROL, CAROL, "join").is_err());

        // An invitation to where only the creator's server may be.
        let mut room = Room::bare(create_with(&room.version, &json!({ "m.federate": false })), room.version);
        for invited in [BOB, "@stranger:elsewhere"] {
            room.member(ALICE, invited, "invite").unwrap();
            assert_eq!(room.member(invited, invited, "join").is_ok(), invited == BOB);
        }
    }
}

#[test]
fn ar_08_rv_16_restricted_joins_are_authorised_by_somebody_who_may_invite() {
    for (rule, from) in [("restricted", 8), ("knock_restricted", 10)] {
        for version in versions() {
            let known = number(&version) >= from;
            let mut room = populated(version, &json!({ "invite": 50 }));
            room.send(ALICE, "m.room.join_rules", Some(""), &json!({ "join_rule": rule, "allow": [] }))
                .unwrap();
            let dave = "@dave:domain";
            let joins = |by: Value| {
                let mut content = json!({ "membership": "join", "join_authorised_via_users_server": by });
                if by.is_null() {
                    content.as_object_mut().unwrap().remove("join_authorised_via_users_server");
                }
                let mut room = copy(&room);
                room.send(dave, "m.room.member", Some(dave), &content).is_ok()
            };
            assert!(!joins(Value::Null), "by nobody");
            assert!(!joins(json!(BOB)), "Bob may not invite");
            assert!(!joins(json!("@erin:domain")), "Erin isn't there");
            assert_eq!(joins(json!(ALICE)), known, "{rule} in {}", room.version);
            // Whoever is joined or invited needs nobody.
            let name = json!({ "membership": "join", "displayname": "C" });
            assert_eq!(room.send(CAROL, "m.room.member", Some(CAROL), &name).is_ok(), known);
            room.member(ALICE, dave, "invite").unwrap();
            assert_eq!(room.member(dave, dave, "join").is_ok(), known);
        }
    }
}

fn copy(room: &Room) -> Room {
    Room {
        version: room.version.clone(),
        id: room.id.clone(),
        events: room.events.clone(),
        state: room.state.clone(),
        last: room.last.clone(),
    }
}

#[test]
fn ar_09_invitations_come_from_members_with_power_to_people_outside() {
    for version in versions() {
        let mut room = populated(version, &json!({ "invite": 50, "users": { BOB: 50 } }));
        let dave = "@dave:domain";
        assert!(room.member(CAROL, dave, "invite").is_err(), "no power");
        assert!(room.member("@erin:domain", dave, "invite").is_err(), "not joined");
        assert!(room.member(BOB, CAROL, "invite").is_err(), "joined already");
        room.member(BOB, dave, "invite").unwrap();
        room.member(BOB, dave, "invite").unwrap();
        room.member(ALICE, dave, "ban").unwrap();
        assert!(room.member(BOB, dave, "invite").is_err(), "banned");
    }
}

/// The invitation of somebody whose address was all that was known: signed by an identity server whose key the room has.
#[test]
fn ar_10_third_party_invitations_are_signed_by_a_key_of_the_token() {
    for version in versions() {
        let mut room = populated(version, &json!({}));
        let dave = "@dave:domain";
        let public_key = ruma::serde::Base64::<ruma::serde::base64::Standard, _>::new(key().public_key());
        let token = json!({ "display_name": "d", "key_validity_url": "https://127.0.0.1/",
            "public_key": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "public_keys": [{ "public_key": public_key.encode() }] });
        let invite = |room: &Room, by: &str, mxid: &str, token: &str, change: fn(&mut Value)| {
            let mut signed = json!({ "mxid": mxid, "token": token });
            let text = format!(r#"{{"mxid":"{mxid}","token":"{token}"}}"#);
            signed["signatures"] = json!({ "id.example": { "ed25519:0": key().sign(text.as_bytes()) } });
            change(&mut signed);
            let content = json!({ "membership": "invite",
                "third_party_invite": { "display_name": "d", "signed": signed } });
            copy(room).send(by, "m.room.member", Some(dave), &content).is_ok()
        };
        let as_it_is: fn(&mut Value) = |_| ();
        assert!(!invite(&room, ALICE, dave, "t", as_it_is), "no such token");
        room.send(ALICE, "m.room.third_party_invite", Some("t"), &token).unwrap();
        assert!(invite(&room, ALICE, dave, "t", as_it_is), "{}", room.version);
        assert!(!invite(&room, BOB, dave, "t", as_it_is), "not Bob's token");
        assert!(!invite(&room, ALICE, CAROL, "t", as_it_is), "for somebody else");
        assert!(!invite(&room, ALICE, dave, "other", as_it_is), "another token");
        assert!(!invite(&room, ALICE, dave, "t", |signed| signed["more"] = json!(1)), "other text");
        assert!(!invite(&room, ALICE, dave, "t", |signed| signed["signatures"] = json!({})), "unsigned");
        assert!(!invite(&room, ALICE, dave, "t", |signed| signed["signatures"] = json!({ "x": 5 })));
        assert!(!invite(&room, ALICE, dave, "t", |signed| *signed = json!({})));
        assert!(!invite(&room, ALICE, dave, "t", |signed| *signed = Value::Null));
        room.member(ALICE, dave, "ban").unwrap();
        assert!(!invite(&room, ALICE, dave, "t", as_it_is), "banned");
    }
}

#[test]
fn ar_11_who_is_not_there_cannot_leave() {
    for version in versions() {
        let mut room = Room::new(version, "public");
        assert!(room.member(BOB, BOB, "leave").is_err());
        for membership in ["invite", "join"] {
            let sender = if membership == "invite" { ALICE } else { BOB };
            room.member(sender, BOB, membership).unwrap();
            room.member(BOB, BOB, "leave").unwrap();
            assert!(room.member(BOB, BOB, "leave").is_err(), "twice");
        }
        if number(&room.version) >= 7 {
            room.send(ALICE, "m.room.join_rules", Some(""), &json!({ "join_rule": "knock" })).unwrap();
            room.member(BOB, BOB, "knock").unwrap();
            room.member(BOB, BOB, "leave").unwrap();
        }
    }
}

/// Both need their level and more power than whom they hit; lifting a ban needs both levels.
#[test]
fn ar_12_ar_13_kicks_and_bans_hit_people_of_less_power() {
    for version in versions() {
        let levels = json!({ "kick": 30, "ban": 60, "users": { BOB: 50, CAROL: 50 } });
        let mut room = populated(version, &levels);
        let dave = "@dave:domain";
        room.member(dave, dave, "join").unwrap();
        assert!(room.member(BOB, CAROL, "leave").is_err(), "as powerful");
        assert!(room.member(BOB, ALICE, "leave").is_err(), "more powerful");
        assert!(room.member(dave, "@erin:domain", "leave").is_err(), "no power");
        room.member(BOB, dave, "leave").unwrap();
        assert!(room.member(BOB, dave, "ban").is_err(), "kick level is not ban level");
        room.member(ALICE, dave, "ban").unwrap();
        assert!(room.member(BOB, dave, "leave").is_err(), "unbanning needs the ban level");
        room.levels(&json!({ "kick": 70, "ban": 60, "users": { BOB: 60, CAROL: 50 } })).unwrap();
        assert!(room.member(BOB, dave, "leave").is_err(), "and the kick level");
        room.member(BOB, CAROL, "ban").unwrap();
        room.member(ALICE, CAROL, "leave").unwrap();
        room.member(BOB, BOB, "leave").unwrap();
        assert!(room.member(BOB, CAROL, "ban").is_err(), "who has left bans nobody");
        assert!(room.member(BOB, dave, "leave").is_err(), "nor lifts bans");
    }
}

#[test]
fn ar_14_knocks_are_ones_own_and_from_outside() {
    for version in versions().filter(|version| number(version) >= 7) {
        for rule in ["knock", "knock_restricted", "public", "invite", "restricted"] {
            let mut room = Room::new(version.clone(), rule);
            let opens = rule == "knock" || (rule == "knock_restricted" && number(&version) >= 10);
            assert_eq!(room.member(BOB, BOB, "knock").is_ok(), opens, "RV-18: {rule} in {version}");
            if !opens {
                continue;
            }
            assert!(room.member(ALICE, CAROL, "knock").is_err());
            assert!(room.member(ALICE, ALICE, "knock").is_err(), "joined");
            room.member(ALICE, CAROL, "invite").unwrap();
            assert!(room.member(CAROL, CAROL, "knock").is_err(), "invited");
            room.member(ALICE, CAROL, "ban").unwrap();
            assert!(room.member(CAROL, CAROL, "knock").is_err(), "banned");
        }
    }
}

#[test]
fn ar_16_third_party_invitations_need_the_power_to_invite() {
    for version in versions() {
        let levels = json!({ "invite": 50, "state_default": 0, "users": { BOB: 49, CAROL: 50 } });
        let mut room = populated(version, &levels);
        let mut invite = |by: &str| room.send(by, "m.room.third_party_invite", Some("t"), &json!({}));
        assert!(invite(BOB).is_err());
        invite(CAROL).unwrap();
        assert!(invite("@dave:domain").is_err(), "not joined");
        // The level of its own type doesn't count.
        let mut room = populated(
            room.version.clone(),
            &json!({ "invite": 0, "events": { "m.room.third_party_invite": 50 } }),
        );
        room.send(BOB, "m.room.third_party_invite", Some("t"), &json!({})).unwrap();
    }
}

#[test]
fn ar_17_events_need_the_power_of_their_type() {
    for version in versions() {
        let levels = json!({ "events": { "a": 50, "b": 0 }, "events_default": 10, "state_default": 20,
            "users": { BOB: 49, CAROL: 9 }, "users_default": 0 });
        let mut room = populated(version, &levels);
        let mut sends = |by: &str, kind: &str, state_key: Option<&str>| {
            room.send(by, kind, state_key, &json!({})).is_ok()
        };
        assert!(!sends(BOB, "a", None) && !sends(BOB, "a", Some("")) && sends(ALICE, "a", Some("")));
        assert!(sends(CAROL, "b", None) && sends(CAROL, "b", Some("")));
        assert!(sends(BOB, "c", None) && sends(BOB, "c", Some("")));
        assert!(!sends(CAROL, "c", None) && !sends(CAROL, "c", Some("")));
    }
}

#[test]
fn ar_19_nobody_gives_or_takes_more_power_than_their_own() {
    for version in versions() {
        let before = json!({ "ban": 60, "kick": 40, "invite": 0, "events_default": 0, "users_default": 0,
            "events": { "high": 60, "low": 40 }, "state_default": 40,
            "users": { BOB: 50, CAROL: 50, "@dave:domain": 49, "@erin:domain": 51 } });
        let change = |path: &str, value: Value| {
            let mut room = populated(version.clone(), &before);
            let mut levels = before.clone();
            let place = levels.pointer_mut(path);
            if value.is_null() {
                let (parent, key) = path.rsplit_once('/').unwrap();
                levels.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
            } else if let Some(place) = place {
                *place = value;
            } else {
                let (parent, key) = path.rsplit_once('/').unwrap();
                levels.pointer_mut(parent).unwrap()[key] = value;
            }
            room.levels_by(BOB, &levels).is_ok()
        };
        let nothing = Value::Null;
        // Levels: neither from nor to above one's own.
        assert!(change("/kick", json!(50)) && !change("/kick", json!(51)) && change("/invite", json!(50)));
        assert!(!change("/ban", json!(50)) && !change("/ban", nothing.clone()));
        assert!(!change("/users_default", json!(51)) && !change("/events_default", json!(100)));
        // Types of events.
        assert!(change("/events/low", json!(50)) && !change("/events/low", json!(51)));
        assert!(change("/events/low", nothing.clone()));
        assert!(!change("/events/high", json!(1)) && !change("/events/high", nothing.clone()));
        assert!(change("/events/new", json!(50)) && !change("/events/new", json!(51)));
        // People: not one's equals, but oneself, downwards.
        assert!(change("/users/@bob:domain", json!(1)) && change("/users/@bob:domain", nothing.clone()));
        assert!(!change("/users/@bob:domain", json!(51)), "self-promotion");
        assert!(
            !change("/users/@carol:domain", json!(1)) && !change("/users/@carol:domain", nothing.clone())
        );
        assert!(!change("/users/@erin:domain", json!(1)) && !change("/users/@erin:domain", nothing.clone()));
        assert!(change("/users/@dave:domain", json!(1)) && change("/users/@dave:domain", nothing));
        assert!(change("/users/@new:domain", json!(50)) && !change("/users/@new:domain", json!(51)));
    }
}

#[test]
fn ar_19_the_first_power_levels_are_for_whoever_may_send_them() {
    for version in versions() {
        let mut room = Room::bare(create(&version), version);
        room.levels(&json!({ "users": { BOB: 9_007_199_254_740_991_i64 }, "ban": 1_000_000 })).unwrap();
    }
}

#[test]
fn rv_14_levels_of_notifications_are_guarded_from_version_6() {
    for version in versions() {
        let guarded = number(&version) >= 6;
        let levels = json!({ "state_default": 0, "notifications": { "room": 50 }, "users": { BOB: 20 } });
        for changed in [json!({ "room": 10 }), json!({}), json!({ "room": 50, "other": 21 })] {
            let mut room = populated(version.clone(), &levels);
            let mut levels = levels.clone();
            levels["notifications"] = changed.clone();
            assert_eq!(room.levels_by(BOB, &levels).is_err(), guarded, "{version}, {changed}");
        }
    }
}

#[test]
fn ar_20_power_levels_list_users_and_numbers() {
    for version in versions() {
        let mut room = Room::new(version, "public");
        for users in [
            json!({ "bob": 5 }),
            json!({ "": 5 }),
            json!({ "@bob": 5 }),
            json!([]),
            json!(5),
            json!({ BOB: null }),
            json!({ BOB: {} }),
            json!({ BOB: [5] }),
            json!({ BOB: true }),
        ] {
            assert!(room.levels(&json!({ "users": users })).is_err(), "{}, {users}", room.version);
        }
        for field in ["users_default", "events_default", "state_default", "ban", "kick", "redact", "invite"] {
            for value in [json!(null), json!([]), json!({}), json!("x"), json!(true), json!("")] {
                assert!(room.levels(&json!({ field: value })).is_err(), "{}, {field}, {value}", room.version);
            }
        }
        for field in ["events", "notifications"] {
            for value in [json!(5), json!([]), json!({ "x": "y" }), json!({ "x": null })] {
                let verdict = room.levels(&json!({ field: value }));
                assert!(verdict.is_err(), "{}, {field}, {value}", room.version);
            }
        }
    }
}

/// RV-19, with each form that a string may have; RV-18: in version 10 none.
#[test]
fn rv_18_rv_19_power_levels_may_be_strings_before_version_10() {
    for version in versions() {
        let before_10 = number(&version) < 10;
        for (text, level) in
            [("50", 50), (" 50", 50), ("50 ", 50), ("+50", 50), ("0050", 50), ("-1", -1), (" -01\n", -1)]
        {
            let mut room = populated(version.clone(), &json!({ "state_default": 0 }));
            let verdict = room.levels(&json!({ "users": { BOB: text }, "state_default": 0 }));
            assert_eq!(verdict.is_ok(), before_10, "{version}, {text:?}: {verdict:?}");
            if before_10 {
                let topic = room.send(BOB, "m.room.topic", Some(""), &json!({}));
                assert_eq!(topic.is_ok(), level >= 0, "{version}, {text:?}");
            }
            let verdict = room.levels(&json!({ "kick": text }));
            assert_eq!(verdict.is_ok(), before_10, "{version}, {text:?}: {verdict:?}");
        }
        for text in ["5.0", "5e1", "0x5", "5 0", "- 5", "++5", "five", "1000000000000000000000000000000"] {
            let mut room = populated(version.clone(), &json!({}));
            assert!(room.levels(&json!({ "users": { BOB: text } })).is_err(), "{version}, {text:?}");
        }
    }
}

/// RV-20 for what is past all people's needs, and what is no number at all.
#[test]
fn rv_20_power_levels_past_what_rooms_can_hold_are_refused() {
    for version in versions() {
        let room = populated(version.clone(), &json!({}));
        let draft =
            room.draft(ALICE, "m.room.power_levels", Some(""), &json!({ "ban": 50, "users": { BOB: 1 } }));
        let auth_events = room.auth_events(&draft).unwrap();
        let pdu = room.build(draft, auth_events);
        for level in [
            "1e30",
            "1000000000000000000000000000000",
            "9007199254740992",
            "-1e30",
            "NaN",
            "1e400",
            "Infinity",
        ] {
            for (from, to) in [
                (r#""ban":50"#, format!(r#""ban":{level}"#)),
                (r#"domain":1}"#, format!(r#"domain":{level}}}"#)),
            ] {
                let text = pdu.json.get().replace(from, &to);
                assert_ne!(text, pdu.json.get());
                // Not an event, or not an allowed one.
                if let Ok(levels) = Pdu::from_stored(pdu.event_id.clone(), text, &version) {
                    assert!(room.authorize(&levels).is_err(), "{version}, {level}");
                }
            }
        }
    }
}

#[test]
fn ar_21_levels_have_their_defaults() {
    for version in versions() {
        // 50 is enough for everything, 49 for inviting and talking only.
        let mut room = populated(version, &json!({ "users": { BOB: 50, CAROL: 49 } }));
        let dave = "@dave:domain";
        room.message("@alice:domain").unwrap();
        assert!(room.send(CAROL, "m.room.topic", Some(""), &json!({})).is_err());
        room.send(BOB, "m.room.topic", Some(""), &json!({})).unwrap();
        room.levels(&json!({ "users": { BOB: 50, CAROL: 49, dave: -1 } })).unwrap();
        room.member(CAROL, dave, "invite").unwrap();
        room.member(dave, dave, "join").unwrap();
        assert!(room.message(dave).is_err(), "events_default is 0");
        assert!(room.member(dave, "@erin:domain", "invite").is_err(), "invite is 0");
        room.member("@erin:domain", "@erin:domain", "join").unwrap();
        room.message("@erin:domain").unwrap();
        assert!(room.member(CAROL, dave, "leave").is_err(), "kick is 50");
        room.member(BOB, dave, "leave").unwrap();
        assert!(room.member(CAROL, dave, "ban").is_err(), "ban is 50");
        room.member(BOB, dave, "ban").unwrap();
    }
}

#[test]
fn ar_22_memberships_are_not_ruled_by_the_levels_of_events() {
    for version in versions() {
        let levels =
            json!({ "events": { "m.room.member": 100 }, "events_default": 100, "state_default": 100 });
        let mut room = populated(version, &levels);
        let dave = "@dave:domain";
        room.member(BOB, dave, "invite").unwrap();
        room.member(dave, dave, "join").unwrap();
        room.member(dave, dave, "leave").unwrap();
    }
}

#[test]
fn rv_13_aliases_have_a_rule_of_their_own_before_version_6() {
    for version in versions() {
        let own_rule = number(&version) < 6;
        let mut room = populated(version, &json!({}));
        let aliases = json!({ "aliases": [] });
        let mut sends =
            |by: &str, state_key: Option<&str>| room.send(by, "m.room.aliases", state_key, &aliases).is_ok();
        assert_eq!(sends(BOB, Some("domain")), own_rule);
        assert_eq!(sends("@stranger:elsewhere", Some("elsewhere")), own_rule, "even from outside");
        assert_eq!(sends(ALICE, Some("elsewhere")), !own_rule);
        assert_eq!(sends(ALICE, None), !own_rule);
    }
}

/// RV-09: the redaction of one's own server's events, by the domains of the ids.
#[test]
fn rv_09_servers_redact_their_own_in_versions_1_and_2() {
    for version in versions().filter(|version| number(version) < 3) {
        let mut room = populated(version, &json!({ "redact": 50, "users": { CAROL: 50 } }));
        let mut redacts = |by: &str, target: Option<&str>| {
            let mut draft = room.draft(by, "m.room.redaction", None, &json!({}));
            draft.redacts = target.map(|target| target.try_into().unwrap());
            let auth_events = room.auth_events(&draft).unwrap();
            let pdu = room.build(draft, auth_events);
            room.last = pdu.event_id.clone();
            room.authorize(&pdu).is_ok()
        };
        assert!(redacts(BOB, Some("$x:domain")), "of the same server");
        assert!(!redacts(BOB, Some("$x:elsewhere")) && !redacts(BOB, Some("$x")) && !redacts(BOB, None));
        assert!(redacts(CAROL, Some("$x:elsewhere")), "with power");
    }
}

/// The first check that fails decides what becomes of an event.
#[test]
fn pd_01_checks_are_made_in_their_order() {
    for version in versions() {
        let mut room = populated(version.clone(), &json!({}));
        let draft = room.draft(BOB, "m.room.topic", Some(""), &json!({ "topic": "x" }));
        let auth_events = room.auth_events(&draft).unwrap();
        let pdu = room.build(draft, auth_events);
        let text = |change: &dyn Fn(&mut Value)| {
            let mut json = value(&pdu);
            change(&mut json);
            json.to_string()
        };
        let break_form = |json: &mut Value| json["depth"] = json!("7");
        let break_signature = |json: &mut Value| json["origin_server_ts"] = json!(1);
        let break_hash = |json: &mut Value| json["content"]["topic"] = json!("changed");
        // 1: form, before all.
        let all = text(&|json| {
            break_form(json);
            break_signature(json);
            break_hash(json);
        });
        assert!(verify(&all, &version).unwrap_err().to_string().contains("`depth`"), "{version}");
        // 2: signatures, before the hash.
        let two = text(&|json| {
            break_signature(json);
            break_hash(json);
        });
        assert!(verify(&two, &version).is_err(), "{version}");
        // 3: the hash, which drops nothing; 4: what is left is rejected, as it is for Bob to change no topic.
        let Verified::Redacted(redacted) = verify(&text(&break_hash), &version).unwrap() else { panic!() };
        assert!(room.authorize(&redacted).is_err());
        // 5, 6: allowed by what it cites, but not any more by another state.
        room.levels(&json!({ "users": { BOB: 50 } })).unwrap();
        let draft = room.draft(BOB, "m.room.topic", Some(""), &json!({ "topic": "x" }));
        let auth_events = room.auth_events(&draft).unwrap();
        let pdu = room.build(draft, auth_events);
        room.authorize(&pdu).unwrap();
        room.levels(&json!({})).unwrap();
        let now = authorize_by_state(&version, &pdu, |kind, state_key| room.state(kind, state_key));
        assert!(reason(now).starts_with("sender does not have enough power"), "{version}");
    }
}

/// What an event follows has no part in whether it is allowed, even if that was rejected.
#[test]
fn pd_03_events_that_follow_a_rejected_event_are_judged_normally() {
    for version in versions() {
        let mut room = populated(version, &json!({}));
        let draft = room.draft(BOB, "m.room.topic", Some(""), &json!({}));
        let auth_events = room.auth_events(&draft).unwrap();
        let rejected = room.build(draft, auth_events).with_rejected(true);
        assert!(room.authorize(&rejected).is_err());
        room.last = rejected.event_id.clone();
        room.events.insert(rejected.event_id.clone(), rejected);
        room.message(BOB).unwrap();
        room.member(BOB, BOB, "leave").unwrap();
    }
}

/// A redacted joining still joins.
#[test]
fn pd_09_redacted_is_not_rejected() {
    for version in versions() {
        let mut room = populated(version, &json!({}));
        let joined = room.state(&StateEventType::RoomMember, BOB).unwrap().clone();
        let redacted = joined.redacted(&room.version).unwrap();
        assert!(!redacted.rejected);
        room.events.insert(redacted.event_id.clone(), redacted);
        room.message(BOB).unwrap();
    }
}
