//! Profiles: fields of any name, their limits, and who may look them up.

mod common;

use common::{Answer, Server, User};
use serde_json::{Value, json};
use toml::Table;

async fn set(user: &User, field: &str, value: Value) -> Answer {
    user.put(&format!("/v3/profile/{}/{field}", user.user_id), json!({ field: value })).await
}

async fn profile(reader: &User, owner: &User) -> Value {
    reader.get(&format!("/v3/profile/{}", owner.user_id)).await.expect(200)
}

#[tokio::test]
async fn pf_01_a_name_is_told_to_all_rooms() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut rooms = Vec::new();
    for _ in 0..3 {
        let room = alice.create_room(json!({ "preset": "public_chat" })).await;
        bob.join(&room).await;
        rooms.push(room);
    }
    set(&bob, "displayname", json!("Bob")).await.expect(200);
    set(&bob, "avatar_url", json!("mxc://localhost/bob")).await.expect(200);
    for room in &rooms {
        let path = format!("/v3/rooms/{room}/state/m.room.member/{}", bob.user_id);
        let member = alice.get(&path).await.expect(200);
        assert_eq!(
            (&member["displayname"], &member["avatar_url"]),
            (&json!("Bob"), &json!("mxc://localhost/bob"))
        );
    }
    // A field of one's own is nobody's membership.
    let before = alice.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
    set(&bob, "org.example.mood", json!("fine")).await.expect(200);
    let after = alice.sync(Some(&before), 0).await;
    assert_eq!(after["rooms"]["join"].get(&rooms[0]), None);
}

/// The power went when they were in the profile, and not in the rooms.
#[tokio::test]
async fn pf_01_a_name_cut_short_gets_into_the_rooms_when_it_is_set_again() {
    let mut server = Server::start(Table::new()).await;
    let bob = server.register("bob").await;
    let room = bob.create_room(json!({})).await;
    set(&bob, "displayname", json!("Robert")).await.expect(200);
    set(&bob, "avatar_url", json!("mxc://localhost/robert")).await.expect(200);
    let change = async |server: &mut Server, statement: &str| {
        server.kill().await;
        {
            let path = server.data_dir().join("hearth.db");
            let database = rusqlite::Connection::open(path).expect("a database");
            database.execute(statement, []).expect("the profile changes");
        }
        server.start_again().await;
    };
    let path = format!("/v3/rooms/{room}/state/m.room.member/{}", bob.user_id);

    let name = "UPDATE profile SET value = '\"Bob\"' WHERE field = 'displayname'";
    change(&mut server, name).await;
    set(&bob, "displayname", json!("Bob")).await.expect(200);
    assert_eq!(bob.get(&path).await.expect(200)["displayname"], "Bob");

    change(&mut server, "DELETE FROM profile WHERE field = 'avatar_url'").await;
    let picture = format!("/v3/profile/{}/avatar_url", bob.user_id);
    bob.delete(&picture, None).await.expect(200);
    assert_eq!(bob.get(&path).await.expect(200).get("avatar_url"), None);

    let before = bob.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
    set(&bob, "displayname", json!("Bob")).await.expect(200);
    let after = bob.sync(Some(&before), 0).await;
    assert_eq!(after["rooms"]["join"].get(&room), None, "what is everywhere already is no news");
}

#[tokio::test]
async fn pf_02_fields_have_names_values_and_limits() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let value = json!({ "any": ["thing", 1, null, true] });
    set(&alice, "org.example.mood", value.clone()).await.expect(200);
    set(&alice, "m.tz", json!("Europe/Berlin")).await.expect(200);
    let expected = json!({ "org.example.mood": value, "m.tz": "Europe/Berlin" });
    assert_eq!(profile(&alice, &alice).await, expected);
    let path = |field: &str| format!("/v3/profile/{}/{field}", alice.user_id);
    let one = alice.get(&path("m.tz")).await.expect(200);
    assert_eq!(one, json!({ "m.tz": "Europe/Berlin" }));
    // The prefix of the proposal.
    let old = format!("/unstable/uk.tcpip.msc4133/profile/{}/org.example.old", alice.user_id);
    alice.put(&old, json!({ "org.example.old": 1 })).await.expect(200);
    assert_eq!(alice.get(&old).await.expect(200), json!({ "org.example.old": 1 }));
    alice.delete(&old, None).await.expect(200);
    alice.get(&old).await.expect_error(404, "M_NOT_FOUND");

    for (field, body, status, errcode) in [
        ("org.example.a", json!({}), 400, "M_MISSING_PARAM"),
        ("org.example.a", json!({ "org.example.b": 1 }), 400, "M_MISSING_PARAM"),
        ("org.example.a", json!({ "org.example.a": 1, "org.example.b": 1 }), 400, "M_BAD_JSON"),
        ("m.tz", json!({ "m.tz": 5 }), 400, "M_INVALID_PARAM"),
        ("m.tz", json!({ "m.tz": "no zone at all" }), 400, "M_INVALID_PARAM"),
        ("nameless", json!({ "nameless": 1 }), 400, "M_INVALID_PARAM"),
    ] {
        alice.put(&path(field), body).await.expect_error(status, errcode);
    }
    let long = format!("org.{}", "x".repeat(252));
    set(&alice, &long, json!(1)).await.expect_error(400, "M_KEY_TOO_LARGE");
    set(&alice, &long[..255], json!(1)).await.expect(200);
    // Together they have 64 KiB.
    set(&alice, "org.example.big", json!("x".repeat(40_000))).await.expect(200);
    set(&alice, "org.example.more", json!("x".repeat(30_000))).await.expect_error(400, "M_PROFILE_TOO_LARGE");
    set(&alice, "org.example.big", json!("x".repeat(30_000))).await.expect(200);
    set(&alice, "org.example.more", json!("x".repeat(30_000))).await.expect(200);
}

