//! The configuration of a server.

/// All of it.
#[derive(Clone, Debug)]
pub struct Config {
    pub server_name: ruma::OwnedServerName,
}
