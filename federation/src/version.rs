//! Room versions: the rules of those we know, and nothing for the rest.

use ruma::{
    RoomVersionId,
    room_version_rules::{EventIdFormatVersion, RoomVersionDisposition, RoomVersionRules},
};

use crate::json::MAX_SAFE_INTEGER;

/// Version 10 with MSC3757.
const OWNED_STATE_10: &str = "org.matrix.msc3757.10";
/// Version 11 with MSC3757.
const OWNED_STATE_11: &str = "org.matrix.msc3757.11";

/// A room version whose rules we don't know; they are never guessed at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("room version `{0}` is not supported")]
pub struct UnsupportedVersion(pub RoomVersionId);

/// The rules of a room version.
///
/// Of the versions of MSC3757 these are all but one: whose state is whose is for [`crate::auth`] to know.
pub fn rules(version: &RoomVersionId) -> Result<RoomVersionRules, UnsupportedVersion> {
    let mut rules = match version.as_str() {
        OWNED_STATE_10 => RoomVersionRules::V10,
        OWNED_STATE_11 => RoomVersionRules::V11,
        _ => return version.rules().ok_or_else(|| UnsupportedVersion(version.clone())),
    };
    rules.disposition = RoomVersionDisposition::Unstable;
    Ok(rules)
}

/// Every room version whose rules we know: those of the specification, then the unstable ones. The `disposition` of
/// their [`rules`] says which are which.
pub fn supported_versions() -> impl Iterator<Item = RoomVersionId> {
    let stable = (1..=12).map(|number: u8| number.to_string());
    let unstable = [OWNED_STATE_10, OWNED_STATE_11].map(str::to_owned);
    stable.chain(unstable).filter_map(|version| RoomVersionId::try_from(version).ok())
}

/// Whether state may be owned in a room of this version: MSC3757, "Restricting who can overwrite a state event".
pub(crate) fn has_owned_state(version: &RoomVersionId) -> bool {
    matches!(version.as_str(), OWNED_STATE_10 | OWNED_STATE_11)
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
