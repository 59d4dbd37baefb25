//! Starting and stopping: what the command line says and does, and that whatever stands in a server's way is said
//! clearly and harms nothing.

// A test that can't go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use common::{Server, User, free_port, is_free};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection};
use toml::Table;

#[track_caller]
fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for part in parts {
        assert!(said.contains(part), "{said:?} should say {part:?}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[track_caller]
fn said(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server that is being tried.
struct Attempt(Child);

impl Drop for Attempt {
    fn drop(&mut self) {
        // If it did start after all, the test has failed, and nobody else ends it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server on a server's configuration that should end by itself, and waits until it has.
async fn try_serve(server: &Server) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.arg("serve").arg("--config").arg(server.config_path());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut attempt = Attempt(command.spawn().unwrap());
    let status = common::eventually("the server ends by itself", || {
        let status = attempt.0.try_wait().unwrap();
        async move { status }
    })
    .await;
    let mut stderr = Vec::new();
    attempt.0.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    Output { status, stdout: Vec::new(), stderr }
}

/// Lays lines over the server's configuration file.
fn configure(server: &Server, change: impl FnOnce(&mut Table)) {
    let mut config: Table = fs::read_to_string(server.config_path()).unwrap().parse().unwrap();
    change(&mut config);
    fs::write(server.config_path(), toml::to_string(&config).unwrap()).unwrap();
}

async fn log_in(server: &Server, name: &str, password: &str) -> common::Answer {
    let body = json!({
        "type": "m.login.password", "password": password,
        "identifier": { "type": "m.id.user", "user": name },
    });
    server.http().post("/v3/login", None, body).await
}

#[tokio::test]
async fn sigint_and_sigterm_end_the_server_with_success() {
    let mut server = Server::start(Table::new()).await;
    server.restart().await;
    server.signal(rustix::process::Signal::INT);
    assert!(server.ended().await.success());
    // Whoever runs the tests may have it ignored.
    server.prefix = ["env", "--default-signal=HUP"].map(str::to_owned).to_vec();
    server.start_again().await;
    server.signal(rustix::process::Signal::HUP);
    assert!(server.ended().await.success(), "the terminal is gone");
    server.prefix = ["env", "--ignore-signal=HUP"].map(str::to_owned).to_vec();
    server.start_again().await;
    server.signal(rustix::process::Signal::HUP);
    server.stop().await;
    assert_eq!(server.log().matches("SIGHUP").count(), 1, "it was to be ignored: {}", server.log());
}

/// Threats: whoever begins a request and doesn't finish it keeps no server from ending, nor from leaving its database whole.
#[tokio::test]
async fn half_a_request_keeps_no_server_from_its_end() {
    let mut server = Server::start(Table::new()).await;
    let port = server.port();
    let begun = |text: &str| {
        let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        connection.write_all(text.as_bytes()).unwrap();
        connection
    };
    let head = begun("POST /_matrix/client/v3/login HTTP/1.1\r\nHost:");
    common::eventually("the server has the connection", || async {
        let metrics = server.http().get("/metrics", None).await.text();
        metrics.contains("hearth_http_connections 2").then_some(())
    })
    .await;
    server.stop().await;
    assert!(!server.log().contains("cut off"), "nothing was asked: {}", server.log());
    drop(head);

    server.start_again().await;
    let body =
        begun("POST /_matrix/client/v3/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    common::eventually("the server waits for the rest", || async {
        let metrics = server.http().get("/metrics", None).await.text();
        metrics.contains("hearth_http_requests_in_flight 2").then_some(())
    })
    .await;
    server.stop().await;
    assert!(server.log().contains("cut off") && !server.log().contains("still holds"), "{}", server.log());
    assert!(!server.data_dir().join("hearth.db-wal").exists(), "one whole file is left");
    drop(body);
}

/// A log that can't be written, as on a disk that is full, stops nothing.
#[tokio::test]
async fn a_server_goes_on_while_its_log_cannot_be_written() {
    let mut server = Server::start(Table::new()).await;
    server.register("alice").await;
    server.stop().await;
    let log = server.config_path().with_file_name("hearth.log");
    fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    server.spawn();
    // Whoever reads it reads zeros for ever.
    fs::remove_file(&log).unwrap();
    server.opened().await.unwrap();
    server.http().get("/health", None).await.expect(200);
    server.stop().await;
}

/// Threats: other users of the machine read nothing of what the server keeps, also in a folder that lets them look.
#[tokio::test]
async fn what_the_server_writes_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let folder = server.data_dir();
    for entry in fs::read_dir(&folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    server.start_again().await;
    let modes = fs::read_dir(&folder).unwrap().map(|entry| {
        let entry = entry.unwrap();
        (entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o777)
    });
    let modes: Vec<_> = modes.collect();
    assert!(modes.len() > 2 && modes.iter().all(|(_, mode)| mode & 0o700 == *mode), "{modes:?}");
}

/// The harness waits until a server's port is open, so nothing else may open it, amid other tests that start servers.
#[test]
fn a_port_that_a_test_looks_at_stays_closed() {
    let port = free_port();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        let opened = (0..3000).find(|_| {
            assert!(is_free(port));
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(opened, None, "the port was open at that look");
    });
}

#[tokio::test]
async fn a_second_server_on_the_same_data_is_refused_and_harms_nothing() {
    let server = Server::start(Table::new()).await;
    assert_fails(&try_serve(&server).await, 1, &["another Hearth is running", "data_dir"]);
    server.http().get("/health", None).await.expect(200);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let server = Server::start(Table::new()).await;
    let other = server.data_dir().with_file_name("other");
    configure(&server, |config| {
        config.insert("data_dir".to_owned(), toml::Value::String(other.to_str().unwrap().to_owned()));
    });
    let address = format!("127.0.0.1:{}", server.port());
    assert_fails(&try_serve(&server).await, 1, &[&address, "listener.bind"]);
}

#[tokio::test]
async fn a_data_folder_that_cannot_be_made_is_named() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let below_a_file = server.config_path().join("data");
    configure(&server, |config| {
        config.insert("data_dir".to_owned(), toml::Value::String(below_a_file.to_str().unwrap().to_owned()));
    });
    assert_fails(&try_serve(&server).await, 1, &[below_a_file.to_str().unwrap(), "data_dir"]);
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused_and_stays_as_it_is() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let path = server.data_dir().join("hearth.db");
    let mut database = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let insert = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                  VALUES (999, 'from the future', TRUE, x'00', 0)";
    sqlx::query(insert).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    assert_fails(&try_serve(&server).await, 1, &["newer", "999"]);
}

#[tokio::test]
async fn a_damaged_database_is_called_damaged_and_stays_as_it_is() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let path = server.data_dir().join("hearth.db");
    for log in ["hearth.db-wal", "hearth.db-shm"] {
        // What the log holds would repair the file.
        let _ = fs::remove_file(server.data_dir().join(log));
    }
    let damaged = vec![b'x'; fs::metadata(&path).unwrap().len() as usize];
    fs::write(&path, &damaged).unwrap();
    assert_fails(&try_serve(&server).await, 1, &["damaged", "backup"]);
    assert_eq!(fs::read(&path).unwrap(), damaged);
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_names_key_value_and_remedy() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    configure(&server, |config| {
        config.insert("rooms".to_owned(), toml::toml! { max_member = 5 }.into());
    });
    for output in [try_serve(&server).await, server.run(&["config", "check"])] {
        assert_fails(&output, 2, &["`rooms.max_member`", "`rooms.max_members`"]);
    }
}

#[tokio::test]
async fn another_server_name_on_old_data_is_refused() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    configure(&server, |config| {
        config.insert("server_name".to_owned(), "elsewhere.example".into());
    });
    assert_fails(&try_serve(&server).await, 1, &["localhost", "elsewhere.example"]);
}

