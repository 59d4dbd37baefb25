//! A room's one writer: it alone gives events their place.
//!
//! Whoever wants to append leaves a request in the room's inbox. If the room has no writer at work, one is started; it
//! takes all that waits, makes the events one after the other on a copy of the room, hands them to the store as one
//! batch, and puts the copy in the room's place once the batch is durable. While the disk works, the next requests
//! gather. A writer that has nothing left to do ends, so a quiet room costs nothing.

use std::{collections::HashMap, sync::Arc};

use hearth_federation::Pdu;
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedUserId, events::TimelineEventType};
use serde_json::value::RawValue;
use tokio::sync::oneshot;

use super::{
    Chunk, Core, Entry, Error, Given, Hearsay, Outcome, Room, fan_out::Outward, snapshot::Snapshot,
    work::Work,
};
use crate::{
    environment::step,
    store::{self, Batch},
};

/// The most requests that one batch takes.
const BATCH: usize = 64;

/// An event that somebody here wants to send.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub sender: OwnedUserId,
    pub kind: TimelineEventType,
    pub state_key: Option<String>,
    pub content: Box<RawValue>,
    pub redacts: Option<OwnedEventId>,
}

/// A transaction id and the scope in which it counts: the device and a hash of the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[expect(clippy::struct_field_names, reason = "the specification's name")]
pub struct Txn {
    pub device: i64,
    pub path: i64,
    pub txn_id: String,
}

/// An event in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    pub event_id: OwnedEventId,
}

/// What somebody wants of a room's writer.
enum Wish {
    /// Events that are made here, and appended together or not at all.
    Append {
        events: Vec<NewEvent>,
        txn: Option<Txn>,
        /// What becomes durable together with the events, or not at all.
        also: Option<Batch>,
    },
    /// An event that was made here before, so that others could sign it.
    Made { event: Box<Pdu>, txn: Option<Txn> },
    /// Events that were made elsewhere, each judged for itself.
    Receive { events: Vec<Pdu>, outward: Outward },
    /// A join of a room that others keep, with the state before it.
    Enter(Box<Entry>),
    /// An event that follows others which can't be had, with the state before it.
    Bridge(Box<(Pdu, Given)>),
    /// One that keeps somebody of this server out, before which nobody shows the state.
    KeepOut(Box<Pdu>),
    /// An event, with those that it cites.
    Cite(Box<(Pdu, Given)>),
    /// History for a hole.
    Fill(Box<Chunk>),
    /// A membership of a room that this server isn't in.
    Hear(Box<Hearsay>),
}

impl Wish {
    fn txn(&self) -> Option<&Txn> {
        match self {
            Self::Append { txn, .. } | Self::Made { txn, .. } => txn.as_ref(),
            Self::Receive { .. }
            | Self::Enter(_)
            | Self::Bridge(_)
            | Self::KeepOut(_)
            | Self::Cite(_)
            | Self::Fill(_)
            | Self::Hear(_) => None,
        }
    }
}

enum Answer {
    Appended(Vec<Appended>),
    Received(Vec<Outcome>),
}

pub(super) struct Request {
    wish: Wish,
    done: oneshot::Sender<Result<Answer, Error>>,
}

#[derive(Default)]
pub(super) struct Inbox {
    waiting: Vec<Request>,
    /// A writer is at work and will look here again before it ends.
    working: bool,
}

/// Appends events that are made here.
pub(super) async fn append(
    core: &Arc<Core>,
    room: &Arc<Room>,
    events: Vec<NewEvent>,
    txn: Option<Txn>,
    also: Option<Batch>,
) -> Result<Vec<Appended>, Error> {
    match ask(core, room, Wish::Append { events, txn, also }).await? {
        Answer::Appended(appended) => Ok(appended),
        Answer::Received(_) => Err(Error::Internal("the room's writer mistook a request".to_owned())),
    }
}

/// Appends an event that was made here before, unless its transaction was carried out already.
pub(super) async fn append_made(
    core: &Arc<Core>,
    room: &Arc<Room>,
    event: Pdu,
    txn: Option<Txn>,
) -> Result<(OwnedEventId, Outcome), Error> {
    let mistaken = || Error::Internal("the room's writer mistook a request".to_owned());
    let event_id = event.event_id.clone();
    match ask(core, room, Wish::Made { event: Box::new(event), txn }).await? {
        Answer::Received(outcomes) => Ok((event_id, outcomes.into_iter().next().ok_or_else(mistaken)?)),
        Answer::Appended(before) => {
            Ok((before.into_iter().next().ok_or_else(mistaken)?.event_id, Outcome::Known))
        }
    }
}

