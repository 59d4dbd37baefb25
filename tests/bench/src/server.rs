//! The server under measurement, seen from outside: its processes, their CPU time and memory, and its data directory.
//!
//! Owns the process when it was given a command to start it with, and can then restart it; other processes that it was told
//! of (a database's, or those of a server that already runs) it only looks at. It never speaks Matrix but for asking whether the server answers.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::process::{Child, Command};

use crate::connection::Connection;

/// Linux reports CPU times to programs in hundredths of a second on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: u32 = 100;

/// How long a server may take to start or to stop.
const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    command: Option<String>,
    child: Option<Child>,
    /// Processes that belong to the server, beside the one that was started.
    further: Vec<u32>,
    data_dirs: Vec<PathBuf>,
}

#[derive(Clone, Copy)]
pub(crate) enum Signal {
    Terminate,
    /// Stands still until it is told to continue.
    Stop,
    Continue,
}

/// Bytes of the server's process tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// What is shared by several processes counts in each of them.
    pub(crate) resident: u64,
    /// Resident, with shared pages divided among their sharers: what a server of several processes takes.
    pub(crate) proportional: u64,
    /// The most that was ever resident.
    pub(crate) peak: u64,
}

impl Server {
    pub(crate) fn new(
        address: SocketAddr,
        command: Option<String>,
        further: Vec<u32>,
        data_dirs: Vec<PathBuf>,
    ) -> Self {
        Self { address, command, child: None, further, data_dirs }
    }

    pub(crate) fn can_restart(&self) -> bool {
        self.command.is_some()
    }

    /// Whether there is a process to look at now.
    pub(crate) fn is_known(&self) -> bool {
        self.child.is_some() || !self.further.is_empty()
    }

