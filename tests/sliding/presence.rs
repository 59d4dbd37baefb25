//! What the device of a request is seen as.

use super::*;
use crate::common::eventually;

/// Somebody asks by these requests, which are made from what they are to be seen as; another member of their room looks.
async fn is_seen_as_it_says(request: impl Fn(&str) -> (String, Value)) {
    // Whoever has asked once stays for as long as the test takes.
    let server = Server::start(toml::toml! {
        [presence]
        idle_after_ms = 3_600_000
        offline_after_ms = 3_600_000
    })
    .await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    public_room(&alice, &[&bob]).await;
    for state in ["unavailable", "online", "offline", "unavailable"] {
        let (path, body) = request(state);
        bob.post(&path, body).await.expect(200);
        eventually(&format!("bob is {state}"), async || {
            let seen = alice.get(&format!("/v3/presence/{}/status", bob.user_id)).await.expect(200);
            (seen["presence"] == state).then_some(())
        })
        .await;
    }
}

/// SY-16
#[tokio::test]
async fn sy16_a_request_of_the_early_form_says_what_its_device_is_seen_as() {
    is_seen_as_it_says(|state| (EARLY.to_owned(), json!({ "set_presence": state }))).await;
    is_seen_as_it_says(|state| (format!("{EARLY}?set_presence={state}"), json!({}))).await;
}

/// SY-16
#[tokio::test]
async fn sy16_a_request_of_the_merged_form_says_what_its_device_is_seen_as() {
    is_seen_as_it_says(|state| (MERGED.to_owned(), json!({ "set_presence": state }))).await;
}
