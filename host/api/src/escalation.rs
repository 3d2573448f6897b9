//! Admission of roles, bindings and certificates: nobody leaves rights behind that he does not hold, whichever door he came
//! through.

use std::sync::Arc;

use async_trait::async_trait;
use auth::Rbac;
use auth::rbac::{PolicyRule, RoleRef, RoleWrite};
use model::Failure;
use registry::gates::{Admit, Interest, Notes, Operation, Request};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::signers;

const GROUP: &str = "rbac.authorization.k8s.io";

/// The check, around the rest of the chain.
pub struct NoEscalation {
    pub rbac: Arc<Rbac>,
    pub rest: Arc<dyn Admit>,
}

fn is_ours(request: &Interest<'_>) -> bool {
    let changes = matches!(request.operation, Operation::Create | Operation::Update);
    let role = request.kind.gvk.group == GROUP && request.subresource.is_empty();
    changes && (role || signers::concern(request))
}

fn interest<'a>(request: &'a Request<'_>) -> Interest<'a> {
    Interest {
        operation: request.operation,
        kind: request.kind,
        subresource: &request.target.subresource,
        namespace: &request.target.namespace,
    }
}

#[async_trait]
impl Admit for NoEscalation {
    fn wants(&self, request: &Interest<'_>) -> bool {
        is_ours(request) || self.rest.wants(request)
    }

    async fn mutate(
        &self,
        request: &Request<'_>,
        object: Option<&mut Value>,
        notes: &mut Notes,
    ) -> Result<(), Failure> {
        if self.rest.wants(&interest(request)) {
            self.rest.mutate(request, object, notes).await
        } else {
            Ok(())
        }
    }

    async fn validate(&self, request: &Request<'_>, object: Option<&Value>, notes: &mut Notes) -> Result<(), Failure> {
        // Last word on what is stored: after every mutation.
        if let (true, Some(object)) = (is_ours(&interest(request)), object) {
            self.check(request, object)?;
        }
        if self.rest.wants(&interest(request)) {
            self.rest.validate(request, object, notes).await
        } else {
            Ok(())
        }
    }
}

impl NoEscalation {
    fn check(&self, request: &Request<'_>, new: &Value) -> Result<(), Failure> {
        if signers::concern(&interest(request)) {
            return signers::check(&self.rbac, request, new);
        }
        let same = |field: &str| request.old.is_some_and(|old| old.get(field) == new.get(field));
        let target = request.target;
        let of = RoleWrite {
            resource: &target.gvr.resource,
            namespace: &target.namespace,
            name: &target.name,
        };
        let user = request.caller.user();
        match target.gvr.resource.as_str() {
            // Who leaves the grants as they are grants nothing.
            "roles" | "clusterroles" if same("rules") && same("aggregationRule") => Ok(()),
            "roles" | "clusterroles" => {
                let mut rules: Vec<PolicyRule> = read(new, "rules")?;
                if new.get("aggregationRule").is_some_and(|rule| !rule.is_null()) && !same("aggregationRule") {
                    // Labels decide what it will hold: anything, so only who holds everything may say so.
                    rules.extend(PolicyRule::everything());
                }
                self.rbac.read(|policy| policy.may_write_role(user, of, &rules))
            }
            "rolebindings" | "clusterrolebindings" if same("subjects") && same("roleRef") => Ok(()),
            "rolebindings" | "clusterrolebindings" => {
                let role: Option<RoleRef> = read(new, "roleRef")?;
                let Some(role) = role else { return Ok(()) };
                self.rbac.read(|policy| policy.may_bind(user, of, &role))
            }
            _ => Ok(()),
        }
    }
}

fn read<T: DeserializeOwned + Default>(object: &Value, field: &str) -> Result<T, Failure> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(T::default()),
        Some(value) => T::deserialize(value).map_err(|why| Failure::BadRequest(format!("{field}: {why}"))),
    }
}