#[tokio::test]
async fn the_first_start_gives_out_a_token_for_the_administrator() {
    let mut server = Server::start(toml::toml! { registration.mode = "token" }).await;
    let token = |log: &str| {
        let (_, rest) = log.rsplit_once("Registration token")?;
        rest.split_whitespace().next().map(str::to_owned)
    };
    let first = token(&server.log()).expect("the log has a token");
    // It stays the same until it was used.
    server.restart().await;
    assert_eq!(server.log().matches(&first).count(), 2);

    let mut body = json!({ "username": "root", "password": "correct horse battery staple" });
    let challenge = server.http().post("/v3/register", None, body.clone()).await.expect(401);
    body["auth"] = json!({
        "type": "m.login.registration_token", "token": first, "session": challenge["session"],
    });
    server.http().post("/v3/register", None, body.clone()).await.expect(401);
    body["auth"] = json!({ "type": "m.login.dummy", "session": challenge["session"] });
    server.http().post("/v3/register", None, body.clone()).await.expect(200);
    assert_eq!(said(&server.run(&["user", "list"])).trim(), "@root:localhost\tadmin");

    server.restart().await;
    assert_eq!(server.log().matches("Registration token").count(), 2, "nobody needs it any more");
}

/// One of an account that is deactivated and has left its rooms, and has its devices still.
#[tokio::test]
async fn a_deactivation_cut_short_is_finished_by_the_command_line() {
    let mut server = Server::start(Table::new()).await;
    server.register("alice").await;
    server.stop().await;
    let database = rusqlite::Connection::open(server.data_dir().join("hearth.db")).unwrap();
    database.execute("UPDATE account SET deactivated_ts = 1, departed = TRUE", []).unwrap();
    let devices =
        || database.query_row("SELECT COUNT(*) FROM device", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(devices(), 1);
    said(&server.run(&["user", "deactivate", "alice"]));
    assert_eq!(devices(), 0);
}

#[tokio::test]
async fn accounts_are_managed_while_the_server_runs_and_while_it_does_not() {
    let mut server = Server::start(Table::new()).await;
    let password =
        |output: &str| output.lines().find_map(|line| line.strip_prefix("password: ")).unwrap().to_owned();

    let first = password(&said(&server.run(&["user", "create", "alice"])));
    let answer: Value = log_in(&server, "alice", &first).await.expect(200);
    let alice = User::new(server.http().clone(), &answer);
    assert_fails(&server.run(&["user", "create", "alice"]), 1, &["taken"]);

    let second = password(&said(&server.run(&["user", "set-password", "alice"])));
    log_in(&server, "alice", &first).await.expect_error(403, "M_FORBIDDEN");
    log_in(&server, "alice", &second).await.expect(200);
    common::eventually("the old session has ended", async || {
        (alice.get("/v3/account/whoami").await.status == 401).then_some(())
    })
    .await;

    server.stop().await;
    said(&server.run(&["user", "deactivate", "@alice:localhost"]));
    said(&server.run(&["user", "create", "bob", "--admin"]));
    assert_eq!(
        said(&server.run(&["user", "list"])),
        "@alice:localhost\tdeactivated\n@bob:localhost\tadmin\n"
    );
    assert_fails(&server.run(&["user", "deactivate", "nobody"]), 1, &["no such user"]);
    server.start_again().await;
    assert_eq!(log_in(&server, "alice", &second).await.status, 403);
}

/// The next attempt would be in an hour.
#[tokio::test]
async fn a_server_that_fails_is_tried_again_when_the_command_line_says_so() {
    let there = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let name = there.local_addr().unwrap().to_string();
    let mut server = Server::start(toml::toml! { federation.allow_private_networks = true }).await;
    server.register("alice").await.create_room(json!({})).await;
    server.stop().await;
    let path = server.data_dir().join("hearth.db");
    let mut database = SqliteConnection::connect(&format!("sqlite:{}", path.display())).await.unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let waiting = "INSERT INTO to_device (mailbox, position, message, created_ts) VALUES (-7, 1, '{}', $1)";
    let failing = "INSERT INTO destination (server, recipient, position, behind, failures, retry_ts)
                   VALUES ($1, -7, 0, TRUE, 9, $2)";
    sqlx::query(waiting).bind(now).execute(&mut database).await.unwrap();
    sqlx::query(failing).bind(&name).bind(now + 60 * 60 * 1000).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    server.start_again().await;
    said(&server.run(&["federation", "retry", &name]));
    tokio::time::timeout(common::PATIENCE, there.accept()).await.expect("it is tried again").unwrap();
}

#[tokio::test]
async fn registration_tokens_are_managed_while_the_server_runs() {
    let server = Server::start(toml::toml! { registration.mode = "token" }).await;
    let valid = async |token: &str| {
        let path = format!("/v1/register/m.login.registration_token/validity?token={token}");
        server.http().get(&path, None).await.expect(200)["valid"] == true
    };
    let token = said(&server.run(&["token", "create", "--uses", "2", "--expires", "7d"])).trim().to_owned();
    assert!(valid(&token).await);
    let listed = said(&server.run(&["token", "list"]));
    assert!(listed.contains(&format!("{token}\t0 of 2 uses, expires in 7d")), "{listed}");
    said(&server.run(&["token", "revoke", &token]));
    assert!(!valid(&token).await);
    assert_fails(&server.run(&["token", "revoke", &token]), 1, &["no such registration token"]);
    assert_fails(&server.run(&["token", "create", "--uses", "0"]), 2, &["--uses"]);
}

#[tokio::test]
async fn the_printed_default_is_a_configuration_that_passes_the_check() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let printed = Command::new(env!("CARGO_BIN_EXE_hearth")).args(["config", "default"]).output().unwrap();
    fs::write(server.config_path(), said(&printed)).unwrap();
    assert!(said(&server.run(&["config", "check"])).contains("good"));
}

