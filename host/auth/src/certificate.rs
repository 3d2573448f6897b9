//! A client certificate, or the request for one, as a user: common name and organizations, as Kubernetes reads them.

use model::UserInfo;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

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
    let mut groups = organizations(subject);
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

/// The groups that a certificate of this request (PKCS #10 in PEM) would put its holder in; `None` if it is no such request.
pub fn requested_groups(pem: &[u8]) -> Option<Vec<String>> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&der).ok()?;
    Some(organizations(&request.certification_request_info.subject))
}

fn organizations(subject: &X509Name<'_>) -> Vec<String> {
    let all = subject.iter_organization().filter_map(|o| o.as_str().ok());
    all.map(str::to_owned).collect()
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

    #[test]
    fn a_request_tells_the_groups_it_is_for() {
        let mut asked = rcgen::CertificateParams::default();
        asked.distinguished_name.push(rcgen::DnType::CommonName, "jane");
        asked
            .distinguished_name
            .push(rcgen::DnType::OrganizationName, "system:masters");
        let request = asked.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let groups = requested_groups(request.pem().unwrap().as_bytes());
        assert_eq!(groups, Some(vec!["system:masters".to_owned()]));
        assert_eq!(requested_groups(b"not a request"), None);
    }
}
