//! `presence-storm`: people talk in pairs while thousands in other rooms go online and offline within a minute: how much
//! later their messages arrive than in the calm before.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{Bench, in_parallel, room_of};
use crate::client::{Session, User};
use crate::content;
use crate::latency::Latencies;
use crate::report::Better;
use crate::socket::Socket;
use crate::sync::SyncBody;

const NAME: &str = "presence-storm";
const CROWD: usize = 100;
const PAIRS: usize = 8;
/// Between two messages of a pair: a conversation, so that what waits, waits for the storm.
const PACE: Duration = Duration::from_millis(25);
const CALM: Duration = Duration::from_secs(20);
const STORM: Duration = Duration::from_mins(1);

pub(crate) struct Settings {
    /// Who comes and goes, in rooms of a hundred.
    pub(crate) users: usize,
}

#[derive(Default)]
struct Talk {
    latencies: RefCell<Latencies>,
    over: Cell<bool>,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let crowd = bench.users(settings.users).await?;
    let groups: Vec<_> = crowd.chunks(CROWD).map(<[_]>::to_vec).collect();
    in_parallel(groups, move |members| room_of(address, members)).await?;
    let sessions = crowd.into_iter().map(|user| Session::new(address, user)).collect();
    let crowd = in_parallel(sessions, |mut session: Session| async move {
        let since = session.sync_token(None).await?;
        Ok((session.user, since))
    })
    .await?;
    let people = bench.users(2 * PAIRS).await?;
    let pairs: Vec<_> = people.chunks(2).map(<[_]>::to_vec).collect();
    let rooms = in_parallel(pairs.clone(), move |pair| room_of(address, pair)).await?;

    let talk = Rc::new(Talk::default());
    let mut talking = JoinSet::new();
    for (seed, (pair, room)) in pairs.into_iter().zip(rooms).enumerate() {
        let talker = Socket::open(address, &pair[0], None).await?;
        let listener = Socket::open(address, &pair[1], None).await?;
        talking.spawn_local(converse(talker, listener, room, seed as u64, Rc::clone(&talk)));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    talk.latencies.take();
    let window = bench.window();
    tokio::time::sleep(CALM).await;
    let (calm, calm_spent) = (talk.latencies.take(), window.close(&bench.servers()));

    let mut coming = JoinSet::new();
    let count = crowd.len() as u32;
    for (index, (user, since)) in crowd.into_iter().enumerate() {
        coming.spawn_local(visit(address, user, since, index as u32, count));
    }
    let window = bench.window();
    tokio::time::sleep(STORM).await;
    let (storm, storm_spent) = (talk.latencies.take(), window.close(&bench.servers()));
    while let Some(visited) = coming.join_next().await {
        visited??;
    }
    talk.over.set(true);
    while let Some(ended) = talking.join_next().await {
        ended??;
    }

    bench.size(NAME, format!("{PAIRS} pairs, {count} who come and go"));
    let mut add = |label: String, unit: &str, better: Better, value: Option<f64>| {
        bench.report.add(NAME, label, unit, better, value);
    };
    for (name, latencies, spent) in [("calm", &calm, calm_spent), ("storm", &storm, storm_spent)] {
        add(format!("{name}: messages"), "", Better::Context, Some(latencies.count() as f64));
        add(format!("{name}: delivery p50"), "ms", Better::Lower, latencies.percentile(50));
        add(format!("{name}: delivery p99"), "ms", Better::Lower, latencies.percentile(99));
        let seconds = spent.elapsed.as_secs_f64();
        add(
            format!("{name}: server CPU"),
            "ms/s",
            Better::Lower,
            spent.server_each(1).map(|all| all / seconds),
        );
    }
    let ratio = storm.percentile(99).zip(calm.percentile(99)).map(|(storm, calm)| storm / calm);
    add("p99 in the storm, times that of the calm".to_owned(), "", Better::Lower, ratio);
    Ok(())
}

/// Somebody comes online at a moment of the first half of the storm, stays for a third of it and goes.
async fn visit(
    address: std::net::SocketAddr,
    user: User,
    since: String,
    index: u32,
    count: u32,
) -> Result<()> {
    tokio::time::sleep(STORM / 2 * index / count).await;
    let socket = Socket::open(address, &user, Some(&since)).await?;
    // The end of its time is no failure.
    match tokio::time::timeout(STORM / 3, socket.idle()).await {
        Ok(ended) => ended,
        Err(_) => Ok(()),
    }
}

/// One says something, the other hears it, again and again.
async fn converse(
    mut talker: Socket,
    mut listener: Socket,
    room: Rc<str>,
    seed: u64,
    talk: Rc<Talk>,
) -> Result<()> {
    let mut number = 0;
    while !talk.over.get() {
        let began = Instant::now();
        talker.send(&room, &content::message(3_000_000 + seed, number)).await?;
        while !hears(listener.sync_in_time().await?, &room, number)? {}
        talk.latencies.borrow_mut().record(began.elapsed());
        number += 1;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

fn hears(body: &[u8], room: &str, number: usize) -> Result<bool> {
    let body = SyncBody::parse(body).context("a sync of the listener")?;
    let timeline = body.rooms.join.get(room).map(|room| &room.timeline);
    Ok(timeline.is_some_and(|timeline| timeline.events.iter().any(|event| event.number() == Some(number))))
}
