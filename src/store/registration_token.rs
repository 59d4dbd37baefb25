//! The table `registration_token`: invitations to make an account.

use super::{Error, Statement, Store, statement};

#[derive(Clone, Debug)]
pub struct RegistrationTokenRow {
    pub token: String,
    /// `None`: any number.
    pub uses_allowed: Option<i64>,
    pub used: i64,
    pub expires_ts: Option<i64>,
    pub makes_admin: bool,
}

impl RegistrationTokenRow {
    /// Whether an account could be made with it now.
    pub fn is_valid(&self, now: i64) -> bool {
        self.uses_allowed.is_none_or(|allowed| self.used < allowed)
            && self.expires_ts.is_none_or(|expires| now < expires)
    }
}

type Columns = (String, Option<i64>, i64, Option<i64>, bool);

impl From<Columns> for RegistrationTokenRow {
    fn from((token, uses_allowed, used, expires_ts, makes_admin): Columns) -> Self {
        Self { token, uses_allowed, used, expires_ts, makes_admin }
    }
}

/// Conflicts if the token exists.
pub fn add_registration_token(
    token: &str,
    uses_allowed: Option<i64>,
    expires_ts: Option<i64>,
    makes_admin: bool,
    now: i64,
) -> Statement {
    statement!(
        "INSERT INTO registration_token (token, uses_allowed, expires_ts, makes_admin, created_ts)
         VALUES ($1, $2, $3, $4, $5)",
        token,
        uses_allowed,
        expires_ts,
        makes_admin,
        now,
    )
}

/// One use. Conflicts if the token is unknown, used up or expired.
pub fn use_registration_token(token: &str, now: i64) -> Statement {
    statement!(
        "UPDATE registration_token SET used = used + 1
         WHERE token = $1 AND (uses_allowed IS NULL OR used < uses_allowed)
           AND (expires_ts IS NULL OR expires_ts > $2)",
        token,
        now,
    )
    .expecting(1)
}

/// Conflicts if there is no such token.
pub fn delete_registration_token(token: &str) -> Statement {
    statement!("DELETE FROM registration_token WHERE token = $1", token).expecting(1)
}

impl Store {
    pub async fn registration_token(&self, token: &str) -> Result<Option<RegistrationTokenRow>, Error> {
        let row: Option<Columns> = self
            .optional(statement!(
                "SELECT token, uses_allowed, used, expires_ts, makes_admin
                 FROM registration_token WHERE token = $1",
                token,
            ))
            .await?;
        Ok(row.map(RegistrationTokenRow::from))
    }

    /// All of them, oldest first.
    pub async fn registration_tokens(&self) -> Result<Vec<RegistrationTokenRow>, Error> {
        let rows: Vec<Columns> = self
            .all(statement!(
                "SELECT token, uses_allowed, used, expires_ts, makes_admin
                 FROM registration_token ORDER BY created_ts, token"
            ))
            .await?;
        Ok(rows.into_iter().map(RegistrationTokenRow::from).collect())
    }
}
