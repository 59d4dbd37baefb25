//! Published keys: our own, a peer's that may lie, a notary's that may lie too.

use std::time::Duration;

use hearth_federation::{
    BlockedKeys, KnownKeys, MAX_KEYS, MAX_KEYS_BYTES, MAX_VALIDITY, OWN_KEYS_REMADE, OWN_KEYS_VALIDITY,
    OldKey, Purpose, ServerKeys, ServerKeysError, SigningKey, notary_answer, own_server_keys,
    read_notary_answer,
};
use ruma::{CanonicalJsonObject, MilliSecondsSinceUnixEpoch, ServerName, UInt, server_name};
use serde_json::{Value, json};

use crate::common::now;

const HOUR: i64 = 3_600_000;

fn peer() -> &'static ServerName {
    server_name!("peer.example")
}

fn notary() -> &'static ServerName {
    server_name!("notary.example")
}

fn key(version: &str) -> SigningKey {
    let mut seed = [3; 32];
    seed[..version.len()].copy_from_slice(version.as_bytes());
    SigningKey::new(version, seed).unwrap()
}

fn after(milliseconds: i64) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::try_from(i64::from(now().get()) + milliseconds).unwrap())
}

/// The peer's document with these fields, signed by these keys.
fn signed(mut document: Value, keys: &[&SigningKey]) -> String {
    let fields = document.as_object_mut().unwrap();
    fields.entry("server_name").or_insert("peer.example".into());
    fields.entry("valid_until_ts").or_insert(u64::from(after(24 * HOUR).get()).into());
    let mut object: CanonicalJsonObject = serde_json::from_value(document).unwrap();
    for key in keys {
        key.sign_json(peer(), &mut object).unwrap();
    }
    serde_json::to_string(&object).unwrap()
}

fn in_use(keys: &[&SigningKey]) -> Value {
    keys.iter().map(|key| (key.id().to_string(), json!({ "key": key.public_key_text() }))).collect()
}

fn read(document: &str) -> Result<ServerKeys, ServerKeysError> {
    ServerKeys::read(document, peer(), now(), &BlockedKeys::default())
}

fn known(document: &str) -> KnownKeys {
    KnownKeys::new(read(document).unwrap(), now())
}

#[test]
fn ky_01_our_own_keys_are_signed_by_each_of_them() {
    let (first, second) = (key("b"), key("a"));
    let old = OldKey { key_id: "ed25519:0".into(), public_key: [7; 32], expired: after(-HOUR) };
    let text = own_server_keys(peer(), &[&first, &second], &[old], now());

    // By code that isn't ours.
    let document: CanonicalJsonObject = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&document).unwrap(), text, "it is canonical");
    let mut again = document.clone();
    again.remove("signatures");
    first.sign_json(peer(), &mut again).unwrap();
    second.sign_json(peer(), &mut again).unwrap();
    assert_eq!(again, document);

    let keys = read(&text).unwrap();
    assert_eq!(keys.keys["ed25519:a"].bytes(), second.public_key());
    assert_eq!(keys.keys["ed25519:b"].bytes(), first.public_key());
    assert_eq!(keys.keys["ed25519:0"].bytes(), [7; 32]);
    assert_eq!(keys.keys["ed25519:0"].valid_until(), after(-HOUR));
    assert_eq!(keys.document, text);
}

#[test]
fn ky_02_our_own_keys_are_made_again_before_they_end_within_an_hour() {
    assert!(OWN_KEYS_VALIDITY.checked_sub(OWN_KEYS_REMADE).unwrap() > Duration::from_hours(1));
    let text = own_server_keys(peer(), &[&key("a")], &[], now());
    let valid = i64::try_from(OWN_KEYS_VALIDITY.as_millis()).unwrap();
    assert_eq!(read(&text).unwrap().valid_until, after(valid));
}

