//! Certificates: from two PEM files to what a port needs to speak TLS.

use std::{path::Path, sync::Arc};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio_rustls::rustls::ServerConfig;

/// What is wrong with a certificate or key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {cause} (expected a PEM file with {expected})")]
    File { path: String, expected: &'static str, cause: String },
    #[error("{path} has no certificate in it")]
    Empty { path: String },
    #[error("the certificate {path} and its key don't go together: {cause}")]
    Pair { path: String, cause: tokio_rustls::rustls::Error },
}

/// TLS 1.2 and 1.3; HTTP/2 for clients that offer it.
pub fn server_config(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
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
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|cause| TlsError::Pair { path: certificate.display().to_string(), cause })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
