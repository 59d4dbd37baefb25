//! `POST /createRoom`.

use serde_json::{Value, json};

use crate::{common, encoded, server, state, types};

const VERSIONS: [&str; 12] = ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12"];

#[tokio::test]
async fn rc_01_the_first_events_come_in_the_order_of_the_specification() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice
        .create_room(json!({
            "preset": "private_chat",
            "room_alias_name": "home",
            "name": "Home",
            "topic": "Sweet",
            "initial_state": [
                { "type": "m.room.encryption", "content": { "algorithm": "m.megolm.v1.aes-sha2" } },
                { "type": "org.example.own", "state_key": "key", "content": { "a": 1 } },
            ],
            "invite": ["@bob:localhost"],
        }))
        .await;
    assert_eq!(
        types(&alice, &room).await,
        [
            "m.room.create",
            "m.room.member",
            "m.room.power_levels",
            "m.room.canonical_alias",
            "m.room.join_rules",
            "m.room.history_visibility",
            "m.room.guest_access",
            "m.room.encryption",
            "org.example.own",
            "m.room.name",
            "m.room.topic",
            "m.room.member",
        ]
    );
    assert_eq!(
        state(&alice, &room, "m.room.canonical_alias", "").await,
        json!({ "alias": "#home:localhost" })
    );
    assert_eq!(state(&alice, &room, "org.example.own", "key").await, json!({ "a": 1 }));
    assert_eq!(state(&alice, &room, "m.room.member", "@bob:localhost").await["membership"], "invite");
}

#[tokio::test]
async fn rc_02_rc_04_presets_and_what_stands_in_for_them() {
    let server = server().await;
    let alice = server.register("alice").await;
    let closed = ("invite", "shared", "can_join");
    let open = ("public", "shared", "forbidden");
    for (body, (join_rule, visibility, guests)) in [
        (json!({}), closed),
        (json!({ "preset": "private_chat" }), closed),
        (json!({ "preset": "trusted_private_chat" }), closed),
        (json!({ "preset": "public_chat" }), open),
        (json!({ "visibility": "public" }), open),
        (json!({ "visibility": "private" }), closed),
        (json!({ "visibility": "public", "preset": "private_chat" }), closed),
    ] {
        let room = alice.create_room(body.clone()).await;
        assert_eq!(state(&alice, &room, "m.room.join_rules", "").await["join_rule"], join_rule, "{body}");
        let found = state(&alice, &room, "m.room.history_visibility", "").await;
        assert_eq!(found["history_visibility"], visibility, "{body}");
        assert_eq!(state(&alice, &room, "m.room.guest_access", "").await["guest_access"], guests, "{body}");
    }
    alice.post("/v3/createRoom", json!({ "preset": "cosy" })).await.expect_error(400, "M_INVALID_PARAM");
    alice.post("/v3/createRoom", json!({ "visibility": "dim" })).await.expect_error(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn rc_03_trusted_invitees_are_as_powerful_as_the_creator() {
    let server = server().await;
    let alice = server.register("alice").await;
    let body = |version: &str| json!({ "preset": "trusted_private_chat", "room_version": version, "invite": ["@bob:localhost"] });
    let room = alice.create_room(body("11")).await;
    let users = state(&alice, &room, "m.room.power_levels", "").await["users"].clone();
    assert_eq!(users, json!({ "@alice:localhost": 100, "@bob:localhost": 100 }));

    let room = alice.create_room(body("12")).await;
    let users = state(&alice, &room, "m.room.power_levels", "").await["users"].clone();
    assert_eq!(users, json!({}), "RV-32: creators have no level");
    let create = state(&alice, &room, "m.room.create", "").await;
    assert_eq!(create["additional_creators"], json!(["@bob:localhost"]));
}

#[tokio::test]
async fn rc_04_name_beats_initial_state_which_beats_the_preset() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice
        .create_room(json!({
            "preset": "private_chat",
            "name": "Right",
            "initial_state": [
                { "type": "m.room.name", "state_key": "", "content": { "name": "Wrong" } },
                { "type": "m.room.join_rules", "content": { "join_rule": "public" } },
            ],
        }))
        .await;
    assert_eq!(state(&alice, &room, "m.room.name", "").await["name"], "Right");
    assert_eq!(state(&alice, &room, "m.room.join_rules", "").await["join_rule"], "public");
    let once = |kind: &'static str| {
        let alice = &alice;
        let room = &room;
        async move { types(alice, room).await.iter().filter(|found| *found == kind).count() }
    };
    assert_eq!(once("m.room.name").await, 1);
    assert_eq!(once("m.room.join_rules").await, 1);
}

