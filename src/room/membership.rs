//! Joining, inviting, knocking, leaving, kicking, banning: member events with the checks that aren't rules of the room.

use std::sync::Arc;

use ruma::{
    OwnedEventId, OwnedUserId, RoomId, UserId,
    events::{
        StateEventType, TimelineEventType,
        room::{
            join_rules::{AllowRule, JoinRule, Restricted},
            member::MembershipState,
        },
    },
    serde::JsonObject,
};
use serde_json::{Map, Value, json, value::to_raw_value};

use super::{Core, Error, NOT_A_MEMBER, NewEvent, Room, Rooms};
use crate::{
    account::InviteVerdict,
    store::{self, room as room_table},
};

/// Rooms of a rule that are looked at.
const MOST_ALLOWED: usize = 20;

/// What this server says in a join, and nobody else.
const OF_THE_SERVER: [&str; 7] = [
    "membership",
    "displayname",
    "avatar_url",
    "is_direct",
    "join_authorised_via_users_server",
    "third_party_invite",
    "third_party_signed",
];

impl Core {
    /// The content of a member event; local users' carry their profile (MB-09).
    pub(super) async fn member_content(&self, user_id: &UserId, membership: &str) -> Result<Value, Error> {
        let mut content = json!({ "membership": membership });
        if user_id.server_name() == self.server_name {
            let profile = self.accounts.member_profile(user_id).await?;
            if let Some(name) = profile.displayname {
                content["displayname"] = json!(name);
            }
            if let Some(avatar) = profile.avatar_url {
                content["avatar_url"] = json!(avatar);
            }
        }
        Ok(content)
    }

    /// The content of a join. What its user says beside it goes in, as far as a join of its own making doesn't have it.
    pub(super) async fn join_content(
        &self,
        user_id: &UserId,
        said: Option<&JsonObject>,
    ) -> Result<Value, Error> {
        let mut content = self.member_content(user_id, "join").await?;
        let said = said.into_iter().flatten().filter(|(key, _)| !OF_THE_SERVER.contains(&key.as_str()));
        for (key, value) in said {
            content[key] = value.clone();
        }
        Ok(content)
    }

    /// Refuses to invite users of servers that can't be told, and those who take no invites of the inviter's (MB-11).
    pub(super) async fn check_invitable(&self, inviter: &UserId, user_id: &UserId) -> Result<(), Error> {
        if user_id.server_name() != self.server_name {
            return Err(Error::Forbidden(format!(
                "{user_id} can't be invited: this server doesn't reach users of other servers yet"
            )));
        }
        let Some(recipient) = self.accounts.recipient(user_id).await? else { return Ok(()) };
        if self.accounts.invite_permissions(recipient).await?.verdict(inviter) == InviteVerdict::Blocked {
            return Err(Error::InviteBlocked(user_id.to_owned()));
        }
        Ok(())
    }
}

fn member_event(
    sender: &UserId,
    target: &UserId,
    content: &Value,
    reason: Option<String>,
) -> Result<NewEvent, Error> {
    let mut content = content.clone();
    if let Some(reason) = reason {
        content["reason"] = json!(reason);
    }
    Ok(NewEvent {
        sender: sender.to_owned(),
        kind: TimelineEventType::RoomMember,
        state_key: Some(target.to_string()),
        content: to_raw_value(&content).map_err(|cause| Error::BadJson(cause.to_string()))?,
        redacts: None,
    })
}

impl Rooms {
    /// Sends a member event.
    async fn send_member(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        content: &Value,
        reason: Option<String>,
    ) -> Result<(), Error> {
        self.append_one(room, member_event(sender, target, content, reason)?, None).await?;
        Ok(())
    }

    /// Joins; nothing happens if the user is in already (MB-06).
    pub async fn join(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        said: Option<&JsonObject>,
    ) -> Result<(), Error> {
        let snapshot = room.snapshot();
        let membership = snapshot.membership(user_id);
        if membership == MembershipState::Join {
            return Ok(());
        }
        let mut content = self.core.join_content(user_id, said).await?;
        if membership != MembershipState::Invite
            && let Some(authorised_via) = self.authorising_user(room, user_id).await?
        {
            content["join_authorised_via_users_server"] = json!(authorised_via);
        }
        self.send_member(room, user_id, user_id, &content, None).await?;
        self.carry_settings(room, user_id).await;
        Ok(())
    }

