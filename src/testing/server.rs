//! A server in this process, without ports, and what can be sent to it.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Collected};
use ruma::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service as _;

use crate::{
    account::Origin,
    api,
    app::{App, Hearth},
    config::{Api, Config},
    environment::Environment,
    http::Peer,
    live::stream::{Methods, Socket},
    store::server_key::set_server_keys,
};

pub struct Server {
    app: App,
    router: Router,
    methods: Arc<dyn Methods>,
}

impl Server {
    /// Starts one with a configuration. What it does beside answering it doesn't do.
    pub async fn start(configuration: &str) -> Result<Self, String> {
        let config =
            Config::parse(configuration, "", std::iter::empty()).map_err(|cause| cause.to_string())?;
        let started = Hearth::start(config, Environment::real()).await;
        let (app, _) = started.map_err(|cause| cause.to_string())?;
        let router = api::router(Arc::clone(&app), &[Api::Client, Api::Federation].into(), None);
        let methods = api::methods(&app);
        Ok(Self { app, router, methods })
    }

    /// The answer to a request. A panic of its handler goes on to whoever asks.
    pub async fn answer(&self, request: Request<Bytes>) -> Response<Bytes> {
        let mut request = request.map(Body::from);
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
        request.extensions_mut().insert(Peer { address, secure: true });
        let Ok(response) = self.router.clone().call(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(Collected::to_bytes).unwrap_or_default();
        Response::from_parts(parts, body)
    }

    /// Serves a socket whose handshake is done: what is read from `io` are frames of a client.
    pub fn stream(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<(), String> {
        serve_stream(&self.app, &self.methods, io)
    }

    /// Makes the keys of another server known, as they are stored: JSON of [`hearth_federation::KnownKeys`].
    pub async fn know_keys(&self, server: &ServerName, keys: String) -> Result<(), String> {
        let stored = self.app.store.commit(set_server_keys(server.as_str(), keys)).await;
        stored.map(drop).map_err(|cause| cause.to_string())
    }
}

/// Serves a socket of the stream whose handshake is done.
pub(super) fn serve_stream(
    app: &App,
    methods: &Arc<dyn Methods>,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<(), String> {
    let newcomer = app.streams.admit().ok_or("too many sockets haven't said who they are")?;
    let socket = Socket::open(Box::new(io), None, app.streams.options());
    let socket = socket.map_err(|cause| cause.to_string())?;
    let origin = Origin { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), user_agent: None };
    let socket = std::future::ready(Some(socket));
    app.streams.serve(newcomer, socket, None, origin, Arc::clone(methods));
    Ok(())
}
