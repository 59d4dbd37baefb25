//! The services of a running server, put together once at the start.
//!
//! Only handlers see this whole; a service is given just what it needs.

use std::sync::Arc;

use ruma::OwnedServerName;
use tokio::task::JoinHandle;

use crate::{
    account::{self, Accounts, Sessions},
    config::Config,
    environment::Environment,
    http::{Limits, Shutdown},
    queue::{Queues, Tails},
    store::{self, Store},
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
    /// Set when the server is about to stop. Whoever waits for news looks at it when woken, and answers.
    pub shutdown: Shutdown,
    pub sessions: Sessions,
    pub accounts: Arc<Accounts>,
}

impl Hearth {
    /// Opens the database and starts the services. The task is the database's writer, see [`Store::open`].
    pub async fn start(
        config: Config,
        environment: Environment,
    ) -> Result<(App, JoinHandle<()>), store::Error> {
        let tails = Arc::new(Tails::new(environment.entropy.number()));
        let subscriber: Arc<dyn store::Subscriber> = Arc::<Tails>::clone(&tails);
        let (store, writer) =
            Store::open(&config.database_path(), config.database.synchronous, subscriber).await?;
        tails.start_at(store.head_at_start());
        let queues = Queues::new(tails, store.clone());
        let sessions = Sessions::new(store.clone(), queues.clone(), environment.clone());
        let settings = account::Settings {
            server_name: config.server_name.clone(),
            registration: config.registration.mode,
            shared_secret: config.registration.shared_secret.clone(),
        };
        let accounts = Accounts::new(settings, store.clone(), sessions.clone(), environment.clone());
        let app = Self {
            server_name: config.server_name.clone(),
            limits: Limits::new(&config.limits),
            shutdown: Shutdown::default(),
            accounts: Arc::new(accounts),
            sessions,
            queues,
            store,
            environment,
            config,
        };
        Ok((Arc::new(app), writer))
    }
}
