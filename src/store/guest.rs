//! The table `guests_to_leave`, and who is a guest where.

use super::{Error, Statement, Store, statement};

/// The guests of a room have to leave it, because of event `seq` or what it did.
pub fn revoke(room: i64, seq: i64) -> Statement {
    statement!(
        "INSERT INTO guests_to_leave (room, seq) VALUES ($1, $2)
         ON CONFLICT (room) DO UPDATE SET seq = excluded.seq",
        room,
        seq,
    )
}

/// They have, unless something else wants them to since.
pub fn left(room: i64, seq: i64) -> Statement {
    statement!("DELETE FROM guests_to_leave WHERE room = $1 AND seq = $2", room, seq)
}

impl Store {
    /// The rooms whose guests have to leave, with the `seq` of [`revoke`].
    pub async fn guests_to_leave(&self) -> Result<Vec<(i64, i64)>, Error> {
        self.all(statement!("SELECT room, seq FROM guests_to_leave ORDER BY room")).await
    }

    /// The ids of those guests who are joined to a room.
    pub async fn guests_in(&self, room: i64) -> Result<Vec<String>, Error> {
        let rows: Vec<(String,)> = self
            .all(statement!(
                "SELECT a.user_id FROM membership m JOIN account a ON a.user_id = m.user_id
                 WHERE m.room = $1 AND m.membership = 'join' AND a.guest ORDER BY a.recipient",
                room,
            ))
            .await?;
        Ok(rows.into_iter().map(|(user_id,)| user_id).collect())
    }
}
