//! The keys of other servers, in the database.

use hearth_federation::{KeyStore, KnownKeys, Task};
use ruma::ServerName;

use crate::store::{Store, server_key::set_server_keys};

pub(super) struct StoredKeys(pub(super) Store);

impl KeyStore for StoredKeys {
    fn load<'a>(&'a self, server: &'a ServerName) -> Task<'a, Option<KnownKeys>> {
        Box::pin(async move {
            let stored = self.0.server_keys(server.as_str()).await;
            let stored = stored.inspect_err(|cause| {
                tracing::warn!(%server, %cause, "stored keys can't be read, and are fetched again");
            });
            serde_json::from_str(&stored.ok()??).ok()
        })
    }

    fn save<'a>(&'a self, server: &'a ServerName, keys: &'a KnownKeys) -> Task<'a, ()> {
        Box::pin(async move {
            let Ok(keys) = serde_json::to_string(keys) else { return };
            if let Err(cause) = self.0.commit(set_server_keys(server.as_str(), keys)).await {
                tracing::warn!(%server, %cause, "keys can't be stored");
            }
        })
    }
}
