//! Requests that wait while their session or the server ends, and clients that give up.

use rustix::process::Signal;

use super::*;
use crate::common::{Answer, PATIENCE};

fn waiting(device: &Device) -> tokio::task::JoinHandle<Answer> {
    let (user, since) = (device.user.clone(), device.since.clone().expect("a token"));
    let path = format!("/v3/sync?since={since}&timeout={FOR_EVER}");
    tokio::spawn(async move { user.get(&path).await })
}

async fn ended(poll: tokio::task::JoinHandle<Answer>) {
    poll.await.expect("a request").expect_error(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn a_session_that_ends_ends_the_waiting_of_its_requests() {
    let server = server().await;
    let alice = server.register("alice").await;
    let others = [server.login("alice").await, server.login("alice").await, server.login("alice").await];

    // Each from now on: that other devices are gone is news too.
    let poll = waiting(&Device::ready(&others[0]).await);
    others[0].post("/v3/logout", json!({})).await.expect(200);
    ended(poll).await;

    let identifier = json!({ "type": "m.id.user", "user": "alice" });
    let auth = json!({ "type": "m.login.password", "identifier": identifier, "password": common::PASSWORD });
    let poll = waiting(&Device::ready(&others[1]).await);
    let path = format!("/v3/devices/{}", others[1].device_id);
    alice.delete(&path, Some(json!({ "auth": auth.clone() }))).await.expect(200);
    ended(poll).await;

    let poll = waiting(&Device::ready(&others[2]).await);
    let own = waiting(&Device::ready(&alice).await);
    let body = json!({ "new_password": "another password", "logout_devices": true, "auth": auth });
    alice.post("/v3/account/password", body).await.expect(200);
    ended(poll).await;
    // The session that changed the password stays.
    alice.account_data("", "org.example", json!({})).await;
    own.await.expect("a request").expect(200);

    let poll = waiting(&Device::ready(&alice).await);
    let auth = json!({
        "type": "m.login.password", "password": "another password",
        "identifier": { "type": "m.id.user", "user": "alice" },
    });
    alice.post("/v3/account/deactivate", json!({ "auth": auth })).await.expect(200);
    ended(poll).await;
}

#[tokio::test]
async fn a_server_that_stops_answers_who_waits() {
    let mut server = server().await;
    let alice = server.register("alice").await;
    let room = public_room(&alice, &[]).await;
    let mut device = Device::ready(&alice).await;
    alice.send_text(&room, "hello").await;
    device.next().await;
    let poll = waiting(&device);
    common::eventually("it has been received, besides the request that asks for that", async || {
        let metrics = server.http().get("/metrics", None).await.text();
        metrics.contains("hearth_http_requests_in_flight 2\n").then_some(())
    })
    .await;
    server.signal(Signal::TERM);
    let answer = poll.await.expect("a request").expect(200);
    assert_eq!(answer["rooms"], Value::Null);
    assert!(server.ended().await.success());

    server.start_again().await;
    alice.send_text(&room, "again").await;
    device.since = Some(next_batch(&answer).to_owned());
    assert_eq!(events(&join(&device.next().await, &room)["timeline"]).len(), 1, "its token is good");
}

#[tokio::test]
async fn an_initial_sync_that_was_given_up_is_answered_later_and_then_afresh() {
    let server = server().await;
    let alice = server.register("alice").await;
    let mut rooms = Vec::new();
    for _ in 0..5 {
        rooms.push(public_room(&alice, &[]).await);
    }
    for _ in 0..5 {
        let hasty = alice.sync(None, 0);
        // Whether it was too short or not, what follows has to be right.
        let _ = tokio::time::timeout(std::time::Duration::from_millis(1), hasty).await;
    }
    let answer = tokio::time::timeout(PATIENCE, alice.sync(None, 0)).await.expect("an answer");
    for room in &rooms {
        assert!(!events(&join(&answer, room)["timeline"]).is_empty());
    }
    let event = alice.send_text(&rooms[0], "new").await;
    common::eventually("what is asked afresh has it", async || {
        let fresh = alice.sync(None, 0).await;
        (ids(&join(&fresh, &rooms[0])["timeline"]).last() == Some(&event)).then_some(())
    })
    .await;
    let rest = alice.sync(Some(next_batch(&answer)), 0).await;
    assert_eq!(ids(&join(&rest, &rooms[0])["timeline"]).last(), Some(&event), "nothing fell between the two");
}
