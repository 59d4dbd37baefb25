//! Several whole Hearths in one process and on one thread, with time, a network and disks that are made up from a seed, and
//! with clients that do things by chance. In the end a judge holds all that servers have and clients were told against what
//! was acknowledged. The same seed is the same run, to the last word.
//!
//! ```text
//! hearth-simulation --seeds 100        plays the seeds 1 to 100, each in a process of its own
//! hearth-simulation --seed 7           plays the seed 7
//! hearth-simulation --seed 7 --trace   and says all that happens
//! ```

mod actor;
mod checker;
mod client;
mod costs;
mod device;
mod disk;
mod host;
mod kept;
mod keys;
mod machine;
mod network;
mod os;
mod panics;
mod receipts;
mod sliding;
mod story;
mod stream;
mod trace;
mod world;

use std::{
    io::Write as _,
    path::Path,
    process::{Command, ExitCode, Stdio, exit},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

use clap::Parser;

use crate::story::Plan;

#[derive(Parser)]
struct Options {
    /// Play one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Play so many seeds.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// How many run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Say all that happens.
    #[arg(long)]
    trace: bool,
    /// Say what the servers have in the end.
    #[arg(long)]
    dump: bool,
    /// So many servers, instead of one to three.
    #[arg(long)]
    servers: Option<usize>,
    /// How many things each person does.
    #[arg(long, default_value_t = 30)]
    acts: usize,
    /// No server crashes and no disk fails.
    #[arg(long)]
    no_crashes: bool,
    /// Disks say that they have synced, and haven't: this has to be found out.
    #[arg(long)]
    lying_disks: bool,
    /// A server panics while it answers another: this has to be found out.
    #[arg(long)]
    panics: bool,
    /// Say, and judge, what a message and a sync cost in a young room and in an old one.
    #[arg(long)]
    costs: bool,
}

impl Options {
    fn plan(&self, seed: u64) -> Plan {
        let Self { servers, acts, no_crashes, lying_disks, dump, panics, .. } = *self;
        Plan { seed, servers, acts, crashes: !no_crashes, dump, lying: lying_disks, panics }
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.costs {
        played(1, options.trace, costs::judge);
    }
    match options.seed {
        Some(seed) => {
            let plan = options.plan(seed);
            played(seed, options.trace, async move |dir: &Path| story::play(&plan, dir).await);
        }
        None => many(&options),
    }
}

/// Plays something in this process, which ends with it: nothing that is left of its servers is to end in its own way.
/// What `play` returns was wrong.
fn played(seed: u64, trace: bool, play: impl AsyncFnOnce(&Path) -> Vec<String> + Send + 'static) -> ! {
    os::register();
    panics::watch();
    if trace {
        // RUST_LOG says how much.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    }
    // Last, so that what is said takes nothing of what is drawn.
    os::seed(seed);
    // The keys of hash tables are random by thread: this one's by the seed.
    let played = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let dir = tempfile::tempdir();
        let (Ok(runtime), Ok(dir)) = (runtime, dir) else {
            return (vec!["it can't begin".to_owned()], (0, 0));
        };
        let wrong = runtime.block_on(async {
            trace::begin(trace);
            play(dir.path()).await
        });
        std::mem::forget(runtime);
        (wrong, trace::end())
    });
    let (mut wrong, (hash, lines)) = played.join().unwrap_or_default();
    wrong.extend(panics::seen().into_iter().map(|panic| format!("I8: {panic}")));
    let mut out = std::io::stdout();
    for what in &wrong {
        let _ = writeln!(out, "{what}");
    }
    let verdict = if wrong.is_empty() { "fine" } else { "WRONG" };
    let _ = writeln!(out, "{verdict}: {lines} things happened, which are {hash:016x}");
    let _ = out.flush();
    exit(i32::from(!wrong.is_empty()));
}

fn many(options: &Options) -> ExitCode {
    let (next, failed, start) = (AtomicU64::new(options.from), AtomicU64::new(0), Instant::now());
    let end = options.from + options.seeds;
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if let Some(what) = failure(options, seed) {
                        failed.fetch_add(1, Ordering::Relaxed);
                        println!("seed {seed}\n{what}\n`make sim SEED={seed}` plays it again");
                    }
                }
            });
        }
    });
    let (failed, seconds) = (failed.load(Ordering::Relaxed), start.elapsed().as_secs());
    println!("{} seeds in {seconds} s, {failed} of them wrong", options.seeds);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Plays a seed in a process of its own: what is wrong.
fn failure(options: &Options, seed: u64) -> Option<String> {
    let this = std::env::current_exe().ok()?;
    let mut command = Command::new(this);
    command.args(["--seed", &seed.to_string(), "--acts", &options.acts.to_string()]);
    if let Some(servers) = options.servers {
        command.args(["--servers", &servers.to_string()]);
    }
    let flags = [
        ("--no-crashes", options.no_crashes),
        ("--lying-disks", options.lying_disks),
        ("--panics", options.panics),
    ];
    for (flag, is_set) in flags {
        if is_set {
            command.arg(flag);
        }
    }
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(cause) => return Some(cause.to_string()),
    };
    if output.status.success() {
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().take(4000).collect::<String>();
    Some(text(&output.stdout) + &text(&output.stderr))
}
