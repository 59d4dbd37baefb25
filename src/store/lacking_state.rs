//! The table `lacking_state`: what a room's state lacks.

use super::{Error, Statement, Store, statement};

impl Store {
    /// The events that a room's state lacks, each since when (milliseconds).
    pub async fn lacking_state(&self, room: i64) -> Result<Vec<(String, i64)>, Error> {
        self.all(statement!("SELECT event_id, since FROM lacking_state WHERE room = $1", room)).await
    }
}

pub fn insert_lacking(room: i64, event_id: &str, since: i64) -> Statement {
    statement!("INSERT INTO lacking_state (room, event_id, since) VALUES ($1, $2, $3)", room, event_id, since)
}

pub fn delete_lacking(room: i64, event_id: &str) -> Statement {
    statement!("DELETE FROM lacking_state WHERE room = $1 AND event_id = $2", room, event_id)
}
