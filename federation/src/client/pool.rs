//! Connections that wait for their next request.
//!
//! Bounded in number, in number for each server, and in time. A connection that is thrown out is closed.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use ruma::{OwnedServerName, ServerName};
use tokio::time::{self, Instant};

/// An open connection.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// The connections.
pub(super) struct Pool {
    idle: Mutex<Idle>,
    timeout: Duration,
    most: usize,
    most_of_one: usize,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last stands last.
    connections: VecDeque<(OwnedServerName, Sender, Instant)>,
    /// Somebody is on their way to close the old ones.
    swept: bool,
}

impl Pool {
    pub(super) fn new(timeout: Duration, most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), timeout, most, most_of_one })
    }

    /// An open connection to a server.
    pub(super) fn take(&self, server: &ServerName) -> Option<Sender> {
        let mut idle = self.lock();
        let oldest = Instant::now().checked_sub(self.timeout);
        loop {
            let found = idle.connections.iter().rposition(|(name, ..)| name == server)?;
            let (_, sender, since) = idle.connections.remove(found)?;
            if sender.is_ready() && oldest.is_none_or(|oldest| since > oldest) {
                return Some(sender);
            }
        }
    }

    /// Keep a connection that has finished its request.
    pub(super) fn keep(self: &Arc<Self>, server: &ServerName, sender: Sender) {
        let mut idle = self.lock();
        let of_server = idle.connections.iter().filter(|(name, ..)| name == server).count();
        if of_server >= self.most_of_one || self.most == 0 {
            return;
        }
        if idle.connections.len() >= self.most {
            idle.connections.pop_front();
        }
        idle.connections.push_back((server.to_owned(), sender, Instant::now()));
        if !std::mem::replace(&mut idle.swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self), self.timeout));
        }
    }

    /// How many connections are kept.
    pub(super) fn len(&self) -> usize {
        self.lock().connections.len()
    }

    /// Nothing that holds the lock can panic, and what it holds is whole at any time.
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Close what is old, until there is nothing left or nobody who cares.
async fn sweep(pool: Weak<Pool>, timeout: Duration) {
    loop {
        time::sleep(timeout).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut idle = pool.lock();
        let now = Instant::now();
        idle.connections.retain(|(_, sender, since)| !sender.is_closed() && now - *since < timeout);
        if idle.connections.is_empty() {
            idle.swept = false;
            return;
        }
    }
}
