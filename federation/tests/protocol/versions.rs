//! Every room version: built events verify, and have the ids and fields that the version wants.

use crate::common::{build, create, intact, message, number, position, server, value, verify, versions};
use hearth_federation::{Limits, Pdu, Verified};
use ruma::{RoomVersionId, owned_event_id, owned_room_id, state_res::Event};
use serde_json::json;

/// SG-01 to SG-04, in each version.
#[test]
fn built_events_verify() {
    for version in versions() {
        for pdu in [create(&version), build(message(), &version)] {
            let verified = intact(pdu.json.get(), &version);
            assert_eq!(verified.event_id, pdu.event_id, "{version}");
            assert_eq!(verified.room_id, pdu.room_id, "{version}");
            assert_eq!(verified.json.get(), pdu.json.get(), "{version}");
        }
    }
}

/// What is hashed is what is stored: the text needs no canonicalising, ours or ruma's.
#[test]
fn built_text_is_canonical() {
    for version in versions() {
        let pdu = build(message(), &version);
        let canonical: ruma::CanonicalJsonValue = serde_json::from_str(pdu.json.get()).unwrap();
        assert_eq!(canonical.to_string(), pdu.json.get(), "{version}");
    }
}

/// An independent implementation agrees on id, hash and signature.
#[test]
fn ruma_verifies_built_events() {
    for version in versions() {
        let rules = version.rules().unwrap();
        let key = ruma::serde::Base64::parse(crate::common::key().public_key_text()).unwrap();
        let keys = [("domain".to_owned(), [("ed25519:1".to_owned(), key)].into())].into();
        for pdu in [create(&version), build(message(), &version)] {
            let object = serde_json::from_str(pdu.json.get()).unwrap();
            let verified = ruma::signatures::verify_event(&keys, &object, &rules).unwrap();
            assert_eq!(verified, ruma::signatures::Verified::All, "{version}");
            let hash = ruma::signatures::reference_hash(&object, &rules).unwrap();
            if number(&version) < 3 {
                assert_eq!(hash, pdu.reference_hash(&version).unwrap());
            } else {
                assert_eq!(pdu.event_id, format!("${hash}"), "{version}");
            }
        }
    }
}

#[test]
fn stored_events_read_as_they_were_built() {
    for version in versions() {
        for pdu in [create(&version), build(message(), &version)] {
            let stored = Pdu::from_stored(pdu.event_id.clone(), pdu.json.get().to_owned(), &version).unwrap();
            assert_eq!(format!("{stored:?}"), format!("{pdu:?}"));
            assert_eq!(stored.prev_events, pdu.prev_events);
            assert_eq!(stored.auth_events, pdu.auth_events);
            assert_eq!(stored.content.get(), pdu.content.get());
            assert_eq!(stored.depth, pdu.depth);
            assert_eq!(stored.origin_server_ts, pdu.origin_server_ts);
            assert_eq!(Event::room_id(&stored), Event::room_id(&pdu));
        }
    }
}

/// RV-04, RV-05
#[test]
fn event_ids_have_the_form_of_the_version() {
    for version in versions() {
        // Enough events that one has a character in which the alphabets differ.
        let mut slash_or_plus = false;
        let mut dash_or_underscore = false;
        for depth in 0..40 {
            let pdu = message()
                .build(
                    &version,
                    position(&version, depth),
                    server(),
                    &crate::common::key(),
                    Limits::FEDERATED,
                )
                .unwrap();
            slash_or_plus |= pdu.event_id.as_str().contains(['/', '+']);
            dash_or_underscore |= pdu.event_id.as_str().contains(['-', '_']);
            let in_json = value(&pdu).get("event_id").is_some();
            if number(&version) < 3 {
                assert!(pdu.event_id.as_str().ends_with(":domain"), "{version}");
                assert!(in_json, "{version}");
            } else {
                assert_eq!(pdu.event_id.as_str().len(), 44, "{version}");
                assert!(!in_json, "{version}");
            }
        }
        match number(&version) {
            1..=2 => {}
            3 => assert!(slash_or_plus && !dash_or_underscore),
            _ => assert!(dash_or_underscore && !slash_or_plus, "{version}"),
        }
    }
}

/// RV-06
#[test]
fn other_events_are_named_as_the_version_wants() {
    for version in versions() {
        let pdu = build(message(), &version);
        let id = pdu.prev_events[0].as_str();
        let named = &value(&pdu)["prev_events"][0];
        if number(&version) < 3 {
            assert_eq!(*named, json!([id, { "sha256": "h".repeat(43) }]));
        } else {
            assert_eq!(*named, json!(id));
        }
    }
}

/// RV-26, RV-28
#[test]
fn room_id_of_version_12_is_the_create_id() {
    let version = RoomVersionId::V12;
    let create = create(&version);
    assert_eq!(create.room_id.as_str().strip_prefix('!'), create.event_id.as_str().strip_prefix('$'));
    assert!(value(&create).get("room_id").is_none());
    assert_eq!(Event::room_id(&create), None);

    let mut draft = crate::common::draft("m.room.create", Some(""), &json!({}));
    draft.room_id = Some(owned_room_id!("!room:domain"));
    let built =
        draft.build(&version, position(&version, 1), server(), &crate::common::key(), Limits::FEDERATED);
    assert_eq!(built.unwrap_err().to_string(), "`room_id` does not belong in this version's m.room.create");

    for version in versions().filter(|version| number(version) < 12) {
        assert_eq!(crate::common::create(&version).room_id, "!room:domain");
        let mut draft = message();
        draft.room_id = None;
        let built =
            draft.build(&version, position(&version, 1), server(), &crate::common::key(), Limits::FEDERATED);
        assert_eq!(built.unwrap_err().to_string(), "`room_id` is missing");
    }
}

