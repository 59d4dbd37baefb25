//! The part of a `/sync` answer, and of an event anywhere, that the benchmark looks at, borrowed from the body.
//!
//! Parsing is the larger half of what a reader costs the machine that it shares with the server, so nothing is copied and
//! what is not asked for (state, summaries, account data) is skipped over.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, Result};
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct SyncBody<'a> {
    #[serde(borrow)]
    pub(crate) next_batch: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) rooms: Rooms<'a>,
}

#[derive(Deserialize, Default)]
pub(crate) struct Rooms<'a> {
    #[serde(borrow, default)]
    pub(crate) join: HashMap<Cow<'a, str>, JoinedRoom<'a>>,
}

#[derive(Deserialize)]
pub(crate) struct JoinedRoom<'a> {
    #[serde(borrow, default)]
    pub(crate) timeline: Timeline<'a>,
}

#[derive(Deserialize, Default)]
pub(crate) struct Timeline<'a> {
    #[serde(borrow, default)]
    pub(crate) events: Vec<Event<'a>>,
    #[serde(default)]
    pub(crate) limited: bool,
    pub(crate) prev_batch: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Event<'a> {
    #[serde(borrow, rename = "event_id")]
    pub(crate) id: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) sender: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(default)]
    content: Content,
}

/// What [`crate::content`] writes into a message beside its text.
#[derive(Deserialize, Default)]
struct Content {
    #[serde(rename = "bench.n")]
    number: Option<usize>,
}

impl<'a> SyncBody<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self> {
        serde_json::from_slice(body).context("an answer to /sync that is not one")
    }
}

impl Event<'_> {
    pub(crate) fn is(&self, kind: &str) -> bool {
        self.r#type == kind
    }

    /// The number that the benchmark gave its message; `None` for any other event.
    pub(crate) fn number(&self) -> Option<usize> {
        if self.r#type == "m.room.message" { self.content.number } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbered_messages_have_a_number() {
        let body = br#"{"next_batch":"s1","presence":{"events":[{"type":"m.presence","content":{}}]},"rooms":{"join":{"!r":{
            "state":{"events":[{"type":"m.room.name","content":{"name":3}}]},
            "timeline":{"limited":true,"prev_batch":"p","events":[
                {"event_id":"$1","sender":"@a:b","type":"m.room.member","content":{"membership":"join","bench.n":4}},
                {"event_id":"$2","sender":"@a:b","type":"m.room.message","content":{"body":"\u00e9","bench.n":7}},
                {"event_id":"$3","sender":"@a:b","type":"m.room.message","content":{"body":"x"}}]}}},"leave":{}}}"#;
        let sync = SyncBody::parse(body).unwrap();
        let timeline = &sync.rooms.join["!r"].timeline;
        assert_eq!(timeline.events.iter().map(Event::number).collect::<Vec<_>>(), [None, Some(7), None]);
        assert!(timeline.limited && timeline.prev_batch.as_deref() == Some("p"));
        assert!(matches!(sync.next_batch, Cow::Borrowed("s1")));
    }

    #[test]
    fn an_empty_answer_has_no_rooms() {
        assert!(SyncBody::parse(br#"{"next_batch":"s1"}"#).unwrap().rooms.join.is_empty());
        assert!(SyncBody::parse(br#"{"errcode":"M_UNKNOWN"}"#).is_err());
    }
}
