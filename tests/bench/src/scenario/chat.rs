//! `chat10`, `chat100`: rooms of ten or a hundred, one of whom talks while the others wait in a long-poll: what a
//! conversation costs. `stream10`, `stream100`: the same over sockets, the talker's included.
//!
//! In step, the next message of a room is sent when the last has reached all others, so that each message is a wake-up
//! and an answer for each of them: the dearest way to deliver it, and the way people talk. Flooded, the sender waits for
//! acknowledgements only, and an answer may carry several messages. Readers chain `since` and close the gap of a limited
//! timeline through `/messages`, as a client must; the checker then knows of each reader and each message.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::{Bench, in_parallel, room_of};
use crate::checker::{Verdict, compare};
use crate::client::Session;
use crate::content;
use crate::latency::Latencies;
use crate::report::Better;
use crate::server::Window;
use crate::socket::Socket;
use crate::sync::{Rooms, SyncBody};

const WARM_UP: Duration = Duration::from_secs(1);

/// What the specification's examples and most clients wait for, in milliseconds.
const LONG_POLL: u32 = 30_000;

/// Events a room that readers ask for.
const TIMELINE_LIMIT: u32 = 50;

/// Until a message counts as lost.
const DELIVERY_PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Settings {
    pub(crate) name: &'static str,
    pub(crate) rooms: usize,
    /// Of each room.
    pub(crate) members: usize,
    pub(crate) wire: Wire,
    pub(crate) duration: Duration,
}

/// How users speak with the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wire {
    LongPoll,
    Stream,
}

/// Who sends.
enum Talker {
    Requests(Session),
    Socket(Socket),
}

impl Talker {
    async fn send(&mut self, room: &str, content: &str) -> Result<Box<str>> {
        match self {
            Self::Requests(session) => session.send(room, content).await,
            Self::Socket(socket) => socket.send(room, content).await,
        }
    }
}

struct Room {
    id: Rc<str>,
    /// The one who sends; away while sending.
    talker: RefCell<Option<Talker>>,
    seed: u64,
    /// When each message was sent, and how many readers it has yet to reach, by its number.
    sent: RefCell<Vec<(Instant, usize)>>,
    acknowledged: RefCell<Vec<Box<str>>>,
    /// What each reader got, in its order.
    received: Vec<RefCell<Vec<Box<str>>>>,
    /// Messages that have reached everyone.
    complete: Cell<usize>,
    completed: Notify,
}

/// What is counted at present.
#[derive(Default)]
struct Tally {
    counting: Cell<bool>,
    over: Cell<bool>,
    deliveries: RefCell<Latencies>,
    acknowledgements: RefCell<Latencies>,
    /// Timelines that were limited, and so closed through `/messages`.
    gaps: Cell<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    InStep,
    Flood,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let users = bench.users(settings.rooms * settings.members).await?;
    let groups: Vec<_> = users.chunks(settings.members).map(<[_]>::to_vec).collect();
    let ids = in_parallel(groups.clone(), move |members| room_of(address, members)).await?;
    let tally = Rc::new(Tally::default());
    let mut rooms = Vec::new();
    let mut readers = JoinSet::new();
    for (index, (id, members)) in ids.into_iter().zip(groups).enumerate() {
        let mut members = members.into_iter().map(|user| Session::new(address, user));
        let talker = members.next().context("a room needs a member")?;
        let talker = match settings.wire {
            Wire::LongPoll => Talker::Requests(talker),
            Wire::Stream => Talker::Socket(Socket::open(address, &talker.user, None).await?),
        };
        // Other words than those of the other scenarios' senders.
        let room = Rc::new(Room::new(id, Some(talker), settings.members - 1, 1_000_000 + index as u64));
        for (place, session) in members.enumerate() {
            let (room, tally) = (Rc::clone(&room), Rc::clone(&tally));
            let socket = match settings.wire {
                Wire::LongPoll => None,
                Wire::Stream => Some(Socket::open(address, &session.user, None).await?),
            };
            let reader = Reader::begin(session, room, place, tally).await?;
            match socket {
                None => readers.spawn_local(reader.read()),
                Some(socket) => readers.spawn_local(reader.read_from(socket)),
            };
        }
        rooms.push(room);
    }

