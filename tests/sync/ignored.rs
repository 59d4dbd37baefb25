//! Ignored users: what they say is not told, what they do to a room is.

use super::*;

const LISTS: &str = "org.matrix.msc4155.invite_permission_config";

async fn ignore(user: &User, ignored: &[&User]) {
    let users: serde_json::Map<String, Value> =
        ignored.iter().map(|user| (user.user_id.clone(), json!({}))).collect();
    user.account_data("", "m.ignored_user_list", json!({ "ignored_users": users })).await;
}

#[tokio::test]
async fn sy19_messages_of_ignored_users_are_not_told_and_count_for_nothing() {
    let server = server().await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    let room = public_room(&alice, &[&bob, &carol]).await;
    ignore(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;

    bob.send_text(&room, "never heard").await;
    let heard = carol.send_text(&room, "heard").await;
    let answer = device.next().await;
    assert_eq!(ids(&join(&answer, &room)["timeline"]), std::slice::from_ref(&heard));
    assert_eq!(join(&answer, &room)["unread_notifications"]["notification_count"], 1);
    let first = Device::new(&alice).next().await;
    let shown = ids(&join(&first, &room)["timeline"]);
    assert_eq!(shown.last(), Some(&heard), "nor on an initial sync");
    assert!(!first.to_string().contains("never heard"));

    // IG-01: from now on, and nothing of before.
    ignore(&alice, &[]).await;
    device.next().await;
    let now = bob.send_text(&room, "heard again").await;
    let answer = device.next().await;
    assert_eq!(ids(&join(&answer, &room)["timeline"]), [now]);
}

#[tokio::test]
async fn sy19_state_of_ignored_users_is_told_and_their_invitations_are_not() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&bob, &[&alice]).await;
    let mut device = Device::ready(&alice).await;
    ignore(&alice, &[&bob]).await;
    device.next().await;

    let topic = bob.topic(&room, "still a topic").await;
    let answer = device.next().await;
    assert_eq!(ids(&join(&answer, &room)["timeline"]), [topic]);

    let other = bob.create_room(json!({ "invite": [alice.user_id] })).await;
    assert!(device.next().await["rooms"]["invite"][&other].is_null());
    assert!(Device::new(&alice).next().await["rooms"]["invite"][&other].is_null());
    alice.join(&other).await;
    let answer = device.next().await;
    assert!(answer["rooms"]["join"][&other].is_object(), "who knows of the room can still join: {answer}");
}

/// IG-01: nor by the endpoints that page through a room.
#[tokio::test]
async fn ig_01_pages_are_without_what_ignored_users_say() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    let first = alice.send_text(&room, "first").await;
    let said = bob.send_text(&room, "never heard").await;
    let topic = alice.topic(&room, "middle").await;
    for _ in 0..3 {
        bob.send_text(&room, "never heard").await;
    }
    let last = alice.send_text(&room, "last").await;
    ignore(&alice, &[&bob]).await;

    let page = async |reader: &User, query: &str| {
        let page = reader.get(&format!("/v3/rooms/{room}/messages?{query}")).await.expect(200);
        (common::history::ids(&page["chunk"]), page["end"].as_str().map(str::to_owned))
    };
    let (chunk, end) = page(&alice, "dir=b&limit=2").await;
    assert_eq!(chunk, [last.clone(), topic.clone()], "a page is filled with what is shown");
    let (chunk, _) = page(&alice, &format!("dir=b&limit=1&from={}", end.expect("there is more"))).await;
    assert_eq!(chunk, [first]);
    let (all, _) = page(&bob, "dir=b&limit=100").await;
    assert!(all.contains(&said), "others read on");
    let (mine, _) = page(&alice, "dir=b&limit=100").await;
    assert_eq!(mine.len(), all.len() - 4, "bob's four messages are missing, his joining is not");

    let context = alice.get(&format!("/v3/rooms/{room}/context/{topic}?limit=4")).await.expect(200);
    assert!(!context.to_string().contains("never heard"), "{context}");
    assert_eq!(common::history::ids(&context["events_after"]), [last]);
    let look = alice.get(&format!("/v3/rooms/{room}/initialSync")).await.expect(200);
    assert!(!look.to_string().contains("never heard"), "{look}");
}

/// IG-01: nor around what a search finds, nor in a room that somebody looks into.
#[tokio::test]
async fn ig_01_results_and_looks_are_without_what_ignored_users_say() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = public_room(&alice, &[&bob]).await;
    bob.send_text(&room, "never heard").await;
    alice.send_text(&room, "needle").await;
    bob.send_text(&room, "never heard").await;
    let last = alice.send_text(&room, "last").await;
    ignore(&alice, &[&bob]).await;

    let around = json!({ "before_limit": 2, "after_limit": 1 });
    let criteria = json!({ "search_term": "needle", "event_context": around });
    let body = json!({ "search_categories": { "room_events": criteria } });
    let found = alice.post("/v3/search", body).await.expect(200);
    assert!(!found.to_string().contains("never heard"), "{found}");
    let context = &found["search_categories"]["room_events"]["results"][0]["context"];
    assert_eq!(common::history::ids(&context["events_after"]), std::slice::from_ref(&last));

    let start = context["start"].as_str().expect("a token");
    let look = alice.get(&format!("/v3/events?room_id={room}&from={start}")).await.expect(200);
    assert!(!look.to_string().contains("never heard"), "{look}");
    assert!(common::history::ids(&look["chunk"]).contains(&last), "{look}");
}

