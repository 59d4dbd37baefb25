//! What handshakes with other servers need of a room that this server keeps: events made but not appended, proposals for
//! events that others will make, and the taking in of what they made of these.

use std::{collections::HashSet, sync::Arc};

use hearth_federation::Pdu;
use ruma::{
    EventId, OwnedEventId, OwnedServerName, OwnedUserId, ServerName, UserId, events::TimelineEventType,
    serde::JsonObject,
};
use serde_json::{Value, json, value::to_raw_value};

use super::{
    Error, Event, NO_EVENT, NewEvent, Outcome, Room, Rooms, Snapshot, fan_out::Outward, snapshot::STRIPPED,
    work::Work, writer,
};

impl Rooms {
    /// An event as it would be appended now. It isn't: [`Self::receive_own`] does that, when others have signed it.
    pub async fn draft(&self, room: &Arc<Room>, new: NewEvent) -> Result<Pdu, Error> {
        let work = Work::start(&self.core, Snapshot::clone(&room.snapshot())).await?;
        work.check_policy(&new)?;
        Ok(work.build(new, None).await?.pdu)
    }

    /// An event of a room that this server isn't in. Nobody else would take it.
    pub async fn draft_unchecked(&self, room: &Arc<Room>, new: NewEvent) -> Result<Pdu, Error> {
        let work = Work::start(&self.core, Snapshot::clone(&room.snapshot())).await?;
        work.built(new).await
    }

    /// A member event for a user of another server to make, without hashes and signatures, if they may.
    pub async fn propose(&self, room: &Arc<Room>, user_id: &UserId, content: &Value) -> Result<Value, Error> {
        let new = NewEvent {
            sender: user_id.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(user_id.to_string()),
            content: to_raw_value(content).map_err(|cause| Error::BadJson(cause.to_string()))?,
            redacts: None,
        };
        let event = self.draft(room, new).await?;
        let mut event: Value =
            serde_json::from_str(event.json.get()).map_err(|cause| Error::Internal(cause.to_string()))?;
        if let Some(event) = event.as_object_mut() {
            for key in ["hashes", "signatures", "event_id"] {
                event.remove(key);
            }
            // Old servers look for it.
            event.insert("origin".to_owned(), json!(self.core.server_name));
        }
        Ok(event)
    }

    /// Appends an event that this server has drafted, and tells the room's servers.
    pub async fn receive_own(&self, room: &Arc<Room>, event: Pdu) -> Result<Outcome, Error> {
        let event = self.signed_by_policy(room, event).await?;
        one(writer::receive(&self.core, room, vec![event], Outward::Everybody).await?)
    }

    /// Appends an event that another server has handed to this one alone, and tells the others.
    pub async fn receive_from(
        &self,
        room: &Arc<Room>,
        event: Pdu,
        origin: &ServerName,
    ) -> Result<Outcome, Error> {
        let event = self.signed_by_policy(room, event).await?;
        let outward = Outward::EverybodyBut(origin.to_owned());
        one(writer::receive(&self.core, room, vec![event], outward).await?)
    }

    /// The state before an event of the log.
    pub async fn state_before(&self, room: &Arc<Room>, event_id: &EventId) -> Result<Vec<Arc<Event>>, Error> {
        let event = self.event(room, event_id).await?;
        if event.is_outlier() {
            return Err(Error::NotFound(NO_EVENT));
        }
        Ok(self.core.state_before(room, &event).await?.iter().cloned().collect())
    }

    /// All events that these cite, and that those cite, and so on: in no order, none of them twice.
    pub async fn auth_chain(
        &self,
        room: &Room,
        events: impl Iterator<Item = &Pdu>,
    ) -> Result<Vec<Arc<Event>>, Error> {
        let mut seen: HashSet<OwnedEventId> = HashSet::new();
        let mut wave: Vec<OwnedEventId> = events.flat_map(|pdu| pdu.auth_events.iter().cloned()).collect();
        // Rooms of version 12 name their first event by their own id.
        let create = room.snapshot().create().map(|create| create.pdu.event_id.clone());
        wave.extend(create);
        let mut chain = Vec::new();
        loop {
            wave.retain(|id| seen.insert(id.clone()));
            if wave.is_empty() {
                return Ok(chain);
            }
            let ids: Vec<&OwnedEventId> = wave.iter().collect();
            let found = self.core.events_by_ids(room.number, &room.version, &ids).await?;
            wave = found.iter().flat_map(|event| event.pdu.auth_events.iter().cloned()).collect();
            chain.extend(found.into_iter().map(Arc::new));
        }
    }

    /// The content of a member event, with the profile of a user of this server (MB-09).
    pub async fn member_content(&self, user_id: &UserId, membership: &str) -> Result<Value, Error> {
        self.core.member_content(user_id, membership).await
    }

    /// The content of a join, with what its user says beside it.
    pub async fn join_content(&self, user_id: &UserId, said: Option<&JsonObject>) -> Result<Value, Error> {
        self.core.join_content(user_id, said).await
    }

    /// Whether a server that was in a room with this one hasn't taken all that was said here.
    pub async fn is_untold(&self, room: &Room, server: &ServerName) -> Result<bool, Error> {
        let snapshot = room.snapshot();
        let Some(recipient) = snapshot.remote.iter().find(|(_, name)| name == server) else {
            return Ok(false);
        };
        // What it has taken is written down along with what is written next, such as nothing at all.
        self.core.store.published().await?;
        let Some(destination) = self.core.store.destination(recipient.0).await? else { return Ok(false) };
        for end in snapshot.extremities.iter() {
            let event = self.event(room, &end.event_id).await?;
            let is_own = event.pdu.sender.server_name() == self.core.server_name;
            if is_own && self.core.store.position_of(room.number, event.seq).await? > destination.position {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether an event keeps somebody of this server out of a room.
    pub fn keeps_out_own(&self, event: &Pdu) -> bool {
        Event::keeps_out(event) == Some(&self.core.server_name)
    }

    /// What is done after somebody has come in.
    pub async fn settle_in(&self, room: &Room, user_id: &UserId) {
        self.carry_settings(room, user_id).await;
    }

    /// Whether one more may come in, by this server's policy.
    pub fn check_room_for_one(&self, room: &Room) -> Result<(), Error> {
        if room.snapshot().joined < self.core.policy.max_members { Ok(()) } else { Err(self.full()) }
    }

    /// Said of a room that has as many members as this server allows.
    pub fn full(&self) -> Error {
        Error::full(self.core.policy.max_members)
    }
}

fn one(outcomes: Vec<Outcome>) -> Result<Outcome, Error> {
    outcomes.into_iter().next().ok_or_else(|| Error::Internal("an event has no outcome".to_owned()))
}

impl Snapshot {
    /// The servers of others that have somebody in the room.
    pub fn remote_servers(&self) -> Vec<OwnedServerName> {
        self.remote.iter().map(|(_, server)| server.clone()).collect()
    }

    /// What somebody outside sees of the room, and who `inviter` is.
    pub fn about(&self, inviter: &OwnedUserId) -> Vec<Arc<Event>> {
        let facts = STRIPPED.iter().filter_map(|kind| self.state.get(kind, ""));
        facts.chain(self.member(inviter)).cloned().collect()
    }
}
