//! What each room version lets people do: one life of a room, lived in all of them.

use serde_json::{Value, json};

use crate::{
    common::{Answer, Server, User, transaction_id},
    encoded, server, state,
};

/// A version, and what it has that others lack.
struct Version {
    name: &'static str,
    /// RV-04
    ids: Ids,
    knocking: bool,
    restricted: bool,
    knock_restricted: bool,
    /// RV-22: `content.creator` says who made the room.
    names_creator: bool,
    /// RV-26, RV-27, RV-31, RV-33
    creators_rule: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Ids {
    Domain,
    Hash,
    UrlSafeHash,
}

fn versions() -> Vec<Version> {
    let stable = [(1, "1"), (2, "2"), (3, "3"), (4, "4"), (5, "5"), (6, "6")].into_iter().chain([
        (7, "7"),
        (8, "8"),
        (9, "9"),
        (10, "10"),
        (11, "11"),
        (12, "12"),
    ]);
    let unstable = [(10, "org.matrix.msc3757.10"), (11, "org.matrix.msc3757.11")];
    let versions = stable.chain(unstable).map(|(number, name)| Version {
        name,
        ids: match number {
            1 | 2 => Ids::Domain,
            3 => Ids::Hash,
            _ => Ids::UrlSafeHash,
        },
        knocking: number >= 7,
        restricted: number >= 8,
        knock_restricted: number >= 10,
        names_creator: number < 11,
        creators_rule: number >= 12,
    });
    versions.collect()
}

async fn act(user: &User, room: &str, action: &str, on: &User) -> Answer {
    user.post(&format!("/v3/rooms/{room}/{action}"), json!({ "user_id": on.user_id })).await
}

async fn enter(user: &User, room: &str, way: &str) -> Answer {
    user.post(&format!("/v3/{way}/{room}"), json!({})).await
}

async fn send(user: &User, room: &str) -> Answer {
    let path = format!("/v3/rooms/{room}/send/m.room.message/{}", transaction_id());
    user.put(&path, json!({ "msgtype": "m.text", "body": "hi" })).await
}

fn succeeds_if(yes: bool, answer: &Answer, what: &str) {
    if yes {
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    } else {
        assert_eq!((answer.status, &answer.json["errcode"]), (403, &json!("M_FORBIDDEN")), "{what}");
    }
}

async fn three(server: &Server) -> (User, User, User) {
    (server.register("alice").await, server.register("bob").await, server.register("carol").await)
}

/// RV-01: people come, speak, are silenced, thrown out and let in again in a room of any version.
#[tokio::test]
async fn rv_01_rooms_of_every_version_can_be_lived_in() {
    let server = server().await;
    let (alice, bob, carol) = three(&server).await;
    for Version { name, .. } in versions() {
        let room = alice.create_room(json!({ "preset": "public_chat", "room_version": name })).await;
        let room = encoded(&room);
        for user in [&bob, &carol] {
            user.join(&room).await;
        }
        let spoken = bob.send_text(&room, "regretted").await;
        // Alice may redact what others say, Carol may not.
        let redact = |user: &User| {
            let path = format!("/v3/rooms/{room}/redact/{}/{}", encoded(&spoken), transaction_id());
            let user = user.clone();
            async move { user.put(&path, json!({})).await }
        };
        redact(&carol).await.expect_error(403, "M_FORBIDDEN");
        redact(&alice).await.expect(200);
        let event = carol.get(&format!("/v3/rooms/{room}/event/{}", encoded(&spoken))).await.expect(200);
        assert_eq!(event["content"], json!({}), "version {name}");

        act(&carol, &room, "kick", &bob).await.expect_error(403, "M_FORBIDDEN");
        act(&alice, &room, "kick", &bob).await.expect(200);
        send(&bob, &room).await.expect_error(403, "M_FORBIDDEN");
        bob.join(&room).await;
        act(&alice, &room, "ban", &bob).await.expect(200);
        enter(&bob, &room, "join").await.expect_error(403, "M_FORBIDDEN");
        act(&alice, &room, "unban", &bob).await.expect(200);
        bob.join(&room).await;

        // Whom Alice makes as powerful as she can be: as much as herself, but in rooms that creators rule.
        let mut levels = state(&alice, &room, "m.room.power_levels", "").await;
        levels["users"][&bob.user_id] = json!(100);
        alice.send_state(&room, "m.room.power_levels", "", levels.clone()).await;
        bob.send_state(&room, "m.room.name", "", json!({ "name": "Bob's" })).await;
        act(&bob, &room, "kick", &alice).await.expect_error(403, "M_FORBIDDEN");
        act(&bob, &room, "kick", &carol).await.expect(200);
        // RV-21: whatever the version would read, nobody here writes levels as texts.
        levels["ban"] = json!("50");
        let path = format!("/v3/rooms/{room}/state/m.room.power_levels");
        alice.put(&path, levels).await.expect_error(400, "M_BAD_JSON");
    }
}

/// RV-04, RV-22, RV-26, RV-27, RV-28, RV-33: how a room begins, as other servers would have it.
#[tokio::test]
async fn rv_26_rooms_begin_as_their_version_says() {
    let server = server().await;
    let alice = server.register("alice").await;
    for version in versions() {
        let name = version.name;
        let room = alice.create_room(json!({ "room_version": name })).await;
        let filter = json!({ "event_format": "federation", "room": { "timeline": { "limit": 100 } } });
        let answer = alice.sync_with(None, 0, &format!("&filter={}", encoded(&filter.to_string()))).await;
        let events = answer["rooms"]["join"][&room]["timeline"]["events"].as_array().expect("events").clone();
        let of = |kind: &str| events.iter().find(|event| event["type"] == kind).expect("such an event");
        let (create, levels) = (of("m.room.create"), of("m.room.power_levels"));

        // The id of the create event, as others name it.
        let log = crate::common::history::whole_log(&alice, &encoded(&room)).await;
        let id = log[0]["event_id"].as_str().expect("an id");
        let localpart = id.strip_prefix('$').expect("a sigil");
        let hash = |more: &str| {
            localpart.len() == 43
                && localpart.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(char::from(b)))
        };
        match version.ids {
            Ids::Domain => assert!(localpart.ends_with(":localhost"), "version {name}: {id}"),
            Ids::Hash => assert!(hash("+/"), "version {name}: {id}"),
            Ids::UrlSafeHash => assert!(hash("-_"), "version {name}: {id}"),
        }
        if version.creators_rule {
            assert_eq!(room, format!("!{localpart}"), "version {name}");
        } else {
            assert!(room.ends_with(":localhost"), "version {name}: {room}");
        }
        assert_eq!(create.get("room_id").is_none(), version.creators_rule, "version {name}: {create}");
        assert_eq!(levels["room_id"], room.as_str(), "version {name}");
        let creator = version.names_creator.then(|| json!("@alice:localhost"));
        assert_eq!(create["content"].get("creator"), creator.as_ref(), "version {name}");
        assert_eq!(create["content"]["room_version"], name);
        // Versions 1 and 2 name events together with their hashes.
        let named = |list: &Value| -> Vec<Value> {
            let ids = list.as_array().expect("a list").iter();
            ids.map(|id| if version.ids == Ids::Domain { id[0].clone() } else { id.clone() }).collect()
        };
        let auth = named(&levels["auth_events"]);
        assert_eq!(auth.contains(&json!(id)), !version.creators_rule, "version {name}: {auth:?}");
        let users = if version.creators_rule { json!({}) } else { json!({ "@alice:localhost": 100 }) };
        assert_eq!(levels["content"]["users"], users, "version {name}");
        let tombstone = levels["content"]["events"]["m.room.tombstone"].as_i64().expect("a level");
        assert_eq!(tombstone > 100, version.creators_rule, "version {name}: {tombstone}");
    }
}

