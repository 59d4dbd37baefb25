//! Requests over real sockets and TLS: to whom, and with what; and to those who lie, stall, close, or aren't there.

use std::{sync::Arc, time::Duration};

use hearth_federation::{
    Authorization, ClientError, ClientSettings, ClientSetupError, ConnectError, Connector, FederationClient,
    KeyFetch as _, ServerRequest,
};
use http::StatusCode;
use ruma::{MilliSecondsSinceUnixEpoch, ServerName, server_name};
use tokio::net::TcpListener;

use crate::{
    common::key,
    servers::{Authority, Behaviour, Names, Server, client, json, settings, text},
};

const LOCALHOST: &str = "127.0.0.1";
/// For settings: short enough to wait for, long enough for a busy machine where nothing else should end a request.
const SHORT: Duration = Duration::from_secs(1);

fn name(text: &str) -> &ServerName {
    <&ServerName>::try_from(text).unwrap()
}

/// A server `a.example:port` that answers `{}`, and a client that finds it.
async fn pair(authority: &Authority) -> (Server, FederationClient, String) {
    let server = Server::start(authority, &["a.example"], json("200 OK", "{}")).await;
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    let name = format!("a.example:{}", server.address.port());
    (server, client(&names, settings(authority)), name)
}

async fn get(client: &FederationClient, server: &str) -> Result<String, ClientError> {
    let response = client.send(name(server), ServerRequest::get("/x?y=%20z")).await?;
    Ok(String::from_utf8(response.body.to_vec()).unwrap())
}

