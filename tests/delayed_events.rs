//! Delayed events (MSC4140): events that the server sends later.

mod common;

use common::{Answer, Server, User, eventually, transaction_id};
use http::StatusCode;
use serde_json::{Value, json};
use toml::{Table, toml};

const UNSTABLE: &str = "/unstable/org.matrix.msc4140";

/// An hour: later than any test.
const LATER: u64 = 3_600_000;

async fn try_delay(user: &User, room: &str, delay: &str, body: &str) -> Answer {
    let path =
        format!("/v3/rooms/{room}/send/m.room.message/{}?org.matrix.msc4140.delay={delay}", transaction_id());
    user.put(&path, json!({ "msgtype": "m.text", "body": body })).await
}

/// Schedules a text as today's clients do; its `delay_id`.
async fn delay(user: &User, room: &str, delay: u64, body: &str) -> String {
    id(&try_delay(user, room, &delay.to_string(), body).await.expect(200))
}

fn id(answer: &Value) -> String {
    answer["delay_id"].as_str().unwrap_or_else(|| panic!("no delay_id in {answer}")).to_owned()
}

/// The texts of a room, oldest first.
async fn texts(user: &User, room: &str) -> Vec<String> {
    let page = user.get(&format!("/v3/rooms/{room}/messages?dir=f&limit=100")).await.expect(200);
    let events = page["chunk"].as_array().into_iter().flatten();
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

async fn scheduled(user: &User) -> Vec<Value> {
    let list = user.get(&format!("{UNSTABLE}/delayed_events")).await.expect(200);
    list["delayed_events"].as_array().expect("a list").clone()
}

async fn one(user: &User, delay_id: &str) -> Value {
    user.get(&format!("/v1/delayed_events/{delay_id}")).await.expect(200)
}

async fn act(user: &User, delay_id: &str, action: &str) -> Answer {
    user.post(&format!("/v1/delayed_events/{delay_id}/{action}"), json!({})).await
}

async fn settled(user: &User, delay_id: &str) -> Value {
    eventually("the delayed event is settled", || async {
        let found = one(user, delay_id).await;
        found.get("finalised_ts").is_some().then_some(found)
    })
    .await
}

#[tokio::test]
async fn a_delayed_message_is_sent_when_its_time_has_come() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;

    let delay_id = delay(&alice, &room, 50, "later").await;
    let event_id = settled(&alice, &delay_id).await["event_id"].as_str().unwrap().to_owned();

    // Its sender learns which it was, on every device; nobody else does.
    let path = format!("/v3/rooms/{room}/event/{event_id}");
    for device in [&alice, &server.login("alice").await] {
        let event = device.get(&path).await.expect(200);
        assert_eq!(event["content"]["body"], "later");
        assert_eq!(event["unsigned"]["delay_id"], delay_id);
        assert_eq!(event["unsigned"]["org.matrix.msc4140.delay_id"], delay_id);
        assert_eq!(event["unsigned"].get("transaction_id"), None);
    }
    let event = bob.get(&path).await.expect(200);
    assert_eq!(event["content"]["body"], "later");
    assert_eq!(event["unsigned"].get("delay_id"), None);
    assert_eq!(scheduled(&alice).await, Vec::<Value>::new());
}

/// Who isn't there reads nothing.
#[tokio::test]
async fn a_delayed_message_leaves_unread_what_is() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    bob.send_text(&room, "early").await;
    let delay_id = delay(&alice, &room, 50, "later").await;
    settled(&alice, &delay_id).await;
    let sync = alice.sync(None, 0).await;
    let unread = &sync["rooms"]["join"][&room]["unread_notifications"]["notification_count"];
    assert_eq!(*unread, 1);
}

#[tokio::test]
async fn delayed_state_is_state() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let path = format!("/v3/rooms/{room}/state/m.room.topic?org.matrix.msc4140.delay=50");
    let delay_id = id(&alice.put(&path, json!({ "topic": "later" })).await.expect(200));
    settled(&alice, &delay_id).await;
    let topic = alice.get(&format!("/v3/rooms/{room}/state/m.room.topic")).await.expect(200);
    assert_eq!(topic, json!({ "topic": "later" }));
}

