//! Connections that wait for their next request.
//!
//! Bounded in number, in number for each server, and in time. A connection that is thrown out is closed; so is one to where its
//! server isn't found any more, however often it is used.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::SendRequest;
use ruma::{OwnedServerName, ServerName};
use rustls_pki_types as pki;
use tokio::time::{self, Instant};

use crate::discovery::Destination;

/// An open connection.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Where a connection leads to, and whose certificate was seen there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: SocketAddr,
    pub(super) tls_name: pki::ServerName<'static>,
}

impl Place {
    fn is_of(&self, destination: &Destination) -> bool {
        self.tls_name == destination.tls_name && destination.addresses.contains(&self.address)
    }
}

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
    connections: VecDeque<Kept>,
    /// Somebody is on their way to close the old ones.
    swept: bool,
}

struct Kept {
    server: OwnedServerName,
    sender: Sender,
    place: Place,
    since: Instant,
}

impl Pool {
    pub(super) fn new(timeout: Duration, most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), timeout, most, most_of_one })
    }

    /// An open connection to a server that is found there.
    pub(super) fn take(&self, server: &ServerName, destination: &Destination) -> Option<(Sender, Place)> {
        let mut idle = self.lock();
        let oldest = Instant::now().checked_sub(self.timeout);
        loop {
            let found = idle.connections.iter().rposition(|kept| kept.server == server)?;
            let Kept { sender, place, since, .. } = idle.connections.remove(found)?;
            if sender.is_ready() && place.is_of(destination) && oldest.is_none_or(|oldest| since > oldest) {
                return Some((sender, place));
            }
        }
    }

    /// Keep a connection that has finished its request.
    pub(super) fn keep(self: &Arc<Self>, server: &ServerName, sender: Sender, place: Place) {
        let mut idle = self.lock();
        let of_server = idle.connections.iter().filter(|kept| kept.server == server).count();
        if of_server >= self.most_of_one || self.most == 0 {
            return;
        }
        if idle.connections.len() >= self.most {
            idle.connections.pop_front();
        }
        let (server, since) = (server.to_owned(), Instant::now());
        idle.connections.push_back(Kept { server, sender, place, since });
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
        idle.connections.retain(|kept| !kept.sender.is_closed() && now - kept.since < timeout);
        if idle.connections.is_empty() {
            idle.swept = false;
            return;
        }
    }
}
