//! `hearth-bench soak`: two servers that federate, at half of what they can do, for a long time, while things go wrong: whether
//! anything is lost, and whether memory, latency, files and rows stay as they are.

mod faults;
mod link;
mod picture;
mod samples;
mod world;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::net::TcpListener;
use tokio::process::Command;

use self::faults::Fault;
use self::link::Link;
use self::samples::{Sample, Soak};
use self::world::{Plan, Tallies, Weather, World};
use crate::checker::Verdict;
use crate::report::{Machine, Report};
use crate::run::resolve;
use crate::scenario::{Bench, mebibytes};
use crate::server::{Server, Window};
use crate::table::number;

/// How long everybody talks as fast as they can, to learn what the servers can do.
const CAPACITY: Duration = Duration::from_secs(15);

/// How long a fault lasts, and how long after it a look isn't one at the calm.
const FAULT: Duration = Duration::from_secs(5);
const RECOVERY: Duration = Duration::from_secs(10);

/// After the last fault, for everything to arrive.
const PATIENCE: Duration = Duration::from_mins(5);

/// Below this a server is still warming up: whether it grows says nothing yet.
const JUDGED_FROM: Duration = Duration::from_mins(8);

#[derive(Args)]
#[command(args_override_self = true)]
pub(crate) struct Options {
    /// Where the first server listens for clients, by plain HTTP.
    #[arg(long, value_name = "HOST:PORT")]
    address: String,
    /// Shell command that runs the first server in the foreground.
    #[arg(long, value_name = "COMMAND")]
    start: String,
    /// The first server's data.
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
    /// The same of the second server.
    #[arg(long, value_name = "HOST:PORT")]
    peer_address: String,
    #[arg(long, value_name = "COMMAND")]
    peer_start: String,
    #[arg(long, value_name = "DIRECTORY")]
    peer_data_dir: PathBuf,
    /// A line between the servers: what connects to the first port of loopback comes out at the second; given for each.
    #[arg(long, value_name = "PORT:PORT", action = clap::ArgAction::Append)]
    link: Vec<String>,
    /// Register users with this shared secret.
    #[arg(long)]
    secret: Option<String>,
    /// What is tried, for the report.
    #[arg(long, default_value = "")]
    version: String,
    /// Minutes of load.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Percent of the capacity that is measured first.
    #[arg(long, default_value_t = 50.0)]
    load: f64,
    /// Messages a second, in place of that.
    #[arg(long)]
    rate: Option<f64>,
    /// Let a third of the readers use sockets of Hearth's stream.
    #[arg(long)]
    stream: bool,
    /// Shell command that prints lines of a name and a number, which are looked at too.
    #[arg(long, value_name = "COMMAND")]
    probe: Option<String>,
    /// Write all that was seen here, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the table here.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draw it here, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

impl Options {
    /// True when nothing was lost and nothing grew.
    pub(crate) async fn run(self) -> Result<bool> {
        let mut links = Vec::new();
        for link in &self.link {
            let (listen, target) = link.split_once(':').context("--link wants PORT:PORT")?;
            let at = |port: &str| anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], port.parse()?)));
            let listener = TcpListener::bind(at(listen)?).await.with_context(|| listen.to_owned())?;
            links.push(Link::new(listener, at(target)?));
        }
        let server = |address: &str, start: &str, data: &PathBuf| {
            anyhow::Ok(Server::new(resolve(address)?, Some(start.to_owned()), Vec::new(), vec![data.clone()]))
        };
        let here = server(&self.address, &self.start, &self.data_dir)?;
        let there = server(&self.peer_address, &self.peer_start, &self.peer_data_dir)?;
        let report = Report::new("soak".to_owned(), self.version.clone());
        let mut bench = Bench::new(here, Some(there), self.secret.clone(), report);
        bench.server.start().await?;
        bench.peer.as_mut().context("there is a peer")?.start().await?;

        let mut soak = self.soak(&mut bench, &links).await?;
        if Duration::from_secs_f64(soak.seconds) >= JUDGED_FROM {
            soak.judge();
        } else {
            eprintln!("soak: too short to judge what grows; whether anything was lost is judged");
        }
        for server in std::iter::once(&mut bench.server).chain(&mut bench.peer) {
            if let Err(error) = server.stop().await {
                soak.failures.push(format!("stopping: {error:#}"));
            }
        }
        if let Some(path) = &self.json {
            crate::write(path, &serde_json::to_string_pretty(&soak)?)?;
        }
        let table = picture::table(&soak);
        if let Some(path) = &self.markdown {
            crate::write(path, &table)?;
        }
        if let Some(path) = &self.plot {
            crate::write(path, &picture::drawing(&soak))?;
        }
        print!("{table}");
        Ok(soak.is_good())
    }

    async fn soak(&self, bench: &mut Bench, links: &[Link]) -> Result<Soak> {
        eprintln!("soak: making people and rooms …");
        let plan = Plan { local: 6, local_there: 2, shared: 6, visitors: 4, stream: self.stream };
        let world = World::make(bench, &plan).await?;
        let weather = world.weather();
        world.tallies.count();

        eprintln!("soak: as fast as it goes, for {} s …", CAPACITY.as_secs());
        let began = Instant::now();
        let mut talking = world.talk(CAPACITY, None);
        while talking.join_next().await.is_some() {}
        world.settle(PATIENCE).await.context("the first seconds")?;
        let capacity = world.acknowledged() as f64 / began.elapsed().as_secs_f64();
        ensure!(capacity > 0.0, "not one message was acknowledged");
        world.tallies.take(&mut Sample::default());

        let rate = self.rate.unwrap_or(capacity * self.load / 100.0);
        let duration = Duration::from_secs_f64(self.minutes * 60.0);
        eprintln!(
            "soak: {capacity:.0} messages a second reach everybody; {rate:.0} a second of {} people for {} minutes …",
            world.talkers(),
            self.minutes
        );
        let began = Instant::now();
        let mut talking = world.talk(duration, Some(rate));
        let mut soak = Soak {
            format: 1,
            version: bench.report.version.clone(),
            taken_at: bench.report.taken_at,
            machine: Machine::this(),
            seconds: duration.as_secs_f64(),
            capacity,
            rate,
            messages: 0,
            failed_requests: 0,
            samples: Vec::new(),
            verdict: Verdict::default(),
            checks: Vec::new(),
            failures: Vec::new(),
        };
        if let Err(error) = self.watch(bench, links, &world, &weather, began, &mut soak).await {
            soak.failures.push(format!("{error:#}"));
        }
        while talking.join_next().await.is_some() {}
        eprintln!("soak: waiting until everything has arrived …");
        if let Err(error) = world.settle(PATIENCE).await {
            soak.failures
                .push(format!("{error:#} (the last failure was: {})", weather.last_failure.borrow()));
        }
        soak.messages = world.acknowledged();
        soak.failed_requests = weather.failures.get();
        soak.verdict = world.finish().await;
        Ok(soak)
    }

    /// Lets things go wrong, and looks, until the time is over.
    async fn watch(
        &self,
        bench: &mut Bench,
        links: &[Link],
        world: &World,
        weather: &Rc<Weather>,
        began: Instant,
        soak: &mut Soak,
    ) -> Result<()> {
        let duration = Duration::from_secs_f64(soak.seconds);
        let every = (duration / 24).min(Duration::from_secs(10));
        let between = (duration / 15).clamp(Duration::from_secs(15), Duration::from_mins(1));
        // The last fault is over in time for what it held up to arrive under load.
        let last = duration.saturating_sub(between);
        let (mut turn, mut next_fault, mut calm_from) = (0, between, Duration::ZERO);
        let (mut look_from, mut sent_before) = (Duration::ZERO, world.acknowledged());
        let mut window = Window::open(&[&bench.server]);
        while look_from < duration {
            let look_at = (look_from + every).min(duration);
            let mut sample = Sample::default();
            while next_fault < look_at && next_fault <= last {
                let fault = Fault::of_turn(turn);
                tokio::time::sleep_until((began + next_fault).into()).await;
                fault.happen(bench, links, weather, FAULT).await.with_context(|| fault.name())?;
                sample.faults.push(fault.name().to_owned());
                calm_from = began.elapsed() + RECOVERY;
                turn += 1;
                next_fault += between;
            }
            tokio::time::sleep_until((began + look_at).into()).await;
            let now = began.elapsed();
            sample.at = now.as_secs_f64();
            sample.calm = sample.faults.is_empty() && look_from >= calm_from;
            let spent = window.close(&[&bench.server]);
            window = Window::open(&[&bench.server]);
            let seconds = spent.elapsed.as_secs_f64();
            let sent = world.acknowledged();
            sample.add("messages a second", (sent - sent_before) as f64 / seconds);
            sample.add("CPU ms a second", spent.server_each(1).map(|all| all / seconds));
            sample.add("on the way", world.on_the_way() as f64);
            sent_before = sent;
            world.tallies.take(&mut sample);
            look_at_server(&mut sample, "", &bench.server);
            if let Some(peer) = &bench.peer {
                look_at_server(&mut sample, "peer's ", peer);
            }
            self.probe(&mut sample).await;
            eprintln!("soak: {}", in_short(&sample));
            soak.samples.push(sample);
            look_from = now;
        }
        Ok(())
    }

    async fn probe(&self, sample: &mut Sample) {
        let Some(probe) = &self.probe else { return };
        // A look that fails is a figure that is missing, which the plot shows.
        let Ok(output) = Command::new("sh").arg("-c").arg(probe).output().await else { return };
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            if let Some((name, value)) = line.rsplit_once(' ') {
                sample.add(name, value.parse::<f64>().ok());
            }
        }
    }
}

