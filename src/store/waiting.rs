//! What was delivered and isn't in the queues of its recipients yet, in memory as it stands in `delivery`; and when it gets there.
//!
//! The recipients are divided into [`PARTS`], and the entries of one part are moved at a time: the fuller a part may become, the
//! more of its entries share a page when they are moved, and the fewer parts there are to move at once, the less a commit has to
//! wait for that. Whoever reads a stored queue has only its own part moved. How far each is, stands in `settled`.
//!
//! This is a copy, so that no step has to read again what waits for others. It is made anew when another process has written, such
//! as the command line.

use std::collections::{BTreeMap, VecDeque};

use rusqlite::Connection;

use super::{
    Error,
    entry::{Kind, flags},
    settle,
    unread::{self, Run},
};

/// Parts of the recipients.
const PARTS: usize = 32;
/// What events are found by is moved like the entries of one more part.
const EVENTS: usize = PARTS;

/// Entries that may wait, and rows that may be kept for those. Where all parts are equally busy, twice as many are moved at a time
/// as a part has of these.
const MOST: usize = 16_000;
/// The most of them in one part, and the most events that may wait to be found.
const MOST_IN_PART: usize = 2000;
const MOST_EVENTS: usize = 500;

/// Some of the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts(u64);

impl Parts {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self((1 << (PARTS + 1)) - 1);
    /// `event_time`, `searchable` and `txn`, by which events are found.
    pub const EVENTS: Self = Self(1 << EVENTS);

    /// That which has the queue and the unread events of a recipient.
    pub fn of(recipient: i64) -> Self {
        Self(1 << part(recipient))
    }

    /// Its number in `settled`.
    pub(super) fn number(recipient: i64) -> i64 {
        part(recipient) as i64
    }

    pub fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(super) fn bits(self) -> u64 {
        self.0
    }

    fn iter(self) -> impl Iterator<Item = usize> {
        (0..=EVENTS).filter(move |part| self.0 & (1 << part) != 0)
    }
}

fn part(recipient: i64) -> usize {
    recipient.rem_euclid(PARTS as i64) as usize
}

/// A row of `delivery`.
pub(super) struct Held {
    pub(super) position: i64,
    pub(super) kind: i16,
    pub(super) room: i64,
    pub(super) item: i64,
    pub(super) thread: Box<str>,
    pub(super) recipients: Box<[i64]>,
}

/// A recipient and the flags of their entry, as they stand in `delivery.recipients`: in one number.
pub(super) fn pack((recipient, flags): &(i64, i64)) -> i64 {
    (recipient << 16) | flags
}

fn unpack(packed: i64) -> (i64, i64) {
    (packed >> 16, packed & 0xffff)
}

/// How far the parts are.
#[derive(Clone, Copy)]
struct State {
    /// All entries of a part up to here are in the tables.
    settled: [i64; PARTS + 1],
    /// Entries that aren't.
    count: [usize; PARTS + 1],
    /// The last position of all that waits.
    last: i64,
}

impl State {
    fn add(&mut self, held: &Held) {
        self.last = self.last.max(held.position);
        if held.kind == Kind::Event as i16 && held.position > self.settled[EVENTS] {
            self.count[EVENTS] += 1;
        }
        for packed in &held.recipients {
            let part = part(unpack(*packed).0);
            if held.position > self.settled[part] {
                self.count[part] += 1;
            }
        }
    }

    /// Of the parts for which something waits the one that is furthest behind.
    fn slowest(&self) -> Option<usize> {
        (0..=EVENTS).filter(|part| self.count[*part] > 0).min_by_key(|part| self.settled[*part])
    }

    /// No part needs rows up to here any more.
    fn low(&self) -> i64 {
        self.slowest().map_or(self.last, |part| self.settled[part])
    }
}

/// A moment of a commit that is being made.
pub(super) struct Mark {
    new: usize,
    now: State,
}

