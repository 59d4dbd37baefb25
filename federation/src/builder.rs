//! Making this server's own events: hashed, signed, and within the limits.
//!
//! Each event is written once: its text, the text that is hashed and the text that is signed are the same pieces in
//! three arrangements, so only content is ever parsed and sorted.
//!
//! It never decides whether an event is allowed; see [`crate::auth`].
//!
//! Specification: [Adding hashes and signatures to outgoing
//! events](https://spec.matrix.org/v1.19/server-server-api/#adding-hashes-and-signatures-to-outgoing-events).

use ruma::{
    EventId, IdParseError, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId,
    ServerName,
    events::{StateEventType, TimelineEventType},
    room_version_rules::RoomVersionRules,
};
use serde_json::value::RawValue;

use crate::{
    auth::{Rejected, auth_types},
    hash::{self, hash_text, sha256},
    json::{self, JsonError, Value, write_string},
    limits::{Limits, MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_PREV_EVENTS},
    pdu::{Parts, Pdu, room_of_create},
    redaction::redact_content,
    signing_key::SigningKey,
    version::{RulesExt, UnsupportedVersion, rules},
};

/// An event to be: what its author decides.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Its room. `None` for the create event of a version 12 room, and only there.
    pub room_id: Option<OwnedRoomId>,
    /// Who sends it.
    pub sender: OwnedUserId,
    /// Its type.
    pub kind: TimelineEventType,
    /// Makes it a state event.
    pub state_key: Option<String>,
    /// Its content: any JSON object, as it came.
    pub content: Box<RawValue>,
    /// What a redaction redacts; put where the room version wants it. Only for `m.room.redaction`.
    pub redacts: Option<OwnedEventId>,
}

/// Where in its room an event goes: what the room's writer decides.
#[derive(Debug, Clone)]
pub struct Position {
    /// The forward extremities it follows, at most 20.
    pub prev_events: Vec<OwnedEventId>,
    /// The state that allows it, at most 10.
    pub auth_events: Vec<OwnedEventId>,
    /// One more than the deepest of `prev_events`; capped here to what the version allows.
    pub depth: i64,
    /// The server's clock.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// For versions 1 and 2 only, the [`Pdu::reference_hash`] of each event named above, empty where it isn't known; else no
    /// entries. Ids are what counts: servers give such pairs without hashes, too.
    pub reference_hashes: Vec<(OwnedEventId, String)>,
}

