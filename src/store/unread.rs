//! The table `unread`: events that notify a user and that no receipt of theirs has passed, one row for each run of events that
//! follow each other in a room's log and are alike.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rusqlite::Connection;

use super::{Error, Parts, Statement, Store, statement};

/// `unread_notifications` of a room or a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub notifications: i64,
    pub highlights: i64,
}

impl Counts {
    fn add(&mut self, other: Self) {
        self.notifications += other.notifications;
        self.highlights += other.highlights;
    }
}

/// A user's unread events in a room, by thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// Outside of threads.
    pub main: Counts,
    /// By their roots.
    pub threads: BTreeMap<Arc<str>, Counts>,
}

impl Unread {
    pub fn total(&self) -> Counts {
        let mut total = self.main;
        for counts in self.threads.values() {
            total.add(*counts);
        }
        total
    }

    /// Counts more events of a thread, or without one of the main timeline.
    pub fn add(&mut self, thread: Option<&Arc<str>>, more: Counts) {
        match thread {
            Some(thread) if more != Counts::default() => {
                self.threads.entry(Arc::clone(thread)).or_default().add(more);
            }
            Some(_) => {}
            None => self.main.add(more),
        }
    }

    /// Everything in a thread is read, or without one in the main timeline.
    pub fn read(&mut self, thread: Option<&Arc<str>>) {
        match thread {
            Some(thread) => drop(self.threads.remove(thread)),
            None => self.main = Counts::default(),
        }
    }

    fn add_row(&mut self, thread: &str, notifications: i64, highlights: i64) {
        // In the table the main timeline has an empty name.
        let thread = (!thread.is_empty()).then(|| Arc::from(thread));
        self.add(thread.as_ref(), Counts { notifications, highlights });
    }
}

/// Events that notify a recipient, in a row of the room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run<'a> {
    pub(super) recipient: i64,
    pub(super) room: i64,
    pub(super) seq: i64,
    pub(super) highlight: bool,
    /// The thread's root; empty for the main timeline.
    pub(super) thread: &'a str,
    /// How many follow the first.
    pub(super) more: i64,
}

impl Run<'_> {
    /// Takes in the run that comes next in the order of the table, if it goes on with this one.
    fn goes_on(&mut self, next: &Self) -> bool {
        let goes_on = next.seq == self.seq + self.more + 1
            && (next.recipient, next.room) == (self.recipient, self.room)
            && (next.highlight, next.thread) == (self.highlight, self.thread);
        if goes_on {
            self.more += 1 + next.more;
        }
        goes_on
    }
}

/// Forgets what is unread of these threads, each of a recipient in a room: all of it is from before what was sent there.
pub(super) fn clear<'a>(
    connection: &Connection,
    read: impl Iterator<Item = (i64, i64, &'a str)>,
) -> Result<(), Error> {
    let text = "DELETE FROM unread WHERE recipient = ?1 AND room = ?2 AND thread = ?3";
    let mut delete = connection.prepare_cached(text)?;
    for thread in read {
        delete.execute(thread)?;
    }
    Ok(())
}

/// Writes what has become unread, in any order.
pub(super) fn insert(connection: &Connection, mut unread: Vec<Run<'_>>) -> Result<(), Error> {
    unread.sort_unstable();
    unread.dedup_by(|next, run| run.goes_on(next));
    let text =
        "INSERT INTO unread (recipient, room, seq, highlight, thread, more) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = connection.prepare_cached(text)?;
    for run in unread {
        insert.execute((run.recipient, run.room, run.seq, run.highlight, run.thread, run.more))?;
    }
    Ok(())
}

