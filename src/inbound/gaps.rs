//! What comes before events that came: fetched from whoever sent them.
//!
//! Events that name others that aren't here wait in memory while these are asked for; other events of the room, and other
//! rooms, go on meanwhile. A room's gaps are closed one after the other, for one often closes the next too. Everything has
//! an end: how many wait, how much they hold, how often, how much and how long somebody is asked. What is still missing then
//! stays missing: the first event after it is judged by the state that its server gives ([`Rooms::bridge`]); one that lacks
//! only what it cites, with that. What can't be judged so either is dropped, and may come again; but what keeps somebody of
//! this server out, the state before which is for nobody here to see, is judged by the room as it is here ([`Rooms::keep_out`]).
//!
//! [`Rooms::bridge`]: crate::room::Rooms::bridge
//! [`Rooms::keep_out`]: crate::room::Rooms::keep_out
//!
//! Specification: [Backfilling and retrieving missing
//! events](https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events) (BF-02).

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use hearth_federation::{Pdu, References, ServerRequest};
use parking_lot::Mutex;
use ruma::{OwnedEventId, OwnedServerName, ServerName};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Inbound, transaction::Few};
use crate::{
    peers::path,
    room::{Error, Outcome, Room},
};

/// Events of one answer.
const MOST_FETCHED: usize = 50;
/// Times that a server is asked for what is still missing of one gap.
const MOST_ROUNDS: usize = 10;
/// Servers that are asked beside the one that sent something.
const MOST_OTHERS: usize = 2;
/// Events of one gap that are judged by a state that is fetched for them.
const MOST_BRIDGES: usize = 5;
/// Events that are named in one question.
const MOST_NAMED: usize = 20;
/// Bytes of one answer.
const MAX_ANSWER: usize = 4 * 1024 * 1024;
/// For one answer, and for closing one gap.
const PATIENCE: Duration = Duration::from_secs(20);
const LONGEST: Duration = Duration::from_mins(1);
/// Gaps of one server that are closed at the same time.
const AT_ONCE: usize = 4;
/// Kibibytes of all events that wait for others.
const MOST_WAITING: usize = 64 * 1024;

/// Who waits for what.
pub(super) struct Gaps {
    pub(super) waiting: Arc<Semaphore>,
    origins: Turns<OwnedServerName>,
    rooms: Turns<i64>,
}

/// Semaphores that are there while somebody holds or wants them.
struct Turns<K> {
    each: usize,
    all: Mutex<HashMap<K, Arc<Semaphore>>>,
}

impl<K: Eq + Hash> Turns<K> {
    fn new(each: usize) -> Self {
        Self { each, all: Mutex::default() }
    }

    fn of(&self, key: K) -> Arc<Semaphore> {
        let mut all = self.all.lock();
        all.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(all.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
    }
}

impl Gaps {
    pub(super) fn new() -> Self {
        let waiting = Arc::new(Semaphore::new(MOST_WAITING));
        Self { waiting, origins: Turns::new(AT_ONCE), rooms: Turns::new(1) }
    }
}

/// Events that wait, and what became of those that don't any more.
#[derive(Default)]
struct Gap {
    held: Vec<Pdu>,
    settled: HashMap<OwnedEventId, Outcome>,
    /// What is named and isn't here, nor held.
    missing: HashSet<OwnedEventId>,
    /// What all of them may take.
    carried: Vec<OwnedSemaphorePermit>,
}

impl Gap {
    /// Whether there is place for these too.
    fn carries(&mut self, waiting: &Arc<Semaphore>, events: &[Pdu]) -> bool {
        let kibibytes: usize = events.iter().map(|event| event.json.get().len() / 1024 + 1).sum();
        let place = u32::try_from(kibibytes).ok();
        let place = place.and_then(|place| Arc::clone(waiting).try_acquire_many_owned(place).ok());
        place.map(|place| self.carried.push(place)).is_some()
    }
}

impl Inbound {
    /// Judges verified events of a room in their order. What comes before them is fetched if it isn't here.
    pub(super) async fn judged(
        &self,
        origin: &ServerName,
        room: &Arc<Room>,
        events: Vec<Pdu>,
    ) -> Result<Vec<Outcome>, Error> {
        let events = self.rooms.asked_of_policy(room, events).await;
        self.ask_for_state_again(origin, room, &events).await?;
        let mut outcomes = self.rooms.receive(room, events.clone()).await?;
        let waits = |outcome: &Outcome| matches!(outcome, Outcome::Missing(_));
        let held: Vec<Pdu> = events
            .iter()
            .zip(&outcomes)
            .filter(|(_, outcome)| waits(outcome))
            .map(|(event, _)| event.clone())
            .collect();
        if held.is_empty() {
            return Ok(outcomes);
        }
        let mut gap = Gap::default();
        if !gap.carries(&self.gaps.waiting, &held) {
            tracing::warn!(%origin, room_id = %room.room_id, "too many events wait for others: some are dropped");
            return Ok(outcomes);
        }
        gap.held = held;
        let (by_origin, by_room) = (self.gaps.origins.of(origin.to_owned()), self.gaps.rooms.of(room.number));
        // Neither is ever closed.
        let (Ok(_one), Ok(_two)) = (by_origin.acquire().await, by_room.acquire().await) else {
            return Ok(outcomes);
        };
        if let Ok(closed) = tokio::time::timeout(LONGEST, self.close(origin, room, &mut gap)).await {
            closed?;
        }
        for (event, outcome) in events.iter().zip(&mut outcomes).filter(|(_, outcome)| waits(outcome)) {
            if let Some(settled) = gap.settled.remove(&event.event_id) {
                *outcome = settled;
            }
        }
        Ok(outcomes)
    }

