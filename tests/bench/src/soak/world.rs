//! The people of a soak: rooms of one server and rooms of both, those who talk in them and those who read, and visitors who
//! look around and vanish. All of them go on through whatever happens to their server, as a client must: a send that
//! failed is tried again under its transaction id, a sync from its position.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::client::{Session, User};
use crate::conversation::{Reader, Room, Tally};
use crate::pace::Pace;
use crate::scenario::{Bench, in_parallel, room_of};
use crate::socket::Socket;

/// After which somebody tries again what failed.
const AGAIN: Duration = Duration::from_millis(250);

/// Overdue by more than this, a sender goes on with what is due now: people don't type faster because a server was away.
const OVERDUE: Duration = Duration::from_secs(1);

const BETWEEN_RECEIPTS: Duration = Duration::from_secs(10);

/// How many rooms there are of each kind.
pub(crate) struct Plan {
    /// Rooms of ten of the first server.
    pub(crate) local: usize,
    /// The same of the second.
    pub(crate) local_there: usize,
    /// Rooms of both: of each server somebody who talks and two who read.
    pub(crate) shared: usize,
    /// People of the first server who look around and vanish.
    pub(crate) visitors: usize,
    /// Whether a third of the readers are on sockets of Hearth's stream.
    pub(crate) stream: bool,
}

const LOCAL_MEMBERS: usize = 10;

/// Whose figures are told apart.
#[derive(Default)]
pub(crate) struct Tallies {
    /// Of the first server's own rooms.
    pub(crate) local: Rc<Tally>,
    /// Of the second server's.
    pub(crate) local_there: Rc<Tally>,
    /// Of rooms of both.
    pub(crate) shared: Rc<Tally>,
}

struct Talker {
    user: User,
    address: SocketAddr,
    room: Rc<Room>,
    sender: usize,
    tally: Rc<Tally>,
}

struct Listener {
    reader: Reader,
    room: Rc<Room>,
    on_socket: bool,
}

pub(crate) struct World {
    pub(crate) tallies: Tallies,
    rooms: Vec<(Rc<Room>, usize)>,
    talkers: Vec<Talker>,
    tasks: JoinSet<()>,
    weather: Rc<Weather>,
}

/// What everybody has to know.
#[derive(Default)]
pub(crate) struct Weather {
    /// Seconds for which readers are to be away, when [`Self::vanish`] wakes them.
    away: Cell<Duration>,
    vanish: Notify,
    over: Cell<bool>,
    /// Requests that failed and were tried again.
    pub(crate) failures: Cell<u64>,
    /// Why the last one did.
    pub(crate) last_failure: RefCell<String>,
}

impl Weather {
    fn failed(&self, error: &anyhow::Error) {
        self.failures.set(self.failures.get() + 1);
        *self.last_failure.borrow_mut() = format!("{error:#}");
    }
}

impl World {
    /// Makes accounts and rooms, and lets the readers begin.
    pub(crate) async fn make(bench: &mut Bench, plan: &Plan) -> Result<Self> {
        let here = bench.address();
        let there = bench.peer.as_ref().context("a soak needs two servers")?.address;
        let mut world = Self {
            tallies: Tallies::default(),
            rooms: Vec::new(),
            talkers: Vec::new(),
            tasks: JoinSet::new(),
            weather: Rc::default(),
        };
        let mut listeners = Vec::new();
        for (address, count) in [(here, plan.local), (there, plan.local_there)] {
            let tally = if address == here { &world.tallies.local } else { &world.tallies.local_there };
            let tally = Rc::clone(tally);
            let users = bench.users_at(address, count * LOCAL_MEMBERS).await?;
            let groups: Vec<_> = users.chunks(LOCAL_MEMBERS).map(<[_]>::to_vec).collect();
            let ids = in_parallel(groups.clone(), move |members| room_of(address, members)).await?;
            for (id, mut members) in ids.into_iter().zip(groups) {
                let readers = members.split_off(1).into_iter().map(|user| (address, user)).collect();
                let talkers = members.into_iter().map(|user| (address, user)).collect();
                listeners
                    .extend(world.add(id, talkers, readers, LOCAL_MEMBERS - 1, &tally, plan.stream).await?);
            }
        }
        let tally = Rc::clone(&world.tallies.shared);
        for _ in 0..plan.shared {
            let mut ours = bench.users_at(here, 3).await?;
            let mut theirs = bench.users_at(there, 3).await?;
            let id = room_of(here, ours.clone()).await?;
            let via = ours[0].server_name().context("a user id without a server")?.to_owned();
            for user in &theirs {
                Session::new(there, user.clone()).join_by_way_of(&id, &via).await?;
            }
            let talkers = vec![(here, ours.remove(0)), (there, theirs.remove(0))];
            let readers = ours.into_iter().map(|user| (here, user));
            let readers = readers.chain(theirs.into_iter().map(|user| (there, user))).collect();
            listeners.extend(world.add(id, talkers, readers, 2, &tally, plan.stream).await?);
        }
        for listener in listeners {
            world.tasks.spawn_local(listen(listener, Rc::clone(&world.weather)));
        }
        let visitors = bench.users(plan.visitors).await?;
        for (index, user) in visitors.into_iter().enumerate() {
            let room = Rc::clone(&world.rooms[index % plan.local.max(1)].0);
            Session::new(here, user.clone()).join(&room.id).await?;
            world.tasks.spawn_local(visit(here, user, room, Rc::clone(&world.weather)));
        }
        Ok(world)
    }

