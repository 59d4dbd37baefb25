//! From the deliveries of a commit to the queues of their recipients, and to what makes an event easy to find.
//!
//! A queue lies together on disk, so that its reader scans it from front to back. To put each entry there at once would
//! make a message to ten people touch twenty pages. Instead a commit writes one row for all recipients of a step, which
//! is as durable, and now and then the writer moves what has gathered into the tables `queue` and `unread`, many entries
//! a page ([`super::waiting`]). Readers who find their entries in memory never notice; whoever reads the tables has them settled
//! first, or learns from `settled` from where on to add what came since.
//!
//! What is only looked for now and then goes the same way: the row of a delivered event in `event_time`, `searchable` and
//! `txn`. Whether a transaction was answered before has to be known at once, so those that wait are in memory too.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Error,
    batch::{Batch, EventRow, TxnRow},
    entry::{Delivery, Item, Kind},
    event::OUTLIER,
    waiting::{Held, Waiting, pack},
};

/// A transaction: device, path and id.
pub(super) type TxnKey = (i64, i64, String);

/// The transactions that wait to be moved into `txn`.
#[derive(Default)]
pub(super) struct Txns {
    committed: HashSet<TxnKey>,
    /// Those of the commit that is being made.
    new: Vec<TxnKey>,
}

impl Txns {
    fn contains(&self, key: &TxnKey) -> bool {
        self.committed.contains(key) || self.new.contains(key)
    }

    /// A commit begins; the one before may have failed.
    pub(super) fn begin(&mut self) {
        self.new.clear();
    }

    /// How many there are of the commit, to go back to.
    pub(super) fn mark(&self) -> usize {
        self.new.len()
    }

    pub(super) fn undo(&mut self, mark: usize) {
        self.new.truncate(mark);
    }

    /// The commit is made. All that waited before it was `moved`, or not.
    pub(super) fn committed(&mut self, moved: bool) {
        if moved {
            self.committed.clear();
        }
        self.committed.extend(self.new.drain(..));
    }
}

/// What a batch's deliveries announce: their events need no rows but those of `event` until they are moved.
pub(super) struct Announced<'a> {
    deliveries: HashMap<u32, &'a Delivery>,
    txns: HashMap<&'a str, &'a TxnRow>,
}

impl<'a> Announced<'a> {
    pub(super) fn of(batch: &'a Batch) -> Self {
        let deliveries = if batch.events.is_empty() {
            HashMap::new()
        } else {
            batch.deliveries.iter().map(|delivery| (delivery.step, delivery)).collect()
        };
        Self { deliveries, txns: batch.txns.iter().map(|txn| (txn.event.as_str(), txn)).collect() }
    }

    /// Whether something announces an event: its delivery, or a row of `delivery` of its own without recipients.
    fn is_waiting(&self, row: &EventRow) -> bool {
        row.position.is_none()
            && match self.deliveries.get(&row.step) {
                Some(delivery) => announces(delivery, row),
                None => row.searchable,
            }
    }

    /// The transaction that a waiting event will bring into `txn`.
    fn txn(&self, row: &EventRow) -> Option<&'a TxnRow> {
        let txn = *self.txns.get(row.event_id.as_str())?;
        let same = row.sender_device == Some(txn.device) && row.txn_id.as_ref() == Some(&txn.txn_id);
        (same && self.is_waiting(row)).then_some(txn)
    }
}

fn announces(delivery: &Delivery, row: &EventRow) -> bool {
    delivery.kind == Kind::Event && delivery.room == row.room && delivery.item == Item::Value(row.seq)
}

/// Servers that can't be reached, into whose queues nothing is put. They get what they missed from the room logs.
pub(super) type Behind = Arc<HashSet<i64>>;

pub(super) fn load_behind(connection: &Connection) -> Result<Behind, Error> {
    let mut question = connection.prepare("SELECT recipient FROM destination WHERE behind")?;
    let rows = question.query_map([], |row| row.get(0))?;
    Ok(Arc::new(rows.collect::<Result<_, _>>()?))
}