impl Store {
    /// A user's unread events of a room as far as deliveries are settled, and the last position that they account for.
    pub async fn unread(&self, recipient: i64, room: i64) -> Result<(Unread, i64), Error> {
        let rows: Vec<(i64, Option<String>, i64, i64)> = self
            .all(statement!(
                "SELECT COALESCE(
                            (SELECT MIN(d.position) - 1 FROM delivery d
                             WHERE d.position > (SELECT s.position FROM settled s WHERE s.part = $3)),
                            (SELECT h.position FROM head h WHERE h.id = 1)
                        ),
                        u.thread, CAST(COALESCE(SUM(u.more + 1), 0) AS BIGINT),
                        CAST(COALESCE(SUM(CASE WHEN u.highlight THEN u.more + 1 ELSE 0 END), 0) AS BIGINT)
                 FROM (SELECT 1) one LEFT JOIN unread u ON u.recipient = $1 AND u.room = $2
                 GROUP BY u.thread",
                recipient,
                room,
                Parts::number(recipient),
            ))
            .await?;
        let position = rows.first().map_or(0, |(settled, ..)| *settled);
        let mut unread = Unread::default();
        for (_, thread, notifications, highlights) in rows {
            unread.add_row(thread.as_deref().unwrap_or_default(), notifications, highlights);
        }
        Ok((unread, position))
    }

    /// A user's unread events of all rooms that have any.
    pub async fn unread_of_rooms(&self, recipient: i64) -> Result<HashMap<i64, Unread>, Error> {
        self.settled_if_possible(Parts::of(recipient)).await?;
        let rows: Vec<(i64, String, i64, i64)> = self
            .all(statement!(
                "SELECT room, thread, CAST(SUM(more + 1) AS BIGINT),
                        CAST(SUM(CASE WHEN highlight THEN more + 1 ELSE 0 END) AS BIGINT)
                 FROM unread WHERE recipient = $1 GROUP BY room, thread",
                recipient,
            ))
            .await?;
        let mut rooms: HashMap<i64, Unread> = HashMap::new();
        for (room, thread, notifications, highlights) in rows {
            rooms.entry(room).or_default().add_row(&thread, notifications, highlights);
        }
        Ok(rooms)
    }

    /// Up to where `clear_unread` clears at most `limit` rows of the events up to `seq`; `None` if there are none.
    pub async fn unread_up_to(
        &self,
        recipient: i64,
        room: i64,
        seq: i64,
        limit: i64,
    ) -> Result<Option<i64>, Error> {
        let (last,): (Option<i64>,) = self
            .one(statement!(
                "SELECT MAX(CASE WHEN seq + more > $3 THEN $3 ELSE seq + more END) FROM (
                     SELECT seq, more FROM unread
                     WHERE recipient = $1 AND room = $2 AND seq <= $3 ORDER BY seq LIMIT $4
                 ) u",
                recipient,
                room,
                seq,
                limit,
            ))
            .await?;
        Ok(last)
    }
}

/// Everything up to `seq` is read.
pub fn clear_unread(recipient: i64, room: i64, seq: i64) -> [Statement; 2] {
    [
        statement!(
            "UPDATE unread SET seq = $3 + 1, more = seq + more - $3 - 1
             WHERE recipient = $1 AND room = $2 AND seq + more > $3 AND seq = (
                 SELECT MAX(b.seq) FROM unread b WHERE b.recipient = $1 AND b.room = $2 AND b.seq <= $3
             )",
            recipient,
            room,
            seq,
        ),
        statement!(
            "DELETE FROM unread WHERE recipient = $1 AND room = $2 AND seq <= $3",
            recipient,
            room,
            seq
        ),
    ]
}

/// Everything up to `seq` is read in one thread; the main timeline's name is empty.
pub fn clear_unread_thread(recipient: i64, room: i64, thread: &str, seq: i64) -> [Statement; 2] {
    [
        statement!(
            "UPDATE unread SET seq = $3 + 1, more = seq + more - $3 - 1
             WHERE recipient = $1 AND room = $2 AND thread = $4 AND seq + more > $3 AND seq = (
                 SELECT MAX(b.seq) FROM unread b WHERE b.recipient = $1 AND b.room = $2 AND b.seq <= $3
             )",
            recipient,
            room,
            seq,
            thread,
        ),
        statement!(
            "DELETE FROM unread WHERE recipient = $1 AND room = $2 AND thread = $3 AND seq <= $4",
            recipient,
            room,
            thread,
            seq,
        ),
    ]
}

/// The rows of recipients `$1` (a JSON list) of room `$2` in which `$3` may be: the last that begin up to there.
macro_rules! rows_around {
    () => {
        "(recipient, room, seq) IN (
             SELECT r.value, $2, (
                 SELECT MAX(b.seq) FROM unread b WHERE b.recipient = r.value AND b.room = $2 AND b.seq <= $3
             ) FROM json_each($1) r
         )"
    };
}

