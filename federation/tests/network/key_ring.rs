//! The keys of others: from memory, the store, their server, a notary; however many ask, and whoever is dead.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use hearth_federation::{
    Authorization, BlockedKeys, KeyFetch, KeyRing, KeyRingSettings, KeyStore, KnownKeys, PublicKey, Purpose,
    SignedRequest, Task, Wants, notary_answer, own_server_keys,
};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, server_name};
use tokio::sync::Semaphore;

use crate::common::{TestClock, document, key};

const HOUR: u64 = 3600;

fn us() -> &'static ServerName {
    server_name!("us.example")
}

fn peer() -> &'static ServerName {
    server_name!("peer.example")
}

fn notary() -> &'static ServerName {
    server_name!("notary.example")
}

/// A network of servers and a store, both of which can fail.
#[derive(Default)]
struct World {
    /// What servers publish; others are dead.
    published: Mutex<HashMap<OwnedServerName, String>>,
    /// What the notary answers.
    notarised: Mutex<HashMap<OwnedServerName, String>>,
    stored: Mutex<HashMap<OwnedServerName, KnownKeys>>,
    asked: AtomicUsize,
    asked_notary: AtomicUsize,
    loaded: AtomicUsize,
    /// The least time that the notary was told to have keys valid until.
    minimum: Mutex<Option<MilliSecondsSinceUnixEpoch>>,
    /// Servers whose answers wait for a permit.
    slow: Option<(OwnedServerName, Semaphore)>,
}

impl World {
    fn publish(&self, server: &ServerName, document: impl Into<String>) {
        self.published.lock().unwrap().insert(server.to_owned(), document.into());
    }

    fn kill(&self, server: &ServerName) {
        self.published.lock().unwrap().remove(server);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl KeyStore for World {
    fn load<'a>(&'a self, server: &'a ServerName) -> Task<'a, Option<KnownKeys>> {
        self.loaded.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move { self.stored.lock().unwrap().get(server).cloned() })
    }

    fn save<'a>(&'a self, server: &'a ServerName, keys: &'a KnownKeys) -> Task<'a, ()> {
        Box::pin(async move { drop(self.stored.lock().unwrap().insert(server.to_owned(), keys.clone())) })
    }
}

impl KeyFetch for World {
    fn ask_server<'a>(&'a self, server: &'a ServerName) -> Task<'a, Result<String, String>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if let Some((slow, gate)) = &self.slow
                && slow == server
            {
                gate.acquire().await.unwrap().forget();
            }
            self.published.lock().unwrap().get(server).cloned().ok_or_else(|| "dead".to_owned())
        })
    }

    fn ask_notary<'a>(
        &'a self,
        _: &'a ServerName,
        server: &'a ServerName,
        _: &'a [String],
        minimum_valid_until: MilliSecondsSinceUnixEpoch,
    ) -> Task<'a, Result<String, String>> {
        self.asked_notary.fetch_add(1, Ordering::SeqCst);
        *self.minimum.lock().unwrap() = Some(minimum_valid_until);
        Box::pin(async move {
            self.notarised.lock().unwrap().get(server).cloned().ok_or_else(|| "dead".to_owned())
        })
    }
}

fn ring_with(world: &Arc<World>, clock: &TestClock, settings: KeyRingSettings) -> KeyRing {
    let forever = MilliSecondsSinceUnixEpoch(ruma::UInt::MAX);
    let own = BTreeMap::from([("ed25519:own".to_owned(), PublicKey::new([5; 32], forever, false))]);
    let (store, fetch) = (Arc::clone(world) as Arc<dyn KeyStore>, Arc::clone(world) as Arc<dyn KeyFetch>);
    KeyRing::new(us().to_owned(), own, settings, store, fetch, clock.clock())
}

fn ring(world: &Arc<World>, clock: &TestClock) -> KeyRing {
    ring_with(world, clock, KeyRingSettings { notaries: vec![notary().to_owned()], ..Default::default() })
}

fn alone(world: &Arc<World>, clock: &TestClock) -> KeyRing {
    ring_with(world, clock, KeyRingSettings::default())
}

async fn find(ring: &KeyRing, server: &ServerName, key_id: &str, purpose: Purpose) -> Option<[u8; 32]> {
    let mut wants = Wants::default();
    wants.add(server, [key_id], purpose);
    ring.find(&wants).await.get(server, key_id, purpose)
}

async fn has(ring: &KeyRing, key_id: &str) -> bool {
    find(ring, peer(), key_id, Purpose::Request).await.is_some()
}

