//! What an answer says of a room that the user is in.

use super::*;

#[tokio::test]
async fn a_new_room_comes_whole() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = alice
        .create_room(json!({
            "preset": "public_chat", "name": "a name", "topic": "a topic", "invite": ["@carol:localhost"],
            "initial_state": [{ "type": "m.room.avatar", "state_key": "", "content": { "url": "mxc://localhost/a" } }],
        }))
        .await;
    bob.join(&room_id).await;
    for number in 0..12 {
        alice.send_text(&room_id, &number.to_string()).await;
    }
    let answer = Sliding::of_all_rooms(&bob).next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(shown["name"], "a name");
    assert_eq!(shown["avatar"], "mxc://localhost/a");
    assert_eq!((&shown["joined_count"], &shown["invited_count"]), (&json!(2), &json!(1)));
    assert_eq!(
        (&shown["initial"], &shown["limited"], &shown["num_live"]),
        (&json!(true), &json!(true), &json!(0))
    );
    assert_eq!((&shown["notification_count"], &shown["highlight_count"]), (&json!(12), &json!(0)));
    assert_eq!(texts(shown), ["2", "3", "4", "5", "6", "7", "8", "9", "10", "11"]);
    assert!(shown["bump_stamp"].as_u64().is_some());
    for absent in ["heroes", "is_dm", "invite_state", "membership", "lists", "unstable_expanded_timeline"] {
        assert_eq!(shown.get(absent), None, "{absent}");
    }
    // `$LAZY`: those who wrote; `$ME`.
    assert_eq!(
        keys(shown),
        ["m.room.create|", "m.room.member|@alice:localhost", "m.room.member|@bob:localhost", "m.room.name|"]
    );
}

#[tokio::test]
async fn a_room_without_a_name_has_heroes() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    bob.put("/v3/profile/@bob:localhost/displayname", json!({ "displayname": "Bob" })).await.expect(200);
    let room_id = public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    let answer = sliding.next().await;
    assert_eq!(
        room(&answer, &room_id)["heroes"],
        json!([{ "user_id": "@bob:localhost", "displayname": "Bob" }])
    );
    assert_eq!(room(&answer, &room_id).get("name"), None);
    carol.join(&room_id).await;
    let answer = sliding.next().await;
    assert_eq!(list(&room(&answer, &room_id)["heroes"]).len(), 2);
    assert_eq!(room(&answer, &room_id)["joined_count"], 3);
    alice.send_state(&room_id, "m.room.name", "", json!({ "name": "a name" })).await;
    let answer = sliding.next().await;
    assert_eq!(room(&answer, &room_id)["name"], "a name");
    assert_eq!(room(&answer, &room_id).get("heroes"), None);
    alice.send_state(&room_id, "m.room.name", "", json!({})).await;
    let answer = sliding.next().await;
    assert_eq!(room(&answer, &room_id).get("name"), Some(&Value::Null), "it was removed");
    assert_eq!(list(&room(&answer, &room_id)["heroes"]).len(), 2);
}

#[tokio::test]
async fn only_what_changed_is_said_again() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    sliding.next().await;
    bob.send_text(&room_id, "hello").await;
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(texts(shown), ["hello"]);
    assert_eq!(shown["num_live"], 1);
    assert_eq!((&shown["notification_count"], &shown["highlight_count"]), (&json!(1), &json!(0)));
    for absent in ["initial", "name", "avatar", "heroes", "joined_count", "invited_count", "limited"] {
        assert_eq!(shown.get(absent), None, "{absent}");
    }
    // He spoke for the first time, and then his member event is there.
    assert!(keys(shown).len() <= 1);
    bob.send_text(&room_id, "again").await;
    assert!(keys(room(&sliding.next().await, &room_id)).is_empty());
}

#[tokio::test]
async fn required_state_follows_changes_of_what_it_asks_for() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({ "topic": "one" })).await;
    let mut sliding = Sliding::new(&alice, all_rooms(json!({ "required_state": [["m.room.topic", ""]] })));
    assert_eq!(keys(room(&sliding.next().await, &room_id)), ["m.room.topic|"]);
    alice.send_state(&room_id, "m.room.topic", "", json!({ "topic": "two" })).await;
    alice.send_state(&room_id, "org.example", "key", json!({})).await;
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(keys(shown), ["m.room.topic|"]);
    assert_eq!(shown["required_state"][0]["content"]["topic"], "two");
    // More is asked for: it comes at once, and only what is new.
    sliding.body = all_rooms(json!({ "required_state": [["m.room.topic", ""], ["org.example", "*"]] }));
    let answer = sliding.next().await;
    assert_eq!(keys(room(&answer, &room_id)), ["org.example|key"]);
    assert!(texts(room(&answer, &room_id)).is_empty());
    sliding.body = all_rooms(json!({ "required_state": [["*", "key"]] }));
    assert!(rooms(&sliding.next().await).is_empty(), "less than before");
    sliding.body = all_rooms(json!({ "required_state": [["*", "*"]] }));
    let answer = sliding.next().await;
    let shown = keys(room(&answer, &room_id));
    assert!(
        shown.contains(&"m.room.power_levels|".to_owned()) && shown.contains(&"m.room.topic|".to_owned())
    );
    assert!(!shown.contains(&"org.example|key".to_owned()), "it has that");
}

