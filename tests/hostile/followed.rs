//! Devices and keys of users elsewhere, as their server says, which may lie, be silent or have been away.

use std::sync::Arc;

use hearth_federation::{SigningKey, json::strictly_canonical};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::{World, common::device::Device, common::eventually, peer::Peer, room::Shared};

const DEVICES: &str = "/_matrix/federation/v1/user/devices/";
const QUERY: &str = "/_matrix/federation/v1/user/keys/query";
const CLAIM: &str = "/_matrix/federation/v1/user/keys/claim";

/// A key by a number.
fn key(number: u8) -> SigningKey {
    SigningKey::new("x", [number; 32]).unwrap()
}

fn signed(mut object: Value, user: &str, name: &str, key: &SigningKey) -> Value {
    let text = strictly_canonical(&object.to_string()).unwrap();
    object["signatures"] = json!({ user: { format!("ed25519:{name}"): key.sign(text.as_bytes()) } });
    object
}

/// The keys of a device, which has signed them.
fn device_keys(user: &str, device: &str, number: u8) -> Value {
    let object = json!({
        "user_id": user, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("ed25519:{device}"): key(number).public_key_text(),
            format!("curve25519:{device}"): key(number + 100).public_key_text(),
        },
    });
    signed(object, user, device, &key(number))
}

/// A user's own key, signed by another.
fn own_key(user: &str, usage: &str, number: u8, signer: u8) -> Value {
    let (public, by) = (key(number).public_key_text(), key(signer).public_key_text());
    let object =
        json!({ "user_id": user, "usage": [usage], "keys": { format!("ed25519:{public}"): public } });
    signed(object, user, &by, &key(signer))
}

fn listed(user: &str, device: &str, number: u8) -> Value {
    let keys = device_keys(user, device, number);
    json!({ "device_id": device, "device_display_name": format!("name of {device}"), "keys": keys })
}

/// What a server says of somebody's devices, as a test goes on.
#[derive(Clone)]
struct List {
    user: String,
    now: Arc<Mutex<(u16, Value)>>,
}

impl List {
    fn new(peer: &Peer, user: &str) -> Self {
        let now = Arc::new(Mutex::new((200, Value::Null)));
        let list = Self { user: user.to_owned(), now: Arc::clone(&now) };
        list.is(1, &[]);
        peer.on(&format!("{DEVICES}{user}"), move |_| now.lock().clone());
        list
    }

    fn is(&self, stream_id: i64, devices: &[Value]) {
        let list = json!({ "user_id": self.user, "stream_id": stream_id, "devices": devices });
        *self.now.lock() = (200, list);
    }

    fn fails(&self) {
        self.now.lock().0 = 500;
    }

    fn works(&self) {
        self.now.lock().0 = 200;
    }

    /// The change of a device.
    fn update(&self, device: &str, number: u8, stream_id: i64, before: &[i64]) -> Value {
        let content = json!({
            "user_id": self.user, "device_id": device, "stream_id": stream_id, "prev_id": before,
            "keys": device_keys(&self.user, device, number), "device_display_name": "changed",
        });
        json!({ "edu_type": "m.device_list_update", "content": content })
    }
}

/// alice's server and the other, a room with both, and the other's list of @creator.
struct Near {
    world: World,
    room: Shared,
    list: List,
    device: Device,
}

impl Near {
    async fn new() -> Self {
        let world = World::new().await;
        let room = world.shared("10", "near").await;
        let creator = room.lock().creator.to_string();
        let list = List::new(&world.peer, &creator);
        let device = Device::ready(&world.alice).await;
        Self { world, room, list, device }
    }

    /// One whose list has been asked for: it is numbered 10 and has the device ONE.
    async fn known() -> Self {
        let near = Self::new().await;
        near.list.is(10, &[listed(&near.list.user, "ONE", 1)]);
        assert_eq!(near.devices().await, ["ONE"]);
        near
    }

    async fn query(&self) -> Value {
        query(&self.world, &[&self.list.user]).await
    }

    /// The devices of @creator by a query.
    async fn devices(&self) -> Vec<String> {
        self.try_devices().await.unwrap()
    }

    async fn try_devices(&self) -> Option<Vec<String>> {
        let found = self.query().await;
        let devices = found["device_keys"][&self.list.user].as_object()?;
        Some(devices.keys().cloned().collect())
    }

    async fn hears(&self, edus: &[Value]) {
        self.world.peer.send(&self.world.here, &[], edus).await.expect(200);
    }

    /// How often the list was asked for.
    fn asked(&self) -> usize {
        self.world.peer.asked(DEVICES).len()
    }

