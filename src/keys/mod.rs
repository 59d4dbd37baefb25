//! End-to-end encryption: public keys of devices and users, and what is sent from device to device. This server keeps and
//! hands out what devices publish; it sees no secret.
//!
//! Specification: [End-to-end encryption](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption).

pub mod backup;
mod claim;
mod counts;
mod cross_signing;
mod dehydrated;
mod error;
mod everywhere;
mod followed;
mod foreign;
mod lists;
mod query;
mod resync;
mod shape;
mod signatures;
pub mod to_device;
mod upload;

use std::sync::Arc;

use ruma::{OwnedServerName, UserId};

pub use self::{
    backup::KeyBackups,
    claim::{ClaimedKeys, WantedKeys},
    counts::Left,
    cross_signing::SigningKeys,
    dehydrated::Dehydrated,
    error::Error,
    everywhere::{Everywhere, PATIENCE},
    followed::{Followed, ListUpdates},
    lists::DeviceLists,
    query::{PublicKeys, WantedDevices, add_signature},
    resync::Resyncs,
    signatures::ByKey,
    to_device::ToDevice,
    upload::{Holder, Upload},
};
use self::{claim::Claims, counts::KeyCounts};
use crate::store::Store;

/// The public keys of users and devices.
pub struct Keys {
    store: Store,
    server_name: OwnedServerName,
    lists: DeviceLists,
    counts: Arc<KeyCounts>,
    claims: Claims,
}

impl Keys {
    pub fn new(store: Store, server_name: OwnedServerName, lists: DeviceLists) -> Self {
        Self { store, server_name, lists, counts: Arc::default(), claims: Claims::default() }
    }

    fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.server_name
    }
}