    async fn close(&self, origin: &ServerName, room: &Arc<Room>, gap: &mut Gap) -> Result<(), Error> {
        self.fetch(origin, room, gap).await?;
        for _ in 0..MOST_BRIDGES {
            if gap.held.is_empty() {
                break;
            }
            // The oldest: once it is in its place, most of the others follow something.
            let event = gap.held.remove(0);
            if let Some(outcome) = self.with_citations(origin, room, gap, &event).await? {
                gap.settled.insert(event.event_id, outcome);
                self.judge(room, gap).await?;
                continue;
            }
            let event_id = event.event_id.clone();
            let judged = match self.history.state_before(origin, room, &event).await {
                Ok(before) => self.rooms.bridge(room, event, before).await,
                Err(cause) => {
                    tracing::info!(%origin, room_id = %room.room_id, cause, "the state at a gap can't be had");
                    // Whom something keeps out isn't let see what led to that, and hears nothing more.
                    if !self.rooms.keeps_out_own(&event) {
                        gap.held.retain(|event| self.rooms.keeps_out_own(event));
                        continue;
                    }
                    self.rooms.keep_out(room, event).await
                }
            };
            let outcome = match judged {
                Err(cause @ Error::Store(_)) => return Err(cause),
                Err(cause) => Outcome::Refused(cause.to_string()),
                Ok(outcome) => outcome,
            };
            tracing::info!(%origin, room_id = %room.room_id, %event_id, ?outcome, "a gap is bridged");
            gap.settled.insert(event_id, outcome);
            self.judge(room, gap).await?;
        }
        Ok(())
    }

    /// Judges an event that lacks nothing but others that it cites, if these can be had.
    async fn with_citations(
        &self,
        origin: &ServerName,
        room: &Arc<Room>,
        gap: &mut Gap,
        event: &Pdu,
    ) -> Result<Option<Outcome>, Error> {
        if event.prev_events.iter().any(|id| gap.missing.contains(id)) {
            return Ok(None);
        }
        let cited = self.history.cited_by(origin, room, event).await?;
        if cited.is_empty() || !gap.carries(&self.gaps.waiting, &cited) {
            return Ok(None);
        }
        let outcome = self.rooms.receive_citing(room, event.clone(), cited).await?;
        tracing::info!(%origin, room_id = %room.room_id, event_id = %event.event_id, ?outcome, "what an event cites is here");
        Ok(Some(outcome).filter(|outcome| !matches!(outcome, Outcome::Missing(_))))
    }

    /// Fetches what is missing, as far as that can be had.
    async fn fetch(&self, origin: &ServerName, room: &Arc<Room>, gap: &mut Gap) -> Result<(), Error> {
        for _ in 0..MOST_ROUNDS {
            // The first time too: who had the turn before may have brought all of it.
            self.judge(room, gap).await?;
            if gap.held.is_empty() || gap.missing.is_empty() {
                return Ok(());
            }
            let mut found = Vec::new();
            for server in self.whom_to_ask(origin, room) {
                match self.missing_events(&server, room, gap).await {
                    Ok(events) => found = events,
                    Err(cause) => {
                        tracing::info!(%server, room_id = %room.room_id, cause, "what is missing can't be had");
                    }
                }
                if !found.is_empty() {
                    break;
                }
            }
            if found.is_empty() || !gap.carries(&self.gaps.waiting, &found) {
                break;
            }
            let found = self.rooms.asked_of_policy(room, found).await;
            gap.held = in_order(found.into_iter().chain(std::mem::take(&mut gap.held)).collect());
        }
        Ok(())
    }