    /// Whom alice has to look at anew, by what has come since she looked last.
    async fn changed(&mut self) -> Vec<String> {
        let answer = self.device.next().await;
        let changed = answer["device_lists"]["changed"].as_array().cloned().unwrap_or_default();
        changed.iter().map(|user| user.as_str().unwrap().to_owned()).collect()
    }
}

async fn query(world: &World, users: &[&str]) -> Value {
    let wanted: serde_json::Map<String, Value> =
        users.iter().map(|user| ((*user).to_owned(), json!([]))).collect();
    world.alice.post("/v3/keys/query", json!({ "device_keys": wanted, "timeout": 20_000 })).await.expect(200)
}

#[tokio::test(flavor = "multi_thread")]
async fn ok_07_a_list_is_asked_for_once_and_known_from_then_on() {
    let near = Near::new().await;
    let user = near.list.user.as_str();
    let mut broken = listed(user, "BROKEN", 3);
    broken["keys"]["algorithms"] = json!(["another"]);
    let mut stolen = listed("@creator:elsewhere", "STOLEN", 4);
    stolen["device_id"] = json!("STOLEN");
    let mut renamed = listed(user, "RENAMED", 5);
    renamed["device_id"] = json!("ANOTHER");
    let plain = json!({ "device_id": "PLAIN" });
    let many = json!({ "device_id": "x".repeat(300) });
    let mut large = listed(user, "LARGE", 6);
    large["keys"]["more"] = json!("x".repeat(40_000));
    near.list.is(10, &[listed(user, "ONE", 1), broken, stolen, renamed, plain, many, large, json!(7)]);
    {
        let mut now = near.list.now.lock();
        now.1["master_key"] = own_key(user, "master", 20, 20);
        now.1["self_signing_key"] = own_key(user, "self_signing", 21, 20);
    }
    for _ in 0..3 {
        let found = near.query().await;
        let mut expected = device_keys(user, "ONE", 1);
        expected["unsigned"] = json!({ "device_display_name": "name of ONE" });
        assert_eq!(found["device_keys"], json!({ user: { "ONE": expected } }));
        assert_eq!(found["failures"], json!({}));
        assert_eq!(found["master_keys"][user]["keys"], own_key(user, "master", 20, 20)["keys"]);
        assert_eq!(found["self_signing_keys"][user], own_key(user, "self_signing", 21, 20));
        assert_eq!(found.get("user_signing_keys"), None);
    }
    assert_eq!(near.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ok_07_a_key_that_the_master_key_has_not_signed_is_not_shown() {
    let near = Near::new().await;
    let user = near.list.user.as_str();
    near.list.now.lock().1["master_key"] = own_key(user, "master", 20, 20);
    near.list.now.lock().1["self_signing_key"] = own_key(user, "self_signing", 21, 22);
    let found = near.query().await;
    assert_eq!(found["master_keys"][user]["usage"], json!(["master"]));
    assert_eq!(found.get("self_signing_keys"), None);
}

/// DL-02
#[tokio::test(flavor = "multi_thread")]
async fn dl_02_a_change_that_follows_is_known_without_asking_and_told_once() {
    let mut near = Near::known().await;
    near.changed().await;
    near.hears(&[near.list.update("TWO", 2, 11, &[10]), near.list.update("TWO", 3, 12, &[11])]).await;
    assert_eq!(near.changed().await, [near.list.user.clone()]);
    let found = near.query().await;
    let two = &found["device_keys"][&near.list.user]["TWO"];
    assert_eq!(two["keys"], device_keys(&near.list.user, "TWO", 3)["keys"]);
    assert_eq!(two["unsigned"]["device_display_name"], "changed");
    let mut gone = near.list.update("ONE", 1, 13, &[12]);
    gone["content"] = json!({ "user_id": near.list.user, "device_id": "ONE", "stream_id": 13, "prev_id": [12], "deleted": true });
    near.hears(&[gone]).await;
    assert_eq!(near.devices().await, ["TWO"]);
    assert_eq!(near.changed().await.len(), 1);
    assert_eq!(near.changed().await.len(), 0);
    assert_eq!(near.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn dl_04_new_keys_of_a_user_are_known_without_asking() {
    let mut near = Near::known().await;
    near.changed().await;
    let user = near.list.user.clone();
    for (kind, number) in [("m.signing_key_update", 30), ("org.matrix.signing_key_update", 40)] {
        let content = json!({
            "user_id": user, "master_key": own_key(&user, "master", number, number),
            "self_signing_key": own_key(&user, "self_signing", number + 1, number),
        });
        near.hears(&[json!({ "edu_type": kind, "content": content })]).await;
        assert_eq!(near.changed().await, std::slice::from_ref(&user));
        let found = near.query().await;
        assert_eq!(found["master_keys"][&user]["keys"], own_key(&user, "master", number, number)["keys"]);
        assert_eq!(found["self_signing_keys"][&user], own_key(&user, "self_signing", number + 1, number));
    }
    // What the old master key has signed counts no more.
    let content = json!({ "user_id": user, "master_key": own_key(&user, "master", 50, 50) });
    near.hears(&[json!({ "edu_type": "m.signing_key_update", "content": content })]).await;
    let found = near.query().await;
    assert_eq!(found["master_keys"][&user]["keys"], own_key(&user, "master", 50, 50)["keys"]);
    assert_eq!(found.get("self_signing_keys"), None);
    assert_eq!(near.asked(), 1);
}

/// A transaction has several of them after a time without.
#[tokio::test(flavor = "multi_thread")]
async fn dl_04_new_keys_of_a_user_may_come_one_by_one() {
    let near = Near::known().await;
    let user = near.list.user.clone();
    let update = |content: Value| json!({ "edu_type": "m.signing_key_update", "content": content });
    let both = json!({
        "user_id": user, "master_key": own_key(&user, "master", 30, 30),
        "self_signing_key": own_key(&user, "self_signing", 31, 30),
    });
    near.hears(&[update(both)]).await;
    near.hears(&[
        update(json!({ "user_id": user, "master_key": own_key(&user, "master", 40, 40) })),
        update(json!({ "user_id": user, "self_signing_key": own_key(&user, "self_signing", 41, 40) })),
    ])
    .await;
    let found = near.query().await;
    assert_eq!(found["master_keys"][&user]["keys"], own_key(&user, "master", 40, 40)["keys"]);
    assert_eq!(found["self_signing_keys"][&user], own_key(&user, "self_signing", 41, 40));
    assert_eq!(near.asked(), 1);
}

/// What another master key has signed is of a master key that was missed.
#[tokio::test(flavor = "multi_thread")]
async fn dl_04_a_key_by_an_unknown_master_key_has_all_of_the_list_fetched() {
    let near = Near::known().await;
    let user = near.list.user.clone();
    let self_signing = own_key(&user, "self_signing", 31, 30);
    {
        let mut now = near.list.now.lock();
        now.1["master_key"] = own_key(&user, "master", 30, 30);
        now.1["self_signing_key"] = self_signing.clone();
    }
    let content = json!({ "user_id": user, "self_signing_key": self_signing });
    near.hears(&[json!({ "edu_type": "m.signing_key_update", "content": content })]).await;
    let found = near.query().await;
    assert_eq!(found["master_keys"][&user]["keys"], own_key(&user, "master", 30, 30)["keys"]);
    assert_eq!(found["self_signing_keys"][&user], self_signing);
    assert_eq!(near.asked(), 2);
}

/// There are servers that say no more of any change than that there was one: number 1, after nothing.
#[tokio::test(flavor = "multi_thread")]
async fn dl_02_a_change_without_a_link_has_all_of_the_list_fetched_whatever_its_number() {
    let near = Near::new().await;
    let user = near.list.user.clone();
    near.list.is(1, &[listed(&user, "ONE", 1)]);
    assert_eq!(near.devices().await, ["ONE"]);
    near.list.is(1, &[listed(&user, "ONE", 1), listed(&user, "TWO", 2)]);
    let content = json!({
        "user_id": user, "device_id": "placeholder", "device_display_name": "Placeholder",
        "stream_id": 1, "prev_id": [],
    });
    near.hears(&[json!({ "edu_type": "m.device_list_update", "content": content })]).await;
    assert_eq!(near.devices().await, ["ONE", "TWO"]);
    assert_eq!(near.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn dl_02_a_missing_link_has_all_of_the_list_fetched() {
    let mut near = Near::known().await;
    near.changed().await;
    near.list.is(14, &[listed(&near.list.user, "TWO", 2), listed(&near.list.user, "THREE", 3)]);
    near.hears(&[near.list.update("THREE", 3, 14, &[13])]).await;
    eventually("the list is fetched", async || (near.asked() == 2).then_some(())).await;
    assert_eq!(near.devices().await, ["THREE", "TWO"]);
    assert_eq!(near.changed().await, [near.list.user.clone()]);
    assert_eq!(near.changed().await.len(), 0);
    near.hears(&[near.list.update("FOUR", 4, 15, &[14])]).await;
    assert_eq!(near.devices().await, ["FOUR", "THREE", "TWO"]);
    assert_eq!(near.asked(), 2);
}

/// What is missing isn't forgotten: not while the other server fails, not over a restart of this one; and it is fetched when
/// the other speaks.
#[tokio::test(flavor = "multi_thread")]
async fn dl_02_a_stale_list_is_fetched_when_its_server_is_back() {
    let mut near = Near::known().await;
    near.list.is(14, &[listed(&near.list.user, "TWO", 2)]);
    near.list.fails();
    near.hears(&[near.list.update("TWO", 2, 14, &[13])]).await;
    eventually("the list is asked for", async || (near.asked() == 2).then_some(())).await;
    // What is stale isn't shown.
    let found = near.query().await;
    assert_eq!(found["device_keys"][&near.list.user], Value::Null);
    assert!(found["failures"][near.world.peer.name.as_str()].is_object(), "{found}");

    near.world.here.server.stop().await;
    let before = near.asked();
    near.world.here.start_again().await;
    eventually("it is asked for again", async || (near.asked() > before).then_some(())).await;
    let before = near.asked();
    near.list.works();
    // It speaks.
    near.world.peer.request(&near.world.here, Method::GET, "/_matrix/federation/v1/version", None).await;
    near.hears(&[]).await;
    eventually("it is fetched", async || (near.asked() > before).then_some(())).await;
    eventually("it is known", async || near.try_devices().await.filter(|devices| devices == &["TWO"])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dl_06_what_a_server_says_of_others_is_nothing() {
    let mut near = Near::known().await;
    let stranger = near.world.peer.user("stranger");
    near.changed().await;
    let (alice, creator) = (near.world.alice.user_id.clone(), near.list.user.clone());
    let of = |user: &str| {
        let mut update = near.list.update("X", 9, 11, &[10]);
        update["content"]["user_id"] = json!(user);
        update
    };
    let historical = format!("@na me:{}", near.world.peer.name);
    let mut edus: Vec<Value> =
        [&alice, "@someone:elsewhere", stranger.as_str(), &historical].into_iter().map(of).collect();
    for broken in [
        json!(null),
        json!({}),
        json!({ "user_id": creator }),
        json!({ "user_id": creator, "device_id": "x", "stream_id": "11" }),
        json!({ "user_id": creator, "device_id": "x", "stream_id": -5 }),
        json!({ "user_id": creator, "device_id": "y".repeat(300), "stream_id": 11, "prev_id": [10] }),
        json!({ "user_id": creator, "device_id": "x", "stream_id": 11, "prev_id": vec![10; 200] }),
    ] {
        edus.push(json!({ "edu_type": "m.device_list_update", "content": broken }));
    }
    near.hears(&edus).await;
    assert_eq!(near.changed().await, Vec::<String>::new());
    assert_eq!(near.devices().await, ["ONE"]);
    near.hears(&[near.list.update("TWO", 2, 11, &[10])]).await;
    assert_eq!(near.changed().await, [creator]);
    assert_eq!(near.devices().await, ["ONE", "TWO"]);
    assert_eq!(near.asked(), 1);
}

/// A list of ten thousand devices, and as many changes, cost no more than so many as somebody may have.
#[tokio::test(flavor = "multi_thread")]
async fn dl_02_ten_thousand_devices_are_not_kept() {
    let near = Near::new().await;
    let user = near.list.user.clone();
    let devices: Vec<Value> =
        (0..10_000).map(|number| json!({ "device_id": format!("D{number}") })).collect();
    let many = [vec![listed(&user, "ONE", 1)], devices].concat();
    near.list.is(10, &many);
    assert_eq!(near.devices().await, ["ONE"]);
    near.hears(&[near.list.update("TWO", 2, 11, &[10])]).await;
    // There are as many as there may be.
    assert_eq!(near.devices().await, ["ONE"]);
    near.hears(&[near.list.update("ONE", 3, 12, &[11])]).await;
    let found = near.query().await;
    assert_eq!(found["device_keys"][&user]["ONE"]["keys"], device_keys(&user, "ONE", 3)["keys"]);
    // Below a hundred at a time, and each a change of its own.
    let flood: Vec<Value> =
        (0..100).map(|number| near.list.update("ONE", 4, 1_000 + number, &[999 + number * 2])).collect();
    let before = near.asked();
    near.hears(&flood).await;
    eventually("it is asked once", async || (near.asked() == before + 1).then_some(())).await;
    assert_eq!(near.asked(), before + 1);
}

/// Whoever shares no room with anybody here is asked about each time; nothing is kept.
#[tokio::test(flavor = "multi_thread")]
async fn ok_07_when_the_last_room_goes_the_list_is_forgotten() {
    let near = Near::known().await;
    let user = near.list.user.clone();
    let id = near.room.lock().id.clone();
    near.world.alice.post(&format!("/v3/rooms/{id}/leave"), json!({})).await.expect(200);
    near.hears(&[near.list.update("LATE", 2, 11, &[10])]).await;
    let keys = device_keys(&user, "NOW", 5);
    let mut lie = device_keys(&user, "LIE", 6);
    lie["algorithms"] = json!([]);
    let other = "@creator:elsewhere";
    let answer = json!({
        "device_keys": { &user: { "NOW": keys, "LIE": lie }, other: { "HIS": device_keys(other, "HIS", 7) } },
        "master_keys": { &user: own_key(&user, "master", 8, 8), other: own_key(other, "master", 9, 9) },
    });
    near.world.peer.on(QUERY, move |_| (200, answer.clone()));
    for count in 1..=2 {
        let found = near.query().await;
        let of_user = found["device_keys"][&user].as_object().unwrap();
        assert_eq!(of_user.keys().collect::<Vec<_>>(), ["NOW"]);
        assert_eq!(found["device_keys"].as_object().unwrap().len(), 1);
        assert_eq!(found["master_keys"].as_object().unwrap().len(), 1);
        assert_eq!(near.world.peer.asked(QUERY).len(), count);
    }
    assert_eq!(near.asked(), 1);
    // Back in a room, all is asked for anew.
    near.world.join(&near.room).await;
    near.list.is(20, &[listed(&user, "TWENTY", 2)]);
    assert_eq!(near.devices().await, ["TWENTY"]);
    assert_eq!(near.asked(), 2);
}

/// Other servers are waited for as long as the client says, and named if they don't answer.
#[tokio::test(flavor = "multi_thread")]
async fn ok_07_servers_that_do_not_answer_are_failures() {
    let near = Near::known().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("127.0.0.1:{}", silent.local_addr().unwrap().port());
    let dead = format!("127.0.0.1:{}", crate::common::free_port());
    let (nobody, ghost) = (format!("@nobody:{silent}"), format!("@ghost:{dead}"));
    let wanted = json!({ &nobody: [], &ghost: [], &near.list.user: [], &near.world.alice.user_id: [] });
    let body = json!({ "device_keys": wanted, "timeout": 1_000 });
    let found = near.world.alice.post("/v3/keys/query", body).await.expect(200);
    assert!(found["device_keys"][&near.list.user]["ONE"].is_object(), "{found}");
    let failures = found["failures"].as_object().unwrap();
    let mut names = [silent.as_str(), dead.as_str()];
    names.sort_unstable();
    assert_eq!(failures.keys().collect::<Vec<_>>(), names);
    let wanted = json!({ &nobody: { "X": "signed_curve25519" }, &ghost: { "X": "signed_curve25519" } });
    let body = json!({ "one_time_keys": wanted, "timeout": 1_000 });
    let claimed = near.world.alice.post("/v3/keys/claim", body).await.expect(200);
    assert_eq!(claimed["one_time_keys"], json!({}));
    assert_eq!(claimed["failures"].as_object().unwrap().keys().collect::<Vec<_>>(), names);
}

#[tokio::test(flavor = "multi_thread")]
async fn ok_07_one_time_keys_are_claimed_elsewhere() {
    let near = Near::known().await;
    let user = near.list.user.clone();
    let good = json!({ "key": "abc", "signatures": { &user: { "ed25519:ONE": "x" } } });
    let answer = json!({ "one_time_keys": {
        &user: {
            "ONE": { "signed_curve25519:AAAA": good }, "TWO": { "curve25519:BBBB": "plain" },
            "THREE": { "signed_curve25519:CCCC": 7 }, "UNASKED": { "signed_curve25519:DDDD": good },
        },
        "@creator:elsewhere": { "ONE": { "signed_curve25519:AAAA": good } },
    } });
    near.world.peer.on(CLAIM, move |_| (200, answer.clone()));
    let algorithm = "signed_curve25519";
    let wanted = json!({ &user: { "ONE": algorithm, "TWO": algorithm, "THREE": algorithm } });
    let claimed =
        near.world.alice.post("/v3/keys/claim", json!({ "one_time_keys": wanted })).await.expect(200);
    assert_eq!(claimed["one_time_keys"], json!({ &user: { "ONE": { "signed_curve25519:AAAA": good } } }));
    assert_eq!(claimed["failures"], json!({}));
    assert_eq!(near.world.peer.asked(CLAIM)[0].body["one_time_keys"], wanted);
}
