//! Finding servers: every step of the specification, and names, hosts and answers that lead nowhere.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use hearth_federation::{
    Destination, Discovery, DiscoveryError, Dns, DnsAnswer, DnsError, Explanation, MAX_WELL_KNOWN_BYTES,
    NoDelegation, Service, Step, Task, Web, WebAnswer,
};
use ruma::ServerName;
use tokio::sync::Semaphore;
use url::Url;

use crate::common::TestClock;

const HOUR: u64 = 3600;

/// The DNS and the web.
struct World {
    hosts: Mutex<HashMap<String, Vec<IpAddr>>>,
    aliases: Mutex<Vec<String>>,
    services: Mutex<HashMap<String, Vec<Service>>>,
    broken: Mutex<Vec<String>>,
    pages: Mutex<HashMap<String, WebAnswer>>,
    ttl: AtomicU64,
    lookups: AtomicUsize,
    gets: AtomicUsize,
    random: AtomicU64,
    gate: Option<Semaphore>,
}

impl World {
    fn new() -> Self {
        Self {
            hosts: Mutex::default(),
            aliases: Mutex::default(),
            services: Mutex::default(),
            broken: Mutex::default(),
            pages: Mutex::default(),
            ttl: AtomicU64::new(300),
            lookups: AtomicUsize::new(0),
            gets: AtomicUsize::new(0),
            random: AtomicU64::new(0),
            gate: None,
        }
    }

    fn host(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        self.hosts.lock().unwrap().insert(name.to_owned(), addresses);
    }

    fn service(&self, name: &str, priority: u16, weight: u16, target: &str, port: u16) {
        let service = Service { priority, weight, target: target.to_owned(), port };
        self.services.lock().unwrap().entry(name.to_owned()).or_default().push(service);
    }

    fn page(&self, url: &str, answer: WebAnswer) {
        self.pages.lock().unwrap().insert(url.to_owned(), answer);
    }

    fn well_known(&self, host: &str, body: &str) {
        self.page(&well_known(host), WebAnswer { status: 200, body: body.into(), ..WebAnswer::default() });
    }

    fn redirect(&self, from: &str, to: &str) {
        self.page(from, WebAnswer { status: 302, location: Some(to.to_owned()), ..WebAnswer::default() });
    }

    fn gets(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }

    fn lookups(&self) -> usize {
        self.lookups.load(Ordering::SeqCst)
    }

    fn lookup<T: Clone>(
        &self,
        all: &Mutex<HashMap<String, Vec<T>>>,
        name: &str,
    ) -> Result<DnsAnswer<T>, DnsError> {
        self.lookups.fetch_add(1, Ordering::SeqCst);
        if self.broken.lock().unwrap().iter().any(|broken| broken == name) {
            return Err(DnsError::Failed("SERVFAIL".to_owned()));
        }
        let records = all.lock().unwrap().get(name).cloned().ok_or(DnsError::None)?;
        let alias = self.aliases.lock().unwrap().iter().any(|alias| alias == name);
        Ok(DnsAnswer { records, ttl: Duration::from_secs(self.ttl.load(Ordering::SeqCst)), alias })
    }
}

fn well_known(host: &str) -> String {
    format!("https://{host}/.well-known/matrix/server")
}

impl Dns for World {
    fn addresses<'a>(&'a self, name: &'a str) -> Task<'a, Result<DnsAnswer<IpAddr>, DnsError>> {
        Box::pin(async move { self.lookup(&self.hosts, name) })
    }

    fn services<'a>(&'a self, name: &'a str) -> Task<'a, Result<DnsAnswer<Service>, DnsError>> {
        Box::pin(async move { self.lookup(&self.services, name) })
    }
}

impl Web for World {
    fn get<'a>(&'a self, url: &'a Url, limit: usize) -> Task<'a, Result<WebAnswer, String>> {
        assert_eq!(limit, MAX_WELL_KNOWN_BYTES);
        self.gets.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            self.pages.lock().unwrap().get(url.as_str()).cloned().ok_or_else(|| "refused".to_owned())
        })
    }
}

