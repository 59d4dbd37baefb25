//! All SQL, and nothing but SQL.
//!
//! Reads go to a pool of connections and see whatever is committed. Writes are data ([`Batch`]) for the one
//! [`writer`], which commits them in groups. The files below name their tables; each function is one statement or one
//! question. Their texts are shared by all databases: `$1` placeholders, no identity columns, lists as JSON arrays. What
//! the writer runs for every commit, in [`commit`], [`settle`] and [`waiting`], is SQLite's own.
//!
//! All times are milliseconds since the Unix epoch. A `recipient` is the number of an account, a `room` that of a room.

pub mod account;
pub mod account_data;
pub mod alias;
#[cfg(test)]
mod alone;
mod batch;
mod commit;
pub mod copy;
pub mod dehydrated_device;
pub mod delayed_event;
pub mod destination;
pub mod device;
pub mod device_key;
pub mod device_list;
mod entry;
mod error;
pub mod event;
pub mod filter;
pub mod followed;
pub mod fork;
pub mod guest;
pub mod hole;
pub mod key_backup;
pub mod lacking_state;
pub mod notice_room;
pub mod one_time_key;
mod open;
pub mod openid;
pub mod presence;
pub mod profile;
pub mod queue;
mod readers;
pub mod receipt;
pub mod registration_token;
pub mod relation;
pub mod report;
pub mod retention;
pub mod room;
pub mod search;
mod server;
pub mod server_key;
pub mod server_txn;
mod settle;
pub mod sliding;
mod statement;
pub mod thread_subscription;
pub mod to_device;
pub mod token;
pub mod unread;
pub mod user_directory;
pub mod user_limit;
mod waiting;
mod writer;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::task::JoinHandle;

pub(crate) use self::statement::statement;
pub use self::{
    batch::{Batch, EventRow, Extent, StateRow, TxnRow},
    commit::Committed,
    entry::{Delivered, Delivery, Entry, Item, Kind, flags},
    error::Error,
    open::{Durability, is_behind, is_there},
    statement::{Arg, Expect, Record, Statement},
    waiting::Parts,
    writer::Subscriber,
};
use self::{readers::Readers, writer::Writer};
use crate::environment::Machine;

/// A handle on the database; clones share it.
#[derive(Clone)]
pub struct Store {
    readers: Readers,
    writer: Writer,
    /// The [`Parts`] that aren't up to date.
    unsettled: Arc<AtomicU64>,
    /// The last position when the database was opened.
    head: i64,
    /// What other processes had told before.
    told: i64,
}

impl Store {
    /// Opens the database below `path`, brings its schema up to date and starts the writer. The task ends once the last
    /// handle is gone; if it ends before, no write can succeed any more and the process should stop.
    pub async fn open_on(
        machine: Option<Arc<dyn Machine>>,
        path: &Path,
        durability: Durability,
        subscriber: Arc<dyn Subscriber>,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        let readers = Readers::open(path, durability, machine.as_ref()).await?;
        let file_system = machine.as_ref().map(|machine| machine.file_system());
        copy::take_over(&mut open::connect(path, durability, file_system)?)?;
        // Before anything that is read once: what another process tells later than this is noticed.
        let (told,): (i64,) = readers.one(&token::told_other_processes()).await?;
        let head = statement!("SELECT position FROM head WHERE id = 1");
        let (head,): (i64,) = readers.one(&head).await?;
        let unsettled = Arc::<AtomicU64>::default();
        let (writer, task) = Writer::start(path, durability, subscriber, Arc::clone(&unsettled), machine)?;
        Ok((Self { readers, writer, unsettled, head, told }, task))
    }

    /// The same on this machine.
    #[cfg(test)]
    pub async fn open(
        path: &Path,
        durability: Durability,
        subscriber: Arc<dyn Subscriber>,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        Self::open_on(None, path, durability, subscriber).await
    }

    /// Ends the reading. The last connection that ends, the writer's, leaves one whole file behind.
    pub async fn close(&self) {
        self.readers.close().await;
    }

    /// The last position that was given out before this process started.
    pub fn head_at_start(&self) -> i64 {
        self.head
    }

    /// [`Self::told_other_processes`] as it was before this process read anything else.
    pub fn told_at_start(&self) -> i64 {
        self.told
    }

    /// Makes a batch durable. When this returns `Ok`, it is on disk; on an error nothing of it is.
    pub async fn commit(&self, batch: impl Into<Batch>) -> Result<Committed, Error> {
        self.writer.commit(batch.into()).await
    }

    /// Writes a batch along with the next that is made durable, or a second later. Until then it may be lost, with the process or
    /// because nothing can be written: it is for what is as true without being written down. It is before whatever is handed in
    /// after it, and a server that stops has written it.
    pub async fn commit_soon(&self, batch: impl Into<Batch>) {
        self.writer.commit_soon(batch.into()).await;
    }

    /// Waits until all that was delivered before this call is in the tables `queue` and `unread`, as far as it is of these
    /// parts. They may be behind by some deliveries at any other moment.
    pub async fn settled(&self, parts: Parts) -> Result<(), Error> {
        if self.unsettled.load(Ordering::Acquire) & parts.bits() != 0 {
            let mut batch = Batch::new();
            batch.settle(parts);
            self.writer.commit(batch).await?;
        }
        Ok(())
    }

    /// Waits until whatever was committed before this call has been told to the subscriber. That is so too when nothing can be
    /// written.
    pub async fn published(&self) -> Result<(), Error> {
        match self.writer.commit(Batch::new()).await {
            Err(cause) if !cause.is_of_the_machine() => Err(cause),
            _ => Ok(()),
        }
    }

    /// As [`Store::settled`], if anything can be written at all; whether that was so. Who reads must be able to while the disk is
    /// full.
    pub async fn settled_if_possible(&self, parts: Parts) -> Result<bool, Error> {
        match self.settled(parts).await {
            Ok(()) => Ok(true),
            Err(cause) if cause.is_of_the_machine() => Ok(false),
            Err(cause) => Err(cause),
        }
    }

    async fn all<T: Record>(&self, question: Statement) -> Result<Vec<T>, Error> {
        Ok(self.readers.all(&question).await?)
    }

    async fn optional<T: Record>(&self, question: Statement) -> Result<Option<T>, Error> {
        Ok(self.readers.optional(&question).await?)
    }

    async fn one<T: Record>(&self, question: Statement) -> Result<T, Error> {
        Ok(self.readers.one(&question).await?)
    }
}
