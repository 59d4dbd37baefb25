//! Who has to hear that somebody's devices or keys changed: all who share a room with them, and they themselves. A change
//! is a row that each of them gets a pointer to; those of a user here form a chain, by which other servers see that they
//! missed one.
//!
//! Specification: [Device Management](https://spec.matrix.org/v1.19/server-server-api/#device-management).

use ruma::{DeviceId, UserId};

use crate::{
    queue::{Kind, pointer},
    store::{self, Batch, Store, device_list::insert_change},
};

#[allow(dead_code)]
#[derive(Clone)]
pub struct DeviceLists {
    store: Store,
}

#[allow(dead_code)]
impl DeviceLists {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// Adds to a batch that devices of a user changed, were added or removed; without any, that the user's own keys did.
    pub async fn note(
        &self,
        batch: &mut Batch,
        user_id: &UserId,
        devices: &[&DeviceId],
    ) -> Result<(), store::Error> {
        let recipients = self.store.recipients_near(user_id.as_str()).await?;
        let changed: Vec<Option<&str>> = match devices {
            [] => vec![None],
            devices => devices.iter().map(|device| Some(device.as_str())).collect(),
        };
        for device in changed {
            let step = batch.step();
            batch.push(insert_change(step, user_id.as_str(), device));
            batch.deliver(pointer(recipients.iter().copied(), step, Kind::DeviceList, 0));
        }
        Ok(())
    }
}
