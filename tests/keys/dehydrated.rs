//! Devices that nobody is logged in on (MSC3814).

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{identity::name, *};
use common::{PASSWORD, rounds, transaction_id};

const PATH: &str = "/unstable/org.matrix.msc3814.v1/dehydrated_device";

/// A device that is to be left by a user. As clients name them: by the key that others encrypt with.
fn identity(user: &User, seed: u8) -> Identity {
    let key = Identity::new(user, seed).curve(0);
    Identity::new(&User { device_id: key, ..user.clone() }, seed)
}

fn body(identity: &Identity, data: &str) -> Value {
    let mut keys = identity.device_keys();
    keys["dehydrated"] = true.into();
    sign(&mut keys, &identity.user.user_id, &identity.signer);
    json!({
        "device_id": identity.user.device_id,
        "device_data": { "algorithm": "org.matrix.msc3814.v2", "device_pickle": data, "nonce": "x", "n": 1e3 },
        "initial_device_display_name": "Dehydrated device",
        "device_keys": keys,
        "one_time_keys": identity.keys([1, 2]),
        "fallback_keys": { format!("{CURVE}:F"): identity.fallback(9) },
    })
}

async fn leave(user: &User, seed: u8) -> Identity {
    let device = identity(user, seed);
    let answer = user.put(PATH, body(&device, "secret")).await.expect(200);
    assert_eq!(answer, json!({ "device_id": device.user.device_id }));
    device
}

fn events_path(device_id: &str) -> String {
    format!("{PATH}/{}/events", utf8_percent_encode(device_id, NON_ALPHANUMERIC))
}

async fn send(from: &User, to: &User, device_id: &str, numbers: impl IntoIterator<Item = u64>) {
    for n in numbers {
        let path = format!("/v3/sendToDevice/m.test/{}", transaction_id());
        let messages = json!({ &to.user_id: { device_id: { "n": n } } });
        from.put(&path, json!({ "messages": messages })).await.expect(200);
    }
}

fn numbers(answer: &Value) -> Vec<u64> {
    let events = answer["events"].as_array().unwrap();
    events.iter().map(|event| event["content"]["n"].as_u64().unwrap()).collect()
}

async fn device_ids(user: &User) -> Vec<String> {
    let answer = user.get("/v3/devices").await.expect(200);
    let devices = answer["devices"].as_array().unwrap().iter();
    devices.map(|device| device["device_id"].as_str().unwrap().to_owned()).collect()
}

/// All messages for a device, as a client asks that goes on until there are none.
async fn all(user: &User, device_id: &str) -> Vec<u64> {
    let (mut all, mut request) = (Vec::new(), json!({}));
    loop {
        let answer = user.post(&events_path(device_id), request).await.expect(200);
        let some = numbers(&answer);
        assert!(some.len() <= 100);
        if some.is_empty() {
            return all;
        }
        all.extend(some);
        request = json!({ "next_batch": answer["next_batch"].as_str().expect("a token") });
    }
}

#[tokio::test]
async fn a_device_is_left_and_brought_to_life() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    alice.get(PATH).await.expect_error(404, "M_NOT_FOUND");
    let versions = server.http().get("/_matrix/client/versions", None).await.expect(200);
    assert_eq!(versions["unstable_features"]["org.matrix.msc3814"], true);
    let device = leave(&alice, 1).await;
    let id = device.user.device_id.as_str();

    // Others see it as any device, and begin conversations with it.
    let sent = body(&device, "secret");
    let seen = query(&bob, &alice.user_id).await["device_keys"][&alice.user_id][id].clone();
    assert_eq!((&seen["keys"], &seen["dehydrated"]), (&sent["device_keys"]["keys"], &json!(true)));
    assert_eq!(seen["unsigned"], json!({ "device_display_name": "Dehydrated device" }));
    for expected in [name(1), name(2), format!("{CURVE}:F"), format!("{CURVE}:F")] {
        assert_eq!(claim(&bob, &alice.user_id, id).await.unwrap().0, expected);
    }
    send(&bob, &alice, id, 0..3).await;
    send(&bob, &alice, "*", [3]).await;
    assert!(device_ids(&alice).await.contains(&id.to_owned()));

    server.restart().await;
    let login = server.login("alice").await;
    assert_eq!(
        login.get(PATH).await.expect(200),
        json!({ "device_id": id, "device_data": sent["device_data"] })
    );
    // As often as it takes.
    for _ in 0..2 {
        assert_eq!(all(&login, id).await, [0, 1, 2, 3]);
    }
    let answer = login.get(&events_path(id)).await.expect(200);
    assert_eq!(
        answer["events"][0],
        json!({ "sender": bob.user_id, "type": "m.test", "content": { "n": 0 } })
    );
    assert_eq!((numbers(&answer), answer.get("next_batch")), (vec![0, 1, 2, 3], None));

    assert_eq!(login.delete(PATH, None).await.expect(200), json!({ "device_id": id }));
    login.delete(PATH, None).await.expect_error(404, "M_NOT_FOUND");
    login.get(PATH).await.expect_error(404, "M_NOT_FOUND");
    login.post(&events_path(id), json!({})).await.expect_error(403, "M_FORBIDDEN");
    let seen = query(&bob, &alice.user_id).await;
    assert!(seen["device_keys"][&alice.user_id].get(id).is_none(), "{seen}");
    assert_eq!(claim(&bob, &alice.user_id, id).await, None);
    assert!(!device_ids(&alice).await.contains(&id.to_owned()));
}

