//! What goes wrong during a soak, by turns: the second server is stopped and goes on, killed and started again; the line between
//! the servers is cut, or carries nothing; readers vanish; the first server stands still. The first server is never killed,
//! so that its memory tells of the whole time.

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::link::{Link, State};
use super::world::Weather;
use crate::scenario::Bench;
use crate::server::Signal;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    PeerStands,
    LinesCut,
    ReadersVanish,
    PeerKilled,
    LinesSilent,
    ServerStands,
}

const TURNS: [Fault; 6] = [
    Fault::PeerStands,
    Fault::LinesCut,
    Fault::ReadersVanish,
    Fault::PeerKilled,
    Fault::LinesSilent,
    Fault::ServerStands,
];

impl Fault {
    /// The `number`th of a soak.
    pub(crate) fn of_turn(number: usize) -> Self {
        TURNS[number % TURNS.len()]
    }

    /// As a legend has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PeerStands => "peer stopped",
            Self::LinesCut => "lines cut",
            Self::ReadersVanish => "readers vanish",
            Self::PeerKilled => "peer killed",
            Self::LinesSilent => "lines silent",
            Self::ServerStands => "server stopped",
        }
    }

    /// Lets it happen, for `duration`, and mends it.
    pub(crate) async fn happen(
        self,
        bench: &mut Bench,
        links: &[Link],
        weather: &Rc<Weather>,
        duration: Duration,
    ) -> Result<()> {
        match self {
            Self::LinesCut => lines(links, State::Cut, duration).await,
            Self::LinesSilent => lines(links, State::Silent, duration).await,
            Self::ReadersVanish => {
                weather.readers_vanish(duration);
                tokio::time::sleep(duration).await;
            }
            Self::ServerStands => {
                bench.server.signal(Signal::Stop).await?;
                tokio::time::sleep(duration).await;
                bench.server.signal(Signal::Continue).await?;
            }
            Self::PeerStands => {
                let peer = bench.peer.as_ref().context("there is a peer")?;
                peer.signal(Signal::Stop).await?;
                tokio::time::sleep(duration).await;
                peer.signal(Signal::Continue).await?;
            }
            Self::PeerKilled => {
                let peer = bench.peer.as_mut().context("there is a peer")?;
                peer.kill().await?;
                tokio::time::sleep(duration).await;
                peer.start().await?;
            }
        }
        Ok(())
    }
}

async fn lines(links: &[Link], state: State, duration: Duration) {
    for link in links {
        link.set(state);
    }
    tokio::time::sleep(duration).await;
    for link in links {
        link.set(State::Open);
    }
}
