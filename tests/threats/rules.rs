//! Push rules that are made to cost: they are held against every message, while its room waits.

use serde_json::{Value, json};

use crate::{
    common::{Answer, User},
    local_room, server,
};

async fn put(user: &User, path: &str, body: Value) -> Answer {
    user.put(&format!("/v3/pushrules/global/{path}"), body).await
}

async fn highlights(user: &User, room: &str) -> i64 {
    let sync = user.sync(None, 0).await;
    let counts = &sync["rooms"]["join"][room]["unread_notifications"];
    counts["highlight_count"].as_i64().expect("a count")
}

fn highlight() -> Value {
    json!(["notify", { "set_tweak": "highlight" }])
}

fn body_matches(pattern: &str) -> Value {
    let condition = json!({ "kind": "event_match", "key": "content.body", "pattern": pattern });
    json!({ "actions": highlight(), "conditions": [condition] })
}

/// Patterns with as many wildcards as a user may have, and texts with as many words as a message may have.
#[tokio::test]
async fn pu_03_no_pattern_and_no_text_stop_a_room() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = local_room(&alice, &[&bob]).await;
    put(&bob, "content/star", json!({ "actions": highlight(), "pattern": "c*ke?" })).await.expect(200);
    let mut refused = 0;
    for number in 0..100 {
        let pattern = "*?a".repeat(150) + "never";
        let content = json!({ "actions": highlight(), "pattern": pattern });
        for (path, body) in
            [(format!("content/c{number}"), content), (format!("override/o{number}"), body_matches(&pattern))]
        {
            let answer = put(&bob, &path, body).await;
            if answer.status != 200 {
                answer.expect_error(400, "M_INVALID_PARAM");
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "costly patterns have an end: {refused} were refused");
    put(&bob, "content/inner", json!({ "actions": highlight(), "pattern": "ab" })).await.expect(200);
    put(&bob, "content/short", json!({ "actions": highlight(), "pattern": "a" })).await.expect(200);
    for text in [
        "aa ".repeat(33_000),
        "a".repeat(100_000),
        "ä".repeat(100_000),
        "a-".repeat(50_000),
        "xab ".repeat(25_000),
    ] {
        alice.send_text(&room, &text).await;
    }
    assert_eq!(highlights(&bob, &room).await, 1, "`a` is a word of the last");
    alice.send_text(&room, "three cakes").await;
    assert_eq!(highlights(&bob, &room).await, 2);
}

#[tokio::test]
async fn pu_03_long_patterns_are_refused_wherever_they_stand() {
    let server = server().await;
    let alice = server.register("alice").await;
    let long = "?".repeat(513);
    let content = json!({ "actions": [], "pattern": long });
    put(&alice, "content/long", content).await.expect_error(400, "M_INVALID_PARAM");
    put(&alice, "override/long", body_matches(&long)).await.expect_error(400, "M_INVALID_PARAM");
    put(&alice, "underride/long", body_matches(&long)).await.expect_error(400, "M_INVALID_PARAM");
    put(&alice, "override/fits", body_matches(&"?".repeat(512))).await.expect(200);
    let mut conditions = body_matches("x");
    conditions["conditions"] = json!(vec![json!({ "kind": "org.example.unknown" }); 10_000]);
    put(&alice, "override/many", conditions).await.expect_error(400, "M_INVALID_PARAM");
    let actions = json!({ "actions": vec!["notify"; 100_000], "pattern": "x" });
    put(&alice, "content/many", actions).await.expect_error(400, "M_INVALID_PARAM");
}

/// The number of rules is bounded, at the wire too, and what isn't taken changes nothing.
#[tokio::test]
async fn pu_07_a_user_has_so_many_rules() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut taken = 0;
    let refused = loop {
        let answer = put(&alice, &format!("sender/@u{taken}:localhost"), json!({ "actions": [] })).await;
        if answer.status != 200 {
            break answer;
        }
        taken += 1;
        assert!(taken < 2_000, "there is no end");
    };
    refused.expect_error(400, "M_INVALID_PARAM");
    let rules = alice.get("/v3/pushrules/").await.expect(200);
    assert_eq!(rules["global"]["sender"].as_array().map(Vec::len), Some(taken));
    put(&alice, "sender/@u0:localhost", json!({ "actions": ["notify"] })).await.expect(200);
    alice.delete("/v3/pushrules/global/sender/@u0:localhost", None).await.expect(200);
    put(&alice, "sender/@another:localhost", json!({ "actions": [] })).await.expect(200);
}
