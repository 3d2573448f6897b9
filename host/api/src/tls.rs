//! TLS: a serving certificate that renews itself without a restart, and client certificates of the cluster's own CA.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use auth::pki::{Authority, Identity, Purpose};
use model::Failure;
use rustls::RootCertStore;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The certificate in use. Handshakes take whatever is newest; connections that stand keep theirs.
#[derive(Debug)]
pub struct ServingCertificate {
    now: ArcSwap<CertifiedKey>,
}

impl ServingCertificate {
    /// # Errors
    /// `BadRequest` if certificate or key cannot be read.
    pub fn new(identity: &Identity) -> Result<Arc<Self>, Failure> {
        Ok(Arc::new(Self {
            now: ArcSwap::from(certified(identity)?),
        }))
    }

    /// # Errors
    /// As [`ServingCertificate::new`]; the old one then stays in use.
    pub fn replace(&self, identity: &Identity) -> Result<(), Failure> {
        self.now.store(certified(identity)?);
        Ok(())
    }

    /// Issues a new certificate whenever two thirds of the old one's life are over. Runs until dropped.
    pub async fn keep_fresh(
        self: Arc<Self>,
        authority: Arc<Authority>,
        hosts: Vec<String>,
        lifetime: Duration,
        mut expires: SystemTime,
    ) {
        loop {
            let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
            tokio::time::sleep(left.saturating_sub(lifetime / 3)).await;
            let purpose = Purpose::Serving {
                name: "kube-apiserver",
                hosts: hosts.clone(),
            };
            let fresh = authority.issue(&purpose, lifetime).and_then(|identity| {
                self.replace(&identity)?;
                Ok(identity.expires)
            });
            match fresh {
                Ok(until) => {
                    tracing::info!("the serving certificate was renewed");
                    expires = until;
                }
                Err(failure) => {
                    tracing::error!(%failure, "the serving certificate could not be renewed; trying again in a minute");
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            }
        }
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.now.load_full())
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, Failure> {
    let bad = |what: &str, why: String| Failure::BadRequest(format!("the serving {what} cannot be read: {why}"));
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| bad("certificate", e.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes()).map_err(|e| bad("key", e.to_string()))?;
    let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|e| bad("key", e.to_string()))?;
    Ok(Arc::new(CertifiedKey::new(chain, key)))
}

/// TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1. A client may show a certificate of this CA, and need not.
///
/// # Errors
/// `BadRequest` if the CA certificate cannot be read.
pub fn config(certificate: Arc<ServingCertificate>, client_ca_pem: &str) -> Result<ServerConfig, Failure> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(client_ca_pem.as_bytes()) {
        let certificate = certificate.map_err(|e| Failure::BadRequest(format!("the client CA cannot be read: {e}")))?;
        roots
            .add(certificate)
            .map_err(|e| Failure::BadRequest(format!("the client CA cannot be used: {e}")))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(Failure::internal)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Failure::internal)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
