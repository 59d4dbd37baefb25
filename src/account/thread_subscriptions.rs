//! Threads that a user wants to hear of (MSC4306). Whether a thread is there and may be seen is the caller's question.

use std::collections::HashMap;

use super::{Accounts, Error};
use crate::{
    queue::{Kind, pointer},
    store::{
        self, Batch,
        thread_subscription::{SubscriptionRow, subscribe, unsubscribe},
    },
};

impl Accounts {
    /// The user's subscription to a thread, and whether a client made it by itself.
    pub async fn thread_subscription(
        &self,
        recipient: i64,
        room: i64,
        root: &str,
    ) -> Result<Option<bool>, Error> {
        let row = self.store.thread_subscription(recipient, room, root).await?;
        Ok(row.filter(|row| row.subscribed).map(|row| row.automatic))
    }

    /// Which of these recipients are subscribed to a thread. Only those are in it who ever subscribed to one: the others'
    /// clients don't know subscriptions, so to them threads are as the specification has them.
    pub async fn thread_subscriptions_of(
        &self,
        recipients: Vec<i64>,
        room: i64,
        root: &str,
    ) -> Result<HashMap<i64, bool>, store::Error> {
        self.store.thread_subscribers(format!("{recipients:?}"), room, root).await
    }

    /// Subscribes. `cause` is the `seq` of the event for which a client does it by itself: that changes no subscription
    /// of the user's own making, and doesn't undo that they unsubscribed when the event was there already.
    pub async fn subscribe_thread(
        &self,
        recipient: i64,
        room: i64,
        root: &str,
        cause: Option<i64>,
    ) -> Result<(), Error> {
        let _turn = self.turns.of(recipient).await;
        let before = self.store.thread_subscription(recipient, room, root).await?;
        if let Some(before) = before {
            if before.subscribed && (cause.is_some() || !before.automatic) {
                return Ok(());
            }
            if cause.is_some_and(|cause| cause <= before.ended) {
                return Err(Error::ConflictingUnsubscription);
            }
        }
        let mut batch = Batch::new();
        let step = batch.step();
        batch.push(subscribe(recipient, room, root, cause.is_some(), step));
        batch.deliver(pointer([recipient], step, Kind::ThreadSubscription, room));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Unsubscribes, if the user was subscribed. `last_seq` is the room's.
    pub async fn unsubscribe_thread(
        &self,
        recipient: i64,
        room: i64,
        root: &str,
        last_seq: i64,
    ) -> Result<(), Error> {
        let _turn = self.turns.of(recipient).await;
        let mut batch = Batch::new();
        let step = batch.step();
        batch.push(unsubscribe(recipient, room, root, last_seq, step));
        batch.deliver(pointer([recipient], step, Kind::ThreadSubscription, room));
        self.store.commit(batch).await?;
        Ok(())
    }

    /// Subscriptions that changed after one position and up to another, the latest first.
    pub async fn thread_subscriptions(
        &self,
        recipient: i64,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Vec<SubscriptionRow>, Error> {
        Ok(self.store.thread_subscriptions(recipient, after, upto, limit).await?)
    }
}