#[tokio::test]
async fn rc_05_the_server_says_who_made_the_room_and_of_which_version() {
    let server = server().await;
    let alice = server.register("alice").await;
    let content = json!({
        "creator": "@mallory:localhost", "room_version": "1", "type": "m.space", "org.example.own": [1, "a"],
    });
    for version in VERSIONS {
        let body = json!({ "room_version": version, "creation_content": content });
        let room = alice.create_room(body).await;
        let create = state(&alice, &room, "m.room.create", "").await;
        assert_eq!(create["room_version"], version);
        assert_eq!(create["type"], "m.space");
        assert_eq!(create["org.example.own"], json!([1, "a"]));
        let creator = if matches!(version, "11" | "12") { Value::Null } else { json!("@alice:localhost") };
        assert_eq!(create["creator"], creator, "RV-22: version {version}");
        alice.send_text(&room, "works").await;
    }
    let room = alice.create_room(json!({})).await;
    assert_eq!(state(&alice, &room, "m.room.create", "").await["room_version"], "12", "RV-02");
}

#[tokio::test]
async fn rc_06_a_topic_is_plain_text_in_both_forms() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "topic": "Tea & <b>" })).await;
    assert_eq!(
        state(&alice, &room, "m.room.topic", "").await,
        json!({
            "topic": "Tea & <b>",
            "m.topic": { "m.text": [{ "body": "Tea & <b>", "mimetype": "text/plain" }] },
        })
    );
}