#[test]
fn ky_03_nothing_is_believed_for_more_than_seven_days() {
    let week = i64::try_from(MAX_VALIDITY.as_millis()).unwrap();
    for claimed in [253_402_300_799_000_u64, (1 << 53) - 1] {
        let document = signed(
            json!({
                "verify_keys": in_use(&[&key("a")]),
                "old_verify_keys": { "ed25519:old": { "key": key("old").public_key_text(), "expired_ts": claimed } },
                "valid_until_ts": claimed,
            }),
            &[&key("a")],
        );
        let keys = read(&document).unwrap();
        assert_eq!(keys.valid_until, after(week));
        assert!(keys.keys.values().all(|key| key.valid_until() == after(week)));
    }
    let soon = signed(
        json!({ "verify_keys": in_use(&[&key("a")]), "valid_until_ts": u64::from(after(HOUR).get()) }),
        &[&key("a")],
    );
    assert_eq!(read(&soon).unwrap().valid_until, after(HOUR));
}

#[test]
fn ky_01_only_keys_that_signed_are_believed() {
    let (good, other) = (key("a"), key("b"));
    let document = signed(json!({ "verify_keys": in_use(&[&good, &other]) }), &[&good]);
    assert_eq!(read(&document).unwrap().keys.keys().collect::<Vec<_>>(), ["ed25519:a"]);

    let unsigned = signed(json!({ "verify_keys": in_use(&[&good]) }), &[&other]);
    assert_eq!(read(&unsigned), Err(ServerKeysError::NoKey));
    let changed = document.replace(&u64::from(after(24 * HOUR).get()).to_string(), "2000000000000");
    assert_ne!(changed, document);
    assert_eq!(read(&changed), Err(ServerKeysError::BadSignature("ed25519:a".into())));
    let old_alone = signed(
        json!({
            "verify_keys": {},
            "old_verify_keys": { "ed25519:a": { "key": good.public_key_text(), "expired_ts": 1 } },
        }),
        &[&good],
    );
    assert_eq!(read(&old_alone), Err(ServerKeysError::NoKey));
}

#[test]
fn ky_07_old_keys_verify_old_events_and_no_requests() {
    let old = key("old");
    let expired = u64::from(after(-HOUR).get());
    let document = signed(
        json!({
            "verify_keys": in_use(&[&key("a")]),
            "old_verify_keys": { "ed25519:old": { "key": old.public_key_text(), "expired_ts": expired } },
        }),
        &[&key("a")],
    );
    let keys = known(&document);
    let finds = |id, purpose| keys.find(id, purpose, now()).is_some();
    assert!(finds("ed25519:old", Purpose::Event(Some(after(-HOUR)))));
    assert!(!finds("ed25519:old", Purpose::Event(Some(after(-HOUR + 1)))));
    assert!(finds("ed25519:old", Purpose::Event(None)));
    assert!(!finds("ed25519:old", Purpose::Request));

    assert!(finds("ed25519:a", Purpose::Request));
    assert!(finds("ed25519:a", Purpose::Event(Some(after(24 * HOUR)))));
    assert!(!finds("ed25519:a", Purpose::Event(Some(after(24 * HOUR + 1)))));
    assert!(keys.find("ed25519:a", Purpose::Request, after(24 * HOUR)).is_some());
    assert!(keys.find("ed25519:a", Purpose::Request, after(24 * HOUR + 1)).is_none());
    assert!(!finds("ed25519:b", Purpose::Event(None)));
}

#[test]
fn documents_that_are_not_the_peers_are_refused() {
    let a = key("a");
    let fields = || json!({ "verify_keys": in_use(&[&a]) });
    let with = |name: &str, value: Value| {
        let mut fields = fields();
        fields[name] = value;
        read(&signed(fields, &[&a])).unwrap_err()
    };
    assert_eq!(
        with("server_name", json!("other.example")),
        ServerKeysError::OtherServer("other.example".into())
    );
    assert_eq!(with("server_name", json!(1)), ServerKeysError::Field("server_name"));
    assert_eq!(with("valid_until_ts", json!("1")), ServerKeysError::Field("valid_until_ts"));
    assert_eq!(with("valid_until_ts", json!(-1)), ServerKeysError::Field("valid_until_ts"));
    assert_eq!(with("verify_keys", json!([])), ServerKeysError::Field("verify_keys"));
    assert_eq!(with("verify_keys", json!({ "ed25519:a": {} })), ServerKeysError::Field("verify_keys"));
    assert_eq!(
        with("verify_keys", json!({ "ed25519:a": { "key": "YWJj" } })),
        ServerKeysError::Field("verify_keys")
    );
    assert_eq!(
        with("old_verify_keys", json!({ "ed25519:b": { "key": a.public_key_text() } })),
        ServerKeysError::Field("expired_ts")
    );
    assert!(matches!(read("{"), Err(ServerKeysError::Json(_))));
    assert!(matches!(read("[]"), Err(ServerKeysError::Json(_))));
    assert_eq!(read("{}"), Err(ServerKeysError::Field("server_name")));
}

