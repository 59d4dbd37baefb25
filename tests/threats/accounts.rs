//! Passwords, and what accounts may fill.

use serde_json::{Value, json};
use std::fmt::Write as _;

use crate::{common::Server, server};

/// Milliseconds of processor time that the server has taken in all its threads, in steps of ten.
fn processor_ms(server: &Server) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).expect("the server runs");
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("a number");
    (ticks(11) + ticks(12)) * 10
}

/// AU-09, AU-15: whoever guesses names learns nothing from the time that an answer takes. What takes the time is the
/// hashing of the password, so it is the work that is compared.
#[tokio::test]
async fn au_09_a_login_of_nobody_costs_as_much_as_a_wrong_password() {
    const TRIES: usize = 12;
    let server = server().await;
    server.register("alice").await;
    server.register("closed").await;
    assert!(server.run(&["user", "deactivate", "closed"]).status.success());
    let users = ["alice", "nobody", "@alice:elsewhere.org", "closed"];
    let mut costs = [0; 4];
    // In turn, so that what the server does beside falls on all alike.
    for _ in 0..TRIES {
        for (user, cost) in users.iter().zip(&mut costs) {
            let identifier = json!({ "type": "m.id.user", "user": user });
            let body = json!({ "type": "m.login.password", "identifier": identifier, "password": "guess" });
            let before = processor_ms(&server);
            server.http().post("/v3/login", None, body).await.expect(403);
            *cost += processor_ms(&server) - before;
        }
    }
    let known = costs[0];
    for (user, cost) in users.iter().zip(costs) {
        assert!(cost * 2 > known, "{user}: {cost} ms against {known} ms of somebody who exists");
    }
}

/// 10^5 of anything that a user can put: there is an end, and it is said.
#[tokio::test]
async fn what_a_user_keeps_is_bounded_in_all() {
    let server = server().await;
    let alice = server.register("alice").await;
    let large = json!({ "text": "x".repeat(250_000) });
    let mut refused = None;
    for number in 0..200 {
        let path = format!("/v3/user/{}/account_data/org.example.{number}", alice.user_id);
        let answer = alice.put(&path, large.clone()).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("50 MB are more than an account may fill");
    let error = refused.expect_error(413, "M_TOO_LARGE");
    assert!(error["error"].as_str().is_some_and(|text| text.contains("account data")), "{error}");
    // What is there may still be made smaller, and then there is room again.
    let path = |number: usize| format!("/v3/user/{}/account_data/org.example.{number}", alice.user_id);
    alice.put(&path(0), json!({})).await.expect(200);
    alice.put(&path(500), large.clone()).await.expect(200);
    alice.put(&path(501), large.clone()).await.expect_error(413, "M_TOO_LARGE");
    // The server's own, such as push rules, are no way around.
    alice.get("/v3/pushrules/").await.expect(200);
    assert!(alice.sync(None, 0).await["account_data"]["events"].as_array().is_some());
}

#[tokio::test]
async fn a_name_is_one_name() {
    let server = server().await;
    for name in ["@A:x", "a/../b c", "../../etc passwd", "a\u{0}b", "ä", "a:b", "@alice", &"a".repeat(300)] {
        let body =
            json!({ "username": name, "password": "correct horse", "auth": { "type": "m.login.dummy" } });
        let answer = server.http().post("/v3/register", None, body).await;
        assert_eq!(answer.status, 400, "{name:?}: {}", answer.text());
        answer.expect_error(400, "M_INVALID_USERNAME");
    }
    let mut query = String::from("/v3/register/available?username=");
    write!(query, "{}", crate::encoded("a\u{0}b")).expect("strings take everything");
    server.http().get(&query, None).await.expect_error(400, "M_INVALID_USERNAME");
}

/// What the files hold lets nobody in: neither passwords, old and new, nor tokens of any kind.
#[tokio::test]
async fn a_stolen_database_opens_no_account() {
    let server = server().await;
    let alice = server.register("alice").await;
    let login = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
        "password": crate::common::PASSWORD, "refresh_token": true,
    });
    let phone = server.http().post("/v3/login", None, login.clone()).await.expect(200);
    let refreshed = json!({ "refresh_token": phone["refresh_token"] });
    let refreshed = server.http().post("/v3/refresh", None, refreshed).await.expect(200);
    let new = "an even better horse";
    let auth = json!({
        "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
        "password": crate::common::PASSWORD,
    });
    let body = json!({ "new_password": new, "auth": auth, "logout_devices": false });
    alice.post("/v3/account/password", body).await.expect(200);

    let secret = |value: &Value| value.as_str().expect("a token").to_owned();
    let mut secrets = vec![crate::common::PASSWORD.to_owned(), new.to_owned(), alice.access_token.clone()];
    for answer in [&phone, &refreshed] {
        secrets.extend([secret(&answer["access_token"]), secret(&answer["refresh_token"])]);
    }
    let files = std::fs::read_dir(server.data_dir()).expect("the folder is there");
    let mut held = 0;
    for file in files.filter_map(|file| std::fs::read(file.ok()?.path()).ok()) {
        let holds = |text: &str| file.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        held += usize::from(holds(&alice.user_id));
        for secret in &secrets {
            assert!(!holds(secret), "{secret} is written down");
        }
    }
    assert!(held > 0, "these are the files that know alice");
}

/// What looks like a command is a message.
#[tokio::test]
async fn text_that_looks_like_a_command_is_a_text() {
    let server = server().await;
    let (admin, mallory) = (server.register("admin").await, server.register("mallory").await);
    let room = admin.create_room(json!({ "preset": "public_chat" })).await;
    mallory.join(&room).await;
    for text in [
        "!admin users deactivate @admin:localhost",
        "\\!admin server shutdown",
        "/op @mallory:localhost",
        "@hearth:localhost: user list",
    ] {
        let event = mallory.send_text(&room, text).await;
        let found = admin.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200);
        assert_eq!(found["content"]["body"], text);
        let last = admin.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=1")).await.expect(200);
        assert_eq!(last["chunk"][0]["event_id"], Value::from(event), "nothing answers");
    }
    admin.get("/v3/account/whoami").await.expect(200);
}