#[tokio::test]
async fn fa_01_requests_are_signed_for_the_name_before_delegation() {
    let authority = Authority::new();
    let mut server = Server::start(&authority, &["b.example"], json("200 OK", r#"{"pdus":{}}"#)).await;
    let mut web = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let delegate = format!("b.example:{}", server.address.port());
    web.behave(json("200 OK", &format!(r#"{{"m.server":"{delegate}"}}"#)));
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    names.host("b.example", LOCALHOST);
    names.web("a.example", web.address.port());
    let client = client(&names, ClientSettings { user_agent: "Test/1".to_owned(), ..settings(&authority) });

    let request = ServerRequest::put("/_matrix/federation/v1/send/1?a=%20b", r#"{ "pdus": [] }"#);
    let response = client.send(name("a.example"), request).await.unwrap();
    assert_eq!((response.status, &*response.body), (StatusCode::OK, br#"{"pdus":{}}"#.as_slice()));

    let seen = server.seen().await;
    assert_eq!(seen.line, "PUT /_matrix/federation/v1/send/1?a=%20b HTTP/1.1");
    assert_eq!(seen.sni.as_deref(), Some("b.example"));
    assert_eq!(seen.headers["host"], delegate);
    assert_eq!(seen.headers["user-agent"], "Test/1");
    assert_eq!(seen.headers["content-type"], "application/json");
    let authorization = Authorization::parse(&seen.headers["authorization"]).unwrap();
    assert_eq!(authorization.origin, "us.example");
    let target = "/_matrix/federation/v1/send/1?a=%20b";
    let public_key = key("a").public_key();
    authorization.verify(name("a.example"), "PUT", target, Some(&seen.body), &public_key).unwrap();

    let seen = web.seen().await;
    assert_eq!(seen.line, "GET /.well-known/matrix/server HTTP/1.1");
    assert_eq!(seen.sni.as_deref(), Some("a.example"));
    assert!(!seen.headers.contains_key("authorization"));
}

#[tokio::test]
async fn a_request_without_a_body_has_neither_length_nor_type() {
    let authority = Authority::new();
    let (mut server, client, name) = pair(&authority).await;
    get(&client, &name).await.unwrap();
    let seen = server.seen().await;
    assert_eq!(seen.line, "GET /x?y=%20z HTTP/1.1");
    assert_eq!(seen.headers["host"], name);
    assert!(!seen.headers.contains_key("content-length") && !seen.headers.contains_key("content-type"));

    let unsigned = ServerRequest::get("/_matrix/key/v2/server").unsigned();
    client.send(<&ServerName>::try_from(&*name).unwrap(), unsigned).await.unwrap();
    assert!(!server.seen().await.headers.contains_key("authorization"));
}

#[tokio::test]
async fn ft_01_an_address_has_a_certificate_of_its_own_and_no_sni() {
    let authority = Authority::new();
    let mut server = Server::start(&authority, &[LOCALHOST], json("200 OK", "{}")).await;
    let client = client(&Arc::default(), settings(&authority));
    let name = format!("127.0.0.1:{}", server.address.port());
    get(&client, &name).await.unwrap();
    let seen = server.seen().await;
    assert_eq!((seen.sni, seen.headers["host"].as_str()), (None, name.as_str()));
}

#[tokio::test]
async fn sd_02_the_target_of_a_srv_record_has_the_certificate_of_the_server() {
    let authority = Authority::new();
    let mut server = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let other = Server::start(&authority, &["target.example"], json("200 OK", "{}")).await;
    let names = Arc::new(Names::default());
    names.host("target.example", LOCALHOST);
    names.service("_matrix-fed._tcp.a.example", "target.example", server.address.port());
    names.service("_matrix-fed._tcp.b.example", "target.example", other.address.port());
    let client = client(&names, settings(&authority));
    get(&client, "a.example").await.unwrap();
    let seen = server.seen().await;
    assert_eq!((seen.sni.as_deref(), seen.headers["host"].as_str()), (Some("a.example"), "a.example"));
    let refused = get(&client, "b.example").await;
    assert!(matches!(refused, Err(ClientError::Connect(ConnectError::Tls { .. }))), "{refused:?}");
}

#[tokio::test]
async fn ft_01_fa_06_nothing_is_sent_to_whom_the_certificate_does_not_name() {
    let authority = Authority::new();
    let elsewhere = Authority::new();
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    let client = client(&names, settings(&authority));
    for mut server in [
        Server::start(&authority, &["b.example"], json("200 OK", "{}")).await,
        Server::start(&authority, &[LOCALHOST], json("200 OK", "{}")).await,
        Server::start(&elsewhere, &["a.example"], json("200 OK", "{}")).await,
        Server::expired(&authority, "a.example").await,
    ] {
        let refused = get(&client, &format!("a.example:{}", server.address.port())).await;
        assert!(matches!(refused, Err(ClientError::Connect(ConnectError::Tls { .. }))), "{refused:?}");
        assert!(refused.unwrap_err().is_unreachable());
        assert!(server.saw_nothing());
    }
    // Nor is a name's certificate one for its address.
    let server = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    assert!(get(&client, &server.address.to_string()).await.is_err());
}

#[tokio::test]
async fn ft_02_an_operator_may_turn_verification_off() {
    let (authority, elsewhere) = (Authority::new(), Authority::new());
    let server = Server::start(&elsewhere, &["b.example"], json("200 OK", "{}")).await;
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    let client = client(&names, ClientSettings { verify_tls: false, ..settings(&authority) });
    get(&client, &format!("a.example:{}", server.address.port())).await.unwrap();
}

#[test]
fn ft_02_a_file_of_authorities_that_is_none_stops_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    let setup =
        || Connector::new(&ClientSettings { ca_file: Some(file.clone()), ..Default::default() }).err();
    assert!(matches!(setup(), Some(ClientSetupError::CaFile { .. })));
    for bad in ["", "garbage", "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&file, bad).unwrap();
        assert!(matches!(setup(), Some(ClientSetupError::CaFile { .. })), "{bad}");
    }
}

#[tokio::test]
async fn what_only_we_can_reach_is_never_connected_to() {
    let authority = Authority::new();
    let mut server = Server::start(&authority, &["a.example", LOCALHOST], json("200 OK", "{}")).await;
    let port = server.address.port();
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    names.host("six.example", "::ffff:127.0.0.1");
    names.service("_matrix-fed._tcp.b.example", "a.example", port);
    names.web("c.example", port);
    names.host("c.example", LOCALHOST);
    let client = client(&names, ClientSettings { allow_private_networks: false, ..settings(&authority) });
    for server in [
        format!("127.0.0.1:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("a.example:{port}"),
        format!("six.example:{port}"),
        "b.example".to_owned(),
        // Its well-known is asked for at the same address, and its 8448 after that.
        "c.example".to_owned(),
    ] {
        let refused = get(&client, &server).await;
        assert!(
            matches!(refused, Err(ClientError::Connect(ConnectError::Forbidden(_)))),
            "{server}: {refused:?}"
        );
    }
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn lists_of_servers_are_kept_to() {
    let authority = Authority::new();
    let (mut server, _, server_name) = pair(&authority).await;
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    let deny = vec!["a.example".to_owned()];
    let denying = client(&names, ClientSettings { deny, ..settings(&authority) });
    let refused = get(&denying, &server_name).await;
    assert_eq!(refused, Err(ClientError::NotAllowed(name(&server_name).to_owned())));
    assert!(server.saw_nothing());
    let allow = vec!["a.example".to_owned()];
    let allowing = client(&names, ClientSettings { allow, ..settings(&authority) });
    get(&allowing, &server_name).await.unwrap();
    assert!(matches!(get(&allowing, "b.example").await, Err(ClientError::NotAllowed(_))));
}

#[tokio::test]
async fn lists_of_servers_are_about_others() {
    let authority = Authority::new();
    let mut server = Server::start(&authority, &["us.example"], json("200 OK", "{}")).await;
    let names = Arc::new(Names::default());
    names.host("us.example", LOCALHOST);
    names.service("_matrix-fed._tcp.us.example", "us.example", server.address.port());
    let allow = vec!["a.example".to_owned()];
    let client = client(&names, ClientSettings { allow, ..settings(&authority) });
    // As `hearth doctor` does, to see what others see.
    get(&client, "us.example").await.unwrap();
    assert_eq!(server.seen().await.headers["host"], "us.example");
}

#[tokio::test]
async fn a_host_of_hundreds_of_addresses_is_tried_at_a_few() {
    let authority = Authority::new();
    let mut web = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let names = Arc::new(Names::default());
    // Nobody is there at any of them.
    for last in 2..200 {
        names.host("a.example", &format!("127.0.0.{last}"));
    }
    names.host("a.example", LOCALHOST);
    names.web("a.example", web.address.port());
    get(&client(&names, settings(&authority)), "a.example").await.unwrap_err();
    assert!(web.saw_nothing());
}

#[tokio::test]
async fn refusals_are_told_in_the_servers_words() {
    let authority = Authority::new();
    let (server, client, name) = pair(&authority).await;
    let refused = async |behaviour| {
        server.behave(behaviour);
        get(&client, &name).await.unwrap_err()
    };
    let limited = r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Slow\u0000 down","retry_after_ms":20}"#;
    let error = refused(json("429 Too Many Requests", limited)).await;
    assert_eq!(
        error,
        ClientError::Refused {
            status: StatusCode::TOO_MANY_REQUESTS,
            errcode: "M_LIMIT_EXCEEDED".to_owned(),
            message: "Slow down".to_owned(),
            retry_after_ms: Some(20),
        }
    );
    assert!(error.is_unreachable());
    let error = refused(json("403 Forbidden", r#"{"errcode":"M_FORBIDDEN","error":1}"#)).await;
    assert!(
        matches!(&error, ClientError::Refused { errcode, message, .. } if errcode == "M_FORBIDDEN" && message.is_empty())
    );
    assert!(!error.is_unreachable());
    for body in ["", "<html>", "[]", r#"{"errcode":{}}"#] {
        let error = refused(json("502 Bad Gateway", body)).await;
        assert!(
            matches!(&error, ClientError::Refused { errcode, .. } if errcode == "M_UNKNOWN"),
            "{error:?}"
        );
        assert!(error.is_unreachable());
    }
    let long = format!(r#"{{"errcode":"{0}","error":"{0}"}}"#, "x".repeat(20_000));
    let error = refused(json("400 Bad Request", &long)).await;
    let ClientError::Refused { errcode, message, .. } = error else { panic!("{error}") };
    assert_eq!((errcode.len(), message.len()), (255, 1000));
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let authority = Authority::new();
    let (mut server, client, name) = pair(&authority).await;
    let to = format!("https://{name}/elsewhere");
    server.behave(Behaviour::Answer(format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"
    )));
    let refused = get(&client, &name).await;
    assert!(matches!(refused, Err(ClientError::Refused { status: StatusCode::FOUND, .. })), "{refused:?}");
    server.seen().await;
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn connections_are_used_again() {
    let authority = Authority::new();
    let (mut server, client, name) = pair(&authority).await;
    for _ in 0..5 {
        get(&client, &name).await.unwrap();
        assert_eq!(server.seen().await.connection, 0);
    }
    // A server that says that it closes is believed.
    server.behave(Behaviour::AnswerAndClose(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}".to_owned(),
    ));
    get(&client, &name).await.unwrap();
    assert_eq!(client.idle_connections(), 0);
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_request() {
    let authority = Authority::new();
    let (mut server, client, server_name) = pair(&authority).await;
    get(&client, &server_name).await.unwrap();
    // Closed when the next request comes by it: the request is repeated by another one.
    server.behave(Behaviour::Close);
    server.seen().await;
    let mut request = Box::pin(get(&client, &server_name));
    let first = tokio::select! {
        seen = server.seen() => seen,
        answer = &mut request => panic!("{answer:?}"),
    };
    assert_eq!(first.connection, 0);
    server.behave(json("200 OK", r#"{"again":1}"#));
    assert_eq!(request.await.unwrap(), r#"{"again":1}"#);
    assert_eq!(server.seen().await.connection, 1);

    // One that may have been done is not done twice.
    server.behave(Behaviour::Close);
    let post = client.send(name(&server_name), ServerRequest::post("/x", "{}")).await;
    assert!(matches!(post, Err(ClientError::Broken(_))), "{post:?}");
    server.seen().await;
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn a_kept_connection_does_not_outlive_the_place_of_its_server() {
    let authority = Authority::new();
    let mut before = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let mut after = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    names.service("_matrix-fed._tcp.a.example", "a.example", before.address.port());
    let client = client(&names, settings(&authority));
    for _ in 0..2 {
        get(&client, "a.example").await.unwrap();
        before.seen().await;
    }
    assert_eq!(client.idle_connections(), 1);
    names.service("_matrix-fed._tcp.a.example", "a.example", after.address.port());
    // As after the time of its records.
    client.discovery().forget(name("a.example"));
    get(&client, "a.example").await.unwrap();
    assert!(before.saw_nothing());
    after.seen().await;
    assert_eq!(client.idle_connections(), 1);
}

#[tokio::test]
async fn so_many_connections_are_kept_and_no_more() {
    let authority = Authority::new();
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    let settings = ClientSettings { max_idle: 3, max_idle_per_server: 2, ..settings(&authority) };
    let client = client(&names, settings);
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(Server::start(&authority, &["a.example"], json("200 OK", "{}")).await);
    }
    let names: Vec<_> = servers.iter().map(|server| format!("a.example:{}", server.address.port())).collect();
    // Six at once to one.
    let all = futures_util::future::join_all((0..6).map(|_| get(&client, &names[0]))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(client.idle_connections(), 2);
    for name in &names[1..] {
        get(&client, name).await.unwrap();
    }
    assert_eq!(client.idle_connections(), 3);
}

#[tokio::test]
async fn kept_connections_are_closed_after_their_time() {
    let authority = Authority::new();
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    let server = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let client = client(&names, ClientSettings { idle_timeout: SHORT, ..settings(&authority) });
    get(&client, &format!("a.example:{}", server.address.port())).await.unwrap();
    assert_eq!(client.idle_connections(), 1);
    // By themselves, without another request.
    while client.idle_connections() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn an_answer_is_read_up_to_its_limit() {
    let authority = Authority::new();
    let (server, client, server_name) = pair(&authority).await;
    let ask = async |limit| client.send(name(&server_name), ServerRequest::get("/x").limit(limit)).await;
    server.behave(json("200 OK", &"x".repeat(100)));
    assert_eq!(ask(100).await.unwrap().body.len(), 100);
    assert_eq!(ask(99).await.unwrap_err(), ClientError::TooLarge { limit: 99 });
    // Whatever length it says that it has, or if it has no end.
    server.behave(Behaviour::Answer("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n".to_owned()));
    assert_eq!(ask(99).await.unwrap_err(), ClientError::TooLarge { limit: 99 });
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    let chunk = [b"1000\r\n".as_slice(), &[b'x'; 4096], b"\r\n"].concat();
    server.behave(Behaviour::Drip(head, chunk, usize::MAX, Duration::ZERO));
    assert_eq!(ask(1_000_000).await.unwrap_err(), ClientError::TooLarge { limit: 1_000_000 });
    // Nor is the head without end.
    server.behave(Behaviour::Drip(
        "HTTP/1.1 200 OK\r\nX: ".to_owned(),
        vec![b'x'; 4096],
        usize::MAX,
        Duration::ZERO,
    ));
    assert!(matches!(ask(99).await, Err(ClientError::Broken(_))));
    // What a connection still had to say goes with it.
    server.behave(json("200 OK", "{}"));
    assert_eq!(&*ask(99).await.unwrap().body, b"{}");
}

#[tokio::test]
async fn an_answer_that_drips_is_given_up() {
    let authority = Authority::new();
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    let server = Server::start(&authority, &["a.example"], Behaviour::Silence).await;
    let name = format!("a.example:{}", server.address.port());
    // Without any other limit of time.
    let forever = Duration::from_hours(1);
    let patient = ClientSettings { stall_timeout: SHORT, request_timeout: forever, ..settings(&authority) };
    let client = client(&names, patient);
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n".to_owned();
    server.behave(Behaviour::Drip(head, b"x".to_vec(), usize::MAX, Duration::from_millis(20)));
    let given_up = get(&client, &name).await.unwrap_err();
    assert_eq!(given_up, ClientError::Stalled);
    assert!(given_up.is_unreachable());
    // One that is slow but comes along is waited for.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n".to_owned();
    server.behave(Behaviour::Drip(head, vec![b'x'; 4000], 10, Duration::from_millis(50)));
    assert_eq!(get(&client, &name).await.unwrap().len(), 40_000);
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up() {
    let authority = Authority::new();
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    let server = Server::start(&authority, &["a.example"], Behaviour::Silence).await;
    let server_name = format!("a.example:{}", server.address.port());
    let client = client(&names, settings(&authority));
    let request = ServerRequest::get("/x").timeout(SHORT);
    let given_up = client.send(name(&server_name), request).await.unwrap_err();
    assert_eq!(given_up, ClientError::TimedOut);
    assert!(given_up.is_unreachable());
    assert_eq!(client.idle_connections(), 0);
}

#[tokio::test]
async fn i7_black_holes_delay_nobody_else() {
    let authority = Authority::new();
    let names = Arc::new(Names::default());
    names.host("a.example", LOCALHOST);
    // They take connections and never say a word of TLS.
    let hole = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let hole = format!("a.example:{}", hole.local_addr().unwrap().port());
    let server = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let good = format!("a.example:{}", server.address.port());
    let client = client(&names, ClientSettings { connect_timeout: SHORT, ..settings(&authority) });
    let mut stuck = Box::pin(futures_util::future::join_all((0..100).map(|_| get(&client, &hole))));
    assert!(futures_util::poll!(&mut stuck).is_pending());
    get(&client, &good).await.unwrap();
    for given_up in stuck.await {
        assert_eq!(given_up, Err(ClientError::Connect(ConnectError::TimedOut)));
    }
}

#[tokio::test]
async fn nobody_there_and_a_black_hole_among_the_addresses_of_a_server() {
    let authority = Authority::new();
    let server = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let port = server.address.port();
    let names = Arc::new(Names::default());
    // Nobody listens on either of the first two, and the server does on the third.
    for address in ["127.0.0.2", "127.0.0.3", LOCALHOST] {
        names.host("a.example", address);
    }
    // A listener whose queue nobody empties and that never answers.
    let hole = TcpListener::bind(("127.0.0.4", port)).await.unwrap();
    names.host("hole.example", "127.0.0.4");
    names.host("gone.example", "127.0.0.2");
    let client = client(&names, settings(&authority));
    get(&client, &format!("a.example:{port}")).await.unwrap();
    names.host("b.example", "127.0.0.4");
    names.host("b.example", LOCALHOST);
    let other = Server::start(&authority, &["b.example"], json("200 OK", "{}")).await;
    let second = TcpListener::bind(("127.0.0.4", other.address.port())).await.unwrap();
    // The head start of the hole ends, and the server wins.
    get(&client, &format!("b.example:{}", other.address.port())).await.unwrap();
    let refused = get(&client, &format!("gone.example:{port}")).await.unwrap_err();
    assert!(matches!(refused, ClientError::Connect(ConnectError::Tcp { .. })), "{refused:?}");
    assert!(refused.is_unreachable());
    drop((hole, second));
}

#[tokio::test]
async fn a_server_that_moved_is_found_again_after_a_failure() {
    let authority = Authority::new();
    let old = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let gone = old.local_addr().unwrap().port();
    drop(old);
    let names = Arc::new(Names::default());
    names.host("target.example", LOCALHOST);
    names.service("_matrix-fed._tcp.a.example", "target.example", gone);
    let client = client(&names, settings(&authority));
    assert!(matches!(get(&client, "a.example").await, Err(ClientError::Connect(ConnectError::Tcp { .. }))));
    let server = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    names.service("_matrix-fed._tcp.a.example", "target.example", server.address.port());
    get(&client, "a.example").await.unwrap();
}

#[tokio::test]
async fn each_address_of_a_destination_can_be_probed() {
    let authority = Authority::new();
    let server = Server::start(&authority, &["a.example"], json("200 OK", "{}")).await;
    let port = server.address.port();
    let names = Arc::new(Names::default());
    names.host("a.example", "127.0.0.2");
    names.host("a.example", LOCALHOST);
    let client = client(&names, settings(&authority));
    let explained = client.discovery().explain(name(&format!("a.example:{port}"))).await;
    let outcomes = client.connector().probe(&explained.outcome.unwrap()).await;
    assert!(matches!(outcomes[0].1, Err(ConnectError::Tcp { .. })), "{outcomes:?}");
    assert_eq!(outcomes[1], (server.address, Ok(())));
}

#[tokio::test]
async fn requests_that_are_none_are_not_sent() {
    let authority = Authority::new();
    let (mut server, client, server_name) = pair(&authority).await;
    for uri in ["", "x", "https://b.example/x", "/a b", "/\r\nHost: b", "*", "//b.example/x#y"] {
        let sent = client.send(name(&server_name), ServerRequest::get(uri)).await;
        if uri.starts_with("//") {
            // A path all the same, and what is signed is what is sent.
            sent.unwrap();
            let seen = server.seen().await;
            assert_eq!(seen.line, "GET //b.example/x HTTP/1.1");
            let authorization = Authorization::parse(&seen.headers["authorization"]).unwrap();
            let public_key = key("a").public_key();
            authorization.verify(name(&server_name), "GET", "//b.example/x", None, &public_key).unwrap();
        } else {
            assert!(matches!(sent, Err(ClientError::Request(_))), "{uri}: {sent:?}");
        }
    }
    let sent = client.send(name(&server_name), ServerRequest::put("/x", "{")).await;
    assert!(matches!(sent, Err(ClientError::Content(_))));
    assert!(server.saw_nothing());
}

#[tokio::test]
async fn ky_04_keys_are_fetched_from_their_server_and_from_a_notary() {
    let authority = Authority::new();
    let (mut server, client, server_name) = pair(&authority).await;
    assert_eq!(client.ask_server(name(&server_name)).await.as_deref(), Ok("{}"));
    let seen = server.seen().await;
    assert_eq!(seen.line, "GET /_matrix/key/v2/server HTTP/1.1");
    assert!(!seen.headers.contains_key("authorization"));

    let minimum = MilliSecondsSinceUnixEpoch(ruma::uint!(1234));
    let peer = server_name!("peer.example");
    let ids = ["ed25519:a".to_owned(), "ed25519:\"".to_owned()];
    client.ask_notary(name(&server_name), peer, &ids, minimum).await.unwrap();
    let seen = server.seen().await;
    assert_eq!(seen.line, "POST /_matrix/key/v2/query HTTP/1.1");
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&seen.body).unwrap(),
        serde_json::json!({ "server_keys": { "peer.example": {
            "ed25519:a": { "minimum_valid_until_ts": 1234 },
            "ed25519:\"": { "minimum_valid_until_ts": 1234 },
        } } })
    );
    server.behave(Behaviour::Answer(text("200 OK", &"x".repeat(70_000))));
    assert!(client.ask_server(name(&server_name)).await.is_err());
}
