//! `sync-rooms`: what a sync costs a member of few rooms and a member of many.
//!
//! For each number of rooms, one member alone in most of them: the initial sync, then empty incremental syncs, then
//! syncs that bring one message, each chained from the last. The CPU of the latter is taken from asking again for the same
//! message by the same token, as a client does that lost the answer, so that no send is counted with it.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::{Bench, in_parallel, mebibytes};
use crate::checker::compare;
use crate::client::{Session, User};
use crate::content;
use crate::latency::Latencies;
use crate::report::Better;
use crate::sync::SyncBody;

const NAME: &str = "sync-rooms";
const INITIAL_SYNCS: usize = 3;

/// Between work that a server may finish in the background and the clock.
pub(super) const SETTLING: Duration = Duration::from_secs(2);

/// Rooms that somebody else talks in.
pub(super) const TALKED_IN: usize = 10;

pub(crate) struct Settings {
    pub(crate) counts: Vec<usize>,
    pub(crate) duration: Duration,
}

impl Settings {
    /// The numbers of rooms, as people write them.
    pub(super) fn sizes(&self) -> String {
        let counts: Vec<_> = self.counts.iter().map(usize::to_string).collect();
        match counts.split_last() {
            Some((last, others)) if !others.is_empty() => format!("{} and {last}", others.join(", ")),
            _ => counts.concat(),
        }
    }
}

/// What one number of rooms came to, as far as it is compared with the others.
struct Costs {
    empty_p50: Option<f64>,
    empty_cpu: Option<f64>,
    message_p50: Option<f64>,
    message_cpu: Option<f64>,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    bench.size(NAME, format!("{} rooms", settings.sizes()));
    let mut all = Vec::new();
    for (index, count) in settings.counts.iter().enumerate() {
        all.push(member_of(bench, *count, settings.duration, 2_000_000 + index as u64).await?);
    }
    let ((Some(few), Some(many)), (Some(fewest), Some(most))) =
        ((settings.counts.first(), settings.counts.last()), (all.first(), all.last()))
    else {
        return Ok(());
    };
    if few == many {
        return Ok(());
    }
    let ratios = [
        ("empty sync p50", most.empty_p50.zip(fewest.empty_p50)),
        ("empty sync CPU", most.empty_cpu.zip(fewest.empty_cpu)),
        ("one-message sync p50", most.message_p50.zip(fewest.message_p50)),
        ("one-message sync CPU", most.message_cpu.zip(fewest.message_cpu)),
    ];
    for (what, values) in ratios {
        let ratio = values.map(|(most, fewest)| most / fewest).filter(|ratio| ratio.is_finite());
        bench.report.add(NAME, format!("{what}, {many} rooms to {few}"), "×", Better::Lower, ratio);
    }
    bench.add_memory(NAME);
    Ok(())
}

async fn member_of(bench: &mut Bench, count: usize, duration: Duration, seed: u64) -> Result<Costs> {
    let address = bench.address();
    let mut users = bench.users(2).await?;
    let (talker, member) = users.pop().zip(users.pop()).context("two users were made")?;
    let rooms = make_rooms(bench, &member, &talker, count).await?;
    let mut talker = Session::new(address, talker);
    let mut session = Session::new(address, member);

    let mut initial = Latencies::default();
    let mut size = 0;
    let mut since = String::new();
    for _ in 0..INITIAL_SYNCS {
        let began = Instant::now();
        let body = session.sync_raw(None, None, 0).await?;
        initial.record(began.elapsed());
        size = body.len();
        let sync = SyncBody::parse(body)?;
        let found = sync.rooms.join.len();
        ensure!(found == count, "the initial sync of a member of {count} rooms has {found}");
        since = sync.next_batch.into_owned();
    }

    let mut empty = Latencies::default();
    // The first after an initial sync may have something left to say.
    since = session.sync_token(Some(&since)).await?;
    tokio::time::sleep(SETTLING).await;
    let (window, end) = (bench.window(), Instant::now() + duration);
    while Instant::now() < end {
        let began = Instant::now();
        let body = session.sync_raw(Some(&since), None, 0).await?;
        empty.record(began.elapsed());
        since = SyncBody::parse(body)?.next_batch.into_owned();
    }
    let empty_cpu = window.close(&bench.servers()).server_each(empty.count());

    let mut message = Latencies::default();
    let (mut acknowledged, mut received) = (Vec::new(), Vec::new());
    let mut before_last = since.clone();
    let end = Instant::now() + duration;
    while Instant::now() < end {
        let room = &rooms[acknowledged.len() % rooms.len().min(TALKED_IN)];
        let content = content::message(seed, acknowledged.len());
        acknowledged.push(talker.send(room, &content).await?);
        before_last.clone_from(&since);
        // An acknowledged message is due at once, but a server may need a moment: what it needs is counted.
        let began = Instant::now();
        let due = received.len() + 1;
        while received.len() < due {
            ensure!(began.elapsed() < Duration::from_secs(30), "a message was not delivered within 30 s");
            let sync = SyncBody::parse(session.sync_raw(Some(&since), None, 0).await?)?;
            let events = sync.rooms.join.values().flat_map(|room| &room.timeline.events);
            let numbered = events.filter(|event| event.number().is_some());
            received.extend(numbered.map(|event| Box::<str>::from(&*event.id)));
            since = sync.next_batch.into_owned();
        }
        message.record(began.elapsed());
    }
    let verdict = compare(acknowledged.iter().map(|id| &**id), received.iter().map(|id| &**id));
    bench.report.verdict.add(&verdict);

    // What the server still has to tidy after all those messages is theirs, not the syncs'.
    tokio::time::sleep(SETTLING).await;
    let (window, end, mut repeats) = (bench.window(), Instant::now() + duration, 0);
    while Instant::now() < end {
        session.sync_raw(Some(&before_last), None, 0).await?;
        repeats += 1;
    }
    let message_cpu = window.close(&bench.servers()).server_each(repeats);

    let costs = Costs {
        empty_p50: empty.percentile(50),
        empty_cpu,
        message_p50: message.percentile(50),
        message_cpu,
    };
    let size = Some(mebibytes(size as u64));
    bench.report.add(NAME, format!("initial sync's size, {count} rooms"), "MiB", Better::Context, size);
    let mut add = |what: &str, unit: &str, value: Option<f64>| {
        bench.report.add(NAME, format!("{what}, {count} rooms"), unit, Better::Lower, value);
    };
    add("initial sync (median of 3)", "ms", initial.percentile(50));
    add("initial sync (slowest of 3)", "ms", initial.percentile(100));
    add("empty sync p50", "ms", costs.empty_p50);
    add("empty sync p99", "ms", empty.percentile(99));
    add("empty sync CPU", "ms/sync", costs.empty_cpu);
    add("one-message sync p50", "ms", costs.message_p50);
    add("one-message sync p99", "ms", message.percentile(99));
    add("one-message sync CPU", "ms/sync", costs.message_cpu);
    Ok(costs)
}

/// `count` rooms of `member`, in the first of which `talker` is too.
pub(super) async fn make_rooms(
    bench: &Bench,
    member: &User,
    talker: &User,
    count: usize,
) -> Result<Vec<Rc<str>>> {
    let address = bench.address();
    let (member, talker) = (member.clone(), talker.clone());
    in_parallel((0..count).collect(), move |index| {
        let (member, talker) = (member.clone(), talker.clone());
        async move {
            let room = Session::new(address, member).create_room(&format!("Bench {index}")).await?;
            if index < TALKED_IN {
                Session::new(address, talker).join(&room).await?;
            }
            Ok(room)
        }
    })
    .await
}
