//! Mailboxes on a real database, with a clock of the tests' own.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use hearth_federation::SigningKey;
use ruma::{OwnedUserId, ServerName, owned_server_name, owned_user_id, server_name};
use serde_json::{Value, json};

use super::*;
use crate::{
    config,
    environment::Clock,
    peers::OwnKeys,
    room::{received_tests::SEED, tests::World},
    store::{
        dehydrated_device::set_dehydrated,
        device::{add_device, delete_devices},
    },
};

/// The mailboxes of a world; without `peers` with some that nobody is asked by.
pub(crate) fn to_device_of(world: &World, peers: Option<&Arc<Peers>>) -> Arc<ToDevice> {
    let name = owned_server_name!("localhost");
    let (store, environment) = (world.store.clone(), world.environment.clone());
    let peers = peers.cloned().unwrap_or_else(|| {
        let own = OwnKeys { key: Arc::new(SigningKey::from_text(SEED).unwrap()), old: Vec::new() };
        let config = config::Federation { notaries: Vec::new(), ..config::Federation::default() };
        Peers::new(name.clone(), own, &config, store.clone(), &environment).unwrap()
    });
    let (accounts, destinations) = (Arc::clone(&world.accounts), Arc::clone(&world.destinations));
    ToDevice::new(name, store, accounts, peers, destinations, world.queues.clone(), environment)
}

struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

const DAY: i64 = 24 * 60 * 60 * 1000;

struct Post {
    world: World,
    hands: Arc<Hands>,
    all: Arc<ToDevice>,
    alice: OwnedUserId,
    bob: OwnedUserId,
    txns: AtomicI64,
}

impl Post {
    async fn new() -> Self {
        let hands = Arc::new(Hands(AtomicI64::new(1_700_000_000_000)));
        let clock: Arc<dyn Clock> = Arc::<Hands>::clone(&hands);
        let environment = Environment { clock, ..Environment::real() };
        let (alice, bob) = (owned_user_id!("@alice:localhost"), owned_user_id!("@bob:localhost"));
        let world = World::keeping(&[alice.as_str(), bob.as_str()], environment, None).await;
        for (user_id, device) in [(&alice, "A1"), (&bob, "B1"), (&bob, "B2")] {
            let batch = Vec::from(add_device(user_id.as_str(), device, None, 0));
            world.store.commit(batch).await.unwrap();
        }
        let all = to_device_of(&world, None);
        Self { world, hands, all, alice, bob, txns: AtomicI64::new(0) }
    }

    async fn device(&self, user_id: &UserId, device: &str) -> i64 {
        let users = json!([user_id]).to_string();
        let addresses = self.world.store.addresses(users).await.unwrap();
        addresses.iter().find(|address| address.device_id == device).unwrap().device
    }

    fn txn(&self) -> Txn {
        let number = self.txns.fetch_add(1, Ordering::Relaxed);
        Txn { device: 1, path: 1, txn_id: number.to_string() }
    }

    async fn try_send(&self, messages: Value) -> Result<(), Error> {
        let messages: Messages = serde_json::from_value(messages).unwrap();
        self.all.send(&self.alice, "m.test", messages, self.txn()).await
    }

    async fn send(&self, messages: Value) {
        self.try_send(messages).await.unwrap();
    }

    /// The contents that wait in a mailbox.
    async fn waiting(&self, mailbox: i64) -> Vec<Value> {
        let rows = self.world.store.messages(mailbox, 0, i64::MAX, i64::MAX).await.unwrap();
        rows.iter().map(|row| serde_json::from_str(&row.message).unwrap()).collect()
    }

    async fn numbers(&self, mailbox: i64) -> Vec<i64> {
        self.waiting(mailbox).await.iter().map(|event| event["content"]["n"].as_i64().unwrap()).collect()
    }

    async fn hear(&self, origin: &ServerName, messages: Value) {
        let messages: Vec<DirectToDevice> = serde_json::from_value(messages).unwrap();
        self.all.hear(origin, &messages).await.unwrap();
    }
}

