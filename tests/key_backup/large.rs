//! Many keys at once.

use super::*;

/// As many sessions, spread over rooms.
fn rooms(sessions: usize, rooms: usize) -> Value {
    let mut all = json!({});
    for n in 0..sessions {
        let room = format!("!{}:x", n % rooms);
        all[room]["sessions"][format!("session-{n:05}")] = key(false, n as u64, 0, "x");
    }
    json!({ "rooms": all })
}

#[tokio::test]
async fn ten_thousand_keys_are_uploaded_and_restored() {
    let (_server, alice) = server_with_alice().await;
    let version = new_version(&alice).await;
    let all = rooms(10_000, 30);
    let answer = put(&alice, "", &version, all.clone()).await.expect(200);
    assert_eq!(answer["count"], 10_000);
    assert!(get(&alice, "", &version).await.expect(200) == all, "all come back as they are");
    assert!(get(&alice, "/!7:x", &version).await.expect(200) == all["rooms"]["!7:x"]);
    // The same once more changes nothing.
    assert_eq!(put(&alice, "", &version, all).await.expect(200), answer);
    assert_eq!(etag_and_count(&answer), held(&alice, &version).await);
}
