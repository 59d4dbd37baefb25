//! Opening the database: the file, its settings and its schema.

use std::{borrow::Cow, path::Path, time::Duration};

use rusqlite::Connection;
use sqlx::{
    SqlStr, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

use super::Error;

/// Every schema change ever made, oldest first. One that was released is never edited.
const MIGRATIONS: &[(&str, &str)] = &[
    ("first light", include_str!("../../migrations/sqlite/0001_first_light.sql")),
    ("relations", include_str!("../../migrations/sqlite/0002_relations.sql")),
];

/// Readers at a time. SQLite answers from the page cache mostly, so more than this waits for a core, not for the disk.
const READERS: u32 = 4;

/// How long a connection waits for another process that writes, such as the command line.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a commit counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// When it would survive a loss of power.
    #[default]
    Full,
    /// When it would survive a crash of the process; the last moments before a loss of power may be missing.
    Normal,
}

/// Opens the file, brings its schema up to date, and gives the connections that read it.
pub(super) async fn open(path: &Path, durability: Durability) -> Result<SqlitePool, Error> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match durability {
            Durability::Full => SqliteSynchronous::Full,
            Durability::Normal => SqliteSynchronous::Normal,
        })
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .foreign_keys(false)
        .busy_timeout(PATIENCE)
        .statement_cache_capacity(256)
        .pragma("cache_size", "-2048");
    // Without a minimum the pool begins with one connection and not, now and then, two: of those that make a database of
    // a new file together, one is told that it is locked, however patient it is.
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options)
        .await
        .map_err(|cause| explain(path, cause))?;
    migrate(&readers).await?;
    Ok(readers)
}

/// A connection of its own for a thread that calls SQLite directly.
pub(super) fn connect(path: &Path, durability: Durability) -> Result<Connection, Error> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(256);
    connection.pragma_update(
        None,
        "synchronous",
        match durability {
            Durability::Full => "FULL",
            Durability::Normal => "NORMAL",
        },
    )?;
    // Pages move into the database file every four megabytes: often enough that the commit that does it is hardly slower
    // than others.
    connection.pragma_update(None, "wal_autocheckpoint", 1000)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    Ok(connection)
}

fn explain(path: &Path, cause: sqlx::Error) -> Error {
    match Error::from(cause) {
        Error::Database(cause) => Error::Open { path: path.display().to_string(), cause: cause.to_string() },
        known => known,
    }
}

async fn migrate(pool: &SqlitePool) -> Result<(), Error> {
    let migrations = MIGRATIONS.iter().zip(1..).map(|((description, text), version)| {
        let (kind, text) = (MigrationType::Simple, SqlStr::from_static(text));
        Migration::new(version, Cow::Borrowed(description), kind, text, false)
    });
    match Migrator::with_migrations(migrations.collect()).run(pool).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) => {
            Err(Error::Newer { found, known: MIGRATIONS.len() as i64 })
        }
        Err(MigrateError::Execute(cause)) => Err(cause.into()),
        Err(cause) => Err(Error::Migration(cause.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two connections that make a database of one new file at the same time lock each other out.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_file_is_made_a_database_by_one_connection() {
        for _ in 0..100 {
            let dir = tempfile::tempdir().unwrap();
            let readers = open(&dir.path().join("hearth.db"), Durability::Normal).await.unwrap();
            assert_eq!(readers.size(), 1);
        }
    }

    /// I1: what is acknowledged has to survive a loss of power, which no test can bring about; these settings see to it.
    #[tokio::test]
    async fn commits_are_as_durable_as_the_configuration_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        open(&path, Durability::Full).await.unwrap();
        for (durability, level) in [(Durability::Full, 2), (Durability::Normal, 1)] {
            let connection = connect(&path, durability).unwrap();
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
            assert_eq!(synchronous, level);
        }
    }
}
