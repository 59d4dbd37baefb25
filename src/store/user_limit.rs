//! The table `user_limit`: rate limits of single accounts.

use super::{Error, Statement, Store, statement};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserLimitRow {
    pub recipient: i64,
    pub class: String,
    /// Requests in 1000 seconds and at once; `None`: no limit.
    pub rate: Option<(i64, i64)>,
}

type Columns = (i64, String, Option<i64>, Option<i64>);

impl From<Columns> for UserLimitRow {
    fn from((recipient, class, per_1000s, burst): Columns) -> Self {
        Self { recipient, class, rate: per_1000s.zip(burst) }
    }
}

pub fn set_user_limit(row: UserLimitRow) -> Statement {
    statement!(
        "INSERT INTO user_limit (recipient, class, per_1000s, burst) VALUES ($1, $2, $3, $4)
         ON CONFLICT (recipient, class) DO UPDATE SET per_1000s = excluded.per_1000s, burst = excluded.burst",
        row.recipient,
        row.class,
        row.rate.map(|(per_1000s, _)| per_1000s),
        row.rate.map(|(_, burst)| burst),
    )
}

pub fn delete_user_limit(recipient: i64, class: &str) -> Statement {
    statement!("DELETE FROM user_limit WHERE recipient = $1 AND class = $2", recipient, class)
}

impl Store {
    /// Those of all accounts: few have any.
    pub async fn user_limits(&self) -> Result<Vec<UserLimitRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                "SELECT recipient, class, per_1000s, burst FROM user_limit ORDER BY recipient, class"
            ))
            .await?;
        Ok(rows.into_iter().map(UserLimitRow::from).collect())
    }
}
