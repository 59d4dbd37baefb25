//! What services report, as Matrix errors.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::{
    account::{self, Challenge, InteractiveError},
    http::MatrixError,
    keys::{self, backup},
    room, store,
};

impl From<store::Error> for MatrixError {
    fn from(error: store::Error) -> Self {
        if error.is_of_the_machine() { Self::unavailable(&error) } else { Self::internal(&error) }
    }
}

impl From<account::Error> for MatrixError {
    fn from(error: account::Error) -> Self {
        use account::Error as E;
        let text = error.to_string();
        let answer = |status, errcode| Self::new(status, errcode, text.clone());
        match error {
            E::UserInUse => answer(StatusCode::BAD_REQUEST, "M_USER_IN_USE"),
            E::InvalidUsername(_) => answer(StatusCode::BAD_REQUEST, "M_INVALID_USERNAME"),
            E::WeakPassword(_) => answer(StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD"),
            E::RegistrationClosed | E::NoGuests | E::BadMac | E::BadCredentials | E::NotAllowed(_) => {
                Self::forbidden(text)
            }
            E::BadRegistrationToken => answer(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED"),
            E::Deactivated => answer(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED"),
            E::Locked => answer(StatusCode::UNAUTHORIZED, "M_USER_LOCKED").with("soft_logout", true),
            E::UnknownToken { soft_logout } => Self::unknown_token(soft_logout),
            E::NotFound(_) => Self::not_found(text),
            E::TooLarge { .. } => Self::too_large(text),
            E::ProfileTooLarge(_) => answer(StatusCode::BAD_REQUEST, "M_PROFILE_TOO_LARGE"),
            E::KeyTooLarge(_) => answer(StatusCode::BAD_REQUEST, "M_KEY_TOO_LARGE"),
            E::ConflictingUnsubscription => {
                answer(StatusCode::CONFLICT, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")
            }
            E::Invalid(_) => Self::invalid_param(text),
            E::Managed(_) => answer(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON"),
            E::Hashing(cause) => Self::internal(&cause),
            E::Store(cause) => cause.into(),
        }
    }
}

impl From<InteractiveError> for MatrixError {
    fn from(error: InteractiveError) -> Self {
        match error {
            InteractiveError::Challenge(challenge) => {
                Self::with_body(StatusCode::UNAUTHORIZED, describe(challenge))
            }
            InteractiveError::Failed(cause) => cause.into(),
        }
    }
}

/// The body of "further authentication is needed", as the User-Interactive Authentication API has it.
fn describe(challenge: Challenge) -> Map<String, Value> {
    let names = |stages: &[account::Stage]| stages.iter().map(|stage| stage.name()).collect::<Vec<_>>();
    let flows: Vec<Value> = challenge.flows.iter().map(|flow| json!({ "stages": names(flow) })).collect();
    let mut body = Map::new();
    body.insert("flows".to_owned(), flows.into());
    body.insert("params".to_owned(), json!({}));
    body.insert("session".to_owned(), challenge.session.into());
    body.insert("completed".to_owned(), json!(names(&challenge.completed)));
    if let Some((errcode, error)) = challenge.refused {
        body.insert("errcode".to_owned(), errcode.into());
        body.insert("error".to_owned(), error.into());
    }
    body
}

impl From<keys::Error> for MatrixError {
    fn from(error: keys::Error) -> Self {
        use keys::Error as E;
        let text = error.to_string();
        match error {
            E::Invalid(_) => Self::invalid_param(text),
            E::Missing(_) => Self::missing_param(text),
            E::Signature(_) => Self::new(StatusCode::BAD_REQUEST, "M_INVALID_SIGNATURE", text),
            E::Forbidden(_) => Self::forbidden(text),
            E::NotFound(_) => Self::not_found(text),
            E::TooMany { .. } => Self::too_large(text),
            E::Damaged(_) => Self::internal(&text),
            E::Store(cause) => cause.into(),
        }
    }
}

impl From<room::Error> for MatrixError {
    fn from(error: room::Error) -> Self {
        use room::Error as E;
        let text = error.to_string();
        let answer = |status, errcode| Self::new(status, errcode, text.clone());
        match error {
            E::Forbidden(_) | E::CannotAuthorise | E::CannotGrant => Self::forbidden(text),
            E::CannotLeaveNotices => answer(StatusCode::FORBIDDEN, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"),
            E::GuestsForbidden => answer(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN"),
            E::InviteBlocked(_) => answer(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED"),
            E::NotFound(_) => Self::not_found(text),
            E::BadState(_) => answer(StatusCode::FORBIDDEN, "M_BAD_STATE"),
            E::InvalidParam(_) => Self::invalid_param(text),
            E::BadJson(_) => Self::bad_json(text),
            E::DuplicateAnnotation => answer(StatusCode::BAD_REQUEST, "M_DUPLICATE_ANNOTATION"),
            // The specification has no code for a relation that can't be.
            E::BadRelation(_) | E::StillIn => answer(StatusCode::BAD_REQUEST, "M_UNKNOWN"),
            E::TooLarge(_) => Self::too_large(text),
            E::InvalidRoomState(_) => answer(StatusCode::BAD_REQUEST, "M_INVALID_ROOM_STATE"),
            E::BadAlias(_) => answer(StatusCode::BAD_REQUEST, "M_BAD_ALIAS"),
            E::AliasInUse(_) => answer(StatusCode::BAD_REQUEST, "M_ROOM_IN_USE"),
            E::UnsupportedVersion(_) => answer(StatusCode::BAD_REQUEST, "M_UNSUPPORTED_ROOM_VERSION"),
            E::Policy(refusal) => {
                let status =
                    if refusal.is_silence { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::FORBIDDEN };
                Self::new(status, &refusal.errcode, refusal.error)
            }
            E::Store(cause) => cause.into(),
            E::Damaged { .. } | E::Unresolvable(_) | E::Internal(_) => Self::internal(&text),
        }
    }
}

impl From<backup::Error> for MatrixError {
    fn from(error: backup::Error) -> Self {
        use backup::Error as E;
        let text = error.to_string();
        match error {
            E::UnknownVersion | E::UnknownKey | E::NoBackup => Self::not_found(text),
            E::WrongVersion { current } => {
                Self::new(StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION", text)
                    .with("current_version", current.to_string())
            }
            E::OtherAlgorithm | E::NoSession => Self::invalid_param(text),
            E::TooLarge(_) => Self::too_large(text),
            E::TooMany { .. } => Self::new(StatusCode::FORBIDDEN, "M_RESOURCE_LIMIT_EXCEEDED", text),
            E::Store(cause) => cause.into(),
        }
    }
}