fn discovery(world: &Arc<World>, clock: &TestClock) -> Discovery {
    let (dns, web) = (Arc::clone(world) as Arc<dyn Dns>, Arc::clone(world) as Arc<dyn Web>);
    let random = Arc::clone(world);
    Discovery::new(dns, web, clock.clock(), Arc::new(move || random.random.load(Ordering::SeqCst)))
}

fn name(text: &str) -> &ServerName {
    <&ServerName>::try_from(text).unwrap()
}

async fn find(world: &Arc<World>, server: &str) -> Result<Destination, DiscoveryError> {
    discovery(world, &TestClock::new()).find(name(server)).await.map(|found| Destination::clone(&found))
}

/// Addresses, name of the certificate, `Host` header.
async fn found(world: &Arc<World>, server: &str) -> (Vec<String>, String, String) {
    let Destination { addresses, tls_name, host } = find(world, server).await.unwrap();
    (addresses.iter().map(SocketAddr::to_string).collect(), tls_name.to_str().into_owned(), host)
}

fn is(addresses: &[&str], tls_name: &str, host: &str) -> (Vec<String>, String, String) {
    (addresses.iter().map(|&address| address.to_owned()).collect(), tls_name.to_owned(), host.to_owned())
}

#[tokio::test]
async fn sd_01_step_1_an_address_is_where_it_says() {
    let world = Arc::new(World::new());
    assert_eq!(found(&world, "192.0.2.1").await, is(&["192.0.2.1:8448"], "192.0.2.1", "192.0.2.1"));
    assert_eq!(found(&world, "192.0.2.1:81").await, is(&["192.0.2.1:81"], "192.0.2.1", "192.0.2.1:81"));
    assert_eq!(
        found(&world, "[2001:db8::1]").await,
        is(&["[2001:db8::1]:8448"], "2001:db8::1", "[2001:db8::1]")
    );
    assert_eq!(
        found(&world, "[2001:DB8::1]:82").await,
        is(&["[2001:db8::1]:82"], "2001:db8::1", "[2001:DB8::1]:82")
    );
    assert_eq!((world.lookups(), world.gets()), (0, 0));
}

