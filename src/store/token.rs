//! The tables `access_token` and `refresh_token`. They hold hashes; no token can be read out of them.

use super::{Error, Statement, Store, statement};

/// What an access token stands for.
#[derive(Clone, Debug)]
pub struct SessionRow {
    pub recipient: i64,
    pub user_id: String,
    pub device: i64,
    pub device_id: String,
    pub admin: bool,
    pub locked: bool,
    pub suspended: bool,
    pub guest: bool,
    pub expires_ts: Option<i64>,
    pub refresh_hash: Option<String>,
    /// It came from a refresh token that is still good: nobody has used the new tokens yet.
    pub unconfirmed: bool,
}

#[derive(Clone, Debug)]
pub struct RefreshTokenRow {
    pub recipient: i64,
    pub user_id: String,
    pub device: i64,
    pub device_id: String,
    /// What it was exchanged for has been used.
    pub spent: bool,
    pub locked: bool,
}

/// Conflicts if the device is unknown or dehydrated, or the account deactivated.
pub fn add_access_token(
    hash: &str,
    user_id: &str,
    device_id: &str,
    expires_ts: Option<i64>,
    refresh_hash: Option<&str>,
) -> Statement {
    statement!(
        "INSERT INTO access_token (hash, recipient, device, expires_ts, refresh_hash)
         SELECT $1, a.recipient, d.id, $4, $5
         FROM account a JOIN device d ON d.recipient = a.recipient AND d.device_id = $3
         WHERE a.user_id = $2 AND a.deactivated_ts IS NULL
           AND d.id NOT IN (SELECT device FROM dehydrated_device)",
        hash,
        user_id,
        device_id,
        expires_ts,
        refresh_hash,
    )
    .expecting(1)
}

/// Conflicts as [`add_access_token`] does.
pub fn add_refresh_token(hash: &str, user_id: &str, device_id: &str, now: i64) -> Statement {
    statement!(
        "INSERT INTO refresh_token (hash, recipient, device, created_ts)
         SELECT $1, a.recipient, d.id, $4
         FROM account a JOIN device d ON d.recipient = a.recipient AND d.device_id = $3
         WHERE a.user_id = $2 AND a.deactivated_ts IS NULL",
        hash,
        user_id,
        device_id,
        now,
    )
    .expecting(1)
}

/// All tokens of a user's device of that name.
pub fn revoke_tokens_of(user_id: &str, device_id: &str) -> [Statement; 2] {
    [
        statement!(
            "DELETE FROM access_token WHERE device IN (
                 SELECT d.id FROM device d JOIN account a ON a.recipient = d.recipient
                 WHERE a.user_id = $1 AND d.device_id = $2)",
            user_id,
            device_id,
        ),
        statement!(
            "DELETE FROM refresh_token WHERE device IN (
                 SELECT d.id FROM device d JOIN account a ON a.recipient = d.recipient
                 WHERE a.user_id = $1 AND d.device_id = $2)",
            user_id,
            device_id,
        ),
    ]
}

/// Tells other processes that sessions were ended, or something else that they have to look at again.
pub fn tell_other_processes() -> Statement {
    statement!("UPDATE counter SET value = value + 1 WHERE name = 'sessions ended'")
}

/// How often [`tell_other_processes`] was committed.
pub(super) fn told_other_processes() -> Statement {
    statement!("SELECT value FROM counter WHERE name = 'sessions ended'")
}

/// All tokens of a device.
pub fn revoke_tokens(device: i64) -> [Statement; 2] {
    [
        statement!("DELETE FROM access_token WHERE device = $1", device),
        statement!("DELETE FROM refresh_token WHERE device = $1", device),
    ]
}

/// A refresh token was exchanged for `next`. What an earlier exchange of it gave, and nobody used, is void. Conflicts
/// if it was spent meanwhile.
pub fn exchange_refresh_token(hash: &str, device: i64, next: &str) -> [Statement; 3] {
    [
        statement!(
            "DELETE FROM access_token WHERE device = $2 AND refresh_hash IN (
                 SELECT next_hash FROM refresh_token WHERE hash = $1)",
            hash,
            device,
        ),
        statement!(
            "DELETE FROM refresh_token WHERE device = $2 AND hash IN (
                 SELECT next_hash FROM refresh_token WHERE hash = $1)",
            hash,
            device,
        ),
        statement!("UPDATE refresh_token SET next_hash = $2 WHERE hash = $1 AND NOT spent", hash, next,)
            .expecting(1),
    ]
}

