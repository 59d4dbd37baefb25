//! The tables `queue` and `head_history`, and what an account has lost of its queue.

use super::{Delivered, Error, Store, statement};

impl Store {
    /// A recipient's entries with `after < position ≤ to`, in order.
    pub async fn queue(&self, recipient: i64, after: i64, to: i64) -> Result<Vec<Delivered>, Error> {
        let rows: Vec<(i64, i16, i64, i64, i64)> = self
            .all(statement!(
                "SELECT position, kind, room, item, flags FROM queue
                 WHERE recipient = $1 AND position > $2 AND position <= $3 ORDER BY position",
                recipient,
                after,
                to,
            ))
            .await?;
        let delivered = rows.into_iter().map(|(position, kind, room, item, flags)| Delivered {
            recipient,
            position,
            kind,
            room,
            item,
            flags,
        });
        Ok(delivered.collect())
    }

    /// Entries at or below this position are gone.
    pub async fn queue_trimmed(&self, recipient: i64) -> Result<i64, Error> {
        let row: Option<(i64,)> =
            self.optional(statement!("SELECT trimmed FROM account WHERE recipient = $1", recipient)).await?;
        Ok(row.map_or(0, |(trimmed,)| trimmed))
    }
}
