//! What clients keep on the server for themselves: account data, global and of rooms, and the tags of rooms ("Client
//! Config", "Room Tagging").
//!
//! Every change is announced in the user's queue by the transaction that makes it. What one device reads, edits and
//! writes back never undoes what another did meanwhile: all edits of one user take turns.

use std::sync::Arc;

use ruma::{RoomId, UserId};
use serde_json::{Map, Value};

use super::{Accounts, Error, ignored, invites, push_rules};
use crate::{
    queue::{Kind, pointer},
    store::{
        Batch,
        account_data::{DELETED, FULLY_READ, GLOBAL, forget_deleted, set_account_data},
    },
};

/// Bytes of one content, as JSON.
const MAX_CONTENT: usize = 256 * 1024;
/// Rows of one user, over all rooms.
const MAX_ROWS: i64 = 20_000;
/// All contents of one user, over all rooms: a first sync has them in one answer.
const MAX_TOTAL: usize = 16 * 1024 * 1024;
/// Bytes of the name of a type, and of a tag.
const MAX_TYPE: usize = 255;
const MAX_TAG: usize = 255;
/// Tags of one room.
const MAX_TAGS: usize = 200;

/// Locks that users share by their number: an edit is short.
const LOCKS: usize = 64;

const TAGS: &str = "m.tag";

/// Lets the edits of one user take turns.
pub struct Turns([tokio::sync::Mutex<()>; LOCKS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::new(())))
    }
}

impl Turns {
    pub async fn of(&self, recipient: i64) -> tokio::sync::MutexGuard<'_, ()> {
        self.0[recipient.unsigned_abs() as usize % LOCKS].lock().await
    }
}

impl Accounts {
    /// The number of a room of this user, for their account data in it.
    pub async fn room_of(&self, user_id: &UserId, room_id: &RoomId) -> Result<i64, Error> {
        let room = self.store.room_of_user(user_id.as_str(), room_id.as_str()).await?;
        room.ok_or(Error::NotFound("room"))
    }

    /// The content of one type. `user_id` is the owner's.
    pub async fn data(
        &self,
        recipient: i64,
        user_id: &UserId,
        room: i64,
        kind: &str,
    ) -> Result<Value, Error> {
        if room == GLOBAL && kind == push_rules::TYPE {
            return self.push_rules_content(recipient, user_id).await;
        }
        self.stored(recipient, room, kind).await?.map(Value::Object).ok_or(Error::NotFound("account data"))
    }

    /// Sets what a client may set.
    pub async fn set_data(
        &self,
        recipient: i64,
        room: i64,
        kind: &str,
        content: &Map<String, Value>,
    ) -> Result<(), Error> {
        check_free(kind)?;
        match kind {
            _ if kind.len() > MAX_TYPE => {
                return Err(Error::TooLarge { what: "the type", limit: MAX_TYPE });
            }
            _ if kind.contains('\0') => return Err(Error::Invalid("a type can't hold a NUL".to_owned())),
            _ => {}
        }
        let content = serde_json::to_string(content).unwrap_or_default();
        if room == GLOBAL {
            invites::check(kind, &content)?;
        }
        let _turn = self.turns.of(recipient).await;
        self.write(recipient, room, kind, content).await
    }

    /// Deletes what a client may set, if it is there (MSC3391). Devices hear of it as `{}`.
    pub async fn delete_data(&self, recipient: i64, room: i64, kind: &str) -> Result<(), Error> {
        check_free(kind)?;
        let _turn = self.turns.of(recipient).await;
        if self.store.account_data(recipient, room, kind).await?.is_none() {
            return Ok(());
        }
        self.write(recipient, room, kind, DELETED.to_owned()).await
    }

    /// The tags of a room: their names, and what is said of each.
    pub async fn tags(&self, recipient: i64, room: i64) -> Result<Map<String, Value>, Error> {
        Ok(tags_of(self.stored(recipient, room, TAGS).await?))
    }

    /// Adds or replaces a tag.
    pub async fn set_tag(
        &self,
        recipient: i64,
        room: i64,
        tag: &str,
        info: Map<String, Value>,
    ) -> Result<(), Error> {
        if tag.len() > MAX_TAG {
            return Err(Error::TooLarge { what: "the tag", limit: MAX_TAG });
        }
        if info
            .get("order")
            .is_some_and(|order| order.as_f64().is_none_or(|order| !(0.0..=1.0).contains(&order)))
        {
            return Err(Error::Invalid("the order of a tag is a number from 0 to 1".to_owned()));
        }
        self.edit_tags(recipient, room, |tags| {
            tags.insert(tag.to_owned(), Value::Object(info));
        })
        .await
    }

    /// Takes a tag away, if it is there.
    pub async fn remove_tag(&self, recipient: i64, room: i64, tag: &str) -> Result<(), Error> {
        self.edit_tags(recipient, room, |tags| {
            tags.remove(tag);
        })
        .await
    }

    async fn edit_tags(
        &self,
        recipient: i64,
        room: i64,
        edit: impl FnOnce(&mut Map<String, Value>) + Send,
    ) -> Result<(), Error> {
        let _turn = self.turns.of(recipient).await;
        let before = tags_of(self.stored(recipient, room, TAGS).await?);
        let mut tags = before.clone();
        edit(&mut tags);
        if tags == before {
            return Ok(());
        }
        if tags.len() > MAX_TAGS {
            return Err(Error::TooLarge { what: "the number of tags", limit: MAX_TAGS });
        }
        self.write(recipient, room, TAGS, serde_json::json!({ "tags": tags }).to_string()).await
    }