/// A machine without certificate authorities is good enough for who speaks to no other server.
#[tokio::test(flavor = "multi_thread")]
async fn without_federation_no_authorities_are_needed() {
    let nowhere = toml::toml! {
        [federation]
        enabled = false
        ca_file = "/nonexistent/authorities.pem"
    };
    let mut server = Server::start(nowhere).await;
    server.register("alice").await.sync(None, 0).await;
    server.stop().await;
    configure(&server, |config| {
        config["federation"].as_table_mut().unwrap().insert("enabled".to_owned(), true.into());
    });
    assert_fails(&try_serve(&server).await, 1, &["/nonexistent/authorities.pem"]);
}

/// The program in a folder, without what a developer has set for their own server.
fn hearth(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.current_dir(folder).args(arguments.split(' ')).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("HEARTH_")) {
        command.env_remove(name);
    }
    command
}

/// Nobody else has the password, and no second one is made by trying again.
#[tokio::test]
async fn what_cannot_be_shown_is_said_to_have_been_made() {
    let server = Server::start(toml::toml! { registration.mode = "token" }).await;
    let run = |arguments: &str, output: Stdio| {
        let mut command = hearth(server.data_dir().parent().unwrap(), arguments);
        command.stdout(output).stderr(Stdio::piped()).output().unwrap()
    };
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let gone = || Stdio::from(std::io::pipe().unwrap().1);
    let cant = "the output can't be written";
    for (name, output) in [("alice", full()), ("bob", gone())] {
        let output = run(&format!("user create {name}"), output);
        let made = format!("@{name}:localhost was made");
        assert_fails(&output, 1, &[cant, &made, &format!("hearth user set-password {name}")]);
    }
    for output in [full(), gone()] {
        let output = run("user set-password alice", output);
        assert_fails(
            &output,
            1,
            &[cant, "@alice:localhost has a new password", "hearth user set-password alice"],
        );
    }
    for output in [full(), gone()] {
        assert_fails(&run("token create", output), 1, &[cant, "the token was made", "hearth token list"]);
    }
    let looks =
        ["user list", "user limits alice", "token list", "federation list", "report list", "key show"];
    let others = ["user lock alice", "doctor --json", "config check", "config default", "backup copy"];
    for arguments in looks.into_iter().chain(others) {
        assert_fails(&run(arguments, full()), 1, &[cant, "No space left"]);
    }
    // A reader that has read enough.
    for arguments in looks {
        let output = run(arguments, gone());
        assert_fails(&output, 0, &[]);
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    assert_eq!(said(&server.run(&["user", "list"])), "@alice:localhost\tlocked\n@bob:localhost\n");
}

#[tokio::test]
async fn lists_of_nothing_say_so() {
    let server = Server::start(Table::new()).await;
    assert_eq!(said(&server.run(&["federation", "list"])), "nothing was ever sent to another server\n");
    assert_eq!(said(&server.run(&["report", "list"])), "nobody has reported anything\n");
}

#[tokio::test]
async fn a_server_starts_though_its_output_cannot_be_written() {
    let mut server = Server::start(toml::toml! { registration.mode = "token" }).await;
    server.stop().await;
    server.prefix = ["sh", "-c", "exec \"$@\" > /dev/full", "sh"].map(str::to_owned).to_vec();
    server.start_again().await;
    assert!(!server.log().contains("panicked"), "{}", server.log());
}

/// What somebody gave in the wrong folder would otherwise make a server there, of a name that it has for ever.
#[test]
fn commands_that_look_at_a_server_make_none() {
    let folder = tempfile::tempdir().unwrap();
    let none = ["there is no database ./hearth-data/hearth.db: is this the right configuration?"];
    for arguments in [
        "user list",
        "user set-password x",
        "user deactivate x",
        "user lock x",
        "user unsuspend x",
        "user limits x",
        "token list",
        "token revoke x",
        "federation list",
        "federation retry example.org",
        "report list",
        "doctor",
        "doctor example.org",
        "key show",
        "key rotate",
        "backup there",
    ] {
        let output = hearth(folder.path(), arguments).output().unwrap();
        assert_fails(&output, 1, &none);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "`hearth {arguments}` leaves something");
    }
    // What makes one, makes one.
    let token = said(&hearth(folder.path(), "token create").output().unwrap());
    let listed = said(&hearth(folder.path(), "token list").output().unwrap());
    assert!(listed.contains(token.trim()), "{listed}");
}

