//! Rooms that this server is about to come into.
//!
//! A resident server sends what happens in a room from the moment that it has taken a join, which may be long before the joining
//! one has made the room of the state that came with the answer. Whatever comes meanwhile waits for that, or it
//! would be lost: nobody sends it again.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};
use tokio::sync::{MutexGuard, Semaphore};

use super::Rooms;

/// Transactions that wait for one join. Whoever sends more, or others, has them dropped as before the join (I8).
const MOST_WAITING: usize = 8;

/// The turn to enter a room.
pub struct Turn {
    lock: tokio::sync::Mutex<()>,
    waiting: Semaphore,
}

impl Turn {
    pub async fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().await
    }
}

#[derive(Default)]
pub(super) struct Entering(Mutex<HashMap<OwnedRoomId, Arc<Turn>>>);

impl Rooms {
    /// The turn to enter a room: one join after the other, of which the first makes the others easy.
    pub fn turn_to_enter(&self, room_id: &RoomId) -> Arc<Turn> {
        let mut turns = self.entering.0.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        let new =
            || Arc::new(Turn { lock: tokio::sync::Mutex::default(), waiting: Semaphore::new(MOST_WAITING) });
        Arc::clone(turns.entry(room_id.to_owned()).or_insert_with(new))
    }

    /// Waits for whoever is about to enter a room. Whether there was somebody; if too many wait already, as if there weren't.
    pub async fn entered(&self, room_id: &RoomId) -> bool {
        let turn = self.entering.0.lock().get(room_id).cloned();
        let Some(turn) = turn else { return false };
        let Ok(_place) = turn.waiting.try_acquire() else { return false };
        drop(turn.lock().await);
        true
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

    use super::*;
    use crate::room::tests::World;

    /// I8: a join takes as long as another server likes, and anybody may send something that waits for it.
    #[tokio::test]
    async fn i8_only_so_many_wait_for_a_join() {
        let world = World::new(&[]).await;
        let room_id = ruma::owned_room_id!("!room:elsewhere");
        assert!(!world.rooms.entered(&room_id).await, "nobody is about to enter it");
        let turn = world.rooms.turn_to_enter(&room_id);
        // Whoever has waited leaves the place to others, should the join be tried again.
        for _ in 0..2 {
            let entering = turn.lock().await;
            let mut waiting: FuturesUnordered<_> =
                (0..=MOST_WAITING).map(|_| world.rooms.entered(&room_id)).collect();
            assert_eq!(waiting.next().now_or_never(), Some(Some(false)), "one too many");
            drop(entering);
            assert_eq!(waiting.collect::<Vec<_>>().await, [true; MOST_WAITING]);
        }
    }
}
