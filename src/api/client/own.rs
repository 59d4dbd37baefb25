//! What only the owner may see and change, however the path names them.

use ruma::UserId;

use crate::{account::Session, http::MatrixError};

pub fn check(session: &Session, user_id: &UserId) -> Result<(), MatrixError> {
    if session.user_id == user_id {
        Ok(())
    } else {
        Err(MatrixError::forbidden("this belongs to another user"))
    }
}
