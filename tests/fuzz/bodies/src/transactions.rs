//! Transactions of another server whose user is in a room here: JSON with `pdus` and `edus`, of which what isn't said of an
//! event is as it would be, and each is signed on the way.
//!
//! The server takes a transaction whole or refuses it, each event in it has a verdict, and the room can be read by those who
//! are in it afterwards.

use hearth_federation::SigningKey;
use http::{Method, StatusCode};
use ruma::{CanonicalJsonObject, CanonicalJsonValue, canonical_json::redact, signatures};
use serde_json::{Value, json};

use crate::world::{VERSION, World, guest, peer, within};

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    within(async |world| {
        let text = world.filled(text, |value| value.escape_default().to_string());
        let Ok(given) = serde_json::from_str::<Value>(&text) else { return true };
        send(world, &given).await;
        world.is_whole().await && world.is_readable_by(&world.bob).await
    });
}

async fn send(world: &World, given: &Value) {
    let pdus = given["pdus"].as_array().into_iter().flatten().take(50);
    let pdus: Vec<Value> = pdus.map(|event| signed(world, event)).collect();
    let transaction = json!({ "origin": peer(), "origin_server_ts": 1, "pdus": pdus, "edus": given["edus"] });
    // By what is in it, so that none is the same twice.
    let number = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos());
    let uri = format!("/_matrix/federation/v1/send/{number}");
    let Some(answer) = world.signed(Method::PUT, &uri, Some(&transaction)).await else { return };
    if answer.status == StatusCode::OK {
        assert!(answer.body["pdus"].is_object(), "{}", answer.body);
    }
}

/// An event with what it lacks, hashed and signed.
fn signed(world: &World, given: &Value) -> Value {
    let Some(given) = given.as_object() else { return given.clone() };
    let mut event = json!({
        "room_id": world.room, "sender": guest(), "type": "m.room.message", "content": {}, "depth": 100,
        "origin_server_ts": 1_700_000_000_000_u64, "prev_events": [world.cited.last()], "auth_events": world.cited,
        "hashes": {}, "signatures": {},
    });
    for (key, value) in given {
        event[key] = value.clone();
    }
    sign(&event, &world.key).unwrap_or(event)
}

fn sign(event: &Value, key: &SigningKey) -> Option<Value> {
    let Ok(CanonicalJsonValue::Object(mut object)) = CanonicalJsonValue::try_from(event.clone()) else {
        return None;
    };
    let unsigned: CanonicalJsonObject = object
        .iter()
        .filter(|(key, _)| *key != "hashes")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let hash = signatures::content_hash(&unsigned).ok()?;
    let hashes = CanonicalJsonObject::from_iter([("sha256".to_owned(), hash.encode().into())]);
    object.insert("hashes".to_owned(), hashes.into());
    let rules = VERSION.rules()?;
    let mut redacted = redact(object.clone(), &rules.redaction, None).ok()?;
    redacted.remove("signatures");
    key.sign_json(peer(), &mut redacted).ok()?;
    object.insert("signatures".to_owned(), redacted.remove("signatures")?);
    serde_json::to_value(object).ok()
}
