//! Receipts, read markers, unread counts and typing, as those concerned hear of them by `/sync`.

mod common;

use common::{Server, User};
use futures_util::future::join_all;
use serde_json::{Value, json};
use toml::Table;

/// A room of these people, the first of whom made it.
async fn room_of(people: &[User]) -> String {
    let (owner, guests) = people.split_first().expect("somebody makes the room");
    let room = owner.create_room(json!({ "preset": "private_chat" })).await;
    for guest in guests {
        owner.invite(&room, &guest.user_id).await;
        guest.join(&room).await;
    }
    room
}

async fn people<const N: usize>(server: &Server, names: [&str; N]) -> Vec<User> {
    join_all(names.map(|name| server.register(name))).await
}

async fn mark(user: &User, room: &str, kind: &str, event: &str, body: Value) {
    user.post(&format!("/v3/rooms/{room}/receipt/{kind}/{event}"), body).await.expect(200);
}

fn next(sync: &Value) -> String {
    sync["next_batch"].as_str().expect("each sync has a next_batch").to_owned()
}

fn joined<'a>(sync: &'a Value, room: &str) -> &'a Value {
    &sync["rooms"]["join"][room]
}

/// The events of a type in a list of an answer.
fn of_type<'a>(list: &'a Value, kind: &str) -> Vec<&'a Value> {
    let events = list["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter(|event| event["type"] == kind).collect()
}

fn members_of(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().unwrap_or_else(|| panic!("not an object: {object}")).iter()
}

/// The receipts of an answer: `type user event thread`.
fn receipts(sync: &Value, room: &str) -> Vec<String> {
    let mut all = Vec::new();
    for event in of_type(&joined(sync, room)["ephemeral"], "m.receipt") {
        for (id, kinds) in members_of(&event["content"]) {
            for (kind, users) in members_of(kinds) {
                for (user, data) in members_of(users) {
                    assert!(data["ts"].is_i64(), "{data}");
                    let thread = data["thread_id"].as_str().unwrap_or("-");
                    all.push(format!("{kind} {user} {id} {thread}"));
                }
            }
        }
    }
    all.sort();
    all
}

fn unread(sync: &Value, room: &str) -> (i64, i64) {
    let unread = &joined(sync, room)["unread_notifications"];
    let count = |name: &str| unread[name].as_i64().unwrap_or_else(|| panic!("no {name} in {sync}"));
    (count("notification_count"), count("highlight_count"))
}

/// RC-20, RC-21: members hear of a receipt, and only its owner of a private one; it is one per type, and remembered.
#[tokio::test]
async fn receipts_reach_those_whom_they_concern() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob", "carol"]).await;
    let [alice, bob, carol] = &all[..] else { panic!("three people") };
    let room = room_of(&all).await;
    let first = alice.send_text(&room, "one").await;
    let second = alice.send_text(&room, "two").await;
    let bobs_other_device = server.login("bob").await;
    let mut since = Vec::new();
    for user in [alice, carol, &bobs_other_device] {
        since.push(next(&user.sync(None, 0).await));
    }

    mark(bob, &room, "m.read", &first, json!({})).await;
    mark(bob, &room, "m.read.private", &second, json!({})).await;
    let public = format!("m.read {} {first} -", bob.user_id);
    let private = format!("m.read.private {} {second} -", bob.user_id);
    let heard = async |user: &User, since: &str| receipts(&user.sync(Some(since), 0).await, &room);
    assert_eq!(heard(alice, &since[0]).await, std::slice::from_ref(&public));
    assert_eq!(heard(carol, &since[1]).await, std::slice::from_ref(&public));
    assert_eq!(heard(&bobs_other_device, &since[2]).await, [public.clone(), private.clone()]);
    // So it is for who starts anew.
    assert_eq!(receipts(&alice.sync(None, 0).await, &room), [public]);

    mark(bob, &room, "m.read", &second, json!({})).await;
    let moved = format!("m.read {} {second} -", bob.user_id);
    assert_eq!(receipts(&alice.sync(None, 0).await, &room), std::slice::from_ref(&moved));
    assert_eq!(receipts(&bob.sync(None, 0).await, &room), [moved, private]);
}

