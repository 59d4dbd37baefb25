//! `hearth-bench`: drives a Matrix homeserver through its public client-server API and says what that cost.
//!
//! `run` measures one server and writes a report; `compare` puts reports side by side. A message that was acknowledged and
//! then lost, duplicated or reordered makes both end with status 1, whatever the speed. It knows nothing of Hearth's code.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checker;
mod client;
mod connection;
mod content;
mod latency;
mod report;
mod scenario;
mod server;
mod socket;
mod sync;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::report::Report;
use crate::scenario::{
    Bench, chat, idle, long_room, old_room, send, sliding_rooms, sockets, start, storm, sync_rooms,
};
use crate::server::Server;

#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure one server.
    Run(Box<Run>),
    /// Print one table of several reports, the first against the last.
    Compare {
        /// Reports that `run` wrote.
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// Also write the table here.
        #[arg(long)]
        markdown: Option<PathBuf>,
    },
}

#[derive(Args)]
// A later option replaces an earlier one, so that a script can hold defaults.
#[command(args_override_self = true)]
struct Run {
    /// Where the server listens for clients, by plain HTTP.
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// The server's name in tables.
    #[arg(long, default_value = "server")]
    name: String,
    /// Shell command that runs the server in the foreground; it is started, restarted between scenarios and stopped.
    #[arg(long, value_name = "COMMAND", conflicts_with = "pid")]
    start: Option<String>,
    /// A server that already runs: measure this process and its children.
    #[arg(long)]
    pid: Option<u32>,
    /// The server's data, for the disk it takes.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Register users with this shared secret; else, or where the server lacks that, with `m.login.dummy`.
    #[arg(long)]
    secret: Option<String>,
    /// What to run; always in this order.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "send,chat10,sync-rooms,old-room,long-room,idle,start",
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
    #[arg(long, default_value_t = 10)]
    send_seconds: u64,
    /// chat10, stream10: rooms of ten; chat100 and stream100 have a tenth of that, two at least.
    #[arg(long, default_value_t = 8)]
    chat_rooms: usize,
    /// chat10, stream10, chat100, stream100: seconds of each of its three phases, after a second of warm-up.
    #[arg(long, default_value_t = 8)]
    chat_seconds: u64,
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
    /// start: times to start the server.
    #[arg(long, default_value_t = 5)]
    starts: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
enum Scenario {
    Send,
    #[value(name = "chat10")]
    Chat10,
    #[value(name = "stream10")]
    Stream10,
    #[value(name = "chat100")]
    Chat100,
    #[value(name = "stream100")]
    Stream100,
    SyncRooms,
    SlidingRooms,
    OldRoom,
    LongRoom,
    Idle,
    Sockets,
    PresenceStorm,
    Start,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        // One thread: what the load takes from the shared machine is bounded and easily told.
        Command::Run(run) => tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("starting the runtime")
            .and_then(|runtime| tokio::task::LocalSet::new().block_on(&runtime, run.run())),
        Command::Compare { reports, markdown } => compare(&reports, markdown.as_deref()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hearth-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Run {
    /// True when every scenario ran and the checker found nothing.
    async fn run(self) -> Result<bool> {
        let address = resolve(&self.address)?;
        let server = Server::new(address, self.start.clone(), self.pid, self.data_dir.clone());
        let mut bench = Bench::new(server, self.secret.clone(), self.name.clone());
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
        print!("{}", report::markdown(&[bench.report]));
        Ok(good)
    }

    async fn scenario(&self, bench: &mut Bench, scenario: Scenario) -> Result<()> {
        match scenario {
            Scenario::Send => {
                let duration = Duration::from_secs(self.send_seconds);
                let settings = send::Settings { senders: self.senders, rooms: self.send_rooms, duration };
                send::run(bench, &settings).await
            }
            Scenario::Chat10 => self.chat(bench, "chat10", 10, chat::Wire::LongPoll).await,
            Scenario::Stream10 => self.chat(bench, "stream10", 10, chat::Wire::Stream).await,
            Scenario::Chat100 => self.chat(bench, "chat100", 100, chat::Wire::LongPoll).await,
            Scenario::Stream100 => self.chat(bench, "stream100", 100, chat::Wire::Stream).await,
            Scenario::SyncRooms => {
                let duration = Duration::from_secs(self.sync_seconds);
                let settings = sync_rooms::Settings { counts: self.sync_rooms.clone(), duration };
                sync_rooms::run(bench, &settings).await
            }
            Scenario::SlidingRooms => {
                let duration = Duration::from_secs(self.sync_seconds);
                let settings = sync_rooms::Settings { counts: self.sync_rooms.clone(), duration };
                sliding_rooms::run(bench, &settings).await
            }
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
            Scenario::Start => start::run(bench, &start::Settings { repeats: self.starts }).await,
        }
    }
}

impl Run {
    async fn chat(
        &self,
        bench: &mut Bench,
        name: &'static str,
        members: usize,
        wire: chat::Wire,
    ) -> Result<()> {
        let (rooms, duration) = (self.chat_rooms * 10 / members, Duration::from_secs(self.chat_seconds));
        chat::run(bench, &chat::Settings { name, rooms: rooms.max(2), members, wire, duration }).await
    }
}

fn resolve(address: &str) -> Result<SocketAddr> {
    let mut found = address.to_socket_addrs().with_context(|| address.to_owned())?;
    found.next().with_context(|| format!("{address}: no such host"))
}

fn compare(paths: &[PathBuf], markdown: Option<&Path>) -> Result<bool> {
    let mut reports: Vec<Report> = Vec::new();
    for path in paths {
        let json = std::fs::read(path).with_context(|| path.display().to_string())?;
        reports.push(serde_json::from_slice(&json).with_context(|| path.display().to_string())?);
    }
    let table = report::markdown(&reports);
    if let Some(path) = markdown {
        std::fs::write(path, &table).with_context(|| path.display().to_string())?;
    }
    print!("{table}");
    Ok(reports.iter().all(Report::is_good))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_option_replaces_an_earlier_one() {
        let words = "hearth-bench run --address a:1 --sync-rooms 1,2 --senders 3 --sync-rooms 5 --senders 4";
        let arguments = Arguments::try_parse_from(words.split(' ')).unwrap();
        let Command::Run(run) = arguments.command else { panic!("not a run") };
        assert_eq!((run.sync_rooms, run.senders, run.scenarios.len()), (vec![5], 4, 7));
    }
}
