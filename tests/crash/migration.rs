//! An upgrade from the first schema that is killed on its way, by the power too: the next start ends with the same database as an
//! upgrade that nothing stopped.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rusqlite::{Connection, types::Value};
use serde_json::json;
use sqlx::{
    Connection as _, SqlStr, SqliteConnection,
    migrate::{Migration, MigrationType, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};
use toml::Table;

use crate::{
    assert_intact,
    common::Server,
    disk::{Disk, Left, Word},
    seed, times,
};

const FIRST: &str = include_str!("../../migrations/sqlite/0001_first_light.sql");
const EVENTS: i64 = 600;

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_is_killed_half_way_is_the_same_in_the_end() {
    let (kills, seed) = (times("UPGRADES", 10), seed());
    let mut chance = StdRng::seed_from_u64(seed);
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let (own, key) = (tempfile::tempdir().unwrap(), fs::read(server.data_dir().join("signing.key")).unwrap());
    let old = own.path().join("old.db");
    make_old(&old).await;
    let database = server.data_dir().join("hearth.db");
    let begin = |server: &mut Server| {
        fs::remove_dir_all(server.data_dir()).unwrap();
        fs::create_dir(server.data_dir()).unwrap();
        fs::write(server.data_dir().join("signing.key"), &key).unwrap();
        fs::copy(&old, &database).unwrap();
        Disk::below(server)
    };
    // A command that opens the database and does nothing else to it.
    let upgrade = |server: &Server| server.run(&["user", "list"]);

    let disk = begin(&mut server);
    let output = upgrade(&server);
    assert!(output.status.success(), "{output:?}");
    let changes = disk.get(Word::Changes);
    let expected = content(&database);
    assert!(expected.len() > 40 && expected["relation"].len() > 100, "the new tables are filled");
    let from_first = expected["event"].iter().filter(|row| row.contains("and more")).count();
    assert!(from_first > 500, "and the old ones kept");

    let mut all = 0;
    for _ in 0..kills {
        let mut disk = begin(&mut server);
        let mut stopped = 0;
        disk.set(Word::DieAfter, chance.random_range(1..changes));
        loop {
            let output = upgrade(&server);
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.signal(), Some(9), "{output:?}");
            stopped += 1;
            disk.lose_power(Left::any(&mut chance), &mut chance);
            assert_intact(&server);
            if stopped < 3 {
                disk.set(Word::DieAfter, chance.random_range(1..changes));
            }
        }
        all += stopped;
        assert_same(&content(&database), &expected);
    }
    server.prefix.clear();
    server.start_again().await;
    assert!(2 * all >= kills, "most of them are killed");
    eprintln!(
        "{kills} upgrades of {changes} changes, killed {all} times, up to three each: the same in the end"
    );
}

/// A server goes on with the schema that it was started with, whatever version the commands beside it are of.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_leaves_the_schema_alone_while_a_server_of_before_runs() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let database = server.data_dir().join("hearth.db");
    fs::remove_file(&database).unwrap();
    make_old(&database).await;
    let version = || {
        let database = Connection::open(&database).unwrap();
        let question = "SELECT MAX(version) FROM _sqlx_migrations";
        database.query_row(question, [], |row| row.get::<_, i64>(0)).unwrap()
    };

    let running = fs::File::create(server.data_dir().join("hearth.lock")).unwrap();
    running.try_lock().unwrap();
    let refused = server.run(&["user", "list"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("earlier version"), "{refused:?}");
    assert_eq!(version(), 1);

    // Not by closing the file: a process that another test has just started may still have it, too.
    running.unlock().unwrap();
    let listed = server.run(&["user", "list"]);
    assert!(listed.status.success(), "{listed:?}");
    assert!(String::from_utf8_lossy(&listed.stdout).contains("@alice:localhost"), "{listed:?}");
    assert!(version() > 1);
    server.start_again().await;
    assert!(server.run(&["user", "list"]).status.success(), "a server of the same version may run");
}

/// Why a start takes long stands in the log, and there alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_told_of() {
    let mut server = Server::start(Table::new()).await;
    server.restart().await;
    assert!(!server.log().contains("earlier version"), "nothing is to be done: {}", server.log());
    server.stop().await;
    let database = server.data_dir().join("hearth.db");
    fs::remove_file(&database).unwrap();
    make_old(&database).await;
    server.start_again().await;
    assert!(
        server.log().contains("the database of an earlier version is brought up to date"),
        "{}",
        server.log()
    );
}

#[track_caller]
fn assert_same(found: &Content, expected: &Content) {
    let tables = |content: &Content| content.keys().cloned().collect::<Vec<_>>();
    assert_eq!(tables(found), tables(expected));
    for (table, rows) in expected {
        assert_eq!(&found[table], rows, "{table}");
    }
}

/// The rows of each table, in any one order, and what each table and index is.
type Content = BTreeMap<String, Vec<String>>;

