//! Guests in rooms: they join where `m.room.guest_access` lets them, and leave when it no longer does ("Guest Access").
//!
//! Whatever ends their access (an event, a redaction, a resolution of the state) leaves a row in the commit that does;
//! the guests leave some time after it, by events of their own. What is still to be done is in the database.

use std::sync::Arc;

use ruma::{
    UserId,
    events::{StateEventType, room::member::MembershipState},
};

use super::{Error, Event, Rooms, Snapshot, departures::Silent, snapshot::LocalMember, work::Work};
use crate::store::{Batch, guest as table};

/// Said of why they leave.
const REASON: &str = "guests may no longer be in this room";

/// What a room said of guests before a batch.
pub(super) struct Access {
    event: Option<Arc<Event>>,
    /// The room is being made: nobody was in it.
    is_new: bool,
}

impl Access {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        Self { event: event(snapshot).cloned(), is_new: snapshot.last_seq == 0 }
    }

    /// Whether a batch that leads to `after` may have left guests in a room that they may not be in. (Within it they may have
    /// been let in for a moment.)
    pub(super) fn ends(&self, after: &Snapshot) -> bool {
        let same = match (&self.event, event(after)) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            (None, None) => true,
            _ => false,
        };
        !self.is_new && !same && !after.guests_may_join()
    }
}

fn event(snapshot: &Snapshot) -> Option<&Arc<Event>> {
    snapshot.state.get(&StateEventType::RoomGuestAccess, "")
}

/// Sees to it that the guests of a room leave it.
pub(super) fn revoke(batch: &mut Batch, snapshot: &Snapshot) {
    batch.push(table::revoke(snapshot.number, snapshot.last_seq));
}

impl Work<'_> {
    /// GU-02: refuses a join of a guest that the rules of the room would allow.
    pub(super) async fn check_guest(&self, target: &LocalMember, event: &Event) -> Result<(), Error> {
        let joins = event.pdu.membership() == Some(MembershipState::Join)
            && !self.snapshot.is_joined(&target.user_id);
        if !joins || self.snapshot.guests_may_join() {
            return Ok(());
        }
        let account = self.core.store.account(target.recipient).await?;
        if account.is_some_and(|account| account.guest) { Err(Error::GuestsForbidden) } else { Ok(()) }
    }
}

impl Rooms {
    /// GU-03: sees those guests off who may no longer be where they are. A room that fails stops no other; only an error of
    /// the database does.
    pub(super) async fn see_guests_off(&self) -> Result<(), Error> {
        let mut silent = Silent::default();
        for (number, seq) in self.core.store.guests_to_leave().await? {
            match self.guests_leave(number, &mut silent).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(cause @ Error::Store(_)) => return Err(cause),
                Err(cause) => tracing::warn!(room = number, %cause, "guests stay in a room"),
            }
            self.core.store.commit(table::left(number, seq)).await?;
        }
        Ok(())
    }

    /// Whether that is done, for as many of them as the room lets go.
    async fn guests_leave(&self, number: i64, silent: &mut Silent) -> Result<bool, Error> {
        let room = self.by_number(number).await?;
        // They may be let in again by now.
        if room.snapshot().guests_may_join() {
            return Ok(true);
        }
        let mut done = true;
        for user_id in self.core.store.guests_in(number).await? {
            let Ok(user_id) = UserId::parse(&user_id) else { continue };
            match self.depart(&room, &user_id, Some(REASON.to_owned()), silent).await {
                Ok(left) => done &= left,
                Err(cause @ Error::Store(_)) => return Err(cause),
                Err(cause) => tracing::warn!(%user_id, room = number, %cause, "a guest stays in a room"),
            }
        }
        Ok(done)
    }
}

#[cfg(test)]
mod tests {
    use ruma::{OwnedUserId, RoomVersionId, events::TimelineEventType};
    use serde_json::{Value, json, value::to_raw_value};

    use super::{
        super::tests::{Mute, World},
        *,
    };
    use crate::{
        room::{NewEvent, Preset, Room},
        store::account::{add_guest, register_guest},
    };

    fn state(sender: &UserId, kind: TimelineEventType, state_key: &str, content: &Value) -> NewEvent {
        NewEvent {
            sender: sender.to_owned(),
            kind,
            state_key: Some(state_key.to_owned()),
            content: to_raw_value(content).unwrap(),
            redacts: None,
        }
    }

    fn access(sender: &UserId, access: &str) -> NewEvent {
        state(sender, TimelineEventType::RoomGuestAccess, "", &json!({ "guest_access": access }))
    }

    fn join(guest: &UserId) -> NewEvent {
        state(guest, TimelineEventType::RoomMember, guest.as_str(), &json!({ "membership": "join" }))
    }

    /// A public room of `@alice:localhost`, and a guest who isn't in it.
    async fn story() -> (World, Arc<Room>, OwnedUserId, OwnedUserId) {
        let (alice, guest): (OwnedUserId, OwnedUserId) =
            ("@alice:localhost".try_into().unwrap(), "@1:localhost".try_into().unwrap());
        let world = World::new(&[alice.as_str()]).await;
        world.store.commit(add_guest(guest.as_str(), 0)).await.unwrap();
        let room = world.room(&alice).await;
        let rule = json!({ "join_rule": "public" });
        let rule = state(&alice, TimelineEventType::RoomJoinRules, "", &rule);
        world.rooms.append(&room, vec![rule, access(&alice, "forbidden")], None).await.unwrap();
        // The room has ended the access that its preset gives.
        world.rooms.see_guests_off().await.unwrap();
        assert_eq!(world.store.guests_to_leave().await.unwrap(), []);
        (world, room, alice, guest)
    }