/// A receipt never goes back, and one that changes nothing wakes nobody.
#[tokio::test]
async fn receipts_only_move_forwards() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob"]).await;
    let room = room_of(&all).await;
    let first = all[0].send_text(&room, "one").await;
    let second = all[0].send_text(&room, "two").await;
    for kind in ["m.read", "m.read.private", "m.fully_read"] {
        mark(&all[1], &room, kind, &second, json!({})).await;
    }
    let since = next(&all[1].sync(None, 0).await);
    for kind in ["m.read", "m.read.private", "m.fully_read"] {
        for event in [&first, &second] {
            mark(&all[1], &room, kind, event, json!({})).await;
        }
    }
    let sync = all[1].sync(Some(&since), 0).await;
    assert!(sync["rooms"]["join"].get(&room).is_none(), "{sync}");
    let sync = all[1].sync(None, 0).await;
    let at_second = |kind: &str| format!("{kind} {} {second} -", all[1].user_id);
    assert_eq!(receipts(&sync, &room), [at_second("m.read"), at_second("m.read.private")]);
    let marker = of_type(&joined(&sync, &room)["account_data"], "m.fully_read");
    assert_eq!(marker[0]["content"], json!({ "event_id": second }));
}

/// RC-22, RC-26, I10: what is no receipt is refused, and changes nothing.
#[tokio::test]
async fn receipts_that_make_no_sense_are_refused() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob", "stranger"]).await;
    let [alice, bob, stranger] = &all[..] else { panic!("three people") };
    let room = room_of(&all[..2]).await;
    let event = alice.send_text(&room, "one").await;
    let threaded = json!({
        "msgtype": "m.text", "body": "in the thread",
        "m.relates_to": { "rel_type": "m.thread", "event_id": event },
    });
    let reply = alice.send_event(&room, "m.room.message", threaded).await;
    let other = alice.send_text(&room, "elsewhere").await;
    let post = async |user: &User, kind: &str, event: &str, body: Value| {
        user.post(&format!("/v3/rooms/{room}/receipt/{kind}/{event}"), body).await
    };

    for (kind, event, thread) in [
        ("m.read", &event, json!("")),
        ("m.read", &event, json!(3)),
        ("m.read", &event, json!("not-an-event")),
        ("m.read", &reply, json!("main")),
        ("m.read", &reply, json!(other)),
        ("m.read", &other, json!(event)),
        ("m.read.private", &other, json!("$unknown")),
        ("m.fully_read", &event, json!("main")),
        ("m.unheard_of", &event, Value::Null),
    ] {
        let answer = post(bob, kind, event, json!({ "thread_id": thread })).await;
        answer.expect_error(400, "M_INVALID_PARAM");
    }
    for kind in ["m.read", "m.read.private", "m.fully_read"] {
        post(bob, kind, "$unknown", json!({})).await.expect_error(404, "M_NOT_FOUND");
        post(stranger, kind, &event, json!({})).await.expect_error(403, "M_FORBIDDEN");
    }
    let markers = format!("/v3/rooms/{room}/read_markers");
    let half = json!({ "m.read": event, "m.fully_read": "$unknown" });
    bob.post(&markers, half).await.expect_error(404, "M_NOT_FOUND");
    let direct = format!("/v3/user/{}/rooms/{room}/account_data/m.fully_read", bob.user_id);
    assert_eq!(bob.put(&direct, json!({ "event_id": event })).await.status, 405);
    let sync = bob.sync(None, 0).await;
    assert_eq!(receipts(&sync, &room), Vec::<String>::new());
    assert!(of_type(&joined(&sync, &room)["account_data"], "m.fully_read").is_empty());
}

