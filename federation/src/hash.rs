//! The two hashes of an event, and the id that follows from one of them.
//!
//! Over our own canonical form and without a size limit of its own: events that never leave this server may be larger
//! than those that do.
//!
//! Specification: [Signing events](https://spec.matrix.org/v1.19/server-server-api/#signing-events).

use ruma::{
    IdParseError, OwnedEventId,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
    serde::{
        Base64,
        base64::{Standard, UrlSafe},
    },
};
use sha2::{Digest, Sha256};

use crate::{json::Object, redaction::redact_event};

/// What neither signatures nor the reference hash cover.
const UNSIGNED: &[&str] = &["signatures", "unsigned"];

/// The content hash: of everything but `hashes`, `signatures` and `unsigned`.
pub(crate) fn content_hash(event: &Object<'_>) -> [u8; 32] {
    let mut text = String::new();
    event.write_without(&["hashes", "signatures", "unsigned"], &mut text);
    sha256(&text)
}

/// The text that an event's signatures and its reference hash cover: redacted, without `signatures` and `unsigned`.
pub(crate) fn signed_text(event: &Object<'_>, kind: &str, rules: &RoomVersionRules) -> String {
    let mut redacted = event.clone();
    redact_event(&mut redacted, kind, &rules.redaction);
    let mut text = String::new();
    redacted.write_without(UNSIGNED, &mut text);
    text
}

pub(crate) fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// A hash as it stands inside events: unpadded base64 of the standard alphabet.
pub(crate) fn hash_text(hash: [u8; 32]) -> String {
    Base64::<Standard, _>::new(hash).encode()
}

/// Whether `text` is `hash`, in any base64 that servers are known to write.
pub(crate) fn is_hash(text: &str, hash: [u8; 32]) -> bool {
    Base64::<Standard>::parse(text).is_ok_and(|parsed| parsed.as_bytes() == hash)
}

/// The id of an event of room version 3 or later: its reference hash, in the version's alphabet.
pub(crate) fn event_id(
    reference_hash: [u8; 32],
    rules: &RoomVersionRules,
) -> Result<OwnedEventId, IdParseError> {
    let hash = match rules.event_id_format {
        EventIdFormatVersion::V1 | EventIdFormatVersion::V2 => hash_text(reference_hash),
        _ => Base64::<UrlSafe, _>::new(reference_hash).encode(),
    };
    OwnedEventId::try_from(format!("${hash}"))
}
