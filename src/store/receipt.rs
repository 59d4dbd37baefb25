//! The tables `receipt` and `unread`.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Arg, Error, Parts, Statement, Store, statement};

/// A row of `receipt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiptRow {
    pub user_id: String,
    /// `m.read` or `m.read.private`.
    pub kind: String,
    /// Empty for an unthreaded receipt, else `main` or a thread's root.
    pub thread: String,
    pub event_id: String,
    pub ts: i64,
}

/// Where a receipt goes to.
#[derive(Clone, Copy, Debug)]
pub struct ReceiptKey<'a> {
    pub room: i64,
    pub user_id: &'a str,
    pub kind: &'a str,
    pub thread: &'a str,
}

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

    fn add_row(&mut self, thread: &str, notifications: i64, highlights: i64) {
        // In the table the main timeline has an empty name.
        let thread = (!thread.is_empty()).then(|| Arc::from(thread));
        self.add(thread.as_ref(), Counts { notifications, highlights });
    }
}

type Row = (String, String, String, String, i64);

impl From<Row> for ReceiptRow {
    fn from((user_id, kind, thread, event_id, ts): Row) -> Self {
        Self { user_id, kind, thread, event_id, ts }
    }
}

impl Store {
    /// The `seq` of the event that a receipt is at.
    pub async fn receipt_seq(&self, key: ReceiptKey<'_>) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> = self
            .optional(statement!(
                "SELECT seq FROM receipt WHERE room = $1 AND user_id = $2 AND type = $3 AND thread = $4",
                key.room,
                key.user_id,
                key.kind,
                key.thread,
            ))
            .await?;
        Ok(row.map(|(seq,)| seq))
    }

    /// All receipts of a room, the private ones of everybody among them.
    pub async fn receipts_of_room(&self, room: i64) -> Result<Vec<ReceiptRow>, Error> {
        let rows: Vec<Row> = self
            .all(statement!(
                "SELECT user_id, type, thread, event_id, ts FROM receipt WHERE room = $1 ORDER BY changed",
                room,
            ))
            .await?;
        Ok(rows.into_iter().map(ReceiptRow::from).collect())
    }

    /// The receipts that queue entries point at. Those that have moved on since have another entry, and are left out.
    pub async fn receipts_changed(&self, room: i64, changed: &[i64]) -> Result<Vec<ReceiptRow>, Error> {
        let list = serde_json::to_string(changed).map_err(|cause| Error::Encoding(cause.to_string()))?;
        let rows: Vec<Row> = self
            .all(statement!(
                "SELECT user_id, type, thread, event_id, ts FROM receipt
                 WHERE room = $1 AND changed IN (SELECT value FROM json_each($2)) ORDER BY changed",
                room,
                list,
            ))
            .await?;
        Ok(rows.into_iter().map(ReceiptRow::from).collect())
    }

    /// The `changed` of the newest public receipts of a server's users in a room with `after < changed ≤ to`, at most `limit`.
    pub async fn receipts_between(
        &self,
        room: i64,
        server: &str,
        after: i64,
        to: i64,
        limit: i64,
    ) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT changed FROM receipt
                 WHERE room = $1 AND changed > $2 AND changed <= $3 AND type = 'm.read'
                   AND substr(user_id, instr(user_id, ':') + 1) = $4
                 ORDER BY changed DESC LIMIT $5",
                room,
                after,
                to,
                server,
                limit,
            ))
            .await?;
        Ok(rows.into_iter().map(|(changed,)| changed).collect())
    }

    /// A user's unread events of a room as far as deliveries are settled, and the last position that they account for.
    pub async fn unread(&self, recipient: i64, room: i64) -> Result<(Unread, i64), Error> {
        let rows: Vec<(i64, Option<String>, i64, i64)> = self
            .all(statement!(
                "SELECT COALESCE(
                            (SELECT MIN(d.position) - 1 FROM delivery d
                             WHERE d.position > (SELECT s.position FROM settled s WHERE s.part = $3)),
                            (SELECT h.position FROM head h WHERE h.id = 1)
                        ),
                        u.thread, COUNT(u.seq),
                        CAST(COALESCE(SUM(CASE WHEN u.highlight THEN 1 ELSE 0 END), 0) AS BIGINT)
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
                "SELECT room, thread, COUNT(*), CAST(SUM(CASE WHEN highlight THEN 1 ELSE 0 END) AS BIGINT)
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
}

/// Moves a receipt on to an event; it never goes back. `step` is the step of the batch whose position the row shall
/// carry.
pub fn set_receipt(key: ReceiptKey<'_>, event_id: &str, seq: i64, ts: i64, step: u32) -> Statement {
    statement!(
        "INSERT INTO receipt (room, user_id, type, thread, event_id, seq, ts, changed)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
         ON CONFLICT (room, user_id, type, thread) DO UPDATE
         SET event_id = excluded.event_id, seq = excluded.seq, ts = excluded.ts, changed = excluded.changed
         WHERE excluded.seq > receipt.seq",
        key.room,
        key.user_id,
        key.kind,
        key.thread,
        event_id,
        seq,
        ts,
        Arg::Position(step),
    )
}

/// Everything up to `seq` is read.
pub fn clear_unread(recipient: i64, room: i64, seq: i64) -> Statement {
    statement!("DELETE FROM unread WHERE recipient = $1 AND room = $2 AND seq <= $3", recipient, room, seq,)
}

/// Everything up to `seq` is read in one thread; the main timeline's name is empty.
pub fn clear_unread_thread(recipient: i64, room: i64, thread: &str, seq: i64) -> Statement {
    statement!(
        "DELETE FROM unread WHERE recipient = $1 AND room = $2 AND thread = $3 AND seq <= $4",
        recipient,
        room,
        thread,
        seq,
    )
}
