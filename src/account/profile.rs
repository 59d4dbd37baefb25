//! What users say about themselves ("Profiles").

use ruma::UserId;

use super::Accounts;
use crate::store;

/// What a user's member events say of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberProfile {
    pub displayname: Option<String>,
    pub avatar_url: Option<String>,
}

impl Accounts {
    /// Nothing of somebody unknown.
    pub async fn member_profile(&self, user_id: &UserId) -> Result<MemberProfile, store::Error> {
        let mut profile = MemberProfile::default();
        let Some(account) = self.store.account_of(user_id.as_str()).await? else { return Ok(profile) };
        for (field, value) in self.store.profile(account.recipient).await? {
            // Only what was checked is stored.
            let text = || serde_json::from_str::<String>(&value).ok();
            match field.as_str() {
                "displayname" => profile.displayname = text(),
                "avatar_url" => profile.avatar_url = text(),
                _ => {}
            }
        }
        Ok(profile)
    }
}