#[tokio::test]
async fn whoever_cannot_register_with_a_token_is_told_of_the_command_line() {
    let mut server = Server::start(toml::toml! { registration.mode = "open" }).await;
    let text = fs::read_to_string(server.config_path()).unwrap();
    for (mode, served) in [("open", "client"), ("closed", "client"), ("token", "metrics")] {
        server.stop().await;
        fs::remove_dir_all(server.data_dir()).unwrap();
        fs::remove_file(server.data_dir().with_file_name("hearth.log")).unwrap();
        let changed = text.replace("\"open\"", &format!("{mode:?}"));
        fs::write(server.config_path(), changed.replace("\"client\"", &format!("{served:?}"))).unwrap();
        server.start_again().await;
        let log = server.log();
        let command = format!("hearth user create NAME --admin --config {}", server.config_path().display());
        assert!(log.contains(&command), "{mode}, {served}: {log}");
        assert!(!log.contains("Registration token") && !log.contains("token   "), "{mode}, {served}: {log}");
        assert_eq!(said(&server.run(&["token", "list"])), "", "{mode}, {served}: nobody can use one");
    }
    said(&server.run(&["user", "create", "root", "--admin"]));
    server.restart().await;
    assert_eq!(server.log().matches("hearth user create").count(), 1, "nobody needs it any more");
}

