//! Rendezvous, where two devices meet for signing in by a QR code, in both forms (MSC4108, MSC4388).

mod common;

use common::{Answer, Server, User};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use toml::{Table, toml};

const MSC4108: &str = "/unstable/org.matrix.msc4108/rendezvous";
const MSC4388: &str = "/unstable/io.element.msc4388/rendezvous";
/// Bytes of a payload.
const MOST: usize = 4096;

async fn server() -> Server {
    Server::start(Table::new()).await
}

/// A request with just these headers and that body.
async fn send(server: &Server, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| {
            (HeaderName::try_from(*name).expect("a name"), HeaderValue::try_from(*value).expect("a value"))
        })
        .collect();
    server.http().send(method, path, headers, body.to_owned()).await.expect("an answer")
}

const TEXT: (&str, &str) = ("content-type", "text/plain");

/// Opens one in the older form: its path, and the `ETag`.
async fn open_resource(server: &Server, data: &str) -> (String, String) {
    let answer = send(server, Method::POST, MSC4108, &[TEXT], data).await;
    let etag = answer.header("etag").expect("an ETag").to_owned();
    let url = answer.expect(201)["url"].as_str().expect("a URL").to_owned();
    (url.strip_prefix(server.url()).expect("the address that was asked").to_owned(), etag)
}

async fn put_resource(server: &Server, path: &str, etag: &str, data: &str) -> Answer {
    send(server, Method::PUT, path, &[TEXT, ("if-match", etag)], data).await
}

#[track_caller]
fn check_headers(answer: &Answer) -> String {
    assert_eq!(answer.header("access-control-expose-headers"), Some("ETag"));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert!(answer.header("cache-control").expect("a header").contains("no-store"));
    for date in ["expires", "last-modified"] {
        assert!(answer.header(date).expect("a date").ends_with(" GMT"), "{date}");
    }
    answer.header("etag").expect("an ETag").to_owned()
}

