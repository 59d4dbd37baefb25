//! The services of a running server, put together once at the start.
//!
//! Only handlers see this whole; a service is given just what it needs.

use std::{sync::Arc, time::Duration};

use ruma::OwnedServerName;
use tokio::task::{JoinHandle, JoinSet};

use crate::{
    account::{self, Accounts, Sessions},
    api,
    config::Config,
    environment::Environment,
    handshakes::Handshakes,
    history::History,
    inbound::Inbound,
    keys::{Everywhere, Followed, KeyBackups, Keys, Resyncs, ToDevice, backup},
    limits::Limits,
    live::{
        Syncs,
        sliding::Sliding,
        stream::{self, Streams},
    },
    outbound::{Destinations, Outbound},
    peers::{self, OwnKeys, Peers},
    presence::{self, Presence},
    queue::{self, Queues, Tails},
    receipts::Receipts,
    rendezvous::{self, Rendezvous},
    room::{
        self, Lifetimes, Policy, Rooms,
        delayed::{self, DelayedEvents},
        notices::{self, Notices},
    },
    shutdown::Shutdown,
    signing_key,
    store::{self, Store},
    typing::Typing,
};

/// What each handler gets.
pub type App = Arc<Hearth>;

pub struct Hearth {
    pub config: Config,
    pub server_name: OwnedServerName,
    pub environment: Environment,
    pub store: Store,
    pub peers: Arc<Peers>,
    pub queues: Queues,
    pub limits: Arc<Limits>,
    /// Set when the server is about to stop. Whoever waits for news looks at it when woken, and answers.
    pub shutdown: Shutdown,
    pub sessions: Sessions,
    pub accounts: Arc<Accounts>,
    pub rooms: Arc<Rooms>,
    pub handshakes: Handshakes,
    pub outbound: Arc<Outbound>,
    pub history: Arc<History>,
    pub inbound: Arc<Inbound>,
    pub keys_everywhere: Arc<Everywhere>,
    resyncs: Arc<Resyncs>,
    pub delayed: Arc<DelayedEvents>,
    pub notices: Notices,
    pub key_backups: Arc<KeyBackups>,
    pub rendezvous: Rendezvous,
    pub receipts: Arc<Receipts>,
    pub keys: Arc<Keys>,
    pub to_device: Arc<ToDevice>,
    pub typing: Arc<Typing>,
    pub presence: Arc<Presence>,
    pub syncs: Arc<Syncs>,
    pub streams: Arc<Streams>,
    pub sliding: Arc<Sliding>,
}

