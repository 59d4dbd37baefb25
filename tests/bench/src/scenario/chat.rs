//! `chat2`, `chat10`, `chat100`: rooms of two, ten or a hundred, one of whom talks while the others wait in a long-poll: what
//! a conversation costs. `stream10`, `stream100`: the same over sockets, the talker's included.
//!
//! In step, the next message of a room is sent when the last has reached all others, so that each message is a wake-up
//! and an answer for each of them: the dearest way to deliver it, and the way people talk. Flooded, the sender waits for
//! acknowledgements only, and an answer may carry several messages. The checker knows of each reader and each message. Before all
//! that they flood rooms that nobody reads: what a delivery costs is what a message costs more than there.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{Bench, in_parallel, room_of};
use crate::client::Session;
use crate::conversation::{Reader, Room, Tally};
use crate::report::Better;
use crate::socket::Socket;

const WARM_UP: Duration = Duration::from_secs(1);

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
pub(crate) enum Talker {
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

/// Rooms of one talker each, their readers, and what is counted of all of them.
#[derive(Default)]
pub(crate) struct Chat {
    rooms: Vec<(Rc<Room>, Option<Talker>)>,
    readers: JoinSet<Result<()>>,
    tally: Rc<Tally>,
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
    let seconds = settings.duration.as_secs();
    bench.size(
        settings.name,
        format!("{} rooms of {}, {seconds} s each way", settings.rooms, settings.members),
    );
    let mut unread = Chat::default();
    let mut listeners = Vec::new();
    for (id, members) in ids.into_iter().zip(groups) {
        let mut members = members.into_iter().map(|user| Session::new(address, user));
        let talker = members.next().context("a room needs a member")?;
        let talker = match settings.wire {
            Wire::LongPoll => Talker::Requests(talker),
            Wire::Stream => Talker::Socket(Socket::open(address, &talker.user, None).await?),
        };
        listeners.push(members);
        unread.add(id, talker, std::iter::empty(), settings.wire).await?;
    }
    let label = format!("{} rooms flooded, nobody reads", settings.rooms);
    let unread_each =
        unread.phase(bench, settings.name, settings.duration, &label, settings.rooms, Pace::Flood).await?;

    let mut chat = Chat::default();
    for ((room, talker), listeners) in unread.rooms.into_iter().zip(listeners) {
        let talker = talker.context("the talker is away")?;
        chat.add(Rc::clone(&room.id), talker, listeners, settings.wire).await?;
    }
    let disk_before = bench.server.disk();
    let (sent, each) = chat.measure(bench, settings.name, settings.duration).await?;
    let delivery_each = each.zip(unread_each).map(|(each, unread)| each - unread);
    let delivery_each = delivery_each.map(|all| all * 1000.0 / (settings.members - 1) as f64);
    let label = format!("{} rooms flooded: server CPU beyond that of nobody reading", settings.rooms);
    bench.report.add(settings.name, label, "µs/delivery", Better::Lower, delivery_each);
    let disk_each = disk_before
        .zip(bench.server.disk())
        .map(|(before, after)| (after as f64 - before as f64) / sent as f64);
    bench.report.add(settings.name, "disk", "bytes/message", Better::Lower, disk_each);
    bench.add_memory(settings.name);
    Ok(())
}

impl Chat {
    /// Adds a room and lets its readers begin.
    pub(crate) async fn add(
        &mut self,
        id: Rc<str>,
        talker: Talker,
        readers: impl ExactSizeIterator<Item = Session>,
        wire: Wire,
    ) -> Result<()> {
        // Other words than those of the other scenarios' senders.
        let seed = 1_000_000 + self.rooms.len() as u64;
        let room = Rc::new(Room::new(id, 1, readers.len(), seed));
        for (place, session) in readers.enumerate() {
            let socket = match wire {
                Wire::LongPoll => None,
                Wire::Stream => Some(Socket::open(session.address(), &session.user, None).await?),
            };
            let reader = Reader::begin(session, Rc::clone(&room), place, Rc::clone(&self.tally)).await?;
            match socket {
                None => self.readers.spawn_local(reader.read()),
                Some(socket) => self.readers.spawn_local(reader.read_from(socket)),
            };
        }
        self.rooms.push((room, Some(talker)));
        Ok(())
    }

