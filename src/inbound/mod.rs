//! What other servers send by themselves: transactions.
//!
//! A transaction is split first, by rooms and into its other data, and from then on nothing in it can stop anything else
//! of it (I7): each room's events are verified, judged and answered for themselves, in their order. Events end in
//! [`Rooms::receive`]; what comes before some that came is fetched ([`gaps`]); other data go to whatever they are about.
//!
//! A transaction is done once, however often it comes: while it is at work, those who bring it again wait for the same
//! answer; later the answer is looked up, in memory if it is one of the last that its server was given. It is done to its end
//! whether or not somebody waits for the answer.
//!
//! Specification: [Transactions](https://spec.matrix.org/v1.19/server-server-api/#transactions).

mod doubt;
mod edus;
mod events;
mod gaps;
mod transaction;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Duration,
};

use lru::LruCache;
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

pub use self::transaction::Transaction;
use self::{doubt::Doubts, edus::Edus, gaps::Gaps};
use crate::{
    history::History,
    keys::{Followed, ToDevice},
    peers::Peers,
    presence::Presence,
    receipts::Receipts,
    room::Rooms,
    store::{self, Store, server_txn::set_server_txn},
    typing::Typing,
};

/// Transactions of one server at a time. It is to have one (TX-02), and may have given another up.
const MOST_RUNNING: usize = 4;

/// Bytes of a transaction's id.
const LONGEST_ID: usize = 255;

/// Answers of one server that are kept.
const SLOTS: i64 = 32;

/// Servers whose last answers are kept in memory, the answers of each, and the bytes of the longest of them.
const RECENT_SERVERS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
const RECENT: NonZeroUsize = NonZeroUsize::new(16).unwrap();
const SHORT: usize = 1024;

/// What was answered to a transaction.
enum Answered {
    So(Arc<str>),
    /// The database has it.
    AtLength,
}

/// Why a transaction isn't taken. Its server sends it again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("a transaction's id is {LONGEST_ID} bytes at most")]
    Id,
    #[error("{MOST_RUNNING} transactions of your server are at work already")]
    Busy,
    #[error("it failed here: {0}")]
    Failed(String),
}

/// What became of each event: nothing to say, or why it was dropped.
type Verdicts = BTreeMap<OwnedEventId, Option<String>>;

type Done = watch::Receiver<Option<Result<Arc<str>, Error>>>;

type Running = HashMap<OwnedServerName, HashMap<String, Done>>;

pub struct Inbound {
    store: Store,
    peers: Arc<Peers>,
    rooms: Arc<Rooms>,
    history: Arc<History>,
    typing: Arc<Typing>,
    presence: Arc<Presence>,
    heard: Arc<Receipts>,
    to_device: Arc<ToDevice>,
    lists: OnceLock<Arc<Followed>>,
    running: Mutex<Running>,
    gaps: Gaps,
    doubts: Doubts,
    /// The last transactions of the servers that were answered last. Those without events are nowhere else, and short answers get
    /// into the database soon. Whoever has an answer of this process is taken to try nothing again of which only the database
    /// knows; that would be done once more, and found done.
    recent: Mutex<LruCache<OwnedServerName, LruCache<String, Answered>>>,
    /// How long the events of a transaction may keep its answer waiting.
    deadline: Duration,
}

impl Inbound {
    #[expect(clippy::too_many_arguments, reason = "put together once, at the start")]
    pub fn new(
        store: Store,
        peers: Arc<Peers>,
        rooms: Arc<Rooms>,
        history: Arc<History>,
        typing: Arc<Typing>,
        presence: Arc<Presence>,
        heard: Arc<Receipts>,
        to_device: Arc<ToDevice>,
    ) -> Arc<Self> {
        let (running, gaps, recent) =
            (Mutex::default(), Gaps::new(), Mutex::new(LruCache::new(RECENT_SERVERS)));
        let doubts = Doubts::default();
        Arc::new(Self {
            store,
            peers,
            rooms,
            history,
            typing,
            presence,
            heard,
            to_device,
            lists: OnceLock::new(),
            running,
            gaps,
            doubts,
            recent,
            deadline: events::DEADLINE,
        })
    }

    /// The same, but for how long events may keep an answer waiting.
    #[cfg(test)]
    fn answering_within(self: Arc<Self>, deadline: Duration) -> Arc<Self> {
        let inbound = Arc::into_inner(self).expect("nobody has it yet");
        Arc::new(Self { deadline, ..inbound })
    }

    /// Has what others say of devices heard from now on, by the first that is given.
    pub fn hear_lists_by(&self, lists: Arc<Followed>) {
        let _ = self.lists.set(lists);
    }

