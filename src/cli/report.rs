//! `hearth report`: what users have reported. Works while the server runs, and while it doesn't.

use clap::{Args, Subcommand};

use super::{Failure, Options, offline};

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
        for report in app.store.reports(list.limit).await? {
            let about = [&report.room_id, &report.event_id, &report.user_id];
            let about: Vec<&str> = about.into_iter().flatten().map(String::as_str).collect();
            println!("{}  {}  {}", report.created_ts, report.reporter, about.join(" "));
            for line in report.reason.lines() {
                println!("    {}", line.escape_debug());
            }
        }
        Ok(())
    })
}
