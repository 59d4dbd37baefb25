//! Room versions: the rules of those we know, and nothing for the rest.

use ruma::{
    RoomVersionId,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
};

use crate::json::MAX_SAFE_INTEGER;

/// A room version whose rules we don't know; they are never guessed at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("room version `{0}` is not supported")]
pub struct UnsupportedVersion(pub RoomVersionId);

/// The rules of a room version.
pub fn rules(version: &RoomVersionId) -> Result<RoomVersionRules, UnsupportedVersion> {
    version.rules().ok_or_else(|| UnsupportedVersion(version.clone()))
}

/// Questions about a version that several modules ask.
pub(crate) trait RulesExt {
    /// Versions 1 and 2: events carry their id, and name others as pairs of id and hash.
    fn explicit_ids(&self) -> bool;
    /// The greatest `depth` an event may have; deeper rooms stay at it.
    fn max_depth(&self) -> i64;
    /// Versions 12 and later: the room's id is its create event's, which doesn't carry it.
    fn room_id_is_create_id(&self) -> bool;
}

impl RulesExt for RoomVersionRules {
    fn explicit_ids(&self) -> bool {
        self.event_id_format == EventIdFormatVersion::V1
    }

    fn max_depth(&self) -> i64 {
        if self.authorization.strict_canonical_json { MAX_SAFE_INTEGER } else { i64::MAX }
    }

    fn room_id_is_create_id(&self) -> bool {
        self.authorization.room_create_event_id_as_room_id
    }
}
