//! How full a mailbox may become. A device that never comes back, or a server, must not fill the disk: the oldest messages go
//! when there are too many, and all after thirty days. A client that misses keys asks for them again.

use std::{collections::BTreeSet, num::NonZeroUsize, sync::Arc, time::Duration};

use lru::LruCache;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;

use super::ToDevice;
use crate::{
    shutdown::Shutdown,
    store::{
        self,
        to_device::{delete_heard_before, delete_messages, delete_messages_before},
    },
};

/// Messages of one mailbox, and bytes of them.
const MOST: i64 = 10_000;
const MOST_BYTES: i64 = 32 * 1024 * 1024;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How long a message waits.
const KEPT_MS: i64 = 30 * DAY_MS;
/// How long it is known that a server has brought a message: it tries again for no longer than this.
const HEARD_MS: i64 = 14 * DAY_MS;

/// How often all mailboxes are looked at.
const EVERY: Duration = Duration::from_hours(1);
/// Rows that are deleted in one write.
const AT_A_TIME: i64 = 5_000;

/// A mailbox is looked at after so many requests that put something into it.
const REQUESTS: u32 = 32;
/// Mailboxes whose requests are counted.
const COUNTED: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// What Prometheus is told.
const DROPPED: &str = "hearth_to_device_dropped_total";
const WAITING: &str = "hearth_to_device_waiting";

pub(super) struct Bounds(Mutex<LruCache<i64, u32>>);

impl Bounds {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(COUNTED)))
    }

    /// Counts a request, and says which of its mailboxes are to be looked at.
    fn due(&self, mailboxes: BTreeSet<i64>) -> Vec<i64> {
        let mut counts = self.0.lock();
        let due = mailboxes.into_iter().filter(|mailbox| {
            let count = counts.get_or_insert_mut(*mailbox, || 0);
            *count = (*count + 1) % REQUESTS;
            *count == 0
        });
        due.collect()
    }
}

impl ToDevice {
    /// Something was put into these mailboxes: they are looked at now and then, while nobody waits for it.
    pub(super) fn keep_bounded_soon(self: &Arc<Self>, mailboxes: BTreeSet<i64>) {
        let due = self.bounds.due(mailboxes);
        if due.is_empty() {
            return;
        }
        let all = Arc::clone(self);
        tokio::spawn(async move {
            for mailbox in due {
                if let Err(cause) = all.bound(mailbox).await {
                    tracing::warn!(%cause, "a mailbox may be fuller than it should be");
                }
            }
        });
    }

    /// Drops the oldest messages of a mailbox that has too many.
    pub(super) async fn bound(&self, mailbox: i64) -> Result<(), store::Error> {
        let Some((up_to, count)) = self.store.excess_of_mailbox(mailbox, MOST, MOST_BYTES).await? else {
            return Ok(());
        };
        self.store.commit(delete_messages(mailbox, up_to)).await?;
        counter!(DROPPED, "reason" => "full").increment(u64::try_from(count).unwrap_or_default());
        tracing::info!(mailbox, count, "a mailbox is full: its oldest messages to a device are dropped");
        Ok(())
    }

    /// Keeps all mailboxes within their bounds for as long as the server runs.
    pub async fn keep_bounded(self: Arc<Self>, shutdown: Shutdown) {
        describe_counter!(
            DROPPED,
            "Messages to devices that nobody fetched in time, or of which there were too many"
        );
        describe_gauge!(WAITING, "Messages to devices that wait to be fetched, here and for other servers");
        for reason in ["age", "full"] {
            counter!(DROPPED, "reason" => reason).increment(0);
        }
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                _ = ticks.tick() => {}
            }
            if let Err(cause) = self.tidy().await {
                tracing::warn!(%cause, "old messages to devices were not dropped; the next round tries again");
            }
        }
    }

    /// One round of it.
    pub(super) async fn tidy(&self) -> Result<(), store::Error> {
        let now = self.environment.clock.now_ms();
        loop {
            let before = self.store.messages_before(now - KEPT_MS).await?;
            if before == 0 {
                break;
            }
            self.store.commit(delete_messages_before(now - KEPT_MS, AT_A_TIME)).await?;
            let dropped = u64::try_from(before.min(AT_A_TIME)).unwrap_or_default();
            counter!(DROPPED, "reason" => "age").increment(dropped);
            tracing::info!(dropped, "messages to devices that nobody fetched are dropped");
        }
        while self.store.has_heard_before(now - HEARD_MS).await? {
            self.store.commit(delete_heard_before(now - HEARD_MS, AT_A_TIME)).await?;
        }
        for mailbox in self.store.overfull_mailboxes(MOST, MOST_BYTES).await? {
            self.bound(mailbox).await?;
        }
        gauge!(WAITING).set(self.store.messages_waiting().await? as f64);
        Ok(())
    }
}
