//! Sizes and counts, on the way out and on the way in.

use hearth_federation::{
    BuildError, Draft, Limits, MAX_PDU_BYTES, Pdu, Position, Received, References, VerifyError,
};
use ruma::{OwnedEventId, RoomVersionId, owned_event_id};
use serde_json::{json, value::RawValue};

use crate::common::{draft, intact, key, message, now, number, position, server, value, verify, versions};

fn build(draft: Draft, position: Position, limits: Limits) -> Result<Pdu, BuildError> {
    draft.build(&RoomVersionId::V12, position, server(), &key(), limits)
}

fn text_of(length: usize) -> Draft {
    draft("m.room.message", None, &json!({ "body": "x".repeat(length) }))
}

/// EV-01: exactly 65,536 bytes, signatures and all, and not one more.
#[test]
fn events_fill_the_limit_to_the_byte() {
    let version = RoomVersionId::V12;
    let around = build(text_of(0), position(&version, 1), Limits::FEDERATED).unwrap().json.get().len();
    let room = MAX_PDU_BYTES - around;

    let largest = build(text_of(room), position(&version, 1), Limits::FEDERATED).unwrap();
    assert_eq!(largest.json.get().len(), 65_536);
    intact(largest.json.get(), &version);

    let error = build(text_of(room + 1), position(&version, 1), Limits::FEDERATED).unwrap_err();
    assert!(matches!(error, BuildError::TooLarge { size: 65_537, limit: 65_536 }));
    assert_eq!(error.to_string(), "the event is 65537 bytes, more than the 65536 that this room allows");

    let larger = build(text_of(room + 1), position(&version, 1), Limits::local(65_537)).unwrap();
    let refused = verify(larger.json.get(), &version).unwrap_err();
    assert!(matches!(refused, VerifyError::TooLarge { size: 65_537, limit: 65_536 }));
}

/// Rooms that don't federate may hold 100,000 characters of text, and such events are as sound as any.
#[test]
fn local_events_may_be_larger() {
    let version = RoomVersionId::V12;
    let large = draft("m.room.message", None, &json!({ "body": "é".repeat(100_000) }));
    let pdu = build(large, position(&version, 1), Limits::local(1 << 20)).unwrap();
    let stored = Pdu::from_stored(pdu.event_id.clone(), pdu.json.get().to_owned(), &version).unwrap();
    assert_eq!(stored.content.get().len(), 200_011);
    assert_eq!(stored.redacted(&version).unwrap().event_id, pdu.event_id);
}

/// The size that counts is the canonical one; spaces and `unsigned` don't, within reason.
#[test]
fn spaces_and_unsigned_do_not_count() {
    let version = RoomVersionId::V12;
    let pdu = crate::common::build(message(), &version);
    let mut json = value(&pdu);
    json["unsigned"] = json!({ "note": "x".repeat(100_000), "age": 1.5 });
    let text = json.to_string();
    let padded = format!("{}{}", " ".repeat(100_000), text);
    let verified = intact(&padded, &version);
    assert_eq!(verified.json.get(), pdu.json.get());
    let padded = format!("{}{}", " ".repeat(2_000_000), text);
    assert!(matches!(verify(&padded, &version), Err(VerifyError::TooLarge { .. })));
}

/// EV-02: bytes, not characters.
#[test]
fn fields_are_at_most_255_bytes() {
    let version = RoomVersionId::V12;
    let at = |kind: &str, state_key: &str| {
        build(draft(kind, Some(state_key), &json!({})), position(&version, 1), Limits::FEDERATED)
    };
    assert!(at(&"t".repeat(255), &"é".repeat(127)).is_ok());
    let long = at(&"t".repeat(256), "").unwrap_err();
    assert!(matches!(long, BuildError::FieldTooLong { field: "type", size: 256 }));
    assert_eq!(long.to_string(), "`type` is 256 bytes, more than the 255 allowed");
    let long = at("t", &"é".repeat(128)).unwrap_err();
    assert!(matches!(long, BuildError::FieldTooLong { field: "state_key", size: 256 }));
}

#[test]
fn received_fields_are_at_most_255_bytes() {
    for version in versions() {
        let pdu = crate::common::build(draft("m.room.topic", Some(""), &json!({})), &version);
        for field in ["type", "state_key", "sender", "room_id", "event_id"] {
            if field == "event_id" && number(&version) >= 3 {
                continue;
            }
            let mut json = value(&pdu);
            json[field] = json!("é".repeat(128));
            let error = verify(&json.to_string(), &version).unwrap_err();
            assert_eq!(error.to_string(), format!("`{field}` is longer than 255 bytes"), "{version}");
        }
    }
}

