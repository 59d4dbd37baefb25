//! Backups of the keys of messages. A user's clients put the keys of the sessions of their rooms here, encrypted so that
//! only the user can read them, and a new device gets them back.
//!
//! It owns versions, keys, and the rule which of two keys of one session is better. It never looks into a key. What nobody
//! can read any more is deleted behind everybody's back, a few keys at a time, so that nobody waits for it.
//!
//! Specification: [Server-side key backups](https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups).

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::Notify, time::Instant};

use crate::{
    account::Turns,
    shutdown::Shutdown,
    store::{
        self, Batch, Statement, Store,
        key_backup::{
            BackedUpKeyRow, BackupRow, add_backup, delete_backup, delete_keys, doom_keys, keys_changed,
            purge_keys, put_key, set_auth_data,
        },
    },
};

/// Bytes of what a client says about a version so that others can check it: a key and signatures.
pub const MAX_AUTH_DATA: usize = 64 * 1024;
/// Bytes of the name of an algorithm, and of the id of a session.
pub const MAX_NAME: usize = 255;
/// Bytes of one encrypted key with what belongs to it. As clients make them they have about a thousand.
pub const MAX_KEY: usize = 16 * 1024;

/// Keys that are written in one commit, which everybody else's writes wait for.
const CHUNK: usize = 500;
/// Keys that are deleted in one commit.
const PURGED: i64 = 500;
/// How long after a failure the purge tries again.
const LATER: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    // Clients tell these two apart by their words.
    #[error("Unknown backup version")]
    UnknownVersion,
    #[error("No room_keys found")]
    UnknownKey,
    #[error("No current backup version")]
    NoBackup,
    #[error("this is not the version that keys are added to, {current} is")]
    WrongVersion { current: i64 },
    #[error("the algorithm of a version can't be changed")]
    OtherAlgorithm,
    #[error("a session has no id")]
    NoSession,
    #[error("{0} is too large")]
    TooLarge(&'static str),
    #[error("there can't be more than {limit} {what}: delete some")]
    TooMany { limit: i64, what: &'static str },
    #[error(transparent)]
    Store(store::Error),
}

impl From<store::Error> for Error {
    /// Changes of one user's backups take turns, so what a write builds on is there unless the account ended meanwhile.
    fn from(error: store::Error) -> Self {
        if matches!(error, store::Error::Conflict) { Self::UnknownVersion } else { Self::Store(error) }
    }
}

/// How much a user may keep.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub versions: i64,
    /// In one version.
    pub keys: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { versions: 100, keys: 1_000_000 }
    }
}

/// What a version holds after a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Another number whenever keys have changed.
    pub etag: i64,
    pub count: i64,
}

impl From<&BackupRow> for Held {
    fn from(row: &BackupRow) -> Self {
        Self { etag: row.etag, count: row.count }
    }
}

/// Which keys of a version.
#[derive(Clone, Copy, Debug)]
pub enum Keys<'a> {
    All,
    Room(&'a str),
    Session(&'a str, &'a str),
}

pub struct KeyBackups {
    store: Store,
    limits: Limits,
    /// Of each user's changes one at a time: their clients all have the same keys to upload at the same moment.
    turns: Turns,
    doomed: Arc<Notify>,
}

impl KeyBackups {
    pub fn new(store: Store, limits: Limits) -> Self {
        Self { store, limits, turns: Turns::default(), doomed: Arc::default() }
    }

    /// A new version, to which keys are added from now on. `auth_data` is a JSON object.
    pub async fn create(&self, recipient: i64, algorithm: &str, auth_data: &str) -> Result<i64, Error> {
        check_auth_data(algorithm, auth_data)?;
        let _turn = self.turns.of(recipient).await;
        let (last, versions) = self.store.key_backup_versions(recipient).await?;
        if versions >= self.limits.versions {
            return Err(Error::TooMany { limit: self.limits.versions, what: "versions of a backup" });
        }
        self.store.commit(Vec::from(add_backup(recipient, last + 1, algorithm, auth_data))).await?;
        Ok(last + 1)
    }

    /// The version that keys are added to.
    pub async fn current(&self, recipient: i64) -> Result<BackupRow, Error> {
        self.store.current_key_backup(recipient).await?.ok_or(Error::NoBackup)
    }

