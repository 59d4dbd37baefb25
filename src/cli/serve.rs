//! `hearth serve`: from a configuration to a running server, and to its end.
//!
//! The order matters. Whatever can fail (the lock, the ports, certificates, the database) is tried before a port is
//! open; at the end ports close first, then requests finish, then the database's writer.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    future::pending,
    io::{self, IsTerminal as _},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpSocket,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    time::{interval, sleep, timeout},
};
use tracing::{debug, error, info, warn};
use tracing_subscriber::EnvFilter;

use super::{Failure, Options, backup, output::say, warnings};
use crate::{
    api,
    app::{App, Hearth},
    config::{Api, Config, RegistrationMode},
    environment::Environment,
    http::{Certificate, Ending, Listener, Recorder, Site, announce},
    shutdown::Shutdown,
    store,
};

/// How long requests may take to finish once the server has been told to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// How long connections may take to end once they are cut off.
const CUT: Duration = Duration::from_secs(1);
/// In how many parts that time is counted.
const NAPS: u32 = 100;
/// How often memory is tidied.
const TIDY: Duration = Duration::from_secs(5);

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    let config = options.load()?;
    start_log(&config);
    for warning in warnings() {
        warn!("{warning}");
    }
    raise_limit_of_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(serve(config, options));
    // Work that is left (a password hash of a client that is gone) is nobody's any more.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Each connection is a file. What the system lets a program open unless it asks for more is often 1024, for the sake of
/// programs that know no higher numbers.
fn raise_limit_of_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(cause) = setrlimit(Resource::Nofile, wanted) {
        debug!(%cause, limit = limit.current, "the limit of open files can't be raised");
    }
}

fn start_log(config: &Config) {
    // The rules of rooms tell of each check that passed: two lines an event, unless asked for by name.
    let filter = format!("ruma_state_res=warn,{}", config.log.filter);
    // It was checked with the rest of the configuration, so nothing gets lost here.
    let filter = EnvFilter::builder().parse_lossy(filter);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        // What can't be written to the log can't be told there either.
        .log_internal_errors(false)
        .init();
}

async fn serve(config: Config, options: &Options) -> Result<(), Failure> {
    let recorder = Recorder::install()?;
    check_first_start(&config)?;
    prepare(&config.data_dir)?;
    let _lock = lock(&config.data_dir)?;
    let sockets = bind(&config)?;
    let certificates = certificates(&config)?;
    // Before the ports open: whoever sees an open port may stop the server.
    let mut stop = StopSignals::listen()?;

    let environment = Environment::real();
    let (app, mut writer) = Hearth::start(config, environment).await?;
    if let Err(cause) = app.sliding.take_over().await {
        warn!(%cause, "connections of sliding sync are not as they were left: their clients begin anew");
    }
    let (alive, mut all_gone) = mpsc::channel(1);
    let ending = Ending { shutdown: app.shutdown.clone(), cut: Shutdown::default(), alive };
    let bound = sockets.iter().map(TcpSocket::local_addr).collect::<Result<Vec<_>, _>>()?;
    welcome(&app, options, &address(&app.config, &bound)).await?;
    if app.config.federation.enabled && !app.config.federation.verify_tls {
        warn!(
            "`federation.verify_tls = false`: anybody on the way to other servers can read and change everything"
        );
    }
    let mut background = app.background();
    for ((listener, socket), certificate) in app.config.listener.iter().zip(sockets).zip(certificates) {
        let apis: BTreeSet<Api> = listener.serve.iter().copied().collect();
        let router = api::router(Arc::clone(&app), &apis, Some(&recorder));
        let secure = listener.tls.is_some();
        let site = Site::new(router, listener.behind_proxy, secure, app.environment.entropy.number());
        let tls = certificate.as_ref().map(Certificate::server_config).transpose()?;
        if let Some(certificate) = certificate {
            background.spawn(certificate.keep_fresh());
        }
        let (address, encrypted) = (socket.local_addr()?, tls.is_some());
        let listener = Listener::new(socket, tls, site);
        listener.run(ending.clone()).map_err(|cause| cannot_listen(address, &cause))?;
        announce(address, encrypted);
    }
    let cut = ending.cut.clone();
    drop(ending);
    background.spawn(tidy(Arc::clone(&app), recorder));

    let mut outcome = tokio::select! {
        name = stop.next() => {
            info!(signal = name, "stopping");
            Ok(())
        }
        ended = &mut writer => Err(writer_failed(ended)),
    };

    if !drain(&app, &mut all_gone, DRAIN).await {
        warn!("some requests took too long to finish and are cut off");
        cut.set();
        let _ = timeout(CUT, all_gone.recv()).await;
    }
    // Its handles on the database go with it.
    background.shutdown().await;
    if let Err(cause) = app.sessions.flush().await {
        warn!(%cause, "could not write down when devices were last seen");
    }
    app.presence.flush().await;
    if let Err(cause) = app.sliding.hand_over().await {
        warn!(%cause, "connections of sliding sync are not written down: their clients begin anew");
    }
    app.store.close().await;
    drop(app);
    if outcome.is_ok() {
        outcome = match timeout(DRAIN, writer).await {
            Ok(Ok(())) => Ok(()),
            Ok(ended) => Err(writer_failed(ended)),
            Err(_) => {
                warn!("something still holds the database; nothing that was acknowledged is lost");
                Ok(())
            }
        };
    }
    outcome
}