#[tokio::test]
async fn a_lost_database_is_not_replaced_by_an_empty_one() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let (database, key) = (server.data_dir().join("hearth.db"), server.data_dir().join("signing.key"));
    fs::remove_file(&database).unwrap();
    let parts = [database.to_str().unwrap(), key.to_str().unwrap(), "hearth restore", "move the key away"];
    assert_fails(&try_serve(&server).await, 1, &parts);
    for create in [["user", "create", "alice"].as_slice(), &["token", "create"]] {
        assert_fails(&server.run(create), 1, &parts);
    }
    assert!(!database.exists());
    fs::write(&database, "").unwrap();
    assert_fails(&try_serve(&server).await, 1, &parts);
    assert_fails(&server.run(&["user", "list"]), 1, &["there is no database"]);
    assert_eq!(fs::metadata(&database).unwrap().len(), 0);
    fs::rename(&key, key.with_file_name("aside")).unwrap();
    server.start_again().await;
    assert_ne!(fs::read(&key).unwrap(), fs::read(key.with_file_name("aside")).unwrap());
}

#[tokio::test]
async fn the_database_of_another_program_is_refused_and_stays_as_it_is() {
    let mut server = Server::start(Table::new()).await;
    server.stop().await;
    let path = server.data_dir().with_file_name("other.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.execute_batch("CREATE TABLE note (text TEXT); INSERT INTO note VALUES ('mine')").unwrap();
    database.close().unwrap();
    let before = fs::read(&path).unwrap();
    configure(&server, |config| {
        let url = format!("sqlite:{}", path.display());
        config.insert("database".to_owned(), Table::from_iter([("url".to_owned(), url.into())]).into());
    });
    let parts = [path.to_str().unwrap(), "isn't Hearth's", "`database.url`"];
    assert_fails(&try_serve(&server).await, 1, &parts);
    for command in [["user", "create", "alice"].as_slice(), &["user", "list"], &["backup", "copy"]] {
        assert_fails(&server.run(command), 1, &parts);
    }
    assert_eq!(fs::read(&path).unwrap(), before);
    for end in ["-wal", "-shm", "-journal"] {
        assert!(!path.with_file_name(format!("other.db{end}")).exists(), "{end}");
    }
}

#[test]
fn a_database_in_a_folder_that_is_not_there_is_told_what_to_do_about() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hearth.toml"), "database.url = \"sqlite:nowhere/hearth.db\"").unwrap();
    let output = hearth(folder.path(), "token create").output().unwrap();
    assert_fails(&output, 1, &["nowhere/hearth.db", "unable to open", "make its folder", "`database.url`"]);
}