    /// A room and those in it; `here` readers come first, and are of one server, as are the rest.
    async fn add(
        &mut self,
        id: Rc<str>,
        talkers: Vec<(SocketAddr, User)>,
        readers: Vec<(SocketAddr, User)>,
        here: usize,
        tally: &Rc<Tally>,
        stream: bool,
    ) -> Result<Vec<Listener>> {
        let seed = 6_000_000 + self.rooms.len() as u64;
        let room = Rc::new(Room::new(id, talkers.len(), readers.len(), seed));
        for (sender, (address, user)) in talkers.into_iter().enumerate() {
            let (room, tally) = (Rc::clone(&room), Rc::clone(tally));
            self.talkers.push(Talker { user, address, room, sender, tally });
        }
        let mut listeners = Vec::new();
        for (place, (address, user)) in readers.into_iter().enumerate() {
            let session = Session::new(address, user);
            let reader = Reader::begin(session, Rc::clone(&room), place, Rc::clone(tally)).await?;
            let on_socket = stream && place % 3 == 2;
            listeners.push(Listener { reader, room: Rc::clone(&room), on_socket });
        }
        self.rooms.push((room, here));
        Ok(listeners)
    }

    pub(crate) fn weather(&self) -> Rc<Weather> {
        Rc::clone(&self.weather)
    }

    pub(crate) fn talkers(&self) -> usize {
        self.talkers.len()
    }

    /// Everybody talks for `duration`: `rate` messages a second of all together, or each as soon as the last is acknowledged.
    pub(crate) fn talk(&self, duration: Duration, rate: Option<f64>) -> JoinSet<()> {
        let begin = Instant::now();
        let count = self.talkers.len();
        let interval = rate.map(|rate| Duration::from_secs_f64(count as f64 / rate));
        let mut talking = JoinSet::new();
        for (index, talker) in self.talkers.iter().enumerate() {
            let session = Session::new(talker.address, talker.user.clone());
            let pace = interval.map(|interval| Pace::new(begin, interval, index, count));
            let (room, tally) = (Rc::clone(&talker.room), Rc::clone(&talker.tally));
            let (sender, weather) = (talker.sender, Rc::clone(&self.weather));
            talking.spawn_local(async move {
                talk(session, room, sender, tally, pace, begin + duration, weather).await;
            });
        }
        talking
    }

    pub(crate) fn acknowledged(&self) -> usize {
        self.rooms.iter().map(|(room, _)| room.acknowledged()).sum()
    }

    /// Messages that were acknowledged and have not reached everyone yet.
    pub(crate) fn on_the_way(&self) -> usize {
        self.rooms.iter().map(|(room, _)| room.acknowledged().saturating_sub(room.complete())).sum()
    }

    /// Waits until every message has reached everyone.
    pub(crate) async fn settle(&self, patience: Duration) -> Result<()> {
        for (room, _) in &self.rooms {
            room.wait_until_complete(room.acknowledged(), patience).await?;
        }
        Ok(())
    }

    /// Ends the readers, and gives the verdict.
    pub(crate) async fn finish(mut self) -> crate::checker::Verdict {
        self.weather.over.set(true);
        self.tasks.shutdown().await;
        let mut verdict = crate::checker::Verdict::default();
        for (room, here) in &self.rooms {
            verdict.add(&room.verdict());
            verdict.reordered += room.disagreements(*here);
        }
        verdict
    }
}