/// Why a server can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Names of users and rooms end in the server's name: it can't change.
    #[error(
        "the database belongs to the server {name}, but `server_name` is {configured}: set it back, or give this server a `data_dir` of its own"
    )]
    OtherServer { name: String, configured: String },
    #[error(transparent)]
    SigningKey(#[from] signing_key::Error),
    #[error(transparent)]
    Peers(#[from] peers::SetupError),
    #[error(transparent)]
    Rooms(#[from] room::Error),
}

impl Config {
    fn presence_settings(&self) -> presence::Settings {
        let section = &self.presence;
        let times = presence::Times {
            idle: i64::from(section.idle_after_ms),
            grace: i64::from(section.offline_after_ms),
        };
        presence::Settings { enabled: section.enabled, times }
    }

    /// Who speaks for the server.
    fn notices(&self) -> Option<notices::Settings> {
        let section = &self.server_notices;
        let user_id = account::new_user_id(section.localpart.as_deref()?, &self.server_name).ok()?;
        Some(notices::Settings {
            user_id,
            display_name: section.display_name.clone(),
            avatar_url: section.avatar_url.clone(),
            room_name: section.room_name.clone(),
        })
    }

    /// How long rooms keep their history; `None`: for ever.
    fn lifetimes(&self) -> Option<Lifetimes> {
        let section = &self.retention;
        // The configuration has nothing over a thousand years.
        let ms = |seconds: u64| 1000 * seconds as i64;
        section.enabled.then(|| Lifetimes {
            default: section.default_lifetime_seconds.map(ms),
            shortest: ms(section.shortest_lifetime_seconds),
            longest: section.longest_lifetime_seconds.map(ms),
        })
    }
}

impl Hearth {
    /// Opens the database and starts the services. The task is the database's writer, see [`Store::open`].
    pub async fn start(
        config: Config,
        environment: Environment,
    ) -> Result<(App, JoinHandle<()>), StartError> {
        let tails = Arc::new(Tails::new(environment.entropy.number()));
        let subscriber: Arc<dyn store::Subscriber> = Arc::<Tails>::clone(&tails);
        let (store, writer) = Store::open_on(
            environment.machine.clone(),
            &config.database_path(),
            config.database.synchronous,
            subscriber,
        )
        .await?;
        tails.start_at(store.head_at_start());
        let queues = Queues::new(tails, store.clone());
        let sessions = Sessions::new(store.clone(), queues.clone(), environment.clone());
        let settings = account::Settings {
            server_name: config.server_name.clone(),
            registration: config.registration.mode,
            guests: config.registration.guests,
            shared_secret: config.registration.shared_secret.clone(),
            reserved: config.notices().map(|notices| notices.user_id),
        };
        let accounts =
            Arc::new(Accounts::new(settings, store.clone(), sessions.clone(), environment.clone()));
        let notices = config.notices();
        let policy = Policy {
            default_version: config.rooms.default_version.clone(),
            max_members: config.rooms.max_members as usize,
            max_text_chars: config.rooms.max_text_chars as usize,
            federate: config.federation.enabled,
            notices: notices.as_ref().map(|notices| notices.user_id.clone()),
            retention: config.lifetimes(),
        };
        // A key comes before the name that it signs for, so a database that has the name has had the key.
        if store.owner().await?.is_none() {
            signing_key::load_or_make(&config.data_dir, &*environment.entropy)?;
        }
        let (name, epoch) = store.identity(config.server_name.as_str(), environment.entropy.number()).await?;
        if name != config.server_name {
            return Err(StartError::OtherServer { name, configured: config.server_name.to_string() });
        }
        let key = Arc::new(signing_key::load(&config.data_dir)?);
        let own = OwnKeys { key: Arc::clone(&key), old: signing_key::load_old(&config.data_dir, &key)? };
        let (name, federation) = (config.server_name.clone(), &config.federation);
        let peers = Peers::new(name, own, federation, store.clone(), &environment)?;
        let destinations = Destinations::load(store.clone()).await?;
        let rooms = Rooms::new(
            store.clone(),
            Arc::clone(&accounts),
            environment.clone(),
            Arc::clone(&destinations),
            config.server_name.clone(),
            Arc::clone(&key),
            policy,
        )
        .await?;
        let rooms = Arc::new(rooms);
        rooms.ask_policy_servers_by(Arc::<Peers>::clone(&peers));
        let outbound = Outbound::new(
            config.server_name.clone(),
            Arc::clone(&peers),
            Arc::clone(&rooms),
            store.clone(),
            queues.clone(),
            environment.clone(),
            Arc::clone(&destinations),
        );
        let history = Arc::new(History::new(Arc::clone(&peers), Arc::clone(&rooms)));
        let handshakes = Handshakes::new(
            config.server_name.clone(),
            key,
            Arc::clone(&peers),
            Arc::clone(&rooms),
            Arc::clone(&accounts),
            environment.clone(),
        );
        let delayed = DelayedEvents::new(
            store.clone(),
            Arc::clone(&rooms),
            environment.clone(),
            delayed::Limits {
                max_delay: i64::from(config.delayed_events.max_delay_seconds) * 1000,
                max_scheduled: i64::from(config.delayed_events.max_scheduled),
            },
            api::explain_delayed,
        );
        let notices = Notices::new(store.clone(), Arc::clone(&accounts), Arc::clone(&rooms), notices);
        let limits = Limits::new(&config.limits);
        limits.load(&store).await?;
        let typing = Typing::new(queues.clone());
        let presence = Presence::new(
            config.presence_settings(),
            store.clone(),
            Arc::clone(&accounts),
            &queues,
            &environment,
        );
        let to_device = ToDevice::new(
            config.server_name.clone(),
            store.clone(),
            Arc::clone(&accounts),
            Arc::clone(&peers),
            Arc::clone(&destinations),
            queues.clone(),
            environment.clone(),
        );
        let receipts = Arc::new(Receipts::new(store.clone(), Arc::clone(&rooms), environment.clone()));
        let inbound = Inbound::new(
            store.clone(),
            Arc::clone(&peers),
            Arc::clone(&rooms),
            Arc::clone(&history),
            Arc::clone(&typing),
            Arc::clone(&presence),
            Arc::clone(&receipts),
            Arc::clone(&to_device),
        );
        let keys =
            Arc::new(Keys::new(store.clone(), config.server_name.clone(), sessions.device_lists().clone()));
        let resyncs = Resyncs::new(store.clone(), Arc::clone(&peers), environment.clone());
        let lists = sessions.device_lists().clone();
        inbound.hear_lists_by(Arc::new(Followed::new(store.clone(), lists, Arc::clone(&resyncs))));
        let everywhere =
            Everywhere::new(store.clone(), Arc::clone(&keys), Arc::clone(&peers), Arc::clone(&resyncs));
        let shutdown = Shutdown::default();
        let syncs = Syncs::new(
            store.clone(),
            Arc::clone(&rooms),
            Arc::clone(&accounts),
            sessions.clone(),
            queues.clone(),
            Arc::clone(&typing),
            Arc::clone(&presence),
            Arc::clone(&to_device),
            Arc::clone(&keys),
            epoch,
            shutdown.clone(),
        );
        let syncs = Arc::new(syncs);
        let settings = stream::Settings {
            heartbeat: Duration::from_millis(u64::from(config.stream.heartbeat_ms)),
            patience: Duration::from_millis(u64::from(config.stream.patience_ms)),
            max_frame_bytes: stream::max_frame_bytes(config.rooms.max_text_chars as usize),
        };
        let key_backups = Arc::new(KeyBackups::new(store.clone(), backup::Limits::default()));
        let app = Self {
            sliding: Arc::new(Sliding::new(Arc::clone(&syncs))),
            streams: Arc::new(Streams::new(Arc::clone(&syncs), environment.clone(), settings)),
            receipts,
            keys,
            to_device,
            typing,
            presence,
            server_name: config.server_name.clone(),
            peers,
            limits: Arc::new(limits),
            shutdown,
            syncs,
            accounts,
            delayed: Arc::new(delayed),
            notices,
            key_backups,
            rendezvous: Rendezvous::new(environment.clone(), rendezvous::Limits::default()),
            keys_everywhere: Arc::new(everywhere),
            resyncs,
            handshakes,
            outbound,
            history,
            inbound,
            rooms,
            sessions,
            queues,
            store,
            environment,
            config,
        };
        Ok((Arc::new(app), writer))
    }

    /// Starts what a server does beside answering. The command line doesn't: it has to end. Ends with the set.
    pub fn background(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let (queues, environment) = (self.queues.clone(), self.environment.clone());
        tasks.spawn(queue::keep_trimmed(queues, environment, self.shutdown.clone()));
        let rooms = Arc::clone(&self.rooms);
        tasks.spawn(async move { rooms.run_departures().await });
        let rooms = Arc::clone(&self.rooms);
        tasks.spawn(async move { rooms.keep_indexed().await });
        let (rooms, shutdown) = (Arc::clone(&self.rooms), self.shutdown.clone());
        let every = Duration::from_secs(self.config.retention.purge_interval_seconds);
        tasks.spawn(async move { rooms.keep_purged(every, shutdown).await });
        let (backups, shutdown) = (Arc::clone(&self.key_backups), self.shutdown.clone());
        tasks.spawn(async move { backups.keep_purged(shutdown).await });
        tasks.spawn(Arc::clone(&self.delayed).run(self.shutdown.clone()));
        tasks.spawn(Arc::clone(&self.to_device).keep_bounded(self.shutdown.clone()));
        tasks.spawn(self.sessions.clone().watch());
        let lists = self.sessions.device_lists().clone();
        self.rooms.count_arrivals_in(lists.arrivals());
        tasks.spawn(lists.run(self.rooms.arrivals(), self.shutdown.clone()));
        tasks.spawn(Arc::clone(&self.presence).run());
        if self.config.federation.enabled {
            tasks.spawn(Arc::clone(&self.outbound).run(self.shutdown.clone()));
            tasks.spawn(Arc::clone(&self.outbound).keep_swept(self.shutdown.clone()));
            tasks.spawn(Arc::clone(&self.resyncs).run(self.shutdown.clone()));
            let (sender, ends) = tokio::sync::mpsc::unbounded_channel();
            self.typing.send_outward(sender);
            tasks.spawn(Arc::clone(&self.outbound).tell_timed_out(ends));
            if self.config.presence.federate {
                let (sender, news) = tokio::sync::mpsc::unbounded_channel();
                self.presence.send_outward(sender);
                tasks.spawn(Arc::clone(&self.outbound).tell_presence(news));
            }
            tasks.spawn(Arc::clone(&self.presence).introduce(self.rooms.arrivals()));
        }
        let (limits, store, noticed) =
            (Arc::clone(&self.limits), self.store.clone(), self.sessions.noticed());
        let (outbound, key_backups) = (Arc::clone(&self.outbound), Arc::clone(&self.key_backups));
        tasks.spawn(async move {
            loop {
                noticed.notified().await;
                key_backups.some_are_doomed();
                if let Err(cause) = outbound.look_again().await {
                    tracing::warn!(%cause, "which servers are to be tried again can't be read");
                }
                if let Err(cause) = limits.load(&store).await {
                    tracing::warn!(%cause, "the limits of single accounts can't be read: those of before hold");
                }
            }
        });
        tasks
    }
}