    /// One room in step, all in step, all flooded. Returns how many messages were acknowledged, and the server's CPU of one of the
    /// last phase, in milliseconds.
    pub(crate) async fn measure(
        mut self,
        bench: &mut Bench,
        name: &'static str,
        duration: Duration,
    ) -> Result<(usize, Option<f64>)> {
        let all = self.rooms.len();
        let phases = [
            ("one room".to_owned(), 1, Pace::InStep),
            (format!("{all} rooms"), all, Pace::InStep),
            (format!("{all} rooms flooded"), all, Pace::Flood),
        ];
        let mut measured = Ok(None);
        for (label, count, pace) in phases {
            measured = self.phase(bench, name, duration, &label, count, pace).await;
            if measured.is_err() {
                break;
            }
        }
        // A reader that failed explains a message that did not arrive, so it is what is reported.
        while let Some(ended) = self.readers.try_join_next() {
            ended?.context("a reader failed")?;
        }
        self.readers.shutdown().await;
        for (room, _) in &self.rooms {
            bench.report.verdict.add(&room.verdict());
        }
        Ok((self.rooms.iter().map(|(room, _)| room.acknowledged()).sum(), measured?))
    }

    /// The talkers of the first `count` rooms talk for `duration` after a warm-up; returns when every message has reached
    /// everyone. Returns the server's CPU of one, in milliseconds.
    async fn phase(
        &mut self,
        bench: &mut Bench,
        name: &'static str,
        duration: Duration,
        label: &str,
        count: usize,
        pace: Pace,
    ) -> Result<Option<f64>> {
        let tally = &self.tally;
        let mut talkers = JoinSet::new();
        tally.over.set(false);
        for (index, (room, talker)) in self.rooms[..count].iter_mut().enumerate() {
            let talker = talker.take().context("the talker is away")?;
            let talking = talk(Rc::clone(room), talker, Rc::clone(tally), pace);
            talkers.spawn_local(async move { talking.await.map(|talker| (index, talker)) });
        }
        tokio::time::sleep(WARM_UP).await;
        let window = bench.window();
        tally.counting.set(true);
        tokio::time::sleep(duration).await;
        tally.counting.set(false);
        let spent = window.close(&bench.servers());
        tally.over.set(true);
        while let Some(ended) = talkers.join_next().await {
            let (index, talker) = ended??;
            self.rooms[index].1 = Some(talker);
        }
        for (room, _) in &self.rooms[..count] {
            room.wait_until_complete(room.acknowledged(), DELIVERY_PATIENCE).await?;
        }

        let (deliveries, acknowledgements) = (tally.deliveries.take(), tally.acknowledgements.take());
        let messages = acknowledgements.count();
        let seconds = spent.elapsed.as_secs_f64();
        let mut add = |what: &str, unit: &str, better: Better, value: Option<f64>| {
            bench.report.add(name, format!("{label}: {what}"), unit, better, value);
        };
        add("messages", "/s", Better::Higher, Some(messages as f64 / seconds));
        let delivered = (deliveries.count() > 0).then(|| deliveries.count() as f64 / seconds);
        add("deliveries", "/s", Better::Higher, delivered);
        add("delivery p50", "ms", Better::Lower, deliveries.percentile(50));
        add("delivery p99", "ms", Better::Lower, deliveries.percentile(99));
        add("acknowledgement p50", "ms", Better::Lower, acknowledgements.percentile(50));
        add("acknowledgement p99", "ms", Better::Lower, acknowledgements.percentile(99));
        let each = spent.server_each(messages);
        add("server CPU", "ms/message", Better::Lower, each);
        add("limited timelines", "", Better::Context, Some(f64::from(tally.gaps.take())));
        add("load generator's CPU", "ms/message", Better::Context, spent.load_each(messages));
        Ok(each)
    }
}

async fn talk(room: Rc<Room>, mut talker: Talker, tally: Rc<Tally>, pace: Pace) -> Result<Talker> {
    while !tally.over.get() {
        let began = Instant::now();
        let (number, content) = room.begin(0, began);
        let event = talker.send(&room.id, &content).await?;
        tally.acknowledged(began);
        room.acknowledge(0, &event);
        if pace == Pace::InStep {
            room.wait_until_complete(number + 1, DELIVERY_PATIENCE).await?;
        }
    }
    Ok(talker)
}