#[tokio::test]
async fn sd_01_step_2_a_name_with_a_port_is_at_its_host() {
    let world = Arc::new(World::new());
    world.host("a.example", &["192.0.2.1", "2001:db8::1"]);
    world.well_known("a.example", r#"{"m.server":"b.example"}"#);
    world.service("_matrix-fed._tcp.a.example", 0, 0, "b.example", 1);
    assert_eq!(
        found(&world, "a.example:81").await,
        is(&["[2001:db8::1]:81", "192.0.2.1:81"], "a.example", "a.example:81")
    );
    assert_eq!(world.gets(), 0);
}

/// Of a host that delegates to this.
async fn delegated(world: &Arc<World>, to: &str) -> (Vec<String>, String, String) {
    world.well_known("a.example", &format!(r#"{{"m.server":"{to}"}}"#));
    found(world, "a.example").await
}

#[tokio::test]
async fn sd_01_step_3_a_host_may_delegate() {
    let world = Arc::new(World::new());
    world.host("b.example", &["192.0.2.2"]);
    world.host("fed.example", &["192.0.2.3"]);
    world.host("old.example", &["192.0.2.4"]);
    world.service("_matrix-fed._tcp.a.example", 0, 0, "wrong.example", 1);
    // 3.1
    assert_eq!(delegated(&world, "192.0.2.9").await, is(&["192.0.2.9:8448"], "192.0.2.9", "192.0.2.9"));
    assert_eq!(
        delegated(&world, "[2001:db8::9]:9").await,
        is(&["[2001:db8::9]:9"], "2001:db8::9", "[2001:db8::9]:9")
    );
    // 3.2
    assert_eq!(
        delegated(&world, "b.example:443").await,
        is(&["192.0.2.2:443"], "b.example", "b.example:443")
    );
    // 3.5
    assert_eq!(delegated(&world, "b.example").await, is(&["192.0.2.2:8448"], "b.example", "b.example"));
    // 3.4, and 3.3 before it: the target of the record is in neither name (SD-02).
    world.service("_matrix._tcp.b.example", 0, 0, "old.example", 4);
    assert_eq!(delegated(&world, "b.example").await, is(&["192.0.2.4:4"], "b.example", "b.example"));
    world.service("_matrix-fed._tcp.b.example", 0, 0, "fed.example", 3);
    assert_eq!(delegated(&world, "b.example").await, is(&["192.0.2.3:3"], "b.example", "b.example"));
    // Who is delegated to isn't asked in turn.
    world.well_known("b.example", r#"{"m.server":"c.example:1"}"#);
    assert_eq!(delegated(&world, "b.example").await, is(&["192.0.2.3:3"], "b.example", "b.example"));
}

#[tokio::test]
async fn sd_01_steps_4_to_6_without_delegation() {
    let world = Arc::new(World::new());
    world.host("a.example", &["192.0.2.1"]);
    world.host("fed.example", &["192.0.2.3"]);
    world.host("old.example", &["192.0.2.4"]);
    assert_eq!(found(&world, "a.example").await, is(&["192.0.2.1:8448"], "a.example", "a.example"));
    world.service("_matrix._tcp.a.example", 0, 0, "old.example", 4);
    assert_eq!(found(&world, "a.example").await, is(&["192.0.2.4:4"], "a.example", "a.example"));
    world.service("_matrix-fed._tcp.a.example", 0, 0, "fed.example", 3);
    assert_eq!(found(&world, "a.example").await, is(&["192.0.2.3:3"], "a.example", "a.example"));
}

#[tokio::test]
async fn sd_06_names_are_looked_up_in_lower_case_and_sent_as_they_are() {
    let world = Arc::new(World::new());
    world.host("a.example", &["192.0.2.1"]);
    assert_eq!(found(&world, "A.Example").await, is(&["192.0.2.1:8448"], "a.example", "A.Example"));
}

#[tokio::test]
async fn srv_records_are_tried_by_priority_and_weight() {
    let world = Arc::new(World::new());
    for (host, address) in [("one", "192.0.2.1"), ("two", "192.0.2.2"), ("three", "192.0.2.3")] {
        world.host(&format!("{host}.example"), &[address]);
    }
    let record = "_matrix-fed._tcp.a.example";
    world.service(record, 20, 0, "three.example", 3);
    world.service(record, 10, 30, "one.example", 1);
    world.service(record, 10, 70, "two.example", 2);
    world.service(record, 10, 0, "gone.example", 4);
    world.random.store(29, Ordering::SeqCst);
    assert_eq!(found(&world, "a.example").await.0, ["192.0.2.1:1", "192.0.2.2:2", "192.0.2.3:3"]);
    world.random.store(30, Ordering::SeqCst);
    assert_eq!(found(&world, "a.example").await.0, ["192.0.2.2:2", "192.0.2.1:1", "192.0.2.3:3"]);
}

#[tokio::test]
async fn a_srv_record_may_say_that_the_service_is_not_offered() {
    let world = Arc::new(World::new());
    world.host("a.example", &["192.0.2.1"]);
    world.service("_matrix-fed._tcp.a.example", 0, 0, ".", 0);
    let record = "_matrix-fed._tcp.a.example".to_owned();
    assert_eq!(find(&world, "a.example").await, Err(DiscoveryError::NotOffered(record)));
}

#[tokio::test]
async fn sd_05_a_srv_target_that_is_an_alias_is_reported() {
    let world = Arc::new(World::new());
    world.host("alias.example", &["192.0.2.1"]);
    world.aliases.lock().unwrap().push("alias.example".to_owned());
    world.service("_matrix-fed._tcp.a.example", 0, 0, "alias.example", 5);
    let explained = discovery(&world, &TestClock::new()).explain(name("a.example")).await;
    let wrong: Vec<_> = explained.steps.iter().filter(|step| !step.is_ok()).collect();
    assert!(matches!(wrong[..], [Step::WellKnown { .. }, Step::Addresses { forbidden_alias: true, .. }]));
    // Others get through to it, so we do.
    assert!(explained.outcome.is_ok());
    // Anywhere else aliases are allowed.
    let explained = discovery(&world, &TestClock::new()).explain(name("alias.example:1")).await;
    assert!(explained.steps.iter().all(Step::is_ok));
}

#[tokio::test]
async fn sd_03_redirects_are_followed() {
    let world = Arc::new(World::new());
    world.host("b.example", &["192.0.2.2"]);
    world.redirect(&well_known("a.example"), "https://www.example/x");
    world.redirect("https://www.example/x", "/y#z");
    let body = br#"{"m.server":"b.example:1"}"#.to_vec();
    world.page("https://www.example/y", WebAnswer { status: 200, body, ..WebAnswer::default() });
    assert_eq!(found(&world, "a.example").await.0, ["192.0.2.2:1"]);
}

#[tokio::test]
async fn sd_03_anything_but_a_good_answer_leads_to_the_next_step() {
    let world = Arc::new(World::new());
    world.host("a.example", &["192.0.2.1"]);
    let here = well_known("a.example");
    let next = is(&["192.0.2.1:8448"], "a.example", "a.example");
    for body in [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"m.server":1}"#,
        r#"{"m.server":""}"#,
        r#"{"m.server":"b example"}"#,
        r#"{"m.server":"b.example:99999"}"#,
        r#"{"m.server":"https://b.example"}"#,
    ] {
        world.well_known("a.example", body);
        assert_eq!(found(&world, "a.example").await, next, "{body}");
    }
    for status in [204, 400, 403, 404, 429, 500, 503] {
        let body = br#"{"m.server":"b.example:1"}"#.to_vec();
        world.page(&here, WebAnswer { status, body, ..WebAnswer::default() });
        assert_eq!(found(&world, "a.example").await, next, "{status}");
    }
    for location in [
        "http://a.example/y",
        "ftp://a.example/y",
        "https://user:password@a.example/y",
        "https://",
        "file:///etc/passwd",
        &here,
    ] {
        world.redirect(&here, location);
        let before = world.gets();
        assert_eq!(found(&world, "a.example").await, next, "{location}");
        assert_eq!(world.gets(), before + 1, "{location}");
    }
    world.page(&here, WebAnswer { status: 302, ..WebAnswer::default() });
    assert_eq!(found(&world, "a.example").await, next);
}

#[tokio::test]
async fn sd_03_redirects_without_end_end() {
    let world = Arc::new(World::new());
    world.host("a.example", &["192.0.2.1"]);
    world.redirect(&well_known("a.example"), "https://a.example/1");
    world.redirect("https://a.example/1", "https://a.example/2");
    world.redirect("https://a.example/2", "https://a.example/1");
    assert_eq!(found(&world, "a.example").await.0, ["192.0.2.1:8448"]);
    assert_eq!(world.gets(), 3);
    for n in 1..100 {
        world.redirect(&format!("https://a.example/{n}"), &format!("https://a.example/{}", n + 1));
    }
    let before = world.gets();
    assert_eq!(found(&world, "a.example").await.0, ["192.0.2.1:8448"]);
    assert_eq!(world.gets(), before + 6);
}

/// After how many seconds a host is asked again, to the nearest hundred, if what it says to `answer` is this.
async fn asked_again_after(answer: WebAnswer, random: u64) -> u64 {
    let (world, clock) = (Arc::new(World::new()), TestClock::new());
    world.host("b.example", &["192.0.2.2"]);
    world.random.store(random, Ordering::SeqCst);
    let body = br#"{"m.server":"b.example:1"}"#.to_vec();
    world.page(&well_known("a.example"), WebAnswer { status: 200, body, ..answer });
    let discovery = discovery(&world, &clock);
    let mut seconds = 0;
    while world.gets() < 2 {
        discovery.find(name("a.example")).await.unwrap();
        clock.advance_seconds(100);
        seconds += 100;
    }
    seconds - 100
}

fn cached(cache_control: &str) -> WebAnswer {
    WebAnswer { cache_control: Some(cache_control.to_owned()), ..WebAnswer::default() }
}

#[tokio::test]
async fn sd_04_answers_are_remembered_as_long_as_they_say() {
    let expires = |date: &str| WebAnswer { expires: Some(date.to_owned()), ..WebAnswer::default() };
    for (answer, expected) in [
        (WebAnswer::default(), 24 * HOUR),
        (cached("public, max-age=7200"), 2 * HOUR),
        (cached("Max-Age=\"7200\""), 2 * HOUR),
        (cached("max-age=9999999999"), 48 * HOUR),
        (cached("max-age=99999999999999999999999"), 24 * HOUR),
        (cached("max-age=0"), 300),
        (cached("max-age=7200, no-store"), 300),
        (cached("no-cache"), 300),
        (cached("max-age=-1"), 24 * HOUR),
        // The clock of the tests stands at 2023-11-14T22:13:20Z.
        (expires("Wed, 15 Nov 2023 01:13:20 GMT"), 3 * HOUR),
        (expires("Tue, 14 Nov 2023 22:00:00 GMT"), 300),
        (expires("0"), 300),
        (
            WebAnswer { expires: Some("Wed, 15 Nov 2023 01:13:20 GMT".to_owned()), ..cached("max-age=7200") },
            2 * HOUR,
        ),
    ] {
        assert_eq!(asked_again_after(answer.clone(), 0).await, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn sd_04_the_time_is_up_to_a_tenth_shorter_by_chance() {
    assert_eq!(asked_again_after(cached("max-age=10000"), u64::MAX).await, 9000);
    assert_eq!(asked_again_after(cached("max-age=10000"), u64::MAX / 2).await, 9500);
}

/// The seconds at which a host was asked within four hours.
async fn asked_at(world: &Arc<World>, clock: &TestClock) -> Vec<u64> {
    let discovery = discovery(world, clock);
    let mut times = Vec::new();
    for second in (0..4 * HOUR).step_by(10) {
        let before = world.gets();
        discovery.find(name("a.example")).await.unwrap();
        if world.gets() > before {
            times.push(second);
        }
        clock.advance_seconds(10);
    }
    times
}

#[tokio::test]
async fn sd_04_a_host_that_does_not_answer_is_asked_ever_less_often_up_to_an_hour() {
    let (world, clock) = (Arc::new(World::new()), TestClock::new());
    world.host("a.example", &["192.0.2.1"]);
    world.ttl.store(60, Ordering::SeqCst);
    let times = asked_at(&world, &clock).await;
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps, [60, 120, 240, 480, 960, 1920, 3600, 3600]);

    // One that answers that there is nothing is believed for an hour.
    world.page(&well_known("a.example"), WebAnswer { status: 404, ..WebAnswer::default() });
    assert_eq!(asked_at(&world, &clock).await, [0, HOUR, 2 * HOUR, 3 * HOUR]);
}

#[tokio::test]
async fn the_last_good_answer_of_a_host_that_is_gone_holds_for_two_days() {
    let (world, clock) = (Arc::new(World::new()), TestClock::new());
    world.host("a.example", &["192.0.2.1"]);
    world.host("b.example", &["192.0.2.2"]);
    world.well_known("a.example", r#"{"m.server":"b.example:1"}"#);
    let discovery = discovery(&world, &clock);
    let at = async || discovery.find(name("a.example")).await.unwrap().addresses[0].to_string();
    assert_eq!(at().await, "192.0.2.2:1");
    world.pages.lock().unwrap().clear();
    clock.advance_seconds(25 * HOUR);
    assert_eq!(at().await, "192.0.2.2:1");
    clock.advance_seconds(22 * HOUR);
    assert_eq!(at().await, "192.0.2.2:1");
    clock.advance_seconds(2 * HOUR);
    assert_eq!(at().await, "192.0.2.1:8448");

    // One that says that it doesn't delegate any more is believed at once.
    world.well_known("a.example", r#"{"m.server":"b.example:1"}"#);
    clock.advance_seconds(2 * HOUR);
    assert_eq!(at().await, "192.0.2.2:1");
    world.page(&well_known("a.example"), WebAnswer { status: 404, ..WebAnswer::default() });
    clock.advance_seconds(25 * HOUR);
    assert_eq!(at().await, "192.0.2.1:8448");
}

#[tokio::test]
async fn a_destination_is_remembered_as_long_as_its_records_and_dropped_when_it_fails() {
    let (world, clock) = (Arc::new(World::new()), TestClock::new());
    world.host("a.example", &["192.0.2.1"]);
    let discovery = discovery(&world, &clock);
    let at = async || discovery.find(name("a.example:1")).await.unwrap().addresses[0].to_string();
    assert_eq!(at().await, "192.0.2.1:1");
    world.host("a.example", &["192.0.2.2"]);
    clock.advance_seconds(299);
    assert_eq!(at().await, "192.0.2.1:1");
    clock.advance_seconds(1);
    assert_eq!(at().await, "192.0.2.2:1");
    world.host("a.example", &["192.0.2.3"]);
    discovery.forget(name("a.example:1"));
    assert_eq!(at().await, "192.0.2.3:1");
    // However short, and however long the records are to live.
    for (ttl, kept) in [(0, 60), (999_999, HOUR)] {
        world.ttl.store(ttl, Ordering::SeqCst);
        discovery.forget(name("a.example:1"));
        at().await;
        let lookups = world.lookups();
        clock.advance_seconds(kept - 1);
        at().await;
        assert_eq!(world.lookups(), lookups);
        clock.advance_seconds(1);
        at().await;
        assert_eq!(world.lookups(), lookups + 1);
    }
}

#[tokio::test]
async fn a_failure_to_connect_makes_an_old_answer_of_the_host_doubtful() {
    let (world, clock) = (Arc::new(World::new()), TestClock::new());
    world.host("b.example", &["192.0.2.2"]);
    world.well_known("a.example", r#"{"m.server":"b.example:1"}"#);
    let discovery = discovery(&world, &clock);
    let at = async || discovery.find(name("a.example")).await.unwrap().addresses[0].to_string();
    assert_eq!(at().await, "192.0.2.2:1");
    world.well_known("a.example", r#"{"m.server":"b.example:2"}"#);
    clock.advance_seconds(200);
    discovery.forget(name("a.example"));
    assert_eq!(at().await, "192.0.2.2:1");
    clock.advance_seconds(200);
    discovery.forget(name("a.example"));
    assert_eq!(at().await, "192.0.2.2:2");
}

#[tokio::test]
async fn what_was_found_while_the_dns_was_broken_is_not_believed_for_long() {
    let (world, clock) = (Arc::new(World::new()), TestClock::new());
    world.host("a.example", &["192.0.2.1"]);
    world.host("b.example", &["192.0.2.2"]);
    world.ttl.store(3600, Ordering::SeqCst);
    world.page(&well_known("a.example"), WebAnswer { status: 404, ..WebAnswer::default() });
    world.service("_matrix-fed._tcp.a.example", 0, 0, "b.example", 1);
    world.broken.lock().unwrap().push("_matrix-fed._tcp.a.example".to_owned());
    let discovery = discovery(&world, &clock);
    let at = async || discovery.find(name("a.example")).await.unwrap().addresses[0].to_string();
    assert_eq!(at().await, "192.0.2.1:8448");
    world.broken.lock().unwrap().clear();
    clock.advance_seconds(60);
    assert_eq!(at().await, "192.0.2.2:1");
}

#[tokio::test]
async fn names_that_lead_nowhere() {
    let world = Arc::new(World::new());
    let no_address = |host: &str, error| Err(DiscoveryError::NoAddress { host: host.to_owned(), error });
    assert_eq!(find(&world, "a.example:1").await, no_address("a.example", DnsError::None));
    assert_eq!(find(&world, "a.example").await, no_address("a.example", DnsError::None));
    world.broken.lock().unwrap().push("a.example".to_owned());
    let failed = DnsError::Failed("SERVFAIL".to_owned());
    assert_eq!(find(&world, "a.example").await, no_address("a.example", failed));
    world.service("_matrix-fed._tcp.b.example", 0, 0, "gone.example", 1);
    assert_eq!(find(&world, "b.example").await, no_address("gone.example", DnsError::None));
    for odd in ["a..b", "-", "a.b.:1", "1.2.3", "999.1.1.1", "-a.example:1"] {
        assert!(find(&world, odd).await.is_err(), "{odd}");
    }
}

#[tokio::test]
async fn however_many_look_for_a_server_it_is_looked_for_once() {
    let world = Arc::new(World { gate: Some(Semaphore::new(0)), ..World::new() });
    world.host("a.example", &["192.0.2.1"]);
    world.host("b.example", &["192.0.2.2"]);
    let discovery = discovery(&world, &TestClock::new());
    let finds = (0..50).map(|_| discovery.find(name("a.example")));
    let mut all = Box::pin(futures_util::future::join_all(finds));
    assert!(futures_util::poll!(&mut all).is_pending());
    // Another server waits for none of them.
    assert!(discovery.find(name("b.example:1")).await.is_ok());
    world.gate.as_ref().unwrap().add_permits(50);
    assert!(all.await.iter().all(Result::is_ok));
    assert_eq!(world.gets(), 1);
}

#[tokio::test]
async fn however_many_look_for_a_server_that_is_nowhere_they_hear_so_together() {
    let world = Arc::new(World { gate: Some(Semaphore::new(0)), ..World::new() });
    let discovery = discovery(&world, &TestClock::new());
    let finds = (0..50).map(|_| discovery.find(name("a.example")));
    let mut all = Box::pin(futures_util::future::join_all(finds));
    assert!(futures_util::poll!(&mut all).is_pending());
    world.gate.as_ref().unwrap().add_permits(50);
    assert!(all.await.iter().all(Result::is_err));
    assert_eq!(world.lookups(), 3, "two kinds of SRV records, and the host");
    // It may be there the next time.
    world.host("a.example", &["192.0.2.1"]);
    assert!(discovery.find(name("a.example")).await.is_ok());
}

#[tokio::test]
async fn what_is_found_after_somebody_gave_up_waiting_is_there_for_the_next() {
    let world = Arc::new(World { gate: Some(Semaphore::new(0)), ..World::new() });
    world.host("a.example", &["192.0.2.1"]);
    let discovery = discovery(&world, &TestClock::new());
    let mut hasty = Box::pin(discovery.find(name("a.example")));
    assert!(futures_util::poll!(&mut hasty).is_pending());
    while world.gets() == 0 {
        tokio::task::yield_now().await;
    }
    drop(hasty);
    world.gate.as_ref().unwrap().add_permits(2);
    assert!(discovery.find(name("a.example")).await.is_ok());
    assert_eq!(world.gets(), 1);
}

#[tokio::test]
async fn every_step_is_explained() {
    let world = Arc::new(World::new());
    world.host("b.example", &["192.0.2.2", "2001:db8::2"]);
    world.redirect(&well_known("a.example"), "https://www.example/x");
    world.page(
        "https://www.example/x",
        WebAnswer { status: 200, body: br#"{"m.server":"b.example"}"#.to_vec(), ..WebAnswer::default() },
    );
    let discovery = discovery(&world, &TestClock::new());
    let Explanation { steps, outcome } = discovery.explain(name("a.example")).await;
    let texts: Vec<_> = steps.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "https://a.example/.well-known/matrix/server → https://www.example/x: delegates to b.example",
            "SRV _matrix-fed._tcp.b.example: there is no such record",
            "SRV _matrix._tcp.b.example: there is no such record",
            "A, AAAA b.example: 2001:db8::2, 192.0.2.2",
        ]
    );
    assert_eq!(outcome.unwrap().host, "b.example");
    // It looks anew each time.
    let gets = world.gets();
    discovery.explain(name("a.example")).await;
    assert_eq!(world.gets(), gets * 2);

    world.page(&well_known("a.example"), WebAnswer { status: 404, ..WebAnswer::default() });
    let Explanation { steps, outcome } = discovery.explain(name("a.example")).await;
    let refused = NoDelegation::Invalid("it answers with status 404".to_owned());
    assert!(
        matches!(&steps[0], Step::WellKnown { outcome: Err(outcome), .. } if *outcome == refused),
        "{steps:?}"
    );
    assert_eq!(steps.len(), 4);
    assert!(matches!(outcome, Err(DiscoveryError::NoAddress { .. })));
}
