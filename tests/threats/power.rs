//! Who may do what to whom.

use serde_json::{Value, json};

use crate::{
    common::{Answer, User},
    encoded, server,
};

async fn act(user: &User, room: &str, action: &str, on: &User) -> Answer {
    user.post(&format!("/v3/rooms/{room}/{action}"), json!({ "user_id": on.user_id })).await
}

async fn levels(user: &User, room: &str) -> Value {
    user.get(&format!("/v3/rooms/{room}/state/m.room.power_levels")).await.expect(200)
}

async fn set_levels(user: &User, room: &str, levels: &Value) -> Answer {
    user.put(&format!("/v3/rooms/{room}/state/m.room.power_levels"), levels.clone()).await
}

/// AR-12, AR-13, AR-19: more power than the other, and enough for the deed.
#[tokio::test]
async fn ar_12_kicks_and_bans_need_more_power_than_their_target_has() {
    let server = server().await;
    let owner = server.register("owner").await;
    let (one, two) = (server.register("moderator1").await, server.register("moderator2").await);
    let (guest, other) = (server.register("guest").await, server.register("other").await);
    for version in ["10", "12"] {
        let create = json!({ "preset": "public_chat", "room_version": version });
        let room = encoded(&owner.create_room(create).await);
        for user in [&one, &two, &guest, &other] {
            user.join(&room).await;
        }
        let mut content = levels(&owner, &room).await;
        content["users"][&one.user_id] = json!(50);
        content["users"][&two.user_id] = json!(50);
        set_levels(&owner, &room, &content).await.expect(200);

        for action in ["kick", "ban"] {
            for target in [&two, &owner] {
                act(&one, &room, action, target).await.expect_error(403, "M_FORBIDDEN");
            }
            act(&guest, &room, action, &other).await.expect_error(403, "M_FORBIDDEN");
        }
        act(&one, &room, "ban", &other).await.expect(200);
        act(&guest, &room, "unban", &other).await.expect_error(403, "M_FORBIDDEN");
        act(&two, &room, "unban", &other).await.expect(200);
        act(&two, &room, "kick", &guest).await.expect(200);
        act(&owner, &room, "kick", &two).await.expect(200);

        // Nobody makes themselves more than they are, or others less who are as much.
        let mut open = levels(&owner, &room).await;
        open["events"]["m.room.power_levels"] = json!(50);
        set_levels(&owner, &room, &open).await.expect(200);
        for (user, level) in [(&one, 51), (&other, 51), (&two, 0)] {
            let mut changed = open.clone();
            changed["users"][&user.user_id] = json!(level);
            set_levels(&one, &room, &changed).await.expect_error(403, "M_FORBIDDEN");
        }
        assert_eq!(levels(&owner, &room).await, open, "version {version}");
    }
}

#[tokio::test]
async fn rv_31_rv_32_creators_of_version_12_have_no_level_to_take() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice
        .create_room(json!({
            "preset": "public_chat", "room_version": "12",
            "creation_content": { "additional_creators": [bob.user_id] },
        }))
        .await;
    bob.join(&room).await;
    let before = levels(&alice, &room).await;
    for creator in [&alice, &bob] {
        for level in [0, 100] {
            let mut content = before.clone();
            content["users"][&creator.user_id] = json!(level);
            set_levels(&alice, &room, &content).await.expect_error(400, "M_BAD_JSON");
        }
    }
    assert_eq!(levels(&alice, &room).await, before);
    act(&alice, &room, "kick", &bob).await.expect_error(403, "M_FORBIDDEN");
    act(&bob, &room, "ban", &alice).await.expect_error(403, "M_FORBIDDEN");
    let tombstone = json!({ "body": "moved", "replacement_room": "!new:localhost" });
    bob.send_state(&room, "m.room.tombstone", "", tombstone).await;
    for creators in [json!("@a:b"), json!([1]), json!(["nobody"])] {
        let create = json!({ "room_version": "12", "creation_content": { "additional_creators": creators } });
        let answer = alice.post("/v3/createRoom", create).await;
        assert_eq!(answer.status, 400, "RV-30: {creators}: {}", answer.text());
    }
}

#[tokio::test]
async fn rv_18_power_levels_of_nonsense_are_refused() {
    let server = server().await;
    let alice = server.register("alice").await;
    for version in ["1", "9", "10", "12"] {
        let room = encoded(&alice.create_room(json!({ "room_version": version })).await);
        let before = levels(&alice, &room).await;
        for bad in ["\"50\"", "5.5", "1e30", "null", "[50]", "{}", "9007199254740992", "true"] {
            for body in [
                format!(r#"{{"ban":{bad}}}"#),
                format!(r#"{{"users":{{"@b:localhost":{bad}}}}}"#),
                format!(r#"{{"events":{{"m.room.name":{bad}}}}}"#),
            ] {
                let path = format!("/v3/rooms/{room}/state/m.room.power_levels");
                let answer = crate::put_raw(&alice, &path, body.clone()).await;
                answer.expect_error(400, "M_BAD_JSON");
            }
        }
        let names = json!({ "users": { "nobody": 50 } });
        let answer = set_levels(&alice, &room, &names).await;
        assert!([400, 403].contains(&answer.status), "AR-20: {}", answer.text());
        assert_eq!(levels(&alice, &room).await, before, "version {version}");
    }
}
