//! `join-storm`: everybody joins the same room at the same moment, in several rooms: what a join takes then, and how long
//! until somebody who waits in the room has seen everyone come. Everyone who was let in must be seen to come, once.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::task::JoinSet;

use super::{Bench, in_parallel};
use crate::checker::compare;
use crate::client::{Session, User};
use crate::latency::Latencies;
use crate::report::Better;
use crate::sync::Event;

const NAME: &str = "join-storm";

const PATIENCE: Duration = Duration::from_mins(1);

/// As many events as a room has joins: Synapse gives no more than a hundred in a sync.
const TIMELINE_LIMIT: u32 = 100;

const LONG_POLL: u32 = 30_000;

pub(crate) struct Settings {
    pub(crate) rooms: usize,
    /// Those who join each room; besides them it has the one who made it.
    pub(crate) members: usize,
}

/// Of a sync, the memberships, whether they are told in the timeline or with the state before it.
#[derive(Deserialize)]
struct Body<'a> {
    next_batch: String,
    #[serde(borrow, default)]
    rooms: Rooms<'a>,
}

#[derive(Deserialize, Default)]
struct Rooms<'a> {
    #[serde(borrow, default)]
    join: HashMap<String, Joined<'a>>,
}

#[derive(Deserialize)]
struct Joined<'a> {
    #[serde(borrow, default)]
    state: Events<'a>,
    #[serde(borrow, default)]
    timeline: Events<'a>,
}

#[derive(Deserialize, Default)]
struct Events<'a> {
    #[serde(borrow, default)]
    events: Vec<Event<'a>>,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let makers = bench.users(settings.rooms).await?;
    let ids = in_parallel(makers.clone(), move |maker| async move {
        Session::new(address, maker).create_room("Bench").await
    })
    .await?;
    let crowds = bench.users(settings.rooms * settings.members).await?;
    let mut watching = JoinSet::new();
    for (maker, room) in makers.into_iter().zip(&ids) {
        let mut session = Session::new(address, maker);
        let filter = session.timeline_filter(TIMELINE_LIMIT).await?;
        let since = session.sync_token(None).await?;
        watching.spawn_local(watch(session, Rc::clone(room), filter, since, settings.members));
    }
    bench.size(NAME, format!("{} join at once, rooms: {}", settings.members, settings.rooms));

    let began = Instant::now();
    let window = bench.window();
    let mut joining = JoinSet::new();
    for (crowd, room) in crowds.chunks(settings.members).zip(&ids) {
        for user in crowd {
            let (user, room) = (user.clone(), Rc::clone(room));
            joining.spawn_local(async move {
                let began = Instant::now();
                Session::new(address, user.clone()).join(&room).await?;
                anyhow::Ok((room, user, began.elapsed()))
            });
        }
    }
    let mut latencies = Latencies::default();
    let mut let_in: HashMap<Rc<str>, Vec<User>> = HashMap::new();
    while let Some(joined) = joining.join_next().await {
        let (room, user, latency) = joined??;
        latencies.record(latency);
        let_in.entry(room).or_default().push(user);
    }
    let all_in = began.elapsed().as_secs_f64();
    let mut seen_after = Duration::ZERO;
    while let Some(watched) = watching.join_next().await {
        let (room, came, last) = watched??;
        seen_after = seen_after.max(last.saturating_duration_since(began));
        for user in let_in.get(&room).into_iter().flatten() {
            let seen = came.iter().filter(|came| ***came == *user.id);
            bench.report.verdict.add(&compare([&*user.id], seen.map(|came| &**came)));
        }
    }
    let spent = window.close(&bench.servers());

    let joins = latencies.count();
    let mut add = |label: &str, unit: &str, better: Better, value: Option<f64>| {
        bench.report.add(NAME, label, unit, better, value);
    };
    add("joins", "/s", Better::Higher, Some(joins as f64 / all_in));
    add("join p50", "ms", Better::Lower, latencies.percentile(50));
    add("join p99", "ms", Better::Lower, latencies.percentile(99));
    add("until all are seen by all who wait", "s", Better::Lower, Some(seen_after.as_secs_f64()));
    add("server CPU", "ms/join", Better::Lower, spent.server_each(joins));
    bench.add_memory(NAME);
    Ok(())
}

/// Waits in the room until `count` others have come. Returns who came, in the order of coming, and when the last was seen.
async fn watch(
    mut session: Session,
    room: Rc<str>,
    filter: String,
    mut since: String,
    count: usize,
) -> Result<(Rc<str>, Vec<Box<str>>, Instant)> {
    let began = Instant::now();
    let me = Rc::clone(&session.user.id);
    let mut came: Vec<Box<str>> = Vec::new();
    while came.len() < count {
        ensure!(began.elapsed() < PATIENCE, "{} of {count} joins were seen within a minute", came.len());
        let body = session.sync_raw(Some(&since), Some(&filter), LONG_POLL).await?;
        let body: Body<'_> = serde_json::from_slice(body).context("an answer to /sync that is not one")?;
        if let Some(joined) = body.rooms.join.get(&*room) {
            // What a limited timeline leaves out is told as state.
            let events = joined.state.events.iter().chain(&joined.timeline.events);
            let members = events.filter(|event| event.is("m.room.member") && *event.sender != *me);
            came.extend(members.map(|event| Box::from(&*event.sender)));
        }
        since = body.next_batch;
    }
    Ok((room, came, Instant::now()))
}
