//! Presence: who is seen as what, by whom, and for how long. The names of tests begin with the requirement they hold
//! the server to.

mod common;

use common::{
    Answer, Server, User,
    device::{Device, FOR_EVER},
    eventually,
};
use serde_json::{Value, json};
use std::{
    fs,
    time::{Duration, Instant},
};
use toml::toml;

/// Nobody becomes idle or gone unless the test says so.
async fn patient() -> Server {
    Server::start(toml::Table::new()).await
}

/// Whoever stops polling is gone soon.
async fn hasty() -> Server {
    Server::start(toml! {
        [presence]
        offline_after_ms = 300
    })
    .await
}

impl Device {
    /// Waits for an answer whose last word on somebody's presence is what `wanted` looks for; the event's content.
    async fn hears(&mut self, of: &User, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let answer = self.wait().await;
            if let Some(content) = presence_of(&answer, of)
                && wanted(&content)
            {
                return content;
            }
        }
    }

    async fn hears_state(&mut self, of: &User, state: &str) -> Value {
        self.hears(of, |content| content["presence"] == state).await
    }

    /// The same of a state that somebody has for a moment only: they do again what they have it by until it is heard of.
    async fn hears_while(&mut self, of: &User, state: &str, act: impl AsyncFn()) {
        let acting = async {
            loop {
                act().await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            _ = self.hears_state(of, state) => {}
            () = acting => unreachable!("it has no end"),
        }
    }

    /// Goes on polling until it is dropped.
    fn stays(&self) -> Staying {
        let mut device = Self { user: self.user.clone(), since: self.since.clone(), more: self.more.clone() };
        Staying(tokio::spawn(async move {
            loop {
                device.wait().await;
            }
        }))
    }
}

struct Staying(tokio::task::JoinHandle<()>);

impl Drop for Staying {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn presence_of(answer: &Value, user: &User) -> Option<Value> {
    let events = answer["presence"]["events"].as_array()?;
    let event = events.iter().rev().find(|event| event["sender"] == *user.user_id)?;
    assert_eq!(event["type"], "m.presence");
    Some(event["content"].clone())
}

async fn shared_room(one: &User, others: &[&User]) -> String {
    let room = one.create_room(json!({ "preset": "public_chat" })).await;
    for other in others {
        other.join(&room).await;
    }
    room
}

impl User {
    async fn say(&self, body: Value) -> Answer {
        self.put(&format!("/v3/presence/{}/status", self.user_id), body).await
    }

    async fn ask(&self, other: &User) -> Answer {
        self.get(&format!("/v3/presence/{}/status", other.user_id)).await
    }

