//! The one writer of the database. It commits all batches that are ready in one transaction (group commit), so that
//! the cost of making a write durable is shared, and it alone gives out positions, so that position order is commit
//! order.
//!
//! It has a thread and a connection of its own, because a commit is a dozen short statements: each would cost more to
//! hand to another thread than to run. A batch that conflicts with what is stored takes nobody with it: it is undone
//! alone, and the rest of its group is committed. What may as well be written a little later goes along with whatever
//! comes next, and costs no commit of its own.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior, params};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{error, info};

use super::{
    Error,
    batch::{Adopt, Batch},
    entry::Delivered,
    open::{self, Durability},
    settle::{self, Announced, Behind, Txns},
    statement::{Arg, Expect, Statement},
    waiting::Waiting,
};
use crate::{
    environment::{Machine, Work},
    seldom::Seldom,
};

/// The most batches in a group: bounds how long the first of them waits for the last.
const GROUP: usize = 256;

/// How long what is to be written soon waits for something to go along with.
const SOON: Duration = Duration::from_secs(1);

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The position of the batch's step `n` is `base + n`.
    pub base: i64,
}

/// Told of each group after its commit, in order.
pub trait Subscriber: Send + Sync {
    /// The positions after `base`, up to `head`, are now visible, with these entries. Where `base` is more than the last `head`,
    /// another process has given out those between.
    fn committed(&self, base: i64, head: i64, delivered: &[Delivered]);
}

struct Job {
    batch: Batch,
    adopt: Option<Adopt>,
    done: oneshot::Sender<Result<Committed, Error>>,
}

impl Job {
    fn new(mut batch: Batch) -> (Self, oneshot::Receiver<Result<Committed, Error>>) {
        let (done, result) = oneshot::channel();
        let adopt = batch.adopt.take();
        (Self { batch, adopt, done }, result)
    }
}

#[derive(Clone)]
pub(super) struct Writer {
    jobs: mpsc::Sender<Job>,
    soon: Arc<Mutex<Soon>>,
}

/// What is to be written along with the next batch.
#[derive(Default)]
struct Soon {
    batches: Vec<Batch>,
    /// A task sees to it that there is a next one.
    ticking: bool,
}

impl Writer {
    /// Starts the writer. It ends when the last handle is dropped and all that was handed in is durable.
    pub(super) fn start(
        path: &Path,
        durability: Durability,
        subscriber: Arc<dyn Subscriber>,
        unsettled: Arc<AtomicU64>,
        machine: Option<Arc<dyn Machine>>,
    ) -> Result<(Self, JoinHandle<()>), Error> {
        let file_system = machine.as_ref().map(|machine| machine.file_system());
        let connection = open::connect(path, durability, file_system)?;
        let mut database = Database::new(connection, unsettled)?;
        let (jobs, waiting) = mpsc::channel(4 * GROUP);
        let soon = Arc::<Mutex<Soon>>::default();
        let handed = Handed { jobs: waiting, soon: Arc::clone(&soon) };
        let task = match machine {
            None => tokio::task::spawn_blocking(move || run(&mut database, handed, &*subscriber)),
            Some(machine) => tokio::spawn(run_on(machine, database, handed, subscriber)),
        };
        Ok((Self { jobs, soon }, task))
    }

    pub(super) async fn commit(&self, batch: Batch) -> Result<Committed, Error> {
        let (job, result) = Job::new(batch);
        self.jobs.send(job).await.map_err(|_| Error::Closed)?;
        result.await.map_err(|_| Error::Closed)?
    }

    pub(super) fn commit_soon(&self, batch: Batch) {
        let mut soon = self.soon.lock();
        soon.batches.push(batch);
        if !std::mem::replace(&mut soon.ticking, true) {
            tokio::spawn(tick(self.jobs.downgrade(), Arc::clone(&self.soon)));
        }
    }
}

