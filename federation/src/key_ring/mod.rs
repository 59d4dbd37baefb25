//! The public keys of other servers: remembered, and fetched when they are missing.
//!
//! Owns when a server is asked for its keys, and who else is. Storing and fetching are passed in; what of an answer is
//! believed, [`ServerKeys`] decides.
//!
//! - Servers are independent: waiting for one keeps nobody waiting for another. One that doesn't answer is asked again after
//!   a time that doubles, to an hour at most; one whose answer lacks a wanted key, too. Where somebody speaks in its name, it
//!   is there again, probably, or has a new key, and can't be believed without: then the time doesn't double.
//! - However many ask for the keys of one server at the same time, it is asked once.
//! - A server that is gone is known by its stored keys, as long as these are valid for what is to be verified.
//! - Memory holds a bounded number of servers. What is forgotten there is in the store.
//!
//! Specification: [Retrieving server keys](https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys)
//! (KY-03 to KY-08).

mod wants;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use lru::LruCache;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};

use self::wants::Need;
pub use self::wants::{FoundKeys, Wants};
use crate::{
    Clock, Task,
    server_keys::{BlockedKeys, KnownKeys, MAX_VALIDITY, PublicKey, ServerKeys, later, read_notary_answer},
};

/// Servers that are asked at the same time for one call.
const AT_ONCE: usize = 64;
/// After the first failure; each other one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// After an answer, whether it had what was wanted or not (KY-08). Each that hadn't doubles it.
const LEAST_INTERVAL: Duration = Duration::from_mins(1);
const LONGEST_RETRY: Duration = Duration::from_hours(1);

/// Where keys are kept.
///
/// A store that fails says so in its own log: keys that can't be read are fetched, those that can't be written will be
/// fetched again.
pub trait KeyStore: Send + Sync {
    /// What is kept of a server.
    fn load<'a>(&'a self, server: &'a ServerName) -> Task<'a, Option<KnownKeys>>;
    /// Keep this instead of what was kept.
    fn save<'a>(&'a self, server: &'a ServerName, keys: &'a KnownKeys) -> Task<'a, ()>;
}

/// How keys are fetched. It has to end in a time of its own, and to bound what it reads
/// ([`MAX_KEYS_BYTES`](crate::MAX_KEYS_BYTES), [`MAX_NOTARY_BYTES`](crate::MAX_NOTARY_BYTES)).
pub trait KeyFetch: Send + Sync {
    /// `GET /_matrix/key/v2/server` of a server: its text.
    fn ask_server<'a>(&'a self, server: &'a ServerName) -> Task<'a, Result<String, String>>;
    /// `POST /_matrix/key/v2/query` of a notary about one server: its text.
    fn ask_notary<'a>(
        &'a self,
        notary: &'a ServerName,
        server: &'a ServerName,
        key_ids: &'a [String],
        minimum_valid_until: MilliSecondsSinceUnixEpoch,
    ) -> Task<'a, Result<String, String>>;
}

/// How the keys of others are dealt with.
#[derive(Debug, Clone)]
pub struct KeyRingSettings {
    /// Who is asked when a server doesn't answer, in this order.
    pub notaries: Vec<OwnedServerName>,
    /// Never believed.
    pub blocked: BlockedKeys,
    /// How many servers are kept in memory.
    pub remembered: NonZeroUsize,
}

impl Default for KeyRingSettings {
    fn default() -> Self {
        let remembered = NonZeroUsize::new(4096).unwrap_or(NonZeroUsize::MIN);
        Self { notaries: Vec::new(), blocked: BlockedKeys::default(), remembered }
    }
}

/// The public keys of servers.
pub struct KeyRing {
    us: OwnedServerName,
    own: Arc<KnownKeys>,
    settings: KeyRingSettings,
    store: Arc<dyn KeyStore>,
    fetch: Arc<dyn KeyFetch>,
    clock: Clock,
    servers: Mutex<LruCache<OwnedServerName, Arc<Server>>>,
}

/// A server's keys.
type Found = (OwnedServerName, Arc<KnownKeys>);

/// What memory has of a server.
#[derive(Default)]
struct Server {
    state: Mutex<State>,
    /// Held by whoever loads or fetches.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    loaded: bool,
    known: Option<Arc<KnownKeys>>,
    /// How often in a row it was asked in vain.
    in_vain: u32,
    /// It didn't answer, the last time.
    silent: bool,
    /// It isn't asked before this …
    not_before: Option<MilliSecondsSinceUnixEpoch>,
    /// … and for somebody who speaks in its name not before this.
    not_for_requests_before: Option<MilliSecondsSinceUnixEpoch>,
    problem: Option<String>,
}

