//! `hearth-bench`: drives a Matrix homeserver through its public client-server API and says what that cost.
//!
//! `run` measures one server and writes a report; `compare` puts reports side by side, as a table and as a plot; `soak` looks
//! for what grows or gets lost in a long time. A message that was acknowledged and then lost, duplicated or reordered makes all
//! of them end with status 1, whatever the speed. It knows nothing of Hearth's code.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod checker;
mod client;
mod connection;
mod content;
mod conversation;
mod docs;
mod latency;
mod pace;
mod plot;
mod report;
mod run;
mod scenario;
mod server;
mod soak;
mod socket;
mod svg;
mod sync;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::report::Report;
use crate::run::Run;
use crate::table::{Rows, markdown};

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
    /// Run two servers that federate at half of what they can do, while things go wrong.
    Soak(Box<soak::Options>),
    /// Print one table of several reports, the first against each of the others.
    Compare(Compare),
}

#[derive(Args)]
struct Compare {
    /// Reports that `run` wrote.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    /// Also write the table here.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Draw how many times better the first is, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Put the table into this document, between its markers.
    #[arg(long, value_name = "FILE")]
    docs: Option<PathBuf>,
    /// Another place for the plot, which the document shows.
    #[arg(long, value_name = "FILE")]
    docs_plot: Option<PathBuf>,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Run(run) => on_one_thread(run.run()),
        Command::Soak(options) => on_one_thread(options.run()),
        Command::Compare(compare) => compare.run(),
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

/// What the load takes from the shared machine is bounded, and easily told.
fn on_one_thread(work: impl Future<Output = Result<bool>>) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    tokio::task::LocalSet::new().block_on(&runtime.context("starting the runtime")?, work)
}

impl Compare {
    fn run(&self) -> Result<bool> {
        let mut reports =
            self.reports.iter().map(|path| Report::read(path)).collect::<Result<Vec<Report>>>()?;
        tell_apart(&mut reports);
        let table = markdown(&reports, Rows::Every);
        if let Some(path) = &self.markdown {
            write(path, &table)?;
        }
        let drawn = plot::of(&reports);
        if let Some(drawn) = &drawn {
            for path in self.plot.iter().chain(&self.docs_plot) {
                write(path, drawn)?;
            }
        }
        if let Some(path) = &self.docs {
            let document = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            let name = self.docs_plot.as_deref().and_then(|plot| plot.file_name()?.to_str());
            let part = docs::results(&reports, name.filter(|_| drawn.is_some()));
            write(path, &docs::put_in(&document, &part).with_context(|| path.display().to_string())?)?;
        }
        print!("{table}");
        Ok(reports.iter().all(Report::is_good))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Two reports of one server, say before and after a change, are called by their versions.
fn tell_apart(reports: &mut [Report]) {
    let names: Vec<_> = reports.iter().map(|report| report.name.clone()).collect();
    for (place, report) in reports.iter_mut().enumerate() {
        if names.iter().filter(|name| **name == report.name).count() > 1 {
            report.name = match &*report.version {
                "" => format!("{} ({})", report.name, place + 1),
                version => format!("{} {version}", report.name),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reports_of_one_server_are_called_by_their_versions() {
        let report = |name: &str, version: &str| Report::new(name.to_owned(), version.to_owned());
        let mut reports = [report("a", "1"), report("b", "1"), report("a", "")];
        tell_apart(&mut reports);
        assert_eq!(reports.map(|report| report.name), ["a 1", "b", "a (3)"]);
    }
}
