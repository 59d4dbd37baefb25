//! Servers that come into a room: they hear who of it is here, and are heard of whom they told of before this server knew
//! that it shares a room with them.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;

use super::{Hearers, Presence, State};
use crate::room::Arrivals;

impl Presence {
    /// ED-03: makes servers that share a room with people here acquainted with these, for ever.
    pub async fn introduce(self: Arc<Self>, mut arrivals: UnboundedReceiver<Arrivals>) {
        while let Some(arrivals) = arrivals.recv().await {
            if !self.settings.enabled {
                continue;
            }
            self.tell_new_servers(&arrivals);
            let servers = arrivals.new_servers().map(|(_, server)| server.clone()).collect();
            for hearsay in self.remembered_of(&servers) {
                if let Err(cause) = self.hear_of(hearsay, false).await {
                    tracing::warn!(%cause, "a user's presence is passed over");
                }
            }
        }
    }

    /// They know nobody of the room yet; what changes later they hear by way of the room.
    fn tell_new_servers(&self, arrivals: &Arrivals) {
        let servers: Vec<i64> = arrivals.new_servers().map(|(number, _)| *number).collect();
        if servers.is_empty() || self.outward.get().is_none() {
            return;
        }
        let now = self.now();
        for member in arrivals.after.local.iter() {
            let seen = self.board.now(member.recipient, now);
            if let Some(seen) = seen.filter(|seen| seen.told.state != State::Offline) {
                self.tell(seen, Hearers::Servers(servers.clone()), now);
            }
        }
    }
}
