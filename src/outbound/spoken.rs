//! A server that fails has spoken: it is there, and maybe it takes what is sent to it by now.
//!
//! Or it doesn't. There are servers that speak all day and can't be reached, or refuse whatever comes. So a word brings the
//! next attempt forward and forgives nothing: such a server becomes *behind* like any other, and each attempt that was made
//! upon its word in vain doubles the time before the next one, up to [`LONGEST_WAIT`]. What it has asked for itself
//! (`retry_after`) holds whatever it says.

use std::{sync::Arc, time::Duration};

use super::{Outbound, Peer};

/// The longest time between two attempts at a server that speaks.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

impl Outbound {
    /// A server has spoken.
    pub(super) fn spoken(self: &Arc<Self>, recipient: i64) {
        {
            let inner = &mut *self.inner.lock();
            let Some(peer) = inner.peers.get_mut(&recipient) else { return };
            peer.spoken = true;
            // An attempt that is on its way may fail yet: it began before.
            if peer.sending || peer.failures == 0 {
                return;
            }
            inner.agenda.remove(&(peer.retry_at, recipient));
            peer.retry_at = peer.sooner();
        }
        self.wake(recipient);
    }
}

impl Peer {
    /// When it is tried again, after a word of it.
    pub(super) fn sooner(&self) -> i64 {
        let wait = match self.in_vain.checked_sub(1) {
            Some(doublings) => Duration::from_secs(1 << doublings.min(12)).min(LONGEST_WAIT),
            None => Duration::ZERO,
        };
        let sooner = self.failed_at.saturating_add(wait.as_millis() as i64);
        sooner.max(self.not_before).min(self.retry_at)
    }

    /// It takes what is sent to it.
    pub(super) fn is_well(&mut self) {
        (self.failures, self.retry_at, self.not_before) = (0, 0, 0);
        (self.in_vain, self.spoken, self.upon_word) = (0, false, false);
    }
}
