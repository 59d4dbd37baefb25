//! Opening the database: the file, its settings and its schema.

use std::{borrow::Cow, fs, io::ErrorKind, path::Path, time::Duration};

use rusqlite::{Connection, OpenFlags, OptionalExtension as _};
use sqlx::{
    Acquire, SqlStr, Sqlite, SqlitePool,
    migrate::{MigrateError, Migration, MigrationType, Migrator},
    sqlite::{
        SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
    },
};

use super::Error;

/// Every schema change ever made, by number, oldest first. One that was released is never edited.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "first light", include_str!("../../migrations/sqlite/0001_first_light.sql")),
    (2, "relations", include_str!("../../migrations/sqlite/0002_relations.sql")),
    (3, "threads", include_str!("../../migrations/sqlite/0003_threads.sql")),
    (4, "search", include_str!("../../migrations/sqlite/0004_search.sql")),
    (5, "directories", include_str!("../../migrations/sqlite/0005_directories.sql")),
    (6, "delayed events", include_str!("../../migrations/sqlite/0006_delayed_events.sql")),
    (7, "thread subscriptions", include_str!("../../migrations/sqlite/0007_thread_subscriptions.sql")),
    (8, "user limits", include_str!("../../migrations/sqlite/0008_user_limits.sql")),
    (9, "forks", include_str!("../../migrations/sqlite/0009_forks.sql")),
    (10, "server notices", include_str!("../../migrations/sqlite/0010_server_notices.sql")),
    (11, "guests", include_str!("../../migrations/sqlite/0011_guests.sql")),
    (12, "retention", include_str!("../../migrations/sqlite/0012_retention.sql")),
    (13, "presence", include_str!("../../migrations/sqlite/0013_presence.sql")),
    (14, "destinations", include_str!("../../migrations/sqlite/0014_destinations.sql")),
    (15, "peers", include_str!("../../migrations/sqlite/0015_peers.sql")),
    (16, "elsewhere", include_str!("../../migrations/sqlite/0016_elsewhere.sql")),
    (17, "transactions", include_str!("../../migrations/sqlite/0017_transactions.sql")),
    (18, "openid", include_str!("../../migrations/sqlite/0018_openid.sql")),
    (19, "encryption", include_str!("../../migrations/sqlite/0019_encryption.sql")),
    (20, "key backup", include_str!("../../migrations/sqlite/0020_key_backup.sql")),
    (21, "failing since", include_str!("../../migrations/sqlite/0021_failing_since.sql")),
    (22, "doubtful state", include_str!("../../migrations/sqlite/0022_doubtful_state.sql")),
    (23, "sliding connections", include_str!("../../migrations/sqlite/0023_sliding_connections.sql")),
    (24, "fewer pages", include_str!("../../migrations/sqlite/0024_fewer_pages.sql")),
    (25, "settled parts", include_str!("../../migrations/sqlite/0025_settled_parts.sql")),
    (26, "unread runs", include_str!("../../migrations/sqlite/0026_unread_runs.sql")),
    (27, "event ids", include_str!("../../migrations/sqlite/0027_event_ids.sql")),
    (28, "profile changes", include_str!("../../migrations/sqlite/0028_profile_changes.sql")),
];

/// Readers at a time. SQLite answers from the page cache mostly, so more than this waits for a core, not for the disk.
const READERS: u32 = 4;

/// How long a connection waits for another process that writes, such as the command line.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

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

/// How the file is opened for reading.
pub(super) fn options(path: &Path, durability: Durability) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
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
        .pragma("cache_size", "-2048")
}

