//! The state of a room before an event, and what an event cites, as another server has them.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, stream};
use hearth_federation::{Pdu, References, ServerRequest};
use ruma::{OwnedEventId, ServerName};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::History;
use crate::{
    peers::{encoded, path},
    room::{Error, Given, Room},
};

/// Bytes of a state's ids, or of the state.
const MAX_STATE_BYTES: usize = 64 * 1024 * 1024;
/// Events that are asked for one by one; for more of them the whole state is cheaper.
const ONE_BY_ONE: usize = 50;
/// … at the same time.
const AT_ONCE: usize = 8;
/// Events of a state, and of what allowed it.
const MOST: usize = 100_000;

#[derive(Deserialize)]
struct Ids {
    pdu_ids: Vec<OwnedEventId>,
    auth_chain_ids: Vec<OwnedEventId>,
}

#[derive(Deserialize)]
struct State {
    pdus: Vec<Box<RawValue>>,
    auth_chain: Vec<Box<RawValue>>,
}

impl History {
    /// The state before an event, with those of its events, and of what allowed them, that aren't here. A server says what
    /// it likes: the room judges each of them.
    pub async fn state_before(&self, server: &ServerName, room: &Room, event: &Pdu) -> Result<Given, String> {
        let at = |endpoint: &str| {
            let mut target = path(&format!("/_matrix/federation/v1/{endpoint}"), &[room.room_id.as_str()]);
            target.push_str("?event_id=");
            target.extend(encoded(event.event_id.as_str()));
            ServerRequest::get(target).limit(MAX_STATE_BYTES)
        };
        let answer = self.peers.send(server, at("state_ids")).await.map_err(|cause| cause.to_string())?;
        let ids: Ids = serde_json::from_slice(&answer.body).map_err(|cause| cause.to_string())?;
        if ids.pdu_ids.len() + ids.auth_chain_ids.len() > MOST {
            return Err("the state is too large".to_owned());
        }
        let all: Vec<OwnedEventId> = ids.pdu_ids.iter().chain(&ids.auth_chain_ids).cloned().collect();
        let unknown = self.rooms.unknown(room, &all).await.map_err(|cause| cause.to_string())?;
        let texts: Vec<Box<RawValue>> = if unknown.len() <= ONE_BY_ONE {
            self.one_by_one(server, &unknown).await
        } else {
            let answer = self.peers.send(server, at("state")).await.map_err(|cause| cause.to_string())?;
            let state: State = serde_json::from_slice(&answer.body).map_err(|cause| cause.to_string())?;
            state.pdus.into_iter().chain(state.auth_chain).take(MOST).collect()
        };
        Ok(Given { state: ids.pdu_ids, events: self.verified(server, room, &texts).await })
    }

    /// What an event cites that isn't here, and what that cites, and so on, as far as a server has it and it can be verified.
    pub async fn cited_by(&self, server: &ServerName, room: &Room, event: &Pdu) -> Result<Vec<Pdu>, Error> {
        let mut events = Vec::new();
        let mut asked: BTreeSet<OwnedEventId> = BTreeSet::new();
        let mut lacking = self.rooms.unknown(room, &event.auth_events).await?;
        while !lacking.is_empty() && asked.len() + lacking.len() <= ONE_BY_ONE {
            let texts = self.one_by_one(server, &lacking).await;
            asked.extend(lacking);
            let found = self.verified(server, room, &texts).await;
            let cited: BTreeSet<&OwnedEventId> = found.iter().flat_map(|event| &event.auth_events).collect();
            let cited: Vec<_> = cited.into_iter().filter(|id| !asked.contains(*id)).cloned().collect();
            lacking = self.rooms.unknown(room, &cited).await?;
            events.extend(found);
        }
        Ok(events)
    }

    /// Those of some events of a room that are what their server says.
    async fn verified(&self, server: &ServerName, room: &Room, texts: &[Box<RawValue>]) -> Vec<Pdu> {
        let texts: Vec<&str> = texts.iter().map(|text| text.get()).collect();
        let verified = self.peers.verified(&room.version, &texts, References::Limited).await;
        let mut events = Vec::with_capacity(verified.len());
        for event in verified {
            match event {
                Ok(event) => events.push(event),
                Err(cause) => {
                    tracing::info!(%server, room_id = %room.room_id, %cause, "an event of a room's state is dropped");
                }
            }
        }
        events
    }

    /// Events by their ids, as far as a server has them.
    async fn one_by_one(&self, server: &ServerName, ids: &[OwnedEventId]) -> Vec<Box<RawValue>> {
        let mut one_by_one: Vec<hearth_federation::Task<'_, Option<Box<RawValue>>>> = Vec::new();
        for id in ids {
            one_by_one.push(Box::pin(self.one(server, id)));
        }
        stream::iter(one_by_one).buffer_unordered(AT_ONCE).filter_map(async |event| event).collect().await
    }

    /// An event by its id.
    async fn one(&self, server: &ServerName, id: &OwnedEventId) -> Option<Box<RawValue>> {
        self.peers.event(server, id).await.ok()
    }
}
