//! Sessions: from an access token to the account and device that it speaks for.
//!
//! This is on the way of every request, so what was found is kept in memory for a moment. Whatever ends sessions in
//! this process drops it from there at once ([`Sessions::changing`]); what another process did (the command line) is seen
//! within [`FRESH_MS`]. It owns the log of when devices were last seen, which it writes seldom and in bulk.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{DeviceId, OwnedDeviceId, OwnedUserId, UserId};
use sha2::{Digest as _, Sha256};
use tokio::{sync::Notify, time::MissedTickBehavior};

use super::Error;
use crate::{
    environment::Environment,
    keys::DeviceLists,
    queue::Queues,
    store::{
        Batch, Statement, Store,
        device::device_seen,
        token::{SessionRow, confirm_refresh, tell_other_processes},
    },
};

/// How long a session is believed in without asking the database again.
const FRESH_MS: i64 = 2_000;

/// Sessions kept in memory.
const KEPT: usize = 16_384;

/// How often to look whether another process ended sessions.
const WATCH: Duration = Duration::from_millis(500);

/// How often the times at which devices were seen are written.
const SEEN_EVERY_MS: i64 = 60_000;

/// Spent refresh tokens are remembered, so that their theft is noticed, for this long: thirty days.
pub(super) const SPENT_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// What is stored of a token.
pub(super) type TokenHash = [u8; 32];

/// Who a request speaks for.
#[derive(Clone, Debug)]
pub struct Session {
    /// The account's number: the name of its queue.
    pub recipient: i64,
    pub user_id: OwnedUserId,
    /// The device's number.
    pub device: i64,
    pub device_id: OwnedDeviceId,
    pub admin: bool,
    /// The account may only log out ("Account locking").
    pub(super) locked: bool,
    /// The account may read, but hardly write ("Account suspension").
    pub suspended: bool,
    /// When the token ends, if it does, in Unix milliseconds.
    pub expires_ts: Option<i64>,
    /// Nobody has registered the account ("Guest Access").
    pub guest: bool,
    pub(super) token: TokenHash,
}

struct Known {
    session: Session,
    checked_ts: i64,
}

/// Where a request came from.
#[derive(Clone, Debug)]
pub struct Origin {
    pub ip: IpAddr,
    pub user_agent: Option<String>,
}

/// When (in Unix milliseconds) and from where a device last made a request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub at: i64,
    pub ip: String,
    pub agent: Option<String>,
}

#[derive(Clone)]
pub struct Sessions(Arc<Inner>);

struct Inner {
    store: Store,
    device_lists: DeviceLists,
    queues: Queues,
    environment: Environment,
    known: Mutex<LruCache<TokenHash, Known>>,
    /// How often this process noted in the database that it ended sessions.
    ended: AtomicI64,
    /// Counts the calls of `forget`, so that what was read before one is not kept after it.
    forgotten: AtomicU64,
    seen: Mutex<BTreeMap<i64, Seen>>,
    seen_written: AtomicI64,
    noticed: Arc<Notify>,
}

impl Sessions {
    pub fn new(store: Store, queues: Queues, environment: Environment) -> Self {
        let seen_written = AtomicI64::new(environment.clock.now_ms());
        Self(Arc::new(Inner {
            device_lists: DeviceLists::new(store.clone()),
            store,
            queues,
            environment,
            known: Mutex::new(LruCache::unbounded()),
            ended: AtomicI64::new(0),
            forgotten: AtomicU64::new(0),
            seen: Mutex::default(),
            seen_written,
            noticed: Arc::default(),
        }))
    }

    /// What tells others of devices that come and go.
    pub fn device_lists(&self) -> &DeviceLists {
        &self.0.device_lists
    }

    /// The session of an access token, unless its account is locked.
    pub async fn authenticate(&self, token: &str, origin: &Origin) -> Result<Session, Error> {
        let session = self.authenticate_even_locked(token, origin).await?;
        if session.locked { Err(Error::Locked) } else { Ok(session) }
    }