#[tokio::test]
async fn many_messages_come_in_parts_however_a_client_asks() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = leave(&alice, 1).await;
    let id = device.user.device_id.as_str();
    let most = rounds(230, 2_300) as u64;
    send(&bob, &alice, id, 0..most).await;
    let expected: Vec<u64> = (0..most).collect();
    assert_eq!(all(&alice, id).await, expected);

    let (mut got, mut from) = (Vec::new(), String::new());
    loop {
        let answer = alice.get(&format!("{}{from}", events_path(id))).await.expect(200);
        got.extend(numbers(&answer));
        let Some(next) = answer.get("next_batch") else { break };
        from = format!("?from={}", next.as_str().unwrap());
    }
    assert_eq!(got, expected);
    for bad in ["x", "-1", "1.5", "99999999999999999999", ""] {
        let answer = alice.post(&events_path(id), json!({ "next_batch": bad })).await;
        answer.expect_error(400, "M_INVALID_PARAM");
        alice.get(&format!("{}?from={bad}", events_path(id))).await.expect_error(400, "M_INVALID_PARAM");
    }
    alice.post(&events_path(id), json!({ "next_batch": 5 })).await.expect_error(400, "M_BAD_JSON");
    // From the future: nothing is there.
    let future = alice.post(&events_path(id), json!({ "next_batch": "9007199254740991" })).await.expect(200);
    assert_eq!(future["events"], json!([]));
    alice.post(&events_path(&alice.device_id), json!({})).await.expect_error(403, "M_FORBIDDEN");
    bob.post(&events_path(id), json!({})).await.expect_error(403, "M_FORBIDDEN");
}

