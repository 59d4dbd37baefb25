//! Lists: order, windows, filters, counts.

use super::*;
use common::{
    eventually,
    federating::{Authority, Federating},
};

#[tokio::test]
async fn rooms_are_listed_by_their_last_events() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for number in 0..5 {
        made.push(alice.create_room(json!({ "name": format!("room {number}") })).await);
    }
    let mut sliding = Sliding::new(&alice, all_rooms(json!({ "ranges": [[0, 1]] })));
    let answer = sliding.next().await;
    assert_eq!(count(&answer, "all"), 5);
    let mut expected = vec![made[4].as_str(), made[3].as_str()];
    expected.sort_unstable();
    assert_eq!(rooms(&answer), expected);
    assert_eq!(room(&answer, &made[4])["name"], "room 4");
    assert_eq!(room(&answer, &made[4])["initial"], true);

    // The oldest moves up; the client has never seen it.
    alice.send_text(&made[0], "hello").await;
    let answer = sliding.next().await;
    assert_eq!(rooms(&answer), [made[0].as_str()]);
    assert_eq!(room(&answer, &made[0])["initial"], true);
    assert_eq!(room(&answer, &made[0])["num_live"], 1);
    assert_eq!(texts(room(&answer, &made[0])), ["hello"]);
}

#[tokio::test]
async fn a_growing_window_shows_only_rooms_that_are_new_to_it() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut made = Vec::new();
    for _ in 0..6 {
        made.push(alice.create_room(json!({})).await);
    }
    let mut sliding = Sliding::new(&alice, all_rooms(json!({ "ranges": [[0, 0]] })));
    assert_eq!(rooms(&sliding.next().await), [made[5].as_str()]);
    sliding.body = all_rooms(json!({ "ranges": [[0, 2]] }));
    assert_eq!(rooms(&sliding.next().await).len(), 2);
    sliding.body = all_rooms(json!({ "ranges": [[0, 2], [4, 5]] }));
    let answer = sliding.next().await;
    let mut expected = vec![made[0].as_str(), made[1].as_str()];
    expected.sort_unstable();
    assert_eq!(rooms(&answer), expected);
    sliding.body = all_rooms(json!({ "ranges": [[0, 99]] }));
    assert_eq!(rooms(&sliding.next().await), [made[2].as_str()]);
    // All rooms are there: now a change in one is that room alone.
    assert_eq!(rooms(&sliding.next().await).len(), 0);
    alice.send_text(&made[1], "hello").await;
    let answer = sliding.next().await;
    assert_eq!(rooms(&answer), [made[1].as_str()]);
    assert_eq!(room(&answer, &made[1]).get("initial"), None);
    assert_eq!(texts(room(&answer, &made[1])), ["hello"]);
    assert_eq!(count(&answer, "all"), 6);
}

#[tokio::test]
async fn a_room_that_comes_back_into_the_window_has_all_that_it_missed() {
    let server = server().await;
    let alice = server.register("alice").await;
    let (one, two) = (alice.create_room(json!({})).await, alice.create_room(json!({})).await);
    let mut sliding = Sliding::new(&alice, all_rooms(json!({ "ranges": [[0, 0]], "timeline_limit": 3 })));
    alice.send_text(&one, "zero").await;
    assert_eq!(rooms(&sliding.next().await), [one.as_str()]);
    alice.send_text(&one, "one").await;
    alice.send_text(&two, "other").await;
    assert_eq!(rooms(&sliding.next().await), [two.as_str()], "the first room is out of the window");
    alice.send_text(&one, "two").await;
    let answer = sliding.next().await;
    let shown = room(&answer, &one);
    assert_eq!(texts(shown), ["one", "two"]);
    assert_eq!((shown.get("initial"), shown.get("limited")), (None, None));
    assert_eq!(shown["num_live"], 1);

    // … and when that is more than fits, it says so.
    for number in 0..5 {
        alice.send_text(&one, &number.to_string()).await;
    }
    alice.send_text(&two, "other").await;
    sliding.next().await;
    alice.send_text(&one, "last").await;
    let answer = sliding.next().await;
    let shown = room(&answer, &one);
    assert_eq!(texts(shown), ["3", "4", "last"]);
    assert_eq!(shown["limited"], true);
    let from = shown["prev_batch"].as_str().expect("prev_batch");
    let page = alice.get(&format!("/v3/rooms/{one}/messages?dir=b&limit=3&from={from}")).await.expect(200);
    let before: Vec<&str> =
        list(&page["chunk"]).iter().filter_map(|e| e["content"]["body"].as_str()).collect();
    assert_eq!(before, ["2", "1", "0"]);
}

