//! Ignored users: what they say is not told, what they do to a room is.

use super::*;

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