#[tokio::test]
async fn td_03_a_star_is_every_device_and_a_name_is_more_than_a_star() {
    let post = Post::new().await;
    post.send(json!({ "@bob:localhost": { "*": { "n": 1 }, "B2": { "n": 2 }, "B3": { "n": 3 } } })).await;
    post.send(json!({ "@nobody:localhost": { "*": { "n": 4 } } })).await;
    let event = |n: i64| json!({ "type": "m.test", "sender": "@alice:localhost", "content": { "n": n } });
    assert_eq!(post.waiting(post.device(&post.bob, "B1").await).await, [event(1)]);
    assert_eq!(post.waiting(post.device(&post.bob, "B2").await).await, [event(2)]);
    assert!(post.waiting(post.device(&post.alice, "A1").await).await.is_empty());
}

/// A device that ends while a message is on its way leaves no mailbox behind.
#[tokio::test]
async fn ok_12_a_mailbox_ends_with_its_device() {
    let post = Post::new().await;
    let device = post.device(&post.bob, "B1").await;
    post.send(json!({ "@bob:localhost": { "B1": { "n": 1 } } })).await;
    let account = post.world.store.account_of(post.bob.as_str()).await.unwrap().unwrap();
    let ids = json!([device]).to_string();
    post.world.store.commit(Vec::from(delete_devices(account.recipient, &ids))).await.unwrap();
    assert!(post.waiting(device).await.is_empty());
    let mut batch = Batch::new();
    let step = batch.step();
    batch.push(insert_message(device, step, "{}".into(), 0));
    post.world.store.commit(batch).await.unwrap();
    assert!(post.waiting(device).await.is_empty());
}

/// TD-04
#[tokio::test]
async fn td_04_what_is_for_another_server_waits_as_one_message_with_an_id_of_its_own() {
    let post = Post::new().await;
    let to =
        |n: i64| json!({ "@rita:elsewhere": { "R1": { "n": n }, "*": { "n": 0 } }, "@x:there": { "*": {} } });
    post.send(to(1)).await;
    post.send(to(2)).await;
    let server = post.world.destinations.known(server_name!("elsewhere")).unwrap();
    let waiting = post.waiting(server).await;
    assert_eq!(waiting.len(), 2);
    for (edu, n) in waiting.iter().zip(1..) {
        assert_eq!(edu["messages"], json!({ "@rita:elsewhere": { "R1": { "n": n }, "*": { "n": 0 } } }));
        assert_eq!((&edu["type"], &edu["sender"]), (&json!("m.test"), &json!("@alice:localhost")));
        assert!(edu["message_id"].as_str().unwrap().len() <= 32);
    }
    assert_ne!(waiting[0]["message_id"], waiting[1]["message_id"]);
}

/// The whole transaction is signed, so one number that can't be would keep all of it back.
#[tokio::test]
async fn what_can_not_be_signed_is_refused_before_it_waits() {
    let post = Post::new().await;
    let refused = post.try_send(json!({ "@rita:elsewhere": { "R1": { "n": 1.5 } } })).await;
    assert!(matches!(refused, Err(Error::NotCanonical(_))), "{refused:?}");
    post.send(json!({ "@bob:localhost": { "B1": { "n": 1.5 } } })).await;
}

#[tokio::test]
async fn a_large_request_goes_to_a_server_in_parts_that_keep_their_order() {
    let post = Post::new().await;
    let text = "x".repeat(20_000);
    let devices: serde_json::Map<String, Value> =
        (0..10).map(|n| (format!("R{n}"), json!({ "n": n, "text": text }))).collect();
    post.send(
        json!({ "@rita:elsewhere": devices, "@sam:elsewhere": { "S": { "text": "x".repeat(60_000) } } }),
    )
    .await;
    let server = post.world.destinations.known(server_name!("elsewhere")).unwrap();
    let waiting = post.waiting(server).await;
    assert!(waiting.iter().all(|edu| edu.to_string().len() <= 65_536));
    let of_rita: Vec<String> = waiting
        .iter()
        .filter_map(|edu| edu["messages"]["@rita:elsewhere"].as_object())
        .flat_map(|devices| devices.keys().cloned())
        .collect();
    assert_eq!(of_rita, (0..10).map(|n| format!("R{n}")).collect::<Vec<_>>());
    assert_eq!(waiting.len(), 6, "five pairs, and the one that is as large as may be");
}

