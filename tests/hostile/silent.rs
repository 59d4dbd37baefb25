//! A thousand servers that take connections and never say a word.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpListener, task::JoinHandle, time::timeout};

use crate::{
    World,
    common::{eventually, transaction_id},
    peer::Peer,
    room::Room,
    storm::most_resident,
};

/// Listens on all addresses of this machine, of which each is another server.
struct Silence {
    port: u16,
    /// Connections that are open, and the most that ever were.
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Silence {
    async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (now, ever) = (Arc::clone(&open), Arc::clone(&most));
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                ever.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let now = Arc::clone(&now);
                tokio::spawn(async move {
                    let mut bytes = [0; 1024];
                    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                    now.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port, open, most, serving }
    }

    fn names(&self, count: usize) -> impl Iterator<Item = String> {
        let port = self.port;
        (0..count).map(move |number| format!("127.78.{}.{}:{port}", number / 200, number % 200 + 1))
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// I7, I11: others are spoken to as ever, and a server that is new too; those who are silent take a bounded number of places.
#[tokio::test(flavor = "multi_thread")]
async fn i7_a_thousand_silent_servers_keep_nothing_from_others() {
    const SERVERS: usize = 1000;
    let world = World::new().await;
    let room = world.shared("11", "heard").await;
    let id = room.lock().id.clone();
    let silence = Silence::start().await;
    let before = most_resident(&world);
    let names: Vec<String> = silence.names(SERVERS).collect();
    for names in names.chunks(100) {
        let messages: Map<String, Value> =
            names.iter().map(|name| (format!("@user:{name}"), json!({ "*": { "hello": "?" } }))).collect();
        let uri = format!("/v3/sendToDevice/org.example.hello/{}", transaction_id());
        world.alice.put(&uri, json!({ "messages": messages })).await.expect(200);
    }
    eventually("they are being spoken to", || async {
        (silence.open.load(Ordering::SeqCst) >= 100).then_some(())
    })
    .await;

    let texts: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    for text in &texts {
        world.alice.send_text(id.as_str(), text).await;
    }
    eventually("the other server has all that was said", || async {
        let transactions = world.peer.asked("/_matrix/federation/v1/send/");
        let pdus = transactions.iter().filter_map(|asked| asked.body["pdus"].as_array().cloned()).flatten();
        let said: Vec<Value> = pdus.map(|mut pdu| pdu["content"]["body"].take()).collect();
        (said == texts).then_some(())
    })
    .await;
    let other = Peer::start(&world.authority).await;
    let new = Room::new(&other, "11", "new");
    other.keeps(&new);
    let new = new.lock().id.clone();
    let join = format!("/v3/join/{new}?via={}", other.name);
    // To give up all of them, those that there are places for at a time, takes longer.
    let joined = timeout(Duration::from_secs(45), world.alice.post(&join, json!({}))).await;
    joined.expect("it doesn't wait for those who are silent").expect(200);

    assert!(silence.open.load(Ordering::SeqCst) > 0, "they are tried still");
    let most = silence.most.load(Ordering::SeqCst);
    assert!(most < SERVERS * 3 / 4, "{most} connections at a time");
    let grown = most_resident(&world).saturating_sub(before);
    assert!(grown < 96 * 1024, "{grown} KiB more for {SERVERS} servers");
}
