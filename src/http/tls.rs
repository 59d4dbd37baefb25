//! Certificates: from two PEM files to what a port needs to speak TLS.
//!
//! Owns which certificate a port shows, and that it is the one in the files: these are looked at every few seconds
//! ([`Certificate::keep_fresh`]), so that whatever renews them needn't know of this server. Connections that are open stay as
//! they are. Files that can't be used leave the certificate of before in place, for they may be half-written.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::CryptoProvider,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tracing::{info, warn};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What is wrong with a certificate or key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {cause} (expected a PEM file with {expected})")]
    File { path: String, expected: &'static str, cause: String },
    #[error("{path} has no certificate in it")]
    Empty { path: String },
    #[error("the certificate {path} and its key don't go together: {cause}")]
    Pair { path: String, cause: rustls::Error },
    #[error("TLS can't be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What a port shows to whoever connects.
#[derive(Debug)]
pub struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    provider: Arc<CryptoProvider>,
    shown: RwLock<Arc<CertifiedKey>>,
    read: Mutex<Read>,
}

/// The files as they were when they were read.
#[derive(Debug)]
struct Read {
    stamp: Option<Stamp>,
    /// They were unusable as often in a row since they last changed.
    unusable: u32,
}

/// What changes with a file, both files' of them.
type Stamp = [(u64, u64, i64, i64, i64); 2];

/// What came of looking at the files.
#[derive(Debug)]
pub enum Looked {
    Unchanged,
    Replaced,
    /// They can't be used.
    Kept(TlsError),
}

impl Certificate {
    /// Reads both files.
    pub fn read(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Before they are read, so that a change while they are is one.
        let stamp = stamp(certificate, key);
        let shown = read(certificate, key, &provider)?;
        Ok(Arc::new(Self {
            chain_file: certificate.to_owned(),
            key_file: key.to_owned(),
            provider,
            shown: RwLock::new(Arc::new(shown)),
            read: Mutex::new(Read { stamp: stamp.ok(), unusable: 0 }),
        }))
    }

    /// TLS 1.2 and 1.3; HTTP/2 for clients that offer it.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files if they have changed, or couldn't be used the last time.
    pub fn look(&self) -> Looked {
        let mut before = self.read.lock();
        let stamp = stamp(&self.chain_file, &self.key_file).ok();
        let changed = stamp != before.stamp;
        if !changed && before.unusable == 0 {
            return Looked::Unchanged;
        }
        before.stamp = stamp;
        match read(&self.chain_file, &self.key_file, &self.provider) {
            Ok(read) => {
                *self.shown.write() = Arc::new(read);
                before.unusable = 0;
                Looked::Replaced
            }
            Err(cause) => {
                before.unusable = if changed { 1 } else { before.unusable.saturating_add(1) };
                Looked::Kept(cause)
            }
        }
    }

    /// Shows what is in the files, for ever.
    pub async fn keep_fresh(self: Arc<Self>) {
        let path = self.chain_file.display().to_string();
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            match self.look() {
                Looked::Replaced => info!(path, "a new certificate is in use"),
                // The first time, somebody may be about to write the other file; after that, once is enough.
                Looked::Kept(cause) if self.read.lock().unusable == 2 => {
                    warn!(
                        path, %cause,
                        "the certificate has changed and can't be used: the one of before stays; put a certificate and \
                         its key into the two files, and they are read within seconds"
                    );
                }
                Looked::Unchanged | Looked::Kept(_) => {}
            }
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read()))
    }
}

fn stamp(certificate: &Path, key: &Path) -> io::Result<Stamp> {
    let of = |path: &Path| {
        let file = fs::metadata(path)?;
        io::Result::Ok((file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime_nsec()))
    };
    Ok([of(certificate)?, of(key)?])
}

fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let file = |path: &Path, expected, cause: rustls_pki_types::pem::Error| TlsError::File {
        path: path.display().to_string(),
        expected,
        cause: cause.to_string(),
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|cause| file(certificate, "a certificate chain", cause))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: certificate.display().to_string() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|cause| file(key, "a private key", cause))?;
    CertifiedKey::from_der(chain, key, provider)
        .map_err(|cause| TlsError::Pair { path: certificate.display().to_string(), cause })
}
