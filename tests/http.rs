//! What holds for every request, seen from outside: errors, CORS, paths, limits, hostile bytes, and metrics.

// A test that can't go on should stop where it is.
#![allow(clippy::unwrap_used)]

mod common;

use std::{fmt::Write as _, time::Duration};

use common::{Answer, PATIENCE, Server, eventually};
use http::{HeaderMap, Method};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use toml::Table;

#[track_caller]
fn assert_cors(answer: &Answer) {
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{}", answer.text());
    let methods = answer.header("access-control-allow-methods").unwrap_or_default();
    for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(methods.contains(method), "{methods}");
    }
    let headers = answer.header("access-control-allow-headers").unwrap_or_default();
    for header in ["X-Requested-With", "Content-Type", "Authorization"] {
        assert!(headers.contains(header), "{headers}");
    }
    assert_eq!(answer.header("access-control-max-age"), Some("86400"));
}

/// Sends bytes as they are and gives what came back until the server closed the connection.
async fn exchange(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    // The server may have refused before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    // So it is with reading: a reset is an end as well.
    let _ =
        timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

/// The same server, but it serves clients alone.
async fn without_metrics(mut server: Server) -> Server {
    server.stop().await;
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    let without = config.replace(r#"serve = ["client", "metrics"]"#, r#"serve = ["client"]"#);
    assert_ne!(without, config);
    std::fs::write(server.config_path(), without).unwrap();
    server.start_again().await;
    server
}

#[tokio::test]
async fn gn_08_every_answer_may_be_read_by_any_site() {
    let server = Server::start(Table::new()).await;
    for (path, status) in [
        ("/_matrix/client/versions", 200),
        ("/_matrix/client/v3/account/whoami", 401),
        ("/_matrix/client/v3/no/such/thing", 404),
        ("/.well-known/matrix/client", 404),
        ("/.well-known/matrix/support", 404),
        ("/nothing/of/matrix", 404),
        ("/health", 200),
        ("/", 200),
    ] {
        let answer = server.http().get(path, None).await;
        assert_eq!(answer.status, status, "{path}");
        assert_cors(&answer);
    }
    let answer = server.http().delete("/_matrix/client/versions", None, None).await;
    assert_eq!(answer.status, 405);
    assert_cors(&answer);
}

#[tokio::test]
async fn gn_07_a_preflight_needs_no_token_and_does_nothing() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    for path in ["/v3/logout", "/v3/sync", "/v3/no/such/thing", "/"] {
        let answer = server.http().options(path).await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.status);
        assert_cors(&answer);
        assert!(answer.bytes.is_empty());
    }
    alice.get("/v3/account/whoami").await.expect(200);
}