/// From here on a server's queue is filled; or it is emptied, and nothing is put into it. One that is filled again stays marked as
/// behind in the table until it has all that came before.
pub(super) fn fill_queue(
    connection: &Connection,
    recipient: i64,
    filled: bool,
    behind: &mut Behind,
) -> Result<(), Error> {
    if filled {
        Arc::make_mut(behind).remove(&recipient);
    } else {
        connection
            .prepare_cached("UPDATE destination SET behind = TRUE WHERE recipient = ?1")?
            .execute([recipient])?;
        connection.prepare_cached("DELETE FROM queue WHERE recipient = ?1")?.execute([recipient])?;
        Arc::make_mut(behind).insert(recipient);
    }
    Ok(())
}

/// Writes the deliveries of a batch.
pub(super) fn insert(
    connection: &Connection,
    batch: &Batch,
    announced: &Announced<'_>,
    base: i64,
    behind: &Behind,
    waiting: &mut Waiting,
) -> Result<(), Error> {
    let events: HashMap<(i64, i64), &EventRow> =
        batch.events.iter().map(|row| ((row.room, row.seq), row)).collect();
    for delivery in &batch.deliveries {
        let event = match delivery.item {
            Item::Value(seq) => events.get(&(delivery.room, seq)),
            Item::Position => None,
        };
        let event = event.filter(|row| row.step == delivery.step && announced.is_waiting(row));
        let reached = |(recipient, _): &&(i64, i64)| *recipient > 0 || !behind.contains(recipient);
        let recipients: Box<[i64]> = delivery.recipients.iter().filter(reached).map(pack).collect();
        if recipients.is_empty() && event.is_none() {
            continue;
        }
        let entry = delivery.entry(base, 0);
        let held = Held {
            position: entry.position,
            kind: entry.kind as i16,
            room: entry.room,
            item: entry.item,
            thread: delivery.thread.as_str().into(),
            recipients,
        };
        insert_row(connection, &held, event.copied(), announced)?;
        waiting.add(held);
    }
    for row in &batch.events {
        if announced.is_waiting(row) && !announced.deliveries.contains_key(&row.step) {
            let held = Held {
                position: base + i64::from(row.step),
                kind: Kind::Event as i16,
                room: row.room,
                item: row.seq,
                thread: Box::default(),
                recipients: Box::default(),
            };
            insert_row(connection, &held, Some(row), announced)?;
            waiting.add(held);
        }
    }
    Ok(())
}

/// Writes a row of `delivery`, with what waits of its event.
fn insert_row(
    connection: &Connection,
    held: &Held,
    event: Option<&EventRow>,
    announced: &Announced<'_>,
) -> Result<(), Error> {
    let recipients =
        serde_json::to_string(&held.recipients).map_err(|cause| Error::Encoding(cause.to_string()))?;
    let text = "INSERT INTO delivery (position, kind, room, item, thread, recipients, searchable, txn_path)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    connection.prepare_cached(text)?.execute(params![
        held.position,
        held.kind,
        held.room,
        held.item,
        &*held.thread,
        recipients,
        event.is_some_and(|row| row.searchable),
        event.and_then(|row| announced.txn(row)).map(|txn| txn.path),
    ])?;
    Ok(())
}

/// What makes an event easy to find, unless that waits.
pub(super) fn note_event(
    connection: &Connection,
    row: &EventRow,
    announced: &Announced<'_>,
    position: i64,
) -> Result<(), Error> {
    if announced.is_waiting(row) {
        return Ok(());
    }
    if row.seq > OUTLIER {
        let text = "INSERT OR IGNORE INTO event_time (room, ts, seq) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(text)?.execute((row.room, row.ts, row.seq))?;
    }
    if row.searchable {
        let text = "INSERT INTO searchable (position, room, seq) VALUES (?1, ?2, ?3)";
        connection.prepare_cached(text)?.execute((position, row.room, row.seq))?;
    }
    Ok(())
}

