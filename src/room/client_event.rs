//! Events in the format of clients ("Room event format" of the Client-Server API), as text.
//!
//! Everything but `unsigned` is the same for every reader, so it is written once an event and kept. `unsigned` is added
//! for each reader: the age of the event, and what only they may know.

use std::{fmt::Write, sync::Arc};

use ruma::{
    UserId,
    events::{StateEventType, TimelineEventType},
};
use serde::Serialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{Core, Error, Event, Room};

/// Who reads an event.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub user_id: &'a UserId,
    /// The device whose own transaction ids are told.
    pub device: i64,
}

/// What the reader may know about the event beyond the event.
#[derive(Default)]
pub(super) struct Surroundings {
    /// The state event that it replaced: its id, and its content if the reader may see it.
    pub(super) replaces: Option<(String, Option<Box<RawValue>>)>,
    pub(super) redacted_because: Option<Box<RawValue>>,
    /// The reader's membership when the event happened.
    pub(super) membership: Option<String>,
}

#[derive(Serialize)]
struct Unsigned<'a> {
    age: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    membership: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_content: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redacted_because: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
}

impl Event {
    /// The event up to where `unsigned` begins: a JSON object without its last brace.
    fn client_json(&self) -> &str {
        self.client_json.get_or_init(|| {
            let pdu = &self.pdu;
            let mut text = String::with_capacity(pdu.content.get().len() + 320);
            text.push_str(r#"{"content":"#);
            text.push_str(&self.client_content());
            let mut field = |name: &str, value: &str| {
                // Writing to a string can't fail.
                let _ = write!(text, r#","{name}":{}"#, json!(value));
            };
            field("event_id", pdu.event_id.as_str());
            field("room_id", pdu.room_id.as_str());
            field("sender", pdu.sender.as_str());
            field("type", &pdu.kind.to_string());
            if let Some(state_key) = &pdu.state_key {
                field("state_key", state_key);
            }
            // RV-23: a redaction names its target at the top in every room version.
            if let Some(redacts) = &pdu.redacts {
                field("redacts", redacts.as_str());
            }
            let _ = write!(text, r#","origin_server_ts":{}"#, pdu.origin_server_ts.get());
            text.into_boxed_str()
        })
    }

    /// RV-23: … and in its content.
    fn client_content(&self) -> String {
        let content = self.pdu.content.get();
        let Some(redacts) = &self.pdu.redacts else { return content.to_owned() };
        match serde_json::from_str::<Value>(content) {
            Ok(Value::Object(mut object)) => {
                object.insert("redacts".to_owned(), json!(redacts));
                Value::Object(object).to_string()
            }
            _ => content.to_owned(),
        }
    }

    pub(super) fn to_client(
        &self,
        reader: Reader<'_>,
        now_ms: i64,
        around: Surroundings,
    ) -> Result<Box<RawValue>, Error> {
        let sent_by = self.sent_by.as_ref().filter(|by| by.device == reader.device);
        let (replaces_state, prev_content) = around.replaces.unzip();
        let unsigned = Unsigned {
            age: (now_ms - i64::from(self.pdu.origin_server_ts.get())).max(0),
            membership: around.membership,
            prev_content: prev_content.flatten(),
            redacted_because: around.redacted_because,
            replaces_state,
            // EV-08: only to the device that sent it.
            transaction_id: sent_by.map(|by| by.txn_id.as_str()),
        };
        let unsigned =
            serde_json::to_string(&unsigned).map_err(|cause| Error::Internal(cause.to_string()))?;
        let text = format!("{},\"unsigned\":{unsigned}}}", self.client_json());
        RawValue::from_string(text).map_err(|cause| Error::Internal(cause.to_string()))
    }

    /// Only what somebody outside the room may see of its state (SY-10, SY-11).
    pub fn stripped(&self) -> Result<Box<RawValue>, Error> {
        let stripped = json!({
            "content": self.pdu.content,
            "sender": self.pdu.sender,
            "state_key": self.pdu.state_key,
            "type": self.pdu.kind,
        });
        to_raw_value(&stripped).map_err(|cause| Error::Internal(cause.to_string()))
    }
}

impl Core {
    /// Events as `reader` gets them, in their order.
    ///
    /// `may_see` tells whether the reader may see an older event of the room: the content that a state event replaced is
    /// told only then (EV-09).
    pub(super) async fn to_client(
        &self,
        room: &Room,
        reader: Reader<'_>,
        events: &[Arc<Event>],
        may_see: impl Fn(i64) -> bool,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let now = self.environment.clock.now_ms();
        let mut answer = Vec::with_capacity(events.len());
        for event in events {
            let mut around = Surroundings::default();
            if let Some(redaction) = event.redacted_by
                && let Some(redaction) = self.events(room.number, &room.version, &[redaction]).await?.pop()
            {
                around.redacted_because = Some(redaction.to_client(reader, now, Surroundings::default())?);
            }
            if let Some((kind, state_key)) = event.pdu.state()
                && event.seq > 1
                && let Some(before) = self.replaced(room, event, kind, state_key).await?
            {
                let content = may_see(before.seq).then(|| before.pdu.content.clone());
                around.replaces = Some((before.pdu.event_id.to_string(), content));
            }
            around.membership = self.membership_at(room, reader.user_id, event).await?;
            answer.push(event.to_client(reader, now, around)?);
        }
        Ok(answer)
    }

    async fn replaced(
        &self,
        room: &Room,
        event: &Event,
        kind: &TimelineEventType,
        state_key: &str,
    ) -> Result<Option<Arc<Event>>, Error> {
        let kind = kind.to_string();
        let before = self.store.state_entry_at(room.number, &kind, state_key, event.seq - 1).await?;
        match before {
            Some(before) => Ok(self.events(room.number, &room.version, &[before]).await?.pop()),
            None => Ok(None),
        }
    }

    /// EV-10: the reader's membership at the event, the event included.
    async fn membership_at(
        &self,
        room: &Room,
        user_id: &UserId,
        event: &Event,
    ) -> Result<Option<String>, Error> {
        // Mostly nothing has changed since, and the current membership is the answer.
        let current = room.snapshot();
        if let Some(member) = current.state.get(&StateEventType::RoomMember, user_id.as_str())
            && member.seq <= event.seq
        {
            return Ok(member.pdu.membership().map(|membership| membership.to_string()));
        }
        let kind = TimelineEventType::RoomMember.to_string();
        let at = self.store.state_entry_at(room.number, &kind, user_id.as_str(), event.seq).await?;
        let Some(at) = at else { return Ok(Some("leave".to_owned())) };
        let member = self.events(room.number, &room.version, &[at]).await?.pop();
        Ok(member.and_then(|member| member.pdu.membership()).map(|membership| membership.to_string()))
    }
}
