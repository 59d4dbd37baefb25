//! `idle`: many clients waiting in a long-poll in which nothing happens: what one of them holds of the server's memory.
//!
//! The server is started afresh, so that memory freed by earlier work does not hide what is measured, and every user
//! syncs once before the first look, so that what a user costs by being known is not charged to the waiting.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::task::JoinSet;

use super::{Bench, in_parallel, mebibytes, room_of};
use crate::client::Session;
use crate::report::Better;
use crate::server::{Memory, Server};
use crate::sync::SyncBody;

const NAME: &str = "idle";
const MEMBERS: usize = 10;

/// Longer than the scenario; a server that answers sooner is asked again.
const LONG_POLL: u32 = 120_000;

/// Without an answer for this long, the polls count as idle.
const QUIET: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) struct Settings {
    pub(crate) polls: usize,
    /// Accounts that the polls are spread over: each poll is a connection of its own, but not always a user of its own.
    pub(crate) users: usize,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let users = bench.users(settings.users.clamp(1, settings.polls)).await?;
    let groups = users.chunks(MEMBERS).map(<[_]>::to_vec).collect();
    in_parallel(groups, move |members| room_of(address, members)).await?;
    if bench.server.can_restart() {
        bench.server.restart().await?;
    }
    let initial = users.iter().cloned().map(|user| Session::new(address, user)).collect();
    let known = in_parallel(initial, |mut session: Session| async move {
        let since = session.sync_token(None).await?;
        Ok((session.user, since))
    })
    .await?;
    tokio::time::sleep(QUIET).await;
    let before = settled(&bench.server).await;

    let latest = Rc::new(Cell::new(Instant::now()));
    let mut polls = JoinSet::new();
    for index in 0..settings.polls {
        let (user, since) = known[index % known.len()].clone();
        let latest = Rc::clone(&latest);
        // Told apart by their time-outs, lest a server answer equal questions of a user together.
        let timeout = LONG_POLL + index as u32;
        polls.spawn_local(poll(Session::new(address, user), since, timeout, latest));
        if index % 50 == 49 {
            // Not all in one instant: the backlog of a listening socket is finite.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let began = Instant::now();
    while latest.get().elapsed() < QUIET {
        if let Some(ended) = polls.try_join_next() {
            ended?.context("an idle long-poll failed")?;
        }
        if began.elapsed() > PATIENCE {
            bail!(
                "{} long-polls were not idle for {} s within {} s",
                settings.polls,
                QUIET.as_secs(),
                PATIENCE.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let with = settled(&bench.server).await;
    polls.shutdown().await;

    bench.size(NAME, format!("{} long-polls of {} users", settings.polls, users.len()));
    let report = &mut bench.report;
    let size = |memory: Option<Memory>| memory.map(|memory| mebibytes(memory.proportional));
    report.add(NAME, "memory without", "MiB", Better::Lower, size(before));
    report.add(NAME, "memory with", "MiB", Better::Lower, size(with));
    let each = before.zip(with).map(|(before, with)| {
        (with.proportional as f64 - before.proportional as f64) / 1024.0 / settings.polls as f64
    });
    report.add(NAME, "memory a long-poll", "KiB", Better::Lower, each);
    Ok(())
}

/// The smallest of a few looks: what is only in passing is not counted.
async fn settled(server: &Server) -> Option<Memory> {
    let mut smallest: Option<Memory> = None;
    for _ in 0..5 {
        let memory = server.memory()?;
        if smallest.is_none_or(|smallest| memory.proportional < smallest.proportional) {
            smallest = Some(memory);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    smallest
}

/// Polls until it is aborted or fails; notes when it last asked.
async fn poll(
    mut session: Session,
    mut since: String,
    timeout: u32,
    latest: Rc<Cell<Instant>>,
) -> Result<()> {
    loop {
        latest.set(Instant::now());
        let body = session.sync_raw(Some(&since), None, timeout).await?;
        since = SyncBody::parse(body)?.next_batch.into_owned();
    }
}