    /// Whether a user is in one of the rooms whose members a rule lets in. A rule may name very many: none is loaded for
    /// this. Of a room that this server has left it doesn't know who is in it, whoever was.
    pub(super) async fn is_in_one_of(&self, user_id: &UserId, rule: &Restricted) -> Result<bool, Error> {
        let mut stored = Vec::new();
        for allowed in &rule.allow {
            let AllowRule::RoomMembership(allowed) = allowed else { continue };
            match self.if_in_memory(&allowed.room_id) {
                Some(room) => {
                    let snapshot = room.snapshot();
                    if snapshot.is_resident() && snapshot.is_joined(user_id) {
                        return Ok(true);
                    }
                }
                None => stored.push(allowed.room_id.as_str()),
            }
        }
        Ok(!stored.is_empty() && self.core.store.is_in_one_of(user_id.as_str(), &stored).await?)
    }

    /// Whether this server can tell whom a rule lets in: who the members are of one of the rooms that it names, or that it
    /// names none.
    async fn can_judge(&self, rule: &Restricted) -> bool {
        let rooms = rule.allow.iter().filter_map(|allowed| match allowed {
            AllowRule::RoomMembership(allowed) => Some(&allowed.room_id),
            _ => None,
        });
        let rooms: Vec<_> = rooms.take(MOST_ALLOWED).collect();
        for room_id in &rooms {
            if self.by_id(room_id).await.is_ok_and(|room| room.snapshot().is_resident()) {
                return true;
            }
        }
        rooms.is_empty()
    }

    /// MB-07: somebody here who may invite, if a restricted room lets the user in for being in another room.
    pub async fn authorising_user(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
    ) -> Result<Option<OwnedUserId>, Error> {
        let snapshot = room.snapshot();
        let (JoinRule::Restricted(restricted) | JoinRule::KnockRestricted(restricted)) = snapshot.join_rule()
        else {
            return Ok(None);
        };
        if !self.is_in_one_of(user_id, &restricted).await? {
            if !self.can_judge(&restricted).await {
                return Err(Error::CannotAuthorise);
            }
            return Err(Error::forbidden("you are in none of the rooms whose members may join this one"));
        }
        let levels = snapshot.power_levels();
        let mut members = snapshot.local.iter();
        let authorising = members.find(|member| levels.user_can_invite(&member.user_id));
        let authorising = authorising.ok_or(Error::CannotGrant)?;
        Ok(Some(authorising.user_id.clone()))
    }

    /// Asks to be let in.
    pub async fn knock(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let content = self.core.member_content(user_id, "knock").await?;
        self.send_member(room, user_id, user_id, &content, reason).await
    }

    /// Invites; nothing happens if the target is invited already (MB-05).
    pub async fn invite(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        if room.snapshot().membership(target) == MembershipState::Invite {
            return may_invite(room, sender);
        }
        self.core.check_invitable(sender, target).await?;
        let content = self.core.member_content(target, "invite").await?;
        self.send_member(room, sender, target, &content, reason).await
    }

    /// Leaves a room, rejects an invite or takes back a knock.
    pub async fn leave(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        self.check_rejectable(room, user_id)?;
        self.leave_for_ever(room, user_id, reason).await
    }

    /// [`Self::leave`], of one whose account has ended.
    pub(super) async fn leave_for_ever(
        &self,
        room: &Arc<Room>,
        user_id: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let snapshot = room.snapshot();
        match snapshot.membership(user_id) {
            MembershipState::Leave if snapshot.member(user_id).is_some() => return Ok(()),
            MembershipState::Leave => return Err(Error::forbidden(NOT_A_MEMBER)),
            MembershipState::Ban => return Err(Error::forbidden("you are banned from this room")),
            _ => {}
        }
        let content = self.core.member_content(user_id, "leave").await?;
        self.send_member(room, user_id, user_id, &content, reason).await
    }

    /// Makes somebody leave, or takes an invite back.
    pub async fn kick(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let present = room.snapshot().membership(target);
        if matches!(present, MembershipState::Leave | MembershipState::Ban) {
            return Err(Error::Forbidden(format!("{target} is not in this room")));
        }
        let content = json!({ "membership": "leave" });
        self.send_member(room, sender, target, &content, reason).await
    }

    /// Makes somebody leave for good, whether or not they are in.
    pub async fn ban(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let content = json!({ "membership": "ban" });
        self.send_member(room, sender, target, &content, reason).await
    }

    /// Lets somebody who is banned come back.
    pub async fn unban(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &UserId,
        reason: Option<String>,
    ) -> Result<(), Error> {
        let snapshot = room.snapshot();
        if !snapshot.is_joined(sender) {
            return Err(Error::forbidden(NOT_A_MEMBER));
        }
        if snapshot.membership(target) != MembershipState::Ban {
            return Err(Error::BadState(format!("{target} is not banned from this room")));
        }
        let content = json!({ "membership": "leave" });
        self.send_member(room, sender, target, &content, reason).await
    }

