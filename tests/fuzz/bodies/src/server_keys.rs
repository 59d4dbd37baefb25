//! Documents of keys: what strangers publish, and what they publish of whoever has signed it.

use hearth_federation::{
    BlockedKeys, KnownKeys, MAX_KEYS, MAX_VALIDITY, Purpose, ServerKeys, SigningKey, notary_answer,
    read_notary_answer,
};
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, MilliSecondsSinceUnixEpoch, ServerName, UInt, server_name,
};

fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(UInt::new_saturating(1_700_000_000_000))
}

fn server() -> &'static ServerName {
    server_name!("a.example")
}

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let key = SigningKey::new("1", [3; 32]).expect("it is a key");
    if let Ok(read) = read(text) {
        believed(text, &read);
    }
    let nobody = read_notary_answer(
        text,
        server(),
        server_name!("n.example"),
        |_| None,
        now(),
        &BlockedKeys::default(),
    );
    assert!(nobody.is_err(), "no notary has signed it");

    // The same as a document that its server has signed.
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let Ok(CanonicalJsonValue::Object(mut object)) = value.try_into() else { return };
    object.remove("signatures");
    object.remove("unsigned");
    object.insert("server_name".to_owned(), server().to_string().into());
    let keys = object.entry("verify_keys".to_owned()).or_insert_with(|| CanonicalJsonObject::new().into());
    let CanonicalJsonValue::Object(keys) = keys else { return };
    let entry = CanonicalJsonObject::from_iter([("key".to_owned(), key.public_key_text().into())]);
    keys.insert("ed25519:1".to_owned(), entry.into());
    key.sign_json(server(), &mut object).expect("it is an object");
    let text = CanonicalJsonValue::Object(object).to_string();
    let Ok(read) = read(&text) else { return };
    assert!(read.keys["ed25519:1"].bytes() == key.public_key());
    believed(&text, &read);

    // By way of a notary it is the same.
    let notary = SigningKey::new("n", [4; 32]).expect("it is a key");
    let name = server_name!("n.example");
    let answer = notary_answer([text.as_str()], name, &notary);
    let of_notary = |id: &str| (id == "ed25519:n").then(|| notary.public_key());
    let given = read_notary_answer(&answer, server(), name, of_notary, now(), &BlockedKeys::default());
    let given = given.expect("it is signed by both");
    assert_eq!((&given[0].keys, given[0].valid_until), (&read.keys, read.valid_until));

    let known = KnownKeys::new(read, now());
    let stored = serde_json::to_string(&known).expect("it has a text");
    let again: KnownKeys = serde_json::from_str(&stored).expect("it was just written");
    assert_eq!(again, known);
}

fn read(text: &str) -> Result<ServerKeys, hearth_federation::ServerKeysError> {
    ServerKeys::read(text, server(), now(), &BlockedKeys::default())
}

/// What holds for every document that is believed.
fn believed(text: &str, read: &ServerKeys) {
    let latest = now().0 + UInt::try_from(MAX_VALIDITY.as_millis() as u64).expect("it is days");
    assert!(read.valid_until.0 <= latest, "nothing is believed for ever");
    assert!((1..=MAX_KEYS).contains(&read.keys.len()));
    let in_use = read.keys.values().filter(|key| !key.is_old()).count();
    assert!(in_use > 0, "somebody has signed it");
    for (id, key) in &read.keys {
        assert!(id.starts_with("ed25519:") && key.valid_until() <= read.valid_until);
        assert_eq!(key.serves(Purpose::Request, now()), !key.is_old() && now() <= key.valid_until());
    }
    let again = ServerKeys::read(&read.document, server(), now(), &BlockedKeys::default());
    assert_eq!(again.as_ref(), Ok(read), "{text}");
}