/// Judges and appends events that were made elsewhere.
pub(super) async fn receive(
    core: &Arc<Core>,
    room: &Arc<Room>,
    events: Vec<Pdu>,
    outward: Outward,
) -> Result<Vec<Outcome>, Error> {
    match ask(core, room, Wish::Receive { events, outward }).await? {
        Answer::Received(outcomes) => Ok(outcomes),
        Answer::Appended(_) => Err(Error::Internal("the room's writer mistook a request".to_owned())),
    }
}

/// Begins, or goes on with, the log of a room that somebody here has joined.
pub(super) async fn enter(core: &Arc<Core>, room: &Arc<Room>, entry: Entry) -> Result<(), Error> {
    ask(core, room, Wish::Enter(Box::new(entry))).await.map(drop)
}

/// Judges and appends an event that follows others which can't be had.
pub(super) async fn bridge(
    core: &Arc<Core>,
    room: &Arc<Room>,
    event: Pdu,
    before: Given,
) -> Result<Outcome, Error> {
    judged(core, room, Wish::Bridge(Box::new((event, before)))).await
}

/// Judges an event that keeps somebody of this server out by the room as it is here, and appends it if that allows it.
pub(super) async fn keep_out(core: &Arc<Core>, room: &Arc<Room>, event: Pdu) -> Result<Outcome, Error> {
    judged(core, room, Wish::KeepOut(Box::new(event))).await
}

/// Judges and appends an event, and judges what it cites.
pub(super) async fn receive_citing(
    core: &Arc<Core>,
    room: &Arc<Room>,
    event: Pdu,
    cited: Vec<Pdu>,
) -> Result<Outcome, Error> {
    let cited = Given { state: Vec::new(), events: cited };
    judged(core, room, Wish::Cite(Box::new((event, cited)))).await
}

/// What becomes of the one event of a wish.
async fn judged(core: &Arc<Core>, room: &Arc<Room>, wish: Wish) -> Result<Outcome, Error> {
    let mistaken = || Error::Internal("the room's writer mistook a request".to_owned());
    match ask(core, room, wish).await? {
        Answer::Received(outcomes) => outcomes.into_iter().next().ok_or_else(mistaken),
        Answer::Appended(_) => Err(mistaken()),
    }
}

/// Puts history into a hole.
pub(super) async fn fill(core: &Arc<Core>, room: &Arc<Room>, chunk: Chunk) -> Result<(), Error> {
    ask(core, room, Wish::Fill(Box::new(chunk))).await.map(drop)
}

/// Appends a membership of a room that this server isn't in.
pub(super) async fn hear(core: &Arc<Core>, room: &Arc<Room>, hearsay: Hearsay) -> Result<(), Error> {
    ask(core, room, Wish::Hear(Box::new(hearsay))).await.map(drop)
}

/// Leaves a request with the room and waits until it is durable or refused.
async fn ask(core: &Arc<Core>, room: &Arc<Room>, wish: Wish) -> Result<Answer, Error> {
    let (done, result) = oneshot::channel();
    let idle = {
        let mut inbox = room.inbox.lock();
        inbox.waiting.push(Request { wish, done });
        !std::mem::replace(&mut inbox.working, true)
    };
    if idle {
        // A task of its own: a client that goes away must not stop the writer half-way.
        tokio::spawn(step(write(Arc::clone(core), Arc::clone(room))));
    }
    result.await.map_err(|_| Error::Internal("the room's writer failed".to_owned()))?
}

/// If the writer panics, those who wait hear that it failed, and the next request starts another.
struct AtWork<'a>(&'a Mutex<Inbox>);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut inbox = self.0.lock();
        inbox.working = false;
        inbox.waiting.clear();
    }
}

async fn write(core: Arc<Core>, room: Arc<Room>) {
    let at_work = AtWork(&room.inbox);
    loop {
        let requests: Vec<Request> = {
            let mut inbox = room.inbox.lock();
            if inbox.waiting.is_empty() {
                inbox.working = false;
                std::mem::forget(at_work);
                return;
            }
            let most = inbox.waiting.len().min(BATCH);
            inbox.waiting.drain(..most).collect()
        };
        write_batch(&core, &room, requests).await;
    }
}

async fn write_batch(core: &Arc<Core>, room: &Arc<Room>, requests: Vec<Request>) {
    let mut answers = try_batch(core, room, &requests, HashMap::new()).await;
    if matches!(answers, Err(Error::Store(store::Error::Conflict))) {
        // Somebody tried again what an earlier process, or the command line, has done: now we look.
        let txns = requests.iter().filter_map(|request| request.wish.txn());
        answers = match sent_before(core, txns).await {
            Ok(sent) => try_batch(core, room, &requests, sent).await,
            Err(cause) => Err(cause.into()),
        };
    }
    // A client that went away doesn't hear of it.
    match answers {
        Ok(answers) => {
            for (request, answer) in requests.into_iter().zip(answers) {
                let _ = request.done.send(answer);
            }
        }
        Err(cause) => {
            for request in requests {
                let _ = request.done.send(Err(cause.to_all()));
            }
        }
    }
}