#[tokio::test]
async fn rc_07_what_can_not_be_created_says_why_and_leaves_nothing() {
    let server = server().await;
    let alice = server.register("alice").await;
    alice.create_room(json!({ "room_alias_name": "taken" })).await;
    let long = "ä".repeat(130);
    let level = |level: Value| json!({ "power_level_content_override": level });
    for (body, status, errcode) in [
        (json!({ "room_version": "13" }), 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (json!({ "room_version": "org.example.unheard-of" }), 400, "M_UNSUPPORTED_ROOM_VERSION"),
        (json!({ "room_version": 12 }), 400, "M_BAD_JSON"),
        (json!({ "room_alias_name": "taken" }), 400, "M_ROOM_IN_USE"),
        (json!({ "room_alias_name": "a:b" }), 400, "M_INVALID_PARAM"),
        (json!({ "room_alias_name": "a\0b" }), 400, "M_INVALID_PARAM"),
        (json!({ "room_alias_name": "" }), 400, "M_INVALID_PARAM"),
        (json!({ "room_alias_name": long }), 400, "M_INVALID_PARAM"),
        (level(json!({ "users": { "@alice:localhost": 100 } })), 400, "M_INVALID_ROOM_STATE"),
        (level(json!({ "ban": "50" })), 400, "M_BAD_JSON"),
        (level(json!({ "users": { "@bob:localhost": 1.5 } })), 400, "M_BAD_JSON"),
        (level(json!([])), 400, "M_BAD_JSON"),
        (json!({ "creation_content": { "additional_creators": ["nobody"] } }), 400, "M_INVALID_ROOM_STATE"),
        (json!({ "creation_content": 1 }), 400, "M_BAD_JSON"),
        (json!({ "initial_state": [{ "content": {} }] }), 400, "M_BAD_JSON"),
        (
            json!({ "initial_state": [{ "type": "m.room.create", "content": {} }] }),
            400,
            "M_INVALID_ROOM_STATE",
        ),
        (
            json!({ "initial_state": [{
                "type": "m.room.member", "state_key": "@bob:localhost", "content": { "membership": "join" },
            }] }),
            400,
            "M_INVALID_ROOM_STATE",
        ),
        (json!({ "initial_state": [{ "type": "a", "content": { "a": 0.5 } }] }), 400, "M_BAD_JSON"),
        (json!({ "invite": ["bob"] }), 400, "M_BAD_JSON"),
        (
            json!({ "invite_3pid": [{
                "id_server": "a", "id_access_token": "b", "medium": "email", "address": "c@d",
            }] }),
            400,
            "M_INVALID_PARAM",
        ),
    ] {
        let asked = body.to_string();
        let answer = alice.post("/v3/createRoom", body).await;
        assert_eq!((answer.status, answer.json["errcode"].as_str()), (status, Some(errcode)), "{asked}");
    }
    let joined = alice.get("/v3/joined_rooms").await.expect(200);
    assert_eq!(joined["joined_rooms"].as_array().map(Vec::len), Some(1), "only the first one was made");
    let free = format!("/v3/directory/room/{}", encoded("#free:localhost"));
    alice.get(&free).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn an_alias_taken_by_two_at_once_goes_to_one() {
    let server = server().await;
    let alice = server.register("alice").await;
    let create = || alice.post("/v3/createRoom", json!({ "room_alias_name": "wanted" }));
    let (one, two) = tokio::join!(create(), create());
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 400]);
    let joined = alice.get("/v3/joined_rooms").await.expect(200);
    assert_eq!(joined["joined_rooms"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn rv_33_power_levels_start_with_defaults_that_the_client_may_change() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice
        .create_room(json!({ "power_level_content_override": { "invite": 20, "org.example.own": 7 } }))
        .await;
    let levels = state(&alice, &room, "m.room.power_levels", "").await;
    assert_eq!(levels["invite"], 20);
    assert_eq!(levels["org.example.own"], 7);
    assert_eq!(levels["kick"], 50);
    let tombstone = levels["events"]["m.room.tombstone"].as_i64().expect("a level");
    assert!(tombstone > levels["state_default"].as_i64().expect("a level"));
}

/// RV-33: the level that keeps others from upgrading a room stays, unless the client says that it shouldn't.
#[tokio::test]
async fn rv_33_only_creators_upgrade_whatever_else_is_overridden() {
    let server = server().await;
    let alice = server.register("alice").await;
    for (version, overriding, tombstone) in [
        ("12", json!({}), json!(150)),
        ("12", json!({ "events": { "m.room.name": 0 } }), json!(150)),
        ("12", json!({ "state_default": 200 }), json!(201)),
        ("12", json!({ "events": { "m.room.tombstone": 100 } }), json!(100)),
        ("11", json!({ "events": { "m.room.name": 0 } }), Value::Null),
        ("11", json!({}), json!(100)),
    ] {
        let body = json!({ "room_version": version, "power_level_content_override": overriding });
        let room = alice.create_room(body).await;
        let levels = state(&alice, &room, "m.room.power_levels", "").await;
        assert_eq!(levels["events"]["m.room.tombstone"], tombstone, "version {version}: {overriding}");
        for (key, value) in overriding["events"].as_object().into_iter().flatten() {
            assert_eq!(levels["events"][key], *value, "version {version}");
        }
    }
}

/// AL-03: `initial_state` can't give a room a name that doesn't lead to it.
#[tokio::test]
async fn al_03_a_new_room_calls_itself_only_what_leads_to_it() {
    let server = server().await;
    let alice = server.register("alice").await;
    alice.create_room(json!({ "room_alias_name": "other" })).await;
    let body = |own: &str, content: Value| {
        json!({
            "room_alias_name": own,
            "initial_state": [{ "type": "m.room.canonical_alias", "content": content }],
        })
    };
    for (content, errcode) in [
        (json!({ "alias": "#other:localhost" }), "M_BAD_ALIAS"),
        (json!({ "alias": "#nowhere:localhost" }), "M_BAD_ALIAS"),
        (json!({ "alt_aliases": ["#mine:localhost", "#other:localhost"] }), "M_BAD_ALIAS"),
        (json!({ "alias": "mine" }), "M_INVALID_PARAM"),
        (json!({ "alias": 1 }), "M_INVALID_PARAM"),
    ] {
        alice.post("/v3/createRoom", body("mine", content)).await.expect_error(400, errcode);
    }
    let room = alice.create_room(body("mine", json!({ "alt_aliases": ["#mine:localhost"] }))).await;
    let named = state(&alice, &room, "m.room.canonical_alias", "").await;
    assert_eq!(named, json!({ "alt_aliases": ["#mine:localhost"] }));
}

#[tokio::test]
async fn mb_13_everybody_is_invited_once_and_told_that_it_is_direct() {
    let server = server().await;
    let alice = server.register("alice").await;
    let invite = ["@bob:localhost", "@alice:localhost", "@bob:localhost"];
    let room = alice.create_room(json!({ "is_direct": true, "invite": invite })).await;
    let log = common::history::whole_log(&alice, &room).await;
    let invites: Vec<&Value> =
        log.iter().filter(|event| event["content"]["membership"] == "invite").collect();
    assert_eq!(invites.len(), 1);
    assert_eq!(invites[0]["state_key"], "@bob:localhost");
    assert_eq!(invites[0]["content"]["is_direct"], true);
    assert_eq!(state(&alice, &room, "m.room.member", "@alice:localhost").await["membership"], "join");
}
