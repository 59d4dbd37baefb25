//! The numbers under which other servers are recipients.

use std::{collections::HashMap, sync::Arc};

use parking_lot::RwLock;
use ruma::{OwnedServerName, ServerName};

use crate::store::{self, Store, destination::insert_destination};

/// All servers that were ever told something.
pub struct Destinations {
    store: Store,
    names: RwLock<Names>,
    /// Numbers are given out by one at a time.
    naming: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Names {
    by_name: HashMap<OwnedServerName, i64>,
    by_number: HashMap<i64, OwnedServerName>,
}

impl Names {
    fn add(&mut self, server: OwnedServerName, recipient: i64) {
        self.by_number.insert(recipient, server.clone());
        self.by_name.insert(server, recipient);
    }
}

impl Destinations {
    pub async fn load(store: Store) -> Result<Arc<Self>, store::Error> {
        let mut names = Names::default();
        for row in store.destinations().await? {
            if let Ok(server) = OwnedServerName::try_from(row.server) {
                names.add(server, row.recipient);
            }
        }
        Ok(Arc::new(Self { store, names: RwLock::new(names), naming: tokio::sync::Mutex::default() }))
    }

    /// The number of a server. It gets one if it has none.
    pub async fn number(&self, server: &ServerName) -> Result<i64, store::Error> {
        if let Some(number) = self.known(server) {
            return Ok(number);
        }
        let _naming = self.naming.lock().await;
        if let Some(number) = self.known(server) {
            return Ok(number);
        }
        let number = self.names.read().by_number.keys().min().copied().unwrap_or(0).min(0) - 1;
        self.store.commit(insert_destination(server.as_str(), number)).await?;
        self.names.write().add(server.to_owned(), number);
        Ok(number)
    }

    pub fn known(&self, server: &ServerName) -> Option<i64> {
        self.names.read().by_name.get(server).copied()
    }

    pub fn name(&self, recipient: i64) -> Option<OwnedServerName> {
        self.names.read().by_number.get(&recipient).cloned()
    }
}