/// Opens the file, brings its schema up to date, and gives the connections that read it.
pub(super) async fn open(path: &Path, durability: Durability) -> Result<SqlitePool, Error> {
    match is_behind(path) {
        Ok(true) => {
            tracing::info!(path = %path.display(), "the database of an earlier version is brought up to date: one of many gigabytes takes minutes, and for that time up to its own size of free space");
        }
        Err(foreign @ Error::Foreign(_)) => return Err(foreign),
        // What can't be opened is told of below.
        _ => {}
    }
    // Without a minimum the pool begins with one connection and not, now and then, two: of those that make a database of
    // a new file together, one is told that it is locked, however patient it is.
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options(path, durability))
        .await
        .map_err(|cause| explain(path, cause))?;
    migrate(&readers, MIGRATIONS).await?;
    Ok(readers)
}

/// Brings the schema of an open file up to date.
pub(super) async fn update<'a>(connection: impl Acquire<'a, Database = Sqlite>) -> Result<(), Error> {
    migrate(connection, MIGRATIONS).await
}

/// Bytes of the write-ahead log that are kept for the next pages.
const LOG_KEPT: u32 = 16 << 20;

/// A connection of its own for a thread that calls SQLite directly.
pub(super) fn connect(
    path: &Path,
    durability: Durability,
    file_system: Option<&str>,
) -> Result<Connection, Error> {
    let connection = match file_system {
        None => Connection::open(path)?,
        Some(name) => Connection::open_with_flags_and_vfs(path, OpenFlags::default(), name)?,
    };
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
    // A read that takes long, such as an operator's question or a backup, lets the log grow meanwhile: it gives that back.
    connection.pragma_update(None, "journal_size_limit", LOG_KEPT)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    Ok(connection)
}

fn version(connection: &Connection) -> Result<i64, Error> {
    let question = "SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations";
    Ok(connection.query_row(question, [], |row| row.get(0))?)
}

/// Whether there is a database, or anything else but an empty file in its place.
pub fn is_there(path: &Path) -> bool {
    // What can't be looked at is there: opening it says what is wrong.
    fs::metadata(path).map_or_else(|cause| cause.kind() != ErrorKind::NotFound, |file| file.len() > 0)
}

/// Whether there is a database whose schema opening it would change: an earlier version than this wrote it, and may be using
/// it. One of another program is refused, before anything is written to it.
pub fn is_behind(path: &Path) -> Result<bool, Error> {
    if !path.exists() {
        return Ok(false);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|cause| explain(path, cause))?;
    connection.busy_timeout(PATIENCE)?;
    refuse_foreign(&connection, path)?;
    Ok(connection.table_exists(None, "_sqlx_migrations")? && version(&connection)? < latest())
}

/// Says so if there are tables, and no changes of ours have made them.
pub(super) fn refuse_foreign(connection: &Connection, path: &Path) -> Result<(), Error> {
    let first_change = if connection.table_exists(None, "_sqlx_migrations")? {
        let question = "SELECT description FROM _sqlx_migrations ORDER BY version LIMIT 1";
        connection.query_row(question, [], |row| row.get::<_, String>(0)).optional()?
    } else {
        None
    };
    let ours = match first_change {
        Some(description) => MIGRATIONS.first().is_some_and(|(_, first, _)| description == *first),
        // A first start that was killed may have left the list of changes alone.
        None => !connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!' AND name <> '_sqlx_migrations')",
            [],
            |row| row.get::<_, bool>(0),
        )?,
    };
    if ours { Ok(()) } else { Err(Error::Foreign(path.display().to_string())) }
}

/// Says so if a later version than this wrote the database.
pub(super) fn refuse_newer(connection: &Connection) -> Result<(), Error> {
    let found = version(connection)?;
    let known = latest();
    if found > known { Err(Error::Newer { found, known }) } else { Ok(()) }
}

fn latest() -> i64 {
    MIGRATIONS.iter().map(|(version, ..)| *version).max().unwrap_or(0)
}

pub(super) fn explain(path: &Path, cause: impl Into<Error>) -> Error {
    let cause = match cause.into() {
        Error::Database(cause) => cause.to_string(),
        Error::Write(cause) => cause.to_string(),
        Error::Files(cause) => format!(
            "{cause}; make its folder, give the server's user access to both, or set `database.url` to another file; if files \
             are lacking, raise the limit of open files (ulimit -n, LimitNOFILE)"
        ),
        known => return known,
    };
    Error::Open { path: path.display().to_string(), cause }
}