    /// A membership as a client wrote it, under the rules of the requests that are made for that.
    pub(super) async fn set_member(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: &str,
        mut content: Map<String, Value>,
    ) -> Result<OwnedEventId, Error> {
        let target = <&UserId>::try_from(target)
            .map_err(|_| Error::InvalidParam("the state key of a membership is a user id".to_owned()))?;
        if sender != target && !room.snapshot().is_joined(sender) {
            return Err(Error::forbidden(NOT_A_MEMBER));
        }
        let Some(membership) = content.get("membership").and_then(Value::as_str).map(str::to_owned) else {
            return Err(Error::BadJson("`membership` is missing".to_owned()));
        };
        // MB-10: who vouches for a join is this server's to say, once, for the join that needs it.
        content.remove("join_authorised_via_users_server");
        let present = room.snapshot().membership(target);
        match membership.as_str() {
            "join"
                if sender == target && matches!(present, MembershipState::Leave | MembershipState::Knock) =>
            {
                if let Some(authorised_via) = self.authorising_user(room, sender).await? {
                    content.insert("join_authorised_via_users_server".to_owned(), json!(authorised_via));
                }
            }
            "invite" => self.core.check_invitable(sender, target).await?,
            "leave" if sender == target => self.check_rejectable(room, sender)?,
            _ => {}
        }
        // MB-09
        if matches!(membership.as_str(), "join" | "invite" | "knock")
            && let Value::Object(profile) = self.core.member_content(target, &membership).await?
        {
            for (key, value) in profile {
                content.entry(key).or_insert(value);
            }
        }
        let event = member_event(sender, target, &Value::Object(content), None)?;
        let event_id = self.append_one(room, event, None).await?.event_id;
        if membership == "join" && present != MembershipState::Join {
            self.carry_settings(room, target).await;
        }
        Ok(event_id)
    }

    /// Takes a room that the user has left out of their lists, until they are invited or join again.
    pub async fn forget(&self, room: &Room, user_id: &UserId) -> Result<(), Error> {
        match self.core.store.commit(room_table::forget(user_id.as_str(), room.number)).await {
            Ok(_) => Ok(()),
            Err(store::Error::Conflict) if room.snapshot().member(user_id).is_some() => Err(Error::StillIn),
            Err(store::Error::Conflict) => Err(Error::forbidden(NOT_A_MEMBER)),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Puts a changed profile into the user's member events of all rooms they are in (PF-01). Those that have it stay.
    pub async fn update_profile(&self, user_id: &UserId) -> Result<(), Error> {
        let mut content = self.core.member_content(user_id, "join").await?;
        loop {
            self.update_members(user_id, &content).await?;
            // Of two changes at once the later one has the last word, whichever got to the rooms first.
            let now = self.core.member_content(user_id, "join").await?;
            if now == content {
                return Ok(());
            }
            content = now;
        }
    }

    async fn update_members(&self, user_id: &UserId, content: &Value) -> Result<(), Error> {
        let memberships = self.core.store.memberships(user_id.as_str()).await?;
        let joined = memberships.iter().filter(|row| row.membership == "join");
        let updates = joined.map(async |row| {
            let room = self.by_number(row.room).await?;
            self.append(&room, vec![member_event(user_id, user_id, content, None)?], None).await
        });
        for result in futures_util::future::join_all(updates).await {
            match result {
                Err(cause @ Error::Store(_)) => return Err(cause),
                // One room that refuses, or was left meanwhile, is no reason to stop.
                Err(cause) => tracing::warn!(%user_id, %cause, "a room didn't take a new profile"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The rooms that somebody is in.
    pub async fn joined(&self, user_id: &UserId) -> Result<Vec<ruma::OwnedRoomId>, Error> {
        let memberships = self.core.store.memberships(user_id.as_str()).await?.into_iter();
        let joined = memberships.filter(|row| row.membership == "join");
        Ok(joined.filter_map(|row| RoomId::parse(&row.room_id).ok()).collect())
    }
}

impl Room {
    /// Whether a user may set state of this type now; for those who ask before they act.
    pub fn lets_set(&self, user_id: &UserId, kind: &StateEventType) -> bool {
        let snapshot = self.snapshot();
        snapshot.is_joined(user_id) && snapshot.power_levels().user_can_send_state(user_id, kind.clone())
    }
}

/// MB-05: inviting somebody again changes nothing, but is refused as the first time would be.
fn may_invite(room: &Room, sender: &UserId) -> Result<(), Error> {
    let snapshot = room.snapshot();
    if snapshot.is_joined(sender) && snapshot.power_levels().user_can_invite(sender) {
        return Ok(());
    }
    Err(Error::forbidden("you lack the power to invite"))
}
