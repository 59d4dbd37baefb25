//! What is asked of other servers for users of this one: profiles, directories, spaces. Answers are read within bounds and
//! into types; what they say is the other server's word.

use std::time::Duration;

use hearth_federation::{ClientError, ServerRequest, Task};
use ruma::{EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedServerName, RoomId, ServerName, UserId};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use super::{Peers, encoded, path};
use crate::room::{Direction, Elsewhere, SpaceRoom};

/// Bytes of a profile: more than one may have.
const MAX_PROFILE_BYTES: usize = 128 * 1024;
/// Bytes of an event, with what is around it.
const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Bytes of a page of a directory, or of the rooms below a space.
const MAX_ROOMS_BYTES: usize = 4 * 1024 * 1024;
/// How long somebody waits for them.
const PATIENCE: Duration = Duration::from_secs(10);

/// An event that a server names, and when it was sent.
#[derive(Debug, Deserialize)]
pub struct Nearest {
    pub event_id: OwnedEventId,
    pub origin_server_ts: MilliSecondsSinceUnixEpoch,
}

/// Why another server doesn't say.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("{0}")]
    Peer(#[from] ClientError),
    #[error("the other server's answer can't be used: {0}")]
    Answer(#[from] serde_json::Error),
}

impl Peers {
    async fn ask<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        request: ServerRequest,
    ) -> Result<T, AskError> {
        let answer = self.send(server, request.timeout(PATIENCE)).await?;
        Ok(serde_json::from_slice(&answer.body)?)
    }

    /// A user's profile, or one field of it, as of the last minutes.
    pub async fn profile(
        &self,
        user_id: &UserId,
        field: Option<&str>,
    ) -> Result<Map<String, Value>, AskError> {
        if let Some(profile) = self.profiles.get(user_id, field, (self.clock)()) {
            return Ok(profile);
        }
        let mut target =
            format!("/_matrix/federation/v1/query/profile?user_id={}", encoded(user_id.as_str()));
        if let Some(field) = field {
            target.push_str("&field=");
            target.extend(encoded(field));
        }
        let request = ServerRequest::get(target).limit(MAX_PROFILE_BYTES);
        let mut profile: Map<String, Value> = self.ask(user_id.server_name(), request).await?;
        // Of what every client shows, only what it can be.
        profile
            .retain(|field, value| value.is_string() || !["displayname", "avatar_url"].contains(&&**field));
        self.profiles.put(user_id, field, &profile, (self.clock)());
        Ok(profile)
    }

    /// An event by its id, as a server gives it.
    pub async fn event(&self, server: &ServerName, event_id: &EventId) -> Result<Box<RawValue>, AskError> {
        #[derive(Deserialize)]
        struct Answer {
            pdus: (Box<RawValue>,),
        }
        let target = path("/_matrix/federation/v1/event", &[event_id.as_str()]);
        let answer: Answer = self.ask(server, ServerRequest::get(target).limit(MAX_EVENT_BYTES)).await?;
        Ok(answer.pdus.0)
    }

    /// A page of a server's directory; `query` is the body of the request.
    pub async fn public_rooms<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        query: &Value,
    ) -> Result<T, AskError> {
        let request = ServerRequest::post("/_matrix/federation/v1/publicRooms", query.to_string());
        self.ask(server, request.limit(MAX_ROOMS_BYTES)).await
    }

    /// The event of a room that a server finds closest to a time.
    pub async fn nearest_in_time(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        time: MilliSecondsSinceUnixEpoch,
        direction: Direction,
    ) -> Result<Nearest, AskError> {
        let target = path("/_matrix/federation/v1/timestamp_to_event", &[room_id.as_str()]);
        let direction = if direction == Direction::Forwards { 'f' } else { 'b' };
        let target = format!("{target}?ts={}&dir={direction}", time.get());
        self.ask(server, ServerRequest::get(target).limit(MAX_PROFILE_BYTES)).await
    }

    /// A room as a server shows it to this one, with what it says of the rooms below.
    async fn hierarchy(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        suggested_only: bool,
    ) -> Result<SpaceRoom, AskError> {
        #[derive(Deserialize)]
        struct Answer {
            room: SpaceRoom,
        }
        let mut target = path("/_matrix/federation/v1/hierarchy", &[room_id.as_str()]);
        target.push_str(if suggested_only { "?suggested_only=true" } else { "?suggested_only=false" });
        let answer: Answer = self.ask(server, ServerRequest::get(target).limit(MAX_ROOMS_BYTES)).await?;
        Ok(answer.room)
    }
}

impl Elsewhere for Peers {
    fn room<'a>(
        &'a self,
        room_id: &'a RoomId,
        via: &'a [OwnedServerName],
        suggested_only: bool,
    ) -> Task<'a, Option<SpaceRoom>> {
        let ask = async move {
            let of_room = room_id.server_name().map(ToOwned::to_owned);
            let others = via.iter().chain(&of_room).filter(|server| **server != self.server_name);
            let mut asked: Vec<&ServerName> = Vec::new();
            for server in others {
                if asked.contains(&&**server) {
                    continue;
                }
                asked.push(server);
                match self.hierarchy(server, room_id, suggested_only).await {
                    Ok(room) => return Some(room),
                    Err(cause) => tracing::debug!(%server, %room_id, %cause, "a room isn't shown"),
                }
            }
            None
        };
        // For all of them together: whoever looks into a space waits for each of its rooms.
        Box::pin(async move { tokio::time::timeout(PATIENCE, ask).await.unwrap_or_default() })
    }
}