#[tokio::test]
async fn pf_03_null_is_a_value_and_fields_can_be_deleted() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    set(&alice, "org.example.null", Value::Null).await.expect(200);
    assert_eq!(profile(&alice, &alice).await, json!({ "org.example.null": null }));
    let path = format!("/v3/profile/{}/org.example.null", alice.user_id);
    for _ in 0..2 {
        alice.delete(&path, None).await.expect(200);
    }
    alice.get(&path).await.expect_error(404, "M_NOT_FOUND");
    // Of a name it takes the name away.
    set(&alice, "displayname", json!("Alice")).await.expect(200);
    set(&alice, "displayname", Value::Null).await.expect(200);
    assert_eq!(profile(&alice, &alice).await, json!({}));
}

/// A user looks at everybody's profile: who is found.
async fn found(reader: Option<&User>, server: &Server, owners: &[&User]) -> Vec<u16> {
    let mut statuses = Vec::new();
    for owner in owners {
        for path in ["", "/displayname"] {
            let path = format!("/v3/profile/{}{path}", owner.user_id);
            let token = reader.map(|reader| reader.access_token.as_str());
            statuses.push(server.http().get(&path, token).await.status);
        }
    }
    statuses
}

#[tokio::test]
async fn pf_04_the_operator_says_who_looks_profiles_up() {
    for (look_up, stranger, visitor) in
        [("everybody", 200, 200), ("users", 200, 401), ("acquaintances", 404, 401)]
    {
        let config = Table::from_iter([(
            "profiles".to_owned(),
            Table::from_iter([("look_up".to_owned(), look_up.into())]).into(),
        )]);
        let server = Server::start(config).await;
        let (alice, bob, carol) =
            (server.register("alice").await, server.register("bob").await, server.register("carol").await);
        for user in [&alice, &bob, &carol] {
            set(user, "displayname", json!("somebody")).await.expect(200);
        }
        let room = alice.create_room(json!({ "preset": "private_chat" })).await;
        alice.invite(&room, &bob.user_id).await;
        bob.join(&room).await;

        assert_eq!(found(Some(&alice), &server, &[&alice, &bob]).await, [200; 4], "{look_up}");
        assert_eq!(found(Some(&alice), &server, &[&carol]).await, [stranger; 2], "{look_up}");
        assert_eq!(found(None, &server, &[&alice]).await, [visitor; 2], "{look_up}");
        // Whoever is in a room that anybody can join is known to all.
        carol.create_room(json!({ "preset": "public_chat" })).await;
        assert_eq!(found(Some(&alice), &server, &[&carol]).await, [200; 2], "{look_up}");
        let answer = alice.get("/v3/profile/@unknown:localhost").await;
        answer.expect_error(404, "M_NOT_FOUND");
    }
}

/// Nobody fills the database with what they took away: clients hear of the last of it.
#[tokio::test]
async fn fields_that_were_taken_away_are_remembered_up_to_a_point() {
    let server = Server::start(Table::new()).await;
    let bob = server.register("bob").await;
    for number in 0..110 {
        let field = format!("org.example.field{number}");
        set(&bob, &field, json!(number)).await.expect(200);
        bob.delete(&format!("/v3/profile/{}/{field}", bob.user_id), None).await.expect(200);
    }
    set(&bob, "org.example.kept", json!(1)).await.expect(200);
    assert_eq!(profile(&bob, &bob).await, json!({ "org.example.kept": 1 }));
    let database = rusqlite::Connection::open(server.data_dir().join("hearth.db")).expect("a database");
    let rows = "SELECT COUNT(*), SUM(value = '') FROM profile";
    let found = database.query_row(rows, [], |row| Ok((row.get(0)?, row.get(1)?)));
    assert_eq!(found, Ok((101, 100)), "rows, and those of fields taken away");
}