/// Why an event can't be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The finished event, in bytes, is over the limit of its room. The client gets `M_TOO_LARGE`.
    #[error("the event is {size} bytes, more than the {limit} that this room allows")]
    TooLarge {
        /// Of the finished event, signed.
        size: usize,
        /// Of this room.
        limit: usize,
    },
    /// A field is longer than 255 bytes. The client gets `M_TOO_LARGE`.
    #[error("`{field}` is {size} bytes, more than the {MAX_FIELD_BYTES} allowed")]
    FieldTooLong {
        /// The field's name.
        field: &'static str,
        /// Its length in bytes.
        size: usize,
    },
    /// Content isn't JSON that an event can hold. The client gets `M_BAD_JSON`.
    #[error("content: {0}")]
    Content(#[from] JsonError),
    /// A field that the version or the type of the event doesn't allow so.
    #[error("`{field}` {problem}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong, as the end of a sentence.
        problem: &'static str,
    },
    /// More `prev_events` or `auth_events` than allowed: an error of the caller.
    #[error("{count} {field}, more than the {limit} allowed")]
    TooMany {
        /// The field's name.
        field: &'static str,
        /// How many there are.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Versions 1 and 2: no hash was given for an event named: an error of the caller.
    #[error("no reference hash for {0}")]
    NoReferenceHash(OwnedEventId),
    /// We don't know the room's version.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
    /// An id that came out of the event isn't one; it can't happen.
    #[error("made an invalid id: {0}")]
    Id(#[from] IdParseError),
    /// The text that we wrote isn't JSON; it can't happen.
    #[error("made invalid JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Position {
    /// A position in a room of version 3 or later.
    pub fn new(
        prev_events: Vec<OwnedEventId>,
        auth_events: Vec<OwnedEventId>,
        depth: i64,
        origin_server_ts: MilliSecondsSinceUnixEpoch,
    ) -> Self {
        Self { prev_events, auth_events, depth, origin_server_ts, reference_hashes: Vec::new() }
    }
}

impl Draft {
    /// Which state its `auth_events` are to be taken from; see [`auth_types`].
    pub fn auth_types(&self, version: &RoomVersionId) -> Result<Vec<(StateEventType, String)>, Rejected> {
        auth_types(version, &self.kind, &self.sender, self.state_key.as_deref(), &self.content)
    }

    /// Make the event.
    ///
    /// Content may not hold fractions, exponents or integers past ±(2^53 − 1) in *any* room version: where versions 1 to 5
    /// would bear them, servers disagree about how to hash them, so we don't make such events.
    ///
    /// In versions 1 and 2 the event gets a random id of `server`.
    pub fn build(
        self,
        version: &RoomVersionId,
        position: Position,
        server: &ServerName,
        key: &SigningKey,
        limits: Limits,
    ) -> Result<Pdu, BuildError> {
        let rules = rules(version)?;
        let kind = self.kind.to_string();
        self.check(&kind, &position, &rules)?;
        let explicit_id = rules.explicit_ids().then(|| EventId::new_v1(server));
        let depth = position.depth.min(rules.max_depth());

        let mut content = json::parse_object(self.content.get())?;
        content.check_integers()?;
        let redacts_in_content = rules.redaction.content_field_redacts;
        if let Some(redacts) = &self.redacts
            && redacts_in_content
        {
            content.insert("redacts", Value::String(redacts.to_string().into()));
        }
        let mut content_text = String::with_capacity(self.content.get().len() + 64);
        content.write(&mut content_text);

        // The pieces, in the order of their keys.
        let mut before_content = String::from(r#"{"auth_events":"#);
        write_references(&mut before_content, &position.auth_events, &position, &rules)?;
        before_content.push_str(r#","content":"#);

        let mut before_hashes = format!(r#","depth":{depth}"#);
        if let Some(event_id) = &explicit_id {
            write_field(&mut before_hashes, "event_id", event_id.as_str());
        }

        let mut after_hashes =
            format!(r#","origin_server_ts":{},"prev_events":"#, position.origin_server_ts.get());
        write_references(&mut after_hashes, &position.prev_events, &position, &rules)?;

        let mut top_level_redacts = String::new();
        if let Some(redacts) = &self.redacts
            && !redacts_in_content
        {
            write_field(&mut top_level_redacts, "redacts", redacts.as_str());
        }

        let mut before_signatures = String::new();
        if let Some(room_id) = &self.room_id {
            write_field(&mut before_signatures, "room_id", room_id.as_str());
        }
        write_field(&mut before_signatures, "sender", self.sender.as_str());

        let mut after_signatures = String::new();
        if let Some(state_key) = &self.state_key {
            write_field(&mut after_signatures, "state_key", state_key);
        }
        write_field(&mut after_signatures, "type", &kind);
        after_signatures.push('}');

        // SG-01: everything but `hashes` and `signatures`.
        let to_hash = [
            &*before_content,
            &content_text,
            &before_hashes,
            &after_hashes,
            &top_level_redacts,
            &before_signatures,
            &after_signatures,
        ]
        .concat();
        let hashes = format!(r#","hashes":{{"sha256":"{}"}}"#, hash_text(sha256(&to_hash)));

        // SG-02, SG-03: the redacted event with its hash, and no `signatures`.
        redact_content(&mut content, &kind, &rules.redaction);
        let to_sign = [
            &*before_content,
            &content.to_canonical(),
            &before_hashes,
            &hashes,
            &after_hashes,
            &before_signatures,
            &after_signatures,
        ]
        .concat();
        let mut signatures = String::from(r#","signatures":{"#);
        write_string(&mut signatures, server.as_str());
        signatures.push_str(":{");
        write_string(&mut signatures, key.id().as_str());
        signatures.push(':');
        write_string(&mut signatures, &key.sign(to_sign.as_bytes()));
        signatures.push_str("}}");

        let json = [
            &*before_content,
            &content_text,
            &before_hashes,
            &hashes,
            &after_hashes,
            &top_level_redacts,
            &before_signatures,
            &signatures,
            &after_signatures,
        ]
        .concat();
        if json.len() > limits.max_pdu_bytes {
            return Err(BuildError::TooLarge { size: json.len(), limit: limits.max_pdu_bytes });
        }

        let event_id = match explicit_id {
            Some(event_id) => event_id,
            None => hash::event_id(sha256(&to_sign), &rules)?,
        };
        let names_room = self.room_id.is_some();
        let room_id = match self.room_id {
            Some(room_id) => room_id,
            None => room_of_create(&event_id).ok_or(IdParseError::InvalidCharacters)?,
        };
        let redacts = match self.redacts {
            // The author may have put it into content already, and there redaction has kept it.
            None if self.kind == TimelineEventType::RoomRedaction && redacts_in_content => {
                content.get("redacts").and_then(Value::as_str).and_then(|id| OwnedEventId::try_from(id).ok())
            }
            redacts => redacts,
        };
        Ok(Pdu::from_parts(Parts {
            event_id,
            room_id,
            sender: self.sender,
            kind: self.kind,
            state_key: self.state_key,
            origin_server_ts: position.origin_server_ts,
            depth,
            prev_events: position.prev_events,
            auth_events: position.auth_events,
            redacts,
            content: RawValue::from_string(content_text)?,
            json: RawValue::from_string(json)?,
            names_room,
        }))
    }

    /// EV-02, EV-03, and what the version wants of the fields.
    fn check(&self, kind: &str, position: &Position, rules: &RoomVersionRules) -> Result<(), BuildError> {
        let is_create = self.kind == TimelineEventType::RoomCreate;
        let room_id_is_create_id = rules.room_id_is_create_id();
        if self.room_id.is_none() && !(is_create && room_id_is_create_id) {
            return Err(BuildError::Field { field: "room_id", problem: "is missing" });
        }
        if self.room_id.is_some() && is_create && room_id_is_create_id {
            return Err(BuildError::Field {
                field: "room_id",
                problem: "does not belong in this version's m.room.create",
            });
        }
        if self.redacts.is_some() && self.kind != TimelineEventType::RoomRedaction {
            return Err(BuildError::Field { field: "redacts", problem: "belongs in m.room.redaction only" });
        }
        if position.depth < 0 {
            return Err(BuildError::Field { field: "depth", problem: "is negative" });
        }
        let fields = [
            ("type", kind),
            ("state_key", self.state_key.as_deref().unwrap_or_default()),
            ("sender", self.sender.as_str()),
            ("room_id", self.room_id.as_ref().map_or("", |room_id| room_id.as_str())),
        ];
        for (field, value) in fields {
            if value.len() > MAX_FIELD_BYTES {
                return Err(BuildError::FieldTooLong { field, size: value.len() });
            }
            // Databases and clients cut strings at it.
            if value.contains('\0') {
                return Err(BuildError::Field { field, problem: "contains a NUL character" });
            }
        }
        for (field, count, limit) in [
            ("prev_events", position.prev_events.len(), MAX_PREV_EVENTS),
            ("auth_events", position.auth_events.len(), MAX_AUTH_EVENTS),
        ] {
            if count > limit {
                return Err(BuildError::TooMany { field, count, limit });
            }
        }
        Ok(())
    }
}

/// Append `,"key":"value"`.
fn write_field(out: &mut String, key: &str, value: &str) {
    out.push_str(",\"");
    out.push_str(key);
    out.push_str("\":");
    write_string(out, value);
}

/// Append the ids as the version names other events: RV-06.
fn write_references(
    out: &mut String,
    ids: &[OwnedEventId],
    position: &Position,
    rules: &RoomVersionRules,
) -> Result<(), BuildError> {
    out.push('[');
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        if rules.explicit_ids() {
            let (_, hash) = position
                .reference_hashes
                .iter()
                .find(|(hashed, _)| hashed == id)
                .ok_or_else(|| BuildError::NoReferenceHash(id.clone()))?;
            out.push('[');
            write_string(out, id.as_str());
            out.push_str(",{");
            if !hash.is_empty() {
                out.push_str(r#""sha256":"#);
                write_string(out, hash);
            }
            out.push_str("}]");
        } else {
            write_string(out, id.as_str());
        }
    }
    out.push(']');
    Ok(())
}
