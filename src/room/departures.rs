//! Deactivated users leave their rooms, some time after the request that ended their account; so do guests where they may no
//! longer be ([`super::guests`]).
//!
//! Who still has to is in the database: nothing is forgotten when the server stops half-way, and accounts
//! that another process deactivated are found too.

use std::time::Duration;

use ruma::UserId;

use super::{Error, Rooms};
use crate::{account, store::account::account_departed};

/// How often to look without being told. The question is answered by an index of those accounts alone.
const INTERVAL: Duration = Duration::from_secs(5);

impl Rooms {
    /// Sees off whoever has to go, for ever. To be run once.
    pub async fn run_departures(&self) {
        loop {
            if let Err(cause) = self.see_off().await {
                tracing::warn!(%cause, "deactivated users are still in their rooms; trying again soon");
            }
            if let Err(cause) = self.see_guests_off().await {
                tracing::warn!(%cause, "guests are still in rooms that they may not be in; trying again soon");
            }
            // An error here is the time that is up.
            let _ = tokio::time::timeout(INTERVAL, self.core.departing.notified()).await;
        }
    }

    /// Says that an account was deactivated just now.
    pub fn nudge_departures(&self) {
        self.core.departing.notify_one();
    }

    async fn see_off(&self) -> Result<(), Error> {
        for account in self.core.store.accounts_to_depart().await? {
            if let Ok(user_id) = UserId::parse(&account.user_id) {
                // What ends with the account does so before the rooms are left, whose people hear of its devices.
                let ended = self.core.accounts.deactivate(account.recipient, false).await;
                ended.map_err(|cause| match cause {
                    account::Error::Store(cause) => Error::Store(cause),
                    cause => Error::Internal(cause.to_string()),
                })?;
                self.leave_all(&user_id).await?;
            }
            self.core.store.commit(account_departed(account.recipient)).await?;
        }
        Ok(())
    }

    /// Makes a user leave every room, reject every invite and take back every knock. A room that refuses is left alone;
    /// only an error of the database stops it.
    async fn leave_all(&self, user_id: &UserId) -> Result<(), Error> {
        for row in self.core.store.memberships(user_id.as_str()).await? {
            if !matches!(row.membership.as_str(), "join" | "invite" | "knock") {
                continue;
            }
            let left = async {
                let room = self.by_number(row.room).await?;
                self.leave_for_ever(&room, user_id, None).await
            };
            match left.await {
                Ok(()) => {}
                Err(cause @ Error::Store(_)) => return Err(cause),
                Err(cause) => {
                    tracing::warn!(%user_id, room = row.room_id, %cause, "a deactivated user stays in a room");
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ruma::OwnedUserId;

    use super::super::tests::{World, user};
    use crate::store::{
        account::deactivate_account, device::add_device, device_key::set_device_keys, key_backup::add_backup,
        profile::set_profile_field,
    };

    /// Of an account of which nothing but that it is deactivated is in the database yet.
    #[tokio::test]
    async fn au_15_a_deactivation_cut_short_is_finished() {
        let alice: OwnedUserId = user("alice");
        let world = World::new(&[alice.as_str()]).await;
        let room = world.room(&alice).await;
        let recipient = world.accounts.recipient(&alice).await.unwrap().unwrap();
        world.store.commit(Vec::from(add_device(alice.as_str(), "PHONE", None, 0))).await.unwrap();
        let device = world.store.device(recipient, "PHONE").await.unwrap().unwrap().id;
        let mut statements = vec![
            set_device_keys(device, alice.as_str(), "PHONE", "{}".to_owned()),
            set_profile_field(recipient, "displayname", "\"Alice\""),
        ];
        statements.extend(add_backup(recipient, 1, "m.test", "{}"));
        world.store.commit(statements).await.unwrap();
        world.store.commit(deactivate_account(recipient, true, 1)).await.unwrap();

        world.rooms.see_off().await.unwrap();
        assert_eq!(world.store.devices(recipient).await.unwrap().len(), 0);
        assert!(world.store.keys_of_device(alice.as_str(), "PHONE").await.unwrap().is_none());
        assert_eq!(world.store.current_key_backup(recipient).await.unwrap(), None);
        assert_eq!(world.store.profile(recipient).await.unwrap(), []);
        assert!(!room.snapshot().is_joined(&alice));
        let account = world.store.account(recipient).await.unwrap().unwrap();
        assert_eq!(account.deactivated_ts, Some(1), "it ended when it did");
        assert!(world.store.accounts_to_depart().await.unwrap().is_empty());
    }
}
