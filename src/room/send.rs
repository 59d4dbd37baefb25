//! Sending events for clients: messages, redactions and state. What the rules of the room say of them is the writer's
//! business; here is what a request has to fulfil before.

use std::sync::Arc;

use ruma::{
    OwnedEventId, RoomId, UserId,
    events::{StateEventType, TimelineEventType},
};
use serde_json::{Value, json, value::RawValue, value::to_raw_value};

use super::{Error, NOT_A_MEMBER, NewEvent, Room, Rooms, Txn, content, writer};

impl Rooms {
    /// A room, for one who is in it. To others it is the same as a room that doesn't exist.
    pub async fn of_member(&self, room_id: &RoomId, user_id: &UserId) -> Result<Arc<Room>, Error> {
        let room = self.of_acquaintance(room_id).await?;
        if room.snapshot().is_joined(user_id) {
            return Ok(room);
        }
        Err(Error::forbidden(NOT_A_MEMBER))
    }

    /// A room, for requests that tell those outside of it that they are.
    pub async fn of_acquaintance(&self, room_id: &RoomId) -> Result<Arc<Room>, Error> {
        self.by_id(room_id).await.map_err(|cause| match cause {
            Error::NotFound(_) => Error::forbidden(NOT_A_MEMBER),
            other => other,
        })
    }

    /// Sends an event that isn't state. A redaction names its target in `redacts` of the content, whatever the version
    /// of the room (RD-03).
    pub async fn send(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        kind: TimelineEventType,
        content: Box<RawValue>,
        txn: Txn,
    ) -> Result<OwnedEventId, Error> {
        if let Some(event_id) = self.sent_as_member(room, sender, &txn).await? {
            return Ok(event_id);
        }
        if kind == TimelineEventType::RoomRedaction {
            let mut content = content::object(&content)?;
            let target = content.remove("redacts");
            let target =
                target.as_ref().and_then(Value::as_str).and_then(|id| OwnedEventId::try_from(id).ok());
            let target = target.ok_or_else(|| {
                Error::BadJson("a redaction needs the id of an event in `redacts`".to_owned())
            })?;
            return self.redact(room, sender, target, Value::Object(content), txn).await;
        }
        if kind == TimelineEventType::RoomMessage {
            content::check_message(&content)?;
        }
        let event = NewEvent { sender: sender.to_owned(), kind, state_key: None, content, redacts: None };
        Ok(self.append_one(room, event, Some(txn)).await?.event_id)
    }

    /// Nothing to a member. Whoever has left is told once more what they sent when they still were one, in answer to the
    /// same transaction (I3), and nothing else.
    async fn sent_as_member(
        &self,
        room: &Room,
        sender: &UserId,
        txn: &Txn,
    ) -> Result<Option<OwnedEventId>, Error> {
        if room.snapshot().is_joined(sender) {
            return Ok(None);
        }
        let mut sent = writer::sent_before(&self.core, std::iter::once(txn)).await?;
        sent.remove(txn).map(Some).ok_or_else(|| Error::forbidden(NOT_A_MEMBER))
    }

    /// Redacts an event; `content` is that of the redaction.
    pub async fn redact(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        target: OwnedEventId,
        content: Value,
        txn: Txn,
    ) -> Result<OwnedEventId, Error> {
        if let Some(event_id) = self.sent_as_member(room, sender, &txn).await? {
            return Ok(event_id);
        }
        let event = NewEvent {
            sender: sender.to_owned(),
            kind: TimelineEventType::RoomRedaction,
            state_key: None,
            content: to_raw_value(&content).map_err(|cause| Error::BadJson(cause.to_string()))?,
            redacts: Some(target),
        };
        Ok(self.append_one(room, event, Some(txn)).await?.event_id)
    }

    /// Sets state. Memberships follow the rules of the requests that are made for them.
    pub async fn set_state(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        kind: StateEventType,
        state_key: String,
        content: Box<RawValue>,
    ) -> Result<OwnedEventId, Error> {
        self.set_state_in(room, sender, kind, state_key, content, None).await
    }

    /// [`Self::set_state`] in a transaction: tried again it gives the same event. Memberships need none, for it makes no
    /// difference to set one twice.
    pub(super) async fn set_state_once(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        kind: StateEventType,
        state_key: String,
        content: Box<RawValue>,
        txn: Txn,
    ) -> Result<OwnedEventId, Error> {
        if kind != StateEventType::RoomMember
            && let Some(event_id) = self.sent_as_member(room, sender, &txn).await?
        {
            return Ok(event_id);
        }
        self.set_state_in(room, sender, kind, state_key, content, Some(txn)).await
    }

    async fn set_state_in(
        &self,
        room: &Arc<Room>,
        sender: &UserId,
        kind: StateEventType,
        state_key: String,
        content: Box<RawValue>,
        txn: Option<Txn>,
    ) -> Result<OwnedEventId, Error> {
        if kind == StateEventType::RoomMember {
            return self.set_member(room, sender, &state_key, content::object(&content)?).await;
        }
        if !room.snapshot().is_joined(sender) {
            return Err(Error::forbidden(NOT_A_MEMBER));
        }
        if kind == StateEventType::RoomCanonicalAlias && state_key.is_empty() {
            self.check_canonical_alias(room, &content::object(&content)?).await?;
        }
        if state_key.is_empty() && room.lets_set(sender, &kind) {
            check_sense(room, &kind, &content)?;
        }
        let event = NewEvent {
            sender: sender.to_owned(),
            kind: TimelineEventType::from(kind.to_string()),
            state_key: Some(state_key),
            content,
            redacts: None,
        };
        Ok(self.append_one(room, event, txn).await?.event_id)
    }
}

/// Refuses state that would be wrong whoever sent it. Whoever lacks the power for it is told that instead, by the rules.
fn check_sense(room: &Room, kind: &StateEventType, content: &RawValue) -> Result<(), Error> {
    match kind {
        StateEventType::RoomCreate => {
            return Err(Error::InvalidParam("a room is created once".to_owned()));
        }
        StateEventType::RoomTombstone => {
            let content = content::object(content)?;
            if content.get("replacement_room").and_then(Value::as_str) == Some(room.room_id.as_str()) {
                return Err(Error::InvalidParam("a room can't be its own replacement".to_owned()));
            }
        }
        // RV-32
        StateEventType::RoomPowerLevels => {
            let snapshot = room.snapshot();
            let content = content::object(content)?;
            if snapshot.rules.authorization.explicitly_privilege_room_creators
                && let Some(users) = content.get("users").and_then(Value::as_object)
                && let Some(creator) = snapshot.creators().iter().find(|id| users.contains_key(id.as_str()))
            {
                return Err(Error::BadJson(format!("power levels: {creator} has power without limit")));
            }
        }
        _ => {}
    }
    Ok(())
}

/// The content of a redaction with a reason.
pub fn reason(reason: Option<String>) -> Value {
    reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }))
}
