//! Servers that are asked for lists of devices: not too many times at once, less and less if they fail, and again when they
//! are back. The clock stands still unless a test moves it.

use std::sync::atomic::{AtomicI64, Ordering};

use hearth_federation::{Response, SigningKey, Task};
use ruma::{owned_server_name, owned_user_id};
use serde_json::json;

use super::*;
use crate::{
    config,
    environment::Clock,
    keys::{Followed, ListUpdates},
    peers::{OwnKeys, Wire},
    room::{
        received_tests::SEED,
        tests::{World, user},
    },
    store::{followed::follow, room::set_membership},
};

struct Hands(AtomicI64);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The server `elsewhere`.
#[derive(Default)]
struct There {
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    down: bool,
    /// It doesn't answer yet.
    held: bool,
    asked: usize,
    at_work: usize,
    most_at_work: usize,
}

impl Wire for There {
    fn send<'a>(
        &'a self,
        _: &'a ServerName,
        request: ServerRequest,
    ) -> Task<'a, Result<Response, ClientError>> {
        Box::pin(async move {
            {
                let mut script = self.script.lock();
                script.asked += 1;
                script.at_work += 1;
                script.most_at_work = script.most_at_work.max(script.at_work);
            }
            tokio::task::yield_now().await;
            while self.script.lock().held {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut script = self.script.lock();
            script.at_work -= 1;
            if script.down {
                return Err(ClientError::TimedOut);
            }
            let user_id = request.uri().rsplit('/').next().unwrap_or_default();
            let user_id = percent_encoding::percent_decode_str(user_id).decode_utf8_lossy();
            let body = json!({ "user_id": user_id, "stream_id": 5, "devices": [] }).to_string().into();
            Ok(Response { status: http::StatusCode::OK, headers: http::HeaderMap::new(), body })
        })
    }
}

struct Asking {
    world: World,
    there: Arc<There>,
    peers: Arc<Peers>,
    resyncs: Arc<Resyncs>,
    hands: Arc<Hands>,
    users: Vec<OwnedUserId>,
    shutdown: Shutdown,
}

impl Asking {
    /// So many users of elsewhere, in one room with alice, whose lists are stale.
    async fn new(users: usize) -> Self {
        let hands = Arc::new(Hands(AtomicI64::new(1_700_000_000_000)));
        let clock: Arc<dyn Clock> = Arc::<Hands>::clone(&hands);
        let environment = Environment { clock, ..Environment::real() };
        let alice = user("alice");
        let world = World::keeping(&[alice.as_str()], environment.clone(), None).await;
        world.store.commit(set_membership(alice.as_str(), 1, "join", 1)).await.unwrap();
        let name = |number| UserId::parse(format!("@user{number}:elsewhere")).unwrap();
        let users: Vec<OwnedUserId> = (0..users).map(name).collect();
        for user_id in &users {
            let near = set_membership(user_id.as_str(), 1, "join", 1);
            world.store.commit(vec![near, follow(user_id.as_str())]).await.unwrap();
        }
        let own = OwnKeys { key: Arc::new(SigningKey::from_text(SEED).unwrap()), old: Vec::new() };
        let config = config::Federation { notaries: Vec::new(), ..config::Federation::default() };
        let name = owned_server_name!("localhost");
        let peers = Peers::new(name, own, &config, world.store.clone(), &environment).unwrap();
        let there = Arc::new(There::default());
        let peers = peers.through(Arc::<There>::clone(&there));
        let resyncs = Resyncs::new(world.store.clone(), Arc::clone(&peers), environment);
        Self { world, there, peers, resyncs, hands, users, shutdown: Shutdown::default() }
    }

    fn run(&self) {
        tokio::spawn(Arc::clone(&self.resyncs).run(self.shutdown.clone()));
    }

