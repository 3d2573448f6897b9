//! The taints that follow from a node's conditions.

use sdk::controller::Precondition;
use sdk::{Instant, Outcome, Value, View, all, json};

use crate::{NODE, Node};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";

/// A condition, the status in which it taints, the taint against scheduling.
const SCHEDULING: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Writes the whole list, if it is another one. Taints of others stay, and so do the times of those that stood already.
/// Answers with those that stood and stay. `was_ready` is what the view says of this node.
pub(crate) fn keep(
    node: &Node,
    was_ready: bool,
    view: &View,
    now: Instant,
    outcome: &mut Outcome,
) -> sdk::Result<Vec<Value>> {
    let before: Vec<Value> = node.taints.as_array().cloned().unwrap_or_default();
    // A node that never said whether it is ready keeps what it was registered with.
    let known = !node.condition("Ready").is_empty();
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    let mut ours: Vec<(&str, &str)> = vec![(UNSCHEDULABLE, "NoSchedule")];
    for (condition, status, key) in SCHEDULING {
        if condition != "Ready" || known {
            ours.push((key, "NoSchedule"));
            wanted.extend((node.condition(condition) == status).then_some((key, "NoSchedule")));
        }
    }
    wanted.extend(node.unschedulable.then_some((UNSCHEDULABLE, "NoSchedule")));
    if known {
        ours.extend([(NOT_READY, "NoExecute"), (UNREACHABLE, "NoExecute")]);
        let key = match node.condition("Ready") {
            "False" => Some(NOT_READY),
            "Unknown" => Some(UNREACHABLE),
            _ => None,
        };
        if let Some(key) = key
            && another_is_ready(was_ready, view)?
        {
            wanted.push((key, "NoExecute"));
        }
    }
    let is = |taint: &Value, (key, effect): (&str, &str)| taint["key"] == key && taint["effect"] == effect;
    let mut taints = before.clone();
    taints.retain(|taint| wanted.iter().any(|one| is(taint, *one)) || !ours.iter().any(|one| is(taint, *one)));
    let stay = taints.clone();
    for one in wanted {
        if !taints.iter().any(|taint| is(taint, one)) {
            taints.push(json!({"key": one.0, "effect": one.1, "timeAdded": now.to_string()}));
        }
    }
    if taints != before {
        let taints = if taints.is_empty() { Value::Null } else { taints.into() };
        let when = Precondition::FieldsAsRead((node.uid.clone(), ".spec.taints".into()));
        outcome.merge(node.key(), &json!({"spec": {"taints": taints}}), when);
    }
    Ok(stay)
}

/// Where no node is ready, it is more likely that we cannot hear than that all have gone; and there is nowhere to move
/// pods to. Then nothing is evicted (full disruption, in Kubernetes' words). Read for nodes in trouble only: a healthy one
/// does not run for another's change.
fn another_is_ready(was_ready: bool, view: &View) -> sdk::Result<bool> {
    let tally = view.tally(NODE, &all(), ".status.conditions[type=Ready].status", "")?;
    let ready: i64 = tally
        .rows()?
        .filter(|row| row.value(0).str() == "True")
        .map(|row| row.count())
        .sum();
    Ok(ready > i64::from(was_ready))
}
