//! Deactivated users leave their rooms, some time after the request that ended their account; so do guests where they may no
//! longer be ([`super::guests`]).
//!
//! Who still has to is in the database: nothing is forgotten when the server stops half-way, and accounts
//! that another process deactivated are found too.

use std::time::Duration;

use ruma::UserId;

use super::{Error, Rooms};
use crate::store::account::account_departed;

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