    #[tokio::test]
    async fn gu_02_without_a_word_on_it_guests_may_not_join() {
        let room_id = "!r:localhost".try_into().unwrap();
        assert!(!Snapshot::empty(1, room_id, RoomVersionId::V11).unwrap().guests_may_join());
    }

    #[tokio::test]
    async fn a_new_room_has_no_guests_to_see_off() {
        let alice: OwnedUserId = "@alice:localhost".try_into().unwrap();
        let world = World::new(&[alice.as_str()]).await;
        let room = world.room_of(&alice, Preset::PublicChat).await;
        assert!(!room.snapshot().guests_may_join());
        assert_eq!(world.store.guests_to_leave().await.unwrap(), []);
    }

    /// GU-03: that they have to leave is as durable as what says so; who does it may be another process.
    #[tokio::test]
    async fn gu_03_who_has_to_leave_is_in_the_database() {
        let (world, room, alice, guest) = story().await;
        let rooms = &world.rooms;
        rooms.append(&room, vec![access(&alice, "can_join"), join(&guest)], None).await.unwrap();
        assert_eq!(world.store.guests_to_leave().await.unwrap(), []);
        rooms.append_one(&room, access(&alice, "forbidden"), None).await.unwrap();
        let seq = room.snapshot().last_seq;
        assert_eq!(world.store.guests_to_leave().await.unwrap(), [(room.number, seq)]);
        assert!(room.snapshot().is_joined(&guest));

        rooms.see_guests_off().await.unwrap();
        let member = room.snapshot().member(&guest).cloned().unwrap();
        assert_eq!((member.membership(), &member.pdu.sender), (MembershipState::Leave, &guest));
        assert_eq!(world.store.guests_to_leave().await.unwrap(), []);
    }

    /// Let in for no longer than a batch: the room is before and after it one that has no guests.
    #[tokio::test]
    async fn gu_03_a_guest_who_came_in_the_same_batch_leaves_too() {
        let (world, room, alice, guest) = story().await;
        let events = vec![access(&alice, "can_join"), join(&guest), access(&alice, "forbidden")];
        world.rooms.append(&room, events, None).await.unwrap();
        assert!(room.snapshot().is_joined(&guest));
        world.rooms.see_guests_off().await.unwrap();
        assert!(!room.snapshot().is_joined(&guest));
    }

    /// Who is let in again before they were seen off stays, and so does who has registered meanwhile.
    #[tokio::test]
    async fn gu_03_what_holds_when_they_are_seen_off_counts() {
        let (world, room, alice, guest) = story().await;
        let rooms = &world.rooms;
        let events = vec![
            access(&alice, "can_join"),
            join(&guest),
            access(&alice, "forbidden"),
            access(&alice, "can_join"),
        ];
        rooms.append(&room, events, None).await.unwrap();
        rooms.append_one(&room, access(&alice, "forbidden"), None).await.unwrap();
        rooms.append_one(&room, access(&alice, "can_join"), None).await.unwrap();
        rooms.see_guests_off().await.unwrap();
        assert!(room.snapshot().is_joined(&guest));

        rooms.append_one(&room, access(&alice, "forbidden"), None).await.unwrap();
        let recipient = world.store.account_of(guest.as_str()).await.unwrap().unwrap().recipient;
        world.store.commit(register_guest(recipient, None, false)).await.unwrap();
        rooms.see_guests_off().await.unwrap();
        assert!(room.snapshot().is_joined(&guest));
        assert_eq!(world.store.guests_to_leave().await.unwrap(), []);
    }

    #[tokio::test]
    async fn gu_03_silence_of_a_policy_server_puts_it_off() {
        let (world, room, alice, guest) = story().await;
        let rooms = &world.rooms;
        rooms.append(&room, vec![access(&alice, "can_join"), join(&guest)], None).await.unwrap();
        rooms.append_one(&room, access(&alice, "forbidden"), None).await.unwrap();
        rooms.ask_policy_servers_by(Arc::new(Mute::default()));
        world.set_policy(&room, &alice, true).await;
        rooms.see_guests_off().await.unwrap();
        assert!(room.snapshot().is_joined(&guest));

        world.set_policy(&room, &alice, false).await;
        rooms.see_guests_off().await.unwrap();
        assert!(!room.snapshot().is_joined(&guest));
        assert_eq!(world.store.guests_to_leave().await.unwrap(), []);
    }

    /// What asks for it again while they are being seen off isn't taken for done.
    #[tokio::test]
    async fn gu_03_the_last_who_asks_is_heard() {
        let (world, ..) = story().await;
        world.store.commit(table::revoke(1, 5)).await.unwrap();
        world.store.commit(table::revoke(1, 9)).await.unwrap();
        world.store.commit(table::left(1, 5)).await.unwrap();
        assert_eq!(world.store.guests_to_leave().await.unwrap(), [(1, 9)]);
    }
}