/// Has what is to be written soon written, until there is nothing more. It keeps no writer from ending.
async fn tick(jobs: mpsc::WeakSender<Job>, soon: Arc<Mutex<Soon>>) {
    loop {
        tokio::time::sleep(SOON).await;
        {
            let mut soon = soon.lock();
            if soon.batches.is_empty() {
                soon.ticking = false;
                return;
            }
        }
        let Some(jobs) = jobs.upgrade() else { return };
        let (job, result) = Job::new(Batch::new());
        if jobs.send(job).await.is_err() {
            return;
        }
        drop(jobs);
        // Whether anything could be written, the log says.
        let _ = result.await;
    }
}

/// What the writer is to write.
struct Handed {
    jobs: mpsc::Receiver<Job>,
    soon: Arc<Mutex<Soon>>,
}

impl Handed {
    /// Puts what was to be written soon before a group: it was handed in before some of it.
    fn complete(&self, group: &mut Vec<Job>) {
        let batches = std::mem::take(&mut self.soon.lock().batches);
        group.splice(0..0, batches.into_iter().map(|batch| Job::new(batch).0));
    }
}

/// The writer's connection, and what of all that went through it isn't settled.
struct Database {
    connection: Connection,
    /// What is in `delivery`.
    waiting: Waiting,
    /// The parts for which there is something. Set before the readers hear of it.
    unsettled: Arc<AtomicU64>,
    /// Servers into whose queues nothing is put.
    behind: Behind,
    /// Transactions whose answers aren't settled.
    txns: Txns,
}

fn run(database: &mut Database, mut handed: Handed, subscriber: &dyn Subscriber) {
    let (mut group, mut health) = (Vec::with_capacity(GROUP), Health::default());
    loop {
        let is_last = handed.jobs.blocking_recv_many(&mut group, GROUP) == 0;
        handed.complete(&mut group);
        if !group.is_empty() {
            let done = database.commit(&group);
            health.tell(&mut group, done, &database.behind, subscriber);
        }
        if is_last {
            return;
        }
    }
}

/// The same on a machine that is simulated.
async fn run_on(
    machine: Arc<dyn Machine>,
    mut database: Database,
    mut handed: Handed,
    subscriber: Arc<dyn Subscriber>,
) {
    let (mut group, mut health) = (Vec::with_capacity(GROUP), Health::default());
    loop {
        let is_last = handed.jobs.recv_many(&mut group, GROUP).await == 0;
        handed.complete(&mut group);
        if !group.is_empty() {
            machine.pause(Work::Writing).await;
            let done = database.commit(&group);
            machine.pause(Work::Writing).await;
            health.tell(&mut group, done, &database.behind, &*subscriber);
        }
        if is_last {
            return;
        }
    }
}

/// Whether the database can be written, for the log.
struct Health {
    failures: Seldom,
    failing: bool,
}

impl Default for Health {
    fn default() -> Self {
        Self { failures: Seldom::new(), failing: false }
    }
}

impl Health {
    /// Everybody whom it concerns hears what became of a group.
    fn tell(
        &mut self,
        group: &mut Vec<Job>,
        done: Result<Group, Error>,
        behind: &Behind,
        subscriber: &dyn Subscriber,
    ) {
        match done {
            Ok((given, results)) => {
                if std::mem::take(&mut self.failing) {
                    info!("the database can be written again");
                }
                publish(group.drain(..).zip(results), given, behind, subscriber);
            }
            Err(cause) => {
                // While a disk is full every write fails, and everybody tries again.
                if let Some(before) = self.failures.happens() {
                    error!(%cause, before, "nothing can be written");
                }
                self.failing = true;
                for job in group.drain(..) {
                    // A caller that no longer waits has nothing to be told.
                    let _ = job.done.send(Err(cause.clone()));
                }
            }
        }
    }
}

