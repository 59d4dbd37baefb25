//! One-time keys and fallback keys: what may be uploaded, and in which order it is handed out.

use super::{client::Client, identity::name, *};

/// OK-02: upload order, then the fallback key as often as it takes.
#[tokio::test]
async fn ok_02_keys_are_handed_out_in_order_and_then_the_fallback_key() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    // Later ones have earlier names.
    for number in (1..=4).rev() {
        device.add([number]).await;
    }
    let fallback = json!({ "fallback_keys": { format!("{CURVE}:F"): device.fallback(100) } });
    device.upload(fallback).await.expect(200);
    for number in (1..=4).rev() {
        let taken = claim(&bob, &alice.user_id, &alice.device_id).await;
        assert_eq!(taken, Some((name(number), device.key(number))));
    }
    for _ in 0..3 {
        let taken = claim(&bob, &alice.user_id, &alice.device_id).await;
        assert_eq!(taken, Some((format!("{CURVE}:F"), device.fallback(100))));
    }
    device.add([5]).await;
    let taken = claim(&bob, &alice.user_id, &alice.device_id).await;
    assert_eq!(taken, Some((name(5), device.key(5))), "a one-time key goes before the fallback key");
}

fn left(answer: &Value) -> (&Value, &Value) {
    (&answer["device_one_time_keys_count"], &answer["device_unused_fallback_key_types"])
}

/// Something if so many one-time keys, and fallback keys of these kinds, are left.
fn says(answer: &Value, one_time: u64, fallback: &[&str]) -> Option<()> {
    (left(answer) == (&json!({ CURVE: one_time }), &json!(fallback))).then_some(())
}

/// OK-03, OK-04
#[tokio::test]
async fn ok_03_ok_04_sync_says_what_is_left_as_soon_as_something_is_taken() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut sync = Device::ready(&alice).await;
    let other = Identity::published(&server.login("alice").await, 7).await;
    let mut beside = Device::ready(&other.user).await;
    assert_eq!(left(&sync.next().await), (&json!({ CURVE: 0 }), &json!([])));
    let device = Identity::published(&alice, 1).await;
    device.add(1..=2).await;
    assert_eq!(left(&sync.next().await), (&json!({ CURVE: 2 }), &json!([])));
    let fallback = |number| json!({ "fallback_keys": { format!("{CURVE}:F"): device.fallback(number) } });
    device.upload(fallback(100)).await.expect(200);
    assert_eq!(left(&sync.next().await), (&json!({ CURVE: 2 }), &json!([CURVE])));
    beside.next().await;

    let take = async || drop(claim(&bob, &alice.user_id, &alice.device_id).await.unwrap());
    sync.woken_by(take(), |answer| says(answer, 1, &[CURVE])).await;
    take().await;
    assert_eq!(left(&sync.next().await), (&json!({ CURVE: 0 }), &json!([CURVE])));
    sync.woken_by(take(), |answer| says(answer, 0, &[])).await;

    // The same key is used; another one isn't.
    device.upload(fallback(100)).await.expect(200);
    assert_eq!(left(&sync.next().await), (&json!({ CURVE: 0 }), &json!([])));
    device.upload(fallback(101)).await.expect(200);
    assert_eq!(left(&sync.next().await), (&json!({ CURVE: 0 }), &json!([CURVE])));
    let (_, key) = claim(&bob, &alice.user_id, &alice.device_id).await.unwrap();
    assert_eq!(key, device.fallback(101));
    // All of this is about one device, whatever its user's others have.
    assert_eq!(left(&beside.next().await), (&json!({ CURVE: 0 }), &json!([])));
    assert_eq!(left(&sync.user.sync(None, 0).await), (&json!({ CURVE: 0 }), &json!([])));
}