#[tokio::test]
async fn all_state_with_lazy_members_is_all_but_those_who_are_silent() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room_id = public_room(&alice, &[&bob, &carol]).await;
    bob.send_text(&room_id, "hello").await;
    let body =
        all_rooms(json!({ "timeline_limit": 1, "required_state": [["*", "*"], ["m.room.member", "$LAZY"]] }));
    let mut sliding = Sliding::new(&alice, body);
    let answer = sliding.next().await;
    let shown = keys(room(&answer, &room_id));
    assert!(shown.contains(&"m.room.power_levels|".to_owned()));
    let members: Vec<&String> = shown.iter().filter(|key| key.starts_with("m.room.member")).collect();
    assert_eq!(members, ["m.room.member|@bob:localhost"]);
    // Changes of members come as long as there is no gap.
    carol.leave(&room_id).await;
    let answer = sliding.next().await;
    assert_eq!(keys(room(&answer, &room_id)), ["m.room.member|@carol:localhost"]);
}

/// The display name that a room's `required_state` has for a member.
fn display_name<'a>(room: &'a Value, member: &User) -> Option<&'a Value> {
    let mut events = list(&room["required_state"]).iter();
    let event = events.find(|event| event["state_key"] == member.user_id.as_str());
    event.map(|event| &event["content"]["displayname"])
}

#[tokio::test]
async fn lazy_members_who_changed_in_a_gap_are_told_again_when_they_speak() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let rename = async |name: &str| {
        let content = json!({ "membership": "join", "displayname": name });
        bob.send_state(&room_id, "m.room.member", &bob.user_id, content).await;
    };
    let mut sliding = Sliding::new(&alice, all_rooms(json!({ "timeline_limit": 1 })));
    bob.send_text(&room_id, "hello").await;
    assert!(display_name(room(&sliding.next().await, &room_id), &bob).is_some());
    // In the gap before what he says ...
    rename("Robert").await;
    bob.send_text(&room_id, "by another name").await;
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(shown["limited"], true);
    assert_eq!(display_name(shown, &bob), Some(&json!("Robert")), "{shown}");
    // ... and in one before what somebody else says.
    rename("Rob").await;
    alice.send_text(&room_id, "anybody here?").await;
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(shown["limited"], true);
    assert_eq!(display_name(shown, &bob), None, "he is silent");
    bob.send_text(&room_id, "yes").await;
    let answer = sliding.next().await;
    assert_eq!(display_name(room(&answer, &room_id), &bob), Some(&json!("Rob")), "{answer}");
    bob.send_text(&room_id, "and again").await;
    assert_eq!(display_name(room(&sliding.next().await, &room_id), &bob), None, "that it has");
}

