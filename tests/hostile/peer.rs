//! A server of the tests: real keys, a real certificate, and answers as the test says.
//!
//! It publishes its keys; whatever else it is asked is answered by what [`Peer::on`] was given, and written down.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use futures_util::stream;

use hearth_federation::{Pdu, SigningKey, own_server_keys};
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::{rt::TokioIo, server::conn::auto::Builder};
use parking_lot::Mutex;
use ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName, OwnedUserId};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, crypto::ring},
};

use crate::common::{
    Answer,
    federating::{Authority, Federating},
};

/// A request that came.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Decoded, without the query.
    pub(crate) path: String,
    /// Decoded.
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// What is answered: a status and JSON.
pub(crate) type Reply = Box<dyn Fn(&Asked) -> (u16, Value) + Send + Sync>;

pub(crate) struct Peer {
    pub(crate) name: OwnedServerName,
    pub(crate) key: SigningKey,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    /// By the beginnings of paths; the last one that fits answers.
    replies: Mutex<Vec<(String, Reply)>>,
    asked: Mutex<Vec<Asked>>,
    /// Beginnings of paths whose answers never end, and how these begin.
    endless: Mutex<Vec<(String, String)>>,
    /// Beginnings of paths that are answered when something opens.
    held: Mutex<Vec<(String, Arc<Semaphore>)>>,
    /// Chunks of [`CHUNK`] bytes of answers without end that were taken.
    chunks: AtomicUsize,
}

/// Bytes of a part of an answer that never ends.
pub(crate) const CHUNK: usize = 256 * 1024;

impl Drop for Peer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(crate) fn now() -> MilliSecondsSinceUnixEpoch {
    MilliSecondsSinceUnixEpoch::now()
}

/// What a server of that name shows.
pub(crate) fn acceptor(authority: &Authority, name: &str) -> TlsAcceptor {
    let dir = tempfile::tempdir().unwrap();
    let (certificate, private) = authority.certify(name, dir.path());
    let certificate = CertificateDer::from_pem_file(certificate).unwrap();
    let private = PrivateKeyDer::from_pem_file(private).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

pub(crate) fn wire(pdu: &Pdu) -> Value {
    serde_json::from_str(pdu.json.get()).unwrap()
}

impl Peer {
    pub(crate) async fn start(authority: &Authority) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let acceptor = acceptor(authority, "127.0.0.1");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = OwnedServerName::try_from(format!("127.0.0.1:{port}")).unwrap();
        let mut seed = [7; 32];
        seed[..8].copy_from_slice(&NUMBER.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        let key = SigningKey::new("peer", seed).unwrap();

        let shared = Arc::new(Shared::default());
        let document = own_server_keys(&name, &[&key], &[], now());
        let document: Value = serde_json::from_str(&document).unwrap();
        shared.on("/_matrix/key/v2/server", Box::new(move |_| (200, document.clone())));
        shared.on("/_matrix/federation/v1/send/", Box::new(|_| (200, json!({ "pdus": {} }))));
        let served = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            // They end with it.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, shared) = (acceptor.clone(), Arc::clone(&served));
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                    // Whoever goes away amid an answer is the test's own doing.
                    let builder = Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { name, key, shared, serving }
    }

    /// A user of this server.
    pub(crate) fn user(&self, name: &str) -> OwnedUserId {
        OwnedUserId::try_from(format!("@{name}:{}", self.name)).unwrap()
    }

    /// Answers what begins with `path` so from now on.
    pub(crate) fn on(&self, path: &str, reply: impl Fn(&Asked) -> (u16, Value) + Send + Sync + 'static) {
        self.shared.on(path, Box::new(reply));
    }

    /// Answers what begins with `path` only once what is returned is closed.
    pub(crate) fn hold(&self, path: &str) -> Arc<Semaphore> {
        let held = Arc::new(Semaphore::new(0));
        self.shared.held.lock().push((path.to_owned(), Arc::clone(&held)));
        held
    }

    /// Answers what begins with `path` with `start` and then spaces without end.
    pub(crate) fn never_ends(&self, path: &str, start: &str) {
        self.shared.endless.lock().push((path.to_owned(), start.to_owned()));
    }

    /// Bytes that were taken of answers without end.
    pub(crate) fn taken(&self) -> usize {
        self.shared.chunks.load(Ordering::Relaxed) * CHUNK
    }

    /// What was asked whose path begins so.
    pub(crate) fn asked(&self, path: &str) -> Vec<Asked> {
        self.shared.asked.lock().iter().filter(|asked| asked.path.starts_with(path)).cloned().collect()
    }

    /// Asks a server, with a right signature.
    pub(crate) async fn request(
        &self,
        server: &Federating,
        method: Method,
        uri: &str,
        body: Option<&Value>,
    ) -> Answer {
        server.signed(self.name.as_str(), &self.key, method, uri, body).await
    }

    /// Sends a transaction.
    pub(crate) async fn send(&self, server: &Federating, pdus: &[Value], edus: &[Value]) -> Answer {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let uri = format!("/_matrix/federation/v1/send/{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let body = json!({ "origin": self.name, "origin_server_ts": now(), "pdus": pdus, "edus": edus });
        self.request(server, Method::PUT, &uri, Some(&body)).await
    }
}

impl Shared {
    fn on(&self, path: &str, reply: Reply) {
        self.replies.lock().push((path.to_owned(), reply));
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let path = decoded(request.uri().path());
    let query = decoded(request.uri().query().unwrap_or_default());
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let body = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or(Value::Null);
    let asked = Asked { path, query, body };
    let (status, body) = {
        let replies = shared.replies.lock();
        let fits = replies.iter().rev().find(|(path, _)| asked.path.starts_with(path));
        fits.map_or((404, json!({ "errcode": "M_NOT_FOUND", "error": "nothing" })), |(_, reply)| {
            reply(&asked)
        })
    };
    let endless = {
        let endless = shared.endless.lock();
        endless.iter().find(|(path, _)| asked.path.starts_with(path)).map(|(_, start)| start.clone())
    };
    let held = {
        let held = shared.held.lock();
        held.iter().find(|(path, _)| asked.path.starts_with(path)).map(|(_, held)| Arc::clone(held))
    };
    shared.asked.lock().push(asked);
    if let Some(held) = held {
        // It is never given anything but closed.
        let _ = held.acquire().await;
    }
    if let Some(start) = endless {
        return Ok(Response::new(without_end(shared, start)));
    }
    let mut response = Response::new(Full::new(body.to_string().into()).boxed());
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    Ok(response)
}

fn without_end(shared: Arc<Shared>, start: String) -> BoxBody<Bytes, Infallible> {
    let spaces = Bytes::from(vec![b' '; CHUNK]);
    let chunks = stream::unfold(Some(Bytes::from(start)), move |start| {
        let chunk = start.unwrap_or_else(|| {
            shared.chunks.fetch_add(1, Ordering::Relaxed);
            spaces.clone()
        });
        async { Some((Ok(Frame::data(chunk)), None)) }
    });
    StreamBody::new(chunks).boxed()
}
