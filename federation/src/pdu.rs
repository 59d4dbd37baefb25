//! An event as servers exchange it: immutable, of any room version.
//!
//! Owns the reading of stored events into fields, and their redaction. It never verifies: a [`Pdu`] comes from the
//! builder, from the verifier, or from our own database, where only those two write.
//!
//! Specification: "Event format" of each [room version](https://spec.matrix.org/v1.19/rooms/).

use std::fmt;

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId,
    RoomVersionId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
    room_version_rules::RoomVersionRules,
    state_res::Event,
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    hash::{hash_text, sha256, signed_text},
    json::{self, JsonError},
    redaction::redact_event,
    version::{RulesExt, UnsupportedVersion, rules},
};

/// An event. The fields are read from `json` once and are for reading: there is no way to change an event.
#[derive(Clone)]
#[non_exhaustive]
pub struct Pdu {
    /// Its id; from version 3 on not part of `json`.
    pub event_id: OwnedEventId,
    /// Its room; a create event of version 12 has it from its own id.
    pub room_id: OwnedRoomId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// Its type.
    pub kind: TimelineEventType,
    /// Present exactly on state events.
    pub state_key: Option<String>,
    /// When its server says it was made. Never trusted for order.
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
    /// One more than the deepest of `prev_events`, says its server. Never trusted for order.
    pub depth: i64,
    /// The events it follows.
    pub prev_events: Vec<OwnedEventId>,
    /// The state that allowed it.
    pub auth_events: Vec<OwnedEventId>,
    /// What a redaction redacts, from wherever the room version has it; `None` on every other type.
    pub redacts: Option<OwnedEventId>,
    /// Its content, canonical.
    pub content: Box<RawValue>,
    /// All of it as stored and federated: canonical, with `hashes` and `signatures`, without `unsigned`.
    pub json: Box<RawValue>,
    /// Whether it failed the checks on receipt, so that nothing may build on it.
    pub rejected: bool,
    /// Whether `json` names the room.
    names_room: bool,
    /// What the authorisation rules read in place of `content`.
    readable_content: Option<Box<RawValue>>,
}

/// Why stored text isn't an event.
#[derive(Debug, thiserror::Error)]
pub enum PduError {
    /// A field is missing or isn't what the room version wants.
    #[error("not an event: {0}")]
    Field(#[from] serde_json::Error),
    /// The text isn't JSON that we take.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The event doesn't name its room, and isn't one that needn't.
    #[error("not an event: it has no room_id")]
    NoRoom,
    /// What are said to be signatures of a server are none, or more than anybody needs.
    #[error("what it has as signatures of {0} aren't, or are too many")]
    Signatures(OwnedServerName),
    /// With more signatures it would be larger than any server takes.
    #[error("the event is {size} bytes with its signatures, more than {limit}")]
    TooLarge {
        /// Of the event with its signatures.
        size: usize,
        /// The most that others take.
        limit: usize,
    },
    /// We don't know the room's version.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
}

impl Pdu {
    /// Read an event that this server has stored, in one pass and without checking it again.
    ///
    /// `json` must be text that the builder or the verifier made. Content stays text.
    pub fn from_stored(
        event_id: OwnedEventId,
        json: String,
        version: &RoomVersionId,
    ) -> Result<Self, PduError> {
        Self::with_rules(event_id, RawValue::from_string(json)?, &rules(version)?)
    }

