//! The tables `key_backup`, `backed_up_key` and `doomed_keys`: what users' clients keep here of the keys of messages.
//!
//! The keys of a version are a *set* with a number of its own, so that a version loses all of them at once, however many they
//! are; the set is then doomed, and deleted in parts.

use super::{Error, Statement, Store, statement};

/// A version of a user's backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupRow {
    pub version: i64,
    pub algorithm: String,
    /// A JSON object.
    pub auth_data: String,
    /// The number of its set of keys.
    pub keys: i64,
    pub count: i64,
    pub etag: i64,
}

type Columns = (i64, String, String, i64, i64, i64);

impl From<Columns> for BackupRow {
    fn from((version, algorithm, auth_data, keys, count, etag): Columns) -> Self {
        Self { version, algorithm, auth_data, keys, count, etag }
    }
}

/// A key with what the client says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackedUpKeyRow {
    pub room_id: String,
    pub session_id: String,
    pub first_message_index: i64,
    pub forwarded_count: i64,
    pub is_verified: bool,
    /// JSON.
    pub session_data: String,
}

type KeyColumns = (String, String, i64, i64, bool, String);

impl From<KeyColumns> for BackedUpKeyRow {
    fn from(row: KeyColumns) -> Self {
        let (room_id, session_id, first_message_index, forwarded_count, is_verified, session_data) = row;
        Self { room_id, session_id, first_message_index, forwarded_count, is_verified, session_data }
    }
}

/// A question for rows of [`Columns`].
macro_rules! backups {
    ($rest:literal) => {
        concat!("SELECT version, algorithm, auth_data, keys, count, etag FROM key_backup ", $rest)
    };
}

/// A question for rows of [`KeyColumns`].
macro_rules! backed_up_keys {
    ($rest:literal) => {
        concat!(
            "SELECT k.room_id, k.session_id, k.first_message_index, k.forwarded_count, k.is_verified, k.session_data
             FROM backed_up_key k ",
            $rest
        )
    };
}

/// Gives out the number of a set; what follows in the batch finds it in `counter`.
fn next_keys() -> Statement {
    statement!("UPDATE counter SET value = value + 1 WHERE name = 'backed up keys'").expecting(1)
}

/// A new version without keys. Conflicts if there was a version of that number.
pub fn add_backup(recipient: i64, version: i64, algorithm: &str, auth_data: &str) -> [Statement; 2] {
    [
        next_keys(),
        statement!(
            "INSERT INTO key_backup (recipient, version, algorithm, auth_data, keys)
             SELECT a.recipient, $2, $3, $4, c.value FROM account a, counter c
             WHERE a.recipient = $1 AND a.deactivated_ts IS NULL AND c.name = 'backed up keys'",
            recipient,
            version,
            algorithm,
            auth_data,
        )
        .expecting(1),
    ]
}

/// Conflicts if the version is gone.
pub fn set_auth_data(recipient: i64, version: i64, auth_data: &str) -> Statement {
    statement!(
        "UPDATE key_backup SET auth_data = $3 WHERE recipient = $1 AND version = $2 AND NOT deleted",
        recipient,
        version,
        auth_data,
    )
    .expecting(1)
}

/// Notes that keys were added or replaced: how many are new. Conflicts unless the version is the user's last one and
/// has changed `backup.etag` times.
pub fn keys_changed(recipient: i64, backup: &BackupRow, added: i64) -> Statement {
    statement!(
        "UPDATE key_backup SET count = count + $5, etag = etag + 1
         WHERE recipient = $1 AND version = $2 AND etag = $3 AND keys = $4 AND NOT deleted AND NOT EXISTS (
             SELECT 1 FROM key_backup later
             WHERE later.recipient = $1 AND later.version > $2 AND NOT later.deleted
         )",
        recipient,
        backup.version,
        backup.etag,
        backup.keys,
        added,
    )
    .expecting(1)
}

