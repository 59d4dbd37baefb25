//! Rooms in which it is known who must get what: what every scenario with readers is built of.
//!
//! A [`Room`] numbers its messages, knows which of them were acknowledged to whom and which reader has got them, and gives
//! the verdict. A [`Reader`] is a member on a long-poll or a socket: it chains `since` and closes the gap of a limited
//! timeline through `/messages`, as a client must. Nothing here decides when somebody sends; scenarios do.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use tokio::sync::Notify;

use crate::checker::{Verdict, compare};
use crate::client::Session;
use crate::content;
use crate::latency::Latencies;
use crate::socket::Socket;
use crate::sync::{Rooms, SyncBody};

/// What the specification's examples and most clients wait for, in milliseconds.
const LONG_POLL: u32 = 30_000;

/// Events a room that readers ask for.
const TIMELINE_LIMIT: u32 = 50;

/// An event id, short enough to keep one for each reader through hours.
type Id = u64;

pub(crate) struct Room {
    pub(crate) id: Rc<str>,
    seed: u64,
    /// Every message, by its number.
    sent: RefCell<Vec<Sent>>,
    /// What each sender was given, in its order.
    acknowledged: RefCell<Vec<Vec<Id>>>,
    /// What each reader got, in its order, with the number that it says it has.
    received: Vec<RefCell<Vec<(u32, Id)>>>,
    /// Messages that have reached everyone.
    complete: Cell<usize>,
    completed: Notify,
}

#[derive(Clone, Copy)]
struct Sent {
    began: Instant,
    sender: u32,
    /// Readers that have yet to get it.
    owed: u32,
}

/// What is counted at present; shared by those whose figures belong together.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) counting: Cell<bool>,
    pub(crate) over: Cell<bool>,
    pub(crate) deliveries: RefCell<Latencies>,
    pub(crate) acknowledgements: RefCell<Latencies>,
    /// Timelines that were limited, and so closed through `/messages`.
    pub(crate) gaps: Cell<u32>,
}

impl Tally {
    /// A message that was due to be sent at `began` has been acknowledged now.
    pub(crate) fn acknowledged(&self, began: Instant) {
        if self.counting.get() {
            self.acknowledgements.borrow_mut().record(began.elapsed());
        }
    }
}

impl Room {
    /// A room that nobody has talked in. `seed` tells its messages from those of all others.
    pub(crate) fn new(id: Rc<str>, senders: usize, readers: usize, seed: u64) -> Self {
        Self {
            id,
            seed,
            sent: RefCell::default(),
            acknowledged: RefCell::new(vec![Vec::new(); senders]),
            received: (0..readers).map(|_| RefCell::default()).collect(),
            complete: Cell::new(0),
            completed: Notify::new(),
        }
    }

    /// The number and content of the next message, which `sender` is about to send and which is timed from `began`.
    pub(crate) fn begin(&self, sender: usize, began: Instant) -> (usize, String) {
        let mut sent = self.sent.borrow_mut();
        sent.push(Sent { began, sender: sender as u32, owed: self.received.len() as u32 });
        let number = sent.len() - 1;
        if self.received.is_empty() {
            self.complete.set(sent.len());
        }
        (number, content::message(self.seed, number))
    }

    /// `sender` was told that its message is `event`.
    pub(crate) fn acknowledge(&self, sender: usize, event: &str) {
        self.acknowledged.borrow_mut()[sender].push(id_of(event));
    }

    /// Messages that were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.borrow().iter().map(Vec::len).sum()
    }

    /// Messages that have reached every reader, counted from the first without a hole.
    pub(crate) fn complete(&self) -> usize {
        self.complete.get()
    }

    /// Waits until the first `count` messages have reached every reader.
    pub(crate) async fn wait_until_complete(&self, count: usize, patience: Duration) -> Result<()> {
        let arrival = async {
            while self.complete.get() < count {
                self.completed.notified().await;
            }
        };
        if tokio::time::timeout(patience, arrival).await.is_err() {
            let (number, seconds) = (self.complete.get(), patience.as_secs());
            bail!("message {number} of {} has not reached everyone within {seconds} s", self.id);
        }
        Ok(())
    }

    /// One reader has message `number` for the first time. Returns when it was sent; `None` if it never was.
    fn arrived(&self, number: usize) -> Option<Instant> {
        let mut sent = self.sent.borrow_mut();
        let message = sent.get_mut(number)?;
        let began = message.began;
        message.owed = message.owed.saturating_sub(1);
        let mut complete = self.complete.get();
        while sent.get(complete).is_some_and(|message| message.owed == 0) {
            complete += 1;
        }
        if complete != self.complete.replace(complete) {
            self.completed.notify_one();
        }
        Some(began)
    }

    /// Each sender's messages at each reader, and the order of all of them among readers of one server.
    pub(crate) fn verdict(&self) -> Verdict {
        let (sent, acknowledged) = (self.sent.borrow(), self.acknowledged.borrow());
        let mut verdict = Verdict::default();
        for received in &self.received {
            let mut by_sender: HashMap<u32, Vec<Id>> = HashMap::new();
            for (number, id) in received.borrow().iter() {
                match sent.get(*number as usize) {
                    Some(message) => by_sender.entry(message.sender).or_default().push(*id),
                    None => verdict.unknown += 1,
                }
            }
            for (sender, acknowledged) in acknowledged.iter().enumerate() {
                let received = by_sender.remove(&(sender as u32)).unwrap_or_default();
                verdict.add(&compare(acknowledged.iter().copied(), received));
            }
        }
        verdict
    }

    /// How often a reader had messages in another order than others on the same server: the first `here` readers are on one,
    /// the rest on another.
    pub(crate) fn disagreements(&self, here: usize) -> u64 {
        let (here, there) = self.received.split_at(here.min(self.received.len()));
        let order = |received: &[(u32, Id)]| received.iter().map(|(_, id)| *id).collect::<Vec<_>>();
        let mut disagreements = 0;
        for readers in [here, there] {
            let Some((first, others)) = readers.split_first() else { continue };
            let first = first.borrow();
            disagreements += others
                .iter()
                .map(|other| compare(order(&first), order(&other.borrow())).reordered)
                .sum::<u64>();
        }
        disagreements
    }
}