    pub async fn version(&self, recipient: i64, version: &str) -> Result<BackupRow, Error> {
        let version = number(version).ok_or(Error::UnknownVersion)?;
        self.store.key_backup(recipient, version).await?.ok_or(Error::UnknownVersion)
    }

    /// KB-04: of a version nothing else can be changed.
    pub async fn set_auth_data(
        &self,
        recipient: i64,
        version: &str,
        algorithm: &str,
        auth_data: &str,
    ) -> Result<(), Error> {
        check_auth_data(algorithm, auth_data)?;
        let backup = self.version(recipient, version).await?;
        if backup.algorithm != algorithm {
            return Err(Error::OtherAlgorithm);
        }
        self.store.commit(set_auth_data(recipient, backup.version, auth_data)).await?;
        Ok(())
    }

    /// The end of a version and its keys. One that was deleted before is no error.
    pub async fn delete_version(&self, recipient: i64, version: &str) -> Result<(), Error> {
        let _turn = self.turns.of(recipient).await;
        let (last, _) = self.store.key_backup_versions(recipient).await?;
        let version = number(version).filter(|version| *version <= last).ok_or(Error::UnknownVersion)?;
        self.store.commit(self.dooming(Vec::from(delete_backup(recipient, version)))).await?;
        Ok(())
    }

    /// A batch that dooms keys: the purge hears of it.
    fn dooming(&self, statements: Vec<Statement>) -> Batch {
        let mut batch = Batch::from(statements);
        let doomed = Arc::clone(&self.doomed);
        batch.on_commit(move |_| doomed.notify_one());
        batch
    }

    /// Adds keys, or puts them in place of worse ones (KB-01). Each room and session may be there once.
    pub async fn upload(
        &self,
        recipient: i64,
        version: &str,
        keys: Vec<BackedUpKeyRow>,
    ) -> Result<Held, Error> {
        check_keys(&keys)?;
        let _turn = self.turns.of(recipient).await;
        let mut held = Held::from(&self.writable(recipient, version).await?);
        for chunk in keys.chunks(CHUNK) {
            held = self.upload_chunk(recipient, version, chunk).await?;
        }
        Ok(held)
    }

    async fn upload_chunk(
        &self,
        recipient: i64,
        version: &str,
        keys: &[BackedUpKeyRow],
    ) -> Result<Held, Error> {
        let backup = self.writable(recipient, version).await?;
        let sessions: Vec<_> = keys.iter().map(|key| (&key.room_id, &key.session_id)).collect();
        let sessions = serde_json::json!(sessions).to_string();
        let there = self.store.backed_up_sessions(backup.keys, sessions).await?;
        let there: HashMap<_, _> =
            there.iter().map(|key| ((&key.room_id, &key.session_id), rank(key))).collect();

        let mut batch = Batch::new();
        let mut added = 0;
        for key in keys {
            match there.get(&(&key.room_id, &key.session_id)) {
                None => added += 1,
                Some(before) if rank(key) < *before => {}
                Some(_) => continue,
            }
            batch.push(put_key(backup.keys, key));
        }
        if batch.is_empty() {
            return Ok(Held::from(&backup));
        }
        let count = backup.count + added;
        if count > self.limits.keys {
            return Err(Error::TooMany { limit: self.limits.keys, what: "keys in a version of a backup" });
        }
        batch.push(keys_changed(recipient, &backup, added));
        self.store.commit(batch).await?;
        Ok(Held { etag: backup.etag + 1, count })
    }

    /// KB-02: the version of that name, if it is the one that keys are added to.
    async fn writable(&self, recipient: i64, version: &str) -> Result<BackupRow, Error> {
        let backup = self.version(recipient, version).await?;
        let current = self.current(recipient).await?;
        if current.version == backup.version {
            Ok(backup)
        } else {
            Err(Error::WrongVersion { current: current.version })
        }
    }

