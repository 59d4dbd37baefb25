//! Ports: accepting connections, TLS, and speaking HTTP on each until the client or the server ends it.
//!
//! A bound port doesn't accept yet: [`Listener::bind`] fails early, and [`Listener::run`] opens it once the server can
//! answer, so that an open port means a server that is ready.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::{
    rt::{Read, Write},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::{Site, metrics::Present};
use crate::{seldom::Seldom, shutdown::Shutdown};

/// How long a client may take to send a request's headers, or be silent between two requests. Proxies that keep
/// connections open should forget them sooner.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the greeting of TLS may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The most bytes of a request's line and headers together. Access tokens and filters in the query fit well.
const MAX_HEADER_BYTES: usize = 32 * 1024;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// Pause after a failure to accept, which is nearly always a lack of file descriptors that others have to give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How connections end with the server.
#[derive(Clone)]
pub struct Ending {
    /// From now on none is accepted, and each ends after the answers to what was asked.
    pub shutdown: Shutdown,
    /// From now on there are none.
    pub cut: Shutdown,
    /// Gone when the last connection is.
    #[expect(dead_code, reason = "held, not used")]
    pub alive: mpsc::Sender<()>,
}

/// A bound port.
pub struct Listener {
    socket: TcpSocket,
    tls: Option<TlsAcceptor>,
    site: Arc<Site>,
}

impl Listener {
    /// Takes the port without opening it.
    pub fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart doesn't wait for connections of the run before.
        socket.set_reuseaddr(true)?;
        socket.set_nodelay(true)?;
        socket.bind(address)?;
        Ok(socket)
    }

    pub fn new(
        socket: TcpSocket,
        tls: Option<Arc<tokio_rustls::rustls::ServerConfig>>,
        site: Arc<Site>,
    ) -> Self {
        Self { socket, tls: tls.map(TlsAcceptor::from), site }
    }

    /// Opens the port, and accepts until the server ends.
    pub fn run(self, ending: Ending) -> io::Result<()> {
        let listener = self.socket.listen(BACKLOG)?;
        let connections =
            Arc::new(Connections { tls: self.tls, site: self.site, ending, http1: http1_builder() });
        tokio::spawn(async move {
            let failures = Seldom::new();
            loop {
                tokio::select! {
                    biased;
                    () = connections.ending.shutdown.wait() => return,
                    accepted = listener.accept() => match accepted {
                        Ok((stream, peer)) => connections.start(stream, peer),
                        Err(cause) if is_of_one_connection(&cause) => {}
                        Err(cause) => {
                            if let Some(before) = failures.happens() {
                                warn!(%cause, before, "no connection can be accepted; if files are lacking, raise the limit of open files (ulimit -n, LimitNOFILE)");
                            }
                            tokio::time::sleep(ACCEPT_PAUSE).await;
                        }
                    },
                }
            }
        });
        Ok(())
    }
}

