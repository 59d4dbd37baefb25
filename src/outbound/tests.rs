//! Sending to a server that is slow, that is down, that refuses: nothing is lost, nothing comes twice, all in order.

mod catching_up;
mod speaking;

use std::collections::{BTreeSet, HashSet};

use futures_util::FutureExt as _;
use hearth_federation::{ClientError, Response, ServerRequest, SigningKey, Task};
use ruma::{OwnedEventId, ServerName, UserId, owned_server_name};
use serde_json::{Value, json};

use super::*;
use crate::{
    config,
    peers::{OwnKeys, Wire},
    presence::{Hearers, Outward},
    receipts::{Kind, Mark, Owner, Receipts, Thread},
    room::{
        received_tests::{SEED, Story},
        tests::World,
    },
    store::{
        Batch,
        destination::{failed, insert_destination},
        to_device::insert_message_for_server,
    },
};

/// The server `elsewhere`, as a test wants it.
#[derive(Default)]
struct There {
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    down: bool,
    /// It is up and takes nothing, and may say for how many milliseconds.
    busy: bool,
    retry_after_ms: Option<u64>,
    /// Attempts wait for a permit each.
    gate: Option<Arc<Semaphore>>,
    /// It refuses whatever has an event with this text.
    refuses: Option<String>,
    /// Each attempt: the transaction's id and the texts of its events.
    attempts: Vec<(String, Vec<String>)>,
    /// When each began.
    times: Vec<std::time::Instant>,
    /// What it took.
    taken: Vec<String>,
    /// The receipts among it, each with its user, thread and event.
    read: Vec<(String, String, String)>,
    /// The messages to devices among it.
    messages: Vec<Value>,
    /// Of whom it says who types, and who is there.
    faded: Vec<Value>,
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
            let gate = {
                let mut script = self.script.lock();
                script.times.push(std::time::Instant::now());
                script.attempts.push((id, texts.clone()));
                script.at_work += 1;
                script.most_at_work = script.most_at_work.max(script.at_work);
                script.gate.clone()
            };
            match gate {
                Some(gate) => gate.acquire().await.unwrap().forget(),
                // Somebody else's turn, while this one is on its way.
                None => tokio::task::yield_now().await,
            }
            let mut script = self.script.lock();
            script.at_work -= 1;
            if script.down {
                return Err(ClientError::TimedOut);
            }
            if script.busy {
                return Err(ClientError::Refused {
                    status: http::StatusCode::SERVICE_UNAVAILABLE,
                    errcode: "M_UNKNOWN".to_owned(),
                    message: "not now".to_owned(),
                    retry_after_ms: script.retry_after_ms,
                });
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
            script.read.extend(receipts(&body));
            for edu in body["edus"].as_array().unwrap() {
                let content = &edu["content"];
                match edu["edu_type"].as_str() {
                    Some("m.direct_to_device") => script.messages.push(content.clone()),
                    Some("m.typing") => script.faded.push(content["user_id"].clone()),
                    Some("m.presence") => {
                        let push = content["push"].as_array().unwrap().iter();
                        script.faded.extend(push.map(|one| one["user_id"].clone()));
                    }
                    _ => {}
                }
            }
            let (status, headers) = (http::StatusCode::OK, http::HeaderMap::new());
            Ok(Response { status, headers, body: json!({ "pdus": {} }).to_string().into() })
        })
    }
}