#[tokio::test]
async fn ky_04_a_missing_key_is_fetched_once_and_then_known() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = alone(&world, &clock);
    assert_eq!(find(&keys, peer(), "ed25519:a", Purpose::Request).await, Some(key("a").public_key()));
    assert!(has(&keys, "ed25519:a").await);
    assert_eq!(world.asked(), 1);

    // A server that starts again has it in the store.
    world.kill(peer());
    let restarted = alone(&world, &clock);
    assert!(has(&restarted, "ed25519:a").await);
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn a_request_is_verified_by_the_key_that_it_names() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = alone(&world, &clock);
    let request =
        SignedRequest { method: "GET", uri: "/x", origin: peer(), destination: us(), content: None };
    let authorization = Authorization::parse(&request.sign(&key("a")).unwrap()).unwrap();
    let mut wants = Wants::default();
    wants.add_request(&authorization);
    let found = keys.find(&wants).await;
    let public_key = found.for_request(&authorization).unwrap();
    authorization.verify(us(), "GET", "/x", None, &public_key).unwrap();
}

#[tokio::test]
async fn our_own_keys_are_never_fetched() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    let keys = alone(&world, &clock);
    assert_eq!(find(&keys, us(), "ed25519:own", Purpose::Request).await, Some([5; 32]));
    assert_eq!(find(&keys, us(), "ed25519:other", Purpose::Request).await, None);
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn however_many_want_a_servers_keys_it_is_asked_once() {
    let world = World { slow: Some((peer().to_owned(), Semaphore::new(0))), ..World::default() };
    let (world, clock) = (Arc::new(world), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = alone(&world, &clock);
    let mut all = Box::pin(futures_util::future::join_all((0..50).map(|_| has(&keys, "ed25519:a"))));
    // All of them get as far as they can.
    assert!(futures_util::poll!(&mut all).is_pending());
    world.slow.as_ref().unwrap().1.add_permits(50);
    assert!(all.await.into_iter().all(|found| found));
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn i7_a_server_that_never_answers_delays_nobody_elses_keys() {
    let world = World { slow: Some((peer().to_owned(), Semaphore::new(0))), ..World::default() };
    let (world, clock) = (Arc::new(world), TestClock::new());
    let other = server_name!("other.example");
    world.publish(other, document(other, &[&key("b")], &clock));
    let keys = alone(&world, &clock);
    let mut stuck = Box::pin(has(&keys, "ed25519:a"));
    assert!(futures_util::poll!(&mut stuck).is_pending());
    assert!(find(&keys, other, "ed25519:b", Purpose::Request).await.is_some());
    // Whoever gives up waiting leaves the turn to others.
    drop(stuck);
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    world.slow.as_ref().unwrap().1.add_permits(1);
    assert!(has(&keys, "ed25519:a").await);
}

#[tokio::test]
async fn ky_08_a_dead_server_is_asked_ever_less_often_up_to_an_hour() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    let keys = alone(&world, &clock);
    let mut times = Vec::new();
    for second in 0..4 * HOUR {
        let before = world.asked();
        assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(None)).await.is_none());
        if world.asked() > before {
            times.push(second);
        }
        clock.advance_seconds(1);
    }
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps[..4], [5, 10, 20, 40]);
    assert_eq!(gaps.last(), Some(&HOUR));
    assert_eq!(keys.problem(peer()).as_deref(), Some("dead"));
}

#[tokio::test]
async fn ky_08_who_speaks_in_the_name_of_a_dead_server_has_it_asked_soon() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    let keys = alone(&world, &clock);
    for _ in 0..10 {
        assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(None)).await.is_none());
        clock.advance_seconds(HOUR);
    }
    assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(None)).await.is_none());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let asked = world.asked();
    clock.advance_seconds(4);
    assert!(!has(&keys, "ed25519:a").await);
    assert_eq!(world.asked(), asked, "not each time");
    clock.advance_seconds(1);
    assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(None)).await.is_none());
    assert!(has(&keys, "ed25519:a").await);
}

#[tokio::test]
async fn a_server_that_speaks_again_is_asked_at_once() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    let keys = alone(&world, &clock);
    assert!(!has(&keys, "ed25519:a").await);
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    assert!(!has(&keys, "ed25519:a").await);
    keys.heard_from(peer());
    assert!(has(&keys, "ed25519:a").await);
    assert_eq!(keys.problem(peer()), None);
}