#[tokio::test]
async fn what_is_scheduled_is_listed_in_the_order_of_the_times() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    let second = delay(&alice, &room, 2 * LATER, "second").await;
    let path = format!("{UNSTABLE}/rooms/{room}/delayed_event/org.example.state/x");
    let body = json!({ "delay_ms": LATER, "state_key": "k", "content": { "a": 1 } });
    let first = id(&alice.put(&path, body).await.expect(200));

    let list = scheduled(&alice).await;
    assert_eq!(list.iter().map(id).collect::<Vec<_>>(), [first.clone(), second.clone()]);
    assert_eq!(list[0]["room_id"], *room);
    assert_eq!(list[0]["type"], "org.example.state");
    assert_eq!(list[0]["state_key"], "k");
    assert_eq!(list[0]["delay_ms"], LATER);
    assert_eq!(list[0]["content"], json!({ "a": 1 }));
    assert!(list[0]["scheduled_at"].as_u64().unwrap() > 0);
    // What clients of the drafts call them.
    assert_eq!(
        (&list[0]["delay"], &list[0]["running_since"]),
        (&list[0]["delay_ms"], &list[0]["scheduled_at"])
    );
    let stable = alice.get("/v1/delayed_events").await.expect(200);
    assert_eq!(stable["delayed_events"][1]["delay_id"], second);
    assert_eq!(stable["delayed_events"][1].get("state_key"), None);
    assert_eq!(stable["delayed_events"][1].get("running_since"), None);

    // They are nobody else's business.
    assert_eq!(scheduled(&bob).await, Vec::<Value>::new());
    for delay_id in [first.as_str(), "invented"] {
        let answer = bob.get(&format!("/v1/delayed_events/{delay_id}")).await;
        answer.expect_error(404, "M_NOT_FOUND");
        act(&bob, delay_id, "cancel").await.expect_error(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn one_transaction_schedules_one_event() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    for path in [
        format!("/v3/rooms/{room}/send/m.room.message/t?org.matrix.msc4140.delay={LATER}"),
        format!("/v3/rooms/{room}/delayed_event/m.room.message/t"),
    ] {
        let text = json!({ "msgtype": "m.text", "body": "once" });
        let body = json!({ "msgtype": "m.text", "body": "once", "delay_ms": LATER, "content": text });
        let first = id(&alice.put(&path, body.clone()).await.expect(200));
        assert_eq!(id(&alice.put(&path, body).await.expect(200)), first);
    }
    assert_eq!(scheduled(&alice).await.len(), 2);
}

#[tokio::test]
async fn delayed_events_are_sent_early_restarted_and_cancelled() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let by_body = |delay_id: &str, action: &str| {
        let (path, body) = (format!("{UNSTABLE}/delayed_events/{delay_id}"), json!({ "action": action }));
        let http = server.http().clone();
        async move { http.post(&path, None, body).await }
    };

    let early = delay(&alice, &room, LATER, "early").await;
    let before = one(&alice, &early).await;
    // As the server of a call does it, which has no token, and as older clients do.
    let path = format!("{UNSTABLE}/delayed_events/{early}/restart");
    server.http().post(&path, None, json!({})).await.expect(200);
    by_body(&early, "restart").await.expect(200);
    let after = one(&alice, &early).await;
    assert!(after["scheduled_at"].as_u64() >= before["scheduled_at"].as_u64());
    by_body(&early, "send").await.expect(200);
    let sent = one(&alice, &early).await;
    assert!(sent["event_id"].is_string(), "{sent}");
    assert_eq!(texts(&alice, &room).await, ["early"]);

    let cancelled = delay(&alice, &room, LATER, "never").await;
    act(&alice, &cancelled, "cancel").await.expect(200);
    let found = one(&alice, &cancelled).await;
    assert!(found["finalised_ts"].is_u64(), "{found}");
    assert_eq!((found.get("event_id"), found.get("error")), (None, None));

    // Done is done; tried again it succeeds, and anything else conflicts.
    for (delay_id, same, others) in
        [(&early, "send", ["restart", "cancel"]), (&cancelled, "cancel", ["restart", "send"])]
    {
        act(&alice, delay_id, same).await.expect(200);
        for other in others {
            act(&alice, delay_id, other).await.expect_error(409, "M_UNKNOWN");
        }
    }
    act(&alice, &early, "forget").await.expect_error(404, "M_UNRECOGNIZED");
    let unstable = format!("{UNSTABLE}/delayed_events/none/forget");
    server.http().post(&unstable, None, json!({})).await.expect_error(404, "M_UNRECOGNIZED");
    by_body(&early, "forget").await.expect_error(400, "M_INVALID_PARAM");
    server
        .http()
        .post(&format!("{UNSTABLE}/delayed_events/{early}"), None, json!({}))
        .await
        .expect_error(400, "M_MISSING_PARAM");
    // On the stable path one needs a token.
    let path = format!("/v1/delayed_events/{early}/send");
    server.http().post(&path, None, json!({})).await.expect_error(401, "M_MISSING_TOKEN");
    assert_eq!(texts(&alice, &room).await, ["early"]);
}

