//! Inviting users of other servers, and being invited by them.

use std::sync::Arc;

use hearth_federation::{ClientError, Pdu, ServerRequest};
use ruma::{
    EventId, OwnedEventId, RoomId, RoomVersionId, ServerName, UserId, events::room::member::MembershipState,
};
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue, value::to_raw_value};

use super::{Error, Handshakes, known_version, text};
use crate::{
    account::InviteVerdict,
    peers::path,
    room::{self, Hearsay, Outcome, Room},
};

/// Events about a room that come with an invite and are kept of it.
const MOST_STRIPPED: usize = 50;
/// Bytes of one of them.
const MAX_STRIPPED_BYTES: usize = 64 * 1024;

/// What another server says of an invite.
#[derive(Deserialize)]
pub struct Invited {
    pub room_version: String,
    pub event: Box<RawValue>,
    #[serde(default)]
    pub invite_room_state: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Signed {
    event: Box<RawValue>,
}

impl Handshakes {
    /// Invites somebody, wherever they are; nothing happens if they are invited already (MB-05).
    pub async fn invite(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let invited = room.snapshot().membership(target) == MembershipState::Invite;
        if target.server_name() == self.server_name || invited {
            return Ok(self.rooms.invite(room, sender, target, reason).await?);
        }
        let mut content = json!({ "membership": "invite" });
        if let Some(reason) = reason {
            content["reason"] = json!(reason);
        }
        self.invite_with(room, sender, target, content).await.map(drop)
    }

    /// Invites a user of another server by an event of this content (JN-11).
    pub async fn invite_with(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        content: serde_json::Value,
    ) -> Result<OwnedEventId, Error> {
        let server = target.server_name();
        if !room.snapshot().federates() {
            return Err(room::Error::forbidden("users of other servers can't enter this room").into());
        }
        if !self.peers.allows(server) {
            let text = format!("{target} can't be invited: this server doesn't speak to {server}");
            return Err(room::Error::Forbidden(text).into());
        }
        let event = room::NewEvent {
            sender: sender.to_owned(),
            kind: ruma::events::TimelineEventType::RoomMember,
            state_key: Some(target.to_string()),
            content: to_raw_value(&content).map_err(|cause| Error::Answer(cause.to_string()))?,
            redacts: None,
        };
        let event = self.rooms.draft(room, event).await?;
        let about = room.snapshot().about(&event.sender);
        let signed = self.signed_by(server, &room.version, &event, &about).await?;
        let event = event.with_signatures_of(&room.version, server, &signed)?;
        let event_id = event.event_id.clone();
        match self.rooms.receive_own(room, event).await? {
            Outcome::Accepted | Outcome::Known => Ok(event_id),
            Outcome::SoftFailed => {
                Err(room::Error::forbidden("the room changed while the invite was on its way").into())
            }
            Outcome::Rejected(why) | Outcome::Refused(why) => Err(room::Error::Forbidden(why).into()),
            Outcome::Missing(_) => Err(room::Error::Internal("an own event isn't whole".to_owned()).into()),
        }
    }

    /// The invite, signed by the server of whom it is for.
    async fn signed_by(
        &self,
        server: &ServerName,
        version: &RoomVersionId,
        event: &Pdu,
        about: &[Arc<room::Event>],
    ) -> Result<String, Error> {
        #[derive(Serialize)]
        struct Body<'a> {
            event: &'a RawValue,
            // JN-13
            invite_room_state: Vec<&'a RawValue>,
            room_version: &'a RoomVersionId,
        }
        let invite_room_state = about.iter().map(|event| &*event.pdu.json).collect();
        let body = Body { event: &event.json, invite_room_state, room_version: version };
        let body = serde_json::to_string(&body).map_err(|cause| Error::Answer(cause.to_string()))?;
        let parameters = [event.room_id.as_str(), event.event_id.as_str()];
        let request = ServerRequest::put(path("/_matrix/federation/v2/invite", &parameters), body);
        let answer = match self.peers.send(server, request).await {
            Ok(answer) => text(&answer)?,
            Err(cause) if is_unknown(&cause) && matches!(version.as_str(), "1" | "2") => {
                let request =
                    ServerRequest::put(path("/_matrix/federation/v1/invite", &parameters), event.json.get());
                let answer = text(&self.peers.send(server, request).await?)?;
                let (_, signed): (u16, Signed) =
                    serde_json::from_str(&answer).map_err(|cause| Error::Answer(cause.to_string()))?;
                return Ok(signed.event.get().to_owned());
            }
            Err(cause) => return Err(cause.into()),
        };
        let signed: Signed =
            serde_json::from_str(&answer).map_err(|cause| Error::Answer(cause.to_string()))?;
        Ok(signed.event.get().to_owned())
    }

