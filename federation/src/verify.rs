//! The checks of an event from another server that need nothing but the event and public keys.
//!
//! Every such event goes through here, by whatever endpoint it came: [`Received::parse`] checks its form and computes its
//! id, [`Received::verify`] its signatures and content hash. It fetches no keys; it says which it needs.
//!
//! Specification: [Checks performed on receipt of a
//! PDU](https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu), steps 1 to 3.

use std::collections::BTreeSet;

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId,
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use crate::{
    hash::{self, content_hash, is_hash, sha256, signed_text},
    json::{self, JsonError, Object, Value},
    limits::{MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS},
    pdu::{Pdu, PduError},
    redaction::redact_event,
    signature::is_signature,
    version::{RulesExt, UnsupportedVersion, rules},
};

/// Bytes of an event as it came, with its `unsigned` and its spaces, past which it isn't even parsed.
pub const MAX_RECEIVED_BYTES: usize = 16 * MAX_PDU_BYTES;

/// Why an event is dropped. That is for this event alone, never for what came with it.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The text isn't JSON, or (versions 6 and later) not JSON that an event can hold.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The event, canonical, is over the limit.
    #[error("the event is {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Of the canonical event, or of the text where that was too much to parse.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
    /// A field is missing, of the wrong type, or too long.
    #[error("`{field}` {problem}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What is wrong, as the end of a sentence.
        problem: &'static str,
    },
    /// The fields don't make an event.
    #[error(transparent)]
    Pdu(#[from] PduError),
    /// We don't know the room's version.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
    /// A server that has to sign the event hasn't.
    #[error("no signature of {0}")]
    Unsigned(OwnedServerName),
    /// It has, by no key that we could use: it may hold once that can be had.
    #[error("no signature by a known key of {0}")]
    UnknownKey(OwnedServerName),
    /// A signature by a known key is wrong.
    #[error("wrong signature by {key_id} of {server}")]
    BadSignature {
        /// Whose.
        server: OwnedServerName,
        /// By which key.
        key_id: String,
    },
}

/// How many other events an event may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum References {
    /// At most 20 `prev_events` and 10 `auth_events`.
    Limited,
    /// Any: answers to `/backfill` hold events from before there was a limit (EV-03).
    Unlimited,
}

/// A verified event.
#[derive(Debug, Clone)]
pub enum Verified {
    /// It is what its author wrote.
    Intact(Pdu),
    /// Its content hash is wrong, so only what a redaction keeps is its author's (SG-07). This is that.
    Redacted(Pdu),
}

/// An event of the right form, not yet verified: nothing in it is to be believed.
#[derive(Debug, Clone)]
pub struct Received<'a> {
    event: Object<'a>,
    kind: String,
    rules: RoomVersionRules,
    event_id: OwnedEventId,
    /// All of it, canonical.
    json: String,
    /// What signatures cover.
    signed: String,
    signers: BTreeSet<OwnedServerName>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
}

impl<'a> Received<'a> {
    /// Parse an event, check its form against the room's version, and compute its id.
    ///
    /// `unsigned` is dropped, whatever is in it. Other keys that we don't know stay: they are hashed.
    pub fn parse(
        text: &'a str,
        version: &RoomVersionId,
        references: References,
    ) -> Result<Self, VerifyError> {
        let rules = rules(version)?;
        if text.len() > MAX_RECEIVED_BYTES {
            return Err(VerifyError::TooLarge { size: text.len(), limit: MAX_RECEIVED_BYTES });
        }
        let mut event = json::parse_object(text)?;
        event.remove("unsigned");
        if rules.authorization.strict_canonical_json {
            event.check_integers()?;
        }
        let json = event.to_canonical();
        if json.len() > MAX_PDU_BYTES {
            return Err(VerifyError::TooLarge { size: json.len(), limit: MAX_PDU_BYTES });
        }
        check_form(&event, &rules, references)?;

        let kind = string(&event, "type")?.to_owned();
        let signers = signers(&event, &kind, &rules)?;
        let origin_server_ts = event
            .get("origin_server_ts")
            .and_then(Value::as_integer)
            .and_then(|time| ruma::UInt::try_from(time).ok())
            .map(MilliSecondsSinceUnixEpoch)
            .ok_or(VerifyError::Field { field: "origin_server_ts", problem: "is not a time" })?;
        let signed = signed_text(&event, &kind, &rules);
        let event_id = if rules.explicit_ids() {
            OwnedEventId::try_from(string(&event, "event_id")?)
        } else {
            hash::event_id(sha256(&signed), &rules)
        }
        .map_err(|_| VerifyError::Field { field: "event_id", problem: "is not an event id" })?;
        Ok(Self { event, kind, rules, event_id, json, signed, signers, origin_server_ts })
    }

