//! Whose socket it is, and how long.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::*;

fn config() -> toml::Table {
    toml::toml! {
        [stream]
        heartbeat_ms = 2_000
    }
}

/// A new device of a user whose access tokens end, and its refresh token.
async fn log_in_to_refresh(server: &Server, name: &str) -> (User, String) {
    let login = json!({ "type": "m.login.password", "password": common::PASSWORD, "refresh_token": true,
        "identifier": { "type": "m.id.user", "user": name } });
    let answer = server.http().post("/v3/login", None, login).await.expect(200);
    let token = answer["refresh_token"].as_str().expect("a token").to_owned();
    (User::new(server.http().clone(), &answer), token)
}

/// The same device with the access token that a refresh token gives.
async fn refresh(user: &User, token: &str) -> User {
    let answer = user.http.post("/v3/refresh", None, json!({ "refresh_token": token })).await.expect(200);
    let access_token = answer["access_token"].as_str().expect("a token").to_owned();
    User { access_token, ..user.clone() }
}

/// Has the access tokens that a device has by now end at that time.
fn end_tokens(server: &Server, device: &User, at: SystemTime) {
    let database = rusqlite::Connection::open(server.data_dir().join("hearth.db")).expect("a database");
    database.busy_timeout(common::PATIENCE).expect("patience");
    let at = at.duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis() as i64;
    let change = "UPDATE access_token SET expires_ts = ?1
                  WHERE device = (SELECT id FROM device WHERE device_id = ?2)";
    assert_eq!(database.execute(change, (at, &device.device_id)).expect("the time changes"), 1);
}

#[tokio::test]
async fn a_native_client_may_bring_its_token_with_the_upgrade() {
    let server = server().await;
    let alice = server.register("alice").await;
    let bearer = format!("Bearer {}", alice.access_token);
    let mut client = Client::open_with(&server, &[("Authorization", &bearer)]).await;
    let answer = client.request("auth", json!({})).await.expect("known already");
    assert_eq!(answer["user_id"], json!(alice.user_id));
    client.sync().await;

    // A mistake in the first `auth` doesn't lose what came with the upgrade.
    let mut client = Client::open_with(&server, &[("Authorization", &bearer)]).await;
    client.request("auth", json!({ "filter": "nothing" })).await.expect_err("no such filter");
    client.request("auth", json!({})).await.expect("known still");

    let refused = Line::open(&server, &[("Authorization", "Bearer nonsense")]).await.err();
    let (status, body) = refused.expect("a bad token");
    assert_eq!((status, &body["errcode"]), (401, &json!("M_UNKNOWN_TOKEN")));
    let path = format!("{}?access_token={}", client::PATH, alice.access_token);
    let (status, body) = Line::open_at(&server, &path, &[]).await.err().expect("a token in the address");
    assert_eq!((status, &body["errcode"]), (400, &json!("M_INVALID_PARAM")));
}

#[tokio::test]
async fn only_a_real_upgrade_gets_a_socket() {
    let server = server().await;
    let plain = server.http().get(client::PATH, None).await;
    plain.expect_error(426, "M_UNKNOWN");
    for (name, value, status) in [
        ("Sec-WebSocket-Version", "8", 426),
        ("Sec-WebSocket-Key", "", 426),
        ("Sec-WebSocket-Protocol", "", 400),
        ("Sec-WebSocket-Protocol", "chat, hearth.v2.json", 400),
    ] {
        let refused = Line::open(&server, &[(name, value)]).await.err().expect("no upgrade");
        assert_eq!(refused.0, status, "{name}: {value}");
    }
    let several = [("Sec-WebSocket-Protocol", "chat, hearth.v1.json")];
    assert!(Line::open(&server, &several).await.is_ok());
    let versions = server.http().get("/versions", None).await;
    assert_eq!(versions.status, 404);
    let versions = server.http().get("/_matrix/client/versions", None).await.expect(200);
    assert_eq!(versions["unstable_features"]["hearth.stream.v1"], true);
}

#[tokio::test]
async fn without_auth_there_is_nothing_and_in_ten_seconds_no_socket() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = room(&alice, &[]).await;
    let mut client = Client::open(&server).await;
    let error = client.request("send", text(&room, "hello")).await.expect_err("auth comes first");
    assert_eq!(error["errcode"], "M_INVALID_PARAM");
    assert!(matches!(client.line.closed().await, Received::Close(4003, _)));
}

#[tokio::test]
async fn a_bad_token_closes_it_with_the_errcode() {
    let server = server().await;
    let mut client = Client::open(&server).await;
    let error = client.request("auth", json!({ "access_token": "nonsense" })).await.expect_err("refused");
    assert_eq!(error["errcode"], "M_UNKNOWN_TOKEN");
    assert_eq!(client.line.closed().await, Received::Close(4004, "M_UNKNOWN_TOKEN".to_owned()));
}

