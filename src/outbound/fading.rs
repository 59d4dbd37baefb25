//! What fades, on its way to other servers: who types, and who is there. It is kept in memory only, and the last word of each
//! is all that is sent.

use std::{collections::BTreeSet, sync::Arc};

use ruma::UserId;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Outbound, transaction::Fading};
use crate::{
    presence::{Hearers, Outward},
    room::Room,
    typing::TimedOut,
};

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

    /// ED-02: tells, for ever, that people here type no more whose clients didn't say so.
    pub async fn tell_timed_out(self: Arc<Self>, mut ends: UnboundedReceiver<TimedOut>) {
        while let Some((room, user_id)) = ends.recv().await {
            if user_id.server_name() == self.server_name {
                self.typing(&room, &user_id, false);
            }
        }
    }

    /// ED-03: tells of the presence of people here, for ever, to the servers that share a room with them.
    pub async fn tell_presence(self: Arc<Self>, mut news: UnboundedReceiver<Outward>) {
        while let Some(Outward { user_id, hearers, content }) = news.recv().await {
            let mut servers = BTreeSet::new();
            let rooms = match hearers {
                Hearers::Of(rooms) => rooms,
                Hearers::Servers(recipients) => {
                    servers.extend(recipients);
                    Vec::new()
                }
            };
            for number in rooms {
                // A room that fails is no reason to tell nobody.
                let Ok(room) = self.rooms.by_number_once(number).await else { continue };
                let snapshot = room.snapshot();
                if snapshot.federates() {
                    servers.extend(snapshot.remote.iter().map(|(recipient, _)| *recipient));
                }
            }
            for recipient in servers {
                self.put(recipient, |fading| {
                    fading.presence.insert(user_id.clone(), content.clone());
                });
            }
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
