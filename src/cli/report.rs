//! `hearth report`: what users have reported. Works while the server runs, and while it doesn't.

use clap::{Args, Subcommand};

use super::{Failure, Options, offline, output::say};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List reports of events, rooms and users, the newest first
    List(List),
}

#[derive(Args)]
pub(super) struct List {
    /// How many, at most
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    let Command::List(list) = command;
    offline(&list.options, async |app| {
        let reports = app.store.reports(list.limit).await?;
        if reports.is_empty() {
            say!("nobody has reported anything")?;
        }
        for report in reports {
            let about = [&report.room_id, &report.event_id, &report.user_id];
            let about: Vec<&str> = about.into_iter().flatten().map(String::as_str).collect();
            say!("{}  {}  {}", report.created_ts, report.reporter, about.join(" "))?;
            for line in report.reason.lines() {
                say!("    {}", line.escape_debug())?;
            }
        }
        Ok(())
    })
}
