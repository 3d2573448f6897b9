//! Pods that a node's `NoExecute` taints drive away, and pods whose node is gone.

use std::collections::BTreeMap;

use sdk::controller::{PatchFormat, Precondition, Propagation};
use sdk::{Fields, Instant, ObjectKey, Outcome, Value, View, all, json};
use serde::Deserialize;

use crate::{NODE, Node, POD};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Taint {
    key: String,
    value: String,
    effect: String,
    time_added: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Toleration {
    key: String,
    operator: String,
    value: String,
    effect: String,
    toleration_seconds: Option<i64>,
}

impl Toleration {
    /// As the API docs of `Toleration` say.
    fn tolerates(&self, taint: &Taint) -> bool {
        (self.effect.is_empty() || self.effect == taint.effect)
            && (self.key.is_empty() || self.key == taint.key)
            && match self.operator.as_str() {
                "Exists" => true,
                "" | "Equal" => !self.key.is_empty() && self.value == taint.value,
                _ => false,
            }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Stays,
    /// Once this has come.
    Goes(Instant),
}

#[derive(Fields)]
struct Pod {
    #[at(".metadata.namespace")]
    namespace: String,
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.deletionTimestamp?")]
    deleting: bool,
    #[at(".status.phase")]
    phase: String,
    #[at(".spec.tolerations")]
    tolerations: Value,
}

impl Pod {
    fn key(&self) -> ObjectKey {
        ObjectKey::new(POD, &self.namespace, &self.name)
    }
}

pub(crate) fn evict(
    node: &Node,
    taints: Vec<Value>,
    seen: &mut BTreeMap<String, i64>,
    view: &View,
    now: Instant,
    outcome: &mut Outcome,
) -> sdk::Result<()> {
    let mut taints: Vec<Taint> = serde_json::from_value(taints.into())?;
    taints.retain(|taint| taint.effect == "NoExecute");
    let taints = with_times(taints, seen, now);
    if taints.is_empty() {
        return Ok(());
    }
    for pod in view.find::<Pod>(POD, &all().equals(".spec.nodeName", &node.name), "", 0)? {
        if pod.deleting {
            continue;
        }
        let tolerations: Vec<Toleration> = match &pod.tolerations {
            Value::Null => Vec::new(),
            list => serde_json::from_value(list.clone())?,
        };
        match verdict(&taints, &tolerations) {
            Verdict::Goes(due) if view.reached(due) => {
                let message = "Taint manager: deleting due to NoExecute taint";
                disrupted(&pod, "DeletionByTaintManager", message, now, None, outcome);
                let message = format!("Marking for deletion Pod {}/{}", pod.namespace, pod.name);
                outcome.event(&pod.key(), &pod.uid, false, "TaintManagerEviction", message);
                outcome.remove(pod.key(), Precondition::Uid(pod.uid), Propagation::Background);
            }
            Verdict::Goes(_) | Verdict::Stays => {}
        }
    }
    Ok(())
}

/// Since when each stands. A taint that was put there by hand has no time; its time is when we first saw it.
fn with_times(taints: Vec<Taint>, seen: &mut BTreeMap<String, i64>, now: Instant) -> Vec<(Taint, Instant)> {
    let name = |taint: &Taint| format!("{}={}", taint.key, taint.value);
    seen.retain(|known, _| taints.iter().any(|taint| name(taint) == *known));
    let timed = taints.into_iter().map(|taint| {
        let since = taint.time_added.as_deref().and_then(Instant::parse);
        let since = since.unwrap_or_else(|| Instant(*seen.entry(name(&taint)).or_insert(now.0)));
        (taint, since)
    });
    timed.collect()
}

/// At once where a taint is not tolerated; else when the shortest time for which one is tolerated is over.
fn verdict(taints: &[(Taint, Instant)], tolerations: &[Toleration]) -> Verdict {
    let mut first: Option<Instant> = None;
    for (taint, since) in taints {
        let mut fitting = tolerations.iter().filter(|one| one.tolerates(taint)).peekable();
        if fitting.peek().is_none() {
            return Verdict::Goes(*since);
        }
        let shortest = fitting.filter_map(|one| one.toleration_seconds).min();
        let due = shortest.map(|seconds| since.plus_seconds(seconds.max(0)));
        first = match (first, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    first.map_or(Verdict::Stays, Verdict::Goes)
}

/// Pods that are bound to a node that is no more: no kubelet will ever end them. They are told to have failed, which lets
/// the API server drop them without waiting for one.
pub(crate) fn orphans(node: &str, view: &View, now: Instant, outcome: &mut Outcome) -> sdk::Result<()> {
    let pods: Vec<Pod> = view.find(POD, &all().equals(".spec.nodeName", node), "", 0)?;
    // Absence is decided by the store; an error is not one.
    if pods.is_empty() || view.get_live::<()>(NODE, "", node)?.is_some() {
        return Ok(());
    }
    for pod in pods {
        let failed = (!matches!(pod.phase.as_str(), "Succeeded" | "Failed")).then_some("Failed");
        if let Some(phase) = failed {
            disrupted(
                &pod,
                "DeletionByPodGC",
                "PodGC: node no longer exists",
                now,
                Some(phase),
                outcome,
            );
        }
        outcome.remove(pod.key(), Precondition::Uid(pod.uid), Propagation::Background);
    }
    Ok(())
}

/// The condition by which a Job tells a disruption from a failure of its own (KEP-3329).
fn disrupted(pod: &Pod, reason: &str, message: &str, now: Instant, phase: Option<&str>, outcome: &mut Outcome) {
    let condition = json!({
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": now.to_string(),
    });
    let mut body = json!({"status": {"conditions": [condition]}});
    if let Some(phase) = phase {
        body["status"]["phase"] = phase.into();
    }
    outcome.patch(
        pod.key(),
        PatchFormat::Strategic,
        &body,
        "status",
        Precondition::Uid(pod.uid.clone()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tolerations(list: Value) -> Vec<Toleration> {
        serde_json::from_value(list).expect("tolerations")
    }

    fn taint(key: &str, since: i64) -> (Taint, Instant) {
        (
            Taint {
                key: key.into(),
                effect: "NoExecute".into(),
                ..Taint::default()
            },
            Instant(since),
        )
    }

    #[test]
    fn the_first_end_of_patience_counts() {
        let both = [taint("a", 1_000), taint("b", 2_000)];
        let says = |list: Value| verdict(&both, &tolerations(list));
        assert_eq!(says(json!([])), Verdict::Goes(Instant(1_000)));
        assert_eq!(
            says(json!([{"key": "a", "operator": "Exists"}])),
            Verdict::Goes(Instant(2_000))
        );
        assert_eq!(says(json!([{"operator": "Exists"}])), Verdict::Stays);
        assert_eq!(
            says(json!([{"operator": "Exists", "effect": "NoSchedule"}])),
            Verdict::Goes(Instant(1_000))
        );
        assert_eq!(
            says(json!([
                {"key": "a", "operator": "Exists", "tolerationSeconds": 300},
                {"key": "b", "operator": "Exists", "tolerationSeconds": 10},
            ])),
            Verdict::Goes(Instant(12_000))
        );
        assert_eq!(
            says(json!([{"key": "a", "value": "x"}, {"key": "b", "operator": "Exists"}])),
            Verdict::Goes(Instant(1_000)),
            "another value is another taint"
        );
    }

    #[test]
    fn a_taint_without_a_time_is_as_old_as_our_knowledge_of_it() {
        let mut seen = BTreeMap::from([("gone=".to_owned(), 1)]);
        let bare = || {
            vec![Taint {
                key: "k".into(),
                effect: "NoExecute".into(),
                ..Taint::default()
            }]
        };
        assert_eq!(with_times(bare(), &mut seen, Instant(5))[0].1, Instant(5));
        assert_eq!(with_times(bare(), &mut seen, Instant(9))[0].1, Instant(5));
        assert_eq!(seen.len(), 1, "what is gone is forgotten");
    }
}
