//! Ids, tokens and numbers that are none, or of somebody else.

use ::http::Method;
use serde_json::{Value, json};

use crate::{
    common::{User, transaction_id},
    encoded, server,
};

/// Ids that are none: each belongs in a path as one segment.
fn garbage() -> Vec<String> {
    let mut all: Vec<String> = [
        "!",
        "$",
        "@",
        "#",
        "x",
        "!a:b:c:d",
        "%",
        "..",
        "../../etc/passwd",
        "!\u{0}:localhost",
        "$\u{0}",
        "'; DROP TABLE event; --",
        "\u{202e}",
        "null",
        "-1",
        "{}",
        "!room:[::1",
        "\n",
    ]
    .map(str::to_owned)
    .into();
    all.extend(['!', '$', '@', '#'].map(|sigil| format!("{sigil}{}:localhost", "a".repeat(3_000))));
    all
}

/// I8: a Matrix error of the client's making, whatever the id.
#[tokio::test]
async fn i8_garbage_for_ids_gets_a_matrix_error() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let user = encoded(&alice.user_id);
    let text = json!({ "msgtype": "m.text", "body": "x" });
    let cases: Vec<(Method, String, Option<Value>)> = vec![
        (Method::GET, "/v3/rooms/{}/state".into(), None),
        (Method::GET, "/v3/rooms/{}/messages?dir=b".into(), None),
        (Method::GET, "/v3/rooms/{}/members".into(), None),
        (Method::GET, "/v3/rooms/{}/joined_members".into(), None),
        (Method::GET, "/v3/rooms/{}/aliases".into(), None),
        (Method::GET, "/v3/rooms/{}/event/$x".into(), None),
        (Method::GET, format!("/v3/rooms/{room}/event/{{}}"), None),
        (Method::GET, format!("/v3/rooms/{room}/context/{{}}"), None),
        (Method::PUT, format!("/v3/rooms/{room}/redact/{{}}/1"), Some(json!({}))),
        (Method::POST, format!("/v3/rooms/{room}/receipt/m.read/{{}}"), Some(json!({}))),
        (Method::PUT, format!("/v3/rooms/{room}/typing/{{}}"), Some(json!({ "typing": true }))),
        (Method::PUT, "/v3/rooms/{}/send/m.room.message/1".into(), Some(text)),
        (Method::PUT, "/v3/rooms/{}/state/m.room.name".into(), Some(json!({ "name": "x" }))),
        (
            Method::PUT,
            format!("/v3/rooms/{room}/state/m.room.member/{{}}"),
            Some(json!({ "membership": "invite" })),
        ),
        (Method::POST, "/v3/rooms/{}/read_markers".into(), Some(json!({ "m.read": "$x" }))),
        (Method::POST, "/v3/join/{}".into(), Some(json!({}))),
        (Method::POST, "/v3/knock/{}".into(), Some(json!({}))),
        (Method::POST, "/v3/rooms/{}/leave".into(), Some(json!({}))),
        (Method::POST, "/v3/rooms/{}/forget".into(), Some(json!({}))),
        (Method::POST, "/v3/rooms/{}/invite".into(), Some(json!({ "user_id": "@b:localhost" }))),
        (Method::GET, "/v3/directory/room/{}".into(), None),
        (Method::DELETE, "/v3/directory/room/{}".into(), None),
        (Method::PUT, "/v3/directory/room/{}".into(), Some(json!({ "room_id": room }))),
        (Method::GET, "/v3/directory/list/room/{}".into(), None),
        (Method::GET, "/v3/profile/{}".into(), None),
        (Method::PUT, "/v3/profile/{}/displayname".into(), Some(json!({ "displayname": "x" }))),
        (Method::GET, "/v3/user/{}/account_data/a".into(), None),
        (Method::GET, format!("/v3/user/{user}/rooms/{{}}/tags"), None),
        (Method::GET, format!("/v3/user/{user}/filter/{{}}"), None),
        (Method::GET, "/v3/devices/{}".into(), None),
        (Method::GET, "/v3/pushrules/global/{}/x".into(), None),
        (Method::GET, "/v3/pushrules/global/override/{}".into(), None),
    ];
    for (method, path, body) in cases {
        for id in garbage() {
            let path = path.replace("{}", &encoded(&id));
            let answer =
                alice.http.request(method.clone(), &path, Some(&alice.access_token), body.clone()).await;
            assert!(
                (400..500).contains(&answer.status),
                "{method} {path}: {} {}",
                answer.status,
                answer.text()
            );
            let errcode = answer.json["errcode"].as_str().unwrap_or_default();
            assert!(errcode.starts_with("M_"), "{method} {path}: {}", answer.text());
        }
    }
    for id in garbage() {
        for action in ["invite", "kick", "ban", "unban"] {
            let path = format!("/v3/rooms/{room}/{action}");
            let answer = alice.post(&path, json!({ "user_id": id })).await;
            assert!([400, 403].contains(&answer.status), "{action} {id:?}: {}", answer.text());
        }
        let answer =
            alice.post(&format!("/v3/rooms/{room}/read_markers"), json!({ "m.fully_read": id })).await;
        assert!([400, 404].contains(&answer.status), "{id:?}: {}", answer.text());
    }
    alice.send_text(&room, "unharmed").await;
}

