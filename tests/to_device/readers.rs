//! The other readers of a mailbox: the stream and sliding sync, and all of them mixed.

use serde_json::{Value, json};

use crate::{
    Server, User,
    client::Client,
    common::device::{FOR_EVER, next_batch},
    numbers, send, server,
};

const SLIDING: &str = "/unstable/org.matrix.simplified_msc3575/sync";

/// A connection of sliding sync that is about messages alone.
struct Sliding {
    user: User,
    pos: Option<String>,
    since: Option<String>,
    limit: Option<u64>,
}

impl Sliding {
    fn new(user: &User) -> Self {
        Self { user: user.clone(), pos: None, since: None, limit: None }
    }

    /// The extension's part of an answer.
    async fn ask(&mut self, timeout: u64) -> Value {
        let pos = self.pos.as_ref().map(|pos| format!("&pos={pos}")).unwrap_or_default();
        let mut mail = json!({ "enabled": true });
        if let Some(since) = &self.since {
            mail["since"] = json!(since);
        }
        if let Some(limit) = self.limit {
            mail["limit"] = json!(limit);
        }
        let body = json!({ "conn_id": "encryption", "extensions": { "to_device": mail } });
        let answer = self.user.post(&format!("{SLIDING}?timeout={timeout}{pos}"), body).await.expect(200);
        self.pos = Some(answer["pos"].as_str().unwrap().to_owned());
        answer["extensions"]["to_device"].clone()
    }

    /// The numbers of the next messages, which it takes note of.
    async fn next(&mut self, timeout: u64) -> Vec<u64> {
        let answer = self.ask(timeout).await;
        self.since = Some(next_batch(&answer).to_owned());
        of(&answer)
    }
}

fn of(extension: &Value) -> Vec<u64> {
    extension["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["content"]["n"].as_u64().unwrap())
        .collect()
}

/// The numbers of so many messages, which come by pages.
async fn pages(socket: &mut Client, count: usize) -> Vec<u64> {
    let mut got = Vec::new();
    while got.len() < count {
        let page = numbers(&socket.sync().await);
        assert!(page.len() <= 100);
        got.extend(page);
    }
    got
}

#[tokio::test]
async fn td_01_a_socket_gets_pages_and_acknowledges_them() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut socket = Client::ready(&server, &bob).await;
    socket.acks = false;
    send(&alice, &bob, 0..250).await;
    assert_eq!(pages(&mut socket, 250).await, (0..250).collect::<Vec<_>>());
    // Nothing was acknowledged: another socket gets all of it, and so does one that goes on from before.
    drop(socket);
    let mut socket = Client::open(&server).await;
    socket.auth(&bob, json!({})).await;
    let first = socket.sync().await;
    assert_eq!(numbers(&first), (0..100).collect::<Vec<_>>());
    drop(socket);
    let mut socket = Client::resumed(&server, &bob, next_batch(&first)).await;
    assert_eq!(pages(&mut socket, 150).await, (100..250).collect::<Vec<_>>());
    // An acknowledgement is before whatever the socket asks after it.
    socket.request("presence", json!({ "presence": "online" })).await.unwrap();
    assert!(numbers(&bob.sync(None, 0).await).is_empty());
    send(&alice, &bob, [250]).await;
    assert_eq!(
        socket.sync_with(|body| Some(numbers(body)).filter(|numbers| !numbers.is_empty())).await,
        [250]
    );
}

/// TD-06: one page follows the other, whether the client says anything meanwhile or not.
#[tokio::test]
async fn td_01_a_socket_gets_page_after_page() {
    let config = toml::toml! {
        [stream]
        heartbeat_ms = 600_000
    };
    let server = Server::start(config).await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let since = next_batch(&bob.sync(None, 0).await).to_owned();
    send(&alice, &bob, 0..250).await;
    let mut socket = Client::resumed(&server, &bob, &since).await;
    socket.acks = false;
    assert_eq!(pages(&mut socket, 250).await, (0..250).collect::<Vec<_>>());
}