fn content(path: &Path) -> Content {
    // The writer may not have ended as it should: its log counts.
    let database = Connection::open(path).unwrap();
    let mut all = Content::new();
    let mut schema = database.prepare("SELECT type, name, sql FROM sqlite_schema ORDER BY name").unwrap();
    let schema: Vec<(String, String, Option<String>)> = schema
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    all.insert("(schema)".to_owned(), schema.iter().map(|row| format!("{row:?}")).collect());
    for (kind, name, _) in schema {
        // What is drawn by lot at the start; how the index of words is laid out.
        if kind != "table" || name == "server" || name.starts_with("message_index") {
            continue;
        }
        // When the migrations ran, and how long that took.
        let columns = if name == "_sqlx_migrations" { "version, checksum, success" } else { "*" };
        let mut question = database.prepare(&format!("SELECT {columns} FROM {name}")).unwrap();
        let width = question.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            let values = (0..width).map(|column| row.get::<_, Value>(column));
            Ok(format!("{:?}", values.collect::<Result<Vec<_>, _>>()?))
        };
        let mut rows: Vec<String> = question.query_map([], row).unwrap().collect::<Result<_, _>>().unwrap();
        rows.sort_unstable();
        all.insert(name, rows);
    }
    all
}

/// A database as the first version made them, with people, rooms and what they said.
async fn make_old(path: &PathBuf) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection =
        SqliteConnection::connect_with(&options.journal_mode(SqliteJournalMode::Wal)).await.unwrap();
    let (name, text) = (Cow::Borrowed("first light"), SqlStr::from_static(FIRST));
    let first = Migration::new(1, name, MigrationType::Simple, text, false);
    Migrator::with_migrations(vec![first]).run(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let mut database = Connection::open(path).unwrap();
    let all = database.transaction().unwrap();
    all.execute("INSERT INTO server (name, value) VALUES ('server_name', 'localhost'), ('epoch', '7')", [])
        .unwrap();
    for (number, name) in ["alice", "bob"].into_iter().enumerate() {
        let (number, user) = (number as i64 + 1, format!("@{name}:localhost"));
        all.execute(
            "INSERT INTO account (recipient, user_id, created_ts) VALUES (?1, ?2, 1)",
            (number, &user),
        )
        .unwrap();
        let display_name = json!(format!("{name} the user")).to_string();
        all.execute("INSERT INTO profile VALUES (?1, 'displayname', ?2)", (number, display_name)).unwrap();
        all.execute("INSERT INTO account_data VALUES (?1, 0, 'm.direct', '{}', 1)", [number]).unwrap();
        all.execute(
            "INSERT INTO device (recipient, device_id, id, created_ts) VALUES (?1, 'D', ?1, 1)",
            [number],
        )
        .unwrap();
    }
    for room in 1..=3 {
        all.execute(
            "INSERT INTO room (id, room_id, version) VALUES (?1, ?2, '10')",
            (room, format!("!{room}:localhost")),
        )
        .unwrap();
    }
    for seq in 1..=EVENTS {
        let room = seq % 3 + 1;
        let parent = format!("$event{}", (seq % 7) * 3 + room);
        let (kind, state_key, content) = match seq {
            1..=3 => ("m.room.create", Some(""), json!({ "creator": "@alice:localhost" })),
            4..=6 => ("m.room.member", Some("@alice:localhost"), json!({ "membership": "join" })),
            7..=9 => ("m.room.member", Some("@bob:localhost"), json!({ "membership": "join" })),
            10..=12 => ("m.room.join_rules", Some(""), json!({ "join_rule": "public" })),
            _ => {
                let mut content = json!({ "msgtype": "m.text", "body": format!("word{seq} and more") });
                let rel_type = ["m.thread", "m.annotation", "m.replace", "m.reference"][seq as usize % 4];
                if seq % 2 == 0 {
                    content["m.relates_to"] =
                        json!({ "rel_type": rel_type, "event_id": parent, "key": "👍" });
                    content["m.new_content"] = json!({ "body": "edited" });
                }
                ("m.room.message", None, content)
            }
        };
        let mut pdu = json!({
            "type": kind, "sender": "@alice:localhost", "content": content, "room_id": format!("!{room}:localhost"),
            "origin_server_ts": 1000 + seq, "depth": seq, "prev_events": [], "auth_events": [],
        });
        let place = seq / 3 + 1;
        if let Some(key) = state_key {
            pdu["state_key"] = json!(key);
            all.execute("INSERT INTO state_log VALUES (?1, ?2, ?3, ?4, ?4)", (room, kind, key, place))
                .unwrap();
            if kind == "m.room.member" {
                all.execute("INSERT INTO membership VALUES (?1, ?2, 'join', ?3, FALSE)", (key, room, place))
                    .unwrap();
            }
        }
        all.execute(
            "INSERT INTO event (room, seq, event_id, position, pdu) VALUES (?1, ?2, ?3, ?4, ?5)",
            (room, place, format!("$event{seq}"), seq, pdu.to_string()),
        )
        .unwrap();
        all.execute("INSERT INTO queue VALUES (1, ?1, 1, ?2, ?3, 0)", (seq, room, place)).unwrap();
        all.execute("INSERT INTO txn VALUES (1, ?1, 't', ?2, 1)", (seq, format!("$event{seq}"))).unwrap();
    }
    for (position, item) in (EVENTS + 1..=EVENTS + 5).zip(20..) {
        all.execute("INSERT INTO delivery VALUES (?1, 1, 1, ?2, '', '[[1,0],[2,1]]')", (position, item))
            .unwrap();
    }
    all.execute("UPDATE head SET position = ?1, settled = ?2", [EVENTS + 5, EVENTS]).unwrap();
    all.execute("UPDATE counter SET value = 2 WHERE name = 'device'", []).unwrap();
    all.commit().unwrap();
}