#[test]
fn i8_ten_thousand_keys_are_too_many() {
    let a = key("a");
    let keys = |number: usize| -> Value {
        (0..number).map(|n| (format!("ed25519:{n}"), json!({ "key": a.public_key_text() }))).collect()
    };
    assert!(matches!(
        read(&signed(json!({ "verify_keys": keys(10_000) }), &[&a])),
        Err(ServerKeysError::TooLarge { limit: MAX_KEYS_BYTES, .. })
    ));
    let many = signed(json!({ "verify_keys": keys(MAX_KEYS + 1) }), &[&a]);
    assert!(many.len() < MAX_KEYS_BYTES);
    assert_eq!(read(&many), Err(ServerKeysError::TooManyKeys));
}

#[test]
fn keys_of_other_algorithms_are_skipped() {
    let a = key("a");
    let mut keys = in_use(&[&a]);
    keys["ed448:x"] = json!({ "key": "?" });
    let document = signed(json!({ "verify_keys": keys }), &[&a]);
    assert_eq!(read(&document).unwrap().keys.len(), 1);
}

#[test]
fn leaked_keys_are_never_believed() {
    let leaked = crate::common::key();
    let document = signed(json!({ "verify_keys": in_use(&[&leaked]) }), &[&leaked]);
    assert_eq!(read(&document), Err(ServerKeysError::NoKey));

    let (a, b) = (key("a"), key("b"));
    let document = signed(json!({ "verify_keys": in_use(&[&a, &b]) }), &[&a, &b]);
    let blocked = BlockedKeys::new([a.public_key()]);
    let keys = ServerKeys::read(&document, peer(), now(), &blocked).unwrap();
    assert_eq!(keys.keys.keys().collect::<Vec<_>>(), ["ed25519:b"]);
}

#[test]
fn a_key_that_is_not_published_any_more_verifies_what_it_signed_before() {
    let (a, b) = (key("a"), key("b"));
    let first = known(&signed(json!({ "verify_keys": in_use(&[&a]) }), &[&a]));
    let second = signed(
        json!({ "verify_keys": in_use(&[&b]), "valid_until_ts": u64::from(after(48 * HOUR).get()) }),
        &[&b],
    );
    let later = after(2 * HOUR);
    let second = ServerKeys::read(&second, peer(), later, &BlockedKeys::default()).unwrap();
    let keys = KnownKeys::updated(Some(first), second, later);
    let finds = |id, purpose| keys.find(id, purpose, later).is_some();
    assert!(finds("ed25519:b", Purpose::Request));
    assert!(!finds("ed25519:a", Purpose::Request));
    assert!(finds("ed25519:a", Purpose::Event(Some(later))));
    assert!(!finds("ed25519:a", Purpose::Event(Some(after(2 * HOUR + 1)))));
}

#[test]
fn an_older_document_by_way_of_a_notary_takes_nothing_back() {
    let (a, b) = (key("a"), key("b"));
    let fresh = signed(json!({ "verify_keys": in_use(&[&b]) }), &[&b]);
    let stale = signed(
        json!({ "verify_keys": in_use(&[&a]), "valid_until_ts": u64::from(after(-HOUR).get()) }),
        &[&a],
    );
    let keys = KnownKeys::vouched(Some(known(&fresh)), read(&stale).unwrap(), now(), false);
    assert!(keys.find("ed25519:b", Purpose::Request, now()).is_some());
    assert!(keys.find("ed25519:a", Purpose::Request, now()).is_none());
    assert!(keys.find("ed25519:a", Purpose::Event(Some(after(-HOUR))), now()).is_some());
    assert_eq!(keys.document, read(&fresh).unwrap().document);
}

