//! Keys of users wherever they are: of those here by what is stored; of those elsewhere by what is followed, else by asking
//! their servers, all at the same time. A server that doesn't answer in time is a failure of its own. What a server says of
//! users of others isn't looked at, and what it says of its own is checked ([`super::foreign`]).
//!
//! Specification: `POST /keys/query` and `POST /keys/claim` of [Key management
//! API](https://spec.matrix.org/v1.19/client-server-api/#key-management-api) (OK-07).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use hearth_federation::ServerRequest;
use ruma::{OwnedDeviceId, OwnedServerName, OwnedUserId, ServerName, UserId};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::{
    ClaimedKeys, Error, Keys, PublicKeys, WantedDevices, WantedKeys,
    foreign::{self, MASTER},
    resync::{Fetched, Resyncs},
};
use crate::{
    peers::Peers,
    store::{Store, followed::follow},
};

/// How long servers have to answer if the client doesn't say.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// … and at most.
const LONGEST: Duration = Duration::from_mins(1);

/// Bytes of an answer.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Servers that are asked at a time. More than a room of this server's may have.
const SERVERS_AT_ONCE: usize = 128;

/// Of so many users of one server whose lists aren't known each list is waited for. More are asked for together, and their
/// lists come meanwhile.
const FEW: usize = 8;

/// What others didn't answer, by server, and why.
pub type Failures = BTreeMap<OwnedServerName, Value>;

pub struct Everywhere {
    store: Store,
    keys: Arc<Keys>,
    peers: Arc<Peers>,
    resyncs: Arc<Resyncs>,
}

/// A server's answer about the keys of its users.
#[expect(clippy::struct_field_names, reason = "the specification's names")]
#[derive(Default, Deserialize)]
#[serde(default)]
struct Queried {
    device_keys: BTreeMap<String, BTreeMap<String, Value>>,
    master_keys: BTreeMap<String, Value>,
    self_signing_keys: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Claimed {
    one_time_keys: BTreeMap<String, BTreeMap<String, BTreeMap<String, Value>>>,
}

impl Everywhere {
    pub fn new(store: Store, keys: Arc<Keys>, peers: Arc<Peers>, resyncs: Arc<Resyncs>) -> Self {
        Self { store, keys, peers, resyncs }
    }

    /// The keys of users for a user of this server.
    pub async fn query(
        &self,
        viewer: &UserId,
        wanted: &WantedDevices,
        patience: Duration,
    ) -> Result<(PublicKeys, Failures), Error> {
        let deadline = Instant::now() + patience.min(LONGEST);
        let elsewhere = self.by_server(wanted).into_iter();
        let elsewhere = elsewhere.map(|(server, wanted)| {
            async move {
                let answer = self.query_server(viewer, &server, &wanted, deadline).await;
                (server, answer)
            }
            .boxed()
        });
        let elsewhere: Vec<BoxFuture<'_, _>> = elsewhere.collect();
        let elsewhere = stream::iter(elsewhere).buffer_unordered(SERVERS_AT_ONCE).collect::<Vec<_>>();
        let (here, elsewhere) = tokio::join!(self.keys.query_local(Some(viewer), wanted), elsewhere);
        let (mut answer, mut failures) = (here?, Failures::new());
        for (server, result) in elsewhere {
            let (found, failure) = result?;
            answer.add(found);
            if let Some(cause) = failure {
                failures.insert(server, failed(&cause));
            }
        }
        Ok((answer, failures))
    }

    /// What is wanted of users elsewhere.
    fn by_server<T: Clone>(
        &self,
        wanted: &BTreeMap<OwnedUserId, T>,
    ) -> BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, T>> {
        let mut servers: BTreeMap<OwnedServerName, BTreeMap<OwnedUserId, T>> = BTreeMap::new();
        for (user_id, of_user) in wanted.iter().filter(|(user_id, _)| !self.keys.is_local(user_id)) {
            let server = servers.entry(user_id.server_name().to_owned()).or_default();
            server.insert(user_id.clone(), of_user.clone());
        }
        servers
    }

