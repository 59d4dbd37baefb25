//! A server of the simulation: its disk, and the lives that it has, one after another.

use std::{
    array, fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hearth::testing::simulation::Server;
use hearth_federation::SigningKey;
use http::{Request, Response};
use parking_lot::Mutex;
use tokio::{
    io::{DuplexStream, duplex},
    sync::watch,
    time::timeout,
};

use crate::{
    disk::{Disk, Faults, Loss},
    machine::Body,
    network::{Net, Way},
    os,
    trace::{self, note},
};

/// How long a server may take to start, whatever it finds.
const START: Duration = Duration::from_mins(1);
/// What may be on the way on a socket, in bytes, either way.
const ON_THE_WAY: usize = 64 * 1024;

pub(crate) struct Host {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) disk: Arc<Disk>,
    net: Arc<Net>,
    /// Real; it has the configuration and the key.
    dir: PathBuf,
    seed: u64,
    skew_ms: i64,
    slowness: Arc<AtomicU64>,
    running: Mutex<Option<(Arc<Server>, Arc<Body>)>>,
    /// Counts the ends of its lives.
    ends: watch::Sender<u64>,
    lives: AtomicU64,
    /// When its disk last failed, in time of the run: what it answers may be an error for a while.
    faulty: AtomicBool,
    failed_at: AtomicU64,
}

impl Host {
    pub(crate) fn new(
        index: usize,
        name: &str,
        net: &Arc<Net>,
        dir: PathBuf,
        seed: u64,
        skew_ms: i64,
    ) -> Arc<Self> {
        let disk = Disk::new(seed);
        os::mount(name, &disk);
        let host = Arc::new(Self {
            index,
            name: name.to_owned(),
            disk,
            net: Arc::clone(net),
            dir,
            seed,
            skew_ms,
            slowness: Arc::new(AtomicU64::new(1)),
            running: Mutex::new(None),
            ends: watch::Sender::new(0),
            lives: AtomicU64::new(0),
            faulty: AtomicBool::new(false),
            failed_at: AtomicU64::new(0),
        });
        net.add(&host);
        host
    }

    /// The path of its database on its disk.
    pub(crate) fn database(&self) -> String {
        format!("/{}/hearth.db", self.name)
    }

    /// Writes what it needs to start.
    pub(crate) fn prepare(&self, settings: &str) -> Result<(), String> {
        let seed: [u8; 32] = array::from_fn(|index| (self.seed >> (index % 8 * 8)) as u8 ^ index as u8);
        let key = SigningKey::new("a_1", seed).map_err(|cause| cause.to_string())?.to_text();
        let configuration = format!(
            "server_name = {:?}\ndata_dir = \"{}\"\n[database]\nurl = {:?}\n{settings}",
            self.name,
            self.dir.display(),
            format!("sqlite:{}", self.database()),
        );
        let write = |name: &str, text: &str| fs::write(self.dir.join(name), text);
        fs::create_dir_all(&self.dir)
            .and_then(|()| write("signing.key", &key))
            .and_then(|()| write("hearth.toml", &configuration))
            .map_err(|cause| cause.to_string())
    }

    pub(crate) async fn start(&self) -> Result<(), String> {
        let life = self.lives.fetch_add(1, Ordering::SeqCst);
        let seed = self.seed ^ (life << 32);
        let text = fs::read_to_string(self.dir.join("signing.key")).map_err(|cause| cause.to_string())?;
        let key = SigningKey::from_text(&text).map_err(|cause| cause.to_string())?;
        let (net, name) = (Arc::clone(&self.net), self.name.clone());
        let dead = Arc::new(AtomicBool::new(false));
        let way = Arc::new(Way { net, from: self.index, name, key, dead });
        let body = Body::new(seed, way, Arc::clone(&self.slowness));
        let environment = body.environment(!seed, self.skew_ms);
        let started = timeout(START, Server::start(&self.dir.join("hearth.toml"), environment)).await;
        let server = match started {
            Ok(Ok(server)) => server,
            Ok(Err(cause)) => {
                body.die();
                note!("{} can't start: {cause}", self.name);
                return Err(cause);
            }
            Err(_) => {
                body.die();
                return Err("it takes too long to start".to_owned());
            }
        };
        note!("{} starts", self.name);
        *self.running.lock() = Some((Arc::new(server), body));
        Ok(())
    }

    /// Ends its life as a loss of power or a kill does, in the midst of whatever it does.
    pub(crate) fn crash(&self, loss: Loss) {
        note!("{} crashes and loses {loss:?}", self.name);
        self.end(loss);
    }

    fn end(&self, loss: Loss) {
        if let Some((server, body)) = self.running.lock().take() {
            body.die();
            // A process that is killed runs no destructors.
            std::mem::forget(server);
        }
        self.disk.crash(loss);
        self.ends.send_modify(|ends| *ends += 1);
    }

    /// Stops as by a signal. The error is that it didn't.
    pub(crate) async fn stop(&self) -> Result<(), String> {
        let Some((server, body)) = self.running.lock().take() else { return Ok(()) };
        note!("{} stops", self.name);
        // Requests that are at work hold it for a moment.
        let mut server = server;
        for _ in 0..100 {
            match Arc::try_unwrap(server) {
                Ok(server) => {
                    server.drain().await;
                    // What isn't answered by then is cut off.
                    self.ends.send_modify(|ends| *ends += 1);
                    let stopped = server.stop().await;
                    body.die();
                    self.disk.crash(Loss::Nothing);
                    note!("{} has stopped: {stopped}", self.name);
                    return Ok(());
                }
                Err(held) => server = held,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        body.die();
        std::mem::forget(server);
        self.end(Loss::Nothing);
        Err(format!("{} is held by a request for ever", self.name))
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running.lock().is_some()
    }

    /// The answer to a request; none if its life ends before that, or has ended.
    pub(crate) async fn answer(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        let mut ends = self.ends.subscribe();
        let answer = self.running.lock().as_ref().map(|(server, _)| server.answer(request))?;
        tokio::select! {
            biased;
            _ = ends.changed() => None,
            answer = answer => Some(answer),
        }
    }

    /// A socket of the stream, with what tells of the end of the life that it is of; none if there is none.
    pub(crate) fn stream(&self) -> Option<(DuplexStream, watch::Receiver<u64>)> {
        let ends = self.ends.subscribe();
        let (ours, theirs) = duplex(ON_THE_WAY);
        self.running.lock().as_ref()?.0.stream(theirs).ok()?;
        Some((ours, ends))
    }

    /// Something goes wrong with its disk from now on, or no longer.
    pub(crate) fn set(&self, faults: Option<Faults>) {
        note!("the disk of {}: {faults:?}", self.name);
        self.faulty.store(faults.is_some(), Ordering::SeqCst);
        self.failed_at.store(trace::now() + 1, Ordering::SeqCst);
        self.disk.set(faults.unwrap_or_default());
    }

    pub(crate) fn slow(&self, times: u64) {
        self.slowness.store(times, Ordering::SeqCst);
    }

    /// Whether it may answer a request that began then with an error of its own.
    pub(crate) fn may_fail(&self, began: u64) -> bool {
        self.faulty.load(Ordering::SeqCst) || self.failed_at.load(Ordering::SeqCst) > began
    }
}
