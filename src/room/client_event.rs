//! Events in the format of clients ("Room event format" of the Client-Server API), as text.
//!
//! Everything but `unsigned` is the same for every reader, so it is written once an event and kept. `unsigned` is added
//! for each reader: the age of the event, and what only they may know.

use std::{collections::HashMap, fmt::Write, sync::Arc};

use ruma::{
    UserId,
    events::{StateEventType, room::member::MembershipState},
};
use serde::Serialize;
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};

use super::{Core, Error, Event, Room, Rooms, Sight, relations::Scope};
use crate::account::Session;

/// Who reads an event.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    pub recipient: i64,
    pub user_id: &'a UserId,
    /// The device whose own transaction ids are told.
    pub device: i64,
}

impl<'a> Reader<'a> {
    pub fn of(session: &'a Session) -> Self {
        Self { recipient: session.recipient, user_id: &session.user_id, device: session.device }
    }
}

/// What the reader may know about the event beyond the event.
#[derive(Default)]
pub(super) struct Surroundings {
    /// The state event that it replaced: its id, and its content if the reader may see it.
    pub(super) replaces: Option<(String, Option<Box<RawValue>>)>,
    pub(super) redacted_because: Option<Box<RawValue>>,
    /// The reader's membership when the event happened.
    pub(super) membership: Option<String>,
    /// What other events say of it.
    pub(super) relations: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Unsigned<'a> {
    age: i64,
    #[serde(rename = "m.relations", skip_serializing_if = "Option::is_none")]
    relations: Option<Box<RawValue>>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_id: Option<&'a str>,
    #[serde(rename = "org.matrix.msc4140.delay_id", skip_serializing_if = "Option::is_none")]
    unstable_delay_id: Option<&'a str>,
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
        // To all devices of who scheduled it, see `delayed`.
        let delay_id = self.sent_by.as_ref().filter(|by| by.device == -reader.recipient);
        let delay_id = delay_id.map(|by| by.txn_id.as_str());
        let (replaces_state, prev_content) = around.replaces.unzip();
        let unsigned = Unsigned {
            relations: around.relations,
            age: (now_ms - i64::from(self.pdu.origin_server_ts.get())).max(0),
            membership: around.membership,
            prev_content: prev_content.flatten(),
            redacted_because: around.redacted_because,
            replaces_state,
            // EV-08: only to the device that sent it.
            transaction_id: sent_by.map(|by| by.txn_id.as_str()),
            delay_id,
            unstable_delay_id: delay_id,
        };
        let unsigned =
            serde_json::to_string(&unsigned).map_err(|cause| Error::Internal(cause.to_string()))?;
        let text = format!("{},\"unsigned\":{unsigned}}}", self.client_json());
        RawValue::from_string(text).map_err(|cause| Error::Internal(cause.to_string()))
    }

    /// Whether the reader scheduled it, and is told so.
    pub fn was_delayed_by(&self, reader: Reader<'_>) -> bool {
        self.sent_by.as_ref().is_some_and(|by| by.device == -reader.recipient)
    }

    /// Appends a message, as [`Self::to_client`] has it for a member of whom nothing else is to be said.
    pub fn write_message(
        &self,
        reader: Reader<'_>,
        now_ms: i64,
        out: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        let age = (now_ms - i64::from(self.pdu.origin_server_ts.get())).max(0);
        out.extend_from_slice(self.client_json().as_bytes());
        // Writing to memory can't fail.
        let _ = std::io::Write::write_fmt(
            out,
            format_args!(",\"unsigned\":{{\"age\":{age},\"membership\":\"join\""),
        );
        if let Some(by) = self.sent_by.as_ref().filter(|by| by.device == reader.device) {
            out.extend_from_slice(b",\"transaction_id\":");
            serde_json::to_writer(&mut *out, &by.txn_id)?;
        }
        out.extend_from_slice(b"}}");
        Ok(())
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
    /// Events as `reader` gets them, in their order. Messages of the time since the reader came cost no question to the
    /// database unless others relate to them, anything else a fixed number.
    ///
    /// Of other events of the room they tell only what `sight` shows: the content that a state event replaced, a
    /// redaction (EV-09, EV-11) and relations.
    async fn to_client(
        &self,
        room: &Room,
        reader: Reader<'_>,
        events: &[Arc<Event>],
        sight: Option<&Sight>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        let may_see = |seq| sight.is_none_or(|sight| sight.may_see(seq));
        // Without a sight, what relates to these events after the last of them is for another answer.
        let scope = sight.map_or_else(|| Scope::of(events), Scope::Sight);
        let now = self.environment.clock.now_ms();
        let redactions = self.redactions(room, events, may_see).await?;
        let earlier = self.replaced(room, events).await?;
        let aggregates = self.aggregates(room, reader, events, scope).await?;
        let all = events.iter().chain(aggregates.events());
        let memberships = self.reader_memberships(room, reader.user_id, all).await?;
        let render = |event: &Event, relations| {
            let membership = Some(memberships.at(event.seq).to_string());
            event.to_client(reader, now, Surroundings { membership, relations, ..Surroundings::default() })
        };
        let mut answer = Vec::with_capacity(events.len());
        for event in events {
            let redaction = event.redacted_by.and_then(|seq| redactions.get(&seq));
            let redacted_because = match redaction {
                Some(redaction) => Some(redaction.to_client(reader, now, Surroundings::default())?),
                None => None,
            };
            let replaces = earlier.get(&event.seq).map(|before| {
                let content = may_see(before.seq).then(|| before.pdu.content.clone());
                (before.pdu.event_id.to_string(), content)
            });
            let membership = Some(memberships.at(event.seq).to_string());
            let relations = aggregates.relations(event, &render)?;
            let around = Surroundings { replaces, redacted_because, membership, relations };
            answer.push(event.to_client(reader, now, around)?);
        }
        Ok(answer)
    }

    /// The redactions of these events, by `seq`.
    async fn redactions(
        &self,
        room: &Room,
        events: &[Arc<Event>],
        may_see: impl Fn(i64) -> bool,
    ) -> Result<HashMap<i64, Arc<Event>>, Error> {
        let seqs: Vec<i64> =
            events.iter().filter_map(|event| event.redacted_by).filter(|seq| may_see(*seq)).collect();
        let redactions = self.events(room.number, &room.version, &seqs).await?;
        Ok(redactions.into_iter().map(|event| (event.seq, event)).collect())
    }

    /// The events that those of `events` that are state took the place of, by the `seq` of these.
    async fn replaced(&self, room: &Room, events: &[Arc<Event>]) -> Result<HashMap<i64, Arc<Event>>, Error> {
        let states: Vec<(i64, StateEventType, &str)> = events
            .iter()
            .filter(|event| event.seq != 1)
            .filter_map(|event| {
                let (kind, state_key) = event.pdu.state()?;
                Some((event.seq, StateEventType::from(kind.to_string()), state_key))
            })
            .collect();
        let questions = states.iter().map(|(seq, kind, state_key)| (kind, *state_key, seq - 1));
        let before = self.states_at(room, questions).await?;
        let before = states.iter().zip(before).filter_map(|((seq, ..), before)| Some((*seq, before?)));
        // One that came after the state which it is part of has no other before it, as far as is known.
        Ok(before.filter(|(seq, before)| before.seq != *seq).collect())
    }

    /// The state events in force under each key after the event of each `seq`.
    pub(super) async fn states_at<'a>(
        &self,
        room: &Room,
        questions: impl Iterator<Item = (&'a StateEventType, &'a str, i64)>,
    ) -> Result<Vec<Option<Arc<Event>>>, Error> {
        let questions: Vec<(String, &str, i64)> =
            questions.map(|(kind, state_key, at)| (kind.to_string(), state_key, at)).collect();
        if questions.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.store.state_entries_at(room.number, &questions).await?;
        let seqs: Vec<i64> = found.iter().flatten().copied().collect();
        let events = self.events(room.number, &room.version, &seqs).await?;
        let events: HashMap<i64, Arc<Event>> = events.into_iter().map(|event| (event.seq, event)).collect();
        Ok(found.into_iter().map(|seq| events.get(&seq?).cloned()).collect())
    }

    async fn reader_memberships<'a>(
        &self,
        room: &Room,
        user_id: &UserId,
        mut events: impl Iterator<Item = &'a Arc<Event>>,
    ) -> Result<Memberships, Error> {
        // Mostly nothing has changed since, and the current membership is the answer to all.
        let current = room.snapshot();
        let Some(member) = current.member(user_id) else { return Ok(Memberships(Vec::new())) };
        let changes = if events.all(|event| event.seq >= member.seq.max(current.last_silent)) {
            vec![(member.seq, Some(Arc::clone(member)))]
        } else {
            self.changes(room, &StateEventType::RoomMember, user_id.as_str()).await?
        };
        let membership =
            |event: Option<Arc<Event>>| event.map_or(MembershipState::Leave, |event| event.membership());
        Ok(Memberships(changes.into_iter().map(|(seq, event)| (seq, membership(event))).collect()))
    }
}

impl Rooms {
    /// Events as `reader` gets them, in their order; those that they may not see are left out already. Without a sight
    /// the reader may see all that these events refer to.
    pub async fn client_events(
        &self,
        room: &Room,
        reader: Reader<'_>,
        events: &[Arc<Event>],
        sight: Option<&Sight>,
    ) -> Result<Vec<Box<RawValue>>, Error> {
        self.core.to_client(room, reader, events, sight).await
    }
}

/// Every change of the reader's membership, oldest first.
struct Memberships(Vec<(i64, MembershipState)>);

impl Memberships {
    /// EV-10: the membership at an event, the event included.
    fn at(&self, seq: i64) -> &MembershipState {
        let after = self.0.partition_point(|(change, _)| *change <= seq);
        after.checked_sub(1).map_or(&MembershipState::Leave, |last| &self.0[last].1)
    }
}
