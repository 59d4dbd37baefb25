//! What Prometheus is told of other servers: how many are well, and of those that aren't how long they have failed.

use std::fmt::Write as _;

use metrics::counter;

use super::Outbound;

/// Servers that are told of by name: those that have failed longest.
const NAMED: usize = 100;

/// A transaction was sent, and taken or not.
pub(super) fn sent(taken: bool) {
    let outcome = if taken { "taken" } else { "failed" };
    counter!("hearth_federation_transactions_total", "outcome" => outcome).increment(1);
}

impl Outbound {
    /// Lines in Prometheus's text format.
    pub fn metrics(&self) -> String {
        let now = self.environment.clock.now_ms();
        let (mut failing, mut behind, mut sending) = (0, 0, 0);
        let mut failed: Vec<(i64, i64)> = Vec::new();
        for (recipient, peer) in &self.inner.lock().peers {
            match (peer.failures, peer.behind) {
                (_, true) => behind += 1,
                (0, false) => sending += 1,
                (_, false) => failing += 1,
            }
            if peer.failures > 0 {
                failed.push((peer.failing_since, *recipient));
            }
        }
        failed.sort_unstable();
        let mut text = String::from("# TYPE hearth_federation_destinations gauge\n");
        for (state, count) in [("sending", sending), ("failing", failing), ("behind", behind)] {
            let _ = writeln!(text, "hearth_federation_destinations{{state=\"{state}\"}} {count}");
        }
        text.push_str("# TYPE hearth_federation_destination_failing_seconds gauge\n");
        for (since, recipient) in failed.into_iter().take(NAMED) {
            if let Some(server) = self.destinations.name(recipient) {
                let seconds = (now - since).max(0) / 1000;
                let _ = writeln!(
                    text,
                    "hearth_federation_destination_failing_seconds{{server=\"{server}\"}} {seconds}"
                );
            }
        }
        text
    }
}
