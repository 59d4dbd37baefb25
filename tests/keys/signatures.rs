//! Signatures that come after the keys.

use super::{cross_signing::Trio, *};

async fn upload(user: &User, user_id: &str, key: &str, object: &Value) -> Value {
    let answer =
        user.post("/v3/keys/signatures/upload", json!({ user_id: { key: object } })).await.expect(200);
    answer["failures"].clone()
}

#[track_caller]
fn assert_refused(failures: &Value, user_id: &str, key: &str, errcode: &str) {
    assert_eq!(failures[user_id][key]["errcode"], json!(errcode), "{failures}");
    assert!(failures[user_id][key]["error"].is_string());
}

/// An object without its signatures, signed by another key.
fn signed_by(object: &Value, user_id: &str, signer: &Signer) -> Value {
    let mut object = object.clone();
    object.as_object_mut().unwrap().retain(|key, _| key != "signatures");
    sign(&mut object, user_id, signer);
    object
}

#[tokio::test]
async fn a_users_own_signatures_are_seen_by_all() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let device = Identity::published(&alice, 1).await;
    let trio = Trio::published(&alice, 10).await;
    let mut near = Device::ready(&bob).await;
    let user_id = alice.user_id.as_str();

    let signed = signed_by(&device.device_keys(), user_id, &trio.self_signing);
    assert_eq!(upload(&alice, user_id, &alice.device_id, &signed).await, json!({}));
    let master = signed_by(&trio.master.object(user_id, "master"), user_id, &device.signer);
    let unstable = json!({ user_id: { trio.master.public(): master } });
    let answer = alice.post("/unstable/keys/signatures/upload", unstable).await.expect(200);
    assert_eq!(answer["failures"], json!({}));

    let seen = query(&bob, user_id).await;
    let signatures = &seen["device_keys"][user_id][&alice.device_id]["signatures"][user_id];
    assert_eq!(signatures[&trio.self_signing.name], signed["signatures"][user_id][&trio.self_signing.name]);
    assert!(signatures.get(&device.signer.name).is_some(), "the device's own");
    let signatures = &seen["master_keys"][user_id]["signatures"][user_id];
    assert_eq!(signatures[&device.signer.name], master["signatures"][user_id][&device.signer.name]);
    assert_eq!(near.next().await["device_lists"]["changed"], json!([user_id]));

    // Once more is no news.
    assert_eq!(upload(&alice, user_id, &alice.device_id, &signed).await, json!({}));
    assert_eq!(near.next().await.get("device_lists"), None);
}

/// OK-08: whom somebody trusts is between them and their own devices.
#[tokio::test]
async fn ok_08_a_signature_of_another_user_is_seen_by_the_signer_alone() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    bob.join(&room).await;
    let (of_alice, of_bob) = (Trio::published(&alice, 10).await, Trio::published(&bob, 20).await);
    let (mut own, mut near) = (Device::ready(&alice).await, Device::ready(&bob).await);
    let signed =
        signed_by(&of_bob.master.object(&bob.user_id, "master"), &alice.user_id, &of_alice.user_signing);
    assert_eq!(upload(&alice, &bob.user_id, &of_bob.master.public(), &signed).await, json!({}));
    let by_alice =
        |seen: &Value| seen["master_keys"][&bob.user_id]["signatures"].get(&alice.user_id).cloned();
    assert_eq!(
        by_alice(&query(&alice, &bob.user_id).await),
        Some(signed["signatures"][&alice.user_id].clone())
    );
    assert_eq!(by_alice(&query(&bob, &bob.user_id).await), None);
    assert_eq!(by_alice(&query(&carol, &bob.user_id).await), None);
    assert_eq!(own.next().await["device_lists"]["changed"], json!([bob.user_id]));
    assert_eq!(near.next().await.get("device_lists"), None);
}

