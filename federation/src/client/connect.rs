//! From a destination to an open, verified connection.
//!
//! Owns which addresses are tried and how, the certificate's check, and that nothing is sent before it (FA-06).
//!
//! Specification: [TLS](https://spec.matrix.org/v1.19/server-server-api/#tls) (FT-01, FT-02).

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject as _};
use tokio::{net::TcpStream, time};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, ring},
    },
};

use super::{dials::Dials, guard::is_public, settings::ClientSettings};
use crate::discovery::Destination;

/// How long an address is tried alone before the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// Why no connections can be made at all, for the start of a server to fail on.
#[derive(Debug, thiserror::Error)]
pub enum ClientSetupError {
    /// The operator's list of authorities can't be read.
    #[error("the certificate authorities in {path} can't be read: {cause}")]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The system has none.
    #[error("this system has no certificate authorities: install `ca-certificates`, or name a file of them")]
    NoAuthorities,
    /// The cryptography refused.
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// Why a server can't be connected to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// None of its addresses is one of the internet's, and others aren't allowed.
    #[error("{0} is not an address of the internet (private networks may be allowed by configuration)")]
    Forbidden(IpAddr),
    /// It doesn't let us in.
    #[error("{address} can't be connected to: {cause}")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// As the system says it.
        cause: String,
    },
    /// There is somebody, but nobody whom we could trust.
    #[error("TLS with {address} failed: {cause}")]
    Tls {
        /// Where.
        address: SocketAddr,
        /// What is wrong, mostly with its certificate.
        cause: String,
    },
    /// It took too long, or longer than there was time for when others waited.
    #[error("nobody answered in time")]
    TimedOut,
}

/// Makes connections.
pub struct Connector {
    tls: TlsConnector,
    allow_private_networks: bool,
    timeout: Duration,
    dials: Dials,
}

impl Connector {
    /// Reads the authorities, from the file or the system.
    pub fn new(settings: &ClientSettings) -> Result<Self, ClientSetupError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let mut config = if settings.verify_tls || settings.offline {
            builder.with_root_certificates(authorities(settings)?).with_no_client_auth()
        } else {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unverified(provider)))
                .with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            allow_private_networks: settings.allow_private_networks,
            timeout: settings.connect_timeout,
            dials: Dials::new(settings),
        })
    }

    /// Connect to the first of the addresses that answers as the destination. They get a head start in turn.
    ///
    /// It may have to wait for its turn, for others of its host, or of those that don't answer either.
    pub async fn connect(&self, destination: &Destination) -> Result<TlsStream<TcpStream>, ConnectError> {
        self.connect_to(&destination.host, destination).await
    }

    /// [`Self::connect`] for somebody who is known by another name than that of the host.
    pub(super) async fn connect_to(
        &self,
        name: &str,
        destination: &Destination,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let dial = async {
            let connected = time::timeout(self.timeout, self.first(destination)).await;
            connected.unwrap_or(Err(ConnectError::TimedOut))
        };
        self.dials.run(name, &destination.host, dial).await
    }

    /// Somebody has spoken to us: connections to them are made as to anybody.
    pub(super) fn trust(&self, name: &str) {
        self.dials.trust(name);
    }

    /// Try each of the addresses alone, for an operator who asks what is wrong.
    pub async fn probe(&self, destination: &Destination) -> Vec<(SocketAddr, Result<(), ConnectError>)> {
        let mut outcomes = Vec::new();
        for &address in &destination.addresses {
            let attempt = time::timeout(self.timeout, self.at(address, &destination.tls_name)).await;
            outcomes.push((address, attempt.unwrap_or(Err(ConnectError::TimedOut)).map(drop)));
        }
        outcomes
    }

    async fn first(&self, destination: &Destination) -> Result<TlsStream<TcpStream>, ConnectError> {
        let mut waiting = destination.addresses.iter().copied();
        let mut attempts = FuturesUnordered::new();
        let mut problem = None;
        loop {
            match waiting.next() {
                Some(address) => attempts.push(self.at(address, &destination.tls_name)),
                None if attempts.is_empty() => return Err(problem.unwrap_or(ConnectError::TimedOut)),
                None => {}
            }
            // The last one has all the time that is left.
            let patience = if waiting.len() == 0 { self.timeout } else { HEAD_START };
            match time::timeout(patience, attempts.next()).await {
                Ok(Some(Ok(stream))) => return Ok(stream),
                Ok(Some(Err(error))) => {
                    // That a certificate is wrong says more than that nobody is there.
                    let told = matches!(problem, Some(ConnectError::Tls { .. }));
                    if !told {
                        problem = Some(error);
                    }
                }
                Ok(None) | Err(_) => {}
            }
        }
    }

    async fn at(
        &self,
        address: SocketAddr,
        name: &ServerName<'static>,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        if !self.allow_private_networks && !is_public(address.ip()) {
            return Err(ConnectError::Forbidden(address.ip()));
        }
        let tcp = |error: io::Error| ConnectError::Tcp { address, cause: error.to_string() };
        let stream = TcpStream::connect(address).await.map_err(tcp)?;
        stream.set_nodelay(true).map_err(tcp)?;
        // For addresses it sends no SNI by itself.
        let stream = self.tls.connect(name.clone(), stream).await;
        stream.map_err(|error| ConnectError::Tls { address, cause: error.to_string() })
    }
}

fn authorities(settings: &ClientSettings) -> Result<RootCertStore, ClientSetupError> {
    let mut roots = RootCertStore::empty();
    if settings.offline {
        return Ok(roots);
    }
    if let Some(path) = &settings.ca_file {
        let bad = |cause: String| ClientSetupError::CaFile { path: path.clone(), cause };
        let text = fs::read(path).map_err(|error| bad(error.to_string()))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| bad(error.to_string()))?;
            roots.add(certificate).map_err(|error| bad(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(bad("it has no certificates".to_owned()));
        }
    } else {
        // Some of a system's may be broken without harm to the rest.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(ClientSetupError::NoAuthorities);
        }
    }
    Ok(roots)
}

/// Takes any certificate, for operators who turned verification off. The handshake itself is checked all the same.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