#[tokio::test]
async fn lists_hold_the_rooms_that_their_filters_let_in() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let plain = alice.create_room(json!({ "name": "plain" })).await;
    let encrypted = alice
        .create_room(json!({ "initial_state": [{
            "type": "m.room.encryption", "state_key": "", "content": { "algorithm": "m.megolm.v1.aes-sha2" },
        }] }))
        .await;
    let space = alice.create_room(json!({ "creation_content": { "type": "m.space" } })).await;
    let direct = alice.create_room(json!({})).await;
    let invited = bob.create_room(json!({ "invite": [alice.user_id] })).await;
    alice.account_data("", "m.direct", json!({ &bob.user_id: [direct] })).await;
    let tag = format!("/v3/user/{}/rooms/{plain}/tags/m.favourite", alice.user_id);
    alice.put(&tag, json!({})).await.expect(200);
    alice.send_state(&space, "m.space.child", &encrypted, json!({ "via": ["localhost"] })).await;
    alice.send_state(&space, "m.space.child", &direct, json!({})).await;

    let everything = [&plain, &encrypted, &space, &direct, &invited];
    let cases: Vec<(Value, Vec<&String>)> = vec![
        (json!({}), everything.to_vec()),
        (json!({ "is_dm": true }), vec![&direct]),
        (json!({ "is_dm": false }), vec![&plain, &encrypted, &space, &invited]),
        (json!({ "is_encrypted": true }), vec![&encrypted]),
        (json!({ "is_encrypted": false }), vec![&plain, &space, &direct, &invited]),
        (json!({ "is_invite": true }), vec![&invited]),
        (json!({ "is_invite": false }), vec![&plain, &encrypted, &space, &direct]),
        (json!({ "room_types": ["m.space"] }), vec![&space]),
        (json!({ "room_types": [null] }), vec![&plain, &encrypted, &direct, &invited]),
        (
            json!({ "room_types": [null, "m.space"], "not_room_types": ["m.space"] }),
            vec![&plain, &encrypted, &direct, &invited],
        ),
        (json!({ "room_types": [] }), vec![]),
        (json!({ "tags": ["m.favourite", "u.none"] }), vec![&plain]),
        (json!({ "tags": ["m.favourite"], "not_tags": ["m.favourite"] }), vec![]),
        (json!({ "not_tags": ["m.favourite"] }), vec![&encrypted, &space, &direct, &invited]),
        (json!({ "spaces": [space] }), vec![&encrypted]),
        (json!({ "spaces": [plain, "!unknown:localhost", "nonsense"] }), vec![]),
        (json!({ "is_dm": true, "is_encrypted": true }), vec![]),
    ];
    for (filters, expected) in cases {
        let answer = Sliding::new(&alice, all_rooms(json!({ "filters": filters }))).next().await;
        let mut expected: Vec<&str> = expected.into_iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(rooms(&answer), expected, "{filters}");
        assert_eq!(count(&answer, "all"), expected.len() as u64, "{filters}");
    }
}

#[tokio::test]
async fn a_room_enters_and_leaves_lists_as_it_changes() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room_id = alice.create_room(json!({})).await;
    let mut body = all_rooms(json!({ "filters": { "tags": ["m.favourite"] } }));
    body["lists"]["direct"] = body["lists"]["all"].clone();
    body["lists"]["direct"]["filters"] = json!({ "is_dm": true });
    body["lists"]["secret"] = body["lists"]["all"].clone();
    body["lists"]["secret"]["filters"] = json!({ "is_encrypted": true });
    let counts = |answer: &Value| ["all", "direct", "secret"].map(|list| count(answer, list));
    let mut sliding = Sliding::new(&alice, body);
    assert_eq!(counts(&sliding.next().await), [0, 0, 0]);

    let tag = format!("/v3/user/{}/rooms/{room_id}/tags/m.favourite", alice.user_id);
    let change = async { drop(alice.put(&tag, json!({})).await.expect(200)) };
    let answer = sliding.woken_by(change, |answer| (count(answer, "all") == 1).then(|| answer.clone())).await;
    assert_eq!(room(&answer, &room_id)["initial"], true);

    let change = alice.account_data("", "m.direct", json!({ &bob.user_id: [room_id] }));
    let answer =
        sliding.woken_by(change, |answer| (count(answer, "direct") == 1).then(|| answer.clone())).await;
    assert_eq!(room(&answer, &room_id)["is_dm"], true);

    let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    let change = async { drop(alice.send_state(&room_id, "m.room.encryption", "", content).await) };
    sliding.woken_by(change, |answer| (count(answer, "secret") == 1).then_some(())).await;

    let change = async { drop(alice.delete(&tag, None).await.expect(200)) };
    sliding.woken_by(change, |answer| (counts(answer) == [0, 1, 1]).then_some(())).await;
    alice.account_data("", "m.direct", json!({})).await;
    let answer = sliding.next().await;
    assert_eq!(counts(&answer), [0, 0, 1]);
    assert_eq!(room(&answer, &room_id)["is_dm"], false);
}

