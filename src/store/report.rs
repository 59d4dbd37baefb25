//! The table `report`.

use super::{Error, Statement, Store, statement};

/// What a user reported: an event with its room, a room, or a user.
#[derive(Clone, Debug, Default)]
pub struct ReportRow {
    pub created_ts: i64,
    pub reporter: String,
    pub room_id: Option<String>,
    pub event_id: Option<String>,
    pub user_id: Option<String>,
    pub reason: String,
}

pub fn insert(row: ReportRow) -> Statement {
    statement!(
        "INSERT INTO report (id, created_ts, reporter, room_id, event_id, user_id, reason)
         SELECT COALESCE(MAX(id), 0) + 1, $1, $2, $3, $4, $5, $6 FROM report",
        row.created_ts,
        row.reporter,
        row.room_id,
        row.event_id,
        row.user_id,
        row.reason,
    )
}

impl Store {
    /// The newest reports first.
    pub async fn reports(&self, limit: i64) -> Result<Vec<ReportRow>, Error> {
        type Row = (i64, String, Option<String>, Option<String>, Option<String>, String);
        let rows: Vec<Row> = self
            .all(statement!(
                "SELECT created_ts, reporter, room_id, event_id, user_id, reason FROM report
                 ORDER BY id DESC LIMIT $1",
                limit,
            ))
            .await?;
        let row = |(created_ts, reporter, room_id, event_id, user_id, reason)| ReportRow {
            created_ts,
            reporter,
            room_id,
            event_id,
            user_id,
            reason,
        };
        Ok(rows.into_iter().map(row).collect())
    }
}