    pub(crate) fn with_rules(
        event_id: OwnedEventId,
        json: Box<RawValue>,
        rules: &RoomVersionRules,
    ) -> Result<Self, PduError> {
        let fields: Fields<'_> = serde_json::from_str(json.get())?;
        let names_room = fields.room_id.is_some();
        let room_id = match fields.room_id {
            Some(room_id) => room_id,
            None if rules.room_id_is_create_id() && fields.kind == TimelineEventType::RoomCreate => {
                room_of_create(&event_id).ok_or(PduError::NoRoom)?
            }
            None => return Err(PduError::NoRoom),
        };
        let redacts = if fields.kind == TimelineEventType::RoomRedaction {
            // Whatever isn't an event id redacts nothing, and makes no event invalid.
            if rules.redaction.content_field_redacts {
                serde_json::from_str::<RedactsField<'_>>(fields.content.get())
                    .ok()
                    .and_then(|content| content.redacts)
            } else {
                fields.redacts
            }
            .and_then(|raw| serde_json::from_str(raw.get()).ok())
        } else {
            None
        };
        let readable_content = if fields.kind == TimelineEventType::RoomPowerLevels {
            readable_power_levels(fields.content, rules)?
        } else {
            None
        };
        Ok(Self {
            event_id,
            room_id,
            sender: fields.sender,
            kind: fields.kind,
            state_key: fields.state_key,
            origin_server_ts: fields.origin_server_ts,
            depth: fields.depth,
            prev_events: fields.prev_events.0,
            auth_events: fields.auth_events.0,
            redacts,
            content: fields.content.to_owned(),
            rejected: false,
            names_room,
            readable_content,
            json,
        })
    }

    /// The same event with the verdict that was stored beside it.
    #[must_use]
    pub fn with_rejected(mut self, rejected: bool) -> Self {
        self.rejected = rejected;
        self
    }

    /// The content as a type.
    pub fn content_as<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(self.content.get())
    }

    /// Whether it is a state event.
    pub fn is_state(&self) -> bool {
        self.state_key.is_some()
    }

    /// The type and state key, of a state event.
    pub fn state(&self) -> Option<(&TimelineEventType, &str)> {
        self.state_key.as_deref().map(|state_key| (&self.kind, state_key))
    }

    /// The membership that an `m.room.member` state event gives to its state key.
    pub fn membership(&self) -> Option<MembershipState> {
        #[derive(Deserialize)]
        struct Content {
            membership: MembershipState,
        }
        if self.kind != TimelineEventType::RoomMember || !self.is_state() {
            return None;
        }
        self.content_as::<Content>().ok().map(|content| content.membership)
    }

    /// The redacted form of it: same id, same signatures.
    pub fn redacted(&self, version: &RoomVersionId) -> Result<Self, PduError> {
        let rules = rules(version)?;
        let mut event = json::parse_object(self.json.get())?;
        redact_event(&mut event, &self.kind.to_string(), &rules.redaction);
        let json = RawValue::from_string(event.to_canonical())?;
        Ok(Self::with_rules(self.event_id.clone(), json, &rules)?.with_rejected(self.rejected))
    }

    /// The reference hash, in the base64 that `prev_events` and `auth_events` of versions 1 and 2 hold.
    pub fn reference_hash(&self, version: &RoomVersionId) -> Result<String, PduError> {
        let event = json::parse_object(self.json.get())?;
        let text = signed_text(&event, &self.kind.to_string(), &rules(version)?);
        Ok(hash_text(sha256(&text)))
    }

    /// Put together an event whose parts agree with its text.
    pub(crate) fn from_parts(parts: Parts) -> Self {
        let Parts {
            event_id,
            room_id,
            sender,
            kind,
            state_key,
            origin_server_ts,
            depth,
            prev_events,
            auth_events,
            redacts,
            content,
            json,
            names_room,
        } = parts;
        Self {
            event_id,
            room_id,
            sender,
            kind,
            state_key,
            origin_server_ts,
            depth,
            prev_events,
            auth_events,
            redacts,
            content,
            json,
            rejected: false,
            names_room,
            // The builder makes no fractions, and this server no strings for power levels (RV-21).
            readable_content: None,
        }
    }
}

/// What the builder knows of an event it has made.
pub(crate) struct Parts {
    pub(crate) event_id: OwnedEventId,
    pub(crate) room_id: OwnedRoomId,
    pub(crate) sender: OwnedUserId,
    pub(crate) kind: TimelineEventType,
    pub(crate) state_key: Option<String>,
    pub(crate) origin_server_ts: MilliSecondsSinceUnixEpoch,
    pub(crate) depth: i64,
    pub(crate) prev_events: Vec<OwnedEventId>,
    pub(crate) auth_events: Vec<OwnedEventId>,
    pub(crate) redacts: Option<OwnedEventId>,
    pub(crate) content: Box<RawValue>,
    pub(crate) json: Box<RawValue>,
    pub(crate) names_room: bool,
}

