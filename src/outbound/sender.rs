//! Sending to one server: one transaction at a time, in order, each until it is taken.

use std::{sync::Arc, time::Duration};

use hearth_federation::{ClientError, ServerRequest};
use ruma::OwnedServerName;
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio::time::Instant;

use super::{
    BEHIND_AFTER, LONGEST_WAIT, Outbound, SPEAKER_BEHIND_AFTER,
    backlog::{Backlog, Item, LOOKED_AT, MOST_OF_ROOM, Missed, Waiting},
    metrics,
    transaction::{self, Fading, MOST_PDUS},
};
use crate::{
    peers::path,
    room,
    store::{
        Batch,
        destination::{caught_up, failed, sent},
    },
};

/// Bytes of the answer to a transaction.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// From the beginning of a transaction that had several things in it to that of the next: of a server that is told much, each
/// gets more.
const APART: Duration = Duration::from_millis(3);

/// How long a server may take to work on a transaction.
const TIMEOUT: Duration = Duration::from_mins(1);

/// A transaction that wasn't taken.
#[derive(Clone, Debug)]
pub(super) struct Unanswered {
    id: String,
    /// What it has of the queue: positions after the first, up to the second.
    span: (i64, i64),
    fading: Fading,
}

/// Why sending to a server stops.
enum Stop {
    /// It doesn't take anything at the moment.
    Peer(ClientError),
    /// This server failed.
    Own(room::Error),
}

impl From<room::Error> for Stop {
    fn from(cause: room::Error) -> Self {
        Self::Own(cause)
    }
}

impl From<crate::store::Error> for Stop {
    fn from(cause: crate::store::Error) -> Self {
        Self::Own(cause.into())
    }
}

impl Outbound {
    /// Sends all that waits for a server, until there is nothing more or it fails.
    pub(super) async fn send_all(self: Arc<Self>, recipient: i64) {
        let Some(server) = self.destinations.name(recipient) else { return };
        // Those that failed before wait for each other, never those that didn't or that are there.
        let retried =
            self.inner.lock().peers.get(&recipient).is_some_and(|peer| peer.failures > 0 && !peer.upon_word);
        let _turn = if retried { self.retries.acquire().await.ok() } else { None };
        loop {
            if let Some(peer) = self.inner.lock().peers.get_mut(&recipient) {
                peer.more = false;
            }
            match self.send_waiting(recipient, &server).await {
                Ok(()) => {
                    let inner = &mut *self.inner.lock();
                    let Some(peer) = inner.peers.get_mut(&recipient) else { return };
                    if !peer.more && peer.fading.is_empty() {
                        inner.peers.remove(&recipient);
                        return;
                    }
                }
                Err(stop) => return self.stopped(recipient, &server, stop).await,
            }
        }
    }

    /// Sends what waits now.
    async fn send_waiting(&self, recipient: i64, server: &OwnedServerName) -> Result<(), Stop> {
        if !self.peers.allows(server) {
            // It isn't spoken to: what was for it is dropped, also what fades, for which its task would go on for ever.
            {
                let inner = &mut *self.inner.lock();
                if let Some(peer) = inner.peers.get_mut(&recipient) {
                    peer.fading = Fading::default();
                }
                inner.sent.remove(&recipient);
            }
            self.store.commit(sent(recipient, self.queues.head())).await?;
            return Ok(());
        }
        let known = self.inner.lock().sent.get(&recipient).copied();
        let mut position = match known {
            Some(position) => position,
            None => match self.store.destination(recipient).await? {
                Some(row) if row.behind => self.catch_up(recipient, server, row.position).await?,
                Some(row) => row.position,
                None => return Ok(()),
            },
        };
        let mut most = MOST_PDUS;
        loop {
            let (fades, unanswered) = {
                let inner = self.inner.lock();
                let peer = inner.peers.get(&recipient);
                let unanswered =
                    peer.and_then(|peer| peer.unanswered.as_ref()).map(|unanswered| unanswered.span);
                (peer.is_some_and(|peer| !peer.fading.is_empty()), unanswered)
            };
            // TX-02: what wasn't taken is sent again as it was, whatever has come since.
            let again =
                unanswered.filter(|(after, to)| *after == position && to > after && most == MOST_PDUS);
            let to = again.map_or_else(|| self.queues.head(), |(_, to)| to);
            let waiting = self.backlog().of_queue(recipient, position, to, most).await?;
            if waiting.is_empty() && !fades {
                return Ok(());
            }
            let begun = Instant::now();
            match self.send(recipient, server, position, &waiting).await {
                Ok(()) => most = MOST_PDUS,
                // Something in it is more than the server bears: halve it until that is found, and leave it out.
                Err(Stop::Peer(cause)) if is_of_transaction(&cause) => {
                    if waiting.len() > 1 {
                        most = waiting.len() / 2;
                        continue;
                    }
                    note_left_out(server, &cause);
                }
                Err(stop) => return Err(stop),
            }
            if let Some((last, _)) = waiting.last() {
                position = *last;
                self.inner.lock().sent.insert(recipient, position);
                // Were it lost, the server would get something again that it has.
                self.store.commit_soon(sent(recipient, position)).await;
            }
            let early = APART.saturating_sub(begun.elapsed());
            if waiting.len() > 1 && !early.is_zero() {
                tokio::time::sleep(early).await;
            }
        }
    }