/// Those of a transaction, in the order of its EDUs.
fn receipts(body: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let edus = body["edus"].as_array().unwrap().iter().filter(|edu| edu["edu_type"] == "m.receipt");
    let rooms = edus.flat_map(|edu| edu["content"].as_object().unwrap().values());
    let users = rooms.flat_map(|room| room["m.read"].as_object().unwrap());
    users
        .map(|(user_id, receipt)| {
            (user_id.clone(), text(&receipt["data"]["thread_id"]), text(&receipt["event_ids"][0]))
        })
        .collect()
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

    /// Alice reads up to an event.
    async fn read(&self, marks: &[(&OwnedEventId, Thread)]) {
        let Story { world, room, alice, .. } = &self.story;
        let receipts =
            Receipts::new(world.store.clone(), Arc::clone(&world.rooms), world.environment.clone());
        let recipient = world.store.account_of(alice.as_str()).await.unwrap().unwrap().recipient;
        let marks: Vec<Mark> = marks
            .iter()
            .map(|(event_id, thread)| Mark {
                kind: Kind::Read,
                event_id: (*event_id).clone(),
                thread: thread.clone(),
            })
            .collect();
        receipts.mark(room, Owner { recipient, user_id: alice }, &marks).await.unwrap();
    }

    /// Tells who is there, as far as it can be told.
    async fn tell_of(&self, user_id: &UserId) {
        let (sender, news) = mpsc::unbounded_channel();
        let hearers = Hearers::Of(vec![self.story.room.number]);
        let content = json!({ "user_id": user_id, "presence": "online" });
        sender.send(Outward { user_id: user_id.to_owned(), hearers, content }).unwrap();
        drop(sender);
        Arc::clone(&self.outbound).tell_presence(news).await;
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
        self.until_behind_is(true).await;
    }

    async fn has_caught_up(&self) {
        self.until_behind_is(false).await;
    }

    async fn until_behind_is(&self, behind: bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        while self.destination().await.behind != behind {
            assert!(std::time::Instant::now() < deadline, "it never is so that behind is {behind}");
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
    sending.until("it has failed", |script| !script.attempts.is_empty() && script.at_work == 0).await;
    sending.there.script.lock().down = false;
    sending.until("it is taken", |script| !script.taken.is_empty()).await;
    let script = sending.there.script.lock();
    assert_eq!(script.taken, numbers(1));
    assert!(script.attempts.len() >= 2);
    assert!(script.attempts.windows(2).all(|pair| pair[0] == pair[1]), "{:?}", script.attempts);
}

#[tokio::test]
async fn tx_06_a_server_that_is_down_costs_nothing_and_catches_up_while_more_is_said() {
    let sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say(0..10).await;
    sending.is_behind().await;
    sending.say(10..20).await;
    let recipient = sending.destination().await.recipient;
    let queue = sending.story.world.store.queue(recipient, 0, i64::MAX).await.unwrap();
    assert!(queue.is_empty(), "nothing is put into the queue of a server that is behind");
    sending.there.script.lock().down = false;
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    // While it catches up, and after. It is no more than one that was down gets of a room.
    sending.say(20..50).await;
    sending.until("all is taken", |script| script.taken.len() >= 50).await;
    assert_eq!(sending.there.script.lock().taken, numbers(50), "in order, none twice");
    sending.has_caught_up().await;
    sending.say([50]).await;
    sending.until("it goes on as before", |script| script.taken.len() == 51).await;
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
    world.store.commit(failed(recipient, 1, 0, retry_ts, "")).await.unwrap();
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
    let after = sending.say([5]).await;
    sending.read(&[(&after[0], Thread::Unthreaded)]).await;
    {
        let mut script = sending.there.script.lock();
        script.down = false;
        script.attempts.clear();
    }
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    let has_ban = |script: &Script| script.attempts.iter().any(|(_, texts)| texts.contains(&String::new()));
    sending.until("the ban comes", |script| has_ban(script) && script.taken.len() >= 5).await;
    let script = sending.there.script.lock();
    assert_eq!(script.taken, numbers(5));
    assert!(script.read.is_empty(), "{:?}", script.read);
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

/// An attempt that begins before it is written down that a server is behind would find its queue half emptied, and take what
/// is left in it for all that there is.
#[tokio::test]
async fn tx_06_a_server_is_tried_again_only_once_it_is_written_down_as_behind() {
    let sending = Sending::new().await;
    sending.there.script.lock().down = true;
    sending.say([0]).await;
    let recipient = sending.destination().await.recipient;
    let peer =
        |is: &dyn Fn(&Peer) -> bool| sending.outbound.inner.lock().peers.get(&recipient).is_some_and(is);
    sending.until("it has failed once", |_| peer(&|peer| peer.failures > 0 && !peer.sending)).await;
    {
        let inner = &mut *sending.outbound.inner.lock();
        let peer = inner.peers.get_mut(&recipient).unwrap();
        (peer.failing_since, peer.retry_at) = (0, 0);
        // Nobody but this test says when.
        inner.agenda.clear();
    }
    let attempts = || sending.there.script.lock().attempts.len();
    let before = attempts();
    // Nothing can be written until we say so.
    let store = sending.story.world.store.clone();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (held, holds) = tokio::sync::oneshot::channel();
    let mut blocker = Batch::from(failed(recipient, 1, 0, 0, ""));
    let released = Mutex::new(released);
    blocker.on_commit(move |_| {
        let _ = held.send(());
        let _ = released.lock().recv();
    });
    let blocking = tokio::spawn({
        let store = store.clone();
        async move { store.commit(blocker).await }
    });
    holds.await.unwrap();

    sending.outbound.wake(recipient);
    sending.until("it fails again", |_| peer(&|peer| peer.behind)).await;
    sending.there.script.lock().down = false;
    sending.outbound.forgive(recipient);
    // Time enough for an attempt.
    for _ in 0..50 {
        store.destination(recipient).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(attempts(), before + 1);
    drop(release);
    blocking.await.unwrap().unwrap();
    sending.until("it is taken", |script| !script.taken.is_empty()).await;
    assert_eq!(sending.there.script.lock().taken, numbers(1));
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

/// What fails here says nothing of a server: it isn't behind after one answer in vain.
#[tokio::test]
async fn a_server_is_not_behind_for_what_failed_here() {
    let sending = Sending::new().await;
    let recipient = sending.destination().await.recipient;
    let database = rusqlite::Connection::open(sending.story.world.path()).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database.execute_batch("ALTER TABLE destination RENAME TO hidden").unwrap();
    let begun = std::time::Instant::now();
    sending.say([0]).await;
    let failed = |times| {
        let inner = sending.outbound.inner.lock();
        inner.peers.get(&recipient).is_some_and(|peer| peer.failures >= times && !peer.sending)
    };
    sending.until("how far it is can't be read", |_| failed(1)).await;
    sending.there.script.lock().busy = true;
    database.execute_batch("ALTER TABLE hidden RENAME TO destination").unwrap();
    sending.until("it takes nothing", |_| failed(2)).await;
    // Unless all has stood still for so long.
    assert!(!sending.destination().await.behind || begun.elapsed() >= BEHIND_AFTER);
    sending.there.script.lock().busy = false;
    sending.until("it is taken", |script| !script.taken.is_empty()).await;
    assert_eq!(sending.there.script.lock().taken, ["0"]);
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

/// ED-04: what a server misses while it is down doesn't fade, but of each user it is the last word.
#[tokio::test]
async fn ed_04_a_server_that_was_down_hears_how_far_people_have_read_meanwhile() {
    let sending = Sending::new().await;
    sending.there.script.lock().down = true;
    let before = sending.say([0]).await;
    sending.is_behind().await;
    sending.read(&[(&before[0], Thread::Unthreaded)]).await;
    let after = sending.say([1]).await;
    sending.read(&[(&after[0], Thread::Unthreaded)]).await;
    sending.there.script.lock().down = false;
    sending.peers.heard_from(&owned_server_name!("elsewhere"));
    sending.until("the receipt comes", |script| !script.read.is_empty()).await;
    sending.say([2]).await;
    sending.until("all is taken", |script| script.taken.len() == 3).await;
    let receipt = (sending.story.alice.to_string(), String::new(), after[0].to_string());
    assert_eq!(sending.there.script.lock().read, [receipt]);
}

/// ED-04: a user has one receipt in an `m.receipt`, whatever the thread.
#[tokio::test]
async fn ed_04_receipts_of_one_user_in_several_threads_are_all_sent() {
    let sending = Sending::new().await;
    let root = sending.say([0]).await.remove(0);
    let Story { world, room, alice, .. } = &sending.story;
    let relation = json!({ "rel_type": "m.thread", "event_id": root });
    let reply = json!({ "msgtype": "m.text", "body": "1", "m.relates_to": relation });
    let reply = world.send(room, alice, "m.room.message".into(), reply).await;
    sending.read(&[(&root, Thread::Main), (&reply, Thread::Root(root.clone()))]).await;
    sending.until("both come", |script| script.read.len() >= 2).await;
    let receipt =
        |thread: &str, event: &OwnedEventId| (alice.to_string(), thread.to_owned(), event.to_string());
    let mut read = sending.there.script.lock().read.clone();
    read.sort();
    assert_eq!(read, [receipt(root.as_str(), &reply), receipt("main", &root)]);
}

/// Two rounds, without regard to what was asked for before.
async fn sweep(sending: &Sending) {
    for _ in 0..2 {
        sending.outbound.sweep(&HashSet::new()).await.unwrap();
    }
}

/// A server that somebody has made up, with a message that waits for it.
async fn made_up(sending: &Sending, failing_for: Duration) -> i64 {
    let World { store, destinations, environment, .. } = &sending.story.world;
    let server = owned_server_name!("made-up.example");
    let recipient = destinations.number(&server).await.unwrap();
    let now = environment.clock.now_ms();
    let (since, again) = (now - failing_for.as_millis() as i64, now + 30 * 60 * 1000);
    let mut batch = Batch::from(failed(recipient, 9, since, again, "no such name"));
    let step = batch.step();
    batch.push(insert_message_for_server(recipient, step, "{}".to_owned(), since));
    batch.fill_queue(recipient, false);
    store.commit(batch).await.unwrap();
    recipient
}

#[tokio::test]
async fn a_server_that_never_was_is_forgotten_with_all_that_waits_for_it() {
    let sending = Sending::new().await;
    let World { store, destinations, .. } = &sending.story.world;
    let server = owned_server_name!("made-up.example");
    let recipient = made_up(&sending, Duration::from_hours(23)).await;
    sweep(&sending).await;
    assert_eq!(destinations.known(&server), Some(recipient), "it may come back");
    let recipient = made_up(&sending, Duration::from_hours(25)).await;
    sweep(&sending).await;
    assert_eq!(destinations.known(&server), None);
    assert_eq!(store.destination(recipient).await.unwrap(), None);
    assert_eq!(store.messages_waiting().await.unwrap(), 0);
    assert!(destinations.number(&server).await.unwrap() < recipient, "no number is used twice");
}

/// Whoever has just been given a number is about to put something there.
#[tokio::test]
async fn a_server_whose_number_was_asked_for_lately_is_not_forgotten() {
    let sending = Sending::new().await;
    let World { destinations, .. } = &sending.story.world;
    let server = owned_server_name!("made-up.example");
    let recipient = destinations.number(&server).await.unwrap();
    let asked = sending.outbound.sweep(&HashSet::new()).await.unwrap();
    assert!(asked.contains(&recipient));
    let asked = sending.outbound.sweep(&asked).await.unwrap();
    assert_eq!(destinations.known(&server), Some(recipient));
    destinations.number(&server).await.unwrap();
    assert!(!destinations.forget(recipient).await.unwrap(), "asked for between the look and the act");
    destinations.all_asked();
    sending.outbound.sweep(&asked).await.unwrap();
    assert_eq!(destinations.known(&server), None, "nothing waits for it");
}

#[tokio::test]
async fn a_server_with_somebody_in_a_room_is_never_forgotten() {
    let sending = Sending::new().await;
    let World { store, destinations, rooms, .. } = &sending.story.world;
    let Story { room, alice, rita, .. } = &sending.story;
    let server = owned_server_name!("elsewhere");
    let recipient = destinations.known(&server).unwrap();
    sending.there.script.lock().down = true;
    sending.say([0]).await;
    sending.is_behind().await;
    store.commit(failed(recipient, 99, 1, i64::MAX, "down for decades")).await.unwrap();
    sweep(&sending).await;
    assert_eq!(destinations.known(&server), Some(recipient));

    rooms.ban(room, alice, rita, None).await.unwrap();
    let since = sending.story.world.environment.clock.now_ms() - 29 * 86_400_000;
    store.commit(failed(recipient, 99, since, i64::MAX, "down for a month")).await.unwrap();
    sweep(&sending).await;
    assert_eq!(destinations.known(&server), Some(recipient), "it has to hear of the ban");

    sending.there.script.lock().down = false;
    sending.peers.heard_from(&server);
    sending.until("the ban is taken", |script| !script.taken.is_empty()).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while destinations.known(&server).is_some() {
        assert!(std::time::Instant::now() < deadline, "it is never forgotten");
        sweep(&sending).await;
    }
}

/// Else nobody could be given one any more.
#[tokio::test]
async fn a_number_is_given_out_though_whoever_asked_for_it_has_gone() {
    let World { destinations, .. } = &World::new(&[]).await;
    for round in 0..10 {
        let named = |name: &str| ServerName::parse(format!("{name}-{round}.example")).unwrap();
        let (one, other) = (named("one"), named("other"));
        drop(destinations.number(&one).now_or_never());
        let second = destinations.number(&other).await.unwrap();
        let first = destinations.number(&one).await.unwrap();
        assert_eq!((destinations.name(first), destinations.name(second)), (Some(one), Some(other)));
    }
}

/// Anybody can make up names.
#[tokio::test]
async fn there_is_a_bound_on_servers_that_nobody_here_knows() {
    let sending = Sending::new().await;
    let World { store, destinations, .. } = &sending.story.world;
    let mut batch = Batch::new();
    for number in 0..999 {
        batch.push(insert_destination(&format!("s{number}.example"), -1_000_000 - number));
    }
    store.commit(batch).await.unwrap();
    let (last, one_more) = (owned_server_name!("last.example"), owned_server_name!("one-more.example"));
    assert!(destinations.number_unless_strange(&last).await.unwrap().is_some());
    assert_eq!(destinations.number_unless_strange(&one_more).await.unwrap(), None);
    assert!(destinations.number_unless_strange(&last).await.unwrap().is_some(), "it has a number");
    let Story { world, room, alice, .. } = &sending.story;
    let somebody = ruma::owned_user_id!("@somebody:one-more.example");
    world.rooms.ban(room, alice, &somebody, None).await.unwrap();
    let recipient = destinations.known(&one_more).expect("it is told of the ban");
    destinations.all_asked();
    assert!(destinations.forget(recipient).await.unwrap());
    assert!(destinations.number_unless_strange(&one_more).await.unwrap().is_some(), "a room knows it");
}
