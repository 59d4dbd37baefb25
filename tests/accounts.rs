//! Accounts as clients see them: registration, login, sessions, devices and what users keep on the server. The names of
//! tests begin with the number of the requirement they hold the server to.

mod common;

use ::http::Method;
use common::{Server, User, eventually};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";

async fn server() -> Server {
    Server::start(toml::Table::new()).await
}

fn password_stage(user: &str, session: &Value) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": PASSWORD,
        "session": session,
    })
}

async fn login(server: &Server, body: Value) -> common::Answer {
    server.http().post("/v3/login", None, body).await
}

fn by_password(user: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": password,
    })
}

#[tokio::test]
async fn ui_01_a_request_without_auth_gets_the_flows_and_a_session() {
    let server = server().await;
    for body in [json!({}), json!({ "auth": {} }), json!({ "username": "alice", "password": PASSWORD })] {
        let answer = server.http().post("/v3/register", None, body).await.expect(401);
        assert_eq!(answer["flows"], json!([{ "stages": ["m.login.dummy"] }]));
        assert_eq!(answer["params"], json!({}));
        assert!(answer["session"].is_string(), "{answer}");
        assert_eq!(answer.get("errcode"), None, "nothing failed yet: {answer}");
    }
}

#[tokio::test]
async fn ui_02_registration_in_two_rounds() {
    let server = server().await;
    let challenge = server.http().post("/v3/register", None, json!({})).await.expect(401);
    let auth = json!({ "type": "m.login.dummy", "session": challenge["session"] });
    let body = json!({ "username": "Alice", "password": PASSWORD, "device_id": "PHONE", "auth": auth });
    let answer = server.http().post("/v3/register", None, body.clone()).await.expect(200);
    assert_eq!(answer["user_id"], "@alice:localhost");
    assert_eq!(answer["device_id"], "PHONE");

    let alice = User::new(server.http().clone(), &answer);
    let who = alice.get("/v3/account/whoami").await.expect(200);
    assert_eq!(who, json!({ "user_id": "@alice:localhost", "device_id": "PHONE" }));

    let body = json!({ "username": "bob", "password": PASSWORD, "auth": auth });
    let again = server.http().post("/v3/register", None, body).await.expect(401);
    assert_ne!(again["session"], challenge["session"], "a finished session opens nothing");
}

#[tokio::test]
async fn ui_03_what_was_proved_for_one_device_deletes_no_other() {
    let server = server().await;
    let alice = server.register("alice").await;
    let (one, two) = (server.login("alice").await, server.login("alice").await);
    let path = |device: &User| format!("/v3/devices/{}", device.device_id);
    let challenge = alice.delete(&path(&one), Some(json!({}))).await.expect(401);
    assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.password"] }]));
    let auth = password_stage("alice", &challenge["session"]);

    let other = alice.delete(&path(&two), Some(json!({ "auth": auth }))).await.expect(401);
    assert_ne!(other["session"], challenge["session"]);
    two.get("/v3/account/whoami").await.expect(200);

    alice.delete(&path(&one), Some(json!({ "auth": auth }))).await.expect(200);
    one.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    alice.get(&path(&one)).await.expect_error(404, "M_NOT_FOUND");
}

/// Whether the password is right is of no interest: nobody learns it here.
#[tokio::test]
async fn ui_03_nobody_authenticates_as_somebody_else() {
    let server = server().await;
    let (alice, _) = (server.register("alice").await, server.register("bob").await);
    let other = server.login("alice").await;
    let path = format!("/v3/devices/{}", other.device_id);
    let challenge = alice.delete(&path, Some(json!({}))).await.expect(401);
    let mut wrong = password_stage("bob", &challenge["session"]);
    wrong["password"] = json!("wrong");
    for auth in
        [password_stage("bob", &challenge["session"]), wrong, password_stage("nobody", &challenge["session"])]
    {
        alice.delete(&path, Some(json!({ "auth": auth }))).await.expect_error(403, "M_FORBIDDEN");
    }
    let auth = password_stage("@ALICE:localhost", &challenge["session"]);
    alice.delete(&path, Some(json!({ "auth": auth }))).await.expect(200);
}