/// The answers to the requests, or what failed for all of them. Transactions in `sent` were carried out before; that no
/// other was is found out by the commit, which then fails for a conflict.
async fn try_batch(
    core: &Arc<Core>,
    room: &Arc<Room>,
    requests: &[Request],
    mut sent: HashMap<Txn, OwnedEventId>,
) -> Result<Vec<Result<Answer, Error>>, Error> {
    let mut work = Work::start(core, Snapshot::clone(&room.snapshot())).await?;
    let mut answers = Vec::with_capacity(requests.len());
    for request in requests {
        let (events, txn, also) = match &request.wish {
            Wish::Append { events, txn, also } => (events, txn.as_ref(), also),
            Wish::Made { event, txn } => {
                if let Some(event_id) = txn.as_ref().and_then(|txn| sent.get(txn)) {
                    answers.push(Ok(Answer::Appended(vec![Appended { event_id: event_id.clone() }])));
                    continue;
                }
                let outcome = work.append_made(event, txn.as_ref()).await?;
                if outcome == Outcome::Accepted {
                    sent.extend(txn.clone().map(|txn| (txn, event.event_id.clone())));
                }
                answers.push(Ok(Answer::Received(vec![outcome])));
                continue;
            }
            Wish::Receive { events, outward } => {
                work.prefetch(events).await?;
                let mut outcomes = Vec::with_capacity(events.len());
                for pdu in events {
                    outcomes.push(work.receive(pdu, outward).await?);
                }
                answers.push(Ok(Answer::Received(outcomes)));
                continue;
            }
            Wish::Enter(entry) => {
                let mark = work.mark();
                let entered = work.enter_room(entry).await;
                answers.push(work.kept_if_done(mark, entered)?.map(|()| Answer::Received(Vec::new())));
                continue;
            }
            wish @ (Wish::Bridge(held) | Wish::Cite(held)) => {
                let (event, given) = &**held;
                let mark = work.mark();
                let judged = match wish {
                    Wish::Bridge(_) => work.bridge(event, given).await,
                    _ => work.receive_citing(event, given).await,
                };
                let judged = work.kept_if_done(mark, judged)?;
                answers.push(judged.map(|outcome| Answer::Received(vec![outcome])));
                continue;
            }
            Wish::KeepOut(event) => {
                let mark = work.mark();
                let judged = work.keep_out(event).await;
                let judged = work.kept_if_done(mark, judged)?;
                answers.push(judged.map(|outcome| Answer::Received(vec![outcome])));
                continue;
            }
            Wish::Fill(chunk) => {
                let mark = work.mark();
                let filled = work.fill(chunk).await;
                answers.push(work.kept_if_done(mark, filled)?.map(|()| Answer::Received(Vec::new())));
                continue;
            }
            Wish::Hear(hearsay) => {
                let mark = work.mark();
                let heard = work.hear(hearsay).await;
                answers.push(work.kept_if_done(mark, heard)?.map(|()| Answer::Received(Vec::new())));
                continue;
            }
        };
        if let Some(event_id) = txn.and_then(|txn| sent.get(txn)) {
            answers.push(Ok(Answer::Appended(vec![Appended { event_id: event_id.clone() }])));
            continue;
        }
        let mut answer = work.append_all(events, txn).await;
        if let (Ok(_), Some(also)) = (&answer, also) {
            work.batch().append(also.copy());
        }
        match (&answer, txn) {
            (Ok(appended), Some(txn)) => {
                sent.extend(appended.last().map(|last| (txn.clone(), last.event_id.clone())));
            }
            // What was allowed once is answered as then, whatever has happened to the room since (I3).
            (Err(_), Some(txn)) => {
                if let Some(event_id) = sent_before(core, std::iter::once(txn)).await?.remove(txn) {
                    answer = Ok(vec![Appended { event_id }]);
                }
            }
            (_, None) => {}
        }
        answers.push(answer.map(Answer::Appended));
    }
    work.commit(Some(room)).await?;
    Ok(answers)
}

/// What was answered to these transactions before, by this process or an earlier one.
pub(super) async fn sent_before(
    core: &Core,
    txns: impl Iterator<Item = &Txn>,
) -> Result<HashMap<Txn, OwnedEventId>, store::Error> {
    let keys: Vec<(i64, i64, &str)> = txns.map(|txn| (txn.device, txn.path, txn.txn_id.as_str())).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let keys = serde_json::to_string(&keys).map_err(|cause| store::Error::Encoding(cause.to_string()))?;
    let rows = core.store.txns(keys).await?.into_iter();
    Ok(rows
        .filter_map(|(device, path, txn_id, event)| {
            Some((Txn { device, path, txn_id }, OwnedEventId::try_from(event).ok()?))
        })
        .collect())
}