#[tokio::test]
async fn requests_are_bounded() {
    let post = Post::new().await;
    let devices: serde_json::Map<String, Value> =
        (0..=MOST_NAMED).map(|n| (format!("D{n}"), json!({}))).collect();
    assert!(matches!(post.try_send(json!({ "@bob:localhost": devices })).await, Err(Error::TooMany)));
    let servers: serde_json::Map<String, Value> =
        (0..=MOST_SERVERS).map(|n| (format!("@x:s{n}.example"), json!({ "*": {} }))).collect();
    assert!(matches!(post.try_send(Value::Object(servers)).await, Err(Error::TooMany)));
    let large = json!({ "text": "x".repeat(MOST_BYTES) });
    let refused = post.try_send(json!({ "@bob:localhost": { "B1": large } })).await;
    assert!(matches!(refused, Err(Error::TooLarge(_))));
    let long = "x".repeat(LONGEST_NAME + 1);
    assert!(matches!(post.try_send(json!({ "@bob:localhost": { long: {} } })).await, Err(Error::Name)));
    for content in [json!("text"), json!([]), json!(null)] {
        let refused = post.try_send(json!({ "@bob:localhost": { "B1": content } })).await;
        assert!(matches!(refused, Err(Error::NotAnObject)));
    }
    assert_eq!(post.world.store.messages_waiting().await.unwrap(), 0);
}

/// Anybody can make up names of servers.
#[tokio::test]
async fn messages_to_more_servers_than_anybody_knows_are_dropped() {
    let post = Post::new().await;
    let to = |from: usize, to: usize| {
        let users = (from..to).map(|n| (format!("@x:s{n}.example"), json!({ "*": {} })));
        Value::Object(users.collect())
    };
    for first in (0..1_200).step_by(200) {
        post.send(to(first, first + 200)).await;
    }
    assert_eq!(post.world.store.strangers().await.unwrap(), 1_000);
    assert_eq!(post.world.store.messages_waiting().await.unwrap(), 1_000);
    post.send(to(0, 1)).await;
    assert_eq!(post.world.store.messages_waiting().await.unwrap(), 1_001, "one that has a number");
}

/// A device that never comes back.
#[tokio::test]
async fn a_full_mailbox_loses_its_oldest_messages() {
    let post = Post::new().await;
    let (one, other) = (post.device(&post.bob, "B1").await, post.device(&post.bob, "B2").await);
    let mut batch = Batch::new();
    for n in 0..10_005 {
        let step = batch.step();
        batch.push(insert_message(one, step, json!({ "content": { "n": n } }).to_string().into(), 0));
    }
    let text = "x".repeat(60_000);
    for n in 0..600 {
        let step = batch.step();
        let message = json!({ "content": { "n": n, "text": text } }).to_string();
        batch.push(insert_message(other, step, message.into(), 0));
    }
    post.world.store.commit(batch).await.unwrap();
    post.all.bound(one).await.unwrap();
    assert_eq!(post.numbers(one).await, (5..10_005).collect::<Vec<_>>());
    let mailboxes = post.world.store.overfull_mailboxes(10_000, 32 * 1024 * 1024).await.unwrap();
    assert_eq!(mailboxes, [other], "by their bytes");
    post.all.bound(other).await.unwrap();
    let left = post.numbers(other).await;
    assert!((550..560).contains(&left.len()), "{}", left.len());
    assert_eq!(left.last(), Some(&599));
    assert!(post.world.store.overfull_mailboxes(10_000, 32 * 1024 * 1024).await.unwrap().is_empty());
}