/// Names of users end in it, and other servers compare them letter by letter.
#[test]
fn a_new_server_has_no_capitals_in_its_name() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("hearth.toml"), "server_name = \"Example.org\"").unwrap();
    for arguments in ["user create alice", "token create"] {
        let output = hearth(folder.path(), arguments).output().unwrap();
        assert_fails(&output, 1, &["server_name", "Example.org", "`example.org`"]);
        assert!(!folder.path().join("hearth-data").exists());
    }
}

/// It would be silently ignored.
#[tokio::test]
async fn a_variable_with_one_underscore_is_warned_of() {
    let mut server = Server::start(Table::new()).await;
    let variables = [
        ("HEARTH_SERVER_NAME", "example.org"),
        ("HEARTH_ROOMS_MAX_MEMBERS", "7"),
        ("HEARTH_ROOMS__MAX_TEXT_CHARS", "7"),
        ("HEARTH_TEST_SEED", "1"),
        ("HEARTH", ""),
    ];
    let warnings = [
        "HEARTH_SERVER_NAME is ignored: did you mean HEARTH__SERVER_NAME?",
        "HEARTH_ROOMS_MAX_MEMBERS is ignored: did you mean HEARTH__ROOMS__MAX_MEMBERS?",
        "HEARTH_ROOMS__MAX_TEXT_CHARS is ignored: did you mean HEARTH__ROOMS__MAX_TEXT_CHARS?",
    ];
    let checked =
        hearth(server.data_dir().parent().unwrap(), "config check").envs(variables).output().unwrap();
    said(&checked);
    server.stop().await;
    server.prefix = vec!["env".to_owned()];
    server.prefix.extend(variables.map(|(name, value)| format!("{name}={value}")));
    server.start_again().await;
    for told in [String::from_utf8_lossy(&checked.stderr).into_owned(), server.log()] {
        for warning in warnings {
            assert!(told.contains(warning), "{warning}: {told}");
        }
        assert_eq!(told.matches("is ignored").count(), warnings.len(), "{told}");
    }
}

#[tokio::test]
async fn a_deactivated_account_is_neither_locked_nor_suspended() {
    let server = Server::start(Table::new()).await;
    said(&server.run(&["user", "create", "alice"]));
    said(&server.run(&["user", "deactivate", "alice"]));
    for command in ["lock", "suspend"] {
        assert_fails(&server.run(&["user", command, "alice"]), 1, &["@alice:localhost", "is deactivated"]);
    }
    assert_eq!(said(&server.run(&["user", "list"])), "@alice:localhost\tdeactivated\n");
}
