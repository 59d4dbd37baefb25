//! Joining rooms.

use std::{collections::HashSet, sync::Arc, time::Duration};

use hearth_federation::{Pdu, Received, References, ServerRequest, VerifyError};
use ruma::{
    OwnedEventId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId,
    events::room::member::MembershipState, serde::JsonObject,
};
use serde::Deserialize;
use serde_json::{json, value::RawValue, value::to_raw_value};

use super::{Error, Handshakes, Trial, text};
use crate::peers::path;
use crate::room::{self, Entry, Given, Room};

/// Bytes of the answer to a join: the state of a room, and all that allowed it.
const MAX_JOIN_BYTES: usize = 96 * 1024 * 1024;

/// How long a join may take: a resident server collects the whole state first.
const JOIN_TIMEOUT: Duration = Duration::from_mins(3);

/// The answer to `send_join`.
#[derive(Deserialize)]
struct Joined {
    /// The join, signed by the resident server too where the room is restricted.
    event: Option<Box<RawValue>>,
    state: Vec<Box<RawValue>>,
    auth_chain: Vec<Box<RawValue>>,
    #[serde(default)]
    members_omitted: bool,
}

/// A state and an auth chain, without those of their events that don't hold.
#[derive(Default)]
pub(super) struct Verified {
    state: Vec<Pdu>,
    auth_chain: Vec<Pdu>,
    /// Those of the state that may hold if their servers' keys can be had some day.
    unverified: Vec<OwnedEventId>,
    /// All that was there, whether it holds or not.
    given: HashSet<OwnedEventId>,
}

impl Handshakes {
    /// Joins a room, wherever it is; nothing happens if the user is in already (MB-06).
    pub async fn join(
        &self,
        room_id: &RoomId,
        user_id: &UserId,
        via: Vec<OwnedServerName>,
        said: Option<&JsonObject>,
    ) -> Result<Arc<Room>, Error> {
        let turn = self.rooms.turn_to_enter(room_id);
        let (mut first, mut known) = (Vec::new(), Vec::new());
        match self.rooms.by_id(room_id).await {
            Ok(room) if room.snapshot().is_resident() => {
                match self.rooms.join(&room, user_id, said).await {
                    Ok(()) => return Ok(room),
                    // Somebody elsewhere may be able to.
                    Err(cause @ (room::Error::CannotAuthorise | room::Error::CannotGrant)) => {
                        let others = room.snapshot().remote_servers();
                        if others.is_empty() {
                            return Err(cause.into());
                        }
                        first = others;
                    }
                    Err(cause) => return Err(cause.into()),
                }
            }
            Ok(room) => {
                let invite = room.snapshot().member(user_id).cloned();
                let inviter = invite.map(|invite| invite.pdu.sender.server_name().to_owned());
                first.extend(inviter);
                known = room.snapshot().remote_servers();
            }
            Err(room::Error::NotFound(_)) => {}
            Err(cause) => return Err(cause.into()),
        }
        let candidates = self.candidates(first, via, known, room_id);
        if candidates.is_empty() {
            return Err(room::Error::NotFound("this server doesn't know the room").into());
        }
        self.check_may_enter(user_id).await?;
        let _turn = turn.lock().await;
        // Another user may have come in while we waited.
        if let Ok(room) = self.rooms.by_id(room_id).await
            && room.snapshot().is_resident()
            && (room.snapshot().is_joined(user_id) || self.rooms.join(&room, user_id, said).await.is_ok())
        {
            return Ok(room);
        }
        let mut trial = Trial::new(candidates);
        while let Some(server) = trial.next() {
            match self.join_by(&server, room_id, user_id, said).await {
                Ok(room) => return Ok(room),
                Err(cause) => trial.failed(&server, cause)?,
            }
        }
        Err(trial.error())
    }

