//! What somebody may know of a room before they are in it ("Room summaries"), and who may.

use std::sync::Arc;

use ruma::{
    OwnedRoomId, UserId,
    events::{
        StateEventType,
        room::{
            history_visibility::HistoryVisibility,
            join_rules::{AllowRule, JoinRule},
            member::MembershipState,
        },
    },
};
use serde::{Deserialize, Serialize};

use super::{Error, PublicRoom, Room, Rooms, Snapshot};

/// Said of rooms that don't exist and of those that may not be known of (I10).
pub(super) const NO_PREVIEW: &str = "there is no such room, or you may not see it";

/// A room as the specification's `RoomSummary` shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Preview {
    #[serde(flatten)]
    pub room: PublicRoom,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_room_ids: Vec<OwnedRoomId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    #[serde(default)]
    pub room_version: String,
}

impl Preview {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        #[derive(Deserialize)]
        struct Encryption {
            algorithm: String,
        }
        let encryption = snapshot.state.content::<Encryption>(&StateEventType::RoomEncryption);
        let allowed_room_ids = match snapshot.join_rule() {
            JoinRule::Restricted(rule) | JoinRule::KnockRestricted(rule) => {
                let allowed = rule.allow.into_iter().filter_map(|allowed| match allowed {
                    AllowRule::RoomMembership(allowed) => Some(allowed.room_id),
                    _ => None,
                });
                allowed.collect()
            }
            _ => Vec::new(),
        };
        Self {
            room: PublicRoom::of(snapshot),
            allowed_room_ids,
            encryption: encryption.map(|encryption| encryption.algorithm),
            room_version: snapshot.version.to_string(),
        }
    }
}

impl Rooms {
    /// A room's preview with the asker's membership (RS-01), or the same answer as for a room that doesn't exist. Without
    /// a user it is for the world.
    pub async fn preview(
        &self,
        room: Result<Arc<Room>, Error>,
        user_id: Option<&UserId>,
    ) -> Result<(Preview, MembershipState), Error> {
        let room = room.map_err(|cause| match cause {
            Error::NotFound(_) => Error::NotFound(NO_PREVIEW),
            cause => cause,
        })?;
        let snapshot = room.snapshot();
        if !self.may_preview(&snapshot, user_id).await? {
            return Err(Error::NotFound(NO_PREVIEW));
        }
        let membership = user_id.map_or(MembershipState::Leave, |user_id| snapshot.membership(user_id));
        Ok((Preview::of(&snapshot), membership))
    }

    /// SP-04: whether somebody may know that a room is there: it is open to them or to the world, or they are in it.
    pub(super) async fn may_preview(
        &self,
        snapshot: &Snapshot,
        user_id: Option<&UserId>,
    ) -> Result<bool, Error> {
        let rule = snapshot.join_rule();
        if matches!(rule, JoinRule::Public | JoinRule::Knock | JoinRule::KnockRestricted(_))
            || snapshot.history_visibility() == HistoryVisibility::WorldReadable
        {
            return Ok(true);
        }
        let Some(user_id) = user_id else { return Ok(false) };
        if matches!(snapshot.membership(user_id), MembershipState::Join | MembershipState::Invite) {
            return Ok(true);
        }
        match rule {
            JoinRule::Restricted(rule) => self.is_in_one_of(user_id, &rule).await,
            _ => Ok(false),
        }
    }
}