    async fn stored(
        &self,
        recipient: i64,
        room: i64,
        kind: &str,
    ) -> Result<Option<Map<String, Value>>, Error> {
        let content = self.store.account_data(recipient, room, kind).await?;
        // Only what was checked is stored.
        Ok(content.and_then(|content| serde_json::from_str(&content).ok()))
    }

    /// Stores and announces content that differs from what there is. To be called in the user's turn.
    pub(super) async fn write(
        &self,
        recipient: i64,
        room: i64,
        kind: &str,
        content: String,
    ) -> Result<(), Error> {
        if content.len() > MAX_CONTENT {
            return Err(Error::TooLarge { what: "the content", limit: MAX_CONTENT });
        }
        let before = self.store.account_data(recipient, room, kind).await?;
        // Nobody has to hear of what doesn't change.
        if before.as_deref() == Some(&content) {
            return Ok(());
        }
        let growth = content.len().saturating_sub(before.as_ref().map_or(0, String::len));
        if before.is_none() || growth > 0 {
            let (mut rows, mut bytes) = self.store.account_data_size(recipient).await?;
            if before.is_none() && rows >= MAX_ROWS {
                self.store.commit(forget_deleted(recipient)).await?;
                (rows, bytes) = self.store.account_data_size(recipient).await?;
            }
            if before.is_none() && rows >= MAX_ROWS {
                let what = "the number of types of account data";
                return Err(Error::TooLarge { what, limit: MAX_ROWS as usize });
            }
            if bytes as usize + growth > MAX_TOTAL {
                return Err(Error::TooLarge { what: "all account data together", limit: MAX_TOTAL });
            }
        }
        let mut batch = Batch::new();
        let step = batch.step();
        batch.deliver(pointer([recipient], step, Kind::AccountData, room));
        batch.push(set_account_data(recipient, room, kind, &content, step));
        match kind {
            push_rules::TYPE if room == GLOBAL => {
                let kept = Arc::clone(&self.push_rules);
                batch.on_commit(move |_| kept.forget(recipient));
            }
            ignored::TYPE if room == GLOBAL => {
                let kept = Arc::clone(&self.ignored);
                batch.on_commit(move |_| kept.forget(recipient));
            }
            kind if room == GLOBAL && invites::is_about_invites(kind) => {
                let kept = Arc::clone(&self.invites);
                batch.on_commit(move |_| kept.forget(recipient));
            }
            _ => {}
        }
        self.store.commit(batch).await?;
        Ok(())
    }
}

/// What the server manages is neither set nor deleted by clients.
fn check_free(kind: &str) -> Result<(), Error> {
    match kind {
        push_rules::TYPE => Err(Error::Managed(push_rules::TYPE)),
        FULLY_READ => Err(Error::Managed(FULLY_READ)),
        _ => Ok(()),
    }
}

fn tags_of(content: Option<Map<String, Value>>) -> Map<String, Value> {
    match content.and_then(|mut content| content.remove("tags")) {
        Some(Value::Object(tags)) => tags,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{account::tests::World, store::statement};

    fn content() -> Map<String, Value> {
        Map::from_iter([("a".to_owned(), json!(1))])
    }

    /// I8: there is an end to how many types of account data one user has, over all rooms. What is there can be
    /// changed, and what is deleted makes room.
    #[tokio::test]
    async fn i8_a_user_has_a_bounded_number_of_types() {
        let world = World::new().await;
        let mut users = Vec::new();
        for name in ["alice", "bob"] {
            let user_id = world.register(name).await.unwrap().user_id;
            users.push(world.accounts.recipient(&user_id).await.unwrap().unwrap());
        }
        let [alice, bob] = users[..] else { unreachable!() };
        let before = world.store.account_data_size(alice).await.unwrap().0;
        let rows = statement!(
            "WITH RECURSIVE number (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM number WHERE value < $2)
             INSERT INTO account_data (recipient, room, type, content, changed)
             SELECT $1, value % 7, 'org.example.' || value, '{}', 0 FROM number",
            alice,
            MAX_ROWS - 1 - before,
        );
        world.store.commit(rows).await.unwrap();
        let set = async |recipient: i64, room: i64, kind: &str| {
            world.accounts.set_data(recipient, room, kind, &content()).await
        };
        set(alice, GLOBAL, "last").await.unwrap();
        for room in [GLOBAL, 1] {
            let refused = set(alice, room, "one too many").await;
            assert!(matches!(refused, Err(Error::TooLarge { limit: 20_000, .. })), "{refused:?}");
        }
        set(alice, 1, "org.example.1").await.unwrap();
        set(bob, GLOBAL, "one too many").await.unwrap();
        world.accounts.delete_data(alice, 1, "org.example.1").await.unwrap();
        set(alice, GLOBAL, "in its place").await.unwrap();
        let refused = set(alice, GLOBAL, "one too many").await;
        assert!(matches!(refused, Err(Error::TooLarge { limit: 20_000, .. })), "{refused:?}");
    }
}
