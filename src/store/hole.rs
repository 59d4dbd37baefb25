//! The table `hole`: where history is missing.

use super::{Error, Statement, Store, statement};

/// A row of `hole`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoleRow {
    /// The first event after it.
    pub seq: i64,
    /// The last event before it.
    pub floor: i64,
    /// The events that follow it directly, as JSON.
    pub ends: String,
}

pub fn insert_hole(room: i64, hole: &HoleRow) -> Statement {
    statement!(
        "INSERT INTO hole (room, seq, floor, ends) VALUES ($1, $2, $3, $4)",
        room,
        hole.seq,
        hole.floor,
        hole.ends.clone(),
    )
}

pub fn delete_hole(room: i64, seq: i64) -> Statement {
    statement!("DELETE FROM hole WHERE room = $1 AND seq = $2", room, seq).expecting(1)
}

impl Store {
    /// The holes of a room, the last one first.
    pub async fn holes(&self, room: i64) -> Result<Vec<HoleRow>, Error> {
        let rows: Vec<(i64, i64, String)> = self
            .all(statement!("SELECT seq, floor, ends FROM hole WHERE room = $1 ORDER BY seq DESC", room))
            .await?;
        Ok(rows.into_iter().map(|(seq, floor, ends)| HoleRow { seq, floor, ends }).collect())
    }
}
