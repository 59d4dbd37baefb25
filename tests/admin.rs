//! What administrators do: locking and suspending accounts, and seeing where they are used.

mod common;

use common::{PASSWORD, Server, User, eventually};
use serde_json::{Value, json};
use toml::Table;

/// An administrator, made by the operator.
async fn admin(server: &Server, name: &str) -> User {
    let made = server.run(&["user", "create", name, "--admin"]);
    let output = String::from_utf8(made.stdout).unwrap_or_default();
    let password = output.lines().find_map(|line| line.strip_prefix("password: "));
    let identifier = json!({ "type": "m.id.user", "user": name });
    let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
    let answer = server.http().post("/v3/login", None, body).await.expect(200);
    User::new(server.http().clone(), &answer)
}

fn path(measure: &str, user_id: &str) -> String {
    format!("/v1/admin/{measure}/{user_id}")
}

#[tokio::test]
async fn lk_01_a_locked_account_may_log_out_and_nothing_else() {
    let mut server = Server::start(Table::new()).await;
    let (root, alice) = (admin(&server, "root").await, server.register("alice").await);
    let waiting = {
        let alice = alice.clone();
        let since = alice.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
        tokio::spawn(async move { alice.get(&format!("/v3/sync?timeout=30000&since={since}")).await })
    };
    let lock = path("lock", &alice.user_id);
    assert_eq!(root.get(&lock).await.expect(200), json!({ "locked": false }));
    assert_eq!(root.put(&lock, json!({ "locked": true })).await.expect(200), json!({ "locked": true }));
    assert_eq!(root.get(&lock).await.expect(200), json!({ "locked": true }));

    // Whoever waits hears of it.
    waiting.await.unwrap().expect_error(401, "M_USER_LOCKED");
    server.restart().await;
    for path in ["/v3/account/whoami", "/v3/sync", "/v3/capabilities", "/v3/joined_rooms"] {
        let answer = alice.get(path).await.expect_error(401, "M_USER_LOCKED");
        assert_eq!(answer["soft_logout"], true, "{path}");
    }
    let identifier = json!({ "type": "m.id.user", "user": "alice" });
    let login = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
    server.http().post("/v3/login", None, login).await.expect_error(401, "M_USER_LOCKED");

    // The session is still there.
    root.put(&lock, json!({ "locked": false })).await.expect(200);
    alice.get("/v3/account/whoami").await.expect(200);
    root.put(&lock, json!({ "locked": true })).await.expect(200);
    alice.post("/v3/logout", json!({})).await.expect(200);
    root.put(&lock, json!({ "locked": false })).await.expect(200);
    alice.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn lk_02_a_suspended_account_reads_and_leaves_but_hardly_writes() {
    let server = Server::start(Table::new()).await;
    let (root, alice, bob) =
        (admin(&server, "root").await, server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let (joined, invited) =
        (bob.create_room(json!({ "preset": "public_chat" })).await, bob.create_room(json!({})).await);
    alice.join(&joined).await;
    bob.join(&room).await;
    bob.invite(&invited, &alice.user_id).await;
    let (own, of_bob) = (alice.send_text(&room, "mine").await, bob.send_text(&room, "bob's").await);
    let second = alice.send_text(&room, "mine too").await;
    let suspend = path("suspend", &alice.user_id);
    root.put(&suspend, json!({ "suspended": true })).await.expect(200);
    let alice = server.login("alice").await;

    let me = &alice.user_id;
    let member = format!("/v3/rooms/{room}/state/m.room.member/{me}");
    let redaction = |target: &str| (format!("/v3/rooms/{room}/redact/{target}/r{target}"), json!({}));
    let redaction_by_send = |target: &str| {
        (format!("/v3/rooms/{room}/send/m.room.redaction/s{target}"), json!({ "redacts": target }))
    };
    let text = json!({ "msgtype": "m.text", "body": "x" });
    for (path, body) in [
        (format!("/v3/rooms/{room}/send/m.room.message/t1"), text.clone()),
        (format!("/v3/rooms/{room}/send/m.room.message/t2"), json!({ "redacts": own })),
        (
            format!("/v3/rooms/{room}/send/m.room.redaction/t3?org.matrix.msc4140.delay=1"),
            json!({ "redacts": own }),
        ),
        (format!("/v3/rooms/{room}/send/m.room.redaction/t4"), json!({})),
        redaction(&of_bob),
        redaction_by_send(&of_bob),
        redaction("$nothing"),
        (format!("/v3/rooms/{room}/state/m.room.name"), json!({ "name": "x" })),
        (member.clone(), json!({ "membership": "join", "displayname": "x" })),
        (format!("/v3/rooms/{invited}/state/m.room.member/{me}"), json!({ "membership": "join" })),
        (format!("/v3/rooms/{room}/state/m.room.member/{}", bob.user_id), json!({ "membership": "leave" })),
        (format!("/v3/profile/{me}/displayname"), json!({ "displayname": "x" })),
        (format!("/v3/rooms/{room}/typing/{me}"), json!({ "typing": true, "timeout": 1000 })),
        ("/v3/directory/room/%23x:localhost".to_owned(), json!({ "room_id": room })),
    ] {
        alice.put(&path, body).await.expect_error(403, "M_USER_SUSPENDED");
    }
    for (path, body) in [
        ("/v3/createRoom".to_owned(), json!({})),
        (format!("/v3/join/{invited}"), json!({})),
        (format!("/v3/rooms/{invited}/join"), json!({})),
        (format!("/v3/knock/{invited}"), json!({})),
        (format!("/v3/rooms/{room}/invite"), json!({ "user_id": "@x:localhost" })),
        (format!("/v3/rooms/{room}/kick"), json!({ "user_id": bob.user_id })),
        (format!("/v3/rooms/{room}/upgrade"), json!({ "new_version": "12" })),
    ] {
        alice.post(&path, body).await.expect_error(403, "M_USER_SUSPENDED");
    }

    // Reading, and what is one's own.
    assert!(alice.sync(None, 0).await["rooms"]["join"][&room].is_object());
    alice.get(&format!("/v3/rooms/{room}/messages?dir=b")).await.expect(200);
    alice.post("/v3/user_directory/search", json!({ "search_term": "bob" })).await.expect(200);
    alice.post(&format!("/v3/rooms/{room}/receipt/m.read/{of_bob}"), json!({})).await.expect(200);
    alice.put(&format!("/v3/user/{me}/account_data/org.example.a"), json!({})).await.expect(200);
    let backup = json!({ "algorithm": "org.example.a", "auth_data": {} });
    alice.post("/v3/room_keys/version", backup).await.expect(200);
    alice.put("/v3/room_keys/keys?version=1", json!({ "rooms": {} })).await.expect(200);
    // Verifying devices, in a session that has just begun.
    let key = "nqOvzeuGWT/sRx3h7+MHoInYj3Uk2LD/unI9kDYcHwk";
    let master = json!({ "user_id": me, "usage": ["master"], "keys": { format!("ed25519:{key}"): key } });
    for (path, body) in [
        ("upload", json!({})),
        ("query", json!({ "device_keys": { me: [] } })),
        ("claim", json!({ "one_time_keys": {} })),
        ("signatures/upload", json!({})),
        ("device_signing/upload", json!({ "master_key": master })),
    ] {
        let answer = alice.post(&format!("/v3/keys/{path}"), body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
    for (path, body) in [redaction(&own), redaction_by_send(&second)] {
        alice.put(&path, body).await.expect(200);
    }
    alice.post(&format!("/v3/rooms/{invited}/leave"), json!({})).await.expect(200);
    alice.post(&format!("/v3/rooms/{joined}/leave"), json!({})).await.expect(200);

    root.put(&suspend, json!({ "suspended": false })).await.expect(200);
    alice.send_text(&room, "back").await;
    root.put(&suspend, json!({ "suspended": true })).await.expect(200);
    alice.put(&member, json!({ "membership": "leave" })).await.expect(200);
    alice.post("/v3/logout", json!({})).await.expect(200);
}

#[tokio::test]
async fn lk_03_only_administrators_moderate_and_only_others_of_this_server() {
    let server = Server::start(Table::new()).await;
    let (root, other) = (admin(&server, "root").await, admin(&server, "other").await);
    let (alice, gone) = (server.register("alice").await, server.register("gone").await);
    let auth = json!({ "type": "m.login.password", "password": PASSWORD,
        "identifier": { "type": "m.id.user", "user": "gone" } });
    gone.post("/v3/account/deactivate", json!({ "auth": auth })).await.expect(200);

    for (measure, key) in [("lock", "locked"), ("suspend", "suspended")] {
        let body = json!({ key: true });
        // Nobody else learns who has an account.
        for user_id in [&alice.user_id, &root.user_id, "@unknown:localhost", "@far:elsewhere"] {
            alice.get(&path(measure, user_id)).await.expect_error(403, "M_FORBIDDEN");
            alice.put(&path(measure, user_id), body.clone()).await.expect_error(403, "M_FORBIDDEN");
        }
        for (user_id, status, errcode) in [
            ("@far:elsewhere", 400, "M_INVALID_PARAM"),
            ("@unknown:localhost", 404, "M_NOT_FOUND"),
            (&gone.user_id, 404, "M_NOT_FOUND"),
        ] {
            root.get(&path(measure, user_id)).await.expect_error(status, errcode);
            root.put(&path(measure, user_id), body.clone()).await.expect_error(status, errcode);
        }
        for user_id in [&root.user_id, &other.user_id] {
            root.put(&path(measure, user_id), body.clone()).await.expect_error(403, "M_FORBIDDEN");
        }
        root.get(&path(measure, &other.user_id)).await.expect_error(403, "M_FORBIDDEN");
        root.get(&path(measure, &root.user_id)).await.expect(200);
        root.put(&path(measure, &alice.user_id), json!({})).await.expect_error(400, "M_BAD_JSON");
    }
    // The prefix of the proposal, and what clients look for.
    let path = format!("/unstable/uk.timedout.msc4323/admin/suspend/{}", alice.user_id);
    root.put(&path, json!({ "suspended": true })).await.expect(200);
    assert_eq!(root.get(&path).await.expect(200), json!({ "suspended": true }));
    let told = json!({ "lock": true, "suspend": true });
    assert_eq!(capability(&root).await, told);
    root.put(&path, json!({ "suspended": false })).await.expect(200);
    assert_eq!(capability(&alice).await, Value::Null);
}

async fn capability(user: &User) -> Value {
    user.get("/v3/capabilities").await.expect(200)["capabilities"]["m.account_moderation"].clone()
}

#[tokio::test]
async fn whois_tells_where_an_account_is_used() {
    let server = Server::start(Table::new()).await;
    let (root, alice, bob) =
        (admin(&server, "root").await, server.register("alice").await, server.register("bob").await);
    let second = server.login("alice").await;
    let path = format!("/v3/admin/whois/{}", alice.user_id);
    for reader in [&alice, &root] {
        let answer = reader.get(&path).await.expect(200);
        assert_eq!(answer["user_id"], alice.user_id);
        let devices = answer["devices"].as_object().unwrap();
        assert_eq!(devices.len(), 2);
        assert!(devices.contains_key(&second.device_id));
        let connection = &devices[&alice.device_id]["sessions"][0]["connections"][0];
        assert_eq!(connection["ip"], "127.0.0.1", "{connection}");
        assert!(connection["last_seen"].as_u64().unwrap() > 0);
    }
    bob.get(&path).await.expect_error(403, "M_FORBIDDEN");
    root.get("/v3/admin/whois/@unknown:localhost").await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn the_operator_locks_and_suspends_too() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    alice.get("/v3/account/whoami").await.expect(200);
    assert!(server.run(&["user", "lock", "alice"]).status.success());
    // A running server notices within moments.
    eventually("the lock is noticed", || async {
        (alice.get("/v3/account/whoami").await.status == 401).then_some(())
    })
    .await;
    for command in ["unlock", "suspend"] {
        assert!(server.run(&["user", command, "alice"]).status.success());
    }
    let list = String::from_utf8(server.run(&["user", "list"]).stdout).unwrap();
    assert_eq!(list.trim_end(), "@alice:localhost\tsuspended");
}
