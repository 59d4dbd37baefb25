//! The one writer of the database. It commits all batches that are ready in one transaction (group commit), so that
//! the cost of making a write durable is shared, and it alone gives out positions, so that position order is commit
//! order.
//!
//! A batch that fails takes nobody with it: its group is rolled back and each batch is tried again alone.

use std::sync::Arc;

use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error};

use super::{
    Error,
    batch::{Adopt, Batch, Delivery, Item},
    statement::{Expect, bind},
};

/// The most batches in a group: bounds how long the first of them waits for the last.
const GROUP: usize = 256;

/// What a commit did.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// The position of the batch's step `n` is `base + n`.
    pub base: i64,
}

/// An entry as it stands in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    pub recipient: i64,
    pub position: i64,
    pub kind: i16,
    pub room: i64,
    pub item: i64,
    pub flags: i64,
}

/// Told of each group after its commit, in order.
pub trait Subscriber: Send + Sync {
    /// All positions up to `head` are now visible, `delivered` among them.
    fn committed(&self, head: i64, delivered: &[Delivered]);
}

struct Job {
    batch: Batch,
    adopt: Option<Adopt>,
    done: oneshot::Sender<Result<Committed, Error>>,
}

#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the writer. It ends when the last handle is dropped and all that was handed in is durable.
    pub(super) fn start(
        pool: SqlitePool,
        subscriber: Arc<dyn Subscriber>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (jobs, waiting) = mpsc::channel(4 * GROUP);
        let task = tokio::spawn(run(pool, subscriber, waiting));
        (Self { jobs }, task)
    }

    pub(super) async fn commit(&self, mut batch: Batch) -> Result<Committed, Error> {
        let (done, result) = oneshot::channel();
        let adopt = batch.adopt.take();
        self.jobs.send(Job { batch, adopt, done }).await.map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)?
    }
}

async fn run(pool: SqlitePool, subscriber: Arc<dyn Subscriber>, mut waiting: mpsc::Receiver<Job>) {
    let mut group = Vec::with_capacity(GROUP);
    while waiting.recv_many(&mut group, GROUP).await > 0 {
        let batches: Vec<&Batch> = group.iter().map(|job| &job.batch).collect();
        match commit(&pool, &batches).await {
            Ok(base) => publish(group.drain(..), base, subscriber.as_ref()),
            Err(cause) if group.len() > 1 => {
                debug!(%cause, batches = group.len(), "a group of writes failed; trying each alone");
                for job in group.drain(..) {
                    alone(&pool, job, subscriber.as_ref()).await;
                }
            }
            Err(cause) => group.drain(..).for_each(|job| refuse(job, cause.clone())),
        }
    }
}

async fn alone(pool: &SqlitePool, job: Job, subscriber: &dyn Subscriber) {
    match commit(pool, &[&job.batch]).await {
        Ok(base) => publish(std::iter::once(job), base, subscriber),
        Err(cause) => refuse(job, cause),
    }
}

fn refuse(job: Job, cause: Error) {
    if !matches!(cause, Error::Conflict) {
        error!(%cause, "a write failed");
    }
    // A caller that no longer waits has nothing to be told.
    let _ = job.done.send(Err(cause));
}

/// Memory adopts what is durable, then readers wake, then the callers get their answers.
fn publish(jobs: impl Iterator<Item = Job>, base: i64, subscriber: &dyn Subscriber) {
    let mut delivered = Vec::new();
    let mut answers = Vec::new();
    let mut head = base;
    for job in jobs {
        if let Some(adopt) = job.adopt {
            adopt(head);
        }
        delivered.extend(job.batch.deliveries.iter().map(|delivery| settle(delivery, head)));
        answers.push((job.done, Committed { base: head }));
        head += i64::from(job.batch.steps);
    }
    if head > base {
        subscriber.committed(head, &delivered);
    }
    for (done, committed) in answers {
        let _ = done.send(Ok(committed));
    }
}

