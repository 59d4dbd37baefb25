//! The network between the servers, at the level of requests: each takes its time on the way there and the way back, on
//! either of which it can get lost, and sometimes arrives twice. One way between two servers can be cut while the other isn't.

use std::{
    collections::BTreeMap,
    fmt,
    future::pending,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hearth::testing::simulation::{Wire, in_step};
use hearth_federation::{ClientError, KeyFetch, Response, ServerRequest, SignedRequest, SigningKey, Task};
use http::{Request, header};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use ruma::{MilliSecondsSinceUnixEpoch, ServerName};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{host::Host, trace::note};

/// How long a request may take that doesn't say it, as the program has it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Where transactions go.
const SEND: &str = "/_matrix/federation/v1/send/";

/// How one way from a server to another is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) cut: bool,
    /// How many of a thousand get lost.
    pub(crate) lossy: u32,
    /// How many of a thousand arrive twice.
    pub(crate) doubled: u32,
    /// The longest delay, in milliseconds.
    pub(crate) delay: u64,
}

impl Link {
    pub(crate) const FINE: Self = Self { cut: false, lossy: 0, doubled: 0, delay: 20 };
}

pub(crate) struct Net {
    links: Mutex<BTreeMap<(usize, usize), Link>>,
    chance: Mutex<StdRng>,
    hosts: Mutex<Vec<Weak<Host>>>,
    /// Whoever is sent the next transaction panics at it.
    panics: AtomicBool,
}

impl Net {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let chance = Mutex::new(StdRng::seed_from_u64(seed));
        Arc::new(Self {
            links: Mutex::default(),
            chance,
            hosts: Mutex::default(),
            panics: AtomicBool::new(false),
        })
    }

    pub(crate) fn add(&self, host: &Arc<Host>) {
        self.hosts.lock().push(Arc::downgrade(host));
    }

    pub(crate) fn set(&self, from: usize, to: usize, link: Link) {
        note!("the way {from} to {to} is {link:?}");
        self.links.lock().insert((from, to), link);
    }

    pub(crate) fn heal(&self) {
        note!("the network heals");
        self.links.lock().clear();
    }

    pub(crate) fn plant_panic(&self) {
        self.panics.store(true, Ordering::SeqCst);
    }

    fn host(&self, name: &str) -> Option<Arc<Host>> {
        self.hosts.lock().iter().filter_map(Weak::upgrade).find(|host| host.name == name)
    }

    /// Passes one way. What gets lost never arrives.
    async fn pass(&self, from: usize, to: usize) {
        let link = self.links.lock().get(&(from, to)).copied().unwrap_or(Link::FINE);
        let (delay, lost) = {
            let mut chance = self.chance.lock();
            (chance.random_range(1..=link.delay), chance.random_range(0..1000) < link.lossy)
        };
        sleep(Duration::from_millis(delay)).await;
        // It may have been cut meanwhile.
        let cut = self.links.lock().get(&(from, to)).is_some_and(|link| link.cut);
        if cut || lost {
            pending::<()>().await;
        }
    }

    fn is_doubled(&self, from: usize, to: usize) -> bool {
        let doubled = self.links.lock().get(&(from, to)).map_or(0, |link| link.doubled);
        doubled > 0 && self.chance.lock().random_range(0..1000) < doubled
    }
}

/// The way from a server, in one of its lives, to all others.
pub(crate) struct Way {
    pub(crate) net: Arc<Net>,
    pub(crate) from: usize,
    pub(crate) name: String,
    pub(crate) key: SigningKey,
    pub(crate) dead: Arc<AtomicBool>,
}