    /// The end of keys of any version. That there are none is no error.
    pub async fn delete_keys(&self, recipient: i64, version: &str, which: Keys<'_>) -> Result<Held, Error> {
        let _turn = self.turns.of(recipient).await;
        let backup = self.version(recipient, version).await?;
        let found = match which {
            Keys::All => backup.count > 0,
            Keys::Room(room_id) => !self.page(&backup, Some(room_id), ("", ""), 1).await?.is_empty(),
            Keys::Session(room_id, session_id) => {
                self.store.backed_up_key(backup.keys, room_id, session_id).await?.is_some()
            }
        };
        if !found {
            return Ok(Held::from(&backup));
        }
        let statements = match which {
            Keys::All => Vec::from(doom_keys(recipient, &backup)),
            Keys::Room(room_id) => Vec::from(delete_keys(recipient, &backup, room_id, None)),
            Keys::Session(room_id, session_id) => {
                Vec::from(delete_keys(recipient, &backup, room_id, Some(session_id)))
            }
        };
        self.store.commit(self.dooming(statements)).await?;
        Ok(Held::from(&self.version(recipient, version).await?))
    }

    /// Up to `limit` keys after that room and session, in order; of one room only, if that is given.
    pub async fn page(
        &self,
        backup: &BackupRow,
        room_id: Option<&str>,
        after: (&str, &str),
        limit: i64,
    ) -> Result<Vec<BackedUpKeyRow>, Error> {
        Ok(self.store.backed_up_keys(backup.keys, room_id, after, limit).await?)
    }

    pub async fn key(
        &self,
        recipient: i64,
        version: &str,
        room_id: &str,
        session_id: &str,
    ) -> Result<BackedUpKeyRow, Error> {
        let backup = self.version(recipient, version).await?;
        self.store.backed_up_key(backup.keys, room_id, session_id).await?.ok_or(Error::UnknownKey)
    }

    /// Says that the keys of versions were doomed by somebody else.
    pub fn some_are_doomed(&self) {
        self.doomed.notify_one();
    }