impl KeyRing {
    /// `own` are our own public keys by id, the old ones too; they are never fetched.
    pub fn new(
        us: OwnedServerName,
        own: BTreeMap<String, PublicKey>,
        settings: KeyRingSettings,
        store: Arc<dyn KeyStore>,
        fetch: Arc<dyn KeyFetch>,
        clock: Clock,
    ) -> Self {
        let never = MilliSecondsSinceUnixEpoch(ruma::UInt::MAX);
        let own = KnownKeys { keys: own, valid_until: never, read_at: clock(), document: String::new() };
        let servers = Mutex::new(LruCache::new(settings.remembered));
        Self { us, own: Arc::new(own), settings, store, fetch, clock, servers }
    }

    /// Find the keys that are wanted, of all servers at once. Those that are in memory are found without waiting.
    pub async fn find(&self, wants: &Wants) -> FoundKeys {
        let mut lookups: Vec<Task<'_, Option<Found>>> = Vec::new();
        for (server, needs) in &wants.servers {
            lookups.push(Box::pin(async move {
                let known = self.keys_of(server, needs).await?;
                Some((server.clone(), known))
            }));
        }
        let found = stream::iter(lookups).buffer_unordered(AT_ONCE);
        let servers = found.filter_map(|found| async move { found }).collect().await;
        FoundKeys { servers, now: (self.clock)() }
    }

    /// The document of a server for us to sign as its notary (KY-05, KY-06), valid until `minimum_valid_until` (which is
    /// now, if nobody said) if such a one can be had. Of a server that is gone, the last one.
    ///
    /// Not for our own name. It may ask the server, at most once a minute.
    pub async fn document(
        &self,
        server: &ServerName,
        key_ids: &[String],
        minimum_valid_until: Option<MilliSecondsSinceUnixEpoch>,
    ) -> Option<String> {
        if server == self.us {
            return None;
        }
        let now = (self.clock)();
        let minimum = minimum_valid_until.unwrap_or(now);
        let slot = self.slot(server);
        let fits = |known: &KnownKeys| {
            // Half of the time that it was valid for when it came is left (KY-02).
            let halfway = known.read_at.0.checked_add(known.valid_until.0).map(|sum| sum / ruma::uint!(2));
            known.valid_until >= minimum
                && halfway.is_some_and(|halfway| now.0 <= halfway)
                && key_ids.iter().all(|id| known.keys.contains_key(id))
        };
        let known = self.remembered(&slot, server).await;
        let known = if known.as_deref().is_some_and(fits) {
            known
        } else {
            self.refresh(&slot, server, None, &fits).await
        };
        known.map(|known| known.document.clone()).filter(|document| !document.is_empty())
    }

    /// A server spoke to us: if it was silent before, it may be asked at once.
    pub fn heard_from(&self, server: &ServerName) {
        let slot = lock(&self.servers).peek(server).cloned();
        if let Some(slot) = slot {
            let mut state = lock(&slot.state);
            if state.silent {
                (state.silent, state.in_vain) = (false, 0);
                (state.not_before, state.not_for_requests_before) = (None, None);
            }
        }
    }

    /// Why the last attempt to get a server's keys failed, for the operator.
    pub fn problem(&self, server: &ServerName) -> Option<String> {
        let slot = lock(&self.servers).peek(server).cloned()?;
        lock(&slot.state).problem.clone()
    }

    async fn keys_of(
        &self,
        server: &ServerName,
        needs: &BTreeMap<Vec<String>, Need>,
    ) -> Option<Arc<KnownKeys>> {
        if server == self.us {
            return Some(Arc::clone(&self.own));
        }
        let now = (self.clock)();
        // Nobody's keys are believed for longer than that, so asking wouldn't help.
        let latest = later(now, MAX_VALIDITY);
        let fits = |known: &KnownKeys| {
            let mut sensible = needs.iter().filter(|(_, need)| need.valid_until(now, latest).is_some());
            sensible.all(|(ids, need)| need.is_met(ids, known, now, latest))
        };
        let slot = self.slot(server);
        let known = self.remembered(&slot, server).await;
        let in_vain = needs.values().all(|need| need.valid_until(now, latest).is_none());
        if in_vain || known.as_deref().is_some_and(fits) {
            return known;
        }
        self.refresh(&slot, server, Some(needs), &fits).await
    }