/// A redacted event notifies none of these recipients (a JSON list) any more.
pub fn clear_unread_event(recipients: &str, room: i64, seq: i64) -> [Statement; 3] {
    [
        // What comes after it becomes a row of its own, and what comes before it a shorter one.
        statement!(
            concat!(
                "INSERT INTO unread (recipient, room, seq, highlight, thread, more)
                 SELECT recipient, room, $3 + 1, highlight, thread, seq + more - $3 - 1 FROM unread
                 WHERE seq + more > $3 AND ",
                rows_around!()
            ),
            recipients,
            room,
            seq,
        ),
        statement!(
            concat!(
                "UPDATE unread SET more = $3 - 1 - seq WHERE seq < $3 AND seq + more >= $3 AND ",
                rows_around!()
            ),
            recipients,
            room,
            seq,
        ),
        statement!(
            "DELETE FROM unread
             WHERE recipient IN (SELECT value FROM json_each($1)) AND room = $2 AND seq = $3",
            recipients,
            room,
            seq,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;
    use crate::store::{Batch, Delivery, Item, Kind, alone::open, flags};

    const ROOM: i64 = 5;
    const THREADS: [&str; 2] = ["", "$root"];

    fn message(seq: i64, thread: &str, recipients: Vec<(i64, i64)>) -> Batch {
        let mut batch = Batch::new();
        let step = batch.step();
        let (kind, item, thread) = (Kind::Event, Item::Value(seq), thread.to_owned());
        batch.deliver(Delivery { step, kind, room: ROOM, item, thread, recipients });
        batch
    }

    fn settled(statements: impl IntoIterator<Item = Statement>) -> Batch {
        let mut batch = Batch::new();
        batch.settle(Parts::ALL);
        batch.extend(statements);
        batch
    }

    async fn rows(store: &Store) -> Vec<(i64, i64, i64)> {
        let rows = store.all(statement!("SELECT recipient, seq, more FROM unread ORDER BY 1, 2")).await;
        rows.unwrap()
    }

    #[tokio::test]
    async fn messages_that_follow_each_other_share_a_row() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let notified = vec![(1, flags::NOTIFY), (2, flags::NOTIFY)];
        for seq in 1..=9 {
            // The second said the fifth; the seventh speaks of the first.
            let recipients = match seq {
                5 => vec![(1, flags::NOTIFY), (2, 0)],
                7 => vec![(1, flags::NOTIFY | flags::HIGHLIGHT), (2, flags::NOTIFY)],
                _ => notified.clone(),
            };
            store.commit(message(seq, "", recipients)).await.unwrap();
        }
        store.commit(message(10, "$root", notified.clone())).await.unwrap();
        store.settled(Parts::ALL).await.unwrap();
        let expected = [(1, 1, 5), (1, 7, 0), (1, 8, 1), (1, 10, 0), (2, 1, 3), (2, 6, 3), (2, 10, 0)];
        assert_eq!(rows(&store).await, expected);
    }

    /// RC-24, SY-14, SY-15: whatever is read, in whichever thread and order, and redacted, the same is left as if each event
    /// had a row.
    #[tokio::test]
    async fn what_is_left_is_what_nobody_has_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let mut dice = StdRng::seed_from_u64(7);
        // Recipient, seq, thread, highlight.
        let mut model: BTreeSet<(i64, i64, usize, bool)> = BTreeSet::new();
        let mut seq = 0;
        let mut longest = 0;
        for act in 0..300 {
            match dice.random_range(0..20) {
                // Some at a time, so that they are written as runs.
                0..14 => {
                    for _ in 0..dice.random_range(1..=12) {
                        seq += 1;
                        let thread = usize::from(dice.random_bool(0.1));
                        let mut notify = |recipient: i64| match dice.random_range(0..20) {
                            0 => (recipient, 0),
                            1 => (recipient, flags::NOTIFY | flags::HIGHLIGHT),
                            2 => (recipient, flags::READ),
                            _ => (recipient, flags::NOTIFY),
                        };
                        let recipients = vec![notify(1), notify(2), notify(3)];
                        model.retain(|(recipient, _, of, _)| {
                            *of != thread || !recipients.contains(&(*recipient, flags::READ))
                        });
                        let notified = recipients.iter().filter(|(_, flags)| flags & flags::NOTIFY != 0);
                        model.extend(notified.map(|(recipient, flags)| {
                            (*recipient, seq, thread, flags & flags::HIGHLIGHT != 0)
                        }));
                        store.commit(message(seq, THREADS[thread], recipients)).await.unwrap();
                    }
                }
                14 => {
                    let (reader, upto) = (dice.random_range(1..=3), dice.random_range(0..=seq));
                    store.commit(settled(clear_unread(reader, ROOM, upto))).await.unwrap();
                    model.retain(|(recipient, seq, ..)| *recipient != reader || *seq > upto);
                }
                15 => {
                    let (reader, upto) = (dice.random_range(1..=3), dice.random_range(0..=seq));
                    let read = usize::from(dice.random_bool(0.5));
                    let statements = clear_unread_thread(reader, ROOM, THREADS[read], upto);
                    store.commit(settled(statements)).await.unwrap();
                    model.retain(|(recipient, seq, thread, _)| {
                        *recipient != reader || *seq > upto || *thread != read
                    });
                }
                16 => {
                    // As the purge does it, a few rows at a time.
                    let (reader, upto) = (dice.random_range(1..=3), dice.random_range(0..=seq));
                    store.settled(Parts::ALL).await.unwrap();
                    while let Some(last) = store.unread_up_to(reader, ROOM, upto, 2).await.unwrap() {
                        assert!(last <= upto);
                        store.commit(settled(clear_unread(reader, ROOM, last))).await.unwrap();
                    }
                    model.retain(|(recipient, seq, ..)| *recipient != reader || *seq > upto);
                }
                _ => {
                    let redacted = dice.random_range(0..=seq);
                    store.commit(settled(clear_unread_event("[1,2,4]", ROOM, redacted))).await.unwrap();
                    model.retain(|(recipient, seq, ..)| *recipient == 3 || *seq != redacted);
                }
            }
            store.settled(Parts::ALL).await.unwrap();
            longest = rows(&store).await.iter().map(|(.., more)| *more).fold(longest, i64::max);
            for recipient in 1..=3 {
                let mut expected = Unread::default();
                let of_recipient = || model.iter().filter(|(other, ..)| *other == recipient);
                for (_, _, thread, highlight) in of_recipient() {
                    expected.add_row(THREADS[*thread], 1, i64::from(*highlight));
                }
                assert_eq!(store.unread(recipient, ROOM).await.unwrap().0, expected, "after act {act}");
                let rooms = store.unread_of_rooms(recipient).await.unwrap();
                assert_eq!(rooms.get(&ROOM).cloned().unwrap_or_default(), expected, "after act {act}");
                let notified =
                    store.notifications(recipient, i64::MAX, i64::MAX, flags::NOTIFY).await.unwrap();
                let unread: Vec<_> =
                    notified.iter().rev().filter(|told| told.unread).map(|told| told.seq).collect();
                let expected: Vec<_> = of_recipient().map(|(_, seq, ..)| *seq).collect();
                assert_eq!(unread, expected, "after act {act}");
            }
        }
        assert!(longest > 8, "{longest}");
    }

    /// I8: a redaction looks at one row a member, however many unread there are.
    #[tokio::test]
    async fn a_redacted_event_is_found_by_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        for statement in clear_unread_event("[1]", ROOM, 1).iter().chain(&clear_unread(1, ROOM, 1)[..1]) {
            let text: &'static str = format!("EXPLAIN QUERY PLAN {}", statement.text).leak();
            let plan: Vec<(i64, i64, i64, String)> =
                store.all(Statement { text, ..statement.clone() }).await.unwrap();
            let steps: Vec<String> = plan.into_iter().map(|(.., step)| step).collect();
            let mut rows = steps.iter().filter(|step| step.contains("unread"));
            assert!(rows.clone().count() > 0 && rows.all(|step| step.contains("seq=?")), "{steps:#?}");
        }
    }
}
