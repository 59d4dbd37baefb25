//! Invites, knocks, leaving, coming back: what is shown, and what is not.

use super::*;

fn stripped(room: &Value) -> Vec<String> {
    keys(&json!({ "required_state": room["invite_state"] }))
}

#[tokio::test]
async fn sy10_an_invite_shows_stripped_state_and_nothing_else() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = alice.create_room(json!({ "name": "secret plans" })).await;
    alice.send_state(&room_id, "org.example.secret", "", json!({})).await;
    let body = all_rooms(json!({ "required_state": [["*", "*"]] }));
    let mut sliding = Sliding::new(&bob, body.clone());
    assert_eq!(count(&sliding.next().await, "all"), 0);
    let change = alice.invite(&room_id, &bob.user_id);
    let woken = sliding.woken_by(change, |answer| (!rooms(answer).is_empty()).then(|| answer.clone())).await;
    let anew = Sliding::beside(&bob, body).next().await;
    for answer in [woken, anew] {
        assert_eq!(count(&answer, "all"), 1);
        let shown = room(&answer, &room_id);
        let state = stripped(shown);
        assert!(state.contains(&"m.room.name|".to_owned()), "{state:?}");
        assert!(state.contains(&"m.room.member|@bob:localhost".to_owned()));
        assert!(!state.contains(&"org.example.secret|".to_owned()));
        for absent in ["timeline", "required_state", "prev_batch", "joined_count", "heroes"] {
            assert_eq!(shown.get(absent), None, "{absent}");
        }
    }
    alice.send_text(&room_id, "not for the invited").await;
    assert!(rooms(&sliding.next().await).is_empty());
    bob.join(&room_id).await;
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(shown["initial"], true);
    assert_eq!(shown.get("invite_state"), None);
    assert!(texts(shown).contains(&"not for the invited"), "the room's history is shared");
    assert!(keys(shown).contains(&"org.example.secret|".to_owned()));
}

#[tokio::test]
async fn an_invite_that_is_rejected_or_taken_back_goes() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = alice.create_room(json!({ "name": "one" })).await;
    for by_bob in [true, false] {
        alice.invite(&room_id, &bob.user_id).await;
        let mut sliding = Sliding::of_all_rooms(&bob);
        assert_eq!(rooms(&sliding.next().await), [room_id.as_str()]);
        alice.send_state(&room_id, "m.room.name", "", json!({ "name": "two" })).await;
        if by_bob {
            bob.leave(&room_id).await;
        } else {
            alice.act_on("kick", &room_id, &bob).await;
        }
        let answer = sliding.next().await;
        let shown = room(&answer, &room_id);
        let timeline = list(&shown["timeline"]);
        assert_eq!(timeline.len(), 1, "{shown}");
        assert_eq!(timeline[0]["content"]["membership"], "leave");
        assert_eq!(timeline[0]["state_key"], bob.user_id);
        assert!(!answer.to_string().contains("two"), "{answer}");
        alice.send_text(&room_id, "secret").await;
        assert!(rooms(&sliding.next().await).is_empty());
        assert_eq!(count(&Sliding::beside(&bob, all_rooms(json!({}))).next().await, "all"), 0);
    }
}

#[tokio::test]
async fn a_knock_is_listed_until_it_is_answered() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = alice
        .create_room(json!({ "initial_state": [{
            "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" },
        }] }))
        .await;
    let mut sliding = Sliding::of_all_rooms(&bob);
    sliding.next().await;
    bob.post(&format!("/v3/knock/{room_id}"), json!({})).await.expect(200);
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert!(stripped(shown).contains(&"m.room.member|@bob:localhost".to_owned()));
    assert_eq!(shown.get("timeline"), None);
    alice.invite(&room_id, &bob.user_id).await;
    let answer = sliding.next().await;
    let own = list(&room(&answer, &room_id)["invite_state"])
        .iter()
        .find(|e| e["state_key"] == bob.user_id.as_str());
    assert_eq!(own.expect("their member event")["content"]["membership"], "invite");
}

