//! The file that makes kubectl find the cluster, as text. Writing it is the caller's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::pki::Identity;

/// One cluster, one user, one context.
#[derive(Clone, Copy)]
pub struct Kubeconfig<'a> {
    /// Names the cluster and the context.
    pub name: &'a str,
    /// `https://127.0.0.1:6443`.
    pub server: &'a str,
    pub ca_pem: &'a str,
    /// Names the user entry; who it is stands in the certificate.
    pub user: &'a str,
    pub identity: &'a Identity,
}

impl Kubeconfig<'_> {
    /// YAML with certificates and key inside: readable by the owner only (mode 0600) is how it must be written.
    pub fn yaml(&self) -> String {
        let Self { name, server, user, .. } = self;
        let ca = STANDARD.encode(self.ca_pem);
        let certificate = STANDARD.encode(&self.identity.certificate_pem);
        let key = STANDARD.encode(&self.identity.key_pem);
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
             users:\n\
             - name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
             contexts:\n\
             - name: {name}\n  context:\n    cluster: {name}\n    user: {user}\n\
             current-context: {name}\n"
        )
    }
}
