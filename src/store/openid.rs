//! The table `openid_token`.

use super::{Error, Statement, Store, statement};

/// Keeps a token, and forgets those that have expired.
pub fn insert_openid_token(hash: &str, recipient: i64, expires_ts: i64, now: i64) -> Vec<Statement> {
    vec![
        statement!("DELETE FROM openid_token WHERE expires_ts <= $1", now),
        statement!(
            "INSERT INTO openid_token (hash, recipient, expires_ts) VALUES ($1, $2, $3)",
            hash,
            recipient,
            expires_ts,
        ),
    ]
}

impl Store {
    /// The user of a token, unless it has expired or they are gone.
    pub async fn openid_user(&self, hash: &str, now: i64) -> Result<Option<String>, Error> {
        let row: Option<(String,)> = self
            .optional(statement!(
                "SELECT a.user_id FROM openid_token t JOIN account a ON a.recipient = t.recipient
                 WHERE t.hash = $1 AND t.expires_ts > $2 AND a.deactivated_ts IS NULL",
                hash,
                now,
            ))
            .await?;
        Ok(row.map(|(user_id,)| user_id))
    }
}