#[tokio::test]
async fn ui_06_a_stage_can_be_passed_on_the_servers_own_page() {
    let server = server().await;
    let challenge = server.http().post("/v3/register", None, json!({})).await.expect(401);
    let session = challenge["session"].as_str().unwrap();
    let page = format!("/v3/auth/m.login.dummy/fallback/web?session={session}");
    let shown = server.http().get(&page, None).await;
    assert_eq!(shown.status, 200);
    assert!(shown.text().contains(session), "{}", shown.text());
    assert!(shown.header("content-type").unwrap().starts_with("text/html"));
    let evil = "/v3/auth/m.login.dummy/fallback/web?session=%22%3E%3Cscript%3E";
    assert!(!server.http().get(evil, None).await.text().contains("<script>"));

    let form = format!("session={session}");
    let done = server
        .http()
        .send(Method::POST, "/v3/auth/m.login.dummy/fallback/web", ::http::HeaderMap::new(), form)
        .await
        .unwrap();
    assert!(done.text().contains("onAuthDone"), "{}", done.text());
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": { "session": session } });
    server.http().post("/v3/register", None, body).await.expect(200);
}

#[tokio::test]
async fn ui_08_registration_by_token() {
    let server = Server::start(toml::toml! {
        [registration]
        mode = "token"
    })
    .await;
    let made = server.run(&["token", "create", "--uses", "1"]);
    assert!(made.status.success(), "{made:?}");
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let validity = format!("/v1/register/m.login.registration_token/validity?token={token}");
    assert_eq!(server.http().get(&validity, None).await.expect(200), json!({ "valid": true }));

    let challenge = server.http().post("/v3/register", None, json!({})).await.expect(401);
    assert_eq!(challenge["flows"], json!([{ "stages": ["m.login.registration_token", "m.login.dummy"] }]));
    let register = async |name: &str, token: &str| {
        let challenge = server.http().post("/v3/register", None, json!({})).await.expect(401);
        let stage = async |auth: Value| {
            let mut body = json!({ "username": name, "password": PASSWORD, "auth": auth });
            body["auth"]["session"] = challenge["session"].clone();
            server.http().post("/v3/register", None, body).await
        };
        let first = stage(json!({ "type": "m.login.registration_token", "token": token })).await;
        if first.json["completed"] != json!(["m.login.registration_token"]) {
            return first;
        }
        stage(json!({ "type": "m.login.dummy" })).await
    };
    let refused = register("alice", "made-up").await.expect_error(401, "M_UNAUTHORIZED");
    assert!(refused["session"].is_string());
    register("alice", &token).await.expect(200);
    register("bob", &token).await.expect_error(401, "M_UNAUTHORIZED");
    assert_eq!(server.http().get(&validity, None).await.expect(200), json!({ "valid": false }));
    let dummy = json!({ "username": "bob", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    server.http().post("/v3/register", None, dummy).await.expect(401);
}

#[tokio::test]
async fn ui_08_a_token_without_a_session_registers_in_one_round() {
    let server = Server::start(toml::toml! {
        [registration]
        mode = "token"
    })
    .await;
    let made = server.run(&["token", "create", "--uses", "1"]);
    let token = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let register = async |token: &str| {
        let auth = json!({ "type": "m.login.registration_token", "token": token });
        let body = json!({ "username": "alice", "password": PASSWORD, "auth": auth });
        server.http().post("/v3/register", None, body).await
    };
    register("made-up").await.expect_error(401, "M_UNAUTHORIZED");
    assert_eq!(register(&token).await.expect(200)["user_id"], "@alice:localhost");
}

#[tokio::test]
async fn registration_that_is_closed_is_forbidden() {
    let server = Server::start(toml::toml! {
        [registration]
        mode = "closed"
    })
    .await;
    server.http().post("/v3/register", None, json!({})).await.expect_error(403, "M_FORBIDDEN");
    server.http().get("/_synapse/admin/v1/register", None).await.expect_error(404, "M_UNRECOGNIZED");
}

const PATH: &str = "/_synapse/admin/v1/register";

#[tokio::test]
async fn registration_by_shared_secret_is_not_taken_twice() {
    let server = Server::start(toml::toml! {
        [registration]
        mode = "closed"
        shared_secret = "letmein"
    })
    .await;
    let nonce = server.http().get(PATH, None).await.expect(200)["nonce"].as_str().unwrap().to_owned();
    let mac = |rank: &str| {
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(b"letmein").unwrap();
        mac.update(format!("{nonce}\0alice\0{PASSWORD}\0{rank}").as_bytes());
        mac.finalize().into_bytes().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    };
    let body = json!({
        "nonce": nonce, "username": "alice", "password": PASSWORD, "admin": true, "mac": mac("admin"),
    });
    let answer = server.http().post(PATH, None, body.clone()).await.expect(200);
    assert_eq!(answer["user_id"], "@alice:localhost");
    assert_eq!(answer["home_server"], "localhost");
    User::new(server.http().clone(), &answer).get("/v3/account/whoami").await.expect(200);
    server.http().post(PATH, None, body).await.expect_error(400, "M_INVALID_PARAM");
    server.login("alice").await;

    let nonce = server.http().get(PATH, None).await.expect(200)["nonce"].clone();
    let body = json!({
        "nonce": nonce, "username": "bob", "password": PASSWORD, "admin": true, "mac": mac("notadmin"),
    });
    server.http().post(PATH, None, body).await.expect_error(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn au_11_names_are_checked_before_anything_else() {
    let server = server().await;
    server.register("alice").await;
    let register = async |name: &str| {
        server.http().post("/v3/register", None, json!({ "username": name, "password": PASSWORD })).await
    };
    register("Alice").await.expect_error(400, "M_USER_IN_USE");
    for name in ["", "a b", "a/../:x", "@A:x", &"a".repeat(300), "\u{0}", "ß"] {
        register(name).await.expect_error(400, "M_INVALID_USERNAME");
    }
    let available =
        async |name: &str| server.http().get(&format!("/v3/register/available?username={name}"), None).await;
    available("alice").await.expect_error(400, "M_USER_IN_USE");
    available("a:b").await.expect_error(400, "M_INVALID_USERNAME");
    assert_eq!(available("bob").await.expect(200), json!({ "available": true }));
    server.http().get("/v3/register/available", None).await.expect_error(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn a_password_is_checked_before_anything_is_spent_on_it() {
    let server = server().await;
    let challenge = server.http().post("/v3/register", None, json!({})).await.expect(401);
    let auth = json!({ "type": "m.login.dummy", "session": challenge["session"] });
    let register = async |password: &str| {
        let body = json!({ "username": "alice", "password": password, "auth": auth });
        server.http().post("/v3/register", None, body).await
    };
    register("").await.expect_error(400, "M_WEAK_PASSWORD");
    register(&"x".repeat(100_000)).await.expect_error(400, "M_WEAK_PASSWORD");
    let missing = json!({ "username": "alice", "auth": auth });
    server.http().post("/v3/register", None, missing).await.expect_error(400, "M_MISSING_PARAM");
    register(PASSWORD).await.expect(200);
}

#[tokio::test]
async fn au_12_a_name_is_made_up_for_whoever_brings_none() {
    let server = server().await;
    let body = json!({ "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    let answer = server.http().post("/v3/register", None, body).await.expect(200);
    assert!(answer["user_id"].as_str().unwrap().ends_with(":localhost"), "{answer}");
}

#[tokio::test]
async fn au_14_registration_without_login_gives_no_token() {
    let server = server().await;
    let body = json!({
        "username": "alice", "password": PASSWORD, "inhibit_login": true, "auth": { "type": "m.login.dummy" },
    });
    let answer = server.http().post("/v3/register", None, body).await.expect(200);
    assert_eq!(answer["user_id"], "@alice:localhost");
    assert!(answer["access_token"].is_null());
    server.login("alice").await;
    server.http().post("/v3/register?kind=guest", None, json!({})).await.expect_error(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn au_11_of_many_who_register_a_name_at_once_one_gets_it() {
    let server = server().await;
    let body = json!({ "username": "alice", "password": PASSWORD, "auth": { "type": "m.login.dummy" } });
    let attempts = (0..8).map(|_| server.http().post("/v3/register", None, body.clone()));
    let answers = futures_util::future::join_all(attempts).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    for answer in answers.into_iter().filter(|answer| answer.status != 200) {
        answer.expect_error(400, "M_USER_IN_USE");
    }
}

#[tokio::test]
async fn au_01_a_token_in_the_header_or_in_the_query() {
    let server = server().await;
    let alice = server.register("alice").await;
    let path = format!("/r0/account/whoami?access_token={}", alice.access_token);
    server.http().get(&path, None).await.expect(200);
}

#[tokio::test]
async fn au_02_missing_and_unknown_tokens() {
    let server = server().await;
    server.http().get("/v3/account/whoami", None).await.expect_error(401, "M_MISSING_TOKEN");
    let refused =
        server.http().get("/v3/account/whoami", Some("made-up")).await.expect_error(401, "M_UNKNOWN_TOKEN");
    assert_eq!(refused["soft_logout"], false);
}

#[tokio::test]
async fn au_09_login_by_localpart_full_id_and_the_old_key() {
    let server = server().await;
    server.register("alice").await;
    let flows = server.http().get("/v3/login", None).await.expect(200);
    assert_eq!(flows["flows"][0]["type"], "m.login.password");
    for user in ["alice", "Alice", "@alice:localhost"] {
        let answer = login(&server, by_password(user, PASSWORD)).await.expect(200);
        assert_eq!(answer["user_id"], "@alice:localhost");
        assert!(answer.get("well_known").is_none(), "none is configured");
    }
    let old = json!({ "type": "m.login.password", "user": "alice", "password": PASSWORD });
    login(&server, old).await.expect(200);
}

#[tokio::test]
async fn au_09_a_wrong_password_and_an_unknown_user_get_the_same_answer() {
    let server = server().await;
    server.register("alice").await;
    let wrong = login(&server, by_password("alice", "guess")).await.expect_error(403, "M_FORBIDDEN");
    for user in ["nobody", "@alice:elsewhere.org", "a b", ""] {
        let unknown = login(&server, by_password(user, "guess")).await.expect_error(403, "M_FORBIDDEN");
        assert_eq!(wrong, unknown, "{user}");
    }
    login(&server, json!({ "type": "m.login.sso" })).await.expect_error(400, "M_UNKNOWN");
    login(&server, json!({})).await.expect_error(400, "M_BAD_JSON");
}

#[tokio::test]
async fn au_05_au_06_refreshing_over_the_wire() {
    let server = server().await;
    server.register("alice").await;
    let mut body = by_password("alice", PASSWORD);
    body["refresh_token"] = true.into();
    body["device_id"] = "PHONE".into();
    let first = login(&server, body.clone()).await.expect(200);
    assert!(first["expires_in_ms"].as_u64().is_some_and(|ms| ms > 0), "{first}");
    let refresh = async |token: &Value| {
        server.http().post("/v3/refresh", None, json!({ "refresh_token": token })).await
    };
    let second = refresh(&first["refresh_token"]).await.expect(200);
    assert!(second["expires_in_ms"].as_u64().is_some_and(|ms| ms > 0), "{second}");
    let whoami =
        async |tokens: &Value| server.http().get("/v3/account/whoami", tokens["access_token"].as_str()).await;
    assert_eq!(whoami(&second).await.expect(200)["device_id"], "PHONE");
    whoami(&first).await.expect_error(401, "M_UNKNOWN_TOKEN");
    refresh(&first["refresh_token"]).await.expect_error(401, "M_UNKNOWN_TOKEN");
    whoami(&second).await.expect_error(401, "M_UNKNOWN_TOKEN");

    login(&server, body.clone()).await.expect(200);
    let third = login(&server, body.clone()).await.expect(200);
    login(&server, body).await.expect(200);
    whoami(&third).await.expect_error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn au_07_logout_ends_the_device_and_logout_all_every_device() {
    let server = server().await;
    let first = server.register("alice").await;
    let (second, third) = (server.login("alice").await, server.login("alice").await);
    second.post("/v3/logout", json!({})).await.expect(200);
    second.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    let devices = first.get("/v3/devices").await.expect(200)["devices"].as_array().unwrap().len();
    assert_eq!(devices, 2);
    third.post("/v3/logout/all", json!({})).await.expect(200);
    first.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    server.login("alice").await;
}

#[tokio::test]
async fn au_08_a_new_password_logs_the_other_devices_out() {
    let server = server().await;
    let alice = server.register("alice").await;
    let other = server.login("alice").await;
    let change = async |body: Value| alice.post("/v3/account/password", body).await;
    let challenge = change(json!({ "new_password": "tr0ub4dor" })).await.expect(401);
    let mut wrong = password_stage("alice", &challenge["session"]);
    wrong["password"] = "guess".into();
    let refused = change(json!({ "new_password": "tr0ub4dor", "auth": wrong })).await;
    let refused = refused.expect_error(401, "M_FORBIDDEN");
    assert_eq!(refused["session"], challenge["session"]);
    let auth = password_stage("alice", &challenge["session"]);
    change(json!({ "new_password": "other", "auth": auth })).await.expect(401);
    change(json!({ "new_password": "tr0ub4dor", "auth": auth })).await.expect(200);

    alice.get("/v3/account/whoami").await.expect(200);
    other.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    login(&server, by_password("alice", PASSWORD)).await.expect_error(403, "M_FORBIDDEN");
    login(&server, by_password("alice", "tr0ub4dor")).await.expect(200);
}

#[tokio::test]
async fn au_15_a_deactivated_account_can_not_log_in() {
    let server = server().await;
    let alice = server.register("alice").await;
    let challenge = alice.post("/v3/account/deactivate", json!({})).await.expect(401);
    let auth = password_stage("alice", &challenge["session"]);
    let answer = alice.post("/v3/account/deactivate", json!({ "auth": auth })).await.expect(200);
    assert_eq!(answer["id_server_unbind_result"], "no-support");
    alice.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    login(&server, by_password("alice", PASSWORD)).await.expect_error(403, "M_USER_DEACTIVATED");
    server.http().get("/v3/register/available?username=alice", None).await.expect_error(400, "M_USER_IN_USE");
}

#[tokio::test]
async fn devices_are_listed_renamed_and_deleted_in_bulk() {
    let server = server().await;
    let alice = server.register("alice").await;
    let (one, two) = (server.login("alice").await, server.login("alice").await);
    let path = format!("/v3/devices/{}", one.device_id);
    alice.put(&path, json!({ "display_name": "Phone" })).await.expect(200);
    alice.put(&path, json!({})).await.expect(200);
    let device = alice.get(&path).await.expect(200);
    assert_eq!(device["display_name"], "Phone");
    alice.put("/v3/devices/NONE", json!({ "display_name": "x" })).await.expect_error(404, "M_NOT_FOUND");
    alice.put(&path, json!({ "display_name": "x".repeat(100_000) })).await.expect_error(413, "M_TOO_LARGE");
    let seen = alice.get(&format!("/v3/devices/{}", alice.device_id)).await.expect(200);
    assert_eq!(seen["last_seen_ip"], "127.0.0.1");
    assert!(seen["last_seen_ts"].as_u64().is_some_and(|ts| ts > 1_600_000_000_000), "{seen}");

    let body = json!({ "devices": [one.device_id, two.device_id, "NONE"] });
    let challenge = alice.post("/v3/delete_devices", body.clone()).await.expect(401);
    let mut body = body;
    body["auth"] = password_stage("@alice:localhost", &challenge["session"]);
    alice.post("/v3/delete_devices", body).await.expect(200);
    one.get("/v3/account/whoami").await.expect_error(401, "M_UNKNOWN_TOKEN");
    let left = alice.get("/v3/devices").await.expect(200);
    assert_eq!(left["devices"].as_array().unwrap().len(), 1);
    assert_eq!(left["devices"][0]["device_id"], alice.device_id);
}

/// A request of `waiting` that waits for news, and what it got once `end` ended its session.
async fn cut_short(waiting: &User, end: impl Future<Output = ()>) -> common::Answer {
    let first = waiting.sync(None, 0).await;
    let since = first["next_batch"].as_str().expect("a sync gives a token");
    let path = format!("/v3/sync?timeout=120000&since={since}");
    let poll = tokio::spawn({
        let waiting = waiting.clone();
        async move { waiting.get(&path).await }
    });
    eventually("the sync waits", || async {
        let metrics = waiting.http.get("/metrics", None).await.text();
        let in_flight = metrics.lines().find(|line| line.starts_with("hearth_http_requests_in_flight"))?;
        let in_flight: f64 = in_flight.rsplit_once(' ')?.1.parse().ok()?;
        // It and the question itself.
        (in_flight >= 2.0).then_some(())
    })
    .await;
    end.await;
    poll.await.expect("the sync is answered")
}

#[tokio::test]
async fn au_07_a_waiting_sync_ends_with_its_session() {
    let server = server().await;
    let alice = server.register("alice").await;
    let phone = server.login("alice").await;
    let answer = cut_short(&phone, async {
        alice.post("/v3/logout/all", json!({})).await.expect(200);
    })
    .await;
    answer.expect_error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn au_15_a_waiting_sync_ends_with_an_account_that_the_operator_closes() {
    let server = server().await;
    let alice = server.register("alice").await;
    let answer = cut_short(&alice, async {
        let done = server.run(&["user", "deactivate", "alice"]);
        assert!(done.status.success(), "{done:?}");
    })
    .await;
    answer.expect_error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn sessions_outlive_a_restart() {
    let mut server = server().await;
    let alice = server.register("alice").await;
    let path = format!("/v3/devices/{}", alice.device_id);
    let seen = alice.get(&path).await.expect(200);
    server.restart().await;
    let bob = server.register("bob").await;
    bob.get(&path).await.expect_error(404, "M_NOT_FOUND");
    let phone = server.login("alice").await;
    let device = phone.get(&path).await.expect(200);
    assert!(device["last_seen_ts"].is_u64(), "written down at the end: {device}");
    assert_eq!(device["last_seen_ip"], seen["last_seen_ip"]);
    alice.get("/v3/account/whoami").await.expect(200);
}
