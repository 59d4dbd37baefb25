//! Keys that are replaced: what was signed stays good, and what will be is signed with the new one.

use std::fs;

use hearth_federation::{BlockedKeys, ServerKeys};
use http::Method;
use ruma::{MilliSecondsSinceUnixEpoch, ServerName};
use serde_json::json;
use toml::Table;

use crate::{
    common::{
        User, eventually,
        federating::{Authority, Federating},
    },
    join,
};

impl Federating {
    async fn published(&self) -> ServerKeys {
        let document = self.server.http().get("/_matrix/key/v2/server", None).await.text();
        let name = <&ServerName>::try_from(self.name.as_str()).unwrap();
        ServerKeys::read(&document, name, MilliSecondsSinceUnixEpoch::now(), &BlockedKeys::default()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ky_01_a_key_that_is_replaced_is_published_as_an_old_one() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let there = Federating::start(&authority, Table::new()).await;
    let before = here.key();
    let shown = here.run(&["key", "show"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&before.public_key_text()));

    let refused = here.run(&["key", "rotate"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("stop"), "{refused:?}");
    assert_eq!(here.key().to_text(), before.to_text());

    here.server.stop().await;
    let rotated = here.run(&["key", "rotate"]);
    assert!(rotated.status.success(), "{rotated:?}");
    here.start_again().await;

    let now = here.key();
    assert_ne!(now.id(), before.id());
    let published = here.published().await;
    let old = &published.keys[before.id().as_str()];
    assert!(old.is_old() && old.bytes() == before.public_key());
    let current = &published.keys[now.id().as_str()];
    assert!(!current.is_old() && current.bytes() == now.public_key());
    let shown = here.run(&["key", "show"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains(&format!("{}  {}  in use", now.id(), now.public_key_text())), "{shown}");
    assert!(shown.contains(&format!("{}  {}  retired", before.id(), before.public_key_text())), "{shown}");

    // KY-07: others believe requests by the new key, and none by the old one.
    let uri = "/_matrix/federation/v1/query/directory?room_alias=%23nothing:localhost";
    there.signed(&here.name, &now, Method::GET, uri, None).await.expect_error(404, "M_NOT_FOUND");
    there.signed(&here.name, &before, Method::GET, uri, None).await.expect_error(401, "M_UNAUTHORIZED");
}

/// Rooms of before go on: their events were signed with the key of then.
#[tokio::test(flavor = "multi_thread")]
async fn rooms_go_on_with_a_new_key() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let alice = here.server.register("alice").await;
    let room = alice.create_room(serde_json::json!({ "preset": "private_chat" })).await;
    let first = alice.send_text(&room, "signed with the old key").await;
    here.server.stop().await;
    assert!(here.run(&["key", "rotate"]).status.success());
    here.start_again().await;

    let second = alice.send_text(&room, "signed with the new key").await;

    for event in [first, second] {
        alice.get(&format!("/v3/rooms/{room}/event/{event}")).await.expect(200);
    }
}

async fn sees(user: &User, room: &str, event: &str) {
    let path = format!("/v3/rooms/{room}/event/{event}");
    eventually("an event is seen", || async { (user.get(&path).await.status == 200).then_some(()) }).await;
}

/// KY-07: what the old key signed verifies for servers that have never seen it in use, and what the new one signs for those
/// that knew the old one alone.
#[tokio::test(flavor = "multi_thread")]
async fn ky_07_events_of_before_and_after_a_new_key_verify_elsewhere() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    let mut old = Federating::start(&authority, Table::new()).await;
    let new = Federating::start(&authority, Table::new()).await;
    let alice = here.server.register("alice").await;
    let (bob, carol) = (old.server.register("bob").await, new.server.register("carol").await);
    let room = alice.create_room(json!({ "preset": "public_chat" })).await;
    join(&bob, &room, &here).await;
    let first = alice.send_text(&room, "signed with the old key").await;
    sees(&bob, &room, &first).await;

    here.server.stop().await;
    assert!(here.run(&["key", "rotate"]).status.success());
    here.start_again().await;
    // Nobody is asked for keys twice within a minute. A server that starts anew has the old key, and may ask at once.
    old.server.stop().await;
    old.start_again().await;

    let second = alice.send_text(&room, "signed with the new key").await;
    sees(&bob, &room, &second).await;
    // The state, and what was said, are signed with the old key.
    join(&carol, &room, &here).await;
    let page = carol.get(&format!("/v3/rooms/{room}/messages?dir=b&limit=100")).await.expect(200);
    let page = page["chunk"].to_string();
    assert!(page.contains(&first) && page.contains(&second) && page.contains("m.room.create"), "{page}");
    let third = alice.send_text(&room, "for both").await;
    for user in [&bob, &carol] {
        sees(user, &room, &third).await;
    }
}

/// Others know this server by its key: it isn't replaced behind the operator's back.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_key_is_lost_does_not_start_with_another() {
    let authority = Authority::new();
    let mut here = Federating::start(&authority, Table::new()).await;
    here.server.stop().await;
    let path = here.server.data_dir().join("signing.key");
    let key = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();

    here.server.spawn();
    assert!(here.server.opened().await.is_err(), "the server starts without its key");
    assert!(here.server.log().contains("from a backup"), "{}", here.server.log());
    for command in [["user", "list"], ["key", "show"], ["key", "rotate"]] {
        let refused = here.run(&command);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(!path.exists(), "{command:?} makes no key");
    }

    fs::write(&path, &key).unwrap();
    here.start_again().await;
    assert_eq!(here.key().to_text().as_bytes(), key);
}