#[tokio::test]
async fn ky_08_keys_that_a_server_does_not_have_are_asked_for_ever_less_often() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = alone(&world, &clock);
    let event = Purpose::Event(None);
    for made_up in 0..100 {
        assert!(find(&keys, peer(), &format!("ed25519:x{made_up}"), event).await.is_none());
        // Speaking resets the time of those that were silent, not of this one.
        keys.heard_from(peer());
    }
    assert_eq!(world.asked(), 1);
    // What it does have is found all the while.
    assert!(has(&keys, "ed25519:a").await);
    for (seconds, asked) in [(59, 1), (1, 2), (60, 2), (60, 3)] {
        clock.advance_seconds(seconds);
        assert!(find(&keys, peer(), "ed25519:x", event).await.is_none());
        assert_eq!(world.asked(), asked);
    }
}

#[tokio::test]
async fn ky_08_made_up_keys_keep_nobody_from_learning_a_new_one() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = alone(&world, &clock);
    for _ in 0..10 {
        assert!(!has(&keys, "ed25519:x").await);
        clock.advance_seconds(HOUR);
    }
    assert!(!has(&keys, "ed25519:x").await);
    world.publish(peer(), document(peer(), &[&key("b")], &clock));
    let asked = world.asked();
    clock.advance_seconds(59);
    assert!(!has(&keys, "ed25519:b").await);
    assert_eq!(world.asked(), asked, "not each time");
    clock.advance_seconds(1);
    assert!(has(&keys, "ed25519:b").await);
}

/// Nor from what events need.
#[tokio::test]
async fn ky_08_made_up_keys_of_requests_put_off_no_key_of_events() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("b")], &clock));
    let keys = alone(&world, &clock);
    for _ in 0..10 {
        assert!(!has(&keys, "ed25519:x").await);
        clock.advance_seconds(HOUR);
    }
    assert!(!has(&keys, "ed25519:x").await);
    world.publish(peer(), document(peer(), &[&key("a"), &key("b")], &clock));
    assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(None)).await.is_some());
}

#[tokio::test]
async fn a_notary_takes_back_nothing_that_the_server_has_just_said() {
    let (world, clock, week) = (Arc::new(World::default()), TestClock::new(), TestClock::new());
    week.advance_seconds(6 * 24 * HOUR);
    world.publish(notary(), document(notary(), &[&key("n")], &clock));
    let before = document(peer(), &[&key("a")], &week);
    let answer = notary_answer([before.as_str()], notary(), &key("n"));
    world.notarised.lock().unwrap().insert(peer().to_owned(), answer);
    world.publish(peer(), document(peer(), &[&key("b")], &clock));
    let keys = ring(&world, &clock);
    assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(Some(clock.now()))).await.is_some());
    assert!(has(&keys, "ed25519:b").await);
}

#[tokio::test]
async fn what_a_server_says_itself_is_its_last_word_however_short_it_holds() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    // As one that says that its keys hold for a week.
    let week = TestClock::new();
    week.advance_seconds(6 * 24 * HOUR);
    world.publish(peer(), document(peer(), &[&key("a")], &week));
    let keys = alone(&world, &clock);
    assert!(has(&keys, "ed25519:a").await);
    // Other software takes its place, with a new key and for a day.
    clock.advance_seconds(HOUR);
    world.publish(peer(), document(peer(), &[&key("b")], &clock));
    assert!(has(&keys, "ed25519:b").await);
    assert!(!has(&keys, "ed25519:a").await);
    assert!(keys.document(peer(), &[], None).await.unwrap().contains("ed25519:b"));
}

#[tokio::test]
async fn a_new_key_is_found_when_the_server_was_not_asked_just_now() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = alone(&world, &clock);
    assert!(has(&keys, "ed25519:a").await);
    clock.advance_seconds(60);
    world.publish(peer(), document(peer(), &[&key("b")], &clock));
    assert!(has(&keys, "ed25519:b").await);
    assert!(!has(&keys, "ed25519:a").await);
    let before = Purpose::Event(Some(MilliSecondsSinceUnixEpoch(clock.now().0 - ruma::uint!(1))));
    assert!(find(&keys, peer(), "ed25519:a", before).await.is_some());
}

#[tokio::test]
async fn ky_03_keys_that_are_past_their_time_are_fetched_again() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = alone(&world, &clock);
    assert!(has(&keys, "ed25519:a").await);
    let first_day = clock.now();
    clock.advance_seconds(25 * HOUR);
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    assert!(has(&keys, "ed25519:a").await);
    assert_eq!(world.asked(), 2);

    // Of a dead one they verify what was signed in their time, and what may be of any time.
    clock.advance_seconds(25 * HOUR);
    world.kill(peer());
    assert!(!has(&keys, "ed25519:a").await);
    assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(Some(first_day))).await.is_some());
    assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(None)).await.is_some());
    assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(Some(clock.now()))).await.is_none());
}