/// RC-26: one request sets the marker and the receipts; the marker is its owner's alone.
#[tokio::test]
async fn read_markers_set_all_three() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob"]).await;
    let [alice, bob] = &all[..] else { panic!("two people") };
    let room = room_of(&all).await;
    let mut sent = Vec::new();
    for text in ["one", "two", "three"] {
        sent.push(alice.send_text(&room, text).await);
    }
    let (alices, bobs) = (next(&alice.sync(None, 0).await), next(&bob.sync(None, 0).await));
    let markers = json!({ "m.fully_read": sent[0], "m.read": sent[1], "m.read.private": sent[2] });
    bob.post(&format!("/v3/rooms/{room}/read_markers"), markers).await.expect(200);

    let sync = bob.sync(Some(&bobs), 0).await;
    let marker = of_type(&joined(&sync, &room)["account_data"], "m.fully_read");
    assert_eq!(marker[0]["content"], json!({ "event_id": sent[0] }));
    assert_eq!(receipts(&sync, &room).len(), 2);
    let sync = alice.sync(Some(&alices), 0).await;
    assert_eq!(receipts(&sync, &room), [format!("m.read {} {} -", bob.user_id, sent[1])]);
    assert!(of_type(&joined(&sync, &room)["account_data"], "m.fully_read").is_empty());
}

/// RC-24, SY-14: either receipt ends the notifications up to where it is, on all devices.
#[tokio::test]
async fn receipts_end_notifications() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob", "carol"]).await;
    let [alice, bob, _] = &all[..] else { panic!("three people") };
    let room = room_of(&all).await;
    let mut sent = vec![alice.send_text(&room, "one").await, alice.send_text(&room, "two").await];
    let mention = json!({ "msgtype": "m.text", "body": "bob!", "m.mentions": { "user_ids": [bob.user_id] } });
    sent.push(alice.send_event(&room, "m.room.message", mention).await);
    let sync = bob.sync(None, 0).await;
    // The invite counted until he joined.
    let (before, highlights) = unread(&sync, &room);
    assert!(before >= 3);
    assert_eq!(highlights, 1);

    let other_device = server.login("bob").await;
    let others = next(&other_device.sync(None, 0).await);
    mark(bob, &room, "m.read.private", &sent[1], json!({})).await;
    let sync = other_device.sync(Some(&others), 0).await;
    assert_eq!(unread(&sync, &room), (1, 1));
    mark(bob, &room, "m.read", &sent[0], json!({})).await;
    assert_eq!(unread(&bob.sync(None, 0).await, &room), (1, 1), "it is behind the private one");
    mark(bob, &room, "m.read", &sent[2], json!({})).await;
    let sync = other_device.sync(Some(&next(&sync)), 0).await;
    assert_eq!(unread(&sync, &room), (0, 0));
}

/// Says something in the thread of an event.
async fn reply(user: &User, room: &str, root: &str, text: &str) -> String {
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let content = json!({ "msgtype": "m.text", "body": text, "m.relates_to": relation });
    user.send_event(room, "m.room.message", content).await
}

/// What somebody hasn't read outside of threads, and in that of an event.
async fn unread_by_thread(user: &User, room: &str, root: &str) -> (i64, i64) {
    let filter =
        "&filter=%7B%22room%22%3A%7B%22timeline%22%3A%7B%22unread_thread_notifications%22%3Atrue%7D%7D%7D";
    let sync = user.sync_with(None, 0, filter).await;
    let thread = &joined(&sync, room)["unread_thread_notifications"][root]["notification_count"];
    (unread(&sync, room).0, thread.as_i64().unwrap_or(0))
}