/// Memory adopts what is durable, then readers wake, then the callers get their answers. Servers that are behind aren't told:
/// they are tried again anyhow.
fn publish(
    jobs: impl Iterator<Item = (Job, Result<Committed, Error>)>,
    given: Option<Given>,
    behind: &Behind,
    subscriber: &dyn Subscriber,
) {
    let mut delivered = Vec::new();
    let mut answers = Vec::new();
    for (job, result) in jobs {
        if let Ok(committed) = &result {
            if let Some(adopt) = job.adopt {
                adopt(committed.base);
            }
            for delivery in &job.batch.deliveries {
                let reached = delivery.delivered(committed.base);
                delivered.extend(reached.filter(|delivered| !behind.contains(&delivered.recipient)));
            }
        }
        answers.push((job.done, result));
    }
    if let Some((base, head)) = given {
        subscriber.committed(base, head, &delivered);
    }
    for (done, result) in answers {
        let _ = done.send(result);
    }
}

/// What it gave out: the positions after the first, up to the second.
type Given = (i64, i64);

type Group = (Option<Given>, Vec<Result<Committed, Error>>);

impl Database {
    /// What an earlier run has left is there.
    fn new(connection: Connection, unsettled: Arc<AtomicU64>) -> Result<Self, Error> {
        let behind = settle::load_behind(&connection)?;
        let waiting = Waiting::load(&connection)?;
        unsettled.store(waiting.unsettled().bits(), Ordering::Release);
        Ok(Self { connection, waiting, unsettled, behind, txns: Txns::default() })
    }

    /// One transaction for all jobs: the positions that it gave out, if it gave any, and what became of each job.
    fn commit(&mut self, jobs: &[Job]) -> Result<Group, Error> {
        match self.attempt(jobs, write) {
            // One of them conflicts. To be able to undo each alone costs copies of pages, so it is done only now.
            Err(Error::Conflict | Error::Encoding(_)) => self.attempt(jobs, write_apart),
            done => done,
        }
    }

    fn attempt(
        &mut self,
        jobs: &[Job],
        write: fn(&mut Transaction<'_>, &Batch, i64, &mut Ledger<'_>) -> Result<Written, Error>,
    ) -> Result<Group, Error> {
        let mut behind = self.behind.clone();
        self.txns.begin();
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        self.waiting.begin(&transaction)?;
        let steps: i64 = jobs.iter().map(|job| i64::from(job.batch.steps)).sum();
        let head = if steps == 0 { None } else { Some(advance(&transaction, steps)?) };
        let given = head.map(|head| (head - steps, head));

        let mut base = given.map_or(0, |(base, _)| base);
        let mut results = Vec::with_capacity(jobs.len());
        let mut ledger = Ledger { behind: &mut behind, txns: &mut self.txns, waiting: &mut self.waiting };
        for job in jobs {
            // The positions of a batch that was undone are never used.
            let written = write(&mut transaction, &job.batch, base, &mut ledger)?;
            results.push(written.map(|()| Committed { base }));
            base += i64::from(job.batch.steps);
        }
        self.waiting.end(&transaction)?;
        transaction.commit()?;
        self.behind = behind;
        let moved = self.waiting.committed();
        self.txns.committed(moved);
        self.unsettled.store(self.waiting.unsettled().bits(), Ordering::Release);
        Ok((given, results))
    }
}

/// Takes the next `steps` positions; the last of them.
fn advance(transaction: &Transaction<'_>, steps: i64) -> Result<i64, Error> {
    let text = "UPDATE head SET position = position + ?1 WHERE id = 1 RETURNING position";
    Ok(transaction.prepare_cached(text)?.query_row([steps], |row| row.get(0))?)
}

/// What the writer remembers of the commit that is being made.
struct Ledger<'a> {
    behind: &'a mut Behind,
    txns: &'a mut Txns,
    waiting: &'a mut Waiting,
}

/// Why a batch alone was undone, if it was.
type Written = Result<(), Error>;

/// Writes a batch; an error is the whole group's.
fn write(
    transaction: &mut Transaction<'_>,
    batch: &Batch,
    base: i64,
    ledger: &mut Ledger<'_>,
) -> Result<Written, Error> {
    write_all(transaction, batch, base, ledger).map(Ok)
}

