//! The table `notice_room`: where the server itself speaks to a user.

use super::{Error, Statement, Store, statement};

/// Conflicts if the user has one.
pub fn insert(recipient: i64, room: i64) -> Statement {
    statement!("INSERT INTO notice_room (recipient, room) VALUES ($1, $2)", recipient, room)
}

impl Store {
    pub async fn notice_room(&self, recipient: i64) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> =
            self.optional(statement!("SELECT room FROM notice_room WHERE recipient = $1", recipient)).await?;
        Ok(row.map(|(room,)| room))
    }
}
