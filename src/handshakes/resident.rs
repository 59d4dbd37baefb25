//! What this server answers to others who want in or out of rooms that it keeps.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use hearth_federation::{Pdu, Received, References};
use ruma::{
    EventId, OwnedServerName, RoomId, ServerName, UserId,
    events::{
        TimelineEventType,
        room::{join_rules::JoinRule, member::MembershipState},
    },
};
use serde_json::{Value, json, value::RawValue};

use super::{Error, Handshakes};
use crate::room::{self, Event, Outcome, Room};

/// A member event of another server's user, taken into a room.
pub struct Resident {
    pub room: Arc<Room>,
    /// As it is in the room, with the signatures that it needed.
    pub event: Pdu,
    /// The state before it.
    pub state: Vec<Arc<Event>>,
}

/// What the server of somebody who has joined gets to know of the room (JN-04).
pub struct Answer {
    pub event: Pdu,
    pub state: Vec<Arc<Event>>,
    pub auth_chain: Vec<Arc<Event>>,
    /// Where members were left out (JN-05): who was in the room before the join.
    pub servers_in_room: Option<Vec<OwnedServerName>>,
}

impl Handshakes {
    /// What to answer to a join. Whoever does without the members does without what would come twice, too (JN-05).
    pub async fn answer_to_join(&self, joined: Resident, omit_members: bool) -> Result<Answer, Error> {
        let Resident { room, event, mut state } = joined;
        let mut servers_in_room = None;
        if omit_members {
            servers_in_room = Some(servers_of(&state));
            // A room without a name is called after some of its members.
            let heroes = room::summary(&room.snapshot(), &event.sender).heroes;
            state.retain(|before| match before.pdu.state() {
                Some((TimelineEventType::RoomMember, user)) => {
                    user == event.sender || heroes.iter().any(|hero| hero == user)
                }
                _ => true,
            });
        }
        let mut auth_chain =
            self.rooms.auth_chain(&room, state.iter().map(|event| &event.pdu).chain([&event])).await?;
        if omit_members {
            let given: HashSet<&EventId> = state.iter().map(|event| event.id()).collect();
            auth_chain.retain(|event| !given.contains(event.id()));
        }
        Ok(Answer { event, state, auth_chain, servers_in_room })
    }

    /// A member event that a user of another server may send, for its server to build it (JN-01).
    pub async fn propose(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        membership: MembershipState,
        versions: Option<&[String]>,
    ) -> Result<Value, Error> {
        if user_id.server_name() != origin {
            return Err(room::Error::forbidden("the user is not of your server").into());
        }
        let room = self.kept(room_id, origin).await?;
        if versions.is_some_and(|versions| !versions.iter().any(|version| version == room.version.as_str())) {
            return Err(Error::Incompatible(room.version.clone()));
        }
        let mut content = json!({ "membership": membership });
        if membership == MembershipState::Join
            && let Some(authorised_via) = self.authorising(&room, user_id).await?
        {
            content["join_authorised_via_users_server"] = json!(authorised_via);
        }
        let event = self.rooms.propose(&room, user_id, &content).await?;
        Ok(json!({ "event": event, "room_version": *room.version }))
    }

