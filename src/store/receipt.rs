//! The table `receipt`.

use super::{Arg, Error, Statement, Store, statement};

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