/// OK-04, in the extension of sliding sync (MSC3884).
#[tokio::test]
async fn ok_04_sliding_sync_says_what_is_left() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    device.add(1..=2).await;
    let ask = async |pos: Option<&str>, timeout: u64| {
        let pos = pos.map(|pos| format!("&pos={pos}")).unwrap_or_default();
        let path = format!("/unstable/org.matrix.simplified_msc3575/sync?timeout={timeout}{pos}");
        alice.post(&path, json!({ "extensions": { "e2ee": { "enabled": true } } })).await.expect(200)
    };
    let first = ask(None, 0).await;
    assert_eq!(left(&first["extensions"]["e2ee"]), (&json!({ CURVE: 2 }), &json!([])));
    let pos = first["pos"].as_str().unwrap();
    let (answer, _) =
        tokio::join!(ask(Some(pos), common::device::FOR_EVER), claim(&bob, &alice.user_id, &alice.device_id));
    let answer = if left(&answer["extensions"]["e2ee"]).0 == &json!({ CURVE: 1 }) {
        answer
    } else {
        ask(answer["pos"].as_str(), common::device::FOR_EVER).await
    };
    assert_eq!(left(&answer["extensions"]["e2ee"]), (&json!({ CURVE: 1 }), &json!([])));
}

/// OK-03, OK-04, over a socket: it is told as soon as something is taken, without anything else to be told of. Of what it
/// added itself the answer to that has told it.
#[tokio::test]
async fn ok_04_the_stream_says_what_is_left() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut socket = Client::open(&server).await;
    socket.auth(&alice, json!({})).await;
    assert_eq!(left(&socket.sync().await), (&json!({ CURVE: 0 }), &json!([])));
    let mut says = async |count: u64, unused: Value| {
        let expected = (&json!({ CURVE: count }), &unused);
        socket.sync_with(|body| (left(body) == expected).then_some(())).await;
    };

    let device = Identity::published(&alice, 1).await;
    device.add(1..=2).await;
    let fallback = json!({ "fallback_keys": { format!("{CURVE}:F"): device.fallback(100) } });
    device.upload(fallback).await.expect(200);
    for left in [1, 0] {
        claim(&bob, &alice.user_id, &alice.device_id).await.unwrap();
        says(left, json!([CURVE])).await;
    }
    claim(&bob, &alice.user_id, &alice.device_id).await.unwrap();
    says(0, json!([])).await;
}

#[tokio::test]
async fn the_same_key_again_is_fine_and_another_of_its_name_is_not() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    assert_eq!(device.add(1..=3).await, 3);
    assert_eq!(device.add(1..=3).await, 3);
    let other = json!({ "one_time_keys": { name(4): device.key(4), name(2): device.key(99) } });
    let refused = device.upload(other).await.expect_error(400, "M_INVALID_PARAM");
    let text = refused["error"].as_str().unwrap();
    // matrix-sdk looks for these words.
    assert!(text.starts_with(&format!("One time key {} already exists. Old key: {{", name(2))), "{text}");
    assert!(text.contains("; new key: {"), "{text}");
    assert_eq!(device.add([]).await, 3, "all of an upload is taken or nothing");

    // OK-01: a client that didn't get the answer uploads again, when somebody has the key already.
    let (taken, _) = claim(&bob, &alice.user_id, &alice.device_id).await.unwrap();
    assert_eq!(taken, name(1));
    assert_eq!(device.add(1..=3).await, 2);
    // Another key may have the name of one that is gone.
    let again = json!({ "one_time_keys": { name(1): device.key(50) } });
    device.upload(again).await.expect(200);
    let mut taken = Vec::new();
    while let Some((_, key)) = claim(&bob, &alice.user_id, &alice.device_id).await {
        taken.push(key);
    }
    assert_eq!(taken, [device.key(2), device.key(3), device.key(50)]);
}

