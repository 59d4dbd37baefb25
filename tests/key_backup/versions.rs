//! Versions of a backup, and to which of them keys are added.

use super::*;

#[tokio::test]
async fn a_version_is_made_read_and_changed() {
    let (_server, alice) = server_with_alice().await;
    let none = alice.get("/v3/room_keys/version").await.expect_error(404, "M_NOT_FOUND");
    assert_eq!(none["error"], "No current backup version");

    let version = new_version(&alice).await;
    let expected = json!({
        "algorithm": ALGORITHM,
        "auth_data": auth_data("YWJj"),
        "version": version,
        "count": 0,
        "etag": "0",
    });
    assert_eq!(alice.get("/v3/room_keys/version").await.expect(200), expected);
    let one = format!("/v3/room_keys/version/{version}");
    assert_eq!(alice.get(&one).await.expect(200), expected);
    // Clients of before version 1.1 know it by this name.
    let old = format!("/unstable/room_keys/version/{version}");
    assert_eq!(alice.get(&old).await.expect(200), expected);

    let mut body = json!({ "algorithm": ALGORITHM, "auth_data": auth_data("eHl6"), "version": version });
    assert_eq!(alice.put(&one, body.clone()).await.expect(200), json!({}));
    assert_eq!(alice.get(&one).await.expect(200)["auth_data"], auth_data("eHl6"));
    body.as_object_mut().unwrap().remove("version");
    alice.put(&one, body).await.expect(200);
}

#[tokio::test]
async fn kb_04_only_the_auth_data_of_a_version_can_be_changed() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    let one = format!("/v3/room_keys/version/{version}");
    for body in [
        json!({ "algorithm": "org.example.other", "auth_data": auth_data("eHl6") }),
        json!({ "algorithm": ALGORITHM, "auth_data": auth_data("eHl6"), "version": "17" }),
    ] {
        alice.put(&one, body).await.expect_error(400, "M_INVALID_PARAM");
    }
    assert_eq!(alice.get(&one).await.expect(200)["auth_data"], auth_data("YWJj"));
    let body = json!({ "algorithm": ALGORITHM, "auth_data": auth_data("eHl6") });
    let unknown = alice.put("/v3/room_keys/version/17", body).await.expect_error(404, "M_NOT_FOUND");
    assert_eq!(unknown["error"], "Unknown backup version");
}

#[tokio::test]
async fn kb_02_keys_are_added_to_the_last_version_only() {
    let (_server, alice) = server_with_alice().await;
    let first = new_version(&alice).await;
    put(&alice, "/!a:x/one", &first, key(false, 0, 0, "old")).await.expect(200);
    let second = new_version(&alice).await;
    assert_ne!(first, second);

    for (which, body) in [
        ("/!a:x/two", key(false, 0, 0, "new")),
        ("/!a:x", json!({ "sessions": { "two": key(false, 0, 0, "new") } })),
        ("", json!({ "rooms": { "!a:x": { "sessions": { "two": key(false, 0, 0, "new") } } } })),
        ("", json!({ "rooms": {} })),
    ] {
        let refused = put(&alice, which, &first, body).await.expect_error(403, "M_WRONG_ROOM_KEYS_VERSION");
        assert_eq!(refused["current_version"], second);
    }
    // What is there can still be read and deleted.
    assert_eq!(get(&alice, "/!a:x/one", &first).await.expect(200), key(false, 0, 0, "old"));
    assert_eq!(alice.get("/v3/room_keys/version").await.expect(200)["version"], second);
    put(&alice, "/!a:x/two", &second, key(false, 0, 0, "new")).await.expect(200);
    assert_eq!(get(&alice, "", &first).await.expect(200)["rooms"]["!a:x"]["sessions"]["two"], Value::Null);
    delete(&alice, "/!a:x/one", &first).await.expect(200);

    // Without the second, the first is the last again.
    alice.delete(&format!("/v3/room_keys/version/{second}"), None).await.expect(200);
    assert_eq!(alice.get("/v3/room_keys/version").await.expect(200)["version"], first);
    put(&alice, "/!a:x/three", &first, key(false, 0, 0, "more")).await.expect(200);
}

#[tokio::test]
async fn kb_03_a_deleted_version_is_gone_and_deleting_it_again_is_no_error() {
    let (mut server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    put(&alice, "/!a:x/one", &version, key(false, 0, 0, "secret")).await.expect(200);
    let one = format!("/v3/room_keys/version/{version}");
    for _ in 0..2 {
        assert_eq!(alice.delete(&one, None).await.expect(200), json!({}));
    }
    for answer in [
        alice.get(&one).await,
        alice.put(&one, json!({ "algorithm": ALGORITHM, "auth_data": {} })).await,
        get(&alice, "", &version).await,
        get(&alice, "/!a:x", &version).await,
        get(&alice, "/!a:x/one", &version).await,
        put(&alice, "/!a:x/one", &version, key(false, 0, 0, "secret")).await,
        delete(&alice, "", &version).await,
        delete(&alice, "/!a:x", &version).await,
        delete(&alice, "/!a:x/one", &version).await,
    ] {
        assert_eq!(answer.expect_error(404, "M_NOT_FOUND")["error"], "Unknown backup version");
    }
    alice.get("/v3/room_keys/version").await.expect_error(404, "M_NOT_FOUND");

    // Its number is never used again, whatever happens.
    server.restart().await;
    assert_ne!(new_version(&alice).await, version);
    alice.get(&one).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn i10_backups_are_their_owners() {
    let (server, alice) = server_with_alice().await;
    let bob = server.register("bob").await;
    let version = new_version(&alice).await;
    put(&alice, "/!a:x/one", &version, key(false, 0, 0, "secret")).await.expect(200);

    get(&bob, "", &version).await.expect_error(404, "M_NOT_FOUND");
    get(&bob, "/!a:x/one", &version).await.expect_error(404, "M_NOT_FOUND");
    bob.delete(&format!("/v3/room_keys/version/{version}"), None).await.expect_error(404, "M_NOT_FOUND");
    assert_eq!(new_version(&bob).await, version);
    assert_eq!(get(&bob, "", &version).await.expect(200), json!({ "rooms": {} }));
    delete(&bob, "", &version).await.expect(200);
    assert_eq!(get(&alice, "/!a:x/one", &version).await.expect(200), key(false, 0, 0, "secret"));
    server.http().get(&path("", &version), None).await.expect_error(401, "M_MISSING_TOKEN");
}

#[tokio::test]
async fn two_versions_made_at_once_are_two() {
    let (_server, alice) = server_with_alice().await;
    let made = futures_util::future::join_all((0..20).map(|_| new_version(&alice))).await;
    let mut numbers: Vec<u64> = made.iter().map(|version| version.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 20);
    let current = alice.get("/v3/room_keys/version").await.expect(200);
    assert_eq!(current["version"], numbers.last().unwrap().to_string());
}
