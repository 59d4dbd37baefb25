//! The table `server_txn`: what was answered to the last transactions of other servers.

use super::{Error, Statement, Store, statement};

pub fn set_server_txn(origin: &str, slot: i64, txn_id: &str, answer: std::sync::Arc<str>) -> Statement {
    statement!(
        "INSERT INTO server_txn (origin, slot, txn_id, answer) VALUES ($1, $2, $3, $4)
         ON CONFLICT (origin, slot) DO UPDATE SET txn_id = excluded.txn_id, answer = excluded.answer",
        origin,
        slot,
        txn_id,
        answer,
    )
}

impl Store {
    /// The answer to a transaction, if it is one of the last.
    pub async fn server_txn(&self, origin: &str, slot: i64, txn_id: &str) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .optional(statement!(
                "SELECT answer FROM server_txn WHERE origin = $1 AND slot = $2 AND txn_id = $3",
                origin,
                slot,
                txn_id,
            ))
            .await?;
        Ok(row.map(|(answer,)| answer))
    }
}
