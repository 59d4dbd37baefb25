//! Devices that nobody is logged in on: a client leaves one here with its public keys, and what its owner needs to bring it to
//! life, encrypted. It gets messages as any device does, so that whoever logs in anew, with no other device at hand, finds the
//! keys of messages that were sent meanwhile.
//!
//! A user has one at most, and a new one takes the place of the one before in a single write. Such a device has no token, and
//! [`crate::account`] gives it none. Its mailbox is read, never emptied: whoever brings it to life may fail and begin again.
//!
//! Proposal: MSC3814.

use ruma::{OwnedDeviceId, UserId};

use super::{Error, Holder, Keys, Upload};
use crate::store::{
    self, Batch,
    dehydrated_device::{DehydratedRow, NewDevice, add_silent_device, set_dehydrated},
    device::{delete_devices, rename_device},
};

/// Bytes of what it takes to bring a device to life, as JSON. Clients' have some five thousand.
pub const MAX_DATA: usize = 65_536;

/// Bytes of a device's id.
const MAX_DEVICE_ID: usize = 255;

/// How often it is begun anew when devices are added at the same time.
const ATTEMPTS: usize = 16;

/// A device to be left here.
#[derive(Clone, Debug)]
pub struct Dehydrated {
    pub device_id: OwnedDeviceId,
    pub display_name: Option<String>,
    /// A JSON object, which is given back as it is.
    pub data: String,
    /// With the device's keys.
    pub keys: Upload,
}

impl Keys {
    pub async fn dehydrated(&self, recipient: i64) -> Result<Option<DehydratedRow>, Error> {
        Ok(self.store.dehydrated_device(recipient).await?)
    }

    /// Leaves a device here in place of the one before, which goes with all that it has, unless it is the same one.
    pub async fn dehydrate(
        &self,
        user_id: &UserId,
        recipient: i64,
        new: Dehydrated,
        now: i64,
    ) -> Result<(), Error> {
        let name = new.device_id.as_str();
        if name.is_empty() || name.len() > MAX_DEVICE_ID || name.contains('\0') {
            return Err(Error::Invalid(format!("a device id has 1 to {MAX_DEVICE_ID} bytes and no NUL")));
        }
        if new.data.len() > MAX_DATA {
            return Err(Error::TooMany { what: "the bytes of `device_data`", limit: MAX_DATA });
        }
        let mut attempt = 1;
        loop {
            let batch = self.replacement(user_id, recipient, &new, now).await?;
            match self.store.commit(batch).await {
                Ok(_) => return Ok(()),
                // The number went to another device, or the user did the same on another device.
                Err(store::Error::Conflict) if attempt < ATTEMPTS => attempt += 1,
                Err(cause) => return Err(cause.into()),
            }
        }
    }

    /// What has to be written for a device to be left here.
    async fn replacement(
        &self,
        user_id: &UserId,
        recipient: i64,
        new: &Dehydrated,
        now: i64,
    ) -> Result<Batch, Error> {
        let name = new.device_id.as_str();
        let before = self.store.dehydrated_device(recipient).await?;
        let existing = self.store.device(recipient, name).await?.map(|row| row.id);
        if existing.is_some() && existing != before.as_ref().map(|before| before.device) {
            return Err(Error::Invalid("somebody is logged in on the device of that id".to_owned()));
        }
        let mut batch = Batch::new();
        let device = if let Some(device) = existing {
            batch.push(rename_device(recipient, name, new.display_name.clone()));
            device
        } else {
            let device = self.store.last_device().await? + 1;
            let display_name = new.display_name.clone();
            let new = NewDevice { recipient, device, device_id: name, display_name, now };
            batch.extend(add_silent_device(new));
            device
        };
        batch.push(set_dehydrated(recipient, device, &new.data, before.as_ref().map(|before| before.device)));
        let holder = Holder { user_id, device_id: &new.device_id, recipient, device };
        self.add_upload(&mut batch, holder, &new.keys, existing.is_none()).await?;
        if let Some(before) = before.filter(|before| before.device != device) {
            batch.extend(delete_devices(recipient, &format!("[{}]", before.device)));
            self.lists.note(&mut batch, user_id, &[before.device_id.as_str().into()]).await?;
        }
        Ok(batch)
    }
}
