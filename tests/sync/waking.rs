//! What wakes a request that waits, and what doesn't.

use super::*;

/// Account data with this type, in a list of events.
fn of_type(list: &Value, kind: &str) -> Option<Value> {
    find(list, kind, None).map(|event| event["content"].clone())
}

#[tokio::test]
async fn sy06_a_message_wakes_everybody_who_waits_for_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let (mut sender, mut receiver) = (Device::ready(&alice).await, Device::ready(&bob).await);
    let messages = |answer: &Value| {
        let messages = ids(&join(answer, &room)["timeline"]);
        (!messages.is_empty()).then_some(messages)
    };
    let (sent, told) = tokio::sync::oneshot::channel();
    let own = async { sender.woken_by(async { drop(told.await) }, messages).await };

    let mut event = String::new();
    let change = async {
        event = alice.send_text(&room, "hello").await;
        sent.send(()).expect("somebody waits");
    };
    let (seen, own) = futures_util::join!(receiver.woken_by(change, messages), own);
    assert_eq!(seen, [event.clone()]);
    assert_eq!(own, [event], "the sender too");
}

#[tokio::test]
async fn sy18_account_data_tags_rules_and_markers_wake_the_users_other_devices() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    let event = alice.send_text(&room, "hello").await;
    let phone = server.login("alice").await;
    let mut phone = Device::ready(&phone).await;

    let content = json!({ "x": 1 });
    let change = alice.account_data("", "org.example", content.clone());
    let heard = phone.woken_by(change, |answer| of_type(&answer["account_data"], "org.example")).await;
    assert_eq!(heard, content);

    let in_room = |kind: &'static str| {
        let room = room.clone();
        move |answer: &Value| of_type(&join(answer, &room)["account_data"], kind)
    };
    let below = format!("/rooms/{room}");
    let change = alice.account_data(&below, "org.example", content.clone());
    assert_eq!(phone.woken_by(change, in_room("org.example")).await, content);

    let path = format!("/v3/user/{}/rooms/{room}/tags/m.favourite", alice.user_id);
    let change = async { drop(alice.put(&path, json!({ "order": 0.5 })).await.expect(200)) };
    let tags = phone.woken_by(change, in_room("m.tag")).await;
    assert_eq!(tags, json!({ "tags": { "m.favourite": { "order": 0.5 } } }));
    let change = async { drop(alice.delete(&path, None).await.expect(200)) };
    assert_eq!(phone.woken_by(change, in_room("m.tag")).await, json!({ "tags": {} }));

    let path = "/v3/pushrules/global/content/org.example.rule";
    let change = async {
        let rule = json!({ "pattern": "cake", "actions": ["notify"] });
        alice.put(path, rule).await.expect(200);
    };
    let rules = phone.woken_by(change, |answer| of_type(&answer["account_data"], "m.push_rules")).await;
    assert!(
        rules["global"]["content"]
            .as_array()
            .is_some_and(|rules| { rules.iter().any(|rule| rule["rule_id"] == "org.example.rule") })
    );
    assert!(rules["global"]["override"].as_array().is_some_and(|rules| !rules.is_empty()), "rules are whole");

    let change = async {
        let markers = json!({ "m.fully_read": event });
        alice.post(&format!("/v3/rooms/{room}/read_markers"), markers).await.expect(200);
    };
    assert_eq!(phone.woken_by(change, in_room("m.fully_read")).await, json!({ "event_id": event }));
}