/// A connection that was given up before it was accepted says nothing about the next.
fn is_of_one_connection(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(cause.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(MAX_HEADER_BYTES * 2);
    builder
}

/// What the connections of a port share.
struct Connections {
    tls: Option<TlsAcceptor>,
    site: Arc<Site>,
    ending: Ending,
    http1: http1::Builder,
}

impl Connections {
    fn start(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        // Answers are written whole; waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        let connections = Arc::clone(self);
        // Two futures, so that plain connections don't carry the size of encrypted ones.
        if let Some(tls) = self.tls.clone() {
            tokio::spawn(async move {
                let _present = Present::connection();
                connections.speak_tls(tls, stream, peer).await;
            });
        } else {
            tokio::spawn(async move {
                let _present = Present::connection();
                connections.speak_http1(TokioIo::new(stream), peer).await;
            });
        }
    }

    async fn speak_tls(&self, tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr) {
        let shaken = tokio::select! {
            biased;
            shaken = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)) => shaken,
            () = self.ending.shutdown.wait() => return,
        };
        match shaken {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.speak_http2(TokioIo::new(stream), peer).await;
            }
            Ok(Ok(stream)) => self.speak_http1(TokioIo::new(stream), peer).await,
            Ok(Err(cause)) => debug!(%cause, %peer, "TLS failed"),
            Err(_) => debug!(%peer, "TLS took too long"),
        }
    }

    async fn speak_http1<I>(&self, io: I, peer: SocketAddr)
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let asked = AtomicBool::new(false);
        let service = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            self.site.answer(peer, request)
        });
        let connection = std::pin::pin!(self.http1.serve_connection(io, service).with_upgrades());
        self.see_through(connection, http1::UpgradeableConnection::graceful_shutdown, &asked, peer).await;
    }

    async fn speak_http2<I>(&self, io: I, peer: SocketAddr)
    where
        I: Read + Write + Unpin + Send + 'static,
    {
        let asked = AtomicBool::new(false);
        let service = service_fn(|request| {
            asked.store(true, Ordering::Relaxed);
            self.site.answer(peer, request)
        });
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(100)
            .max_header_list_size(MAX_HEADER_BYTES as u32)
            .max_send_buf_size(64 * 1024)
            // A client that is gone is noticed, for it holds its streams open otherwise.
            .keep_alive_interval(Duration::from_mins(1))
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = std::pin::pin!(builder.serve_connection(io, service));
        self.see_through(connection, http2::Connection::graceful_shutdown, &asked, peer).await;
    }

    /// Serves a connection until the client ends it. When the server ends, the connection is told to (`finish`) and has
    /// its last answers yet; one that hasn't `asked` for anything, though it may have begun to, gets none.
    async fn see_through<C>(
        &self,
        mut connection: Pin<&mut C>,
        finish: fn(Pin<&mut C>),
        asked: &AtomicBool,
        peer: SocketAddr,
    ) where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            () = self.ending.shutdown.wait() => None,
        };
        if ended.is_none() && asked.load(Ordering::Relaxed) {
            finish(connection.as_mut());
            ended = tokio::select! {
                biased;
                ended = connection => Some(ended),
                () = self.ending.cut.wait() => None,
            };
        }
        let Some(ended) = ended else {
            debug!(%peer, "a connection is cut off");
            return;
        };
        if let Err(cause) = ended {
            debug!(%cause, %peer, "a connection ended");
        }
    }
}

/// Says where a port is open.
pub fn announce(address: SocketAddr, tls: bool) {
    info!(%address, tls, "listening");
}

#[cfg(test)]
mod tests {
    use axum::{Router, extract::Request, routing::post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::http::route;

    /// Threats: a body that comes byte by byte is given up in the end, and its connection with it, though bytes come still.
    #[tokio::test]
    async fn a_body_that_comes_too_slowly_ends_its_connection() {
        let takes = |request: Request| async move {
            let (parts, body) = request.into_parts();
            route::read_within(Duration::from_millis(50), route::MAX_BODY, &parts, body).await
        };
        let connections = Connections {
            tls: None,
            site: Site::new(Router::new().route("/takes", post(takes)), false, false, 0),
            ending: Ending {
                shutdown: Shutdown::default(),
                cut: Shutdown::default(),
                alive: mpsc::channel(1).0,
            },
            http1: http1_builder(),
        };
        let (client, server) = tokio::io::duplex(1024);
        let (mut answers, mut requests) = tokio::io::split(client);
        let served = connections.speak_http1(TokioIo::new(server), SocketAddr::from(([127, 0, 0, 1], 1)));
        let asks = async {
            let head = "POST /takes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n\r\n";
            let mut taken = requests.write_all(head.as_bytes()).await;
            // Until the other end is gone.
            while taken.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                taken = requests.write_all(b" ").await;
            }
        };
        let mut answer = String::new();
        let all = async { tokio::join!(served, asks, answers.read_to_string(&mut answer)) };
        timeout(Duration::from_mins(5), all).await.expect("the connection ends").2.unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
        assert!(answer.contains("M_UNKNOWN"), "{answer}");
    }
}
