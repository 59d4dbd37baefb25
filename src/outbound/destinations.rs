//! The numbers under which other servers are recipients.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::{Mutex, RwLock};
use ruma::{OwnedServerName, ServerName};

use crate::store::{
    self, Store,
    destination::{delete_destination, insert_destination},
};

/// Servers with a number of which no room has ever known anybody. Anybody can make up names of servers.
const MOST_STRANGERS: i64 = 1_000;

/// The servers that are told something, or were not long ago.
pub struct Destinations {
    store: Store,
    names: RwLock<Names>,
    /// Numbers are given out, and taken back, by one at a time.
    naming: tokio::sync::Mutex<()>,
    /// The numbers that somebody asked for since [`Destinations::all_asked`]: they may be about to be used.
    asked: Mutex<HashSet<i64>>,
}

#[derive(Default)]
struct Names {
    by_name: HashMap<OwnedServerName, i64>,
    by_number: HashMap<i64, OwnedServerName>,
    /// The lowest number that was ever given out: none is given out twice while this process may remember the first.
    lowest: i64,
}

impl Names {
    fn add(&mut self, server: OwnedServerName, recipient: i64) {
        self.lowest = self.lowest.min(recipient);
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
        Ok(Arc::new(Self {
            store,
            names: RwLock::new(names),
            naming: tokio::sync::Mutex::default(),
            asked: Mutex::default(),
        }))
    }

    /// The number of a server. It gets one if it has none.
    pub async fn number(self: &Arc<Self>, server: &ServerName) -> Result<i64, store::Error> {
        if let Some(number) = self.asked_for(server) {
            return Ok(number);
        }
        // Whoever asks may be dropped: what is in the database has to be known here too, or the next number is that one.
        let giving = Arc::clone(self).give_number(server.to_owned());
        tokio::spawn(giving).await.map_err(|_| store::Error::Closed)?
    }

    async fn give_number(self: Arc<Self>, server: OwnedServerName) -> Result<i64, store::Error> {
        let _naming = self.naming.lock().await;
        if let Some(number) = self.asked_for(&server) {
            return Ok(number);
        }
        let number = self.names.read().lowest - 1;
        self.store.commit(insert_destination(server.as_str(), number)).await?;
        self.asked.lock().insert(number);
        self.names.write().add(server, number);
        Ok(number)
    }

    /// The same for a server whose name a user has brought. `None`: nobody was ever in a room here, and there are enough
    /// of that kind.
    pub async fn number_unless_strange(
        self: &Arc<Self>,
        server: &ServerName,
    ) -> Result<Option<i64>, store::Error> {
        if self.known(server).is_none()
            && !self.store.is_server_of_rooms(server.as_str()).await?
            && self.store.strangers().await? >= MOST_STRANGERS
        {
            return Ok(None);
        }
        self.number(server).await.map(Some)
    }

    pub fn known(&self, server: &ServerName) -> Option<i64> {
        self.names.read().by_name.get(server).copied()
    }

    /// Whoever is taken back a number has the names' lock alone, so either is before the other.
    fn asked_for(&self, server: &ServerName) -> Option<i64> {
        let names = self.names.read();
        let number = names.by_name.get(server).copied()?;
        self.asked.lock().insert(number);
        Some(number)
    }

    /// The numbers that were asked for since the last call of this.
    pub(super) fn all_asked(&self) -> HashSet<i64> {
        std::mem::take(&mut self.asked.lock())
    }

    /// Forgets a server and all that waits for it, unless somebody has asked for its number meanwhile.
    pub(super) async fn forget(&self, recipient: i64) -> Result<bool, store::Error> {
        let _naming = self.naming.lock().await;
        let server = {
            let mut names = self.names.write();
            if self.asked.lock().contains(&recipient) {
                return Ok(false);
            }
            let Some(server) = names.by_number.remove(&recipient) else { return Ok(false) };
            names.by_name.remove(&server);
            server
        };
        if let Err(cause) = self.store.commit(delete_destination(recipient)).await {
            self.names.write().add(server, recipient);
            return Err(cause);
        }
        Ok(true)
    }

    pub fn name(&self, recipient: i64) -> Option<OwnedServerName> {
        self.names.read().by_number.get(&recipient).cloned()
    }
}