#[tokio::test]
async fn a_room_of_several_lists_and_a_subscription_gets_what_any_asks_for() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room_id = alice.create_room(json!({ "name": "a name", "topic": "a topic" })).await;
    for number in 0..5 {
        alice.send_text(&room_id, &number.to_string()).await;
    }
    let mut sliding = Sliding::new(
        &alice,
        json!({
            "lists": {
                "a": { "ranges": [[0, 5]], "timeline_limit": 1, "required_state": [["m.room.name", ""]] },
                "b": { "ranges": [[0, 5]], "timeline_limit": 3, "required_state": [["m.room.create", ""]] },
            },
            "room_subscriptions": {
                &room_id: { "timeline_limit": 2, "required_state": [["m.room.topic", "*"]] },
            },
        }),
    );
    let answer = sliding.next().await;
    let shown = room(&answer, &room_id);
    assert_eq!(texts(shown), ["2", "3", "4"]);
    assert_eq!(keys(shown), ["m.room.create|", "m.room.name|", "m.room.topic|"]);
}

/// What this server knows of a room that it isn't in is what the invite says.
#[tokio::test]
async fn invites_from_other_servers_are_filtered_by_what_they_say_of_the_room() {
    let authority = Authority::new();
    let there = Federating::start(&authority, toml::Table::new()).await;
    let mut here = Federating::start(&authority, toml::Table::new()).await;
    let (alice, bob) = (there.server.register("alice").await, here.server.register("bob").await);
    let list = |filters: Value| json!({ "timeline_limit": 1, "required_state": [], "filters": filters });
    let body = json!({ "lists": {
        "spaces": list(json!({ "room_types": ["m.space"] })),
        "rooms": list(json!({ "not_room_types": ["m.space"] })),
        "encrypted": list(json!({ "is_encrypted": true })),
    } });
    let counts = |answer: &Value| ["spaces", "rooms", "encrypted"].map(|list| count(answer, list));
    let mut sliding = Sliding::new(&bob, body.clone());
    assert_eq!(counts(&sliding.next().await), [0, 0, 0]);

    let encryption = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    let room_id = alice
        .create_room(json!({
            "name": "a space", "creation_content": { "type": "m.space" },
            "initial_state": [
                { "type": "m.room.avatar", "state_key": "", "content": { "url": "mxc://localhost/a" } },
                { "type": "m.room.encryption", "state_key": "", "content": encryption },
            ],
        }))
        .await;
    alice.invite(&room_id, &bob.user_id).await;
    let answer = sliding.next().await;
    assert_eq!(counts(&answer), [1, 0, 1]);
    let shown = room(&answer, &room_id);
    assert_eq!((&shown["name"], &shown["avatar"]), (&json!("a space"), &json!("mxc://localhost/a")));
    here.server.stop().await;
    here.start_again().await;
    assert_eq!(counts(&Sliding::beside(&bob, body).next().await), [1, 0, 1]);
    assert_eq!(counts(&sliding.next().await), [1, 0, 1]);
    // That it was turned down is told in the lists that it was in.
    bob.leave(&room_id).await;
    assert_eq!(rooms(&sliding.next().await), [room_id.as_str()]);
}

/// SY-09: what others say of a room to somebody whom they invite is nothing to those who were sent away before.
#[tokio::test]
async fn sy09_what_an_invite_says_is_not_told_to_those_who_were_sent_away() {
    let authority = Authority::new();
    let there = Federating::start(&authority, toml::Table::new()).await;
    let here = Federating::start(&authority, toml::Table::new()).await;
    let alice = there.server.register("alice").await;
    let (bob, carol) = (here.server.register("bob").await, here.server.register("carol").await);
    let room_id = alice.create_room(json!({ "preset": "public_chat" })).await;
    carol.post(&format!("/v3/join/{room_id}?via={}", there.name), json!({})).await.expect(200);
    alice.act_on("kick", &room_id, &carol).await;
    eventually("she is out", async || {
        let joined = carol.get("/v3/joined_rooms").await.expect(200);
        list(&joined["joined_rooms"]).is_empty().then_some(())
    })
    .await;
    let content = json!({ "algorithm": "m.megolm.v1.aes-sha2" });
    alice.send_state(&room_id, "m.room.encryption", "", content).await;
    alice.invite(&room_id, &bob.user_id).await;
    for (user, encrypted) in [(&bob, 1), (&carol, 0)] {
        let body = all_rooms(json!({ "filters": { "is_encrypted": true } }));
        let answer = Sliding::new(user, body).next().await;
        assert_eq!(count(&answer, "all"), encrypted, "{}", user.user_id);
    }
    assert_eq!(count(&Sliding::of_all_rooms(&carol).next().await, "all"), 1);
}