/// Writes the answers to transactions, unless they wait with their events. Conflicts with one that was answered before.
pub(super) fn insert_txns(
    connection: &Connection,
    batch: &Batch,
    announced: &Announced<'_>,
    waiting: &mut Txns,
) -> Result<(), Error> {
    if batch.txns.is_empty() {
        return Ok(());
    }
    let with_events: HashSet<&str> = batch
        .events
        .iter()
        .filter(|row| announced.txn(row).is_some())
        .map(|row| row.event_id.as_str())
        .collect();
    for row in &batch.txns {
        let key = (row.device, row.path, row.txn_id.clone());
        if waiting.contains(&key) {
            return Err(Error::Conflict);
        }
        if with_events.contains(row.event.as_str()) {
            let text = "SELECT 1 FROM txn WHERE device = ?1 AND path = ?2 AND txn_id = ?3";
            let answered: Option<i64> = connection
                .prepare_cached(text)?
                .query_row(params![key.0, key.1, key.2], |row| row.get(0))
                .optional()?;
            if answered.is_some() {
                return Err(Error::Conflict);
            }
            waiting.new.push(key);
        } else {
            let text =
                "INSERT INTO txn (device, path, txn_id, event, created_ts) VALUES (?1, ?2, ?3, ?4, ?5)";
            let row = params![row.device, row.path, row.txn_id, row.event, row.created_ts];
            connection.prepare_cached(text)?.execute(row)?;
        }
    }
    Ok(())
}

