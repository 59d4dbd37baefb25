//! How far people have read: receipts, which others see, private ones, and the marker that only their owner sees
//! ("Receipts" and "Fully read markers" of the Client-Server API).
//!
//! A receipt is written together with what it does: the entries for everybody whom it concerns, and the end of the
//! notifications that it covers. Receipts never go back.

mod elsewhere;

use std::sync::Arc;

use ruma::{OwnedEventId, UserId};
use serde::Deserialize;

pub use self::elsewhere::Heard;
use crate::{
    environment::Environment,
    queue::{self, Kind as Entry},
    room::{Error, Event, Room, Rooms},
    store::{
        Batch, Parts, Store,
        account_data::{FULLY_READ, set_fully_read},
        receipt::{ReceiptKey, set_receipt},
        unread::{clear_unread, clear_unread_thread},
    },
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `m.read`: everybody in the room hears of it.
    Read,
    /// `m.read.private`: only its owner does.
    Private,
    /// `m.fully_read`: a marker among the owner's account data. It notifies of nothing.
    FullyRead,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Thread {
    /// The receipt is for all of the room.
    #[default]
    Unthreaded,
    Main,
    /// The thread that begins with this event.
    Root(OwnedEventId),
}

impl Thread {
    /// As it is stored and sent.
    fn name(&self) -> &str {
        match self {
            Self::Unthreaded => "",
            Self::Main => "main",
            Self::Root(begin) => begin.as_str(),
        }
    }
}

/// A receipt that a user wants to give.
#[derive(Clone, Debug)]
pub struct Mark {
    pub kind: Kind,
    pub event_id: OwnedEventId,
    pub thread: Thread,
}

/// Who gives it.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    pub recipient: i64,
    pub user_id: &'a UserId,
}

pub struct Receipts {
    store: Store,
    rooms: Arc<Rooms>,
    environment: Environment,
}

impl Receipts {
    pub fn new(store: Store, rooms: Arc<Rooms>, environment: Environment) -> Self {
        Self { store, rooms, environment }
    }

    /// Gives a member's receipts, all of them or none. Those that aren't ahead of what is there change nothing.
    pub async fn mark(&self, room: &Room, owner: Owner<'_>, marks: &[Mark]) -> Result<(), Error> {
        let sight = self.rooms.sight(room, owner.user_id).await?;
        let mut batch = Batch::new();
        for mark in marks {
            if mark.kind == Kind::FullyRead && mark.thread != Thread::Unthreaded {
                return Err(Error::InvalidParam("`m.fully_read` belongs to no thread".to_owned()));
            }
            let event = self.rooms.visible_event(room, &sight, &mark.event_id).await?;
            if !self.fits(room, &event, &mark.thread).await? {
                return Err(Error::InvalidParam(format!(
                    "`thread_id`: {} is not in the thread {}",
                    mark.event_id,
                    mark.thread.name()
                )));
            }
            match mark.kind {
                Kind::Read => self.receipt(&mut batch, room, owner, &event, "m.read", &mark.thread).await?,
                Kind::Private => {
                    self.receipt(&mut batch, room, owner, &event, "m.read.private", &mark.thread).await?;
                }
                Kind::FullyRead => self.marker(&mut batch, room, owner, &event).await?,
            }
        }
        if !batch.is_empty() {
            self.store.commit(batch).await?;
        }
        Ok(())
    }

