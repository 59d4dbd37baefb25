//! What administrators do with accounts of others: lock them, suspend them, and see where they are used ("Account
//! locking", "Account suspension", "Server Administration").

use ruma::UserId;

use super::{Accounts, Error, Session};
use crate::store::{
    account::{AccountRow, set_locked, set_suspended},
    device::DeviceRow,
    user_limit::{UserLimitRow, delete_user_limit, set_user_limit},
};

/// What an account may be put under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// No request of its sessions is answered until it is unlocked, but they stay.
    Lock,
    /// It may read but hardly write.
    Suspension,
}

/// What an account gets in place of everybody's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnLimit {
    /// That of everybody.
    Usual,
    /// No limit.
    None,
    Rate {
        per_1000s: i64,
        burst: i64,
    },
}

/// A device as an administrator sees it.
#[derive(Clone, Debug)]
pub struct DeviceUse {
    pub device_id: String,
    /// Milliseconds since the Unix epoch.
    pub last_seen_ts: Option<i64>,
    pub last_seen_ip: Option<String>,
    pub user_agent: Option<String>,
}

impl Accounts {
    /// LK-03: an account that an administrator asks about. That they are one is checked before anything is looked up, so
    /// that nobody else learns who has an account.
    pub async fn administered(&self, by: &Session, user_id: &UserId) -> Result<AccountRow, Error> {
        if !by.admin {
            return Err(Error::NotAllowed("only administrators of this server may do that"));
        }
        if user_id.server_name() != self.server_name {
            return Err(Error::Invalid("this user is of another server".to_owned()));
        }
        let account = self.store.account_of(user_id.as_str()).await?;
        account.filter(|account| account.deactivated_ts.is_none()).ok_or(Error::NotFound("account"))
    }

    /// An account whose measures an administrator asks about or changes: not another administrator's.
    pub async fn measured(&self, by: &Session, user_id: &UserId) -> Result<AccountRow, Error> {
        let account = self.administered(by, user_id).await?;
        if account.admin && account.recipient != by.recipient {
            return Err(Error::NotAllowed("one administrator has no say over another"));
        }
        Ok(account)
    }

    /// Puts an account under a measure or ends that. Not one's own account, and not another administrator's.
    pub async fn moderate(
        &self,
        by: &Session,
        user_id: &UserId,
        measure: Measure,
        on: bool,
    ) -> Result<(), Error> {
        let account = self.measured(by, user_id).await?;
        if account.recipient == by.recipient {
            return Err(Error::NotAllowed("that can't be done to one's own account"));
        }
        self.set_measure(account.recipient, measure, on).await
    }

    /// [`Self::moderate`] by the operator, whom nothing is forbidden.
    pub async fn set_measure(&self, recipient: i64, measure: Measure, on: bool) -> Result<(), Error> {
        let statement = match measure {
            Measure::Lock => set_locked(recipient, on),
            Measure::Suspension => set_suspended(recipient, on),
        };
        // No session ends, but what is known of them is no longer so, in other processes too.
        self.store.commit(self.sessions.ending(recipient, vec![statement])).await?;
        Ok(())
    }

    /// Gives an account a rate of its own for a class of requests (`limits::Class`): requests in 1000 seconds and at once, no
    /// limit, or that of everybody again.
    pub async fn set_limit(&self, recipient: i64, class: &str, limit: OwnLimit) -> Result<(), Error> {
        let set = |rate| set_user_limit(UserLimitRow { recipient, class: class.to_owned(), rate });
        let statement = match limit {
            OwnLimit::Usual => delete_user_limit(recipient, class),
            OwnLimit::None => set(None),
            OwnLimit::Rate { per_1000s, burst } => set(Some((per_1000s, burst))),
        };
        // No session ends, but other processes look again.
        self.store.commit(self.sessions.ending(recipient, vec![statement])).await?;
        Ok(())
    }

    /// The limits that an account has of its own.
    pub async fn own_limits(&self, recipient: i64) -> Result<Vec<UserLimitRow>, Error> {
        let rows = self.store.user_limits().await?.into_iter();
        Ok(rows.filter(|row| row.recipient == recipient).collect())
    }

    /// Where an account is used, to its owner and to administrators.
    pub async fn whois(&self, by: &Session, user_id: &UserId) -> Result<Vec<DeviceUse>, Error> {
        let recipient = if by.user_id == user_id {
            by.recipient
        } else {
            self.administered(by, user_id).await?.recipient
        };
        let rows = self.store.devices(recipient).await?.into_iter();
        Ok(rows.map(|row| self.in_use(row)).collect())
    }

    fn in_use(&self, row: DeviceRow) -> DeviceUse {
        let seen = self.sessions.seen(row.id);
        DeviceUse {
            device_id: row.device_id,
            last_seen_ts: seen.as_ref().map(|seen| seen.at).or(row.last_seen_ts),
            last_seen_ip: seen.as_ref().map(|seen| seen.ip.clone()).or(row.last_seen_ip),
            user_agent: seen.and_then(|seen| seen.agent).or(row.last_seen_agent),
        }
    }
}
