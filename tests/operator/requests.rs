//! Requests of other servers: who is believed, and what those hear who aren't. The names of tests begin with the requirement
//! they hold the server to.

use std::sync::Arc;

use bytes::Bytes;
use hearth_federation::{Authorization, SignedRequest, SigningKey};
use http::{HeaderMap, HeaderName, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ruma::ServerName;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};
use toml::{Table, toml};

use crate::{
    common::federating::{Authority, Federating},
    common::{Answer, eventually},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const DIRECTORY: &str = "/_matrix/federation/v1/query/directory?room_alias=%23nothing:localhost";

/// A signature in its parts.
fn sign(
    from: (&str, &SigningKey),
    to: &str,
    method: &str,
    uri: &str,
    content: Option<&str>,
) -> Authorization {
    let origin = <&ServerName>::try_from(from.0).unwrap();
    let destination = <&ServerName>::try_from(to).unwrap();
    let signed = SignedRequest { method, uri, origin, destination, content };
    Authorization::parse(&signed.sign(from.1).unwrap()).unwrap()
}

/// Two servers, the key of the second, and the header for [`DIRECTORY`] at the first.
struct Two {
    here: Federating,
    there: Federating,
    key: SigningKey,
}

impl Two {
    async fn start() -> Self {
        let authority = Authority::new();
        let here = Federating::start(&authority, Table::new()).await;
        let there = Federating::start(&authority, Table::new()).await;
        let key = there.key();
        Self { here, there, key }
    }

    fn sign(&self, method: &str, uri: &str, content: Option<&str>) -> Authorization {
        sign((&self.there.name, &self.key), &self.here.name, method, uri, content)
    }

    async fn ask(&self, authorization: &[&str]) -> Answer {
        self.here.with_headers(Method::GET, DIRECTORY, authorization, String::new()).await
    }
}

/// The signature was believed: there is no such alias.
#[track_caller]
fn assert_believed(answer: Answer) {
    answer.expect_error(404, "M_NOT_FOUND");
}

#[track_caller]
fn assert_not_believed(answer: Answer) {
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.expect_error(401, "M_UNAUTHORIZED");
}

#[tokio::test(flavor = "multi_thread")]
async fn ft_03_ft_04_what_is_not_there_is_said_in_json() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    for (method, path, status) in [
        (Method::GET, "/_matrix/federation/v1/no/such/thing", 404),
        (Method::GET, "/_matrix/federation/v9/version", 404),
        (Method::GET, "/_matrix/key/v2/nothing", 404),
        (Method::POST, "/_matrix/federation/v1/version", 405),
        (Method::DELETE, "/_matrix/key/v2/server", 405),
        (Method::PUT, "/_matrix/federation/v1/query/directory", 405),
    ] {
        let answer = here.with_headers(method, path, &[], String::new()).await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        answer.expect_error(status, "M_UNRECOGNIZED");
    }
    for path in ["/_matrix/federation/v1/version", "/_matrix/key/v2/server"] {
        let answer = here.server.http().get(path, None).await;
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        answer.expect(200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_federation_off_has_no_such_paths() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, toml! { address = "matrix.example.org:443" }).await;
    let paths = ["/_matrix/key/v2/server", "/_matrix/federation/v1/version"];
    for path in paths {
        here.server.http().get(path, None).await.expect(200);
    }
    let address = here.server.http().get("/.well-known/matrix/server", None).await.expect(200);
    assert_eq!(address, json!({ "m.server": "matrix.example.org:443" }));

    here.server.stop().await;
    here.configure(|config| {
        config["federation"].as_table_mut().unwrap().insert("enabled".to_owned(), false.into());
        config["listener"].as_array_mut().unwrap().pop();
    });
    here.server.start_again().await;

    for path in paths {
        here.server.http().get(path, None).await.expect_error(404, "M_UNRECOGNIZED");
    }
    let name = here.name.clone();
    let key = here.key();
    here.signed(&name, &key, Method::GET, DIRECTORY, None).await.expect_error(404, "M_UNRECOGNIZED");
    here.server.http().get("/.well-known/matrix/server", None).await.expect_error(404, "M_NOT_FOUND");
    here.server.http().get("/_matrix/client/versions", None).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn fa_02_headers_are_read_in_all_their_forms() {
    let two = Two::start().await;
    let Authorization { origin, destination, key_id, signature } = two.sign("GET", DIRECTORY, None);
    let to = destination.unwrap();
    let escaped: String = origin.as_str().chars().flat_map(|character| ['\\', character]).collect();
    for header in [
        format!(r#"X-Matrix origin="{origin}",destination="{to}",key="{key_id}",sig="{signature}""#),
        format!(r#"x-matrix SIG="{signature}", Key="{key_id}" , Origin="{origin}",	destination="{to}""#),
        format!("X-Matrix origin={origin},destination={to},key={key_id},sig=\"{signature}\""),
        format!(r#"X-Matrix origin="{escaped}",destination="{to}",key="{key_id}",sig="{signature}""#),
        format!(
            r#"X-MATRIX more="\"a, b\"",origin={origin},destination="{to}",key="{key_id}",sig="{signature}",x=y"#
        ),
        // FA-03: old servers don't say for whom it is.
        format!(r#"X-Matrix origin={origin},key="{key_id}",sig="{signature}""#),
    ] {
        let answer = two.ask(&[&header]).await;
        assert_eq!(answer.status, 404, "{header}: {}", answer.text());
        assert_believed(answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fa_01_fa_03_who_is_not_believed_hears_401() {
    let two = Two::start().await;
    let Authorization { origin, key_id, signature, .. } = two.sign("GET", DIRECTORY, None);
    let to = &two.here.name;
    let good = format!(r#"X-Matrix origin="{origin}",destination="{to}",key="{key_id}",sig="{signature}""#);
    assert_believed(two.ask(&[&good]).await);

    assert_not_believed(two.ask(&[]).await);
    let elsewhere = two.there.name.as_str();
    let header = |origin: &str, to: &str, key: &str, sig: &str| {
        format!(r#"X-Matrix origin="{origin}",destination="{to}",key="{key}",sig="{sig}""#)
    };
    for bad in [
        "Bearer abc".to_owned(),
        "X-Matrix".to_owned(),
        "X-Matrix nonsense".to_owned(),
        header(origin.as_str(), elsewhere, &key_id, &signature),
        header(origin.as_str(), to, "ed25519:other", &signature),
        header(origin.as_str(), to, "rsa:1", &signature),
        header(origin.as_str(), to, &key_id, "c2lnbmF0dXJl"),
        header(origin.as_str(), to, &key_id, ""),
        header("not a server", to, &key_id, &signature),
        header("127.0.0.1:1", to, &key_id, &signature),
        good.replace(",key", ",origin=\"twice\",key"),
    ] {
        assert_not_believed(two.ask(&[&bad]).await);
    }
    // A signature for something else.
    for other in [
        two.sign("POST", DIRECTORY, None),
        two.sign("GET", "/_matrix/federation/v1/query/directory", None),
        two.sign("GET", DIRECTORY, Some("{}")),
        sign((&two.there.name, &two.here.key()), to, "GET", DIRECTORY, None),
        sign((&two.there.name, &two.key), elsewhere, "GET", DIRECTORY, None),
    ] {
        let bad = header(origin.as_str(), to, &other.key_id, &other.signature);
        assert_not_believed(two.ask(&[&bad]).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_be_signed_by_several_keys_of_one_server() {
    let two = Two::start().await;
    let header = |origin: &str, key: &str, signature: &str| {
        format!(r#"X-Matrix origin="{origin}",destination="{}",key="{key}",sig="{signature}""#, two.here.name)
    };
    let good = two.sign("GET", DIRECTORY, None);
    let good = header(&two.there.name, &good.key_id, &good.signature);
    let unknown = header(&two.there.name, "ed25519:unknown", "c2lnbmF0dXJl");
    assert_believed(two.ask(&[&unknown, &good]).await);
    // Who is it?
    let other = header("127.0.0.1:1", "ed25519:unknown", "c2lnbmF0dXJl");
    assert_not_believed(two.ask(&[&good, &other]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn fa_05_a_body_is_signed_whatever_the_method() {
    let two = Two::start().await;
    let send = async |signed: Option<&str>, sent: &str| {
        let Authorization { origin, key_id, signature, .. } = two.sign("GET", DIRECTORY, signed);
        let to = &two.here.name;
        let header =
            format!(r#"X-Matrix origin="{origin}",destination="{to}",key="{key_id}",sig="{signature}""#);
        two.here.with_headers(Method::GET, DIRECTORY, &[&header], sent.to_owned()).await
    };
    assert_believed(send(Some(r#"{"a":1}"#), r#"{ "a" : 1 }"#).await);
    assert_not_believed(send(None, r#"{"a":1}"#).await);
    assert_not_believed(send(Some(r#"{"a":1}"#), "").await);
    assert_not_believed(send(Some(r#"{"a":1}"#), r#"{"a":2}"#).await);
    send(None, "nonsense").await.expect_error(400, "M_NOT_JSON");
}

/// What is signed is the path as it was sent, not as it is understood.
#[tokio::test(flavor = "multi_thread")]
async fn fa_01_the_path_is_signed_as_it_was_sent() {
    let two = Two::start().await;
    for uri in [
        DIRECTORY.to_owned(),
        DIRECTORY.replace("directory?", "directory/?"),
        DIRECTORY.replace("directory", "%64irectory"),
        DIRECTORY.replace("%23nothing", "%23n%6Fthing"),
    ] {
        let answer = two.here.signed(&two.there.name, &two.key, Method::GET, &uri, None).await;
        if uri.contains("%64") {
            // Whether a path is the same when it is encoded needlessly is the router's business.
            assert!([401, 404].contains(&answer.status), "{uri}: {}", answer.text());
        } else {
            assert_eq!(answer.json["errcode"], "M_NOT_FOUND", "{uri}: {}", answer.text());
        }
    }
}

/// FA-01: what is signed is the same, whatever version of HTTP carries it.
#[tokio::test(flavor = "multi_thread")]
async fn fa_01_requests_over_http_2_are_signed_alike() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    let key = there.key();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.file()).unwrap()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(("127.0.0.1", here.port())).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    let mut ask = async |signed: &str, method: Method, uri: &str, content: Option<&str>| {
        let header = sign((&there.name, &key), &here.name, method.as_str(), signed, content);
        let Authorization { origin, key_id, signature, .. } = header;
        let to = &here.name;
        let header =
            format!(r#"X-Matrix origin="{origin}",destination="{to}",key="{key_id}",sig="{signature}""#);
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{to}{uri}"))
            .header(header::AUTHORIZATION, header)
            .body(Full::new(Bytes::from(content.unwrap_or_default().to_owned())))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.version(), http::Version::HTTP_2);
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice::<Value>(&body).unwrap()["errcode"].clone())
    };
    let encoded = DIRECTORY.replace("%23nothing", "%23n%6Fthing");
    for uri in [DIRECTORY, encoded.as_str()] {
        assert_eq!(ask(uri, Method::GET, uri, None).await, (404, json!("M_NOT_FOUND")), "{uri}");
    }
    assert_eq!(ask(&encoded, Method::GET, DIRECTORY, None).await, (401, json!("M_UNAUTHORIZED")));
    // With a body too: the transaction is taken.
    let uri = "/_matrix/federation/v1/send/1";
    let body = json!({ "origin": there.name, "origin_server_ts": 1, "pdus": [] }).to_string();
    assert_eq!(ask(uri, Method::PUT, uri, Some(&body)).await, (200, Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_the_lists_keep_out_hear_403() {
    let authority = Authority::new();
    let there = Federating::start(&authority, Table::new()).await;
    let key = there.key();
    for list in [toml! { deny = ["127.0.0.1"] }, toml! { allow = ["*.example.org"] }] {
        let here = Federating::start(&authority, list).await;
        let answer = here.signed(&there.name, &key, Method::GET, DIRECTORY, None).await;
        answer.expect_error(403, "M_FORBIDDEN");
        // Its keys are for everybody.
        here.server.http().get("/_matrix/key/v2/server", None).await.expect(200);
    }
}

/// By the proxy's word, each request comes from another address.
async fn signed_from(here: &Federating, address: &str, origin: &str, key: &SigningKey) -> Answer {
    let signed = sign((origin, key), &here.name, "GET", DIRECTORY, None);
    let Authorization { origin, key_id, signature, .. } = signed;
    let value = format!(r#"X-Matrix origin="{origin}",key="{key_id}",sig="{signature}""#);
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, value.parse().unwrap());
    headers.insert(FORWARDED_FOR, address.parse().unwrap());
    here.server.http().send(Method::GET, DIRECTORY, headers, "").await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_asks_too_much_waits_and_nobody_else_does() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    here.server.stop().await;
    here.configure(|config| {
        config["limits"] = toml! {
            enabled = true
            federation = { per_second = 0.001, burst = 3 }
        }
        .into();
        config["listener"][0].as_table_mut().unwrap().insert("behind_proxy".to_owned(), true.into());
    });
    here.start_again().await;
    let busy = Federating::start(&authority, Table::new()).await;
    let quiet = Federating::start(&authority, Table::new()).await;
    let (key, other) = (busy.key(), quiet.key());

    // Whoever speaks in another's name takes nothing from it.
    for number in 0..5 {
        assert_not_believed(signed_from(&here, &format!("192.0.2.{number}"), &busy.name, &other).await);
    }
    for number in 0..3 {
        assert_believed(signed_from(&here, &format!("198.51.100.{number}"), &busy.name, &key).await);
    }
    let error = signed_from(&here, "198.51.100.77", &busy.name, &key).await;
    assert!(error.header("retry-after").is_some());
    let error: Value = error.expect_error(429, "M_LIMIT_EXCEEDED");
    assert!(error["retry_after_ms"].as_u64().unwrap() > 0);
    assert_believed(signed_from(&here, "198.51.100.77", &quiet.name, &other).await);

    // From one address, whoever it says it is.
    for _ in 0..3 {
        assert_not_believed(signed_from(&here, "203.0.113.1", &quiet.name, &key).await);
    }
    let answer = signed_from(&here, "203.0.113.1", &quiet.name, &other).await;
    answer.expect_error(429, "M_LIMIT_EXCEEDED");
}

/// Whoever has this server ask many that don't answer doesn't have it ask for ever.
#[tokio::test(flavor = "multi_thread")]
async fn questions_to_a_notary_have_few_places() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    here.server.stop().await;
    here.configure(|config| {
        config["limits"] = toml! { enabled = true }.into();
        config["listener"][0].as_table_mut().unwrap().insert("behind_proxy".to_owned(), true.into());
    });
    here.start_again().await;
    let http = here.server.http().clone();
    let ask = |address: &'static str, server: String| {
        let (http, headers) =
            (http.clone(), HeaderMap::from_iter([(FORWARDED_FOR, address.parse().unwrap())]));
        async move {
            let path = format!("/_matrix/key/v2/query/{server}");
            http.send(Method::GET, &path, headers, "").await.unwrap()
        }
    };

    let own = here.name.clone();
    let mut held = None;
    for _ in 0..10 {
        let mut asking = Vec::new();
        for _ in 0..4 {
            let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let asked = tokio::spawn(ask("192.0.2.1", silent.local_addr().unwrap().to_string()));
            // It is asked, and holds its tongue.
            asking.push((asked, silent.accept().await.unwrap()));
        }
        let fifth = ask("192.0.2.1", own.clone()).await;
        if fifth.status == 429 {
            fifth.expect_error(429, "M_LIMIT_EXCEEDED");
            held = Some(asking);
            break;
        }
        // The first of them may be given up before the last is asked.
        for (asked, connection) in asking {
            drop(connection);
            asked.await.unwrap();
        }
    }
    let mut asking = held.expect("a fifth question is refused");
    ask("192.0.2.2", own.clone()).await.expect(200);
    let (asked, connection) = asking.pop().unwrap();
    drop(connection);
    assert_eq!(asked.await.unwrap().expect(200)["server_keys"], json!([]));
    ask("192.0.2.1", own).await.expect(200);
    for (asked, _) in asking {
        asked.abort();
    }
}

/// Large bodies are kept before it is known whose they are: so many, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_of_whom_nobody_knows_are_few() {
    let two = Two::start().await;
    let begin = async || {
        let mut stream = TcpStream::connect(("127.0.0.1", two.here.server.port())).await.unwrap();
        let head = "PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12000000\r\n\
                    Authorization: X-Matrix origin=a.example,key=\"ed25519:1\",sig=\"c2ln\"\r\n\
                    Expect: 100-continue\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        (String::from_utf8(answer.to_vec()).unwrap(), stream)
    };
    let mut held = Vec::new();
    for _ in 0..11 {
        let (answer, stream) = begin().await;
        assert_eq!(answer, "HTTP/1.1 100", "it is read");
        held.push(stream);
    }
    assert_eq!(begin().await.0, "HTTP/1.1 429");
    let good = two.sign("GET", DIRECTORY, None);
    let Authorization { origin, key_id, signature, .. } = good;
    let good = format!(r#"X-Matrix origin={origin},key="{key_id}",sig="{signature}""#);
    assert_believed(two.ask(&[&good]).await);

    held.pop();
    eventually("there is room for one again", async || (begin().await.0 == "HTTP/1.1 100").then_some(()))
        .await;
}