    async fn until(&self, what: &str, condition: impl Fn(&Script) -> bool) {
        for _ in 0..2_000 {
            if condition(&self.there.script.lock()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{what}");
    }

    async fn stale(&self) -> usize {
        self.world.store.stale_lists().await.unwrap().len()
    }
}

#[tokio::test]
async fn dl_02_lists_that_an_earlier_run_left_are_asked_for_a_few_at_a_time() {
    let asking = Asking::new(40).await;
    asking.there.script.lock().held = true;
    asking.run();
    asking.until("some are asked for", |script| script.at_work == OF_SERVER).await;
    asking.there.script.lock().held = false;
    asking.until("all are asked for", |script| script.asked == 40 && script.at_work == 0).await;
    for _ in 0..1_000 {
        if asking.stale().await == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(asking.stale().await, 0);
    assert_eq!(asking.there.script.lock().most_at_work, OF_SERVER);
    assert_eq!(asking.there.script.lock().asked, 40, "each once");
}

#[tokio::test]
async fn dl_02_a_server_that_fails_is_left_alone_until_it_speaks() {
    let asking = Asking::new(1).await;
    asking.there.script.lock().down = true;
    asking.run();
    asking.until("it is asked", |script| script.asked == 1 && script.at_work == 0).await;
    // Whoever waits hears that it failed just now.
    let user_id = &asking.users[0];
    while asking.resyncs.inner.lock().servers.values().all(|server| server.failures == 0) {
        tokio::task::yield_now().await;
    }
    asking.resyncs.want(user_id);
    assert_eq!(asking.resyncs.wanted_now(user_id).await, Ok(Fetched::Failed));
    assert_eq!(asking.there.script.lock().asked, 1);
    // After a while it is tried for whoever waits.
    asking.hands.0.fetch_add(SHORTEST_WAIT_MS, Ordering::Relaxed);
    assert_eq!(asking.resyncs.wanted_now(user_id).await, Ok(Fetched::Failed));
    assert_eq!(asking.there.script.lock().asked, 2);
    asking.there.script.lock().down = false;
    asking.peers.heard_from(&owned_server_name!("elsewhere"));
    asking.until("it is asked again", |script| script.asked == 3).await;
    assert_eq!(asking.resyncs.wanted_now(user_id).await, Ok(Fetched::Whole));
    assert_eq!(asking.stale().await, 0);
}

/// The moment may come while its task is busy with something else.
#[tokio::test]
async fn dl_02_a_server_that_fails_is_asked_again_when_it_is_time() {
    let asking = Asking::new(1).await;
    asking.there.script.lock().down = true;
    asking.run();
    asking.until("it is asked", |script| script.asked == 1 && script.at_work == 0).await;
    while asking.resyncs.inner.lock().servers.values().all(|server| server.failures == 0) {
        tokio::task::yield_now().await;
    }
    asking.there.script.lock().down = false;
    asking.hands.0.fetch_add(LONGEST_WAIT.as_millis() as i64, Ordering::Relaxed);
    asking.peers.heard_from(&owned_server_name!("another"));
    asking.until("it is asked again", |script| script.asked == 2).await;
}

/// What came while a list was fetched may not be in it.
#[tokio::test]
async fn dl_02_a_list_from_before_the_last_change_is_fetched_again() {
    let asking = Asking::new(1).await;
    let user_id = owned_user_id!("@user0:elsewhere");
    asking.there.script.lock().held = true;
    let whole = asking.resyncs.wanted_now(&user_id);
    asking.until("it is asked", |script| script.asked == 1).await;
    asking.resyncs.heard_of(&user_id, 6);
    asking.there.script.lock().held = false;
    assert_eq!(whole.await, Ok(Fetched::Whole));
    assert_eq!(asking.there.script.lock().asked, 2);
}

/// Servers that don't number their changes say this whenever there is one.
#[tokio::test]
async fn dl_02_a_list_is_fetched_again_after_a_change_without_a_link_whatever_its_number() {
    let asking = Asking::new(1).await;
    let user_id = owned_user_id!("@user0:elsewhere");
    let lists = asking.world.sessions.device_lists().clone();
    let followed = Followed::new(asking.world.store.clone(), lists, Arc::clone(&asking.resyncs));
    asking.there.script.lock().held = true;
    let whole = asking.resyncs.wanted_now(&user_id);
    asking.until("it is asked", |script| script.asked == 1).await;
    let update = json!({ "user_id": user_id, "device_id": "placeholder", "stream_id": 1, "prev_id": [] });
    let updates = ListUpdates { devices: vec![serde_json::from_value(update).unwrap()], keys: Vec::new() };
    followed.hear(&owned_server_name!("elsewhere"), updates).await.unwrap();
    asking.there.script.lock().held = false;
    assert_eq!(whole.await, Ok(Fetched::Whole));
    assert_eq!(asking.there.script.lock().asked, 2);
}