/// RV-27
#[test]
fn version_12_events_may_not_name_their_create_event() {
    let version = RoomVersionId::V12;
    let create = create(&version);
    let mut draft = message();
    draft.room_id = Some(create.room_id.clone());
    let mut position = position(&version, 2);
    position.auth_events = vec![create.event_id.clone()];
    let pdu = draft.build(&version, position, server(), &crate::common::key(), Limits::FEDERATED).unwrap();
    assert_eq!(
        verify(pdu.json.get(), &version).unwrap_err().to_string(),
        "`auth_events` names the create event"
    );
}

/// RV-12
#[test]
fn depth_stays_at_its_cap() {
    for version in versions() {
        let cap = if number(&version) < 6 { i64::MAX } else { (1 << 53) - 1 };
        for depth in [cap, i64::MAX] {
            let pdu = message()
                .build(
                    &version,
                    position(&version, depth),
                    server(),
                    &crate::common::key(),
                    Limits::FEDERATED,
                )
                .unwrap();
            assert_eq!(pdu.depth, cap, "{version}");
            assert_eq!(intact(pdu.json.get(), &version).depth, cap, "{version}");
        }
    }
}

/// RV-23
#[test]
fn redacts_is_where_the_version_has_it() {
    let target = owned_event_id!("$target:domain");
    for version in versions() {
        let mut draft = crate::common::draft("m.room.redaction", None, &json!({ "reason": "spam" }));
        draft.redacts = Some(target.clone());
        let pdu = build(draft, &version);
        let json = value(&pdu);
        let (there, not_there) = if number(&version) < 11 {
            (&json["redacts"], &json["content"]["redacts"])
        } else {
            (&json["content"]["redacts"], &json["redacts"])
        };
        assert_eq!(*there, json!(target), "{version}");
        assert!(not_there.is_null(), "{version}");
        assert_eq!(pdu.redacts.as_ref(), Some(&target), "{version}");
        assert_eq!(intact(pdu.json.get(), &version).redacts.as_ref(), Some(&target), "{version}");
    }
}

/// A `redacts` that the type or version gives no meaning is data like any other.
#[test]
fn redacts_elsewhere_redacts_nothing() {
    let version = RoomVersionId::V11;
    let pdu = build(crate::common::draft("m.room.message", None, &json!({ "redacts": 5 })), &version);
    assert_eq!(pdu.redacts, None);
    assert_eq!(intact(pdu.json.get(), &version).redacts, None);
    let pdu = build(crate::common::draft("m.room.redaction", None, &json!({ "redacts": 5 })), &version);
    assert_eq!(pdu.redacts, None);
    assert_eq!(intact(pdu.json.get(), &version).redacts, None);
}

/// RV-01
#[test]
fn unknown_versions_are_refused() {
    let version = RoomVersionId::try_from("99").unwrap();
    let built = message().build(
        &version,
        position(&RoomVersionId::V12, 1),
        server(),
        &crate::common::key(),
        Limits::FEDERATED,
    );
    assert_eq!(built.unwrap_err().to_string(), "room version `99` is not supported");
    let text = build(message(), &RoomVersionId::V12).json.get().to_owned();
    assert!(verify(&text, &version).is_err());
    assert!(Pdu::from_stored(owned_event_id!("$x"), text, &version).is_err());
}

/// SG-07, in each version: what isn't covered by the signature is dropped, not believed.
#[test]
fn changed_content_leaves_the_redacted_event() {
    for version in versions() {
        let pdu = build(message(), &version);
        let mut json = value(&pdu);
        json["content"]["body"] = json!("changed");
        let Verified::Redacted(redacted) = verify(&json.to_string(), &version).unwrap() else {
            panic!("{version}: a changed body went unnoticed");
        };
        assert_eq!(redacted.event_id, pdu.event_id, "{version}");
        assert_eq!(redacted.content.get(), "{}", "{version}");
        assert_eq!(redacted.json.get(), pdu.redacted(&version).unwrap().json.get(), "{version}");
    }
}

/// JN-02, RV-06: servers give the references of old versions without hashes too. Ids are what counts.
#[test]
fn jn_02_references_of_old_versions_need_no_hashes() {
    for version in [RoomVersionId::V1, RoomVersionId::V2] {
        let user = ruma::owned_user_id!("@alice:domain");
        let room = owned_room_id!("!room:domain");
        let proposal = |hashes: serde_json::Value| {
            let reference = |id: &str| json!([format!("${id}:other"), hashes.clone()]);
            json!({ "room_version": version, "event": {
                "type": "m.room.member", "room_id": room, "sender": user, "state_key": user, "depth": 3,
                "content": { "membership": "join" },
                "prev_events": [reference("p")], "auth_events": [reference("a"), reference("b")],
            } })
            .to_string()
        };
        let join = ruma::events::room::member::MembershipState::Join;
        let read = |hashes| hearth_federation::Template::read(&proposal(hashes), &room, &user, &join);
        for (hashes, written) in [(json!({}), r"{}"), (json!({ "sha256": "abc" }), r#"{"sha256":"abc"}"#)] {
            let template = read(hashes).unwrap();
            let content = serde_json::value::to_raw_value(&json!({ "membership": "join" })).unwrap();
            let now = crate::common::now();
            let pdu = template.build(&room, &user, content, now, &crate::common::key()).unwrap();
            let expected = format!(r#""prev_events":[["$p:other",{written}]]"#);
            assert!(pdu.json.get().contains(&expected), "{}", pdu.json);
            assert_eq!(intact(pdu.json.get(), &version).event_id, pdu.event_id);
        }
        assert!(read(json!({ "sha256": 7 })).is_err());
        assert!(read(json!("abc")).is_err());
    }
}
