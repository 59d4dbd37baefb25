//! Servers that share a room for the first time.

use serde_json::{Value, json};
use toml::{Table, toml};

use crate::{
    common::{
        User, eventually,
        federating::{Authority, Federating},
    },
    join,
};

/// What somebody hears of another's presence.
async fn sees(reader: &User, of: &User) -> Value {
    eventually("somebody is seen", || async {
        let events = reader.sync(None, 0).await["presence"]["events"].clone();
        let mut events = events.as_array()?.iter().filter(|event| event["sender"] == of.user_id);
        events.next().map(|event| event["content"]["presence"].clone())
    })
    .await
}

/// A server on which whoever came stays online for as long as a test takes.
async fn start(authority: &Authority) -> Federating {
    let mut federating = Federating::start(authority, Table::new()).await;
    federating.server.stop().await;
    federating.configure(|config| {
        let presence = toml! {
            idle_after_ms = 3_600_000
            offline_after_ms = 3_600_000
        };
        config.insert("presence".to_owned(), presence.into());
    });
    federating.start_again().await;
    federating
}

/// ED-03: a server that comes into a room hears who of it is here, and not only what they do next.
#[tokio::test(flavor = "multi_thread")]
async fn ed_03_a_server_that_comes_in_hears_who_is_here() {
    let authority = Authority::new();
    let (here, there) = (start(&authority).await, start(&authority).await);
    let (alice, bob) = (here.server.register("alice").await, there.server.register("bob").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    alice.sync(None, 0).await;
    join(&bob, &room, &here).await;
    assert_eq!(sees(&bob, &alice).await, "online");
}

/// ED-03: whoever comes into a room is seen by servers that were in it before, and that have heard nothing of them.
#[tokio::test(flavor = "multi_thread")]
async fn ed_03_whoever_comes_in_is_seen_by_servers_that_are_there() {
    let authority = Authority::new();
    let (here, there) = (start(&authority).await, start(&authority).await);
    let (alice, dave) = (here.server.register("alice").await, here.server.register("dave").await);
    let bob = there.server.register("bob").await;
    let room = bob.create_room(json!({ "preset": "public_chat" })).await;
    join(&dave, &room, &there).await;
    alice.sync(None, 0).await;
    join(&alice, &room, &there).await;
    assert_eq!(sees(&bob, &alice).await, "online");
}

/// Word of others is heard all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_keeps_presence_to_itself_tells_no_other_of_it() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    here.server.stop().await;
    here.configure(|config| {
        let presence = toml! { federate = false };
        config.insert("presence".to_owned(), presence.into());
    });
    here.start_again().await;
    let there = Federating::start(&authority, Table::new()).await;
    let (alice, carol) = (here.server.register("alice").await, here.server.register("carol").await);
    let bob = there.server.register("bob").await;
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    carol.join(&room).await;
    alice.sync(None, 0).await;
    join(&bob, &room, &here).await;
    bob.sync(None, 0).await;
    sees(&alice, &bob).await;
    let of_alice = format!("/v3/presence/{}/status", alice.user_id);
    alice.put(&of_alice, json!({ "presence": "unavailable", "status_msg": "at lunch" })).await.expect(200);
    eventually("who is on her server sees it", async || {
        let seen = carol.get(&of_alice).await.expect(200);
        (seen["status_msg"] == "at lunch").then_some(())
    })
    .await;
    // Whatever there was to tell came before this, or along with it.
    let event = alice.send_text(&room, "hello").await;
    let heard = eventually("the message comes", async || {
        let heard = bob.sync(None, 0).await;
        heard["rooms"].to_string().contains(&event).then_some(heard)
    })
    .await;
    let mut events = heard["presence"]["events"].as_array().into_iter().flatten();
    assert!(events.all(|event| event["sender"] != alice.user_id), "{heard}");
    assert_eq!(bob.get(&of_alice).await.expect(404)["errcode"], "M_NOT_FOUND");
}

/// MB-05: whoever is invited already may be invited again, also from another server, and nobody hears of it.
#[tokio::test(flavor = "multi_thread")]
async fn mb_05_somebody_of_another_server_is_invited_twice() {
    let authority = Authority::new();
    let here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    let (alice, bob) = (here.server.register("alice").await, there.server.register("bob").await);
    let room = alice.create_room(json!({})).await;
    let invite = async || {
        alice.post(&format!("/v3/rooms/{room}/invite"), json!({ "user_id": bob.user_id })).await.expect(200);
        let member = format!("/v3/rooms/{room}/state/m.room.member/{}?format=event", bob.user_id);
        alice.get(&member).await.expect(200)["event_id"].clone()
    };
    assert_eq!(invite().await, invite().await);
}
