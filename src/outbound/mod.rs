//! What other servers are sent: one reader of a queue per server.
//!
//! A server is a recipient like any other ([`Destinations`]); events that are made here are put into its queue with them. A
//! server that something waits for has a task, which sends one transaction after the other, in order, each until it is
//! taken ([`sender`]); the others have none. One that doesn't answer is tried again later and later, up to an hour, and
//! sooner if it speaks ([`spoken`]); all such times are in one list. Once it has failed for some seconds it is *behind*: the store's writer puts nothing into
//! its queue any more, so that thousands of dead servers cost nothing, and when it is back it gets what it missed from the
//! logs of its rooms ([`backlog`]). From which position on its queue is filled again is exact, because that is written like
//! anything else.
//!
//! Specification: [Transactions](https://spec.matrix.org/v1.19/server-server-api/#transactions) (TX-01, TX-02, TX-06).

mod backlog;
mod destinations;
mod devices;
mod fading;
mod metrics;
mod sender;
mod spoken;
mod sweep;
#[cfg(test)]
mod tests;
mod transaction;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use ruma::OwnedServerName;
use tokio::sync::{Notify, Semaphore, mpsc};

pub use self::destinations::Destinations;
use self::transaction::Fading;
use crate::{
    environment::Environment, peers::Peers, queue::Queues, room::Rooms, shutdown::Shutdown, store::Store,
};

/// Servers that failed and are tried again at the same time. Those that answer wait for none of them.
const MOST_RETRIED: usize = 64;

/// The longest time between two attempts.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// How long a server may have failed before it is behind; and one that speaks meanwhile, which is more likely started again and
/// again than gone: who is behind gets only the last of what was said.
const BEHIND_AFTER: Duration = Duration::from_secs(7);
const SPEAKER_BEHIND_AFTER: Duration = Duration::from_mins(1);

pub struct Outbound {
    server_name: OwnedServerName,
    peers: Arc<Peers>,
    rooms: Arc<Rooms>,
    store: Store,
    queues: Queues,
    environment: Environment,
    destinations: Arc<Destinations>,
    inner: Mutex<Inner>,
    /// Something is to be done earlier than was known.
    sooner: Notify,
    retries: Semaphore,
}

#[derive(Default)]
struct Inner {
    /// Servers that have a task, failed, or have something that fades.
    peers: HashMap<i64, Peer>,
    /// When to try again whom, in Unix milliseconds.
    agenda: BTreeSet<(i64, i64)>,
    /// Up to where servers have everything that took the last transaction. Of others, and after a start, the database knows; a
    /// position of these may not be written down.
    sent: HashMap<i64, i64>,
}

/// A server that something is the matter with.
#[derive(Default)]
struct Peer {
    /// A task is at work.
    sending: bool,
    /// Something has come since the task looked.
    more: bool,
    failures: u32,
    /// When the first of the attempts that have failed in a row began, in Unix milliseconds.
    failing_since: i64,
    /// Nothing is put into its queue.
    behind: bool,
    /// When the last attempt failed, and when the next one is made.
    failed_at: i64,
    retry_at: i64,
    /// It has asked not to be tried before, in Unix milliseconds.
    not_before: i64,
    /// It has spoken since the last attempt began.
    spoken: bool,
    /// It had before that.
    upon_word: bool,
    /// Attempts in a row that were made upon a word of it, and failed.
    in_vain: u32,
    /// The transaction that wasn't taken yet: it keeps its id for as long as it is the same.
    unanswered: Option<sender::Unanswered>,
    fading: Fading,
}

impl Outbound {
    pub fn new(
        server_name: OwnedServerName,
        peers: Arc<Peers>,
        rooms: Arc<Rooms>,
        store: Store,
        queues: Queues,
        environment: Environment,
        destinations: Arc<Destinations>,
    ) -> Arc<Self> {
        Arc::new(Self {
            server_name,
            peers,
            rooms,
            store,
            queues,
            environment,
            destinations,
            inner: Mutex::default(),
            sooner: Notify::new(),
            retries: Semaphore::new(MOST_RETRIED),
        })
    }

