//! This server among others: its own keys, theirs, and requests to them.
//!
//! Puts the protocol crate's parts together with this server's name, key, configuration and database. What is asked of
//! others and what is done with their answers is for those who ask.

mod keys;
mod policy;
mod profiles;
mod questions;
mod verify;
mod wire;

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use hearth_federation::{
    ClientError, ClientSettings, ClientSetupError, Clock, DnsError, FederationClient, KeyRing,
    KeyRingSettings, OWN_KEYS_REMADE, OldKey, PublicKey, Random, Response, ServerRequest, SigningKey,
    SystemDns, notary_answer, own_server_keys,
};
use parking_lot::Mutex;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, ServerName};
use tokio::sync::broadcast;

use self::{keys::StoredKeys, profiles::Profiles};
pub use self::{
    questions::AskError,
    wire::{Network, Wire},
};
use crate::{config, environment::Environment, store::Store};

/// What this server's own requests and documents are signed with.
pub struct OwnKeys {
    pub key: Arc<SigningKey>,
    /// Those of before, which still verify what they signed.
    pub old: Vec<OldKey>,
}

/// Servers that have spoken, for a listener to catch up with.
const HEARD: usize = 256;

/// What stands for itself in a path.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A value as it stands in a path or a query.
pub fn encoded(value: &str) -> PercentEncode<'_> {
    utf8_percent_encode(value, UNRESERVED)
}

/// A path with its parameters.
pub fn path(prefix: &str, parameters: &[&str]) -> String {
    let mut path = prefix.to_owned();
    for parameter in parameters {
        path.push('/');
        path.extend(encoded(parameter));
    }
    path
}

/// Servers whose keys are looked for at the same time, for one question to us as a notary.
const NOTARISED_AT_ONCE: usize = 16;

