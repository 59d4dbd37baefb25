//! Copies of the whole database: making one while the server runs, reading what it is of, and what has to change in one that
//! takes the place of the database that it was made of.
//!
//! That one went on after the copy was made: clients, devices and other servers hold numbers which the copy has yet to give
//! out. So a copy carries a mark, and whoever opens it first moves it past all of them.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

use super::{Error, filter, open};

/// The row of the table `server` that marks a copy: when it was made.
const MARK: &str = "copied_ts";

/// How far a copy moves ahead of all that it knows. A server that gives out a thousand positions a second has thirty years
/// before it gets there, and there is room for eight thousand of these steps in the integers of JSON.
const POSITIONS: i64 = 1 << 40;
/// The same for versions of a user's key backup, which people begin by hand, and for ids of a user's filters.
const VERSIONS: i64 = 1 << 20;

/// What a copy is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub server_name: String,
    /// Milliseconds since the Unix epoch.
    pub made_at: i64,
}

/// Writes all that is committed now to a new file, as one whole database, while others read and write. What they commit
/// meanwhile isn't in it.
///
/// Blocks the thread for as long as it takes to read the whole database.
pub fn make(database: &Path, copy: &Path, now: i64) -> Result<(), Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let source = Connection::open_with_flags(database, flags)?;
    source.busy_timeout(open::PATIENCE)?;
    open::refuse_foreign(&source, database)?;
    let name = copy.to_str().ok_or_else(|| Error::Encoding(format!("the path {}", copy.display())))?;
    source.execute("VACUUM INTO ?1", [name])?;
    let connection = Connection::open(copy)?;
    // A copy of a copy that nobody has opened yet has the mark already.
    connection.execute(
        "INSERT INTO server (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![MARK, now.to_string()],
    )?;
    connection.close().map_err(|(_, cause)| cause)?;
    Ok(())
}

/// What a file is a copy of, if it is a whole one. Reads all of it.
pub fn inspect(copy: &Path) -> Result<Option<Origin>, Error> {
    let connection = Connection::open_with_flags(copy, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Error::Corrupt(verdict));
    }
    let value = |name| {
        let text = "SELECT value FROM server WHERE name = ?1";
        connection.query_row(text, [name], |row| row.get::<_, String>(0)).optional()
    };
    let (server_name, made_at) = (value("server_name")?, value(MARK)?.and_then(|text| text.parse().ok()));
    open::refuse_newer(&connection)?;
    Ok(server_name.zip(made_at).map(|(server_name, made_at)| Origin { server_name, made_at }))
}