pub(super) struct Waiting {
    /// Of the database when this was read, see `PRAGMA data_version`.
    version: i64,
    /// Whether it has just been read: others may have left transactions that the writer doesn't know.
    fresh: bool,
    /// What earlier commits have left, by position.
    held: VecDeque<Held>,
    before: State,
    /// What the commit adds that is being made, and what it makes of all.
    new: Vec<Held>,
    now: State,
}

impl Waiting {
    /// Reads what is there.
    pub(super) fn load(connection: &Connection) -> Result<Self, Error> {
        let version = version(connection)?;
        let mut state = State { settled: [0; PARTS + 1], count: [0; PARTS + 1], last: 0 };
        let mut question = connection.prepare("SELECT part, position FROM settled")?;
        let mut rows = question.query([])?;
        while let Some(row) = rows.next()? {
            let part = usize::try_from(row.get::<_, i64>(0)?).ok().filter(|part| *part <= EVENTS);
            if let Some(part) = part {
                state.settled[part] = row.get(1)?;
            }
        }
        let mut question = connection.prepare(
            "SELECT position, kind, room, item, thread, recipients FROM delivery ORDER BY position",
        )?;
        let mut rows = question.query([])?;
        let mut held = VecDeque::new();
        while let Some(row) = rows.next()? {
            let recipients: Vec<i64> =
                serde_json::from_str(row.get_ref(5)?.as_str().map_err(rusqlite::Error::from)?)
                    .map_err(|cause| Error::Encoding(cause.to_string()))?;
            let row = Held {
                position: row.get(0)?,
                kind: row.get(1)?,
                room: row.get(2)?,
                item: row.get(3)?,
                thread: row.get::<_, String>(4)?.into_boxed_str(),
                recipients: recipients.into_boxed_slice(),
            };
            state.add(&row);
            held.push_back(row);
        }
        Ok(Self { version, fresh: true, held, before: state, new: Vec::new(), now: state })
    }

    /// A commit begins; the one before may have failed.
    pub(super) fn begin(&mut self, connection: &Connection) -> Result<(), Error> {
        if version(connection)? != self.version {
            *self = Self::load(connection)?;
        }
        self.new.clear();
        self.now = self.before;
        if self.fresh {
            self.settle(connection, Parts::EVENTS)?;
        }
        // The fullest have most to a page.
        while let Some(part) = self.too_full() {
            self.settle_part(connection, part)?;
        }
        Ok(())
    }

    fn too_full(&self) -> Option<usize> {
        let entries = &self.now.count[..PARTS];
        let (part, most) = entries.iter().enumerate().max_by_key(|(_, count)| **count)?;
        if *most > MOST_IN_PART || entries.iter().sum::<usize>() > MOST {
            return Some(part);
        }
        if self.now.count[EVENTS] > MOST_EVENTS {
            return Some(EVENTS);
        }
        // One entry for somebody who isn't written to any more would keep all rows that come after it.
        let low = self.now.low();
        let kept = self.held.len() - self.held.partition_point(|held| held.position <= low);
        if kept > MOST { self.now.slowest() } else { None }
    }

    /// A row was written into `delivery`.
    pub(super) fn add(&mut self, held: Held) {
        self.now.add(&held);
        self.new.push(held);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark { new: self.new.len(), now: self.now }
    }

    pub(super) fn undo(&mut self, mark: &Mark) {
        self.new.truncate(mark.new);
        self.now = mark.now;
    }

    /// Moves what waits in these parts to where it belongs.
    pub(super) fn settle(&mut self, connection: &Connection, parts: Parts) -> Result<(), Error> {
        for part in parts.iter() {
            if self.now.settled[part] < self.now.last {
                self.settle_part(connection, part)?;
            }
        }
        Ok(())
    }

    fn settle_part(&mut self, connection: &Connection, number: usize) -> Result<(), Error> {
        let after = self.now.settled[number];
        if number == EVENTS {
            settle::move_events(connection, after)?;
        } else {
            let rows = self.held.iter().chain(&self.new).filter(|held| held.position > after);
            let entries =
                rows.flat_map(|held| held.recipients.iter().map(move |packed| (unpack(*packed), held)));
            let entries = entries.filter(|((recipient, _), _)| part(*recipient) == number);
            let mut entries: Vec<_> = entries.collect();
            entries.sort_unstable_by_key(|((recipient, _), held)| (*recipient, held.position));
            move_entries(connection, &entries)?;
        }
        let last = self.now.last;
        let text = "UPDATE settled SET position = ?2 WHERE part = ?1";
        connection.prepare_cached(text)?.execute((number as i64, last))?;
        (self.now.settled[number], self.now.count[number]) = (last, 0);
        Ok(())
    }

