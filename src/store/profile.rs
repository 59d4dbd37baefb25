//! The table `profile`: what a user says about themself, a row a field.

use super::{Error, Statement, Store, statement};

/// `value` is JSON.
pub fn set_profile_field(recipient: i64, field: &str, value: &str) -> Statement {
    statement!(
        "INSERT INTO profile (recipient, field, value) VALUES ($1, $2, $3)
         ON CONFLICT (recipient, field) DO UPDATE SET value = excluded.value",
        recipient,
        field,
        value,
    )
}

pub fn delete_profile_field(recipient: i64, field: &str) -> Statement {
    statement!("DELETE FROM profile WHERE recipient = $1 AND field = $2", recipient, field)
}

pub fn delete_profile(recipient: i64) -> Statement {
    statement!("DELETE FROM profile WHERE recipient = $1", recipient)
}

impl Store {
    /// A user's fields and their values, which are JSON, in the order of their names.
    pub async fn profile(&self, recipient: i64) -> Result<Vec<(String, String)>, Error> {
        self.all(statement!(
            "SELECT field, value FROM profile WHERE recipient = $1 ORDER BY field",
            recipient
        ))
        .await
    }
}
