//! State that is its owner's: rooms of the unstable versions of MSC3757.

use super::{encoded, server};
use crate::common::User;
use serde_json::{Value, json};

async fn put(user: &User, room: &str, state_key: &str) -> crate::common::Answer {
    let path = format!("/v3/rooms/{room}/state/org.example.own/{}", encoded(state_key));
    user.put(&path, json!({ "by": user.user_id })).await
}

#[tokio::test]
async fn state_is_its_owners_and_of_those_with_more_power() {
    let server = server().await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    for version in ["org.matrix.msc3757.10", "org.matrix.msc3757.11"] {
        let room = alice
            .create_room(json!({
                "preset": "public_chat",
                "room_version": version,
                "power_level_content_override": { "events": { "org.example.own": 0 } },
            }))
            .await;
        bob.join(&room).await;
        carol.join(&room).await;
        let bobs = format!("{}_device", bob.user_id);
        put(&bob, &room, &bobs).await.expect(200);
        put(&carol, &room, &bobs).await.expect_error(403, "M_FORBIDDEN");
        let state = bob.get(&format!("/v3/rooms/{room}/state/org.example.own/{}", encoded(&bobs))).await;
        assert_eq!(state.expect(200)["by"], bob.user_id);
        put(&alice, &room, &bobs).await.expect(200);
        put(&bob, &room, &format!("{}_device", alice.user_id)).await.expect_error(403, "M_FORBIDDEN");
        for nobodys in ["@", "@bob", "@bob_device", "@bob:"] {
            put(&bob, &room, nobodys).await.expect_error(400, "M_BAD_JSON");
        }
        // They reach clients as any state does.
        let sync = bob.sync(None, 0).await;
        let state_keys: Vec<&Value> = sync["rooms"]["join"][&room]["timeline"]["events"]
            .as_array()
            .expect("events")
            .iter()
            .filter(|event| event["type"] == "org.example.own")
            .map(|event| &event["state_key"])
            .collect();
        assert_eq!(state_keys, [&bobs, &bobs]);
    }
}

#[tokio::test]
async fn state_is_owned_in_no_other_version() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat", "room_version": "11" })).await;
    bob.join(&room).await;
    for state_key in [bob.user_id.clone(), format!("{}_device", alice.user_id), "@".to_owned()] {
        put(&alice, &room, &state_key).await.expect_error(403, "M_FORBIDDEN");
    }
    put(&alice, &room, &alice.user_id).await.expect(200);
}