/// Ends the session of a user's device in one of the ways there are. `spent` is a refresh token that it had before.
async fn end_session(server: &Server, name: &str, user: &User, spent: &str, end: &str) {
    let auth = json!({ "type": "m.login.password", "password": common::PASSWORD,
        "identifier": { "type": "m.id.user", "user": user.user_id } });
    match end {
        "lock" => {
            let locked = server.run(&["user", "lock", &user.user_id]);
            assert!(locked.status.success(), "{locked:?}");
        }
        "password of another device" => {
            let other = server.login(name).await;
            let body = json!({ "new_password": "another long password", "auth": auth });
            other.post("/v3/account/password", body).await.expect(200);
        }
        "deletion by another device" => {
            let other = server.login(name).await;
            let path = format!("/v3/devices/{}", user.device_id);
            other.delete(&path, Some(json!({ "auth": auth }))).await.expect(200);
        }
        "spent refresh token" => {
            let again = json!({ "refresh_token": spent });
            server.http().post("/v3/refresh", None, again).await.expect_error(401, "M_UNKNOWN_TOKEN");
        }
        path => {
            user.post(&format!("/v3/{path}"), json!({ "auth": auth })).await.expect(200);
        }
    }
}

/// threats: access token of a deleted device on an open socket
#[tokio::test]
async fn whatever_ends_a_session_closes_its_sockets_within_a_second() {
    let server = server().await;
    let ends = [
        ("logout", "M_UNKNOWN_TOKEN"),
        ("logout/all", "M_UNKNOWN_TOKEN"),
        ("password of another device", "M_UNKNOWN_TOKEN"),
        ("lock", "M_USER_LOCKED"),
        ("account/deactivate", "M_UNKNOWN_TOKEN"),
        ("deletion by another device", "M_UNKNOWN_TOKEN"),
        ("spent refresh token", "M_UNKNOWN_TOKEN"),
    ];
    for (index, (end, errcode)) in ends.into_iter().enumerate() {
        let mut took = Vec::new();
        // Of several times one is enough: the machine may be what was slow.
        while took.iter().all(|took| *took >= Duration::from_secs(1)) {
            assert!(took.len() < 10, "{end}: {took:?}");
            let name = format!("user{index}_{}", took.len());
            server.register(&name).await;
            let (user, spent) = log_in_to_refresh(&server, &name).await;
            let user = refresh(&user, &spent).await;
            let mut client = Client::ready(&server, &user).await;
            end_session(&server, &name, &user, &spent, end).await;
            let answered = Instant::now();
            assert_eq!(client.line.closed().await, Received::Close(4004, errcode.to_owned()), "{end}");
            took.push(answered.elapsed());
        }
    }
    let user = server.register("bystander").await;
    let other = server.login("bystander").await;
    let mut client = Client::ready(&server, &user).await;
    other.post("/v3/logout", json!({})).await.expect(200);
    let room = room(&user, &[]).await;
    client.request("send", text(&room, "still here")).await.expect("its own session is not touched");
}

#[tokio::test]
async fn a_token_that_expires_closes_it() {
    // Nothing else happens on it by which the server might notice.
    let server = Server::start(toml::toml! {
        [stream]
        heartbeat_ms = 600_000
    })
    .await;
    server.register("alice").await;
    let (alice, token) = log_in_to_refresh(&server, "alice").await;
    end_tokens(&server, &alice, SystemTime::now() + Duration::from_secs(1));
    let mut client = Client::open(&server).await;
    // On a machine that is slow it may have ended by then; that is no other case for the client.
    client.begin("auth", json!({ "access_token": alice.access_token })).await;
    let end = client.line.closed().await;
    assert!(matches!(end, Received::Close(4013, _)), "{end:?}");
    let answer = alice.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    assert_eq!(answer["soft_logout"], true);
    Client::ready(&server, &refresh(&alice, &token).await).await;
}

#[tokio::test]
async fn a_refreshed_token_keeps_it_open_beyond_the_end_of_the_one_before() {
    let server = server().await;
    let bob = server.register("bob").await;
    let room = room(&server.register("alice").await, &[]).await;
    let mut good_for = Duration::from_secs(2);
    let (mut client, old, end) = loop {
        let (old, token) = log_in_to_refresh(&server, "alice").await;
        let mut client = Client::open(&server).await;
        let end = SystemTime::now() + good_for;
        end_tokens(&server, &old, end);
        let fresh = refresh(&old, &token).await;
        let opened = client.begin("auth", json!({ "access_token": old.access_token })).await;
        let renewed = client.begin("token", json!({ "access_token": fresh.access_token })).await;
        if let Some(Ok(_)) = client.try_answer(&opened).await
            && let Some(Ok(_)) = client.try_answer(&renewed).await
        {
            break (client, old, end);
        }
        // The machine took so long.
        good_for *= 2;
        assert!(good_for < common::PATIENCE, "a token that can't be refreshed");
    };
    // The first use of the new token has ended the old one.
    old.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    common::eventually("the old one would be over", || async { (SystemTime::now() > end).then_some(()) })
        .await;
    client.request("send", text(&room, "still here")).await.expect("sent");

    let error = client.request("token", json!({ "access_token": bob.access_token })).await;
    assert_eq!(error.expect_err("another device")["errcode"], "M_INVALID_PARAM");
    client.request("send", text(&room, "and still")).await.expect("sent");
}