fn writer_failed(ended: Result<(), tokio::task::JoinError>) -> Failure {
    let cause = ended.err().map_or("it ended".to_owned(), |cause| cause.to_string());
    error!(%cause, "the database's writer failed: nothing can be stored any more");
    Failure::new(format!("the database's writer failed ({cause}); see the log, then start again"))
}

/// Whether a server without a database may be made one.
///
/// One that has a key isn't new: clients and other servers know what it would have forgotten. The first start makes the key only
/// once there is a database, so one that was cut short looks otherwise.
pub(super) fn check_first_start(config: &Config) -> Result<(), Failure> {
    let (database, key) = (config.database_path(), config.data_dir.join(backup::KEY));
    if store::is_there(&database) {
        return Ok(());
    }
    if !key.exists() {
        return check_new_name(config.server_name.as_str());
    }
    let (database, key) = (database.display(), key.display());
    Err(Failure::new(format!(
        "the database {database} is missing or empty, and there is the signing key {key} of a server that had one: see whether \
         `data_dir` and `database.url` are right, or put a backup in its place (`hearth restore`); to begin anew, as a server \
         that has forgotten everything, move the key away"
    )))
}

/// Names are compared letter by letter, and what leads to a server by the DNS is not.
fn check_new_name(name: &str) -> Result<(), Failure> {
    let lower = name.to_ascii_lowercase();
    if name == lower {
        return Ok(());
    }
    Err(Failure::new(format!(
        "`server_name = {name}` has capitals, which a new server's name mustn't have: write `{lower}`"
    )))
}

/// The data folder, for nobody but the server's user if it is made now.
pub(super) fn prepare(data_dir: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir);
    made.map_err(|cause| {
        let data_dir = data_dir.display();
        Failure::new(format!(
            "`data_dir = {data_dir}` can't be made: {cause}; make it, or set `data_dir` to another"
        ))
    })
}

/// Two servers on one database would each believe that they alone give out positions.
pub(super) fn lock(data_dir: &Path) -> Result<File, Failure> {
    let path = data_dir.join("hearth.lock");
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|cause| {
        let path = path.display();
        Failure::new(format!(
            "{path} can't be written: {cause}; give the server's user write access to its folder"
        ))
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(store::Error::InUse(data_dir.display().to_string()).into()),
        Err(TryLockError::Error(cause)) => {
            Err(Failure::new(format!("{} can't be locked: {cause}", path.display())))
        }
    }
}

fn bind(config: &Config) -> Result<Vec<TcpSocket>, Failure> {
    let sockets = config
        .listener
        .iter()
        .map(|listener| Listener::bind(listener.bind).map_err(|cause| cannot_listen(listener.bind, &cause)));
    sockets.collect()
}

fn cannot_listen(address: SocketAddr, cause: &io::Error) -> Failure {
    let remedy = match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "; another program, or another `listener` of this one, has it: stop that, or set another `listener.bind`"
        }
        io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to use them",
        io::ErrorKind::AddrNotAvailable => "; this machine doesn't have that address",
        _ => "",
    };
    Failure::new(format!("can't listen on {address}: {cause}{remedy}"))
}

/// What each listener shows, if it speaks TLS.
fn certificates(config: &Config) -> Result<Vec<Option<Arc<Certificate>>>, Failure> {
    let certificates = config.listener.iter().map(|listener| {
        let tls = listener.tls.as_ref();
        tls.map(|tls| Certificate::read(&tls.certificate, &tls.key)).transpose()
    });
    Ok(certificates.collect::<Result<_, _>>()?)
}

