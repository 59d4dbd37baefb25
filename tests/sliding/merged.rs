//! The form in which MSC4186 was merged: `POST /v4/sync`.

use super::*;

struct Merged {
    user: User,
    body: Value,
}

impl Merged {
    fn new(user: &User, required_state: &Value) -> Self {
        let list = json!({ "range": [0, 19], "timeline_limit": 5, "required_state": required_state });
        Self { user: user.clone(), body: json!({ "lists": { "all": list } }) }
    }

    async fn next(&mut self) -> Value {
        let answer = self.user.post(MERGED, self.body.clone()).await.expect(200);
        self.body["pos"] = answer["pos"].clone();
        answer
    }
}

#[tokio::test]
async fn a_room_says_its_lists_and_the_membership() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let mut sliding =
        Merged::new(&bob, &json!({ "include": [{ "type": "m.room.create", "state_key": "" }] }));
    sliding.body["lists"]["none"] = json!({
        "timeline_limit": 1, "required_state": {}, "filters": { "is_invited": true },
    });
    sliding.body["conn_id"] = json!("main");
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!((&shown["membership"], &shown["lists"]), (&json!("join"), &json!(["all"])));
    assert_eq!(keys(shown), ["m.room.create|"]);
    for absent in ["notification_count", "highlight_count", "invite_state"] {
        assert_eq!(shown.get(absent), None, "{absent}");
    }
    assert_eq!((count(&answer, "all"), count(&answer, "none")), (1, 0));

    let invited = alice.create_room(json!({ "invite": [bob.user_id] })).await;
    let answer = sliding.next().await;
    let shown = room(&answer, &invited);
    assert_eq!((&shown["membership"], &shown["lists"]), (&json!("invite"), &json!(["all", "none"])));
    assert!(shown["stripped_state"].is_array());
    assert_eq!(shown.get("invite_state"), None);
    bob.leave(&invited).await;
    let answer = sliding.next().await;
    let shown = room(&answer, &invited);
    assert_eq!(shown["membership"], "leave");
    assert_eq!(list(&shown["stripped_state"]).len(), 1);
    assert_eq!(shown.get("timeline"), None);

    alice.act_on("kick", &room_id, &bob).await;
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(shown["membership"], "leave");
    assert_eq!(list(&shown["timeline"]).len(), 1);
}

#[tokio::test]
async fn required_state_includes_and_excludes() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    for _ in 0..5 {
        alice.send_text(&room_id, "hello").await;
    }
    let mut sliding = Merged::new(
        &bob,
        &json!({ "include": [{}], "exclude": [{ "type": "m.room.create" }], "lazy_members": true }),
    );
    let answer = sliding.next().await;
    let shown = keys(room(&answer, &room_id));
    assert!(
        shown.contains(&"m.room.power_levels|".to_owned()) && !shown.contains(&"m.room.create|".to_owned())
    );
    let members: Vec<&String> = shown.iter().filter(|key| key.starts_with("m.room.member")).collect();
    assert_eq!(members, ["m.room.member|@alice:localhost"]);
    let by_key = json!({ "include": [{ "state_key": bob.user_id }] });
    let answer = Merged::new(&bob, &by_key).next().await;
    assert_eq!(keys(room(&answer, &room_id)), ["m.room.member|@bob:localhost"]);
}

#[tokio::test]
async fn a_list_without_a_range_is_seen_whole_and_a_longer_timeline_says_so() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for _ in 0..25 {
        made.push(alice.create_room(json!({})).await);
    }
    let mut sliding = Merged::new(&alice, &json!({}));
    sliding.body["lists"]["all"] = json!({ "timeline_limit": 1, "required_state": {} });
    assert_eq!(rooms(&sliding.next().await).len(), 25);
    alice.send_text(&made[3], "hello").await;
    assert_eq!(rooms(&sliding.next().await), [made[3].as_str()]);
    sliding.body["room_subscriptions"] = json!({ &made[3]: { "timeline_limit": 3, "required_state": {} } });
    let answer = sliding.next().await;
    let shown = room(&answer, &made[3]);
    assert_eq!(shown["expanded_timeline"], true);
    assert_eq!(list(&shown["timeline"]).len(), 3);
    assert_eq!(shown.get("unstable_expanded_timeline"), None);
}

#[tokio::test]
async fn a_pos_of_one_form_is_known_by_its_connection_in_the_other() {
    let server = server().await;
    let alice = server.register("alice").await;
    alice.create_room(json!({})).await;
    let mut sliding = Merged::new(&alice, &json!({}));
    let answer = sliding.next().await;
    let mut early = Sliding::of_all_rooms(&alice);
    early.pos = Some(pos(&answer).to_owned());
    early.ask(0).await.expect(200);
    sliding.body["pos"] = json!("s1_1_1_1_1");
    alice.post(MERGED, sliding.body).await.expect_error(400, "M_UNKNOWN_POS");
}

/// MSC4508
#[tokio::test]
async fn who_types_is_told_without_an_event_around_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    bob.typing(&room_id, true).await;
    let mut sliding = Merged::new(&alice, &json!({}));
    sliding.body["extensions"] = json!({ "typing": { "enabled": true } });
    let answer = sliding.next().await;
    assert_eq!(answer["extensions"]["typing"]["rooms"], json!({ &room_id: { "user_ids": [bob.user_id] } }));
    bob.typing(&room_id, false).await;
    let answer = sliding.next().await;
    assert_eq!(answer["extensions"]["typing"]["rooms"], json!({ &room_id: { "user_ids": [] } }));
}
