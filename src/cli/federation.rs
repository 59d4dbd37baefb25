//! `hearth federation`: the servers that events are sent to. Works while the server runs, and while it doesn't.

use clap::Subcommand;

use super::{Failure, Options, offline, span};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the servers that were ever sent something, with what is wrong with those that don't take it
    List(Options),
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    let Command::List(options) = command;
    offline(&options, async |app| {
        let now = app.environment.clock.now_ms();
        for server in app.store.destinations().await? {
            let state = match (server.behind, server.failures) {
                (true, _) => "behind",
                (false, 0) => "up to date",
                (false, _) => "failing",
            };
            print!("{}  {state}", server.server);
            if server.failures > 0 {
                let wait = span((server.retry_ts - now).max(0) as u64);
                print!("  {} failures in a row, tried again in {wait}", server.failures);
            }
            println!();
            if let Some(error) = server.error {
                println!("    {}", error.escape_debug());
            }
        }
        Ok(())
    })
}
