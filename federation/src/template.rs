//! What a resident server proposes for a member event: `make_join`, `make_leave`, `make_knock`.
//!
//! Nothing of a proposal is ever signed. It is checked to be about what was asked for (JN-02); taken from it are the places
//! of other events in the room, for an event that is built here from its parts.
//!
//! Specification: [Joining Rooms](https://spec.matrix.org/v1.19/server-server-api/#joining-rooms).

use ruma::{
    MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedUserId, RoomId, RoomVersionId, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::value::RawValue;

use crate::{
    builder::{BuildError, Draft, Position},
    json::{self, JsonError, Object, Value},
    limits::{Limits, MAX_AUTH_EVENTS, MAX_FIELD_BYTES, MAX_PREV_EVENTS},
    pdu::Pdu,
    signing_key::SigningKey,
    version::{RulesExt, UnsupportedVersion, rules},
};

/// Bytes of a proposal past which it isn't parsed.
pub const MAX_TEMPLATE_BYTES: usize = 256 * 1024;

/// Why a proposal is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is over the limit.
    #[error("the proposed event is {0} bytes")]
    TooLarge(usize),
    /// It isn't JSON.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// It proposes something else than what was asked for, or is not of its form.
    #[error("the proposed event has another `{0}` than was asked for")]
    Field(&'static str),
    /// The room is of a version that we don't know.
    #[error(transparent)]
    Version(#[from] UnsupportedVersion),
}

/// What is taken from a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The room's version.
    pub version: RoomVersionId,
    /// The user who lets a restricted join in, says the resident server.
    pub authorised_via: Option<OwnedUserId>,
    prev_events: Vec<OwnedEventId>,
    auth_events: Vec<OwnedEventId>,
    depth: i64,
    reference_hashes: Vec<(OwnedEventId, String)>,
}

impl Template {
    /// Read the answer to a `make_…` request about `user`'s `membership` of `room`.
    pub fn read(
        answer: &str,
        room: &RoomId,
        user: &UserId,
        membership: &MembershipState,
    ) -> Result<Self, TemplateError> {
        if answer.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLarge(answer.len()));
        }
        let answer = json::parse_object(answer)?;
        // JN-01: servers from before versions had names say nothing.
        let version = match answer.get("room_version") {
            Some(version) => version.as_str().ok_or(TemplateError::Field("room_version"))?,
            None => "1",
        };
        let version = RoomVersionId::try_from(version).map_err(|_| TemplateError::Field("room_version"))?;
        let rules = rules(&version)?;
        let event = answer.get("event").and_then(Value::as_object).ok_or(TemplateError::Field("event"))?;
        let is = |object: &Object<'_>, field: &'static str, wanted: &str| {
            let found = object.get(field).and_then(Value::as_str);
            if found == Some(wanted) { Ok(()) } else { Err(TemplateError::Field(field)) }
        };
        is(event, "type", "m.room.member")?;
        is(event, "room_id", room.as_str())?;
        is(event, "sender", user.as_str())?;
        is(event, "state_key", user.as_str())?;
        let content = event.get("content").and_then(Value::as_object);
        let content = content.ok_or(TemplateError::Field("content"))?;
        is(content, "membership", membership.as_str())?;
        let authorised_via = match content.get("join_authorised_via_users_server") {
            Some(user) if *membership == MembershipState::Join => {
                let user = user.as_str().and_then(|user| OwnedUserId::try_from(user).ok());
                Some(user.ok_or(TemplateError::Field("join_authorised_via_users_server"))?)
            }
            _ => None,
        };
        let mut reference_hashes = Vec::new();
        let mut ids = |field: &'static str, most: usize| {
            let wrong = TemplateError::Field(field);
            let named = event.get(field).and_then(Value::as_array).ok_or_else(|| wrong.clone())?;
            if named.len() > most {
                return Err(wrong);
            }
            let mut ids = Vec::with_capacity(named.len());
            for reference in named {
                let (id, hash) = match (rules.explicit_ids(), reference) {
                    (false, id) => (id.as_str(), None),
                    (true, Value::Array(pair)) => match pair.as_slice() {
                        [id, Value::Object(hashes)] => {
                            let hash = match hashes.get("sha256") {
                                Some(hash) => hash.as_str(),
                                None => Some(""),
                            };
                            (id.as_str(), Some(hash))
                        }
                        _ => return Err(wrong),
                    },
                    (true, _) => return Err(wrong),
                };
                let id = id.filter(|id| id.len() <= MAX_FIELD_BYTES).ok_or_else(|| wrong.clone())?;
                let id = OwnedEventId::try_from(id).map_err(|_| wrong.clone())?;
                if let Some(hash) = hash {
                    let hash = hash.filter(|hash| hash.len() <= 64).ok_or_else(|| wrong.clone())?;
                    reference_hashes.push((id.clone(), hash.to_owned()));
                }
                ids.push(id);
            }
            Ok(ids)
        };
        let prev_events = ids("prev_events", MAX_PREV_EVENTS)?;
        let auth_events = ids("auth_events", MAX_AUTH_EVENTS)?;
        let depth = event.get("depth").and_then(Value::as_integer);
        let depth = depth.filter(|depth| *depth >= 0).ok_or(TemplateError::Field("depth"))?;
        Ok(Self { version, authorised_via, prev_events, auth_events, depth, reference_hashes })
    }

    /// The member event: everything in it is ours, but for its place in the room.
    pub fn build(
        &self,
        room: &RoomId,
        user: &UserId,
        content: Box<RawValue>,
        now: MilliSecondsSinceUnixEpoch,
        key: &SigningKey,
    ) -> Result<Pdu, BuildError> {
        let draft = Draft {
            room_id: Some(room.to_owned()),
            sender: user.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(user.to_string()),
            content,
            redacts: None,
        };
        let position = Position {
            prev_events: self.prev_events.clone(),
            auth_events: self.auth_events.clone(),
            depth: self.depth,
            origin_server_ts: now,
            reference_hashes: self.reference_hashes.clone(),
        };
        draft.build(&self.version, position, user.server_name(), key, Limits::FEDERATED)
    }
}