/// Moves what the events are found by that were delivered after a position to where it belongs.
///
/// None of these statements can be undone alone, for which SQLite would have to copy each page that they touch: a failure is
/// the whole commit's.
pub(super) fn move_events(connection: &Connection, after: i64) -> Result<(), Error> {
    // Rows that are there already are those of events that are announced once more, to somebody who came late.
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO event_time (room, ts, seq)
             SELECT e.room, e.ts, e.seq FROM delivery d CROSS JOIN event e
             WHERE d.position > ?2 AND d.kind = ?1 AND e.room = d.room AND e.seq = d.item ORDER BY 1, 2, 3",
        )?
        .execute((Kind::Event as i16, after))?;
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO txn (device, path, txn_id, event, created_ts)
             SELECT e.sender_device, d.txn_path, e.txn_id, e.event_id, e.arrived
             FROM delivery d CROSS JOIN event e
             WHERE d.position > ?1 AND d.txn_path IS NOT NULL AND e.room = d.room AND e.seq = d.item ORDER BY 1, 2, 3",
        )?
        .execute([after])?;
    connection
        .prepare_cached(
            "INSERT OR FAIL INTO searchable (position, room, seq)
             SELECT d.position, d.room, d.item FROM delivery d
             WHERE d.position > ?1 AND d.searchable AND EXISTS (
                 SELECT 1 FROM event e WHERE e.room = d.room AND e.seq = d.item AND e.redacted_by IS NULL
             ) ORDER BY 1",
        )?
        .execute([after])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{Delivery, Item, Parts, Store, alone::open, flags, room::set_membership};

    fn message(seq: i64, recipients: Vec<(i64, i64)>) -> Batch {
        let mut batch = Batch::new();
        let step = batch.step();
        let (kind, item, thread) = (Kind::Event, Item::Value(seq), String::new());
        batch.deliver(Delivery { step, kind, room: 5, item, thread, recipients });
        batch
    }

    #[tokio::test]
    async fn whoever_reads_a_queue_finds_all_that_was_committed_before() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        for seq in 1..=3000 {
            store.commit(message(seq, vec![(1, 0), (2, flags::STATE)])).await.unwrap();
            if seq % 700 == 0 {
                let queue = store.queue(2, 0, i64::MAX).await.unwrap();
                let items: Vec<i64> = queue.iter().map(|entry| entry.item).collect();
                assert_eq!(items, (1..=seq).collect::<Vec<_>>());
                assert!(queue.iter().all(|entry| entry.flags == flags::STATE));
            }
        }
    }

    /// A server's number is negative.
    #[tokio::test]
    async fn recipients_and_flags_come_back_as_they_went_in() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let everything = (flags::READ << 1) - 1;
        let recipients = [(1, everything), (-1, 0), (-70_000, everything), (1 << 40, flags::NOTIFY)];
        store.commit(message(1, recipients.to_vec())).await.unwrap();
        for (recipient, flags) in recipients {
            let queue = store.queue(recipient, 0, i64::MAX).await.unwrap();
            assert_eq!(queue.iter().map(|entry| entry.flags).collect::<Vec<_>>(), [flags], "{recipient}");
        }
    }

    #[tokio::test]
    async fn unread_counts_have_what_notifies_and_is_the_recipients_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let invite = flags::NOTIFY | flags::OWN_MEMBERSHIP;
        for (seq, flags) in [(1, invite), (2, 0), (3, flags::NOTIFY), (4, flags::NOTIFY | flags::HIGHLIGHT)] {
            store.commit(message(seq, vec![(1, flags)])).await.unwrap();
        }
        store.settled(Parts::ALL).await.unwrap();
        let (counts, position) = store.unread(1, 5).await.unwrap();
        let main = counts.total();
        assert_eq!((main.notifications, main.highlights, position), (2, 1, 4));
    }

    /// A message that answers a transaction.
    fn sent(seq: i64, txn_id: &str, recipients: Vec<(i64, i64)>) -> Batch {
        let mut batch = message(seq, recipients);
        let event_id = format!("${seq}");
        batch.event(EventRow {
            room: 5,
            seq,
            event_id: event_id.clone(),
            step: 1,
            position: None,
            pdu: Arc::from("{}"),
            ts: 1000 - seq,
            arrived: seq,
            verdict: 0,
            searchable: seq != 2,
            sender_device: Some(7),
            txn_id: Some(txn_id.to_owned()),
            outlier: None,
        });
        batch.txn(TxnRow { device: 7, path: 9, txn_id: txn_id.to_owned(), event: event_id, created_ts: seq });
        batch
    }

    async fn answer(store: &Store, txn_id: &str) -> Vec<String> {
        let keys = format!("[[7, 9, \"{txn_id}\"]]");
        store.txns(keys).await.unwrap().into_iter().map(|(.., event)| event).collect()
    }

    /// I3: whether the first answer waits, is where it belongs, or was left by an earlier run.
    #[tokio::test]
    async fn i3_a_transaction_is_answered_once() {
        let dir = tempfile::tempdir().unwrap();
        let again = || sent(20, "a", vec![(1, 0)]);
        let store = open(dir.path()).await;
        store.commit(sent(1, "a", vec![(1, 0)])).await.unwrap();
        assert!(matches!(store.commit(again()).await, Err(Error::Conflict)), "it waits");
        store.commit(sent(2, "b", vec![])).await.unwrap();
        let store = open(dir.path()).await;
        assert!(matches!(store.commit(again()).await, Err(Error::Conflict)), "it was left");
        store.settled(Parts::ALL).await.unwrap();
        assert!(matches!(store.commit(again()).await, Err(Error::Conflict)), "it is settled");
        // Of those that are made durable together, the first counts.
        let both = [sent(3, "c", vec![(1, 0)]), sent(4, "c", vec![(1, 0)])];
        let [one, two] = both.map(|batch| store.commit(batch));
        let (one, two) = tokio::join!(one, two);
        assert!(one.is_ok() && matches!(two, Err(Error::Conflict)));
        assert_eq!(answer(&store, "a").await, ["$1"]);
        assert_eq!(answer(&store, "b").await, ["$2"], "an event that reaches nobody waits too");
        assert_eq!(answer(&store, "c").await, ["$3"]);
        assert!(answer(&store, "d").await.is_empty());
    }

    /// What an event cites may come in the same step.
    #[tokio::test]
    async fn an_event_is_announced_whatever_else_is_of_its_step() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let mut batch = sent(1, "a", vec![(1, 0)]);
        let event = &batch.events[0];
        let outlier = EventRow {
            seq: OUTLIER - 1,
            event_id: "$cited".to_owned(),
            searchable: false,
            sender_device: None,
            txn_id: None,
            ..event.clone()
        };
        batch.event(outlier);
        store.commit(batch).await.unwrap();
        assert_eq!(answer(&store, "a").await, ["$1"]);
        let (_, waiting) = store.waiting_for_index(10).await.unwrap();
        assert_eq!(waiting.len(), 1);
        assert_eq!(store.nearest_in_time(5, 0, true, "[[1, 4]]".to_owned()).await.unwrap(), Some(1));
    }

    /// What an event is known by goes along when it gets a place of its own.
    #[tokio::test]
    async fn a_membership_is_that_of_the_event_wherever_it_has_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let (outlier, placed) = (OUTLIER - 1, 2);
        let at = |seq, outlier| EventRow { seq, outlier, ..sent(1, "a", vec![]).events[0].clone() };
        let mut batch = Batch::new();
        batch.step();
        batch.event(at(outlier, None));
        batch.push(set_membership("@bob:there.example", 5, "leave", outlier));
        store.commit(batch).await.unwrap();
        let rooms = async || store.rooms_of_server("there.example", 0).await.unwrap();
        assert_eq!(rooms().await, [(5, Some(outlier))]);

        let mut batch = Batch::new();
        batch.step();
        batch.event(at(placed, Some(outlier)));
        store.commit(batch).await.unwrap();
        assert_eq!(rooms().await, [(5, Some(placed))]);
    }

    #[tokio::test]
    async fn events_are_found_by_their_time_and_waiting_for_their_words_once_settled() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        for (seq, recipients) in
            [(1, vec![(1, 0)]), (2, vec![(1, 0)]), (3, vec![]), (4, vec![(1, 0), (2, 0)])]
        {
            store.commit(sent(seq, &seq.to_string(), recipients)).await.unwrap();
        }
        // Announced once more, to somebody who came late.
        store.commit(message(1, vec![(3, 0)])).await.unwrap();
        let nearest =
            async |ts, forwards| store.nearest_in_time(5, ts, forwards, "[[1, 4]]".to_owned()).await.unwrap();
        assert_eq!(nearest(997, true).await, Some(3));
        assert_eq!(nearest(996, false).await, Some(4));
        assert_eq!(nearest(0, true).await, Some(4));
        assert_eq!(nearest(0, false).await, None);
        let (_, waiting) = store.waiting_for_index(10).await.unwrap();
        assert_eq!(waiting.iter().map(|event| event.position).collect::<Vec<_>>(), [1, 3, 4]);
        let delete = crate::store::retention::delete(5, "[3, 4]");
        store.commit(delete).await.unwrap();
        assert_eq!(nearest(0, true).await, Some(2));
        let (times,): (i64,) =
            store.one(crate::store::statement!("SELECT COUNT(*) FROM event_time")).await.unwrap();
        assert_eq!(times, 2);
    }

    #[tokio::test]
    async fn what_a_run_has_left_is_there_in_the_next() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).await.commit(message(1, vec![(1, 0)])).await.unwrap();
        let store = open(dir.path()).await;
        store.commit(message(2, vec![(1, 0)])).await.unwrap();
        let queue = store.queue(1, 0, i64::MAX).await.unwrap();
        assert_eq!(queue.iter().map(|entry| entry.position).collect::<Vec<_>>(), [1, 2]);
    }

    /// However many messages wait for a device, its reader asks the mailbox for them.
    #[tokio::test]
    async fn a_reader_gets_one_pointer_to_each_mailbox() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let mut batch = Batch::new();
        for number in 0..900 {
            let step = batch.step();
            let (kind, room) = match number % 3 {
                0 => (Kind::Event, 5),
                1 => (Kind::ToDevice, 7),
                _ => (Kind::ToDevice, 8),
            };
            let (item, thread, recipients) = (Item::Position, String::new(), vec![(1, 0)]);
            batch.deliver(Delivery { step, kind, room, item, thread, recipients });
        }
        store.commit(batch).await.unwrap();
        let queue = store.queue(1, 0, i64::MAX).await.unwrap();
        let of = |kind, room| queue.iter().filter(move |entry| (entry.kind, entry.room) == (kind, room));
        assert_eq!(queue.len(), 302);
        assert!(queue.is_sorted_by_key(|entry| entry.position));
        let last = |room| of(Kind::ToDevice, room).map(|entry| entry.position).collect::<Vec<_>>();
        assert_eq!((last(7), last(8)), (vec![899], vec![900]));
        let items: Vec<i64> = of(Kind::Event, 5).map(|entry| entry.item).collect();
        assert_eq!(items, (1..=900).step_by(3).collect::<Vec<_>>());
        let later = store.queue(1, 600, 700).await.unwrap();
        assert_eq!(later.len(), 36, "34 events, and what either mailbox has there");
        assert!(later.iter().all(|entry| entry.position > 600 && entry.position <= 700));
    }
}
