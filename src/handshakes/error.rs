//! Why a handshake fails, for a client or for another server.

use hearth_federation::{BuildError, ClientError, PduError, TemplateError, UnsupportedVersion, VerifyError};
use ruma::RoomVersionId;

use crate::{account, room, store};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A room of ours refuses, or this server does.
    #[error(transparent)]
    Room(#[from] room::Error),
    #[error(transparent)]
    Account(#[from] account::Error),
    /// Another server couldn't be asked, or refuses.
    #[error("{0}")]
    Peer(#[from] ClientError),
    /// Another server's answer is of no use.
    #[error("the other server's answer can't be used: {0}")]
    Answer(String),
    /// Nobody is known who could help.
    #[error("no server is known that could help: give one in `via`")]
    Nobody,
    /// What another server sent isn't what the request is for.
    #[error("{0}")]
    Invalid(String),
    /// What another server sent isn't JSON that an event can hold (CJ-04).
    #[error("{0}")]
    BadJson(String),
    /// The room is of a version that this server doesn't know, or the other one.
    #[error("room version {0} is not supported")]
    Incompatible(RoomVersionId),
    /// JN-07: whether a restricted room lets the user in can't be found out here …
    #[error("this server can't tell whether you may join")]
    CannotAuthorise,
    /// … or it could, but nobody here may let them in.
    #[error("nobody on this server has the power to let you into this room")]
    CannotGrant,
}

impl Error {
    /// Whether others would say the same.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Peer(ClientError::Refused { errcode, .. }) => {
                matches!(errcode.as_str(), "M_INCOMPATIBLE_ROOM_VERSION")
            }
            Self::Room(_) | Self::Account(_) | Self::Incompatible(_) => true,
            _ => false,
        }
    }

    /// Whether a server has said why.
    pub(super) fn is_an_answer(&self) -> bool {
        matches!(self, Self::Peer(ClientError::Refused { .. }))
    }
}

impl From<TemplateError> for Error {
    fn from(cause: TemplateError) -> Self {
        match cause {
            TemplateError::Version(UnsupportedVersion(version)) => Self::Incompatible(version),
            cause => Self::Answer(cause.to_string()),
        }
    }
}

impl From<BuildError> for Error {
    fn from(cause: BuildError) -> Self {
        Self::Room(cause.into())
    }
}

impl From<PduError> for Error {
    fn from(cause: PduError) -> Self {
        match cause {
            PduError::Json(_) | PduError::Signatures(_) | PduError::TooLarge { .. } => {
                Self::Answer(cause.to_string())
            }
            cause => Self::Room(cause.into()),
        }
    }
}

impl From<VerifyError> for Error {
    fn from(cause: VerifyError) -> Self {
        match cause {
            VerifyError::Json(_) => Self::BadJson(cause.to_string()),
            cause => Self::Invalid(cause.to_string()),
        }
    }
}

impl From<store::Error> for Error {
    fn from(cause: store::Error) -> Self {
        Self::Room(cause.into())
    }
}