/// RC-20, RC-22, RC-23, PU-11, SY-15: each thread is read by itself, the main timeline too.
#[tokio::test]
async fn threads_are_read_one_by_one() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob"]).await;
    let [alice, bob] = &all[..] else { panic!("two people") };
    let room = room_of(&all).await;
    let start = alice.send_text(&room, "root").await;
    let in_thread = async |text: &str| reply(alice, &room, &start, text).await;
    let one = in_thread("one").await;
    in_thread("two").await;
    let last = alice.send_text(&room, "main").await;
    let relation = json!({ "rel_type": "m.annotation", "event_id": one, "key": "+" });
    let reaction = alice.send_event(&room, "m.reaction", json!({ "m.relates_to": relation })).await;
    let counts = async || unread_by_thread(bob, &room, &start).await;
    mark(bob, &room, "m.read", &start, json!({ "thread_id": "main" })).await;
    assert_eq!(counts().await, (1, 2));
    mark(bob, &room, "m.read", &one, json!({ "thread_id": start })).await;
    assert_eq!(counts().await, (1, 1));
    mark(bob, &room, "m.read", &last, json!({ "thread_id": "main" })).await;
    assert_eq!(counts().await, (0, 1), "the thread is not read by reading the main timeline");
    // A reaction to a reply is in the thread, and not in the main timeline.
    let path = format!("/v3/rooms/{room}/receipt/m.read/{reaction}");
    bob.post(&path, json!({ "thread_id": "main" })).await.expect_error(400, "M_INVALID_PARAM");
    mark(bob, &room, "m.read", &reaction, json!({ "thread_id": start })).await;
    assert_eq!(counts().await, (0, 0));
    in_thread("three").await;
    assert_eq!(counts().await, (0, 1));

    // The root may be read in either.
    mark(bob, &room, "m.read.private", &start, json!({ "thread_id": start })).await;
    let mut expected = vec![
        format!("m.read {} {last} main", bob.user_id),
        format!("m.read {} {reaction} {start}", bob.user_id),
        format!("m.read.private {} {start} {start}", bob.user_id),
    ];
    expected.sort();
    assert_eq!(receipts(&bob.sync(None, 0).await, &room), expected);

    // An unthreaded receipt is for everything, in a place of its own.
    let newest = alice.send_text(&room, "newest").await;
    mark(bob, &room, "m.read", &newest, json!({})).await;
    assert_eq!(counts().await, (0, 0));
    assert_eq!(receipts(&bob.sync(None, 0).await, &room).len(), 4);
}

/// Who says something in a thread has read that thread, and who says it outside of threads what is there.
#[tokio::test]
async fn who_sends_has_read_the_thread_that_they_send_to() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob"]).await;
    let [alice, bob] = &all[..] else { panic!("two people") };
    let room = room_of(&all).await;
    let start = alice.send_text(&room, "root").await;
    let in_thread = async |user: &User, text: &str| reply(user, &room, &start, text).await;
    mark(bob, &room, "m.read", &start, json!({})).await;
    let counts = async || unread_by_thread(bob, &room, &start).await;
    in_thread(alice, "one").await;
    alice.send_text(&room, "main").await;
    assert_eq!(counts().await, (1, 1));
    let own = in_thread(bob, "two").await;
    assert_eq!(counts().await, (1, 0));
    in_thread(alice, "three").await;
    bob.send_text(&room, "main").await;
    assert_eq!(counts().await, (0, 1));
    alice.send_text(&room, "main").await;
    let relation = json!({ "rel_type": "m.annotation", "event_id": own, "key": "+" });
    bob.send_event(&room, "m.reaction", json!({ "m.relates_to": relation })).await;
    assert_eq!(counts().await, (1, 0), "a reaction is where its target is");
    // Nothing is told to others.
    assert_eq!(receipts(&alice.sync(None, 0).await, &room), [format!("m.read {} {start} -", bob.user_id)]);
}

/// RC-25: where a receipt for everything and one for a thread are on one event, the former is told, whichever came first.
#[tokio::test]
async fn a_receipt_for_everything_hides_that_for_a_thread() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob"]).await;
    let room = room_of(&all).await;
    let one = all[0].send_text(&room, "one").await;
    let two = all[0].send_text(&room, "two").await;
    for (event, threads) in [(&one, [Value::Null, json!("main")]), (&two, [json!("main"), Value::Null])] {
        for thread in threads {
            mark(&all[1], &room, "m.read", event, json!({ "thread_id": thread })).await;
        }
        let told = receipts(&all[0].sync(None, 0).await, &room);
        assert_eq!(told, [format!("m.read {} {event} -", all[1].user_id)]);
    }
}

/// Receipts given at once, by different devices, end where the one furthest ahead is.
#[tokio::test]
async fn concurrent_receipts_end_at_the_furthest() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob"]).await;
    let room = room_of(&all).await;
    let mut sent = Vec::new();
    for number in 0..10 {
        sent.push(all[0].send_text(&room, &number.to_string()).await);
    }
    join_all(sent.iter().rev().map(|event| mark(&all[1], &room, "m.read", event, json!({})))).await;
    let sync = all[1].sync(None, 0).await;
    assert_eq!(receipts(&sync, &room), [format!("m.read {} {} -", all[1].user_id, sent[9])]);
    assert_eq!(unread(&sync, &room), (0, 0));
}

