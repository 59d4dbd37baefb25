//! Guests: accounts that nobody has registered, and what they may do ("Guest Access").

mod common;

use std::fs;

use ::http::Method;
use common::{PASSWORD, Server, User, eventually, transaction_id};
use serde_json::{Value, json};
use toml::{Table, toml};

const FORBIDDEN: &str = "M_GUEST_ACCESS_FORBIDDEN";

async fn open() -> Server {
    Server::start(toml! { registration.guests = true }).await
}

async fn register_guest(server: &Server) -> User {
    let answer = server.http().post("/v3/register?kind=guest", None, json!({})).await.expect(200);
    User::new(server.http().clone(), &answer)
}

/// A room that anybody may enter, with this for an `m.room.guest_access`.
async fn room(owner: &User, guest_access: Option<Value>) -> String {
    let access = guest_access
        .map(|content| json!({ "type": "m.room.guest_access", "state_key": "", "content": content }));
    let state: Vec<Value> = access.into_iter().collect();
    owner.create_room(json!({ "preset": "public_chat", "initial_state": state })).await
}

async fn open_room(owner: &User) -> String {
    room(owner, Some(json!({ "guest_access": "can_join" }))).await
}

async fn set_access(owner: &User, room: &str, access: &str) -> String {
    owner.send_state(room, "m.room.guest_access", "", json!({ "guest_access": access })).await
}

async fn join(user: &User, room: &str) -> common::Answer {
    user.post(&format!("/v3/rooms/{room}/join"), json!({})).await
}

async fn membership(by: &User, room: &str, of: &User) -> Value {
    let path = format!("/v3/rooms/{room}/state/m.room.member/{}", of.user_id);
    by.get(&path).await.json["membership"].clone()
}

async fn is_out(by: &User, room: &str, of: &User) {
    eventually("the guest has left", || async { (membership(by, room, of).await == "leave").then_some(()) })
        .await;
}

/// What makes a guest's account a registered one, of this name and with [`PASSWORD`].
fn upgrade(guest: &User, name: &str) -> Value {
    json!({
        "username": name, "password": PASSWORD, "guest_access_token": guest.access_token,
        "auth": { "type": "m.login.dummy" },
    })
}

fn localpart(user: &User) -> &str {
    user.user_id.trim_start_matches('@').split(':').next().unwrap_or_default()
}

#[tokio::test]
async fn guests_are_let_in_by_the_operator_alone() {
    let server = Server::start(Table::new()).await;
    let refused = server.http().post("/v3/register?kind=guest", None, json!({})).await;
    let refused = refused.expect_error(403, "M_FORBIDDEN");
    assert!(refused["error"].as_str().unwrap().contains("registration.guests"), "{refused}");
}