/// By requests alone, without the round that looks at all.
#[tokio::test]
async fn a_flood_is_stopped_while_it_comes() {
    let post = Post::new().await;
    let device = post.device(&post.bob, "B1").await;
    let mut batch = Batch::new();
    for n in 0..10_000 {
        let step = batch.step();
        batch.push(insert_message(device, step, json!({ "content": { "n": n } }).to_string().into(), 0));
    }
    post.world.store.commit(batch).await.unwrap();
    for n in 10_000..10_032 {
        post.send(json!({ "@bob:localhost": { "B1": { "n": n } } })).await;
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while post.numbers(device).await.len() != 10_000 {
        assert!(std::time::Instant::now() < deadline, "nobody looks at it");
        tokio::task::yield_now().await;
    }
    assert_eq!(post.numbers(device).await.first(), Some(&32));
}

#[tokio::test]
async fn what_nobody_fetches_in_thirty_days_goes() {
    let post = Post::new().await;
    let device = post.device(&post.bob, "B1").await;
    post.send(json!({ "@bob:localhost": { "B1": { "n": 1 } }, "@rita:elsewhere": { "*": {} } })).await;
    post.hands.0.fetch_add(29 * DAY, Ordering::Relaxed);
    post.send(json!({ "@bob:localhost": { "B1": { "n": 2 } } })).await;
    post.all.tidy().await.unwrap();
    assert_eq!(post.numbers(device).await, [1, 2]);
    post.hands.0.fetch_add(2 * DAY, Ordering::Relaxed);
    post.all.tidy().await.unwrap();
    assert_eq!(post.numbers(device).await, [2]);
    let server = post.world.destinations.known(server_name!("elsewhere")).unwrap();
    assert!(post.waiting(server).await.is_empty());
}

/// MSC3814: its user comes back when they have lost all others.
#[tokio::test]
async fn what_a_dehydrated_device_has_waits_however_long() {
    let post = Post::new().await;
    let (dehydrated, other) = (post.device(&post.bob, "B1").await, post.device(&post.bob, "B2").await);
    let account = post.world.store.account_of(post.bob.as_str()).await.unwrap().unwrap();
    post.world.store.commit(set_dehydrated(account.recipient, dehydrated, "{}", None)).await.unwrap();
    post.send(json!({ "@bob:localhost": { "*": { "n": 1 } } })).await;
    post.hands.0.fetch_add(400 * DAY, Ordering::Relaxed);
    post.all.tidy().await.unwrap();
    assert_eq!(post.numbers(dehydrated).await, [1]);
    assert_eq!(post.numbers(other).await, [0; 0]);
}

fn heard(sender: &str, id: &str, messages: &Value) -> Value {
    json!({ "sender": sender, "type": "m.test", "message_id": id, "messages": messages })
}

#[tokio::test]
async fn td_04_a_message_of_another_server_is_taken_once() {
    let post = Post::new().await;
    let (origin, other) = (server_name!("elsewhere"), server_name!("there"));
    let device = post.device(&post.bob, "B1").await;
    let to_bob = |n: i64| json!({ "@bob:localhost": { "B1": { "n": n } } });
    let edus = json!([
        heard("@rita:elsewhere", "a", &to_bob(1)),
        heard("@rita:elsewhere", "b", &to_bob(2)),
        heard("@rita:elsewhere", "a", &to_bob(3)),
    ]);
    post.hear(origin, edus.clone()).await;
    post.hear(origin, edus).await;
    post.hear(
        origin,
        json!([heard("@rita:elsewhere", "c", &to_bob(4)), heard("@rita:elsewhere", "b", &to_bob(5))]),
    )
    .await;
    assert_eq!(post.numbers(device).await, [1, 2, 4]);
    // An id counts for the server that gives it.
    post.hear(other, json!([heard("@tom:there", "a", &to_bob(6))])).await;
    assert_eq!(post.numbers(device).await, [1, 2, 4, 6]);
    // It is forgotten after some time: no server tries again for that long.
    post.hands.0.fetch_add(15 * DAY, Ordering::Relaxed);
    post.all.tidy().await.unwrap();
    let ids = json!(["a", "b"]).to_string();
    assert!(post.world.store.heard_messages(origin.as_str(), ids).await.unwrap().is_empty());
}

/// A server that was away has many for many: that there are many together is no reason to lose one.
#[tokio::test]
async fn td_04_many_messages_to_many_devices_come_whole_and_in_order() {
    let post = Post::new().await;
    for n in 0..130 {
        let device = format!("M{n}");
        let batch = Vec::from(add_device(post.bob.as_str(), &device, None, 0));
        post.world.store.commit(batch).await.unwrap();
    }
    let to_all = |n: i64| json!({ "@bob:localhost": { "*": { "n": n } } });
    let edus: Vec<Value> = (0..100).map(|n| heard("@rita:elsewhere", &n.to_string(), &to_all(n))).collect();
    const { assert!(100 * 132 > MOST_DELIVERED) };
    post.hear(server_name!("elsewhere"), json!(edus)).await;
    post.hear(server_name!("elsewhere"), json!(edus)).await;
    for device in ["B1", "B2", "M0", "M129"] {
        assert_eq!(post.numbers(post.device(&post.bob, device).await).await, (0..100).collect::<Vec<_>>());
    }
}

/// The same, brought by several transactions at the same time.
#[tokio::test]
async fn td_04_a_message_that_comes_many_times_at_once_is_taken_once() {
    let post = Post::new().await;
    let device = post.device(&post.bob, "B1").await;
    let hearings = (0..4_i64).map(|first| {
        let edus: Vec<Value> = (0..20)
            .map(|n| {
                let n = (n + first * 5) % 20;
                heard("@rita:elsewhere", &n.to_string(), &json!({ "@bob:localhost": { "B1": { "n": n } } }))
            })
            .collect();
        post.hear(server_name!("elsewhere"), json!(edus))
    });
    futures_util::future::join_all(hearings).await;
    let mut numbers = post.numbers(device).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_another_server_says_in_the_name_of_others_or_to_others_is_dropped() {
    let post = Post::new().await;
    let origin = server_name!("elsewhere");
    let device = post.device(&post.bob, "B1").await;
    let to_bob = |n: i64| json!({ "@bob:localhost": { "B1": { "n": n } } });
    let large = json!({ "n": 1, "text": "x".repeat(MOST_BYTES) });
    let edus = json!([
        heard("@alice:localhost", "1", &to_bob(1)),
        heard("@tom:there", "2", &to_bob(2)),
        heard("@rita:elsewhere", "", &to_bob(3)),
        heard("@rita:elsewhere", &"x".repeat(256), &to_bob(4)),
        heard("@rita:elsewhere", "5", &json!({ "no user": { "*": {} }, "@sam:there": { "*": {} } })),
        heard("@rita:elsewhere", "6", &json!({ "@bob:localhost": { "B1": large } })),
        heard("@rita:elsewhere", "7", &json!({ "@bob:localhost": { "B1": "text" } })),
        heard(
            "@rita:elsewhere",
            "8",
            &json!({ "@bob:localhost": { "B9": {} }, "@none:localhost": { "*": {} } })
        ),
        heard("@rita:elsewhere", "9", &to_bob(9)),
    ]);
    post.hear(origin, edus).await;
    assert_eq!(post.numbers(device).await, [9]);
    let ids: Vec<String> = (1..10).map(|id| id.to_string()).collect();
    let kept = post.world.store.heard_messages(origin.as_str(), json!(ids).to_string()).await.unwrap();
    assert_eq!(kept, ["9"], "of what nobody gets nothing is kept");
    assert!(post.world.destinations.known(server_name!("there")).is_none(), "nothing is passed on");
}