    /// Deletes what nobody can read any more, for as long as the server runs. After each commit it rests for three times as
    /// long as that took.
    pub async fn keep_purged(&self, shutdown: Shutdown) {
        loop {
            let start = Instant::now();
            let rest = match self.purge().await {
                Ok(true) => 3 * start.elapsed(),
                Ok(false) => {
                    tokio::select! {
                        biased;
                        () = shutdown.wait() => return,
                        () = self.doomed.notified() => continue,
                    }
                }
                Err(cause) => {
                    tracing::warn!(%cause, "deleted backups of keys are still on the disk; trying again soon");
                    LATER
                }
            };
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Deletes some keys, if any are doomed.
    async fn purge(&self) -> Result<bool, store::Error> {
        let Some(keys) = self.store.doomed_keys().await? else { return Ok(false) };
        self.store.commit(Vec::from(purge_keys(keys, PURGED))).await?;
        Ok(true)
    }
}

/// The better of two keys of one session has the smaller one: rather verified, then good for earlier messages, then by
/// fewer hands.
fn rank(key: &BackedUpKeyRow) -> (bool, i64, i64) {
    (!key.is_verified, key.first_message_index, key.forwarded_count)
}

/// A version as clients name it.
fn number(version: &str) -> Option<i64> {
    version.parse().ok().filter(|number: &i64| *number > 0 && number.to_string() == version)
}

fn check_auth_data(algorithm: &str, auth_data: &str) -> Result<(), Error> {
    if algorithm.len() > MAX_NAME {
        return Err(Error::TooLarge("`algorithm`"));
    }
    if auth_data.len() > MAX_AUTH_DATA { Err(Error::TooLarge("`auth_data`")) } else { Ok(()) }
}

fn check_keys(keys: &[BackedUpKeyRow]) -> Result<(), Error> {
    for key in keys {
        // No path names it, so it could neither be got nor deleted alone.
        if key.session_id.is_empty() {
            return Err(Error::NoSession);
        }
        if key.session_id.len() > MAX_NAME {
            return Err(Error::TooLarge("the id of a session"));
        }
        if key.session_data.len() > MAX_KEY {
            return Err(Error::TooLarge("`session_data`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        queue::Tails,
        store::{Durability, account::add_account, key_backup::delete_backups},
        testing::hanging_up::{until_wait, written},
    };

    struct World {
        backups: KeyBackups,
        store: Store,
        _dir: tempfile::TempDir,
    }

    impl World {
        /// A server with the users 1 and 2.
        async fn new(limits: Limits) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("hearth.db");
            let (store, _) = Store::open(&path, Durability::Normal, Arc::new(Tails::new(1))).await.unwrap();
            for user_id in ["@a:x", "@b:x"] {
                store.commit(add_account(user_id, None, false, 0)).await.unwrap();
            }
            Self { backups: KeyBackups::new(store.clone(), limits), store, _dir: dir }
        }

        async fn filled(&self, recipient: i64, keys: usize) -> String {
            let version = self.backups.create(recipient, "m", "{}").await.unwrap().to_string();
            self.backups.upload(recipient, &version, (0..keys).map(key).collect()).await.unwrap();
            version
        }

        async fn left(&self) -> i64 {
            let mut left = 0;
            // Numbers of sets count from 1.
            for keys in 1..10 {
                left += self.store.backed_up_keys(keys, None, ("", ""), i64::MAX).await.unwrap().len() as i64;
            }
            left
        }
    }

    fn key(number: usize) -> BackedUpKeyRow {
        BackedUpKeyRow {
            room_id: format!("!{}:x", number % 7),
            session_id: number.to_string(),
            first_message_index: 0,
            forwarded_count: 0,
            is_verified: true,
            session_data: "{}".to_owned(),
        }
    }

    #[tokio::test]
    async fn what_nobody_can_read_any_more_is_deleted_in_parts() {
        let world = World::new(Limits::default()).await;
        let many = 2 * PURGED as usize + 10;
        let version = world.filled(1, many).await;
        let emptied = world.filled(1, 20).await;
        world.filled(2, 30).await;
        let kept = world.filled(1, 40).await;
        assert!(!world.backups.purge().await.unwrap(), "nothing is doomed");

        world.backups.delete_version(1, &version).await.unwrap();
        assert_eq!(world.left().await, many as i64 + 90, "whoever deletes waits for nothing");
        for left in [PURGED + 10, 10, 0] {
            assert!(world.backups.purge().await.unwrap());
            assert_eq!(world.left().await, left + 90);
        }
        assert!(!world.backups.purge().await.unwrap());

        world.backups.delete_keys(1, &emptied, Keys::All).await.unwrap();
        assert!(world.backups.purge().await.unwrap());
        assert_eq!(world.left().await, 70);
        // As the end of an account does it.
        world.store.commit(Vec::from(delete_backups(2))).await.unwrap();
        while world.backups.purge().await.unwrap() {}
        assert_eq!(world.left().await, 40);
        assert_eq!(world.backups.version(1, &kept).await.unwrap().count, 40);
        assert!(matches!(world.backups.current(2).await, Err(Error::NoBackup)));
    }

    #[tokio::test]
    async fn what_was_deleted_is_purged_though_nobody_waited_for_it() {
        let world = World::new(Limits::default()).await;
        for all_keys in [false, true] {
            for wait in 1.. {
                let version = world.filled(1, 1).await;
                let deletion = async {
                    if all_keys {
                        world.backups.delete_keys(1, &version, Keys::All).await.map(drop)
                    } else {
                        world.backups.delete_version(1, &version).await
                    }
                };
                let done = until_wait(wait, deletion).await;
                written(&world.store).await;
                let is_doomed = world.store.doomed_keys().await.unwrap().is_some();
                let is_told = world.backups.doomed.notified().now_or_never().is_some();
                assert_eq!(is_told, is_doomed, "all keys: {all_keys}, wait {wait}");
                while world.backups.purge().await.unwrap() {}
                if done.is_some() {
                    break;
                }
            }
        }
    }

    #[tokio::test]
    async fn a_version_holds_a_bounded_number_of_keys() {
        let world = World::new(Limits { versions: 2, keys: 10 }).await;
        let version = world.filled(1, 9).await;
        let held = Held::from(&world.backups.version(1, &version).await.unwrap());
        let more = (0..11).map(key).collect();
        let refused = world.backups.upload(1, &version, more).await;
        assert!(matches!(refused, Err(Error::TooMany { limit: 10, .. })), "{refused:?}");
        assert_eq!(Held::from(&world.backups.version(1, &version).await.unwrap()), held);
        assert_eq!(world.backups.upload(1, &version, vec![key(9)]).await.unwrap().count, 10);
        // A better key takes no more place.
        let better = BackedUpKeyRow { first_message_index: -1, ..key(3) };
        assert_eq!(world.backups.upload(1, &version, vec![better]).await.unwrap().count, 10);
    }
}
