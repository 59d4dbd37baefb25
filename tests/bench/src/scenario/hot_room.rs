//! `hot-room`: one room in which everybody talks at once, and other rooms beside it in which people have a conversation:
//! how much one room takes, and how much later the others' messages arrive than in the calm before.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{Bench, in_parallel, room_of};
use crate::client::{Session, User};
use crate::conversation::{Reader, Room, Tally};
use crate::pace::Pace;
use crate::report::Better;

const NAME: &str = "hot-room";

/// Conversations beside the hot room, and how often somebody says something in each.
const PAIRS: usize = 8;
const BETWEEN_MESSAGES: Duration = Duration::from_millis(500);

const WARM_UP: Duration = Duration::from_secs(1);
const DELIVERY_PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Settings {
    /// Members who send as soon as their last message is acknowledged.
    pub(crate) senders: usize,
    /// Members who read.
    pub(crate) readers: usize,
    pub(crate) duration: Duration,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let (beside, hot) = (Rc::new(Tally::default()), Rc::new(Tally::default()));
    let mut readers = JoinSet::new();

    let mut conversations = Vec::new();
    let people = bench.users(2 * PAIRS).await?;
    let pairs: Vec<_> = people.chunks(2).map(<[_]>::to_vec).collect();
    let ids = in_parallel(pairs.clone(), move |pair| room_of(address, pair)).await?;
    for (seed, (id, pair)) in ids.into_iter().zip(pairs).enumerate() {
        let room = Rc::new(Room::new(id, 1, 1, 4_000_000 + seed as u64));
        let listener = Session::new(address, pair[1].clone());
        let reader = Reader::begin(listener, Rc::clone(&room), 0, Rc::clone(&beside)).await?;
        readers.spawn_local(reader.read());
        conversations.push((room, pair[0].clone()));
    }
    let mut members = bench.users(settings.senders + settings.readers).await?;
    let id = in_parallel(vec![members.clone()], move |members| room_of(address, members)).await?;
    let id = id.into_iter().next().context("the room was made")?;
    let room = Rc::new(Room::new(id, settings.senders, settings.readers, 5_000_000));
    for (place, user) in members.split_off(settings.senders).into_iter().enumerate() {
        let session = Session::new(address, user);
        let reader = Reader::begin(session, Rc::clone(&room), place, Rc::clone(&hot)).await?;
        readers.spawn_local(reader.read());
    }
    let seconds = settings.duration.as_secs();
    bench.size(
        NAME,
        format!(
            "{} senders and {} readers in one room, {PAIRS} pairs beside it, {seconds} s each",
            settings.senders, settings.readers
        ),
    );

    let measured = measure(bench, settings, &conversations, &room, members, &beside, &hot).await;
    while let Some(ended) = readers.try_join_next() {
        ended?.context("a reader failed")?;
    }
    readers.shutdown().await;
    for (room, _) in &conversations {
        bench.report.verdict.add(&room.verdict());
    }
    bench.report.verdict.add(&room.verdict());
    bench.report.verdict.reordered += room.disagreements(settings.readers);
    measured?;
    bench.add_memory(NAME);
    Ok(())
}

async fn measure(
    bench: &mut Bench,
    settings: &Settings,
    conversations: &[(Rc<Room>, User)],
    room: &Rc<Room>,
    senders: Vec<User>,
    beside: &Rc<Tally>,
    hot: &Rc<Tally>,
) -> Result<()> {
    let address = bench.address();
    let mut talkers = JoinSet::new();
    let begin = Instant::now();
    for (index, (room, user)) in conversations.iter().enumerate() {
        let pace = Pace::new(begin, BETWEEN_MESSAGES, index, conversations.len());
        let session = Session::new(address, user.clone());
        talkers.spawn_local(talk(session, Rc::clone(room), 0, Rc::clone(beside), Some(pace)));
    }
    tokio::time::sleep(WARM_UP).await;
    beside.counting.set(true);
    tokio::time::sleep(settings.duration).await;
    beside.counting.set(false);
    let (calm, calm_acknowledgements) = (beside.deliveries.take(), beside.acknowledgements.take());

    for (sender, user) in senders.into_iter().enumerate() {
        let session = Session::new(address, user);
        talkers.spawn_local(talk(session, Rc::clone(room), sender, Rc::clone(hot), None));
    }
    tokio::time::sleep(WARM_UP).await;
    let window = bench.window();
    beside.counting.set(true);
    hot.counting.set(true);
    tokio::time::sleep(settings.duration).await;
    beside.counting.set(false);
    hot.counting.set(false);
    let spent = window.close(&bench.servers());
    beside.over.set(true);
    hot.over.set(true);
    while let Some(ended) = talkers.join_next().await {
        ended??;
    }
    for room in conversations.iter().map(|(room, _)| room).chain([room]) {
        room.wait_until_complete(room.acknowledged(), DELIVERY_PATIENCE).await?;
    }

    let (storm, storm_acknowledgements) = (beside.deliveries.take(), beside.acknowledgements.take());
    let (deliveries, acknowledgements) = (hot.deliveries.take(), hot.acknowledgements.take());
    let seconds = spent.elapsed.as_secs_f64();
    let messages = acknowledgements.count();
    let mut add = |label: &str, unit: &str, better: Better, value: Option<f64>| {
        bench.report.add(NAME, label, unit, better, value);
    };
    add("messages", "/s", Better::Higher, Some(messages as f64 / seconds));
    add("acknowledgement p50", "ms", Better::Lower, acknowledgements.percentile(50));
    add("acknowledgement p99", "ms", Better::Lower, acknowledgements.percentile(99));
    add("delivery p50", "ms", Better::Lower, deliveries.percentile(50));
    add("delivery p99", "ms", Better::Lower, deliveries.percentile(99));
    let all = messages + storm_acknowledgements.count();
    add("server CPU", "ms/message", Better::Lower, spent.server_each(all));
    add("limited timelines", "", Better::Context, Some(f64::from(hot.gaps.take())));
    add(
        "other rooms in the calm: acknowledgement p50",
        "ms",
        Better::Lower,
        calm_acknowledgements.percentile(50),
    );
    add("other rooms in the calm: delivery p50", "ms", Better::Lower, calm.percentile(50));
    add("other rooms in the calm: delivery p99", "ms", Better::Lower, calm.percentile(99));
    add(
        "other rooms beside it: acknowledgement p50",
        "ms",
        Better::Lower,
        storm_acknowledgements.percentile(50),
    );
    add("other rooms beside it: delivery p50", "ms", Better::Lower, storm.percentile(50));
    add("other rooms beside it: delivery p99", "ms", Better::Lower, storm.percentile(99));
    Ok(())
}

/// Sends until it is over: at a pace, or as soon as the last message is acknowledged.
async fn talk(
    mut session: Session,
    room: Rc<Room>,
    sender: usize,
    tally: Rc<Tally>,
    mut pace: Option<Pace>,
) -> Result<()> {
    loop {
        let began = match &mut pace {
            Some(pace) => pace.due().await,
            None => Instant::now(),
        };
        if tally.over.get() {
            return Ok(());
        }
        let (_, content) = room.begin(sender, began);
        let event = session.send(&room.id, &content).await?;
        tally.acknowledged(began);
        room.acknowledge(sender, &event);
    }
}