/// OK-11: what is wrong is said key by key, and nothing of it is stored.
#[tokio::test]
async fn ok_11_forged_signatures_are_refused_and_stop_no_other() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    let trio = Trio::published(&alice, 10).await;
    let of_bob = Trio::published(&bob, 20).await;
    let bobs_device = Identity::published(&bob, 2).await;
    let (id, bob_id) = (alice.user_id.as_str(), bob.user_id.as_str());
    let keys = device.device_keys();
    let bobs_master = of_bob.master.object(bob_id, "master");

    // A signature by another key under the name of the right one.
    let mut forged = signed_by(&keys, id, &of_bob.self_signing);
    let signature = forged["signatures"][id][&of_bob.self_signing.name].clone();
    forged["signatures"][id] = json!({ &trio.self_signing.name: signature });
    let mut changed = signed_by(&keys, id, &trio.self_signing);
    changed["algorithms"] = json!([]);
    let mut master_forged = trio.master.object(id, "master");
    master_forged["signatures"][id] = json!({ &device.signer.name: "AAAA" });
    let good = signed_by(&bobs_master, id, &trio.user_signing);
    let body = json!({
        id: {
            &alice.device_id: forged,
            "NONE": keys,
            trio.master.public(): master_forged,
            trio.self_signing.public(): trio.self_signing.object(id, "self_signing"),
        },
        bob_id: {
            of_bob.master.public(): good,
            // Only a user's own devices are theirs to sign.
            &bob.device_id: signed_by(&bobs_device.device_keys(), id, &trio.user_signing),
            of_bob.self_signing.public(): signed_by(&of_bob.body()["self_signing_key"], id, &trio.user_signing),
        },
        "@nobody:localhost": { "X": {} },
        "what": { "X": {} },
    });
    let answer = alice.post("/v3/keys/signatures/upload", body).await.expect(200);
    let failures = &answer["failures"];
    assert_refused(failures, id, &alice.device_id, "M_INVALID_SIGNATURE");
    assert_refused(failures, id, "NONE", "M_NOT_FOUND");
    assert_refused(failures, id, &trio.master.public(), "M_INVALID_SIGNATURE");
    assert_refused(failures, id, &trio.self_signing.public(), "M_NOT_FOUND");
    assert_refused(failures, bob_id, &bob.device_id, "M_NOT_FOUND");
    assert_refused(failures, bob_id, &of_bob.self_signing.public(), "M_NOT_FOUND");
    assert_refused(failures, "@nobody:localhost", "X", "M_NOT_FOUND");
    assert_refused(failures, "what", "X", "M_NOT_FOUND");
    assert_eq!(failures[bob_id].as_object().unwrap().len(), 2, "the right one is taken: {failures}");

    let refused = [
        (id, alice.device_id.clone(), changed, "M_INVALID_PARAM"),
        (id, alice.device_id.clone(), keys.clone(), "M_INVALID_SIGNATURE"),
        (id, alice.device_id.clone(), json!("text"), "M_INVALID_PARAM"),
        (id, alice.device_id.clone(), json!({}), "M_INVALID_PARAM"),
        // In the name of somebody else.
        (
            bob_id,
            of_bob.master.public(),
            signed_by(&bobs_master, bob_id, &of_bob.user_signing),
            "M_INVALID_SIGNATURE",
        ),
        (
            bob_id,
            of_bob.master.public(),
            signed_by(&bobs_master, id, &trio.self_signing),
            "M_INVALID_SIGNATURE",
        ),
    ];
    for (user_id, key, object, errcode) in refused {
        assert_refused(&upload(&alice, user_id, &key, &object).await, user_id, &key, errcode);
    }
    let seen = query(&alice, id).await;
    assert_eq!(seen["device_keys"][id][&alice.device_id]["signatures"], keys["signatures"]);
    assert_eq!(seen["master_keys"][id].get("signatures"), None);

    let many: serde_json::Map<String, Value> =
        (0..1_001).map(|number| (number.to_string(), json!({}))).collect();
    let answer = alice.post("/v3/keys/signatures/upload", json!({ id: many })).await;
    answer.expect_error(413, "M_TOO_LARGE");
    alice.post("/v3/keys/signatures/upload", json!({ id: 1 })).await.expect_error(400, "M_BAD_JSON");
}

#[tokio::test]
async fn signatures_by_a_key_that_is_replaced_are_gone() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let device = Identity::published(&alice, 1).await;
    let trio = Trio::published(&alice, 10).await;
    let of_bob = Trio::published(&bob, 40).await;
    let (id, bob_id) = (alice.user_id.as_str(), bob.user_id.as_str());
    let signed = signed_by(&device.device_keys(), id, &trio.self_signing);
    assert_eq!(upload(&alice, id, &alice.device_id, &signed).await, json!({}));
    let signed = signed_by(&of_bob.master.object(bob_id, "master"), id, &trio.user_signing);
    assert_eq!(upload(&alice, bob_id, &of_bob.master.public(), &signed).await, json!({}));

    let other = Trio::new(&alice, 70);
    let path = "/v3/keys/device_signing/upload";
    let mut body = other.body();
    let challenge = alice.post(path, body.clone()).await.expect(401);
    body["auth"] = json!({
        "type": "m.login.password", "password": common::PASSWORD, "session": challenge["session"],
        "identifier": { "type": "m.id.user", "user": id },
    });
    alice.post(path, body).await.expect(200);
    let seen = query(&alice, id).await;
    assert_eq!(seen["device_keys"][id][&alice.device_id]["signatures"], device.device_keys()["signatures"]);
    assert_eq!(query(&alice, bob_id).await["master_keys"][bob_id].get("signatures"), None);
}
