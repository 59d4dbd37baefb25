//! Aliases and the public directory.

use serde_json::{Value, json};

use crate::{
    common::{Answer, User},
    encoded, server, state,
};

fn alias_path(alias: &str) -> String {
    format!("/v3/directory/room/{}", encoded(alias))
}

async fn point(user: &User, alias: &str, room: &str) -> Answer {
    user.put(&alias_path(alias), json!({ "room_id": room })).await
}

#[tokio::test]
async fn al_02_aliases_lead_to_rooms_of_their_makers() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    point(&alice, "#tea time/ü:localhost", &room).await.expect(200);

    let found = server.http().get(&alias_path("#tea time/ü:localhost"), None).await.expect(200);
    assert_eq!(found, json!({ "room_id": room, "servers": ["localhost"] }));
    let joined =
        bob.post(&format!("/v3/join/{}", encoded("#tea time/ü:localhost")), json!({})).await.expect(200);
    assert_eq!(joined["room_id"], room);
    let listed = bob.get(&format!("/v3/rooms/{room}/aliases")).await.expect(200);
    assert_eq!(listed, json!({ "aliases": ["#tea time/ü:localhost"] }));

    point(&bob, "#tea time/ü:localhost", &room).await.expect_error(409, "M_UNKNOWN");
    point(&bob, "#tea:example.org", &room).await.expect_error(400, "M_INVALID_PARAM");
    point(&bob, "tea", &room).await.expect_error(400, "M_INVALID_PARAM");
    let long = format!("#{}:localhost", "x".repeat(245));
    assert!(long.len() == 256 && point(&bob, &long, &room).await.status == 400, "EV-02");
    let unknown = server.http().get(&alias_path("#other:localhost"), None).await;
    unknown.expect_error(404, "M_NOT_FOUND");
    let elsewhere = server.http().get(&alias_path("#other:nowhere.invalid"), None).await;
    elsewhere.expect_error(502, "M_UNKNOWN");
}

#[tokio::test]
async fn an_alias_is_removed_by_its_maker_or_by_who_may_name_the_room() {
    let server = server().await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    for user in [&bob, &carol] {
        user.join(&room).await;
    }
    point(&bob, "#one:localhost", &room).await.expect(200);
    point(&bob, "#two:localhost", &room).await.expect(200);
    let aliases = json!({ "alias": "#one:localhost", "alt_aliases": ["#two:localhost"] });
    alice.send_state(&room, "m.room.canonical_alias", "", aliases).await;

    carol.delete(&alias_path("#one:localhost"), None).await.expect_error(403, "M_FORBIDDEN");
    bob.delete(&alias_path("#two:localhost"), None).await.expect(200);
    alice.delete(&alias_path("#one:localhost"), None).await.expect(200);
    alice.delete(&alias_path("#one:localhost"), None).await.expect_error(404, "M_NOT_FOUND");
    let named = state(&alice, &room, "m.room.canonical_alias", "").await;
    assert_eq!(named.get("alias"), None, "AL-04: {named}");
    // Bob may not name the room: what he takes away stays named until somebody does who may.
    assert_eq!(named["alt_aliases"], json!(["#two:localhost"]));
    point(&bob, "#two:localhost", &room).await.expect(200);
    alice.delete(&alias_path("#two:localhost"), None).await.expect(200);
    let named = state(&alice, &room, "m.room.canonical_alias", "").await;
    assert_eq!(named, json!({ "alt_aliases": [] }), "AL-04");
    // A free name can be taken again.
    point(&carol, "#one:localhost", &room).await.expect(200);
}

#[tokio::test]
async fn al_03_a_room_calls_itself_only_what_leads_to_it() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let other = alice.create_room(json!({ "room_alias_name": "other" })).await;
    assert_ne!(room, other);
    point(&alice, "#mine:localhost", &room).await.expect(200);
    let path = format!("/v3/rooms/{room}/state/m.room.canonical_alias");
    for (content, errcode) in [
        (json!({ "alias": "#other:localhost" }), "M_BAD_ALIAS"),
        (json!({ "alias": "#nowhere:localhost" }), "M_BAD_ALIAS"),
        (json!({ "alias": "#mine:example.org" }), "M_BAD_ALIAS"),
        (json!({ "alt_aliases": ["#mine:localhost", "#other:localhost"] }), "M_BAD_ALIAS"),
        (json!({ "alias": "mine" }), "M_INVALID_PARAM"),
        (json!({ "alias": 1 }), "M_INVALID_PARAM"),
        (json!({ "alt_aliases": ["%%"] }), "M_INVALID_PARAM"),
        (json!({ "alt_aliases": "#mine:localhost" }), "M_INVALID_PARAM"),
    ] {
        alice.put(&path, content).await.expect_error(400, errcode);
    }
    alice
        .put(&path, json!({ "alias": "#mine:localhost", "alt_aliases": ["#mine:localhost"] }))
        .await
        .expect(200);
    // What is there already may stay though it leads nowhere any more: only what is new is looked at.
    alice.delete(&alias_path("#mine:localhost"), None).await.expect(200);
    alice.put(&path, json!({ "alias": "" })).await.expect(200);
    alice.put(&path, json!({})).await.expect(200);
}

