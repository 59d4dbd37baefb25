//! Spaces and the summaries of rooms: what somebody may know of rooms that they aren't in.

mod common;

use common::{Answer, Server, User, rounds};
use serde_json::{Value, json};
use toml::Table;

async fn space(user: &User, name: &str) -> String {
    let body = json!({ "preset": "public_chat", "name": name, "creation_content": { "type": "m.space" } });
    user.create_room(body).await
}

async fn open_room(user: &User, name: &str) -> String {
    user.create_room(json!({ "preset": "public_chat", "name": name })).await
}

async fn add(user: &User, space: &str, child: &str, more: Value) {
    let mut content = json!({ "via": ["localhost"] });
    for (key, value) in more.as_object().into_iter().flatten() {
        content[key] = value.clone();
    }
    user.send_state(space, "m.space.child", child, content).await;
}

async fn ask(user: &User, room: &str, rest: &str) -> Answer {
    user.get(&format!("/v1/rooms/{room}/hierarchy{rest}")).await
}

async fn names(user: &User, room: &str, rest: &str) -> Vec<String> {
    named(&ask(user, room, rest).await.expect(200))
}

fn named(page: &Value) -> Vec<String> {
    let rooms = page["rooms"].as_array().unwrap_or_else(|| panic!("no rooms in {page}"));
    rooms.iter().map(|room| room["name"].as_str().unwrap_or("-").to_owned()).collect()
}

/// SP-01, SP-02: depth first; the valid `order` first, then the time.
#[tokio::test]
async fn sp_02_children_come_depth_first_and_in_their_order() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let root = space(&alice, "root").await;
    let inner = space(&alice, "inner").await;
    let mut rooms = Vec::new();
    for name in ["late", "early", "inside", "without", "badly ordered", "not a child"] {
        rooms.push(open_room(&alice, name).await);
    }
    add(&alice, &root, &rooms[3], json!({})).await;
    add(&alice, &root, &rooms[4], json!({ "order": "\u{e4}" })).await;
    add(&alice, &root, &rooms[0], json!({ "order": "b" })).await;
    add(&alice, &root, &inner, json!({ "order": "ab" })).await;
    add(&alice, &root, &rooms[1], json!({ "order": "a" })).await;
    add(&alice, &inner, &rooms[2], json!({})).await;
    alice.send_state(&root, "m.space.child", &rooms[5], json!({ "via": [] })).await;
    // Children of a room that is no space don't count.
    add(&alice, &rooms[1], &rooms[5], json!({})).await;

    let page = ask(&alice, &root, "").await.expect(200);
    assert_eq!(named(&page), ["root", "early", "inner", "inside", "late", "without", "badly ordered"]);
    assert_eq!(page["next_batch"], Value::Null);
    assert!(!names(&alice, &root, "?max_depth=1").await.contains(&"inside".to_owned()));
    assert_eq!(names(&alice, &root, "?max_depth=0").await, ["root"]);

    // SP-06: what a space says of its children is stripped, with the time.
    let children = page["rooms"][0]["children_state"].as_array().unwrap();
    assert_eq!(children.len(), 5);
    let mut keys: Vec<_> = children[0].as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["content", "origin_server_ts", "sender", "state_key", "type"]);
    assert_eq!(page["rooms"][1]["children_state"], json!([]));
    assert_eq!(page["rooms"][0]["room_type"], "m.space");
}

/// SP-01: only what is suggested, and what a page's token is good for.
#[tokio::test]
async fn sp_01_pages_and_suggestions() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let root = space(&alice, "root").await;
    let mut expected = vec!["root".to_owned()];
    for number in 0..7 {
        let name = format!("room {number}");
        let room = open_room(&alice, &name).await;
        add(&alice, &root, &room, json!({ "suggested": number % 2 == 0, "order": number.to_string() })).await;
        expected.push(name);
    }
    let (mut found, mut from, mut first) = (Vec::new(), String::new(), None);
    loop {
        let page = ask(&alice, &root, &format!("?limit=3{from}")).await.expect(200);
        found.extend(named(&page));
        let Some(next) = page["next_batch"].as_str() else { break };
        first.get_or_insert(next.to_owned());
        from = format!("&from={next}");
    }
    assert_eq!(found, expected);
    let suggested = names(&alice, &root, "?suggested_only=true").await;
    assert_eq!(suggested, ["root", "room 0", "room 2", "room 4", "room 6"]);

    // A token may be used again, but for nothing else and by nobody else.
    let first = first.unwrap();
    assert_eq!(names(&alice, &root, &format!("?limit=3&from={first}")).await, expected[3..6]);
    for rest in ["&max_depth=1", "&suggested_only=true"] {
        let refused = ask(&alice, &root, &format!("?limit=3&from={first}{rest}")).await;
        refused.expect_error(400, "M_INVALID_PARAM");
    }
    ask(&bob, &root, &format!("?from={first}")).await.expect_error(400, "M_INVALID_PARAM");
    ask(&alice, &root, "?from=nonsense").await.expect_error(400, "M_INVALID_PARAM");
    ask(&alice, &root, "?limit=0").await.expect_error(400, "M_INVALID_PARAM");
}