    /// The commit is about to be made: rows that no part needs any more go.
    pub(super) fn end(&self, connection: &Connection) -> Result<(), Error> {
        let low = self.now.low();
        let first = self.held.front().or(self.new.first());
        if self.now.settled != self.before.settled && first.is_some_and(|first| first.position <= low) {
            connection.prepare_cached("DELETE FROM delivery WHERE position <= ?1")?.execute([low])?;
        }
        Ok(())
    }

    /// The commit is made. Whether it moved what events are found by.
    pub(super) fn committed(&mut self) -> bool {
        self.fresh = false;
        let moved = self.now.settled[EVENTS] != self.before.settled[EVENTS];
        self.held.extend(self.new.drain(..));
        let low = self.now.low();
        if self.now.settled != self.before.settled {
            self.held.retain(|held| held.position > low);
        }
        self.before = self.now;
        moved
    }

    /// The parts that aren't up to date.
    pub(super) fn unsettled(&self) -> Parts {
        if self.held.is_empty() {
            return Parts::NONE;
        }
        let behind = (0..=EVENTS).filter(|part| self.before.settled[*part] < self.before.last);
        Parts(behind.fold(0, |parts, part| parts | (1 << part)))
    }
}

/// Grows when another connection has written.
fn version(connection: &Connection) -> Result<i64, Error> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

