//! Asking servers for whole lists of devices, where something of them was missed or nothing is known yet.
//!
//! Which lists these are is in the database, so that nothing is forgotten by a restart. Of one server a few are asked for at
//! a time; one that doesn't answer is left alone for longer and longer, an hour at most, until it speaks. Somebody who
//! waits for a list has it tried earlier.
//!
//! What comes while a list is fetched may be newer than what is fetched: then it is fetched once more.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use hearth_federation::{ClientError, ServerRequest};
use parking_lot::Mutex;
use ruma::{OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio::sync::{MutexGuard, Notify, Semaphore, oneshot};

use super::foreign;
use crate::{
    environment::Environment,
    peers::{Peers, path},
    shutdown::Shutdown,
    store::{
        self, Batch, Store,
        followed::{
            MOST_DEVICES, delete_foreign_keys, refreshed, set_foreign_device, set_foreign_key, unfollow,
        },
    },
};

/// Lists of one server that are fetched at a time, and of all.
const OF_SERVER: usize = 4;
const AT_ONCE: usize = 64;

/// How long a server may take, and how much it may say: more than the devices of anybody.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// The longest that a server is left alone.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Who waits for a list has its server tried, but not more often than this.
const SHORTEST_WAIT_MS: i64 = 10_000;

/// Writes about one user are made one after the other; users share these locks.
const TURNS: usize = 64;

pub struct Resyncs {
    store: Store,
    peers: Arc<Peers>,
    environment: Environment,
    inner: Mutex<Inner>,
    turns: Vec<tokio::sync::Mutex<()>>,
    slots: Semaphore,
    sooner: Notify,
}

#[derive(Default)]
struct Inner {
    servers: HashMap<OwnedServerName, Server>,
    /// Lists that are being fetched, each with the greatest number of a change that has come since.
    fetching: HashMap<OwnedUserId, i64>,
}

/// A server that is to be asked.
#[derive(Default)]
struct Server {
    users: VecDeque<OwnedUserId>,
    known: BTreeSet<OwnedUserId>,
    waiting: HashMap<OwnedUserId, Vec<oneshot::Sender<Fetched>>>,
    working: usize,
    failures: u32,
    failed_at: i64,
    /// It isn't asked before.
    retry_at: i64,
}

/// The answer of a server.
#[derive(Deserialize)]
struct Listed {
    user_id: OwnedUserId,
    stream_id: i64,
    devices: Vec<Box<RawValue>>,
    #[serde(default)]
    master_key: Option<Value>,
    #[serde(default)]
    self_signing_key: Option<Value>,
}

/// What became of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fetched {
    /// All of it is known.
    Whole,
    /// The list isn't followed, or there is no such user.
    Gone,
    /// Its server didn't give it.
    Failed,
    /// Something newer came meanwhile.
    Older,
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Peer(#[from] ClientError),
    #[error("its answer can't be used: {0}")]
    Answer(#[from] serde_json::Error),
    #[error("the list is somebody else's")]
    Stranger,
    #[error(transparent)]
    Own(#[from] store::Error),
}

impl Resyncs {
    pub fn new(store: Store, peers: Arc<Peers>, environment: Environment) -> Arc<Self> {
        Arc::new(Self {
            store,
            peers,
            environment,
            inner: Mutex::default(),
            turns: (0..TURNS).map(|_| tokio::sync::Mutex::default()).collect(),
            slots: Semaphore::new(AT_ONCE),
            sooner: Notify::new(),
        })
    }

    /// Asks for what an earlier run has left, and again for what failed, until the server stops.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let mut heard = self.peers.heard();
        match self.store.stale_lists().await {
            Ok(users) => {
                let users = users.into_iter().filter_map(|user_id| UserId::parse(user_id).ok());
                users.for_each(|user_id| self.want(&user_id));
            }
            Err(cause) => {
                tracing::error!(%cause, "lists of devices elsewhere stay unknown until somebody asks for them");
            }
        }
        loop {
            let now = self.environment.clock.now_ms();
            let next = {
                let inner = self.inner.lock();
                // Those that are being asked go on by themselves.
                let waiting = |server: &&Server| !server.users.is_empty() && server.working == 0;
                inner.servers.values().filter(waiting).map(|server| server.retry_at).min()
            };
            let wait = next.map_or(LONGEST_WAIT, |at| Duration::from_millis((at - now).max(0) as u64));
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                server = heard.recv() => {
                    if let Ok(server) = server {
                        self.forgive(&server);
                    }
                }
                () = self.sooner.notified() => {}
                () = tokio::time::sleep(wait) => {
                    let servers: Vec<OwnedServerName> = self.inner.lock().servers.keys().cloned().collect();
                    for server in &servers {
                        self.work(server);
                    }
                }
            }
        }
    }

    /// Whoever writes about a user's list has the turn.
    pub(super) async fn turn(&self, user_id: &UserId) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        user_id.hash(&mut hasher);
        self.turns[(hasher.finish() % TURNS as u64) as usize].lock().await
    }

    /// A change of that number was heard of: a list that is being fetched may be from before it.
    pub(super) fn heard_of(&self, user_id: &UserId, stream_id: i64) {
        if let Some(newest) = self.inner.lock().fetching.get_mut(user_id) {
            *newest = stream_id.max(*newest);
        }
    }

    /// A list is stale.
    pub(super) fn want(self: &Arc<Self>, user_id: &UserId) {
        self.inner.lock().servers.entry(user_id.server_name().to_owned()).or_default().add(user_id);
        self.work(user_id.server_name());
    }

    /// The same for somebody who waits: whether all of it is known, once that is clear.
    pub(super) fn wanted_now(self: &Arc<Self>, user_id: &UserId) -> oneshot::Receiver<Fetched> {
        let (done, result) = oneshot::channel();
        let now = self.environment.clock.now_ms();
        {
            let mut inner = self.inner.lock();
            let server = inner.servers.entry(user_id.server_name().to_owned()).or_default();
            server.add(user_id);
            if server.failures > 0 && now - server.failed_at < SHORTEST_WAIT_MS {
                let _ = done.send(Fetched::Failed);
                return result;
            }
            server.retry_at = 0;
            server.waiting.entry(user_id.to_owned()).or_default().push(done);
        }
        self.work(user_id.server_name());
        result
    }

    /// A server has spoken: it is there.
    fn forgive(self: &Arc<Self>, server: &ServerName) {
        {
            let mut inner = self.inner.lock();
            let Some(known) = inner.servers.get_mut(server).filter(|known| known.failures > 0) else {
                return;
            };
            (known.failures, known.retry_at) = (0, 0);
        }
        self.work(server);
    }

    /// Has a server asked, unless it is left alone.
    fn work(self: &Arc<Self>, name: &ServerName) {
        let now = self.environment.clock.now_ms();
        let mut inner = self.inner.lock();
        let Some(server) = inner.servers.get_mut(name) else { return };
        if server.retry_at > now {
            self.sooner.notify_one();
            return;
        }
        for _ in 0..OF_SERVER.saturating_sub(server.working).min(server.users.len()) {
            server.working += 1;
            tokio::spawn(Arc::clone(self).ask_all(name.to_owned()));
        }
    }

    async fn ask_all(self: Arc<Self>, name: OwnedServerName) {
        while let Some(user_id) = self.next(&name) {
            // They are never closed.
            let _slot = self.slots.acquire().await.ok();
            let fetched = self.fetch(&user_id).await;
            let fetched = fetched.unwrap_or_else(|failure| {
                tracing::debug!(%user_id, %failure, "a list of devices can't be fetched");
                Fetched::Failed
            });
            self.fetched(&name, &user_id, fetched);
            // A change may have been missed since it was written, and was not asked for because this was at work.
            let stale =
                self.store.followed(user_id.as_str()).await.ok().flatten().is_some_and(|row| row.stale);
            if stale && fetched == Fetched::Whole {
                self.want(&user_id);
            }
        }
        self.sooner.notify_one();
    }

    fn fetched(&self, name: &ServerName, user_id: &UserId, fetched: Fetched) {
        let now = self.environment.clock.now_ms();
        let mut inner = self.inner.lock();
        inner.fetching.remove(user_id);
        let Some(server) = inner.servers.get_mut(name) else { return };
        server.known.remove(user_id);
        match fetched {
            Fetched::Failed => {
                server.failed(now);
                server.add(user_id);
                if server.failures == 1 {
                    tracing::info!(server = %name, "a server doesn't give lists of devices; it is asked again");
                }
            }
            Fetched::Older => {
                server.failures = 0;
                server.add(user_id);
                return;
            }
            Fetched::Whole | Fetched::Gone => server.failures = 0,
        }
        for waiting in server.waiting.remove(user_id).into_iter().flatten() {
            // Who doesn't wait any more needn't know.
            let _ = waiting.send(fetched);
        }
    }

    /// Whose list is to be fetched next of a server; whoever asks for it is at work no more if there is none.
    fn next(&self, name: &ServerName) -> Option<OwnedUserId> {
        let now = self.environment.clock.now_ms();
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let server = inner.servers.get_mut(name)?;
        let next = if server.retry_at > now { None } else { server.users.pop_front() };
        if let Some(user_id) = &next {
            inner.fetching.insert(user_id.clone(), i64::MIN);
        } else {
            server.working -= 1;
            if server.retry_at > now {
                // Nobody waits for a server that is left alone.
                let waiting = std::mem::take(&mut server.waiting);
                for waiting in waiting.into_values().flatten() {
                    let _ = waiting.send(Fetched::Failed);
                }
            } else if server.working == 0 && server.users.is_empty() {
                inner.servers.remove(name);
            }
        }
        next
    }

    async fn fetch(&self, user_id: &UserId) -> Result<Fetched, Failure> {
        let followed = self.store.followed(user_id.as_str()).await?;
        match followed {
            None => return Ok(Fetched::Gone),
            Some(row) if !row.stale => return Ok(Fetched::Whole),
            Some(_) => {}
        }
        let target = path("/_matrix/federation/v1/user/devices", &[user_id.as_str()]);
        let request = ServerRequest::get(target).limit(MAX_BYTES).timeout(TIMEOUT);
        let answer = match self.peers.send(user_id.server_name(), request).await {
            Ok(answer) => answer,
            Err(ClientError::Refused { status, .. }) if matches!(status.as_u16(), 403 | 404) => {
                let _turn = self.turn(user_id).await;
                self.store.commit(Vec::from(unfollow(user_id.as_str()))).await?;
                return Ok(Fetched::Gone);
            }
            Err(cause) => return Err(cause.into()),
        };
        let listed: Listed = serde_json::from_slice(&answer.body)?;
        if listed.user_id != user_id || listed.stream_id < 0 {
            return Err(Failure::Stranger);
        }
        self.keep(user_id, listed).await
    }

    async fn keep(&self, user_id: &UserId, listed: Listed) -> Result<Fetched, Failure> {
        let user = user_id.as_str();
        let mut batch = Batch::new();
        batch.extend(delete_foreign_keys(user));
        for device in listed.devices.iter().take(MOST_DEVICES as usize) {
            if let Some(device) = foreign::listed_device(user_id, device) {
                batch.push(set_foreign_device(user, &device.device_id, device.keys, device.display_name));
            }
        }
        for row in foreign::own_keys(user_id, listed.master_key, listed.self_signing_key) {
            batch.push(set_foreign_key(&row));
        }
        let _turn = self.turn(user_id).await;
        let newest = self.inner.lock().fetching.get(user_id).copied().unwrap_or(i64::MIN);
        let older = newest > listed.stream_id;
        batch.push(refreshed(user, listed.stream_id, older));
        match self.store.commit(batch).await {
            Ok(_) if older => Ok(Fetched::Older),
            Ok(_) => Ok(Fetched::Whole),
            // It isn't followed any more.
            Err(store::Error::Conflict) => Ok(Fetched::Gone),
            Err(cause) => Err(cause.into()),
        }
    }
}

impl Server {
    fn add(&mut self, user_id: &UserId) {
        if self.known.insert(user_id.to_owned()) {
            self.users.push_back(user_id.to_owned());
        }
    }

    fn failed(&mut self, now: i64) {
        // Those that were asked beside it failed for the same reason.
        if self.retry_at <= now {
            self.failures = self.failures.saturating_add(1);
            let wait = Duration::from_secs(10 << self.failures.saturating_sub(1).min(9)).min(LONGEST_WAIT);
            self.retry_at = now.saturating_add(wait.as_millis() as i64);
        }
        self.failed_at = now;
    }
}
