//! Admission of CertificateSigningRequests: who approves or signs one must be allowed to for its signer, and none asks the
//! API's own signer for everything (CertificateApproval, CertificateSigning and CertificateSubjectRestriction of
//! kube-apiserver).

use auth::rbac::{Ask, Rbac, What};
use auth::{certificate, users};
use base64::Engine;
use model::{Failure, GroupResource};
use registry::gates::{Interest, Operation, Request};
use serde_json::Value;

const GROUP: &str = "certificates.k8s.io";
/// Whoever holds a certificate of this signer is to the API whom the certificate names.
const API_CLIENTS: &str = "kubernetes.io/kube-apiserver-client";

/// Whether a write is one that [`check`] has a word on.
pub(crate) fn concern(request: &Interest<'_>) -> bool {
    request.kind.gvk.group == GROUP
        && &*request.kind.plural == "certificatesigningrequests"
        && match request.operation {
            Operation::Create => request.subresource.is_empty(),
            Operation::Update => matches!(request.subresource, "approval" | "status"),
            Operation::Delete | Operation::Connect => false,
        }
}

/// # Errors
/// `Forbidden`.
pub(crate) fn check(rbac: &Rbac, request: &Request<'_>, new: &Value) -> Result<(), Failure> {
    let refuse = |reason: String| {
        Err(Failure::Forbidden {
            resource: GroupResource::new(GROUP, "certificatesigningrequests"),
            name: request.target.name.clone(),
            reason,
        })
    };
    let Some(old) = request.old else {
        return match asks_for_everything(&new["spec"]) {
            true => refuse(format!(
                "use of {API_CLIENTS} signer with {} group is not allowed",
                users::MASTERS
            )),
            false => Ok(()),
        };
    };
    let verb = match request.target.subresource.as_str() {
        "approval" => "approve",
        _ if same(old, new, "certificate") && same(old, new, "conditions") => return Ok(()),
        _ => "sign",
    };
    // The signer cannot change; what the writer sends of it is not asked.
    let signer = old["spec"]["signerName"].as_str().unwrap_or_default();
    let domain = signer.split_once('/').map(|(domain, _)| format!("{domain}/*"));
    let may = |name: &str| {
        rbac.allows(&Ask {
            user: request.caller.user(),
            verb,
            what: What::Resource {
                group: GROUP,
                resource: "signers",
                subresource: "",
                namespace: "",
                name,
            },
        })
    };
    if may(signer) || domain.as_deref().is_some_and(may) {
        Ok(())
    } else {
        refuse(format!(
            "user not permitted to {verb} requests with signerName {signer:?}"
        ))
    }
}

fn same(old: &Value, new: &Value, field: &str) -> bool {
    old["status"][field] == new["status"][field]
}

/// A certificate that puts its holder in the group that may do everything, whatever the roles say.
fn asks_for_everything(spec: &Value) -> bool {
    let text = spec["request"].as_str().unwrap_or_default();
    spec["signerName"] == API_CLIENTS
        && base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()
            .and_then(|pem| certificate::requested_groups(&pem))
            .is_some_and(|groups| groups.iter().any(|group| group == users::MASTERS))
}
