//! The command line: what can be asked of the program, and how it says that something went wrong. Exit codes: 0 for
//! success, 1 for a failure, 2 for a command line or configuration that can't be used.

// `say!` is the one way.
#![deny(clippy::print_stdout)]

mod backup;
mod config;
mod doctor;
mod federation;
mod key;
mod output;
mod report;
mod serve;
mod token;
mod user;

use std::{
    fmt,
    fs::File,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use rustix::{fs::Mode, process::umask};

use crate::{
    app::{App, Hearth},
    config::Config,
    environment::Environment,
    store,
};

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
  hearth serve --config /etc/hearth/hearth.toml
  hearth token create --uses 1         let somebody make an account
  hearth user create alice             make an account
  hearth doctor                        find out whether other servers reach this one
  hearth doctor matrix.org             find out whether this one reaches another
  hearth backup /backup/monday         copy all that the server holds, while it runs"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server until it is told to stop (SIGINT, SIGTERM or SIGHUP)
    Serve(Options),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Create, change and list accounts
    #[command(subcommand)]
    User(user::Command),
    /// Create, list and revoke registration tokens
    #[command(subcommand)]
    Token(token::Command),
    /// Find out what is wrong between this server and others
    Doctor(doctor::Command),
    /// Look at the servers that this one sends to
    #[command(subcommand)]
    Federation(federation::Command),
    /// Look at the key that this server signs with, or replace it
    #[command(subcommand)]
    Key(key::Command),
    /// Look at what users have reported
    #[command(subcommand)]
    Report(report::Command),
    /// Copy all that the server holds into a new folder. The server may run meanwhile
    Backup(backup::Backup),
    /// Put a backup in the place of what a server has lost
    Restore(backup::Restore),
}

// What every command takes. Not its documentation: a command that has none of its own would show it.
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
        Config::load(self.file().as_deref(), variables())
            .map_err(|cause| Failure { code: 2, message: cause.to_string() })
    }

    /// The configuration of a server that was started before. In another folder there is none, and whoever looks at it there
    /// doesn't mean to make one.
    fn load_existing(&self) -> Result<Config, Failure> {
        let config = self.load()?;
        let database = config.database_path();
        if store::is_there(&database) {
            return Ok(config);
        }
        let database = database.display();
        Err(Failure::new(format!("there is no database {database}: is this the right configuration?")))
    }
}

/// The environment, as far as it is text.
fn variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// What looks as if it were configured, and isn't.
fn warnings() -> Vec<String> {
    Config::ignored_variables(variables().map(|(name, _)| name))
}

/// Why a command failed, for whoever gave it.
struct Failure {
    code: u8,
    /// Empty if nothing is to be said.
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

    /// All has been said already, or there is nobody to say it to.
    fn silent(code: u8) -> Self {
        Self { code, message: String::new() }
    }
}

/// A time in milliseconds, for people.
fn span(milliseconds: u64) -> String {
    let minutes = milliseconds / 60_000;
    match minutes {
        0..2 => format!("{} seconds", milliseconds / 1000),
        2..120 => format!("{minutes} minutes"),
        120..2880 => format!("{} hours", minutes / 60),
        _ => format!("{} days", minutes / 60 / 24),
    }
}

/// Opens the database beside a server that may be running, does something with its services and waits until all of it
/// is stored. Neither answers requests nor waits for any.
fn offline<F>(options: &Options, work: F) -> Result<(), Failure>
where
    F: AsyncFnOnce(App) -> Result<(), Failure>,
{
    with_services(options.load_existing()?, work)
}

/// As [`offline`], for what may come before the first start of the server, and makes it then.
fn offline_or_first<F>(options: &Options, work: F) -> Result<(), Failure>
where
    F: AsyncFnOnce(App) -> Result<(), Failure>,
{
    let config = options.load()?;
    serve::check_first_start(&config)?;
    with_services(config, work)
}

fn with_services<F>(config: Config, work: F) -> Result<(), Failure>
where
    F: AsyncFnOnce(App) -> Result<(), Failure>,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        serve::prepare(&config.data_dir)?;
        let alone = lock_to_upgrade(&config)?;
        let (app, writer) = Hearth::start(config, Environment::real()).await?;
        drop(alone);
        work(app).await?;
        Ok(writer.await?)
    })
}

/// The lock of the server, if opening the database would change its schema: a server goes on with the one that it was started
/// with.
fn lock_to_upgrade(config: &Config) -> Result<Option<File>, Failure> {
    if !store::is_behind(&config.database_path())? {
        return Ok(None);
    }
    serve::lock(&config.data_dir).map(Some).map_err(|failure| Failure {
        message: format!(
            "the database is of an earlier version than this program, and so may be the server that uses it: restart that \
             first ({})",
            failure.message
        ),
        ..failure
    })
}

/// Does what the command line says.
pub fn run() -> ExitCode {
    // What it writes is what people have told each other, and keys: nobody else on the machine reads it.
    umask(Mode::RWXG | Mode::RWXO);
    let outcome = match Cli::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::Config(command) => config::run(command),
        Command::User(command) => user::run(command),
        Command::Token(command) => token::run(command),
        Command::Doctor(command) => doctor::run(&command),
        Command::Federation(command) => federation::run(command),
        Command::Key(command) => key::run(command),
        Command::Report(command) => report::run(command),
        Command::Backup(command) => backup::make(&command),
        Command::Restore(command) => backup::restore(&command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                // Who can't be told sees the exit code.
                let _ = writeln!(io::stderr(), "hearth: {message}");
            }
            ExitCode::from(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::CommandFactory as _;

    use super::*;

    /// `hearth COMMAND --help` says what that command does, and not what all of them take.
    #[test]
    fn every_command_has_words_of_its_own() {
        fn look(command: &clap::Command, found: &mut BTreeSet<String>) {
            for below in command.get_subcommands() {
                let about = below.get_about().map(ToString::to_string).unwrap_or_default();
                assert!(!about.is_empty(), "{} {}", command.get_name(), below.get_name());
                assert!(found.insert(about), "{} {}", command.get_name(), below.get_name());
                look(below, found);
            }
        }
        let mut found = BTreeSet::new();
        look(&Cli::command(), &mut found);
        assert!(found.len() > 20, "{found:?}");
        assert!(!found.contains("What every command takes"));
    }
}