fn id_of(event: &str) -> Id {
    let mut hasher = DefaultHasher::new();
    event.hash(&mut hasher);
    hasher.finish()
}

/// A member who reads one room.
pub(crate) struct Reader {
    pub(crate) session: Session,
    room: Rc<Room>,
    /// Which of the room's readers this is.
    place: usize,
    tally: Rc<Tally>,
    filter: String,
    pub(crate) since: String,
    /// Messages seen, by number: a second sight is no arrival, though the checker hears of it.
    seen: Vec<bool>,
    /// The last message of the room's own order, where a gap ends.
    last: Option<Box<str>>,
}

impl Reader {
    /// Logs on: a filter and an initial sync.
    pub(crate) async fn begin(
        mut session: Session,
        room: Rc<Room>,
        place: usize,
        tally: Rc<Tally>,
    ) -> Result<Self> {
        let filter = session.timeline_filter(TIMELINE_LIMIT).await?;
        let since = SyncBody::parse(session.sync_raw(None, Some(&filter), 0).await?)?.next_batch.into_owned();
        Ok(Self { session, room, place, tally, filter, since, seen: Vec::new(), last: None })
    }

    pub(crate) fn place(&self) -> usize {
        self.place
    }

    /// The last message that was received.
    pub(crate) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// One long-poll, and what its answer makes necessary. What failed can be tried again, from the same position.
    pub(crate) async fn step(&mut self) -> Result<()> {
        let body = self.session.sync_raw(Some(&self.since), Some(&self.filter), LONG_POLL).await?;
        let arrived = Instant::now();
        let sync = SyncBody::parse(body)?;
        let since = sync.next_batch.into_owned();
        let found = Found::of(&sync.rooms, &self.room.id);
        self.take_all(found, arrived).await?;
        self.since = since;
        Ok(())
    }

    /// The next sync of a socket that was opened at this reader's position. After a failure, the socket is of no more use.
    pub(crate) async fn step_from(&mut self, socket: &mut Socket) -> Result<()> {
        let body = socket.sync().await?;
        let arrived = Instant::now();
        let found = Found::of(&SyncBody::parse(body)?.rooms, &self.room.id);
        self.take_all(found, arrived).await?;
        self.since.clone_from(&socket.position);
        Ok(())
    }

    /// Reads until it is aborted or something fails.
    pub(crate) async fn read(mut self) -> Result<()> {
        loop {
            self.step().await?;
        }
    }

    /// The same over a socket.
    pub(crate) async fn read_from(mut self, mut socket: Socket) -> Result<()> {
        loop {
            self.step_from(&mut socket).await?;
        }
    }

    async fn take_all(&mut self, found: Option<Found>, arrived: Instant) -> Result<()> {
        let Some(found) = found else { return Ok(()) };
        if let Some(gap) = found.gap {
            self.close_gap(&gap).await?;
        }
        for (number, event) in found.messages {
            self.take(number, event, arrived);
        }
        Ok(())
    }

    /// Pages back from `from` to the last message that was received, and takes what lies between in the room's order.
    async fn close_gap(&mut self, from: &str) -> Result<()> {
        self.tally.gaps.set(self.tally.gaps.get() + 1);
        let mut missed = Vec::new();
        let mut from = Some(from.to_owned());
        'pages: while let Some(token) = from {
            let page = self.session.messages(&self.room.id, "b", Some(&token), TIMELINE_LIMIT).await?;
            for message in page.messages {
                if Some(&message.event_id) == self.last.as_ref() {
                    break 'pages;
                }
                missed.push((message.number, message.event_id));
            }
            from = page.end.filter(|end| *end != token);
        }
        let arrived = Instant::now();
        for (number, event) in missed.into_iter().rev() {
            self.take(number, event, arrived);
        }
        Ok(())
    }

    fn take(&mut self, number: usize, event: Box<str>, arrived: Instant) {
        let short = u32::try_from(number).unwrap_or(u32::MAX);
        self.room.received[self.place].borrow_mut().push((short, id_of(&event)));
        self.last = Some(event);
        let Some(sent) = self.first_sight(number).then(|| self.room.arrived(number)).flatten() else {
            return;
        };
        if self.tally.counting.get() {
            self.tally.deliveries.borrow_mut().record(arrived.saturating_duration_since(sent));
        }
    }

    fn first_sight(&mut self, number: usize) -> bool {
        // A number that nobody gave would reserve what it says.
        if number >= self.room.sent.borrow().len() {
            return false;
        }
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        }
        !std::mem::replace(&mut self.seen[number], true)
    }
}

