//! Looking for people, rooms in common, reports to the operator.

mod common;

use common::{Server, User};
use serde_json::{Value, json};
use toml::{Table, toml};

async fn find(user: &User, term: &str) -> Vec<String> {
    let body = json!({ "search_term": term, "limit": 50 });
    let answer = user.post("/v3/user_directory/search", body).await.expect(200);
    let people = answer["results"].as_array().cloned().unwrap_or_default();
    people.iter().map(|one| one["user_id"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn named(user: &User, name: &str) {
    let path = format!("/v3/profile/{}/displayname", user.user_id);
    user.put(&path, json!({ "displayname": name })).await.expect(200);
}

/// UD-01: those who share a room, and members of rooms that strangers can join or read; nobody else.
#[tokio::test]
async fn ud_01_people_are_found_by_those_who_may_know_of_them() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    for (name, shown) in
        [("shares", "Sam Shares"), ("publicly", "Pat Public"), ("readable", "Rea"), ("hidden", "Hid")]
    {
        let user = server.register(name).await;
        named(&user, shown).await;
        let private = user.create_room(json!({ "preset": "private_chat" })).await;
        match name {
            "shares" => {
                user.invite(&private, &alice.user_id).await;
                alice.join(&private).await;
            }
            "publicly" => drop(user.create_room(json!({ "preset": "public_chat" })).await),
            "readable" => {
                let readable = json!({ "history_visibility": "world_readable" });
                user.send_state(&private, "m.room.history_visibility", "", readable).await;
            }
            _ => {}
        }
    }
    for (term, expected) in
        [("shares", true), ("publicly", true), ("readable", true), ("hidden", false), ("hid", false)]
    {
        assert_eq!(find(&alice, term).await.len(), usize::from(expected), "{term}");
    }
    // Nobody finds themself, and who was only invited shares nothing.
    assert_eq!(find(&alice, "alice").await, Vec::<String>::new());
    let hidden = server.login("hidden").await;
    let room = hidden.create_room(json!({ "preset": "private_chat" })).await;
    hidden.invite(&room, &alice.user_id).await;
    assert_eq!(find(&alice, "hidden").await, Vec::<String>::new());
    // A room that closes is no longer open.
    let publicly = server.login("publicly").await;
    let rooms = publicly.get("/v3/joined_rooms").await.expect(200);
    for room in rooms["joined_rooms"].as_array().unwrap() {
        let room = room.as_str().unwrap();
        publicly.send_state(room, "m.room.join_rules", "", json!({ "join_rule": "invite" })).await;
    }
    assert_eq!(find(&alice, "publicly").await, Vec::<String>::new());
}

/// UD-01: in any case, by id or name, the closest first; what is over the limit is said to be.
#[tokio::test]
async fn ud_01_the_closest_come_first() {
    let config = toml! {
        [user_directory]
        search_all_users = true
    };
    let server = Server::start(config).await;
    let seeker = server.register("seeker").await;
    for (id, name) in
        [("zoe", "Mar"), ("martha", "x"), ("ann", "Anna Marie Ärzte"), ("lamar", "y"), ("other", "z")]
    {
        named(&server.register(id).await, name).await;
    }
    assert_eq!(
        find(&seeker, "MAR").await,
        ["@zoe:localhost", "@martha:localhost", "@ann:localhost", "@lamar:localhost"]
    );
    assert_eq!(find(&seeker, "marie anna").await, ["@ann:localhost"]);
    assert_eq!(find(&seeker, "ärzte").await, ["@ann:localhost"]);
    assert_eq!(find(&seeker, "@zoe:localhost").await, ["@zoe:localhost"]);
    for term in ["localhost", "%", "_", "a%b", "\\", "", "  "] {
        assert_eq!(find(&seeker, term).await, Vec::<String>::new(), "{term}");
    }
    let body = json!({ "search_term": "mar", "limit": 2 });
    let answer = seeker.post("/v3/user_directory/search", body).await.expect(200);
    assert_eq!((answer["results"].as_array().map(Vec::len), &answer["limited"]), (Some(2), &json!(true)));
    assert_eq!(answer["results"][0], json!({ "user_id": "@zoe:localhost", "display_name": "Mar" }));
    seeker.post("/v3/user_directory/search", json!({})).await.expect_error(400, "M_BAD_JSON");
    find(&seeker, &"long".repeat(10_000)).await;
}

/// MR-01: only rooms that both are in, page by page; of a stranger none, of oneself an error.
#[tokio::test]
async fn mr_01_rooms_in_common() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let both = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&both).await;
    let left = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&left).await;
    bob.post(&format!("/v3/rooms/{left}/leave"), json!({})).await.expect(200);
    let invited = alice.create_room(json!({})).await;
    alice.invite(&invited, &bob.user_id).await;
    for path in ["/v1/mutual_rooms", "/unstable/uk.half-shot.msc2666/user/mutual_rooms"] {
        let ask = |id: &str| {
            let (alice, path) = (alice.clone(), format!("{path}?user_id={id}"));
            async move { alice.get(&path).await }
        };
        assert_eq!(ask("@bob:localhost").await.expect(200), json!({ "joined": [both], "count": 1 }));
        for stranger in ["@nobody:localhost", "@x:elsewhere.example"] {
            assert_eq!(ask(stranger).await.expect(200), json!({ "joined": [], "count": 0 }));
        }
        ask("@alice:localhost").await.expect_error(400, "M_INVALID_PARAM");
        ask("nonsense").await.expect_error(400, "M_INVALID_PARAM");
        ask("@bob:localhost&from=nonsense").await.expect_error(400, "M_INVALID_PARAM");
    }
    alice.get("/v1/mutual_rooms").await.expect_error(400, "M_MISSING_PARAM");
}

