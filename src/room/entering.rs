//! Rooms that this server is about to come into.
//!
//! A resident server sends what happens in a room from the moment that it has taken a join, which may be long before the joining
//! one has made the room of the state that came with the answer. Whatever comes meanwhile waits for that, or it
//! would be lost: nobody sends it again.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use ruma::{OwnedRoomId, RoomId};

use super::Rooms;

type Turn = Arc<tokio::sync::Mutex<()>>;

#[derive(Default)]
pub(super) struct Entering(Mutex<HashMap<OwnedRoomId, Turn>>);

impl Rooms {
    /// The turn to enter a room: one join after the other, of which the first makes the others easy.
    pub fn turn_to_enter(&self, room_id: &RoomId) -> Turn {
        let mut turns = self.entering.0.lock();
        turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        Arc::clone(turns.entry(room_id.to_owned()).or_default())
    }

    /// Waits for whoever is about to enter a room. Whether there was somebody.
    pub async fn entered(&self, room_id: &RoomId) -> bool {
        let turn = self.entering.0.lock().get(room_id).cloned();
        let Some(turn) = turn else { return false };
        drop(turn.lock().await);
        true
    }
}