/// FI-07, SY-24: numbers that are no numbers of things.
#[tokio::test]
async fn fi_07_limits_are_counted_from_nothing_to_the_servers_own() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({ "preset": "public_chat", "visibility": "public" })).await;
    let event = alice.send_text(&room, "hi").await;
    let filter = |limit: &str| encoded(&format!(r#"{{"room":{{"timeline":{{"limit":{limit}}}}}}}"#));
    for path in [
        format!("/v3/rooms/{room}/messages?dir=b&limit="),
        format!("/v3/rooms/{room}/context/{event}?limit="),
        "/v3/publicRooms?limit=".to_owned(),
    ] {
        for bad in ["-1", "x", "1.5", "1e3", "99999999999999999999", "9007199254740992", "%00"] {
            let answer = alice.get(&format!("{path}{bad}")).await;
            answer.expect_error(400, "M_INVALID_PARAM");
        }
        for fine in ["0", "1000000000", "9007199254740991"] {
            alice.get(&format!("{path}{fine}")).await.expect(200);
        }
    }
    for bad in ["-1", "\"x\"", "1.5", "1e400", "99999999999999999999"] {
        let answer = alice.get(&format!("/v3/sync?filter={}", filter(bad))).await;
        assert_eq!(answer.status, 400, "{bad}: {}", answer.text());
    }
    for bad in ["-1", "soon", "1.5", "99999999999999999999"] {
        alice.get(&format!("/v3/sync?timeout={bad}")).await.expect_error(400, "M_INVALID_PARAM");
    }
    alice.get(&format!("/v3/sync?filter={}", filter("1000000000"))).await.expect(200);
    let search = json!({ "limit": -1 });
    alice.post("/v3/publicRooms", search).await.expect(400);
    let typing = format!("/v3/rooms/{room}/typing/{}", alice.user_id);
    for timeout in [json!(-1), json!("x"), json!(1.5)] {
        alice.put(&typing, json!({ "typing": true, "timeout": timeout })).await.expect(400);
    }
    alice.put(&typing, json!({ "typing": true, "timeout": 9_007_199_254_740_991_i64 })).await.expect(200);
    alice.put(&typing, json!({ "typing": false })).await.expect(200);
}

fn ids(events: &Value) -> Vec<String> {
    let events = events.as_array().map(Vec::as_slice).unwrap_or_default();
    events.iter().filter_map(|event| event["event_id"].as_str().map(str::to_owned)).collect()
}

/// SY-24: a token is a place and no key: with one of another room or user, one reads what one may read anyway.
#[tokio::test]
async fn sy_24_a_token_of_another_room_opens_nothing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let secret = alice.create_room(json!({})).await;
    for number in 0..30 {
        alice.send_text(&secret, &format!("secret {number}")).await;
    }
    let shared = alice.create_room(json!({ "preset": "public_chat" })).await;
    alice.send_text(&shared, "shared").await;
    bob.join(&shared).await;
    let page = alice.get(&format!("/v3/rooms/{secret}/messages?dir=b&limit=5")).await.expect(200);
    let sync = alice.sync(None, 0).await;
    let own =
        ids(&bob.get(&format!("/v3/rooms/{shared}/messages?dir=b&limit=100")).await.expect(200)["chunk"]);
    let texts = [
        &page["start"],
        &page["end"],
        &sync["next_batch"],
        &sync["rooms"]["join"][&secret]["timeline"]["prev_batch"],
    ];
    for token in texts.map(|token| token.as_str().expect("a token")) {
        for direction in ["f", "b"] {
            for path in [
                format!("/v3/rooms/{shared}/messages?dir={direction}&limit=100&from={token}"),
                format!("/v3/rooms/{shared}/messages?dir={direction}&limit=100&to={token}"),
            ] {
                let answer = bob.get(&path).await;
                assert!([200, 400].contains(&answer.status), "{path}: {}", answer.text());
                assert!(ids(&answer.json["chunk"]).iter().all(|id| own.contains(id)), "{path}");
            }
            let path = format!("/v3/rooms/{secret}/messages?dir={direction}&from={token}");
            bob.get(&path).await.expect_error(403, "M_FORBIDDEN");
        }
        let answer = bob.get(&format!("/v3/rooms/{shared}/members?at={token}")).await;
        assert!([200, 400].contains(&answer.status), "{}", answer.text());
        let answer = bob.get(&format!("/v3/sync?since={token}")).await;
        assert!([200, 400].contains(&answer.status), "{}", answer.text());
        assert!(!answer.text().contains("secret "), "{token}");
    }
}