#[tokio::test]
async fn td_01_an_extension_acknowledges_by_its_own_since() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    send(&alice, &bob, 0..120).await;
    let mut sliding = Sliding::new(&bob);
    let first = sliding.ask(0).await;
    assert_eq!(of(&first), (0..100).collect::<Vec<_>>());
    // Without `since` nothing is acknowledged, whatever `pos` says.
    assert_eq!(of(&sliding.ask(0).await), (0..100).collect::<Vec<_>>());
    sliding.since = Some(next_batch(&first).to_owned());
    sliding.limit = Some(7);
    assert_eq!(
        sliding.next(FOR_EVER).await,
        (100..107).collect::<Vec<_>>(),
        "at once, and as many as asked for"
    );
    sliding.limit = Some(100_000);
    assert_eq!(sliding.next(FOR_EVER).await, (107..120).collect::<Vec<_>>());
    assert!(sliding.next(0).await.is_empty());
    // A connection that begins anew, with what the client remembers.
    sliding.pos = None;
    assert!(sliding.next(0).await.is_empty());
    sliding.since = None;
    assert!(sliding.next(0).await.is_empty(), "all was acknowledged");
    let poll = tokio::spawn(async move { sliding.next(FOR_EVER).await });
    send(&alice, &bob, [120]).await;
    assert_eq!(poll.await.unwrap(), [120]);
}

#[tokio::test]
async fn a_since_that_is_none_is_refused_and_a_connection_that_does_not_ask_takes_nothing() {
    let server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    send(&alice, &bob, [1]).await;
    let ask = async |body: Value| bob.post(&format!("{SLIDING}?timeout=0"), body).await;
    ask(json!({ "extensions": { "to_device": { "enabled": true, "since": "garbage" } } }))
        .await
        .expect_error(400, "M_INVALID_PARAM");
    let answer = ask(json!({ "extensions": { "to_device": { "enabled": false } } })).await.expect(200);
    assert!(answer["extensions"]["to_device"].is_null());
    let pos = answer["pos"].as_str().unwrap();
    let answer = bob.post(&format!("{SLIDING}?timeout=0&pos={pos}"), json!({})).await.expect(200);
    assert!(answer["extensions"].as_object().unwrap().is_empty());
    assert_eq!(Sliding::new(&bob).next(0).await, [1]);
    // Of another database, or of a future that this one doesn't know: as if there were none.
    let stranger = "s1_99999999_1_1";
    let mut sliding = Sliding::new(&bob);
    sliding.since = Some(stranger.to_owned());
    assert_eq!(sliding.next(0).await, [1]);
}

/// One device that reads now by this and now by that, with answers that get lost, kills and restarts.
#[tokio::test]
async fn td_01_exactly_once_by_whatever_reader() {
    let mut server = server().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let mut since = next_batch(&bob.sync(None, 0).await).to_owned();
    let mut got: Vec<u64> = Vec::new();
    let rounds = crate::common::rounds(12, 60) as u64;
    let each = 37;
    for round in 0..rounds {
        send(&alice, &bob, round * each..(round + 1) * each).await;
        match round % 5 {
            0 => {
                let answer = bob.sync(Some(&since), FOR_EVER).await;
                got.extend(numbers(&answer));
                since = next_batch(&answer).to_owned();
            }
            1 => {
                let mut socket = Client::resumed(&server, &bob, &since).await;
                let body = socket.sync().await;
                got.extend(numbers(&body));
                since = next_batch(&body).to_owned();
            }
            2 => {
                // Its `next_batch` is as good as that of `/sync`.
                let mut sliding = Sliding::new(&bob);
                sliding.since = Some(since.clone());
                got.extend(sliding.next(0).await);
                got.extend(sliding.next(0).await);
                since = sliding.since.unwrap();
            }
            3 => {
                // Lost answers.
                bob.sync(Some(&since), 0).await;
                let mut socket = Client::resumed(&server, &bob, &since).await;
                socket.acks = false;
                socket.sync().await;
                server.kill().await;
                server.start_again().await;
            }
            _ => server.restart().await,
        }
    }
    while (got.len() as u64) < rounds * each {
        let answer = bob.sync(Some(&since), FOR_EVER).await;
        got.extend(numbers(&answer));
        since = next_batch(&answer).to_owned();
    }
    assert_eq!(got, (0..rounds * each).collect::<Vec<_>>());
    assert!(numbers(&bob.sync(Some(&since), 0).await).is_empty());
    assert!(numbers(&bob.sync(None, 0).await).is_empty());
}