    /// Its id. From version 3 on it is of this event and no other; before that it is what the event says.
    pub fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// Who it says that it is of.
    pub fn sender(&self) -> Option<&UserId> {
        self.event.get("sender").and_then(Value::as_str).and_then(|id| <&UserId>::try_from(id).ok())
    }

    pub(crate) fn event(&self) -> &Object<'a> {
        &self.event
    }

    /// What signatures cover.
    pub(crate) fn signed(&self) -> &str {
        &self.signed
    }

    /// The room it says it is in; `None` for a create event of version 12.
    pub fn room_id(&self) -> Option<&RoomId> {
        self.event.get("room_id").and_then(Value::as_str).and_then(|id| <&RoomId>::try_from(id).ok())
    }

    /// Whose signatures it needs: RV-07, AR-05, SG-09.
    pub fn signers(&self) -> impl Iterator<Item = &ServerName> {
        self.signers.iter().map(|server| &**server)
    }

    /// The keys by which a server has signed it, for somebody to fetch. They may be many or nonsense.
    pub fn key_ids(&self, server: &ServerName) -> impl Iterator<Item = &str> {
        signatures_of(&self.event, server).into_iter().flat_map(Object::iter).map(|(key_id, _)| key_id)
    }

    /// The time at which the keys must be valid; `None` where the room version ignores that (RV-10).
    pub fn keys_valid_at(&self) -> Option<MilliSecondsSinceUnixEpoch> {
        self.rules.enforce_key_validity.then_some(self.origin_server_ts)
    }

    /// Verify its signatures, then its content hash.
    ///
    /// `public_key` finds a server's key by its id (`ed25519:…`), if it is known and valid at
    /// [`Received::keys_valid_at`]. Signatures by other keys are skipped (SG-08); of the known ones each must be right, and
    /// each server in [`Received::signers`] must have at least one.
    pub fn verify(
        self,
        public_key: impl Fn(&ServerName, &str) -> Option<[u8; 32]>,
    ) -> Result<Verified, VerifyError> {
        for server in &self.signers {
            self.verify_signatures_of(server, &public_key)?;
        }
        let claimed =
            self.event.get("hashes").and_then(Value::as_object).and_then(|hashes| hashes.get("sha256"));
        let intact = claimed
            .and_then(Value::as_str)
            .is_some_and(|claimed| is_hash(claimed, content_hash(&self.event)));
        let Self { mut event, kind, rules, event_id, mut json, .. } = self;
        if !intact {
            redact_event(&mut event, &kind, &rules.redaction);
            json = event.to_canonical();
        }
        let json = RawValue::from_string(json).map_err(PduError::from)?;
        let pdu = Pdu::with_rules(event_id, json, &rules)?;
        Ok(if intact { Verified::Intact(pdu) } else { Verified::Redacted(pdu) })
    }

    fn verify_signatures_of(
        &self,
        server: &OwnedServerName,
        public_key: impl Fn(&ServerName, &str) -> Option<[u8; 32]>,
    ) -> Result<(), VerifyError> {
        let (mut signed, mut verified) = (false, false);
        for (key_id, signature) in signatures_of(&self.event, server).into_iter().flat_map(Object::iter) {
            if !key_id.starts_with("ed25519:") {
                continue;
            }
            signed = true;
            let Some(key) = public_key(server, key_id) else { continue };
            let right =
                signature.as_str().is_some_and(|signature| is_signature(signature, &key, &self.signed));
            if !right {
                return Err(VerifyError::BadSignature { server: server.clone(), key_id: key_id.to_owned() });
            }
            verified = true;
        }
        match (signed, verified) {
            (_, true) => Ok(()),
            (true, false) => Err(VerifyError::UnknownKey(server.clone())),
            (false, false) => Err(VerifyError::Unsigned(server.clone())),
        }
    }
}

fn signatures_of<'e>(event: &'e Object<'_>, server: &ServerName) -> Option<&'e Object<'e>> {
    event.get("signatures")?.as_object()?.get(server.as_str())?.as_object()
}

