//! Keeps queues short: entries that all living devices of a user have passed go, and those older than the horizon. What
//! was answered to transactions goes after the same time: no client tries one again that late (I3).
//!
//! A token from before the horizon is answered from the room logs, which keep everything.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::Queues;
use crate::{
    environment::Environment,
    shutdown::Shutdown,
    store::{self, Batch, Store, device_list::trim_changes, queue as queue_table, room::trim_txns},
};

/// How often cursors are written down and queues are cut behind them.
const EVERY: Duration = Duration::from_mins(5);

const HOUR_MS: i64 = 3_600_000;

/// How long entries are kept for a device that doesn't come back.
const HORIZON_MS: i64 = 30 * 24 * HOUR_MS;

const DAY_MS: i64 = 24 * HOUR_MS;

/// Devices whose transactions are forgotten in one write.
const DEVICES: i64 = 100;

/// Accounts whose queues are cut in one write.
const ACCOUNTS: i64 = 200;

/// The last position that each device has presented since it was last written down.
#[derive(Default)]
pub(super) struct Cursors(Mutex<BTreeMap<i64, i64>>);

impl Cursors {
    pub(super) fn present(&self, device: i64, position: i64) {
        self.0.lock().insert(device, position);
    }

    fn take(&self) -> BTreeMap<i64, i64> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Trims for as long as the server runs.
pub async fn keep_trimmed(queues: Queues, environment: Environment, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut last_hour, mut last_day) = (0, 0);
    loop {
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            _ = ticks.tick() => {}
        }
        let now_ms = environment.clock.now_ms();
        // Each row is looked at, so not as often.
        if now_ms - last_day >= DAY_MS {
            last_day = now_ms;
            if let Err(cause) = forget_txns(&queues.store, now_ms).await {
                warn!(%cause, "old transactions were not forgotten");
            }
        }
        if let Err(cause) = trim(&queues, now_ms, &mut last_hour).await {
            // Nothing is lost by queues that are too long; the next round tries again.
            warn!(%cause, "message queues were not trimmed");
        }
    }
}

async fn trim(queues: &Queues, now_ms: i64, last_hour: &mut i64) -> Result<(), store::Error> {
    let store = &queues.store;
    let cursors = queues.cursors.take();
    let devices = cursors.len();
    let mut batch = Batch::new();
    for (device, position) in &cursors {
        batch.push(queue_table::set_cursor(*device, *position));
        batch.push(queue_table::trim_behind_cursors(*device));
        batch.push(queue_table::note_trimmed(*device));
    }
    store.commit(batch).await?;

    let hour = now_ms - now_ms % HOUR_MS;
    if hour != *last_hour {
        *last_hour = hour;
        store.commit(queue_table::note_head(hour, queues.head())).await?;
        if let Some(horizon) = store.head_at(hour - HORIZON_MS).await? {
            store.commit(trim_changes(horizon)).await?;
            let accounts = store.last_recipient().await?;
            for first in (0..=accounts).step_by(ACCOUNTS as usize) {
                store.commit(queue_table::trim_to_horizon(first, first + ACCOUNTS, horizon)).await?;
            }
        }
    }
    debug!(devices, "message queues trimmed");
    Ok(())
}

/// Forgets what was answered to transactions before the horizon.
pub(super) async fn forget_txns(store: &Store, now_ms: i64) -> Result<(), store::Error> {
    let horizon = now_ms - HORIZON_MS;
    // Below zero are those of the server's own, see `room::delayed`.
    store.commit(trim_txns(i64::MIN, 0, horizon)).await?;
    let last = store.last_device().await?;
    for first in (0..=last).step_by(DEVICES as usize) {
        store.commit(trim_txns(first, first + DEVICES, horizon)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        environment::Environment,
        queue::{Kind, Tails, pointer},
        room::tests::World,
        store::{
            Durability, TxnRow,
            dehydrated_device::{NewDevice, add_silent_device},
            device::add_device,
        },
    };

    #[tokio::test]
    async fn i3_transactions_are_remembered_up_to_the_horizon() {
        let dir = tempfile::tempdir().unwrap();
        let tails = Arc::new(Tails::new(1));
        let (store, _writer) =
            Store::open(&dir.path().join("hearth.db"), Durability::Normal, tails).await.unwrap();
        let now_ms = 100 * DAY_MS;
        let devices = [-3, 1, 99, 100, 250];
        let mut batch = Batch::new();
        for device in devices {
            for (age, txn_id) in [(HORIZON_MS + 1, "old"), (HORIZON_MS - 1, "new")] {
                batch.txn(TxnRow {
                    device,
                    path: 7,
                    txn_id: txn_id.to_owned(),
                    event: "$event".to_owned(),
                    created_ts: now_ms - age,
                });
            }
        }
        batch.push(store::statement!("UPDATE counter SET value = 250 WHERE name = 'device'"));
        store.commit(batch).await.unwrap();
        forget_txns(&store, now_ms).await.unwrap();

        let keys = devices.iter().flat_map(|device| [(*device, 7, "old"), (*device, 7, "new")]);
        let keys = serde_json::to_string(&keys.collect::<Vec<_>>()).unwrap();
        let mut left: Vec<(i64, String)> = store
            .txns(keys)
            .await
            .unwrap()
            .into_iter()
            .map(|(device, _, txn_id, _)| (device, txn_id))
            .collect();
        left.sort();
        assert_eq!(left, devices.map(|device| (device, "new".to_owned())));
    }

    /// It presents no position, and must not keep everything until the horizon.
    #[tokio::test]
    async fn a_queue_is_not_kept_for_a_dehydrated_device() {
        let world = World::keeping(&["@bob:localhost"], Environment::real(), None).await;
        let (store, queues) = (&world.store, &world.queues);
        let recipient = store.account_of("@bob:localhost").await.unwrap().unwrap().recipient;
        store.commit(Vec::from(add_device("@bob:localhost", "B1", None, 0))).await.unwrap();
        let device = store.last_device().await.unwrap();
        let silent =
            NewDevice { recipient, device: device + 1, device_id: "DEHYDRATED", display_name: None, now: 0 };
        let mut batch = Batch::from(Vec::from(add_silent_device(silent)));
        let step = batch.step();
        batch.deliver(pointer([recipient], step, Kind::ToDevice, device));
        store.commit(batch).await.unwrap();

        let head = queues.head();
        assert!(head > 0);
        queues.present(device, head);
        trim(queues, 0, &mut 0).await.unwrap();
        assert_eq!(store.queue_trimmed(recipient).await.unwrap(), head);
    }
}