    /// Joins by the help of one resident server.
    async fn join_by(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        said: Option<&JsonObject>,
    ) -> Result<Arc<Room>, Error> {
        let forks = match self.rooms.by_id(room_id).await {
            Ok(room) => self.rooms.is_untold(&room, server).await?,
            Err(_) => false,
        };
        let template = self.proposed(server, room_id, user_id, &MembershipState::Join).await?;
        let mut content = self.rooms.join_content(user_id, said).await?;
        if let Some(authorised_via) = &template.authorised_via {
            content["join_authorised_via_users_server"] = json!(authorised_via);
        }
        let content = to_raw_value(&content).map_err(|cause| Error::Answer(cause.to_string()))?;
        let now = self.environment.clock.now();
        let event = template.build(room_id, user_id, content, now, &self.key)?;

        let path = path("/_matrix/federation/v2/send_join", &[room_id.as_str(), event.event_id.as_str()]);
        let request = ServerRequest::put(path + "?omit_members=false", event.json.get());
        let request = request.limit(MAX_JOIN_BYTES).timeout(JOIN_TIMEOUT);
        let answer = text(&self.peers.send(server, request).await?)?;
        let joined: Joined =
            serde_json::from_str(&answer).map_err(|cause| Error::Answer(cause.to_string()))?;
        if joined.members_omitted {
            return Err(Error::Answer("it leaves out members, whom nobody asked it to".to_owned()));
        }
        let event = match template.authorised_via {
            Some(authorised_via) => {
                let signed = joined.event.as_deref().map_or("{}", RawValue::get);
                let by = authorised_via.server_name();
                let event = event.with_signatures_of(&template.version, by, signed)?;
                let verified = self.verify_one(&template.version, event.json.get()).await;
                verified.map_err(|cause| {
                    Error::Answer(format!("its signature of the join doesn't hold: {cause}"))
                })?
            }
            None => event,
        };
        let state = self.verify_all(&template.version, &joined.state, &joined.auth_chain).await;
        drop(joined);
        let Verified { state, auth_chain, unverified, given } = state;
        let members = state.iter().filter(|pdu| pdu.membership() == Some(MembershipState::Join)).count();
        let (version, room_id) = (template.version, room_id.to_owned());
        if members >= self.rooms.policy().max_members {
            self.leave_by(server, &room_id, user_id, None).await?;
            return Err(self.rooms.full().into());
        }
        let ids = state.iter().map(|pdu| pdu.event_id.clone()).chain(unverified).collect();
        let mut events: Vec<Pdu> = state.into_iter().chain(auth_chain).collect();
        self.close_gaps(server, &version, &event, &mut events, given).await?;
        let before = Given { state: ids, events };
        let room = self.rooms.enter(Entry { room_id, version, event, before, forks }).await?;
        self.rooms.settle_in(&room, user_id).await;
        Ok(room)
    }

    /// One event of somebody else's, verified.
    pub(super) async fn verify_one(&self, version: &RoomVersionId, event: &str) -> Result<Pdu, Error> {
        let verified = self.peers.verified(version, &[event], References::Limited).await.pop();
        Ok(verified.ok_or_else(|| Error::Invalid("there is no event".to_owned()))??)
    }

    /// What holds of a state and of an auth chain.
    pub(super) async fn verify_all(
        &self,
        version: &RoomVersionId,
        state: &[Box<RawValue>],
        auth_chain: &[Box<RawValue>],
    ) -> Verified {
        let texts: Vec<&str> = state.iter().chain(auth_chain).map(|event| event.get()).collect();
        let mut seen = HashSet::new();
        // Most of an auth chain is state too.
        let unique: Vec<(usize, &str)> =
            texts.into_iter().enumerate().filter(|(_, text)| seen.insert(*text)).collect();
        let parsed = unique.iter().map(|(_, text)| Received::parse(text, version, References::Limited));
        let parsed: Vec<_> = parsed.collect();
        let id = |received: &Result<Received<'_>, _>| Some(received.as_ref().ok()?.event_id().clone());
        let ids: Vec<Option<OwnedEventId>> = parsed.iter().map(id).collect();
        let verified = self.peers.verify(parsed).await;
        let mut all = Verified { given: ids.iter().flatten().cloned().collect(), ..Verified::default() };
        for (((index, _), id), pdu) in unique.into_iter().zip(ids).zip(verified) {
            match pdu {
                Ok(pdu) if index < state.len() => all.state.push(pdu),
                Ok(pdu) => all.auth_chain.push(pdu),
                Err(cause) => {
                    tracing::info!(%cause, "an event of a room's state is dropped");
                    if index < state.len() && matches!(cause, VerifyError::UnknownKey(_)) {
                        all.unverified.extend(id);
                    }
                }
            }
        }
        all
    }

    /// What this server refuses to its users, wherever the room is.
    async fn check_may_enter(&self, user_id: &UserId) -> Result<(), Error> {
        if self.accounts.is_guest(user_id).await? {
            return Err(room::Error::GuestsForbidden.into());
        }
        Ok(())
    }
}