/// SP-03
#[tokio::test]
async fn sp_03_loops_end() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let (one, two) = (space(&alice, "one").await, space(&alice, "two").await);
    add(&alice, &one, &two, json!({})).await;
    add(&alice, &two, &one, json!({})).await;
    add(&alice, &one, &one, json!({})).await;
    assert_eq!(names(&alice, &one, "").await, ["one", "two"]);
    // What can't be a room, and what this server doesn't know, is passed over.
    add(&alice, &one, "not a room", json!({})).await;
    add(&alice, &one, "!unknown:elsewhere.example", json!({})).await;
    assert_eq!(names(&alice, &one, "").await, ["one", "two"]);
}

/// I8: of a space that names very many rooms which nobody shows, no page takes long, and none of those that are there is lost.
#[tokio::test]
async fn sp_01_a_page_looks_at_so_many_rooms_and_the_next_one_goes_on() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let there = open_room(&alice, "there").await;
    let child = |room: String, order: String| {
        let content = json!({ "via": ["localhost"], "order": order });
        json!({ "type": "m.space.child", "state_key": room, "content": content })
    };
    let nowhere = (0..800).map(|number| child(format!("!nowhere{number}:localhost"), format!("{number:04}")));
    let children: Vec<Value> = nowhere.chain([child(there, "9999".to_owned())]).collect();
    let root = alice
        .create_room(json!({
            "name": "root", "creation_content": { "type": "m.space" }, "initial_state": children,
        }))
        .await;
    let first = ask(&alice, &root, "").await.expect(200);
    assert_eq!(named(&first), ["root"]);
    assert_eq!(first["rooms"][0]["children_state"].as_array().map(Vec::len), Some(801));
    let next = first["next_batch"].as_str().expect("there is more");
    let second = ask(&alice, &root, &format!("?from={next}")).await.expect(200);
    assert_eq!(named(&second), ["there"]);
    assert_eq!(second.get("next_batch"), None);
    // By its earlier name too.
    let path = format!("/unstable/org.matrix.msc2946/rooms/{root}/hierarchy");
    assert_eq!(named(&alice.get(&path).await.expect(200)), ["root"]);
}

/// SP-01, SP-04: however many children there are, the pages have each that may be seen, once and in its place.
#[tokio::test]
async fn sp_01_a_large_space_is_told_whole_to_each_as_far_as_they_may_see() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let root = space(&alice, "root").await;
    let restricted = json!({
        "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": root }],
    });
    let restricted = json!([{ "type": "m.room.join_rules", "state_key": "", "content": restricted }]);
    for number in 0..rounds(60, 5_000) {
        let name = format!("{number}");
        let room = match number % 3 {
            0 => open_room(&alice, &name).await,
            1 => alice.create_room(json!({ "name": name, "initial_state": restricted })).await,
            _ => alice.create_room(json!({ "name": name })).await,
        };
        add(&alice, &root, &room, json!({ "order": format!("{number:05}") })).await;
    }
    let all = async |user: &User| {
        let (mut found, mut from) = (Vec::new(), String::new());
        loop {
            let page = ask(user, &root, &format!("?limit=25{from}")).await.expect(200);
            assert!(named(&page).len() <= 25);
            found.extend(named(&page));
            let Some(next) = page["next_batch"].as_str() else { return found };
            from = format!("&from={next}");
        }
    };
    let expected = |seen: fn(usize) -> bool| {
        let children = (0..rounds(60, 5_000)).filter(|number| seen(*number)).map(|number| number.to_string());
        std::iter::once("root".to_owned()).chain(children).collect::<Vec<_>>()
    };
    assert_eq!(all(&alice).await, expected(|_| true));
    assert_eq!(all(&bob).await, expected(|number| number % 3 == 0));
    bob.join(&root).await;
    assert_eq!(all(&bob).await, expected(|number| number % 3 != 2));
}

