//! Servers that others reach over TLS, with certificates of an authority of the tests' own.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    sync::atomic::{AtomicU32, Ordering},
};

use hearth_federation::{SignedRequest, SigningKey};
use http::{HeaderMap, Method, header};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use ruma::ServerName;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;
use toml::Table;

use super::{Answer, Server, eventually, free_port};

/// An authority, in whose file servers find it.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        // Two that have the same name are one to whoever looks for the issuer.
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let mut params = CertificateParams::default();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("Authority {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { issuer, dir }
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Writes a certificate for a name and its key into a folder.
    pub(crate) fn certify(&self, name: &str, folder: &Path) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let paths = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
        fs::write(&paths.0, certificate.pem()).unwrap();
        fs::write(&paths.1, key.serialize_pem()).unwrap();
        paths
    }
}

/// A server by the name `127.0.0.1:<port>`, reached by that over TLS.
pub(crate) struct Federating {
    pub(crate) server: Server,
    pub(crate) name: String,
    port: u16,
}

impl Federating {
    pub(crate) async fn start(authority: &Authority, federation: Table) -> Self {
        let port = free_port();
        Self::start_at(authority, federation, port, port).await
    }

    /// One that others reach by way of another port.
    pub(crate) async fn start_behind(authority: &Authority, reached: u16) -> Self {
        Self::start_at(authority, Table::new(), reached, free_port()).await
    }

    async fn start_at(authority: &Authority, federation: Table, reached: u16, port: u16) -> Self {
        let name = format!("127.0.0.1:{reached}");
        let (server_name, ca_file) = (name.clone(), authority.file().to_str().unwrap().to_owned());
        let mut config = toml::toml! {
            server_name = server_name
            [federation]
            ca_file = ca_file
            allow_private_networks = true
            notaries = []
        };
        config["federation"].as_table_mut().unwrap().extend(federation);
        let mut server = Server::start(config).await;
        server.stop().await;
        let mut federating = Self { server, name, port };
        let (certificate, key) = authority.certify("127.0.0.1", &federating.folder());
        let listener = toml::toml! {
            bind = (format!("127.0.0.1:{port}"))
            serve = ["federation"]
            tls = { certificate = (certificate.to_str().unwrap()), key = (key.to_str().unwrap()) }
        };
        federating.configure(|config| {
            let listeners = config["listener"].as_array_mut().unwrap();
            listeners[0]["serve"].as_array_mut().unwrap().push("federation".into());
            listeners.push(listener.into());
        });
        federating.start_again().await;
        federating
    }

    pub(crate) async fn start_again(&mut self) {
        self.server.start_again().await;
        let port = self.port;
        let open = async || TcpStream::connect(("127.0.0.1", port)).await.ok();
        eventually("the port is open", open).await;
    }

    /// The port that speaks to servers.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.server.config_path().parent().unwrap().to_owned()
    }

    /// Changes the configuration, for the next start.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut Table)) {
        let path = self.server.config_path();
        let mut config: Table = fs::read_to_string(&path).unwrap().parse().unwrap();
        change(&mut config);
        fs::write(path, toml::to_string(&config).unwrap()).unwrap();
    }

    /// Runs another subcommand, while this program goes on.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        tokio::task::block_in_place(|| self.server.run(arguments))
    }

    pub(crate) fn key(&self) -> SigningKey {
        let text = fs::read_to_string(self.server.data_dir().join("signing.key")).unwrap();
        SigningKey::from_text(&text).unwrap()
    }

    /// Sends a request to this server, signed as `origin` with `key`.
    pub(crate) async fn signed(
        &self,
        origin: &str,
        key: &SigningKey,
        method: Method,
        uri: &str,
        content: Option<&Value>,
    ) -> Answer {
        let content = content.map(Value::to_string);
        let signed = SignedRequest {
            method: method.as_str(),
            uri,
            origin: <&ServerName>::try_from(origin).unwrap(),
            destination: <&ServerName>::try_from(self.name.as_str()).unwrap(),
            content: content.as_deref(),
        };
        let header = signed.sign(key).unwrap();
        self.with_headers(method, uri, &[&header], content.unwrap_or_default()).await
    }

    /// Sends a request with these `Authorization` headers.
    pub(crate) async fn with_headers(
        &self,
        method: Method,
        uri: &str,
        authorization: &[&str],
        body: String,
    ) -> Answer {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        self.server.http().send(method, uri, headers, body).await.unwrap()
    }
}
