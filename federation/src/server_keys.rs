//! The documents in which servers publish their keys: our own made, a peer's checked, either signed by a notary.
//!
//! Owns how much of a document is believed. It fetches and stores nothing ([`KeyRing`](crate::KeyRing) does).
//!
//! Specification: [Retrieving server keys](https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys)
//! (KY-01 to KY-07).

use std::{collections::BTreeMap, time::Duration};

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UInt,
    serde::{Base64, base64::Standard},
};
use serde::{Deserialize, Serialize};

use crate::{
    json::{self, JsonError, Object, Value, write_string},
    signature::is_signature,
    signing_key::SigningKey,
};

/// Bytes of a document past which it isn't parsed.
pub const MAX_KEYS_BYTES: usize = 64 * 1024;
/// Bytes of a notary's answer past which it isn't parsed.
pub const MAX_NOTARY_BYTES: usize = 1024 * 1024;
/// Keys of a server that are read and remembered.
pub const MAX_KEYS: usize = 64;
/// Documents in a notary's answer that are read.
const MAX_DOCUMENTS: usize = 100;
/// How long a document is believed at most, whatever it says (KY-03).
pub const MAX_VALIDITY: Duration = Duration::from_hours(7 * 24);
/// How long our own document is valid from when it is made. It has to be made again in time: see [`OWN_KEYS_REMADE`].
pub const OWN_KEYS_VALIDITY: Duration = Duration::from_hours(24);
/// The age at which our own document is made again, so that none is served that ends within an hour (KY-02).
pub const OWN_KEYS_REMADE: Duration = Duration::from_hours(12);

/// Public keys whose secret half is public, so that a signature by them says nothing.
const LEAKED: &[&str] = &[
    // The specification's examples, whose seed stands beside them.
    "XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI",
];

/// A public key as it is remembered, for one key id of one server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey {
    #[serde(with = "key_text")]
    key: [u8; 32],
    /// Until when events may have been signed by it.
    valid_until: MilliSecondsSinceUnixEpoch,
    /// It isn't in use any more: it verifies events, never requests (KY-07).
    old: bool,
}

impl PublicKey {
    /// A key from its 32 bytes.
    pub fn new(key: [u8; 32], valid_until: MilliSecondsSinceUnixEpoch, old: bool) -> Self {
        Self { key, valid_until, old }
    }

    /// Its 32 bytes.
    pub fn bytes(&self) -> [u8; 32] {
        self.key
    }

    /// Until when what it signed is believed: for an old key, when it was retired.
    pub fn valid_until(&self) -> MilliSecondsSinceUnixEpoch {
        self.valid_until
    }

    /// Whether it is one that its server doesn't use any more.
    pub fn is_old(&self) -> bool {
        self.old
    }

    /// Whether it may verify what was signed for `purpose`, at the time `now`.
    pub fn serves(&self, purpose: Purpose, now: MilliSecondsSinceUnixEpoch) -> bool {
        match purpose {
            Purpose::Request => !self.old && now <= self.valid_until,
            Purpose::Event(Some(sent)) => sent <= self.valid_until,
            Purpose::Event(None) => true,
        }
    }
}

/// A key's text form, unpadded base64.
mod key_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use super::{Base64, Standard};

    pub(super) fn serialize<S: Serializer>(key: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Base64::<Standard, _>::new(key).encode())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(deserializer: D) -> Result<[u8; 32], D::Error> {
        let key = Base64::<Standard>::deserialize(deserializer)?;
        key.as_bytes().try_into().map_err(|_| D::Error::custom("a key is 32 bytes"))
    }
}

/// What a key is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A request that is here now.
    Request,
    /// An event, by when it says that it was sent; `None` where its room's version doesn't ask for that (RV-10).
    Event(Option<MilliSecondsSinceUnixEpoch>),
}