impl Way {
    async fn exchange(&self, server: &ServerName, request: &ServerRequest) -> Result<Response, ClientError> {
        if self.dead.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        assert!(!in_step(), "I6: {} asks {server} while a room waits", self.name);
        let Some(to) = self.net.host(server.as_str()) else {
            sleep(Duration::from_millis(20)).await;
            return Err(ClientError::Broken("there is no such server".to_owned()));
        };
        let method = request.method().as_str();
        let path = request.uri().split('?').next().unwrap_or_default();
        note!("{} asks {}: {method} {path}{}", self.name, to.name, Pdus(request));
        let built = self.build(server, request)?;
        self.net.pass(self.from, to.index).await;
        let panics = path.starts_with(SEND) && self.net.panics.swap(false, Ordering::SeqCst);
        let answer = tokio::spawn({
            let (to, built) = (Arc::clone(&to), built.clone());
            async move {
                assert!(!panics, "on purpose");
                to.answer(built).await
            }
        });
        if self.net.is_doubled(self.from, to.index) {
            let (net, to, from) = (Arc::clone(&self.net), Arc::clone(&to), self.from);
            tokio::spawn(async move {
                net.pass(from, to.index).await;
                to.answer(built).await
            });
        }
        let answer = answer.await.ok().flatten();
        let Some(answer) = answer else {
            return Err(ClientError::Broken("nobody is there".to_owned()));
        };
        self.net.pass(to.index, self.from).await;
        if self.dead.load(Ordering::SeqCst) {
            pending::<()>().await;
        }
        note!("{} hears from {}: {} for {path}", self.name, to.name, answer.status().as_u16());
        let (parts, body) = answer.into_parts();
        Ok(Response { status: parts.status, headers: parts.headers, body })
    }

    fn build(&self, server: &ServerName, request: &ServerRequest) -> Result<Request<Bytes>, ClientError> {
        let body = request.body().unwrap_or_default().to_owned();
        let mut built = Request::builder()
            .method(request.method())
            .uri(request.uri())
            .header(header::HOST, server.as_str())
            .header(header::CONTENT_TYPE, "application/json");
        if request.is_signed() {
            let us =
                ServerName::parse(&*self.name).map_err(|cause| ClientError::Request(cause.to_string()))?;
            let signed = SignedRequest {
                method: request.method().as_str(),
                uri: request.uri(),
                origin: &us,
                destination: server,
                content: request.body(),
            };
            built = built.header(header::AUTHORIZATION, signed.sign(&self.key)?);
        }
        built.body(body.into()).map_err(|cause| ClientError::Request(cause.to_string()))
    }
}

impl Wire for Way {
    fn send<'a>(
        &'a self,
        server: &'a ServerName,
        request: ServerRequest,
    ) -> Task<'a, Result<Response, ClientError>> {
        Box::pin(async move {
            let patience = request.patience().unwrap_or(PATIENCE);
            let answer = timeout(patience, self.exchange(server, &request)).await;
            let answer = answer.unwrap_or(Err(ClientError::TimedOut))?;
            if answer.status.is_success() { Ok(answer) } else { Err(refused(&answer)) }
        })
    }
}

/// The events of a transaction.
struct Pdus<'a>(&'a ServerRequest);

impl fmt::Display for Pdus<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.uri().starts_with(SEND) {
            return Ok(());
        }
        let body: Value = serde_json::from_str(self.0.body().unwrap_or_default()).unwrap_or_default();
        for pdu in body["pdus"].as_array().into_iter().flatten() {
            let what = &pdu["content"]["body"];
            write!(out, " {} {} {what}", pdu["type"], pdu["sender"])?;
        }
        for edu in body["edus"].as_array().into_iter().flatten() {
            write!(out, " {}", edu["edu_type"])?;
        }
        Ok(())
    }
}

fn refused(answer: &Response) -> ClientError {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    ClientError::Refused {
        status: answer.status,
        errcode: text("errcode"),
        message: text("error"),
        retry_after_ms: body["retry_after_ms"].as_u64(),
    }
}

impl KeyFetch for Way {
    fn ask_server<'a>(&'a self, server: &'a ServerName) -> Task<'a, Result<String, String>> {
        Box::pin(async move {
            let request = ServerRequest::get("/_matrix/key/v2/server").unsigned();
            let answer = self.send(server, request).await.map_err(|cause| cause.to_string())?;
            String::from_utf8(answer.body.into()).map_err(|cause| cause.to_string())
        })
    }

    fn ask_notary<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a ServerName,
        _: &'a [String],
        _: MilliSecondsSinceUnixEpoch,
    ) -> Task<'a, Result<String, String>> {
        Box::pin(async { Err("there are no notaries".to_owned()) })
    }
}
