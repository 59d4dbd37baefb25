//! Deactivated users leave their rooms, some time after the request that ended their account; so do guests where they may no
//! longer be ([`super::guests`]).
//!
//! Who still has to is in the database: nothing is forgotten when the server stops half-way, and accounts
//! that another process deactivated are found too, and so is whoever comes into a room when their account has ended.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use ruma::{OwnedServerName, UserId};
use tokio::time::Instant;

use super::{Error, Room, Rooms};
use crate::{account, store::account::account_departed};

/// How often to look without being told. The question is answered by an index of those accounts alone.
const INTERVAL: Duration = Duration::from_secs(5);

/// How long somebody is left alone whom a silent policy server keeps: each attempt costs writes, and the others time.
const PUT_OFF: Duration = Duration::from_mins(5);

impl Rooms {
    /// Sees off whoever has to go, for ever. To be run once.
    pub async fn run_departures(&self) {
        let mut put_off = PutOff::new();
        loop {
            if let Err(cause) = self.see_off(&mut put_off).await {
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

    async fn see_off(&self, put_off: &mut PutOff) -> Result<(), Error> {
        let mut silent = Silent::default();
        put_off.retain(|_, since| since.elapsed() < PUT_OFF);
        for account in self.core.store.accounts_to_depart().await? {
            if put_off.contains_key(&account.recipient) {
                continue;
            }
            let mut outcome = Left::default();
            if let Ok(user_id) = UserId::parse(&account.user_id) {
                // What ends with the account does so before the rooms are left, whose people hear of its devices.
                let ended = self.core.accounts.deactivate(account.recipient, false).await;
                ended.map_err(|cause| match cause {
                    account::Error::Store(cause) => Error::Store(cause),
                    cause => Error::Internal(cause.to_string()),
                })?;
                outcome = self.leave_all(&user_id, &mut silent).await?;
            }
            if outcome.is_put_off {
                put_off.insert(account.recipient, Instant::now());
            } else {
                self.core.store.commit(account_departed(account.recipient, &outcome.stays)).await?;
            }
        }
        Ok(())
    }

    /// Makes a user leave every room, reject every invite and take back every knock. A room that refuses is left alone;
    /// only an error of the database stops it.
    async fn leave_all(&self, user_id: &UserId, silent: &mut Silent) -> Result<Left, Error> {
        let mut outcome = Left::default();
        for row in self.core.store.memberships(user_id.as_str()).await? {
            if !matches!(row.membership.as_str(), "join" | "invite" | "knock") {
                continue;
            }
            let left = async {
                let room = self.by_number(row.room).await?;
                self.depart(&room, user_id, None, silent).await
            };
            match left.await {
                Ok(left) => outcome.is_put_off |= !left,
                Err(cause @ Error::Store(_)) => return Err(cause),
                Err(cause) => {
                    tracing::warn!(%user_id, room = row.room_id, %cause, "a deactivated user stays in a room");
                    outcome.stays.push(row.room);
                }
            }
        }
        Ok(outcome)
    }

    /// Leaves a room for somebody who has to go. Whether that is done: it isn't yet if the room's policy server says nothing.
    pub(super) async fn depart(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<String>,
        silent: &mut Silent,
    ) -> Result<bool, Error> {
        let via = room.snapshot().policy_server().map(|policy| policy.via);
        if via.as_ref().is_some_and(|via| silent.contains(via)) {
            return Ok(false);
        }
        match self.leave_for_ever(room, user_id, reason).await {
            Err(Error::Policy(refusal)) if refusal.is_silence => {
                tracing::debug!(%user_id, room_id = %room.room_id, %refusal, "leaving is put off");
                silent.extend(via);
                Ok(false)
            }
            left => left.map(|()| true),
        }
    }
}

/// Policy servers that say nothing. They are asked once in a round, however many rooms are theirs.
pub(super) type Silent = HashSet<OwnedServerName>;

/// Accounts that silent policy servers keep in rooms, and since when they are left alone.
type PutOff = HashMap<i64, Instant>;

/// What came of an attempt to leave all rooms.
#[derive(Default)]
struct Left {
    /// The numbers of those that refuse.
    stays: Vec<i64>,
    /// There are some to be left later.
    is_put_off: bool,
}

#[cfg(test)]
mod tests {
    use std::sync::{Weak, atomic::Ordering};

    use hearth_federation::Task;
    use ruma::{OwnedUserId, ServerName, events::room::member::MembershipState};
    use serde_json::{json, value::RawValue};

    use super::{
        super::tests::{Mute, World, user},
        *,
    };
    use crate::{
        room::{AskPolicy, Preset, Refusal},
        store::{
            account::deactivate_account, device::add_device, device_key::set_device_keys,
            key_backup::add_backup,
        },
    };

    /// Two rooms of Bob's that anybody may join, and Alice, who is in the first.
    async fn story() -> (World, [Arc<Room>; 2], OwnedUserId, OwnedUserId) {
        let (alice, bob) = (user("alice"), user("bob"));
        let world = World::new(&[alice.as_str(), bob.as_str()]).await;
        let rooms =
            [world.room_of(&bob, Preset::PublicChat).await, world.room_of(&bob, Preset::PublicChat).await];
        world.rooms.join(&rooms[0], &alice, None).await.unwrap();
        (world, rooms, alice, bob)
    }

    async fn deactivate(world: &World, user_id: &UserId) {
        let recipient = world.accounts.recipient(user_id).await.unwrap().unwrap();
        world.store.commit(deactivate_account(recipient, false, 1)).await.unwrap();
    }

    /// A request that was under way when the account ended, or an invite by somebody who doesn't know.
    #[tokio::test]
    async fn who_comes_into_a_room_after_they_were_seen_off_leaves_it_too() {
        let (world, [first, second], alice, bob) = story().await;
        deactivate(&world, &alice).await;
        world.rooms.see_off(&mut PutOff::new()).await.unwrap();
        assert!(!first.snapshot().is_joined(&alice));

        world.rooms.join(&first, &alice, None).await.unwrap();
        world.rooms.invite(&second, &bob, &alice, None).await.unwrap();
        world.rooms.see_off(&mut PutOff::new()).await.unwrap();
        for room in [first, second] {
            assert_eq!(room.snapshot().membership(&alice), MembershipState::Leave);
        }
        assert!(world.store.accounts_to_depart().await.unwrap().is_empty());
    }

    /// A policy server in whose time somebody joins another room. It refuses what it is asked about.
    struct Meanwhile(Weak<Rooms>, Arc<Room>, OwnedUserId);

    impl AskPolicy for Meanwhile {
        fn ask<'a>(&'a self, _: &'a ServerName, _: &'a RawValue) -> Task<'a, Result<String, Refusal>> {
            Box::pin(async move {
                let Self(rooms, room, user_id) = self;
                rooms.upgrade().unwrap().join(room, user_id, None).await.unwrap();
                let (errcode, error) = ("M_FORBIDDEN".to_owned(), "stay".to_owned());
                Err(Refusal { errcode, error, is_silence: false })
            })
        }
    }

    #[tokio::test]
    async fn who_joins_while_they_are_seen_off_leaves_too() {
        let (world, [first, second], alice, bob) = story().await;
        let meanwhile = Meanwhile(Arc::downgrade(&world.rooms), Arc::clone(&second), alice.clone());
        world.rooms.ask_policy_servers_by(Arc::new(meanwhile));
        world.set_policy(&first, &bob, true).await;
        deactivate(&world, &alice).await;
        world.rooms.see_off(&mut PutOff::new()).await.unwrap();
        assert!(second.snapshot().is_joined(&alice));

        world.set_policy(&first, &bob, false).await;
        world.rooms.see_off(&mut PutOff::new()).await.unwrap();
        assert!(!second.snapshot().is_joined(&alice));
        assert!(world.store.accounts_to_depart().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn silence_of_a_policy_server_puts_a_departure_off() {
        let (world, rooms, alice, bob) = story().await;
        let mute = Arc::new(Mute::default());
        world.rooms.ask_policy_servers_by(Arc::<Mute>::clone(&mute));
        world.rooms.join(&rooms[1], &alice, None).await.unwrap();
        for room in &rooms {
            world.set_policy(room, &bob, true).await;
        }
        deactivate(&world, &alice).await;
        let mut put_off = PutOff::new();
        for _ in 0..3 {
            world.rooms.see_off(&mut put_off).await.unwrap();
        }
        assert_eq!(mute.0.load(Ordering::Relaxed), 1, "who is silent is asked once, for all rooms");
        assert_eq!(world.store.accounts_to_depart().await.unwrap().len(), 1);

        for room in &rooms {
            world.set_policy(room, &bob, false).await;
        }
        world.rooms.see_off(&mut PutOff::new()).await.unwrap();
        assert!(rooms.iter().all(|room| !room.snapshot().is_joined(&alice)));
        assert!(world.store.accounts_to_depart().await.unwrap().is_empty());
    }

    /// Of an account of which nothing but that it is deactivated is in the database yet.
    #[tokio::test]
    async fn au_15_a_deactivation_cut_short_is_finished() {
        let alice: OwnedUserId = user("alice");
        let world = World::new(&[alice.as_str()]).await;
        let room = world.room(&alice).await;
        let recipient = world.accounts.recipient(&alice).await.unwrap().unwrap();
        world.store.commit(Vec::from(add_device(alice.as_str(), "PHONE", None, 0))).await.unwrap();
        let device = world.store.device(recipient, "PHONE").await.unwrap().unwrap().id;
        let _ = world.accounts.set_profile_field(recipient, "displayname", json!("Alice")).await.unwrap();
        let mut statements = vec![set_device_keys(device, alice.as_str(), "PHONE", "{}".to_owned())];
        statements.extend(add_backup(recipient, 1, "m.test", "{}"));
        world.store.commit(statements).await.unwrap();
        world.store.commit(deactivate_account(recipient, true, 1)).await.unwrap();

        world.rooms.see_off(&mut PutOff::new()).await.unwrap();
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
