//! What fades, on its way to other servers: who types, and who is there. It is kept in memory only, and the last word of each
//! is all that is sent.

use std::sync::Arc;

use ruma::{OwnedUserId, UserId};
use serde_json::Value;

use super::{Outbound, transaction::Fading};
use crate::room::Room;

impl Outbound {
    /// Somebody here began or stopped typing in a room.
    pub fn typing(self: &Arc<Self>, room: &Room, user_id: &UserId, typing: bool) {
        let snapshot = room.snapshot();
        if !snapshot.federates() {
            return;
        }
        for (recipient, _) in snapshot.remote.iter() {
            self.put(*recipient, |fading| {
                fading.typing.insert((room.room_id.clone(), user_id.to_owned()), typing);
            });
        }
    }

    /// ED-03: somebody's presence is another, for servers that share a room with them.
    pub fn presence(self: &Arc<Self>, servers: &[i64], user_id: &OwnedUserId, presence: &Value) {
        for recipient in servers {
            self.put(*recipient, |fading| {
                fading.presence.insert(user_id.clone(), presence.clone());
            });
        }
    }

    /// Puts something down for a server, unless that has failed: by the time that it is back this has faded.
    fn put(self: &Arc<Self>, recipient: i64, put: impl FnOnce(&mut Fading)) {
        {
            let inner = &mut *self.inner.lock();
            let peer = inner.peers.entry(recipient).or_default();
            if peer.failures > 0 {
                return;
            }
            put(&mut peer.fading);
        }
        self.wake(recipient);
    }
}

impl Fading {
    /// Puts back what wasn't sent, unless something newer is there.
    pub(super) fn put_before(&mut self, older: Self) {
        for (key, typing) in older.typing {
            self.typing.entry(key).or_insert(typing);
        }
        for (user_id, presence) in older.presence {
            self.presence.entry(user_id).or_insert(presence);
        }
    }
}