/// RC-21, RC-25
#[tokio::test]
async fn sy18_receipts_wake_members_and_private_ones_their_owner_alone() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let event = alice.send_text(&room, "hello").await;
    let (mut alices, mut bobs) = (Device::ready(&alice).await, Device::ready(&bob).await);
    let receipts = |answer: &Value| of_type(&join(answer, &room)["ephemeral"], "m.receipt");

    let change = bob.receipt(&room, "m.read.private", &event);
    let own = bobs.woken_by(change, receipts).await;
    assert!(own[&event]["m.read.private"][&bob.user_id]["ts"].is_number(), "{own}");
    let nothing = alices.next().await;
    assert_eq!(nothing["rooms"], Value::Null, "{nothing}");

    let heard = alices.woken_by(bob.receipt(&room, "m.read", &event), receipts).await;
    assert!(heard[&event]["m.read"][&bob.user_id]["ts"].is_number(), "{heard}");
    assert_eq!(heard[&event]["m.read.private"], Value::Null);

    // Several at once are one event, and a device that starts over has all that concern it.
    alice.receipt(&room, "m.read", &event).await;
    let later = bob.send_text(&room, "hi").await;
    bob.receipt(&room, "m.read", &later).await;
    alice.receipt(&room, "m.read.private", &later).await;
    let batch = bobs.next().await;
    let lists = events(&join(&batch, &room)["ephemeral"]);
    assert_eq!(lists.iter().filter(|event| event["type"] == "m.receipt").count(), 1, "RC-25");
    let first = Device::new(&bob).next().await;
    let all = receipts(&first).expect("receipts");
    assert!(all[&later]["m.read"][&bob.user_id]["ts"].is_number(), "{all}");
    assert!(all[&event]["m.read"][&alice.user_id]["ts"].is_number(), "{all}");
    assert_eq!(all[&later]["m.read.private"], Value::Null, "{all}");
}

#[tokio::test]
async fn sy22_typing_is_told_whole_and_ends_by_itself() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room = public_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;
    let mut stranger = Device::ready(&carol).await;
    let typing = |answer: &Value| {
        let content = of_type(&join(answer, &room)["ephemeral"], "m.typing")?;
        let mut users: Vec<String> = serde_json::from_value(content["user_ids"].clone()).expect("ids");
        users.sort_unstable();
        Some(users)
    };

    assert_eq!(device.woken_by(bob.typing(&room, true), typing).await, [&*bob.user_id]);
    let both = device.woken_by(alice.typing(&room, true), typing).await;
    assert_eq!(both, [alice.user_id.clone(), bob.user_id.clone()]);
    assert_eq!(device.woken_by(bob.typing(&room, false), typing).await, [&*alice.user_id]);
    let path = format!("/v3/rooms/{room}/typing/{}", bob.user_id);
    let briefly = async { drop(bob.put(&path, json!({ "typing": true, "timeout": 50 })).await.expect(200)) };
    let mut told = device.woken_by(briefly, typing).await;
    // It may be over before it is told.
    if told == both {
        told = device.woken_by(async {}, typing).await;
    }
    assert_eq!(told, [&*alice.user_id]);

    let first = Device::new(&bob).next().await;
    assert_eq!(typing(&first), Some(vec![alice.user_id.clone()]), "also on an initial sync");
    assert_eq!(stranger.next().await["rooms"], Value::Null);
}

/// Who typed when the server went down is shown as typing until their readers hear otherwise.
#[tokio::test]
async fn sy22_who_stops_after_a_restart_stops_for_readers_from_before_it() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&bob).await;
    let typing = |answer: &Value| of_type(&join(answer, &room)["ephemeral"], "m.typing");
    let heard = device.woken_by(alice.typing(&room, true), typing).await;
    assert_eq!(heard, json!({ "user_ids": [alice.user_id] }));
    server.restart().await;
    alice.typing(&room, false).await;
    let answer = device.next().await;
    assert_eq!(typing(&answer), Some(json!({ "user_ids": [] })), "{answer}");
    alice.typing(&room, false).await;
    let answer = device.next().await;
    assert_eq!(typing(&answer), None, "it is said once: {answer}");
}

/// RC of a new member: they hear who types in a room when they enter it.
#[tokio::test]
async fn sy22_who_enters_a_room_sees_who_types_in_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[]).await;
    alice.typing(&room, true).await;
    let mut device = Device::ready(&bob).await;
    bob.join(&room).await;
    let answer = device.next().await;
    let typing = of_type(&join(&answer, &room)["ephemeral"], "m.typing");
    assert_eq!(typing, Some(json!({ "user_ids": [alice.user_id] })), "{answer}");
}

#[tokio::test]
async fn sy18_invites_and_the_users_own_joins_wake_them() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    let phone = server.login("bob").await;
    let mut phone = Device::ready(&phone).await;
    let invited = |answer: &Value| answer["rooms"]["invite"].get(&room).cloned();
    let invite = phone.woken_by(alice.invite(&room, &bob.user_id), invited).await;
    assert!(!events(&invite["invite_state"]).is_empty());
    let joined = |answer: &Value| answer["rooms"]["join"].get(&room).cloned();
    let room_body = phone.woken_by(bob.join(&room), joined).await;
    assert!(
        find(&room_body["state"], "m.room.create", Some("")).is_some() || {
            find(&room_body["timeline"], "m.room.create", Some("")).is_some()
        }
    );
}