/// Makes a copy the server's database, if this is one: nothing that the database of before may have given out is given out
/// again. Its epoch goes, so that whatever clients hold of the other is answered as if they held nothing. Any one-time key may
/// have been handed out meanwhile, so all count as claimed, and their devices make new ones. Anybody elsewhere may have
/// changed devices, so their servers are asked again.
pub(super) fn take_over(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if transaction.execute("DELETE FROM server WHERE name = ?1", [MARK])? == 1 {
        tracing::info!(
            "this database was restored from a backup: it goes on beyond all that the one before may have given out"
        );
        transaction.execute("DELETE FROM server WHERE name = 'epoch'", [])?;
        transaction.execute("UPDATE head SET position = position + ?1", [POSITIONS])?;
        transaction.execute("UPDATE one_time_key SET claimed = TRUE WHERE NOT claimed", [])?;
        transaction.execute("UPDATE followed_list SET stale = TRUE", [])?;
        transaction.execute(
            "INSERT INTO key_backup (recipient, version, algorithm, auth_data, keys, deleted)
             SELECT a.recipient, ?1 + COALESCE(MAX(k.version), 0), '', '{}', 0, TRUE
             FROM account a LEFT JOIN key_backup k ON k.recipient = a.recipient GROUP BY a.recipient",
            [VERSIONS],
        )?;
        transaction.execute(
            "INSERT INTO filter (recipient, id, content)
             SELECT a.recipient, ?1 + COALESCE(MAX(f.id), 0), ?2
             FROM account a LEFT JOIN filter f ON f.recipient = a.recipient GROUP BY a.recipient
             ON CONFLICT (recipient, content) DO UPDATE SET id = excluded.id",
            params![VERSIONS, filter::PLACE],
        )?;
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Durability, alone, filter::add_filter};

    /// What a database that went on may have done to keys, a copy of it takes for done; once.
    #[tokio::test]
    async fn a_copy_trusts_no_key_that_may_have_changed_hands() {
        let dir = tempfile::tempdir().unwrap();
        let (database, copy) = (dir.path().join("hearth.db"), dir.path().join("copy.db"));
        open::open(&database, Durability::Normal).await.unwrap().close().await;
        let connection = Connection::open(&database).unwrap();
        connection
            .execute_batch(
                "INSERT INTO server (name, value) VALUES ('server_name', 'example.org'), ('epoch', '7');
                 INSERT INTO one_time_key (device, algorithm, key_id, place, key) VALUES (1, 'signed_curve25519', 'a', 1, '{}');
                 INSERT INTO followed_list (user_id, stream_id, stale) VALUES ('@bob:elsewhere.org', 5, FALSE);",
            )
            .unwrap();

        make(&database, &copy, 1000).unwrap();
        let origin = Origin { server_name: "example.org".to_owned(), made_at: 1000 };
        assert_eq!(inspect(&copy).unwrap(), Some(origin));
        assert_eq!(inspect(&database).unwrap(), None);
        let again = dir.path().join("again.db");
        make(&copy, &again, 2000).unwrap();
        assert_eq!(inspect(&again).unwrap().unwrap().made_at, 2000);
        let ask = |connection: &Connection, text: &str| -> i64 {
            connection.query_row(text, [], |row| row.get(0)).unwrap()
        };
        let epochs = "SELECT COUNT(*) FROM server WHERE name = 'epoch'";
        let mut connection = Connection::open(&copy).unwrap();
        for _ in 0..2 {
            take_over(&mut connection).unwrap();
            assert_eq!(ask(&connection, epochs), 0);
            assert_eq!(ask(&connection, "SELECT COUNT(*) FROM one_time_key WHERE NOT claimed"), 0);
            assert_eq!(ask(&connection, "SELECT COUNT(*) FROM followed_list WHERE NOT stale"), 0);
            assert_eq!(ask(&connection, "SELECT position FROM head"), POSITIONS);
        }
        let mut connection = Connection::open(&database).unwrap();
        take_over(&mut connection).unwrap();
        assert_eq!(ask(&connection, epochs), 1);
    }

    /// The database that went on may have given a client an id for a filter that the copy never saw; so may the copy, before it
    /// is copied.
    #[tokio::test]
    async fn a_copy_gives_out_no_id_of_a_filter_again() {
        let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let [first, ..] = &folders;
        let store = alone::open(first.path()).await;
        let connection = Connection::open(first.path().join("hearth.db")).unwrap();
        let alice =
            "INSERT INTO account (recipient, user_id, created_ts) VALUES (1, '@alice:example.org', 1)";
        connection.execute(alice, []).unwrap();
        store.commit(add_filter(1, r#"{"a":0}"#)).await.unwrap();
        assert_eq!(store.filter_id(1, r#"{"a":0}"#).await.unwrap(), Some(1));

        let mut last = 1;
        for (count, pair) in (2..).zip(folders.windows(2)) {
            make(&pair[0].path().join("hearth.db"), &pair[1].path().join("hearth.db"), 1000).unwrap();
            let store = alone::open(pair[1].path()).await;
            let content = format!(r#"{{"a":{count}}}"#);
            store.commit(add_filter(1, &content)).await.unwrap();
            let id = store.filter_id(1, &content).await.unwrap().unwrap();
            assert!(id > last + VERSIONS, "{id} comes long after {last}");
            for lost in last + 1..=last + 3 {
                assert_eq!(store.filter(1, lost).await.unwrap(), None);
            }
            assert_eq!(
                store.filter(1, id - 1).await.unwrap(),
                None,
                "what holds the place is nobody's filter"
            );
            assert_eq!(store.filter_count(1).await.unwrap(), count);
            assert_eq!(store.filter(1, 1).await.unwrap().as_deref(), Some(r#"{"a":0}"#));
            last = id;
        }
    }
}
