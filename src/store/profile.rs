//! The table `profile`: what a user says about themself, a row a field.

use super::{Arg, Error, Statement, Store, statement};

/// The value of what was taken away: its row stays for clients that have to hear of it.
const DELETED: &str = "";

/// Fields that a user has taken away and that are remembered: the last ones.
const DELETED_KEPT: i64 = 100;

/// A field of somebody's profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRow {
    pub user_id: String,
    pub field: String,
    /// JSON; `None`: it was taken away.
    pub value: Option<String>,
}

/// `value` is JSON. `step` is the step of the batch whose position the row shall carry: queue entries point at it.
pub fn set_profile_field(recipient: i64, field: &str, value: &str, step: u32) -> Statement {
    statement!(
        "INSERT INTO profile (recipient, field, value, changed) VALUES ($1, $2, $3, $4)
         ON CONFLICT (recipient, field) DO UPDATE SET value = excluded.value, changed = excluded.changed",
        recipient,
        field,
        value,
        Arg::Position(step),
    )
}

pub fn delete_profile_field(recipient: i64, field: &str, step: u32) -> [Statement; 2] {
    [
        set_profile_field(recipient, field, DELETED, step),
        statement!(
            "DELETE FROM profile WHERE recipient = $1 AND value = $2 AND changed <= (
                 SELECT changed FROM profile WHERE recipient = $1 AND value = $2
                 ORDER BY changed DESC LIMIT 1 OFFSET $3
             )",
            recipient,
            DELETED,
            DELETED_KEPT,
        ),
    ]
}

pub fn delete_profile(recipient: i64) -> Statement {
    statement!("DELETE FROM profile WHERE recipient = $1", recipient)
}

impl Store {
    /// A user's fields and their values, which are JSON, in the order of their names.
    pub async fn profile(&self, recipient: i64) -> Result<Vec<(String, String)>, Error> {
        self.all(statement!(
            "SELECT field, value FROM profile WHERE recipient = $1 AND value <> $2 ORDER BY field",
            recipient,
            DELETED,
        ))
        .await
    }

    /// All fields of these users.
    pub async fn profiles(&self, recipients: &[i64]) -> Result<Vec<ProfileRow>, Error> {
        self.profile_rows(statement!(
            "SELECT a.user_id, p.field, p.value FROM json_each($1) r
             JOIN profile p ON p.recipient = r.value JOIN account a ON a.recipient = p.recipient
             WHERE p.value <> $2",
            list(recipients)?,
            DELETED,
        ))
        .await
    }

    /// What was last written at these positions. What was written again since is left out: its later entry has it.
    pub async fn profiles_changed(&self, changed: &[i64]) -> Result<Vec<ProfileRow>, Error> {
        self.profile_rows(statement!(
            "SELECT a.user_id, p.field, p.value FROM json_each($1) c
             JOIN profile p ON p.changed = c.value JOIN account a ON a.recipient = p.recipient",
            list(changed)?,
        ))
        .await
    }

    async fn profile_rows(&self, question: Statement) -> Result<Vec<ProfileRow>, Error> {
        let rows: Vec<(String, String, String)> = self.all(question).await?;
        let row = |(user_id, field, value): (String, String, String)| ProfileRow {
            user_id,
            field,
            value: Some(value).filter(|value| value != DELETED),
        };
        Ok(rows.into_iter().map(row).collect())
    }
}

fn list(numbers: &[i64]) -> Result<String, Error> {
    serde_json::to_string(numbers).map_err(|cause| Error::Encoding(cause.to_string()))
}