/// `threats.md`: sliding sync after a kick: the leave event only, then nothing.
#[tokio::test]
async fn after_a_kick_there_is_the_leave_event_and_then_nothing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    // Who can read a room anyway isn't told of it after that either.
    for (action, visibility) in [("kick", "shared"), ("ban", "shared"), ("kick", "world_readable")] {
        let room_id = public_room(&alice, &[&bob]).await;
        let content = json!({ "history_visibility": visibility });
        alice.send_state(&room_id, "m.room.history_visibility", "", content).await;
        let mut body = all_rooms(json!({ "required_state": [["*", "*"]] }));
        body["room_subscriptions"] =
            json!({ &room_id: { "timeline_limit": 20, "required_state": [["*", "*"]] } });
        body["extensions"] = json!({
            "receipts": { "enabled": true }, "typing": { "enabled": true }, "account_data": { "enabled": true },
        });
        let mut sliding = Sliding::new(&bob, body.clone());
        sliding.next().await;
        alice.act_on(action, &room_id, &bob).await;
        let after = alice.send_text(&room_id, "after").await;
        alice.send_state(&room_id, "m.room.name", "", json!({ "name": "after" })).await;
        alice.receipt(&room_id, "m.read", &after).await;
        alice.typing(&room_id, true).await;
        let answer = sliding.next().await;
        let shown = room(&answer, &room_id);
        let timeline = list(&shown["timeline"]);
        assert_eq!(timeline.len(), 1, "{shown}");
        assert_eq!(timeline[0]["state_key"], bob.user_id);
        assert_eq!(keys(shown), ["m.room.member|@bob:localhost"]);
        assert!(!answer.to_string().contains("after"), "{answer}");
        for _ in 0..2 {
            alice.send_text(&room_id, "after").await;
            let answer = sliding.next().await;
            assert!(rooms(&answer).is_empty(), "{answer}");
            assert_eq!(answer["extensions"].get("receipts"), None);
            assert_eq!(answer["extensions"].get("typing"), None);
        }
        // A longer timeline and a new connection show what was before, as history allows.
        sliding.body["room_subscriptions"][&room_id]["timeline_limit"] = json!(100);
        assert!(!sliding.next().await.to_string().contains("after"));
        let anew = Sliding::beside(&bob, body).next().await;
        let shown = room(&anew, &room_id);
        assert!(!anew.to_string().contains("after"), "{anew}");
        let last = list(&shown["timeline"]).last().expect("an event");
        assert_eq!(last["state_key"], bob.user_id);
        bob.post(&format!("/v3/rooms/{room_id}/forget"), json!({})).await.expect(200);
        assert_eq!(count(&Sliding::beside(&bob, all_rooms(json!({}))).next().await, "all"), 0);
    }
}

/// HV-01: a room that shows its members only what happened while they were in.
#[tokio::test]
async fn hv01_what_was_before_joining_and_after_leaving_is_not_shown() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[]).await;
    alice
        .send_state(&room_id, "m.room.history_visibility", "", json!({ "history_visibility": "joined" }))
        .await;
    alice.send_text(&room_id, "before").await;
    bob.join(&room_id).await;
    alice.send_text(&room_id, "while").await;
    let mut sliding = Sliding::new(&bob, all_rooms(json!({ "timeline_limit": 20 })));
    let answer = sliding.next().await;
    assert_eq!(texts(room(&answer, &room_id)), ["while"]);
    bob.leave(&room_id).await;
    alice.send_text(&room_id, "away").await;
    bob.join(&room_id).await;
    alice.send_text(&room_id, "back").await;
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(shown["initial"], true);
    assert!(texts(shown).contains(&"back") && !answer.to_string().contains("away"), "{answer}");
    assert_eq!(shown["limited"], true);
}

