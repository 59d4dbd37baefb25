//! The tables `event` and `event_time`.

use super::{Error, Parts, Statement, Store, statement};

/// An event at or below this `seq` is an *outlier*: it has no place in the log of its room. It is part of a state that others
/// told of, or of what allowed that.
pub const OUTLIER: i64 = -(1 << 40);

/// In place of the `seq` of a room's last event, whichever that is, where a row says that it is the room's only end.
pub const LAST: i64 = i64::MAX;

/// A row of `event`, but for the position, which only [`Store::seq_at`] needs.
pub struct StoredEvent {
    pub room: i64,
    pub seq: i64,
    pub event_id: String,
    pub pdu: String,
    pub verdict: i64,
    pub redacted_by: Option<i64>,
    pub sender_device: Option<i64>,
    pub txn_id: Option<String>,
}

type Row = (i64, i64, String, String, i64, Option<i64>, Option<i64>, Option<String>);

/// A question for rows of [`Row`].
macro_rules! events {
    ($rest:literal) => {
        concat!(
            "SELECT room, seq, event_id, pdu, verdict, redacted_by, sender_device, txn_id FROM event ",
            $rest
        )
    };
}

impl From<Row> for StoredEvent {
    fn from(row: Row) -> Self {
        let (room, seq, event_id, pdu, verdict, redacted_by, sender_device, txn_id) = row;
        Self { room, seq, event_id, pdu, verdict, redacted_by, sender_device, txn_id }
    }
}

impl Store {
    /// Asks for rows of the columns that make a [`StoredEvent`], in the order of its fields.
    pub(super) async fn event_rows(&self, question: Statement) -> Result<Vec<StoredEvent>, Error> {
        let rows: Vec<Row> = self.all(question).await?;
        Ok(rows.into_iter().map(StoredEvent::from).collect())
    }

    pub async fn event_by_id(&self, room: i64, event_id: &str) -> Result<Option<StoredEvent>, Error> {
        let question = statement!(events!("WHERE event_id = $1 AND room = $2"), event_id, room);
        let row: Option<Row> = self.optional(question).await?;
        Ok(row.map(StoredEvent::from))
    }

    /// The rooms that have an event of this id. Mostly one; more if the rules of their versions let senders choose ids.
    pub async fn rooms_of_event(&self, event_id: &str) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!("SELECT room FROM event WHERE event_id = $1 ORDER BY room", event_id))
            .await?;
        Ok(rows.into_iter().map(|(room,)| room).collect())
    }

    /// The event of a room closest to a time: the first at or after it, or the last at or before it. Only in these ranges
    /// of `seq` (JSON), and only those that are shown.
    pub async fn nearest_in_time(
        &self,
        room: i64,
        ts: i64,
        forwards: bool,
        ranges: String,
    ) -> Result<Option<i64>, Error> {
        self.settled_if_possible(Parts::EVENTS).await?;
        let question = if forwards {
            statement!(
                "SELECT t.seq FROM event_time t CROSS JOIN event e
                 WHERE t.room = $1 AND t.ts >= $2 AND e.room = t.room AND e.seq = t.seq AND e.verdict = 0
                   AND EXISTS (SELECT 1 FROM json_each($3) v WHERE t.seq BETWEEN v.value ->> 0 AND v.value ->> 1)
                 ORDER BY t.ts, t.seq LIMIT 1",
                room,
                ts,
                ranges,
            )
        } else {
            statement!(
                "SELECT t.seq FROM event_time t CROSS JOIN event e
                 WHERE t.room = $1 AND t.ts <= $2 AND e.room = t.room AND e.seq = t.seq AND e.verdict = 0
                   AND EXISTS (SELECT 1 FROM json_each($3) v WHERE t.seq BETWEEN v.value ->> 0 AND v.value ->> 1)
                 ORDER BY t.ts DESC, t.seq DESC LIMIT 1",
                room,
                ts,
                ranges,
            )
        };
        let row: Option<(i64,)> = self.optional(question).await?;
        Ok(row.map(|(seq,)| seq))
    }

    /// The events of a room with these `seq`, in no order. Those that don't exist are left out.
    pub async fn events(&self, room: i64, seqs: &[i64]) -> Result<Vec<StoredEvent>, Error> {
        let list = serde_json::to_string(seqs).map_err(|cause| Error::Encoding(cause.to_string()))?;
        self.event_rows(statement!(
            events!("WHERE room = $1 AND seq IN (SELECT value FROM json_each($2))"),
            room,
            list,
        ))
        .await
    }

    /// At most `limit` events with `after < seq ≤ to`, oldest first.
    pub async fn events_forwards(
        &self,
        room: i64,
        after: i64,
        to: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.event_rows(statement!(
            events!("WHERE room = $1 AND seq > $2 AND seq <= $3 ORDER BY seq LIMIT $4"),
            room,
            after,
            to,
            limit,
        ))
        .await
    }

    /// At most `limit` events with `from ≥ seq > to`, newest first.
    pub async fn events_backwards(
        &self,
        room: i64,
        from: i64,
        to: i64,
        limit: i64,
    ) -> Result<Vec<StoredEvent>, Error> {
        self.event_rows(statement!(
            events!("WHERE room = $1 AND seq <= $2 AND seq > $3 ORDER BY seq DESC LIMIT $4"),
            room,
            from,
            to,
            limit,
        ))
        .await
    }
}

/// Replaces an event by its redacted form. A second redaction changes nothing.
pub fn redact(room: i64, seq: i64, pdu: &str, redacted_by: i64) -> Statement {
    statement!(
        "UPDATE event SET pdu = $3, redacted_by = $4
         WHERE room = $1 AND seq = $2 AND redacted_by IS NULL",
        room,
        seq,
        pdu,
        redacted_by,
    )
}
