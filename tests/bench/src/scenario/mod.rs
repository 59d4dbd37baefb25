//! The loads, one file each, and what they share: accounts, rooms, work done a few at a time.
//!
//! A scenario makes its own users and rooms before it starts a clock, so that any of them can run alone and on a server
//! that already holds something.

pub(crate) mod chat;
pub(crate) mod hot_room;
pub(crate) mod idle;
pub(crate) mod join_storm;
pub(crate) mod long_room;
pub(crate) mod old_room;
pub(crate) mod pair;
pub(crate) mod send;
pub(crate) mod sliding_rooms;
pub(crate) mod sockets;
pub(crate) mod start;
pub(crate) mod storm;
pub(crate) mod sync_rooms;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use crate::client::{Session, User, register};
use crate::connection::Connection;
use crate::report::{Better, Report, Size};
use crate::server::{Server, Window};

/// Requests at once while users and rooms are made: enough to let a server batch, too few to upset one.
const SETUP_WIDTH: usize = 8;

/// A run: the server, what is known of it so far, and the accounts made on it.
pub(crate) struct Bench {
    pub(crate) server: Server,
    /// Another server, with which it federates; it runs only while it is needed.
    pub(crate) peer: Option<Server>,
    pub(crate) secret: Option<String>,
    pub(crate) report: Report,
    /// Begins every localpart of this run, so that a run can be repeated on the same data.
    tag: String,
    users_made: usize,
}

impl Bench {
    pub(crate) fn new(server: Server, peer: Option<Server>, secret: Option<String>, report: Report) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let tag = format!("b{:x}", now.as_millis());
        Self { server, peer, secret, report, tag, users_made: 0 }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Says under the name of a scenario what was done, so that reports of runs of other sizes are seen to differ.
    pub(crate) fn size(&mut self, scenario: &str, text: impl Into<String>) {
        self.report.sizes.push(Size { scenario: scenario.to_owned(), text: text.into() });
    }

    /// The servers whose CPU is counted.
    pub(crate) fn servers(&self) -> Vec<&Server> {
        let peer = self.peer.iter().filter(|peer| peer.is_known());
        std::iter::once(&self.server).chain(peer).collect()
    }

    pub(crate) fn window(&self) -> Window {
        Window::open(&self.servers())
    }

    /// Makes `count` accounts.
    pub(crate) async fn users(&mut self, count: usize) -> Result<Vec<User>> {
        self.users_at(self.address(), count).await
    }

    /// Makes `count` accounts on the server at that address.
    pub(crate) async fn users_at(&mut self, address: SocketAddr, count: usize) -> Result<Vec<User>> {
        let localparts =
            (0..count).map(|index| format!("{}-{}", self.tag, self.users_made + index)).collect();
        self.users_made += count;
        let secret: Option<Rc<str>> = self.secret.as_deref().map(Into::into);
        in_parallel(localparts, move |localpart: String| {
            let secret = secret.clone();
            async move { register(&mut Connection::new(address), secret.as_deref(), &localpart).await }
        })
        .await
    }

    /// Adds the memory of the server now, under `scenario`.
    pub(crate) fn add_memory(&mut self, scenario: &str) {
        let memory = self.server.memory();
        let mut add = |label: &str, better: Better, bytes: Option<u64>| {
            self.report.add(scenario, label, "MiB", better, bytes.map(mebibytes));
        };
        add("memory after", Better::Lower, memory.map(|memory| memory.proportional));
        add("resident after", Better::Context, memory.map(|memory| memory.resident));
        add("peak resident", Better::Context, memory.map(|memory| memory.peak));
    }
}

/// Makes a room of `members`, the first of whom creates it. Returns its id.
pub(crate) async fn room_of(address: SocketAddr, members: Vec<User>) -> Result<Rc<str>> {
    let mut room: Option<Rc<str>> = None;
    for user in members {
        let mut session = Session::new(address, user);
        match &room {
            None => room = Some(session.create_room("Bench").await?),
            Some(room) => session.join(room).await?,
        }
    }
    room.context("a room needs a member")
}

/// Runs `work` on each item, [`SETUP_WIDTH`] at a time; the results are in the order of the items.
pub(crate) async fn in_parallel<Item, Output, Work, Working>(
    items: Vec<Item>,
    work: Work,
) -> Result<Vec<Output>>
where
    Item: 'static,
    Output: 'static,
    Work: Fn(Item) -> Working + 'static,
    Working: Future<Output = Result<Output>> + 'static,
{
    let mut outputs: Vec<_> = items.iter().map(|_| None).collect();
    let queue = Rc::new(RefCell::new(items.into_iter().enumerate()));
    let work = Rc::new(work);
    let mut workers = JoinSet::new();
    for _ in 0..SETUP_WIDTH {
        let (queue, work) = (Rc::clone(&queue), Rc::clone(&work));
        workers.spawn_local(async move {
            let mut done = Vec::new();
            loop {
                // Not in the loop's condition, which would keep the queue borrowed during the work.
                let next = queue.borrow_mut().next();
                let Some((place, item)) = next else { return anyhow::Ok(done) };
                done.push((place, work(item).await?));
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        for (place, output) in worker?? {
            outputs[place] = Some(output);
        }
    }
    Ok(outputs.into_iter().flatten().collect())
}

pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1024.0 * 1024.0)
}
