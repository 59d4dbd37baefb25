//! Upgrades of rooms: what the new room takes over, what is left of the old one, and what its members find again.

mod common;

use common::{Server, User, eventually, rounds};
use futures_util::future::{join_all, select_all};
use serde_json::{Value, json};
use toml::Table;

async fn upgrade(user: &User, room: &str, body: Value) -> String {
    let answer = user.post(&format!("/v3/rooms/{room}/upgrade"), body).await.expect(200);
    answer["replacement_room"].as_str().expect("an upgrade names the new room").to_owned()
}

async fn state(user: &User, room: &str, kind: &str) -> Value {
    user.get(&format!("/v3/rooms/{room}/state/{kind}/")).await.expect(200)
}

/// UP-01, UP-04: from every version to every other; each new room works by its own rules.
#[tokio::test]
async fn up_01_every_version_leads_to_every_other() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let pairs = (1..=12).flat_map(|from| (1..=12).map(move |to| (from, to)));
    // Neighbours, and both ends with all.
    let few =
        |(from, to): &(i32, i32)| from + 1 == *to || from == to || [1, 12].contains(from) && to % 3 == 0;
    let pairs = pairs.filter(|pair| rounds(0, 1) == 1 || few(pair));
    let pairs = pairs.map(|(from, to)| (from.to_string(), to.to_string()));
    let unstable = [("10", "org.matrix.msc3757.10"), ("org.matrix.msc3757.11", "12")];
    let unstable = unstable.map(|(from, to)| (from.to_owned(), to.to_owned()));
    for (from, to) in pairs.chain(unstable) {
        let body = json!({
            "room_version": from, "preset": "public_chat", "name": "Old", "topic": "Matters",
            "initial_state": [
                { "type": "m.room.avatar", "state_key": "", "content": { "url": "mxc://localhost/a" } },
                { "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
                { "type": "m.room.server_acl", "state_key": "", "content": { "allow": ["*"], "deny": ["evil.example"] } },
                { "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": "joined" } },
                { "type": "org.example.own", "state_key": "", "content": { "kept": false } },
            ],
        });
        let old = alice.create_room(body).await;
        bob.join(&old).await;
        let new = upgrade(&alice, &old, json!({ "new_version": to })).await;

        let create = state(&alice, &new, "m.room.create").await;
        assert_eq!(create["room_version"], to.as_str(), "{from} to {to}");
        assert_eq!(create["predecessor"]["room_id"], old.as_str(), "{from} to {to}");
        assert!(create["predecessor"]["event_id"].is_string() || to == "12", "{from} to {to}: {create}");
        assert_eq!(create.get("type"), None);
        let tombstone = state(&alice, &old, "m.room.tombstone").await;
        assert_eq!(tombstone["replacement_room"], new.as_str(), "{from} to {to}");
        for kind in [
            "name",
            "topic",
            "avatar",
            "encryption",
            "server_acl",
            "history_visibility",
            "guest_access",
            "join_rules",
        ] {
            let kind = format!("m.room.{kind}");
            assert_eq!(
                state(&alice, &new, &kind).await,
                state(&alice, &old, &kind).await,
                "{from} to {to}: {kind}"
            );
        }
        let own = alice.get(&format!("/v3/rooms/{new}/state/org.example.own/")).await;
        own.expect_error(404, "M_NOT_FOUND");
        let members = alice.get(&format!("/v3/rooms/{new}/members")).await.expect(200);
        assert_eq!(members["chunk"].as_array().map(Vec::len), Some(1), "UP-02: {members}");

        // The upgrader rules the new room, and Bob doesn't speak in the old one any more.
        let levels = state(&alice, &new, "m.room.power_levels").await;
        let named = levels["users"].get(&alice.user_id);
        assert_eq!(named.is_none(), to == "12", "{from} to {to}: {levels}");
        alice.send_state(&new, "m.room.name", "", json!({ "name": "New" })).await;
        bob.join(&new).await;
        bob.send_text(&new, "still here").await;
        let path = format!("/v3/rooms/{old}/send/m.room.message/{}", common::transaction_id());
        let refused = bob.put(&path, json!({ "msgtype": "m.text", "body": "in the old one" })).await;
        refused.expect_error(403, "M_FORBIDDEN");
        let levels = json!({ "users": { &bob.user_id: 100 } });
        let mut wanted = state(&alice, &new, "m.room.power_levels").await;
        wanted["users"][&bob.user_id] = levels["users"][&bob.user_id].clone();
        alice.send_state(&new, "m.room.power_levels", "", wanted).await;
    }
}