/// "All parameters in the request body with the exception of `initial_device_display_name` MUST be ignored."
#[tokio::test]
async fn a_guest_says_nothing_but_what_its_device_is_called() {
    let server = open().await;
    let body = json!({
        "username": "alice", "password": PASSWORD, "device_id": "MINE", "inhibit_login": true,
        "refresh_token": true, "initial_device_display_name": "Browser", "guest_access_token": "x",
        "auth": { "type": "m.login.password" },
    });
    let answer = server.http().post("/v3/register?kind=guest", None, body).await.expect(200);
    assert_eq!((&answer["refresh_token"], &answer["expires_in_ms"]), (&Value::Null, &Value::Null));
    let guest = User::new(server.http().clone(), &answer);
    assert!(localpart(&guest).bytes().all(|byte| byte.is_ascii_digit()), "{answer}");
    assert_ne!(guest.device_id, "MINE");
    let whoami = guest.get("/v3/account/whoami").await.expect(200);
    assert_eq!(whoami, json!({ "user_id": guest.user_id, "device_id": guest.device_id, "is_guest": true }));
    let devices = guest.get("/v3/devices").await.expect(200);
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    assert_eq!(devices["devices"][0]["display_name"], "Browser");
    // There is no password to log in with, and a name like this can't be chosen.
    for password in ["", PASSWORD] {
        let login = json!({
            "type": "m.login.password", "password": password,
            "identifier": { "type": "m.id.user", "user": localpart(&guest) },
        });
        server.http().post("/v3/login", None, login).await.expect_error(403, "M_FORBIDDEN");
    }
    let taken = json!({ "username": "123", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    server.http().post("/v3/register", None, taken).await.expect_error(400, "M_INVALID_USERNAME");
    let other = register_guest(&server).await;
    assert_ne!(guest.user_id, other.user_id);
    assert_eq!(other.get("/v3/account/whoami").await.expect(200)["is_guest"], true);
    let user = server.register("bob").await;
    assert_ne!(user.get("/v3/account/whoami").await.expect(200)["is_guest"], true);
}

#[tokio::test]
async fn guests_count_as_registrations_and_leave_the_first_account_to_the_operator() {
    let mut server = Server::start(toml! {
        registration = { guests = true, mode = "token" }
        [limits]
        enabled = true
        registration = { per_second = 0.001, burst = 2 }
    })
    .await;
    for _ in 0..2 {
        register_guest(&server).await;
    }
    let third = server.http().post("/v3/register?kind=guest", None, json!({})).await;
    third.expect_error(429, "M_LIMIT_EXCEEDED");
    assert_eq!(server.log().matches("Registration token").count(), 1);
    server.restart().await;
    assert_eq!(server.log().matches("Registration token").count(), 2, "no administrator is there yet");
    let list = server.run(&["user", "list"]);
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert_eq!(list.lines().filter(|line| line.ends_with("\tguest")).count(), 2, "{list}");
}

/// Each endpoint that is served: whoever has no good token is told so where one is needed, and there a guest is refused
/// unless the specification lists the endpoint.
#[tokio::test]
async fn gu_01_guests_may_use_the_listed_endpoints_alone() {
    let server = open().await;
    let guest = register_guest(&server).await;
    let read =
        |name: &str| fs::read_to_string(format!("{}/api-spec/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let listed = read("guests.txt");
    let filled = |path: &str| {
        let known = [("{userId}", guest.user_id.as_str()), ("{keyName}", "displayname"), ("{txnId}", "t")];
        let path = known.iter().fold(path.to_owned(), |path, (name, value)| path.replace(name, value));
        let segments = path.split('/').map(|segment| if segment.starts_with('{') { "x" } else { segment });
        segments.collect::<Vec<_>>().join("/")
    };
    let table = read("endpoints.csv");
    let mut endpoints: Vec<(&str, &str)> = table
        .lines()
        .skip(1)
        .map(|line| line.split(',').collect::<Vec<_>>())
        .filter(|row| row[0] == "client-server" && row[5] == "yes")
        .map(|row| (row[2], row[3]))
        .collect();
    endpoints.extend([
        ("GET", "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"),
        ("PUT", "/_matrix/client/unstable/org.matrix.msc4140/rooms/{}/delayed_event/{}/{}"),
        ("PUT", "/_matrix/client/unstable/io.element.msc4306/rooms/{}/thread/{}/subscription"),
        ("GET", "/_matrix/client/r0/rooms/{}/aliases"),
    ]);
    let (mut allowed, mut refused) = (0, 0);
    for (method, path) in endpoints {
        let body = (method != "GET").then(|| json!({}));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let ask = async |token: &str| {
            guest.http.request(method.clone(), &filled(path), Some(token), body.clone()).await
        };
        let stranger = ask("made-up").await;
        // Refreshing is about another kind of token.
        if stranger.json["errcode"] != "M_UNKNOWN_TOKEN" || path.ends_with("/refresh") {
            continue;
        }
        let answer = ask(&guest.access_token).await;
        if listed.lines().any(|line| line == format!("{method} {path}")) {
            allowed += 1;
            assert_ne!(answer.json["errcode"], FORBIDDEN, "{method} {path}");
        } else {
            refused += 1;
            answer.expect_error(403, FORBIDDEN);
        }
    }
    assert!(allowed >= 18 && refused > 50, "{allowed} allowed, {refused} refused");
    guest.get("/v3/account/whoami").await.expect(200);
}

/// What isn't open to guests isn't by way of the state of a room either.
#[tokio::test]
async fn gu_01_a_guest_sends_anything_but_memberships_of_others() {
    let server = open().await;
    let (alice, guest) = (server.register("alice").await, register_guest(&server).await);
    let room = open_room(&alice).await;
    join(&guest, &room).await.expect(200);
    alice.send_state(&room, "m.room.power_levels", "", json!({ "users": { &guest.user_id: 100 } })).await;
    guest.send_text(&room, "hello").await;
    guest.send_event(&room, "org.example.poll", json!({})).await;
    guest.send_state(&room, "org.example.state", "", json!({})).await;
    let set = async |user_id: &str, membership: &str| {
        let path = format!("/v3/rooms/{room}/state/m.room.member/{user_id}");
        guest.put(&path, json!({ "membership": membership })).await
    };
    for (user_id, way) in [
        (alice.user_id.as_str(), "leave"),
        ("@stranger:localhost", "invite"),
        ("@stranger:localhost", "ban"),
        (guest.user_id.as_str(), "knock"),
        (guest.user_id.as_str(), "invite"),
    ] {
        set(user_id, way).await.expect_error(403, FORBIDDEN);
    }
    set(&guest.user_id, "leave").await.expect(200);
    set(&guest.user_id, "join").await.expect(200);
    assert_eq!(membership(&alice, &room, &guest).await, "join");
}

#[tokio::test]
async fn gu_02_a_guest_joins_where_guests_may() {
    let server = open().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let guest = register_guest(&server).await;
    for (access, may) in [
        (Some(json!({ "guest_access": "can_join" })), true),
        (Some(json!({ "guest_access": "forbidden" })), false),
        (Some(json!({ "guest_access": "org.example.maybe" })), false),
        (Some(json!({ "guest_access": true })), false),
        (Some(json!({})), false),
        // What the preset says.
        (None, false),
    ] {
        let what = format!("{access:?}");
        let room = room(&alice, access).await;
        let path = format!("/v3/rooms/{room}/state/m.room.member/{}", guest.user_id);
        let by_state = async || guest.put(&path, json!({ "membership": "join" })).await;
        if may {
            join(&guest, &room).await.expect(200);
            guest.send_text(&room, "hello").await;
            guest.post(&format!("/v3/rooms/{room}/leave"), json!({})).await.expect(200);
            by_state().await.expect(200);
            assert_eq!(membership(&alice, &room, &guest).await, "join", "{what}");
        } else {
            join(&guest, &room).await.expect_error(403, FORBIDDEN);
            by_state().await.expect_error(403, FORBIDDEN);
            // Not even at the word of somebody who is in, until guests may.
            alice.invite(&room, &guest.user_id).await;
            join(&guest, &room).await.expect_error(403, FORBIDDEN);
            assert_eq!(membership(&alice, &room, &guest).await, "invite", "{what}");
            let sync = guest.sync(None, 0).await;
            assert!(sync["rooms"]["invite"][&room].is_object(), "{what}");
            set_access(&alice, &room, "can_join").await;
            join(&guest, &room).await.expect(200);
        }
        // Whoever has registered is no guest.
        join(&bob, &room).await.expect(200);
    }
}

/// I10: where nobody can join, guests hear what everybody hears.
#[tokio::test]
async fn gu_02_closed_rooms_look_the_same_to_guests() {
    let server = open().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let guest = register_guest(&server).await;
    for access in ["can_join", "forbidden"] {
        let room = alice.create_room(json!({ "preset": "private_chat" })).await;
        set_access(&alice, &room, access).await;
        let (one, other) = (join(&guest, &room).await, join(&bob, &room).await);
        assert_eq!((one.status, one.text()), (other.status, other.text()), "{access}");
        one.expect_error(403, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn gu_03_guests_leave_when_they_may_no_longer_be_there() {
    let mut server = open().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (one, two) = (register_guest(&server).await, register_guest(&server).await);
    let invited = register_guest(&server).await;
    // By an event, by the redaction of one, and by an event right before the power goes.
    for way in ["event", "redaction", "kill"] {
        let room = room(&alice, None).await;
        let access = set_access(&alice, &room, "can_join").await;
        for user in [&bob, &one, &two] {
            join(user, &room).await.expect(200);
        }
        alice.invite(&room, &invited.user_id).await;
        let since = one.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
        if way == "redaction" {
            let path = format!("/v3/rooms/{room}/redact/{access}/{}", transaction_id());
            alice.put(&path, json!({})).await.expect(200);
        } else {
            set_access(&alice, &room, "forbidden").await;
        }
        if way == "kill" {
            server.kill().await;
            server.start_again().await;
        }
        is_out(&alice, &room, &one).await;
        is_out(&alice, &room, &two).await;
        assert_eq!(membership(&alice, &room, &bob).await, "join", "{way}");
        assert_eq!(membership(&alice, &room, &invited).await, "invite", "{way}");
        let sync = one.sync(Some(&since), 0).await;
        let timeline =
            sync["rooms"]["leave"][&room]["timeline"]["events"].as_array().cloned().unwrap_or_default();
        let own = timeline.iter().rev().find(|event| event["state_key"] == one.user_id.as_str());
        assert_eq!(own.unwrap()["sender"], one.user_id.as_str(), "{way}: {sync}");
        join(&one, &room).await.expect_error(403, FORBIDDEN);
    }
}

#[tokio::test]
async fn gu_04_a_guest_has_a_name_and_nothing_else() {
    let server = open().await;
    let (alice, guest) = (server.register("alice").await, register_guest(&server).await);
    let room = open_room(&alice).await;
    join(&guest, &room).await.expect(200);
    let field = |user: &User, field: &str| format!("/v3/profile/{}/{field}", user.user_id);
    let name = || async {
        let path = format!("/v3/rooms/{room}/state/m.room.member/{}", guest.user_id);
        alice.get(&path).await.expect(200)["displayname"].clone()
    };
    guest.put(&field(&guest, "displayname"), json!({ "displayname": "Visitor" })).await.expect(200);
    assert_eq!(alice.get(&field(&guest, "displayname")).await.expect(200)["displayname"], "Visitor");
    assert_eq!(name().await, "Visitor");
    for (key, value) in [("avatar_url", "mxc://localhost/x"), ("m.tz", "Europe/Rome"), ("org.example.x", "x")]
    {
        guest.put(&field(&guest, key), json!({ key: value })).await.expect_error(403, FORBIDDEN);
        guest.delete(&field(&guest, key), None).await.expect_error(403, FORBIDDEN);
    }
    guest
        .put(&field(&alice, "displayname"), json!({ "displayname": "x" }))
        .await
        .expect_error(403, "M_FORBIDDEN");
    guest.delete(&field(&alice, "displayname"), None).await.expect_error(403, "M_FORBIDDEN");
    guest.delete(&field(&guest, "displayname"), None).await.expect(200);
    alice.get(&field(&guest, "displayname")).await.expect_error(404, "M_NOT_FOUND");
    assert_eq!(name().await, Value::Null);
}

#[tokio::test]
async fn gu_05_a_guest_who_registers_stays_who_they_are() {
    let server = open().await;
    let (alice, guest) = (server.register("alice").await, register_guest(&server).await);
    let (kept, closed) = (open_room(&alice).await, room(&alice, None).await);
    join(&guest, &kept).await.expect(200);
    let sent = guest.send_text(&kept, "as a guest").await;
    let since = guest.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();

    // The usual way: first the flows, then a stage.
    let body = json!({
        "username": localpart(&guest), "password": PASSWORD, "guest_access_token": guest.access_token,
    });
    let challenge = server.http().post("/v3/register", None, body.clone()).await.expect(401);
    let mut body = body;
    body["auth"] = json!({ "type": "m.login.dummy", "session": challenge["session"] });
    let answer = server.http().post("/v3/register", None, body).await.expect(200);
    let user = User::new(server.http().clone(), &answer);

    assert_eq!((&user.user_id, &user.device_id), (&guest.user_id, &guest.device_id));
    let whoami = user.get("/v3/account/whoami").await.expect(200);
    assert_ne!(whoami["is_guest"], true);
    guest.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    let devices = user.get("/v3/devices").await.expect(200);
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1);
    // Where they were they are, and their place in the queue is theirs.
    assert_eq!(user.get("/v3/joined_rooms").await.expect(200)["joined_rooms"], json!([kept]));
    let news = alice.send_text(&kept, "news").await;
    let sync = user.sync(Some(&since), 0).await;
    let timeline = &sync["rooms"]["join"][&kept]["timeline"]["events"];
    assert_eq!(common::history::ids(timeline), [news]);
    user.get(&format!("/v3/rooms/{kept}/event/{sent}")).await.expect(200);
    // Nothing is closed to them now.
    user.join(&closed).await;
    user.put(
        &format!("/v3/profile/{}/avatar_url", user.user_id),
        json!({ "avatar_url": "mxc://localhost/x" }),
    )
    .await
    .expect(200);
    set_access(&alice, &kept, "forbidden").await;
    let again = server.login(localpart(&guest)).await;
    assert_eq!(again.user_id, guest.user_id);
    // When another guest has had to leave, this one would have had to.
    let other = open_room(&alice).await;
    let stranger = register_guest(&server).await;
    join(&stranger, &other).await.expect(200);
    set_access(&alice, &other, "forbidden").await;
    is_out(&alice, &other, &stranger).await;
    assert_eq!(membership(&alice, &kept, &user).await, "join");
}

#[tokio::test]
async fn gu_05_only_the_guest_registers_the_guest() {
    let server = open().await;
    let (alice, guest, other) =
        (server.register("alice").await, register_guest(&server).await, register_guest(&server).await);
    let register = async |body: Value| server.http().post("/v3/register", None, body).await;
    let mut nameless = upgrade(&guest, "");
    nameless.as_object_mut().unwrap().remove("username");
    register(nameless).await.expect_error(400, "M_MISSING_PARAM");
    register(upgrade(&guest, "alice")).await.expect_error(403, "M_FORBIDDEN");
    register(upgrade(&guest, "carol")).await.expect_error(403, "M_FORBIDDEN");
    register(upgrade(&other, localpart(&guest))).await.expect_error(403, "M_FORBIDDEN");
    register(upgrade(&alice, "alice")).await.expect_error(403, "M_FORBIDDEN");
    let mut invented = upgrade(&guest, localpart(&guest));
    invented["guest_access_token"] = json!("made-up");
    register(invented).await.expect_error(403, "M_FORBIDDEN");
    let mut weak = upgrade(&guest, localpart(&guest));
    weak["password"] = json!("");
    register(weak).await.expect_error(400, "M_WEAK_PASSWORD");
    assert_eq!(guest.get("/v3/account/whoami").await.expect(200)["is_guest"], true);

    // Of many at once one succeeds. This one names its device, so the guest's is gone.
    let mut body = upgrade(&guest, localpart(&guest));
    body["device_id"] = json!("NEW");
    let attempts = (0..4).map(|_| register(body.clone()));
    let answers = futures_util::future::join_all(attempts).await;
    let (done, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert_eq!(done.len(), 1);
    for answer in refused {
        assert!([400, 403].contains(&answer.status), "{}", answer.text());
    }
    let user = User::new(server.http().clone(), &done[0].json);
    assert_eq!((user.user_id.as_str(), user.device_id.as_str()), (guest.user_id.as_str(), "NEW"));
    let devices = user.get("/v3/devices").await.expect(200);
    assert_eq!(devices["devices"].as_array().unwrap().len(), 1, "{devices}");
    guest.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    register(upgrade(&user, localpart(&user))).await.expect_error(403, "M_FORBIDDEN");
    // Without a session the guest's ends all the same.
    let mut body = upgrade(&other, localpart(&other));
    body["inhibit_login"] = json!(true);
    let answer = register(body).await.expect(200);
    assert_eq!((&answer["user_id"], &answer["access_token"]), (&json!(other.user_id), &Value::Null));
    other.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    server.login(localpart(&other)).await;
}

/// Whoever may not register may not by way of a guest.
#[tokio::test]
async fn gu_05_registration_is_as_closed_to_guests_as_to_others() {
    let server = Server::start(toml! { registration = { guests = true, mode = "closed" } }).await;
    let guest = register_guest(&server).await;
    let body = upgrade(&guest, localpart(&guest));
    server.http().post("/v3/register", None, body).await.expect_error(403, "M_FORBIDDEN");
    let server = Server::start(toml! { registration = { guests = true, mode = "token" } }).await;
    let guest = register_guest(&server).await;
    let token = server.run(&["token", "create", "--uses", "1"]);
    let token = String::from_utf8_lossy(&token.stdout).trim().to_owned();
    let mut body = upgrade(&guest, localpart(&guest));
    server.http().post("/v3/register", None, body.clone()).await.expect(401);
    body["auth"] = json!({ "type": "m.login.registration_token", "token": token });
    server.http().post("/v3/register", None, body).await.expect(200);
    assert!(
        server
            .http()
            .get(&format!("/v1/register/m.login.registration_token/validity?token={token}"), None)
            .await
            .expect(200)["valid"]
            == false
    );
}
