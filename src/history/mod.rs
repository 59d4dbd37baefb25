//! History of rooms that other servers have: asked for when somebody here looks further back than this server has been in a
//! room.
//!
//! Owns which servers are asked, how much, and how long anybody waits for it. What comes is verified here and judged by the
//! room ([`crate::room::Chunk`]).

mod state;

use std::{collections::HashMap, sync::Arc, time::Duration};

use hearth_federation::{Pdu, References, ServerRequest};
use parking_lot::Mutex;
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName, UserId};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;

use crate::{
    peers::{Peers, path},
    room::{Chunk, Direction, Error, Event, Hole, Page, Paging, Room, Rooms, Sight, leading_to},
};

/// Events that are asked for at a time.
const CHUNK: usize = 100;
/// Servers that are asked for one chunk.
const MOST_ASKED: usize = 4;
/// Bytes of one answer.
const MAX_ANSWER_BYTES: usize = 10 * 1024 * 1024;
/// How long somebody who pages back waits for others.
const PATIENCE: Duration = Duration::from_secs(20);
/// Chunks that one page may take.
const MOST_CHUNKS: usize = 5;

pub struct History {
    peers: Arc<Peers>,
    rooms: Arc<Rooms>,
    /// Rooms whose holes are being filled: by one at a time.
    filling: Mutex<HashMap<i64, Arc<tokio::sync::Mutex<()>>>>,
}

#[derive(Deserialize)]
struct Backfilled {
    pdus: Vec<Box<RawValue>>,
}

impl History {
    pub fn new(peers: Arc<Peers>, rooms: Arc<Rooms>) -> Self {
        Self { peers, rooms, filling: Mutex::default() }
    }

    /// A page of what a user may see of a room's log, and all that they may see. Where history is missing that others have,
    /// it is fetched first (HV-08).
    pub async fn page(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        paging: Paging<'_>,
    ) -> Result<(Page, Sight), Error> {
        let mut sight = self.rooms.reading(room, user_id).await?;
        let mut page = self.rooms.page(room, &sight, paging).await?;
        if paging.direction == Direction::Forwards || paging.filter.shows_nothing_of(&room.room_id) {
            return Ok((page, sight));
        }
        let to = paging.to.unwrap_or(i64::MIN);
        // What nobody gives stops nothing that others have (I7).
        let mut given_up = Vec::new();
        for _ in 0..MOST_CHUNKS {
            let full = page.events.len() >= paging.limit;
            let lowest = match page.events.last() {
                Some(event) if full => event.seq,
                _ => i64::MIN,
            };
            let holes = self.rooms.holes(room).await?;
            let near = |hole: &Hole| hole.seq <= page.start + 1 && hole.seq > to;
            let hole = holes.into_iter().find(|hole| near(hole) && !given_up.contains(&hole.seq));
            // One that the page doesn't reach is for another.
            let Some(hole) = hole.filter(|hole| hole.seq > lowest) else { break };
            let seq = hole.seq;
            match timeout(PATIENCE, self.fill(room, hole)).await {
                Ok(true) => {}
                Ok(false) => {
                    given_up.push(seq);
                    continue;
                }
                Err(_) => {
                    given_up.push(seq);
                    break;
                }
            }
            // What has come says who was in the room, too.
            sight = self.rooms.reading(room, user_id).await?;
            page = self.rooms.page(room, &sight, paging).await?;
        }
        if page.end.is_none() {
            // HV-07: nothing more to see here, but others may have more.
            let holes = &room.snapshot().holes;
            let below = |seq: &i64| *seq > to && *seq <= page.start && sight.may_see(*seq);
            let untried = |seq: &i64| !given_up.contains(seq);
            let hole = holes.iter().rev().map(|(_, seq)| *seq).filter(below).find(untried);
            page.end = hole.map(|seq| seq - 1);
        }
        Ok((page, sight))
    }