/// SP-04, I10: only what the asker may join, read or is in; the rest looks as if it weren't there.
#[tokio::test]
async fn sp_04_rooms_are_shown_to_those_who_may_know_of_them() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let root = space(&alice, "root").await;
    let rule = |rule: Value| json!([{ "type": "m.room.join_rules", "state_key": "", "content": rule }]);
    let restricted = rule(json!({
        "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": root }],
    }));
    let readable = json!([{
        "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "world_readable" },
    }]);
    for (name, initial_state, invite) in [
        ("private", json!([]), false),
        ("invited", json!([]), true),
        ("knock", rule(json!({ "join_rule": "knock" })), false),
        ("restricted", restricted, false),
        ("readable", readable, false),
    ] {
        let body = json!({ "preset": "private_chat", "name": name, "initial_state": initial_state });
        let room = alice.create_room(body).await;
        add(&alice, &root, &room, json!({})).await;
        if invite {
            alice.invite(&room, &bob.user_id).await;
        }
    }
    assert_eq!(
        names(&alice, &root, "").await,
        ["root", "private", "invited", "knock", "restricted", "readable"]
    );
    assert_eq!(names(&bob, &root, "").await, ["root", "invited", "knock", "readable"]);
    bob.join(&root).await;
    assert_eq!(names(&bob, &root, "").await, ["root", "invited", "knock", "restricted", "readable"]);

    let secret = alice.create_room(json!({ "preset": "private_chat" })).await;
    let hidden = ask(&bob, &secret, "").await;
    let absent = ask(&bob, "!nowhere:localhost", "").await;
    assert_eq!((hidden.status, hidden.text()), (absent.status, absent.text()));
    hidden.expect_error(403, "M_FORBIDDEN");
}

/// RS-01: a summary by id or alias, with a token and without; rooms that may not be known of aren't there.
#[tokio::test]
async fn rs_01_a_room_is_summed_up_for_those_who_may_know_of_it() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let encryption = json!({
        "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" },
    });
    let room = alice
        .create_room(json!({
            "preset": "public_chat", "name": "Garden", "topic": "Growing", "room_alias_name": "garden",
            "room_version": "11", "initial_state": [encryption],
        }))
        .await;
    let expected = json!({
        "room_id": room, "name": "Garden", "topic": "Growing", "canonical_alias": "#garden:localhost",
        "num_joined_members": 1, "world_readable": false, "guest_can_join": false, "join_rule": "public",
        "encryption": "m.megolm.v1.aes-sha2", "room_version": "11",
        "im.nheko.summary.encryption": "m.megolm.v1.aes-sha2", "im.nheko.summary.room_version": "11",
    });
    for name in [room.as_str(), "%23garden:localhost"] {
        for path in [
            format!("/v1/room_summary/{name}"),
            format!("/unstable/im.nheko.summary/rooms/{name}/summary"),
            format!("/unstable/im.nheko.summary/summary/{name}"),
        ] {
            let anonymous = server.http().get(&path, None).await.expect(200);
            assert_eq!(anonymous, expected, "{path}");
            let mut of_bob = bob.get(&path).await.expect(200);
            assert_eq!(of_bob["membership"].take(), "leave");
        }
    }
    let summary = alice.get(&format!("/v1/room_summary/{room}")).await.expect(200);
    assert_eq!(summary["membership"], "join");

    let secret = alice.create_room(json!({ "preset": "private_chat" })).await;
    let absent = bob.get("/v1/room_summary/!nowhere:localhost").await;
    let hidden = bob.get(&format!("/v1/room_summary/{secret}")).await;
    assert_eq!((hidden.status, hidden.text()), (absent.status, absent.text()));
    absent.expect_error(404, "M_NOT_FOUND");
    alice.invite(&secret, &bob.user_id).await;
    let summary = bob.get(&format!("/v1/room_summary/{secret}")).await.expect(200);
    assert_eq!(summary["membership"], "invite");
    server.http().get(&format!("/v1/room_summary/{secret}"), None).await.expect_error(404, "M_NOT_FOUND");
    bob.get("/v1/room_summary/nonsense").await.expect_error(400, "M_INVALID_PARAM");
}