fn typing(sync: &Value, room: &str) -> Option<Vec<String>> {
    let event = of_type(&joined(sync, room)["ephemeral"], "m.typing").pop()?;
    let users: Result<Vec<String>, _> = serde_json::from_value(event["content"]["user_ids"].clone());
    Some(users.unwrap_or_else(|cause| panic!("{cause}: {event}")))
}

async fn types(user: &User, room: &str, body: Value) {
    user.put(&format!("/v3/rooms/{room}/typing/{}", user.user_id), body).await.expect(200);
}

/// TY-01, SY-22: typing is heard while it lasts, each time with all who type, and ends by word or by itself.
#[tokio::test]
async fn typing_is_heard_and_ends() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob", "carol"]).await;
    let [alice, bob, carol] = &all[..] else { panic!("three people") };
    let room = room_of(&all).await;
    let mut since = next(&alice.sync(None, 0).await);
    // The answer to a request that waits for exactly this.
    let hear = async |since: &mut String| {
        let sync = alice.sync(Some(since), 30_000).await;
        *since = next(&sync);
        typing(&sync, &room).unwrap_or_else(|| panic!("nobody's typing is news in {sync}"))
    };

    types(bob, &room, json!({ "typing": true, "timeout": 30_000 })).await;
    assert_eq!(hear(&mut since).await, std::slice::from_ref(&bob.user_id));
    // Who goes on typing is no news.
    types(bob, &room, json!({ "typing": true, "timeout": 30_000 })).await;
    let sync = alice.sync(Some(&since), 0).await;
    assert_eq!(typing(&sync, &room), None);
    types(carol, &room, json!({ "typing": true })).await;
    assert_eq!(hear(&mut since).await, [bob.user_id.clone(), carol.user_id.clone()]);
    types(bob, &room, json!({ "typing": false })).await;
    assert_eq!(hear(&mut since).await, std::slice::from_ref(&carol.user_id));
    // A new request replaces the old one, here by one that is soon over.
    types(carol, &room, json!({ "typing": true, "timeout": 50 })).await;
    assert_eq!(hear(&mut since).await, Vec::<String>::new());
    // Whoever comes now hears of nobody.
    assert_eq!(typing(&bob.sync(None, 0).await, &room), None);
}

/// TY-01: typing wakes a request that waits.
#[tokio::test]
async fn typing_wakes_who_waits() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob"]).await;
    let room = room_of(&all).await;
    let since = next(&all[0].sync(None, 0).await);
    let waiting = all[0].sync(Some(&since), 30_000);
    let (sync, ()) = tokio::join!(waiting, types(&all[1], &room, json!({ "typing": true })));
    assert_eq!(typing(&sync, &room), Some(vec![all[1].user_id.clone()]));
}

#[tokio::test]
async fn nobody_types_for_others_or_in_rooms_they_are_not_in() {
    let server = Server::start(Table::new()).await;
    let all = people(&server, ["alice", "bob", "stranger"]).await;
    let [alice, bob, stranger] = &all[..] else { panic!("three people") };
    let room = room_of(&all[..2]).await;
    let body = json!({ "typing": true });
    for (user, whom, room) in
        [(alice, bob, &*room), (stranger, stranger, &room), (alice, alice, "!nowhere:localhost")]
    {
        let answer = user.put(&format!("/v3/rooms/{room}/typing/{}", whom.user_id), body.clone()).await;
        answer.expect_error(403, "M_FORBIDDEN");
    }
    let path = format!("/v3/rooms/{room}/typing/{}", alice.user_id);
    alice.put(&path, json!({ "typing": "yes" })).await.expect_error(400, "M_BAD_JSON");

    // Nobody outside hears of it, in whatever rooms they are.
    room_of(std::slice::from_ref(stranger)).await;
    let since = next(&stranger.sync(None, 0).await);
    types(bob, &room, body).await;
    let heard = stranger.sync(Some(&since), 0).await;
    assert!(heard.get("rooms").is_none(), "{heard}");

    // Who leaves stops typing.
    assert_eq!(typing(&alice.sync(None, 0).await, &room), Some(vec![bob.user_id.clone()]));
    bob.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    let heard = typing(&alice.sync(None, 0).await, &room).unwrap_or_default();
    assert!(heard.is_empty(), "{heard:?}");
}
