//! A client certificate as a user: common name and organizations, as Kubernetes reads them.

use model::UserInfo;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::pki::fingerprint;
use crate::users;

/// Who shows this certificate. The chain must have been verified against the cluster's CA before.
///
/// `None` if it names nobody: such a certificate authenticates no one.
pub fn user(der: &[u8]) -> Option<UserInfo> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    if name.is_empty() {
        return None;
    }
    let mut groups: Vec<String> = subject
        .iter_organization()
        .filter_map(|o| o.as_str().ok())
        .map(str::to_owned)
        .collect();
    groups.push(users::AUTHENTICATED.into());
    let id = format!("X509SHA256={}", fingerprint(der));
    let extra = [("authentication.kubernetes.io/credential-id".to_owned(), vec![id])].into();
    Some(UserInfo {
        name: name.into(),
        uid: String::new(),
        groups,
        extra,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pki::{Authority, Purpose};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;

    #[test]
    fn subject_becomes_user_and_groups() {
        let authority = Authority::generate("test-ca").unwrap();
        let again = Authority::load(authority.certificate_pem(), &authority.key_pem()).unwrap();
        for authority in [authority, again] {
            let purpose = Purpose::Client {
                user: "jane",
                group: "dev",
            };
            let identity = authority.issue(&purpose, Duration::from_secs(60)).unwrap();
            let der = CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap();
            let user = user(&der).unwrap();
            assert_eq!(user.name, "jane");
            assert_eq!(user.groups, ["dev", "system:authenticated"]);
            assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
        }
        assert_eq!(super::user(b"not a certificate"), None);
    }
}