    /// Sends a server that is behind what it missed, and has its queue filled again. Returns the position up to which it
    /// has everything.
    async fn catch_up(
        &self,
        recipient: i64,
        server: &OwnedServerName,
        mut position: i64,
    ) -> Result<i64, Stop> {
        let head = self.queues.head();
        position = self.send_missed(recipient, server, (position, head), MOST_OF_ROOM).await?;
        let mut batch = Batch::new();
        let step = batch.step();
        batch.fill_queue(recipient, true);
        let live = self.store.commit(batch).await?.base + i64::from(step);
        // It is there: of what was said while it was sent the rest, nothing is left out.
        position = self.send_missed(recipient, server, (position, live), LOOKED_AT).await?;
        let mut batch = Batch::from(sent(recipient, position));
        batch.push(caught_up(recipient));
        self.store.commit(batch).await?;
        if let Some(peer) = self.inner.lock().peers.get_mut(&recipient) {
            peer.behind = false;
        }
        tracing::info!(%server, "a server has caught up");
        Ok(position)
    }

    async fn send_missed(
        &self,
        recipient: i64,
        server: &OwnedServerName,
        (after, to): (i64, i64),
        most_of_room: usize,
    ) -> Result<i64, Stop> {
        let missed =
            self.backlog().missed((recipient, server), &self.server_name, after, to, most_of_room).await?;
        let mut position = after;
        let (mut rest, mut most) = (&*missed, MOST_PDUS);
        while !rest.is_empty() {
            let (part, others) = rest.split_at(most.min(rest.len()));
            let mut waiting: Vec<Waiting> = Vec::with_capacity(part.len());
            for (position, missed) in part {
                match missed {
                    Missed::Message => waiting.push((*position, Item::Message)),
                    Missed::Devices => waiting.push((*position, Item::Devices(*position))),
                    Missed::Receipt { room } => {
                        let room = self.rooms.by_number_once(*room).await?;
                        waiting.push((*position, Item::Receipt { room, changed: *position }));
                    }
                    Missed::Event { room, seq } => {
                        let room = self.rooms.by_number_once(*room).await?;
                        let event = self.rooms.events(&room, &[*seq]).await?.pop();
                        waiting.extend(event.map(|event| (*position, Item::Event(event))));
                    }
                }
            }
            match self.send(recipient, server, position, &waiting).await {
                Ok(()) => most = MOST_PDUS,
                Err(Stop::Peer(cause)) if is_of_transaction(&cause) => {
                    if part.len() > 1 {
                        most = part.len() / 2;
                        continue;
                    }
                    note_left_out(server, &cause);
                }
                Err(stop) => return Err(stop),
            }
            position = part.last().map_or(position, |(position, _)| *position);
            self.store.commit(sent(recipient, position)).await?;
            rest = others;
        }
        Ok(to.max(position))
    }

    /// Sends one transaction, with what fades.
    async fn send(
        &self,
        recipient: i64,
        server: &OwnedServerName,
        after: i64,
        waiting: &[Waiting],
    ) -> Result<(), Stop> {
        let span = (after, waiting.last().map_or(after, |(position, _)| *position));
        let (id, mut fading) = {
            let inner = &mut *self.inner.lock();
            let peer = inner.peers.entry(recipient).or_default();
            // TX-02: the same again has the same id.
            match peer.unanswered.take_if(|unanswered| unanswered.span == span) {
                Some(unanswered) => (unanswered.id, unanswered.fading),
                None => (self.environment.entropy.token(16), std::mem::take(&mut peer.fading)),
            }
        };
        let kept = fading.clone();
        let now = self.environment.clock.now_ms();
        let body =
            transaction::body(&self.store, recipient, &self.server_name, now, waiting, &mut fading).await?;
        // What didn't fit is for the next.
        let unsent = fading;
        let request = ServerRequest::put(path("/_matrix/federation/v1/send", &[&id]), body);
        let request = request.limit(MAX_ANSWER_BYTES).timeout(TIMEOUT);
        match self.peers.send(server, request).await {
            Ok(answer) => {
                metrics::sent(true);
                note_refused(server, &answer.body);
                let inner = &mut *self.inner.lock();
                if let Some(peer) = inner.peers.get_mut(&recipient) {
                    peer.is_well();
                    peer.fading.put_before(unsent);
                }
                Ok(())
            }
            Err(cause) => {
                metrics::sent(false);
                let inner = &mut *self.inner.lock();
                if let Some(peer) = inner.peers.get_mut(&recipient) {
                    if peer.failures == 0 {
                        peer.failing_since = now;
                    }
                    // What fades has faded by the time that a dead server is back.
                    let fading = if is_of_transaction(&cause) { Fading::default() } else { kept };
                    peer.unanswered = Some(Unanswered { id, span, fading });
                }
                Err(Stop::Peer(cause))
            }
        }
    }

