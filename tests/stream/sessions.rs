//! Whose socket it is, and how long.

use super::*;

fn config() -> toml::Table {
    toml::toml! {
        [stream]
        heartbeat_ms = 2_000
    }
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

/// threats: access token of a deleted device on an open socket
#[tokio::test]
async fn whatever_ends_a_session_closes_its_sockets() {
    let server = server().await;
    let ends: [(&str, &str); 4] = [
        ("logout", "M_UNKNOWN_TOKEN"),
        ("logout/all", "M_UNKNOWN_TOKEN"),
        ("password", "M_UNKNOWN_TOKEN"),
        ("lock", "M_USER_LOCKED"),
    ];
    for (index, (end, errcode)) in ends.into_iter().enumerate() {
        let user = server.register(&format!("user{index}")).await;
        let mut client = Client::ready(&server, &user).await;
        match end {
            "lock" => {
                let locked = server.run(&["user", "lock", &user.user_id]);
                assert!(locked.status.success(), "{locked:?}");
            }
            "password" => {
                let other = server.login(&format!("user{index}")).await;
                let auth = json!({ "type": "m.login.password", "password": common::PASSWORD,
                    "identifier": { "type": "m.id.user", "user": user.user_id } });
                let body = json!({ "new_password": "another long password", "auth": auth });
                other.post("/v3/account/password", body).await.expect(200);
            }
            path => {
                user.post(&format!("/v3/{path}"), json!({})).await.expect(200);
            }
        }
        let start = std::time::Instant::now();
        assert_eq!(client.line.closed().await, Received::Close(4004, errcode.to_owned()), "{end}");
        assert!(start.elapsed() < std::time::Duration::from_secs(5), "{end}: {:?}", start.elapsed());
    }
    let user = server.register("bystander").await;
    let other = server.login("bystander").await;
    let mut client = Client::ready(&server, &user).await;
    other.post("/v3/logout", json!({})).await.expect(200);
    let room = room(&user, &[]).await;
    client.request("send", text(&room, "still here")).await.expect("its own session is not touched");
}

#[tokio::test]
async fn a_token_that_expires_closes_it_unless_it_is_refreshed() {
    let server = server().await;
    server.register("alice").await;
    let login = json!({ "type": "m.login.password", "password": common::PASSWORD, "refresh_token": true,
        "identifier": { "type": "m.id.user", "user": "alice" } });
    let answer = server.http().post("/v3/login", None, login).await.expect(200);
    let alice = User::new(server.http().clone(), &answer);
    let mut client = Client::ready(&server, &alice).await;
    let refresh = json!({ "refresh_token": answer["refresh_token"] });
    let fresh = server.http().post("/v3/refresh", None, refresh).await.expect(200);
    client.request("token", json!({ "access_token": fresh["access_token"] })).await.expect("the same device");
    // The first use of the new token has ended the old one.
    server.http().get("/v3/account/whoami", Some(&alice.access_token)).await.expect(401);
    let room = {
        let token = fresh["access_token"].as_str().expect("a token");
        let room = server.http().post("/v3/createRoom", Some(token), json!({})).await.expect(200);
        room["room_id"].as_str().expect("an id").to_owned()
    };
    client.request("send", text(&room, "still here")).await.expect("sent");

    let bob = server.register("bob").await;
    let error = client.request("token", json!({ "access_token": bob.access_token })).await;
    assert_eq!(error.expect_err("another device")["errcode"], "M_INVALID_PARAM");
    client.request("send", text(&room, "and still")).await.expect("sent");
}

#[tokio::test]
async fn what_was_asked_before_a_refreshed_token_is_done_under_the_old_one() {
    let server = server().await;
    server.register("alice").await;
    for method in ["token", "auth"] {
        let login = json!({ "type": "m.login.password", "password": common::PASSWORD, "refresh_token": true,
            "identifier": { "type": "m.id.user", "user": "alice" } });
        let answer = server.http().post("/v3/login", None, login).await.expect(200);
        let alice = User::new(server.http().clone(), &answer);
        let room = room(&alice, &[]).await;
        let mut client = Client::ready(&server, &alice).await;
        let refresh = json!({ "refresh_token": answer["refresh_token"] });
        let fresh = server.http().post("/v3/refresh", None, refresh).await.expect(200);
        let mut ids = Vec::new();
        for count in 0..20 {
            ids.push(client.begin("send", text(&room, &count.to_string())).await);
        }
        let token = json!({ "access_token": fresh["access_token"], "since": client.pos });
        let token = match method {
            "token" => json!({ "access_token": fresh["access_token"] }),
            _ => token,
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

#[tokio::test]
async fn a_device_that_opens_many_sockets_keeps_its_newest() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut sockets = Vec::new();
    let mut bystander = Client::ready(&server, &bob).await;
    for _ in 0..20 {
        sockets.push(Client::ready(&server, &alice).await);
    }
    for old in &mut sockets[..4] {
        assert!(matches!(old.line.closed().await, Received::Close(4010, _)));
    }
    common::eventually("those that were closed don't count", || async {
        let metrics = server.http().get("/metrics", None).await.text();
        metrics.contains("hearth_stream_sockets 17").then_some(())
    })
    .await;
    let room = room(&alice, &[&bob]).await;
    for socket in &mut sockets[4..] {
        socket.sync_with(|body| body["rooms"]["join"].get(&room).map(|_| ())).await;
    }
    bystander.sync_with(|body| body["rooms"]["join"].get(&room).map(|_| ())).await;
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
