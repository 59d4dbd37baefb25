//! Keeps queues short: entries that all living devices of a user have passed go, and those older than the horizon.
//!
//! A token from before the horizon is answered from the room logs, which keep everything.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tracing::{debug, warn};

use super::Queues;
use crate::{
    environment::Environment,
    shutdown::Shutdown,
    store::{self, Batch, queue as queue_table},
};

/// How often cursors are written down and queues are cut behind them.
const EVERY: Duration = Duration::from_mins(5);

const HOUR_MS: i64 = 3_600_000;

/// How long entries are kept for a device that doesn't come back.
const HORIZON_MS: i64 = 30 * 24 * HOUR_MS;

/// Accounts whose queues are cut in one write.
const ACCOUNTS: i64 = 200;

/// The last position that each device has presented since it was last written down.
#[derive(Default)]
pub(super) struct Cursors(Mutex<HashMap<i64, i64>>);

impl Cursors {
    pub(super) fn present(&self, device: i64, position: i64) {
        self.0.lock().insert(device, position);
    }

    fn take(&self) -> HashMap<i64, i64> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Trims for as long as the server runs.
pub async fn keep_trimmed(queues: Queues, environment: Environment, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last_hour = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shutdown.wait() => return,
        }
        if let Err(cause) = trim(&queues, environment.clock.now_ms(), &mut last_hour).await {
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
            let accounts = store.last_recipient().await?;
            for first in (0..=accounts).step_by(ACCOUNTS as usize) {
                store.commit(queue_table::trim_to_horizon(first, first + ACCOUNTS, horizon)).await?;
            }
        }
    }
    debug!(devices, "message queues trimmed");
    Ok(())
}