/// MR-01
#[tokio::test]
async fn mr_01_many_rooms_in_common_come_page_by_page() {
    let config = toml! {
        [limits]
        enabled = false
    };
    let server = Server::start(config).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..130 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        rooms.push(room);
    }
    let page = alice.get("/v1/mutual_rooms?user_id=@bob:localhost").await.expect(200);
    let next = page["next_batch"].as_str().unwrap();
    assert_eq!((page["joined"].as_array().map(Vec::len), &page["count"]), (Some(100), &json!(130)));
    let rest = alice.get(&format!("/v1/mutual_rooms?user_id=@bob:localhost&from={next}")).await.expect(200);
    assert_eq!((rest["joined"].as_array().map(Vec::len), &rest["next_batch"]), (Some(30), &Value::Null));

    // By the names that matrix-js-sdk 37 has for them.
    let path = "/unstable/uk.half-shot.msc2666/user/mutual_rooms?user_id=@bob:localhost";
    let page = alice.get(path).await.expect(200);
    let token = page["next_batch_token"].as_str().expect("a token");
    let early = alice.get(&format!("{path}&batch_token={token}")).await.expect(200);
    assert_eq!(early["joined"], rest["joined"]);
    assert!(early.get("next_batch_token").is_none(), "{early}");
}

/// RP-01, RP-02: events only by those who are in the room and see them; rooms and users by anybody, with one answer.
#[tokio::test]
async fn rp_01_events_rooms_and_users_are_reported() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let event = alice.send_text(&room, "bad").await;
    let path = format!("/v3/rooms/{room}/report/{event}");
    bob.post(&path, json!({ "reason": "outside" })).await.expect_error(404, "M_NOT_FOUND");
    let absent = format!("/v3/rooms/!no:localhost/report/{event}");
    bob.post(&absent, json!({})).await.expect_error(404, "M_NOT_FOUND");
    bob.join(&room).await;
    bob.post(&path, json!({ "reason": "rude", "score": -100 })).await.expect(200);
    bob.post(&path, json!({})).await.expect(200);
    bob.post(&format!("/v3/rooms/{room}/report/$no"), json!({})).await.expect_error(404, "M_NOT_FOUND");

    for room in [room.as_str(), "!no:localhost"] {
        let report = json!({ "reason": "a bad place" });
        assert_eq!(bob.post(&format!("/v3/rooms/{room}/report"), report).await.expect(200), json!({}));
    }
    for user in ["@alice:localhost", "@no:localhost", "@x:elsewhere.example"] {
        let report = json!({ "reason": "a\nbad person" });
        assert_eq!(bob.post(&format!("/v3/users/{user}/report"), report).await.expect(200), json!({}));
    }
    bob.post("/v3/users/@alice:localhost/report", json!({})).await.expect_error(400, "M_BAD_JSON");
    let long = json!({ "reason": "x".repeat(100_000) });
    bob.post("/v3/users/@alice:localhost/report", long).await.expect_error(413, "M_TOO_LARGE");

    let listed = String::from_utf8_lossy(&server.run(&["report", "list"]).stdout).into_owned();
    assert!(
        listed.contains("@bob:localhost") && listed.contains(&event) && listed.contains("rude"),
        "{listed}"
    );
    assert_eq!(listed.matches("@bob:localhost").count(), 7, "{listed}");
}
