//! Secrets are account data ("Secrets"): the server gives back what it was given, on every device.

use super::*;

/// The shapes of the specification's examples.
fn secrets() -> Vec<(&'static str, Value)> {
    let encrypted = |text: &str| {
        json!({ "encrypted": { "key_id_1": {
            "iv": "YWJjZGVmZ2hpamtsbW5vcA", "ciphertext": text, "mac": "LwZBAuoLYS9hRLsHVxi8nTuwvUrs0ORVUGKZBzAlPXo",
        } } })
    };
    let key = json!({
        "name": "m.default",
        "algorithm": "m.secret_storage.v1.aes-hmac-sha2",
        "iv": "random+data",
        "mac": "mac+of+zeros",
        "passphrase": { "algorithm": "m.pbkdf2", "salt": "MmMsAlty", "iterations": 500_000, "bits": 256 },
    });
    vec![
        ("m.secret_storage.key.key_id_1", key),
        ("m.secret_storage.default_key", json!({ "key": "key_id_1" })),
        ("m.cross_signing.master", encrypted("bWFzdGVy")),
        ("m.cross_signing.self_signing", encrypted("c2VsZg")),
        ("m.cross_signing.user_signing", encrypted("dXNlcg")),
        ("m.megolm_backup.v1", encrypted("YmFja3Vw")),
        ("org.matrix.msc3814", encrypted("ZGVoeWRyYXRlZA")),
        ("m.org.matrix.custom.backup_disabled", json!({ "disabled": false })),
    ]
}

#[tokio::test]
async fn secrets_come_back_as_they_were_stored_on_every_device_and_after_a_restart() {
    let (mut server, alice) = server_with_alice().await;
    let bob = server.register("bob").await;
    let path = |kind: &str| format!("/v3/user/{}/account_data/{kind}", alice.user_id);
    let since = alice.sync(None, 0).await["next_batch"].as_str().unwrap().to_owned();
    for (kind, content) in secrets() {
        alice.put(&path(kind), content).await.expect(200);
    }
    server.restart().await;
    let fresh = server.login("alice").await;

    let (first, later) = (fresh.sync(None, 0).await, alice.sync(Some(&since), 0).await);
    for (kind, content) in secrets() {
        assert_eq!(fresh.get(&path(kind)).await.expect(200), content, "{kind}");
        for sync in [&first, &later] {
            let events = sync["account_data"]["events"].as_array().unwrap();
            let found: Vec<_> = events.iter().filter(|event| event["type"] == kind).collect();
            assert_eq!(found.len(), 1, "{kind}");
            assert_eq!(found[0]["content"], content, "{kind}");
        }
        bob.get(&path(kind)).await.expect_error(403, "M_FORBIDDEN");
    }
    // Encrypted for a second key as well: the whole content is replaced.
    let mut content = secrets()[2].1.clone();
    content["encrypted"]["key_id_2"] = json!({ "iv": "aXY", "ciphertext": "dHdv", "mac": "bWFj" });
    fresh.put(&path("m.cross_signing.master"), content.clone()).await.expect(200);
    assert_eq!(alice.get(&path("m.cross_signing.master")).await.expect(200), content);
}
