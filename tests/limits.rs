//! Rate limits: by class, as the operator sets them, and of single accounts.

mod common;

use common::{Answer, PASSWORD, Server, User, eventually};
use serde_json::json;
use toml::toml;

async fn send(user: &User, room: &str) -> Answer {
    let path = format!("/v3/rooms/{room}/send/org.example.x/{}", common::transaction_id());
    user.put(&path, json!({})).await
}

/// How many of `count` attempts are let in.
async fn let_in(user: &User, room: &str, count: usize) -> usize {
    let mut let_in = 0;
    for _ in 0..count {
        let answer = send(user, room).await;
        match answer.status {
            200 => let_in += 1,
            _ => drop(answer.expect_error(429, "M_LIMIT_EXCEEDED")),
        }
    }
    let_in
}

#[tokio::test]
async fn gn_04_each_class_has_a_budget_of_its_own() {
    // So slow that nothing comes back while the test runs.
    let server = Server::start(toml! {
        [limits]
        enabled = true
        message = { per_second = 0.001, burst = 3 }
        invite = { per_second = 0.001, burst = 2 }
        join = { per_second = 0.001, burst = 1 }
        room_creation = { per_second = 0.001, burst = 2 }
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    // The invites that come with a room count as any other.
    let invited = json!({ "preset": "public_chat", "invite": [bob.user_id] });
    let room = alice.create_room(invited.clone()).await;
    alice.create_room(json!({})).await;
    let answer = alice.post("/v3/createRoom", json!({})).await;
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    let wait = answer.expect_error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"].as_u64().unwrap();
    assert!((900_000..=1_000_000).contains(&wait) && seconds == wait.div_ceil(1000), "{wait}");

    assert_eq!(let_in(&alice, &room, 5).await, 3);
    let path = format!("/v3/rooms/{room}/invite");
    let invite = async |user_id: &str| alice.post(&path, json!({ "user_id": user_id })).await;
    invite("@unknown:localhost").await.expect(200);
    invite("@unknown2:localhost").await.expect_error(429, "M_LIMIT_EXCEEDED");

    bob.join(&room).await;
    let answer = bob.post(&format!("/v3/rooms/{room}/join"), json!({})).await;
    answer.expect_error(429, "M_LIMIT_EXCEEDED");
    // Nobody uses up the budget of another.
    assert_eq!(let_in(&bob, &room, 1).await, 1);
}

#[tokio::test]
async fn gn_04_an_account_has_limits_of_its_own() {
    let mut server = Server::start(toml! {
        [limits]
        enabled = true
        message = { per_second = 0.001, burst = 2 }
    })
    .await;
    let (bot, bob) = (server.register("bot").await, server.register("bob").await);
    let room = bot.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    assert_eq!(let_in(&bot, &room, 3).await, 2);

    // A running server notices.
    let run = |arguments: &[&str]| {
        let output = server.run(&[&["user", "limits", "bot"], arguments].concat());
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (done, shown) = run(&["--class", "message", "--unlimited"]);
    assert!(done && shown == "@bot:localhost\nmessage\tunlimited\n", "{shown}");
    eventually("the limit is gone", async || (send(&bot, &room).await.status == 200).then_some(())).await;
    assert_eq!(let_in(&bot, &room, 10).await, 10);
    assert_eq!(let_in(&bob, &room, 3).await, 2);

    assert!(run(&["--class", "message", "--rate", "0.001/4"]).0);
    eventually("there is a limit", async || (send(&bot, &room).await.status == 429).then_some(())).await;
    let (done, shown) = run(&[]);
    assert!(
        done && shown.contains("message\t0.001/4\n") && shown.contains("join\tas everybody\n"),
        "{shown}"
    );
    server.restart().await;
    assert_eq!(let_in(&bot, &room, 6).await, 4);

    let run = |arguments: &[&str]| server.run(&[&["user", "limits", "bot"], arguments].concat());
    assert!(run(&["--usual"]).status.success());
    for wrong in [
        &["--rate", "5"][..],
        &["--rate", "0/5"],
        &["--rate", "5/0"],
        &["--class", "login_account", "--unlimited"],
        &["--rate", "1/1", "--unlimited"],
    ] {
        let output = run(wrong);
        assert!(!output.status.success() && !output.stderr.is_empty(), "{wrong:?}");
    }
}

/// AU-09: whoever guesses the password of one account is slowed down, wherever they come from.
#[tokio::test]
async fn gn_04_passwords_can_be_guessed_only_slowly() {
    let server = Server::start(toml! {
        [limits]
        enabled = true
        login = { per_second = 1000, burst = 1000 }
        login_account = { per_second = 0.001, burst = 3 }
    })
    .await;
    server.register("alice").await;
    server.register("bob").await;
    let attempt = async |user: &str, password: &str| {
        let identifier = json!({ "type": "m.id.user", "user": user });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": password });
        server.http().post("/v3/login", None, body).await
    };
    // However the name is written.
    for user in ["alice", "Alice", "@alice:localhost"] {
        attempt(user, "wrong").await.expect_error(403, "M_FORBIDDEN");
    }
    attempt("alice", PASSWORD).await.expect_error(429, "M_LIMIT_EXCEEDED");
    attempt("bob", PASSWORD).await.expect(200);
    // An account that doesn't exist is no different.
    for _ in 0..3 {
        attempt("nobody", "wrong").await.expect_error(403, "M_FORBIDDEN");
    }
    attempt("nobody", "wrong").await.expect_error(429, "M_LIMIT_EXCEEDED");
}
