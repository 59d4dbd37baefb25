//! Sending to a server that is slow, that is down, that refuses: nothing is lost, nothing comes twice, all in order.

use std::collections::BTreeSet;

use hearth_federation::{ClientError, Response, ServerRequest, SigningKey, Task};
use ruma::{OwnedEventId, ServerName, owned_server_name};
use serde_json::{Value, json};

use super::*;
use crate::{
    config,
    peers::{OwnKeys, Wire},
    room::received_tests::{SEED, Story},
};

/// The server `elsewhere`, as a test wants it.
#[derive(Default)]
struct There {
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    down: bool,
    /// It refuses whatever has an event with this text.
    refuses: Option<String>,
    /// Each attempt: the transaction's id and the texts of its events.
    attempts: Vec<(String, Vec<String>)>,
    /// What it took.
    taken: Vec<String>,
    at_work: usize,
    most_at_work: usize,
}

impl Wire for There {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: ServerRequest,
    ) -> Task<'a, Result<Response, ClientError>> {
        assert_eq!(server, "elsewhere");
        Box::pin(async move {
            let body: Value = serde_json::from_str(request.body().unwrap()).unwrap();
            let pdus = body["pdus"].as_array().unwrap();
            assert!(pdus.len() <= 50 && body["edus"].as_array().unwrap().len() <= 100, "TX-01");
            let text = |pdu: &Value| pdu["content"]["body"].as_str().unwrap_or_default().to_owned();
            let texts: Vec<String> = pdus.iter().map(text).collect();
            let id = request.uri().rsplit('/').next().unwrap().to_owned();
            {
                let mut script = self.script.lock();
                script.attempts.push((id, texts.clone()));
                script.at_work += 1;
                script.most_at_work = script.most_at_work.max(script.at_work);
            }
            // Somebody else's turn, while this one is on its way.
            tokio::task::yield_now().await;
            let mut script = self.script.lock();
            script.at_work -= 1;
            if script.down {
                return Err(ClientError::TimedOut);
            }
            if let Some(refused) = &script.refuses
                && texts.contains(refused)
            {
                return Err(ClientError::Refused {
                    status: http::StatusCode::BAD_REQUEST,
                    errcode: "M_BAD_JSON".to_owned(),
                    message: "no".to_owned(),
                    retry_after_ms: None,
                });
            }
            script.taken.extend(texts.into_iter().filter(|text| !text.is_empty()));
            let (status, headers) = (http::StatusCode::OK, http::HeaderMap::new());
            Ok(Response { status, headers, body: json!({ "pdus": {} }).to_string().into() })
        })
    }
}

/// A room with somebody of elsewhere in it.
struct Sending {
    story: Story,
    there: Arc<There>,
    peers: Arc<Peers>,
    outbound: Arc<Outbound>,
    shutdown: Shutdown,
}

impl Sending {
    async fn new() -> Self {
        Self::with(config::Federation::default()).await
    }

    async fn with(config: config::Federation) -> Self {
        let story = Story::new().await;
        let (store, environment) = (story.world.store.clone(), story.world.environment.clone());
        let own = OwnKeys { key: Arc::new(SigningKey::from_text(SEED).unwrap()), old: Vec::new() };
        let config = config::Federation { notaries: Vec::new(), ..config };
        let name = owned_server_name!("localhost");
        let peers = Peers::new(name.clone(), own, &config, store.clone(), &environment).unwrap();
        let there = Arc::new(There::default());
        let peers = peers.through(Arc::<There>::clone(&there));
        let outbound = Outbound::new(
            name,
            Arc::clone(&peers),
            Arc::clone(&story.world.rooms),
            store,
            story.world.queues.clone(),
            environment,
            Arc::clone(&story.world.destinations),
        );
        let shutdown = Shutdown::default();
        tokio::spawn(Arc::clone(&outbound).run(shutdown.clone()));
        // It listens from its first turn on.
        tokio::task::yield_now().await;
        Self { story, there, peers, outbound, shutdown }
    }

    async fn say(&self, texts: impl IntoIterator<Item = usize>) -> Vec<OwnedEventId> {
        let mut events = Vec::new();
        for text in texts {
            let Story { world, room, alice, .. } = &self.story;
            events.push(world.say(room, alice, &text.to_string()).await);
        }
        events
    }

