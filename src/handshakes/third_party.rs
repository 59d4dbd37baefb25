//! Invites of people who were known by an address alone, once it is known who they are ("Third-party invites"). Hearth has no
//! identity server and makes no such invites; it fulfils those that others made, here or elsewhere.

use std::sync::Arc;

use hearth_federation::ServerRequest;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::to_raw_value};

use super::{Error, Handshakes};
use crate::{
    peers::path,
    room::{self, NewEvent, Room},
};

/// Bytes of what an identity server has signed.
const MAX_SIGNED_BYTES: usize = 16 * 1024;

/// Somebody who turned out to be a user: what the identity server says of an invite.
#[derive(Clone, Debug, Deserialize)]
pub struct Bound {
    pub mxid: OwnedUserId,
    pub room_id: OwnedRoomId,
    /// Who invited them.
    pub sender: OwnedUserId,
    pub signed: Signed,
}

/// Signed by an identity server.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Signed {
    pub mxid: OwnedUserId,
    pub token: String,
    pub signatures: Value,
}

/// The parts of an invite that another server asks for.
#[derive(Debug, Deserialize)]
pub struct Exchange {
    pub sender: OwnedUserId,
    pub state_key: OwnedUserId,
    pub content: ExchangeContent,
}

#[derive(Debug, Deserialize)]
pub struct ExchangeContent {
    pub third_party_invite: ThirdPartyInvite,
}

#[derive(Debug, Deserialize)]
pub struct ThirdPartyInvite {
    pub signed: Signed,
}

impl Handshakes {
    /// JN-17: a user here is who somebody meant to invite.
    pub async fn bound(&self, bound: Bound) -> Result<(), Error> {
        let Bound { mxid, room_id, sender, signed } = bound;
        if mxid.server_name() != self.server_name || self.accounts.recipient(&mxid).await?.is_none() {
            return Err(room::Error::NotFound("there is no such user").into());
        }
        if sender.server_name() == self.server_name {
            let room = self.rooms.by_id(&room_id).await?;
            return self.fulfil(&room, &sender, &mxid, signed).await;
        }
        let content = json!({ "membership": "invite", "third_party_invite": { "signed": signed } });
        let body = json!({
            "type": "m.room.member", "room_id": room_id, "sender": sender, "state_key": mxid, "content": content,
        });
        let target = path("/_matrix/federation/v1/exchange_third_party_invite", &[room_id.as_str()]);
        self.peers.send(sender.server_name(), ServerRequest::put(target, body.to_string())).await?;
        Ok(())
    }

    /// Another server asks for the invite of one of its users, whom somebody here meant to invite.
    pub async fn exchange(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        exchange: Exchange,
    ) -> Result<(), Error> {
        let Exchange { sender, state_key, content } = exchange;
        if state_key.server_name() != origin {
            return Err(Error::Invalid("the user is not of your server".to_owned()));
        }
        if sender.server_name() != self.server_name {
            return Err(Error::Invalid("the inviter is not of this server".to_owned()));
        }
        // AC-01: whom the room doesn't let in it needn't get its users in by this server either.
        let room = self.kept(room_id, origin).await?;
        self.fulfil(&room, &sender, &state_key, content.third_party_invite.signed).await
    }

    /// Makes the invite. The rules of the room say whether what was signed is by whom the room's event names (AR-10).
    async fn fulfil(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        signed: Signed,
    ) -> Result<(), Error> {
        if signed.mxid != target || signed.signatures.to_string().len() > MAX_SIGNED_BYTES {
            return Err(Error::Invalid("what was signed is not about this user".to_owned()));
        }
        let snapshot = room.snapshot();
        if !snapshot.is_resident() {
            return Err(room::Error::NotFound("this server is not in the room").into());
        }
        let invite = snapshot.state.get(&StateEventType::RoomThirdPartyInvite, &signed.token);
        let invite = invite.ok_or_else(|| room::Error::forbidden("nobody made such an invite"))?;
        let invite: Value = invite.pdu.content_as().unwrap_or_default();
        let name = invite["display_name"].as_str().unwrap_or_default();
        let content = json!({
            "membership": "invite",
            "third_party_invite": { "display_name": name, "signed": signed },
        });
        if target.server_name() != self.server_name {
            return self.invite_with(room, sender, target, content).await.map(drop);
        }
        let event = NewEvent {
            sender: sender.to_owned(),
            kind: TimelineEventType::RoomMember,
            state_key: Some(target.to_string()),
            content: to_raw_value(&content).map_err(|cause| Error::Answer(cause.to_string()))?,
            redacts: None,
        };
        self.rooms.append_one(room, event, None).await?;
        Ok(())
    }
}
