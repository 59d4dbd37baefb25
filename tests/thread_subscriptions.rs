//! Subscriptions to threads (MSC4306), what they notify of, and the list of them (MSC4308).

mod common;

use common::{Answer, Server, User};
use serde_json::{Value, json};
use toml::Table;

fn path(room: &str, root: &str) -> String {
    format!("/unstable/io.element.msc4306/rooms/{room}/thread/{root}/subscription")
}

async fn subscribe(user: &User, room: &str, root: &str, cause: Option<&str>) -> Answer {
    let body = cause.map_or_else(|| json!({}), |cause| json!({ "automatic": cause }));
    user.put(&path(room, root), body).await
}

async fn unsubscribe(user: &User, room: &str, root: &str) {
    user.delete(&path(room, root), None).await.expect(200);
}

/// Whether a client made the subscription by itself; `None` without one.
async fn subscription(user: &User, room: &str, root: &str) -> Option<bool> {
    let answer = user.get(&path(room, root)).await;
    if answer.status == 404 {
        answer.expect_error(404, "M_NOT_FOUND");
        return None;
    }
    Some(answer.expect(200)["automatic"].as_bool().expect("`automatic` is a boolean"))
}

async fn reply(user: &User, room: &str, root: &str, body: &str) -> String {
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relation });
    user.send_event(room, "m.room.message", content).await
}

async fn list(user: &User, more: &str) -> Value {
    let path = format!("/unstable/io.element.msc4308/thread_subscriptions?dir=b{more}");
    user.get(&path).await.expect(200)
}

#[tokio::test]
async fn threads_are_subscribed_to_and_unsubscribed_from() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let root = alice.send_text(&room, "root").await;
    let mention = reply(&bob, &room, &root, "@alice").await;

    assert_eq!(subscription(&alice, &room, &root).await, None);
    unsubscribe(&alice, &room, &root).await;
    subscribe(&alice, &room, &root, Some(&mention)).await.expect(200);
    assert_eq!(subscription(&alice, &room, &root).await, Some(true));
    subscribe(&alice, &room, &root, None).await.expect(200);
    assert_eq!(subscription(&alice, &room, &root).await, Some(false));
    // What the user wanted stays what the user wanted.
    subscribe(&alice, &room, &root, Some(&mention)).await.expect(200);
    assert_eq!(subscription(&alice, &room, &root).await, Some(false));
    assert_eq!(subscription(&bob, &room, &root).await, None);
    unsubscribe(&alice, &room, &root).await;
    assert_eq!(subscription(&alice, &room, &root).await, None);
}

#[tokio::test]
async fn no_client_takes_back_that_a_user_unsubscribed() {
    let mut server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let root = alice.send_text(&room, "root").await;
    let before = reply(&alice, &room, &root, "one").await;
    subscribe(&alice, &room, &root, Some(&before)).await.expect(200);
    unsubscribe(&alice, &room, &root).await;
    server.restart().await;

    let conflict = "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION";
    subscribe(&alice, &room, &root, Some(&before)).await.expect_error(409, conflict);
    assert_eq!(subscription(&alice, &room, &root).await, None);
    let after = reply(&alice, &room, &root, "two").await;
    subscribe(&alice, &room, &root, Some(&after)).await.expect(200);
    assert_eq!(subscription(&alice, &room, &root).await, Some(true));
    unsubscribe(&alice, &room, &root).await;
    subscribe(&alice, &room, &root, None).await.expect(200);
    assert_eq!(subscription(&alice, &room, &root).await, Some(false));
}

/// I8, I10: only events of the thread are a cause, and threads that may not be seen aren't there.
#[tokio::test]
async fn only_threads_that_are_seen_can_be_subscribed_to() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    let root = alice.send_text(&room, "root").await;
    let other = alice.send_text(&room, "in the main timeline").await;
    let elsewhere = alice.create_room(json!({})).await;
    let elsewhere = alice.send_text(&elsewhere, "elsewhere").await;
    for cause in [other.as_str(), elsewhere.as_str(), "$unknown"] {
        let answer = subscribe(&alice, &room, &root, Some(cause)).await;
        answer.expect_error(400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD");
    }
    subscribe(&alice, &room, &root, Some("nonsense")).await.expect_error(400, "M_INVALID_PARAM");
    subscribe(&alice, &room, "nonsense", None).await.expect_error(400, "M_INVALID_PARAM");
    alice.put(&path(&room, &root), json!({ "automatic": true })).await.expect_error(400, "M_BAD_JSON");

    for (user, room, root) in [
        (&bob, room.as_str(), root.as_str()),
        (&bob, "!unknown:localhost", root.as_str()),
        (&alice, room.as_str(), "$unknown"),
        (&alice, room.as_str(), elsewhere.as_str()),
    ] {
        subscribe(user, room, root, None).await.expect_error(404, "M_NOT_FOUND");
        user.get(&path(room, root)).await.expect_error(404, "M_NOT_FOUND");
        user.delete(&path(room, root), None).await.expect_error(404, "M_NOT_FOUND");
    }
}

/// Notifications of a room with everything in it, and of one thread.
async fn counts(user: &User, room: &str, root: &str) -> (i64, i64) {
    let filter = "&filter=%7B%22room%22:%7B%22timeline%22:%7B%22unread_thread_notifications%22:true%7D%7D%7D";
    let sync = user.sync_with(None, 0, filter).await;
    let room = &sync["rooms"]["join"][room];
    let main = room["unread_notifications"]["notification_count"].as_i64().expect("a count");
    (main, room["unread_thread_notifications"][root]["notification_count"].as_i64().unwrap_or(0))
}