#[tokio::test]
async fn msc4108_two_devices_speak_in_turn() {
    let server = server().await;
    let opened =
        send(&server, Method::POST, MSC4108, &[("content-type", "text/plain;charset=UTF-8")], "").await;
    let first = check_headers(&opened);
    let url = opened.expect(201)["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(server.url()).unwrap();
    assert!(path.starts_with("/_matrix/client/unstable/org.matrix.msc4108/rendezvous/"), "{path}");

    // The other device, which has read the code.
    let read = send(&server, Method::GET, path, &[], "").await;
    assert_eq!(check_headers(&read), first);
    assert_eq!((read.status, read.text().as_str()), (200, ""));
    assert_eq!(read.header("content-type"), Some("text/plain"));
    let sent = put_resource(&server, path, &first, "LOGIN_INITIATE {\"ü\"}").await;
    let second = check_headers(&sent);
    assert_eq!((sent.status, sent.text().as_str()), (202, ""));
    assert_ne!(first, second);

    // The first polls.
    let poll = async |etag: &str| send(&server, Method::GET, path, &[("if-none-match", etag)], "").await;
    let news = poll(&first).await;
    assert_eq!((news.status, news.text().as_str()), (200, "LOGIN_INITIATE {\"ü\"}"));
    assert_eq!(check_headers(&news), second);
    for known in [second.clone(), format!("\"other\", {second}"), format!("W/{second}"), "*".to_owned()] {
        let nothing = poll(&known).await;
        assert_eq!((nothing.status, nothing.text().as_str()), (304, ""), "{known}");
        assert_eq!(check_headers(&nothing), second);
    }
    // The same text again is news all the same.
    let third = check_headers(&put_resource(&server, path, &second, "LOGIN_INITIATE {\"ü\"}").await);
    assert_ne!(third, second);
    assert_eq!(poll(&second).await.status, 200);

    // Both at once: the one who comes second has to read first.
    let refused = put_resource(&server, path, &second, "too late").await;
    assert_eq!(check_headers(&refused), third);
    let body = refused.expect_error(412, "M_UNKNOWN");
    assert_eq!(body["org.matrix.msc4108.errcode"], "M_CONCURRENT_WRITE");
    assert_eq!(poll(&first).await.text(), "LOGIN_INITIATE {\"ü\"}");

    assert_eq!(send(&server, Method::DELETE, path, &[], "").await.status, 204);
    poll(&third).await.expect_error(404, "M_NOT_FOUND");
    put_resource(&server, path, &third, "gone").await.expect_error(404, "M_NOT_FOUND");
    send(&server, Method::DELETE, path, &[], "").await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn msc4108_bad_requests_are_refused() {
    let server = server().await;
    let (path, etag) = open_resource(&server, "first").await;
    let large = "x".repeat(MOST + 1);
    for (method, path) in [(Method::POST, MSC4108), (Method::PUT, path.as_str())] {
        let send = async |headers: &[(&str, &str)], body: &str| {
            send(&server, method.clone(), path, &[headers, &[("if-match", etag.as_str())]].concat(), body)
                .await
        };
        send(&[], "x").await.expect_error(400, "M_MISSING_PARAM");
        for kind in ["application/json", "text/html", "text", ""] {
            send(&[("content-type", kind)], "x").await.expect_error(400, "M_INVALID_PARAM");
        }
        send(&[TEXT], &large).await.expect_error(413, "M_TOO_LARGE");
        send(&[TEXT], &"x".repeat(3_000_000)).await.expect_error(413, "M_TOO_LARGE");
    }
    send(&server, Method::PUT, &path, &[TEXT], "x").await.expect_error(400, "M_MISSING_PARAM");
    for bad in
        [format!("W/{etag}"), format!("{etag}, {etag}"), "*".to_owned(), "\"".to_owned(), String::new()]
    {
        put_resource(&server, &path, &bad, "x").await.expect_error(400, "M_INVALID_PARAM");
    }
    let twice = [TEXT, ("if-match", etag.as_str()), ("if-match", "\"a\"")];
    let mut headers = HeaderMap::new();
    for (name, value) in twice {
        headers.append(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
    }
    let answer = server.http().send(Method::PUT, &path, headers, "x".to_owned()).await.unwrap();
    answer.expect_error(400, "M_INVALID_PARAM");

    assert_eq!(send(&server, Method::GET, &path, &[], "").await.text(), "first");
    let (path, _) = open_resource(&server, &large[1..]).await;
    assert_eq!(send(&server, Method::GET, &path, &[], "").await.bytes.len(), MOST);
    for unknown in [format!("{MSC4108}/unknown"), format!("{MSC4108}/%00"), format!("{path}x")] {
        send(&server, Method::GET, &unknown, &[], "").await.expect_error(404, "M_NOT_FOUND");
        put_resource(&server, &unknown, &etag, "x").await.expect_error(404, "M_NOT_FOUND");
    }
}

#[tokio::test]
async fn msc4108_browsers_may_send_what_it_takes() {
    let server = server().await;
    let answer = server.http().options(&format!("{MSC4108}/id")).await;
    let allowed = |name: &str| answer.header(name).unwrap().to_ascii_lowercase();
    for header in ["if-match", "if-none-match", "content-type"] {
        assert!(allowed("access-control-allow-headers").contains(header), "{header}");
    }
    for method in ["get", "put", "delete"] {
        assert!(allowed("access-control-allow-methods").contains(method), "{method}");
    }
}

async fn open(server: &Server, data: &str) -> (String, String) {
    let answer = server.http().post(MSC4388, None, json!({ "data": data })).await.expect(200);
    let text = |key: &str| answer[key].as_str().expect("a text").to_owned();
    assert!((120_000..=300_000).contains(&answer["expires_in_ms"].as_u64().expect("a number")), "{answer}");
    (format!("{MSC4388}/{}", text("id")), text("sequence_token"))
}

async fn put(server: &Server, path: &str, sequence_token: &str, data: &str) -> Answer {
    let body = json!({ "sequence_token": sequence_token, "data": data });
    server.http().put(path, None, body).await
}

#[tokio::test]
async fn msc4388_two_devices_speak_in_turn() {
    let server = server().await;
    let (path, first) = open(&server, "").await;
    let read = server.http().get(&path, None).await;
    assert_eq!(read.header("cache-control"), Some("no-store"));
    let read = read.expect(200);
    assert_eq!((&read["data"], &read["sequence_token"]), (&json!(""), &json!(first)));
    assert!(read["expires_in_ms"].as_u64().unwrap() <= 300_000);

    let sent = put(&server, &path, &first, "hello ü").await.expect(200);
    let second = sent["sequence_token"].as_str().unwrap();
    assert_ne!(second, first);
    assert_eq!(server.http().get(&path, None).await.expect(200)["data"], "hello ü");
    // Whoever has had no answer sends it again.
    assert_eq!(put(&server, &path, &first, "hello ü").await.expect(200), sent);
    assert_eq!(put(&server, &path, "nonsense", "hello ü").await.expect(200), sent);
    put(&server, &path, &first, "else").await.expect_error(409, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE");
    // The same from the other side is news.
    let third = put(&server, &path, second, "hello ü").await.expect(200);
    assert_ne!(third, sent);
    assert_eq!(server.http().get(&path, None).await.expect(200)["sequence_token"], third["sequence_token"]);

    assert_eq!(server.http().delete(&path, None, None).await.expect(200), json!({}));
    server.http().get(&path, None).await.expect_error(404, "M_NOT_FOUND");
    put(&server, &path, &first, "hello ü").await.expect_error(404, "M_NOT_FOUND");
    server.http().delete(&path, None, None).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn msc4388_bad_requests_are_refused() {
    let server = server().await;
    let (path, token) = open(&server, "first").await;
    for body in [json!({}), json!({ "data": 5 }), json!({ "data": null }), json!([]), json!("data")] {
        server.http().post(MSC4388, None, body.clone()).await.expect_error(400, "M_BAD_JSON");
        server.http().put(&path, None, body).await.expect_error(400, "M_BAD_JSON");
    }
    server.http().put(&path, None, json!({ "data": "x" })).await.expect_error(400, "M_BAD_JSON");
    send(&server, Method::POST, MSC4388, &[], "{").await.expect_error(400, "M_NOT_JSON");
    // Bytes, not characters.
    for large in ["x".repeat(MOST + 1), "ü".repeat(MOST / 2 + 1), "x".repeat(3_000_000)] {
        server.http().post(MSC4388, None, json!({ "data": large })).await.expect_error(413, "M_TOO_LARGE");
        put(&server, &path, &token, &large).await.expect_error(413, "M_TOO_LARGE");
    }
    put(&server, &path, &token, &"\u{1}".repeat(MOST)).await.expect(200);

    for (header, value) in [
        ("sec-fetch-dest", "document"),
        ("sec-fetch-dest", "image"),
        ("sec-fetch-mode", "navigate"),
        ("sec-fetch-user", "?1"),
        ("sec-fetch-site", "none"),
    ] {
        send(&server, Method::GET, &path, &[(header, value)], "").await.expect_error(403, "M_FORBIDDEN");
    }
    let page = [("sec-fetch-dest", "empty"), ("sec-fetch-mode", "cors"), ("sec-fetch-site", "cross-site")];
    send(&server, Method::GET, &path, &page, "").await.expect(200);
    // A rendezvous of one form is none of the other.
    let id = path.rsplit('/').next().unwrap();
    send(&server, Method::GET, &format!("{MSC4108}/{id}"), &[], "").await.expect_error(404, "M_NOT_FOUND");
}

async fn features(server: &Server) -> Value {
    server.http().get("/_matrix/client/versions", None).await.expect(200)["unstable_features"].clone()
}

#[tokio::test]
async fn the_operator_decides_whom_it_is_open_to() {
    let everybody = server().await;
    assert_eq!(features(&everybody).await["org.matrix.msc4108"], true);
    let answer = everybody.http().get(MSC4388, None).await.expect(200);
    assert_eq!(answer, json!({ "create_available": true }));

    let users = Server::start(toml! { qr_sign_in = { rendezvous = "users" } }).await;
    assert_eq!(features(&users).await["org.matrix.msc4108"], Value::Null);
    assert_eq!(features(&users).await["io.element.msc4388"], true);
    let alice = users.register("alice").await;
    for (token, available) in [(None, false), (Some(alice.access_token.as_str()), true)] {
        let answer = users.http().get(MSC4388, token).await.expect(200);
        assert_eq!(answer, json!({ "create_available": available }));
    }
    users.http().post(MSC4388, None, json!({ "data": "x" })).await.expect_error(403, "M_FORBIDDEN");
    send(&users, Method::POST, MSC4108, &[TEXT], "x").await.expect_error(403, "M_FORBIDDEN");
    let answer = alice.post(MSC4388, json!({ "data": "x" })).await.expect(200);
    // The other device isn't signed in yet.
    let path = format!("{MSC4388}/{}", answer["id"].as_str().unwrap());
    put(&users, &path, answer["sequence_token"].as_str().unwrap(), "y").await.expect(200);
    users.http().get(MSC4388, Some("nonsense")).await.expect_error(401, "M_UNKNOWN_TOKEN");

    let nobody = Server::start(toml! { qr_sign_in = { rendezvous = "nobody" } }).await;
    assert_eq!(features(&nobody).await["io.element.msc4388"], Value::Null);
    let alice: User = nobody.register("alice").await;
    alice.get(MSC4388).await.expect_error(404, "M_UNRECOGNIZED");
    alice.post(MSC4388, json!({ "data": "x" })).await.expect_error(404, "M_UNRECOGNIZED");
    send(&nobody, Method::POST, MSC4108, &[TEXT], "x").await.expect_error(404, "M_UNRECOGNIZED");
    send(&nobody, Method::GET, &format!("{MSC4108}/x"), &[], "").await.expect_error(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn nobody_opens_more_than_forty_at_a_time_or_asks_without_end() {
    let server = server().await;
    let mut last = (String::new(), String::new());
    for _ in 0..40 {
        last = open(&server, "x").await;
    }
    let refused = server.http().post(MSC4388, None, json!({ "data": "x" })).await;
    assert!(refused.header("retry-after").is_some());
    let wait = refused.expect_error(429, "M_LIMIT_EXCEEDED")["retry_after_ms"].as_u64().unwrap();
    assert!((1..=300_000).contains(&wait), "{wait}");
    send(&server, Method::POST, MSC4108, &[TEXT], "x").await.expect_error(429, "M_LIMIT_EXCEEDED");
    // An account counts for itself.
    let alice = server.register("alice").await;
    alice.post(MSC4388, json!({ "data": "x" })).await.expect(200);
    server.http().delete(&last.0, None, None).await.expect(200);
    open(&server, "x").await;

    let slow = toml! { limits = { enabled = true, default = { per_second = 0.001, burst = 2 } } };
    let limited = Server::start(slow).await;
    let (path, token) = open(&limited, "x").await;
    limited.http().get(&path, None).await.expect(200);
    limited.http().get(&path, None).await.expect_error(429, "M_LIMIT_EXCEEDED");
    put(&limited, &path, &token, "y").await.expect_error(429, "M_LIMIT_EXCEEDED");
    limited.http().delete(&path, None, None).await.expect_error(429, "M_LIMIT_EXCEEDED");
    send(&limited, Method::POST, MSC4108, &[TEXT], "x").await.expect_error(429, "M_LIMIT_EXCEEDED");
}