/// A key, in place of the one of the same session.
pub fn put_key(keys: i64, key: &BackedUpKeyRow) -> Statement {
    statement!(
        "INSERT INTO backed_up_key
             (keys, room_id, session_id, first_message_index, forwarded_count, is_verified, session_data)
         VALUES ($1, $2, $3, $4, $5, $6, $7)
         ON CONFLICT (keys, room_id, session_id) DO UPDATE
         SET first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
             is_verified = excluded.is_verified, session_data = excluded.session_data",
        keys,
        &key.room_id,
        &key.session_id,
        key.first_message_index,
        key.forwarded_count,
        key.is_verified,
        &key.session_data,
    )
}

/// The end of some keys: of a room, or of one session in it. Conflicts if the version is gone or its keys changed.
pub fn delete_keys(
    recipient: i64,
    backup: &BackupRow,
    room_id: &str,
    session_id: Option<&str>,
) -> [Statement; 2] {
    [
        statement!(
            "UPDATE key_backup SET etag = etag + 1, count = count - (
                 SELECT COUNT(*) FROM backed_up_key
                 WHERE keys = $4 AND room_id = $5 AND ($6 IS NULL OR session_id = $6)
             )
             WHERE recipient = $1 AND version = $2 AND etag = $3 AND keys = $4 AND NOT deleted",
            recipient,
            backup.version,
            backup.etag,
            backup.keys,
            room_id,
            session_id,
        )
        .expecting(1),
        statement!(
            "DELETE FROM backed_up_key WHERE keys = $1 AND room_id = $2 AND ($3 IS NULL OR session_id = $3)",
            backup.keys,
            room_id,
            session_id,
        ),
    ]
}

/// The end of all keys of a version, which stays. Conflicts if the version is gone or its keys changed.
pub fn doom_keys(recipient: i64, backup: &BackupRow) -> [Statement; 3] {
    [
        next_keys(),
        statement!(
            "UPDATE key_backup SET etag = etag + 1, count = 0,
                 keys = (SELECT value FROM counter WHERE name = 'backed up keys')
             WHERE recipient = $1 AND version = $2 AND etag = $3 AND keys = $4 AND NOT deleted",
            recipient,
            backup.version,
            backup.etag,
            backup.keys,
        )
        .expecting(1),
        statement!("INSERT INTO doomed_keys (keys) VALUES ($1)", backup.keys),
    ]
}

/// The end of a version, if it is still there. Its number is never given out again.
pub fn delete_backup(recipient: i64, version: i64) -> [Statement; 2] {
    [
        statement!(
            "INSERT INTO doomed_keys (keys)
             SELECT keys FROM key_backup WHERE recipient = $1 AND version = $2 AND NOT deleted",
            recipient,
            version,
        ),
        statement!(
            "UPDATE key_backup SET deleted = TRUE, auth_data = '{}', count = 0
             WHERE recipient = $1 AND version = $2 AND NOT deleted",
            recipient,
            version,
        ),
    ]
}

/// The end of all that a user has backed up.
pub fn delete_backups(recipient: i64) -> [Statement; 2] {
    [
        statement!(
            "INSERT INTO doomed_keys (keys) SELECT keys FROM key_backup WHERE recipient = $1 AND NOT deleted",
            recipient,
        ),
        statement!("DELETE FROM key_backup WHERE recipient = $1", recipient),
    ]
}

/// Deletes up to `most` keys of a doomed set; once there is none left, the set is forgotten.
pub fn purge_keys(keys: i64, most: i64) -> [Statement; 2] {
    [
        statement!(
            "DELETE FROM backed_up_key WHERE keys = $1 AND (room_id, session_id) IN (
                 SELECT room_id, session_id FROM backed_up_key WHERE keys = $1
                 ORDER BY room_id, session_id LIMIT $2
             )",
            keys,
            most,
        ),
        statement!(
            "DELETE FROM doomed_keys
             WHERE keys = $1 AND NOT EXISTS (SELECT 1 FROM backed_up_key WHERE keys = $1)",
            keys,
        ),
    ]
}