    /// Who here vouches for a join that the room's rule lets in for being in another room (MB-07, JN-07).
    async fn authorising(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
    ) -> Result<Option<ruma::OwnedUserId>, Error> {
        let snapshot = room.snapshot();
        if matches!(snapshot.membership(user_id), MembershipState::Join | MembershipState::Invite) {
            return Ok(None);
        }
        match self.rooms.authorising_user(room, user_id).await {
            Ok(user) => Ok(user),
            Err(room::Error::CannotAuthorise) => Err(Error::CannotAuthorise),
            Err(room::Error::CannotGrant) => Err(Error::CannotGrant),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Takes a member event that another server has built from what was proposed to it (JN-03).
    pub async fn take(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &RawValue,
        membership: MembershipState,
    ) -> Result<Resident, Error> {
        let invalid = |text: &str| Error::Invalid(text.to_owned());
        let room = self.kept(room_id, origin).await?;
        let event = self.cosigned_if_asked(&room, event, &membership).await?;
        let event = self.verify_one(&room.version, &event).await?;
        if event.event_id != event_id || event.room_id != room_id {
            return Err(invalid("the event is not the one that the path names"));
        }
        if event.kind != TimelineEventType::RoomMember || event.membership() != Some(membership.clone()) {
            return Err(invalid("the event is not of the membership that this request is for"));
        }
        if event.state_key.as_deref() != Some(event.sender.as_str()) {
            return Err(invalid("the event is about somebody else than its sender"));
        }
        if event.sender.server_name() != origin {
            return Err(invalid("the event is not of your server"));
        }
        if membership == MembershipState::Join && !room.snapshot().is_joined(&event.sender) {
            self.rooms.check_room_for_one(&room)?;
        }
        match self.rooms.receive_from(&room, event.clone(), origin).await? {
            Outcome::Accepted => {}
            // It was judged when it first came. An answer that was lost can be had again while the event holds; what was
            // refused stays so, and who is out by now is told no more.
            Outcome::Known => {
                let snapshot = room.snapshot();
                if snapshot.member(&event.sender).is_none_or(|member| member.id() != event_id) {
                    return Err(
                        room::Error::forbidden("the event was not let in, or doesn't hold any more").into()
                    );
                }
            }
            Outcome::Rejected(why) | Outcome::Refused(why) => return Err(room::Error::Forbidden(why).into()),
            Outcome::SoftFailed => {
                return Err(
                    room::Error::forbidden("the room has changed and doesn't allow it any more").into()
                );
            }
            Outcome::Missing(_) => return Err(invalid("the event names others that aren't here")),
        }
        let state = self.rooms.state_before(&room, &event.event_id).await?;
        Ok(Resident { room, event, state })
    }

    /// The text of an event, with this server's signature if it says that somebody here lets it in, and they do (JN-08).
    /// Where the room's rule isn't one that asks for it nobody vouches for anybody: what then lacks the signature is dropped.
    async fn cosigned_if_asked(
        &self,
        room: &Arc<Room>,
        event: &RawValue,
        membership: &MembershipState,
    ) -> Result<String, Error> {
        let received = Received::parse(event.get(), &room.version, References::Limited)?;
        let asked = received.signers().any(|server| server == self.server_name);
        let (true, MembershipState::Join, Some(sender)) = (asked, membership, received.sender()) else {
            return Ok(event.get().to_owned());
        };
        let rule = room.snapshot().join_rule();
        if !matches!(rule, JoinRule::Restricted(_) | JoinRule::KnockRestricted(_)) {
            return Ok(event.get().to_owned());
        }
        self.authorising(room, sender).await?;
        Ok(received.cosigned(&self.server_name, &self.key))
    }

    /// A room that this server keeps and that lets the origin in. What others may not know of is not there (I10).
    pub(super) async fn kept(&self, room_id: &RoomId, origin: &ServerName) -> Result<Arc<Room>, Error> {
        let room = self.rooms.by_id(room_id).await?;
        let snapshot = room.snapshot();
        if snapshot.local.is_empty() || !snapshot.federates() {
            return Err(room::Error::NotFound("this server doesn't know the room").into());
        }
        snapshot.check_acl(origin)?;
        Ok(room)
    }
}

/// The servers that have somebody in a room of this state.
fn servers_of(state: &[Arc<Event>]) -> Vec<OwnedServerName> {
    let joined = state.iter().filter(|event| event.membership() == MembershipState::Join);
    let users = joined.filter_map(|event| <&UserId>::try_from(event.pdu.state_key.as_deref()?).ok());
    let servers: BTreeSet<&ServerName> = users.map(UserId::server_name).collect();
    servers.into_iter().map(ToOwned::to_owned).collect()
}
