//! `long-room`: what reading costs in a room with a long past.
//!
//! One room is filled with messages; then a member reads pages of a hundred at random depths, from tokens that
//! `/context` gives, and looks up moments by time.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::{Bench, room_of};
use crate::client::Session;
use crate::content;
use crate::latency::Latencies;
use crate::report::Better;

const NAME: &str = "long-room";

const SENDERS: usize = 64;
const PAGE: u32 = 100;

/// Depths that pages are read at.
const PAGES: usize = 300;

pub(crate) struct Settings {
    pub(crate) messages: usize,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let users = bench.users(SENDERS).await?;
    let room = room_of(address, users.clone()).await?;
    bench.size(NAME, format!("{} messages of {SENDERS} members", settings.messages));
    let disk_before = bench.server.disk();
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    let each = settings.messages.div_ceil(SENDERS);
    let keep = (settings.messages / PAGES).max(1);
    for (sender, user) in users.iter().cloned().enumerate() {
        let room = Rc::clone(&room);
        tasks.spawn_local(async move {
            let mut session = Session::new(address, user);
            let mut kept = Vec::new();
            for number in 0..each {
                let event = session.send(&room, &content::message(sender as u64, number)).await?;
                if (sender * each + number).is_multiple_of(keep) {
                    kept.push(event);
                }
            }
            anyhow::Ok(kept)
        });
    }
    let mut moments = Vec::new();
    while let Some(kept) = tasks.join_next().await {
        moments.extend(kept??);
    }
    let filled = began.elapsed();

    let mut reader = Session::new(address, users.first().context("a room needs a member")?.clone());
    let (mut back, mut forth) = (Latencies::default(), Latencies::default());
    for event in &moments {
        let start = reader.context(&room, event, 0).await?;
        for (direction, latencies) in [("b", &mut back), ("f", &mut forth)] {
            let began = Instant::now();
            reader.messages(&room, direction, Some(&start), PAGE).await?;
            latencies.record(began.elapsed());
        }
    }

    let report = &mut bench.report;
    let messages = (each * SENDERS) as f64;
    report.add(NAME, "sends while it fills", "/s", Better::Higher, messages / filled.as_secs_f64());
    let disk =
        disk_before.zip(bench.server.disk()).map(|(before, after)| (after as f64 - before as f64) / messages);
    report.add(NAME, "disk", "bytes/message", Better::Lower, disk);
    report.add(NAME, "page of 100 back, any depth, p50", "ms", Better::Lower, back.percentile(50));
    report.add(NAME, "page of 100 back, any depth, p99", "ms", Better::Lower, back.percentile(99));
    report.add(NAME, "page of 100 forth, any depth, p50", "ms", Better::Lower, forth.percentile(50));
    report.add(NAME, "page of 100 forth, any depth, p99", "ms", Better::Lower, forth.percentile(99));
    bench.add_memory(NAME);
    Ok(())
}
