//! The keys of devices.

use super::*;

#[tokio::test]
async fn keys_of_a_device_come_as_they_were_uploaded_with_its_name() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    alice
        .put(&format!("/v3/devices/{}", alice.device_id), json!({ "display_name": "Alice's phone" }))
        .await
        .expect(200);

    let mut expected = device.device_keys();
    expected["unsigned"] = json!({ "device_display_name": "Alice's phone" });
    for viewer in [&alice, &bob] {
        let seen = query(viewer, &alice.user_id).await;
        assert_eq!(seen["device_keys"], json!({ &alice.user_id: { &alice.device_id: expected } }));
        assert_eq!(seen["failures"], json!({}));
    }
    let some = json!({ "device_keys": { &alice.user_id: ["OTHER"] } });
    let seen = bob.post("/v3/keys/query", some).await.expect(200);
    assert_eq!(seen["device_keys"], json!({ &alice.user_id: {} }));
}

#[tokio::test]
async fn users_that_do_not_exist_are_missing_and_keep_nothing_away() {
    let server = server().await;
    let alice = server.register("alice").await;
    Identity::published(&alice, 1).await;
    let body = json!({ "device_keys": { &alice.user_id: [], "@nobody:localhost": [], "what": [] } });
    let seen = alice.post("/v3/keys/query", body).await.expect(200);
    let users: Vec<&String> = seen["device_keys"].as_object().unwrap().keys().collect();
    assert_eq!(users, [&alice.user_id]);
}

#[tokio::test]
async fn the_older_paths_lead_to_the_same() {
    let server = server().await;
    let alice = server.register("alice").await;
    let device = Identity::new(&alice, 1);
    alice.post("/r0/keys/upload", json!({ "device_keys": device.device_keys() })).await.expect(200);
    let body = json!({ "device_keys": { &alice.user_id: [] } });
    let seen = alice.post("/r0/keys/query", body).await.expect(200);
    assert!(seen["device_keys"][&alice.user_id].get(&alice.device_id).is_some());
}

#[tokio::test]
async fn keys_that_are_not_this_devices_are_refused() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::new(&alice, 1);
    let good = device.device_keys();
    let signed = |change: &dyn Fn(&mut Value)| {
        let mut keys = good.clone();
        change(&mut keys);
        sign(&mut keys, &alice.user_id, &device.signer);
        keys
    };
    let ed25519 = &device.signer.name;
    let refused = [
        ("another user", signed(&|keys| keys["user_id"] = json!(bob.user_id)), "M_INVALID_PARAM"),
        ("another device", signed(&|keys| keys["device_id"] = json!("OTHER")), "M_INVALID_PARAM"),
        ("no user", signed(&|keys| drop(keys.as_object_mut().unwrap().remove("user_id"))), "M_INVALID_PARAM"),
        (
            "no algorithms",
            signed(&|keys| drop(keys.as_object_mut().unwrap().remove("algorithms"))),
            "M_INVALID_PARAM",
        ),
        ("algorithms are numbers", signed(&|keys| keys["algorithms"] = json!([1])), "M_INVALID_PARAM"),
        ("no keys", signed(&|keys| keys["keys"] = json!({})), "M_INVALID_PARAM"),
        ("a key is a number", signed(&|keys| keys["keys"][ed25519] = json!(1)), "M_INVALID_PARAM"),
        ("a key is too short", signed(&|keys| keys["keys"][ed25519] = json!("AAAA")), "M_INVALID_PARAM"),
        (
            "a key of another device",
            signed(&|keys| keys["keys"]["curve25519:OTHER"] = json!(device.curve(1))),
            "M_INVALID_PARAM",
        ),
        (
            "a key without a name",
            signed(&|keys| keys["keys"]["curve25519"] = json!(device.curve(1))),
            "M_INVALID_PARAM",
        ),
        (
            "a fraction",
            {
                let mut keys = good.clone();
                keys["x"] = json!(1.5);
                keys
            },
            "M_INVALID_PARAM",
        ),
        (
            "changed after it was signed",
            {
                let mut keys = good.clone();
                keys["x"] = json!(1);
                keys
            },
            "M_INVALID_SIGNATURE",
        ),
        (
            "no signature",
            {
                let mut keys = good.clone();
                keys["signatures"] = json!({});
                keys
            },
            "M_INVALID_SIGNATURE",
        ),
        (
            "signatures are text",
            {
                let mut keys = good.clone();
                keys["signatures"] = json!("x");
                keys
            },
            "M_INVALID_SIGNATURE",
        ),
        (
            "signed by another key",
            {
                let mut keys = good.clone();
                let other = Signer::of_device(&alice.device_id, 9);
                sign(&mut keys, &alice.user_id, &other);
                keys
            },
            "M_INVALID_SIGNATURE",
        ),
    ];
    for (what, keys, errcode) in refused {
        let answer = device.upload(json!({ "device_keys": keys })).await;
        assert_eq!(
            (answer.status, &answer.json["errcode"]),
            (400, &json!(errcode)),
            "{what}: {}",
            answer.text()
        );
    }
    let large = signed(&|keys| keys["x"] = json!("x".repeat(100_000)));
    device.upload(json!({ "device_keys": large })).await.expect_error(413, "M_TOO_LARGE");
    for body in [json!({ "device_keys": [] }), json!({ "one_time_keys": 1 }), json!([])] {
        device.upload(body).await.expect_error(400, "M_BAD_JSON");
    }
    assert_eq!(query(&bob, &alice.user_id).await["device_keys"], json!({ &alice.user_id: {} }));
}

