//! Events from other servers: whose signatures they need, and what becomes of those that lie.

use std::collections::BTreeMap;

use hearth_federation::{Received, References, SigningKey, Verified, VerifyError, json};
use ruma::{
    RoomVersionId,
    serde::{Base64, base64::Standard},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::common::{build, create, draft, intact, key, message, number, server, value, verify, versions};

/// Sign again an event that a test has changed, as another server would: the slow and literal way.
fn sign(event: &mut Value, version: &RoomVersionId, servers: &[(&str, &SigningKey)]) {
    let rules = version.rules().unwrap();
    let mut object: BTreeMap<_, _> = serde_json::from_value(event.clone()).unwrap();
    object.remove("signatures");
    object.remove("hashes");
    ruma::signatures::add_content_hash_to_event(&mut object).unwrap();
    let redacted = ruma::canonical_json::redact(object.clone(), &rules.redaction, None).unwrap();
    let text = ruma::signatures::to_canonical_json_string_for_signing(&redacted).unwrap();
    let mut event_again = serde_json::to_value(object).unwrap();
    for (server, key) in servers {
        event_again["signatures"][*server][key.id().as_str()] = json!(key.sign(text.as_bytes()));
    }
    *event = event_again;
}

fn other_key() -> SigningKey {
    SigningKey::from_text("ed25519 other AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap()
}

/// Verify where both `domain` and `elsewhere` have a key.
fn verify_two(event: &Value, version: &RoomVersionId) -> Result<Verified, VerifyError> {
    let text = event.to_string();
    Received::parse(&text, version, References::Limited)?.verify(|server, key_id| {
        match (server.as_str(), key_id) {
            ("domain", "ed25519:1") => Some(key().public_key()),
            ("elsewhere", "ed25519:other") => Some(other_key().public_key()),
            _ => None,
        }
    })
}

/// SG-05, SG-07: dropped, in each version, whatever is wrong with the signature.
#[test]
fn events_without_a_right_signature_are_dropped() {
    for version in versions() {
        let good = value(&build(message(), &version));
        let signature = good["signatures"]["domain"]["ed25519:1"].as_str().unwrap();
        let other = json!(other_key().sign(b"something else"));

        for unsigned in [
            json!({}),
            json!({ "domain": {} }),
            json!({ "domain": [] }),
            json!({ "domain": { "rsa:1": signature } }),
            json!({ "elsewhere": { "ed25519:1": signature } }),
        ] {
            let mut event = good.clone();
            event["signatures"] = unsigned;
            let error = verify(&event.to_string(), &version).unwrap_err();
            assert!(matches!(error, VerifyError::Unsigned(_)), "{version}: {error}");
        }
        let mut event = good.clone();
        event["signatures"] = json!({ "domain": { "ed25519:2": signature } });
        let error = verify(&event.to_string(), &version).unwrap_err();
        assert!(matches!(error, VerifyError::UnknownKey(_)), "{version}: {error}");
        for wrong in [json!(""), json!("!"), json!(5), json!(&signature[4..]), other] {
            let mut event = good.clone();
            event["signatures"]["domain"]["ed25519:1"] = wrong;
            let error = verify(&event.to_string(), &version).unwrap_err();
            assert!(matches!(error, VerifyError::BadSignature { .. }), "{version}: {error}");
        }
    }
}

/// What the signature covers can't be changed.
#[test]
fn signed_fields_cannot_be_changed() {
    for version in versions() {
        let good = value(&build(draft("m.room.topic", Some(""), &json!({ "topic": "x" })), &version));
        for (field, changed) in [
            ("type", json!("m.room.name")),
            ("state_key", json!("x")),
            ("depth", json!(8)),
            ("origin_server_ts", json!(5)),
            ("room_id", json!("!other:domain")),
            ("sender", json!("@bob:domain")),
            ("prev_events", json!([])),
            ("hashes", json!({ "sha256": "x" })),
        ] {
            let mut event = good.clone();
            assert_ne!(event[field], changed);
            event[field] = changed;
            let error = verify(&event.to_string(), &version).unwrap_err();
            assert!(matches!(error, VerifyError::BadSignature { .. }), "{field} in {version}: {error}");
        }
        // Gone altogether is a change too.
        let mut event = good.clone();
        event.as_object_mut().unwrap().remove("state_key");
        assert!(verify(&event.to_string(), &version).is_err(), "{version}");
    }
}

/// SG-06
#[test]
fn padded_base64_is_read() {
    let version = RoomVersionId::V12;
    let mut event = value(&build(message(), &version));
    let padded = format!("{}==", event["signatures"]["domain"]["ed25519:1"].as_str().unwrap());
    event["signatures"]["domain"]["ed25519:1"] = json!(padded);
    intact(&event.to_string(), &version);
}

/// SG-08
#[test]
fn unknown_keys_and_servers_are_skipped() {
    let version = RoomVersionId::V12;
    let pdu = build(message(), &version);
    let mut event = value(&pdu);
    event["signatures"]["domain"]["ed25519:unknown"] = json!("nonsense");
    event["signatures"]["domain"]["ed25519:policy_server"] = json!(7);
    event["signatures"]["elsewhere"] = json!("nonsense");
    let verified = intact(&event.to_string(), &version);
    assert_eq!(verified.event_id, pdu.event_id);
}

/// RV-10
#[test]
fn key_validity_counts_from_version_5() {
    for version in versions() {
        let pdu = build(message(), &version);
        let received = Received::parse(pdu.json.get(), &version, References::Limited).unwrap();
        let expected = (number(&version) >= 5).then_some(pdu.origin_server_ts);
        assert_eq!(received.keys_valid_at(), expected, "{version}");
        assert_eq!(received.signers().collect::<Vec<_>>(), [server()]);
        assert_eq!(received.key_ids(server()).collect::<Vec<_>>(), ["ed25519:1"]);
    }
}

/// RV-07
#[test]
fn the_server_of_the_event_id_signs_too_in_versions_1_and_2() {
    for version in [RoomVersionId::V1, RoomVersionId::V2] {
        let mut event = value(&build(message(), &version));
        event["event_id"] = json!("$opaque:elsewhere");
        sign(&mut event, &version, &[("domain", &key())]);
        assert!(
            matches!(verify_two(&event, &version), Err(VerifyError::Unsigned(server)) if server == "elsewhere")
        );
        sign(&mut event, &version, &[("domain", &key()), ("elsewhere", &other_key())]);
        assert!(matches!(verify_two(&event, &version), Ok(Verified::Intact(_))));
    }
}

/// RV-05: what a peer calls an event doesn't matter.
#[test]
fn event_ids_of_peers_are_not_believed() {
    let version = RoomVersionId::V12;
    let pdu = build(message(), &version);
    let mut event = value(&pdu);
    event["event_id"] = json!("$chosen");
    // Here nobody signed it.
    assert!(matches!(verify(&event.to_string(), &version), Err(VerifyError::BadSignature { .. })));
    // And here somebody did: then it is part of what is hashed, and nothing more.
    sign(&mut event, &version, &[("domain", &key())]);
    let verified = intact(&event.to_string(), &version);
    assert_ne!(verified.event_id, "$chosen");
    assert_ne!(verified.event_id, pdu.event_id);
}

/// AR-05, RV-16
#[test]
fn the_authorising_server_signs_too_from_version_8() {
    for version in versions() {
        let content = json!({ "membership": "join", "join_authorised_via_users_server": "@bob:elsewhere" });
        let mut event = value(&build(draft("m.room.member", Some("@alice:domain"), &content), &version));
        let alone = verify_two(&event, &version);
        if number(&version) < 8 {
            assert!(matches!(alone, Ok(Verified::Intact(_))), "{version}");
            continue;
        }
        assert!(matches!(alone, Err(VerifyError::Unsigned(server)) if server == "elsewhere"), "{version}");
        sign(&mut event, &version, &[("domain", &key()), ("elsewhere", &other_key())]);
        assert!(matches!(verify_two(&event, &version), Ok(Verified::Intact(_))), "{version}");

        event["content"]["join_authorised_via_users_server"] = json!("nobody");
        assert!(matches!(verify_two(&event, &version), Err(VerifyError::Field { .. })), "{version}");

        // On other types the key means nothing.
        let message = build(draft("m.room.message", None, &content), &version);
        assert!(matches!(verify_two(&value(&message), &version), Ok(Verified::Intact(_))), "{version}");
    }
}

/// AR-05: who vouched for a join vouches for nothing else, even where its content was copied. Whoever left so has left
/// on every other server.
#[test]
fn only_a_join_needs_the_signature_of_who_vouched_for_it() {
    for version in versions() {
        for membership in ["leave", "ban", "invite", "knock"] {
            let content =
                json!({ "membership": membership, "join_authorised_via_users_server": "@bob:elsewhere" });
            let event = value(&build(draft("m.room.member", Some("@alice:domain"), &content), &version));
            assert!(
                matches!(verify_two(&event, &version), Ok(Verified::Intact(_))),
                "{version} {membership}"
            );
        }
    }
}

/// SG-09
#[test]
fn invitations_by_third_party_need_no_signature_of_the_sender() {
    let version = RoomVersionId::V12;
    let invite = |content: &Value| {
        let mut event = value(&build(draft("m.room.member", Some("@bob:elsewhere"), content), &version));
        event["signatures"] = json!({});
        event.to_string()
    };
    intact(&invite(&json!({ "membership": "invite", "third_party_invite": { "signed": {} } })), &version);
    for content in [
        json!({ "membership": "invite" }),
        json!({ "membership": "invite", "third_party_invite": 1 }),
        json!({ "membership": "join", "third_party_invite": { "signed": {} } }),
    ] {
        assert!(verify(&invite(&content), &version).is_err(), "{content}");
    }
}

/// EV-06: each field, missing and of a wrong type.
#[test]
fn misformed_events_are_dropped() {
    for version in versions() {
        let good = value(&build(draft("m.room.topic", Some(""), &json!({})), &version));
        for field in [
            "type",
            "sender",
            "room_id",
            "content",
            "hashes",
            "signatures",
            "depth",
            "prev_events",
            "auth_events",
            "origin_server_ts",
            "state_key",
        ] {
            for wrong in [
                json!(null),
                json!(true),
                json!(-1),
                json!([1]),
                json!([["$x"]]),
                json!({ "a": 1 }),
                json!("x"),
            ] {
                if wrong.is_string() && ["type", "state_key"].contains(&field)
                    || wrong.is_object() && ["content", "hashes", "signatures"].contains(&field)
                {
                    continue;
                }
                let mut event = good.clone();
                event[field] = wrong.clone();
                let error = verify(&event.to_string(), &version).unwrap_err();
                // It must be for its form, before anybody looks at signatures; the text is a room id of no form at all.
                let by_form = !matches!(
                    error,
                    VerifyError::BadSignature { .. } | VerifyError::Unsigned(_) | VerifyError::UnknownKey(_)
                );
                assert!(by_form || wrong == "x", "{field} = {wrong} in {version}: {error}");
            }
            let mut event = good.clone();
            event.as_object_mut().unwrap().remove(field);
            assert!(verify(&event.to_string(), &version).is_err(), "no {field} in {version}");
        }
    }
}

/// RV-06: of one form of reference or the other, never both.
#[test]
fn references_of_other_versions_are_refused() {
    for version in versions() {
        let mut event = value(&build(message(), &version));
        event["prev_events"] = if number(&version) < 3 {
            json!(["$x:domain"])
        } else {
            json!([["$x:domain", { "sha256": "x" }]])
        };
        let error = verify(&event.to_string(), &version).unwrap_err();
        assert!(
            error.to_string().starts_with("`prev_events` names an event in a form"),
            "{version}: {error}"
        );
    }
}

/// Signed and well-formed, but nothing that names events: dropped without a panic.
#[test]
fn names_of_events_that_are_none_are_refused() {
    for version in versions() {
        let mut event = value(&build(message(), &version));
        event["prev_events"] = if number(&version) < 3 { json!([["x", {}]]) } else { json!(["x"]) };
        sign(&mut event, &version, &[("domain", &key())]);
        assert!(matches!(verify(&event.to_string(), &version), Err(VerifyError::Pdu(_))), "{version}");
    }
}

/// CJ-04, RV-11
#[test]
fn other_numbers_are_refused_from_version_6() {
    for version in versions().filter(|version| number(version) >= 6) {
        let text = build(draft("m.x", None, &json!({ "n": 5 })), &version).json.get().to_owned();
        for number in ["5.0", "5e0", "-0", "9007199254740993"] {
            let text = text.replace(r#""n":5"#, &format!(r#""n":{number}"#));
            assert!(matches!(verify(&text, &version), Err(VerifyError::Json(_))), "{number} in {version}");
        }
    }
}

/// RV-11: earlier versions bear them, as they were written and hashed.
#[test]
fn other_numbers_are_borne_before_version_6() {
    for version in [RoomVersionId::V3, RoomVersionId::V4, RoomVersionId::V5] {
        for number in ["1.0", "0.1", "1e+30", "12345678901234567890123"] {
            let head = r#"{"auth_events":[],"content":"#;
            let content = format!(r#"{{"n":{number}}}"#);
            let depth = r#","depth":1"#;
            let tail = r#","origin_server_ts":1,"prev_events":[],"room_id":"!r:domain","sender":"@a:domain""#;
            let kind = r#","type":"m.x"}"#;
            let hash = Sha256::digest(format!("{head}{content}{depth}{tail}{kind}"));
            let hash = Base64::<Standard, _>::new(hash.to_vec()).encode();
            let hashes = format!(r#","hashes":{{"sha256":"{hash}"}}"#);
            let signature = key().sign(format!("{head}{{}}{depth}{hashes}{tail}{kind}").as_bytes());
            let signatures = format!(r#","signatures":{{"domain":{{"ed25519:1":"{signature}"}}}}"#);
            let text = format!("{head}{content}{depth}{hashes}{tail}{signatures}{kind}");
            let pdu = intact(&text, &version);
            assert_eq!(pdu.content.get(), content, "{version}");
            assert_eq!(pdu.json.get(), text, "{version}");
        }
    }
}

/// What is hashed is what is stored is what is served.
#[test]
fn duplicate_keys_have_one_outcome() {
    let version = RoomVersionId::V12;
    let pdu = build(message(), &version);
    // The last one is what was signed: as if the others had never been.
    let text = pdu.json.get().replacen('{', r#"{"depth":99,"content":{"body":"forged"},"type":5,"#, 1);
    assert_eq!(intact(&text, &version).json.get(), pdu.json.get());
    // The last one is forged: the hash notices.
    let text = pdu.json.get().replacen("\"msgtype\"", "\"body\":\"forged\",\"msgtype\"", 1);
    let Verified::Redacted(redacted) = verify(&text, &version).unwrap() else {
        panic!("forgery went unnoticed")
    };
    assert_eq!(redacted.content.get(), "{}");
}

/// Keys that we don't know are hashed, so they stay; `unsigned` isn't, so it goes.
#[test]
fn unknown_keys_stay_and_unsigned_goes() {
    let version = RoomVersionId::V12;
    let mut event = value(&build(message(), &version));
    event["new_in_2030"] = json!({ "x": 1 });
    sign(&mut event, &version, &[("domain", &key())]);
    let signed = event.to_string();
    event["unsigned"] = json!({ "redacted_because": { "content": {} }, "transaction_id": "x" });
    let pdu = intact(&event.to_string(), &version);
    assert_eq!(pdu.json.get(), json::canonical(&signed).unwrap());
    assert_eq!(value(&pdu)["new_in_2030"]["x"], 1);
}

/// RV-26, RV-28: kept in form, so that authorisation can reject it.
#[test]
fn a_version_12_create_event_with_a_room_id_is_not_authorised() {
    let version = RoomVersionId::V12;
    let mut event = value(&create(&version));
    event["room_id"] = json!("!chosen:domain");
    sign(&mut event, &version, &[("domain", &key())]);
    let pdu = intact(&event.to_string(), &version);
    let verdict = hearth_federation::authorize_built(&version, &pdu, |_, _| None::<&hearth_federation::Pdu>);
    assert_eq!(verdict.unwrap_err().to_string(), "`m.room.create` event cannot have a `room_id` field");
}

/// No text whatever makes it panic.
#[test]
fn mangled_events_never_panic() {
    use rand::{RngExt, SeedableRng, rngs::StdRng};
    let mut rng = StdRng::seed_from_u64(11);
    let alphabet = b"{}[]\",:\\u0129-.e$!@ nt";
    for version in versions() {
        let good =
            build(draft("m.room.member", Some("@a:domain"), &json!({ "membership": "join" })), &version);
        let mut dropped = 0;
        for _ in 0..2_000 {
            let mut text = good.json.get().as_bytes().to_vec();
            for _ in 0..rng.random_range(1..3) {
                let at = rng.random_range(0..text.len());
                text[at] = alphabet[rng.random_range(0..alphabet.len())];
            }
            let text = String::from_utf8(text).unwrap();
            match verify(&text, &version) {
                Ok(Verified::Intact(pdu) | Verified::Redacted(pdu)) => {
                    assert_eq!(json::canonical(pdu.json.get()).unwrap(), pdu.json.get());
                }
                Err(_) => dropped += 1,
            }
        }
        assert!(dropped > 1_500, "{version}: only {dropped} were dropped");
    }
}
