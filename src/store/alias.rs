//! The table `alias`.

use super::{Error, Statement, Store, statement};

impl Store {
    /// The number of the room that an alias points at, and who made the alias.
    pub async fn alias(&self, alias: &str) -> Result<Option<(i64, String)>, Error> {
        self.optional(statement!("SELECT room, creator FROM alias WHERE alias = $1", alias)).await
    }

    pub async fn aliases(&self, room: i64) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!("SELECT alias FROM alias WHERE room = $1 ORDER BY created_ts, alias", room))
            .await?;
        Ok(rows.into_iter().map(|(alias,)| alias).collect())
    }
}

/// Conflicts if the alias exists.
pub fn insert(alias: &str, room: i64, creator: &str, created_ts: i64) -> Statement {
    statement!(
        "INSERT INTO alias (alias, room, creator, created_ts) VALUES ($1, $2, $3, $4)",
        alias,
        room,
        creator,
        created_ts,
    )
}

/// Conflicts if there is no such alias.
pub fn delete(alias: &str) -> Statement {
    statement!("DELETE FROM alias WHERE alias = $1", alias).expecting(1)
}

/// All aliases of one room lead to another from now on.
pub fn move_all(from: i64, to: i64) -> Statement {
    statement!("UPDATE alias SET room = $2 WHERE room = $1", from, to)
}
