//! Push rules ("Push Rules"): the account data `m.push_rules` of a user.
//!
//! Most users never change the rules that the specification predefines: nothing is stored for them. Whoever has rules of
//! their own has them in memory too, since each message to each of their rooms asks for them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::push::Ruleset;

use super::Accounts;
use crate::store;

/// The type of the account data.
pub(super) const TYPE: &str = "m.push_rules";

/// Users whose rules are kept in memory.
const KEPT: usize = 4_096;

/// The rules that are in memory. `None`: the user has the predefined ones.
pub(super) struct Kept {
    rules: Mutex<LruCache<i64, Option<Arc<Ruleset>>>>,
    /// Counts the changes, so that what was read before one is not kept after it.
    changes: AtomicU64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { rules: Mutex::new(LruCache::unbounded()), changes: AtomicU64::new(0) }
    }
}

impl Kept {
    pub(super) fn forget(&self, recipient: i64) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.rules.lock().pop(&recipient);
    }
}

impl Accounts {
    /// A user's rules, if they differ from the predefined ones.
    pub async fn custom_push_rules(&self, recipient: i64) -> Result<Option<Arc<Ruleset>>, store::Error> {
        let kept = &self.push_rules;
        if let Some(rules) = kept.rules.lock().get(&recipient) {
            return Ok(rules.clone());
        }
        let changes = kept.changes.load(Ordering::Acquire);
        let content = self.store.account_data(recipient, 0, TYPE).await?;
        let rules = match content.as_deref().map(serde_json::from_str::<Content>) {
            Some(Ok(content)) => Some(Arc::new(content.global)),
            Some(Err(cause)) => {
                tracing::error!(recipient, %cause, "stored push rules can't be read; the predefined ones hold");
                None
            }
            None => None,
        };
        let mut all = kept.rules.lock();
        if kept.changes.load(Ordering::Acquire) == changes {
            all.put(recipient, rules.clone());
            if all.len() > KEPT {
                all.pop_lru();
            }
        }
        Ok(rules)
    }
}

/// The content of `m.push_rules`.
#[derive(serde::Deserialize, serde::Serialize)]
pub(super) struct Content {
    global: Ruleset,
}
