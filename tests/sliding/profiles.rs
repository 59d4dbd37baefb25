//! Profiles of the people whom a user shares rooms with (MSC4262).

use std::collections::BTreeSet;

use super::*;

const NAME: &str = "org.matrix.msc4262.profiles";

/// One list of all rooms, all members of which are shown, with the profiles of these.
fn with_profiles(wish: &Value) -> Value {
    let mut body = all_rooms(json!({ "required_state": [["m.room.member", "*"]] }));
    body["extensions"] = json!({ NAME: wish });
    body
}

/// What an answer says of profiles, by user.
fn profiles(answer: &Value) -> Value {
    answer["extensions"].get(NAME).map_or_else(|| json!({}), |told| told["users"].clone())
}

impl User {
    async fn set_field(&self, field: &str, value: Value) {
        let path = format!("/v3/profile/{}/{field}", self.user_id);
        self.put(&path, json!({ field: value })).await.expect(200);
    }

    async fn delete_field(&self, field: &str) {
        self.delete(&format!("/v3/profile/{}/{field}", self.user_id), None).await.expect(200);
    }
}

#[tokio::test]
async fn profiles_come_with_a_room_and_then_as_they_change() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    bob.set_field("displayname", json!("Bob")).await;
    bob.set_field("org.example.mood", json!({ "face": "glad" })).await;
    server.register("stranger").await.set_field("displayname", json!("Nobody")).await;
    public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::new(&alice, with_profiles(&json!({ "enabled": true })));
    let answer = sliding.next().await;
    let told = json!({ "updated": { "displayname": "Bob", "org.example.mood": { "face": "glad" } } });
    assert_eq!(profiles(&answer), json!({ &bob.user_id: told }));
    assert_eq!(profiles(&sliding.next().await), json!({}));

    let change = bob.set_field("org.example.mood", json!({ "face": "sad" }));
    let told = sliding.woken_by(change, |answer| answer["extensions"].get(NAME).cloned()).await;
    let updated = json!({ "updated": { "org.example.mood": { "face": "sad" } } });
    assert_eq!(told, json!({ "users": { &bob.user_id: updated } }));

    bob.set_field("org.example.mood", json!("none")).await;
    bob.delete_field("org.example.mood").await;
    bob.set_field("m.tz", json!("Europe/Paris")).await;
    let told = json!({ "updated": { "m.tz": "Europe/Paris" }, "removed": ["org.example.mood"] });
    let lost = sliding.ask(0).await.expect(200);
    assert_eq!(profiles(&lost), json!({ &bob.user_id: told }));
    assert_eq!(profiles(&sliding.next().await), json!({ &bob.user_id: told }), "the answer got lost");
    assert_eq!(profiles(&sliding.next().await), json!({}));
}

/// Their own devices hear of what they change, and so does who sees none of the rooms that they share.
#[tokio::test]
async fn changes_come_whatever_rooms_are_seen() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    public_room(&alice, &[&bob]).await;
    let mut body = with_profiles(&json!({ "enabled": true }));
    body["lists"] = json!({});
    let mut sliding = Sliding::new(&alice, body);
    assert_eq!(profiles(&sliding.next().await), json!({}));
    bob.set_field("m.tz", json!("Europe/Paris")).await;
    alice.set_field("m.tz", json!("Asia/Tokyo")).await;
    let told = json!({
        &alice.user_id: { "updated": { "m.tz": "Asia/Tokyo" } },
        &bob.user_id: { "updated": { "m.tz": "Europe/Paris" } },
    });
    assert_eq!(profiles(&sliding.next().await), told);
}

#[tokio::test]
async fn only_fields_that_are_asked_for_come_and_more_when_more_are() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    bob.set_field("displayname", json!("Bob")).await;
    bob.set_field("m.tz", json!("Europe/Paris")).await;
    public_room(&alice, &[&bob]).await;
    let wish = |fields: Value| with_profiles(&json!({ "enabled": true, "fields": fields }));
    let mut sliding = Sliding::new(&alice, wish(json!(["m.tz"])));
    let zone = json!({ &bob.user_id: { "updated": { "m.tz": "Europe/Paris" } } });
    assert_eq!(profiles(&sliding.next().await), zone);
    bob.set_field("org.example.mood", json!("glad")).await;
    assert_eq!(profiles(&sliding.next().await), json!({}));
    sliding.body = wish(json!(["m.tz", "org.example.mood"]));
    let told = json!({ "m.tz": "Europe/Paris", "org.example.mood": "glad" });
    assert_eq!(profiles(&sliding.next().await), json!({ &bob.user_id: { "updated": told } }));
    sliding.body = wish(json!(["org.example.mood"]));
    assert_eq!(profiles(&sliding.next().await), json!({}), "it has them");
}

/// What changed while they weren't asked for comes when they are again.
#[tokio::test]
async fn profiles_that_were_not_asked_for_come_anew() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    bob.set_field("m.tz", json!("Europe/Paris")).await;
    public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::new(&alice, with_profiles(&json!({ "enabled": true })));
    sliding.next().await;
    sliding.body = with_profiles(&json!({ "enabled": false }));
    assert_eq!(profiles(&sliding.next().await), json!({}));
    bob.set_field("m.tz", json!("Asia/Tokyo")).await;
    assert_eq!(profiles(&sliding.next().await), json!({}));
    sliding.body = with_profiles(&json!({ "enabled": true }));
    let told = json!({ &bob.user_id: { "updated": { "m.tz": "Asia/Tokyo" } } });
    assert_eq!(profiles(&sliding.next().await), told);
}

