//! What waits for a server: entries of its queue, or, for one that is behind, its rooms' events since it was last reached.

use std::sync::Arc;

use ruma::ServerName;

use crate::{
    queue::Queues,
    room::{self, Event, Room, Rooms},
    store::{Entry, Kind, Store},
};

/// Own events of one room that a server which is behind is sent. Of more the last: it asks for the others itself.
pub(super) const MOST_OF_ROOM: usize = 50;
/// Events of a room that are looked at for that.
pub(super) const LOOKED_AT: usize = 500;
/// Receipts of one room that such a server is sent: the newest, of each user and thread the last.
const MOST_RECEIPTS: i64 = 200;

/// Something to send.
#[derive(Clone)]
pub(super) enum Item {
    Event(Arc<Event>),
    /// A receipt in a room, by the position of its last change.
    Receipt {
        room: Arc<Room>,
        changed: i64,
    },
    /// A message to devices of the server, at the position of its entry.
    Message,
    /// Devices or keys of somebody here are others: the position of the change.
    Devices(i64),
    /// Something that isn't for servers, or is gone.
    Nothing,
}

/// Something that a server which was behind is still to be sent.
#[derive(Clone, Copy)]
pub(super) enum Missed {
    Event {
        room: i64,
        seq: i64,
    },
    /// How far somebody has read in a room by now.
    Receipt {
        room: i64,
    },
    Message,
    /// The last change of somebody's devices or keys.
    Devices,
}

/// An entry and what it is.
pub(super) type Waiting = (i64, Item);

pub(super) struct Backlog<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) store: &'a Store,
    pub(super) queues: &'a Queues,
}

impl Backlog<'_> {
    /// At most `most` items of a queue after a position and up to another, in order.
    pub(super) async fn of_queue(
        &self,
        recipient: i64,
        after: i64,
        to: i64,
        most: usize,
    ) -> Result<Vec<Waiting>, room::Error> {
        let entries = match self.queues.tail(recipient).read(after, to) {
            Some(entries) => entries,
            None => self.store.first_of_queue(recipient, after, to, most as i64).await?,
        };
        let mut items = Vec::with_capacity(entries.len().min(most));
        for entry in entries.into_iter().take(most) {
            items.push((entry.position, self.item(entry).await?));
        }
        Ok(items)
    }

    async fn item(&self, entry: Entry) -> Result<Item, room::Error> {
        match entry.kind {
            Kind::Event | Kind::Receipt => {}
            Kind::ToDevice => return Ok(Item::Message),
            Kind::DeviceList => return Ok(Item::Devices(entry.item)),
            _ => return Ok(Item::Nothing),
        }
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
            _ => Item::Receipt { room, changed: entry.item },
        })
    }

    /// What a server missed after a position and up to another, in order: events that were made here, in rooms that it is in;
    /// who came and went there by way of this server or of another; how far people here have read there; messages to its
    /// devices, which are kept whether or not it is there; and the last change of each list of devices. Of each room it is
    /// `most` events, the last.
    pub(super) async fn missed(
        &self,
        (recipient, server): (i64, &ServerName),
        us: &ServerName,
        after: i64,
        to: i64,
        most: usize,
    ) -> Result<Vec<(i64, Missed)>, room::Error> {
        let of_rooms = self.of_rooms(server, us, after, to, most).await?.into_iter();
        let messages = self.store.message_positions(recipient, after, to).await?.into_iter();
        let messages = messages.map(|position| (position, Missed::Message));
        let lists = self.store.last_changes_for(server.as_str(), after, to).await?.into_iter();
        let lists = lists.map(|position| (position, Missed::Devices));
        let mut missed: Vec<_> = of_rooms.chain(messages).chain(lists).collect();
        missed.sort_by_key(|(position, _)| *position);
        Ok(missed)
    }

    /// Events and receipts of its rooms.
    async fn of_rooms(
        &self,
        server: &ServerName,
        us: &ServerName,
        after: i64,
        to: i64,
        most: usize,
    ) -> Result<Vec<(i64, Missed)>, room::Error> {
        let mut missed = Vec::new();
        for (number, last) in self.store.rooms_of_server(server.as_str(), after).await? {
            match self.of_room(number, last, (server, us), (after, to), most).await {
                Ok(of_room) => missed.extend(of_room),
                Err(cause @ room::Error::Store(_)) => return Err(cause),
                // I7
                Err(cause) => {
                    tracing::warn!(%server, room = number, %cause, "a server can't catch up with a room");
                }
            }
        }
        Ok(missed)
    }

    async fn of_room(
        &self,
        number: i64,
        last: Option<i64>,
        (server, us): (&ServerName, &ServerName),
        (after, to): (i64, i64),
        most: usize,
    ) -> Result<Vec<(i64, Missed)>, room::Error> {
        let room = self.rooms.by_number_once(number).await?;
        if !room.snapshot().federates() {
            return Ok(Vec::new());
        }
        let from = self.rooms.place_at(&room, after).await?;
        let until = self.rooms.place_at(&room, to).await?.min(last.unwrap_or(i64::MAX));
        // What was said before it came in, others have not been sent either who come in. Whom an event keeps out, their server
        // is told though it was never in.
        let stays = self.rooms.stays_of_server(&room, server, from).await?;
        let mut events = self.rooms.log_backwards(&room, until, LOOKED_AT as i64).await?;
        events.retain(|event| {
            let (sender, is_member) = (event.pdu.sender.server_name(), event.pdu.membership().is_some());
            event.seq > from
                && (stays.may_see(event.seq) || Event::keeps_out(&event.pdu) == Some(server))
                && (sender == us || (is_member && sender != server))
        });
        events.truncate(most);
        let mut missed = Vec::new();
        for event in events {
            let position = self.store.position_of(number, event.seq).await?;
            missed.push((position, Missed::Event { room: number, seq: event.seq }));
        }
        if last.is_none() {
            let came = stays.ranges().last().map(|(first, _)| *first).filter(|first| *first > from);
            let after = match came {
                Some(seq) => self.store.position_of(number, seq).await?.max(after),
                None => after,
            };
            let receipts = self.store.receipts_between(number, us.as_str(), after, to, MOST_RECEIPTS).await?;
            missed.extend(receipts.into_iter().map(|changed| (changed, Missed::Receipt { room: number })));
        }
        Ok(missed)
    }
}