    /// Takes an invite for somebody here (JN-12), and signs it.
    pub async fn invited(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        invited: Invited,
    ) -> Result<Box<RawValue>, Error> {
        let invalid = |text: &str| Error::Invalid(text.to_owned());
        let version = self.version_here(room_id, known_version(&invited.room_version)?).await?;
        let event = self.verify_one(&version, invited.event.get()).await?;
        if event.event_id != event_id || event.room_id != room_id {
            return Err(invalid("the event is not the one that the path names"));
        }
        if event.membership() != Some(MembershipState::Invite) {
            return Err(invalid("the event is not an invite"));
        }
        if event.sender.server_name() != origin {
            return Err(invalid("the event is not of your server"));
        }
        let target = event.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok());
        let target = target.ok_or_else(|| invalid("the event invites nobody"))?.to_owned();
        if target.server_name() != self.server_name {
            return Err(invalid("the user is not of this server"));
        }
        let Some(recipient) = self.accounts.recipient(&target).await? else {
            return Err(room::Error::NotFound("there is no such user").into());
        };
        if self.accounts.invite_permissions(recipient).await?.verdict(&event.sender) == InviteVerdict::Blocked
        {
            return Err(room::Error::InviteBlocked(target).into());
        }
        let about = self.believable(&version, room_id, &invited.invite_room_state).await?;
        let event = event.cosigned(&version, &self.server_name, &self.key);
        let event = event.map_err(|cause| Error::Invalid(cause.to_string()))?;
        let signed = event.json.clone();
        match self.rooms.by_id(room_id).await {
            Ok(room) if room.snapshot().is_resident() => {
                room.snapshot().check_acl(origin)?;
                // If something is missing that comes before it, it comes with the room's other events.
                self.rooms.receive(&room, vec![event]).await?;
            }
            Ok(_) | Err(room::Error::NotFound(_)) => {
                let room_id = room_id.to_owned();
                self.rooms.hear(Hearsay { room_id, version, event, about: Some(about) }).await?;
            }
            Err(cause) => return Err(cause.into()),
        }
        Ok(signed)
    }

    /// The version of a room, for whose events another server names `said`: how they are read isn't up to that.
    async fn version_here(&self, room_id: &RoomId, said: RoomVersionId) -> Result<RoomVersionId, Error> {
        let room = match self.rooms.by_id(room_id).await {
            Ok(room) => room,
            Err(room::Error::NotFound(_)) => return Ok(said),
            Err(cause) => return Err(cause.into()),
        };
        let snapshot = room.snapshot();
        if snapshot.create().is_none() || snapshot.version == said {
            return Ok(said);
        }
        // The first version of the endpoint names none, and is for rooms of either of these: their events have one form.
        if (&said, &snapshot.version) == (&RoomVersionId::V1, &RoomVersionId::V2) {
            return Ok(RoomVersionId::V2);
        }
        Err(Error::Invalid(format!("the room isn't of version {said}")))
    }

    /// JN-13: what an invite says of its room. From version 12 on that has to be events of the room, whole and signed, the
    /// one that created it among them.
    async fn believable(
        &self,
        version: &RoomVersionId,
        room_id: &RoomId,
        given: &[Box<RawValue>],
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let rules = hearth_federation::rules(version).map_err(room::Error::from)?;
        if !rules.authorization.room_create_event_id_as_room_id {
            return Ok(stripped(given));
        }
        let texts: Vec<&str> = given.iter().take(MOST_STRIPPED).map(|event| event.get()).collect();
        let verified = self.peers.verified(version, &texts, hearth_federation::References::Limited).await;
        let events: Vec<Pdu> =
            verified.into_iter().flatten().filter(|pdu| pdu.room_id == room_id && pdu.is_state()).collect();
        if !events.iter().any(|pdu| pdu.kind == ruma::events::TimelineEventType::RoomCreate) {
            let text = "`invite_room_state` lacks the event that created the room";
            return Err(Error::Invalid(text.to_owned()));
        }
        let events: Vec<Box<RawValue>> = events.into_iter().map(|pdu| pdu.json).collect();
        Ok(stripped(&events))
    }
}

fn is_unknown(cause: &ClientError) -> bool {
    matches!(cause, ClientError::Refused { status, .. } if matches!(status.as_u16(), 400 | 404))
}

/// Events about a room as somebody outside of it gets them (SY-11); what isn't one is left out.
pub(super) fn stripped(events: &[Box<RawValue>]) -> Vec<Box<RawValue>> {
    #[derive(Deserialize, Serialize)]
    struct Stripped {
        content: serde_json::Map<String, serde_json::Value>,
        sender: ruma::OwnedUserId,
        state_key: String,
        #[serde(rename = "type")]
        kind: String,
    }
    let small = events.iter().filter(|event| event.get().len() <= MAX_STRIPPED_BYTES).take(MOST_STRIPPED);
    let events = small.filter_map(|event| serde_json::from_str::<Stripped>(event.get()).ok());
    events.filter_map(|event| to_raw_value(&event).ok()).collect()
}
