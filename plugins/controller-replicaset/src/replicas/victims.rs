//! Which pods go first when there are too many.

use std::cmp::{Ordering, Reverse};
use std::collections::BTreeMap;

use sdk::{Fields, Instant, Value, View, within};

use super::{Of, POD, Set};

#[derive(Debug, Fields)]
pub(crate) struct Pod {
    #[at(".metadata.name")]
    pub(crate) name: String,
    #[at(".metadata.uid")]
    pub(crate) uid: String,
    #[at(".spec.nodeName")]
    node: String,
    #[at(".status.phase")]
    phase: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".status.conditions[type=Ready].status")]
    ready: String,
    #[at(".status.conditions[type=Ready].lastTransitionTime")]
    ready_since: Option<Instant>,
    #[at(".metadata.annotations[\"controller.kubernetes.io/pod-deletion-cost\"]")]
    cost: String,
    #[at(".status.containerStatuses[*].restartCount")]
    restarts: Value,
    #[at(".metadata.creationTimestamp")]
    created: Option<Instant>,
}

/// `n` pods of the set, least wanted first.
pub(crate) fn choose(of: &Of, set: &Set, selector: &str, n: usize, view: &View, now: Instant) -> sdk::Result<Vec<Pod>> {
    let ours = within(&set.namespace).controlled_by(&set.uid).labels(selector);
    let mut pods: Vec<Pod> = view.find(POD, &ours, "", 0)?;
    pods.retain(|pod| !pod.deleting && pod.phase != "Succeeded" && pod.phase != "Failed");
    // All of them go: their order does not matter, and how crowded their nodes are is not asked.
    if n < pods.len() {
        let crowd = crowd(of, set, view)?;
        pods.sort_by(|a, b| least_wanted_first(a, b, &crowd, now));
        pods.truncate(n);
    }
    Ok(pods)
}

/// How many active pods of this set and its siblings (other revisions of one Deployment) each node has: where they double
/// up, one is missed least.
fn crowd(of: &Of, set: &Set, view: &View) -> sdk::Result<BTreeMap<String, i64>> {
    #[derive(Fields)]
    struct Sibling {
        #[at(".metadata.uid")]
        uid: String,
    }
    let mut family = vec![set.uid.clone()];
    if !set.controller.is_empty() {
        let siblings = within(&set.namespace).controlled_by(&set.controller);
        let siblings: Vec<Sibling> = view.find(of.kind, &siblings, "", 0)?;
        family.extend(
            siblings
                .into_iter()
                .map(|sibling| sibling.uid)
                .filter(|uid| *uid != set.uid),
        );
    }
    let mut crowd = BTreeMap::new();
    for uid in family {
        let pods = within(&set.namespace)
            .controlled_by(&uid)
            .equals(".metadata.deletionTimestamp?", "false");
        for row in view.tally(POD, &pods, ".spec.nodeName .status.phase", "")?.rows()? {
            if !matches!(row.value(1).str(), "Succeeded" | "Failed") {
                *crowd.entry(row.value(0).str().to_owned()).or_default() += row.count();
            }
        }
    }
    Ok(crowd)
}

/// kube-controller-manager's order (`controller.ActivePodsWithRanks`): not scheduled before scheduled; pending, unknown,
/// running; not ready before ready; cheaper before dearer; on crowded nodes before lonely ones; ready for a shorter time
/// first; often restarted first; younger first. Times are compared by their order of magnitude (KEP-2185), so that
/// sets of one age are not always cut from the same side.
fn least_wanted_first(a: &Pod, b: &Pod, crowd: &BTreeMap<String, i64>, now: Instant) -> Ordering {
    let phase = |pod: &Pod| match pod.phase.as_str() {
        "Unknown" => 1,
        "Running" => 2,
        _ => 0,
    };
    let ready = |pod: &Pod| pod.ready == "True";
    let cost = |pod: &Pod| pod.cost.parse::<i32>().unwrap_or(0);
    let crowded = |pod: &Pod| Reverse(crowd.get(&pod.node).copied().unwrap_or(0));
    let restarts = |pod: &Pod| {
        let counts = pod.restarts.as_array().into_iter().flatten().filter_map(Value::as_i64);
        Reverse(counts.max().unwrap_or(0))
    };
    let ready_for = |pod: &Pod| {
        if ready(pod) { magnitude(pod.ready_since, now) } else { 0 }
    };
    (!a.node.is_empty())
        .cmp(&!b.node.is_empty())
        .then_with(|| phase(a).cmp(&phase(b)))
        .then_with(|| ready(a).cmp(&ready(b)))
        .then_with(|| cost(a).cmp(&cost(b)))
        .then_with(|| crowded(a).cmp(&crowded(b)))
        .then_with(|| ready_for(a).cmp(&ready_for(b)))
        .then_with(|| restarts(a).cmp(&restarts(b)))
        .then_with(|| magnitude(a.created, now).cmp(&magnitude(b.created, now)))
        .then_with(|| a.uid.cmp(&b.uid))
}

/// The binary logarithm of the time since, in nanoseconds as Kubernetes takes it; what never was counts as just now.
fn magnitude(since: Option<Instant>, now: Instant) -> u32 {
    let millis = since.map_or(0, |since| now.0 - since.0);
    u64::try_from(millis)
        .unwrap_or(0)
        .saturating_mul(1_000_000)
        .checked_ilog2()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant(1_000_000_000);

    fn pod(name: &str) -> Pod {
        Pod {
            name: name.into(),
            uid: name.into(),
            node: "n".into(),
            phase: "Running".into(),
            deleting: false,
            ready: "True".into(),
            ready_since: Some(Instant(0)),
            cost: String::new(),
            restarts: Value::Null,
            created: Some(Instant(0)),
        }
    }

    #[test]
    fn each_rule_decides_before_the_next() {
        // Each pod is less wanted than those behind it, by one rule, and better by all the rules after that.
        let mut pods = vec![
            Pod {
                node: String::new(),
                ..pod("unscheduled")
            },
            Pod {
                phase: "Pending".into(),
                ..pod("pending")
            },
            Pod {
                phase: "Unknown".into(),
                ..pod("unknown")
            },
            Pod {
                ready: "False".into(),
                ..pod("not-ready")
            },
            Pod {
                cost: "-5".into(),
                ..pod("cheap")
            },
            Pod {
                node: "crowded".into(),
                ..pod("crowded")
            },
            Pod {
                ready_since: Some(Instant(999_990_000)),
                ..pod("just-ready")
            },
            Pod {
                restarts: serde_json::json!([0, 7]),
                ..pod("restarted")
            },
            Pod {
                created: Some(Instant(999_990_000)),
                ..pod("young")
            },
            pod("plain-a"),
            pod("plain-b"),
            Pod {
                cost: "5".into(),
                ..pod("dear")
            },
        ];
        let expected: Vec<String> = pods.iter().map(|pod| pod.name.clone()).collect();
        let crowd = BTreeMap::from([("crowded".to_owned(), 3), ("n".to_owned(), 1)]);
        pods.reverse();
        pods.sort_by(|a, b| least_wanted_first(a, b, &crowd, NOW));
        assert_eq!(pods.iter().map(|pod| pod.name.clone()).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn ages_are_compared_by_magnitude() {
        let at = |millis_ago: i64| magnitude(Some(Instant(NOW.0 - millis_ago)), NOW);
        assert_eq!(at(70_000), at(130_000), "70 s and 130 s are alike");
        assert!(at(10_000) < at(100_000));
        assert_eq!(magnitude(None, NOW), 0);
    }
}
