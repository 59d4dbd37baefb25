//! `send`: many senders at once, nobody reading: what it costs to accept a message durably.
//!
//! First as fast as acknowledgements come (each sender waits for its own), then paced at half of that rate, where the
//! time to an acknowledgement means something. Afterwards two members page through every room, one from each end: every
//! acknowledged event must be there once, each sender's in the order of sending, and both must see the same order.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use super::{Bench, in_parallel, room_of};
use crate::checker::{Verdict, compare};
use crate::client::{Session, User};
use crate::content;
use crate::latency::Latencies;
use crate::pace::Pace;
use crate::report::Better;

const NAME: &str = "send";

/// Time for a server to reach its pace before anything is counted.
const WARM_UP: Duration = Duration::from_secs(1);

/// Events a page when the rooms are read back.
const PAGE: u32 = 500;

pub(crate) struct Settings {
    pub(crate) senders: usize,
    pub(crate) rooms: usize,
    pub(crate) duration: Duration,
}

/// A virtual user who sends, with every id that was acknowledged to it.
struct Sender {
    session: Session,
    seed: u64,
    room: Rc<str>,
    acknowledged: Vec<Box<str>>,
}

/// What the senders of a phase have in common.
#[derive(Default)]
struct Phase {
    /// Whether acknowledgements count now: not while warming up.
    counting: Cell<bool>,
    over: Cell<bool>,
    latencies: RefCell<Latencies>,
}

struct Outcome {
    senders: Vec<Sender>,
    rate: f64,
    latencies: Latencies,
    server_cpu: Option<f64>,
    load_cpu: Option<f64>,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let users = bench.users(settings.senders).await?;
    let room_count = settings.rooms.clamp(1, settings.senders);
    let members = |room| users.iter().skip(room).step_by(room_count).cloned().collect::<Vec<_>>();
    let rooms =
        in_parallel((0..room_count).map(members).collect(), move |members| room_of(address, members)).await?;
    let senders = users.iter().enumerate().map(|(index, user)| Sender {
        session: Session::new(address, user.clone()),
        seed: index as u64,
        room: Rc::clone(&rooms[index % room_count]),
        acknowledged: Vec::new(),
    });

    let seconds = settings.duration.as_secs();
    bench.size(NAME, format!("{} senders in {room_count} rooms, {seconds} s each way", settings.senders));
    let disk_before = bench.server.disk();
    let top = phase(bench, senders.collect(), settings.duration, None).await?;
    let half = phase(bench, top.senders, settings.duration, Some(top.rate / 2.0)).await?;
    let mut senders = half.senders;
    let sent: u64 = senders.iter().map(|sender| sender.acknowledged.len() as u64).sum();
    let disk_each = disk_before
        .zip(bench.server.disk())
        .map(|(before, after)| (after as f64 - before as f64) / sent as f64);

    let report = &mut bench.report;
    report.add(NAME, "top rate", "sends/s", Better::Higher, top.rate);
    report.add(
        NAME,
        "acknowledgement p50 at the top rate",
        "ms",
        Better::Lower,
        top.latencies.percentile(50),
    );
    report.add(
        NAME,
        "acknowledgement p99 at the top rate",
        "ms",
        Better::Lower,
        top.latencies.percentile(99),
    );
    report.add(NAME, "server CPU at the top rate", "ms/message", Better::Lower, top.server_cpu);
    report.add(NAME, "load generator's CPU", "ms/message", Better::Context, top.load_cpu);
    report.add(NAME, "paced rate", "sends/s", Better::Context, half.rate);
    report.add(
        NAME,
        "acknowledgement p50 at half the top rate",
        "ms",
        Better::Lower,
        half.latencies.percentile(50),
    );
    report.add(
        NAME,
        "acknowledgement p99 at half the top rate",
        "ms",
        Better::Lower,
        half.latencies.percentile(99),
    );
    report.add(NAME, "server CPU at half the top rate", "ms/message", Better::Lower, half.server_cpu);
    report.add(NAME, "disk", "bytes/message", Better::Lower, disk_each);

    let mut verdict = Verdict::default();
    for sender in &mut senders {
        // As when the answer was lost on the way: the same transaction must be the same event.
        let Some(last) = sender.acknowledged.last() else { continue };
        let content = content::message(sender.seed, sender.acknowledged.len() - 1);
        if sender.session.send_again(&sender.room, &content).await? != *last {
            verdict.forked_transactions += 1;
        }
    }
    for room in &rooms {
        let members: Vec<_> = senders.iter().filter(|sender| sender.room == *room).collect();
        verdict.add(&read_back(address, room, &members).await?);
    }
    bench.report.verdict.add(&verdict);
    bench.add_memory(NAME);
    Ok(())
}