    async fn receipt(
        &self,
        batch: &mut Batch,
        room: &Room,
        owner: Owner<'_>,
        event: &Event,
        kind: &str,
        thread: &Thread,
    ) -> Result<(), Error> {
        let key =
            ReceiptKey { room: room.number, user_id: owner.user_id.as_str(), kind, thread: thread.name() };
        if self.store.receipt_seq(key).await?.is_some_and(|seq| seq >= event.seq) {
            return Ok(());
        }
        let step = batch.step();
        let now = self.environment.clock.now_ms();
        batch.push(set_receipt(key, event.id().as_str(), event.seq, now, step));
        let everybody = room.snapshot();
        let recipients = if kind == "m.read" {
            let servers = everybody.remote.iter().map(|(number, _)| *number);
            everybody.local.iter().map(|member| member.recipient).chain(servers).collect()
        } else {
            // RC-21
            vec![owner.recipient]
        };
        batch.deliver(queue::pointer(recipients, step, Entry::Receipt, room.number));

        // RC-24: whichever is further ahead has cleared more.
        batch.settle(Parts::of(owner.recipient));
        batch.extend(match thread {
            Thread::Unthreaded => clear_unread(owner.recipient, room.number, event.seq),
            Thread::Main => clear_unread_thread(owner.recipient, room.number, "", event.seq),
            Thread::Root(begin) => {
                clear_unread_thread(owner.recipient, room.number, begin.as_str(), event.seq)
            }
        });
        let step = batch.step();
        batch.deliver(queue::pointer([owner.recipient], step, Entry::Unread, room.number));
        Ok(())
    }

    async fn marker(
        &self,
        batch: &mut Batch,
        room: &Room,
        owner: Owner<'_>,
        event: &Event,
    ) -> Result<(), Error> {
        #[derive(Deserialize)]
        struct Content {
            event_id: OwnedEventId,
        }
        let before = self.store.account_data(owner.recipient, room.number, FULLY_READ).await?;
        let before = before.and_then(|content| serde_json::from_str::<Content>(&content).ok());
        if let Some(before) = before
            && let Some(before) = found(self.rooms.event(room, &before.event_id).await)?
            && before.seq >= event.seq
        {
            return Ok(());
        }
        let step = batch.step();
        batch.push(set_fully_read(owner.recipient, room.number, event.id().as_str(), event.seq, step));
        batch.deliver(queue::pointer([owner.recipient], step, Entry::AccountData, room.number));
        Ok(())
    }

    /// RC-22: whether an event belongs where the receipt says.
    async fn fits(&self, room: &Room, event: &Event, thread: &Thread) -> Result<bool, Error> {
        match thread {
            Thread::Unthreaded => Ok(true),
            Thread::Main => self.rooms.is_in_thread(room, event, None).await,
            Thread::Root(begin) => self.rooms.is_in_thread(room, event, Some(begin)).await,
        }
    }
}

fn found(result: Result<Arc<Event>, Error>) -> Result<Option<Arc<Event>>, Error> {
    match result {
        Ok(event) => Ok(Some(event)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(cause) => Err(cause),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::room::tests::{World, user};

    #[tokio::test]
    async fn the_marker_never_goes_back_though_two_devices_move_it_at_once() {
        let alice = user("alice");
        let world = World::new(&[alice.as_str()]).await;
        let recipient = world.accounts.recipient(&alice).await.unwrap().unwrap();
        let (rooms, environment) = (Arc::clone(&world.rooms), world.environment.clone());
        let receipts = Receipts::new(world.store.clone(), rooms, environment);
        for round in 0..20 {
            let room = world.room(&alice).await;
            let (earlier, later) =
                (world.say(&room, &alice, "earlier").await, world.say(&room, &alice, "later").await);
            let mark = async |event_id: &OwnedEventId| {
                let (event_id, thread) = (event_id.clone(), Thread::Unthreaded);
                let marks = [Mark { kind: Kind::FullyRead, event_id, thread }];
                receipts.mark(&room, Owner { recipient, user_id: &alice }, &marks).await.unwrap();
            };
            let (first, second) = if round % 2 == 0 { (&earlier, &later) } else { (&later, &earlier) };
            tokio::join!(mark(first), mark(second));
            let marker = world.store.account_data(recipient, room.number, "m.fully_read").await.unwrap();
            assert_eq!(marker, Some(json!({ "event_id": later }).to_string()));
        }
    }
}
