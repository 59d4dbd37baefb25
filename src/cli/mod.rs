//! The command line: what can be asked of the program, and how it says that something went wrong. Exit codes: 0 for
//! success, 1 for a failure, 2 for a command line or configuration that can't be used.

mod config;
mod serve;

use std::{fmt, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::config::Config;

/// A Matrix homeserver in one program.
#[derive(Parser)]
#[command(
    name = "hearth",
    version,
    about,
    max_term_width = 100,
    after_help = "\
Examples:
  hearth serve                         serve on 127.0.0.1:8008, data in ./hearth-data
  hearth config default > hearth.toml  start a configuration file; hearth.toml is found by itself
  hearth serve --config /etc/hearth/hearth.toml"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until it is told to stop (SIGINT or SIGTERM)
    Serve(Options),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
}

/// What every command takes.
#[derive(Args)]
struct Options {
    /// The configuration file [default: hearth.toml in this folder, if there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Options {
    /// The file that was named, or the one that is there.
    fn file(&self) -> Option<PathBuf> {
        let usual = || Some(PathBuf::from("hearth.toml")).filter(|path| path.exists());
        self.config.clone().or_else(usual)
    }

    fn load(&self) -> Result<Config, Failure> {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Config::load(self.file().as_deref(), variables)
            .map_err(|cause| Failure { code: 2, message: cause.to_string() })
    }
}

/// Why a command failed, for whoever gave it.
struct Failure {
    code: u8,
    message: String,
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self { code: 1, message: cause.to_string() }
    }
}

impl Failure {
    fn new(message: impl fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::Config(command) => config::run(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            eprintln!("hearth: {message}");
            ExitCode::from(code)
        }
    }
}