/// All senders send for `duration` after a warm-up: each as soon as it has its acknowledgement, or all together at `rate` a second.
async fn phase(
    bench: &Bench,
    senders: Vec<Sender>,
    duration: Duration,
    rate: Option<f64>,
) -> Result<Outcome> {
    let phase = Rc::new(Phase::default());
    let interval = rate.map(|rate| Duration::from_secs_f64(senders.len() as f64 / rate));
    let begin = Instant::now() + Duration::from_millis(10);
    let mut tasks = JoinSet::new();
    let count = senders.len();
    for (index, sender) in senders.into_iter().enumerate() {
        let phase = Rc::clone(&phase);
        let pace = interval.map(|interval| Pace::new(begin, interval, index, count));
        tasks.spawn_local(send_until_over(sender, phase, pace));
    }
    tokio::time::sleep(WARM_UP).await;
    let window = bench.window();
    phase.counting.set(true);
    tokio::time::sleep(duration).await;
    phase.counting.set(false);
    let spent = window.close(&bench.servers());
    phase.over.set(true);
    let mut senders = Vec::new();
    while let Some(sender) = tasks.join_next().await {
        senders.push(sender??);
    }
    let latencies = phase.latencies.take();
    let counted = latencies.count();
    ensure!(counted > 0, "not one message was acknowledged in {} s", duration.as_secs());
    Ok(Outcome {
        senders,
        rate: counted as f64 / spent.elapsed.as_secs_f64(),
        latencies,
        server_cpu: spent.server_each(counted),
        load_cpu: spent.load_each(counted),
    })
}

async fn send_until_over(mut sender: Sender, phase: Rc<Phase>, mut pace: Option<Pace>) -> Result<Sender> {
    while !phase.over.get() {
        let content = content::message(sender.seed, sender.acknowledged.len());
        let began = match &mut pace {
            Some(pace) => pace.due().await,
            None => Instant::now(),
        };
        if phase.over.get() {
            break;
        }
        let event = sender.session.send(&sender.room, &content).await?;
        if phase.counting.get() {
            phase.latencies.borrow_mut().record(began.elapsed());
        }
        sender.acknowledged.push(event);
    }
    Ok(sender)
}

/// Pages through `room` from both ends and compares with what was acknowledged.
async fn read_back(address: SocketAddr, room: &str, senders: &[&Sender]) -> Result<Verdict> {
    let (Some(first), Some(last)) = (senders.first(), senders.last()) else { return Ok(Verdict::default()) };
    let forwards = all_messages(address, &first.session.user, room, "f").await?;
    let mut backwards = all_messages(address, &last.session.user, room, "b").await?;
    backwards.reverse();

    let mut verdict = Verdict::default();
    let mut by_sender: HashMap<&str, Vec<&str>> = HashMap::new();
    for (event, sender) in &forwards {
        by_sender.entry(sender).or_default().push(event);
    }
    for sender in senders {
        let received = by_sender.remove(&*sender.session.user.id).unwrap_or_default();
        verdict.add(&compare(sender.acknowledged.iter().map(|id| &**id), received));
    }
    // One order for all: what one reader saw is what is due to the other.
    verdict.add(&compare(
        forwards.iter().map(|(event, _)| &**event),
        backwards.iter().map(|(event, _)| &**event),
    ));
    Ok(verdict)
}

/// Event id and sender of every message of `room`, in the order of `direction`.
async fn all_messages(
    address: SocketAddr,
    user: &User,
    room: &str,
    direction: &str,
) -> Result<Vec<(Box<str>, Box<str>)>> {
    let mut session = Session::new(address, user.clone());
    let mut found = Vec::new();
    let mut from: Option<String> = None;
    loop {
        let page = session.messages(room, direction, from.as_deref(), PAGE).await?;
        found.extend(page.messages.into_iter().map(|event| (event.event_id, event.sender)));
        match page.end {
            // A token that leads to itself is the end of a room that is still live.
            Some(end) if from.as_deref() != Some(&end) => from = Some(end),
            _ => return Ok(found),
        }
    }
}
