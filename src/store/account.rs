//! The table `account`.

use super::{Error, Statement, Store, statement};

/// A user of this server.
#[derive(Clone, Debug)]
pub struct AccountRow {
    pub recipient: i64,
    pub user_id: String,
    /// argon2id in PHC form; `None`: no login by password.
    pub password_hash: Option<String>,
    pub admin: bool,
    /// When it was; `None`: it isn't.
    pub deactivated_ts: Option<i64>,
    pub locked: bool,
    pub suspended: bool,
    pub guest: bool,
}

type Columns = (i64, String, Option<String>, bool, Option<i64>, bool, bool, bool);

/// A question for rows of [`Columns`].
macro_rules! accounts {
    ($rest:literal) => {
        concat!(
            "SELECT recipient, user_id, password_hash, admin, deactivated_ts, locked, suspended, guest
             FROM account ",
            $rest
        )
    };
}

impl From<Columns> for AccountRow {
    fn from(row: Columns) -> Self {
        let (recipient, user_id, password_hash, admin, deactivated_ts, locked, suspended, guest) = row;
        Self { recipient, user_id, password_hash, admin, deactivated_ts, locked, suspended, guest }
    }
}

/// A new account with the next free number. Conflicts if the user id is taken.
pub fn add_account(user_id: &str, password_hash: Option<String>, admin: bool, now: i64) -> Statement {
    statement!(
        "INSERT INTO account (recipient, user_id, password_hash, admin, created_ts)
         SELECT COALESCE(MAX(recipient), 0) + 1, $1, $2, $3, $4 FROM account",
        user_id,
        password_hash,
        admin,
        now,
    )
}

/// A new account of a guest, with the next free number. Conflicts if the user id is taken.
pub fn add_guest(user_id: &str, now: i64) -> Statement {
    statement!(
        "INSERT INTO account (recipient, user_id, admin, created_ts, guest)
         SELECT COALESCE(MAX(recipient), 0) + 1, $1, FALSE, $2, TRUE FROM account",
        user_id,
        now,
    )
}

/// A guest's account becomes one that is registered. Conflicts if it isn't a guest's (any more).
pub fn register_guest(recipient: i64, password_hash: Option<String>, admin: bool) -> Statement {
    statement!(
        "UPDATE account SET guest = FALSE, password_hash = $2, admin = $3
         WHERE recipient = $1 AND guest AND deactivated_ts IS NULL",
        recipient,
        password_hash,
        admin,
    )
    .expecting(1)
}

/// Conflicts if the account is unknown or deactivated.
pub fn set_password(recipient: i64, password_hash: String) -> Statement {
    statement!(
        "UPDATE account SET password_hash = $2 WHERE recipient = $1 AND deactivated_ts IS NULL",
        recipient,
        password_hash,
    )
    .expecting(1)
}

/// Changes nothing. Conflicts if the account's password is another one by now, or none.
pub fn still_password(recipient: i64, password_hash: Option<String>) -> Statement {
    statement!(
        "UPDATE account SET password_hash = password_hash WHERE recipient = $1 AND password_hash = $2",
        recipient,
        password_hash,
    )
    .expecting(1)
}

pub fn set_locked(recipient: i64, locked: bool) -> Statement {
    statement!("UPDATE account SET locked = $2 WHERE recipient = $1", recipient, locked)
}

pub fn set_suspended(recipient: i64, suspended: bool) -> Statement {
    statement!("UPDATE account SET suspended = $2 WHERE recipient = $1", recipient, suspended)
}

/// A deactivated account has left all its rooms, but those that didn't let it. Nothing, if it is in others.
pub fn account_departed(recipient: i64, stays: &[i64]) -> Statement {
    statement!(
        "UPDATE account SET departed = TRUE
         WHERE recipient = $1 AND NOT EXISTS (
             SELECT 1 FROM membership m
             WHERE m.user_id = account.user_id AND m.membership IN ('join', 'invite', 'knock')
               AND m.room NOT IN (SELECT value FROM json_each($2))
         )",
        recipient,
        format!("{stays:?}"),
    )
}

/// Somebody has come into a room: if their account is deactivated, they have to leave it.
pub fn account_came(user_id: &str) -> Statement {
    statement!("UPDATE account SET departed = FALSE WHERE user_id = $1 AND departed", user_id)
}

/// No login any more. Deactivating twice changes nothing.
pub fn deactivate_account(recipient: i64, erase: bool, now: i64) -> Statement {
    statement!(
        "UPDATE account SET deactivated_ts = COALESCE(deactivated_ts, $2), erased = erased OR $3,
                            password_hash = NULL, admin = FALSE
         WHERE recipient = $1",
        recipient,
        now,
        erase,
    )
}

impl Store {
    pub async fn account(&self, recipient: i64) -> Result<Option<AccountRow>, Error> {
        let row: Option<Columns> =
            self.optional(statement!(accounts!("WHERE recipient = $1"), recipient)).await?;
        Ok(row.map(AccountRow::from))
    }

    pub async fn account_of(&self, user_id: &str) -> Result<Option<AccountRow>, Error> {
        let row: Option<Columns> =
            self.optional(statement!(accounts!("WHERE user_id = $1"), user_id)).await?;
        Ok(row.map(AccountRow::from))
    }

    /// All accounts, oldest first.
    pub async fn accounts(&self) -> Result<Vec<AccountRow>, Error> {
        let rows: Vec<Columns> = self.all(statement!(accounts!("ORDER BY recipient"))).await?;
        Ok(rows.into_iter().map(AccountRow::from).collect())
    }

    /// Deactivated accounts that may still be in rooms.
    pub async fn accounts_to_depart(&self) -> Result<Vec<AccountRow>, Error> {
        let question = accounts!("WHERE deactivated_ts IS NOT NULL AND NOT departed ORDER BY recipient");
        let rows: Vec<Columns> = self.all(statement!(question)).await?;
        Ok(rows.into_iter().map(AccountRow::from).collect())
    }

    /// Whether anybody was ever registered.
    pub async fn has_accounts(&self) -> Result<bool, Error> {
        let question = statement!("SELECT EXISTS (SELECT 1 FROM account WHERE NOT guest)");
        let (found,): (bool,) = self.one(question).await?;
        Ok(found)
    }
}