/// A room's part of a sync, taken out of the body that it was read from.
struct Found {
    messages: Vec<(usize, Box<str>)>,
    /// Where to page back from, if the timeline was limited.
    gap: Option<String>,
}

impl Found {
    fn of(rooms: &Rooms<'_>, room: &str) -> Option<Self> {
        let timeline = &rooms.join.get(room)?.timeline;
        let messages =
            timeline.events.iter().filter_map(|event| Some((event.number()?, (&*event.id).into())));
        let gap = timeline.prev_batch.clone().filter(|_| timeline.limited);
        Some(Self { messages: messages.collect(), gap })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::User;
    use crate::connection::tests::scripted;

    fn answer(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn event(number: usize) -> String {
        format!(
            r#"{{"event_id":"${number}","sender":"@a:b","type":"m.room.message","content":{{"bench.n":{number}}}}}"#
        )
    }

    fn sync(limited: bool, number: usize) -> String {
        answer(&format!(
            r#"{{"next_batch":"s{number}","rooms":{{"join":{{"!r":{{"timeline":{{"limited":{limited},"prev_batch":"p{number}","events":[{}]}}}}}}}}}}"#,
            event(number)
        ))
    }

    fn room_of_messages(senders: usize, readers: usize, count: usize) -> Room {
        let room = Room::new("!r".into(), senders, readers, 1);
        for number in 0..count {
            room.begin(number % senders, Instant::now());
            room.acknowledge(number % senders, &format!("${number}"));
        }
        room
    }

    fn receive(room: &Room, reader: usize, numbers: &[u32]) {
        let events = numbers.iter().map(|number| (*number, id_of(&format!("${number}"))));
        room.received[reader].borrow_mut().extend(events);
    }

    #[tokio::test]
    async fn the_gap_of_a_limited_timeline_is_closed_in_the_order_of_the_room() {
        let page = |numbers: [usize; 2], end| {
            let events = numbers.map(event).join(",");
            answer(&format!(r#"{{"chunk":[{events}],"start":"x","end":"{end}"}}"#))
        };
        let answers =
            vec![sync(false, 0), sync(true, 5), page([4, 3], "q"), page([2, 1], "r"), page([0, 9], "s")];
        let address = scripted(vec![answers]).await;
        let user = User { id: "@a:b".into(), token: "t".into() };
        let room = Rc::new(room_of_messages(1, 4, 6));
        let reader = Reader {
            session: Session::new(address, user),
            room: Rc::clone(&room),
            place: 3,
            tally: Rc::default(),
            filter: "f".to_owned(),
            since: "s".to_owned(),
            seen: Vec::new(),
            last: None,
        };
        // The script ends there, and with it the reading.
        assert!(reader.read().await.is_err());
        let received: Vec<_> = room.received[3].borrow().iter().map(|(number, _)| *number).collect();
        assert_eq!(received, [0, 1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn a_message_is_complete_when_every_reader_has_it_once() {
        let room = Room::new("!r".into(), 1, 2, 1);
        room.begin(0, Instant::now());
        assert!(room.arrived(0).is_some() && room.arrived(1).is_none());
        assert_eq!(room.complete(), 0);
        room.begin(0, Instant::now());
        assert!(room.arrived(1).is_some() && room.arrived(1).is_some() && room.arrived(0).is_some());
        assert_eq!(room.complete(), 2);
        room.wait_until_complete(2, Duration::ZERO).await.unwrap();
    }

    #[test]
    fn each_sender_has_an_order_and_readers_of_a_server_have_one() {
        // Senders 0 and 1 by turns: 0 2 and 1 3.
        let room = room_of_messages(2, 2, 4);
        receive(&room, 0, &[0, 1, 2, 3]);
        receive(&room, 1, &[1, 0, 2, 3]);
        assert!(room.verdict().is_clean());
        assert_eq!((room.verdict().due, room.disagreements(2)), (8, 1));
        // On two servers, either order is right.
        assert_eq!(room.disagreements(1), 0);

        let room = room_of_messages(2, 1, 4);
        receive(&room, 0, &[2, 1, 0, 3]);
        assert_eq!(room.verdict(), Verdict { due: 4, reordered: 1, ..Verdict::default() });
    }

    #[test]
    fn an_event_that_nobody_sent_and_one_under_a_number_that_is_taken_are_unknown() {
        let room = room_of_messages(1, 1, 1);
        receive(&room, 0, &[0, 7]);
        room.received[0].borrow_mut().push((0, id_of("$another")));
        assert_eq!(room.verdict(), Verdict { due: 1, unknown: 2, ..Verdict::default() });
    }
}
