//! The state of rooms that are in doubt, asked for again ([`crate::room`]'s `doubt`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use hearth_federation::Pdu;
use parking_lot::Mutex;
use ruma::ServerName;
use tokio::time::{Instant, timeout};

use super::Inbound;
use crate::room::{Error, Room};

/// After the first time. Each further one doubles it.
const FIRST_RETRY: Duration = Duration::from_secs(2);
const LONGEST_RETRY: Duration = Duration::from_hours(1);
/// For one answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Rooms of which it is remembered when their state was asked for.
const MOST: usize = 4096;

/// When the state of which room was asked for again, and how often.
#[derive(Default)]
pub(super) struct Doubts(Mutex<HashMap<i64, (Instant, u32)>>);

impl Doubts {
    /// Whether it is time to ask again. Then it isn't for a while.
    fn is_time(&self, room: i64) -> bool {
        let (mut asked, now) = (self.0.lock(), Instant::now());
        if asked.len() >= MOST {
            asked.retain(|_, (next, _)| *next > now);
        }
        let (next, tries) = asked.entry(room).or_insert((now, 0));
        let is_time = *next <= now;
        if is_time {
            *next = now + (FIRST_RETRY * (1 << *tries)).min(LONGEST_RETRY);
            *tries = (*tries + 1).min(16);
        }
        is_time
    }

    fn end(&self, room: i64) {
        self.0.lock().remove(&room);
    }
}

impl Inbound {
    /// The state of a room that is in doubt may have become whole for others: it is asked for again, before an event that
    /// has come. What can't be done now is done with another event.
    pub(super) async fn ask_for_state_again(
        &self,
        origin: &ServerName,
        room: &Arc<Room>,
        events: &[Pdu],
    ) -> Result<(), Error> {
        let Some(event) = events.first() else { return Ok(()) };
        if !self.rooms.is_in_doubt(room) {
            return Ok(());
        }
        let named: Vec<_> = event.prev_events.iter().chain([&event.event_id]).cloned().collect();
        // One that follows what isn't here is a gap, and is judged by a state that is given anyway.
        if self.rooms.lacking(room, &named).await?.iter().ne([&event.event_id])
            || !self.doubts.is_time(room.number)
        {
            return Ok(());
        }
        let before = timeout(PATIENCE, self.history.state_before(origin, room, event)).await;
        match before.unwrap_or_else(|_| Err("it takes too long".to_owned())) {
            Ok(before) => match self.rooms.bridge(room, event.clone(), before).await {
                Err(cause @ Error::Store(_)) => return Err(cause),
                outcome => {
                    tracing::info!(%origin, room_id = %room.room_id, ?outcome, "a state in doubt is had again");
                }
            },
            Err(cause) => {
                tracing::info!(%origin, room_id = %room.room_id, cause, "a state in doubt can't be had");
            }
        }
        if !self.rooms.is_in_doubt(room) {
            self.doubts.end(room.number);
        }
        Ok(())
    }
}