async fn migrate<'a>(
    connection: impl Acquire<'a, Database = Sqlite>,
    migrations: &[(i64, &'static str, &'static str)],
) -> Result<(), Error> {
    let migrations = migrations.iter().map(|(version, description, text)| {
        let (kind, text) = (MigrationType::Simple, SqlStr::from_static(text));
        Migration::new(*version, Cow::Borrowed(description), kind, text, false)
    });
    match Migrator::with_migrations(migrations.collect()).run(connection).await {
        Ok(()) => Ok(()),
        Err(MigrateError::VersionMissing(found)) => Err(Error::Newer { found, known: latest() }),
        Err(MigrateError::Execute(cause)) => Err(cause.into()),
        Err(cause) => Err(Error::Migration(cause.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// RL-02, RL-06: the relations of a database from before they were kept are those that it would have kept.
    #[tokio::test]
    async fn older_databases_get_their_relations() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        migrate(&pool, &MIGRATIONS[..2]).await.unwrap();
        let relates = |rel_type: Value, parent: Value| json!({ "rel_type": rel_type, "event_id": parent });
        let thread =
            |body: &str| json!({ "body": body, "m.relates_to": relates(json!("m.thread"), json!("$1")) });
        let mut reaction = json!({ "m.relates_to": relates(json!("m.annotation"), json!("$1")) });
        reaction["m.relates_to"]["key"] = json!("👍");
        let edit = json!({ "m.new_content": {}, "m.relates_to": relates(json!("m.replace"), json!("$1")) });
        let events = [
            (json!({ "body": "root" }), 0, None),
            (thread("one"), 0, None),
            (thread("two"), 0, None),
            (reaction, 0, None),
            (edit, 0, None),
            (json!({ "m.relates_to": relates(json!("m.replace"), json!("$1")) }), 0, None),
            (json!({ "m.relates_to": relates(json!("m.reference"), json!("$elsewhere")) }), 0, None),
            // None of these is one.
            (json!({}), 0, Some(1)),
            (thread("soft-failed"), 1, None),
            (thread("rejected"), 2, None),
            (json!({ "m.relates_to": relates(json!(5), json!("$1")) }), 0, None),
            (json!({ "m.relates_to": relates(json!("m.thread"), json!("1")) }), 0, None),
            (json!({ "m.relates_to": relates(json!("x".repeat(256)), json!("$1")) }), 0, None),
            (
                json!({ "m.relates_to": relates(json!("m.thread"), json!(format!("${}", "x".repeat(255)))) }),
                0,
                None,
            ),
            (json!({ "m.relates_to": relates(json!("m.th\0read"), json!("$1")) }), 0, None),
            (json!({ "m.relates_to": [] }), 0, None),
            (json!({ "body": "\"m.relates_to\":{}" }), 0, None),
        ];
        for ((content, verdict, redacted_by), seq) in events.into_iter().zip(1_i64..) {
            let pdu =
                json!({ "content": content, "sender": "@a:x", "type": "m", "origin_server_ts": 100 + seq });
            sqlx::query(
                "INSERT INTO event (room, seq, event_id, position, pdu, verdict, redacted_by)
                 VALUES (7, $1, $2, $1, $3, $4, $5)",
            )
            .bind(seq)
            .bind(format!("${seq}"))
            .bind(pdu.to_string())
            .bind(verdict)
            .bind(redacted_by)
            .execute(&pool)
            .await
            .unwrap();
        }
        migrate(&pool, MIGRATIONS).await.unwrap();

        let rows: Vec<(i64, String, String, Option<String>, bool, bool)> =
            sqlx::query_as("SELECT seq, parent, rel_type, key, replaces, early FROM relation ORDER BY seq")
                .fetch_all(&pool)
                .await
                .unwrap();
        let rows = rows.iter().map(|(seq, parent, rel_type, key, replaces, early)| {
            (*seq, parent.as_str(), rel_type.as_str(), key.as_deref(), *replaces, *early)
        });
        assert_eq!(
            rows.collect::<Vec<_>>(),
            [
                (2, "$1", "m.thread", None, false, false),
                (3, "$1", "m.thread", None, false, false),
                (4, "$1", "m.annotation", Some("👍"), false, false),
                (5, "$1", "m.replace", None, true, false),
                (6, "$1", "m.replace", None, false, false),
                (7, "$elsewhere", "m.reference", None, false, true),
            ]
        );
        let (kind, sender, ts, id): (String, String, i64, String) =
            sqlx::query_as("SELECT kind, sender, ts, event_id FROM relation WHERE seq = 2")
                .fetch_one(&pool)
                .await
                .unwrap();
        assert_eq!((kind.as_str(), sender.as_str(), ts, id.as_str()), ("m", "@a:x", 102, "$2"));
        let threads: Vec<(String, i64, i64, i64)> =
            sqlx::query_as("SELECT root, oldest, latest, replies FROM thread")
                .fetch_all(&pool)
                .await
                .unwrap();
        assert_eq!(threads, [("$1".to_owned(), 2, 3, 2)]);
    }

    /// Ends that are the last event say so, others name their events; what was found by its time is found.
    #[tokio::test]
    async fn older_databases_keep_their_ends_and_times() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            SqliteConnectOptions::new().filename(dir.path().join("hearth.db")).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let before = MIGRATIONS.iter().position(|(version, ..)| *version == 24).unwrap();
        migrate(&pool, &MIGRATIONS[..before]).await.unwrap();
        let outlier = crate::store::event::OUTLIER - 1;
        for (room, seq) in [(7, 1), (7, 2), (8, 1), (8, 2), (9, 1), (9, 2), (9, 3), (10, 5), (10, outlier)] {
            sqlx::query(
                "INSERT INTO event (room, seq, event_id, position, pdu, ts) VALUES ($1, $2, $3, 0, '{}', $4)",
            )
            .bind(room)
            .bind(seq)
            .bind(format!("${room}{seq}"))
            .bind(100 - seq)
            .execute(&pool)
            .await
            .unwrap();
        }
        // The second of the third room's was soft-failed; the last room has an end that came before others did.
        for (room, event) in [(7, 2), (8, 1), (8, 2), (9, 2), (10, 5)] {
            sqlx::query("INSERT INTO extremity (room, event) VALUES ($1, $2)")
                .bind(room)
                .bind(event)
                .execute(&pool)
                .await
                .unwrap();
        }
        sqlx::query(
            "INSERT INTO delivery (position, kind, room, item, thread, recipients)
             VALUES (1, 1, 7, 2, '', '[[5,3],[-2,0]]')",
        )
        .execute(&pool)
        .await
        .unwrap();
        migrate(&pool, MIGRATIONS).await.unwrap();
        let (waiting,): (String,) =
            sqlx::query_as("SELECT recipients FROM delivery").fetch_one(&pool).await.unwrap();
        assert_eq!(waiting, "[327683,-131072]");
        let ends: Vec<(i64, i64)> = sqlx::query_as("SELECT room, event FROM extremity ORDER BY room, event")
            .fetch_all(&pool)
            .await
            .unwrap();
        let last = crate::store::event::LAST;
        assert_eq!(ends, [(7, last), (8, 1), (8, 2), (9, 2), (10, last)]);
        let times: Vec<(i64, i64, i64)> =
            sqlx::query_as("SELECT room, ts, seq FROM event_time ORDER BY room, ts")
                .fetch_all(&pool)
                .await
                .unwrap();
        assert_eq!(times.len(), 8);
        assert_eq!(times[..2], [(7, 98, 2), (7, 99, 1)]);
    }

    /// Events of older databases came when they say, but none before the one before it.
    #[tokio::test]
    async fn older_databases_get_the_times_of_their_events() {
        let dir = tempfile::tempdir().unwrap();
        let options =
            SqliteConnectOptions::new().filename(dir.path().join("hearth.db")).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        let before = MIGRATIONS.iter().position(|(version, ..)| *version == 12).unwrap();
        migrate(&pool, &MIGRATIONS[..before]).await.unwrap();
        for (room, seq, ts) in [(7, 1, 100), (7, 2, 90), (7, 3, 120), (7, 4, 10), (8, 1, 5), (8, 2, 6)] {
            sqlx::query(
                "INSERT INTO event (room, seq, event_id, position, pdu, ts) VALUES ($1, $2, $3, 0, '{}', $4)",
            )
            .bind(room)
            .bind(seq)
            .bind(format!("${room}{seq}"))
            .bind(ts)
            .execute(&pool)
            .await
            .unwrap();
        }
        migrate(&pool, MIGRATIONS).await.unwrap();
        let rows: Vec<(i64,)> =
            sqlx::query_as("SELECT arrived FROM event ORDER BY room, seq").fetch_all(&pool).await.unwrap();
        assert_eq!(rows, [100, 100, 120, 120, 5, 6].map(|arrived| (arrived,)));
    }

    /// Also of one that keeps a list of changes as we do. What a killed first start has left is ours.
    #[tokio::test]
    async fn the_database_of_another_program_is_refused() {
        let list = "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL,
                    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, success BOOLEAN NOT NULL,
                    checksum BLOB NOT NULL, execution_time BIGINT NOT NULL);";
        let theirs = "INSERT INTO _sqlx_migrations VALUES (1, 'users', 0, TRUE, x'00', 1);";
        for (text, ours) in [
            ("", true),
            ("PRAGMA user_version = 7", true),
            (list, true),
            ("CREATE TABLE note (text TEXT)", false),
            ("CREATE VIEW note AS SELECT 1", false),
            (&format!("{list} CREATE TABLE note (text TEXT)"), false),
            (&format!("{list} {theirs}"), false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("hearth.db");
            Connection::open(&path).unwrap().execute_batch(text).unwrap();
            let before = fs::read(&path).unwrap();
            let outcome = open(&path, Durability::Normal).await;
            assert_eq!(outcome.is_ok(), ours, "{text}");
            if let Err(cause) = outcome {
                assert!(matches!(cause, Error::Foreign(_)), "{cause}");
                assert_eq!(fs::read(&path).unwrap(), before);
            }
        }
    }

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
            let connection = connect(&path, durability, None).unwrap();
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            assert_eq!(mode, "wal");
            let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
            assert_eq!(synchronous, level);
        }
    }

    /// I11: what somebody's long read has cost is not kept for good.
    #[test]
    fn the_log_shrinks_again_after_a_long_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let connection = || {
            let connection = connect(&path, Durability::Normal, None).unwrap();
            connection.pragma_update(None, "journal_mode", "WAL").unwrap();
            connection
        };
        let (writer, mut reader) = (connection(), connection());
        writer.execute_batch("CREATE TABLE filler (bytes BLOB)").unwrap();
        let write =
            |bytes: u32| writer.execute("INSERT INTO filler VALUES (randomblob(?1))", [bytes]).unwrap();
        let log = || dir.path().join("hearth.db-wal").metadata().unwrap().len();

        let reading = reader.transaction().unwrap();
        reading.query_row("SELECT COUNT(*) FROM filler", [], |row| row.get::<_, i64>(0)).unwrap();
        for _ in 0..40 {
            write(1 << 20);
        }
        assert!(log() > 2 * u64::from(LOG_KEPT), "{}", log());
        drop(reading);
        for _ in 0..3 {
            write(1);
        }
        assert!(log() <= u64::from(LOG_KEPT), "{}", log());
    }
}