/// A document that was checked: whose it is, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerKeys {
    /// Whose keys they are.
    pub server: OwnedServerName,
    /// The keys by their ids, `ed25519:…`, old ones too.
    pub keys: BTreeMap<String, PublicKey>,
    /// Until when it is believed: what it says, but at most [`MAX_VALIDITY`] from when it was read.
    pub valid_until: MilliSecondsSinceUnixEpoch,
    /// All of it, canonical, with its server's signatures: what a notary signs.
    pub document: String,
}

/// Why a document is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerKeysError {
    /// It is over the limit.
    #[error("the keys are {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Bytes there are.
        size: usize,
        /// Bytes that are allowed.
        limit: usize,
    },
    /// It isn't JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field is missing, or not of its form.
    #[error("`{0}` is missing or invalid")]
    Field(&'static str),
    /// They are the keys of another server.
    #[error("the keys are of `{0}`")]
    OtherServer(String),
    /// There are more than [`MAX_KEYS`].
    #[error("there are more than {MAX_KEYS} keys")]
    TooManyKeys,
    /// The signature by a key that it lists as in use is wrong.
    #[error("the keys' signature by `{0}` is wrong")]
    BadSignature(String),
    /// It isn't signed by any key that it lists as in use and that we could believe.
    #[error("the keys aren't signed by any of them that can be believed")]
    NoKey,
    /// The notary hasn't signed it.
    #[error("the notary {0} hasn't signed the keys")]
    NotByNotary(OwnedServerName),
}

/// Keys that are never believed, whoever publishes them: those known to have leaked, and the operator's own list.
#[derive(Debug, Clone, Default)]
pub struct BlockedKeys(Vec<[u8; 32]>);

impl BlockedKeys {
    /// The operator's list, in addition to the known ones.
    pub fn new(keys: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self(keys.into_iter().collect())
    }

    /// Whether a key is never believed.
    pub fn contains(&self, key: &[u8; 32]) -> bool {
        let known = || LEAKED.iter().filter_map(|leaked| Base64::<Standard>::parse(leaked).ok());
        self.0.contains(key) || known().any(|leaked| leaked.as_bytes() == key)
    }
}

impl ServerKeys {
    /// Check a document that says it has the keys of `server`: its form and size, its name, and its
    /// signatures. Keys in use that haven't signed it are left out.
    ///
    /// That shows who made it only if it came from the server itself, or from a notary that is trusted
    /// ([`read_notary_answer`]).
    pub fn read(
        document: &str,
        server: &ServerName,
        now: MilliSecondsSinceUnixEpoch,
        blocked: &BlockedKeys,
    ) -> Result<Self, ServerKeysError> {
        if document.len() > MAX_KEYS_BYTES {
            return Err(ServerKeysError::TooLarge { size: document.len(), limit: MAX_KEYS_BYTES });
        }
        Self::check(&json::parse_object(document)?, server, now, blocked)
    }