/// RV-15, RV-16, RV-18: the ways in that are neither open to all nor by invitation.
#[tokio::test]
async fn rv_16_each_version_knows_its_ways_in() {
    let server = server().await;
    let (alice, bob, carol) = three(&server).await;
    let space = alice.create_room(json!({ "preset": "public_chat" })).await;
    carol.join(&space).await;
    let allow = json!([{ "type": "m.room_membership", "room_id": space }]);
    for version in versions() {
        let name = version.name;
        let restricted = version.restricted;
        let both = version.knock_restricted;
        for (rule, known, knock, join) in [
            ("knock", version.knocking, version.knocking, false),
            ("restricted", restricted, false, restricted),
            ("knock_restricted", both, both, both),
        ] {
            let what = format!("version {name}, {rule}");
            let rules = json!([{
                "type": "m.room.join_rules", "content": { "join_rule": rule, "allow": allow },
            }]);
            let body = json!({ "room_version": name, "initial_state": rules });
            let room = encoded(&alice.create_room(body).await);
            // Bob is a stranger; Carol is in the space.
            enter(&bob, &room, "join").await.expect_error(403, "M_FORBIDDEN");
            succeeds_if(knock, &enter(&bob, &room, "knock").await, &what);
            succeeds_if(join, &enter(&carol, &room, "join").await, &what);
            if join {
                let member = state(&alice, &room, "m.room.member", &carol.user_id).await;
                assert_eq!(member["join_authorised_via_users_server"], alice.user_id, "{what}");
            }
            if knock {
                enter(&bob, &room, "join").await.expect_error(403, "M_FORBIDDEN");
            }
            act(&alice, &room, "invite", &bob).await.expect(200);
            // A rule that the version doesn't know keeps out even those who are invited.
            succeeds_if(known, &enter(&bob, &room, "join").await, &what);
            succeeds_if(known, &send(&bob, &room).await, &what);
        }
    }
}