/// MSC4306's push rules. To those who never subscribed to a thread, whose clients don't know how, threads are as the
/// specification has them.
#[tokio::test]
async fn msc4306_threads_notify_those_who_subscribed() {
    let mut server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    let elsewhere = alice.create_room(json!({ "preset": "public_chat" })).await;
    let other = alice.send_text(&elsewhere, "other").await;
    let root = alice.send_text(&room, "root").await;
    let mut users = Vec::new();
    for name in ["plain", "subscribed", "elsewhere", "ended", "muting"] {
        let user = server.register(name).await;
        user.join(&room).await;
        user.join(&elsewhere).await;
        users.push(user);
    }
    let [plain, subscribed, of_another, ended, muting] = &users[..] else { unreachable!() };
    for user in [subscribed, ended, muting] {
        subscribe(user, &room, &root, None).await.expect(200);
    }
    unsubscribe(ended, &room, &root).await;
    subscribe(of_another, &elsewhere, &other, None).await.expect(200);
    for user in [muting, of_another] {
        let mute = json!({ "actions": [] });
        user.put(&format!("/v3/pushrules/global/room/{room}"), mute).await.expect(200);
    }

    reply(&alice, &room, &root, "one").await;
    let all = async || {
        let mut all = Vec::new();
        for user in &users {
            all.push(counts(user, &room, &root).await);
        }
        all
    };
    assert_eq!(all().await, [(0, 1), (0, 1), (0, 0), (0, 0), (0, 1)]);
    // What isn't in the thread is none of the rules' business.
    alice.send_text(&room, "two").await;
    assert_eq!(all().await, [(1, 1), (1, 1), (0, 0), (1, 0), (0, 1)]);
    // Mentions come first.
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let names: Vec<&str> = users.iter().map(|user| user.user_id.as_str()).collect();
    let mention = json!({ "msgtype": "m.text", "body": "all", "m.relates_to": relation, "m.mentions": { "user_ids": names } });
    alice.send_event(&room, "m.room.message", mention).await;
    assert_eq!(all().await, [(1, 2), (1, 2), (0, 1), (1, 1), (0, 2)]);
    server.restart().await;
    assert_eq!(all().await, [(1, 2), (1, 2), (0, 1), (1, 1), (0, 2)]);
    unsubscribe(subscribed, &room, &root).await;
    reply(&alice, &room, &root, "three").await;
    assert_eq!(counts(subscribed, &room, &root).await, (1, 2));
    assert_eq!(counts(plain, &room, &root).await, (1, 3));
}

#[tokio::test]
async fn subscriptions_are_listed_the_latest_first() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let mut roots = Vec::new();
    for number in 0..5 {
        let root = alice.send_text(&room, &number.to_string()).await;
        subscribe(&alice, &room, &root, None).await.expect(200);
        roots.push(root);
    }
    // One is unsubscribed from, and one that was changed later comes before those that were not.
    unsubscribe(&alice, &room, &roots[1]).await;
    assert_eq!(list(&bob, "").await, json!({}));

    let all = list(&alice, "").await;
    assert_eq!(all["subscribed"][&room].as_object().unwrap().len(), 4);
    assert_eq!(all["subscribed"][&room][&roots[0]]["automatic"], false);
    let stamp = all["unsubscribed"][&room][&roots[1]]["bump_stamp"].as_u64().unwrap();
    assert_eq!(all["unsubscribed"][&room].as_object().unwrap().len(), 1);
    assert!(stamp > all["subscribed"][&room][&roots[4]]["bump_stamp"].as_u64().unwrap());
    assert_eq!(all.get("end"), None);

    let (mut pages, mut from) = (Vec::new(), String::new());
    loop {
        let page = list(&alice, &format!("&limit=2{from}")).await;
        let mut found = Vec::new();
        for kind in ["subscribed", "unsubscribed"] {
            found.extend(page[kind][&room].as_object().into_iter().flatten().map(|(root, _)| root.clone()));
        }
        found.sort();
        pages.push(found);
        let Some(end) = page["end"].as_str() else { break };
        from = format!("&from={end}");
    }
    let sorted = |mut roots: Vec<String>| {
        roots.sort();
        roots
    };
    let expected = [
        sorted(vec![roots[1].clone(), roots[4].clone()]),
        sorted(vec![roots[3].clone(), roots[2].clone()]),
        vec![roots[0].clone()],
    ];
    assert_eq!(pages, expected);
    // Nothing that was there before.
    let first = list(&alice, "&limit=2").await;
    let rest = list(&alice, &format!("&to={}", first["end"].as_str().unwrap())).await;
    assert_eq!(rest, json!({ "subscribed": first["subscribed"], "unsubscribed": first["unsubscribed"] }));

    for wrong in [
        "?limit=5",
        "?dir=f",
        "?dir=b&limit=0",
        "?dir=b&limit=x",
        "?dir=b&from=x",
        "?dir=b&to=s1",
        "?dir=b&to=nonsense",
        "?dir=b&to=r1",
    ] {
        let answer = alice.get(&format!("/unstable/io.element.msc4308/thread_subscriptions{wrong}")).await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
}
