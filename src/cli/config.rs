//! `hearth config`.

use std::io::Write as _;

use clap::Subcommand;

use super::{Failure, Options};
use crate::{config::Config, http::Certificate};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Check the configuration that `serve` would use, environment variables included
    Check(Options),
    /// Print every key with its documentation and default, as a configuration file
    Default,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Check(options) => {
            let config = options.load()?;
            for tls in config.listener.iter().filter_map(|listener| listener.tls.as_ref()) {
                Certificate::read(&tls.certificate, &tls.key)?;
            }
            let file = options.file();
            let source =
                file.map_or("defaults and environment".to_owned(), |file| file.display().to_string());
            println!("{source}: good, for the server {}", config.server_name);
            Ok(())
        }
        // A reader that stops early (`| head`) is no failure of ours.
        Command::Default => {
            let _ = std::io::stdout().write_all(Config::default_document().as_bytes());
            Ok(())
        }
    }
}
