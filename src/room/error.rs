//! Why a room refuses something.

use hearth_federation::{BuildError, PduError, Rejected, ResolveError, UnsupportedVersion};
use ruma::{OwnedRoomAliasId, OwnedUserId, RoomVersionId};

use crate::store;

/// Said to whoever isn't in a room, whether the room exists or not (I10).
pub(super) const NOT_A_MEMBER: &str = "you are not in this room";

/// Said of events that aren't in the room, and of those that may not be seen (I10).
pub const NO_EVENT: &str = "there is no such event in this room";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules of the room, or of this server, don't allow it.
    #[error("{0}")]
    Forbidden(String),
    #[error("the server's own notices can't be turned away")]
    CannotLeaveNotices,
    /// GU-02
    #[error("guests may not join this room")]
    GuestsForbidden,
    #[error("{0} takes no invites")]
    InviteBlocked(OwnedUserId),
    #[error("leave the room before you forget it")]
    StillIn,
    /// JN-07: this server isn't in the rooms whose members a rule lets in, so it can't tell …
    #[error("this server can't tell whether you may join this room")]
    CannotAuthorise,
    /// … or it can, and nobody here may let them in.
    #[error("nobody on this server has the power to let you into this room")]
    CannotGrant,
    /// It doesn't exist, or the user may not know that it does.
    #[error("{0}")]
    NotFound(&'static str),
    /// The request makes no sense with the room as it is.
    #[error("{0}")]
    BadState(String),
    #[error("{0}")]
    InvalidParam(String),
    #[error("{0}")]
    BadJson(String),
    #[error("you have said this of the event already")]
    DuplicateAnnotation,
    #[error("{0}")]
    BadRelation(String),
    /// An event or a text over a limit; the message names the limit and the size.
    #[error("{0}")]
    TooLarge(String),
    /// `createRoom` was asked for state that the room's own rules refuse.
    #[error("the room can't be created so: {0}")]
    InvalidRoomState(String),
    /// An event whose auth chain is too long to judge it.
    #[error("{0}")]
    Unresolvable(String),
    #[error("{0}")]
    BadAlias(String),
    #[error("the alias {0} is taken")]
    AliasInUse(OwnedRoomAliasId),
    #[error("room version {0} is not supported")]
    UnsupportedVersion(RoomVersionId),
    /// The room's policy server doesn't want the event.
    #[error(transparent)]
    Policy(#[from] super::policy_server::Refusal),
    /// Stored data that can't be read: an error of ours.
    #[error("event {seq} of room {room} is damaged: {cause}")]
    Damaged { room: i64, seq: i64, cause: String },
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{0}")]
    Internal(String),
}

impl Error {
    /// The same error for each of many who asked for one thing.
    pub(super) fn to_all(&self) -> Self {
        match self {
            Self::Store(cause) => Self::Store(cause.clone()),
            other => Self::Internal(other.to_string()),
        }
    }

    /// The room has as many members as this server allows.
    pub(super) fn full(most: usize) -> Self {
        Self::Forbidden(format!("this room is full: this server allows {most} members a room"))
    }

    pub fn forbidden(why: impl Into<String>) -> Self {
        Self::Forbidden(why.into())
    }
}

impl From<BuildError> for Error {
    fn from(cause: BuildError) -> Self {
        match cause {
            BuildError::TooLarge { .. } | BuildError::FieldTooLong { .. } => {
                Self::TooLarge(cause.to_string())
            }
            BuildError::Content(_) => Self::BadJson(cause.to_string()),
            BuildError::Field { .. } => Self::InvalidParam(cause.to_string()),
            BuildError::Version(UnsupportedVersion(version)) => Self::UnsupportedVersion(version),
            BuildError::TooMany { .. }
            | BuildError::NoReferenceHash(_)
            | BuildError::Id(_)
            | BuildError::Json(_) => Self::Internal(cause.to_string()),
        }
    }
}

impl From<Rejected> for Error {
    fn from(cause: Rejected) -> Self {
        match cause {
            Rejected::Rule(rule) => Self::Forbidden(rule),
            Rejected::StateKey => Self::BadJson(cause.to_string()),
            Rejected::Version(UnsupportedVersion(version)) => Self::UnsupportedVersion(version),
        }
    }
}

impl From<UnsupportedVersion> for Error {
    fn from(UnsupportedVersion(version): UnsupportedVersion) -> Self {
        Self::UnsupportedVersion(version)
    }
}

impl From<ResolveError> for Error {
    fn from(cause: ResolveError) -> Self {
        match cause {
            ResolveError::Version(UnsupportedVersion(version)) => Self::UnsupportedVersion(version),
            ResolveError::TooLarge { .. } => Self::Unresolvable(cause.to_string()),
        }
    }
}

impl From<PduError> for Error {
    fn from(cause: PduError) -> Self {
        Self::Internal(cause.to_string())
    }
}