/// UP-01: local aliases, the canonical one and the place in the directory go over.
#[tokio::test]
async fn up_01_names_move_to_the_new_room() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let body = json!({ "preset": "public_chat", "visibility": "public", "room_alias_name": "garden" });
    let old = alice.create_room(body).await;
    let alias = json!({ "room_id": old });
    alice.put("/v3/directory/room/%23second:localhost", alias).await.expect(200);
    let new = upgrade(&alice, &old, json!({ "new_version": "11" })).await;
    for alias in ["garden", "second"] {
        let answer = alice.get(&format!("/v3/directory/room/%23{alias}:localhost")).await.expect(200);
        assert_eq!(answer["room_id"], new.as_str());
    }
    assert_eq!(state(&alice, &new, "m.room.canonical_alias").await["alias"], "#garden:localhost");
    assert_eq!(state(&alice, &old, "m.room.canonical_alias").await, json!({}));
    let list = alice.get("/v3/publicRooms").await.expect(200);
    let rooms: Vec<_> =
        list["chunk"].as_array().unwrap().iter().map(|room| room["room_id"].clone()).collect();
    assert_eq!(rooms, [json!(new)]);
}

/// UP-01: a space stays a space, with its children; the banned stay out; rules that the version lacks get stricter.
#[tokio::test]
async fn up_01_spaces_bans_and_join_rules_go_over() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let child = alice.create_room(json!({})).await;
    let restricted = json!({
        "join_rule": "knock_restricted", "allow": [{ "type": "m.room_membership", "room_id": child }],
    });
    let body = json!({
        "room_version": "10", "preset": "public_chat", "creation_content": { "type": "m.space" },
        "initial_state": [
            { "type": "m.space.child", "state_key": child, "content": { "via": ["localhost"] } },
            { "type": "m.room.join_rules", "state_key": "", "content": restricted },
        ],
    });
    let old = alice.create_room(body).await;
    alice.post(&format!("/v3/rooms/{old}/ban"), json!({ "user_id": bob.user_id })).await.expect(200);
    for (version, rule) in [
        ("10", "knock_restricted"),
        ("12", "knock_restricted"),
        ("9", "restricted"),
        ("7", "knock"),
        ("6", "invite"),
    ] {
        let new = upgrade(&alice, &old, json!({ "new_version": version })).await;
        assert_eq!(state(&alice, &new, "m.room.create").await["type"], "m.space");
        let path = format!("/v3/rooms/{new}/state/m.space.child/{child}");
        assert_eq!(alice.get(&path).await.expect(200), json!({ "via": ["localhost"] }));
        let rules = state(&alice, &new, "m.room.join_rules").await;
        assert_eq!(rules["join_rule"], rule, "version {version}");
        assert_eq!(rules.get("allow").is_some(), rule.ends_with("restricted"), "version {version}");
        let refused = alice.post(&format!("/v3/rooms/{new}/invite"), json!({ "user_id": bob.user_id })).await;
        refused.expect_error(403, "M_FORBIDDEN");
    }
}

/// UP-02: additional creators are those of the request, and no others.
#[tokio::test]
async fn up_02_additional_creators_are_given_anew() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let body = json!({
        "room_version": "12", "creation_content": { "additional_creators": ["@old:localhost"] },
        "power_level_content_override": { "users": { "@admin:localhost": 100, "@new:localhost": 50 } },
    });
    let old = alice.create_room(body).await;
    let new = upgrade(&alice, &old, json!({ "new_version": "12" })).await;
    assert_eq!(state(&alice, &new, "m.room.create").await.get("additional_creators"), None);
    let creators = json!({ "new_version": "12", "additional_creators": ["@new:localhost"] });
    let new = upgrade(&alice, &old, creators.clone()).await;
    assert_eq!(state(&alice, &new, "m.room.create").await["additional_creators"], json!(["@new:localhost"]));
    // UP-04, RV-32: a creator isn't named among the levels.
    let levels = state(&alice, &new, "m.room.power_levels").await;
    assert_eq!(levels["users"], json!({ "@admin:localhost": 100 }));
    assert_eq!(levels["events"]["m.room.tombstone"], 150);
    // Where there are no such creators they mean nothing; those of the old room have as much as anybody.
    let mut creators = creators;
    creators["new_version"] = json!("11");
    let new = upgrade(&alice, &old, creators).await;
    assert_eq!(state(&alice, &new, "m.room.create").await.get("additional_creators"), None);
    let levels = state(&alice, &new, "m.room.power_levels").await;
    assert_eq!(levels["users"]["@old:localhost"], 150);
    assert_eq!(levels["users"][&alice.user_id], 150);
}