    /// Does what a transaction says, once. The answer is JSON (TX-03, TX-04).
    pub async fn take(
        self: &Arc<Self>,
        origin: &ServerName,
        txn_id: &str,
        transaction: Transaction,
    ) -> Result<Arc<str>, Error> {
        if txn_id.len() > LONGEST_ID {
            return Err(Error::Id);
        }
        let mut done = self.started(origin, txn_id, transaction)?;
        let lost = || Error::Failed("the transaction was given up".to_owned());
        let answer = done.wait_for(Option::is_some).await.map_err(|_| lost())?;
        answer.clone().unwrap_or_else(|| Err(lost()))
    }

    /// A transaction at work: this one, or the same that came before.
    fn started(
        self: &Arc<Self>,
        origin: &ServerName,
        txn_id: &str,
        transaction: Transaction,
    ) -> Result<Done, Error> {
        let mut running = self.running.lock();
        let of_origin = running.entry(origin.to_owned()).or_default();
        if let Some(done) = of_origin.get(txn_id) {
            return Ok(done.clone());
        }
        if of_origin.len() >= MOST_RUNNING {
            return Err(Error::Busy);
        }
        let (result, done) = watch::channel(None);
        of_origin.insert(txn_id.to_owned(), done.clone());
        let work = AtWork { inbound: Arc::clone(self), origin: origin.to_owned(), txn_id: txn_id.to_owned() };
        // A task of its own: a server that hangs up must not stop it half-way.
        tokio::spawn(async move {
            let answer = work.inbound.answer(&work.origin, &work.txn_id, transaction).await;
            let answer = answer.map_err(|cause| Error::Failed(cause.to_string()));
            result.send_replace(Some(answer));
            drop(work);
        });
        Ok(done)
    }

    async fn answer(
        self: &Arc<Self>,
        origin: &ServerName,
        txn_id: &str,
        transaction: Transaction,
    ) -> Result<Arc<str>, store::Error> {
        let slot = i64::from(Sha256::digest(txn_id)[0]) % SLOTS;
        let has_events = !transaction.pdus.0.is_empty();
        let is_kept = match self.recent.lock().get_mut(origin).map(|of_origin| of_origin.get(txn_id)) {
            Some(Some(Answered::So(answer))) => return Ok(Arc::clone(answer)),
            Some(Some(Answered::AtLength)) => true,
            Some(None) => false,
            None => has_events,
        };
        if is_kept && let Some(answer) = self.store.server_txn(origin.as_str(), slot, txn_id).await? {
            return Ok(answer.into());
        }
        let mut edus = Edus::read(origin, &transaction.edus.0);
        let events = self.events(origin, transaction.pdus.0);
        // Messages to devices wait for no event: what is missing of events may take long to get.
        let messages = self.to_device.hear(origin, &edus.to_device);
        let (verdicts, (), heard) = tokio::join!(events, self.typing(origin, &edus), messages);
        let verdicts = verdicts?;
        self.present(origin, &edus).await;
        self.receipts(origin, &edus).await;
        // Whoever is told that it was taken doesn't send it again.
        heard?;
        // After the events, by which their users may have come in.
        if let Some(lists) = self.lists.get() {
            lists.hear(origin, std::mem::take(&mut edus.lists)).await?;
        }
        let answer = answer_of(&verdicts);
        let is_short = answer.len() <= SHORT;
        if has_events {
            let row = set_server_txn(origin.as_str(), slot, txn_id, Arc::clone(&answer));
            // All that it says has been done is durable. Were it lost, the same would be found done.
            if is_short {
                self.store.commit_soon(row).await;
            } else {
                self.store.commit(row).await?;
            }
        }
        let kept = if is_short { Answered::So(Arc::clone(&answer)) } else { Answered::AtLength };
        let mut recent = self.recent.lock();
        recent.get_or_insert_mut(origin.to_owned(), || LruCache::new(RECENT)).put(txn_id.to_owned(), kept);
        Ok(answer)
    }
}

fn answer_of(verdicts: &Verdicts) -> Arc<str> {
    let pdus: Map<String, Value> = verdicts
        .iter()
        .map(|(event_id, dropped)| {
            let verdict = dropped.as_ref().map_or_else(|| json!({}), |why| json!({ "error": why }));
            (event_id.to_string(), verdict)
        })
        .collect();
    json!({ "pdus": pdus }).to_string().into()
}

/// A transaction at work; when it ends, by a panic too, it isn't any more.
struct AtWork {
    inbound: Arc<Inbound>,
    origin: OwnedServerName,
    txn_id: String,
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let mut running = self.inbound.running.lock();
        if let Some(of_origin) = running.get_mut(&self.origin) {
            of_origin.remove(&self.txn_id);
            if of_origin.is_empty() {
                running.remove(&self.origin);
            }
        }
    }
}
