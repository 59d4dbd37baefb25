//! Where a server is, from its name: addresses, the name in its certificate, the `Host` header.
//!
//! Owns the order of the steps and how long their outcome is remembered. DNS and HTTPS are passed in; whether an address may
//! be connected to, whoever connects decides.
//!
//! - A destination is remembered whole, for as long as all that it came from holds, and dropped when it can't be connected to.
//! - What a host answers under `/.well-known` is remembered for longer than that, apart: [`delegation`]. If it can't be
//!   reached any more, its last answer holds up to 48 hours from when it came.
//! - However many look for one server at the same time, it is looked for once; servers don't wait for each other. A search
//!   goes on to its end whoever gives up waiting for it, so that the next has its outcome.
//!
//! Specification: [Resolving server
//! names](https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names) (SD-01 to SD-06).

mod delegation;
mod dns;
mod steps;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared},
};
use lru::LruCache;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use rustls_pki_types as pki;
use tokio::time::timeout;

pub use self::{
    delegation::{MAX_WELL_KNOWN_BYTES, NoDelegation, Web, WebAnswer},
    dns::{Dns, DnsAnswer, DnsError, Service, SystemDns},
    steps::Step,
};
use crate::{Clock, Random, server_keys::later};

const DEFAULT_PORT: u16 = 8448;
/// Addresses of a destination that are tried.
const MAX_ADDRESSES: usize = 12;
/// SRV records that are followed.
const MAX_SERVICES: usize = 6;
/// Servers that are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A DNS record is remembered at least and at most for this.
const SHORTEST: Duration = Duration::from_mins(1);
const LONGEST: Duration = Duration::from_hours(1);
/// How long the last good answer of a host holds that can't be reached any more.
const STALE: Duration = Duration::from_hours(48);
/// After a host couldn't be reached; each other time doubles it, to [`LONGEST`].
const FIRST_RETRY: Duration = Duration::from_mins(1);
/// Everybody's steps end; a host that redirects slowly has many.
const LONGEST_SEARCH: Duration = Duration::from_mins(1);
/// A host's answer that is older than this is asked for again after a failure to connect.
const DOUBTED: Duration = Duration::from_mins(5);

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// To be tried in this order; at least one. It isn't checked whether they may be connected to.
    pub addresses: Vec<SocketAddr>,
    /// The name, or address, that the certificate has to be of (SD-02).
    pub tls_name: pki::ServerName<'static>,
    /// The value of the `Host` header.
    pub host: String,
}

/// Why a server can't be found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// Its name, or the one it delegates to, can't be in a certificate.
    #[error("`{0}` is not a host name")]
    Name(String),
    /// Its SRV record says that it doesn't take part.
    #[error("`{0}` says that it offers no such service")]
    NotOffered(String),
    /// Its host has no address, or the DNS doesn't say.
    #[error("`{host}` has no address: {error}")]
    NoAddress {
        /// The host.
        host: String,
        /// What the DNS said.
        error: DnsError,
    },
}

/// All steps that were made to find a server, and what came of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// In order.
    pub steps: Vec<Step>,
    /// What they led to.
    pub outcome: Result<Destination, DiscoveryError>,
}

/// Finds servers.
pub struct Discovery {
    finder: Arc<Finder>,
    servers: Mutex<LruCache<OwnedServerName, Arc<Server>>>,
}

/// Goes the steps, for as long as they take.
struct Finder {
    dns: Arc<dyn Dns>,
    web: Arc<dyn Web>,
    clock: Clock,
    random: Random,
}

type Found = Result<Arc<Destination>, DiscoveryError>;

/// What is remembered of a server.
#[derive(Default)]
struct Server {
    found: Mutex<Option<(Arc<Destination>, MilliSecondsSinceUnixEpoch)>>,
    delegation: Mutex<Remembered>,
    /// The search that is on its way. Whoever holds this lock may take that of `found`, not the other way round.
    searching: Mutex<Option<Shared<BoxFuture<'static, Found>>>>,
}

/// What a host answered.
#[derive(Default, Clone)]
struct Remembered {
    /// The last answer; `None` before the first.
    answer: Option<Result<OwnedServerName, NoDelegation>>,
    asked_at: Option<MilliSecondsSinceUnixEpoch>,
    until: Option<MilliSecondsSinceUnixEpoch>,
    /// The last good one and until when it holds if there is no answer.
    good: Option<(OwnedServerName, MilliSecondsSinceUnixEpoch)>,
    failures: u32,
}

