//! Whatever shows an event tells of its children.

use super::*;

/// RL-03, SY-21
#[tokio::test]
async fn rl_03_every_endpoint_bundles() {
    let (mut server, alice, bob, room) = two().await;
    let since = bob.sync(None, 0).await["next_batch"].as_str().expect("a token").to_owned();
    let parent = alice.send_text(&room, "parent").await;
    let message = alice.send_event(&room, "m.room.message", with(text("one"), "m.reference", &parent)).await;
    let edit = alice.edit(&room, &message, "two").await;
    let reply = bob.reply(&room, &parent, "reply").await;

    let check = |event: &Value, place: &str| {
        assert_eq!(event["event_id"], json!(message), "{place}");
        let bundled = &event["unsigned"]["m.relations"]["m.replace"]["event_id"];
        assert_eq!(*bundled, json!(edit), "{place}: {event}");
    };
    let find = |events: &Value, place: &str| {
        let events = events.as_array().unwrap_or_else(|| panic!("{place}: {events}"));
        let event = events.iter().find(|event| event["event_id"] == json!(message));
        check(event.unwrap_or_else(|| panic!("not in {place}")), place);
    };
    for round in ["before", "after a restart"] {
        for dir in ["b", "f"] {
            let page = bob.get(&format!("/v3/rooms/{room}/messages?dir={dir}&limit=100")).await.expect(200);
            find(&page["chunk"], &format!("/messages {dir} {round}"));
        }
        check(&bob.event(&room, &message).await, "/event");
        let around = |event: &str| format!("/v3/rooms/{room}/context/{event}?limit=10");
        check(&bob.get(&around(&message)).await.expect(200)["event"], "/context, the event");
        find(&bob.get(&around(&reply)).await.expect(200)["events_before"], "/context, before");
        find(&bob.get(&around(&parent)).await.expect(200)["events_after"], "/context, after");
        find(&bob.relations(&room, &parent).await["chunk"], "/relations");
        let timeline = |sync: &Value| sync["rooms"]["join"][&room]["timeline"].clone();
        find(&timeline(&bob.sync(None, 0).await)["events"], "an initial /sync");
        let limited = "&filter=%7B%22room%22:%7B%22timeline%22:%7B%22limit%22:3%7D%7D%7D";
        let limited = timeline(&bob.sync_with(Some(&since), 0, limited).await);
        assert_eq!(limited["limited"], json!(true));
        find(&limited["events"], "a limited /sync");
        find(&timeline(&bob.sync(Some(&since), 0).await)["events"], "/sync");
        let threads = bob.threads(&room, "").await;
        let thread = &threads["chunk"][0];
        assert_eq!(thread["event_id"], json!(parent));
        assert_eq!(thread["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"], json!(reply));
        assert_eq!(
            thread["unsigned"]["m.relations"]["m.reference"]["chunk"],
            json!([{ "event_id": message }])
        );
        if round == "before" {
            server.restart().await;
        }
    }
}

/// RL-04
#[tokio::test]
async fn rl_04_state_has_no_bundle() {
    let (_server, alice, bob, room) = two().await;
    let topic = alice.send_state(&room, "m.room.topic", "", json!({ "topic": "relations" })).await;
    bob.refer(&room, &topic).await;
    bob.reply(&room, &topic, "reply").await;
    bob.react(&room, &topic, "👍").await;
    assert_eq!(bob.bundle(&room, &topic).await, Value::Null);
    assert_eq!(chunk(&bob.relations(&room, &topic).await).len(), 3);
    let timeline = bob.sync(None, 0).await["rooms"]["join"][&room]["timeline"]["events"].clone();
    let topic = timeline.as_array().expect("events").iter().find(|event| event["event_id"] == json!(topic));
    assert_eq!(topic.expect("the topic")["unsigned"]["m.relations"], Value::Null);
}

/// What comes after the end of an answer isn't told in it: in the time of a timeline everybody may see all of it, but not
/// for ever.
#[tokio::test]
async fn an_event_of_a_sync_is_told_with_what_came_by_then() {
    let (_server, alice, bob, room) = two().await;
    let since = bob.sync(None, 0).await["next_batch"].as_str().expect("a token").to_owned();
    let message = alice.send_text(&room, "one").await;
    let first = bob.sync(Some(&since), 0).await;
    let first_of = |sync: &Value| sync["rooms"]["join"][&room]["timeline"]["events"][0].clone();
    assert_eq!(first_of(&first)["event_id"], json!(message));
    assert_eq!(first_of(&first)["unsigned"]["m.relations"], Value::Null);
    let edit = alice.edit(&room, &message, "two").await;
    let again = bob.sync(Some(&since), 0).await;
    assert_eq!(first_of(&again)["unsigned"]["m.relations"]["m.replace"]["event_id"], json!(edit));
    // By itself the edit is an event like others.
    let next = bob.sync(first["next_batch"].as_str(), 0).await;
    assert_eq!(first_of(&next)["event_id"], json!(edit));
}

/// RD-04, RL-06: nothing of a redacted child is anywhere, neither beside its parent nor in lists, now or after a restart.
#[tokio::test]
async fn rl_06_a_redacted_child_is_nobodys_child() {
    let (mut server, alice, bob, room) = two().await;
    let message = alice.send_text(&room, "parent").await;
    let children = [
        alice.edit(&room, &message, "secret edit").await,
        alice.refer(&room, &message).await,
        bob.reply(&room, &message, "secret reply").await,
        bob.react(&room, &message, "secret key").await,
    ];
    assert_eq!(chunk(&bob.relations(&room, &message).await).len(), 4);
    for child in &children {
        alice.redact(&room, child).await;
    }
    for round in 0..2 {
        assert_eq!(bob.bundle(&room, &message).await, Value::Null, "round {round}");
        assert_eq!(chunk(&bob.relations(&room, &message).await).len(), 0);
        assert_eq!(chunk(&bob.relations(&room, &format!("{message}?recurse=true")).await).len(), 0);
        assert_eq!(chunk(&bob.threads(&room, "").await).len(), 0);
        server.restart().await;
    }
}
