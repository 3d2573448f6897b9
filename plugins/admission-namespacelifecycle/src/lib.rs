//! Keeps objects out of namespaces that are not there or going, and the cluster's own namespaces from being deleted.

use sdk::Fields;
use sdk::admission::{Answer, Denial, OfNamespace, Operation, Request};

/// Namespaces that nobody may delete.
const KEPT: [&str; 3] = ["default", "kube-system", "kube-public"];

/// Of the object nothing matters.
#[derive(Fields, Clone, Debug)]
struct Anything {
    #[at(".metadata.name")]
    _name: String,
}

#[derive(Fields, Clone, Debug)]
struct Namespace {
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
}

// In the first phase: a rule that misses something in a namespace that is not there must not be the one to say so.
#[sdk::admission(
    on = ["create *", "delete namespaces"],
    phases = ["mutating"],
    with_fields_of_namespace = [".metadata.deletionTimestamp"],
)]
fn review(request: Request<Anything, OfNamespace<Namespace>>) -> sdk::Result<Answer> {
    Ok(decide(
        &request.operation,
        &request.resource,
        &request.namespace,
        &request.name,
        request.in_namespace.map(|n| n.0.deleting),
    ))
}

/// `deleting`: of the object's namespace; `None` if there is no such namespace.
fn decide(operation: &Operation, resource: &str, namespace: &str, name: &str, deleting: Option<bool>) -> Answer {
    if matches!(operation, Operation::Delete) {
        return if resource == "namespaces" && KEPT.contains(&name) {
            Answer::deny("this namespace may not be deleted")
        } else {
            Answer::allow()
        };
    }
    // `namespaces` itself, and everything cluster-scoped, is in no namespace.
    if namespace.is_empty() || resource == "namespaces" {
        return Answer::allow();
    }
    match deleting {
        Some(false) => Answer::allow(),
        Some(true) => Answer::deny(format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        )),
        None => Answer {
            denied: Some(Denial {
                code: 404,
                message: format!("namespaces \"{namespace}\" not found"),
            }),
            ..Answer::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(
        operation: Operation,
        resource: &str,
        namespace: &str,
        name: &str,
        deleting: Option<bool>,
    ) -> Option<(u16, String)> {
        decide(&operation, resource, namespace, name, deleting)
            .denied
            .map(|d| (d.code, d.message))
    }

    #[test]
    fn a_namespace_must_be_there_and_staying() {
        assert_eq!(denied(Operation::Create, "pods", "web", "a", Some(false)), None);
        let (code, message) = denied(Operation::Create, "pods", "web", "a", None).unwrap();
        assert_eq!((code, message.as_str()), (404, "namespaces \"web\" not found"));
        let (code, message) = denied(Operation::Create, "pods", "web", "a", Some(true)).unwrap();
        assert_eq!(code, 403);
        assert!(message.contains("because it is being terminated"), "{message}");
    }

    #[test]
    fn cluster_scoped_objects_are_in_none() {
        assert_eq!(denied(Operation::Create, "nodes", "", "a", None), None);
        assert_eq!(denied(Operation::Create, "namespaces", "web", "web", None), None);
    }

    #[test]
    fn the_clusters_own_namespaces_stay() {
        assert!(denied(Operation::Delete, "namespaces", "", "kube-system", None).is_some());
        assert_eq!(denied(Operation::Delete, "namespaces", "", "web", None), None);
        assert_eq!(denied(Operation::Delete, "pods", "web", "default", None), None);
    }
}
