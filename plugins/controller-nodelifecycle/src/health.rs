//! Whether a node is heard of: by its Lease, or by the heartbeat in its status.

use sdk::controller::{PatchFormat, Precondition};
use sdk::{Fields, Instant, ObjectKey, Outcome, Value, View, all, json};
use serde::{Deserialize, Serialize};

use crate::{Config, Node, POD};

const LEASE: &str = "coordination.k8s.io/v1/Lease";
const LEASES: &str = "kube-node-lease";

/// What a node said last, and when we heard it: by our own clock, so that a node's wrong one does not matter, and that a
/// host which itself was away takes nobody for lost.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Heard {
    word: String,
    at: i64,
}

#[derive(Fields)]
struct Lease {
    #[at(".spec.renewTime")]
    renewed: String,
}

pub(crate) fn is_lost(node: &Node, config: &Config, heard: &mut Heard, view: &View, now: Instant) -> sdk::Result<bool> {
    let lease: Option<Lease> = view.get(LEASE, LEASES, &node.name)?;
    let conditions = node.conditions.as_array();
    let ready = conditions.and_then(|list| list.iter().find(|condition| condition["type"] == "Ready"));
    let beat = ready
        .and_then(|ready| ready["lastHeartbeatTime"].as_str())
        .unwrap_or_default();
    let renewed = lease.map(|lease| lease.renewed).unwrap_or_default();
    let word = format!("{renewed} {beat}");
    if heard.word != word {
        *heard = Heard { word, at: now.0 };
    }
    let grace = if ready.is_none() && renewed.is_empty() {
        config.startup_grace_period_seconds
    } else {
        config.grace_period_seconds
    };
    Ok(view.reached(Instant(heard.at).plus_seconds(grace)))
}

/// The conditions of a node that is lost. Those it never told are not known either.
pub(crate) fn unknown(node: &Node, now: Instant) -> Value {
    let mut conditions = node.conditions.as_array().cloned().unwrap_or_default();
    for kind in ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"] {
        match conditions.iter_mut().find(|condition| condition["type"] == kind) {
            Some(condition) if condition["status"] != "Unknown" => {
                condition["status"] = "Unknown".into();
                condition["reason"] = "NodeStatusUnknown".into();
                condition["message"] = "Kubelet stopped posting node status.".into();
                condition["lastTransitionTime"] = now.to_string().into();
            }
            Some(_) => {}
            None => conditions.push(json!({
                "type": kind,
                "status": "Unknown",
                "reason": "NodeStatusNeverUpdated",
                "message": "Kubelet never posted node status.",
                "lastHeartbeatTime": node.created,
                "lastTransitionTime": now.to_string(),
            })),
        }
    }
    conditions.into()
}

/// Services stop sending to pods of which nothing is known. The kubelet says otherwise as soon as it is back.
pub(crate) fn pods_not_ready(node: &Node, view: &View, now: Instant, outcome: &mut Outcome) -> sdk::Result<()> {
    #[derive(Fields)]
    struct Pod {
        #[at(".metadata.namespace")]
        namespace: String,
        #[at(".metadata.name")]
        name: String,
        #[at(".metadata.uid")]
        uid: String,
    }
    let ready = all()
        .equals(".spec.nodeName", &node.name)
        .equals(".status.conditions[type=Ready].status", "True");
    for pod in view.find::<Pod>(POD, &ready, "", 0)? {
        let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": now.to_string()});
        let body = json!({"status": {"conditions": [condition]}});
        let key = ObjectKey::new(POD, &pod.namespace, &pod.name);
        outcome.event(&key, &pod.uid, true, "NodeNotReady", "Node is not ready");
        outcome.patch(key, PatchFormat::Strategic, &body, "status", Precondition::Uid(pod.uid));
    }
    Ok(())
}