fn ids(count: usize) -> Vec<OwnedEventId> {
    (0..count).map(|number| OwnedEventId::try_from(format!("${number:043}")).unwrap()).collect()
}

/// EV-03
#[test]
fn events_name_at_most_20_and_10_others() {
    let at = |prev, auth| build(message(), Position::new(ids(prev), ids(auth), 1, now()), Limits::FEDERATED);
    assert!(at(20, 10).is_ok());
    assert!(matches!(at(21, 10), Err(BuildError::TooMany { field: "prev_events", count: 21, limit: 20 })));
    assert!(matches!(at(20, 11), Err(BuildError::TooMany { field: "auth_events", count: 11, limit: 10 })));
}

/// EV-03: but old ones, which backfill brings, may name more.
#[test]
fn received_events_name_at_most_20_and_10_others() {
    let version = RoomVersionId::V12;
    for (field, count) in [("prev_events", 21), ("auth_events", 11)] {
        let mut json = value(&crate::common::build(message(), &version));
        json[field] = json!(ids(count));
        let text = json.to_string();
        let error = Received::parse(&text, &version, References::Limited).unwrap_err();
        assert_eq!(error.to_string(), format!("`{field}` names too many events"));
        assert!(Received::parse(&text, &version, References::Unlimited).is_ok());
    }
}

/// CJ-04, RV-11: we make no event with such numbers in any version.
#[test]
fn content_with_other_numbers_is_refused() {
    for version in versions() {
        for number in ["1.5", "1e3", "-0", "9007199254740992"] {
            let mut draft = message();
            draft.content = RawValue::from_string(format!(r#"{{"n":{number}}}"#)).unwrap();
            let error = draft
                .build(&version, position(&version, 1), server(), &key(), Limits::FEDERATED)
                .unwrap_err();
            assert!(matches!(error, BuildError::Content(_)), "{version}");
            assert!(
                error.to_string().starts_with(&format!("content: `{number}` is not an integer")),
                "{error}"
            );
        }
    }
}

#[test]
fn content_is_an_object() {
    for text in ["[]", "\"x\"", "null", "1"] {
        let mut draft = message();
        draft.content = RawValue::from_string(text.to_owned()).unwrap();
        let error = build(draft, position(&RoomVersionId::V12, 1), Limits::FEDERATED).unwrap_err();
        assert_eq!(error.to_string(), "content: expected a JSON object");
    }
}

/// What is hashed is what is stored, also of content that came with the same key twice.
#[test]
fn duplicate_keys_in_content_have_one_outcome() {
    let version = RoomVersionId::V12;
    let mut draft = message();
    draft.content =
        RawValue::from_string(r#"{ "body": "one", "a": {"x":1,"x":2}, "body": "two" }"#.into()).unwrap();
    let pdu = build(draft, position(&version, 1), Limits::FEDERATED).unwrap();
    assert_eq!(pdu.content.get(), r#"{"a":{"x":2},"body":"two"}"#);
    intact(pdu.json.get(), &version);
}

#[test]
fn nul_characters_are_refused_where_they_would_cut_names_short() {
    let version = RoomVersionId::V12;
    let built = build(draft("a\0b", None, &json!({})), position(&version, 1), Limits::FEDERATED);
    assert_eq!(built.unwrap_err().to_string(), "`type` contains a NUL character");
    let mut json = value(&crate::common::build(draft("m.x", Some(""), &json!({ "body": "\0" })), &version));
    json["state_key"] = json!("\0");
    assert_eq!(
        verify(&json.to_string(), &version).unwrap_err().to_string(),
        "`state_key` contains a NUL character"
    );
}

#[test]
fn versions_1_and_2_need_hashes_of_what_they_name() {
    let position = Position { reference_hashes: Vec::new(), ..position(&RoomVersionId::V2, 1) };
    let built = message().build(&RoomVersionId::V2, position, server(), &key(), Limits::FEDERATED);
    assert!(matches!(built, Err(BuildError::NoReferenceHash(_))));
}

#[test]
fn redacts_belongs_to_redactions() {
    let mut draft = message();
    draft.redacts = Some(owned_event_id!("$x"));
    let built = build(draft, position(&RoomVersionId::V12, 1), Limits::FEDERATED);
    assert_eq!(built.unwrap_err().to_string(), "`redacts` belongs in m.room.redaction only");
}
