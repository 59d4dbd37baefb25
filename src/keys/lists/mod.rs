//! Who has to hear that somebody's devices or keys changed: all who share a room with them, and they themselves. A change
//! is a row that each of them gets a pointer to; those of a user here form a chain, by which other servers see that they
//! missed one.
//!
//! Who shares a room is read before a change is written. Somebody who joins in between would miss it: if anybody did, it is
//! read again after that, and who is new gets the same change.
//!
//! Specification: [Device Management](https://spec.matrix.org/v1.19/server-server-api/#device-management).

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use ruma::{DeviceId, OwnedUserId, UserId};
use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    queue::{Kind, pointer},
    room::Arrivals,
    shutdown::Shutdown,
    store::{self, Batch, Delivery, Item, Store, device_list::insert_change},
};

/// A handle; clones share it.
#[derive(Clone)]
pub struct DeviceLists {
    store: Store,
    noted: UnboundedSender<Noted>,
    /// How often people here or other servers came into rooms or left.
    arrivals: Arc<AtomicU64>,
    /// For the one who looks after them.
    news: Arc<Mutex<Option<UnboundedReceiver<Noted>>>>,
}

/// Changes of a user that are durable.
struct Noted {
    user_id: OwnedUserId,
    /// Where they are.
    positions: Vec<i64>,
    /// Who was told, in order.
    told: Vec<i64>,
    /// Whether servers are.
    servers: bool,
}

impl DeviceLists {
    pub fn new(store: Store) -> Self {
        let (noted, news) = unbounded_channel();
        Self { store, noted, arrivals: Arc::default(), news: Arc::new(Mutex::new(Some(news))) }
    }

    /// For whoever knows of people and servers that come into rooms: to be counted up when that is written.
    pub fn arrivals(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.arrivals)
    }

    /// Adds to a batch that devices of a user here changed, were added or removed; without any, that the user's own keys
    /// did. The batch has to be committed as it is, not as a part of another.
    pub async fn note(
        &self,
        batch: &mut Batch,
        user_id: &UserId,
        devices: &[&DeviceId],
    ) -> Result<(), store::Error> {
        let changed: Vec<Option<&str>> = match devices {
            [] => vec![None],
            devices => devices.iter().map(|device| Some(device.as_str())).collect(),
        };
        self.note_all(batch, user_id, &changed, true).await
    }

    /// The same of a user elsewhere, whose own server tells others.
    pub(super) async fn note_foreign(
        &self,
        batch: &mut Batch,
        user_id: &UserId,
        device: Option<&DeviceId>,
    ) -> Result<(), store::Error> {
        self.note_all(batch, user_id, &[device.map(DeviceId::as_str)], false).await
    }

    async fn note_all(
        &self,
        batch: &mut Batch,
        user_id: &UserId,
        changed: &[Option<&str>],
        servers: bool,
    ) -> Result<(), store::Error> {
        let arrived = self.arrivals.load(Ordering::Relaxed);
        let told = self.store.recipients_near(user_id.as_str(), servers).await?;
        let mut steps = Vec::with_capacity(changed.len());
        for device in changed {
            let step = batch.step();
            batch.push(insert_change(step, user_id.as_str(), *device));
            // People hear that somebody's devices changed, however many; servers of each.
            let recipients = told.iter().copied().filter(|recipient| *recipient < 0 || steps.is_empty());
            batch.deliver(pointer(recipients, step, Kind::DeviceList, 0));
            steps.push(i64::from(step));
        }
        let (noted, arrivals, user_id) = (self.noted.clone(), self.arrivals(), user_id.to_owned());
        // One after the other, in the order of the commits.
        batch.on_commit(move |base| {
            if arrivals.load(Ordering::Relaxed) != arrived {
                let positions = steps.into_iter().map(|step| base + step).collect();
                // Nobody may look after it any more: the server ends.
                let _ = noted.send(Noted { user_id, positions, told, servers });
            }
        });
        Ok(())
    }

    /// Tells those who came while changes were written, and servers to which people here are new, until the server stops.
    /// To be run once.
    pub async fn run(self, mut arrivals: UnboundedReceiver<Arrivals>, shutdown: Shutdown) {
        let Some(mut news) = self.news.lock().take() else { return };
        loop {
            let told = tokio::select! {
                biased;
                () = shutdown.wait() => return,
                Some(arrivals) = arrivals.recv() => self.introduce(&arrivals).await,
                Some(noted) = news.recv() => self.tell_newcomers(&noted).await,
            };
            if let Err(cause) = told {
                tracing::warn!(%cause, "who has just joined a room may not hear of new keys");
            }
        }
    }

    /// DL-03: a server that shares the first room with somebody is told of their last change. It doesn't know those before,
    /// so it asks for all.
    async fn introduce(&self, arrivals: &Arrivals) -> Result<(), store::Error> {
        let Arrivals { room, position, before, after } = arrivals;
        let new_people: Vec<&OwnedUserId> = after
            .local
            .iter()
            .filter(|member| !before.local.contains(member))
            .map(|member| &member.user_id)
            .collect();
        let (old, new): (Vec<_>, Vec<_>) = after
            .remote
            .iter()
            .partition(|(number, _)| before.remote.iter().any(|(known, _)| known == number));
        let people: Vec<&OwnedUserId> = after.local.iter().map(|member| &member.user_id).collect();
        let mut changes: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for (people, servers) in [(people, new), (new_people, old)] {
            if people.is_empty() || servers.is_empty() {
                continue;
            }
            let (people, servers) = (json!(people).to_string(), json!(servers).to_string());
            for (change, server) in self.store.new_to_each_other(people, servers, *room, *position).await? {
                changes.entry(change).or_default().push(server);
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (change, servers) in changes {
            deliver_again(&mut batch, change, servers.into_iter());
        }
        self.store.commit(batch).await.map(drop)
    }

    async fn tell_newcomers(&self, noted: &Noted) -> Result<(), store::Error> {
        let mut new = self.store.recipients_near(noted.user_id.as_str(), noted.servers).await?;
        new.retain(|recipient| noted.told.binary_search(recipient).is_err());
        let mut batch = Batch::new();
        for (position, first) in
            noted.positions.iter().zip([true].into_iter().chain(std::iter::repeat(false)))
        {
            let recipients = new.iter().copied().filter(|recipient| *recipient < 0 || first);
            deliver_again(&mut batch, *position, recipients);
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.store.commit(batch).await.map(drop)
    }
}

/// Adds a change that was written before to the queues of some.
fn deliver_again(batch: &mut Batch, position: i64, recipients: impl Iterator<Item = i64>) {
    let recipients: Vec<(i64, i64)> = recipients.map(|recipient| (recipient, 0)).collect();
    if !recipients.is_empty() {
        let (step, kind, room, item) = (batch.step(), Kind::DeviceList, 0, Item::Value(position));
        batch.deliver(Delivery { step, kind, room, item, thread: String::new(), recipients });
    }
}
