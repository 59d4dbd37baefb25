//! Leaving rooms that this server isn't in: rejecting invites, taking back knocks (JN-15).

use std::sync::Arc;

use hearth_federation::{Pdu, ServerRequest};
use ruma::{
    OwnedServerName, RoomId, ServerName, UserId,
    events::{TimelineEventType, room::member::MembershipState},
};
use serde_json::{json, value::to_raw_value};

use super::{Error, Handshakes, Trial};
use crate::peers::path;
use crate::room::{Hearsay, NewEvent, Room};

impl Handshakes {
    /// Leaves a room, rejects an invite or takes back a knock. Where the servers that keep the room can't be reached, the
    /// user is out of it here all the same.
    pub async fn leave(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let snapshot = room.snapshot();
        let asks = matches!(snapshot.membership(user_id), MembershipState::Invite | MembershipState::Knock);
        if snapshot.is_resident() || !asks {
            return Ok(self.rooms.leave(room, user_id, reason).await?);
        }
        let inviter = snapshot.member(user_id).map(|member| member.pdu.sender.server_name().to_owned());
        let candidates = self.candidates(inviter, Vec::new(), snapshot.remote_servers(), &room.room_id);
        let event = match self.leave_by_one_of(candidates, &room.room_id, user_id, reason.as_deref()).await {
            Ok(event) => event,
            Err(cause) => {
                tracing::info!(room_id = %room.room_id, %user_id, %cause, "a user has left for this server alone");
                self.own_leave(room, user_id, reason.as_deref()).await?
            }
        };
        let (room_id, version) = (room.room_id.clone(), room.version.clone());
        self.rooms.hear(Hearsay { room_id, version, event, about: None }).await?;
        Ok(())
    }

    async fn leave_by_one_of(
        &self,
        candidates: Vec<OwnedServerName>,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<Pdu, Error> {
        let mut trial = Trial::new(candidates);
        while let Some(server) = trial.next() {
            match self.leave_by(&server, room_id, user_id, reason).await {
                Ok(event) => return Ok(event),
                Err(cause) => trial.failed(&server, cause)?,
            }
        }
        Err(trial.error())
    }

    /// Leaves by the help of one resident server.
    pub(super) async fn leave_by(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<Pdu, Error> {
        let template = self.proposed(server, room_id, user_id, &MembershipState::Leave).await?;
        let mut content = json!({ "membership": "leave" });
        if let Some(reason) = reason {
            content["reason"] = json!(reason);
        }
        let content = to_raw_value(&content).map_err(|cause| Error::Answer(cause.to_string()))?;
        let event = template.build(room_id, user_id, content, self.environment.clock.now(), &self.key)?;
        let path = path("/_matrix/federation/v2/send_leave", &[room_id.as_str(), event.event_id.as_str()]);
        self.peers.send(server, ServerRequest::put(path, event.json.get())).await?;
        Ok(event)
    }

    /// A leave that nobody else hears of.
    async fn own_leave(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<&str>,
    ) -> Result<Pdu, Error> {
        let mut content = json!({ "membership": "leave" });
        if let Some(reason) = reason {
            content["reason"] = json!(reason);
        }
        let event = NewEvent {
            sender: user_id.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(user_id.to_string()),
            content: to_raw_value(&content).map_err(|cause| Error::Answer(cause.to_string()))?,
            redacts: None,
        };
        Ok(self.rooms.draft_unchecked(room, event).await?)
    }
}
