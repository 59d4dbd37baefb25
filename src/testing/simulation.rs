//! A whole server without sockets, on a clock, a randomness and a machine that its caller makes up.

use std::{path::Path, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
};
use bytes::Bytes;
use http::{Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinHandle, JoinSet},
    time::{interval, sleep, timeout},
};
use tower_service::Service as _;

use super::server::serve_stream;
use crate::{
    api,
    app::{App, Hearth},
    config::{Api, Config},
    http::caught,
    live::stream::Methods,
};
pub use crate::{
    environment::{Clock, Entropy, Environment, Machine, Work, in_step},
    peers::{Network, Wire},
};

/// How long requests may take to finish once the server has been told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// A running server. When it is dropped, it is as if its process had been killed, but for what its machine still does.
pub struct Server {
    app: App,
    router: Router,
    methods: Arc<dyn Methods>,
    background: JoinSet<()>,
    writer: JoinHandle<()>,
}

impl Server {
    /// Starts with a configuration file. The error is for people.
    pub async fn start(configuration: &Path, environment: Environment) -> Result<Self, String> {
        let config = Config::load(Some(configuration), std::iter::empty());
        let config = config.map_err(|cause| cause.to_string())?;
        let (app, writer) = Hearth::start(config, environment).await.map_err(|cause| cause.to_string())?;
        let mut background = app.background();
        let tidied = Arc::clone(&app);
        background.spawn(async move {
            let mut ticks = interval(Duration::from_secs(5));
            loop {
                ticks.tick().await;
                tidied.limits.sweep();
                tidied.queues.tails().sweep();
            }
        });
        let router = api::router(Arc::clone(&app), &[Api::Client, Api::Federation].into(), None);
        let methods = api::methods(&app);
        Ok(Self { app, router, methods, background, writer })
    }

    /// Answers a request of a client or another server. Whoever drops the future has closed the connection.
    pub fn answer(&self, request: Request<Bytes>) -> impl Future<Output = Response<Bytes>> + Send + use<> {
        let answer = self.router.clone().call(request.map(Body::from));
        async move {
            let (parts, body) = caught(answer).await.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
            Response::from_parts(parts, body)
        }
    }

    /// Serves a socket of the stream whose handshake is done: what is read from `io` are frames of a client.
    pub fn stream(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<(), String> {
        serve_stream(&self.app, &self.methods, io)
    }

    /// Lets requests finish that are at work, as at a signal.
    pub async fn drain(&self) {
        self.app.shutdown.set();
        for _ in 0..10 {
            self.app.queues.tails().nudge_all();
            sleep(DRAIN / 10).await;
        }
    }

    /// Stops. Whether everything has ended: if not, something still holds the database.
    pub async fn stop(mut self) -> bool {
        self.background.shutdown().await;
        // Best efforts, as for the program: they can fail with the disk.
        let _ = self.app.sessions.flush().await;
        self.app.presence.flush().await;
        self.app.store.close().await;
        drop(self.methods);
        drop(self.router);
        drop(self.app);
        timeout(DRAIN, self.writer).await.is_ok()
    }
}