#[tokio::test]
async fn a_room_that_was_left_is_shown_to_who_saw_it_and_to_nobody_else() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[&bob]).await;
    let mut sliding = Sliding::of_all_rooms(&bob);
    sliding.next().await;
    bob.leave(&room_id).await;
    let answer = sliding.next().await;
    assert_eq!(list(&room(&answer, &room_id)["timeline"])[0]["content"]["membership"], "leave");
    assert!(rooms(&sliding.next().await).is_empty());
    assert_eq!(count(&Sliding::beside(&bob, all_rooms(json!({}))).next().await, "all"), 0);
    // Who asks for it by its id may see what they saw.
    let mut body = all_rooms(json!({}));
    body["room_subscriptions"] = json!({ &room_id: { "timeline_limit": 3, "required_state": [] } });
    alice.send_text(&room_id, "after").await;
    let answer = Sliding::beside(&bob, body).next().await;
    assert!(!answer.to_string().contains("after"));
    assert_eq!(
        list(&room(&answer, &room_id)["timeline"]).last().expect("one")["content"]["membership"],
        "leave"
    );
    // The connection that saw it has it in its list, until it is forgotten.
    assert_eq!(count(&sliding.next().await, "all"), 1);
    bob.post(&format!("/v3/rooms/{room_id}/forget"), json!({})).await.expect(200);
    let answer = sliding.next().await;
    assert_eq!((rooms(&answer).len(), count(&answer, "all")), (0, 0));
}

#[tokio::test]
async fn who_was_banned_without_having_been_there_sees_no_room() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = public_room(&alice, &[]).await;
    let mut sliding = Sliding::of_all_rooms(&bob);
    sliding.next().await;
    alice.act_on("ban", &room_id, &bob).await;
    let answer = sliding.next().await;
    assert!(rooms(&answer).is_empty(), "{answer}");
    let answer = Sliding::beside(&bob, all_rooms(json!({}))).next().await;
    assert_eq!((rooms(&answer).len(), count(&answer, "all")), (0, 0));
}

/// SY-19, MB-11
#[tokio::test]
async fn unwanted_invites_are_not_shown() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = alice.create_room(json!({})).await;
    bob.account_data("", "m.ignored_user_list", json!({ "ignored_users": { &alice.user_id: {} } })).await;
    let mut sliding = Sliding::of_all_rooms(&bob);
    sliding.next().await;
    alice.invite(&room_id, &bob.user_id).await;
    let answer = sliding.next().await;
    assert_eq!((rooms(&answer).len(), count(&answer, "all")), (0, 0));
    let answer = Sliding::beside(&bob, all_rooms(json!({}))).next().await;
    assert_eq!((rooms(&answer).len(), count(&answer, "all")), (0, 0));
    bob.account_data("", "m.ignored_user_list", json!({ "ignored_users": {} })).await;
    let answer = sliding.next().await;
    assert_eq!((rooms(&answer), count(&answer, "all")), (vec![room_id.as_str()], 1));
    // One that was shown is gone again.
    bob.account_data("", "m.ignored_user_list", json!({ "ignored_users": { &alice.user_id: {} } })).await;
    assert_eq!(count(&sliding.next().await, "all"), 0);
}

/// SY-09, SY-19: who left and was invited back meanwhile, by somebody whom they ignore, is out; also where the connection
/// didn't look at the room meanwhile.
#[tokio::test]
async fn a_leaving_is_told_though_an_unwanted_invite_follows_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for looks in [true, false] {
        bob.account_data("", "m.ignored_user_list", json!({ "ignored_users": {} })).await;
        let room_id = public_room(&alice, &[&bob]).await;
        let mut sliding = Sliding::of_all_rooms(&bob);
        let all = sliding.body.clone();
        assert!(rooms(&sliding.next().await).contains(&room_id.as_str()));
        if !looks {
            sliding.body = json!({ "lists": {} });
            sliding.next().await;
        }
        bob.leave(&room_id).await;
        alice.invite(&room_id, &bob.user_id).await;
        bob.account_data("", "m.ignored_user_list", json!({ "ignored_users": { &alice.user_id: {} } })).await;
        if !looks {
            sliding.next().await;
            sliding.body = all;
        }
        let answer = sliding.next().await;
        let shown = room(&answer, &room_id);
        let timeline = list(&shown["timeline"]);
        assert_eq!(timeline.len(), 1, "{shown}");
        assert_eq!(timeline[0]["content"]["membership"], "leave");
        assert_eq!(shown.get("invite_state"), None);
        assert!(rooms(&sliding.next().await).is_empty());
        let answer = Sliding::beside(&bob, all_rooms(json!({}))).next().await;
        assert_eq!((rooms(&answer).len(), count(&answer, "all")), (0, 0));
    }
}