    /// Sends what is to be sent, until the server stops.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) {
        let (sender, mut waiting) = mpsc::unbounded_channel();
        self.queues.tails().send_outward(sender);
        let mut heard = self.peers.heard();
        if let Err(cause) = self.resume().await {
            tracing::error!(%cause, "servers for which something waits aren't known: they hear of it with the next event");
        }
        loop {
            let next = self.inner.lock().agenda.first().map(|(at, _)| *at);
            let now = self.environment.clock.now_ms();
            let wait = next.map_or(LONGEST_WAIT, |at| Duration::from_millis((at - now).max(0) as u64));
            // Looked at again then, should the clock have been put back.
            let wait = wait.min(LONGEST_WAIT);
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                () = tokio::time::sleep(wait) => self.try_due(),
                () = self.sooner.notified() => {}
                server = heard.recv() => {
                    if let Ok(server) = server
                        && let Some(recipient) = self.destinations.known(&server)
                    {
                        self.spoken(recipient);
                    }
                }
                recipient = waiting.recv() => match recipient {
                    Some(recipient) => self.wake(recipient),
                    None => return,
                },
            }
        }
    }

    /// What an earlier run has left.
    async fn resume(self: &Arc<Self>) -> Result<(), crate::store::Error> {
        let waiting = self.store.destinations_waiting().await?;
        let rows = self.store.destinations().await?;
        for row in rows.into_iter().filter(|row| waiting.contains(&row.recipient)) {
            {
                let inner = &mut *self.inner.lock();
                let peer = inner.peers.entry(row.recipient).or_default();
                (peer.failures, peer.retry_at) = (row.failures as u32, row.retry_ts);
                (peer.failing_since, peer.behind) = (row.failing_since, row.behind);
            }
            self.wake(row.recipient);
        }
        Ok(())
    }

    /// Something waits for a server.
    fn wake(self: &Arc<Self>, recipient: i64) {
        let now = self.environment.clock.now_ms();
        {
            let inner = &mut *self.inner.lock();
            let peer = inner.peers.entry(recipient).or_default();
            peer.more = true;
            if peer.sending {
                return;
            }
            if is_later(peer.retry_at, now) {
                inner.agenda.insert((peer.retry_at, recipient));
                self.sooner.notify_one();
                return;
            }
            peer.sending = true;
            peer.upon_word = std::mem::take(&mut peer.spoken);
        }
        tokio::spawn(Arc::clone(self).send_all(recipient));
    }

    /// A server is tried now, as one that never failed.
    fn forgive(self: &Arc<Self>, recipient: i64) {
        {
            let inner = &mut *self.inner.lock();
            let Some(peer) = inner.peers.get_mut(&recipient) else { return };
            if peer.failures == 0 {
                return;
            }
            inner.agenda.remove(&(peer.retry_at, recipient));
            peer.is_well();
        }
        self.wake(recipient);
    }

    /// Another process has changed something: maybe when servers that failed are to be tried again.
    pub async fn look_again(self: &Arc<Self>) -> Result<(), crate::store::Error> {
        for row in self.store.destinations().await? {
            if row.failures > 0 && row.retry_ts == 0 {
                self.forgive(row.recipient);
            }
        }
        Ok(())
    }

    fn try_due(self: &Arc<Self>) {
        let now = self.environment.clock.now_ms();
        let due: Vec<i64> = {
            let inner = &mut *self.inner.lock();
            let (later, due): (BTreeSet<_>, BTreeSet<_>) =
                std::mem::take(&mut inner.agenda).into_iter().partition(|(at, _)| is_later(*at, now));
            inner.agenda = later;
            due.into_iter().map(|(_, recipient)| recipient).collect()
        };
        for recipient in due {
            self.wake(recipient);
        }
    }
}

/// Whether an attempt that was put off until `at` has to wait still. Nothing is put off for longer than [`LONGEST_WAIT`]: what is,
/// was when the clock was wrong.
fn is_later(at: i64, now: i64) -> bool {
    at > now && at.saturating_sub(now) <= LONGEST_WAIT.as_millis() as i64
}
