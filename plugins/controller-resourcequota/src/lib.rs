//! Counts what the objects of a namespace take of its ResourceQuotas.
//!
//! Start at [`reconcile`]. `pods` counts pods and what they ask for, `others` everything else, `settle` brings the count
//! together with what requests under way have charged. What the host can count and
//! sum by itself is never read one by one, so that a namespace of thousands costs what its changes cost.

mod others;
mod pods;
mod settle;

use std::collections::BTreeMap;

use sdk::controller::Precondition;
use sdk::pods::Amounts;
use sdk::quota::Scopes;
use sdk::{Fields, Outcome, Quantity, Request, Value, View, json};

#[derive(Fields)]
struct Quota {
    #[at(".metadata.namespace")]
    namespace: String,
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.resourceVersion")]
    version: String,
    #[at(".spec.hard")]
    hard: BTreeMap<String, String>,
    #[at(".spec.scopes")]
    scopes: Value,
    #[at(".spec.scopeSelector")]
    selector: Value,
    #[at(".status")]
    status: Value,
}

#[sdk::controller(
    of = "v1/ResourceQuota",
    asks = ["get *", "update patch resourcequotas/status"],
)]
fn reconcile(quota: Quota, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    let names: Vec<String> = quota.hard.keys().cloned().collect();
    let scopes = Scopes::of(&quota.scopes, &quota.selector);
    let mut counted = pods::count(&quota.namespace, &names, &scopes, view)?;
    // Scopes are about pods: such a quota counts nothing else.
    if scopes.is_empty() {
        sdk::pods::add(&mut counted, &others::count(&quota.namespace, &names, view)?);
    }
    counted.retain(|name, _| quota.hard.contains_key(name));
    let charged = sdk::pods::amounts(&quota.status["used"]);
    let memo = serde_json::from_slice(&request.memo).unwrap_or_default();
    let (used, memo) = settle::settle(&charged, &counted, &memo, request.now, &|due| view.reached(due));
    outcome.memo = serde_json::to_vec(&memo)?;
    let used = written(&quota.hard, &used);
    if !stands(&quota.status["hard"], &json!(quota.hard)) || !stands(&quota.status["used"], &used) {
        let object = json!({
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": quota.name, "namespace": quota.namespace},
            "status": {"hard": quota.hard, "used": used},
        });
        // A charge made since would be forgotten.
        outcome.set_status(&object, Precondition::Version(quota.version));
    }
    Ok(outcome)
}

/// Every name that something counts, with the suffixes that its limit is written with.
fn written(hard: &BTreeMap<String, String>, used: &Amounts) -> Value {
    let known = hard.iter().filter(|(name, _)| sdk::quota::Counted::of(name).is_some());
    let amounts = known.map(|(name, limit)| {
        let used = used.get(name).copied().unwrap_or_default();
        let limit = Quantity::parse(limit).ok();
        // A sum takes the format of what it is added to, if that is not zero.
        let used = limit.map_or(used, |limit| limit + used - limit);
        (name.clone(), Value::String(used.to_string()))
    });
    Value::Object(amounts.collect())
}

/// The same names with equal amounts, however they are written.
fn stands(is: &Value, wanted: &Value) -> bool {
    let (is, wanted) = (sdk::pods::amounts(is), sdk::pods::amounts(wanted));
    is == wanted
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