impl Store {
    pub async fn key_backup(&self, recipient: i64, version: i64) -> Result<Option<BackupRow>, Error> {
        let question = backups!("WHERE recipient = $1 AND version = $2 AND NOT deleted");
        let row: Option<Columns> = self.optional(statement!(question, recipient, version)).await?;
        Ok(row.map(BackupRow::from))
    }

    /// The version that keys are added to: the last one.
    pub async fn current_key_backup(&self, recipient: i64) -> Result<Option<BackupRow>, Error> {
        let question = backups!("WHERE recipient = $1 AND NOT deleted ORDER BY version DESC LIMIT 1");
        let row: Option<Columns> = self.optional(statement!(question, recipient)).await?;
        Ok(row.map(BackupRow::from))
    }

    /// The last version that was ever given out, 0 without any, and how many are there.
    pub async fn key_backup_versions(&self, recipient: i64) -> Result<(i64, i64), Error> {
        self.one(statement!(
            "SELECT COALESCE(MAX(version), 0), COUNT(CASE WHEN deleted THEN NULL ELSE 1 END)
             FROM key_backup WHERE recipient = $1",
            recipient,
        ))
        .await
    }

    /// Up to `limit` keys of a set after that session, in the order of their rooms and sessions; of one room only, if
    /// that is given.
    pub async fn backed_up_keys(
        &self,
        keys: i64,
        room_id: Option<&str>,
        after: (&str, &str),
        limit: i64,
    ) -> Result<Vec<BackedUpKeyRow>, Error> {
        let question = match room_id {
            None => backed_up_keys!(
                "WHERE k.keys = $1 AND (k.room_id, k.session_id) > ($2, $3)
                 ORDER BY k.room_id, k.session_id LIMIT $4"
            ),
            Some(_) => backed_up_keys!(
                "WHERE k.keys = $1 AND k.room_id = $2 AND k.session_id > $3 ORDER BY k.session_id LIMIT $4"
            ),
        };
        let room = room_id.unwrap_or(after.0);
        let rows: Vec<KeyColumns> = self.all(statement!(question, keys, room, after.1, limit)).await?;
        Ok(rows.into_iter().map(BackedUpKeyRow::from).collect())
    }

    pub async fn backed_up_key(
        &self,
        keys: i64,
        room_id: &str,
        session_id: &str,
    ) -> Result<Option<BackedUpKeyRow>, Error> {
        let question = backed_up_keys!("WHERE k.keys = $1 AND k.room_id = $2 AND k.session_id = $3");
        let row: Option<KeyColumns> = self.optional(statement!(question, keys, room_id, session_id)).await?;
        Ok(row.map(BackedUpKeyRow::from))
    }

    /// Those of some sessions whose keys are in a set, without the keys themselves. `sessions` is a JSON list of pairs of
    /// room and session.
    pub async fn backed_up_sessions(
        &self,
        keys: i64,
        sessions: String,
    ) -> Result<Vec<BackedUpKeyRow>, Error> {
        let rows: Vec<KeyColumns> = self
            .all(statement!(
                "SELECT k.room_id, k.session_id, k.first_message_index, k.forwarded_count, k.is_verified, ''
                 FROM json_each($2) v JOIN backed_up_key k
                 ON k.keys = $1 AND k.room_id = v.value ->> 0 AND k.session_id = v.value ->> 1",
                keys,
                sessions,
            ))
            .await?;
        Ok(rows.into_iter().map(BackedUpKeyRow::from).collect())
    }

    /// A set that is to be deleted.
    pub async fn doomed_keys(&self) -> Result<Option<i64>, Error> {
        let row: Option<(i64,)> =
            self.optional(statement!("SELECT keys FROM doomed_keys ORDER BY keys LIMIT 1")).await?;
        Ok(row.map(|(keys,)| keys))
    }
}