#[tokio::test]
async fn keys_of_wrong_shape_or_signature_are_refused() {
    let server = server().await;
    let alice = server.register("alice").await;
    let device = Identity::new(&alice, 1);
    device.upload(json!({ "one_time_keys": device.keys([1]) })).await.expect_error(400, "M_INVALID_PARAM");
    device.upload(json!({ "device_keys": device.device_keys() })).await.expect(200);
    let other = Signer::of_device(&alice.device_id, 9);
    let mut forged = json!({ "key": device.curve(1) });
    sign(&mut forged, &alice.user_id, &other);
    let mut of_other = json!({ "key": device.curve(1) });
    sign(&mut of_other, "@bob:localhost", &device.signer);
    let mut short = json!({ "key": "AAAA" });
    sign(&mut short, &alice.user_id, &device.signer);
    let refused = [
        (name(1), forged, "M_INVALID_SIGNATURE"),
        (name(1), of_other, "M_INVALID_SIGNATURE"),
        (name(1), json!({ "key": device.curve(1) }), "M_INVALID_SIGNATURE"),
        (name(1), short, "M_INVALID_PARAM"),
        (name(1), json!({}), "M_INVALID_PARAM"),
        (name(1), json!({ "key": 1 }), "M_INVALID_PARAM"),
        (name(1), json!("text"), "M_INVALID_PARAM"),
        (name(1), json!(null), "M_INVALID_PARAM"),
        ("signed_curve25519".to_owned(), device.key(1), "M_INVALID_PARAM"),
        ("signed_curve25519:".to_owned(), device.key(1), "M_INVALID_PARAM"),
        (":K".to_owned(), device.key(1), "M_INVALID_PARAM"),
        ("signed_curve25519:\0".to_owned(), device.key(1), "M_INVALID_PARAM"),
        (format!("signed_curve25519:{}", "x".repeat(300)), device.key(1), "M_INVALID_PARAM"),
        ("curve25519:K".to_owned(), json!("AAAA"), "M_INVALID_PARAM"),
        ("curve25519:K".to_owned(), json!({ "key": device.curve(1) }), "M_INVALID_PARAM"),
        ("other:K".to_owned(), json!([1]), "M_INVALID_PARAM"),
    ];
    for (key, value, errcode) in refused {
        for list in ["one_time_keys", "fallback_keys"] {
            let answer = device.upload(json!({ list: { &key: value } })).await;
            let got = (answer.status, &answer.json["errcode"]);
            assert_eq!(got, (400, &json!(errcode)), "{key} {value}: {}", answer.text());
        }
    }
    let two = json!({ format!("{CURVE}:A"): device.fallback(1), format!("{CURVE}:B"): device.fallback(2) });
    device.upload(json!({ "fallback_keys": two })).await.expect_error(400, "M_INVALID_PARAM");
    let plain = json!({ "one_time_keys": { "curve25519:K": device.curve(1) } });
    let counts = device.upload(plain).await.expect(200);
    assert_eq!(counts["one_time_key_counts"], json!({ CURVE: 0, "curve25519": 1 }));
}

#[tokio::test]
async fn a_device_keeps_a_thousand_keys_and_no_more() {
    let server = server().await;
    let alice = server.register("alice").await;
    let device = Identity::published(&alice, 1).await;
    // What they are is never looked at.
    let many = Value::Object((0..10_000).map(|number| (name(number), json!({}))).collect());
    device.upload(json!({ "one_time_keys": many })).await.expect_error(413, "M_TOO_LARGE");
    let plain = |numbers: std::ops::Range<u32>| {
        let keys = numbers.map(|number| (format!("curve25519:K{number}"), json!(device.curve(number))));
        json!({ "one_time_keys": Value::Object(keys.collect()) })
    };
    device.upload(plain(0..990)).await.expect(200);
    device.upload(plain(990..1_010)).await.expect_error(413, "M_TOO_LARGE");
    let counts = device.upload(plain(990..1_000)).await.expect(200);
    assert_eq!(counts["one_time_key_counts"]["curve25519"], 1_000);
}

/// Clients that know the time before fallback keys were specified send them by both names, or by the older alone.
#[tokio::test]
async fn ok_03_fallback_keys_come_by_their_older_name_too() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    let older = "org.matrix.msc2732.fallback_keys";
    for (number, names) in [(1, vec![older]), (2, vec![older, "fallback_keys"])] {
        let name = format!("{CURVE}:F{number}");
        let keys = json!({ &name: device.fallback(number) });
        let body = names.into_iter().map(|field| (field.to_owned(), keys.clone()));
        device.upload(body.collect::<serde_json::Map<_, _>>().into()).await.expect(200);
        let taken = claim(&bob, &alice.user_id, &alice.device_id).await;
        assert_eq!(taken.map(|(name, _)| name), Some(name));
    }
}
