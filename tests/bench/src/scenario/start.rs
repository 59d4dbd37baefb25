//! `start`: from the start of the process to its first answer, on data that is already there.
//!
//! The files are in the page cache, as they are when a server is restarted for an update; the disk itself is not measured.

use anyhow::{Result, ensure};

use super::{Bench, mebibytes};
use crate::latency::Latencies;
use crate::report::Better;

const NAME: &str = "start";

pub(crate) struct Settings {
    pub(crate) repeats: usize,
}

pub(crate) async fn run(bench: &mut Bench, settings: &Settings) -> Result<()> {
    ensure!(bench.server.can_restart(), "needs --start");
    let mut starts = Latencies::default();
    for _ in 0..settings.repeats {
        starts.record(bench.server.restart().await?);
    }
    let memory = bench.server.memory().map(|memory| mebibytes(memory.proportional));
    bench.size(NAME, format!("started {} times", settings.repeats));
    let report = &mut bench.report;
    report.add(NAME, "first answer (median)", "ms", Better::Lower, starts.percentile(50));
    report.add(NAME, "first answer (slowest)", "ms", Better::Lower, starts.percentile(100));
    report.add(NAME, "memory then", "MiB", Better::Lower, memory);
    Ok(())
}