/// Entries in the order of their recipients.
fn move_entries(connection: &Connection, entries: &[((i64, i64), &Held)]) -> Result<(), Error> {
    let text =
        "INSERT INTO queue (recipient, position, kind, room, item, flags) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = connection.prepare_cached(text)?;
    for ((recipient, flags), held) in entries {
        insert.execute((recipient, held.position, held.kind, held.room, held.item, flags))?;
    }
    // An invitation notifies, but the room isn't the recipient's to read yet.
    let counts = |flags: i64, held: &Held| {
        held.kind == Kind::Event as i16 && flags & (flags::NOTIFY | flags::OWN_MEMBERSHIP) == flags::NOTIFY
    };
    // The last that each has sent to a thread: what came before it is read.
    let reads = |flags: i64, held: &Held| held.kind == Kind::Event as i16 && flags & flags::READ != 0;
    let sent = entries.iter().filter(|((_, flags), held)| reads(*flags, held));
    let sent: BTreeMap<(i64, i64, &str), i64> =
        sent.map(|((recipient, _), held)| ((*recipient, held.room, &*held.thread), held.position)).collect();
    unread::clear(connection, sent.keys().copied())?;
    let unread = entries.iter().filter(|((recipient, flags), held)| {
        counts(*flags, held)
            && sent.get(&(*recipient, held.room, &*held.thread)).is_none_or(|read| held.position > *read)
    });
    let unread = unread.map(|((recipient, flags), held)| Run {
        recipient: *recipient,
        room: held.room,
        seq: held.item,
        highlight: flags & flags::HIGHLIGHT != 0,
        thread: &held.thread,
        more: 0,
    });
    unread::insert(connection, unread.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Delivery, Durability, Item, Store, alone::open, open::connect, statement};

    /// A message of room 5 that notifies all whom it reaches.
    fn message(seq: i64, recipients: impl IntoIterator<Item = i64>) -> Batch {
        let mut batch = Batch::new();
        let step = batch.step();
        let recipients = recipients.into_iter().map(|recipient| (recipient, flags::NOTIFY)).collect();
        let (kind, item, thread) = (Kind::Event, Item::Value(seq), String::new());
        batch.deliver(Delivery { step, kind, room: 5, item, thread, recipients });
        batch
    }

    async fn count(store: &Store, table: &'static str) -> i64 {
        let (count,): (i64,) = store.one(statement!(table)).await.unwrap();
        count
    }

    const DELIVERIES: &str = "SELECT COUNT(*) FROM delivery";
    const ENTRIES: &str = "SELECT COUNT(*) FROM queue";
    const UNREAD: &str = "SELECT SUM(more + 1) FROM unread";

    async fn items(store: &Store, recipient: i64) -> Vec<i64> {
        let queue = store.queue(recipient, 0, i64::MAX).await.unwrap();
        queue.iter().map(|entry| entry.item).collect()
    }

    #[tokio::test]
    async fn who_reads_a_queue_has_only_its_part_moved() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        // The second is a server; the last is of the part of the first.
        let recipients = [1, -2, 3, 1 + PARTS as i64];
        for seq in 1..=10 {
            store.commit(message(seq, recipients)).await.unwrap();
        }
        assert_eq!(items(&store, 1).await, (1..=10).collect::<Vec<_>>());
        assert_eq!((count(&store, ENTRIES).await, count(&store, UNREAD).await), (20, 20));
        assert_eq!(count(&store, DELIVERIES).await, 10, "others need them yet");
        store.commit(message(11, recipients)).await.unwrap();
        for recipient in recipients {
            assert_eq!(items(&store, recipient).await, (1..=11).collect::<Vec<_>>(), "{recipient}");
        }
        assert_eq!(count(&store, ENTRIES).await, 44);
        store.settled(Parts::ALL).await.unwrap();
        assert_eq!(count(&store, DELIVERIES).await, 0, "nobody needs them any more");
        store.commit(message(12, [1])).await.unwrap();
        assert_eq!(items(&store, 1).await, (1..=12).collect::<Vec<_>>());
    }

    /// I11: a commit moves what of one part has gathered, not all that there is.
    #[tokio::test]
    async fn the_fullest_part_is_moved_when_much_waits() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let everybody = 1..=4 * PARTS as i64;
        let (mut before, mut steps, mut most) = (0, 0, 0);
        for seq in 1..=500 {
            store.commit(message(seq, everybody.clone())).await.unwrap();
            let now = count(&store, ENTRIES).await;
            most = most.max(now - before);
            steps += usize::from(now > before);
            before = now;
            let waiting = seq * everybody.clone().count() as i64 - now;
            assert!(waiting <= (MOST + everybody.clone().count()) as i64, "{waiting}");
        }
        assert!(steps > 40, "{steps}");
        assert!(most as usize <= 3 * MOST / PARTS, "{most} in one go");
        store.settled(Parts::EVENTS).await.unwrap();
        assert!(count(&store, DELIVERIES).await < 300, "what all have is gone");
        for recipient in everybody {
            assert_eq!(items(&store, recipient).await.len(), 500);
        }
    }

    #[tokio::test]
    async fn a_part_alone_is_moved_when_much_of_it_waits() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        for seq in 1..=MOST_IN_PART as i64 + 2 {
            store.commit(message(seq, [7])).await.unwrap();
        }
        assert_eq!(count(&store, ENTRIES).await, MOST_IN_PART as i64 + 1);
        store.settled(Parts::EVENTS).await.unwrap();
        assert_eq!(count(&store, DELIVERIES).await, 1);
    }

    /// I11: also where nobody's part is full.
    #[tokio::test]
    async fn what_events_are_found_by_is_moved_when_much_of_it_waits() {
        const FOUND_UP_TO: &str = "SELECT position FROM settled WHERE part = 32";
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let most = MOST_EVENTS as i64 + 1;
        for seq in 1..=most {
            store.commit(message(seq, [seq])).await.unwrap();
        }
        assert_eq!(count(&store, FOUND_UP_TO).await, 0);
        store.commit(message(most + 1, [1])).await.unwrap();
        assert_eq!(count(&store, FOUND_UP_TO).await, most);
        assert_eq!(count(&store, ENTRIES).await, 0, "the entries wait still");
    }

    /// I7: somebody to whom nothing more is said keeps nothing that others have.
    #[tokio::test]
    async fn one_entry_that_waits_does_not_keep_all_that_come_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.commit(message(1, [1])).await.unwrap();
        let mut seq = 1;
        for _ in 0..MOST / 100 + 30 {
            let mut batch = Batch::new();
            for _ in 0..100 {
                seq += 1;
                batch.append(message(seq, [2]));
            }
            store.commit(batch).await.unwrap();
            let kept = count(&store, DELIVERIES).await as usize;
            assert!(kept <= MOST + 200, "{kept} after {seq}");
        }
        assert_eq!(items(&store, 1).await, [1]);
    }

    #[tokio::test]
    async fn the_next_run_goes_on_where_each_part_is() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        store.commit(message(1, [1, 2])).await.unwrap();
        assert_eq!(items(&store, 1).await, [1]);
        store.commit(message(2, [1, 2])).await.unwrap();
        drop(store);
        let store = open(dir.path()).await;
        store.commit(message(3, [1, 2])).await.unwrap();
        assert_eq!(items(&store, 2).await, [1, 2, 3]);
        assert_eq!(items(&store, 1).await, [1, 2, 3]);
        assert_eq!(count(&store, UNREAD).await, 6);
    }

    /// I7: nor does it take memory for ever.
    #[tokio::test]
    async fn what_is_where_it_belongs_is_no_longer_held() {
        let dir = tempfile::tempdir().unwrap();
        let _store = open(dir.path()).await;
        let connection = connect(&dir.path().join("hearth.db"), Durability::Normal, None).unwrap();
        let mut waiting = Waiting::load(&connection).unwrap();
        for position in 1..=3 {
            waiting.begin(&connection).unwrap();
            let (kind, thread, recipients) = (Kind::Event as i16, Box::default(), [pack(&(1, 0))].into());
            waiting.add(Held { position, kind, room: 5, item: position, thread, recipients });
            waiting.committed();
        }
        assert_eq!(waiting.held.len(), 3);
        waiting.begin(&connection).unwrap();
        waiting.settle(&connection, Parts::ALL).unwrap();
        waiting.committed();
        assert!(waiting.held.is_empty());
    }

    /// The command line writes beside the server.
    #[tokio::test]
    async fn what_another_process_has_moved_is_not_moved_again() {
        let dir = tempfile::tempdir().unwrap();
        let (server, other) = (open(dir.path()).await, open(dir.path()).await);
        server.commit(message(1, [1, 2])).await.unwrap();
        other.commit(message(2, [1, 2])).await.unwrap();
        other.settled(Parts::ALL).await.unwrap();
        server.commit(message(3, [1, 2])).await.unwrap();
        for recipient in [1, 2] {
            assert_eq!(items(&server, recipient).await, [1, 2, 3]);
        }
        other.commit(message(4, [1])).await.unwrap();
        server.commit(message(5, [1])).await.unwrap();
        assert_eq!(items(&other, 1).await, [1, 2, 3, 4, 5]);
        assert_eq!(count(&server, UNREAD).await, 8);
    }

    /// SY-14: whoever goes on counting from there counts each event once.
    #[tokio::test]
    async fn unread_counts_say_from_where_on_they_have_to_be_counted_on() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let unread = async |recipient| {
            let (unread, position) = store.unread(recipient, 5).await.unwrap();
            (unread.total().notifications, position)
        };
        assert_eq!(unread(1).await, (0, 0));
        store.commit(message(1, [1, 2])).await.unwrap();
        store.commit(message(2, [1, 2])).await.unwrap();
        assert_eq!(unread(1).await, (0, 0), "both are to be added");
        store.settled(Parts::of(1)).await.unwrap();
        assert_eq!(unread(1).await, (2, 2));
        assert_eq!(unread(2).await, (0, 0), "another part's");
        store.commit(message(3, [2])).await.unwrap();
        assert_eq!(unread(1).await, (2, 2));
        store.settled(Parts::of(2).and(Parts::EVENTS)).await.unwrap();
        assert_eq!((unread(1).await, unread(2).await), ((2, 3), (3, 3)), "nothing waits for anybody");
    }
}
