//! OK-01: whatever happens, a key is handed out once.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use super::{identity::name, *};
use common::rounds;

#[tokio::test(flavor = "multi_thread")]
async fn ok_01_a_hundred_claims_at_once_get_a_hundred_keys() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    let fallback = json!({ "fallback_keys": { format!("{CURVE}:F"): device.fallback(0) } });
    device.upload(fallback).await.expect(200);
    for round in 0..rounds(2, 20) as u32 {
        let first = 1 + round * 90;
        device.add(first..first + 90).await;
        let claims = (0..100).map(|_| {
            let (bob, alice) = (bob.clone(), alice.clone());
            tokio::spawn(async move { claim(&bob, &alice.user_id, &alice.device_id).await.unwrap().0 })
        });
        let mut taken = Vec::new();
        for claim in claims.collect::<Vec<_>>() {
            taken.push(claim.await.unwrap());
        }
        taken.sort();
        let fallback = std::iter::repeat_n(format!("{CURVE}:F"), 10);
        assert_eq!(taken, fallback.chain((first..first + 90).map(name)).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn one_request_claims_of_many_devices_and_passes_over_what_is_not_there() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let first = Identity::published(&alice, 1).await;
    let second = Identity::published(&server.login("alice").await, 2).await;
    let third = Identity::published(&bob, 3).await;
    for device in [&first, &second] {
        device.add([1]).await;
    }
    let body = json!({ "one_time_keys": {
        &alice.user_id: {
            &alice.device_id: CURVE, &second.user.device_id: CURVE, "NONE": CURVE,
        },
        &bob.user_id: { &bob.device_id: CURVE },
        "@nobody:localhost": { "X": CURVE },
        "what": { "X": CURVE },
    } });
    let answer = bob.post("/v3/keys/claim", body).await.expect(200);
    let expected = json!({ &alice.user_id: {
        &alice.device_id: { name(1): first.key(1) },
        &second.user.device_id: { name(1): second.key(1) },
    } });
    assert_eq!(answer["one_time_keys"], expected);
    third.upload(json!({ "one_time_keys": { "curve25519:K": third.curve(9) } })).await.expect(200);
    assert_eq!(claim(&alice, &bob.user_id, &bob.device_id).await, None, "of another algorithm");
    bob.post("/v3/keys/claim", json!({})).await.expect_error(400, "M_BAD_JSON");
    let many: Value = (0..10_001)
        .map(|number| (number.to_string(), json!(CURVE)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let body = json!({ "one_time_keys": { &alice.user_id: many } });
    bob.post("/v3/keys/claim", body).await.expect_error(413, "M_TOO_LARGE");
}

/// As before the first message in a room of a hundred.
#[tokio::test]
async fn one_request_claims_a_key_of_each_of_a_hundred_devices() {
    let server = server().await;
    let bob = server.register("bob").await;
    let mut wanted = serde_json::Map::new();
    let mut expected = serde_json::Map::new();
    for number in 0..100u8 {
        let user = server.register(&format!("user{number}")).await;
        let device = Identity::published(&user, number).await;
        device.add(1..=3).await;
        wanted.insert(user.user_id.clone(), json!({ &user.device_id: CURVE }));
        expected.insert(user.user_id.clone(), json!({ &user.device_id: { name(1): device.key(1) } }));
    }
    let body = json!({ "one_time_keys": wanted });
    let answer = bob.post("/v3/keys/claim", body.clone()).await.expect(200);
    assert_eq!(answer["one_time_keys"], Value::Object(expected));
    for _ in 0..2 {
        bob.post("/v3/keys/claim", body.clone()).await.expect(200);
    }
    let answer = bob.post("/v3/keys/claim", body).await.expect(200);
    assert_eq!(answer["one_time_keys"], json!({}));
}

/// What was handed out before the power went never comes again, and what the device was told is there is there.
#[tokio::test(flavor = "multi_thread")]
async fn ok_01_a_kill_among_claims_gives_no_key_out_twice() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    let mut seen: HashSet<String> = HashSet::new();
    let mut next = 1;
    for round in 0..rounds(8, 60) {
        device.add(next..next + 50).await;
        next += 50;
        let done = Arc::<AtomicUsize>::default();
        let over = Arc::<AtomicBool>::default();
        let claims = (0..8).map(|_| {
            let (bob, alice, done, over) = (bob.clone(), alice.clone(), Arc::clone(&done), Arc::clone(&over));
            tokio::spawn(async move {
                let mut taken = Vec::new();
                let body = json!({ "one_time_keys": { &alice.user_id: { &alice.device_id: CURVE } } });
                while !over.load(Ordering::SeqCst) {
                    let request = bob.http.try_request(
                        http::Method::POST,
                        "/v3/keys/claim",
                        Some(&bob.access_token),
                        Some(body.clone()),
                    );
                    let Ok(answer) = request.await else { break };
                    let answer = answer.expect(200);
                    let keys = answer["one_time_keys"][&alice.user_id][&alice.device_id].as_object();
                    let Some(keys) = keys else { break };
                    taken.extend(keys.keys().cloned());
                    done.fetch_add(1, Ordering::SeqCst);
                }
                taken
            })
        });
        let claims: Vec<_> = claims.collect();
        common::eventually("some claims", async || {
            (done.load(Ordering::SeqCst) > (round * 5) % 37).then_some(())
        })
        .await;
        server.kill().await;
        over.store(true, Ordering::SeqCst);
        for claim in claims {
            for key in claim.await.unwrap() {
                assert!(seen.insert(key.clone()), "{key} was handed out twice");
            }
        }
        server.start_again().await;
    }
    while let Some((key, _)) = claim(&bob, &alice.user_id, &alice.device_id).await {
        assert!(seen.insert(key.clone()), "{key} was handed out twice");
    }
    // A claim that was cut off may have taken a key along; each had one at most.
    let lost = (next as usize - 1) - seen.len();
    assert!(lost <= 8 * rounds(8, 60), "{lost} keys are gone");
}