/// A device must not be woken by the requests of another, or both go round for ever.
#[tokio::test]
async fn sy06_without_news_a_request_waits_for_its_time() {
    let server = server().await;
    let alice = server.register("alice").await;
    public_room(&alice, &[]).await;
    let phone = server.login("alice").await;
    let (mut desk, mut phone) = (Device::ready(&alice).await, Device::ready(&phone).await);
    alice.account_data("", "org.example", json!({})).await;
    desk.next().await;
    phone.next().await;

    let wait = |device: &Device| {
        let (user, since) = (device.user.clone(), device.since.clone());
        async move { user.sync(since.as_deref(), 400).await }
    };
    let deadline = std::time::Instant::now() + common::PATIENCE;
    let mut quiet = 0;
    while quiet < 2 {
        let started = std::time::Instant::now();
        let (one, other) = tokio::join!(wait(&desk), wait(&phone));
        let waited = started.elapsed();
        for (device, answer) in [(&mut desk, &one), (&mut phone, &other)] {
            assert_eq!(answer["rooms"], Value::Null, "{answer}");
            assert_eq!(answer["account_data"], Value::Null, "{answer}");
            device.since = Some(next_batch(answer).to_owned());
        }
        // That they are there is news of their own, and may come late.
        if [one, other].iter().any(|answer| answer["presence"] != Value::Null) {
            assert!(started < deadline, "they wake each other");
            continue;
        }
        assert!(waited.as_millis() >= 400, "woken by nothing");
        quiet += 1;
    }
}

#[tokio::test]
async fn sy06_what_a_filter_hides_wakes_nobody() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (quiet, loud) = (public_room(&alice, &[&bob]).await, public_room(&alice, &[&bob]).await);
    let mut device = Device::with(&bob, &filter(&json!({ "room": { "not_rooms": [loud] } })));
    device.next().await;
    let change = async {
        alice.send_text(&loud, "not for you").await;
        alice.send_text(&quiet, "for you").await;
    };
    let rooms = device.woken_by(change, |answer| answer["rooms"]["join"].as_object().cloned()).await;
    assert_eq!(rooms.keys().collect::<Vec<_>>(), [&quiet]);
}

#[tokio::test]
async fn sy06_no_time_is_no_waiting_and_an_endless_one_is_cut() {
    let server = server().await;
    let alice = server.register("alice").await;
    let device = Device::ready(&alice).await;
    let since = device.since.clone().expect("a token");
    let at_once = alice.get(&format!("/v3/sync?since={since}")).await.expect(200);
    assert_eq!(at_once["rooms"], Value::Null);
    let endless = {
        let (alice, since) = (alice.clone(), since.clone());
        tokio::spawn(
            async move { alice.get(&format!("/v3/sync?since={since}&timeout=9007199254740991")).await },
        )
    };
    alice.account_data("", "org.example", json!({})).await;
    let answer = endless.await.expect("a request").expect(200);
    assert!(find(&answer["account_data"], "org.example", None).is_some());
    alice.get(&format!("/v3/sync?since={since}&org.example.unknown=1&timeout=0")).await.expect(200);
    let bad = alice.get(&format!("/v3/sync?since={since}&timeout=soon")).await;
    bad.expect_error(400, "M_INVALID_PARAM");
}

/// A sync has nothing to do with rooms of others, however busy they are.
#[tokio::test]
async fn i7_a_busy_room_of_others_holds_nobody_up() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (busy, room) = (public_room(&alice, &[]).await, public_room(&bob, &[]).await);
    let mut device = Device::ready(&bob).await;
    let sending = {
        let (alice, busy) = (alice.clone(), busy.clone());
        tokio::spawn(async move {
            for number in 0..60 {
                alice.send_text(&busy, &number.to_string()).await;
            }
        })
    };
    let change = async { drop(bob.send_text(&room, "mine").await) };
    let answer = device.woken_by(change, |answer| Some(answer.clone())).await;
    assert_eq!(join(&answer, &room)["timeline"]["events"][0]["content"]["body"], "mine");
    assert_eq!(join(&answer, &busy), &Value::Null);
    sending.await.expect("messages are sent");
}
