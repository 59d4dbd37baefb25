//! Joining, inviting, knocking and leaving where another server has a say.
//!
//! A room is kept by the servers that have somebody in it. Where this one is among them, its own rooms decide
//! ([`crate::room`]); otherwise another server is asked, and several are tried until one helps. Both sides of each
//! handshake are here: what is asked of others, and what is answered to them ([`resident`]). All network I/O is done before
//! a room's writer hears of anything.
//!
//! Specification: [Joining Rooms](https://spec.matrix.org/v1.19/server-server-api/#joining-rooms) and the sections after it.

mod error;
mod gaps;
mod invite;
mod join;
mod knock;
mod leave;
mod resident;
mod third_party;

use std::sync::Arc;

use hearth_federation::{Response, ServerRequest, SigningKey, Template, supported_versions};
use ruma::{
    OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomVersionId, ServerName, UserId,
    events::room::member::MembershipState,
};

use serde::Deserialize;
use serde_json::Value;

pub use self::{
    error::Error,
    invite::Invited,
    third_party::{Bound, Exchange},
};
use crate::{
    account::Accounts,
    environment::Environment,
    peers::{Peers, encoded, path},
    room::Rooms,
};

/// Servers that are tried for one handshake. The rest of a long list would mostly fail for the same reason.
const MOST_TRIED: usize = 8;

/// Servers that are named for one alias of another server.
const MOST_SERVERS: usize = 1_000;

/// Bytes of the answer about an alias: large rooms are on many servers.
const MAX_ALIAS_BYTES: usize = 1024 * 1024;

pub struct Handshakes {
    server_name: OwnedServerName,
    key: Arc<SigningKey>,
    peers: Arc<Peers>,
    rooms: Arc<Rooms>,
    accounts: Arc<Accounts>,
    environment: Environment,
}

impl Handshakes {
    pub fn new(
        server_name: OwnedServerName,
        key: Arc<SigningKey>,
        peers: Arc<Peers>,
        rooms: Arc<Rooms>,
        accounts: Arc<Accounts>,
        environment: Environment,
    ) -> Self {
        Self { server_name, key, peers, rooms, accounts, environment }
    }

    /// The room that an alias names, and servers that are in it; aliases of others their servers know.
    pub async fn by_alias(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>), Error> {
        #[derive(Deserialize)]
        struct Answer {
            room_id: OwnedRoomId,
            servers: Vec<Value>,
        }
        let server = alias.server_name();
        if server == self.server_name {
            let room = self.rooms.by_alias(alias).await?;
            let mut servers = room.snapshot().remote_servers();
            servers.insert(0, self.server_name.clone());
            return Ok((room.room_id.clone(), servers));
        }
        let alias: String = encoded(alias.as_str()).collect();
        let path = format!("/_matrix/federation/v1/query/directory?room_alias={alias}");
        let answer = text(&self.peers.send(server, ServerRequest::get(path).limit(MAX_ALIAS_BYTES)).await?)?;
        let answer: Answer =
            serde_json::from_str(&answer).map_err(|cause| Error::Answer(cause.to_string()))?;
        // I7: what is no name of a server doesn't make the others worse.
        let servers = answer.servers.iter().filter_map(|server| server.as_str()?.try_into().ok());
        Ok((answer.room_id, servers.take(MOST_SERVERS).collect()))
    }

    /// Whom to ask about a room: `first`, then those that the user names. Where they name nobody: those that are `known` to
    /// have been in it, and the server that its id is of, which need not be. Not ourselves, none twice.
    fn candidates(
        &self,
        first: impl IntoIterator<Item = OwnedServerName>,
        named: Vec<OwnedServerName>,
        known: Vec<OwnedServerName>,
        room_id: &RoomId,
    ) -> Vec<OwnedServerName> {
        let names_nobody = named.iter().all(|server| *server == self.server_name);
        let guessed = known.into_iter().chain(room_id.server_name().map(ToOwned::to_owned));
        let mut candidates: Vec<OwnedServerName> = Vec::new();
        for server in first.into_iter().chain(named).chain(guessed.filter(|_| names_nobody)) {
            if server != self.server_name && !candidates.contains(&server) {
                candidates.push(server);
            }
        }
        candidates.truncate(MOST_TRIED);
        candidates
    }

    /// Asks a resident server for the member event that a user may send.
    async fn proposed(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        membership: &MembershipState,
    ) -> Result<Template, Error> {
        let (handshake, versions) = match membership {
            MembershipState::Join => ("make_join", true),
            MembershipState::Knock => ("make_knock", true),
            _ => ("make_leave", false),
        };
        let mut target =
            path(&format!("/_matrix/federation/v1/{handshake}"), &[room_id.as_str(), user_id.as_str()]);
        if versions {
            for (index, version) in supported_versions().enumerate() {
                target.push(if index == 0 { '?' } else { '&' });
                target.push_str("ver=");
                target.extend(encoded(version.as_str()));
            }
        }
        let request = ServerRequest::get(target).limit(hearth_federation::MAX_TEMPLATE_BYTES);
        let answer = text(&self.peers.send(server, request).await?)?;
        Ok(Template::read(&answer, room_id, user_id, membership)?)
    }
}

/// Servers that are tried one after the other, and why those before didn't help.
struct Trial {
    candidates: std::vec::IntoIter<OwnedServerName>,
    failed: Option<Error>,
}

impl Trial {
    fn new(candidates: Vec<OwnedServerName>) -> Self {
        Self { candidates: candidates.into_iter(), failed: None }
    }

    fn next(&mut self) -> Option<OwnedServerName> {
        self.candidates.next()
    }

    /// A server didn't help. An error if others would say the same.
    fn failed(&mut self, server: &ServerName, cause: Error) -> Result<(), Error> {
        if cause.is_final() {
            return Err(cause);
        }
        tracing::info!(%server, %cause, "a server doesn't help with a room");
        // The first that answered at all knows best.
        if !self.failed.as_ref().is_some_and(Error::is_an_answer) {
            self.failed = Some(cause);
        }
        Ok(())
    }

    /// Why none helped.
    fn error(self) -> Error {
        self.failed.unwrap_or(Error::Nobody)
    }
}

fn text(response: &Response) -> Result<String, Error> {
    std::str::from_utf8(&response.body)
        .map(str::to_owned)
        .map_err(|_| Error::Answer("it isn't text".to_owned()))
}

/// The version of a room, if it is one whose rules are known.
fn known_version(version: &str) -> Result<RoomVersionId, Error> {
    let version = RoomVersionId::try_from(version).map_err(|cause| Error::Invalid(cause.to_string()))?;
    match hearth_federation::rules(&version) {
        Ok(_) => Ok(version),
        Err(_) => Err(Error::Incompatible(version)),
    }
}
