//! What this server gives of a room to other servers that are in it.
//!
//! Who isn't in a room hears nothing of it. State is given to every server that is; events of the timeline are given whole
//! if somebody of that server may see them ("History visibility") and they aren't too old to be shown, and redacted
//! otherwise, so that the history holds together. Rejected events and those of other rooms are never given, whatever names them (I10).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use hearth_federation::Pdu;
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, ServerName};

use super::{Direction, Error, Event, NO_EVENT, Room, Rooms, event::Verdict, outliers::in_order};

/// The most events of one answer.
pub const MOST_SERVED: usize = 100;
/// The most of an answer to `get_missing_events`.
pub const MOST_MISSING: usize = 20;

/// Said to servers that aren't in a room, and of rooms that aren't here.
const NOT_IN_ROOM: &str = "your server is not in this room";

impl Rooms {
    /// A room, for another server that is in it. Where nobody here is any more, it is as it was by then, and is given so far to
    /// those that were in it: how the last one left nobody else may know.
    pub async fn of_server(&self, room_id: &RoomId, server: &ServerName) -> Result<Arc<Room>, Error> {
        let room = self.by_id(room_id).await.map_err(|cause| match cause {
            Error::NotFound(_) => Error::forbidden(NOT_IN_ROOM),
            cause => cause,
        })?;
        let snapshot = room.snapshot();
        if snapshot.create().is_none() || !snapshot.has_member_of(server) || !snapshot.federates() {
            return Err(Error::forbidden(NOT_IN_ROOM));
        }
        snapshot.check_acl(server)?;
        Ok(room)
    }

    /// An event by its id alone, for a server that is in its room.
    pub async fn event_for(&self, event_id: &EventId, server: &ServerName) -> Result<Pdu, Error> {
        for room in self.of_event(event_id).await? {
            match self.event_of_room_for(&room, event_id, server).await {
                Err(Error::Forbidden(_) | Error::NotFound(_)) => {}
                given => return given,
            }
        }
        Err(Error::NotFound(NO_EVENT))
    }

    async fn event_of_room_for(
        &self,
        room: &Room,
        event_id: &EventId,
        server: &ServerName,
    ) -> Result<Pdu, Error> {
        let room = self.of_server(&room.room_id, server).await?;
        let event = self.judged_event(&room, event_id).await?;
        self.for_server(&room, server, vec![event]).await?.pop().ok_or(Error::NotFound(NO_EVENT))
    }

    /// BF-03: the state before an event, and all that allowed it.
    pub async fn state_for(
        &self,
        room: &Arc<Room>,
        event_id: &EventId,
    ) -> Result<(Vec<Arc<Event>>, Vec<Arc<Event>>), Error> {
        let event = self.judged_event(room, event_id).await?;
        if event.is_outlier() {
            return Err(Error::NotFound(NO_EVENT));
        }
        let state: Vec<Arc<Event>> = self.core.state_before(room, &event).await?.iter().cloned().collect();
        let chain = self.auth_chain(room, state.iter().map(|event| &event.pdu)).await?;
        Ok((state, chain))
    }

    /// All that allowed an event.
    pub async fn auth_chain_for(
        &self,
        room: &Arc<Room>,
        event_id: &EventId,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let event = self.judged_event(room, event_id).await?;
        self.auth_chain(room, std::iter::once(&event.pdu)).await
    }

    /// BF-01: these events and those before them, the nearest first.
    pub async fn before(
        &self,
        room: &Arc<Room>,
        server: &ServerName,
        from: Vec<OwnedEventId>,
        limit: usize,
    ) -> Result<Vec<Pdu>, Error> {
        let mut seen: HashSet<OwnedEventId> = HashSet::new();
        let mut found: Vec<Arc<Event>> = Vec::new();
        let mut wave = from;
        while found.len() < limit && !wave.is_empty() {
            let mut events = self.wave(room, &mut seen, &wave).await?;
            events.truncate(limit - found.len());
            wave = events.iter().flat_map(|event| event.pdu.prev_events.iter().cloned()).collect();
            found.extend(events);
        }
        found.sort_by_key(|event| std::cmp::Reverse((event.pdu.depth, event.seq)));
        self.for_server(room, server, found).await
    }

    /// BF-01: the events before `latest`, back to `earliest`, the oldest first.
    pub async fn between(
        &self,
        room: &Arc<Room>,
        server: &ServerName,
        earliest: Vec<OwnedEventId>,
        latest: Vec<OwnedEventId>,
        min_depth: i64,
        limit: usize,
    ) -> Result<Vec<Pdu>, Error> {
        let mut seen: HashSet<OwnedEventId> = earliest.into_iter().collect();
        let mut found: Vec<Arc<Event>> = Vec::new();
        let mut wave: Vec<OwnedEventId> = self
            .wave(room, &mut seen, &latest)
            .await?
            .iter()
            .flat_map(|event| event.pdu.prev_events.iter().cloned())
            .collect();
        while found.len() < limit && !wave.is_empty() {
            let mut events = self.wave(room, &mut seen, &wave).await?;
            events.retain(|event| event.pdu.depth >= min_depth);
            events.truncate(limit - found.len());
            wave = events.iter().flat_map(|event| event.pdu.prev_events.iter().cloned()).collect();
            found.extend(events);
        }
        let pdus = self.for_server(room, server, found).await?;
        let given: HashMap<&EventId, &Pdu> = pdus.iter().map(|pdu| (&*pdu.event_id, pdu)).collect();
        Ok(in_order(&given, |pdu| &pdu.prev_events).into_iter().cloned().collect())
    }

    /// The event closest to a time, if the server may see it.
    pub async fn nearest_for_server(
        &self,
        room: &Arc<Room>,
        server: &ServerName,
        time: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Arc<Event>, Error> {
        let sight = self.sight_of_server(room, server).await?;
        self.nearest_in_time(room, &sight, time, direction).await
    }

    /// Those of some events that weren't looked at before and are part of the room's history.
    async fn wave(
        &self,
        room: &Room,
        seen: &mut HashSet<OwnedEventId>,
        ids: &[OwnedEventId],
    ) -> Result<Vec<Arc<Event>>, Error> {
        let ids: Vec<&OwnedEventId> = ids.iter().filter(|id| seen.insert((*id).clone())).collect();
        let mut events = self.core.events_by_ids(room.number, &room.version, &ids).await?;
        events.retain(|event| event.verdict != Verdict::Rejected && !event.is_outlier());
        events.sort_by_key(|event| std::cmp::Reverse((event.pdu.depth, event.seq)));
        Ok(events.into_iter().map(Arc::new).collect())
    }

    /// An event of this room that isn't rejected.
    async fn judged_event(&self, room: &Room, event_id: &EventId) -> Result<Arc<Event>, Error> {
        let event = self.event(room, event_id).await?;
        if event.verdict == Verdict::Rejected { Err(Error::NotFound(NO_EVENT)) } else { Ok(event) }
    }

    /// Events as another server gets them (BF-04): what nobody of it could see is redacted.
    async fn for_server(
        &self,
        room: &Arc<Room>,
        server: &ServerName,
        events: Vec<Arc<Event>>,
    ) -> Result<Vec<Pdu>, Error> {
        let sight = self.sight_of_server(room, server).await?;
        let shown = |event: Arc<Event>| {
            let visible = event.pdu.is_state() || sight.may_see(event.seq);
            Ok(if visible { event.pdu.clone() } else { event.pdu.redacted(&room.version)? })
        };
        events.into_iter().map(shown).collect()
    }
}
