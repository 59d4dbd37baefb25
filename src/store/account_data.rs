//! The table `account_data`.

use super::{Arg, Error, Statement, Store, statement};

/// The room number of what belongs to no room.
pub const GLOBAL: i64 = 0;

/// The content of what was deleted: its row stays for devices that have to hear of it.
pub const DELETED: &str = "";

/// The type of the marker that says how far its owner has read a room.
pub const FULLY_READ: &str = "m.fully_read";

#[derive(Clone, Debug)]
pub struct AccountDataRow {
    pub kind: String,
    /// JSON.
    pub content: String,
}

/// `step` is the step of the batch whose position the row shall carry: queue entries point at it.
pub fn set_account_data(recipient: i64, room: i64, kind: &str, content: &str, step: u32) -> Statement {
    statement!(
        "INSERT INTO account_data (recipient, room, type, content, changed) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (recipient, room, type)
         DO UPDATE SET content = excluded.content, changed = excluded.changed",
        recipient,
        room,
        kind,
        content,
        Arg::Position(step),
    )
}

/// Moves the marker `m.fully_read` of a room on to an event; it never goes back. `step` is the step of the batch whose
/// position the row shall carry.
pub fn set_fully_read(recipient: i64, room: i64, event_id: &str, seq: i64, step: u32) -> Statement {
    statement!(
        "INSERT INTO account_data (recipient, room, type, content, changed) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (recipient, room, type) DO UPDATE
         SET content = excluded.content, changed = excluded.changed
         WHERE NOT EXISTS (
             SELECT 1 FROM event e
             WHERE e.event_id = account_data.content ->> 'event_id' AND e.room = account_data.room AND e.seq >= $6)",
        recipient,
        room,
        FULLY_READ,
        serde_json::json!({ "event_id": event_id }).to_string(),
        Arg::Position(step),
        seq,
    )
}

/// Forgets what was deleted. A device that hasn't heard of it won't.
pub fn forget_deleted(recipient: i64) -> Statement {
    statement!("DELETE FROM account_data WHERE recipient = $1 AND content = $2", recipient, DELETED)
}

impl Store {
    /// The content of one type, as JSON.
    pub async fn account_data(&self, recipient: i64, room: i64, kind: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .optional(statement!(
                "SELECT content FROM account_data
                 WHERE recipient = $1 AND room = $2 AND type = $3 AND content <> $4",
                recipient,
                room,
                kind,
                DELETED,
            ))
            .await?;
        Ok(row.map(|(content,)| content))
    }

    /// How many types a user has, over all rooms, and the bytes of their contents. Those that were deleted count.
    pub async fn account_data_size(&self, recipient: i64) -> Result<(i64, i64), Error> {
        self.one(statement!(
            "SELECT COUNT(*), CAST(COALESCE(SUM(OCTET_LENGTH(content)), 0) AS BIGINT)
             FROM account_data WHERE recipient = $1",
            recipient
        ))
        .await
    }

    /// All types that a user has in a room.
    pub async fn account_data_of(&self, recipient: i64, room: i64) -> Result<Vec<AccountDataRow>, Error> {
        self.account_data_rows(statement!(
            "SELECT type, content FROM account_data
             WHERE recipient = $1 AND room = $2 AND content <> $3 ORDER BY type",
            recipient,
            room,
            DELETED,
        ))
        .await
    }

    /// What was last written at these positions. What was written again since is left out: its later entry has it. What
    /// was deleted is `{}` (MSC3391).
    pub async fn account_data_changed(
        &self,
        recipient: i64,
        changed: &[i64],
    ) -> Result<Vec<AccountDataRow>, Error> {
        let list = serde_json::to_string(changed).map_err(|cause| Error::Encoding(cause.to_string()))?;
        self.account_data_rows(statement!(
            "SELECT type, CASE content WHEN $3 THEN '{}' ELSE content END FROM account_data
             WHERE recipient = $1 AND changed IN (SELECT value FROM json_each($2)) ORDER BY changed",
            recipient,
            list,
            DELETED,
        ))
        .await
    }

    async fn account_data_rows(&self, question: Statement) -> Result<Vec<AccountDataRow>, Error> {
        let rows: Vec<(String, String)> = self.all(question).await?;
        Ok(rows.into_iter().map(|(kind, content)| AccountDataRow { kind, content }).collect())
    }
}