#[tokio::test]
async fn gn_01_what_is_not_there_is_unrecognized() {
    let server = Server::start(Table::new()).await;
    for path in
        ["/v3/no/such/thing", "/v1/auth_metadata", "/unstable/org.matrix.msc2965/auth_issuer", "/elsewhere"]
    {
        server.http().get(path, None).await.expect_error(404, "M_UNRECOGNIZED");
    }
    server.http().post("/v3/sync", None, json!({})).await.expect_error(405, "M_UNRECOGNIZED");
    server.http().request(Method::PATCH, "/v3/login", None, None).await.expect_error(405, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn gn_02_broken_json_wrong_json_and_wrong_parameters_are_told_apart() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let post = async |body: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {}", alice.access_token).parse().unwrap());
        server.http().send(Method::POST, "/v3/createRoom", headers, body).await.unwrap()
    };
    post("{").await.expect_error(400, "M_NOT_JSON");
    post("\u{0}").await.expect_error(400, "M_NOT_JSON");
    post(r#"{"invite": 3}"#).await.expect_error(400, "M_BAD_JSON");
    post("[]").await.expect_error(400, "M_BAD_JSON");
    let typing = format!("/v3/rooms/{}/typing/{}", alice.create_room(json!({})).await, alice.user_id);
    alice.put(&typing, json!([true, 3000])).await.expect_error(400, "M_BAD_JSON");
    alice.get("/v3/register/available").await.expect_error(400, "M_MISSING_PARAM");
    alice.get("/v3/sync?timeout=soon").await.expect_error(400, "M_INVALID_PARAM");
    alice.get("/v3/profile/%FF").await.expect_error(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn gn_14_every_segment_of_a_path_is_decoded_by_itself() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let path = "/v3/user/@alice:localhost/account_data";
    let content = json!({ "kept": true });
    // The type is `a/b#c+d%e f`.
    alice.put(&format!("{path}/a%2Fb%23c+d%25e%20f"), content.clone()).await.expect(200);
    assert_eq!(alice.get(&format!("{path}/a%2fb%23c%2Bd%25e%20f")).await.expect(200), content);
    alice.get(&format!("{path}/a%2Fb%23c%20d%25e%20f")).await.expect_error(404, "M_NOT_FOUND");
    // Encoded once more, it is another type.
    alice.get(&format!("{path}/a%252Fb%2523c%252Bd%2525e%2520f")).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn gn_15_a_slash_at_the_end_means_nothing() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let with = alice.get("/v3/pushrules/").await.expect(200);
    assert_eq!(alice.get("/v3/pushrules").await.expect(200), with);
    alice.get("/v3/account/whoami/").await.expect(200);
}

#[tokio::test]
async fn gn_09_versions_are_listed_and_old_paths_answered() {
    let server = Server::start(Table::new()).await;
    let versions = server.http().get("/_matrix/client/versions", None).await.expect(200);
    assert!(versions["versions"].as_array().unwrap().contains(&json!("v1.11")), "{versions}");
    let alice = server.register("alice").await;
    alice.get("/r0/account/whoami").await.expect(200);
    let path = format!("/r0/account/whoami?access_token={}", alice.access_token);
    server.http().get(&path, None).await.expect(200);
}

#[tokio::test]
async fn gn_10_capabilities_say_what_the_server_can_do() {
    let server = Server::start(toml::toml! { rooms.default_version = "11" }).await;
    let alice = server.register("alice").await;
    let capabilities = alice.get("/v3/capabilities").await.expect(200)["capabilities"].clone();
    assert_eq!(capabilities["m.room_versions"]["default"], "11");
    let versions = &capabilities["m.room_versions"]["available"];
    assert_eq!(versions["12"], "stable");
    assert_eq!(versions["org.matrix.msc3757.11"], "unstable");
    assert_eq!(versions.as_object().map(serde_json::Map::len), Some(14), "{versions}");
    assert_eq!(capabilities["m.forget_forced_upon_leave"]["enabled"], false, "MB-03");
    assert_eq!(capabilities["m.change_password"]["enabled"], true);
    assert_eq!(capabilities["m.3pid_changes"]["enabled"], false);
}

#[tokio::test]
async fn gn_11_well_known_files_say_what_is_configured() {
    let server = Server::start(toml::toml! {
        public_base_url = "https://matrix.example.org"
        [support]
        page = "https://example.org/help"
        contact = [{ email_address = "help@example.org" }]
    })
    .await;
    let client = server.http().get("/.well-known/matrix/client", None).await.expect(200);
    assert_eq!(client["m.homeserver"]["base_url"], "https://matrix.example.org");
    assert_eq!(client["org.matrix.msc3814"], true, "Element Web looks here whether it may leave devices");
    let support = server.http().get("/.well-known/matrix/support", None).await.expect(200);
    assert_eq!(support["support_page"], "https://example.org/help");
    let contact = json!([{ "role": "m.role.admin", "email_address": "help@example.org" }]);
    assert_eq!(support["contacts"], contact);
}

#[tokio::test]
async fn gn_04_whoever_asks_too_often_is_told_when_to_come_back() {
    let server = Server::start(toml::toml! {
        [limits]
        enabled = true
        login = { per_second = 0.001, burst = 2 }
    })
    .await;
    let wrong = json!({
        "type": "m.login.password", "password": "wrong",
        "identifier": { "type": "m.id.user", "user": "nobody" },
    });
    let refused = eventually("a log-in is refused", async || {
        let answer = server.http().post("/v3/login", None, wrong.clone()).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert_cors(&refused);
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    let milliseconds = refused.expect_error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"].as_u64().unwrap();
    assert!((1..=1_000_000).contains(&milliseconds), "{milliseconds}");
    assert_eq!(seconds, milliseconds.div_ceil(1000));
}

#[tokio::test]
async fn gn_04_clients_behind_a_proxy_have_budgets_of_their_own() {
    let server = Server::start(toml::toml! {
        [limits]
        enabled = true
        login = { per_second = 0.001, burst = 2 }
    })
    .await;
    let attempt = async |server: &Server, client: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", http::HeaderValue::from_static(client));
        let body =
            r#"{"type":"m.login.password","password":"x","identifier":{"type":"m.id.user","user":"x"}}"#;
        server.http().send(Method::POST, "/v3/login", headers, body).await.unwrap().status
    };
    let exhausted = async |server: &Server, client: &'static str| {
        eventually("a log-in is refused", async || (attempt(server, client).await == 429).then_some(()))
            .await;
    };
    exhausted(&server, "192.0.2.1").await;
    assert_eq!(attempt(&server, "192.0.2.2").await, 429, "nobody may claim an address");

    let mut server = server;
    server.stop().await;
    let config = std::fs::read_to_string(server.config_path()).unwrap();
    let config = config.replace("[[listener]]", "[[listener]]\nbehind_proxy = true");
    std::fs::write(server.config_path(), config).unwrap();
    server.start_again().await;
    exhausted(&server, "192.0.2.1").await;
    assert_eq!(attempt(&server, "192.0.2.1, 192.0.2.2").await, 403, "who comes from elsewhere is let in");
}

#[tokio::test]
async fn each_answer_has_an_id_that_the_log_knows() {
    let server = Server::start(toml::toml! { log.filter = "info,hearth::http=debug" }).await;
    let answer = server.http().get("/v3/account/whoami", None).await;
    let id = answer.header("x-request-id").unwrap().to_owned();
    eventually("the log has the request's id", async || server.log().contains(&id).then_some(())).await;
    let other = server.http().get("/v3/account/whoami", None).await;
    assert_ne!(other.header("x-request-id"), Some(id.as_str()));
}

#[tokio::test]
async fn the_log_has_no_tokens() {
    let server = Server::start(toml::toml! { log.filter = "debug" }).await;
    server.http().get("/v3/account/whoami?access_token=in_the_query", None).await.expect(401);
    server.http().get("/v3/account/whoami", Some("in_the_header")).await.expect(401);
    eventually("the log has the requests", async || {
        (server.log().matches("answered").count() >= 2).then_some(())
    })
    .await;
    assert!(!server.log().contains("in_the_query") && !server.log().contains("in_the_header"));
}

#[tokio::test]
async fn metrics_are_served_where_they_are_wanted_and_nowhere_else() {
    let server = Server::start(Table::new()).await;
    server.http().get("/v3/account/whoami", None).await.expect(401);
    let text = server.http().get("/metrics", None).await.text();
    let counted = r#"hearth_http_requests_total{method="GET",route="/_matrix/client/v3/account/whoami",status="401"} 1"#;
    assert!(text.contains(counted), "{text}");
    for name in [
        "hearth_http_request_duration_seconds_bucket",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }

    let server = without_metrics(server).await;
    server.http().get("/metrics", None).await.expect_error(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_arrives() {
    let server = Server::start(Table::new()).await;
    let head =
        "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n";
    let answer = exchange(&server, head.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("M_TOO_LARGE"), "{answer}");
}

/// The client writes all of it before it looks for an answer, as many do: it gets one, and may go on.
#[tokio::test]
async fn who_sends_somewhat_too_much_hears_of_it() {
    let server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let large = json!({ "name": "x".repeat(4_000_000) });
    for _ in 0..20 {
        let error = alice.post("/v3/createRoom", large.clone()).await.expect_error(413, "M_TOO_LARGE");
        assert!(error["error"].as_str().unwrap().contains("2621440"), "names the limit: {error}");
    }
    let compressed = HeaderMap::from_iter([
        (::http::header::AUTHORIZATION, format!("Bearer {}", alice.access_token).parse().unwrap()),
        (::http::header::CONTENT_ENCODING, "gzip".parse().unwrap()),
    ]);
    let answer = server.http().send(Method::POST, "/v3/createRoom", compressed, "{}").await.unwrap();
    answer.expect_error(415, "M_UNKNOWN");
}

#[tokio::test]
async fn a_body_without_a_length_is_cut_off_at_the_limit() {
    let server = Server::start(Table::new()).await;
    let head =
        "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut request = head.as_bytes().to_vec();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    // More than is read of it, whether it is kept or not.
    for _ in 0..256 {
        request.extend_from_slice(chunk.as_bytes());
    }
    let answer = exchange(&server, &request).await;
    // The answer may be lost to a reset, for we were still sending; then it is enough that the server lives.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
    server.http().get("/health", None).await.expect(200);
}

#[tokio::test]
async fn nothing_that_follows_a_chunked_request_is_taken_for_another() {
    let server = Server::start(Table::new()).await;
    let request = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\
                   Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let answer = exchange(&server, request.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}

#[tokio::test]
async fn two_lengths_are_none() {
    let server = Server::start(Table::new()).await;
    let request = "POST /_matrix/client/v3/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\
                   Content-Length: 3\r\n\r\n{}";
    let answer = exchange(&server, request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn a_hundred_thousand_headers_are_refused() {
    let server = Server::start(Table::new()).await;
    let mut request = "GET /health HTTP/1.1\r\nHost: localhost\r\n".to_owned();
    for number in 0..100_000 {
        let _ = write!(request, "X-{number}: {number}\r\n");
    }
    request.push_str("\r\n");
    let answer = exchange(&server, request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    server.http().get("/health", None).await.expect(200);
}

#[tokio::test]
async fn a_cookie_of_a_megabyte_is_refused() {
    let server = Server::start(Table::new()).await;
    let cookie = "x".repeat(1024 * 1024);
    let request = format!("GET /health HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    let answer = exchange(&server, request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    server.http().get("/health", None).await.expect(200);
}

#[tokio::test]
async fn headers_that_never_end_are_given_up() {
    let server = Server::start(Table::new()).await;
    let answer = exchange(&server, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
    assert!(!answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn nonsense_is_no_request() {
    let server = Server::start(Table::new()).await;
    for nonsense in
        [&b"\0\0\0\0\r\n\r\n"[..], b"GET\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"]
    {
        let answer = exchange(&server, nonsense).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    server.http().get("/health", None).await.expect(200);
}

#[tokio::test]
async fn connections_are_kept_for_the_next_request() {
    let server = Server::start(Table::new()).await;
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    for _ in 0..3 {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"OK\n") {
            let read = timeout(Duration::from_secs(30), stream.read_buf(&mut answer)).await.unwrap().unwrap();
            assert!(read > 0, "closed after {}", String::from_utf8_lossy(&answer));
        }
    }
}

#[tokio::test]
async fn a_long_poll_is_answered_when_the_server_is_told_to_stop() {
    let mut server = Server::start(Table::new()).await;
    let alice = server.register("alice").await;
    let since = alice.get("/v3/sync").await.expect(200)["next_batch"].as_str().unwrap().to_owned();
    let path = format!("/v3/sync?since={since}&timeout=600000");
    let waiting = tokio::spawn(async move { alice.get(&path).await });
    // The long poll, and the question how many requests there are.
    eventually("the long poll waits", async || {
        let metrics = server.http().get("/metrics", None).await.text();
        metrics.contains("hearth_http_requests_in_flight 2").then_some(())
    })
    .await;

    server.stop().await;

    assert!(waiting.await.unwrap().expect(200)["next_batch"].is_string());
}
