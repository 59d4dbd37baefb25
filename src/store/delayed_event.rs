//! The table `delayed_event`: events to be sent later, and for a while what became of them.

use super::{Error, Statement, Store, statement};

/// A row, with the names of what it points at.
#[derive(Clone, Debug)]
pub struct DelayedRow {
    pub delay_id: String,
    pub recipient: i64,
    pub room: i64,
    pub room_id: String,
    pub kind: String,
    /// `None`: not state.
    pub state_key: Option<String>,
    pub content: String,
    /// Milliseconds.
    pub delay: i64,
    pub scheduled_ts: i64,
    pub send_ts: i64,
    /// `None`: still to be sent.
    pub finalised_ts: Option<i64>,
    /// The event id, if it was sent.
    pub event: Option<String>,
    /// JSON: why it couldn't be sent.
    pub error: Option<String>,
}

/// What is written when one is scheduled.
#[derive(Clone, Debug)]
pub struct NewDelayed {
    pub delay_id: String,
    pub recipient: i64,
    pub device: i64,
    /// A hash of the request's path, see `room::Txn`.
    pub path: i64,
    pub txn_id: Option<String>,
    pub room: i64,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: String,
    pub delay: i64,
    pub scheduled_ts: i64,
}

type Columns = (
    String,
    i64,
    i64,
    String,
    String,
    Option<String>,
    String,
    i64,
    i64,
    i64,
    Option<i64>,
    Option<String>,
    Option<String>,
);

impl From<Columns> for DelayedRow {
    fn from(row: Columns) -> Self {
        let (delay_id, recipient, room, room_id, kind, state_key, content, ..) = row;
        let (.., delay, scheduled_ts, send_ts, finalised_ts, event, error) = row;
        Self {
            delay_id,
            recipient,
            room,
            room_id,
            kind,
            state_key,
            content,
            delay,
            scheduled_ts,
            send_ts,
            finalised_ts,
            event,
            error,
        }
    }
}

/// A question for [`DelayedRow`]s.
macro_rules! delayed {
    ($rest:literal) => {
        concat!(
            "SELECT d.delay_id, d.recipient, d.room, r.room_id, d.type AS kind, d.state_key, d.content, d.delay,
                    d.scheduled_ts, d.send_ts, d.finalised_ts, d.event, d.error
             FROM delayed_event d JOIN room r ON r.id = d.room ",
            $rest
        )
    };
}

/// Conflicts if the user has `most` of them scheduled already, and if the transaction has one.
pub fn schedule(new: NewDelayed, most: i64) -> Statement {
    statement!(
        "INSERT INTO delayed_event (delay_id, recipient, device, path, txn_id, room, type, state_key, content, delay,
                                    scheduled_ts, send_ts)
         SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12
         WHERE (SELECT COUNT(*) FROM delayed_event WHERE recipient = $2 AND finalised_ts IS NULL) < $13",
        new.delay_id,
        new.recipient,
        new.device,
        new.path,
        new.txn_id,
        new.room,
        new.kind,
        new.state_key,
        new.content,
        new.delay,
        new.scheduled_ts,
        new.scheduled_ts.saturating_add(new.delay),
        most,
    )
    .expecting(1)
}

/// The delay begins anew. Conflicts if it is over.
pub fn restart(delay_id: &str, now: i64) -> Statement {
    statement!(
        "UPDATE delayed_event SET scheduled_ts = $2, send_ts = $2 + delay
         WHERE delay_id = $1 AND finalised_ts IS NULL",
        delay_id,
        now,
    )
    .expecting(1)
}

/// It was sent (`event`), couldn't be (`error`, JSON) or was cancelled (neither). Nothing if that was settled before.
pub fn finalise(delay_id: &str, now: i64, event: Option<String>, error: Option<String>) -> Statement {
    statement!(
        "UPDATE delayed_event SET finalised_ts = $2, event = $3, error = $4
         WHERE delay_id = $1 AND finalised_ts IS NULL",
        delay_id,
        now,
        event,
        error,
    )
}

/// Cancels all that an account has scheduled.
pub fn cancel_all(recipient: i64, now: i64) -> Statement {
    statement!(
        "UPDATE delayed_event SET finalised_ts = $2 WHERE recipient = $1 AND finalised_ts IS NULL",
        recipient,
        now,
    )
}

/// Forgets what was settled before `horizon`, and of each account all but the last `kept`.
pub fn trim(horizon: i64, kept: i64) -> [Statement; 2] {
    [
        statement!("DELETE FROM delayed_event WHERE finalised_ts < $1", horizon),
        statement!(
            "DELETE FROM delayed_event WHERE delay_id IN (
                 SELECT delay_id FROM (
                     SELECT delay_id, ROW_NUMBER() OVER (PARTITION BY recipient ORDER BY finalised_ts DESC) AS place
                     FROM delayed_event WHERE finalised_ts IS NOT NULL) AS placed
                 WHERE place > $1)",
            kept,
        ),
    ]
}

impl Store {
    pub async fn delayed(&self, delay_id: &str) -> Result<Option<DelayedRow>, Error> {
        let row: Option<Columns> =
            self.optional(statement!(delayed!("WHERE d.delay_id = $1"), delay_id)).await?;
        Ok(row.map(DelayedRow::from))
    }

    /// What was scheduled in a transaction.
    pub async fn delayed_in_txn(
        &self,
        device: i64,
        path: i64,
        txn_id: &str,
    ) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .optional(statement!(
                "SELECT delay_id FROM delayed_event WHERE device = $1 AND path = $2 AND txn_id = $3",
                device,
                path,
                txn_id,
            ))
            .await?;
        Ok(row.map(|(delay_id,)| delay_id))
    }

    /// What an account has scheduled, the next to be sent first.
    pub async fn delayed_of(&self, recipient: i64) -> Result<Vec<DelayedRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                delayed!("WHERE d.recipient = $1 AND d.finalised_ts IS NULL ORDER BY d.send_ts, d.delay_id"),
                recipient
            ))
            .await?;
        Ok(rows.into_iter().map(DelayedRow::from).collect())
    }

    /// The first `most` that should have been sent by now, in the order of their times, but for those of some rooms.
    pub async fn delayed_due(&self, now: i64, most: i64, but: &[i64]) -> Result<Vec<DelayedRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                delayed!(
                    "WHERE d.finalised_ts IS NULL AND d.send_ts <= $1
                       AND d.room NOT IN (SELECT value FROM json_each($3))
                     ORDER BY d.send_ts, d.delay_id LIMIT $2"
                ),
                now,
                most,
                format!("{but:?}"),
            ))
            .await?;
        Ok(rows.into_iter().map(DelayedRow::from).collect())
    }

    /// When the next is to be sent, but for those of some rooms.
    pub async fn next_delayed(&self, but: &[i64]) -> Result<Option<i64>, Error> {
        let (next,): (Option<i64>,) = self
            .one(statement!(
                "SELECT MIN(send_ts) FROM delayed_event
                 WHERE finalised_ts IS NULL AND room NOT IN (SELECT value FROM json_each($1))",
                format!("{but:?}"),
            ))
            .await?;
        Ok(next)
    }

    /// When the next of an account is to be sent.
    pub async fn next_delayed_of(&self, recipient: i64) -> Result<Option<i64>, Error> {
        let (next,): (Option<i64>,) = self
            .one(statement!(
                "SELECT MIN(send_ts) FROM delayed_event WHERE finalised_ts IS NULL AND recipient = $1",
                recipient
            ))
            .await?;
        Ok(next)
    }
}
