//! Empties namespaces that are being deleted, then lets them go.
//!
//! Start at [`reconcile`]. `left` counts what is still there, `status` says it in Kubernetes' words.
//!
//! The first run sweeps every kind with a live `deletecollection`, whatever the view shows: it may trail the store by a
//! write. From then on admission lets nothing new in, so a view that is younger than the sweep can be trusted.

mod left;
mod status;

use sdk::controller::{PatchFormat, Precondition};
use sdk::view::Served;
use sdk::{Fields, ObjectKey, Outcome, Request, Value, View, json, within};
use serde::{Deserialize, Serialize};

use crate::left::Left;

const NAMESPACE: &str = "v1/Namespace";
const FINALIZER: &str = "kubernetes";

#[derive(Fields)]
struct Namespace {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".spec.finalizers")]
    finalizers: Vec<String>,
    #[at(".status")]
    status: Value,
}

/// A lost one costs a second sweep.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Memo {
    /// The namespace that was swept.
    uid: String,
    /// Where in the list of kinds a sweep begins: behind one that was refused, so that it keeps no other from going.
    first: usize,
}

#[sdk::controller(
    of = "v1/Namespace",
    asks = [
        "get delete deletecollection *",
        "patch namespaces/status",
        "update namespaces/finalize",
    ],
)]
fn reconcile(namespace: Namespace, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    if !namespace.deleting || !namespace.finalizers.iter().any(|one| one == FINALIZER) {
        return Ok(outcome);
    }
    let mut memo: Memo = serde_json::from_slice(&request.memo).unwrap_or_default();
    let kinds = contents(view)?;
    let left = Left::count(&namespace.name, &kinds, view);
    let swept = memo.uid == namespace.uid && request.refused.is_none();

    let status = status::status(&namespace, &left, request);
    if status != namespace.status {
        let body = json!({"status": status});
        let key = ObjectKey::new(NAMESPACE, "", &namespace.name);
        outcome.patch(
            key,
            PatchFormat::Merge,
            &body,
            "status",
            Precondition::Uid(namespace.uid.clone()),
        );
    }
    if swept && left.is_nothing() {
        let key = ObjectKey::new(NAMESPACE, "", &namespace.name);
        outcome.remove_finalizer(key, FINALIZER, Precondition::Uid(namespace.uid.clone()));
    } else {
        if let Some(refused) = &request.refused {
            memo.first = memo.first.wrapping_add(refused.intent as usize + 1);
        }
        let due: Vec<&Served> = kinds.iter().filter(|kind| !swept || left.is_untouched(kind)).collect();
        let first = memo.first % due.len().max(1);
        for kind in due[first..].iter().chain(&due[..first]) {
            outcome.remove_all(&kind.kind, within(&namespace.name));
        }
        if !swept || !left.failures.is_empty() {
            // What the sweep finds may be nothing, and nothing wakes nobody.
            view.reached(request.now.plus_seconds(if swept { 10 } else { 1 }));
        }
    }
    memo.uid.clone_from(&namespace.uid);
    outcome.memo = serde_json::to_vec(&memo)?;
    Ok(outcome)
}

/// Every kind that can be in a namespace and go from it, each stored kind once.
fn contents(view: &View) -> sdk::Result<Vec<Served>> {
    let mut kinds = view.kinds()?;
    kinds.retain(|kind| kind.namespaced && kind.listable && kind.deletable);
    let mut seen = std::collections::BTreeSet::new();
    kinds.retain(|kind| seen.insert(kind.resource.clone()));
    Ok(kinds)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