    /// The event that a user may see closest to a time; where history is missing, others are asked whether they have one
    /// that is closer (BF-06), and it is fetched.
    pub async fn nearest_in_time(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        time: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Arc<Event>, Error> {
        let sight = self.rooms.reading(room, user_id).await?;
        let here = self.rooms.nearest_in_time(room, &sight, time, direction).await;
        if self.rooms.holes(room).await?.is_empty() {
            return here;
        }
        let distance =
            |other: MilliSecondsSinceUnixEpoch| other.get().max(time.get()) - other.get().min(time.get());
        for server in self.whom_to_ask(room) {
            let Ok(there) = self.peers.nearest_in_time(&server, &room.room_id, time, direction).await else {
                continue;
            };
            let beyond = match direction {
                Direction::Forwards => there.origin_server_ts >= time,
                Direction::Backwards => there.origin_server_ts <= time,
            };
            let closer = here
                .as_ref()
                .map_or(true, |here| distance(there.origin_server_ts) < distance(here.pdu.origin_server_ts));
            if !beyond || !closer {
                continue;
            }
            if let Ok(Some(event)) = timeout(PATIENCE, self.fetched(room, user_id, &there.event_id)).await {
                return Ok(event);
            }
        }
        here
    }

    /// An event of a room's history, which is fetched up to there if that isn't too far.
    async fn fetched(&self, room: &Arc<Room>, user_id: &UserId, event_id: &EventId) -> Option<Arc<Event>> {
        let mut given_up = Vec::new();
        for _ in 0..MOST_CHUNKS {
            let sight = self.rooms.sight(room, user_id).await.ok()?;
            if let Ok(event) = self.rooms.visible_event(room, &sight, event_id).await {
                return Some(event);
            }
            let holes = self.rooms.holes(room).await.ok()?;
            let hole = holes.into_iter().find(|hole| !given_up.contains(&hole.seq))?;
            let seq = hole.seq;
            if !self.fill(room, hole).await {
                given_up.push(seq);
            }
        }
        let sight = self.rooms.sight(room, user_id).await.ok()?;
        self.rooms.visible_event(room, &sight, event_id).await.ok()
    }

    /// Fetches some of what is missing in a hole. Whether anything came.
    async fn fill(&self, room: &Arc<Room>, hole: Hole) -> bool {
        let turn = {
            let mut filling = self.filling.lock();
            filling.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(filling.entry(room.number).or_default())
        };
        let _turn = turn.lock().await;
        match self.rooms.holes(room).await {
            Ok(holes) if holes.contains(&hole) => {}
            // Somebody else was faster.
            Ok(_) => return true,
            Err(_) => return false,
        }
        let hole = match self.rooms.look_again(room, hole).await {
            Ok(Some(hole)) => hole,
            Ok(None) => return true,
            Err(_) => return false,
        };
        for server in self.whom_to_ask(room) {
            match self.fill_from(&server, room, &hole).await {
                Ok(()) => return true,
                Err(cause) => {
                    tracing::info!(%server, room_id = %room.room_id, cause, "no history was had from a server");
                }
            }
        }
        false
    }

    fn whom_to_ask(&self, room: &Room) -> Vec<OwnedServerName> {
        let mut servers = room.snapshot().remote_servers();
        servers.retain(|server| self.peers.allows(server));
        // The one that made the room, if that can be known, has most of it.
        let creator = room.snapshot().create().map(|create| create.pdu.sender.server_name().to_owned());
        servers.sort_by_key(|server| Some(server) != creator.as_ref());
        servers.truncate(MOST_ASKED);
        servers
    }

    async fn fill_from(&self, server: &ServerName, room: &Arc<Room>, hole: &Hole) -> Result<(), String> {
        let target = path("/_matrix/federation/v1/backfill", &[room.room_id.as_str()]);
        let mut target = format!("{target}?limit={CHUNK}");
        for end in &hole.ends {
            target.push_str("&v=");
            target.extend(crate::peers::encoded(end.as_str()));
        }
        let request = ServerRequest::get(target).limit(MAX_ANSWER_BYTES);
        let answer = self.peers.send(server, request).await.map_err(|cause| cause.to_string())?;
        let answer: Backfilled = serde_json::from_slice(&answer.body).map_err(|cause| cause.to_string())?;
        let texts: Vec<&str> = answer.pdus.iter().take(2 * CHUNK).map(|pdu| pdu.get()).collect();
        let verified = self.peers.verified(&room.version, &texts, References::Unlimited).await;
        let mut events: Vec<Pdu> = Vec::new();
        for event in verified {
            match event {
                Ok(event) => events.push(event),
                Err(cause) => tracing::info!(%server, %cause, "an event of a room's history is dropped"),
            }
        }
        // The state that is asked for is that before the oldest which gets a place.
        let ids: Vec<ruma::OwnedEventId> = events.iter().map(|event| event.event_id.clone()).collect();
        let lacking = self.rooms.lacking(room, &ids).await.map_err(|cause| cause.to_string())?;
        events.retain(|event| lacking.contains(&event.event_id));
        let oldest = leading_to(&hole.ends, &events).first().map(|pdu| (*pdu).clone());
        let oldest = oldest.ok_or_else(|| "nothing that is missing here".to_owned())?;
        let before = if oldest.prev_events.is_empty() {
            crate::room::Given::default()
        } else {
            self.state_before(server, room, &oldest).await?
        };
        let chunk = Chunk { hole: hole.clone(), events, before };
        self.rooms.fill(room, chunk).await.map_err(|cause| cause.to_string())
    }
}