#[tokio::test]
async fn a_new_one_takes_the_place_of_the_one_before() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let first = leave(&alice, 1).await;
    let first = first.user.device_id.as_str();
    send(&bob, &alice, first, [1]).await;
    let mut reader = Device::ready(&bob).await;

    let second = leave(&alice, 2).await;
    let second = second.user.device_id.as_str();
    assert_eq!(reader.wait().await["device_lists"]["changed"], json!([alice.user_id]));
    assert_eq!(alice.get(PATH).await.expect(200)["device_id"], second);
    alice.post(&events_path(first), json!({})).await.expect_error(403, "M_FORBIDDEN");
    assert!(all(&alice, second).await.is_empty());
    let seen = query(&bob, &alice.user_id).await;
    let seen: Vec<&String> = seen["device_keys"][&alice.user_id].as_object().unwrap().keys().collect();
    assert_eq!(seen, [second]);
    let mut ids = device_ids(&alice).await;
    ids.sort();
    let mut expected = vec![alice.device_id.clone(), second.to_owned()];
    expected.sort();
    assert_eq!(ids, expected);

    // The same again, after an answer that was lost: nothing is lost, and no key comes back.
    send(&bob, &alice, second, [2]).await;
    assert_eq!(claim(&bob, &alice.user_id, second).await.unwrap().0, name(1));
    let again = identity(&alice, 2);
    alice.put(PATH, body(&again, "other")).await.expect(200);
    assert_eq!(alice.get(PATH).await.expect(200)["device_data"]["device_pickle"], "other");
    assert_eq!(all(&alice, second).await, [2]);
    assert_eq!(claim(&bob, &alice.user_id, second).await.unwrap().0, name(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_stays() {
    let server = server().await;
    let alice = server.register("alice").await;
    let all = (1..10).map(|seed| {
        let alice = alice.clone();
        tokio::spawn(async move { leave(&alice, seed).await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await.unwrap();
    }
    let current = alice.get(PATH).await.expect(200)["device_id"].as_str().unwrap().to_owned();
    let mut ids = device_ids(&alice).await;
    ids.retain(|id| *id != alice.device_id);
    assert_eq!(ids, [current]);
}

#[tokio::test]
async fn nobody_logs_in_on_it_and_it_is_never_a_device_that_somebody_is_logged_in_on() {
    let server = server().await;
    let alice = server.register("alice").await;
    let device = leave(&alice, 1).await;
    let id = device.user.device_id.as_str();
    let login = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": PASSWORD,
        "device_id": id,
    });
    server.http().post("/v3/login", None, login).await.expect_error(400, "M_INVALID_PARAM");
    assert_eq!(all(&alice, id).await, [0_u64; 0]);

    let own = Identity::new(&alice, 3);
    alice.put(PATH, body(&own, "x")).await.expect_error(400, "M_INVALID_PARAM");
    alice.get("/v3/account/whoami").await.expect(200);
    assert_eq!(alice.get(PATH).await.expect(200)["device_id"], id);
}

/// It reads nothing, so nothing may be kept for it.
#[tokio::test]
async fn it_goes_with_all_other_devices() {
    let server = server().await;
    let alice = server.register("alice").await;
    leave(&alice, 1).await;
    let ids = device_ids(&alice).await;
    let delete = |id: &str| format!("/v3/devices/{}", utf8_percent_encode(id, NON_ALPHANUMERIC));
    let dehydrated = ids.iter().find(|id| **id != alice.device_id).unwrap();
    let challenge = alice.delete(&delete(dehydrated), Some(json!({}))).await.expect(401);
    let auth = json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": "alice" },
        "password": PASSWORD,
        "session": challenge["session"],
    });
    alice.delete(&delete(dehydrated), Some(json!({ "auth": auth }))).await.expect(200);
    alice.get(PATH).await.expect_error(404, "M_NOT_FOUND");

    leave(&alice, 2).await;
    alice.post("/v3/logout/all", json!({})).await.expect(200);
    let alice = server.login("alice").await;
    alice.get(PATH).await.expect_error(404, "M_NOT_FOUND");
    assert_eq!(device_ids(&alice).await, std::slice::from_ref(&alice.device_id));
    // The same may be left again.
    leave(&alice, 2).await;
    alice.post("/v3/logout", json!({})).await.expect(200);
    let alice = server.login("alice").await;
    alice.get(PATH).await.expect(200);
}

#[tokio::test]
async fn what_is_no_device_is_refused() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let kept = leave(&alice, 9).await;
    let good = body(&identity(&alice, 1), "x");
    let with = |key: &str, value: Value| {
        let mut body = good.clone();
        body[key] = value;
        body
    };
    let without = |key: &str| {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(key);
        body
    };
    let large = json!({ "algorithm": "a", "device_pickle": "x".repeat(65_536) });
    let others = identity(&bob, 1);
    let mut forged = good["device_keys"].clone();
    forged["algorithms"] = json!(["m.megolm.v1.aes-sha2"]);
    let mut other_name = good["device_keys"].clone();
    other_name["device_id"] = json!("OTHER");
    let keys: Value = (0..1001).map(|n| (name(n), json!({}))).collect::<serde_json::Map<_, _>>().into();
    for (what, body, status, errcode) in [
        ("no id", without("device_id"), 400, "M_BAD_JSON"),
        ("no data", without("device_data"), 400, "M_BAD_JSON"),
        ("no keys", without("device_keys"), 400, "M_BAD_JSON"),
        ("an id that is a number", with("device_id", json!(5)), 400, "M_BAD_JSON"),
        ("data that is a text", with("device_data", json!("x")), 400, "M_BAD_JSON"),
        ("data without an algorithm", with("device_data", json!({})), 400, "M_BAD_JSON"),
        ("large data", with("device_data", large), 413, "M_TOO_LARGE"),
        ("an empty id", with("device_id", json!("")), 400, "M_INVALID_PARAM"),
        ("a long id", with("device_id", json!("x".repeat(256))), 400, "M_INVALID_PARAM"),
        ("an id with a NUL", with("device_id", json!("\0")), 400, "M_INVALID_PARAM"),
        ("a long name", with("initial_device_display_name", json!("x".repeat(10_000))), 413, "M_TOO_LARGE"),
        ("another id than its keys'", with("device_id", json!("OTHER")), 400, "M_INVALID_PARAM"),
        ("keys of another id", with("device_keys", other_name), 400, "M_INVALID_PARAM"),
        ("keys of another user", with("device_keys", others.device_keys()), 400, "M_INVALID_PARAM"),
        ("keys that were changed", with("device_keys", forged), 400, "M_INVALID_SIGNATURE"),
        ("one-time keys of others", with("one_time_keys", others.keys([1])), 400, "M_INVALID_SIGNATURE"),
        ("too many keys", with("one_time_keys", keys), 413, "M_TOO_LARGE"),
        ("fallback keys that are a list", with("fallback_keys", json!([])), 400, "M_BAD_JSON"),
        ("a list", json!([]), 400, "M_BAD_JSON"),
    ] {
        let answer = alice.put(PATH, body).await;
        assert_eq!(answer.status, status, "{what}: {}", answer.text());
        answer.expect_error(status, errcode);
    }
    alice.put(PATH, with("device_keys", json!({}))).await.expect_error(400, "M_INVALID_PARAM");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = server.http().request(method, PATH, None, Some(good.clone())).await;
        answer.expect_error(401, "M_MISSING_TOKEN");
    }
    // Nothing of it was done by halves.
    assert_eq!(alice.get(PATH).await.expect(200)["device_id"], kept.user.device_id.as_str());
    assert_eq!(device_ids(&alice).await.len(), 2);
}