/// A look as a line, for who waits.
fn in_short(sample: &Sample) -> String {
    let figure = |name: &str| sample.get(name).map_or_else(|| "–".to_owned(), number);
    let faults =
        if sample.faults.is_empty() { String::new() } else { format!("; {}", sample.faults.join(", ")) };
    format!(
        "{:.0} s: {} messages a second, delivered within {} ms (p50) and {} ms (p99), {} MiB{faults}",
        sample.at,
        figure("messages a second"),
        figure("delivery p50"),
        figure("delivery p99"),
        figure("memory")
    )
}

fn look_at_server(sample: &mut Sample, whose: &str, server: &Server) {
    let memory = server.memory().map(|memory| mebibytes(memory.resident));
    sample.add(format!("{whose}memory"), memory);
    sample.add(format!("{whose}file descriptors"), server.file_descriptors().map(|count| count as f64));
    sample.add(format!("{whose}write-ahead log"), mebibytes(server.write_ahead_log()));
    sample.add(format!("{whose}disk"), server.disk().map(mebibytes));
}

impl Tallies {
    fn count(&self) {
        for tally in [&self.local, &self.local_there, &self.shared] {
            tally.counting.set(true);
        }
    }

    /// Puts what was counted since the last time into `sample`.
    fn take(&self, sample: &mut Sample) {
        for (name, tally) in [
            ("delivery", &self.local),
            ("delivery on the peer", &self.local_there),
            ("delivery to the peer", &self.shared),
        ] {
            let latencies = tally.deliveries.take();
            sample.add(format!("{name} p50"), latencies.percentile(50));
            sample.add(format!("{name} p99"), latencies.percentile(99));
            sample.add(format!("{name} slowest"), latencies.percentile(100));
        }
        let acknowledgements = self.local.acknowledgements.take();
        sample.add("acknowledgement p50", acknowledgements.percentile(50));
        sample.add("acknowledgement p99", acknowledgements.percentile(99));
        // Taken so that they don't gather.
        self.local_there.acknowledgements.take();
        self.shared.acknowledgements.take();
    }
}
