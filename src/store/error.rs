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
        "the disk that holds the database failed ({0}); nothing was written, and what was acknowledged before is safe: look into the system's log (`dmesg`) and mend or replace the disk; the server goes on by itself once it works"
    )]
    Disk(String),
    #[error(
        "the database's files can't be opened ({0}): if files are lacking, raise the limit of open files (ulimit -n, LimitNOFILE)"
    )]
    Files(String),
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
    #[error(
        "the database {0} isn't Hearth's: another program has its tables there; set `database.url` to another file"
    )]
    Foreign(String),
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
const SQLITE_IOERR: i32 = 10;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_FULL: i32 = 13;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_NOTADB: i32 = 26;

/// SQLite's extended result code for shared memory that can't grow: it is a file, and for that one there is no other.
const SQLITE_IOERR_SHMSIZE: i32 = 4874;

/// SQLite's extended result codes for rows that have to be unique.
const SQLITE_CONSTRAINT_PRIMARYKEY: i32 = 1555;
const SQLITE_CONSTRAINT_UNIQUE: i32 = 2067;

impl Error {
    /// Whether what lies below the database doesn't do what it should at the moment. It may again: nothing is wrong with what
    /// was asked, or with what is stored.
    pub fn is_of_the_machine(&self) -> bool {
        matches!(self, Self::Full | Self::Disk(_) | Self::Files(_) | Self::ReadOnly)
    }

    /// From one of SQLite's extended result codes, if it is one that means something here.
    fn from_code(code: i32, message: &str) -> Option<Self> {
        if matches!(code, SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_UNIQUE) {
            return Some(Self::Conflict);
        }
        if code == SQLITE_IOERR_SHMSIZE {
            return Some(Self::Full);
        }
        // Extended codes carry the primary one in their low byte.
        match code & 0xff {
            SQLITE_FULL => Some(Self::Full),
            SQLITE_READONLY => Some(Self::ReadOnly),
            SQLITE_IOERR => Some(Self::Disk(format!("{message}, SQLite's code {code}"))),
            SQLITE_CANTOPEN => Some(Self::Files(message.to_owned())),
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
