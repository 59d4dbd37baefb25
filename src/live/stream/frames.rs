//! What is written on the wire (`api-spec/stream.md`): one JSON object a frame.

use std::borrow::Cow;

use bytes::Bytes;
use ruma::{DeviceId, UserId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::presence::State;

/// A frame of a client.
#[derive(Deserialize)]
pub(super) struct Inbound<'a> {
    pub(super) id: Option<String>,
    #[serde(borrow)]
    pub(super) method: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(super) struct Auth {
    /// Not needed if the request to open the socket had one.
    pub(super) access_token: Option<String>,
    pub(super) since: Option<String>,
    /// A filter, or the id of a stored one.
    pub(super) filter: Option<Box<RawValue>>,
    /// What the device is seen as while the socket is open: online, if it doesn't say.
    #[serde(default = "online")]
    pub(super) set_presence: State,
    #[serde(default)]
    pub(super) use_state_after: bool,
}

fn online() -> State {
    State::Online
}

#[derive(Deserialize)]
pub(super) struct NewToken {
    pub(super) access_token: String,
}

/// Of `ack` and `ping`.
#[derive(Default, Deserialize)]
pub(super) struct Position {
    pub(super) pos: Option<String>,
}

/// Of all methods that are about a room.
#[derive(Deserialize)]
pub(super) struct InRoom {
    pub(super) room_id: Option<String>,
}

/// A frame of the server.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Outbound<'a> {
    Typed(Typed<'a>),
    Result { id: &'a str, result: &'a RawValue },
    Error { id: &'a str, error: &'a RawValue },
    Beat(Beat<'a>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Typed<'a> {
    Hello {
        heartbeat_ms: u64,
        max_frame_bytes: usize,
        features: &'a [&'static str],
    },
    Reconnect {
        #[serde(skip_serializing_if = "Option::is_none")]
        url: Option<&'a str>,
        delay_ms: u64,
        reason: &'a str,
    },
}

#[derive(Serialize)]
#[serde(tag = "method", rename_all = "snake_case")]
pub(super) enum Beat<'a> {
    Ping { params: BeatParams<'a> },
    Pong,
}

#[derive(Serialize)]
pub(super) struct BeatParams<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pos: Option<&'a str>,
}

/// The answer to `auth`.
#[derive(Serialize)]
pub(super) struct Authenticated<'a> {
    pub(super) user_id: &'a UserId,
    pub(super) device_id: &'a DeviceId,
    /// Where the syncs that follow begin; absent if the first one has everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pos: Option<&'a str>,
}

impl Outbound<'_> {
    pub(super) fn encode(&self) -> Bytes {
        // Of strings and numbers alone: it can't fail.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// A sync up to where its body begins, with room for one of that many bytes. After the body a brace is left to write.
pub(super) fn begin_sync(from: Option<&str>, to: &str, body: usize) -> Vec<u8> {
    // Tokens hold nothing that JSON would escape.
    let mut frame = Vec::with_capacity(body + to.len() * 2 + 48);
    frame.extend_from_slice(b"{\"type\":\"sync\",");
    if let Some(from) = from {
        for part in ["\"from\":\"", from, "\","] {
            frame.extend_from_slice(part.as_bytes());
        }
    }
    for part in ["\"to\":\"", to, "\",\"body\":"] {
        frame.extend_from_slice(part.as_bytes());
    }
    frame
}

/// A sync around a body that is JSON already.
pub(super) fn sync(from: Option<&str>, to: &str, body: &[u8]) -> Bytes {
    let mut frame = begin_sync(from, to, body.len());
    frame.extend_from_slice(body);
    frame.push(b'}');
    frame.into()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn a_sync_is_json() {
        let frame = sync(Some("s1_2_3_4"), "s1_3_3_4", b"{\"next_batch\":\"s1_3_3_4\"}");
        let frame: Value = serde_json::from_slice(&frame).unwrap();
        let body = json!({ "next_batch": "s1_3_3_4" });
        assert_eq!(frame, json!({ "type": "sync", "from": "s1_2_3_4", "to": "s1_3_3_4", "body": body }));
    }
}
