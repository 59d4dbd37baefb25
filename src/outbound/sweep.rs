//! Forgets servers that nothing connects with anybody here any more. Anybody can name servers that never were, in messages to
//! devices or in bans; without this each of them would be tried again every hour, for ever.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use super::Outbound;
use crate::{shutdown::Shutdown, store};

/// How often servers are looked at. A number that somebody has asked for is in use long before this has passed twice.
const EVERY: Duration = Duration::from_hours(1);

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
/// How long a server may fail of which nobody ever was in a room here …
const STRANGER_MS: i64 = DAY_MS;
/// … and one of which somebody was: it may have to hear that they no longer are.
const KNOWN_MS: i64 = 30 * DAY_MS;

impl Outbound {
    /// Forgets servers for as long as this one runs.
    pub async fn keep_swept(self: Arc<Self>, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once: whatever is at work by now was asked for since the start.
        let mut asked = HashSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.wait() => return,
                _ = ticks.tick() => {}
            }
            asked = match self.sweep(&asked).await {
                Ok(asked) => asked,
                Err(cause) => {
                    tracing::warn!(%cause, "servers that nobody here knows weren't forgotten; the next round tries again");
                    HashSet::new()
                }
            };
        }
    }

    /// One round. `asked` are the numbers that were asked for between the two rounds before; returns those of since.
    pub(super) async fn sweep(&self, asked: &HashSet<i64>) -> Result<HashSet<i64>, store::Error> {
        let now = self.environment.clock.now_ms();
        let forgettable = self.store.forgettable_destinations(now - STRANGER_MS, now - KNOWN_MS).await?;
        let lately = self.destinations.all_asked();
        let mut count = 0;
        for recipient in forgettable {
            if asked.contains(&recipient) || lately.contains(&recipient) || !self.let_go(recipient) {
                continue;
            }
            count += u32::from(self.destinations.forget(recipient).await?);
        }
        if count > 0 {
            tracing::info!(count, "servers that nothing connects with anybody here are forgotten");
        }
        Ok(lately)
    }

    /// Stops trying a server, unless a task is at work for it.
    fn let_go(&self, recipient: i64) -> bool {
        let inner = &mut *self.inner.lock();
        let peer = inner.peers.get(&recipient);
        if peer.is_some_and(|peer| peer.sending) {
            return false;
        }
        inner.sent.remove(&recipient);
        let Some(peer) = peer else { return true };
        inner.agenda.remove(&(peer.retry_at, recipient));
        inner.peers.remove(&recipient);
        true
    }
}