async fn shown(user: &User, room: &str, id: &str) -> Vec<Value> {
    let mut found = vec![user.get(&format!("/v3/rooms/{room}/event/{id}")).await.expect(200)];
    let context = user.get(&format!("/v3/rooms/{room}/context/{id}")).await.expect(200);
    found.push(context["event"].clone());
    let page = user.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=100")).await.expect(200);
    let sync = user.sync(None, 0).await;
    for list in [&page["chunk"], &sync["rooms"]["join"][room]["timeline"]["events"]] {
        found
            .extend(list.as_array().expect("a list").iter().filter(|event| event["event_id"] == id).cloned());
    }
    found
}

/// EV-08
#[tokio::test]
async fn ev_08_a_transaction_id_is_told_to_the_device_that_sent_it_alone() {
    let mut server = server().await;
    let phone = server.register("alice").await;
    let laptop = server.login("alice").await;
    let bob = server.register("bob").await;
    let room = phone.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let txn = format!("secret-{}", transaction_id());
    let path = format!("/v3/rooms/{room}/send/m.room.message/{txn}");
    let content = json!({ "msgtype": "m.text", "body": "hi" });
    let id = phone.put(&path, content).await.expect(200)["event_id"].as_str().expect("an id").to_owned();
    for _ in 0..2 {
        for (device, told) in [(&phone, true), (&laptop, false), (&bob, false)] {
            let found = shown(device, &room, &id).await;
            assert_eq!(found.len(), 4, "each way shows it");
            for event in found {
                let expected = if told { json!(txn) } else { Value::Null };
                assert_eq!(event["unsigned"]["transaction_id"], expected, "{event}");
            }
            let raw = crate::as_servers_have_it(device, &room).await;
            assert!(!raw["timeline"].to_string().contains(&txn) || told, "{raw}");
        }
        server.restart().await;
    }
}