    let disk_before = bench.server.disk();
    let all = rooms.len();
    let phases = [
        ("one room".to_owned(), 1, Pace::InStep),
        (format!("{all} rooms"), all, Pace::InStep),
        (format!("{all} rooms flooded"), all, Pace::Flood),
    ];
    let mut measured = Ok(());
    for (label, count, pace) in phases {
        measured = phase(bench, settings, &label, &rooms[..count], &tally, pace).await;
        if measured.is_err() {
            break;
        }
    }
    // A reader that failed explains a message that did not arrive, so it is what is reported.
    while let Some(ended) = readers.try_join_next() {
        ended?.context("a reader failed")?;
    }
    readers.shutdown().await;
    for room in &rooms {
        bench.report.verdict.add(&room.verdict());
    }
    measured?;
    let sent: usize = rooms.iter().map(|room| room.acknowledged.borrow().len()).sum();
    let disk_each = disk_before
        .zip(bench.server.disk())
        .map(|(before, after)| (after as f64 - before as f64) / sent as f64);
    bench.report.add(settings.name, "disk", "bytes/message", Better::Lower, disk_each);
    bench.add_memory(settings.name);
    Ok(())
}

/// The talkers of `rooms` talk for `duration` after a warm-up; returns when every message has reached everyone.
async fn phase(
    bench: &mut Bench,
    settings: &Settings,
    label: &str,
    rooms: &[Rc<Room>],
    tally: &Rc<Tally>,
    pace: Pace,
) -> Result<()> {
    let mut talkers = JoinSet::new();
    tally.over.set(false);
    for room in rooms {
        talkers.spawn_local(talk(Rc::clone(room), Rc::clone(tally), pace));
    }
    tokio::time::sleep(WARM_UP).await;
    let window = Window::open(&bench.server);
    tally.counting.set(true);
    tokio::time::sleep(settings.duration).await;
    tally.counting.set(false);
    let spent = window.close(&bench.server);
    tally.over.set(true);
    while let Some(ended) = talkers.join_next().await {
        ended??;
    }
    for room in rooms {
        let due = room.acknowledged.borrow().len();
        room.wait_until_complete(due).await?;
    }

    let (deliveries, acknowledgements) = (tally.deliveries.take(), tally.acknowledgements.take());
    let messages = acknowledgements.count();
    let seconds = spent.elapsed.as_secs_f64();
    let mut add = |what: &str, unit: &str, better: Better, value: Option<f64>| {
        bench.report.add(settings.name, format!("{label}: {what}"), unit, better, value);
    };
    add("messages", "/s", Better::Higher, Some(messages as f64 / seconds));
    add("deliveries", "/s", Better::Higher, Some(deliveries.count() as f64 / seconds));
    add("delivery p50", "ms", Better::Lower, deliveries.percentile(50));
    add("delivery p99", "ms", Better::Lower, deliveries.percentile(99));
    add("acknowledgement p50", "ms", Better::Lower, acknowledgements.percentile(50));
    add("acknowledgement p99", "ms", Better::Lower, acknowledgements.percentile(99));
    add("server CPU", "ms/message", Better::Lower, spent.server_each(messages));
    add("limited timelines", "", Better::Context, Some(f64::from(tally.gaps.take())));
    add("load generator's CPU", "ms/message", Better::Context, spent.load_each(messages));
    Ok(())
}

async fn talk(room: Rc<Room>, tally: Rc<Tally>, pace: Pace) -> Result<()> {
    let mut talker = room.talker.take().context("the talker is away")?;
    while !tally.over.get() {
        let number = room.acknowledged.borrow().len();
        let content = content::message(room.seed, number);
        let began = Instant::now();
        room.sent.borrow_mut().push((began, room.received.len()));
        let event = talker.send(&room.id, &content).await?;
        if tally.counting.get() {
            tally.acknowledgements.borrow_mut().record(began.elapsed());
        }
        room.acknowledged.borrow_mut().push(event);
        if pace == Pace::InStep {
            room.wait_until_complete(number + 1).await?;
        }
    }
    room.talker.replace(Some(talker));
    Ok(())
}

impl Room {
    fn new(id: Rc<str>, talker: Option<Talker>, readers: usize, seed: u64) -> Self {
        Self {
            id,
            talker: RefCell::new(talker),
            seed,
            sent: RefCell::default(),
            acknowledged: RefCell::default(),
            received: (0..readers).map(|_| RefCell::default()).collect(),
            complete: Cell::new(0),
            completed: Notify::new(),
        }
    }

    /// Waits until the first `count` messages have reached every reader.
    async fn wait_until_complete(&self, count: usize) -> Result<()> {
        let arrival = async {
            while self.complete.get() < count {
                self.completed.notified().await;
            }
        };
        if tokio::time::timeout(DELIVERY_PATIENCE, arrival).await.is_err() {
            let seconds = DELIVERY_PATIENCE.as_secs();
            bail!(
                "message {} of {} has not reached everyone within {seconds} s",
                self.complete.get(),
                self.id
            );
        }
        Ok(())
    }