#[tokio::test]
async fn a_longer_timeline_is_shown_when_it_is_asked_for() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room_id = public_room(&alice, &[&bob, &carol]).await;
    let mut sent = Vec::new();
    for number in 0..6 {
        sent.push(alice.send_text(&room_id, &number.to_string()).await);
    }
    bob.receipt(&room_id, "m.read", &sent[3]).await;
    bob.typing(&room_id, true).await;
    alice.account_data(&format!("/rooms/{room_id}"), "org.example", json!({})).await;
    let mut sliding = Sliding::new(&alice, all_rooms(json!({ "timeline_limit": 1 })));
    let on = json!({ "enabled": true });
    sliding.body["extensions"] = json!({ "receipts": on, "typing": on, "account_data": on });
    let answer = sliding.next().await;
    assert_eq!(texts(room(&answer, &room_id)), ["5"]);
    let receipts = &answer["extensions"]["receipts"]["rooms"][&room_id]["content"];
    assert_eq!(receipts.get(&sent[3]), None);
    // The room is opened.
    carol.receipt(&room_id, "m.read", &sent[0]).await;
    sliding.body["room_subscriptions"] =
        json!({ &room_id: { "timeline_limit": 4, "required_state": [["m.room.create", ""]] } });
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(texts(shown), ["2", "3", "4", "5"]);
    assert_eq!(shown["unstable_expanded_timeline"], true);
    assert_eq!((shown.get("initial"), &shown["num_live"]), (None, &json!(0)));
    assert_eq!(shown["limited"], true);
    // MSC4551: what others have read of it comes along, beside what changed. The rest it has.
    let receipts = &answer["extensions"]["receipts"]["rooms"][&room_id]["content"];
    assert!(receipts[&sent[3]]["m.read"].get(&bob.user_id).is_some(), "{answer}");
    assert!(receipts[&sent[0]]["m.read"].get(&carol.user_id).is_some(), "{answer}");
    for absent in ["typing", "account_data"] {
        assert_eq!(answer["extensions"].get(absent), None, "{absent}");
    }
    // It is closed and opened again: the client has all of this.
    sliding.body["room_subscriptions"] = json!({});
    assert!(rooms(&sliding.next().await).is_empty());
    alice.send_text(&room_id, "6").await;
    assert_eq!(texts(room(&sliding.next().await, &room_id)), ["6"]);
    sliding.body["room_subscriptions"] = json!({ &room_id: { "timeline_limit": 4, "required_state": [] } });
    assert!(rooms(&sliding.next().await).is_empty());
    // A room that is shorter than what is asked for has nothing more to show.
    let short = alice.create_room(json!({})).await;
    sliding.body["lists"]["all"]["timeline_limit"] = json!(50);
    assert_eq!(rooms(&sliding.next().await).len(), 2);
    sliding.body["lists"]["all"]["timeline_limit"] = json!(100);
    let answer = sliding.next().await;
    assert!(!rooms(&answer).contains(&short.as_str()), "{answer}");
}

#[tokio::test]
async fn a_subscription_shows_a_room_outside_of_every_window() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let old = alice.create_room(json!({})).await;
    let new = alice.create_room(json!({})).await;
    let foreign = bob.create_room(json!({})).await;
    let mut body = all_rooms(json!({ "ranges": [[0, 0]] }));
    let subscription = json!({ "timeline_limit": 1, "required_state": [] });
    body["room_subscriptions"] =
        json!({ &old: subscription, &foreign: subscription, "!unknown:localhost": subscription });
    let mut sliding = Sliding::new(&alice, body);
    let mut expected = vec![old.as_str(), new.as_str()];
    expected.sort_unstable();
    assert_eq!(rooms(&sliding.next().await), expected);
    bob.send_text(&foreign, "secret").await;
    assert!(rooms(&sliding.next().await).is_empty());
}

#[tokio::test]
async fn bump_stamps_say_when_something_worth_looking_at_happened() {
    let server = server().await;
    let alice = server.register("alice").await;
    let (one, two) = (alice.create_room(json!({})).await, alice.create_room(json!({})).await);
    let mut sliding = Sliding::of_all_rooms(&alice);
    let stamp = |answer: &Value, id: &str| room(answer, id)["bump_stamp"].as_u64().expect("a stamp");
    let answer = sliding.next().await;
    assert!(stamp(&answer, &one) < stamp(&answer, &two));
    let before = stamp(&answer, &one);
    alice.send_state(&one, "m.room.topic", "", json!({ "topic": "x" })).await;
    assert_eq!(stamp(&sliding.next().await, &one), before, "a topic is nothing");
    alice.send_text(&one, "hello").await;
    let bumped = stamp(&sliding.next().await, &one);
    assert!(bumped > stamp(&answer, &two));
    alice.send_event(&one, "m.reaction", json!({})).await;
    assert_eq!(stamp(&sliding.next().await, &one), bumped);
    let anew = Sliding::of_all_rooms(&alice).next().await;
    assert_eq!(stamp(&anew, &one), bumped);
}

/// EV-08, SY-19
#[tokio::test]
async fn what_ignored_users_say_is_not_shown_and_own_messages_name_their_transaction() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    alice.account_data("", "m.ignored_user_list", json!({ "ignored_users": { &bob.user_id: {} } })).await;
    let mut sliding = Sliding::of_all_rooms(&alice);
    sliding.next().await;
    bob.send_text(&room_id, "not to be seen").await;
    alice.send_text(&room_id, "mine").await;
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(texts(shown), ["mine"]);
    assert!(shown["timeline"][0]["unsigned"]["transaction_id"].is_string());
    let other_device = server.login("alice").await;
    let answer = Sliding::of_all_rooms(&other_device).next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(texts(shown), ["mine"]);
    assert_eq!(list(&shown["timeline"]).last().expect("one")["unsigned"].get("transaction_id"), None);
}
