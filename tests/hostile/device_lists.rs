//! Devices and their keys between servers, of which one lies, forgets or is down.

use http::Method;
use serde_json::{Value, json};

use crate::{World, common::eventually, room::Shared};

const UPDATE: &str = "m.device_list_update";

impl World {
    /// So many updates of devices, once they are there.
    async fn told_soon(&self, count: usize) -> Vec<Value> {
        let enough = async || Some(self.told(UPDATE)).filter(|told| told.len() >= count);
        eventually(&format!("{count} updates of devices"), enough).await
    }

    async fn login(&self) -> crate::common::User {
        self.here.server.login("alice").await
    }

    async fn rename(&self, device_id: &str, name: &str) {
        let path = format!("/v3/devices/{device_id}");
        self.alice.put(&path, json!({ "display_name": name })).await.expect(200);
    }
}

async fn shared(world: &World) -> Shared {
    world.shared("10", "devices").await
}

#[tokio::test(flavor = "multi_thread")]
async fn dl_01_dl_03_each_change_of_a_device_is_a_link_of_a_chain() {
    let world = World::new().await;
    world.rename(&world.alice.device_id, "zero").await;
    shared(&world).await;
    let first = world.told_soon(1).await;
    assert_eq!(first[0]["device_display_name"], "zero", "the first room that is shared");
    // What is told of a device is how it is by then.
    let second = world.login().await;
    world.told_soon(2).await;
    world.rename(&second.device_id, "two").await;
    world.told_soon(3).await;
    second.post("/v3/logout", json!({})).await.expect(200);
    let told = world.told_soon(4).await;
    assert_eq!(told.len(), 4, "{told:?}");
    for (update, before) in told[1..].iter().zip(&told) {
        assert_eq!(update["user_id"], world.alice.user_id.as_str());
        assert_eq!(update["device_id"], second.device_id.as_str());
        assert_eq!(update["prev_id"], json!([before["stream_id"]]));
        assert!(update["stream_id"].as_i64() > before["stream_id"].as_i64());
    }
    assert_eq!(told[2]["device_display_name"], "two");
    assert_eq!(told[3]["deleted"], true, "{told:?}");
    assert!(told[1..3].iter().all(|update| update["deleted"] != true));
}

#[tokio::test(flavor = "multi_thread")]
async fn dl_03_a_server_hears_once_of_somebody_with_whom_it_shares_several_rooms() {
    let world = World::new().await;
    world.rename(&world.alice.device_id, "one").await;
    shared(&world).await;
    world.told_soon(1).await;
    world.shared("11", "another").await;
    world.shared("10", "third").await;
    world.rename(&world.alice.device_id, "two").await;
    let told = world.told_soon(2).await;
    let names: Vec<&Value> = told.iter().map(|update| &update["device_display_name"]).collect();
    assert_eq!(names, ["one", "two"]);
    world.alice.send_text(world.alice_room().await.as_str(), "the last word").await;
    assert_eq!(world.told(UPDATE).len(), 2);
}

/// A server that was down gets the last change of a list. What it doesn't know is before that, so it asks for all.
#[tokio::test(flavor = "multi_thread")]
async fn dl_01_a_server_that_was_down_hears_of_the_last_change() {
    let world = World::new().await;
    let room = shared(&world).await;
    let id = room.lock().id.clone();
    world.rename(&world.alice.device_id, "before").await;
    world.told_soon(1).await;
    world.peer.on("/_matrix/federation/v1/send/", |_| (500, json!({})));
    world.alice.send_text(id.as_str(), "while it is down").await;
    for name in 0..20 {
        world.rename(&world.alice.device_id, &name.to_string()).await;
    }
    eventually("it is behind", async || {
        let output = world.here.run(&["federation", "list"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let behind = |line: &str| line.contains(world.peer.name.as_str()) && line.contains("behind");
        text.lines().any(behind).then_some(())
    })
    .await;
    // From here on, each attempt is one at a server that is behind.
    let before = world.told_by_transaction(UPDATE).len();
    let told = || world.told_by_transaction(UPDATE).split_off(before);
    for name in 20..30 {
        world.rename(&world.alice.device_id, &name.to_string()).await;
    }
    world.peer.on("/_matrix/federation/v1/send/", |_| (200, json!({ "pdus": {} })));
    world.peer.request(&world.here, Method::GET, "/_matrix/federation/v1/version", None).await;
    world.peer.send(&world.here, &[], &[]).await.expect(200);
    let has = |name: &str| told().iter().flatten().any(|update| update["device_display_name"] == name);
    eventually("the last change arrives", async || has("29").then_some(())).await;
    assert!(told().iter().all(|updates| updates.len() <= 1), "{:?}", told());
    world.rename(&world.alice.device_id, "after").await;
    eventually("and those after it", async || has("after").then_some(())).await;
}

impl World {
    async fn alice_room(&self) -> String {
        let rooms = self.alice.get("/v3/joined_rooms").await.expect(200);
        rooms["joined_rooms"][0].as_str().unwrap().to_owned()
    }
}