    /// The keys of users of a server, and why some are missing.
    async fn query_server(
        &self,
        viewer: &UserId,
        server: &ServerName,
        wanted: &WantedDevices,
        deadline: Instant,
    ) -> Result<(PublicKeys, Option<String>), Error> {
        let users = json!(wanted.keys().collect::<Vec<_>>()).to_string();
        let (mut known, mut unknown, mut strangers) = (Vec::new(), Vec::new(), Vec::new());
        for row in self.store.standings(users).await? {
            let Ok(user_id) = OwnedUserId::try_from(row.user_id) else { continue };
            let kind = match (row.fresh, row.near) {
                (true, _) => &mut known,
                (false, true) => &mut unknown,
                (false, false) => &mut strangers,
            };
            kind.push(user_id);
        }
        let mut failure = None;
        if !unknown.is_empty() {
            if !self.peers.allows(server) {
                return Ok((
                    self.known(viewer, wanted, &known).await?,
                    Some("the server isn't spoken to".to_owned()),
                ));
            }
            self.store
                .commit(unknown.iter().map(|user_id| follow(user_id.as_str())).collect::<Vec<_>>())
                .await?;
            if unknown.len() > FEW {
                for user_id in &unknown {
                    self.resyncs.want(user_id);
                }
                strangers.append(&mut unknown);
            }
            let lists: Vec<_> =
                unknown.into_iter().map(|user_id| (self.resyncs.wanted_now(&user_id), user_id)).collect();
            for (list, user_id) in lists {
                match timeout_at(deadline, list).await {
                    Ok(Ok(Fetched::Whole)) => known.push(user_id),
                    Ok(Ok(Fetched::Gone | Fetched::Older)) => strangers.push(user_id),
                    Ok(Ok(Fetched::Failed) | Err(_)) => {
                        failure = Some("the server doesn't answer".to_owned());
                    }
                    Err(_) => failure = Some("the server doesn't answer in time".to_owned()),
                }
            }
        }
        let mut answer = self.known(viewer, wanted, &known).await?;
        if !strangers.is_empty() {
            let asked: BTreeMap<&OwnedUserId, _> =
                strangers.iter().filter_map(|user_id| wanted.get_key_value(user_id)).collect();
            let body = json!({ "device_keys": asked });
            match self.ask(server, "/_matrix/federation/v1/user/keys/query", &body, deadline).await {
                Ok(queried) => {
                    let mut found = told(&asked, queried);
                    self.keys.add_signatures(Some(viewer), &mut found).await?;
                    answer.add(found);
                }
                Err(cause) => failure = Some(cause),
            }
        }
        Ok((answer, failure))
    }

    /// Keys of users whose lists are known.
    async fn known(
        &self,
        viewer: &UserId,
        wanted: &WantedDevices,
        users: &[OwnedUserId],
    ) -> Result<PublicKeys, Error> {
        if users.is_empty() {
            return Ok(PublicKeys::default());
        }
        let asked = users.iter().filter_map(|user_id| wanted.get_key_value(user_id));
        let asked: WantedDevices =
            asked.map(|(user_id, devices)| (user_id.clone(), devices.clone())).collect();
        let mut answer = self.keys.query_stored(Some(viewer), &asked).await?;
        for user_id in users {
            answer.device_keys.entry(user_id.clone()).or_default();
        }
        Ok(answer)
    }