#[tokio::test]
async fn what_was_asked_before_a_refreshed_token_is_done_under_the_old_one() {
    let server = server().await;
    server.register("alice").await;
    for method in ["token", "auth"] {
        let (alice, token) = log_in_to_refresh(&server, "alice").await;
        let room = room(&alice, &[]).await;
        let mut client = Client::ready(&server, &alice).await;
        let fresh = refresh(&alice, &token).await;
        let mut ids = Vec::new();
        for count in 0..20 {
            ids.push(client.begin("send", text(&room, &count.to_string())).await);
        }
        let token = match method {
            "token" => json!({ "access_token": fresh.access_token }),
            _ => json!({ "access_token": fresh.access_token, "since": client.pos }),
        };
        let renewed = client.begin(method, token).await;
        for id in ids {
            client.answer(&id).await.expect("sent under the old token");
        }
        client.answer(&renewed).await.expect("the same device");
        client.request("send", text(&room, "under the new token")).await.expect("sent");
    }
}

#[tokio::test]
async fn both_sides_say_that_they_are_there() {
    let server = Server::start(config()).await;
    let alice = server.register("alice").await;
    let mut client = Client::ready(&server, &alice).await;
    client.line.text(r#"{"method":"ping"}"#).await;
    let mut pong = false;
    let mut ping = None;
    while ping.is_none() || !pong {
        match client.line.next().await {
            Received::Frame(frame) if frame["method"] == "pong" => pong = true,
            Received::Frame(frame) if frame["method"] == "ping" => {
                ping = frame["params"]["pos"].as_str().map(str::to_owned);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(ping, client.pos);
    client.line.write(0x89, b"are you there").await.expect("a line");
    loop {
        match client.line.next().await {
            Received::Pong(payload) => {
                assert_eq!(payload, b"are you there");
                break;
            }
            Received::Frame(frame) => assert_eq!(frame["method"], "ping"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_is_silent_for_too_long_is_gone() {
    let server = Server::start(config()).await;
    let alice = server.register("alice").await;
    let mut silent = Client::ready(&server, &alice).await;
    // The last that it says: what comes before the answer is of a time when it wasn't silent.
    silent.line.text(r#"{"method":"ping"}"#).await;
    loop {
        match silent.line.next().await {
            Received::Frame(frame) if frame["method"] == "pong" => break,
            end @ (Received::Close(..) | Received::Eof) => panic!("{end:?}"),
            _ => {}
        }
    }
    let mut pings = 0;
    let end = loop {
        match silent.line.next().await {
            Received::Frame(frame) if frame["method"] == "ping" => pings += 1,
            end @ (Received::Close(..) | Received::Eof) => break end,
            _ => {}
        }
    };
    assert_eq!((pings, end), (2, Received::Eof));
}

#[tokio::test]
async fn a_server_that_stops_says_when_to_come_back() {
    let mut server = server().await;
    let alice = server.register("alice").await;
    let room = room(&alice, &[]).await;
    let mut client = Client::ready(&server, &alice).await;
    let sent = client.begin("send", text(&room, "on the way")).await;
    let mut newcomer = Client::open(&server).await;
    server.signal(rustix::process::Signal::TERM);
    let (mut answered, mut told) = (false, false);
    let end = loop {
        match client.line.next().await {
            Received::Frame(frame) if frame["id"] == json!(sent) => answered = frame.get("result").is_some(),
            Received::Frame(frame) if frame["type"] == "reconnect" => {
                told = frame["delay_ms"].as_u64().is_some_and(|delay| delay <= 30_000);
            }
            Received::Frame(_) => {}
            end => break end,
        }
    };
    assert!(told, "when to come back");
    assert!(matches!(end, Received::Close(4011, _)), "{end:?}");
    assert!(matches!(newcomer.line.closed().await, Received::Close(4011, _)));
    let status = server.ended().await;
    assert!(status.success(), "{status}");
    server.start_again().await;
    let mut client = Client::resumed(&server, &alice, &client.pos.expect("a position")).await;
    if !answered {
        // It had not been read yet, and can be tried again.
        client.begin_as(&sent, "send", text(&room, "on the way")).await;
        client.answer(&sent).await.expect("sent");
    }
    assert_eq!(
        client.sync_with(|body| Some(texts(body, &room)).filter(|texts| !texts.is_empty())).await,
        ["on the way"]
    );
}

/// Clients that all come back at once would be a storm.
#[tokio::test]
async fn a_server_that_stops_spreads_when_its_sockets_come_back() {
    let mut server = server().await;
    let mut sockets = Vec::new();
    for name in ["alice", "bob", "carol", "dave", "erin"] {
        let user = server.register(name).await;
        for _ in 0..10 {
            sockets.push(Client::ready(&server, &user).await);
        }
    }
    server.signal(rustix::process::Signal::TERM);
    let mut delays = Vec::new();
    for client in &mut sockets {
        let end = loop {
            match client.line.next().await {
                Received::Frame(frame) if frame["type"] == "reconnect" => {
                    delays.push(frame["delay_ms"].as_u64().expect("milliseconds"));
                }
                Received::Frame(_) => {}
                end => break end,
            }
        };
        assert!(matches!(end, Received::Close(4011, _)), "{end:?}");
    }
    assert_eq!(delays.len(), 50);
    // So few can be back soon: it is two milliseconds for each, and half a second at least.
    assert!(delays.iter().all(|delay| *delay < 500), "{delays:?}");
    let different: BTreeSet<_> = delays.iter().collect();
    assert!(different.len() > 20, "{delays:?}");
    let status = server.ended().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_device_that_opens_a_thousand_sockets_keeps_its_newest_and_costs_no_more() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = room(&alice, &[&bob]).await;
    let mut bystander = Client::ready(&server, &bob).await;
    let before = most_resident(&server);
    let mut sockets = VecDeque::new();
    for count in 1..=1_000 {
        sockets.push_back(Client::ready(&server, &alice).await);
        if count % 50 == 0 {
            let answer = bystander.request("send", text(&room, &count.to_string())).await;
            answer.expect("others don't notice");
            bystander.syncs_read().await;
            for mut old in sockets.drain(..sockets.len() - 16) {
                let end = old.line.closed().await;
                assert!(matches!(end, Received::Close(4010, _)), "{end:?}");
            }
        }
    }
    let grown = most_resident(&server).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more for sixteen sockets");
    common::eventually("those that were closed don't count", || async {
        let metrics = server.http().get("/metrics", None).await.text();
        metrics.contains("hearth_stream_sockets 17\n").then_some(())
    })
    .await;
    for socket in &mut sockets {
        socket.sync_with(|body| texts(body, &room).contains(&"1000".to_owned()).then_some(())).await;
    }
}

#[tokio::test]
async fn the_gateway_is_the_server_itself_and_agrees_with_what_else_says_so() {
    let plain = server().await;
    let alice = plain.register("alice").await;
    let path = "/_matrix/client/unstable/hearth/v1/gateway";
    plain.http().get(path, None).await.expect_error(401, "M_MISSING_TOKEN");
    let answer = alice.get(path).await.expect(200);
    assert_eq!(answer["url"], plain.url());
    assert_eq!(answer["backup_urls"], json!([]));
    assert!(answer["ttl_ms"].as_u64().is_some_and(|ttl| ttl > 0), "{answer}");

    let config = toml::toml! { public_base_url = "https://matrix.example.org" };
    let public = Server::start(config).await;
    let alice = public.register("alice").await;
    let answer = alice.get(path).await.expect(200);
    assert_eq!(answer["url"], "https://matrix.example.org");
    let well_known = public.http().get("/.well-known/matrix/client", None).await.expect(200);
    assert_eq!(well_known["m.homeserver"]["base_url"], answer["url"]);
    let login = json!({ "type": "m.login.password", "password": common::PASSWORD,
        "identifier": { "type": "m.id.user", "user": "alice" } });
    let login = public.http().post("/v3/login", None, login).await.expect(200);
    assert_eq!(login["well_known"]["m.homeserver"]["base_url"], answer["url"]);
}

/// LK-02
#[tokio::test]
async fn an_account_that_is_suspended_meanwhile_may_do_no_more_over_its_socket() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = room(&alice, &[]).await;
    let mut client = Client::ready(&server, &alice).await;
    client.request("send", text(&room, "before")).await.expect("sent");
    let suspended = server.run(&["user", "suspend", &alice.user_id]);
    assert!(suspended.status.success(), "{suspended:?}");
    let error = loop {
        // The server notices within a second.
        if let Err(error) = client.request("send", text(&room, "after")).await {
            break error;
        }
    };
    assert_eq!(error["errcode"], "M_USER_SUSPENDED");
    alice.get("/v3/account/whoami").await.expect(200);
}
