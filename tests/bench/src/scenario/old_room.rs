//! `old-room`: whether the age of a room's state makes it slower.
//!
//! Two rooms with the same members. In one of them the state has changed thousands of times, over and over under the same
//! keys, so that both rooms have about as much of it. Then one member sends to both by turns, a second each, and
//! somebody asks for the state at random moments of the past (`/context` of a message, with nothing around it).

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{Bench, in_parallel};
use crate::client::{Session, User};
use crate::content;
use crate::latency::Latencies;
use crate::report::Better;

const NAME: &str = "old-room";

/// State keys that change.
const KEYS: usize = 100;

/// Messages spread over the changes, for the state to be asked at.
const MOMENTS: usize = 200;

/// Turns that each room gets.
const TURNS: usize = 5;

pub(crate) struct Settings {
    pub(crate) members: usize,
    pub(crate) changes: usize,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let users = bench.users(settings.members).await?;
    bench.size(NAME, format!("{} members, {} state changes", settings.members, settings.changes));
    let fresh = room(bench, &users).await?;
    let old = room(bench, &users).await?;
    let mut member = Session::new(address, users.first().context("a room needs a member")?.clone());

    let mut moments = Vec::new();
    for change in 0..settings.changes {
        member.set_state(&old, "bench.state", &format!("key {}", change % KEYS), change).await?;
        if change % (settings.changes / MOMENTS).max(1) == 0 {
            moments.push(member.send(&old, &content::message(3, change)).await?);
        }
    }
    for key in 0..KEYS.min(settings.changes) {
        member.set_state(&fresh, "bench.state", &format!("key {key}"), key).await?;
    }

    let mut costs = [(&fresh, Latencies::default(), 0.0), (&old, Latencies::default(), 0.0)];
    let mut number = settings.changes;
    // The first turn of each warms up.
    for turn in 0..=TURNS {
        for (room, latencies, cpu) in &mut costs {
            let (window, end) = (bench.window(), Instant::now() + Duration::from_secs(1));
            let mut sent = 0;
            while Instant::now() < end {
                number += 1;
                let content = content::message(4, number);
                let began = Instant::now();
                member.send(room, &content).await?;
                sent += 1;
                if turn > 0 {
                    latencies.record(began.elapsed());
                }
            }
            let each = window.close(&bench.servers()).server_each(sent);
            if turn > 0 {
                *cpu += each.unwrap_or(f64::NAN) / TURNS as f64;
            }
        }
    }

    let mut state = Latencies::default();
    for _ in 0..2 {
        state = Latencies::default();
        for moment in &moments {
            let began = Instant::now();
            member.context(&old, moment, 0).await?;
            state.record(began.elapsed());
        }
    }

    let [(_, fresh, fresh_cpu), (_, old, old_cpu)] = costs;
    let report = &mut bench.report;
    let (fresh_p50, old_p50) = (fresh.percentile(50), old.percentile(50));
    report.add(NAME, "fresh room: acknowledgement p50", "ms", Better::Lower, fresh_p50);
    report.add(NAME, "old room: acknowledgement p50", "ms", Better::Lower, old_p50);
    let ratio = fresh_p50.zip(old_p50).map(|(fresh, old)| old / fresh);
    report.add(NAME, "acknowledgement p50, old to fresh", "×", Better::Lower, ratio);
    report.add(NAME, "fresh room: server CPU", "ms/message", Better::Lower, fresh_cpu);
    report.add(NAME, "old room: server CPU", "ms/message", Better::Lower, old_cpu);
    report.add(NAME, "server CPU, old to fresh", "×", Better::Lower, old_cpu / fresh_cpu);
    report.add(NAME, "state at any point p50", "ms", Better::Lower, state.percentile(50));
    report.add(NAME, "state at any point p99", "ms", Better::Lower, state.percentile(99));
    Ok(())
}

/// A room of all users, the first of whom makes it.
async fn room(bench: &Bench, users: &[User]) -> Result<Rc<str>> {
    let address = bench.address();
    let (first, others) = users.split_first().context("a room needs a member")?;
    let room = Session::new(address, first.clone()).create_room("Bench").await?;
    let joined = Rc::clone(&room);
    in_parallel(others.to_vec(), move |user| {
        let room = Rc::clone(&joined);
        async move { Session::new(address, user).join(&room).await }
    })
    .await?;
    Ok(room)
}
