//! What redaction keeps, in every version, and that ids and signatures outlive it.

use hearth_federation::{Pdu, Verified};
use ruma::RoomVersionId;
use serde_json::{Value, json};

use crate::common::{build, create, draft, number, value, verify, versions};

/// The content that is left of a state event.
fn redacted_content(version: &RoomVersionId, kind: &str, content: &Value) -> Value {
    let state_key = if kind == "m.room.member" { "@alice:domain" } else { "" };
    let pdu = build(draft(kind, Some(state_key), content), version);
    let redacted = pdu.redacted(version).unwrap();
    assert_eq!(redacted.event_id, pdu.event_id, "{version}");
    value(&redacted)["content"].clone()
}

/// Each version: what `kept` says by version number, of an event with everything.
fn check(kind: &str, content: &Value, kept: impl Fn(u32) -> Value) {
    for version in versions() {
        assert_eq!(redacted_content(&version, kind, content), kept(number(&version)), "{kind} in {version}");
    }
}

#[test]
fn messages_lose_everything() {
    check("m.room.message", &json!({ "body": "x", "membership": "join", "redacts": "$x" }), |_| json!({}));
    check("m.room.topic", &json!({ "topic": "x" }), |_| json!({}));
}

/// RV-25
#[test]
fn create_keeps_its_creator_or_all() {
    let content = json!({ "creator": "@alice:domain", "room_version": "x", "m.federate": false, "other": 1 });
    for version in versions() {
        let pdu = create(&version);
        let redacted = pdu.redacted(&version).unwrap();
        if number(&version) >= 11 {
            assert_eq!(value(&redacted), value(&pdu), "{version}");
        } else {
            assert_eq!(value(&redacted)["content"], json!({ "creator": "@alice:domain" }), "{version}");
            assert_eq!(
                redacted_content(&version, "m.room.create", &content),
                json!({ "creator": "@alice:domain" })
            );
        }
    }
}

/// RV-26: the redacted create event of version 12 still makes the same room.
#[test]
fn redacted_create_event_is_still_the_room() {
    let version = RoomVersionId::V12;
    let pdu = create(&version);
    assert_eq!(pdu.redacted(&version).unwrap().room_id, pdu.room_id);
}

/// RV-17, RV-25
#[test]
fn members_keep_their_membership() {
    let content = json!({
        "membership": "join",
        "displayname": "Alice",
        "join_authorised_via_users_server": "@bob:domain",
        "third_party_invite": { "display_name": "a…", "signed": { "token": "t" } },
    });
    check("m.room.member", &content, |version| match version {
        ..9 => json!({ "membership": "join" }),
        9..11 => json!({ "membership": "join", "join_authorised_via_users_server": "@bob:domain" }),
        11.. => json!({
            "membership": "join",
            "join_authorised_via_users_server": "@bob:domain",
            "third_party_invite": { "signed": { "token": "t" } },
        }),
    });
    check(
        "m.room.member",
        &json!({ "membership": "join", "third_party_invite": "text" }),
        |_| json!({ "membership": "join" }),
    );
}

/// RV-16
#[test]
fn join_rules_keep_allow_from_version_8() {
    let content = json!({ "join_rule": "restricted", "allow": [], "other": 1 });
    check("m.room.join_rules", &content, |version| match version {
        ..8 => json!({ "join_rule": "restricted" }),
        8.. => json!({ "join_rule": "restricted", "allow": [] }),
    });
}

/// RV-25
#[test]
fn power_levels_keep_invite_from_version_11() {
    let content = json!({
        "ban": 1, "events": {}, "events_default": 2, "invite": 3, "kick": 4, "redact": 5, "state_default": 6,
        "users": {}, "users_default": 7, "notifications": { "room": 8 },
    });
    check("m.room.power_levels", &content, |version| {
        let mut kept = content.clone();
        let kept_map = kept.as_object_mut().unwrap();
        kept_map.remove("notifications");
        if version < 11 {
            kept_map.remove("invite");
        }
        kept
    });
}

#[test]
fn history_visibility_is_kept() {
    let content = json!({ "history_visibility": "joined", "other": 1 });
    check("m.room.history_visibility", &content, |_| json!({ "history_visibility": "joined" }));
}

/// RV-13
#[test]
fn aliases_are_kept_before_version_6() {
    check("m.room.aliases", &json!({ "aliases": ["#a:domain"] }), |version| {
        if version < 6 { json!({ "aliases": ["#a:domain"] }) } else { json!({}) }
    });
}

/// RV-25
#[test]
fn redactions_keep_redacts_from_version_11() {
    check("m.room.redaction", &json!({ "redacts": "$x", "reason": "y" }), |version| {
        if version < 11 { json!({}) } else { json!({ "redacts": "$x" }) }
    });
}

/// RV-24: at the top level.
#[test]
fn top_level_keys_of_old_servers_go_from_version_11() {
    for version in versions() {
        let pdu = build(draft("m.room.topic", Some(""), &json!({ "topic": "x" })), &version);
        let mut json = value(&pdu);
        for key in ["origin", "membership", "prev_state", "redacts", "anything"] {
            json[key] = json!("kept?");
        }
        let stored = Pdu::from_stored(pdu.event_id.clone(), json.to_string(), &version).unwrap();
        let redacted = value(&stored.redacted(&version).unwrap());
        for key in ["origin", "membership", "prev_state"] {
            assert_eq!(redacted.get(key).is_some(), number(&version) < 11, "{key} in {version}");
        }
        for key in ["redacts", "anything"] {
            assert!(redacted.get(key).is_none(), "{key} in {version}");
        }
        for key in [
            "type",
            "room_id",
            "sender",
            "state_key",
            "hashes",
            "signatures",
            "depth",
            "prev_events",
            "auth_events",
        ] {
            assert_eq!(redacted.get(key), json.get(key), "{key} in {version}");
        }
        assert_eq!(redacted.get("event_id").is_some(), number(&version) < 3, "{version}");
    }
}

/// SG-02, SG-03: a peer that has only the redacted event can still verify it, and sees that it is redacted.
#[test]
fn redacted_events_verify() {
    for version in versions() {
        let pdu = build(draft("m.room.topic", Some(""), &json!({ "topic": "x" })), &version);
        let redacted = pdu.redacted(&version).unwrap();
        let Verified::Redacted(verified) = verify(redacted.json.get(), &version).unwrap() else {
            panic!("{version}: the content hash can't be right");
        };
        assert_eq!(verified.event_id, pdu.event_id);
        assert_eq!(verified.json.get(), redacted.json.get());
    }
}

/// Redacting twice is redacting once.
#[test]
fn redaction_is_idempotent() {
    for version in versions() {
        let pdu = build(
            draft("m.room.member", Some("@a:domain"), &json!({ "membership": "ban", "x": 1 })),
            &version,
        );
        let once = pdu.redacted(&version).unwrap();
        assert_eq!(once.redacted(&version).unwrap().json.get(), once.json.get());
    }
}

/// The verdict stays with the event.
#[test]
fn rejected_events_stay_rejected() {
    let version = RoomVersionId::V12;
    let pdu = build(draft("m.room.topic", Some(""), &json!({ "topic": "x" })), &version).with_rejected(true);
    assert!(pdu.redacted(&version).unwrap().rejected);
}