    /// One reader has message `number` for the first time. Returns when it was sent; `None` if it never was.
    fn arrived(&self, number: usize) -> Option<Instant> {
        let mut sent = self.sent.borrow_mut();
        let (began, owed) = sent.get_mut(number)?;
        let began = *began;
        *owed = owed.saturating_sub(1);
        let mut complete = self.complete.get();
        while sent.get(complete).is_some_and(|(_, owed)| *owed == 0) {
            complete += 1;
        }
        if complete != self.complete.replace(complete) {
            self.completed.notify_one();
        }
        Some(began)
    }

    fn verdict(&self) -> Verdict {
        let acknowledged = self.acknowledged.borrow();
        let mut verdict = Verdict::default();
        for received in &self.received {
            verdict
                .add(&compare(acknowledged.iter().map(|id| &**id), received.borrow().iter().map(|id| &**id)));
        }
        verdict
    }
}

/// A member on a long-poll.
struct Reader {
    session: Session,
    room: Rc<Room>,
    /// Which of the room's readers this is.
    place: usize,
    tally: Rc<Tally>,
    filter: String,
    since: String,
    /// Messages seen, by number: a second sight is no arrival, though the checker hears of it.
    seen: Vec<bool>,
}

impl Reader {
    /// Logs on: a filter and an initial sync.
    async fn begin(mut session: Session, room: Rc<Room>, place: usize, tally: Rc<Tally>) -> Result<Self> {
        let filter = session.timeline_filter(TIMELINE_LIMIT).await?;
        let since = SyncBody::parse(session.sync_raw(None, Some(&filter), 0).await?)?.next_batch.into_owned();
        Ok(Self { session, room, place, tally, filter, since, seen: Vec::new() })
    }

    /// Reads until it is aborted or something fails.
    async fn read(mut self) -> Result<()> {
        loop {
            let body = self.session.sync_raw(Some(&self.since), Some(&self.filter), LONG_POLL).await?;
            let arrived = Instant::now();
            let sync = SyncBody::parse(body)?;
            let since = sync.next_batch.into_owned();
            let found = Found::of(&sync.rooms, &self.room.id);
            self.take_all(found, arrived).await?;
            self.since = since;
        }
    }

    /// The same over a socket.
    async fn read_from(mut self, mut socket: Socket) -> Result<()> {
        loop {
            let body = socket.sync().await?;
            let arrived = Instant::now();
            let found = Found::of(&SyncBody::parse(body)?.rooms, &self.room.id);
            self.take_all(found, arrived).await?;
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
        let known = self.room.received[self.place].borrow().last().cloned();
        let mut missed = Vec::new();
        let mut from = Some(from.to_owned());
        'pages: while let Some(token) = from {
            let page = self.session.messages(&self.room.id, "b", Some(&token), TIMELINE_LIMIT).await?;
            for message in page.messages {
                if Some(&message.event_id) == known.as_ref() {
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
        self.room.received[self.place].borrow_mut().push(event);
        if self.seen.len() <= number {
            self.seen.resize(number + 1, false);
        }
        if !std::mem::replace(&mut self.seen[number], true)
            && let Some(sent) = self.room.arrived(number)
            && self.tally.counting.get()
        {
            self.tally.deliveries.borrow_mut().record(arrived.saturating_duration_since(sent));
        }
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
        let room = Rc::new(Room::new("!r".into(), None, 9, 1));
        let reader = Reader {
            session: Session::new(address, user),
            room: Rc::clone(&room),
            place: 3,
            tally: Rc::default(),
            filter: "f".to_owned(),
            since: "s".to_owned(),
            seen: Vec::new(),
        };
        // The script ends there, and with it the reading.
        assert!(reader.read().await.is_err());
        let received: Vec<_> = room.received[3].borrow().iter().map(ToString::to_string).collect();
        assert_eq!(received, ["$0", "$1", "$2", "$3", "$4", "$5"]);
    }

    #[tokio::test]
    async fn a_message_is_complete_when_every_reader_has_it_once() {
        let room = Room::new("!r".into(), None, 9, 1);
        room.sent.borrow_mut().extend([(Instant::now(), 2), (Instant::now(), 1)]);
        assert!(room.arrived(1).is_some() && room.arrived(0).is_some());
        assert_eq!(room.complete.get(), 0);
        assert!(room.arrived(0).is_some() && room.arrived(2).is_none());
        assert_eq!(room.complete.get(), 2);
        room.wait_until_complete(2).await.unwrap();
    }
}