/// Of rooms whose members come lazily: of those who are shown, when they are.
#[tokio::test]
async fn profiles_are_as_lazy_as_members() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut others = Vec::new();
    for number in 0..8 {
        let other = server.register(&format!("other{number}")).await;
        other.set_field("m.tz", json!("Asia/Tokyo")).await;
        others.push(other);
    }
    bob.set_field("m.tz", json!("Europe/Paris")).await;
    let room_id = public_room(&bob, &[&alice]).await;
    bob.put(&format!("/v3/rooms/{room_id}/state/m.room.name"), json!({ "name": "A name" })).await.expect(200);
    for other in &others {
        other.join(&room_id).await;
    }
    for number in 0..10 {
        bob.send_text(&room_id, &number.to_string()).await;
    }
    let mut body = all_rooms(json!({}));
    body["extensions"] = json!({ NAME: { "enabled": true } });
    let mut sliding = Sliding::new(&alice, body);
    let told = json!({ &bob.user_id: { "updated": { "m.tz": "Europe/Paris" } } });
    assert_eq!(profiles(&sliding.next().await), told);
    others[3].send_text(&room_id, "hello").await;
    let told = json!({ &others[3].user_id: { "updated": { "m.tz": "Asia/Tokyo" } } });
    assert_eq!(profiles(&sliding.next().await), told);
    others[3].send_text(&room_id, "again").await;
    bob.send_text(&room_id, "yes").await;
    assert_eq!(profiles(&sliding.next().await), json!({}));
}

#[tokio::test]
async fn who_comes_is_told_of_and_who_shares_no_room_any_more() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    bob.set_field("m.tz", json!("Europe/Paris")).await;
    let (one, two) = (public_room(&alice, &[]).await, public_room(&alice, &[]).await);
    let mut sliding = Sliding::new(&alice, with_profiles(&json!({ "enabled": true })));
    assert_eq!(profiles(&sliding.next().await), json!({}));
    bob.join(&one).await;
    let told = json!({ &bob.user_id: { "updated": { "m.tz": "Europe/Paris" } } });
    assert_eq!(profiles(&sliding.next().await), told);
    bob.join(&two).await;
    sliding.next().await;
    bob.leave(&one).await;
    assert_eq!(profiles(&sliding.next().await), json!({}));
    bob.leave(&two).await;
    assert_eq!(profiles(&sliding.next().await), json!({ &bob.user_id: null }));
    bob.set_field("m.tz", json!("Asia/Tokyo")).await;
    assert_eq!(profiles(&sliding.next().await), json!({}));
}

/// The rooms of a list or a subscription alone, in the merged form, over a planned restart.
#[tokio::test]
async fn profiles_of_some_rooms_over_a_restart() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    bob.set_field("m.tz", json!("Europe/Paris")).await;
    carol.set_field("m.tz", json!("Asia/Tokyo")).await;
    let (with_bob, with_carol) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&carol]).await);
    let config =
        json!({ "timeline_limit": 1, "required_state": { "include": [{ "type": "m.room.member" }] } });
    let mut body = json!({
        "lists": {},
        "room_subscriptions": { &with_bob: config, &with_carol: config },
        "extensions": { "profiles": { "enabled": true, "rooms": [with_bob] } },
    });
    let answer = alice.post(MERGED, body.clone()).await.expect(200);
    let told = json!({ &bob.user_id: { "updated": { "m.tz": "Europe/Paris" } } });
    assert_eq!(profiles(&answer), told);
    body["pos"] = answer["pos"].clone();
    bob.set_field("m.tz", json!("Asia/Tokyo")).await;
    server.restart().await;
    let answer = alice.post(MERGED, body.clone()).await.expect(200);
    let told = json!({ &bob.user_id: { "updated": { "m.tz": "Asia/Tokyo" } } });
    assert_eq!(profiles(&answer), told);
    body["pos"] = answer["pos"].clone();
    body["extensions"]["profiles"]["rooms"] = json!(["*"]);
    let answer = alice.post(MERGED, body).await.expect(200);
    let told = json!({ &carol.user_id: { "updated": { "m.tz": "Asia/Tokyo" } } });
    assert_eq!(profiles(&answer), told);
}

#[tokio::test]
async fn bad_wishes_are_refused() {
    let server = server().await;
    let alice = server.register("alice").await;
    for wish in [json!({ "enabled": true, "fields": "m.tz" }), json!({ "enabled": true, "fields": [1] })] {
        let sliding = Sliding::new(&alice, with_profiles(&wish));
        sliding.ask(0).await.expect_error(400, "M_BAD_JSON");
    }
    let many: Vec<String> = (0..1000).map(|number| format!("org.example.field{number}")).collect();
    let sliding = Sliding::new(&alice, with_profiles(&json!({ "enabled": true, "fields": many })));
    sliding.ask(0).await.expect_error(400, "M_INVALID_PARAM");
}

/// Profiles may be large, and rooms many: what is too much for one answer comes with the next.
#[tokio::test]
async fn large_profiles_come_in_several_answers() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mood = "sad".repeat(20_000);
    let mut people = BTreeSet::new();
    for number in 0..12 {
        let other = server.register(&format!("other{number}")).await;
        other.set_field("org.example.mood", json!(mood)).await;
        public_room(&alice, &[&other]).await;
        people.insert(other.user_id.clone());
    }
    let mut sliding = Sliding::new(&alice, with_profiles(&json!({ "enabled": true })));
    let mut answers = 0;
    while !people.is_empty() {
        let told = profiles(&sliding.next().await);
        assert!(told.to_string().len() < 600_000, "{} bytes", told.to_string().len());
        for user_id in told.as_object().expect("users").keys() {
            assert!(people.remove(user_id), "{user_id} twice");
        }
        answers += 1;
        assert!(answers < 5, "{people:?} are missing");
    }
    assert!(answers > 1);
}