impl Weather {
    /// Every third reader hangs up, and comes back after `away`.
    pub(crate) fn readers_vanish(&self, away: Duration) {
        self.away.set(away);
        self.vanish.notify_waiters();
    }
}

async fn talk(
    mut session: Session,
    room: Rc<Room>,
    sender: usize,
    tally: Rc<Tally>,
    mut pace: Option<Pace>,
    end: Instant,
    weather: Rc<Weather>,
) {
    let mut typed = Instant::now();
    let mut since: Option<String> = None;
    loop {
        let began = match &mut pace {
            Some(pace) => pace.due().await,
            None => Instant::now(),
        };
        if Instant::now() >= end {
            return;
        }
        let (number, content) = room.begin(sender, began);
        let event = loop {
            match session.send_as(&room.id, &content, number as u64).await {
                Ok(event) => break event,
                Err(error) => weather.failed(&error),
            }
            tokio::time::sleep(AGAIN).await;
        };
        tally.acknowledged(began);
        room.acknowledge(sender, &event);
        if began.elapsed() > OVERDUE
            && let Some(pace) = &mut pace
        {
            pace.catch_up();
        }
        // Somebody who talks reads, too, up to their own message, and types.
        if pace.is_some() && typed.elapsed() > BETWEEN_RECEIPTS {
            typed = Instant::now();
            match session.sync_token(since.as_deref()).await {
                Ok(next) => since = Some(next),
                Err(error) => weather.failed(&error),
            }
            for done in
                [session.receipt(&room.id, &event).await, session.typing(&room.id, number % 2 == 0).await]
            {
                if let Err(error) = done {
                    weather.failed(&error);
                }
            }
        }
    }
}

/// Reads for ever; says now and then how far; hangs up when it is time to vanish, if it is one of those who do.
async fn listen(listener: Listener, weather: Rc<Weather>) {
    let Listener { mut reader, room, on_socket } = listener;
    let vanishes = reader.place().is_multiple_of(3);
    let mut receipts = Session::new(reader.session.address(), reader.session.user.clone());
    let mut told = Instant::now();
    let mut socket = None;
    loop {
        let outcome = tokio::select! {
            outcome = step(&mut reader, on_socket, &mut socket) => outcome,
            () = weather.vanish.notified(), if vanishes => {
                socket = None;
                reader.session.hang_up();
                tokio::time::sleep(weather.away.get()).await;
                Ok(())
            }
        };
        if let Err(error) = outcome {
            weather.failed(&error);
            socket = None;
            tokio::time::sleep(AGAIN).await;
        }
        if told.elapsed() > BETWEEN_RECEIPTS
            && let Some(event) = reader.last()
        {
            told = Instant::now();
            if let Err(error) = receipts.receipt(&room.id, event).await {
                weather.failed(&error);
            }
        }
    }
}

async fn step(reader: &mut Reader, on_socket: bool, socket: &mut Option<Socket>) -> Result<()> {
    if !on_socket {
        return reader.step().await;
    }
    let open = if let Some(open) = socket {
        open
    } else {
        let (address, user) = (reader.session.address(), &reader.session.user);
        socket.insert(Socket::open(address, user, Some(&reader.since)).await?)
    };
    reader.step_from(open).await
}

/// Comes with nothing, looks around, waits in a long-poll and vanishes in the middle of it; again and again.
async fn visit(address: SocketAddr, user: User, room: Rc<Room>, weather: Rc<Weather>) {
    let mut round: u64 = 0;
    while !weather.over.get() {
        round += 1;
        let mut session = Session::new(address, user.clone());
        let looked = look_around(&mut session, &room, round).await;
        if let Err(error) = looked {
            weather.failed(&error);
        }
        drop(session);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn look_around(session: &mut Session, room: &Room, round: u64) -> Result<()> {
    // The last round may have ended between the leave and the join; otherwise this changes nothing.
    session.join(&room.id).await?;
    let mut since = session.sync_token(None).await?;
    session.messages(&room.id, "b", None, 100).await?;
    if round.is_multiple_of(5) {
        session.leave(&room.id).await?;
        session.join(&room.id).await?;
    }
    // A third long-poll is never answered: the client has gone.
    for _ in 0..2 {
        since = session.sync_token(Some(&since)).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let waiting = session.sync_raw(Some(&since), None, 30_000);
    let _ = tokio::time::timeout(Duration::from_millis(20 * (round % 7)), waiting).await;
    Ok(())
}