/// UP-03: tags, push rules and direct chats follow those who join, and nobody else.
#[tokio::test]
async fn up_03_what_members_have_set_follows_them() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let old = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&old).await;
    for user in [&alice, &bob] {
        let id = &user.user_id;
        let tag = format!("/v3/user/{id}/rooms/{old}/tags/m.favourite");
        user.put(&tag, json!({ "order": 0.5 })).await.expect(200);
        let mute = json!({ "actions": [] });
        user.put(&format!("/v3/pushrules/global/room/{old}"), mute).await.expect(200);
        let rule = json!({
            "conditions": [
                { "kind": "event_match", "key": "room_id", "pattern": old },
                { "kind": "event_match", "key": "content.body", "pattern": "cake" },
            ],
            "actions": ["notify"],
        });
        user.put("/v3/pushrules/global/override/cake", rule).await.expect(200);
        let direct = json!({ "@x:localhost": [old], "@y:localhost": ["!other:localhost"] });
        user.put(&format!("/v3/user/{id}/account_data/m.direct"), direct).await.expect(200);
    }
    let new = upgrade(&alice, &old, json!({ "new_version": "12" })).await;
    bob.join(&new).await;
    for user in [&alice, &bob] {
        let id = &user.user_id;
        let tags = user.get(&format!("/v3/user/{id}/rooms/{new}/tags")).await.expect(200);
        assert_eq!(tags["tags"], json!({ "m.favourite": { "order": 0.5 } }));
        let rule = user.get(&format!("/v3/pushrules/global/room/{new}")).await.expect(200);
        assert_eq!(rule["actions"], json!([]));
        let rules = user.get("/v3/pushrules/global/").await.expect(200);
        let conditions: Vec<_> =
            rules["override"].as_array().unwrap().iter().map(|rule| &rule["conditions"]).collect();
        let carried = json!([
            { "kind": "event_match", "key": "room_id", "pattern": new },
            { "kind": "event_match", "key": "content.body", "pattern": "cake" },
        ]);
        assert!(conditions.contains(&&carried), "{conditions:?}");
        let direct = user.get(&format!("/v3/user/{id}/account_data/m.direct")).await.expect(200);
        assert_eq!(direct["@x:localhost"], json!([old, new]));
        assert_eq!(direct["@y:localhost"], json!(["!other:localhost"]));
    }
    // That a room says it replaces another isn't enough.
    let body = json!({ "preset": "public_chat", "creation_content": { "predecessor": { "room_id": old } } });
    let pretender = server.register("mallory").await.create_room(body).await;
    bob.join(&pretender).await;
    let tags = bob.get(&format!("/v3/user/{}/rooms/{pretender}/tags", bob.user_id)).await.expect(200);
    assert_eq!(tags["tags"], json!({}));
}

/// UP-03: rules that are off are not set for the new room, the others keep their order, and what somebody changes there stays.
#[tokio::test]
async fn up_03_push_rules_follow_as_they_work_and_once() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let old = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&old).await;
    let put = async |path: &str, body: Value| {
        bob.put(&format!("/v3/pushrules/global/{path}"), body).await.expect(200);
    };
    for name in ["third", "second", "off", "first"] {
        let room = json!({ "kind": "event_match", "key": "room_id", "pattern": old });
        put(&format!("override/{name}"), json!({ "conditions": [room], "actions": [] })).await;
    }
    put("override/off/enabled", json!({ "enabled": false })).await;
    put(&format!("room/{old}"), json!({ "actions": [] })).await;
    put(&format!("room/{old}/enabled"), json!({ "enabled": false })).await;

    let new = upgrade(&alice, &old, json!({ "new_version": "12" })).await;
    bob.join(&new).await;
    let rules = async |kind: &str| {
        let rules = bob.get("/v3/pushrules/global/").await.expect(200);
        let of_new = |rule: &&Value| rule["rule_id"].as_str().is_some_and(|id| id.contains(&new));
        rules[kind].as_array().unwrap().iter().filter(of_new).cloned().collect::<Vec<_>>()
    };
    let names = rules("override").await;
    let names: Vec<_> = names.iter().map(|rule| rule["rule_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(names, ["first", "second", "third"].map(|name| format!("{name} {new}")));
    assert_eq!(rules("room").await, [] as [Value; 0]);

    let name = format!("first%20{new}");
    put(&format!("override/{name}/actions"), json!({ "actions": ["notify"] })).await;
    bob.post(&format!("/v3/rooms/{new}/leave"), json!({})).await.expect(200);
    bob.join(&new).await;
    let rules = rules("override").await;
    assert_eq!((rules.len(), &rules[0]["actions"]), (3, &json!(["notify"])), "{rules:?}");
}

/// UP-01: who may not end a room doesn't upgrade it, nobody to a version that isn't, and a refused upgrade changes nothing.
#[tokio::test]
async fn up_01_a_refused_upgrade_leaves_everything_as_it_was() {
    let server = Server::start(Table::new()).await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "here" })).await;
    bob.join(&room).await;
    let path = format!("/v3/rooms/{room}/upgrade");
    bob.post(&path, json!({ "new_version": "11" })).await.expect_error(403, "M_FORBIDDEN");
    carol.post(&path, json!({ "new_version": "11" })).await.expect_error(403, "M_FORBIDDEN");
    let unknown = alice.post(&path, json!({ "new_version": "thirteen" })).await;
    unknown.expect_error(400, "M_UNSUPPORTED_ROOM_VERSION");
    alice.post(&path, json!({})).await.expect_error(400, "M_BAD_JSON");
    let joined = alice.get("/v3/joined_rooms").await.expect(200);
    assert_eq!(joined["joined_rooms"], json!([room]));
    let alias = alice.get("/v3/directory/room/%23here:localhost").await.expect(200);
    assert_eq!(alias["room_id"], room.as_str());
    alice.get(&format!("/v3/rooms/{room}/state/m.room.tombstone/")).await.expect_error(404, "M_NOT_FOUND");
}