/// What somebody who starts a server for the first time has to know: its address, and how to make the first account.
async fn welcome(app: &App, options: &Options, address: &str) -> Result<(), Failure> {
    let by_token = app.config.registration.mode == RegistrationMode::Token;
    if !by_token || !serves_clients(&app.config) {
        return welcome_to_command_line(app, options, address).await;
    }
    let Some(token) = app.accounts.first_token().await? else {
        return Ok(());
    };
    // Whoever can't read it makes an account by the command line.
    let _ = say!(
        "
  Hearth is ready for its first account, which will be the administrator's.

    Homeserver           {address}
    Registration token   {token}

  Open a Matrix client, give it that homeserver, and register with that token. It works once.
"
    );
    Ok(())
}

/// The same where nobody could register with a token, or it would be worth nothing.
async fn welcome_to_command_line(app: &App, options: &Options, address: &str) -> Result<(), Failure> {
    if app.store.has_accounts().await? {
        return Ok(());
    }
    let config = options.config.as_ref().map(|file| format!(" --config {}", file.display()));
    let config = config.unwrap_or_default();
    let _ = say!(
        "
  Hearth is ready for its first account.

    Homeserver           {address}

  Make the administrator's by the command line:

    hearth user create NAME --admin{config}
"
    );
    Ok(())
}

fn serves_clients(config: &Config) -> bool {
    config.listener.iter().any(|listener| listener.serve.contains(&Api::Client))
}

/// The address to give to a client on this machine.
fn address(config: &Config, bound: &[SocketAddr]) -> String {
    if let Some(url) = &config.public_base_url {
        return url.clone();
    }
    let mut listeners = config.listener.iter().zip(bound);
    let Some((listener, bound)) = listeners.find(|(listener, _)| listener.serve.contains(&Api::Client))
    else {
        return "(no listener serves clients)".to_owned();
    };
    let scheme = if listener.tls.is_some() { "https" } else { "http" };
    // Every address, and the addresses of this machine alone, are reached as localhost from here.
    let host = if bound.ip().is_unspecified() || bound.ip().is_loopback() {
        "localhost".to_owned()
    } else {
        SocketAddr::new(bound.ip(), 0).to_string().trim_end_matches(":0").to_owned()
    };
    format!("{scheme}://{host}:{}", bound.port())
}

/// How the operator or the system ends the server.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    /// The terminal is gone; none if that is to be nothing (`nohup`).
    hang_up: Option<Signal>,
}

impl StopSignals {
    /// From here on a signal is heard, and no longer ends the process on the spot.
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) },
        })
    }

    /// The name of the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
            _ = async {
                match &mut self.hang_up {
                    Some(hang_up) => hang_up.recv().await,
                    None => pending().await,
                }
            } => "SIGHUP",
        }
    }
}

/// Whether whoever started this program has it ignore that the terminal is gone.
fn ignores_hang_up() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal 1 is the lowest bit.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Lets requests finish: those that wait for news at once, others within a time. That is counted in naps, so that a
/// standstill takes only one of them, and those who could be answered only after it still are. Whether all have finished.
async fn drain(app: &App, all_gone: &mut mpsc::Receiver<()>, time: Duration) -> bool {
    app.shutdown.set();
    let finished = async {
        // Nothing is ever sent: the last connection closes it. Sockets are no longer connections.
        let _ = all_gone.recv().await;
        app.streams.drained().await;
    };
    let over = async {
        for _ in 0..NAPS {
            // Again and again, for a request that was being read when it was announced may begin to wait only now.
            app.queues.tails().nudge_all();
            sleep(time / NAPS).await;
        }
    };
    tokio::select! {
        biased;
        () = finished => true,
        () = over => false,
    }
}

/// Keeps memory bounded: budgets and queues' ends that nobody needs any more, and metrics that wait to be counted.
async fn tidy(app: App, recorder: Recorder) {
    let mut ticks = interval(TIDY);
    loop {
        ticks.tick().await;
        app.limits.sweep();
        app.queues.tails().sweep();
        recorder.digest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_finish_though_the_machine_stands_still_for_longer_than_they_may_take() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::parse("federation.enabled = false", "", std::iter::empty()).unwrap();
        folder.path().clone_into(&mut config.data_dir);
        let (app, _writer) = Hearth::start(config, Environment::real()).await.unwrap();
        let time = Duration::from_millis(200);
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        // The only thread, so that nobody else gets anywhere meanwhile.
        tokio::spawn(async move {
            std::thread::sleep(2 * time);
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            drop(alive);
        });
        assert!(drain(&app, &mut all_gone, time).await);
    }
}