/// I3: each is sent once, those that are overdue first, in the order of their times.
#[tokio::test]
async fn delayed_events_survive_the_server() {
    let mut server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    // Not before the server is gone …
    let mut overdue = Vec::new();
    for (wait, text) in [(900, "three"), (300, "one"), (600, "two")] {
        overdue.push(delay(&alice, &room, wait, text).await);
    }
    let last = delay(&alice, &room, LATER, "four").await;
    let due = scheduled(&alice).await;
    server.kill().await;
    let sent_before = due.iter().map(|one| one["scheduled_at"].as_u64().unwrap()).max().unwrap() + 900;
    // … and when it comes back all of them are late.
    eventually("the times are over", || async { (now_ms() > sent_before).then_some(()) }).await;
    server.start_again().await;

    let alice = server.login("alice").await;
    eventually("what is overdue is sent", || async { (scheduled(&alice).await.len() == 1).then_some(()) })
        .await;
    act(&alice, &last, "send").await.expect(200);
    // Scheduling one may have taken longer than the next has to wait.
    let mut expected = Vec::new();
    for delay_id in overdue {
        let found = one(&alice, &delay_id).await;
        let number = |name: &str| found[name].as_u64().expect("a number");
        let text = found["content"]["body"].as_str().expect("a text").to_owned();
        expected.push((number("scheduled_at") + number("delay_ms"), delay_id, text));
    }
    expected.sort();
    let expected = expected.into_iter().map(|(_, _, text)| text).chain(["four".to_owned()]);
    assert_eq!(texts(&alice, &room).await, expected.collect::<Vec<_>>());
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_millis()) as u64
}

#[tokio::test]
async fn what_is_refused_when_it_is_due_is_told_and_not_tried_again() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let early = delay(&bob, &room, LATER, "early").await;
    // Whether he may is a question of then, not of now.
    let path = format!("/v3/rooms/{room}/state/m.room.name?org.matrix.msc4140.delay=20");
    let due = id(&bob.put(&path, json!({ "name": "Bob's" })).await.expect(200));
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);

    // An attempt to send it now fails as `/send` would, and it stays scheduled.
    act(&bob, &early, "send").await.expect_error(403, "M_FORBIDDEN");
    assert_eq!(one(&bob, &early).await.get("finalised_ts"), None);
    let found = settled(&bob, &due).await;
    assert_eq!(found["error"]["errcode"], "M_FORBIDDEN");
    assert_eq!(found.get("event_id"), None);
    assert_eq!(texts(&alice, &room).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_session_may_end_but_not_the_account() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let kept = delay(&alice, &room, LATER, "kept").await;
    alice.post("/v3/logout", json!({})).await.expect(200);
    let alice = server.login("alice").await;
    act(&alice, &kept, "send").await.expect(200);

    let lost = delay(&bob, &room, LATER, "lost").await;
    let auth = json!({ "type": "m.login.password", "password": common::PASSWORD,
        "identifier": { "type": "m.id.user", "user": "bob" } });
    bob.post("/v3/account/deactivate", json!({ "auth": auth })).await.expect(200);
    let path = format!("{UNSTABLE}/delayed_events/{lost}/send");
    server.http().post(&path, None, json!({})).await.expect_error(409, "M_UNKNOWN");
    assert_eq!(texts(&alice, &room).await, ["kept"]);
}

