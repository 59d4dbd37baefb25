//! `pair`: two servers that federate. In each room somebody of the one talks and somebody of the other reads: how long a
//! message takes from client to client across servers, how many go through, and what both servers spend on each.

use std::time::Duration;

use anyhow::{Context, Result};

use super::chat::{Chat, Talker, Wire};
use super::{Bench, in_parallel};
use crate::client::{Session, User};

const NAME: &str = "pair";

/// Rooms of both servers at their best-supported version, so that both do the same work.
const ROOM_VERSION: &str = "11";

pub(crate) struct Settings {
    pub(crate) rooms: usize,
    pub(crate) duration: Duration,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let peer = bench.peer.as_mut().context("needs --peer-address")?;
    if peer.can_restart() {
        peer.start().await?;
    }
    let measured = across(bench, settings).await;
    // The other scenarios have the machine to one server.
    if let Some(peer) = &mut bench.peer {
        peer.stop().await?;
    }
    measured
}

async fn across(bench: &mut Bench, settings: &Settings) -> Result<()> {
    let here = bench.address();
    let there = bench.peer.as_ref().context("needs --peer-address")?.address;
    let talkers = bench.users(settings.rooms).await?;
    let readers = bench.users_at(there, settings.rooms).await?;
    let rooms = in_parallel(talkers.clone(), move |user: User| async move {
        Session::new(here, user).create_room_of_version("Bench", Some(ROOM_VERSION)).await
    })
    .await?;
    let mut chat = Chat::default();
    for ((id, talker), reader) in rooms.into_iter().zip(talkers).zip(readers) {
        let via = talker.server_name().context("a user id without a server")?.to_owned();
        let mut reader = Session::new(there, reader);
        reader.join_by_way_of(&id, &via).await?;
        let talker = Talker::Requests(Session::new(here, talker));
        chat.add(id, talker, std::iter::once(reader), Wire::LongPoll).await?;
    }
    let seconds = settings.duration.as_secs();
    bench.size(NAME, format!("{} rooms of one user of each server, {seconds} s each way", settings.rooms));
    chat.measure(bench, NAME, settings.duration).await.map(drop)
}
