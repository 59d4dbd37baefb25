//! `sockets`: many idle sockets of the stream: what one of them holds of the server's memory and time with heartbeats on,
//! and how long it takes until all of them are back when all are cut at once.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use super::{Bench, in_parallel, mebibytes, room_of};
use crate::client::{Session, User};
use crate::content;
use crate::report::Better;
use crate::socket::Socket;

const NAME: &str = "sockets";
const MEMBERS: usize = 10;

/// A little over one heartbeat.
const WATCHED: Duration = Duration::from_secs(35);

pub(crate) struct Settings {
    pub(crate) sockets: usize,
    /// Accounts that the sockets are spread over.
    pub(crate) users: usize,
    /// Sockets that are cut and come back.
    pub(crate) cut: usize,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let address = bench.address();
    let users = bench.users(settings.users).await?;
    let groups: Vec<_> = users.chunks(MEMBERS).map(<[_]>::to_vec).collect();
    let rooms = in_parallel(groups.clone(), move |members| room_of(address, members)).await?;
    if bench.server.can_restart() {
        bench.server.restart().await?;
    }
    let initial = users.iter().cloned().map(|user| Session::new(address, user)).collect();
    let known = in_parallel(initial, |mut session: Session| async move {
        let since = session.sync_token(None).await?;
        Ok((session.user, since))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = bench.server.memory();

    let wanted = (0..settings.sockets).map(|index| known[index % known.len()].clone()).collect();
    let open =
        move |(user, since): (User, String)| async move { Socket::open(address, &user, Some(&since)).await };
    let opened = in_parallel(wanted, open).await?;
    let mut sockets = JoinSet::new();
    for socket in opened {
        sockets.spawn_local(socket.idle());
    }
    let window = bench.window();
    tokio::time::sleep(WATCHED).await;
    let spent = window.close(&bench.servers());
    let with = bench.server.memory();
    if let Some(ended) = sockets.try_join_next() {
        ended??;
    }
    sockets.shutdown().await;

    let count = settings.sockets as f64;
    let each = before
        .zip(with)
        .map(|(before, with)| (with.proportional as f64 - before.proportional as f64) / 1024.0 / count);
    let cpu = spent.server_each(settings.sockets).map(|each| each * 1000.0 / spent.elapsed.as_secs_f64());
    let memory = with.map(|memory| mebibytes(memory.proportional));
    bench.size(
        NAME,
        format!("{} sockets of {} users, {} cut", settings.sockets, settings.users, settings.cut),
    );
    let report = &mut bench.report;
    report.add(NAME, "memory with", "MiB", Better::Lower, memory);
    report.add(NAME, "memory a socket", "KiB", Better::Lower, each);
    report.add(NAME, "server CPU a socket", "µs/s", Better::Lower, cpu);
    storm(bench, settings, &known, &groups, &rooms).await
}

/// Cuts sockets all at once, says something in each room, and waits until each is back and has heard it.
async fn storm(
    bench: &mut Bench,
    settings: &Settings,
    known: &[(User, String)],
    groups: &[Vec<User>],
    rooms: &[Rc<str>],
) -> Result<()> {
    let address = bench.address();
    let wanted: Vec<_> = (0..settings.cut).map(|index| known[index % known.len()].clone()).collect();
    let open = move |(user, since): (User, String)| async move {
        let socket = Socket::open(address, &user, Some(&since)).await?;
        Ok((user, socket.position.clone(), socket))
    };
    let opened = in_parallel(wanted, open).await?;
    let positions: Vec<_> =
        opened.iter().map(|(user, position, _)| (user.clone(), position.clone())).collect();
    drop(opened);
    for (members, room) in groups.iter().zip(rooms) {
        let mut session = Session::new(address, members[0].clone());
        session.send(room, &content::message(2_000_000, 0)).await?;
    }
    let window = bench.window();
    let began = Instant::now();
    let mut coming = JoinSet::new();
    for (user, position) in positions {
        coming.spawn_local(async move {
            let mut socket = Socket::open(address, &user, Some(&position)).await?;
            socket.sync_in_time().await?;
            anyhow::Ok(socket)
        });
    }
    let mut back = Vec::new();
    while let Some(socket) = coming.join_next().await {
        back.push(socket??);
    }
    let seconds = began.elapsed().as_secs_f64();
    let spent = window.close(&bench.servers());
    let label = format!("{} back after a cut, each with what it missed", settings.cut);
    bench.report.add(NAME, label, "s", Better::Lower, Some(seconds));
    bench.report.add(NAME, "server CPU a resume", "ms", Better::Lower, spent.server_each(settings.cut));
    Ok(())
}