fn settle(delivery: &Delivery, base: i64) -> Delivered {
    let position = base + i64::from(delivery.step);
    let item = match delivery.item {
        Item::Value(value) => value,
        Item::Position => position,
    };
    Delivered {
        recipient: delivery.recipient,
        position,
        kind: delivery.kind,
        room: delivery.room,
        item,
        flags: delivery.flags,
    }
}

/// One transaction for all batches. Returns the position before the first step of the first batch.
async fn commit(pool: &SqlitePool, batches: &[&Batch]) -> Result<i64, Error> {
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let steps: i64 = batches.iter().map(|batch| i64::from(batch.steps)).sum();
    let base = if steps == 0 {
        0
    } else {
        let (head,): (i64,) =
            sqlx::query_as("UPDATE head SET position = position + $1 WHERE id = 1 RETURNING position")
                .bind(steps)
                .fetch_one(&mut *tx)
                .await?;
        head - steps
    };

    insert_rows(&mut tx, batches, base).await?;
    let mut start = base;
    for batch in batches {
        for statement in &batch.statements {
            let touched = bind(statement, start).execute(&mut *tx).await?.rows_affected();
            if statement.expect != Expect::Any && statement.expect != Expect::Rows(touched) {
                return Err(Error::Conflict);
            }
        }
        start += i64::from(batch.steps);
    }
    tx.commit().await?;
    Ok(base)
}

/// The rows of all batches, a statement a table. Rows travel as one JSON array each.
async fn insert_rows(tx: &mut Transaction<'_, Sqlite>, batches: &[&Batch], base: i64) -> Result<(), Error> {
    let mut start = base;
    let (mut states, mut queue, mut unread, mut txns) =
        (Rows::default(), Rows::default(), Rows::default(), Rows::default());
    for batch in batches {
        for row in &batch.events {
            sqlx::query(
                "INSERT INTO event (room, seq, event_id, position, pdu, verdict, sender_device, txn_id)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(row.room)
            .bind(row.seq)
            .bind(&row.event_id)
            .bind(start + i64::from(row.step))
            .bind(&*row.pdu)
            .bind(row.verdict)
            .bind(row.sender_device)
            .bind(row.txn_id.as_deref())
            .execute(&mut **tx)
            .await?;
        }
        for row in &batch.state {
            states.push(&(row.room, &row.kind, &row.state_key, row.seq, row.event))?;
        }
        for delivery in &batch.deliveries {
            let row = settle(delivery, start);
            queue.push(&(row.recipient, row.position, row.kind, row.room, row.item, row.flags))?;
        }
        for row in &batch.unread {
            unread.push(&(row.recipient, row.room, row.seq, i64::from(row.highlight), &row.thread))?;
        }
        for row in &batch.txns {
            txns.push(&(row.device, row.path, &row.txn_id, &row.event, row.created_ts))?;
        }
        start += i64::from(batch.steps);
    }
    states
        .insert(
            tx,
            "INSERT INTO state_log (room, type, state_key, seq, event)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each($1)",
        )
        .await?;
    queue
        .insert(
            tx,
            "INSERT INTO queue (recipient, position, kind, room, item, flags)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5
             FROM json_each($1)",
        )
        .await?;
    unread
        .insert(
            tx,
            "INSERT INTO unread (recipient, room, seq, highlight, thread)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each($1)",
        )
        .await?;
    txns.insert(
        tx,
        "INSERT INTO txn (device, path, txn_id, event, created_ts)
         SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each($1)",
    )
    .await
}

/// A JSON array under construction.
#[derive(Default)]
struct Rows(Vec<u8>);

impl Rows {
    fn push(&mut self, row: &impl serde::Serialize) -> Result<(), Error> {
        self.0.push(if self.0.is_empty() { b'[' } else { b',' });
        serde_json::to_writer(&mut self.0, row).map_err(|cause| Error::Encoding(cause.to_string()))
    }

    async fn insert(mut self, tx: &mut Transaction<'_, Sqlite>, text: &'static str) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        self.0.push(b']');
        let rows = String::from_utf8(self.0).map_err(|cause| Error::Encoding(cause.to_string()))?;
        sqlx::query(text).bind(rows).execute(&mut **tx).await?;
        Ok(())
    }
}
