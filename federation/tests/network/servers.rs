//! Servers of the tests' own, on this machine, with TLS and certificates of an authority of the tests' own.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use hearth_federation::{
    ClientSettings, Connector, Discovery, Dns, DnsAnswer, DnsError, FederationClient, HttpsWeb, Service,
    Task, Web, WebAnswer,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use ruma::server_name;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        crypto::ring,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};
use url::Url;

use crate::common::{TestClock, key};

/// An authority, in whose file clients find it.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file, _dir: dir }
    }

    fn acceptor(&self, params: &CertificateParams) -> TlsAcceptor {
        let pair = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&pair, &self.issuer).unwrap();
        let pair = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], pair)
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The server name of TLS, if there was one.
    pub(crate) sni: Option<String>,
    pub(crate) line: String,
    /// By lower-case names.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
    /// Which of the server's connections it came by.
    pub(crate) connection: usize,
}

/// What a server does with a request.
#[derive(Clone)]
pub(crate) enum Behaviour {
    /// Answers with this text, which is all of the answer.
    Answer(String),
    /// Answers with this head, then with these bytes again and again, so often, with so much time between.
    Drip(String, Vec<u8>, usize, Duration),
    /// Answers with this, then closes the connection without having said so.
    AnswerAndClose(String),
    /// Closes the connection without an answer.
    Close,
    /// Reads and says nothing.
    Silence,
}

/// An answer of JSON.
pub(crate) fn json(status: &str, body: &str) -> Behaviour {
    Behaviour::Answer(text(status, body))
}

pub(crate) fn text(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Seen>,
    behaviour: Arc<Mutex<Behaviour>>,
}

impl Server {
    /// With a certificate of the authority for these names or addresses.
    pub(crate) async fn start(authority: &Authority, names: &[&str], behaviour: Behaviour) -> Self {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Self::with(authority, CertificateParams::new(names).unwrap(), behaviour).await
    }

    /// With a certificate that has run out.
    pub(crate) async fn expired(authority: &Authority, name: &str) -> Self {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        Self::with(authority, params, json("200 OK", "{}")).await
    }

    async fn with(authority: &Authority, params: CertificateParams, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = authority.acceptor(&params);
        let (sender, seen) = mpsc::unbounded_channel();
        let behaviour = Arc::new(Mutex::new(behaviour));
        let shared = Arc::clone(&behaviour);
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((stream, _)) = listener.accept().await else { return };
                let (acceptor, sender, behaviour) = (acceptor.clone(), sender.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, connection, &sender, &behaviour).await;
                    }
                });
            }
        });
        Self { address, seen, behaviour }
    }

    pub(crate) fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    /// The next request that came.
    pub(crate) async fn seen(&mut self) -> Seen {
        self.seen.recv().await.unwrap()
    }

    /// Whether no request came that wasn't looked at yet.
    pub(crate) fn saw_nothing(&mut self) -> bool {
        self.seen.try_recv().is_err()
    }
}

async fn serve(
    stream: TlsStream<TcpStream>,
    connection: usize,
    seen: &mpsc::UnboundedSender<Seen>,
    behaviour: &Mutex<Behaviour>,
) {
    let sni = stream.get_ref().1.server_name().map(str::to_owned);
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream, connection, sni.clone()).await {
        let _ = seen.send(request);
        let behaviour = behaviour.lock().unwrap().clone();
        let carries_on = match behaviour {
            Behaviour::Answer(text) => stream.write_all(text.as_bytes()).await.is_ok(),
            Behaviour::AnswerAndClose(text) => {
                let _ = stream.write_all(text.as_bytes()).await;
                false
            }
            Behaviour::Close => false,
            Behaviour::Silence => std::future::pending().await,
            Behaviour::Drip(head, piece, times, pause) => {
                let _ = stream.write_all(head.as_bytes()).await;
                for _ in 0..times {
                    if stream.write_all(&piece).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                    tokio::time::sleep(pause).await;
                }
                true
            }
        };
        if stream.flush().await.is_err() || !carries_on {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn read(
    stream: &mut BufReader<TlsStream<TcpStream>>,
    connection: usize,
    sni: Option<String>,
) -> Option<Seen> {
    let mut line = String::new();
    stream.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await.ok().filter(|length| *length > 0)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Seen { sni, line: line.trim_end().to_owned(), headers, body, connection })
}

/// Names that lead to servers of the tests, whatever the port: of the web, 443 is another one.
#[derive(Default)]
pub(crate) struct Names {
    hosts: Mutex<HashMap<String, Vec<IpAddr>>>,
    services: Mutex<HashMap<String, Vec<Service>>>,
    web_ports: Mutex<HashMap<String, u16>>,
}

impl Names {
    pub(crate) fn host(&self, name: &str, address: &str) {
        let address = address.parse().unwrap();
        self.hosts.lock().unwrap().entry(name.to_owned()).or_default().push(address);
    }

    /// What stands for port 443 of a host.
    pub(crate) fn web(&self, name: &str, port: u16) {
        self.web_ports.lock().unwrap().insert(name.to_owned(), port);
    }

    pub(crate) fn service(&self, name: &str, target: &str, port: u16) {
        let service = Service { priority: 0, weight: 0, target: target.to_owned(), port };
        self.services.lock().unwrap().insert(name.to_owned(), vec![service]);
    }
}

impl Dns for Names {
    fn addresses<'a>(&'a self, name: &'a str) -> Task<'a, Result<DnsAnswer<IpAddr>, DnsError>> {
        let found = self.hosts.lock().unwrap().get(name).cloned();
        Box::pin(async move { answer(found) })
    }

    fn services<'a>(&'a self, name: &'a str) -> Task<'a, Result<DnsAnswer<Service>, DnsError>> {
        let found = self.services.lock().unwrap().get(name).cloned();
        Box::pin(async move { answer(found) })
    }
}

fn answer<T>(records: Option<Vec<T>>) -> Result<DnsAnswer<T>, DnsError> {
    let records = records.ok_or(DnsError::None)?;
    Ok(DnsAnswer { records, ttl: Duration::from_mins(5), alias: false })
}

/// The real web, where hosts have their 443 elsewhere.
struct MovedWeb(HttpsWeb, Arc<Names>);

impl Web for MovedWeb {
    fn get<'a>(&'a self, url: &'a Url, limit: usize) -> Task<'a, Result<WebAnswer, String>> {
        Box::pin(async move {
            let port = self.1.web_ports.lock().unwrap().get(url.host_str().unwrap()).copied();
            let mut moved = url.clone();
            moved.set_port(Some(port.ok_or("connection refused")?)).unwrap();
            self.0.get(&moved, limit).await
        })
    }
}

/// Settings that hold in these tests: the authority's servers on this machine, and little patience.
pub(crate) fn settings(authority: &Authority) -> ClientSettings {
    ClientSettings {
        ca_file: Some(authority.file.clone()),
        allow_private_networks: true,
        ..ClientSettings::default()
    }
}

pub(crate) fn client(names: &Arc<Names>, settings: ClientSettings) -> FederationClient {
    let connector = Arc::new(Connector::new(&settings).unwrap());
    let dns = Arc::clone(names) as Arc<dyn Dns>;
    let web = HttpsWeb::new(Arc::clone(&connector), Arc::clone(&dns), &settings);
    let web = Arc::new(MovedWeb(web, Arc::clone(names)));
    let discovery = Discovery::new(dns, web, TestClock::new().clock(), Arc::new(|| 0));
    let us = server_name!("us.example").to_owned();
    FederationClient::new(us, Arc::new(key("a")), settings, connector, discovery)
}
