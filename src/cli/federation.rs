//! `hearth federation`: the servers that events are sent to. Works while the server runs, and while it doesn't.

use clap::{Args, Subcommand};

use super::{Failure, Options, offline, output::say, span};
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
        let servers = app.store.destinations().await?;
        if servers.is_empty() {
            say!("nothing was ever sent to another server")?;
        }
        for server in servers {
            let state = match (server.behind, server.failures, waiting.get(&server.recipient)) {
                (true, ..) => "behind: it gets what it missed when it is back".to_owned(),
                (false, 0, None) => "up to date".to_owned(),
                (false, _, waiting) => format!("{} events wait", waiting.copied().unwrap_or_default()),
            };
            let failures = if server.failures > 0 {
                let (since, next) =
                    (span((now - server.failing_since).max(0) as u64), until(server.retry_ts));
                format!("; {} failures in a row for {since}, tried again in {next}", server.failures)
            } else {
                String::new()
            };
            say!("{}  {state}{failures}", server.server)?;
            if let Some(error) = server.error {
                say!("    {}", error.escape_debug())?;
            }
        }
        Ok(())
    })
}
