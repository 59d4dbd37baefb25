//! The table `account_data`. Room 0 is global.

use super::{Arg, Error, Statement, Store, statement};

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

impl Store {
    /// The content of one type, as JSON.
    pub async fn account_data(&self, recipient: i64, room: i64, kind: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .optional(statement!(
                "SELECT content FROM account_data WHERE recipient = $1 AND room = $2 AND type = $3",
                recipient,
                room,
                kind,
            ))
            .await?;
        Ok(row.map(|(content,)| content))
    }

    /// How many types a user has, over all rooms.
    pub async fn account_data_count(&self, recipient: i64) -> Result<i64, Error> {
        let (count,): (i64,) =
            self.one(statement!("SELECT COUNT(*) FROM account_data WHERE recipient = $1", recipient)).await?;
        Ok(count)
    }
}