#[tokio::test]
async fn the_operator_limits_delays_and_their_number() {
    let config = toml! {
        [delayed_events]
        max_delay_seconds = 60
        max_scheduled = 2
    };
    let server = Server::start(config).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let capabilities = alice.get("/v3/capabilities").await.expect(200);
    let told = json!({ "max_delay_ms": 60_000, "max_scheduled": 2 });
    assert_eq!(capabilities["capabilities"]["m.delayed_events"], told);
    assert_eq!(capabilities["capabilities"]["org.matrix.msc4140.delayed_events"], told);

    // In the form of today's clients, and in that of the accepted proposal.
    let answer = try_delay(&alice, &room, "60001", "too late").await.expect_error(400, "M_UNKNOWN");
    assert_eq!(answer["org.matrix.msc4140.errcode"], "M_MAX_DELAY_EXCEEDED");
    assert_eq!(answer["org.matrix.msc4140.max_delay"], 60_000);
    let path = format!("/v3/rooms/{room}/delayed_event/m.x/t");
    let body = |delay: u64| json!({ "delay_ms": delay, "content": {} });
    alice.put(&path, body(60_001)).await.expect_error(403, "M_FORBIDDEN");

    let first = delay(&alice, &room, 60_000, "one").await;
    delay(&alice, &room, 60_000, "two").await;
    let answer = alice.put(&path, body(1_000)).await;
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    answer.expect_error(429, "M_LIMIT_EXCEEDED");
    let answer = try_delay(&alice, &room, "1000", "three").await.expect_error(429, "M_LIMIT_EXCEEDED");
    assert_eq!(answer["org.matrix.msc4140.errcode"], "M_MAX_DELAYED_EVENTS_EXCEEDED");
    act(&alice, &first, "cancel").await.expect(200);
    delay(&alice, &room, 60_000, "three").await;
}

#[tokio::test]
async fn a_server_may_schedule_nothing_at_all() {
    let server = Server::start(toml! { delayed_events.max_scheduled = 0 }).await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    try_delay(&alice, &room, "1000", "never").await.expect_error(403, "M_FORBIDDEN");
}

/// I8, I10: nonsense is refused when it is scheduled, and rooms of others are as unknown ones.
#[tokio::test]
async fn nonsense_is_not_scheduled() {
    let server = Server::start(Table::new()).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "private_chat" })).await;
    for wrong in ["0", "-1", "soon", "", "1.5", "99999999999999999999"] {
        try_delay(&alice, &room, wrong, "x").await.expect_error(400, "M_INVALID_PARAM");
    }
    let path = format!("/v3/rooms/{room}/delayed_event/m.room.message/t");
    let content = json!({ "msgtype": "m.text", "body": "x" });
    for (body, errcode) in [
        (json!({ "content": content }), "M_MISSING_PARAM"),
        (json!({ "delay_ms": 1000 }), "M_MISSING_PARAM"),
        (json!({ "delay_ms": "1000", "content": content }), "M_INVALID_PARAM"),
        (json!({ "delay_ms": 0, "content": content }), "M_INVALID_PARAM"),
        (json!({ "delay_ms": 1000, "content": [] }), "M_BAD_JSON"),
        (json!({ "delay_ms": 1000, "content": {} }), "M_BAD_JSON"),
        (json!({ "delay_ms": 1000, "content": content, "state_key": 5 }), "M_BAD_JSON"),
        (json!({ "delay_ms": 1000, "content": content, "state_key": "x".repeat(256) }), "M_INVALID_PARAM"),
        (json!([]), "M_BAD_JSON"),
    ] {
        alice.put(&path, body).await.expect_error(400, errcode);
    }
    let body = json!({ "delay_ms": 1000, "content": { "msgtype": "m.text", "body": "x".repeat(65_536) } });
    alice.put(&path, body).await.expect_error(StatusCode::PAYLOAD_TOO_LARGE.as_u16(), "M_TOO_LARGE");
    for room in [room.as_str(), "!unknown:localhost"] {
        try_delay(&bob, room, "1000", "x").await.expect_error(403, "M_FORBIDDEN");
    }
    assert_eq!(scheduled(&alice).await, Vec::<Value>::new());
}
