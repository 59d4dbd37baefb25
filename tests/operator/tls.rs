//! Ports that speak TLS: HTTP/1.1 and HTTP/2, and certificates that are renewed while the server runs.

use std::{fs, path::PathBuf, sync::Arc};

use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};
use toml::Table;

use crate::common::{Server, eventually, free_port};

/// A server with one more port, which speaks TLS.
pub(crate) struct Secured {
    pub(crate) server: Server,
    pub(crate) port: u16,
    certificate: PathBuf,
    key: PathBuf,
}

/// A certificate for `localhost` and its key, as PEM.
pub(crate) struct Pair {
    certificate: String,
    key: String,
    der: CertificateDer<'static>,
}

impl Pair {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        Self { certificate: certificate.pem(), key: key.serialize_pem(), der: certificate.der().clone() }
    }
}

impl Secured {
    pub(crate) async fn start(pair: &Pair) -> Self {
        let mut server = Server::start(Table::new()).await;
        server.stop().await;
        let folder = server.config_path().parent().unwrap().to_owned();
        let (certificate, key) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
        let port = free_port();
        let mut config: Table = fs::read_to_string(server.config_path()).unwrap().parse().unwrap();
        let listener = toml::toml! {
            serve = ["client"]
            bind = (format!("127.0.0.1:{port}"))
            tls = { certificate = (certificate.to_str().unwrap()), key = (key.to_str().unwrap()) }
        };
        config["listener"].as_array_mut().unwrap().push(listener.into());
        fs::write(server.config_path(), toml::to_string(&config).unwrap()).unwrap();
        let mut secured = Self { server, port, certificate, key };
        secured.write(pair);
        secured.server.start_again().await;
        let open = async || TcpStream::connect(("127.0.0.1", port)).await.ok();
        eventually("the port is open", open).await;
        secured
    }

    fn write(&self, pair: &Pair) {
        fs::write(&self.certificate, &pair.certificate).unwrap();
        fs::write(&self.key, &pair.key).unwrap();
    }

    /// Puts another certificate beside the key, in one step.
    fn replace_certificate(&self, text: &str) {
        let new = self.certificate.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &self.certificate).unwrap();
    }

    /// A connection whose other end has this certificate, or none.
    pub(crate) async fn connect(&self, pair: &Pair, protocols: &[&[u8]]) -> Option<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(pair.der.clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|&protocol| protocol.to_vec()).collect();
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.ok()
    }

    async fn shows(&self, pair: &Pair) -> bool {
        self.connect(pair, &[]).await.is_some()
    }
}

async fn assert_answers(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"OK\n") {
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "closed after {}", String::from_utf8_lossy(&answer));
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn clients_choose_between_http_1_and_http_2() {
    let pair = Pair::new();
    let secured = Secured::start(&pair).await;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let stream = secured.connect(&pair, &[protocol]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    }
    let mut old = secured.connect(&pair, &[]).await.unwrap();
    assert_answers(&mut old).await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_and_no_connection_ends() {
    let (first, second) = (Pair::new(), Pair::new());
    let secured = Secured::start(&first).await;
    let mut open = secured.connect(&first, &[b"http/1.1"]).await.unwrap();
    assert_answers(&mut open).await;
    assert!(!secured.shows(&second).await);

    secured.write(&second);

    eventually("the new certificate is shown", async || secured.shows(&second).await.then_some(())).await;
    assert!(!secured.shows(&first).await);
    assert_answers(&mut open).await;
    let renewed = secured.connect(&second, &[b"h2"]).await.unwrap();
    assert_eq!(renewed.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
}

/// As `certbot` does: links that lead elsewhere, one after the other.
#[tokio::test]
async fn a_certificate_behind_a_link_is_renewed_too() {
    let (first, second) = (Pair::new(), Pair::new());
    let secured = Secured::start(&first).await;
    for (path, text) in [(&secured.certificate, &second.certificate), (&secured.key, &second.key)] {
        let elsewhere = path.with_extension("2.pem");
        fs::write(&elsewhere, text).unwrap();
        let link = path.with_extension("link");
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        fs::rename(&link, path).unwrap();
    }
    eventually("the new certificate is shown", async || secured.shows(&second).await.then_some(())).await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_leaves_the_one_of_before() {
    let (first, second) = (Pair::new(), Pair::new());
    let secured = Secured::start(&first).await;

    secured.replace_certificate(&second.certificate);

    let said = "the one of before stays";
    eventually("the log says so", async || secured.server.log().contains(said).then_some(())).await;
    let path = secured.certificate.to_str().unwrap();
    assert!(secured.server.log().contains(path), "{}", secured.server.log());
    assert!(secured.shows(&first).await);

    secured.replace_certificate("nonsense");
    let again = || secured.server.log().matches(said).count() == 2;
    eventually("the log says so again", async || again().then_some(())).await;
    assert!(secured.shows(&first).await);

    secured.replace_certificate(&first.certificate);
    let used = "a new certificate is in use";
    eventually("one is used", async || secured.server.log().contains(used).then_some(())).await;
    assert_eq!(secured.server.log().matches(said).count(), 2, "each change is told once");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_stops_the_start() {
    let pair = Pair::new();
    let mut secured = Secured::start(&pair).await;
    secured.server.stop().await;
    fs::write(&secured.key, Pair::new().key).unwrap();
    for arguments in [&["serve"][..], &["config", "check"]] {
        let output = secured.server.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("don't go together") && said.contains("fullchain.pem"), "{said}");
    }
}
