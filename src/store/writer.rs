//! The one writer of the database. It commits all batches that are ready in one transaction (group commit), so that
//! the cost of making a write durable is shared, and it alone gives out positions, so that position order is commit
//! order.
//!
//! It has a thread and a connection of its own, because a commit is a dozen short statements: each would cost more to
//! hand to another thread than to run. What may as well be written a little later goes along with whatever comes next, and
//! costs no commit of its own.

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tracing::{error, info};

use super::{
    Error,
    batch::{Adopt, Batch},
    commit::{Committed, Database, Given, Group},
    entry::Delivered,
    open::{self, Durability},
    settle::Behind,
};
use crate::{
    environment::{Machine, Work},
    seldom::Seldom,
};

/// The most batches in a group, and the most that go along with one: bounds how long the first of them waits for the last.
const GROUP: usize = 256;

/// How long what is to be written soon waits for something to go along with.
const SOON: Duration = Duration::from_secs(1);

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

    pub(super) async fn commit_soon(&self, batch: Batch) {
        let batch = {
            let mut soon = self.soon.lock();
            if soon.batches.len() < GROUP {
                soon.batches.push(batch);
                if !std::mem::replace(&mut soon.ticking, true) {
                    tokio::spawn(tick(self.jobs.downgrade(), Arc::clone(&self.soon)));
                }
                return;
            }
            batch
        };
        // The writer is behind: whoever has more waits like everybody. What fails is in the log.
        let _ = self.commit(batch).await;
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

fn run(database: &mut Database, mut handed: Handed, subscriber: &dyn Subscriber) {
    let (mut group, mut health) = (Vec::with_capacity(GROUP), Health::default());
    loop {
        let is_last = handed.jobs.blocking_recv_many(&mut group, GROUP) == 0;
        handed.complete(&mut group);
        if !group.is_empty() {
            let done = database.commit(group.iter().map(|job| &job.batch));
            health.tell(&mut group, done, database.behind(), subscriber);
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
            let done = database.commit(group.iter().map(|job| &job.batch));
            machine.pause(Work::Writing).await;
            health.tell(&mut group, done, database.behind(), &*subscriber);
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

#[cfg(test)]
pub(super) mod tests {
    use std::{
        path::PathBuf,
        sync::atomic::{AtomicBool, Ordering},
    };

    use super::*;
    use crate::store::{Delivery, Item, Kind, Statement, Store, statement};

    /// A group as a subscriber hears of it.
    type Told = (i64, Vec<Delivered>);

    #[derive(Default)]
    pub(in crate::store) struct Recorder(Mutex<Vec<Told>>);

    impl Subscriber for Recorder {
        fn committed(&self, _: i64, head: i64, delivered: &[Delivered]) {
            self.0.lock().push((head, delivered.to_vec()));
        }
    }

    pub(in crate::store) async fn store() -> (tempfile::TempDir, PathBuf, Store, Arc<Recorder>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let recorder = Arc::<Recorder>::default();
        let (store, _writer) =
            Store::open(&path, Durability::Full, Arc::<Recorder>::clone(&recorder)).await.unwrap();
        (dir, path, store, recorder)
    }

    pub(in crate::store) fn alias(name: &str) -> Statement {
        statement!("INSERT INTO alias (alias, room, creator, created_ts) VALUES ($1, 1, 'c', 0)", name)
    }

    pub(in crate::store) fn delivery(recipient: i64, step: u32) -> Delivery {
        let recipients = vec![(recipient, 0)];
        let (kind, item, thread) = (Kind::Event, Item::Position, String::new());
        Delivery { step, kind, room: 1, item, thread, recipients }
    }

    #[tokio::test]
    async fn what_is_written_soon_is_written_with_the_next_batch_or_alone_or_at_the_end() {
        let (_dir, path, store, recorder) = store().await;
        store.commit_soon(alias("#before:x")).await;
        store.commit(alias("#next:x")).await.unwrap();
        assert_eq!(store.aliases(1).await.unwrap(), ["#before:x", "#next:x"]);

        store.commit_soon(alias("#alone:x")).await;
        while store.aliases(1).await.unwrap().len() < 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (other, writer) =
            Store::open(&path.with_file_name("other.db"), Durability::Full, recorder).await.unwrap();
        other.commit_soon(alias("#last:x")).await;
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
}
