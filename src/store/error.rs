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
    #[error("database: {0}")]
    Write(Arc<rusqlite::Error>),
}

/// SQLite's primary result codes that an operator can do something about.
const SQLITE_READONLY: i32 = 8;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_NOTADB: i32 = 26;

/// SQLite's extended result codes for rows that have to be unique.
const SQLITE_CONSTRAINT_PRIMARYKEY: i32 = 1555;
const SQLITE_CONSTRAINT_UNIQUE: i32 = 2067;

impl Error {
    /// From one of SQLite's extended result codes, if it is one that means something here.
    fn from_code(code: i32, message: &str) -> Option<Self> {
        if matches!(code, SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE) {
            return Some(Self::Conflict);
        }
        // Extended codes carry the primary one in their low byte.
        match code & 0xff {
            SQLITE_FULL => Some(Self::Full),
            SQLITE_READONLY => Some(Self::ReadOnly),
            SQLITE_CORRUPT | SQLITE_NOTADB => Some(Self::Corrupt(message.to_owned())),
            _ => None,
        }
    }
}

impl From<sqlx::Error> for Error {
    fn from(cause: sqlx::Error) -> Self {
        let database = cause.as_database_error();
        let code = database.and_then(|database| database.code()?.parse().ok());
        let known = code.zip(database).and_then(|(code, database)| Self::from_code(code, database.message()));
        known.unwrap_or_else(|| Self::Database(Arc::new(cause)))
    }
}

impl From<rusqlite::Error> for Error {
    fn from(cause: rusqlite::Error) -> Self {
        let code = cause.sqlite_error().map(|error| error.extended_code);
        let known = code.and_then(|code| Self::from_code(code, &cause.to_string()));
        known.unwrap_or_else(|| Self::Write(Arc::new(cause)))
    }
}
