//! Says how many pods of a PodDisruptionBudget may be missed. The eviction subresource takes from that number.
//!
//! Start at [`reconcile`]. `expected` finds out how many pods there ought to be.

mod expected;

use std::collections::BTreeMap;

use sdk::columns::Cell;
use sdk::controller::Precondition;
use sdk::view::Selection;
use sdk::{Fields, Instant, ObjectKey, Outcome, Request, Value, View, json, within};

const BUDGET: &str = "policy/v1/PodDisruptionBudget";
const POD: &str = "v1/Pod";
/// How long an eviction that was allowed is believed to be under way. After that the pod counts as staying.
const BELIEVED: i64 = 120;

#[derive(Fields)]
struct Budget {
    #[at(".metadata.namespace")]
    namespace: String,
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.resourceVersion")]
    version: String,
    #[at(".metadata.generation")]
    generation: i64,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".spec.selector")]
    selector: Value,
    #[at(".spec.minAvailable")]
    min_available: Value,
    #[at(".spec.maxUnavailable")]
    max_unavailable: Value,
    #[at(".status")]
    status: Value,
}

#[sdk::controller(
    of = "policy/v1/PodDisruptionBudget",
    asks = ["get *", "update patch poddisruptionbudgets.policy/status", "create patch events"],
)]
fn reconcile(budget: Budget, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    if budget.deleting {
        return Ok(outcome);
    }
    let key = ObjectKey::new(BUDGET, &budget.namespace, &budget.name);
    // No selector at all covers nothing; an empty one covers the namespace.
    let pods = match budget.selector.is_null() {
        true => None,
        false => Some(within(&budget.namespace).labels(sdk::selector::text(&budget.selector)?)),
    };
    let status = match expected::count(&budget, pods.as_ref(), view)? {
        Ok(expected) => {
            let disrupted = disrupted(&budget, view, request.now)?;
            let healthy = match &pods {
                Some(pods) => healthy(&budget, pods, &disrupted, view)?,
                None => 0,
            };
            status(&budget, &expected, healthy, &disrupted, request.now)
        }
        Err(why) => {
            outcome.event(&key, &budget.uid, true, "CalculateExpectedPodCountFailed", why.clone());
            failed(&budget, &why, request.now)
        }
    };
    if status != budget.status {
        let object = json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": budget.name, "namespace": budget.namespace},
            "status": status,
        });
        // An eviction writes the same status: what it took must not be given back by one who did not see it.
        outcome.set_status(&object, Precondition::Version(budget.version));
    }
    Ok(outcome)
}

/// Pods that are ready, and neither on their way out nor allowed to be evicted.
fn healthy(budget: &Budget, pods: &Selection, disrupted: &BTreeMap<String, Instant>, view: &View) -> sdk::Result<i64> {
    #[derive(Fields)]
    struct Pod {
        #[at(".status.conditions[type=Ready].status")]
        ready: String,
        #[at(".metadata.deletionTimestamp?")]
        deleting: bool,
    }
    const BY: &str = ".status.conditions[type=Ready].status .metadata.deletionTimestamp?";
    let mut healthy = 0;
    for row in view.tally(POD, pods, BY, "")?.rows()? {
        if row.value(0).str() == "True" && row.value(1) != Cell::Bool(true) {
            healthy += row.count();
        }
    }
    for name in disrupted.keys() {
        let pod: Option<Pod> = view.get(POD, &budget.namespace, name)?;
        healthy -= i64::from(pod.is_some_and(|pod| pod.ready == "True" && !pod.deleting));
    }
    Ok(healthy)
}

/// Evictions that were allowed and whose pods are still to go.
fn disrupted(budget: &Budget, view: &View, now: Instant) -> sdk::Result<BTreeMap<String, Instant>> {
    #[derive(Fields)]
    struct Pod {
        #[at(".metadata.deletionTimestamp?")]
        deleting: bool,
    }
    let mut left = BTreeMap::new();
    for (name, since) in budget.status["disruptedPods"].as_object().into_iter().flatten() {
        let since = since.as_str().and_then(Instant::parse).unwrap_or(now);
        let pod: Option<Pod> = view.get(POD, &budget.namespace, name)?;
        let stays = pod.is_some_and(|pod| !pod.deleting);
        if stays && !view.reached(since.plus_seconds(BELIEVED)) {
            left.insert(name.clone(), since);
        }
    }
    Ok(left)
}

fn status(
    budget: &Budget,
    expected: &expected::Expected,
    healthy: i64,
    disrupted: &BTreeMap<String, Instant>,
    now: Instant,
) -> Value {
    // A budget over no pods allows none to be missed.
    let allowed = if expected.pods > 0 {
        (healthy - expected.healthy).max(0)
    } else {
        0
    };
    let (is, reason) = if allowed > 0 {
        ("True", "SufficientPods")
    } else {
        ("False", "InsufficientPods")
    };
    let mut status = json!({
        "observedGeneration": budget.generation,
        "currentHealthy": healthy,
        "desiredHealthy": expected.healthy,
        "expectedPods": expected.pods,
        "disruptionsAllowed": allowed,
        "conditions": condition(budget, is, reason, "", now),
    });
    if !disrupted.is_empty() {
        let disrupted = disrupted
            .iter()
            .map(|(name, since)| (name.clone(), since.to_string().into()));
        status["disruptedPods"] = Value::Object(disrupted.collect());
    }
    status
}

/// Whatever cannot be counted allows nothing.
fn failed(budget: &Budget, why: &str, now: Instant) -> Value {
    let mut status = budget.status.clone();
    if !status.is_object() {
        status = json!({"currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0});
    }
    status["observedGeneration"] = budget.generation.into();
    status["disruptionsAllowed"] = 0.into();
    status["conditions"] = condition(budget, "False", "SyncFailed", why, now);
    status
}

/// The conditions, with this one; its time is that of its last change.
fn condition(budget: &Budget, is: &str, reason: &str, message: &str, now: Instant) -> Value {
    const TYPE: &str = "DisruptionAllowed";
    let mut conditions = budget.status["conditions"].as_array().cloned().unwrap_or_default();
    let known = conditions.iter().position(|condition| condition["type"] == TYPE);
    let since = known
        .map(|at| &conditions[at])
        .filter(|condition| condition["status"] == is);
    let since = since.map_or_else(
        || now.to_string().into(),
        |condition| condition["lastTransitionTime"].clone(),
    );
    let new = json!({
        "type": TYPE,
        "status": is,
        "reason": reason,
        "message": message,
        "observedGeneration": budget.generation,
        "lastTransitionTime": since,
    });
    match known {
        Some(at) => conditions[at] = new,
        None => conditions.push(new),
    }
    conditions.into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