    fn check(
        object: &Object<'_>,
        server: &ServerName,
        now: MilliSecondsSinceUnixEpoch,
        blocked: &BlockedKeys,
    ) -> Result<Self, ServerKeysError> {
        let name = object.get("server_name").and_then(Value::as_str);
        let name = name.ok_or(ServerKeysError::Field("server_name"))?;
        if name != server {
            return Err(ServerKeysError::OtherServer(name.chars().take(255).collect()));
        }
        let claimed = time(object, "valid_until_ts")?;
        let valid_until = claimed.min(later(now, MAX_VALIDITY));
        let current = entries(object, "verify_keys", true)?;
        let old = entries(object, "old_verify_keys", false)?;
        if current.len() + old.len() > MAX_KEYS {
            return Err(ServerKeysError::TooManyKeys);
        }
        let signatures = object.get("signatures").and_then(Value::as_object);
        let signatures = signatures.and_then(|all| all.get(server.as_str())).and_then(Value::as_object);
        let mut signed = String::new();
        object.write_without(&["signatures", "unsigned"], &mut signed);

        let mut keys = BTreeMap::new();
        for (id, key) in old {
            // Whether it signed the document doesn't matter: who made the document says that the key was theirs.
            let expired = key.as_object().map(|key| time(key, "expired_ts"));
            let expired = expired.ok_or(ServerKeysError::Field("old_verify_keys"))??;
            // A key retired in the future would outlive the limit that holds for keys in use.
            let key = PublicKey::new(key_bytes(key, "old_verify_keys")?, expired.min(valid_until), true);
            keys.insert(id, key);
        }
        for (id, key) in current {
            let bytes = key_bytes(key, "verify_keys")?;
            // Whoever lists a key without having its secret half may name anybody's.
            let Some(signature) = signatures.and_then(|all| all.get(&id)) else { continue };
            if !signature.as_str().is_some_and(|signature| is_signature(signature, &bytes, &signed)) {
                return Err(ServerKeysError::BadSignature(id));
            }
            keys.insert(id, PublicKey::new(bytes, valid_until, false));
        }
        keys.retain(|_, key| !blocked.contains(&key.bytes()));
        if keys.values().all(PublicKey::is_old) {
            return Err(ServerKeysError::NoKey);
        }
        Ok(Self { server: server.to_owned(), keys, valid_until, document: object.to_canonical() })
    }
}

/// What is known of a server's keys, from all that was ever read: what is stored of it, and kept in memory.
///
/// It has a text form for a store, by serde. A key that its server doesn't publish any more stays, as an old one, because
/// events that it signed stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownKeys {
    /// By their ids.
    pub keys: BTreeMap<String, PublicKey>,
    /// Until when the last document is believed.
    pub valid_until: MilliSecondsSinceUnixEpoch,
    /// When it was read.
    pub read_at: MilliSecondsSinceUnixEpoch,
    /// The last document, for us to sign as a notary.
    pub document: String,
}

impl KnownKeys {
    /// From the first document.
    pub fn new(read: ServerKeys, now: MilliSecondsSinceUnixEpoch) -> Self {
        let ServerKeys { keys, valid_until, document, .. } = read;
        Self { keys, valid_until, read_at: now, document }
    }

    /// Bring in a document that the server itself has just given. It is its last word, whatever was known and for how long
    /// that was to hold: the server may have been set up anew since.
    #[must_use]
    pub fn updated(known: Option<Self>, read: ServerKeys, now: MilliSecondsSinceUnixEpoch) -> Self {
        let read = Self::new(read, now);
        match known {
            Some(known) => read.with_old_keys_of(known, now),
            None => read,
        }
    }

    /// Bring in a document that a notary has given, which may be older than what is known: the one that holds for longer
    /// counts, unless the server has `just_spoken` itself. Then it adds old keys alone.
    #[must_use]
    pub fn vouched(
        known: Option<Self>,
        read: ServerKeys,
        now: MilliSecondsSinceUnixEpoch,
        just_spoken: bool,
    ) -> Self {
        let read = Self::new(read, now);
        match known {
            Some(known) if just_spoken || read.valid_until < known.valid_until => {
                known.with_old_keys_of(read, now)
            }
            Some(known) => read.with_old_keys_of(known, now),
            None => read,
        }
    }

    /// With the other keys of an earlier document, as old ones.
    fn with_old_keys_of(mut self, other: Self, now: MilliSecondsSinceUnixEpoch) -> Self {
        let mut gone: Vec<_> = other.keys.into_iter().filter(|(id, _)| !self.keys.contains_key(id)).collect();
        // The latest, as far as there is room.
        gone.sort_by_key(|(_, key)| std::cmp::Reverse(key.valid_until));
        gone.truncate(MAX_KEYS.saturating_sub(self.keys.len()));
        for (id, key) in gone {
            self.keys.insert(id, PublicKey { old: true, valid_until: key.valid_until.min(now), ..key });
        }
        self.read_at = now;
        self
    }