    /// Starts the server and returns the time from there to its first answer.
    pub(crate) async fn start(&mut self) -> Result<Duration> {
        let command = self.command.as_ref().context("no --start command was given")?;
        let began = Instant::now();
        // `exec`, so that the process that is measured and stopped is the server and not a shell.
        let mut child = Command::new("sh")
            .arg("-c")
            .arg(format!("exec {command}"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting the server")?;
        loop {
            if answers(self.address).await {
                break;
            }
            if let Some(status) = child.try_wait()? {
                bail!("the server ended with {status} instead of starting: {command}");
            }
            if began.elapsed() > PATIENCE {
                bail!("the server did not answer within {} s: {command}", PATIENCE.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.child = Some(child);
        Ok(began.elapsed())
    }

    /// Asks the server to end (SIGTERM) and waits until it has.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::Terminate).await?;
        let Some(mut child) = self.child.take() else { return Ok(()) };
        if let Ok(status) = tokio::time::timeout(PATIENCE, child.wait()).await {
            status?;
        } else {
            child.kill().await?;
            bail!("the server ignored SIGTERM for {} s", PATIENCE.as_secs());
        }
        Ok(())
    }

    /// Sends a signal to the process that was started, if it lives.
    pub(crate) async fn signal(&self, signal: Signal) -> Result<()> {
        let Some(pid) = self.child.as_ref().and_then(Child::id) else { return Ok(()) };
        let name = match signal {
            Signal::Terminate => "-TERM",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        let status = Command::new("kill").arg(name).arg(pid.to_string()).status().await?;
        ensure!(status.success(), "kill {name} {pid} ended with {status}");
        Ok(())
    }

    /// Ends it without a word (SIGKILL), as a loss of power does.
    pub(crate) async fn kill(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        child.kill().await.map_err(Into::into)
    }

    pub(crate) async fn restart(&mut self) -> Result<Duration> {
        self.stop().await?;
        self.start().await
    }

    /// All processes of the server, as of now.
    fn processes(&self) -> Vec<u32> {
        let started = self.child.as_ref().and_then(Child::id);
        let roots: Vec<u32> = started.into_iter().chain(self.further.iter().copied()).collect();
        tree(&roots)
    }

    /// CPU time, user and system, that the processes have used since they began; children that ended are included.
    fn cpu(&self) -> Option<Duration> {
        let processes = self.processes();
        // A process may end between being listed and being read.
        let ticks: u64 = processes.iter().filter_map(|pid| cpu_ticks(*pid)).sum();
        (!processes.is_empty()).then(|| Duration::from_secs(ticks) / TICKS_PER_SECOND)
    }

    pub(crate) fn memory(&self) -> Option<Memory> {
        let mut memory = Memory { resident: 0, proportional: 0, peak: 0 };
        for pid in self.processes() {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            memory.resident += kibibytes(&status, "VmRSS:") * 1024;
            memory.peak += kibibytes(&status, "VmHWM:") * 1024;
            memory.proportional += kibibytes(&rollup, "Pss:") * 1024;
        }
        (memory.resident > 0).then_some(memory)
    }

    /// Files and sockets that the processes have open.
    pub(crate) fn file_descriptors(&self) -> Option<usize> {
        let processes = self.processes();
        let open = |pid: &u32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        (!processes.is_empty()).then(|| processes.iter().map(open).sum())
    }

    /// Bytes of SQLite's write-ahead logs.
    pub(crate) fn write_ahead_log(&self) -> u64 {
        let entries = self.data_dirs.iter().flat_map(fs::read_dir).flatten().flatten();
        let logs = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with("-wal"));
        logs.filter_map(|log| log.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Bytes of disk that the data occupies, write-ahead logs included.
    pub(crate) fn disk(&self) -> Option<u64> {
        (!self.data_dirs.is_empty())
            .then(|| self.data_dirs.iter().map(|directory| allocated(directory)).sum())
    }
}

/// A stretch of time in which something is counted, and what it cost.
pub(crate) struct Window {
    began: Instant,
    server: Option<Duration>,
    load: Duration,
}

/// What passed between the two ends of a [`Window`].
pub(crate) struct Spent {
    pub(crate) elapsed: Duration,
    /// CPU time of the servers; `None` if their processes are not known.
    server: Option<Duration>,
    /// CPU time of this process: what the load took from the machine that it shares with the server.
    load: Duration,
}

impl Window {
    pub(crate) fn open(servers: &[&Server]) -> Self {
        Self { server: cpu_of(servers), load: own_cpu(), began: Instant::now() }
    }

    /// `servers` are those that it was opened with.
    pub(crate) fn close(self, servers: &[&Server]) -> Spent {
        let elapsed = self.began.elapsed();
        let used = cpu_of(servers).zip(self.server).map(|(after, before)| after.saturating_sub(before));
        Spent { elapsed, server: used, load: own_cpu().saturating_sub(self.load) }
    }
}

impl Spent {
    /// The server's CPU for each of `count`, in milliseconds.
    pub(crate) fn server_each(&self, count: usize) -> Option<f64> {
        (count > 0).then_some(self.server?.as_secs_f64() * 1000.0 / count as f64)
    }

    /// The load's CPU for each of `count`, in milliseconds.
    pub(crate) fn load_each(&self, count: usize) -> Option<f64> {
        (count > 0).then_some(self.load.as_secs_f64() * 1000.0 / count as f64)
    }
}

fn cpu_of(servers: &[&Server]) -> Option<Duration> {
    servers.iter().map(|server| server.cpu()).sum()
}

fn own_cpu() -> Duration {
    Duration::from_secs(cpu_ticks(std::process::id()).unwrap_or(0)) / TICKS_PER_SECOND
}

async fn answers(address: SocketAddr) -> bool {
    let mut connection = Connection::new(address);
    let answer = connection.request("GET", "/_matrix/client/versions", None, None);
    answer.await.is_ok_and(|response| response.status == 200)
}

/// `roots` and all their descendants.
fn tree(roots: &[u32]) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(parent) = stat_fields(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = roots.to_vec();
    let mut next = 0;
    while next < found.len() {
        found.extend(children.remove(&found[next]).unwrap_or_default());
        next += 1;
    }
    found
}

/// The fields of `/proc/PID/stat` from the state on: the command's name before it may hold anything, so it is cut off.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}

/// utime + stime + cutime + cstime: fields 14 to 17 of proc(5), 11 on from the state.
fn cpu_ticks(pid: u32) -> Option<u64> {
    stat_fields(pid)?.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

fn kibibytes(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

fn allocated(directory: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut pending = vec![directory.to_owned()];
    let mut total = 0;
    while let Some(path) = pending.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        // A file of two names is on the disk once.
        if seen.insert((metadata.dev(), metadata.ino())) {
            total += metadata.blocks() * 512;
        }
        if metadata.is_dir() {
            pending.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(command: Option<&str>, pids: Vec<u32>, data_dirs: Vec<PathBuf>) -> Server {
        // Port 9 of loopback: nothing listens on it.
        Server::new(([127, 0, 0, 1], 9).into(), command.map(str::to_owned), pids, data_dirs)
    }

    #[test]
    fn disk_counts_blocks_and_a_linked_file_once() {
        let directory = tempfile::tempdir().unwrap();
        let measured = server(None, Vec::new(), vec![directory.path().to_owned()]);
        let before = measured.disk().unwrap();
        let inner = directory.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(inner.join("a"), vec![1; 100_000]).unwrap();
        let file = fs::File::open(inner.join("a")).unwrap();
        file.sync_all().unwrap();
        fs::hard_link(inner.join("a"), inner.join("b")).unwrap();
        let grown = measured.disk().unwrap() - before;
        assert!((100_000..150_000).contains(&grown), "{grown}");
    }

    #[test]
    fn the_tree_of_a_process_includes_its_children() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let found = tree(&[std::process::id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()) && found.contains(&std::process::id()));
    }

    #[test]
    fn this_process_has_memory_and_cpu() {
        let measured = server(None, vec![std::process::id()], Vec::new());
        let memory = measured.memory().unwrap();
        assert!(memory.peak > 0 && memory.resident > 0 && memory.proportional > 0);
        assert!(measured.cpu().is_some());
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_an_error_and_not_a_wait() {
        let error = server(Some("false"), Vec::new(), Vec::new()).start().await.unwrap_err();
        assert!(error.to_string().contains("instead of starting"), "{error}");
    }
}
