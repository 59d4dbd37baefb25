//! What the tests share: a server with a key, and every room version.

use hearth_federation::{
    Draft, Limits, Pdu, Position, Received, References, SigningKey, Verified, VerifyError,
};
use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, RoomVersionId, ServerName, UInt, owned_room_id, owned_user_id,
    server_name,
};
use serde_json::{Value, json, value::to_raw_value};

/// The seed of the specification's test vectors.
pub(crate) const SEED: &str = "ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1";

pub(crate) fn key() -> SigningKey {
    SigningKey::from_text(SEED).unwrap()
}

pub(crate) fn server() -> &'static ServerName {
    server_name!("domain")
}

/// Versions 1 to 12.
pub(crate) fn versions() -> impl Iterator<Item = RoomVersionId> {
    (1..=12).map(|number| RoomVersionId::try_from(number.to_string()).unwrap())
}

/// The number of the version, or of the one that it is built on.
pub(crate) fn number(version: &RoomVersionId) -> u32 {
    version.as_str().rsplit('.').next().unwrap().parse().unwrap()
}

pub(crate) fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::new_saturating(1_700_000_000_000))
}

/// Ids of events that some version could have made; versions 1 and 2 get hashes for them too.
pub(crate) fn position(version: &RoomVersionId, depth: i64) -> Position {
    let id = |letter: &str| {
        let hash = letter.repeat(43);
        let domain = if number(version) < 3 { ":domain" } else { "" };
        OwnedEventId::try_from(format!("${hash}{domain}")).unwrap()
    };
    let (prev_events, auth_events) = (vec![id("p"), id("q")], vec![id("a"), id("b")]);
    let reference_hashes = if number(version) < 3 {
        prev_events.iter().chain(&auth_events).map(|id| (id.clone(), "h".repeat(43))).collect()
    } else {
        Vec::new()
    };
    let origin_server_ts = now();
    Position { reference_hashes, ..Position::new(prev_events, auth_events, depth, origin_server_ts) }
}

pub(crate) fn draft(kind: &str, state_key: Option<&str>, content: &Value) -> Draft {
    Draft {
        room_id: Some(owned_room_id!("!room:domain")),
        sender: owned_user_id!("@alice:domain"),
        kind: kind.into(),
        state_key: state_key.map(Into::into),
        content: to_raw_value(content).unwrap(),
        redacts: None,
    }
}

pub(crate) fn message() -> Draft {
    draft("m.room.message", None, &json!({ "msgtype": "m.text", "body": "hello \u{1f525}\n\"world\"\u{7}" }))
}

pub(crate) fn build(draft: Draft, version: &RoomVersionId) -> Pdu {
    draft.build(version, position(version, 7), server(), &key(), Limits::FEDERATED).unwrap()
}

/// The create event that the version wants.
pub(crate) fn create(version: &RoomVersionId) -> Pdu {
    create_with(version, &json!({}))
}

/// The create event that the version wants, with more or other content; `null` takes a key out.
pub(crate) fn create_with(version: &RoomVersionId, other: &Value) -> Pdu {
    let mut content = json!({ "room_version": version.as_str(), "m.federate": true });
    if number(version) < 11 {
        content["creator"] = json!("@alice:domain");
    }
    for (key, value) in other.as_object().unwrap() {
        if value.is_null() {
            content.as_object_mut().unwrap().remove(key);
        } else {
            content[key] = value.clone();
        }
    }
    let mut draft = draft("m.room.create", Some(""), &content);
    if number(version) >= 12 {
        draft.room_id = None;
    }
    let position = Position::new(Vec::new(), Vec::new(), 1, now());
    draft.build(version, position, server(), &key(), Limits::FEDERATED).unwrap()
}

/// Verify with the one server's key.
pub(crate) fn verify(text: &str, version: &RoomVersionId) -> Result<Verified, VerifyError> {
    Received::parse(text, version, References::Limited)?
        .verify(|name, key_id| (name == server() && key_id == "ed25519:1").then(|| key().public_key()))
}

pub(crate) fn intact(text: &str, version: &RoomVersionId) -> Pdu {
    match verify(text, version).unwrap() {
        Verified::Intact(pdu) => pdu,
        Verified::Redacted(pdu) => panic!("{version}: content hash of {pdu:?} is wrong"),
    }
}

pub(crate) fn value(pdu: &Pdu) -> Value {
    serde_json::from_str(pdu.json.get()).unwrap()
}