#[tokio::test]
async fn the_aliases_of_a_room_are_for_those_who_may_read_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "room_alias_name": "home" })).await;
    bob.get(&format!("/v3/rooms/{room}/aliases")).await.expect_error(403, "M_FORBIDDEN");
    let open = json!({ "history_visibility": "world_readable" });
    alice.send_state(&room, "m.room.history_visibility", "", open).await;
    let listed = bob.get(&format!("/v3/rooms/{room}/aliases")).await.expect(200);
    assert_eq!(listed, json!({ "aliases": ["#home:localhost"] }));
}

/// Pages through the directory; the rooms of each page.
async fn pages(user: &User, filter: &Value, limit: u64, batch: &str) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut body = json!({ "limit": limit, "filter": filter });
    loop {
        let page = user.post("/v3/publicRooms", body.clone()).await.expect(200);
        let chunk = page["chunk"].as_array().expect("a chunk");
        pages.push(chunk.iter().map(|room| room["name"].as_str().unwrap_or("").to_owned()).collect());
        match page.get(batch) {
            Some(token) => body["since"] = token.clone(),
            None => return pages,
        }
        assert!(pages.len() < 20, "pages without end");
    }
}

#[tokio::test]
async fn pd_20_the_directory_has_a_stable_order_and_pages_both_ways() {
    let server = server().await;
    let alice = server.register("alice").await;
    for name in ["a", "b", "c", "d", "e"] {
        alice.create_room(json!({ "visibility": "public", "name": name })).await;
    }
    alice.create_room(json!({ "name": "private" })).await;
    assert_eq!(pages(&alice, &json!({}), 2, "next_batch").await, [vec!["a", "b"], vec!["c", "d"], vec!["e"]]);
    assert_eq!(pages(&alice, &json!({}), 5, "next_batch").await, [vec!["a", "b", "c", "d", "e"]]);

    let get =
        async |query: &str| server.http().get(&format!("/v3/publicRooms?{query}"), None).await.expect(200);
    let first = get("limit=2").await;
    assert_eq!(first["total_room_count_estimate"], 5);
    assert_eq!(first.get("prev_batch"), None);
    let token = |page: &Value, name: &str| page[name].as_str().expect("a token").to_owned();
    let names = |page: &Value| {
        let rooms = page["chunk"].as_array().expect("a chunk").iter();
        rooms.map(|room| room["name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let second = get(&format!("limit=2&since={}", token(&first, "next_batch"))).await;
    let third = get(&format!("limit=2&since={}", token(&second, "next_batch"))).await;
    assert_eq!(names(&third), ["e"]);
    let back = get(&format!("limit=2&since={}", token(&third, "prev_batch"))).await;
    assert_eq!(names(&back), ["c", "d"]);
    let start = get(&format!("limit=2&since={}", token(&back, "prev_batch"))).await;
    assert_eq!(names(&start), ["a", "b"]);
    assert_eq!(start.get("prev_batch"), None);
    let again = get(&format!("limit=2&since={}", token(&start, "next_batch"))).await;
    assert_eq!(names(&again), ["c", "d"]);

    server.http().get("/v3/publicRooms?since=x", None).await.expect_error(400, "M_INVALID_PARAM");
    server.http().get("/v3/publicRooms?server=nowhere.invalid", None).await.expect_error(502, "M_UNKNOWN");
    assert_eq!(names(&get("server=localhost").await).len(), 5);
}

#[tokio::test]
async fn pd_20_filters_by_words_and_types() {
    let server = server().await;
    let alice = server.register("alice").await;
    for (name, body) in [
        ("Tea", json!({ "topic": "Green and BLACK" })),
        ("Coffee", json!({ "room_alias_name": "blackboard" })),
        ("Space", json!({ "creation_content": { "type": "m.space" } })),
        ("Odd", json!({ "creation_content": { "type": "org.example.odd" } })),
    ] {
        let mut body = body;
        body["visibility"] = json!("public");
        body["name"] = json!(name);
        alice.create_room(body).await;
    }
    for (filter, names) in [
        (json!({ "generic_search_term": "black" }), vec!["Tea", "Coffee"]),
        (json!({ "generic_search_term": "TEA" }), vec!["Tea"]),
        (json!({ "generic_search_term": "cocoa" }), vec![]),
        (json!({ "generic_search_term": "" }), vec!["Tea", "Coffee", "Space", "Odd"]),
        (json!({ "room_types": [null] }), vec!["Tea", "Coffee"]),
        (json!({ "room_types": ["m.space"] }), vec!["Space"]),
        (json!({ "room_types": [null, "org.example.odd"] }), vec!["Tea", "Coffee", "Odd"]),
        (json!({ "room_types": ["m.space"], "generic_search_term": "tea" }), vec![]),
    ] {
        let found = pages(&alice, &filter, 1, "next_batch").await.concat();
        assert_eq!(found, names, "{filter}");
    }
}

#[tokio::test]
async fn pd_20_the_rooms_of_a_network_are_its_own() {
    let server = server().await;
    let alice = server.register("alice").await;
    alice.create_room(json!({ "visibility": "public", "name": "Tea" })).await;
    let ask = async |body: Value| {
        let page = alice.post("/v3/publicRooms", body).await.expect(200);
        (page["chunk"].as_array().map(Vec::len), page["total_room_count_estimate"].clone())
    };
    assert_eq!(ask(json!({ "include_all_networks": true })).await, (Some(1), json!(1)));
    assert_eq!(ask(json!({ "third_party_instance_id": "irc-freenode" })).await, (Some(0), json!(0)));
    let both = json!({ "include_all_networks": true, "third_party_instance_id": "irc-freenode" });
    alice.post("/v3/publicRooms", both).await.expect_error(400, "M_BAD_JSON");
    server.http().post("/v3/publicRooms", None, json!({})).await.expect_error(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn a_room_of_the_directory_is_described() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .create_room(json!({
            "visibility": "public",
            "preset": "public_chat",
            "name": "Tea",
            "topic": "Green",
            "room_alias_name": "tea",
            "creation_content": { "type": "m.space" },
            "initial_state": [
                { "type": "m.room.avatar", "content": { "url": "mxc://localhost/leaf" } },
                { "type": "m.room.join_rules", "content": { "join_rule": "knock" } },
                { "type": "m.room.guest_access", "content": { "guest_access": "can_join" } },
                { "type": "m.room.history_visibility", "content": { "history_visibility": "world_readable" } },
            ],
        }))
        .await;
    alice.invite(&room, &bob.user_id).await;
    bob.join(&room).await;
    let page = server.http().get("/v3/publicRooms", None).await.expect(200);
    assert_eq!(
        page["chunk"],
        json!([{
            "room_id": room,
            "name": "Tea",
            "topic": "Green",
            "canonical_alias": "#tea:localhost",
            "avatar_url": "mxc://localhost/leaf",
            "num_joined_members": 2,
            "world_readable": true,
            "guest_can_join": true,
            "join_rule": "knock",
            "room_type": "m.space",
        }])
    );
}

#[tokio::test]
async fn who_may_name_a_room_may_publish_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let path = format!("/v3/directory/list/room/{room}");
    bob.put(&path, json!({ "visibility": "public" })).await.expect_error(403, "M_FORBIDDEN");
    bob.join(&room).await;
    bob.put(&path, json!({ "visibility": "public" })).await.expect_error(403, "M_FORBIDDEN");
    assert_eq!(alice.get(&path).await.expect(200)["visibility"], "private");
    server.http().get(&path, None).await.expect_error(404, "M_NOT_FOUND");

    alice.put(&path, json!({ "visibility": "public" })).await.expect(200);
    assert_eq!(server.http().get(&path, None).await.expect(200)["visibility"], "public");
    let listed = server.http().get("/v3/publicRooms", None).await.expect(200);
    assert_eq!(listed["chunk"][0]["room_id"], room);

    alice.put(&path, json!({ "visibility": "dim" })).await.expect_error(400, "M_INVALID_PARAM");
    alice.put(&path, json!({ "visibility": "private" })).await.expect(200);
    let listed = server.http().get("/v3/publicRooms", None).await.expect(200);
    assert_eq!(listed["chunk"], json!([]));
}