/// Power levels as the authorisation rules are to read them; `None` if that is as they are.
///
/// RV-20: in versions 1 to 5 they may be fractions, which count without what is behind the point. RV-19: in versions 1 to
/// 9 they may be strings, with one sign; ruma would take `++5` too, and with it an event that others reject.
fn readable_power_levels(
    content: &RawValue,
    rules: &RoomVersionRules,
) -> Result<Option<Box<RawValue>>, PduError> {
    let may_have_fractions = !rules.authorization.strict_canonical_json;
    let may_have_double_plus = !rules.authorization.integer_power_levels && content.get().contains("++");
    if !may_have_fractions && !may_have_double_plus {
        return Ok(None);
    }
    let mut value = json::parse(content.get())?;
    let cut = may_have_fractions && value.truncate_numbers();
    let found = may_have_double_plus && value.null_double_plus();
    if !cut && !found {
        return Ok(None);
    }
    let mut text = String::new();
    value.write(&mut text);
    Ok(Some(RawValue::from_string(text)?))
}

/// The room that a create event of version 12 makes.
pub(crate) fn room_of_create(event_id: &EventId) -> Option<OwnedRoomId> {
    let hash = event_id.as_str().strip_prefix('$')?;
    OwnedRoomId::try_from(format!("!{hash}")).ok()
}

impl fmt::Debug for Pdu {
    /// Without content, which is people's private words.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Pdu")
            .field("event_id", &self.event_id)
            .field("room_id", &self.room_id)
            .field("sender", &self.sender)
            .field("kind", &self.kind)
            .field("state_key", &self.state_key)
            .field("rejected", &self.rejected)
            .finish_non_exhaustive()
    }
}

impl Event for Pdu {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }

    /// `None` where the event itself doesn't name its room: the authorisation rules ask for that.
    fn room_id(&self) -> Option<&RoomId> {
        self.names_room.then_some(&self.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        self.origin_server_ts
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    /// What the rules read: power levels without the fractions that old versions allow.
    fn content(&self) -> &RawValue {
        self.readable_content.as_deref().unwrap_or(&self.content)
    }

    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_events.iter())
    }

    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.rejected
    }
}

/// The fields of stored text.
#[derive(Deserialize)]
struct Fields<'a> {
    room_id: Option<OwnedRoomId>,
    sender: OwnedUserId,
    #[serde(rename = "type")]
    kind: TimelineEventType,
    state_key: Option<String>,
    origin_server_ts: MilliSecondsSinceUnixEpoch,
    depth: i64,
    prev_events: References,
    auth_events: References,
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// The one field of a redaction's content that matters here, of whatever type it is.
#[derive(Deserialize)]
struct RedactsField<'a> {
    #[serde(borrow)]
    redacts: Option<&'a RawValue>,
}

/// Event ids, plain or as the pairs of versions 1 and 2.
struct References(Vec<OwnedEventId>);

impl<'de> Deserialize<'de> for References {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(
            Vec::<Reference>::deserialize(deserializer)?.into_iter().map(|reference| reference.0).collect(),
        ))
    }
}

struct Reference(OwnedEventId);

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdOrPair;

        impl<'de> Visitor<'de> for IdOrPair {
            type Value = Reference;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an event id, or a pair of an event id and its hashes")
            }

            fn visit_str<E: serde::de::Error>(self, id: &str) -> Result<Reference, E> {
                OwnedEventId::try_from(id).map(Reference).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Reference, A::Error> {
                let id = pair.next_element()?.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                while pair.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Reference(id))
            }
        }

        deserializer.deserialize_any(IdOrPair)
    }
}