    /// For logging out, which a locked account still may.
    pub async fn authenticate_even_locked(&self, token: &str, origin: &Origin) -> Result<Session, Error> {
        let now = self.0.environment.clock.now_ms();
        let session = self.find(hash(token), now).await?;
        self.note_at(session.device, origin, now);
        Ok(session)
    }

    /// A device is in use without making requests.
    pub fn note(&self, session: &Session, origin: &Origin) {
        self.note_at(session.device, origin, self.0.environment.clock.now_ms());
    }

    /// Whether a session that was authenticated before still is, or what its client is to be told: for requests that
    /// wait. Cheap.
    pub async fn still(&self, session: &Session) -> Result<(), Error> {
        let now = self.0.environment.clock.now_ms();
        match self.find(session.token, now).await {
            Ok(session) if session.locked => Err(Error::Locked),
            // When the database is in trouble, waiting on is better than logging everybody out.
            Ok(_) | Err(Error::Store(_)) => Ok(()),
            Err(cause) => Err(cause),
        }
    }

    /// A session that was authenticated before, as it is now: for requests that bring no token.
    pub async fn again(&self, session: &Session) -> Result<Session, Error> {
        let session = self.find(session.token, self.0.environment.clock.now_ms()).await?;
        if session.locked { Err(Error::Locked) } else { Ok(session) }
    }

    /// Changes whenever any session may have ended or changed. For those who hold one for long.
    pub fn generation(&self) -> u64 {
        self.0.forgotten.load(Ordering::Acquire)
    }

    /// Devices of this account lost their tokens, or the account changed: nothing that is known of it holds any more.
    /// Requests that wait look at their session again.
    fn forget(&self, recipient: i64) {
        self.0.forgotten.fetch_add(1, Ordering::AcqRel);
        {
            let mut known = self.0.known.lock();
            let of_account =
                known.iter().filter(|(_, known)| known.session.recipient == recipient).map(|(hash, _)| *hash);
            for hash in of_account.collect::<Vec<_>>() {
                known.pop(&hash);
            }
        }
        self.0.queues.tails().nudge(recipient);
    }

    /// A batch with which sessions of an account end or change: what is known of them holds no more, before word of it
    /// wakes their readers.
    pub(super) fn changing(&self, recipient: i64, statements: Vec<Statement>) -> Batch {
        let mut batch = Batch::from(statements);
        let sessions = self.clone();
        batch.on_commit(move |_| sessions.forget(recipient));
        batch
    }

    /// The same for other processes too: they notice.
    pub(super) fn ending(&self, recipient: i64, statements: Vec<Statement>) -> Batch {
        let mut batch = self.changing(recipient, statements);
        batch.push(tell_other_processes());
        let inner = Arc::clone(&self.0);
        batch.on_commit(move |_| {
            inner.ended.fetch_add(1, Ordering::AcqRel);
        });
        batch
    }