#[tokio::test]
async fn no_server_is_asked_for_keys_that_nobody_could_believe() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = ring(&world, &clock);
    let year_9999 = MilliSecondsSinceUnixEpoch(ruma::UInt::new_saturating(253_402_300_799_000));
    assert!(find(&keys, peer(), "ed25519:a", Purpose::Event(Some(year_9999))).await.is_none());
    assert_eq!((world.asked(), world.asked_notary.load(Ordering::SeqCst)), (0, 0));
    // Nor does one such want keep others of the same call from what they want.
    let mut wants = Wants::default();
    wants.add(peer(), ["ed25519:a"], Purpose::Event(Some(clock.now())));
    wants.add(peer(), ["ed25519:b"], Purpose::Event(Some(year_9999)));
    let found = keys.find(&wants).await;
    assert!(found.get(peer(), "ed25519:a", Purpose::Event(Some(clock.now()))).is_some());
    clock.advance_seconds(HOUR);
    keys.find(&wants).await;
    assert_eq!(world.asked(), 1);
}

#[tokio::test]
async fn i7_an_event_of_the_year_9999_spoils_no_other_that_its_key_has_signed() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    let year_9999 = MilliSecondsSinceUnixEpoch(ruma::UInt::new_saturating(253_402_300_799_000));
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    for honest in [Purpose::Event(Some(clock.now())), Purpose::Event(None), Purpose::Request] {
        world.stored.lock().unwrap().clear();
        let (keys, asked) = (alone(&world, &clock), world.asked());
        let mut wants = Wants::default();
        wants.add(peer(), ["ed25519:a"], honest);
        wants.add(peer(), ["ed25519:a"], Purpose::Event(Some(year_9999)));
        let found = keys.find(&wants).await;
        assert!(found.get(peer(), "ed25519:a", honest).is_some(), "{honest:?}");
        assert!(found.get(peer(), "ed25519:a", Purpose::Event(Some(year_9999))).is_none());
        clock.advance_seconds(HOUR);
        keys.find(&wants).await;
        assert_eq!(world.asked(), asked + 1, "what can be had is here");
        clock.advance_seconds(24 * HOUR);
        let today = Purpose::Event(Some(clock.now()));
        world.publish(peer(), document(peer(), &[&key("a")], &clock));
        wants.add(peer(), ["ed25519:a"], today);
        assert!(keys.find(&wants).await.get(peer(), "ed25519:a", today).is_some());
    }
}

#[tokio::test]
async fn one_known_signature_of_several_is_enough() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = alone(&world, &clock);
    assert!(has(&keys, "ed25519:a").await);
    clock.advance_seconds(HOUR);
    let mut wants = Wants::default();
    wants.add(peer(), ["ed25519:gone", "ed25519:a"], Purpose::Event(Some(clock.now())));
    keys.find(&wants).await;
    assert_eq!(world.asked(), 1);
}

fn notarise(world: &World, clock: &TestClock) {
    world.publish(notary(), document(notary(), &[&key("n")], clock));
    let peers = document(peer(), &[&key("a")], clock);
    let answer = notary_answer([peers.as_str()], notary(), &key("n"));
    world.notarised.lock().unwrap().insert(peer().to_owned(), answer);
}

#[tokio::test]
async fn ky_04_a_notary_has_the_keys_of_a_dead_server() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    notarise(&world, &clock);
    let keys = ring(&world, &clock);
    let sent = Purpose::Event(Some(MilliSecondsSinceUnixEpoch(clock.now().0 + ruma::uint!(5))));
    assert!(find(&keys, peer(), "ed25519:a", sent).await.is_some());
    assert_eq!(world.minimum.lock().unwrap().unwrap().0, clock.now().0 + ruma::uint!(5));
    assert!(has(&keys, "ed25519:a").await);
    assert_eq!(world.asked_notary.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn ky_05_a_notary_that_did_not_sign_or_has_no_keys_is_not_believed() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    notarise(&world, &clock);
    world.publish(notary(), document(notary(), &[&key("other")], &clock));
    let keys = ring(&world, &clock);
    assert!(!has(&keys, "ed25519:a").await);
    assert!(keys.problem(peer()).unwrap().contains("notary.example"));

    world.kill(notary());
    world.stored.lock().unwrap().clear();
    let keys = ring(&world, &clock);
    assert!(!has(&keys, "ed25519:a").await);
    // Why its own server doesn't say comes first.
    let problem = "dead; notary.example, as a notary: its own keys can't be had";
    assert_eq!(keys.problem(peer()).as_deref(), Some(problem));
}

