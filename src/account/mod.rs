//! Users: accounts, devices, sessions, profiles and account data.

mod session;

use std::sync::Arc;

use ruma::{UserId, push::Ruleset};

pub use self::session::{Session, Sessions};

pub struct Accounts;

impl Accounts {
    pub async fn custom_push_rules(&self, _: i64) -> Result<Option<Arc<Ruleset>>, crate::store::Error> {
        Ok(None)
    }

    pub async fn recipient(&self, _: &UserId) -> Result<Option<i64>, crate::store::Error> {
        Ok(None)
    }
}

/// What a user's member events say of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberProfile {
    pub displayname: Option<String>,
    pub avatar_url: Option<String>,
}

impl Accounts {
    pub async fn member_profile(&self, _: &UserId) -> Result<MemberProfile, crate::store::Error> {
        Ok(MemberProfile::default())
    }
}
