//! Asking to be let into rooms.

use std::sync::Arc;

use hearth_federation::ServerRequest;
use ruma::{OwnedServerName, RoomId, ServerName, UserId, events::room::member::MembershipState};
use serde::Deserialize;
use serde_json::{json, value::RawValue, value::to_raw_value};

use super::{Error, Handshakes, Trial, invite::stripped, text};
use crate::peers::path;
use crate::room::{self, Hearsay, Room};

#[derive(Deserialize)]
struct Knocked {
    #[serde(default)]
    knock_room_state: Vec<Box<RawValue>>,
}

impl Handshakes {
    /// Asks to be let into a room, wherever it is.
    pub async fn knock(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        via: Vec<OwnedServerName>,
        reason: Option<String>,
    ) -> Result<Arc<Room>, Error> {
        let mut known = Vec::new();
        match self.rooms.by_id(room_id).await {
            Ok(room) if room.snapshot().is_resident() => {
                self.rooms.knock(&room, user_id, reason).await?;
                return Ok(room);
            }
            Ok(room) => known = room.snapshot().remote_servers(),
            Err(room::Error::NotFound(_)) => {}
            Err(cause) => return Err(cause.into()),
        }
        let candidates = self.candidates(None, via, known, room_id);
        if candidates.is_empty() {
            return Err(room::Error::NotFound("this server doesn't know the room").into());
        }
        let turn = self.rooms.turn_to_enter(room_id);
        let _turn = turn.lock().await;
        let mut trial = Trial::new(candidates);
        while let Some(server) = trial.next() {
            match self.knock_at(&server, room_id, user_id, reason.as_deref()).await {
                Ok(room) => return Ok(room),
                Err(cause) => trial.failed(&server, cause)?,
            }
        }
        Err(trial.error())
    }

    async fn knock_at(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<Arc<Room>, Error> {
        let template = self.proposed(server, room_id, user_id, &MembershipState::Knock).await?;
        let mut content = self.rooms.member_content(user_id, "knock").await?;
        if let Some(reason) = reason {
            content["reason"] = json!(reason);
        }
        let content = to_raw_value(&content).map_err(|cause| Error::Answer(cause.to_string()))?;
        let event = template.build(room_id, user_id, content, self.environment.clock.now(), &self.key)?;
        let path = path("/_matrix/federation/v1/send_knock", &[room_id.as_str(), event.event_id.as_str()]);
        let answer = text(&self.peers.send(server, ServerRequest::put(path, event.json.get())).await?)?;
        let knocked: Knocked =
            serde_json::from_str(&answer).map_err(|cause| Error::Answer(cause.to_string()))?;
        let about = Some(stripped(&knocked.knock_room_state));
        let (room_id, version) = (room_id.to_owned(), template.version);
        Ok(self.rooms.hear(Hearsay { room_id, version, event, about }).await?)
    }
}