/// The form of an event: EV-02, EV-03, EV-06.
fn check_form(
    event: &Object<'_>,
    rules: &RoomVersionRules,
    references: References,
) -> Result<(), VerifyError> {
    let kind = string(event, "type")?;
    string(event, "sender")?;
    if event.get("state_key").is_some() {
        string(event, "state_key")?;
    }
    // A version 12 create event that has one is rejected by the authorisation rules, hence of the right form.
    if event.get("room_id").is_some() || !(rules.room_id_is_create_id() && kind == "m.room.create") {
        string(event, "room_id")?;
    }
    if rules.explicit_ids() {
        string(event, "event_id")?;
    }
    for field in ["content", "hashes", "signatures"] {
        if event.get(field).and_then(Value::as_object).is_none() {
            return Err(VerifyError::Field { field, problem: "is not an object" });
        }
    }
    if !matches!(event.get("depth").and_then(Value::as_integer), Some(0..)) {
        return Err(VerifyError::Field { field: "depth", problem: "is not a whole number of at least 0" });
    }
    for (field, limit) in [("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)] {
        let ids = event
            .get(field)
            .and_then(Value::as_array)
            .ok_or(VerifyError::Field { field, problem: "is not an array" })?;
        if references == References::Limited && ids.len() > limit {
            return Err(VerifyError::Field { field, problem: "names too many events" });
        }
        for id in ids {
            check_reference(field, id, rules)?;
        }
    }
    check_no_create_in_auth_events(event, rules)
}

/// RV-06: an id, or in versions 1 and 2 a pair of id and hashes.
fn check_reference(
    field: &'static str,
    reference: &Value<'_>,
    rules: &RoomVersionRules,
) -> Result<(), VerifyError> {
    let id = if rules.explicit_ids() {
        match reference.as_array() {
            Some([id, Value::Object(_)]) => id.as_str(),
            _ => None,
        }
    } else {
        reference.as_str()
    };
    let id =
        id.ok_or(VerifyError::Field { field, problem: "names an event in a form the room version hasn't" })?;
    if id.len() > MAX_FIELD_BYTES {
        return Err(VerifyError::Field { field, problem: "holds an id longer than 255 bytes" });
    }
    Ok(())
}

/// RV-27: from version 12 on the room id names the create event already.
fn check_no_create_in_auth_events(event: &Object<'_>, rules: &RoomVersionRules) -> Result<(), VerifyError> {
    if !rules.room_id_is_create_id() {
        return Ok(());
    }
    let room = event.get("room_id").and_then(Value::as_str).and_then(|id| id.strip_prefix('!'));
    let auth_events = event.get("auth_events").and_then(Value::as_array).unwrap_or_default();
    let names_create = |id: &Value<'_>| id.as_str().and_then(|id| id.strip_prefix('$')) == room;
    if room.is_some() && auth_events.iter().any(names_create) {
        return Err(VerifyError::Field { field: "auth_events", problem: "names the create event" });
    }
    Ok(())
}

/// A required string of at most 255 bytes.
fn string<'e>(event: &'e Object<'_>, field: &'static str) -> Result<&'e str, VerifyError> {
    let value = event
        .get(field)
        .and_then(Value::as_str)
        .ok_or(VerifyError::Field { field, problem: "is not a string" })?;
    if value.len() > MAX_FIELD_BYTES {
        return Err(VerifyError::Field { field, problem: "is longer than 255 bytes" });
    }
    // It would be cut short in databases and in clients, and then be a different string for different people.
    if value.contains('\0') {
        return Err(VerifyError::Field { field, problem: "contains a NUL character" });
    }
    Ok(value)
}

/// The servers whose signature the room version asks for.
fn signers(
    event: &Object<'_>,
    kind: &str,
    rules: &RoomVersionRules,
) -> Result<BTreeSet<OwnedServerName>, VerifyError> {
    let server_of = |field, user: &str| {
        <&UserId>::try_from(user)
            .map(|user| user.server_name().to_owned())
            .map_err(|_| VerifyError::Field { field, problem: "is not a user id" })
    };
    let content = event.get("content").and_then(Value::as_object);
    let member = content.filter(|_| kind == "m.room.member");
    let mut signers = BTreeSet::new();

    let sender = server_of("sender", string(event, "sender")?)?;
    // SG-09: somebody else may have made it from the invitation that the sender signed.
    let third_party_invite = member.is_some_and(|content| {
        content.get("membership").and_then(Value::as_str) == Some("invite")
            && content.get("third_party_invite").is_some_and(|invite| invite.as_object().is_some())
    });
    if !third_party_invite {
        signers.insert(sender);
    }
    if rules.signatures.check_event_id_server {
        const NOT_AN_ID: VerifyError =
            VerifyError::Field { field: "event_id", problem: "is not of a server" };
        let id = <&ruma::EventId>::try_from(string(event, "event_id")?).map_err(|_| NOT_AN_ID)?;
        signers.insert(id.server_name().ok_or(NOT_AN_ID)?.to_owned());
    }
    // The rules' letter has it of every membership, but others ask for it where it counts: who left with the words that
    // they joined with has left everywhere.
    if rules.signatures.check_join_authorised_via_users_server
        && let Some(content) = member
        && content.get("membership").and_then(Value::as_str) == Some("join")
        && let Some(user) = content.get("join_authorised_via_users_server")
    {
        let field = "join_authorised_via_users_server";
        signers.insert(server_of(field, user.as_str().unwrap_or_default())?);
    }
    Ok(signers)
}