    fn slot(&self, server: &ServerName) -> Arc<Server> {
        let mut servers = lock(&self.servers);
        match servers.get(server) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(servers.get_or_insert(server.to_owned(), Arc::default)),
        }
    }

    /// What memory or the store has.
    async fn remembered(&self, slot: &Server, server: &ServerName) -> Option<Arc<KnownKeys>> {
        let in_memory = || {
            let state = lock(&slot.state);
            state.loaded.then(|| state.known.clone())
        };
        if let Some(known) = in_memory() {
            return known;
        }
        let _turn = slot.turn.lock().await;
        if let Some(known) = in_memory() {
            return known;
        }
        let known = self.store.load(server).await.map(|mut known| {
            // The list of blocked keys may have grown since.
            known.keys.retain(|_, key| !self.settings.blocked.contains(&key.bytes()));
            Arc::new(known)
        });
        let mut state = lock(&slot.state);
        (state.loaded, state.known) = (true, known);
        state.known.clone()
    }

    /// Ask the server, then notaries, until there is what fits; or only look, if it isn't time to ask.
    async fn refresh(
        &self,
        slot: &Server,
        server: &ServerName,
        by_notary: Option<&BTreeMap<Vec<String>, Need>>,
        fits: &(dyn Fn(&KnownKeys) -> bool + Send + Sync),
    ) -> Option<Arc<KnownKeys>> {
        let _turn = slot.turn.lock().await;
        let now = (self.clock)();
        let speaks = by_notary.is_some_and(|needs| needs.values().any(Need::is_request));
        {
            // Whoever had the turn before may have fetched what we want, or in vain.
            let state = lock(&slot.state);
            let not_before = if speaks { state.not_for_requests_before } else { state.not_before };
            let too_soon = not_before.is_some_and(|time| now < time);
            if too_soon || state.known.as_deref().is_some_and(fits) {
                return state.known.clone();
            }
        }
        let mut problems = Vec::new();
        let mut answered = false;
        match self.of_server(server, now).await {
            Ok(keys) => {
                answered = true;
                self.learn(slot, server, |known| KnownKeys::updated(known, keys, now)).await;
            }
            Err(error) => problems.push(error),
        }
        let fit = || lock(&slot.state).known.as_deref().is_some_and(fits);
        // A notary's own keys come from itself alone: nobody who has a notary's turn waits for another one's.
        let needs = by_notary.filter(|_| !self.settings.notaries.iter().any(|notary| notary == server));
        if let Some(needs) = needs {
            for notary in &self.settings.notaries {
                if fit() {
                    break;
                }
                match Box::pin(self.of_notary(notary, server, needs, now)).await {
                    Ok(documents) => {
                        for keys in documents {
                            let vouched = |known| KnownKeys::vouched(known, keys, now, answered);
                            self.learn(slot, server, vouched).await;
                        }
                    }
                    Err(error) => problems.push(format!("{notary}, as a notary: {error}")),
                }
            }
        }
        let fit = fit();
        let mut state = lock(&slot.state);
        // What is asked for in a server's name, by whomever, doesn't put off what events need.
        let counts = fit || !speaks;
        if counts {
            state.in_vain = if fit { 0 } else { state.in_vain.saturating_add(1) };
        }
        state.silent = !answered;
        let first = if answered { LEAST_INTERVAL } else { FIRST_RETRY };
        let doublings = state.in_vain.saturating_sub(1).min(16);
        // From when the answer came: it may have taken long.
        let now = (self.clock)();
        if counts {
            state.not_before = Some(later(now, (first * (1 << doublings)).min(LONGEST_RETRY)));
        }
        state.not_for_requests_before = Some(later(now, first));
        state.problem = (!problems.is_empty()).then(|| problems.join("; "));
        state.known.clone()
    }

    async fn of_server(
        &self,
        server: &ServerName,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<ServerKeys, String> {
        let document = self.fetch.ask_server(server).await?;
        ServerKeys::read(&document, server, now, &self.settings.blocked).map_err(|error| error.to_string())
    }

    async fn of_notary(
        &self,
        notary: &ServerName,
        server: &ServerName,
        needs: &BTreeMap<Vec<String>, Need>,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Vec<ServerKeys>, String> {
        let own = self.notary_keys(notary, now).await?;
        let key_ids: Vec<String> = needs.keys().flatten().take(64).cloned().collect();
        let latest = later(now, MAX_VALIDITY);
        let minimum = needs.values().filter_map(|need| need.valid_until(now, latest)).max().unwrap_or(now);
        let answer = self.fetch.ask_notary(notary, server, &key_ids, minimum).await?;
        let key = |id: &str| Some(own.find(id, crate::Purpose::Request, now)?.bytes());
        read_notary_answer(&answer, server, notary, key, now, &self.settings.blocked)
            .map_err(|error| error.to_string())
    }

    async fn notary_keys(
        &self,
        notary: &ServerName,
        now: MilliSecondsSinceUnixEpoch,
    ) -> Result<Arc<KnownKeys>, String> {
        if notary == self.us {
            return Err("that is us".into());
        }
        let slot = self.slot(notary);
        let fits = |known: &KnownKeys| now <= known.valid_until;
        let known = self.remembered(&slot, notary).await;
        let known = if known.as_deref().is_some_and(fits) {
            known
        } else {
            self.refresh(&slot, notary, None, &fits).await
        };
        known.ok_or_else(|| "its own keys can't be had".into())
    }

    /// Keep what was read, together with what was known, in the store and then in memory.
    async fn learn(
        &self,
        slot: &Server,
        server: &ServerName,
        together: impl FnOnce(Option<KnownKeys>) -> KnownKeys,
    ) {
        let before = lock(&slot.state).known.clone();
        let known = together(before.as_deref().cloned());
        self.store.save(server, &known).await;
        lock(&slot.state).known = Some(Arc::new(known));
    }
}

/// Nothing that holds one of these locks can panic, and what they hold is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
