//! Keys: put, got, deleted, and which of two of one session stays.

use super::*;

#[tokio::test]
async fn keys_are_put_and_got_one_by_one_by_room_and_all_together() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    assert_eq!(get(&alice, "", &version).await.expect(200), json!({ "rooms": {} }));
    assert_eq!(get(&alice, "/!a:x", &version).await.expect(200), json!({ "sessions": {} }));
    let missing = get(&alice, "/!a:x/one", &version).await.expect_error(404, "M_NOT_FOUND");
    assert_eq!(missing["error"], "No room_keys found");

    let one = put(&alice, "/!a:x/one", &version, key(true, 0, 0, "1")).await.expect(200);
    let room = json!({ "sessions": { "two": key(false, 1, 0, "2"), "three/+=": key(false, 2, 1, "3") } });
    let two = put(&alice, "/!a:x", &version, room).await.expect(200);
    let rooms = json!({ "rooms": {
        "!b:x": { "sessions": { "four": key(true, 3, 0, "4") } },
        "!a:x": { "sessions": { "five": key(true, 4, 0, "5") } },
        "!c:x": { "sessions": {} },
    } });
    let three = put(&alice, "", &version, rooms).await.expect(200);
    assert_eq!([&one, &two, &three].map(|answer| answer["count"].as_u64().unwrap()), [1, 3, 5]);

    let a = json!({ "sessions": {
        "one": key(true, 0, 0, "1"),
        "two": key(false, 1, 0, "2"),
        "three/+=": key(false, 2, 1, "3"),
        "five": key(true, 4, 0, "5"),
    } });
    let b = json!({ "sessions": { "four": key(true, 3, 0, "4") } });
    assert_eq!(get(&alice, "", &version).await.expect(200), json!({ "rooms": { "!a:x": a, "!b:x": b } }));
    assert_eq!(get(&alice, "/!a:x", &version).await.expect(200), a);
    assert_eq!(get(&alice, "/!b:x", &version).await.expect(200), b);
    assert_eq!(get(&alice, "/!a:x/three%2F+=", &version).await.expect(200), key(false, 2, 1, "3"));
    get(&alice, "/!b:x/one", &version).await.expect_error(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn kb_01_the_better_of_two_keys_of_a_session_stays() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    // From the worst to the best.
    let ranks = [(false, 5, 5), (false, 5, 1), (false, 2, 9), (true, 9, 9), (true, 9, 0), (true, 0, 3)];
    for (better, (verified, index, forwarded)) in ranks.into_iter().enumerate() {
        for (worse, (other_verified, other_index, other_forwarded)) in ranks.into_iter().enumerate() {
            let which = format!("/!a:x/{better}.{worse}");
            let first = key(other_verified, other_index, other_forwarded, "first");
            let second = key(verified, index, forwarded, "second");
            put(&alice, &which, &version, first.clone()).await.expect(200);
            let before = held(&alice, &version).await;
            let answer = put(&alice, &which, &version, second.clone()).await.expect(200);
            let (replaced, after) = (better > worse, held(&alice, &version).await);
            assert_eq!(etag_and_count(&answer), after);
            assert_eq!(before.1, after.1, "the same number of keys");
            // KB-03
            assert_eq!(before.0 != after.0, replaced, "the etag changes with the keys, {which}");
            let stays = if replaced { second } else { first };
            assert_eq!(get(&alice, &which, &version).await.expect(200), stays, "{which}");
        }
    }
}

#[tokio::test]
async fn kb_01_each_key_of_an_upload_is_judged_for_itself() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    let sessions = |better: u64, text: &str| {
        json!({ "sessions": {
            "better": key(true, 5 - better, 0, text),
            "same": key(true, 3, 0, text),
            "worse": key(true, 3 + better, 0, text),
        } })
    };
    put(&alice, "/!a:x", &version, sessions(0, "before")).await.expect(200);
    let mut more = sessions(1, "after");
    more["sessions"]["new"] = key(false, 9, 9, "after");
    let answer = put(&alice, "/!a:x", &version, more).await.expect(200);
    assert_eq!(answer["count"], 4);
    let got = get(&alice, "/!a:x", &version).await.expect(200);
    let text = |session: &str| got["sessions"][session]["session_data"]["ciphertext"].clone();
    assert_eq!(["better", "same", "worse", "new"].map(text), ["after", "before", "before", "after"]);
}

#[tokio::test]
async fn kb_03_deleting_keys_counts_and_is_idempotent() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    let sessions = |number: usize| {
        let sessions = (0..number).map(|n| (format!("s{n}"), key(false, 0, 0, "x")));
        json!({ "sessions": sessions.collect::<serde_json::Map<_, _>>() })
    };
    let all = json!({ "rooms": { "!a:x": sessions(3), "!b:x": sessions(4), "!c:x": sessions(5) } });
    put(&alice, "", &version, all).await.expect(200);
    let other = new_version(&alice).await;
    put(&alice, "/!a:x", &other, sessions(2)).await.expect(200);

    for (which, left) in [("/!a:x/s1", 11), ("/!b:x", 7), ("", 0)] {
        let before = held(&alice, &version).await;
        let first = etag_and_count(&delete(&alice, which, &version).await.expect(200));
        assert_eq!(first.1, left, "{which}");
        assert_ne!(first.0, before.0, "the etag changes with the keys, {which}");
        let again = etag_and_count(&delete(&alice, which, &version).await.expect(200));
        assert_eq!(again, first, "nothing was there to be deleted, {which}");
        assert_eq!(held(&alice, &version).await, first);
    }
    assert_eq!(get(&alice, "", &version).await.expect(200), json!({ "rooms": {} }));
    assert_eq!(held(&alice, &other).await.1, 2);
    // What was deleted can be put again.
    put(&alice, "/!a:x/s1", &other, key(true, 0, 0, "again")).await.expect(200);
    delete(&alice, "", &other).await.expect(200);
    put(&alice, "/!a:x/s1", &other, key(false, 9, 9, "again")).await.expect(200);
    assert_eq!(get(&alice, "", &other).await.expect(200)["rooms"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn keys_put_at_once_by_several_devices_are_all_there() {
    let (mut server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    let uploads = (0..40).map(|n| {
        let (alice, version) = (&alice, &version);
        async move {
            // Every second one is of the same session: the better key stays, whoever comes last.
            let which = if n % 2 == 0 { "/!a:x/shared".to_owned() } else { format!("/!a:x/s{n}") };
            put(alice, &which, version, key(true, n, 0, "x")).await.expect(200)
        }
    });
    let answers = futures_util::future::join_all(uploads).await;
    let mut etags: Vec<_> = answers.iter().map(etag_and_count).collect();
    etags.sort();
    let last = held(&alice, &version).await;
    assert_eq!(last.1, 21);
    assert!(etags.contains(&last), "somebody was told the last etag: {etags:?}");
    assert_eq!(get(&alice, "/!a:x/shared", &version).await.expect(200), key(true, 0, 0, "x"));
    server.kill().await;
    server.start_again().await;
    assert_eq!(held(&alice, &version).await, last);
    assert_eq!(get(&alice, "/!a:x", &version).await.expect(200)["sessions"].as_object().unwrap().len(), 21);
}