/// A client signs its keys anew after it has lost its state: nobody can use what was signed with the old ones.
#[tokio::test]
async fn a_device_with_another_identity_begins_anew() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let before = Identity::published(&alice, 1).await;
    assert_eq!(before.add(1..=5).await, 5);
    let fallback = json!({ "fallback_keys": { format!("{CURVE}:F"): before.fallback(100) } });
    before.upload(fallback).await.expect(200);

    // The same once more is no change.
    let answer = before.upload(json!({ "device_keys": before.device_keys() })).await.expect(200);
    assert_eq!(answer["one_time_key_counts"], json!({ CURVE: 5 }));

    let after = Identity::published(&alice, 2).await;
    assert_eq!(after.add(1..=2).await, 2);
    let (_, key) = claim(&bob, &alice.user_id, &alice.device_id).await.unwrap();
    assert_eq!(key, after.key(1));
    claim(&bob, &alice.user_id, &alice.device_id).await.unwrap();
    assert_eq!(claim(&bob, &alice.user_id, &alice.device_id).await, None, "the fallback key went too");
}

/// OK-12
#[tokio::test]
async fn ok_12_a_device_that_logs_out_takes_its_keys_with_it() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    device.add(1..=3).await;
    let mut watcher = Device::ready(&server.login("alice").await).await;
    watcher
        .woken_by(async { drop(alice.post("/v3/logout", json!({})).await.expect(200)) }, |answer| {
            let changed = answer["device_lists"]["changed"].as_array()?;
            changed.contains(&json!(alice.user_id)).then_some(())
        })
        .await;
    assert_eq!(query(&bob, &alice.user_id).await["device_keys"], json!({ &alice.user_id: {} }));
    assert_eq!(claim(&bob, &alice.user_id, &alice.device_id).await, None);
}

/// The command line ends sessions beside the server: whoever waits hears of it, though nobody says anything.
#[tokio::test]
async fn devices_that_the_operator_ends_are_told_at_once() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    Identity::published(&alice, 1).await;
    let mut reader = Device::ready(&bob).await;
    assert!(server.run(&["user", "set-password", "alice"]).status.success());
    assert_eq!(reader.wait().await["device_lists"]["changed"], json!([alice.user_id]));
}
