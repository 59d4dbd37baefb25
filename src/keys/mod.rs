//! End-to-end encryption: public keys of devices and users, and what is sent from device to device. This server keeps and
//! hands out what devices publish; it sees no secret.
//!
//! Specification: [End-to-end encryption](https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption).

#![allow(dead_code, unused_imports)]

pub mod backup;
mod claim;
mod counts;
mod error;
mod everywhere;
mod followed;
mod foreign;
mod lists;
mod query;
mod resync;
mod shape;
pub mod to_device;

use std::sync::Arc;

use ruma::{OwnedServerName, UserId};

pub use self::{backup::KeyBackups, lists::DeviceLists, to_device::ToDevice};
use self::{claim::Claims, counts::KeyCounts};
pub use self::{
    claim::{ClaimedKeys, WantedKeys},
    counts::Left,
    error::Error,
    everywhere::{Everywhere, Failures, PATIENCE},
    followed::{Followed, KeyUpdate, ListUpdate, ListUpdates},
    query::{PublicKeys, WantedDevices, add_signature},
    resync::Resyncs,
};
use crate::store::Store;

/// The public keys of users and devices.
pub struct Keys {
    store: Store,
    server_name: OwnedServerName,
    counts: Arc<KeyCounts>,
    claims: Claims,
}

impl Keys {
    pub fn new(store: Store, server_name: OwnedServerName) -> Self {
        Self { store, server_name, counts: Arc::default(), claims: Claims::default() }
    }

    fn is_local(&self, user_id: &UserId) -> bool {
        user_id.server_name() == self.server_name
    }
}
