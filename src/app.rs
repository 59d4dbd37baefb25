//! The services of a running server, put together once at the start.
//!
//! Only handlers see this whole; a service is given just what it needs.

use std::sync::Arc;

use ruma::OwnedServerName;

use crate::{
    account::{Accounts, Sessions},
    config::Config,
    environment::Environment,
    http::Limits,
    queue::Queues,
    store::Store,
};

/// What each handler gets.
pub type App = Arc<Hearth>;

pub struct Hearth {
    pub config: Config,
    pub server_name: OwnedServerName,
    pub environment: Environment,
    pub store: Store,
    pub queues: Queues,
    pub limits: Limits,
    pub sessions: Sessions,
    pub accounts: Accounts,
}