    /// Notices for ever that another process (the command line) ended sessions: requests that wait look at theirs again.
    pub async fn watch(self) {
        let mut ticks = tokio::time::interval(WATCH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // This process had ended none yet when it read that.
        let (mut all_before, mut own_before) = (self.0.store.told_at_start(), 0);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let own = self.0.ended.load(Ordering::Acquire);
            let all = match self.0.store.told_other_processes().await {
                Ok(all) => all,
                // The next look may succeed, and compares with the last one that did.
                Err(cause) => {
                    // Once for all looks that fail in a row: there are several a second.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%cause, "can't see whether the command line ended sessions; trying on");
                    }
                    continue;
                }
            };
            failing = false;
            if all - all_before != own - own_before {
                self.0.forgotten.fetch_add(1, Ordering::AcqRel);
                self.0.known.lock().clear();
                self.0.queues.tails().nudge_all();
                self.0.noticed.notify_one();
                // A position of our own: with it the readers hear of what that process has delivered.
                let mut batch = Batch::new();
                batch.step();
                if let Err(cause) = self.0.store.commit(batch).await {
                    tracing::warn!(%cause, "what the command line did is told with what is written next");
                }
            }
            (all_before, own_before) = (all, own);
        }
    }

    /// Notified when another process has changed accounts. For one who waits.
    pub fn noticed(&self) -> Arc<Notify> {
        Arc::clone(&self.0.noticed)
    }

    /// When a device was last seen, if that is newer than what is stored.
    pub fn seen(&self, device: i64) -> Option<Seen> {
        self.0.seen.lock().get(&device).cloned()
    }

    /// Writes down when devices were seen. For the end of the process; otherwise it happens by itself.
    pub async fn flush(&self) -> Result<(), Error> {
        let seen = std::mem::take(&mut *self.0.seen.lock());
        if seen.is_empty() {
            return Ok(());
        }
        let statements: Vec<_> = seen
            .into_iter()
            .map(|(device, seen)| device_seen(device, seen.at, seen.ip, seen.agent))
            .collect();
        self.0.store.commit(statements).await?;
        Ok(())
    }

    async fn find(&self, hash: TokenHash, now: i64) -> Result<Session, Error> {
        if let Some(known) = self.0.known.lock().get(&hash)
            && now - known.checked_ts < FRESH_MS
        {
            return alive(known, now);
        }
        let forgotten = self.0.forgotten.load(Ordering::Acquire);
        let row = self.0.store.session(&encode(hash)).await?;
        let Some(row) = row else {
            self.0.known.lock().pop(&hash);
            return Err(Error::UnknownToken { soft_logout: false });
        };
        let known = known(hash, &row, now)?;
        let session = alive(&known, now)?;
        if row.unconfirmed
            && let Some(refresh_hash) = &row.refresh_hash
        {
            self.confirm(row.recipient, row.device, refresh_hash, now).await?;
            return Ok(session);
        }
        let mut all = self.0.known.lock();
        if self.0.forgotten.load(Ordering::Acquire) == forgotten {
            all.put(hash, known);
            if all.len() > KEPT {
                all.pop_lru();
            }
        }
        Ok(session)
    }

    /// The first use of tokens that a refresh gave ends the ones before them ("Refreshing access tokens").
    pub(super) async fn confirm(
        &self,
        recipient: i64,
        device: i64,
        refresh_hash: &str,
        now: i64,
    ) -> Result<(), Error> {
        let statements = confirm_refresh(refresh_hash, device, now - SPENT_KEPT_MS);
        self.0.store.commit(self.changing(recipient, Vec::from(statements))).await?;
        Ok(())
    }

    fn note_at(&self, device: i64, origin: &Origin, now: i64) {
        {
            let mut seen = self.0.seen.lock();
            match seen.get_mut(&device) {
                // One request a second says as much as a thousand.
                Some(seen) if now - seen.at < 1_000 => return,
                _ => {
                    let agent = origin.user_agent.as_ref().map(|agent| agent.replace('\0', ""));
                    seen.insert(device, Seen { at: now, ip: origin.ip.to_string(), agent });
                }
            }
        }
        let written = self.0.seen_written.load(Ordering::Relaxed);
        if now - written >= SEEN_EVERY_MS
            && self
                .0
                .seen_written
                .compare_exchange(written, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let sessions = self.clone();
            tokio::spawn(async move {
                if let Err(cause) = sessions.flush().await {
                    tracing::warn!(%cause, "could not write down when devices were seen");
                }
            });
        }
    }
}

fn known(token: TokenHash, row: &SessionRow, now: i64) -> Result<Known, Error> {
    let user_id = UserId::parse(&row.user_id).map_err(|cause| Error::Invalid(cause.to_string()))?;
    let session = Session {
        recipient: row.recipient,
        user_id,
        device: row.device,
        device_id: <&DeviceId>::from(row.device_id.as_str()).to_owned(),
        admin: row.admin,
        locked: row.locked,
        suspended: row.suspended,
        expires_ts: row.expires_ts,
        guest: row.guest,
        token,
    };
    Ok(Known { session, checked_ts: now })
}

fn alive(known: &Known, now: i64) -> Result<Session, Error> {
    if known.session.expires_ts.is_some_and(|expires| expires <= now) {
        return Err(Error::UnknownToken { soft_logout: true });
    }
    Ok(known.session.clone())
}

pub(super) fn hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// As it is stored.
pub(super) fn encode(hash: TokenHash) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
    STANDARD_NO_PAD.encode(hash)
}