/// GN-14: ids with what paths are made of.
#[tokio::test]
async fn gn_14_ids_with_slashes_hashes_and_signs_are_ids() {
    let server = server().await;
    let alice = server.register("alice").await;
    // Event ids of version 3 hold `/` and `+` sooner or later.
    let room = alice.create_room(json!({ "room_version": "3" })).await;
    let mut odd = Vec::new();
    while !(odd.iter().any(|id: &String| id.contains('/')) && odd.iter().any(|id: &String| id.contains('+')))
    {
        let id = alice.send_text(&room, "again").await;
        if id.contains(['/', '+']) {
            odd.push(id);
        }
    }
    for id in &odd {
        let found = alice.get(&format!("/v3/rooms/{room}/event/{}", encoded(id))).await.expect(200);
        assert_eq!(found["event_id"], id.as_str());
        let plus = id.replace('/', "%2F");
        alice.get(&format!("/v3/rooms/{room}/context/{plus}")).await.expect(200);
        let receipt = format!("/v3/rooms/{}/receipt/m.read/{}", encoded(&room), encoded(id));
        alice.post(&receipt, json!({})).await.expect(200);
        let redact = format!("/v3/rooms/{room}/redact/{}/{}", encoded(id), encoded("a/b+c%2F"));
        alice.put(&redact, json!({})).await.expect(200);
    }
    let alias = "#a/b+c%2F d&e?f=ü:localhost";
    let path = format!("/v3/directory/room/{}", encoded(alias));
    alice.put(&path, json!({ "room_id": room })).await.expect(200);
    assert_eq!(alice.get(&path).await.expect(200)["room_id"], room.as_str());
    let aliases = alice.get(&format!("/v3/rooms/{room}/aliases")).await.expect(200);
    assert_eq!(aliases["aliases"], json!([alias]));
    alice.post(&format!("/v3/join/{}", encoded(alias)), json!({})).await.expect(200);
    alice.delete(&path, None).await.expect(200);
}

/// GN-12, GN-08: an answer of any kind can be read by a page of any site, and has an error if it is one.
#[tokio::test]
async fn gn_08_errors_of_every_kind_may_be_read_by_any_site() {
    let server = server().await;
    let alice = server.register("alice").await;
    let room = alice.create_room(json!({})).await;
    let large = "x".repeat(3_000_000);
    for (method, path, token, body, status) in [
        (Method::GET, "/v3/nothing".to_owned(), true, None, 404),
        (Method::PATCH, "/v3/sync".to_owned(), true, None, 405),
        (Method::GET, "/v3/sync".to_owned(), false, None, 401),
        (
            Method::PUT,
            format!("/v3/rooms/{room}/send/m.room.message/1"),
            true,
            Some(json!({ "body": large })),
            413,
        ),
        (Method::PUT, format!("/v3/rooms/{room}/send/m.room.message/1"), true, Some(json!([])), 400),
        (Method::PUT, format!("/v3/rooms/{room}/send/m.room.message/1"), true, None, 400),
        (Method::GET, "/v3/rooms/!x:y/state".to_owned(), true, None, 403),
        (Method::GET, "/v3/sync?since=x".to_owned(), true, None, 400),
        (Method::POST, "/v3/createRoom".to_owned(), true, Some(json!({ "room_version": "99" })), 400),
    ] {
        let token = token.then_some(alice.access_token.as_str());
        let answer = alice.http.request(method.clone(), &path, token, body).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{method} {path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{method} {path}");
        assert!(
            answer.json["errcode"].as_str().is_some_and(|code| code.starts_with("M_")),
            "{method} {path}"
        );
        assert!(answer.json["error"].is_string(), "{method} {path}");
    }
    // GN-12: where a body may be `{}`, none does as well.
    let join = format!("/v3/join/{room}");
    alice.http.request(Method::POST, &join, Some(&alice.access_token), None).await.expect(200);
    let logout = server.login("alice").await;
    logout.http.request(Method::POST, "/v3/logout", Some(&logout.access_token), None).await.expect(200);
}