/// RV-30, RV-34: additional creators are a matter of version 12; before, they are words like any others.
#[tokio::test]
async fn rv_34_additional_creators_mean_nothing_before_version_12() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for version in versions() {
        for (creators, valid) in [
            (json!([bob.user_id]), true),
            (json!(["nobody"]), false),
            (json!("@bob:localhost"), false),
            (json!([1]), false),
        ] {
            for preset in ["public_chat", "trusted_private_chat"] {
                let body = json!({
                    "room_version": version.name, "preset": preset, "invite": ["@carol:localhost"],
                    "creation_content": { "additional_creators": creators },
                });
                let what = format!("version {}, {preset}, {creators}", version.name);
                let answer = alice.post("/v3/createRoom", body).await;
                if version.creators_rule && !valid {
                    answer.expect_error(400, "M_INVALID_ROOM_STATE");
                    continue;
                }
                assert_eq!(answer.status, 200, "{what}: {}", answer.text());
                let room = encoded(answer.json["room_id"].as_str().expect("an id"));
                let create = state(&alice, &room, "m.room.create", "").await;
                let mut expected = creators.clone();
                if version.creators_rule && preset == "trusted_private_chat" {
                    expected = json!([bob.user_id, "@carol:localhost"]);
                }
                assert_eq!(create["additional_creators"], expected, "{what}");
            }
        }
        // Only where they are creators do they have power.
        let body = json!({
            "room_version": version.name, "preset": "public_chat",
            "creation_content": { "additional_creators": [bob.user_id] },
        });
        let room = encoded(&alice.create_room(body).await);
        bob.join(&room).await;
        let path = format!("/v3/rooms/{room}/state/m.room.name");
        let named = bob.put(&path, json!({ "name": "Bob's" })).await;
        succeeds_if(version.creators_rule, &named, version.name);
    }
}
