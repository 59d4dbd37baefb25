//! `hearth key`: what this server signs its events and requests with.

use clap::Subcommand;
use ruma::serde::{Base64, base64::Standard};

use super::{Failure, Options, output::say, serve, span};
use crate::{environment::Environment, signing_key};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Print the public keys: the one in use, and those of before
    Show(Options),
    /// Make a new key. The one of before stays valid for what it has signed. The server has to be stopped
    Rotate(Options),
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Show(options) => show(&options),
        Command::Rotate(options) => rotate(&options),
    }
}

fn show(options: &Options) -> Result<(), Failure> {
    let data_dir = options.load_existing()?.data_dir;
    let key = signing_key::load(&data_dir)?;
    say!("{}  {}  in use", key.id(), key.public_key_text())?;
    let now = Environment::real().clock.now();
    for old in signing_key::load_old(&data_dir, &key)? {
        let ago = u64::from(now.get()).saturating_sub(old.expired.get().into());
        let public_key = Base64::<Standard, _>::new(old.public_key).encode();
        say!("{}  {public_key}  retired {} ago", old.key_id, span(ago))?;
    }
    Ok(())
}

fn rotate(options: &Options) -> Result<(), Failure> {
    let data_dir = options.load_existing()?.data_dir;
    // A server that runs would go on to sign with the key of before, which is worth nothing from now on.
    let _lock = serve::lock(&data_dir).map_err(|failure| Failure {
        message: format!("{}; stop the server for the moment that this takes", failure.message),
        ..failure
    })?;
    let environment = Environment::real();
    let now = environment.clock.now();
    let (old, new) = signing_key::rotate(&data_dir, now, &*environment.entropy)?;
    say!("{}  {}  in use from now on", new.id(), new.public_key_text())?;
    say!("{}  {}  retired", old.id(), old.public_key_text())?;
    say!(
        "\nStart the server. Others learn the new key by themselves, within minutes of its first request. Keep both files, \
         signing.key and signing.old: events of before are verified by the key of then."
    )
}