#[tokio::test]
async fn notaries_that_name_each_other_end() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    let second = server_name!("second.example");
    let settings =
        KeyRingSettings { notaries: vec![notary().to_owned(), second.to_owned()], ..Default::default() };
    let keys = ring_with(&world, &clock, settings);
    let mut wants = Wants::default();
    for server in [notary(), second, peer()] {
        wants.add(server, ["ed25519:a"], Purpose::Request);
    }
    let found = keys.find(&wants).await;
    assert!(found.get(peer(), "ed25519:a", Purpose::Request).is_none());
}

#[tokio::test]
async fn i8_memory_holds_so_many_servers_and_no_more() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    let remembered = NonZeroUsize::new(10).unwrap();
    let keys = ring_with(&world, &clock, KeyRingSettings { remembered, ..Default::default() });
    let servers: Vec<_> =
        (0..11).map(|n| OwnedServerName::try_from(format!("s{n}.example")).unwrap()).collect();
    for server in &servers {
        world.publish(server, document(server, &[&key("a")], &clock));
        assert!(find(&keys, server, "ed25519:a", Purpose::Request).await.is_some());
    }
    let loaded = world.loaded.load(Ordering::SeqCst);
    assert!(find(&keys, &servers[10], "ed25519:a", Purpose::Request).await.is_some());
    assert_eq!(world.loaded.load(Ordering::SeqCst), loaded);
    // The first was forgotten, and is in the store.
    assert!(find(&keys, &servers[0], "ed25519:a", Purpose::Request).await.is_some());
    assert_eq!(world.loaded.load(Ordering::SeqCst), loaded + 1);
    assert_eq!(world.asked(), 11);
}

#[tokio::test]
async fn stored_keys_that_were_blocked_since_are_not_believed() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a"), &key("b")], &clock));
    let keys = alone(&world, &clock);
    assert!(has(&keys, "ed25519:a").await);
    let blocked = BlockedKeys::new([key("a").public_key()]);
    let keys = ring_with(&world, &clock, KeyRingSettings { blocked, ..Default::default() });
    assert!(has(&keys, "ed25519:b").await);
    assert!(!has(&keys, "ed25519:a").await);
}

#[tokio::test]
async fn ky_05_as_a_notary_we_have_the_last_document_of_a_dead_server() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    let published = document(peer(), &[&key("a")], &clock);
    world.publish(peer(), published.clone());
    let keys = ring(&world, &clock);
    assert_eq!(keys.document(peer(), &[], None).await, Some(published.clone()));
    world.kill(peer());
    clock.advance_seconds(48 * HOUR);
    assert_eq!(keys.document(peer(), &[], None).await, Some(published));
    assert_eq!(world.asked(), 2);
    assert_eq!(keys.document(server_name!("unknown.example"), &[], None).await, None);
    assert_eq!(keys.document(us(), &[], None).await, None);
}

#[tokio::test]
async fn ky_06_as_a_notary_we_ask_again_for_what_our_document_lacks() {
    let (world, clock) = (Arc::new(World::default()), TestClock::new());
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let keys = ring(&world, &clock);
    keys.document(peer(), &[], None).await.unwrap();
    keys.document(peer(), &["ed25519:a".to_owned()], Some(clock.now())).await.unwrap();
    assert_eq!(world.asked(), 1);

    // A key that isn't in it; a time that it doesn't last until; half of its own time (KY-02).
    clock.advance_seconds(HOUR);
    let newer = own_server_keys(peer(), &[&key("a"), &key("b")], &[], clock.now());
    world.publish(peer(), newer.clone());
    assert_eq!(keys.document(peer(), &["ed25519:b".to_owned()], None).await, Some(newer));
    assert_eq!(world.asked(), 2);

    clock.advance_seconds(HOUR);
    world.publish(peer(), document(peer(), &[&key("a")], &clock));
    let tomorrow = MilliSecondsSinceUnixEpoch(clock.now().0 + ruma::uint!(86_000_000));
    keys.document(peer(), &[], Some(tomorrow)).await.unwrap();
    assert_eq!(world.asked(), 3);

    clock.advance_seconds(12 * HOUR - 1);
    keys.document(peer(), &[], None).await.unwrap();
    assert_eq!(world.asked(), 3);
    clock.advance_seconds(2);
    keys.document(peer(), &[], None).await.unwrap();
    assert_eq!(world.asked(), 4);
}