/// UP-01: the old room is closed, and settings follow, though the client is gone before the new one is there.
#[tokio::test]
async fn up_01_an_upgrade_is_finished_though_nobody_waits() {
    for _ in 0..10 {
        if an_upgrade_for_which_nobody_waits().await.is_some() {
            return;
        }
    }
    panic!("the server gives up waiting for the database, again and again");
}

/// Nothing if the server gave up waiting for the database, which it does after some seconds.
async fn an_upgrade_for_which_nobody_waits() -> Option<()> {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let old = alice.create_room(json!({ "preset": "public_chat" })).await;
    let tags = |room: &str| format!("/v3/user/{}/rooms/{room}/tags", alice.user_id);
    alice.put(&format!("{}/u.kept", tags(&old)), json!({})).await.expect(200);

    // Nobody else can write meanwhile.
    let database = rusqlite::Connection::open(server.data_dir().join("hearth.db")).expect("a database");
    database.busy_timeout(common::PATIENCE).expect("patience");
    database.execute_batch("BEGIN IMMEDIATE").expect("the database is ours");
    let path = format!("/v3/rooms/{old}/upgrade");
    {
        let upgrades = [(); 2].map(|()| Box::pin(alice.post(&path, json!({ "new_version": "11" }))));
        let (refused, _, _hangs_up) = select_all(upgrades).await;
        if refused.status >= 500 {
            return None;
        }
        // The other one is at it.
        refused.expect_error(403, "M_BAD_STATE");
    }
    eventually("the request is gone", || async {
        let metrics = server.http().get("/metrics", None).await.text();
        let in_flight = metrics.lines().find_map(|line| line.strip_prefix("hearth_http_requests_in_flight "));
        (in_flight == Some("1")).then_some(())
    })
    .await;
    database.execute_batch("ROLLBACK").expect("the database is free");

    let new = eventually("a tombstone", || async {
        let given_up = server.log().contains("nothing can be written");
        let tombstone = alice.get(&format!("/v3/rooms/{old}/state/m.room.tombstone/")).await;
        let new = tombstone.json["replacement_room"].as_str().map(str::to_owned);
        (new.is_some() || given_up).then_some(new)
    })
    .await?;
    eventually("the old room is closed", || async {
        let levels = state(&alice, &old, "m.room.power_levels").await;
        (levels["events_default"].as_i64() >= Some(50)).then_some(())
    })
    .await;
    eventually("the tag follows", || async {
        let tags = alice.get(&tags(&new)).await.expect(200);
        tags["tags"]["u.kept"].is_object().then_some(())
    })
    .await;
    Some(())
}

/// Of many upgrades at once each is whole or refused, and the aliases lead to the room that the tombstone names.
#[tokio::test]
async fn up_01_upgrades_at_once_dont_mix() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat", "room_alias_name": "here" })).await;
    let path = format!("/v3/rooms/{room}/upgrade");
    let answers = join_all((0..8).map(|_| alice.post(&path, json!({ "new_version": "11" })))).await;
    let done: Vec<Value> = answers
        .into_iter()
        .filter_map(|answer| {
            if answer.status == 200 {
                return Some(answer.expect(200)["replacement_room"].clone());
            }
            answer.expect_error(403, "M_BAD_STATE");
            None
        })
        .collect();
    let tombstone = state(&alice, &room, "m.room.tombstone").await;
    assert!(!done.is_empty());
    assert!(done.contains(&tombstone["replacement_room"]));
    let joined = alice.get("/v3/joined_rooms").await.expect(200);
    assert_eq!(joined["joined_rooms"].as_array().map(Vec::len), Some(done.len() + 1));
}