/// Why other servers can't be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("`[federation]`: {0}")]
    Client(#[from] ClientSetupError),
    #[error("the system's resolver of names can't be used: {0}")]
    Dns(#[from] DnsError),
}

/// What the configuration says of requests to others.
pub fn client_settings(config: &config::Federation) -> ClientSettings {
    ClientSettings {
        ca_file: config.ca_file.clone(),
        // A machine without authorities is good enough for a server that speaks to no other.
        offline: !config.enabled,
        verify_tls: config.verify_tls,
        allow_private_networks: config.allow_private_networks,
        allow: config.allow.clone(),
        deny: config.deny.clone(),
        user_agent: concat!("Hearth/", env!("CARGO_PKG_VERSION")).to_owned(),
        ..ClientSettings::default()
    }
}

pub struct Peers {
    server_name: OwnedServerName,
    own: OwnKeys,
    enabled: bool,
    pub client: Arc<FederationClient>,
    wire: Arc<dyn Wire>,
    pub keys: KeyRing,
    clock: Clock,
    /// Servers that have just spoken to us.
    heard: broadcast::Sender<OwnedServerName>,
    profiles: Profiles,
    /// The document with this server's keys, and when it was made.
    document: Mutex<Option<(MilliSecondsSinceUnixEpoch, Arc<str>)>>,
}

impl Peers {
    pub fn new(
        server_name: OwnedServerName,
        own: OwnKeys,
        config: &config::Federation,
        store: Store,
        environment: &Environment,
    ) -> Result<Arc<Self>, SetupError> {
        let settings = client_settings(config);
        let (now, entropy) = (Arc::clone(&environment.clock), Arc::clone(&environment.entropy));
        let clock: Clock = Arc::new(move || now.now());
        let random: Random = Arc::new(move || entropy.number());
        let dns = Arc::new(SystemDns::new()?);
        let (name, key) = (server_name.clone(), Arc::clone(&own.key));
        let client = FederationClient::over(dns, name, key, settings, Arc::clone(&clock), random)?;
        let client = Arc::new(client);
        let network: Arc<dyn Network> = match &environment.machine {
            None => Arc::<FederationClient>::clone(&client),
            Some(machine) => machine.network(),
        };
        let ring = KeyRingSettings { notaries: config.notaries.clone(), ..KeyRingSettings::default() };
        let never = MilliSecondsSinceUnixEpoch(ruma::UInt::MAX);
        let current = (own.key.id().to_string(), PublicKey::new(own.key.public_key(), never, false));
        let old =
            own.old.iter().map(|old| (old.key_id.clone(), PublicKey::new(old.public_key, old.expired, true)));
        let keys = KeyRing::new(
            server_name.clone(),
            old.chain([current]).collect(),
            ring,
            Arc::new(StoredKeys(store)),
            Arc::<dyn Network>::clone(&network),
            Arc::clone(&clock),
        );
        let wire: Arc<dyn Wire> = network;
        let (enabled, document) = (config.enabled, Mutex::new(None));
        let (heard, _) = broadcast::channel(HEARD);
        let profiles = Profiles::default();
        Ok(Arc::new(Self { server_name, own, enabled, client, wire, keys, clock, heard, profiles, document }))
    }

    /// Whether requests go to a server, and are taken from it.
    pub fn allows(&self, server: &ServerName) -> bool {
        self.enabled && self.client.allows(server)
    }

    /// Sends a request, signed, and reads its answer, which is one of success.
    pub async fn send(&self, server: &ServerName, request: ServerRequest) -> Result<Response, ClientError> {
        if !self.allows(server) {
            return Err(ClientError::NotAllowed(server.to_owned()));
        }
        self.wire.send(server, request).await
    }

    /// What this server signs with.
    pub fn own_key(&self) -> &SigningKey {
        &self.own.key
    }

    /// The same, but for who is asked.
    #[cfg(test)]
    pub fn through(self: Arc<Self>, wire: Arc<dyn Wire>) -> Arc<Self> {
        let peers = Arc::into_inner(self).expect("nobody has it yet");
        Arc::new(Self { wire, ..peers })
    }

    /// A server has proved that it is there: whoever waited with asking it needn't.
    pub fn heard_from(&self, server: &ServerName) {
        self.keys.heard_from(server);
        self.client.heard_from(server);
        // Nobody may be waiting.
        let _ = self.heard.send(server.to_owned());
    }

    /// The servers that speak to us from now on. A listener that is too slow misses some, which do it again.
    pub fn heard(&self) -> broadcast::Receiver<OwnedServerName> {
        self.heard.subscribe()
    }

    /// The document with this server's keys, signed (KY-01). It is never one that ends within the hour (KY-02).
    pub fn document(&self) -> Arc<str> {
        let now = (self.clock)();
        let mut document = self.document.lock();
        if let Some((made, document)) = &*document {
            let age = u64::from(now.get()).checked_sub(u64::from(made.get()));
            if age.is_some_and(|age| Duration::from_millis(age) < OWN_KEYS_REMADE) {
                return Arc::clone(document);
            }
        }
        let made = own_server_keys(&self.server_name, &[&self.own.key], &self.own.old, now);
        let made: Arc<str> = made.into();
        *document = Some((now, Arc::clone(&made)));
        made
    }

    /// What this server says of the keys of others, as their notary: for each server the ids that are asked for, none of
    /// which are all, each with the time until which it has to be valid.
    pub async fn vouch(
        &self,
        asked: impl IntoIterator<Item = (OwnedServerName, Vec<String>, Option<MilliSecondsSinceUnixEpoch>)>,
    ) -> String {
        let documents = asked.into_iter().map(async |(server, ids, minimum)| {
            if server == self.server_name {
                return Some(self.document().to_string());
            }
            if !self.allows(&server) {
                return None;
            }
            self.keys.document(&server, &ids, minimum).await
        });
        // In their order, a few at a time: each may have to be fetched.
        let documents: Vec<_> = stream::iter(documents).buffered(NOTARISED_AT_ONCE).collect().await;
        notary_answer(documents.iter().flatten().map(String::as_str), &self.server_name, &self.own.key)
    }
}
