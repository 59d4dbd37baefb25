//! Sessions: from an access token to the account and device that it speaks for.

use ruma::{OwnedDeviceId, OwnedUserId};

use crate::{
    http::{MatrixError, Origin},
    store::Store,
};

/// Who a request speaks for.
#[derive(Clone, Debug)]
pub struct Session {
    /// The account's number: the name of its queue.
    pub recipient: i64,
    pub user_id: OwnedUserId,
    /// The device's number.
    pub device: i64,
    pub device_id: OwnedDeviceId,
    pub admin: bool,
}

pub struct Sessions {
    store: Store,
}

impl Sessions {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    pub async fn authenticate(&self, _token: &str, _origin: &Origin) -> Result<Session, MatrixError> {
        Err(MatrixError::unknown_token(false))
    }
}