#[test]
fn remembered_keys_are_bounded_and_survive_their_text_form() {
    let mut keys = known(&signed(json!({ "verify_keys": in_use(&[&key("a")]) }), &[&key("a")]));
    for round in 0..100 {
        let next = key(&format!("n{round}"));
        let document = signed(json!({ "verify_keys": in_use(&[&next]) }), &[&next]);
        keys = KnownKeys::updated(Some(keys), read(&document).unwrap(), after(round));
    }
    assert_eq!(keys.keys.len(), MAX_KEYS);
    assert!(keys.keys.contains_key("ed25519:n99") && keys.keys.contains_key("ed25519:n98"));
    let text = serde_json::to_string(&keys).unwrap();
    assert_eq!(serde_json::from_str::<KnownKeys>(&text).unwrap(), keys);
}

fn ask_notary(answer: &str) -> Result<Vec<ServerKeys>, ServerKeysError> {
    let notary_key = key("notary");
    let find = |id: &str| (id == "ed25519:notary").then(|| notary_key.public_key());
    read_notary_answer(answer, peer(), notary(), find, now(), &BlockedKeys::default())
}

#[test]
fn ky_05_a_notary_signs_what_it_returns() {
    let a = key("a");
    let document = read(&signed(json!({ "verify_keys": in_use(&[&a]) }), &[&a])).unwrap();
    let answer = notary_answer([document.document.as_str(), "garbage"], notary(), &key("notary"));
    let value: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(value["server_keys"].as_array().unwrap().len(), 1);
    let signatures = &value["server_keys"][0]["signatures"];
    assert!(signatures["notary.example"]["ed25519:notary"].is_string());
    assert!(signatures["peer.example"]["ed25519:a"].is_string());
    let read = ask_notary(&answer).unwrap();
    assert_eq!(read[0].keys, document.keys);

    assert_eq!(notary_answer([], notary(), &key("notary")), r#"{"server_keys":[]}"#);
    let own = own_server_keys(peer(), &[&a], &[], now());
    let twice = notary_answer([own.as_str()], peer(), &key("notary"));
    let value: Value = serde_json::from_str(&twice).unwrap();
    let signatures = value["server_keys"][0]["signatures"]["peer.example"].as_object().unwrap();
    assert_eq!(signatures.len(), 2, "our own signature stays beside the notary's");
}

#[test]
fn ky_05_what_no_notary_or_a_lying_one_signed_is_not_believed() {
    let a = key("a");
    let document = signed(json!({ "verify_keys": in_use(&[&a]) }), &[&a]);
    let unsigned = format!(r#"{{"server_keys":[{document}]}}"#);
    assert_eq!(ask_notary(&unsigned), Err(ServerKeysError::NotByNotary(notary().to_owned())));
    let other = notary_answer([document.as_str()], notary(), &key("other"));
    assert_eq!(ask_notary(&other), Err(ServerKeysError::NotByNotary(notary().to_owned())));
    let impostor = SigningKey::new("notary", [1; 32]).unwrap();
    let forged = notary_answer([document.as_str()], notary(), &impostor);
    assert_eq!(ask_notary(&forged), Err(ServerKeysError::NotByNotary(notary().to_owned())));

    // A notary can't make up a document that its server hasn't signed.
    let made_up = signed(json!({ "verify_keys": in_use(&[&a]) }), &[]);
    let lie = notary_answer([made_up.as_str()], notary(), &key("notary"));
    assert_eq!(ask_notary(&lie), Err(ServerKeysError::NoKey));
    // Good documents are found among others.
    let both = notary_answer([made_up.as_str(), document.as_str()], notary(), &key("notary"));
    assert_eq!(ask_notary(&both).unwrap().len(), 1);
    assert!(ask_notary("{}").is_err());
    assert!(ask_notary(r#"{"server_keys":[]}"#).is_err());
}
