//! Lists of devices elsewhere, as long as their users share a room with somebody here and somebody has asked for them.
//!
//! What their servers say of a change is taken if it follows the change that was known last; then all of the list is known,
//! and nobody has to be asked. If one was missed the list is stale: it isn't shown any more, and its server is asked for all
//! of it ([`super::resync`]). In either case those here who share a room hear that something changed, once.
//!
//! Nothing is kept of lists that nobody has asked for, but that is told all the same.
//!
//! Specification: [Device Management](https://spec.matrix.org/v1.19/server-server-api/#device-management) (DL-02, DL-06).

use std::{collections::BTreeMap, sync::Arc};

use ruma::{DeviceId, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::Value;

use super::{
    DeviceLists,
    foreign::{self, ForeignDevice, MASTER},
    resync::Resyncs,
};
use crate::store::{
    self, Batch, Store,
    device_key::CrossSigningKeyRow,
    followed::{
        FollowedRow, advance, delete_foreign_device, delete_foreign_key, mark_stale, set_foreign_device,
        set_foreign_key,
    },
};

/// Numbers of changes that one change names as those before.
const MOST_PREVIOUS: usize = 100;

/// A device of somebody elsewhere changed, as its server says (`m.device_list_update`).
#[derive(Debug, Deserialize)]
pub struct ListUpdate {
    pub user_id: OwnedUserId,
    pub device_id: String,
    pub stream_id: i64,
    #[serde(default)]
    pub prev_id: Vec<i64>,
    #[serde(default)]
    pub deleted: bool,
    #[serde(default)]
    pub device_display_name: Option<String>,
    #[serde(default)]
    pub keys: Option<Value>,
}

/// A user's own keys changed (`m.signing_key_update`).
#[derive(Debug, Deserialize)]
pub struct KeyUpdate {
    pub user_id: OwnedUserId,
    #[serde(default)]
    pub master_key: Option<Value>,
    #[serde(default)]
    pub self_signing_key: Option<Value>,
}

/// What a transaction says of devices and keys.
#[derive(Debug, Default)]
pub struct ListUpdates {
    pub devices: Vec<ListUpdate>,
    pub keys: Vec<KeyUpdate>,
}

/// What it says of one user.
#[derive(Default)]
struct OfUser {
    devices: Vec<ListUpdate>,
    keys: Vec<KeyUpdate>,
}

pub struct Followed {
    store: Store,
    lists: DeviceLists,
    resyncs: Arc<Resyncs>,
}

impl Followed {
    pub fn new(store: Store, lists: DeviceLists, resyncs: Arc<Resyncs>) -> Self {
        Self { store, lists, resyncs }
    }

    /// What another server says of its users' devices. What it says of others is nothing. What it is told to have been taken
    /// is durable.
    pub async fn hear(&self, origin: &ServerName, updates: ListUpdates) -> Result<(), store::Error> {
        let mut users: BTreeMap<OwnedUserId, OfUser> = BTreeMap::new();
        // DL-06
        let counts =
            |user_id: &UserId| user_id.server_name() == origin && user_id.validate_historical().is_ok();
        for update in updates.devices {
            let links = update.prev_id.len() <= MOST_PREVIOUS && update.stream_id >= 0;
            if counts(&update.user_id) && links && foreign::is_device_id(&update.device_id) {
                users.entry(update.user_id.clone()).or_default().devices.push(update);
            }
        }
        for update in updates.keys {
            if counts(&update.user_id) {
                users.entry(update.user_id.clone()).or_default().keys.push(update);
            }
        }
        for (user_id, updates) in users {
            self.hear_of(&user_id, updates).await?;
        }
        Ok(())
    }

    async fn hear_of(&self, user_id: &UserId, updates: OfUser) -> Result<(), store::Error> {
        let _turn = self.resyncs.turn(user_id).await;
        if !self.store.is_near(user_id.as_str()).await? {
            return Ok(());
        }
        let device = updates.devices.last().map(|update| update.device_id.clone());
        // What is being fetched may be from before. Of a user's own keys nobody knows, nor of a change that follows none: there
        // are servers that number none of theirs.
        let numbered =
            updates.keys.is_empty() && updates.devices.iter().all(|update| !update.prev_id.is_empty());
        let newest = updates.devices.iter().map(|update| update.stream_id).max().filter(|_| numbered);
        let links = match self.store.followed(user_id.as_str()).await? {
            Some(row) if !row.stale => self.links(user_id, row, updates).await?,
            _ => None,
        };
        let mut batch = links.unwrap_or_else(|| Batch::from(mark_stale(user_id.as_str())));
        // What is known already may not have been told.
        let device = device.as_deref().map(<&DeviceId>::from);
        self.lists.note_foreign(&mut batch, user_id, device).await?;
        self.resyncs.heard_of(user_id, newest.unwrap_or(i64::MAX));
        match self.store.commit(batch).await {
            // It isn't followed any more: the last room that was shared is gone.
            Err(store::Error::Conflict) | Ok(_) => {}
            Err(cause) => return Err(cause),
        }
        if self.store.followed(user_id.as_str()).await?.is_some_and(|row| row.stale) {
            self.resyncs.want(user_id);
        }
        Ok(())
    }

    /// What is to be written of changes of a list that is known up to `row`, unless one was missed.
    async fn links(
        &self,
        user_id: &UserId,
        row: FollowedRow,
        updates: OfUser,
    ) -> Result<Option<Batch>, store::Error> {
        let mut batch = Batch::new();
        let mut known = row.stream_id;
        for update in updates.devices {
            // Whatever is numbered below the last that is known came before it.
            let follows =
                !update.prev_id.is_empty() && update.prev_id.iter().all(|previous| *previous <= known);
            if !follows || update.stream_id < known {
                return Ok(None);
            }
            if update.stream_id == known {
                continue;
            }
            known = update.stream_id;
            batch.push(match device(user_id, update) {
                Ok(device) => {
                    set_foreign_device(user_id.as_str(), &device.device_id, device.keys, device.display_name)
                }
                Err(gone) => delete_foreign_device(user_id.as_str(), &gone),
            });
        }
        if !updates.keys.is_empty() {
            let users = serde_json::json!([user_id]).to_string();
            let mut stored = self.store.cross_signing_keys(&users).await?;
            for update in updates.keys {
                if !change_keys(&mut batch, user_id, &mut stored, update) {
                    return Ok(None);
                }
            }
        }
        batch.push(advance(user_id.as_str(), row.stream_id, known));
        Ok(Some(batch))
    }
}

/// Adds a change of a user's own keys, and makes it of what is stored. `false` if a key isn't right by what is known: the master
/// key that has signed it may have been missed.
fn change_keys(
    batch: &mut Batch,
    user_id: &UserId,
    stored: &mut Vec<CrossSigningKeyRow>,
    update: KeyUpdate,
) -> bool {
    let before = stored.iter().find(|row| row.usage == MASTER);
    let master = update.master_key.or_else(|| before.and_then(|row| serde_json::from_str(&row.key).ok()));
    let told = usize::from(master.is_some()) + usize::from(update.self_signing_key.is_some());
    let rows = foreign::own_keys(user_id, master, update.self_signing_key);
    if rows.len() < told {
        return false;
    }
    let after = rows.iter().find(|row| row.usage == MASTER);
    if before.map(|row| &row.public_key) != after.map(|row| &row.public_key) {
        // What another master key has signed is worth nothing any more.
        batch.push(delete_foreign_key(user_id.as_str(), foreign::SELF_SIGNING));
    }
    for row in rows {
        batch.push(set_foreign_key(&row));
        stored.retain(|other| other.usage != row.usage);
        stored.push(row);
    }
    true
}

/// The device that a change leaves; the id of one that it takes away. One whose keys aren't its own isn't there.
fn device(user_id: &UserId, update: ListUpdate) -> Result<ForeignDevice, String> {
    let device_id = update.device_id;
    if update.deleted {
        return Err(device_id);
    }
    let keys = match update.keys {
        Some(keys) => match foreign::device_keys(user_id, device_id.as_str().into(), keys) {
            Ok(keys) => Some(keys.to_string()),
            Err(cause) => {
                tracing::debug!(%user_id, device_id, %cause, "keys of a device elsewhere are passed over");
                return Err(device_id);
            }
        },
        None => None,
    };
    let display_name = update.device_display_name.as_deref().and_then(foreign::display_name);
    Ok(ForeignDevice { device_id, keys, display_name })
}
