//! A user's devices, and what ends them all: a new password, or the end of the account.

use ruma::{DeviceId, OwnedDeviceId};

use super::{Accounts, Error, login::checked_display_name, password};
use crate::store::{
    Batch, Error as StoreError,
    account::{deactivate_account, set_password},
    delayed_event::cancel_all,
    device::{DeviceRow, rename_device},
    key_backup::delete_backups,
    presence::delete_presence,
    profile::delete_profile,
    user_directory::delete_name,
};

/// A device as its user sees it.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    pub device_id: OwnedDeviceId,
    pub display_name: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub last_seen_ts: Option<i64>,
    pub last_seen_ip: Option<String>,
}

/// Which devices a new password logs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOut {
    Nobody,
    Everybody,
    /// All but the device of this number.
    Others(i64),
}

impl Accounts {
    /// A user's devices, oldest first.
    pub async fn devices(&self, recipient: i64) -> Result<Vec<DeviceInfo>, Error> {
        let rows = self.store.devices(recipient).await?;
        Ok(rows.into_iter().map(|row| self.describe(row)).collect())
    }

    pub async fn device(&self, recipient: i64, device_id: &DeviceId) -> Result<DeviceInfo, Error> {
        let row = self.store.device(recipient, device_id.as_str()).await?;
        row.map(|row| self.describe(row)).ok_or(Error::NotFound("device"))
    }

    fn describe(&self, row: DeviceRow) -> DeviceInfo {
        let seen = self.sessions.seen(row.id);
        DeviceInfo {
            device_id: row.device_id.into(),
            display_name: row.display_name,
            last_seen_ts: seen.as_ref().map(|seen| seen.at).or(row.last_seen_ts),
            last_seen_ip: seen.map(|seen| seen.ip).or(row.last_seen_ip),
        }
    }

    /// Without a name nothing changes, but the device has to exist.
    pub async fn rename_device(
        &self,
        recipient: i64,
        device_id: &DeviceId,
        display_name: Option<String>,
    ) -> Result<(), Error> {
        let Some(name) = display_name else {
            return self.device(recipient, device_id).await.map(drop);
        };
        let name = checked_display_name(&name)?;
        let mut batch = Batch::from(rename_device(recipient, device_id.as_str(), Some(name)));
        if let Some(account) = self.store.account(recipient).await? {
            let user_id = Self::user_id(&account)?;
            self.sessions.device_lists().note(&mut batch, &user_id, &[device_id]).await?;
        }
        match self.store.commit(batch).await {
            Err(StoreError::Conflict) => Err(Error::NotFound("device")),
            other => Ok(other.map(drop)?),
        }
    }

    /// Devices that don't exist (any more) are passed over.
    pub async fn delete_devices(&self, recipient: i64, device_ids: &[OwnedDeviceId]) -> Result<(), Error> {
        let devices = self.store.devices(recipient).await?;
        let named = |row: &&DeviceRow| device_ids.iter().any(|id| id.as_str() == row.device_id);
        let doomed: Vec<i64> = devices.iter().filter(named).map(|row| row.id).collect();
        self.drop_devices(recipient, &doomed).await
    }

    /// Whether somebody may choose this password: to be asked before they authenticate for it.
    pub fn check_new_password(password: &str) -> Result<(), Error> {
        password::check(password)
    }

    /// A new password.
    pub async fn set_password(&self, recipient: i64, password: String, log_out: LogOut) -> Result<(), Error> {
        let hash = self.passwords.hash(password).await?;
        let change = set_password(recipient, hash);
        let done = match log_out {
            LogOut::Nobody => self.store.commit(change).await.map(drop).map_err(Error::from),
            LogOut::Everybody => self.commit_without_devices(vec![change], recipient, None).await,
            LogOut::Others(kept) => self.commit_without_devices(vec![change], recipient, Some(kept)).await,
        };
        match done {
            Err(Error::Store(StoreError::Conflict)) => Err(Error::Deactivated),
            done => done,
        }
    }

    /// The end of an account: no login any more, no devices, no profile. What it said stays; its rooms are left by
    /// whoever owns them (see [`crate::store::Store::accounts_to_depart`]). Nothing happens to one that has ended so.
    pub async fn deactivate(&self, recipient: i64, erase: bool) -> Result<(), Error> {
        let now = self.environment.clock.now_ms();
        let mut statements = vec![
            deactivate_account(recipient, erase, now),
            delete_profile(recipient),
            delete_name(recipient),
            delete_presence(recipient),
            cancel_all(recipient, now),
        ];
        statements.extend(delete_backups(recipient));
        self.commit_without_devices(statements, recipient, None).await
    }
}
