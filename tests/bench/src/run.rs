//! `hearth-bench run`: the options of a run, and the scenarios in their order.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::report::Report;
use crate::scenario::{
    Bench, chat, hot_room, idle, join_storm, long_room, old_room, pair, send, sliding_rooms, sockets, start,
    storm, sync_rooms,
};
use crate::server::Server;
use crate::table::{Rows, markdown};

#[derive(Args)]
// A later option replaces an earlier one, so that a script can hold defaults.
#[command(args_override_self = true)]
pub(crate) struct Run {
    /// Where the server listens for clients, by plain HTTP.
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// The server's name in tables.
    #[arg(long, default_value = "server")]
    name: String,
    /// What is measured, for the report.
    #[arg(long, default_value = "")]
    version: String,
    /// Shell command that runs the server in the foreground; it is started, restarted between scenarios and stopped.
    #[arg(long, value_name = "COMMAND")]
    start: Option<String>,
    /// Measure these processes and their children: those of a server that already runs, or, with --start, of its database.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// The server's data, for the disk it takes; may be given several times.
    #[arg(long, value_name = "DIRECTORY", action = clap::ArgAction::Append)]
    data_dir: Vec<PathBuf>,
    /// pair: where another server that federates with the first listens for clients.
    #[arg(long, value_name = "HOST:PORT")]
    peer_address: Option<String>,
    /// pair: shell command that runs the other server while it is needed.
    #[arg(long, value_name = "COMMAND", requires = "peer_address")]
    peer_start: Option<String>,
    /// pair: processes of the other server, if it already runs.
    #[arg(long, value_delimiter = ',', requires = "peer_address")]
    peer_pid: Vec<u32>,
    /// Register users with this shared secret; else, or where the server lacks that, with `m.login.dummy`.
    #[arg(long)]
    secret: Option<String>,
    /// What to run; always in this order.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "send,chat2,chat10,chat100,hot-room,join-storm,sync-rooms,old-room,long-room,idle",
        overrides_with = "scenarios"
    )]
    scenarios: Vec<Scenario>,
    /// Write the report here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// send: concurrent senders.
    #[arg(long, default_value_t = 64)]
    senders: usize,
    /// send: rooms that the senders are spread over.
    #[arg(long, default_value_t = 16)]
    send_rooms: usize,
    /// send: seconds of each of its two phases, after a second of warm-up.
    #[arg(long, default_value_t = 8)]
    send_seconds: u64,
    /// chat2, chat10, stream10: rooms; chat100 and stream100 have a tenth of that, two at least.
    #[arg(long, default_value_t = 8)]
    chat_rooms: usize,
    /// chat2, chat10, stream10, chat100, stream100: seconds of each of their three phases, after a second of warm-up.
    #[arg(long, default_value_t = 5)]
    chat_seconds: u64,
    /// hot-room: members who send at once.
    #[arg(long, default_value_t = 50)]
    hot_senders: usize,
    /// hot-room: members who read.
    #[arg(long, default_value_t = 10)]
    hot_readers: usize,
    /// hot-room: seconds of each of its two phases, after a second of warm-up.
    #[arg(long, default_value_t = 8)]
    hot_seconds: u64,
    /// join-storm: rooms that are joined.
    #[arg(long, default_value_t = 5)]
    join_rooms: usize,
    /// join-storm: those who join each room.
    #[arg(long, default_value_t = 99)]
    join_members: usize,
    /// sync-rooms, sliding-rooms: numbers of rooms; the last is compared with the first.
    #[arg(long, value_delimiter = ',', default_value = "20,200,2000", overrides_with = "sync_rooms")]
    sync_rooms: Vec<usize>,
    /// sync-rooms, sliding-rooms: seconds of each of their phases, for each number of rooms.
    #[arg(long, default_value_t = 3)]
    sync_seconds: u64,
    /// old-room: members of both rooms.
    #[arg(long, default_value_t = 100)]
    old_members: usize,
    /// old-room: state changes that the old one has seen.
    #[arg(long, default_value_t = 10_000)]
    old_changes: usize,
    /// long-room: messages in it.
    #[arg(long, default_value_t = 200_000)]
    long_messages: usize,
    /// idle: long-polls that wait at once.
    #[arg(long, default_value_t = 2000)]
    idle_polls: usize,
    /// idle: accounts that the polls are spread over.
    #[arg(long, default_value_t = 200)]
    idle_users: usize,
    /// sockets: idle sockets.
    #[arg(long, default_value_t = 10_000)]
    idle_sockets: usize,
    /// sockets: those that are cut at once.
    #[arg(long, default_value_t = 1000)]
    cut_sockets: usize,
    /// presence-storm: people who come and go.
    #[arg(long, default_value_t = 2000)]
    storm_users: usize,
    /// pair: rooms that both servers have.
    #[arg(long, default_value_t = 8)]
    pair_rooms: usize,
    /// pair: seconds of each of its three phases, after a second of warm-up.
    #[arg(long, default_value_t = 8)]
    pair_seconds: u64,
    /// start: times to start the server.
    #[arg(long, default_value_t = 5)]
    starts: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
enum Scenario {
    Send,
    #[value(name = "chat2")]
    Chat2,
    #[value(name = "chat10")]
    Chat10,
    #[value(name = "stream10")]
    Stream10,
    #[value(name = "chat100")]
    Chat100,
    #[value(name = "stream100")]
    Stream100,
    HotRoom,
    JoinStorm,
    SyncRooms,
    SlidingRooms,
    OldRoom,
    LongRoom,
    Idle,
    Sockets,
    PresenceStorm,
    Pair,
    Start,
}