/// Writes a batch so that it can be undone alone.
fn write_apart(
    transaction: &mut Transaction<'_>,
    batch: &Batch,
    base: i64,
    ledger: &mut Ledger<'_>,
) -> Result<Written, Error> {
    let savepoint = transaction.savepoint()?;
    let (behind, txns, waiting) = (ledger.behind.clone(), ledger.txns.mark(), ledger.waiting.mark());
    match write_all(&savepoint, batch, base, ledger) {
        Ok(()) => {
            savepoint.commit()?;
            Ok(Ok(()))
        }
        // Dropping the savepoint undoes what was written since.
        Err(cause @ (Error::Conflict | Error::Encoding(_))) => {
            *ledger.behind = behind;
            ledger.txns.undo(txns);
            ledger.waiting.undo(&waiting);
            Ok(Err(cause))
        }
        Err(cause) => Err(cause),
    }
}

fn write_all(
    connection: &Connection,
    batch: &Batch,
    base: i64,
    ledger: &mut Ledger<'_>,
) -> Result<(), Error> {
    let announced = Announced::of(batch);
    insert_rows(connection, batch, &announced, base)?;
    settle::insert_txns(connection, batch, &announced, ledger.txns)?;
    for (recipient, filled) in &batch.filled {
        settle::fill_queue(connection, *recipient, *filled, ledger.behind)?;
    }
    settle::insert(connection, batch, &announced, base, ledger.behind, ledger.waiting)?;
    ledger.waiting.settle(connection, batch.settle)?;
    for statement in &batch.statements {
        let mut prepared = connection.prepare_cached(statement.text)?;
        bind(&mut prepared, statement, base)?;
        let touched = prepared.raw_execute()? as u64;
        if statement.expect != Expect::Any && statement.expect != Expect::Rows(touched) {
            return Err(Error::Conflict);
        }
    }
    for row in &batch.events {
        if let Some(outlier) = row.outlier {
            rename_outlier(connection, row.room, outlier, row.seq)?;
        }
    }
    Ok(())
}

/// Statements name their arguments `$1`, `$2` …, which SQLite numbers by where they first appear.
fn bind(prepared: &mut CachedStatement<'_>, statement: &Statement, base: i64) -> Result<(), Error> {
    for index in 1..=prepared.parameter_count() {
        let name = prepared.parameter_name(index).unwrap_or_default();
        let number = name.trim_start_matches(['$', '?']).parse::<usize>().unwrap_or(0);
        let arg = number.checked_sub(1).and_then(|number| statement.args.get(number));
        match arg {
            Some(Arg::Int(value)) => prepared.raw_bind_parameter(index, value)?,
            Some(Arg::Text(value)) => prepared.raw_bind_parameter(index, value.as_deref())?,
            Some(Arg::Shared(value)) => prepared.raw_bind_parameter(index, &**value)?,
            Some(Arg::Bool(value)) => prepared.raw_bind_parameter(index, value)?,
            Some(Arg::Position(step)) => prepared.raw_bind_parameter(index, base + i64::from(*step))?,
            None => return Err(Error::Encoding(format!("no argument {name} for: {}", statement.text))),
        }
    }
    Ok(())
}

/// Everything that names an outlier names the place that it has now, also what this batch has written.
fn rename_outlier(connection: &Connection, room: i64, outlier: i64, seq: i64) -> Result<(), Error> {
    connection
        .prepare_cached("UPDATE state_log SET event = ?3 WHERE room = ?1 AND event = ?2")?
        .execute((room, outlier, seq))?;
    connection
        .prepare_cached("UPDATE membership SET event = ?3 WHERE room = ?1 AND event = ?2")?
        .execute((room, outlier, seq))?;
    connection
        .prepare_cached(
            "UPDATE state_snapshot
             SET events = (
                 SELECT json_group_array(CASE value WHEN ?2 THEN ?3 ELSE value END) FROM json_each(events)
             )
             WHERE hash IN (SELECT hash FROM event_state WHERE room = ?1)
               AND EXISTS (SELECT 1 FROM json_each(events) WHERE value = ?2)",
        )?
        .execute((room, outlier, seq))?;
    Ok(())
}

