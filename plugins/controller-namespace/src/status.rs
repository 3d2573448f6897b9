//! What is told about a namespace on its way out.

use sdk::{Instant, Request, Value, json};

use crate::Namespace;
use crate::left::Left;

/// The conditions of Kubernetes' namespace deleter, in its words.
pub(crate) fn status(namespace: &Namespace, left: &Left, request: &Request) -> Value {
    let mut status = if namespace.status.is_object() {
        namespace.status.clone()
    } else {
        json!({})
    };
    let mut conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let mut set = |kind: &str, holds: bool, reason: &str, message: String| {
        set(&mut conditions, kind, holds, reason, message, request.now);
    };
    set(
        "NamespaceDeletionDiscoveryFailure",
        false,
        "ResourcesDiscovered",
        "All resources successfully discovered".into(),
    );
    let mut failures = left.failures.clone();
    failures.extend(request.refused.as_ref().map(|refused| refused.why.message.clone()));
    if failures.is_empty() {
        let message = "All content successfully deleted, may be waiting on finalization";
        set(
            "NamespaceDeletionContentFailure",
            false,
            "ContentDeleted",
            message.into(),
        );
    } else {
        let message = format!(
            "Failed to delete all resource types, {} remaining: {}",
            failures.len(),
            failures.join(", ")
        );
        set(
            "NamespaceDeletionContentFailure",
            true,
            "ContentDeletionFailed",
            message,
        );
    }
    if left.objects.is_empty() {
        set(
            "NamespaceContentRemaining",
            false,
            "ContentRemoved",
            "All content successfully removed".into(),
        );
    } else {
        let each: Vec<String> = left
            .objects
            .iter()
            .map(|(name, n)| format!("{name} has {n} resource instances"))
            .collect();
        let message = format!("Some resources are remaining: {}", each.join(", "));
        set("NamespaceContentRemaining", true, "SomeResourcesRemain", message);
    }
    if left.finalizers.is_empty() {
        let message = "All content-preserving finalizers finished";
        set(
            "NamespaceFinalizersRemaining",
            false,
            "ContentHasNoFinalizers",
            message.into(),
        );
    } else {
        let each: Vec<String> = left
            .finalizers
            .iter()
            .map(|(name, n)| format!("{name} in {n} resource instances"))
            .collect();
        let message = format!(
            "Some content in the namespace has finalizers remaining: {}",
            each.join(", ")
        );
        set("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message);
    }
    status["phase"] = "Terminating".into();
    status["conditions"] = conditions.into();
    status
}

/// The time of a transition moves with the status only, and nothing moves if nothing is news.
fn set(conditions: &mut Vec<Value>, kind: &str, holds: bool, reason: &str, message: String, now: Instant) {
    let holds = if holds { "True" } else { "False" };
    let place = conditions.iter().position(|condition| condition["type"] == kind);
    let same = place
        .map(|at| &conditions[at])
        .filter(|condition| condition["status"] == holds);
    let since = same.map_or_else(
        || now.to_string().into(),
        |condition| condition["lastTransitionTime"].clone(),
    );
    let condition = json!({
        "type": kind,
        "status": holds,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since,
    });
    match place {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
}