    /// A server is tried again later.
    async fn stopped(&self, recipient: i64, server: &OwnedServerName, stop: Stop) {
        let (text, asked) = match &stop {
            Stop::Peer(cause) => (cause.to_string(), retry_after(cause)),
            Stop::Own(cause) => {
                tracing::error!(%server, %cause, "nothing can be sent to a server");
                (cause.to_string(), None)
            }
        };
        let now = self.environment.clock.now_ms();
        let (failures, failing_since, retry_at, behind) = {
            let inner = &mut *self.inner.lock();
            inner.sent.remove(&recipient);
            let peer = inner.peers.entry(recipient).or_default();
            peer.failures = peer.failures.saturating_add(1);
            peer.in_vain = peer.in_vain.saturating_add(u32::from(peer.upon_word));
            let doubled = Duration::from_secs(1 << peer.failures.saturating_sub(1).min(12));
            // Up to a quarter later, so that those that failed together aren't tried together.
            let later = doubled * (self.environment.entropy.number() % 251) as u32 / 1000;
            let wait = (doubled + later).max(asked.unwrap_or_default());
            let after = |wait: Duration| now.saturating_add(wait.min(LONGEST_WAIT).as_millis() as i64);
            (peer.failed_at, peer.retry_at) = (now, after(wait));
            peer.not_before = asked.map_or(0, after);
            if matches!(stop, Stop::Own(_)) {
                // It says nothing of the server.
                peer.failing_since = now;
            }
            let failed_for = now - peer.failing_since;
            let speaks = peer.spoken || peer.upon_word;
            let patience = if speaks { SPEAKER_BEHIND_AFTER } else { BEHIND_AFTER };
            let behind = matches!(stop, Stop::Peer(_)) && failed_for >= patience.as_millis() as i64;
            if behind {
                (peer.unanswered, peer.fading) = (None, Fading::default());
            }
            peer.behind |= behind;
            (peer.failures, peer.failing_since, peer.retry_at, behind)
        };
        if failures == 1 {
            tracing::info!(%server, cause = text, "a server doesn't take what is sent to it; it is tried again");
        }
        let mut batch = Batch::from(failed(recipient, i64::from(failures), failing_since, retry_at, &text));
        if behind {
            batch.fill_queue(recipient, false);
        }
        if let Err(cause) = self.store.commit(batch).await {
            tracing::warn!(%server, %cause, "that a server failed can't be written down");
        }
        // Not before: an attempt would find the queue half emptied, and what is left in it would pass for all there is.
        {
            let inner = &mut *self.inner.lock();
            let peer = inner.peers.entry(recipient).or_default();
            peer.sending = false;
            if peer.spoken {
                peer.retry_at = peer.sooner();
            }
            inner.agenda.insert((peer.retry_at, recipient));
        }
        self.sooner.notify_one();
    }

    fn backlog(&self) -> Backlog<'_> {
        Backlog { rooms: &self.rooms, store: &self.store, queues: &self.queues }
    }
}

/// Whether the server minds what is in the transaction, and not that there is one.
fn is_of_transaction(cause: &ClientError) -> bool {
    matches!(cause, ClientError::Refused { status, .. } if matches!(status.as_u16(), 400 | 413))
}

fn note_left_out(server: &OwnedServerName, cause: &ClientError) {
    tracing::warn!(%server, %cause, "a server refuses something for good: it is left out");
}

fn retry_after(cause: &ClientError) -> Option<Duration> {
    match cause {
        ClientError::Refused { retry_after_ms, .. } => retry_after_ms.map(Duration::from_millis),
        _ => None,
    }
}

/// TX-04: a server says of each event whether it took it.
fn note_refused(server: &OwnedServerName, answer: &[u8]) {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        pdus: BTreeMap<String, Verdict>,
    }
    #[derive(Deserialize)]
    struct Verdict {
        error: Option<String>,
    }
    let Ok(answer) = serde_json::from_slice::<Answer>(answer) else { return };
    for (event_id, verdict) in answer.pdus {
        if let Some(cause) = verdict.error {
            tracing::info!(%server, event_id, cause, "a server doesn't take an event");
        }
    }
}
