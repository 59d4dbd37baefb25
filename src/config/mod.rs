//! The configuration of a server: a TOML file, each key of which an environment variable can override, over defaults
//! that work. It owns what keys exist and whether their values can be used; it never acts on them.
//!
//! Keys are declared in [`sections`]; everything else (parsing, errors, the commented default) follows from there.

mod document;
mod error;
mod federation;
mod listener;
mod load;
mod log;
mod sections;
mod setting;

use std::path::PathBuf;

use ruma::{OwnedServerName, owned_server_name};

use self::setting::{Setting as _, section};
pub use self::{
    error::Error,
    sections::{
        Api, Database, DelayedEvents, Federation, Limits, Listener, Log, LookUp, OpenTo, Presence, Profiles,
        QrSignIn, Rate, Registration, RegistrationMode, Retention, Rooms, ServerNotices, Stream, Support,
        UserDirectory,
    },
};

section! {
    /// All of it.
    pub struct Config {
        /// The name of this homeserver: the part behind the colon of its users' ids. It can't be changed later.
        pub server_name: OwnedServerName = owned_server_name!("localhost");
        /// Where the server keeps what it must not lose. Relative to the folder that it is started in.
        pub data_dir: PathBuf = PathBuf::from("./hearth-data");
        /// The address that clients use, if it isn't https:// and the server's name; served as /.well-known/matrix/client.
        pub public_base_url: Option<String> = None, example "\"https://matrix.example.org\"";
        /// Ports: one or more, each with a choice of what it serves.
        pub listener: Vec<Listener> = vec![Listener::default()];
        /// Where everything is stored.
        pub database: Database = Database::default();
        /// Who may create an account.
        pub registration: Registration = Registration::default();
        /// What rooms may be.
        pub rooms: Rooms = Rooms::default();
        /// How long rooms keep their history.
        pub retention: Retention = Retention::default();
        /// Events that are sent later.
        pub delayed_events: DelayedEvents = DelayedEvents::default();
        /// What users say about themselves.
        pub profiles: Profiles = Profiles::default();
        /// Who is online.
        pub presence: Presence = Presence::default();
        /// Looking for people.
        pub user_directory: UserDirectory = UserDirectory::default();
        /// What the server itself says to its users, when an administrator has something to tell them.
        pub server_notices: ServerNotices = ServerNotices::default();
        /// Rooms shared with other homeservers.
        pub federation: Federation = Federation::default();
        /// How often clients may do what costs the server something. Whoever asks too often is told when to try again.
        pub limits: Limits = Limits::default();
        /// Signing in on a new device by a QR code.
        pub qr_sign_in: QrSignIn = QrSignIn::default();
        /// Sockets that clients hold in place of `/sync`.
        pub stream: Stream = Stream::default();
        /// What goes to the log, which is the standard error output.
        pub log: Log = Log::default();
        /// Whom users can turn to; served as /.well-known/matrix/support if anything is set.
        pub support: Support = Support::default();
    }
}

impl Config {
    /// The file of the database.
    pub fn database_path(&self) -> PathBuf {
        match self.database.url.as_deref().and_then(load::sqlite_path) {
            Some(path) => path,
            None => self.data_dir.join("hearth.db"),
        }
    }

    /// Every key that has a value, as a configuration file.
    pub fn to_document(&self) -> String {
        match self.write() {
            Some(toml::Value::Table(keys)) => keys.to_string(),
            _ => String::new(),
        }
    }

    /// What is to be said of variables of the environment, by their names, that were most likely meant for a key and set none.
    pub fn ignored_variables(names: impl Iterator<Item = String>) -> Vec<String> {
        load::ignored_variables(names)
    }

    /// The names of all keys, in full.
    pub fn key_names() -> Vec<String> {
        load::names()
    }

    /// The commented default: every key with its documentation, valid as a configuration file.
    pub fn default_document() -> String {
        document::default_document()
    }
}

/// Fails unless a configuration is refused by an error that says all of this.
#[cfg(test)]
#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let error = Config::parse(text, "hearth.toml", std::iter::empty());
    let error = error.expect_err("the configuration is wrong").to_string();
    for part in parts {
        assert!(error.contains(part), "{error:?} should say {part:?}");
    }
}
