//! Which keys somebody wants, and which were found.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};

use crate::{
    request::Authorization,
    server_keys::{KnownKeys, Purpose},
    verify::Received,
};

/// Signatures of one server on one thing that are looked at. Honest things have one.
const MAX_SIGNATURES: usize = 8;

/// The keys that are needed to verify some events, or requests: gathered first, so that each server is asked once.
#[derive(Debug, Clone, Default)]
pub struct Wants {
    pub(super) servers: BTreeMap<OwnedServerName, BTreeMap<Vec<String>, Need>>,
}

/// What any one of some keys has to serve.
#[derive(Debug, Clone, Default)]
pub(super) struct Need {
    request: bool,
    /// Until when it has to be valid for each of the events; the least time there is where that isn't asked for.
    events: BTreeSet<MilliSecondsSinceUnixEpoch>,
}

impl Wants {
    /// One of these keys of a server is wanted.
    pub fn add<'k>(
        &mut self,
        server: &ServerName,
        key_ids: impl IntoIterator<Item = &'k str>,
        purpose: Purpose,
    ) {
        let ids = key_ids.into_iter().filter(|id| id.starts_with("ed25519:") && id.len() <= 255);
        let ids: Vec<String> = ids.take(MAX_SIGNATURES).map(str::to_owned).collect();
        if ids.is_empty() {
            return;
        }
        let need = self.servers.entry(server.to_owned()).or_default().entry(ids).or_default();
        match purpose {
            Purpose::Request => need.request = true,
            Purpose::Event(sent) => {
                need.events.insert(sent.unwrap_or(MilliSecondsSinceUnixEpoch(ruma::UInt::MIN)));
            }
        }
    }

    /// The keys that an event was signed with, by each server whose signature it needs.
    pub fn add_event(&mut self, event: &Received<'_>) {
        for server in event.signers() {
            self.add(server, event.key_ids(server), Purpose::Event(event.keys_valid_at()));
        }
    }

    /// The key that a request was signed with.
    pub fn add_request(&mut self, authorization: &Authorization) {
        self.add(&authorization.origin, [authorization.key_id.as_str()], Purpose::Request);
    }
}

impl Need {
    /// Whether one of the keys is known and does all that a key can do that is valid until `latest`.
    pub(super) fn is_met(
        &self,
        ids: &[String],
        known: &KnownKeys,
        now: MilliSecondsSinceUnixEpoch,
        latest: MilliSecondsSinceUnixEpoch,
    ) -> bool {
        let event = self.latest_event(latest);
        ids.iter().filter_map(|id| known.keys.get(id)).any(|key| {
            (!self.request || key.serves(Purpose::Request, now))
                && event.is_none_or(|sent| key.serves(Purpose::Event(Some(sent)), now))
        })
    }

    /// Whether somebody speaks in the server's name.
    pub(super) fn is_request(&self) -> bool {
        self.request
    }

    /// Until when the keys have to be valid. `None`: for longer than `latest`, whatever they are wanted for.
    pub(super) fn valid_until(
        &self,
        now: MilliSecondsSinceUnixEpoch,
        latest: MilliSecondsSinceUnixEpoch,
    ) -> Option<MilliSecondsSinceUnixEpoch> {
        self.latest_event(latest).max(self.request.then_some(now))
    }

    /// The last of the events that a key can have signed that is valid until `latest`. Others don't count: nobody has a key
    /// for them, and those that the same key has signed need it all the same.
    fn latest_event(&self, latest: MilliSecondsSinceUnixEpoch) -> Option<MilliSecondsSinceUnixEpoch> {
        self.events.range(..=latest).next_back().copied()
    }
}

/// The keys that were found. What is missing here couldn't be had.
#[derive(Debug, Clone)]
pub struct FoundKeys {
    pub(super) servers: HashMap<OwnedServerName, Arc<KnownKeys>>,
    pub(super) now: MilliSecondsSinceUnixEpoch,
}

impl FoundKeys {
    /// A key, if it is known and serves the purpose.
    pub fn get(&self, server: &ServerName, key_id: &str, purpose: Purpose) -> Option<[u8; 32]> {
        Some(self.servers.get(server)?.find(key_id, purpose, self.now)?.bytes())
    }

    /// The keys for an event, in the form that [`Received::verify`] takes: `event.verify(found.for_event(&event))`.
    pub fn for_event(
        &self,
        event: &Received<'_>,
    ) -> impl Fn(&ServerName, &str) -> Option<[u8; 32]> + use<'_> {
        let purpose = Purpose::Event(event.keys_valid_at());
        move |server, key_id| self.get(server, key_id, purpose)
    }

    /// The key for a request.
    pub fn for_request(&self, authorization: &Authorization) -> Option<[u8; 32]> {
        self.get(&authorization.origin, &authorization.key_id, Purpose::Request)
    }
}