    /// Brings everything that is held to the room, and keeps what still has to wait.
    async fn judge(&self, room: &Arc<Room>, gap: &mut Gap) -> Result<(), Error> {
        let outcomes = self.rooms.receive(room, gap.held.clone()).await?;
        gap.missing.clear();
        let mut held = Vec::new();
        for (event, outcome) in std::mem::take(&mut gap.held).into_iter().zip(outcomes) {
            if let Outcome::Missing(ids) = outcome {
                gap.missing.extend(ids);
                held.push(event);
            } else {
                gap.settled.insert(event.event_id, outcome);
            }
        }
        gap.held = held;
        for event in &gap.held {
            gap.missing.remove(&event.event_id);
        }
        Ok(())
    }

    /// The server that sent something, which should have what comes before it, and others that may have it as well.
    fn whom_to_ask(&self, origin: &ServerName, room: &Room) -> Vec<OwnedServerName> {
        let mut others = room.snapshot().remote_servers();
        others.retain(|server| server != origin && self.peers.allows(server));
        others.truncate(MOST_OTHERS);
        others.insert(0, origin.to_owned());
        others
    }

    /// Asks for what comes between the ends of the room's history here and the events that are held.
    async fn missing_events(&self, server: &ServerName, room: &Room, gap: &Gap) -> Result<Vec<Pdu>, String> {
        #[derive(Deserialize)]
        struct Answer {
            events: Few<{ 2 * MOST_FETCHED }>,
        }
        let snapshot = room.snapshot();
        let earliest: Vec<&OwnedEventId> =
            snapshot.extremities.iter().rev().take(MOST_NAMED).map(|end| &end.event_id).collect();
        let named = |event: &&Pdu| event.prev_events.iter().any(|id| gap.missing.contains(id));
        let latest: Vec<&OwnedEventId> =
            gap.held.iter().filter(named).take(MOST_NAMED).map(|event| &event.event_id).collect();
        if latest.is_empty() {
            return Ok(Vec::new());
        }
        let body = json!({
            "earliest_events": earliest,
            "latest_events": latest,
            "limit": MOST_FETCHED,
            "min_depth": 0,
        });
        let target = path("/_matrix/federation/v1/get_missing_events", &[room.room_id.as_str()]);
        let request = ServerRequest::post(target, body.to_string()).limit(MAX_ANSWER).timeout(PATIENCE);
        let answer = self.peers.send(server, request).await.map_err(|cause| cause.to_string())?;
        let answer: Answer = serde_json::from_slice(&answer.body).map_err(|cause| cause.to_string())?;
        let texts: Vec<&str> = answer.events.0.iter().map(|event| event.get()).collect();
        let mut known: HashSet<OwnedEventId> =
            gap.held.iter().map(|event| &event.event_id).chain(gap.settled.keys()).cloned().collect();
        let mut found = Vec::new();
        for event in self.peers.verified(&room.version, &texts, References::Limited).await {
            match event {
                // What was judged already is nothing new, and must not be asked for again and again.
                Ok(event) if event.room_id == room.room_id && known.insert(event.event_id.clone()) => {
                    found.push(event);
                }
                Ok(_) => {}
                Err(cause) => tracing::info!(%server, %cause, "an event that was missing is dropped"),
            }
        }
        Ok(found)
    }
}

/// Events in an order in which each comes after those that it names, and otherwise as they were.
fn in_order(events: Vec<Pdu>) -> Vec<Pdu> {
    let places: HashMap<&OwnedEventId, usize> =
        events.iter().enumerate().map(|(place, event)| (&event.event_id, place)).collect();
    let named = |event: &Pdu| -> HashSet<usize> {
        event.prev_events.iter().chain(&event.auth_events).filter_map(|id| places.get(id).copied()).collect()
    };
    let mut naming: Vec<Vec<usize>> = vec![Vec::new(); events.len()];
    let mut waits: Vec<usize> = vec![0; events.len()];
    for (place, event) in events.iter().enumerate() {
        let named = named(event);
        waits[place] = named.len();
        for other in named {
            naming[other].push(place);
        }
    }
    let mut order: Vec<usize> = (0..events.len()).filter(|place| waits[*place] == 0).collect();
    let mut next = 0;
    while let Some(place) = order.get(next).copied() {
        next += 1;
        for &other in &naming[place] {
            waits[other] -= 1;
            if waits[other] == 0 {
                order.push(other);
            }
        }
    }
    let mut events: Vec<Option<Pdu>> = events.into_iter().map(Some).collect();
    // Those that name each other in a circle are left out: none of them can ever be judged.
    order.into_iter().filter_map(|place| events[place].take()).collect()
}
