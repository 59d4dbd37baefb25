//! Tokens by which a user proves to somebody else, such as an integration manager, who they are (`OpenID`).

use ruma::OwnedUserId;

use super::{
    Accounts, Error,
    session::{encode, hash},
};
use crate::store::openid::insert_openid_token;

/// How long a token is good for, in milliseconds.
pub const OPENID_LIFETIME_MS: i64 = 3_600_000;

impl Accounts {
    /// A new token of a user, which says who they are and lets nobody do anything.
    pub async fn openid_token(&self, recipient: i64) -> Result<String, Error> {
        let token = self.environment.entropy.token(43);
        let now = self.environment.clock.now_ms();
        let (hash, expires) = (encode(hash(&token)), now + OPENID_LIFETIME_MS);
        self.store.commit(insert_openid_token(&hash, recipient, expires, now)).await?;
        Ok(token)
    }

    /// Whose token it is.
    pub async fn openid_user(&self, token: &str) -> Result<Option<OwnedUserId>, Error> {
        let now = self.environment.clock.now_ms();
        let user_id = self.store.openid_user(&encode(hash(token)), now).await?;
        Ok(user_id.and_then(|user_id| OwnedUserId::try_from(user_id).ok()))
    }
}
