//! `hearth doctor`: what is wrong between this server and another one, or between this one and everybody, and what to do.
//! Works while the server runs, and while it doesn't. It asks as the server would, and remembers nothing.

mod examine;
mod own;
mod report;

use clap::Args;
use ruma::OwnedServerName;

use self::report::Report;
use super::{Failure, Options, offline};

#[derive(Args)]
pub(super) struct Command {
    /// The server to look at, by its name [default: this one, as others see it]
    server: Option<OwnedServerName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    options: Options,
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    offline(&command.options, async |app| {
        let server = command.server.as_ref().unwrap_or(&app.server_name);
        let mut report = Report::new(server.as_str(), command.json);
        if *server == app.server_name {
            own::examine(&app, &mut report).await;
        } else {
            examine::other(&app, server, &mut report).await;
        }
        if report.close()? { Ok(()) } else { Err(Failure::silent(1)) }
    })
}
