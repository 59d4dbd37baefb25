//! Ignored users ("Ignoring Users"): the account data `m.ignored_user_list`.

use std::{collections::BTreeSet, sync::Arc};

use ruma::{OwnedUserId, UserId};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Accounts;
use crate::store::{self, account_data::GLOBAL};

/// The type of the account data.
pub(super) const TYPE: &str = "m.ignored_user_list";

/// Whom somebody ignores. Most ignore nobody.
#[derive(Clone, Debug, Default)]
pub struct IgnoredUsers(Option<Arc<BTreeSet<OwnedUserId>>>);

impl IgnoredUsers {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn iter(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.0.iter().flat_map(|ignored| ignored.iter())
    }

    pub fn contains(&self, user_id: &UserId) -> bool {
        self.0.as_ref().is_some_and(|ignored| ignored.contains(user_id))
    }
}

impl Accounts {
    pub async fn ignored_users(&self, recipient: i64) -> Result<IgnoredUsers, store::Error> {
        self.ignored.get(recipient, self.stored_ignored_users(recipient)).await
    }

    async fn stored_ignored_users(&self, recipient: i64) -> Result<IgnoredUsers, store::Error> {
        #[derive(Deserialize)]
        struct Content {
            ignored_users: Map<String, Value>,
        }
        let content = self.store.account_data(recipient, GLOBAL, TYPE).await?;
        // Clients write what they like: what isn't a list ignores nobody.
        let content = content.and_then(|content| serde_json::from_str::<Content>(&content).ok());
        let users =
            content.into_iter().flat_map(|content| content.ignored_users.into_iter().map(|(user, _)| user));
        let users: BTreeSet<OwnedUserId> = users.filter_map(|user| UserId::parse(user).ok()).collect();
        Ok(IgnoredUsers((!users.is_empty()).then(|| Arc::new(users))))
    }
}
