//! `hearth federation`: the servers that events are sent to. Works while the server runs, and while it doesn't.

use clap::{Args, Subcommand};

use super::{Failure, Options, offline, span};
use crate::store::{self, destination::retry_now, token::tell_other_processes};

#[derive(Subcommand)]
pub(super) enum Command {
    /// List the servers that were ever sent something, with what waits for them, and what is wrong with those that don't take it
    List(Options),
    /// Try a server that fails again at once; a running server notices
    Retry(Retry),
}

#[derive(Args)]
pub(super) struct Retry {
    /// The server's name
    server: String,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::List(options) => list(&options),
        Command::Retry(retry) => {
            let statements = vec![retry_now(&retry.server), tell_other_processes()];
            offline(&retry.options, async |app| match app.store.commit(statements).await {
                Err(store::Error::Conflict) => Err(Failure::new(format!(
                    "there is nothing to try again: {:?} doesn't fail, or was never sent anything (`hearth federation list`)",
                    retry.server
                ))),
                other => Ok(other.map(drop)?),
            })
        }
    }
}

fn list(options: &Options) -> Result<(), Failure> {
    offline(options, async |app| {
        let now = app.environment.clock.now_ms();
        let until = |time: i64| span((time - now).max(0) as u64);
        let waiting = app.store.entries_for_servers().await?;
        for server in app.store.destinations().await? {
            print!("{}", server.server);
            match (server.behind, server.failures, waiting.get(&server.recipient)) {
                (true, ..) => print!("  behind: it gets what it missed when it is back"),
                (false, 0, None) => print!("  up to date"),
                (false, _, waiting) => print!("  {} events wait", waiting.copied().unwrap_or_default()),
            }
            if server.failures > 0 {
                let (since, next) =
                    (span((now - server.failing_since).max(0) as u64), until(server.retry_ts));
                print!("; {} failures in a row for {since}, tried again in {next}", server.failures);
            }
            println!();
            if let Some(error) = server.error {
                println!("    {}", error.escape_debug());
            }
        }
        Ok(())
    })
}