    /// Takes one-time keys of devices wherever they are.
    pub async fn claim(
        &self,
        wanted: &WantedKeys,
        patience: Duration,
    ) -> Result<(ClaimedKeys, Failures), Error> {
        let deadline = Instant::now() + patience.min(LONGEST);
        let elsewhere = self.by_server(wanted).into_iter();
        let elsewhere = elsewhere.map(|(server, wanted)| {
            async move {
                let body = json!({ "one_time_keys": wanted });
                let path = "/_matrix/federation/v1/user/keys/claim";
                let answer = self.ask::<Claimed>(&server, path, &body, deadline).await;
                (server, answer.map(|claimed| handed_out(&wanted, claimed)))
            }
            .boxed()
        });
        let elsewhere: Vec<BoxFuture<'_, _>> = elsewhere.collect();
        let elsewhere = stream::iter(elsewhere).buffer_unordered(SERVERS_AT_ONCE).collect::<Vec<_>>();
        let (here, elsewhere) = tokio::join!(self.keys.claim_local(wanted), elsewhere);
        let (mut answer, mut failures) = (here?, Failures::new());
        for (server, result) in elsewhere {
            match result {
                Ok(claimed) => answer.extend(claimed),
                Err(cause) => drop(failures.insert(server, failed(&cause))),
            }
        }
        Ok((answer, failures))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        path: &str,
        body: &Value,
        deadline: Instant,
    ) -> Result<T, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        let request = ServerRequest::post(path, body.to_string()).limit(MAX_BYTES).timeout(left);
        match timeout_at(deadline, self.peers.send(server, request)).await {
            Ok(Ok(answer)) => serde_json::from_slice(&answer.body)
                .map_err(|cause| format!("the server's answer can't be used: {cause}")),
            Ok(Err(cause)) => {
                tracing::debug!(%server, %cause, "a server doesn't answer for keys");
                Err("the server can't be reached".to_owned())
            }
            Err(_) => Err("the server doesn't answer in time".to_owned()),
        }
    }
}

impl PublicKeys {
    fn add(&mut self, other: Self) {
        self.device_keys.extend(other.device_keys);
        self.master_keys.extend(other.master_keys);
        self.self_signing_keys.extend(other.self_signing_keys);
        self.user_signing_keys.extend(other.user_signing_keys);
    }
}

/// What is known of a failure, for clients: what stands between servers is nobody's business.
fn failed(cause: &str) -> Value {
    json!({ "status": 503, "errcode": "M_UNKNOWN", "error": cause, "message": cause })
}

/// Of a server's answer what it was asked for, as far as that is right.
fn told(asked: &BTreeMap<&OwnedUserId, &Vec<OwnedDeviceId>>, mut queried: Queried) -> PublicKeys {
    let mut answer = PublicKeys::default();
    for (user_id, devices) in asked {
        let Some(told) = queried.device_keys.remove(user_id.as_str()) else { continue };
        let found = answer.device_keys.entry((*user_id).clone()).or_default();
        for (device_id, mut keys) in told {
            let device_id = OwnedDeviceId::from(device_id);
            if !devices.is_empty() && !devices.contains(&device_id) {
                continue;
            }
            let name = keys["unsigned"]["device_display_name"].as_str().and_then(foreign::display_name);
            match foreign::device_keys(user_id, &device_id, keys.take()) {
                Ok(mut keys) => {
                    keys["unsigned"] =
                        name.map_or_else(|| json!({}), |name| json!({ "device_display_name": name }));
                    found.insert(device_id, keys);
                }
                Err(cause) => {
                    tracing::debug!(%user_id, %device_id, %cause, "keys from elsewhere are passed over");
                }
            }
        }
        let master = queried.master_keys.remove(user_id.as_str());
        let self_signing = queried.self_signing_keys.remove(user_id.as_str());
        for row in foreign::own_keys(user_id, master, self_signing) {
            let keys =
                if row.usage == MASTER { &mut answer.master_keys } else { &mut answer.self_signing_keys };
            if let Ok(key) = serde_json::from_str(&row.key) {
                keys.insert((*user_id).clone(), key);
            }
        }
    }
    answer
}

/// Of the keys that a server hands out one for each device that was named, of the algorithm that was.
fn handed_out(wanted: &WantedKeys, mut claimed: Claimed) -> ClaimedKeys {
    let mut answer = ClaimedKeys::new();
    for (user_id, devices) in wanted {
        let Some(mut of_user) = claimed.one_time_keys.remove(user_id.as_str()) else { continue };
        for (device_id, algorithm) in devices {
            let keys = of_user.remove(device_id.as_str()).unwrap_or_default();
            let key = keys.into_iter().find(|(name, key)| foreign::is_one_time_key(name, algorithm, key));
            if let Some((name, key)) = key {
                let of_user = answer.entry(user_id.clone()).or_default();
                of_user.insert(device_id.clone(), BTreeMap::from([(name, key)]));
            }
        }
    }
    answer
}
