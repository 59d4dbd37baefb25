//! One transaction for a group of batches. A batch that conflicts with what is stored takes nobody with it: it is undone
//! alone, and the rest of its group is committed.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use rusqlite::{CachedStatement, Connection, Transaction, TransactionBehavior, params};

use super::{
    Error,
    batch::Batch,
    settle::{self, Announced, Behind, Txns},
    statement::{Arg, Expect, Statement},
    waiting::Waiting,
};

/// What a commit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The position of the batch's step `n` is `base + n`.
    pub base: i64,
}

/// The writer's connection, and what of all that went through it isn't settled.
pub(super) struct Database {
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

/// What it gave out: the positions after the first, up to the second.
pub(super) type Given = (i64, i64);

pub(super) type Group = (Option<Given>, Vec<Result<Committed, Error>>);

impl Database {
    /// What an earlier run has left is there.
    pub(super) fn new(connection: Connection, unsettled: Arc<AtomicU64>) -> Result<Self, Error> {
        let behind = settle::load_behind(&connection)?;
        let waiting = Waiting::load(&connection)?;
        unsettled.store(waiting.unsettled().bits(), Ordering::Release);
        Ok(Self { connection, waiting, unsettled, behind, txns: Txns::default() })
    }

    /// Servers into whose queues nothing is put.
    pub(super) fn behind(&self) -> &Behind {
        &self.behind
    }

    /// One transaction for all batches: the positions that it gave out, if it gave any, and what became of each batch.
    pub(super) fn commit<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a Batch> + Clone,
    ) -> Result<Group, Error> {
        match self.attempt(batches.clone(), write) {
            // One of them conflicts. To be able to undo each alone costs copies of pages, so it is done only now.
            Err(Error::Conflict | Error::Encoding(_)) => self.attempt(batches, write_apart),
            done => done,
        }
    }

    fn attempt<'a>(
        &mut self,
        batches: impl Iterator<Item = &'a Batch> + Clone,
        write: fn(&mut Transaction<'_>, &Batch, i64, &mut Ledger<'_>) -> Result<Written, Error>,
    ) -> Result<Group, Error> {
        let mut behind = self.behind.clone();
        self.txns.begin();
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        self.waiting.begin(&transaction)?;
        let steps: i64 = batches.clone().map(|batch| i64::from(batch.steps)).sum();
        let head = if steps == 0 { None } else { Some(advance(&transaction, steps)?) };
        let given = head.map(|head| (head - steps, head));

        let mut base = given.map_or(0, |(base, _)| base);
        let mut results = Vec::new();
        let mut ledger = Ledger { behind: &mut behind, txns: &mut self.txns, waiting: &mut self.waiting };
        for batch in batches {
            // The positions of a batch that was undone are never used.
            let written = write(&mut transaction, batch, base, &mut ledger)?;
            results.push(written.map(|()| Committed { base }));
            base += i64::from(batch.steps);
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
    use super::*;
    use crate::store::{
        Delivery, Durability, Item, Parts, open,
        writer::tests::{alias, delivery, store},
    };

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
        let batches = [Batch::from(alias("#first:x")), doubled, last];

        let (given, results) = database.commit(batches.iter()).unwrap();

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
        database.commit([&delivers(vec![])].into_iter()).unwrap();
        let mut undone = delivers(vec![alias("#first:x"), alias("#first:x")]);
        undone.settle(Parts::of(1));
        let batches = [delivers(vec![]), undone, delivers(vec![alias("#last:x")])];
        let (_, results) = database.commit(batches.iter()).unwrap();
        assert!(results[0].is_ok() && matches!(results[1], Err(Error::Conflict)) && results[2].is_ok());
        let queue = store.queue(1, 0, i64::MAX).await.unwrap();
        assert_eq!(queue.iter().map(|entry| entry.position).collect::<Vec<_>>(), [1, 2, 4]);
        let mut settles = Batch::new();
        settles.settle(Parts::ALL);
        database.commit([&settles].into_iter()).unwrap();
        assert_eq!(store.queue(1, 0, i64::MAX).await.unwrap(), queue);
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
            batch
        };
        let refused = database.commit([&delivers(10)].into_iter());
        assert!(matches!(refused, Err(Error::Full)));
        assert_eq!(store.aliases(1).await.unwrap(), ["#before:x"], "what was stored is there");

        database.connection.pragma_update(None, "max_page_count", pages + 1000).unwrap();
        database.commit([&delivers(20)].into_iter()).unwrap();
        assert_eq!(store.aliases(1).await.unwrap().len(), 2, "with room again it goes on by itself");
        let mut settles = Batch::new();
        settles.settle(Parts::ALL);
        database.commit([&settles].into_iter()).unwrap();
        let queue = store.queue(1, 0, i64::MAX).await.unwrap();
        let items: Vec<i64> = queue.iter().map(|entry| entry.item).collect();
        assert_eq!(items, [20], "nobody hears of what was refused");
    }
}