fn insert_rows(
    connection: &Connection,
    batch: &Batch,
    announced: &Announced<'_>,
    base: i64,
) -> Result<(), Error> {
    for row in &batch.events {
        if let Some(outlier) = row.outlier {
            // It is taken out of where it was, so that it can be put elsewhere.
            let text = "DELETE FROM event WHERE room = ?1 AND seq = ?2";
            connection.prepare_cached(text)?.execute((row.room, outlier))?;
        }
        let text = "INSERT INTO event
                    (room, seq, event_id, position, pdu, ts, verdict, sender_device, txn_id, arrived)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
        let position = row.position.unwrap_or(base + i64::from(row.step));
        settle::note_event(connection, row, announced, position)?;
        let (id, txn_id) = (&row.event_id, row.txn_id.as_deref());
        connection.prepare_cached(text)?.execute(params![
            row.room,
            row.seq,
            id,
            position,
            &*row.pdu,
            row.ts,
            row.verdict,
            row.sender_device,
            txn_id,
            row.arrived,
        ])?;
    }
    for row in &batch.state {
        let text = "INSERT INTO state_log (room, type, state_key, seq, event) VALUES (?1, ?2, ?3, ?4, ?5)";
        let row = params![row.room, row.kind, row.state_key, row.seq, row.event];
        connection.prepare_cached(text)?.execute(row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::atomic::AtomicBool};

    use super::*;
    use crate::store::{Delivery, Item, Kind, Parts, Store, statement};

    /// A group as a subscriber hears of it.
    type Told = (i64, Vec<Delivered>);

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Told>>);

    impl Subscriber for Recorder {
        fn committed(&self, _: i64, head: i64, delivered: &[Delivered]) {
            self.0.lock().push((head, delivered.to_vec()));
        }
    }

    async fn store() -> (tempfile::TempDir, PathBuf, Store, Arc<Recorder>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let recorder = Arc::<Recorder>::default();
        let (store, _writer) =
            Store::open(&path, Durability::Full, Arc::<Recorder>::clone(&recorder)).await.unwrap();
        (dir, path, store, recorder)
    }

    fn alias(name: &str) -> Statement {
        statement!("INSERT INTO alias (alias, room, creator, created_ts) VALUES ($1, 1, 'c', 0)", name)
    }

    fn delivery(recipient: i64, step: u32) -> Delivery {
        let recipients = vec![(recipient, 0)];
        let (kind, item, thread) = (Kind::Event, Item::Position, String::new());
        Delivery { step, kind, room: 1, item, thread, recipients }
    }

    fn job(batch: Batch) -> (Job, oneshot::Receiver<Result<Committed, Error>>) {
        Job::new(batch)
    }

    #[tokio::test]
    async fn a_batch_that_conflicts_takes_nobody_of_its_group_with_it() {
        let (_dir, path, store, _) = store().await;
        let connection = open::connect(&path, Durability::Full, None).unwrap();
        let mut database = Database::new(connection, Arc::clone(&store.unsettled)).unwrap();
        let mut doubled = Batch::from(vec![alias("#third:x"), alias("#first:x")]);
        let step = doubled.step();
        doubled.deliver(delivery(1, step));
        let mut last = Batch::from(alias("#last:x"));
        let step = last.step();
        last.deliver(delivery(1, step));
        let jobs: Vec<Job> =
            [Batch::from(alias("#first:x")), doubled, last].into_iter().map(|batch| job(batch).0).collect();

        let (given, results) = database.commit(&jobs).unwrap();

        assert!(results[0].is_ok() && results[2].is_ok());
        assert!(matches!(results[1], Err(Error::Conflict)));
        assert_eq!(store.aliases(1).await.unwrap(), ["#first:x", "#last:x"], "all of it is undone");
        let queue = store.queue(1, 0, i64::MAX).await.unwrap();
        assert_eq!(queue.len(), 1);
        assert_eq!(
            Some(queue[0].position),
            given.map(|(_, head)| head),
            "I2: the position of the failed batch stays unused"
        );
    }

    /// What a batch moved that is undone, waits again.
    #[tokio::test]
    async fn a_batch_that_is_undone_takes_no_entries_with_it() {
        let (_dir, path, store, _) = store().await;
        let connection = open::connect(&path, Durability::Full, None).unwrap();
        let mut database = Database::new(connection, Arc::clone(&store.unsettled)).unwrap();
        let delivers = |statements: Vec<Statement>| {
            let mut batch = Batch::from(statements);
            let step = batch.step();
            batch.deliver(delivery(1, step));
            batch
        };
        database.commit(&[job(delivers(vec![])).0]).unwrap();
        let mut undone = delivers(vec![alias("#first:x"), alias("#first:x")]);
        undone.settle(Parts::of(1));
        let jobs = [delivers(vec![]), undone, delivers(vec![alias("#last:x")])].map(|batch| job(batch).0);
        let (_, results) = database.commit(&jobs).unwrap();
        assert!(results[0].is_ok() && matches!(results[1], Err(Error::Conflict)) && results[2].is_ok());
        let queue = store.queue(1, 0, i64::MAX).await.unwrap();
        assert_eq!(queue.iter().map(|entry| entry.position).collect::<Vec<_>>(), [1, 2, 4]);
        let mut settles = Batch::new();
        settles.settle(Parts::ALL);
        database.commit(&[job(settles).0]).unwrap();
        assert_eq!(store.queue(1, 0, i64::MAX).await.unwrap(), queue);
    }

    #[tokio::test]
    async fn what_is_written_soon_is_written_with_the_next_batch_or_alone_or_at_the_end() {
        let (_dir, path, store, recorder) = store().await;
        store.commit_soon(alias("#before:x"));
        store.commit(alias("#next:x")).await.unwrap();
        assert_eq!(store.aliases(1).await.unwrap(), ["#before:x", "#next:x"]);

        store.commit_soon(alias("#alone:x"));
        while store.aliases(1).await.unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (other, writer) =
            Store::open(&path.with_file_name("other.db"), Durability::Full, recorder).await.unwrap();
        other.commit_soon(alias("#last:x"));
        drop(other);
        writer.await.unwrap();
        let connection = open::connect(&path.with_file_name("other.db"), Durability::Full, None).unwrap();
        let count: i64 = connection.query_row("SELECT COUNT(*) FROM alias", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 1);
    }

    #[tokio::test]
    async fn a_statement_that_touches_other_rows_than_expected_is_a_conflict() {
        let (_dir, _, store, _) = store().await;
        let missing = statement!("DELETE FROM alias WHERE alias = 'none'").expecting(1);
        assert!(matches!(store.commit(vec![alias("#a:x"), missing]).await, Err(Error::Conflict)));
        assert!(store.aliases(1).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn positions_grow_in_the_order_in_which_they_become_visible() {
        let (_dir, _, store, recorder) = store().await;
        let writes = (0..200).map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut batch = Batch::new();
                for _ in 0..3 {
                    let step = batch.step();
                    batch.deliver(delivery(7, step));
                }
                store.commit(batch).await.unwrap().base
            })
        });
        let mut bases = Vec::new();
        for write in writes.collect::<Vec<_>>() {
            bases.push(write.await.unwrap());
        }
        bases.sort_unstable();
        assert_eq!(bases, (0..200).map(|write| write * 3).collect::<Vec<_>>());

        let told = recorder.0.lock().clone();
        let positions: Vec<i64> =
            told.iter().flat_map(|(_, delivered)| delivered).map(|told| told.entry.position).collect();
        assert_eq!(positions, (1..=600).collect::<Vec<_>>(), "I2: position order is commit order");
        for (head, delivered) in &told {
            assert!(delivered.iter().all(|told| told.entry.position <= *head));
        }
        let stored: Vec<i64> =
            store.queue(7, 0, i64::MAX).await.unwrap().iter().map(|entry| entry.position).collect();
        assert_eq!(stored, positions);
    }

    #[tokio::test]
    async fn memory_adopts_before_readers_hear_of_a_commit() {
        let (_dir, _, store, recorder) = store().await;
        let mut batch = Batch::new();
        let step = batch.step();
        batch.deliver(delivery(7, step));
        let seen = Arc::<Mutex<Option<usize>>>::default();
        let adopted = Arc::clone(&seen);
        batch.on_commit(move |_| *adopted.lock() = Some(recorder.0.lock().len()));
        store.commit(batch).await.unwrap();
        assert_eq!(*seen.lock(), Some(0));
    }

    /// I1: a fault in the writer ends it, nobody who waits gets an acknowledgement, and nobody waits for ever. The program ends
    /// then, and begins anew with what is durable.
    #[tokio::test]
    async fn a_panic_in_the_writer_acknowledges_nothing_and_loses_nothing() {
        struct Once(AtomicBool);
        impl Subscriber for Once {
            fn committed(&self, _: i64, _: i64, _: &[Delivered]) {
                assert!(!self.0.swap(false, Ordering::SeqCst), "on purpose");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let faulty = Arc::new(Once(AtomicBool::new(false)));
        let subscriber: Arc<dyn Subscriber> = Arc::<Once>::clone(&faulty);
        let (store, writer) = Store::open(&path, Durability::Full, subscriber).await.unwrap();
        let write = |name: &str| {
            let mut batch = Batch::from(alias(name));
            batch.step();
            store.commit(batch)
        };
        write("#acknowledged:x").await.unwrap();
        faulty.0.store(true, Ordering::SeqCst);

        let (one, two) = tokio::join!(write("#one:x"), write("#two:x"));
        for result in [one, two, write("#three:x").await] {
            assert!(matches!(result, Err(Error::Closed)), "{result:?}");
        }
        assert!(writer.await.unwrap_err().is_panic(), "the program hears of it");
        let kept = store.aliases(1).await.unwrap();
        assert!(kept.contains(&"#acknowledged:x".to_owned()), "reads go on: {kept:?}");
        drop(store);

        let (again, _) = Store::open(&path, Durability::Full, faulty).await.unwrap();
        assert_eq!(again.aliases(1).await.unwrap(), kept);
        again.commit(alias("#after:x")).await.unwrap();
    }

    #[tokio::test]
    async fn a_full_disk_refuses_writes_and_loses_nothing() {
        let (_dir, path, store, _) = store().await;
        store.commit(alias("#before:x")).await.unwrap();
        let connection = open::connect(&path, Durability::Full, None).unwrap();
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        connection.pragma_update(None, "max_page_count", pages + 1).unwrap();
        let mut database = Database::new(connection, Arc::default()).unwrap();

        let large = "x".repeat(100_000);
        let delivers = |item: i64| {
            let mut batch = Batch::from(alias(&large));
            let step = batch.step();
            batch.deliver(Delivery { item: Item::Value(item), ..delivery(1, step) });
            job(batch).0
        };
        let refused = database.commit(&[delivers(10)]);
        assert!(matches!(refused, Err(Error::Full)));
        assert_eq!(store.aliases(1).await.unwrap(), ["#before:x"], "what was stored is there");

        database.connection.pragma_update(None, "max_page_count", pages + 1000).unwrap();
        database.commit(&[delivers(20)]).unwrap();
        assert_eq!(store.aliases(1).await.unwrap().len(), 2, "with room again it goes on by itself");
        let mut settles = Batch::new();
        settles.settle(Parts::ALL);
        database.commit(&[job(settles).0]).unwrap();
        let queue = store.queue(1, 0, i64::MAX).await.unwrap();
        let items: Vec<i64> = queue.iter().map(|entry| entry.item).collect();
        assert_eq!(items, [20], "nobody hears of what was refused");
    }
}
