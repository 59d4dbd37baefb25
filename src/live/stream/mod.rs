//! The stream: `/sync` over one WebSocket, with requests on the same wire (`api-spec/stream.md`).
//!
//! One more reader of the queue. A socket is one task that waits for whatever comes first: a frame of the client, a new
//! entry in the user's queue, the end of a request, or time. [`socket`] owns the wire, [`frames`] what is written on it,
//! [`window`] what the client hasn't acknowledged, [`calls`] the requests at work, and [`connection`] the order of things.
//! What a method does isn't known here: it is asked of the client API ([`Methods`]), which has its twin.

mod calls;
mod close;
mod connection;
mod frames;
mod socket;
mod window;

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use metrics::{Gauge, describe_gauge, gauge};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio_util::task::TaskTracker;
use yawc::{DeflatePool, Options};

use self::connection::Connection;
pub use self::socket::Socket;
use super::syncs::{Error, Syncs};
use crate::{
    account::{Origin, Session},
    environment::Environment,
};

/// The name of the protocol (RFC 6455, 1.9).
pub const SUBPROTOCOL: &str = "hearth.v1.json";

/// Sockets that have not said yet who they are, at most.
const MOST_NEWCOMERS: usize = 4096;

/// Sockets of one device. The oldest has to go for one more: its client has most likely lost it.
const MOST_SOCKETS: usize = 16;

/// Messages below this size are not compressed: it would cost more than it saves.
const COMPRESS_FROM: usize = 512;

/// What a socket may take.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long either side may be silent before it says that it is there.
    pub heartbeat: Duration,
    /// How long a client may leave what waits for it unread or unacknowledged.
    pub patience: Duration,
    /// The largest frame that a client may send.
    pub max_frame_bytes: usize,
}

/// The largest frame that a client has to send on a server with texts of this length: an event that federates fits into the
/// first, a long local text into the second.
pub fn max_frame_bytes(max_text_chars: usize) -> usize {
    if max_text_chars * 4 <= 65_536 { 128 * 1024 } else { 512 * 1024 }
}

/// An answer or an error, as JSON.
pub type Answered = Result<Box<RawValue>, Box<RawValue>>;

/// What clients may ask for over a socket: the client API's requests, without HTTP.
pub trait Methods: Send + Sync + 'static {
    /// The names of all methods.
    fn names(&self) -> Vec<&'static str>;

    /// Starts a request. `None`: there is no such method.
    fn call(
        &self,
        session: &Session,
        method: &str,
        id: &str,
        params: &RawValue,
    ) -> Option<BoxFuture<'static, Answered>>;

    /// An error as its twin would answer it.
    fn explain(&self, cause: Error) -> Box<RawValue>;
}

/// The sockets of a device, oldest first: the number of each, and whether it has to go.
type OfDevice = VecDeque<(u64, Arc<AtomicBool>)>;

/// All sockets of the server.
pub struct Streams {
    syncs: Arc<Syncs>,
    environment: Environment,
    settings: Settings,
    options: Options,
    tasks: TaskTracker,
    newcomers: AtomicUsize,
    devices: Mutex<HashMap<i64, OfDevice>>,
    next: AtomicU64,
}

impl Streams {
    pub fn new(syncs: Arc<Syncs>, environment: Environment, settings: Settings) -> Self {
        let pool = DeflatePool::new(std::thread::available_parallelism().map_or(1, usize::from));
        let options = Options::default()
            .with_limits(settings.max_frame_bytes + 1, settings.max_frame_bytes + 1)
            .with_fragment_timeout(settings.heartbeat)
            .with_low_latency_compression()
            .server_no_context_takeover()
            .client_no_context_takeover()
            .with_compression_threshold(COMPRESS_FROM)
            .with_deflate_pool(pool)
            .with_read_buffer_capacity(512)
            .with_write_buffer_capacity(512);
        Self {
            syncs,
            environment,
            settings,
            options,
            tasks: TaskTracker::new(),
            newcomers: AtomicUsize::new(0),
            devices: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// How sockets are spoken on.
    pub fn options(&self) -> Options {
        self.options.clone()
    }

    /// A place for a socket that is about to open, unless too many haven't said yet who they are.
    pub fn admit(self: &Arc<Self>) -> Option<Newcomer> {
        let newcomer = Newcomer(Arc::clone(self));
        (self.newcomers.fetch_add(1, Ordering::Relaxed) < MOST_NEWCOMERS).then_some(newcomer)
    }

    /// Serves a socket to its end. `session` is known already if the request to open it had a token.
    pub fn serve(
        self: &Arc<Self>,
        newcomer: Newcomer,
        socket: impl Future<Output = Option<Socket>> + Send + 'static,
        session: Option<Session>,
        origin: Origin,
        methods: Arc<dyn Methods>,
    ) {
        let streams = Arc::clone(self);
        self.tasks.spawn(async move {
            let Some(socket) = socket.await else { return };
            let _open = Open::new();
            Box::new(Connection::new(streams, newcomer, socket, session, origin, methods)).run().await;
        });
    }

    /// Waits until the last socket is closed. To be called once the end is announced.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// How many sockets are open.
    pub fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Enters a socket of a user's device. It is woken when it has to make room.
    fn enter(self: &Arc<Self>, device: i64, recipient: i64) -> Entered {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let leave = Arc::<AtomicBool>::default();
        let mut devices = self.devices.lock();
        let sockets = devices.entry(device).or_default();
        sockets.push_back((number, Arc::clone(&leave)));
        let oldest = (sockets.len() > MOST_SOCKETS).then(|| sockets.pop_front()).flatten();
        drop(devices);
        if let Some((_, oldest)) = oldest {
            oldest.store(true, Ordering::Release);
            self.syncs.queues.tails().nudge(recipient);
        }
        Entered { streams: Arc::clone(self), device, number, leave }
    }
}

/// What Prometheus is told.
const SOCKETS: &str = "hearth_stream_sockets";
static SOCKETS_OPEN: LazyLock<Gauge> = LazyLock::new(|| {
    describe_gauge!(SOCKETS, "Open sockets of the stream");
    gauge!(SOCKETS)
});

/// A socket that is counted while it is open.
struct Open;

impl Open {
    fn new() -> Self {
        SOCKETS_OPEN.increment(1);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        SOCKETS_OPEN.decrement(1);
    }
}

/// A socket that has not said yet who it is.
pub struct Newcomer(Arc<Streams>);

impl Drop for Newcomer {
    fn drop(&mut self) {
        self.0.newcomers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A socket among those of its device.
struct Entered {
    streams: Arc<Streams>,
    device: i64,
    number: u64,
    leave: Arc<AtomicBool>,
}

impl Entered {
    /// Whether it has to make room for a newer one.
    fn has_to_leave(&self) -> bool {
        self.leave.load(Ordering::Acquire)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut devices = self.streams.devices.lock();
        if let Some(sockets) = devices.get_mut(&self.device) {
            sockets.retain(|(number, _)| *number != self.number);
            if sockets.is_empty() {
                devices.remove(&self.device);
            }
        }
    }
}