impl Run {
    /// True when every scenario ran and the checker found nothing.
    pub(crate) async fn run(self) -> Result<bool> {
        let address = resolve(&self.address)?;
        let server = Server::new(address, self.start.clone(), self.pid.clone(), self.data_dir.clone());
        let peer = match &self.peer_address {
            None => None,
            Some(address) => {
                let address = resolve(address)?;
                Some(Server::new(address, self.peer_start.clone(), self.peer_pid.clone(), Vec::new()))
            }
        };
        let report = Report::new(self.name.clone(), self.version.clone());
        let mut bench = Bench::new(server, peer, self.secret.clone(), report);
        if bench.server.can_restart() {
            bench.server.start().await?;
        }
        let mut scenarios = self.scenarios.clone();
        scenarios.sort_unstable();
        scenarios.dedup();
        for scenario in scenarios {
            eprintln!("{}: {scenario:?} …", self.name);
            if let Err(error) = self.scenario(&mut bench, scenario).await {
                eprintln!("{}: {scenario:?} failed: {error:#}", self.name);
                bench.report.failures.push(format!("{scenario:?}: {error:#}"));
            }
        }
        if let Err(error) = bench.server.stop().await {
            bench.report.failures.push(format!("stopping: {error:#}"));
        }
        if let Some(path) = &self.json {
            let json = serde_json::to_vec_pretty(&bench.report)?;
            std::fs::write(path, json).with_context(|| path.display().to_string())?;
        }
        let good = bench.report.is_good();
        print!("{}", markdown(&[bench.report], Rows::Every));
        Ok(good)
    }

    async fn scenario(&self, bench: &mut Bench, scenario: Scenario) -> Result<()> {
        let seconds = Duration::from_secs;
        match scenario {
            Scenario::Send => {
                let duration = seconds(self.send_seconds);
                let settings = send::Settings { senders: self.senders, rooms: self.send_rooms, duration };
                send::run(bench, &settings).await
            }
            Scenario::Chat2 => self.chat(bench, "chat2", 2, chat::Wire::LongPoll).await,
            Scenario::Chat10 => self.chat(bench, "chat10", 10, chat::Wire::LongPoll).await,
            Scenario::Stream10 => self.chat(bench, "stream10", 10, chat::Wire::Stream).await,
            Scenario::Chat100 => self.chat(bench, "chat100", 100, chat::Wire::LongPoll).await,
            Scenario::Stream100 => self.chat(bench, "stream100", 100, chat::Wire::Stream).await,
            Scenario::HotRoom => {
                let (senders, readers) = (self.hot_senders, self.hot_readers);
                let settings = hot_room::Settings { senders, readers, duration: seconds(self.hot_seconds) };
                hot_room::run(bench, &settings).await
            }
            Scenario::JoinStorm => {
                let settings = join_storm::Settings { rooms: self.join_rooms, members: self.join_members };
                join_storm::run(bench, &settings).await
            }
            Scenario::SyncRooms => sync_rooms::run(bench, &self.counts()).await,
            Scenario::SlidingRooms => sliding_rooms::run(bench, &self.counts()).await,
            Scenario::OldRoom => {
                let settings = old_room::Settings { members: self.old_members, changes: self.old_changes };
                old_room::run(bench, &settings).await
            }
            Scenario::LongRoom => {
                long_room::run(bench, &long_room::Settings { messages: self.long_messages }).await
            }
            Scenario::Idle => {
                idle::run(bench, &idle::Settings { polls: self.idle_polls, users: self.idle_users }).await
            }
            Scenario::Sockets => {
                let (sockets, cut) = (self.idle_sockets, self.cut_sockets);
                let settings = sockets::Settings { sockets, users: self.idle_users * 5, cut };
                sockets::run(bench, &settings).await
            }
            Scenario::PresenceStorm => storm::run(bench, &storm::Settings { users: self.storm_users }).await,
            Scenario::Pair => {
                let duration = seconds(self.pair_seconds);
                pair::run(bench, &pair::Settings { rooms: self.pair_rooms, duration }).await
            }
            Scenario::Start => start::run(bench, &start::Settings { repeats: self.starts }).await,
        }
    }

    fn counts(&self) -> sync_rooms::Settings {
        let duration = Duration::from_secs(self.sync_seconds);
        sync_rooms::Settings { counts: self.sync_rooms.clone(), duration }
    }

    async fn chat(
        &self,
        bench: &mut Bench,
        name: &'static str,
        members: usize,
        wire: chat::Wire,
    ) -> Result<()> {
        let rooms = if members > 10 { (self.chat_rooms / 10).max(2) } else { self.chat_rooms };
        let duration = Duration::from_secs(self.chat_seconds);
        chat::run(bench, &chat::Settings { name, rooms, members, wire, duration }).await
    }
}

pub(crate) fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found = address.to_socket_addrs().with_context(|| address.to_owned())?;
    found.next().with_context(|| format!("{address}: no such host"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        run: Run,
    }

    #[test]
    fn a_later_option_replaces_an_earlier_one_but_folders_add_up() {
        let words = "run --address a:1 --data-dir a --sync-rooms 1,2 --senders 3 --sync-rooms 5 --senders 4 --data-dir b";
        let Only { run } = Only::try_parse_from(words.split(' ')).unwrap();
        assert_eq!((run.sync_rooms, run.senders, run.scenarios.len()), (vec![5], 4, 10));
        assert_eq!(run.data_dir.len(), 2);
    }
}
