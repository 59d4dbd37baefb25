//! Many servers in one process: each has a name of its own (an address of the loopback network), keys and a certificate. They
//! say their keys and take whatever they are sent; or, once they are told to be silent, they take connections and never say
//! a word.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use hearth_federation::{SigningKey, own_server_keys};
use http::Response;
use http_body_util::Full;
use hyper::{body::Bytes, service::service_fn};
use hyper_util::{rt::TokioIo, server::conn::auto::Builder};
use ruma::{OwnedServerName, OwnedUserId};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    common::federating::Authority,
    peer::{Peer, acceptor, now},
    room::{Room, Shared},
};

pub(crate) struct Crowd {
    pub(crate) servers: Vec<Arc<Server>>,
    silent: Arc<AtomicBool>,
    taken: Arc<AtomicU64>,
    serving: JoinHandle<()>,
}

pub(crate) struct Server {
    pub(crate) name: OwnedServerName,
    pub(crate) key: SigningKey,
    document: String,
    acceptor: TlsAcceptor,
}

impl Server {
    fn new(authority: &Authority, address: Ipv4Addr, port: u16, number: u32) -> Self {
        let name = OwnedServerName::try_from(format!("{address}:{port}")).unwrap();
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&number.to_le_bytes());
        let key = SigningKey::new("crowd", seed).unwrap();
        let document = own_server_keys(&name, &[&key], &[], now());
        Self { name, key, document, acceptor: acceptor(authority, &address.to_string()) }
    }

    pub(crate) fn user(&self, name: &str) -> OwnedUserId {
        OwnedUserId::try_from(format!("@{name}:{}", self.name)).unwrap()
    }
}

impl Crowd {
    /// A room that a peer keeps, with somebody of each of these servers.
    pub(crate) fn room(&self, peer: &Peer, name: &str) -> Shared {
        let shared = Room::new(peer, "11", name);
        let mut room = shared.lock();
        for server in &self.servers {
            room.signs(&server.name, &server.key);
            let user = server.user("user");
            room.put(&user, "m.room.member", user.as_str(), json!({ "membership": "join" }));
        }
        drop(room);
        peer.keeps(&shared);
        shared
    }

    pub(crate) async fn start(authority: &Authority, count: u32) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let first = u32::from(Ipv4Addr::new(127, 77, 0, 1));
        let servers: Vec<Arc<Server>> = (0..count)
            .map(|number| Arc::new(Server::new(authority, Ipv4Addr::from(first + number), port, number)))
            .collect();
        let by_address: HashMap<IpAddr, Arc<Server>> = servers
            .iter()
            .zip(first..)
            .map(|(server, address)| (Ipv4Addr::from(address).into(), Arc::clone(server)))
            .collect();
        let (silent, taken) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (quiet, count) = (Arc::clone(&silent), Arc::clone(&taken));
        let serving = tokio::spawn(async move {
            let mut ignored = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                if quiet.load(Ordering::Relaxed) {
                    ignored.push(stream);
                    continue;
                }
                let address = stream.local_addr().unwrap().ip();
                if let Some(server) = by_address.get(&address) {
                    tokio::spawn(serve(Arc::clone(server), stream, Arc::clone(&count), Arc::clone(&quiet)));
                }
            }
        });
        Self { servers, silent, taken, serving }
    }

    /// From now on nobody answers.
    pub(crate) fn fall_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Events that were taken, by all together.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(server: Arc<Server>, stream: TcpStream, taken: Arc<AtomicU64>, silent: Arc<AtomicBool>) {
    let Ok(stream) = server.acceptor.accept(stream).await else { return };
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let (server, taken, silent) = (Arc::clone(&server), Arc::clone(&taken), Arc::clone(&silent));
        async move {
            if silent.load(Ordering::Relaxed) {
                return std::future::pending().await;
            }
            let keys = request.uri().path().starts_with("/_matrix/key/");
            if request.uri().path().starts_with("/_matrix/federation/v1/send/") {
                taken.fetch_add(1, Ordering::Relaxed);
            }
            let body = if keys { server.document.clone() } else { r#"{"pdus":{}}"#.to_owned() };
            let mut response = Response::new(Full::new(Bytes::from(body)));
            response.headers_mut().insert("content-type", "application/json".parse().unwrap());
            Ok::<_, Infallible>(response)
        }
    });
    let _ = Builder::new(hyper_util::rt::TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