/// A search on its way.
struct Search {
    steps: Vec<Step>,
    /// How long its outcome holds.
    ttl: Duration,
}

impl Discovery {
    /// `random` spreads the load over SRV records of a priority, and the times at which answers are asked for again.
    pub fn new(dns: Arc<dyn Dns>, web: Arc<dyn Web>, clock: Clock, random: Random) -> Self {
        let finder = Arc::new(Finder { dns, web, clock, random });
        Self { finder, servers: Mutex::new(LruCache::new(REMEMBERED)) }
    }

    /// Where a server is, from memory if it was found not long ago.
    pub async fn find(&self, server: &ServerName) -> Result<Arc<Destination>, DiscoveryError> {
        let slot = self.slot(server);
        let search = {
            let mut searching = lock(&slot.searching);
            if let Some(found) = self.remembered(&slot) {
                return Ok(found);
            }
            let new = || Arc::clone(&self.finder).start(server.to_owned(), Arc::clone(&slot));
            searching.get_or_insert_with(new).clone()
        };
        search.await
    }

    /// A server can't be reached where it was found: look for it anew.
    pub fn forget(&self, server: &ServerName) {
        let Some(slot) = lock(&self.servers).peek(server).cloned() else { return };
        *lock(&slot.found) = None;
        let mut delegation = lock(&slot.delegation);
        if delegation.asked_at.is_some_and(|asked| later(asked, DOUBTED) < (self.finder.clock)()) {
            delegation.until = None;
        }
    }

    /// Look for a server without using, or changing, what is remembered; say what was tried.
    pub async fn explain(&self, server: &ServerName) -> Explanation {
        let mut search = Search::default();
        let outcome = self.finder.search(server, None, &mut search).await;
        Explanation { steps: search.steps, outcome }
    }

    fn slot(&self, server: &ServerName) -> Arc<Server> {
        let mut servers = lock(&self.servers);
        match servers.get(server) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(servers.get_or_insert(server.to_owned(), Arc::default)),
        }
    }

    fn remembered(&self, slot: &Server) -> Option<Arc<Destination>> {
        let found = lock(&slot.found);
        let now = (self.finder.clock)();
        found.as_ref().filter(|(_, until)| now < *until).map(|(found, _)| Arc::clone(found))
    }
}