/// The tokens around the refresh token `hash` were used for the first time: those before them end, unless that one is void by
/// now. `since` bounds how long spent ones are remembered.
pub fn confirm_refresh(hash: &str, device: i64, since: i64) -> [Statement; 3] {
    [
        statement!(
            "UPDATE refresh_token SET spent = TRUE WHERE device = $2 AND next_hash = $1",
            hash,
            device
        ),
        statement!(
            "DELETE FROM access_token
             WHERE device = $2 AND (refresh_hash IS NULL OR refresh_hash <> $1)
               AND EXISTS (SELECT 1 FROM refresh_token r WHERE r.hash = $1 AND r.device = $2)",
            hash,
            device,
        ),
        statement!(
            "DELETE FROM refresh_token WHERE device = $1 AND spent AND created_ts < $2",
            device,
            since
        ),
    ]
}

type SessionColumns = (i64, String, i64, String, bool, bool, bool, bool, Option<i64>, Option<String>, bool);

impl From<SessionColumns> for SessionRow {
    fn from(row: SessionColumns) -> Self {
        let (
            recipient,
            user_id,
            device,
            device_id,
            admin,
            locked,
            suspended,
            guest,
            expires_ts,
            refresh_hash,
            unconfirmed,
        ) = row;
        Self {
            recipient,
            user_id,
            device,
            device_id,
            admin,
            locked,
            suspended,
            guest,
            expires_ts,
            refresh_hash,
            unconfirmed,
        }
    }
}

type RefreshTokenColumns = (i64, String, i64, String, bool, bool);

impl From<RefreshTokenColumns> for RefreshTokenRow {
    fn from((recipient, user_id, device, device_id, spent, locked): RefreshTokenColumns) -> Self {
        Self { recipient, user_id, device, device_id, spent, locked }
    }
}

impl Store {
    /// How often [`tell_other_processes`] was committed, by any process.
    pub async fn told_other_processes(&self) -> Result<i64, Error> {
        let (value,): (i64,) = self.one(told_other_processes()).await?;
        Ok(value)
    }

    pub async fn session(&self, hash: &str) -> Result<Option<SessionRow>, Error> {
        let row: Option<SessionColumns> = self
            .optional(statement!(
                "SELECT a.recipient, a.user_id, d.id, d.device_id, a.admin, a.locked, a.suspended, a.guest,
                        t.expires_ts, t.refresh_hash,
                        t.refresh_hash IS NOT NULL AND EXISTS (
                            SELECT 1 FROM refresh_token r
                            WHERE r.device = t.device AND r.next_hash = t.refresh_hash AND NOT r.spent)
                 FROM access_token t
                 JOIN device d ON d.id = t.device
                 JOIN account a ON a.recipient = t.recipient
                 WHERE t.hash = $1 AND a.deactivated_ts IS NULL",
                hash,
            ))
            .await?;
        Ok(row.map(SessionRow::from))
    }

    pub async fn refresh_token(&self, hash: &str) -> Result<Option<RefreshTokenRow>, Error> {
        let row: Option<RefreshTokenColumns> = self
            .optional(statement!(
                "SELECT a.recipient, a.user_id, d.id, d.device_id, r.spent, a.locked
                 FROM refresh_token r
                 JOIN device d ON d.id = r.device
                 JOIN account a ON a.recipient = r.recipient
                 WHERE r.hash = $1 AND a.deactivated_ts IS NULL",
                hash,
            ))
            .await?;
        Ok(row.map(RefreshTokenRow::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::alone::open;

    /// A request that brings a token for the first time is slow, and meanwhile its client, which lost the answer, refreshes again.
    #[tokio::test]
    async fn tokens_that_are_void_end_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path()).await;
        let refresh = |hash| {
            statement!(
                "INSERT INTO refresh_token (hash, recipient, device, created_ts) VALUES ($1, 1, 1, 0)",
                hash
            )
        };
        let access = |hash, refresh| {
            statement!(
                "INSERT INTO access_token (hash, recipient, device, refresh_hash) VALUES ($1, 1, 1, $2)",
                hash,
                refresh
            )
        };
        store.commit(vec![refresh("R1"), access("A1", "R1")]).await.unwrap();
        for (new, token) in [("R2", "A2"), ("R3", "A3")] {
            let mut statements = Vec::from(exchange_refresh_token("R1", 1, new));
            statements.extend([refresh(new), access(token, new)]);
            store.commit(statements).await.unwrap();
        }
        let alive = async || -> Vec<(String,)> {
            store.all(statement!("SELECT hash FROM access_token ORDER BY hash")).await.unwrap()
        };
        store.commit(Vec::from(confirm_refresh("R2", 1, 0))).await.unwrap();
        assert_eq!(alive().await, [("A1".to_owned(),), ("A3".to_owned(),)]);
        store.commit(Vec::from(confirm_refresh("R3", 1, 0))).await.unwrap();
        assert_eq!(alive().await, [("A3".to_owned(),)]);
    }
}
