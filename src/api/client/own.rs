//! What only the owner may see and change, however the path names them.

use ruma::UserId;

use crate::{account::Session, http::MatrixError};

/// Refuses whoever isn't the user that the path names.
pub fn check(session: &Session, user_id: &UserId) -> Result<(), MatrixError> {
    if session.user_id == user_id {
        Ok(())
    } else {
        Err(MatrixError::forbidden("this belongs to another user"))
    }
}

/// [`check`] for the text of a path that nobody has parsed yet.
pub fn check_text(session: &Session, user_id: &str) -> Result<(), MatrixError> {
    let user_id = <&UserId>::try_from(user_id);
    check(session, user_id.map_err(|cause| MatrixError::invalid_param(cause.to_string()))?)
}