impl Finder {
    /// A search as a task of its own. What it finds is remembered, and it isn't on its way any more when it ends.
    fn start(
        self: Arc<Self>,
        server: OwnedServerName,
        slot: Arc<Server>,
    ) -> Shared<BoxFuture<'static, Found>> {
        let failed = |cause: &str| DiscoveryError::NoAddress {
            host: server.host().to_owned(),
            error: DnsError::Failed(cause.to_owned()),
        };
        let (too_slow, given_up) = (failed("the search takes too long"), failed("the search was given up"));
        let task = tokio::spawn(async move {
            let on_its_way = OnItsWay(slot);
            let mut search = Search::default();
            let found = self.search(&server, Some(&on_its_way.0), &mut search);
            let found = timeout(LONGEST_SEARCH, found).await.unwrap_or(Err(too_slow)).map(Arc::new);
            if let Ok(found) = &found {
                let until = later((self.clock)(), search.ttl);
                *lock(&on_its_way.0.found) = Some((Arc::clone(found), until));
            }
            found
        });
        async move { task.await.unwrap_or(Err(given_up)) }.boxed().shared()
    }

    /// SD-01. `slot` has what is remembered of its well-known.
    async fn search(
        &self,
        server: &ServerName,
        slot: Option<&Server>,
        search: &mut Search,
    ) -> Result<Destination, DiscoveryError> {
        if let Some(found) = self.without_delegation(server, search).await {
            return found;
        }
        if let Some(delegate) = self.delegate(server, slot, search).await {
            return match self.without_delegation(&delegate, search).await {
                Some(found) => found,
                None => self.by_services(&delegate, search).await,
            };
        }
        self.by_services(server, search).await
    }

    /// Steps 1 and 2, also within step 3: an address, or a port.
    async fn without_delegation(
        &self,
        name: &ServerName,
        search: &mut Search,
    ) -> Option<Result<Destination, DiscoveryError>> {
        if let Some(address) = literal(name.host()) {
            search.steps.push(Step::Literal(address));
            return Some(Ok(Destination {
                addresses: vec![SocketAddr::new(address, name.port().unwrap_or(DEFAULT_PORT))],
                tls_name: pki::ServerName::IpAddress(address.into()),
                host: name.to_string(),
            }));
        }
        let port = name.port()?;
        search.steps.push(Step::Port(port));
        Some(self.at_host(name, port, search).await)
    }

    /// The addresses of the name's own host.
    async fn at_host(
        &self,
        name: &ServerName,
        port: u16,
        search: &mut Search,
    ) -> Result<Destination, DiscoveryError> {
        let tls_name = tls_name(name)?;
        let host = name.host().to_ascii_lowercase();
        let addresses = self.addresses(&host, false, search).await;
        let addresses = addresses.map_err(|error| DiscoveryError::NoAddress { host, error })?;
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        Ok(Destination { addresses, tls_name, host: name.to_string() })
    }

    /// Steps 4 to 6, and 3.3 to 3.5 within step 3: SRV records, or else the host itself.
    async fn by_services(
        &self,
        name: &ServerName,
        search: &mut Search,
    ) -> Result<Destination, DiscoveryError> {
        let tls_name = tls_name(name)?;
        for kind in ["_matrix-fed._tcp", "_matrix._tcp"] {
            let record = format!("{kind}.{}", name.host().to_ascii_lowercase());
            let outcome = self.dns.services(&record).await;
            let outcome = outcome.map(|answer| {
                search.keep(answer.ttl);
                self.in_order(answer.records)
            });
            search.steps.push(Step::Services { name: record.clone(), outcome: outcome.clone() });
            let services = match outcome {
                Ok(services) => services,
                Err(DnsError::None) => continue,
                Err(DnsError::Failed(_)) => {
                    // There may be some: what is found without them isn't believed for long.
                    search.keep(Duration::ZERO);
                    continue;
                }
            };
            if services.iter().all(|service| service.target == ".") {
                return Err(DiscoveryError::NotOffered(record));
            }
            let mut found = Vec::new();
            let mut problem = (record, DnsError::None);
            for Service { target, port, .. } in services.into_iter().filter(|service| service.target != ".") {
                match self.addresses(&target, true, search).await {
                    Ok(addresses) => found.extend(addresses.into_iter().map(|ip| SocketAddr::new(ip, port))),
                    Err(error) => problem = (target, error),
                }
            }
            if found.is_empty() {
                return Err(DiscoveryError::NoAddress { host: problem.0, error: problem.1 });
            }
            found.truncate(MAX_ADDRESSES);
            return Ok(Destination { addresses: found, tls_name, host: name.to_string() });
        }
        self.at_host(name, DEFAULT_PORT, search).await
    }

    async fn addresses(
        &self,
        host: &str,
        of_service: bool,
        search: &mut Search,
    ) -> Result<Vec<IpAddr>, DnsError> {
        // The target of a SRV record may be an address by mistake; it is clear what is meant.
        let answer = match literal(host) {
            Some(address) => Ok(DnsAnswer { records: vec![address], ttl: LONGEST, alias: false }),
            None => self.dns.addresses(host).await,
        };
        let forbidden_alias = of_service && answer.as_ref().is_ok_and(|answer| answer.alias);
        let outcome = answer.map(|answer| {
            search.keep(answer.ttl);
            alternating(answer.records)
        });
        search.steps.push(Step::Addresses {
            name: host.to_owned(),
            outcome: outcome.clone(),
            forbidden_alias,
        });
        outcome
    }

    /// To whom a server delegates, by what is remembered or by asking.
    async fn delegate(
        &self,
        server: &ServerName,
        slot: Option<&Server>,
        search: &mut Search,
    ) -> Option<OwnedServerName> {
        let now = (self.clock)();
        let before = slot.map(|slot| lock(&slot.delegation).clone()).unwrap_or_default();
        if let (Some(answer), Some(until)) = (&before.answer, before.until)
            && now < until
        {
            search.keep(between(now, until));
            return answer.clone().ok().or_else(|| before.still_good(now));
        }
        let mut asked = Vec::new();
        let answer = delegation::ask(&*self.web, &server.host().to_ascii_lowercase(), now, &mut asked).await;
        let outcome = answer.as_ref().map(|(name, _)| name.to_string()).map_err(Clone::clone);
        search.steps.push(Step::WellKnown { asked, outcome });

        let unreachable = matches!(answer, Err(NoDelegation::Unreachable(_)));
        let failures = if unreachable { before.failures.saturating_add(1) } else { 0 };
        let lifetime = match &answer {
            Ok((_, lifetime)) => *lifetime,
            Err(NoDelegation::Invalid(_)) => LONGEST,
            Err(NoDelegation::Unreachable(_)) => {
                (FIRST_RETRY * (1 << failures.saturating_sub(1).min(10))).min(LONGEST)
            }
        };
        // Up to a tenth less, so that what was learnt at the same time isn't asked for again at the same time.
        let lifetime = lifetime.mul_f64(1.0 - 0.1 * ((self.random)() as f64 / u64::MAX as f64));
        search.keep(lifetime);
        let good = match &answer {
            Ok((name, _)) => Some((name.clone(), later(now, STALE))),
            Err(NoDelegation::Unreachable(_)) => before.good,
            Err(NoDelegation::Invalid(_)) => None,
        };
        let answer = answer.map(|(name, _)| name);
        let (asked_at, until) = (Some(now), Some(later(now, lifetime)));
        let remembered = Remembered { answer: Some(answer.clone()), asked_at, until, good, failures };
        let delegate = answer.ok().or_else(|| remembered.still_good(now));
        if let Some(slot) = slot {
            *lock(&slot.delegation) = remembered;
        }
        delegate
    }

    /// By priority; among equals by chance, weighted (RFC 2782).
    fn in_order(&self, mut services: Vec<Service>) -> Vec<Service> {
        services.truncate(64);
        services.sort_by_key(|service| service.priority);
        let mut ordered = Vec::new();
        while let Some(priority) = services.first().map(|service| service.priority) {
            let equals = services.iter().take_while(|service| service.priority == priority);
            let weights: Vec<u64> = equals.map(|service| u64::from(service.weight)).collect();
            let total: u64 = weights.iter().sum();
            let mut ticket = (self.random)() % total.max(1);
            let chosen = weights.iter().position(|weight| {
                let hit = ticket < *weight;
                ticket = ticket.saturating_sub(*weight);
                hit
            });
            ordered.push(services.remove(chosen.unwrap_or(0)));
        }
        ordered.truncate(MAX_SERVICES);
        ordered
    }
}