    async fn until(&self, what: &str, condition: impl Fn(&Script) -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !condition(&self.there.script.lock()) {
            assert!(std::time::Instant::now() < deadline, "{what}: {:?}", self.there.script.lock().taken);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn destination(&self) -> crate::store::destination::DestinationRow {
        let server = owned_server_name!("elsewhere");
        let number = self.story.world.destinations.known(&server).unwrap();
        self.story.world.store.destination(number).await.unwrap().unwrap()
    }

    async fn is_behind(&self) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while !self.destination().await.behind {
            assert!(std::time::Instant::now() < deadline, "it is never behind");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.shutdown.set();
    }
}

fn numbers(to: usize) -> Vec<String> {
    (0..to).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn tx_02_all_is_sent_in_order_one_transaction_at_a_time() {
    let sending = Sending::new().await;
    sending.say(0..120).await;
    sending.until("all is taken", |script| script.taken.len() >= 120).await;
    let script = sending.there.script.lock();
    assert_eq!(script.taken, numbers(120));
    assert_eq!(script.most_at_work, 1);
    assert!(script.attempts.iter().map(|(id, _)| id).collect::<BTreeSet<_>>().len() == script.attempts.len());
}

#[tokio::test]
async fn tx_02_what_was_not_taken_is_sent_again_under_its_id() {
    let sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say([0]).await;
    sending.until("it is tried twice", |script| script.attempts.len() >= 2).await;
    sending.there.script.lock().down = false;
    sending.until("it is taken", |script| !script.taken.is_empty()).await;
    let script = sending.there.script.lock();
    assert_eq!(script.taken, numbers(1));
    assert!(script.attempts.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", script.attempts);
}

#[tokio::test]
async fn tx_06_a_server_that_is_down_costs_nothing_and_catches_up_while_more_is_said() {
    let sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say(0..10).await;
    sending.is_behind().await;
    sending.say(10..40).await;
    let recipient = sending.destination().await.recipient;
    let queue = sending.story.world.store.queue(recipient, 0, i64::MAX).await.unwrap();
    assert!(queue.is_empty(), "nothing is put into the queue of a server that is behind");
    sending.there.script.lock().down = false;
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    // While it catches up, and after.
    sending.say(40..100).await;
    sending.until("all is taken", |script| script.taken.len() >= 100).await;
    assert_eq!(sending.there.script.lock().taken, numbers(100), "in order, none twice");
    assert!(!sending.destination().await.behind);
    sending.say([100]).await;
    sending.until("it goes on as before", |script| script.taken.len() == 101).await;
}

#[tokio::test]
async fn tx_06_what_waits_is_sent_after_a_restart() {
    // Its times are kept, so what is new has to forget them.
    is_sent_after_a_restart(0).await;
}

/// A machine begins with a clock that is years ahead, until it has heard of the time.
#[tokio::test]
async fn what_waits_is_sent_after_the_clock_was_put_back() {
    is_sent_after_a_restart(Environment::real().clock.now_ms() + 1000 * 24 * 60 * 60 * 1000).await;
}

async fn is_sent_after_a_restart(retry_ts: i64) {
    let mut sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say(0..10).await;
    sending.is_behind().await;
    sending.shutdown.set();
    sending.there.script.lock().down = false;
    let Story { world, .. } = &sending.story;
    let recipient = sending.destination().await.recipient;
    world.store.commit(crate::store::destination::failed(recipient, 1, 0, retry_ts, "")).await.unwrap();
    let again = Outbound::new(
        owned_server_name!("localhost"),
        Arc::clone(&sending.peers),
        Arc::clone(&world.rooms),
        world.store.clone(),
        world.queues.clone(),
        world.environment.clone(),
        Arc::clone(&world.destinations),
    );
    sending.shutdown = Shutdown::default();
    tokio::spawn(Arc::clone(&again).run(sending.shutdown.clone()));
    sending.outbound = again;
    sending.until("all is taken", |script| script.taken.len() >= 10).await;
    assert_eq!(sending.there.script.lock().taken, numbers(10));
}

/// I7: one thing that a server never takes keeps back nothing else.
#[tokio::test]
async fn what_a_server_refuses_for_good_is_left_out() {
    let sending = Sending::new().await;
    {
        let mut script = sending.there.script.lock();
        script.down = true;
        script.refuses = Some("7".to_owned());
    }
    sending.say(0..30).await;
    sending.until("it is tried", |script| !script.attempts.is_empty()).await;
    sending.there.script.lock().down = false;
    sending.until("all others are taken", |script| script.taken.len() >= 29).await;
    let expected: Vec<String> = numbers(30).into_iter().filter(|text| text != "7").collect();
    assert_eq!(sending.there.script.lock().taken, expected);
}

/// TX-05
#[tokio::test]
async fn a_server_hears_of_what_puts_its_last_user_out_and_of_nothing_after() {
    let sending = Sending::new().await;
    let Story { world, room, alice, rita, .. } = &sending.story;
    sending.say([0]).await;
    world.rooms.ban(room, alice, rita, None).await.unwrap();
    sending.say([1]).await;
    let has_ban = |script: &Script| script.attempts.iter().any(|(_, texts)| texts.contains(&String::new()));
    sending.until("the ban comes", |script| has_ban(script) && !script.taken.is_empty()).await;
    assert!(room.snapshot().remote.is_empty());
    let script = sending.there.script.lock();
    assert_eq!(script.taken, ["0"]);
}

/// TX-05, also for a server that was down.
#[tokio::test]
async fn a_server_that_was_down_hears_of_what_put_its_last_user_out_and_of_nothing_after() {
    let sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say(0..5).await;
    sending.is_behind().await;
    let Story { world, room, alice, rita, .. } = &sending.story;
    world.rooms.ban(room, alice, rita, None).await.unwrap();
    sending.say([5]).await;
    {
        let mut script = sending.there.script.lock();
        script.down = false;
        script.attempts.clear();
    }
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    let has_ban = |script: &Script| script.attempts.iter().any(|(_, texts)| texts.contains(&String::new()));
    sending.until("the ban comes", |script| has_ban(script) && script.taken.len() >= 5).await;
    assert_eq!(sending.there.script.lock().taken, numbers(5));
}

/// Who came in by way of this server meanwhile, is nobody that a server which was down would hear of otherwise.
#[tokio::test]
async fn a_server_that_was_down_hears_of_who_came_in_meanwhile() {
    let mut sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say([0]).await;
    sending.is_behind().await;
    let theo = ruma::owned_user_id!("@theo:third.example");
    let join = json!({ "membership": "join" });
    let join = sending.story.event(&theo, "m.room.member", Some(theo.as_str()), join, &[]);
    let Story { world, room, .. } = &sending.story;
    world.rooms.receive_from(room, join, theo.server_name()).await.unwrap();
    {
        let mut script = sending.there.script.lock();
        script.down = false;
        script.attempts.clear();
    }
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    let has_join = |script: &Script| script.attempts.iter().any(|(_, texts)| texts.contains(&String::new()));
    sending.until("the join comes", |script| has_join(script) && !script.taken.is_empty()).await;
}

/// Another process says that a server is to be tried again now.
#[tokio::test]
async fn a_server_that_failed_is_tried_again_when_the_operator_says_so() {
    let sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say([0]).await;
    sending.is_behind().await;
    let before = sending.there.script.lock().attempts.len();
    assert!(sending.outbound.metrics().contains("destinations{state=\"behind\"} 1"));
    assert!(sending.outbound.metrics().contains("failing_seconds{server=\"elsewhere\"} "));
    sending.there.script.lock().down = false;
    let store = &sending.story.world.store;
    store.commit(crate::store::destination::retry_now("elsewhere")).await.unwrap();
    sending.outbound.look_again().await.unwrap();
    sending.until("it is taken", |script| script.taken.len() == 1).await;
    assert_eq!(sending.there.script.lock().attempts.len(), before + 1);
    let well = store.commit(crate::store::destination::retry_now("nobody.example")).await;
    assert!(matches!(well, Err(crate::store::Error::Conflict)));
}

/// I7: what is for a server that the operator refuses is dropped, and no task goes on trying.
#[tokio::test]
async fn a_server_that_is_refused_is_told_nothing_and_costs_nothing() {
    let deny = vec!["elsewhere".to_owned()];
    let sending = Sending::with(config::Federation { deny, ..config::Federation::default() }).await;
    let Story { room, alice, .. } = &sending.story;
    sending.say([0]).await;
    sending.outbound.typing(room, alice, true);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !sending.outbound.inner.lock().peers.is_empty() {
        assert!(std::time::Instant::now() < deadline, "a task is at work for a server that isn't spoken to");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(sending.there.script.lock().attempts.is_empty());
}
