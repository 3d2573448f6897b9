//! The cluster's own certificate authority, and the keys and certificates it hands out.

use std::time::{Duration, SystemTime};

use model::Failure;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use sha2::{Digest, Sha256};

/// Certificates are good from a little before they were made: clocks of other machines may lag.
const LAG: Duration = Duration::from_secs(5 * 60);
const CA_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// A certificate authority: a self-signed certificate and its key. Elliptic curve P-256 throughout.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate_pem: String,
}

/// A certificate and its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate_pem: String,
    /// PKCS #8.
    pub key_pem: String,
    pub expires: SystemTime,
}

/// What a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose<'a> {
    /// Serving TLS under these DNS names and IP addresses.
    Serving { name: &'a str, hosts: Vec<String> },
    /// Being a user: common name and organization become user name and group (empty: none).
    Client { user: &'a str, group: &'a str },
}

impl Authority {
    /// A new authority, for a cluster that has none yet.
    ///
    /// # Errors
    /// `Internal` if the machine yields no randomness.
    pub fn generate(name: &str) -> Result<Self, Failure> {
        let key = KeyPair::generate().map_err(Failure::internal)?;
        let mut params = params(name, &[], CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
        ];
        let certificate_pem = params.self_signed(&key).map_err(Failure::internal)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate_pem,
        })
    }

    /// One that was kept: see [`Authority::certificate_pem`] and [`Authority::key_pem`].
    ///
    /// # Errors
    /// `BadRequest` saying which of the two cannot be read.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, Failure> {
        let key =
            KeyPair::from_pem(key_pem).map_err(|e| Failure::BadRequest(format!("the CA key cannot be read: {e}")))?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)
            .map_err(|e| Failure::BadRequest(format!("the CA certificate cannot be read: {e}")))?;
        Ok(Self {
            issuer,
            certificate_pem: certificate_pem.to_owned(),
        })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A new key and a certificate for it.
    ///
    /// # Errors
    /// `Internal` if a host name cannot stand in a certificate.
    pub fn issue(&self, purpose: &Purpose<'_>, lifetime: Duration) -> Result<Identity, Failure> {
        let key = KeyPair::generate().map_err(Failure::internal)?;
        let (mut params, usage) = match purpose {
            Purpose::Serving { name, hosts } => (params(name, hosts, lifetime)?, ExtendedKeyUsagePurpose::ServerAuth),
            Purpose::Client { user, group } => {
                let mut params = params(user, &[], lifetime)?;
                if !group.is_empty() {
                    params.distinguished_name.push(DnType::OrganizationName, *group);
                }
                (params, ExtendedKeyUsagePurpose::ClientAuth)
            }
        };
        params.extended_key_usages = vec![usage];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer).map_err(Failure::internal)?;
        Ok(Identity {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            expires: SystemTime::now() + lifetime,
        })
    }
}

/// A new private key for signing service-account tokens (P-256, PKCS #8 PEM).
///
/// # Errors
/// `Internal` if the machine yields no randomness.
pub fn generate_signing_key() -> Result<String, Failure> {
    Ok(KeyPair::generate().map_err(Failure::internal)?.serialize_pem())
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn fingerprint(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn params(common_name: &str, hosts: &[String], lifetime: Duration) -> Result<CertificateParams, Failure> {
    let mut params = CertificateParams::new(hosts).map_err(Failure::internal)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    params.not_before = epoch + now.saturating_sub(LAG);
    params.not_after = epoch + (now + lifetime);
    Ok(params)
}