/// A server for as long as it is looked for.
struct OnItsWay(Arc<Server>);

impl Drop for OnItsWay {
    fn drop(&mut self) {
        *lock(&self.0.searching) = None;
    }
}

impl Remembered {
    /// What the host answered when it could last be reached, if that isn't long ago.
    fn still_good(&self, now: MilliSecondsSinceUnixEpoch) -> Option<OwnedServerName> {
        // One that says that it doesn't delegate has none.
        let good = self.good.as_ref().filter(|(_, until)| now < *until);
        good.map(|(name, _)| name.clone())
    }
}

impl Default for Search {
    fn default() -> Self {
        Self { steps: Vec::new(), ttl: LONGEST }
    }
}

impl Search {
    /// Something that the outcome rests on holds for so long.
    fn keep(&mut self, ttl: Duration) {
        self.ttl = self.ttl.min(ttl).max(SHORTEST);
    }
}

fn tls_name(name: &ServerName) -> Result<pki::ServerName<'static>, DiscoveryError> {
    pki::ServerName::try_from(name.host().to_ascii_lowercase())
        .map_err(|_| DiscoveryError::Name(name.host().to_owned()))
}

/// The address that a host is, IPv6 in brackets or without.
fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

/// IPv6 first, then by turns, so that one family that doesn't work costs one attempt. No more than are tried.
pub(crate) fn alternating(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (v6, v4): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let longest = v6.len().max(v4.len());
    let pairs = (0..longest).flat_map(|turn| [v6.get(turn), v4.get(turn)]);
    pairs.flatten().take(MAX_ADDRESSES).copied().collect()
}

fn between(now: MilliSecondsSinceUnixEpoch, until: MilliSecondsSinceUnixEpoch) -> Duration {
    Duration::from_millis(u64::from(until.get()).saturating_sub(now.get().into()))
}

/// Nothing that holds one of these locks can panic, and what they hold is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
