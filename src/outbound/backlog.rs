//! What waits for a server: entries of its queue, or, for one that is behind, its rooms' events since it was last reached.

use std::sync::Arc;

use ruma::ServerName;

use crate::{
    queue::{Queues, Span},
    room::{self, Event, Room, Rooms},
    store::{Entry, Kind, Store},
};

/// Own events of one room that a server which is behind is sent. Of more the last: it asks for the others itself.
const MOST_OF_ROOM: usize = 50;
/// Events of a room that are looked at for that.
const LOOKED_AT: i64 = 500;

/// Something to send.
#[derive(Clone)]
pub(super) enum Item {
    Event(Arc<Event>),
    /// A receipt in a room, by the position of its last change.
    Receipt {
        room: Arc<Room>,
        changed: i64,
    },
    /// Something that isn't for servers, or is gone.
    Nothing,
}

/// An entry and what it is.
pub(super) type Waiting = (i64, Item);

pub(super) struct Backlog<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) store: &'a Store,
    pub(super) queues: &'a Queues,
}

impl Backlog<'_> {
    /// At most `most` items of a queue after a position, in order. `None` if some are gone from the queue.
    pub(super) async fn of_queue(
        &self,
        recipient: i64,
        after: i64,
        most: usize,
    ) -> Result<Option<Vec<Waiting>>, room::Error> {
        let entries = match self.queues.read(recipient, after, self.queues.head()).await? {
            Span::Entries(entries) => entries,
            Span::Trimmed => return Ok(None),
        };
        let mut items = Vec::with_capacity(entries.len().min(most));
        for entry in entries.into_iter().take(most) {
            items.push((entry.position, self.item(entry).await?));
        }
        Ok(Some(items))
    }

    async fn item(&self, entry: Entry) -> Result<Item, room::Error> {
        let room = match self.rooms.by_number(entry.room).await {
            Ok(room) => room,
            Err(room::Error::NotFound(_)) => return Ok(Item::Nothing),
            Err(cause) => return Err(cause),
        };
        Ok(match entry.kind {
            Kind::Event => {
                let event = self.rooms.events(&room, &[entry.item]).await?.pop();
                event.map_or(Item::Nothing, Item::Event)
            }
            Kind::Receipt => Item::Receipt { room, changed: entry.item },
            Kind::AccountData | Kind::Unread | Kind::ThreadSubscription => Item::Nothing,
        })
    }

    /// What a server missed after a position and up to another, in order: events that were made here, in rooms that it is in.
    pub(super) async fn of_rooms(
        &self,
        server: &ServerName,
        us: &ServerName,
        after: i64,
        to: i64,
    ) -> Result<Vec<(i64, i64, i64)>, room::Error> {
        let mut missed = Vec::new();
        for number in self.store.rooms_of_server(server.as_str()).await? {
            let room = self.rooms.by_number_once(number).await?;
            if !room.snapshot().federates() {
                continue;
            }
            let from = self.rooms.place_at(&room, after).await?;
            let to = self.rooms.place_at(&room, to).await?;
            let mut events = self.rooms.log_backwards(&room, to, LOOKED_AT).await?;
            events.retain(|event| event.seq > from && event.pdu.sender.server_name() == us);
            events.truncate(MOST_OF_ROOM);
            for event in events {
                let position = self.store.position_of(number, event.seq).await?;
                missed.push((position, number, event.seq));
            }
        }
        missed.sort_unstable();
        Ok(missed)
    }
}