    async fn sees(&self, other: &User, state: &str) -> Value {
        eventually(&format!("{} is {state}", other.user_id), async || {
            let status = self.ask(other).await.expect(200);
            (status["presence"] == state).then_some(status)
        })
        .await
    }
}

#[tokio::test]
async fn pr_01_who_syncs_is_online_and_who_stops_is_offline() {
    let server = hasty().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    shared_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;

    let staying = Device::ready(&bob).await.stays();
    let content = device.hears_state(&bob, "online").await;
    assert_eq!(content["currently_active"], true);
    assert!(content["last_active_ago"].is_u64(), "{content}");
    drop(staying);
    let content = device.hears_state(&bob, "offline").await;
    assert_eq!(content["currently_active"], Value::Null);
    assert_eq!(alice.ask(&bob).await.expect(200)["presence"], "offline");

    device.hears_while(&bob, "online", async || drop(Device::ready(&bob).await)).await;
    device.hears_state(&bob, "offline").await;
}

#[tokio::test]
async fn sy16_a_sync_says_what_its_device_is_seen_as() {
    let server = hasty().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    shared_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;

    let mut hidden = Device::with(&bob, "&set_presence=offline");
    hidden.next().await;
    let _hidden = hidden.stays();
    assert_eq!(alice.ask(&bob).await.expect(200)["presence"], "offline");
    let phone = server.login("bob").await;
    let idle = Device::with(&phone, "&set_presence=unavailable").stays();
    device.hears_state(&bob, "unavailable").await;
    let laptop = server.login("bob").await;
    let online = Device::with(&laptop, "&set_presence=online").stays();
    device.hears_state(&bob, "online").await;
    drop(online);
    device.hears_state(&bob, "unavailable").await;
    drop(idle);
    device.hears_state(&bob, "offline").await;
    let mistaken = bob.get("/v3/sync?set_presence=asleep").await;
    assert_eq!(mistaken.expect(400)["errcode"], "M_INVALID_PARAM");
}

#[tokio::test]
async fn pr_02_who_does_nothing_is_idle_until_they_do_something() {
    let server = Server::start(toml! {
        [presence]
        idle_after_ms = 1500
        offline_after_ms = 3000
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = shared_room(&alice, &[&bob]).await;
    let event = alice.send_text(&room, "where are you?").await;
    let mut device = Device::ready(&alice).await;
    let _bobs = Device::ready(&bob).await.stays();
    let content = device.hears_state(&bob, "unavailable").await;
    assert!(content["last_active_ago"].as_u64() >= Some(1500), "{content}");

    device.hears_while(&bob, "online", async || drop(bob.send_text(&room, "here I am").await)).await;
    device.hears_state(&bob, "unavailable").await;
    let receipt = format!("/v3/rooms/{room}/receipt/m.read/{event}");
    let reads = async || drop(bob.post(&receipt, json!({})).await.expect(200));
    device.hears_while(&bob, "online", reads).await;
    device.hears_state(&bob, "unavailable").await;
    let typing = format!("/v3/rooms/{room}/typing/{}", bob.user_id);
    let types = async || drop(bob.put(&typing, json!({ "typing": true })).await.expect(200));
    device.hears_while(&bob, "online", types).await;
}

#[tokio::test]
async fn pr_01_what_a_user_says_counts_until_their_client_says_otherwise() {
    let server = patient().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = shared_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;
    let mut bobs = Device::ready(&bob).await;
    device.hears_state(&bob, "online").await;

    bob.say(json!({ "presence": "unavailable", "status_msg": "in a meeting" })).await.expect(200);
    let content = device.hears_state(&bob, "unavailable").await;
    assert_eq!(content["status_msg"], "in a meeting");
    bobs.next().await;
    let status = alice.ask(&bob).await.expect(200);
    assert_eq!((&status["presence"], &status["status_msg"]), (&json!("unavailable"), &json!("in a meeting")));
    bob.send_text(&room, "back").await;
    let content = device.hears_state(&bob, "online").await;
    assert_eq!(content["status_msg"], "in a meeting");

    bob.say(json!({ "presence": "offline" })).await.expect(200);
    let content = device.hears_state(&bob, "offline").await;
    assert_eq!(content["status_msg"], Value::Null);
    bob.send_text(&room, "unseen").await;
    bobs.next().await;
    assert_eq!(alice.ask(&bob).await.expect(200)["presence"], "offline", "hidden, whatever they do");
    bobs.more = "&set_presence=unavailable".to_owned();
    bobs.next().await;
    alice.sees(&bob, "unavailable").await;
}

#[tokio::test]
async fn pr_04_only_those_who_share_a_room_hear_of_each_other() {
    let server = patient().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    shared_room(&alice, &[&bob]).await;
    let mut stranger = Device::ready(&carol).await;
    let mut device = Device::ready(&alice).await;
    let _bobs = Device::ready(&bob).await.stays();
    device.hears_state(&bob, "online").await;

    let nobody = carol.get("/v3/presence/@nobody:localhost/status").await;
    let nobody = nobody.expect(403);
    assert_eq!(nobody["errcode"], "M_FORBIDDEN");
    assert_eq!(carol.ask(&bob).await.expect(403), nobody, "I10");
    let answer = stranger.next().await;
    assert_eq!((presence_of(&answer, &bob), presence_of(&answer, &alice)), (None, None));
    let first = Device::new(&carol).next().await;
    assert_eq!(presence_of(&first, &bob), None);
    assert_eq!(carol.ask(&carol).await.expect(200)["presence"], "online");

    // Who enters a room and who is there meet.
    let room = shared_room(&bob, &[&carol]).await;
    stranger.hears_state(&bob, "online").await;
    assert_eq!(carol.ask(&bob).await.expect(200)["presence"], "online");
    assert_eq!(carol.ask(&alice).await.expect(403), nobody);

    carol.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
    carol.ask(&bob).await.expect(403);
    eventually("she hears no more of him", async || {
        let first = Device::new(&carol).next().await;
        presence_of(&first, &bob).is_none().then_some(())
    })
    .await;
    stranger.next().await;
    bob.say(json!({ "presence": "unavailable" })).await.expect(200);
    device.hears_state(&bob, "unavailable").await;
    let answer = stranger.next().await;
    assert_eq!(presence_of(&answer, &bob), None, "{answer}");
}

#[tokio::test]
async fn pr_04_a_first_sync_has_those_who_are_there() {
    let server = patient().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    shared_room(&alice, &[&bob, &carol]).await;
    let mut device = Device::ready(&alice).await;
    let _bobs = Device::ready(&bob).await.stays();
    device.hears_state(&bob, "online").await;

    let first = Device::new(&server.login("alice").await).next().await;
    assert_eq!(presence_of(&first, &bob).map(|content| content["presence"].clone()), Some(json!("online")));
    assert!(presence_of(&first, &alice).is_some(), "oneself");
    assert_eq!(presence_of(&first, &carol), None, "who was never there");
    let nothing = carol.ask(&alice).await.expect(200);
    assert_eq!(nothing["presence"], "online");
    assert_eq!(alice.ask(&carol).await.expect(200), json!({ "presence": "offline" }));
}

#[tokio::test]
async fn pr_05_a_new_name_or_picture_is_told_with_presence() {
    let server = patient().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    shared_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;
    let rename = async |field: &str, value: &str| {
        bob.put(&format!("/v3/profile/{}/{field}", bob.user_id), json!({ field: value })).await.expect(200);
    };
    rename("displayname", "Bob from afar").await;
    let content = device.hears(&bob, |content| content["displayname"] == "Bob from afar").await;
    assert_eq!(content["presence"], "offline", "he isn't there");

    let _bobs = Device::ready(&bob).await.stays();
    device.hears_state(&bob, "online").await;
    rename("displayname", "Bob").await;
    rename("avatar_url", "mxc://localhost/bob").await;
    let content = device.hears(&bob, |content| content["avatar_url"] == "mxc://localhost/bob").await;
    assert_eq!((&content["displayname"], &content["presence"]), (&json!("Bob"), &json!("online")));
}

#[tokio::test]
async fn pr_06_nobody_speaks_for_another() {
    let server = patient().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    shared_room(&alice, &[&bob]).await;
    let of_bob = format!("/v3/presence/{}/status", bob.user_id);
    let refused = alice.put(&of_bob, json!({ "presence": "online" })).await.expect(403);
    assert_eq!(refused["errcode"], "M_FORBIDDEN");
    assert_eq!(alice.ask(&bob).await.expect(200)["presence"], "offline");
    server.http().get(&of_bob, None).await.expect(401);
}

#[tokio::test]
async fn i8_presence_that_is_none_is_refused() {
    let server = patient().await;
    let alice = server.register("alice").await;
    for body in [json!({ "presence": "busy" }), json!({}), json!({ "presence": 1 }), json!([])] {
        let refused = alice.say(body.clone()).await;
        assert!(refused.expect(400)["errcode"].is_string(), "{body}");
    }
    let long = |length: usize| json!({ "presence": "online", "status_msg": "é".repeat(length) });
    assert_eq!(alice.say(long(1001)).await.expect(413)["errcode"], "M_TOO_LARGE");
    alice.say(long(1000)).await.expect(200);
    assert_eq!(alice.ask(&alice).await.expect(200)["status_msg"], "é".repeat(1000));
    alice.say(json!({ "presence": "online", "status_msg": "a\u{0}b" })).await.expect(200);
    assert_eq!(alice.ask(&alice).await.expect(200)["status_msg"], "ab");
    alice.say(json!({ "presence": "online", "status_msg": null })).await.expect(200);
    assert_eq!(alice.ask(&alice).await.expect(200)["status_msg"], Value::Null);
}

/// FI-02, IG
#[tokio::test]
async fn fi_02_filters_and_ignoring_leave_presence_out() {
    let server = patient().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    shared_room(&alice, &[&bob, &carol]).await;
    let mut device = Device::ready(&alice).await;
    let _there = [Device::ready(&bob).await.stays(), Device::ready(&carol).await.stays()];
    device.hears_state(&bob, "online").await;
    alice.sees(&carol, "online").await;
    eventually("both are told", async || {
        let first = Device::new(&alice).next().await;
        (presence_of(&first, &bob).is_some() && presence_of(&first, &carol).is_some()).then_some(())
    })
    .await;

    let seen = async |filter: Value| {
        let filter: String = form_urlencoded::byte_serialize(filter.to_string().as_bytes()).collect();
        let answer = Device::with(&alice, &format!("&filter={filter}")).next().await;
        let events = answer["presence"]["events"].as_array().cloned().unwrap_or_default();
        let mut users: Vec<String> =
            events.iter().map(|event| event["sender"].as_str().expect("a sender").to_owned()).collect();
        users.sort_unstable();
        users
    };
    let (a, b, c) = (&*alice.user_id, &*bob.user_id, &*carol.user_id);
    assert_eq!(seen(json!({})).await, [a, b, c]);
    assert_eq!(seen(json!({ "presence": { "senders": [b] } })).await, [b]);
    assert_eq!(seen(json!({ "presence": { "not_senders": [b] } })).await, [a, c]);
    assert_eq!(seen(json!({ "presence": { "types": ["m.pres*"] } })).await, [a, b, c]);
    assert!(seen(json!({ "presence": { "not_types": ["m.presence"] } })).await.is_empty());
    assert!(seen(json!({ "presence": { "types": [] } })).await.is_empty());
    assert_eq!(seen(json!({ "presence": { "limit": 2 } })).await.len(), 2);
    let ignored = json!({ "ignored_users": { c: {} } });
    let path = format!("/v3/user/{a}/account_data/m.ignored_user_list");
    alice.put(&path, ignored).await.expect(200);
    assert_eq!(seen(json!({})).await, [a, b]);
}

/// What isn't news wakes nobody: not the beats of one's other devices, not the activity of who is online.
#[tokio::test]
async fn pr_03_beats_and_activity_of_who_is_online_wake_nobody() {
    let server = patient().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = shared_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;
    let mut bobs = Device::ready(&bob).await;
    let mut phone = Device::ready(&server.login("alice").await).await;
    device.hears_state(&bob, "online").await;
    // A server that has just started tells it once, for those who heard before that he types.
    let still = async || {
        let path = format!("/v3/rooms/{room}/typing/{}", bob.user_id);
        bob.put(&path, json!({ "typing": false })).await.expect(200)
    };
    still().await;
    let all_heard = async {
        loop {
            let answers = [device.next().await, phone.next().await, bobs.next().await];
            if answers
                .iter()
                .all(|answer| answer["presence"] == Value::Null && answer["rooms"] == Value::Null)
            {
                break;
            }
        }
    };
    tokio::time::timeout(common::PATIENCE, all_heard).await.expect("all that was told is heard");

    let waiting = {
        let (user, since) = (device.user.clone(), device.since.clone());
        tokio::spawn(async move { user.sync(since.as_deref(), FOR_EVER).await })
    };
    for _ in 0..5 {
        phone.next().await;
        bobs.next().await;
        bob.put(&format!("/v3/presence/{}/status", bob.user_id), json!({ "presence": "online" }))
            .await
            .expect(200);
        still().await;
    }
    let event = bob.send_text(&room, "now").await;
    let answer = waiting.await.expect("a request");
    assert_eq!(common::history::ids(&answer["rooms"]["join"][&room]["timeline"]["events"]), [event]);
    assert_eq!(answer["presence"], Value::Null, "{answer}");
}

#[tokio::test]
async fn a_status_message_survives_the_server_and_so_does_who_comes_back() {
    let mut server = patient().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    shared_room(&alice, &[&bob, &carol]).await;
    let mut device = Device::ready(&alice).await;
    let mut bobs = Device::ready(&bob).await;
    Device::ready(&carol).await;
    bob.say(json!({ "presence": "online", "status_msg": "reading" })).await.expect(200);
    device.hears(&bob, |content| content["status_msg"] == "reading").await;
    alice.sees(&carol, "online").await;

    server.restart().await;
    let restarted = Instant::now();
    bobs.next().await;
    let answer = device.next().await;
    let seen = presence_of(&answer, &bob).expect("everybody is told again");
    assert_eq!((&seen["presence"], &seen["status_msg"]), (&json!("online"), &json!("reading")));
    assert_eq!(presence_of(&answer, &carol).expect("she too")["presence"], "online");

    server.stop().await;
    let config = fs::read_to_string(server.config_path()).expect("a configuration");
    fs::write(server.config_path(), config + "\n[presence]\noffline_after_ms = 1000\n").expect("a file");
    server.start_again().await;
    bobs.next().await;
    let bobs = bobs.stays();
    let passed = restarted.elapsed().as_millis() as u64;
    let gone = device.hears_state(&carol, "offline").await;
    assert!(gone["last_active_ago"].as_u64() >= Some(passed), "from before the restarts: {gone}");
    alice.sees(&bob, "online").await;

    drop(bobs);
    server.kill().await;
    server.start_again().await;
    assert_eq!(alice.ask(&bob).await.expect(200)["status_msg"], "reading");
}

#[tokio::test]
async fn whoever_was_away_hears_who_has_gone_meanwhile() {
    let mut server = hasty().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    shared_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;
    let staying = Device::ready(&bob).await.stays();
    device.hears_state(&bob, "online").await;
    drop(staying);
    alice.sees(&bob, "offline").await;
    server.restart().await;
    let answer = device.next().await;
    assert_eq!(presence_of(&answer, &bob).expect("news")["presence"], "offline");
}

#[tokio::test]
async fn of_a_deactivated_account_nothing_is_left() {
    // It isn't time that takes him away.
    let server = Server::start(toml! {
        [presence]
        offline_after_ms = 600_000
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    shared_room(&alice, &[&bob]).await;
    bob.say(json!({ "presence": "online", "status_msg": "moving on" })).await.expect(200);
    assert_eq!(alice.ask(&bob).await.expect(200)["status_msg"], "moving on");
    let challenge = bob.post("/v3/account/deactivate", json!({})).await.expect(401);
    let auth = json!({
        "type": "m.login.password", "session": challenge["session"], "password": common::PASSWORD,
        "identifier": { "type": "m.id.user", "user": "bob" },
    });
    bob.post("/v3/account/deactivate", json!({ "auth": auth })).await.expect(200);
    eventually("he has left the room", async || (alice.ask(&bob).await.status == 403).then_some(())).await;
    eventually("nobody is told of him", async || {
        let first = Device::new(&alice).next().await;
        presence_of(&first, &bob).is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_without_presence_tells_of_nobody() {
    let server = Server::start(toml! {
        [presence]
        enabled = false
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = shared_room(&alice, &[&bob]).await;
    let mut device = Device::ready(&alice).await;
    bob.say(json!({ "presence": "online", "status_msg": "hello?" })).await.expect(200);
    Device::ready(&bob).await;
    bob.send_text(&room, "hello?").await;
    assert_eq!(device.next().await["presence"], Value::Null);
    assert_eq!(Device::new(&alice).next().await["presence"], Value::Null);
    assert_eq!(alice.ask(&bob).await.expect(404)["errcode"], "M_NOT_FOUND");
    alice.get("/v3/presence/@nobody:localhost/status").await.expect(403);
}