/// IG-01: that somebody types or has read is something that they say.
#[tokio::test]
async fn ig_01_ignored_users_are_not_heard_typing_or_reading() {
    let server = server().await;
    let (alice, bob, carol) =
        (server.register("alice").await, server.register("bob").await, server.register("carol").await);
    let room = public_room(&alice, &[&bob, &carol]).await;
    let event = alice.send_text(&room, "hello").await;
    ignore(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;
    let sliding = json!({
        "lists": { "all": { "ranges": [[0, 9]], "timeline_limit": 1, "required_state": [] } },
        "extensions": { "typing": { "enabled": true }, "receipts": { "enabled": true } },
    });
    let slide = async |pos: &str| {
        let path = format!("/unstable/org.matrix.simplified_msc3575/sync?timeout=0{pos}");
        alice.post(&path, sliding.clone()).await.expect(200)
    };
    let pos = slide("").await["pos"].as_str().expect("a position").to_owned();
    for user in [&bob, &carol] {
        user.typing(&room, true).await;
        user.receipt(&room, "m.read", &event).await;
    }
    let mut told = Vec::new();
    for answer in [device.next().await, Device::new(&alice).next().await] {
        let ephemeral = &join(&answer, &room)["ephemeral"];
        told.push(["m.typing", "m.receipt"].map(|kind| {
            find(ephemeral, kind, None).unwrap_or_else(|| panic!("no {kind} in {ephemeral}"))["content"]
                .clone()
        }));
    }
    for answer in [slide(&format!("&pos={pos}")).await, slide("").await] {
        let rooms = |kind: &str| answer["extensions"][kind]["rooms"][&room]["content"].clone();
        told.push(["typing", "receipts"].map(rooms));
    }
    for [typing, receipts] in told {
        assert_eq!(typing["user_ids"], json!([carol.user_id]));
        let readers = &receipts[&event]["m.read"];
        assert!(readers.get(&carol.user_id).is_some() && readers.get(&bob.user_id).is_none(), "{receipts}");
    }
}

#[tokio::test]
async fn mb_11_invites_that_come_to_be_unwanted_are_no_longer_told() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = bob.create_room(json!({ "invite": [alice.user_id] })).await;
    let told = async || Device::new(&alice).next().await["rooms"]["invite"][&room].is_object();
    assert!(told().await);
    for kind in ["m.invite_permission_config", "org.matrix.msc4380.invite_permission_config"] {
        alice.account_data("", kind, json!({ "default_action": "block" })).await;
        assert!(!told().await, "{kind}");
        let membership = format!("/v3/rooms/{room}/state/m.room.member/{}", alice.user_id);
        assert_eq!(bob.get(&membership).await.expect(200)["membership"], "invite", "the room has it as ever");
        alice.account_data("", kind, json!({})).await;
        assert!(told().await, "{kind}");
    }
}

#[tokio::test]
async fn msc4155_invites_of_the_ignored_are_made_and_not_told() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    alice.account_data("", LISTS, json!({ "ignored_users": ["@bob:*"] })).await;
    let mut device = Device::ready(&alice).await;
    let room = bob.create_room(json!({ "invite": [alice.user_id] })).await;
    let answer = device.next().await;
    assert!(answer["rooms"]["invite"][&room].is_null(), "{answer}");

    let other = bob.create_room(json!({})).await;
    let invite = format!("/v3/rooms/{other}/invite");
    let body = json!({ "user_id": alice.user_id });
    alice.account_data("", LISTS, json!({ "blocked_servers": ["*"] })).await;
    bob.post(&invite, body.clone()).await.expect_error(403, "M_INVITE_BLOCKED");
    alice.account_data("", LISTS, json!({ "enabled": false, "blocked_servers": ["*"] })).await;
    bob.post(&invite, body).await.expect(200);
    assert!(device.next().await["rooms"]["invite"][&other].is_object());
}

/// SY-09: who left and was invited back meanwhile, by somebody whose invites they don't want, is out.
#[tokio::test]
async fn sy19_a_leaving_is_told_though_an_unwanted_invite_follows_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    for (kind, content) in [
        ("m.ignored_user_list", json!({ "ignored_users": { &bob.user_id: {} } })),
        ("m.invite_permission_config", json!({ "default_action": "block" })),
        (LISTS, json!({ "ignored_users": ["@bob:*"] })),
    ] {
        let room = public_room(&bob, &[&alice]).await;
        let mut device = Device::ready(&alice).await;
        alice.leave(&room).await;
        // Nothing but the last of them counts for what the room is to alice.
        bob.invite(&room, &alice.user_id).await;
        bob.send_state(
            &room,
            "m.room.member",
            &alice.user_id,
            json!({ "membership": "invite", "reason": "again" }),
        )
        .await;
        alice.account_data("", kind, content).await;

        let answer = device.next().await;
        let (left, joined) = (&answer["rooms"]["leave"][&room], join(&answer, &room));
        let memberships: Vec<&Value> =
            events(&left["timeline"]).iter().map(|event| &event["content"]["membership"]).collect();
        assert_eq!(memberships, ["leave"], "{kind}: {answer}");
        assert!(joined.is_null() && answer["rooms"]["invite"][&room].is_null(), "{kind}: {answer}");
        // Once.
        let answer = device.next().await;
        assert!(answer["rooms"]["leave"][&room].is_null(), "{kind}: {answer}");
        let first = Device::new(&alice).next().await;
        assert!(!first.to_string().contains(&room), "{kind}: {first}");
        alice.account_data("", kind, json!({})).await;
        assert!(Device::new(&alice).next().await["rooms"]["invite"][&room].is_object(), "{kind}");
    }
}