    /// The key with an id, if it serves the purpose.
    pub fn find(
        &self,
        key_id: &str,
        purpose: Purpose,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Option<&PublicKey> {
        self.keys.get(key_id).filter(|key| key.serves(purpose, now))
    }
}

/// A key that we used once, for [`own_server_keys`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OldKey {
    /// Its id, `ed25519:…`.
    pub key_id: String,
    /// The public half.
    pub public_key: [u8; 32],
    /// When we stopped using it.
    pub expired: MilliSecondsSinceUnixEpoch,
}

/// Our own document, signed by each key in use (KY-01): the answer to `/_matrix/key/v2/server`.
///
/// Valid for [`OWN_KEYS_VALIDITY`].
pub fn own_server_keys(
    server: &ServerName,
    keys: &[&SigningKey],
    old_keys: &[OldKey],
    now: MilliSecondsSinceUnixEpoch,
) -> String {
    let mut current = BTreeMap::new();
    for key in keys {
        current.insert(key.id().as_str(), format!(r#"{{"key":"{}"}}"#, key.public_key_text()));
    }
    let mut old = BTreeMap::new();
    for OldKey { key_id, public_key, expired } in old_keys {
        let key = Base64::<Standard, _>::new(public_key).encode();
        old.insert(key_id.as_str(), format!(r#"{{"expired_ts":{},"key":"{key}"}}"#, expired.get()));
    }
    // In the order of the keys, so that it is canonical.
    let mut text = String::from(r#"{"old_verify_keys":"#);
    write_entries(&mut text, &old);
    text.push_str(r#","server_name":"#);
    write_string(&mut text, server.as_str());
    let valid_until = later(now, OWN_KEYS_VALIDITY).get();
    let mut rest = format!(r#","valid_until_ts":{valid_until},"verify_keys":"#);
    write_entries(&mut rest, &current);
    rest.push('}');

    let signed = format!("{text}{rest}");
    let signatures: BTreeMap<_, _> =
        keys.iter().map(|key| (key.id().as_str(), format!("\"{}\"", key.sign(signed.as_bytes())))).collect();
    text.push_str(r#","signatures":{"#);
    write_string(&mut text, server.as_str());
    text.push(':');
    write_entries(&mut text, &signatures);
    text.push('}');
    text + &rest
}

fn write_entries(text: &mut String, entries: &BTreeMap<&str, String>) {
    text.push('{');
    for (index, (key, value)) in entries.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_string(text, key);
        text.push(':');
        text.push_str(value);
    }
    text.push('}');
}

/// A notary's answer, to `/_matrix/key/v2/query`: each document with our signature beside its server's (KY-05).
///
/// `documents` are those of [`ServerKeys`], [`KnownKeys`] and [`own_server_keys`]; what isn't JSON is left out.
pub fn notary_answer<'a>(
    documents: impl IntoIterator<Item = &'a str>,
    notary: &ServerName,
    key: &SigningKey,
) -> String {
    let mut answer = String::from(r#"{"server_keys":["#);
    let mut first = true;
    for document in documents {
        let Ok(mut object) = json::parse_object(document) else { continue };
        let mut signed = String::new();
        object.write_without(&["signatures", "unsigned"], &mut signed);
        let signature = key.sign(signed.as_bytes());
        let mut signatures = match object.remove("signatures") {
            Some(Value::Object(signatures)) => signatures,
            _ => Object::default(),
        };
        let mut ours = match signatures.remove(notary.as_str()) {
            Some(Value::Object(ours)) => ours,
            _ => Object::default(),
        };
        ours.insert(key.id().as_str(), Value::String(signature.into()));
        signatures.insert(notary.as_str(), Value::Object(ours));
        object.insert("signatures", Value::Object(signatures));
        if !std::mem::take(&mut first) {
            answer.push(',');
        }
        object.write(&mut answer);
    }
    answer.push_str("]}");
    answer
}

/// Check a notary's answer about one server. The keys of others in it are ignored, documents that don't hold are too.
///
/// `notary_key` finds the notary's own keys. Fails if none of the documents holds, with what is wrong with the last one.
pub fn read_notary_answer(
    answer: &str,
    server: &ServerName,
    notary: &ServerName,
    notary_key: impl Fn(&str) -> Option<[u8; 32]>,
    now: MilliSecondsSinceUnixEpoch,
    blocked: &BlockedKeys,
) -> Result<Vec<ServerKeys>, ServerKeysError> {
    if answer.len() > MAX_NOTARY_BYTES {
        return Err(ServerKeysError::TooLarge { size: answer.len(), limit: MAX_NOTARY_BYTES });
    }
    let answer = json::parse_object(answer)?;
    let documents = answer.get("server_keys").and_then(Value::as_array);
    let documents = documents.ok_or(ServerKeysError::Field("server_keys"))?;
    let mut found = Vec::new();
    let mut wrong = ServerKeysError::NoKey;
    for document in documents.iter().take(MAX_DOCUMENTS).filter_map(Value::as_object) {
        match by_notary(document, notary, &notary_key)
            .and_then(|()| ServerKeys::check(document, server, now, blocked))
        {
            Ok(keys) => found.push(keys),
            Err(error) => wrong = error,
        }
    }
    if found.is_empty() { Err(wrong) } else { Ok(found) }
}

fn by_notary(
    document: &Object<'_>,
    notary: &ServerName,
    notary_key: impl Fn(&str) -> Option<[u8; 32]>,
) -> Result<(), ServerKeysError> {
    let mut signed = String::new();
    document.write_without(&["signatures", "unsigned"], &mut signed);
    let signatures = document.get("signatures").and_then(Value::as_object);
    let signatures = signatures.and_then(|all| all.get(notary.as_str())).and_then(Value::as_object);
    let mut signatures = signatures.into_iter().flat_map(Object::iter).take(MAX_KEYS);
    signatures
        .any(|(id, signature)| {
            notary_key(id).is_some_and(|key| {
                signature.as_str().is_some_and(|signature| is_signature(signature, &key, &signed))
            })
        })
        .then_some(())
        .ok_or_else(|| ServerKeysError::NotByNotary(notary.to_owned()))
}

/// The ed25519 keys in a field; those of other algorithms are skipped.
fn entries<'o>(
    object: &'o Object<'o>,
    field: &'static str,
    required: bool,
) -> Result<Vec<(String, &'o Value<'o>)>, ServerKeysError> {
    let Some(value) = object.get(field) else {
        return if required { Err(ServerKeysError::Field(field)) } else { Ok(Vec::new()) };
    };
    let entries = value.as_object().ok_or(ServerKeysError::Field(field))?.iter();
    if entries.len() > MAX_KEYS {
        return Err(ServerKeysError::TooManyKeys);
    }
    let ours = entries.filter(|(id, _)| id.starts_with("ed25519:") && id.len() <= 255);
    Ok(ours.map(|(id, key)| (id.to_owned(), key)).collect())
}

fn key_bytes(entry: &Value<'_>, field: &'static str) -> Result<[u8; 32], ServerKeysError> {
    let key = entry.as_object().and_then(|entry| entry.get("key")).and_then(Value::as_str);
    key.and_then(|key| Base64::<Standard>::parse(key).ok())
        .and_then(|key| key.as_bytes().try_into().ok())
        .ok_or(ServerKeysError::Field(field))
}

fn time(object: &Object<'_>, field: &'static str) -> Result<MilliSecondsSinceUnixEpoch, ServerKeysError> {
    let time = object.get(field).and_then(Value::as_integer).and_then(|time| u64::try_from(time).ok());
    // Past what a time can be is as good as never.
    let time = time.ok_or(ServerKeysError::Field(field))?;
    Ok(MilliSecondsSinceUnixEpoch(UInt::new_saturating(time)))
}

pub(crate) fn later(time: MilliSecondsSinceUnixEpoch, by: Duration) -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch(time.0.saturating_add(UInt::new_saturating(by.as_millis() as u64)))
}
