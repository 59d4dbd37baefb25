//! `hearth config`.

use std::io::{self, Write as _};

use clap::Subcommand;
use hearth_federation::Connector;

use super::{
    Failure, Options,
    output::{self, say},
    warnings,
};
use crate::{
    config::Config,
    http::Certificate,
    peers::{SetupError, client_settings},
};

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
            files(&config)?;
            for warning in warnings() {
                let _ = writeln!(io::stderr(), "hearth: {warning}");
            }
            let file = options.file();
            let source =
                file.map_or("defaults and environment".to_owned(), |file| file.display().to_string());
            say!("{source}: good, for the server {}", config.server_name)
        }
        Command::Default => output::write(format_args!("{}", Config::default_document())),
    }
}

/// Whether the files that a configuration names are what they are to be.
fn files(config: &Config) -> Result<(), Failure> {
    for tls in config.listener.iter().filter_map(|listener| listener.tls.as_ref()) {
        Certificate::read(&tls.certificate, &tls.key)?;
    }
    Connector::new(&client_settings(&config.federation)).map_err(SetupError::from)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config = Config::parse(text, "hearth.toml", std::iter::empty()).unwrap();
        files(&config).map_err(|failure| failure.message)
    }

    #[test]
    fn files_that_the_server_could_not_start_with_are_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let text = format!("[federation]\nca_file = {:?}\n", path.display());
        for content in [None, Some("no certificate")] {
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let cause = check(&text).unwrap_err();
            assert!(cause.contains("`[federation]`") && cause.contains("ca.pem"), "{cause}");
            // Who speaks to nobody reads none.
            check(&format!("{text}enabled = false")).unwrap();
        }
    }
}
