//! What can go wrong with the database, in the words of somebody who has to mend it.

use std::sync::Arc;

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A row that has to be unique exists, or a row that has to exist doesn't. Nothing was written.
    #[error("the write conflicts with what is stored")]
    Conflict,
    #[error(
        "the disk that holds the database is full; nothing was written: free some space, the server goes on by itself"
    )]
    Full,
    #[error(
        "the database can't be written to (read-only file, folder or file system): give the server's user write access to it and its folder"
    )]
    ReadOnly,
    #[error(
        "the database file is damaged ({0}); nothing was changed: restore it from a backup, or try `sqlite3 FILE .recover` on a copy"
    )]
    Corrupt(String),
    #[error(
        "the database was written by a newer Hearth (schema {found}, this one knows {known}): start that version, or restore the backup made before the upgrade"
    )]
    Newer { found: i64, known: i64 },
    #[error("cannot open the database {path}: {cause}")]
    Open { path: String, cause: String },
    #[error("another Hearth is running on {0}: stop it first, or give this one a `data_dir` of its own")]
    InUse(String),
    #[error("database schema: {0}")]
    Migration(String),
    #[error("a value can't be stored: {0}")]
    Encoding(String),
    #[error("the database is closed")]
    Closed,
    #[error("database: {0}")]
    Database(Arc<sqlx::Error>),
}

/// SQLite's primary result codes that an operator can do something about.
const SQLITE_READONLY: i64 = 8;
const SQLITE_CORRUPT: i64 = 11;
const SQLITE_FULL: i64 = 13;
const SQLITE_NOTADB: i64 = 26;

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        let Some(database) = cause.as_database_error() else {
            return Self::Database(Arc::new(cause));
        };
        if database.is_unique_violation() {
            return Self::Conflict;
        }
        // Extended codes carry the primary one in their low byte.
        let code = database.code().and_then(|code| code.parse::<i64>().ok()).unwrap_or_default();
        match code & 0xff {
            SQLITE_FULL => Self::Full,
            SQLITE_READONLY => Self::ReadOnly,
            SQLITE_CORRUPT | SQLITE_NOTADB => Self::Corrupt(database.message().to_owned()),
            _ => Self::Database(Arc::new(cause)),
        }
    }
}
