//! Input that is refused, and accounts that may not do everything.

use super::*;

#[tokio::test]
async fn versions_of_wrong_shapes_are_refused() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    let one = format!("/v3/room_keys/version/{version}");
    for body in [
        json!({}),
        json!([]),
        json!({ "algorithm": ALGORITHM }),
        json!({ "auth_data": {} }),
        json!({ "algorithm": 5, "auth_data": {} }),
        json!({ "algorithm": ALGORITHM, "auth_data": "text" }),
        json!({ "algorithm": ALGORITHM, "auth_data": null }),
        json!({ "algorithm": ALGORITHM, "auth_data": [{}] }),
    ] {
        alice.post("/v3/room_keys/version", body.clone()).await.expect_error(400, "M_BAD_JSON");
        alice.put(&one, body).await.expect_error(400, "M_BAD_JSON");
    }
    for body in [
        json!({ "algorithm": ALGORITHM, "auth_data": { "public_key": "x".repeat(65_536) } }),
        json!({ "algorithm": "x".repeat(256), "auth_data": {} }),
    ] {
        alice.post("/v3/room_keys/version", body.clone()).await.expect_error(413, "M_TOO_LARGE");
        alice.put(&one, body).await.expect_error(413, "M_TOO_LARGE");
    }
    assert_eq!(alice.get("/v3/room_keys/version").await.expect(200)["version"], version);
}

#[tokio::test]
async fn versions_that_never_were_are_not_found() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    for unknown in ["2", "0", "-1", "01", "%201", "x", "9223372036854775808", "1e0", "%00", "%2B1", "%D9%A1"]
    {
        let one = format!("/v3/room_keys/version/{unknown}");
        for answer in [
            alice.get(&one).await,
            alice.delete(&one, None).await,
            alice.put(&one, json!({ "algorithm": ALGORITHM, "auth_data": {} })).await,
            get(&alice, "", unknown).await,
            get(&alice, "/!a:x/one", unknown).await,
            put(&alice, "/!a:x/one", unknown, key(false, 0, 0, "x")).await,
            put(&alice, "", unknown, json!({ "rooms": {} })).await,
            delete(&alice, "/!a:x", unknown).await,
        ] {
            assert_eq!(answer.expect_error(404, "M_NOT_FOUND")["error"], "Unknown backup version");
        }
    }
    assert_eq!(held(&alice, &version).await, ("0".to_owned(), 0));
    for which in ["", "/!a:x", "/!a:x/one"] {
        let path = format!("/v3/room_keys/keys{which}");
        alice.get(&path).await.expect_error(400, "M_MISSING_PARAM");
        alice.delete(&path, None).await.expect_error(400, "M_MISSING_PARAM");
    }
    alice.put("/v3/room_keys/keys", json!({ "rooms": {} })).await.expect_error(400, "M_MISSING_PARAM");
}

#[tokio::test]
async fn keys_of_wrong_shapes_are_refused_and_nothing_of_the_upload_stays() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    let with = |name: &str, value: Value| {
        let mut key = key(false, 0, 0, "x");
        key[name] = value;
        key
    };
    let without = |name: &str| {
        let mut key = key(false, 0, 0, "x");
        key.as_object_mut().unwrap().remove(name);
        key
    };
    let mut bad = vec![json!({}), json!(null), json!([]), json!("text")];
    for name in ["first_message_index", "forwarded_count", "is_verified", "session_data"] {
        bad.extend([without(name), with(name, json!(null))]);
    }
    for name in ["first_message_index", "forwarded_count"] {
        bad.extend(
            [json!(-1), json!(1.5), json!("1"), json!(9_007_199_254_740_992_u64)]
                .map(|value| with(name, value)),
        );
    }
    bad.extend([json!(1), json!("true"), json!({})].map(|value| with("is_verified", value)));
    for key in bad {
        put(&alice, "/!a:x/one", &version, key.clone()).await.expect_error(400, "M_BAD_JSON");
        let mut sessions =
            json!({ "a": super::key(false, 0, 0, "x"), "b": key, "c": super::key(false, 0, 0, "x") });
        put(&alice, "/!a:x", &version, json!({ "sessions": sessions })).await.expect_error(400, "M_BAD_JSON");
        sessions = json!({ "!a:x": { "sessions": sessions } });
        put(&alice, "", &version, json!({ "rooms": sessions })).await.expect_error(400, "M_BAD_JSON");
    }
    for body in [
        json!({}),
        json!({ "rooms": [] }),
        json!({ "rooms": { "!a:x": {} } }),
        json!({ "rooms": { "!a:x": { "sessions": [] } } }),
        json!({ "rooms": { "no room": { "sessions": {} } } }),
    ] {
        put(&alice, "", &version, body).await.expect_error(400, "M_BAD_JSON");
    }
    put(&alice, "/!a:x", &version, json!({ "sessions": 5 })).await.expect_error(400, "M_BAD_JSON");
    put(&alice, "/nonsense/one", &version, key(false, 0, 0, "x")).await.expect_error(400, "M_INVALID_PARAM");
    // No path names a session without an id.
    let nameless = json!({ "sessions": { "a": key(false, 0, 0, "x"), "": key(false, 0, 0, "x") } });
    put(&alice, "/!a:x", &version, nameless.clone()).await.expect_error(400, "M_INVALID_PARAM");
    let nameless = json!({ "rooms": { "!a:x": nameless } });
    put(&alice, "", &version, nameless).await.expect_error(400, "M_INVALID_PARAM");

    // A byte too much.
    let size = 16 * 1024 - json!({ "ephemeral": "YWJj", "ciphertext": "", "mac": "ZGVm" }).to_string().len();
    let large = key(false, 0, 0, &"x".repeat(size + 1));
    put(&alice, "/!a:x/one", &version, large).await.expect_error(413, "M_TOO_LARGE");
    let long = "s".repeat(256);
    put(&alice, &format!("/!a:x/{long}"), &version, key(false, 0, 0, "x"))
        .await
        .expect_error(413, "M_TOO_LARGE");
    assert_eq!(held(&alice, &version).await, ("0".to_owned(), 0));
    put(&alice, "/!a:x/one", &version, key(false, 0, 0, &"x".repeat(size))).await.expect(200);
    // What belongs to an algorithm is the client's own affair.
    put(&alice, "/!a:x/two", &version, with("session_data", json!("a text"))).await.expect(200);
    assert_eq!(get(&alice, "/!a:x/two", &version).await.expect(200)["session_data"], "a text");
}

#[tokio::test]
async fn a_user_has_a_hundred_versions_at_most() {
    let (_server, alice) = server_with_alice().await;
    let mut last = String::new();
    for _ in 0..100 {
        last = new_version(&alice).await;
    }
    let body = json!({ "algorithm": ALGORITHM, "auth_data": {} });
    let refused = alice.post("/v3/room_keys/version", body).await;
    refused.expect_error(403, "M_RESOURCE_LIMIT_EXCEEDED");
    alice.delete(&format!("/v3/room_keys/version/{last}"), None).await.expect(200);
    new_version(&alice).await;
}
