//! The tables `event_state`, `state_snapshot` and `held_redaction`: what is kept of a history that forks.

use super::{Error, Statement, Store, event::StoredEvent, statement};

impl Store {
    /// The `seq` of the state events before an event on a fork, as JSON; `None` for an event that isn't on one.
    pub async fn state_before_fork(&self, room: i64, seq: i64) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .optional(statement!(
                "SELECT s.events FROM event_state e JOIN state_snapshot s ON s.hash = e.hash
                 WHERE e.room = $1 AND e.seq = $2",
                room,
                seq,
            ))
            .await?;
        Ok(row.map(|(events,)| events))
    }

    /// The events with these ids (a JSON list), in whichever room they are.
    pub async fn events_by_ids(&self, ids: String) -> Result<Vec<StoredEvent>, Error> {
        self.event_rows(statement!(
            "SELECT room, seq, event_id, pdu, verdict, redacted_by, sender_device, txn_id FROM event
             WHERE event_id IN (SELECT value FROM json_each($1))",
            ids,
        ))
        .await
    }

    /// Those of some events, as a JSON list of ids, for which redactions wait.
    pub async fn awaited_by_redactions(&self, room: i64, ids: String) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!(
                "SELECT DISTINCT target FROM held_redaction
                 WHERE room = $1 AND target IN (SELECT value FROM json_each($2))",
                room,
                ids,
            ))
            .await?;
        Ok(rows.into_iter().map(|(target,)| target).collect())
    }

    /// Whether any redaction of a room waits for its target.
    pub async fn has_held_redactions(&self, room: i64) -> Result<bool, Error> {
        let (any,): (bool,) = self
            .one(statement!("SELECT EXISTS (SELECT 1 FROM held_redaction WHERE room = $1)", room))
            .await?;
        Ok(any)
    }

    /// The `seq` of the redactions that wait for an event.
    pub async fn held_redactions(&self, room: i64, target: &str) -> Result<Vec<i64>, Error> {
        let rows: Vec<(i64,)> = self
            .all(statement!(
                "SELECT seq FROM held_redaction WHERE room = $1 AND target = $2 ORDER BY seq",
                room,
                target,
            ))
            .await?;
        Ok(rows.into_iter().map(|(seq,)| seq).collect())
    }

    /// The last `seq` at which a room's state changed otherwise than by the event of that `seq`; 0 if it never did.
    pub async fn last_silent_change(&self, room: i64) -> Result<i64, Error> {
        let (last,): (i64,) = self
            .one(statement!(
                "SELECT COALESCE(MAX(seq), 0) FROM state_log WHERE room = $1 AND event <> seq",
                room,
            ))
            .await?;
        Ok(last)
    }
}

/// Keeps the state before an event on a fork.
pub fn set_state_before(room: i64, seq: i64, hash: String, events: String) -> Vec<Statement> {
    vec![
        statement!(
            "INSERT INTO state_snapshot (hash, events) VALUES ($1, $2) ON CONFLICT (hash) DO NOTHING",
            hash.clone(),
            events,
        ),
        statement!("INSERT INTO event_state (room, seq, hash) VALUES ($1, $2, $3)", room, seq, hash),
    ]
}

pub fn hold_redaction(room: i64, target: &str, seq: i64) -> Statement {
    statement!("INSERT INTO held_redaction (room, target, seq) VALUES ($1, $2, $3)", room, target, seq)
}

/// A redaction that waited has found its target: it is shown from now on.
pub fn release_redaction(room: i64, target: &str, seq: i64) -> Vec<Statement> {
    vec![
        statement!(
            "DELETE FROM held_redaction WHERE room = $1 AND target = $2 AND seq = $3",
            room,
            target,
            seq,
        ),
        statement!("UPDATE event SET verdict = 0 WHERE room = $1 AND seq = $2", room, seq),
    ]
}
