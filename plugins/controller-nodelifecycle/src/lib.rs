//! Finds nodes that are silent, says so with conditions and taints, and moves pods off nodes that will not have them.
//!
//! Start at [`reconcile`]. `health` decides whether a node is heard of, `taints` what follows for it, `eviction` what
//! follows for its pods.

mod eviction;
mod health;
mod taints;

use std::collections::BTreeMap;

use sdk::controller::{PatchFormat, Precondition};
use sdk::{Fields, ObjectKey, Outcome, Request, Value, View, json};
use serde::{Deserialize, Serialize};

use crate::health::Heard;

const NODE: &str = "v1/Node";
const POD: &str = "v1/Pod";

#[derive(Fields)]
struct Node {
    #[at(".metadata.name")]
    name: String,
    #[at(".metadata.uid")]
    uid: String,
    #[at(".metadata.creationTimestamp")]
    created: String,
    #[at(".spec.unschedulable")]
    unschedulable: bool,
    #[at(".spec.taints")]
    taints: Value,
    #[at(".status.conditions")]
    conditions: Value,
}

impl Node {
    fn key(&self) -> ObjectKey {
        ObjectKey::new(NODE, "", &self.name)
    }

    /// `True`, `False`, `Unknown`; empty where there is no such condition.
    fn condition(&self, kind: &str) -> &str {
        let conditions = self.conditions.as_array();
        let one = conditions.and_then(|list| list.iter().find(|condition| condition["type"] == kind));
        one.and_then(|condition| condition["status"].as_str())
            .unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    /// How long a node may be silent.
    grace_period_seconds: i64,
    /// How long one that was never heard of may be.
    startup_grace_period_seconds: i64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            grace_period_seconds: 40,
            startup_grace_period_seconds: 60,
        }
    }
}

const SCHEMA: &str = r#"{
    "type": "object",
    "properties": {
        "gracePeriodSeconds": {"type": "integer", "minimum": 1},
        "startupGracePeriodSeconds": {"type": "integer", "minimum": 1}
    },
    "additionalProperties": false
}"#;

/// A lost one gives every node and every pod its whole time again.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Memo {
    heard: Heard,
    /// When a taint without a time of its own was first seen, by key, value and effect; in milliseconds.
    tainted: BTreeMap<String, i64>,
}

#[sdk::controller(
    of = "v1/Node",
    asks = [
        "get patch nodes",
        "patch nodes/status",
        "get delete pods",
        "patch pods/status",
        "get leases.coordination.k8s.io",
        "create patch events",
    ],
    config = SCHEMA,
)]
fn reconcile(node: Option<Node>, view: &View, request: &Request) -> sdk::Result<Outcome> {
    let mut outcome = Outcome::new();
    let Some(node) = node else {
        eviction::orphans(&request.key.name, view, request.now, &mut outcome)?;
        return Ok(outcome);
    };
    let config = sdk::config::<Option<Config>>()?.unwrap_or_default();
    let mut memo: Memo = serde_json::from_slice(&request.memo).unwrap_or_default();
    let lost = health::is_lost(&node, &config, &mut memo.heard, view, request.now)?;
    let conditions = if lost {
        health::unknown(&node, request.now)
    } else {
        node.conditions.clone()
    };
    if conditions != node.conditions {
        let body = json!({"status": {"conditions": conditions}});
        let when = Precondition::FieldsAsRead((node.uid.clone(), ".status.conditions".into()));
        outcome.patch(node.key(), PatchFormat::Merge, &body, "status", when);
        let message = format!("Node {} status is now: NodeNotReady", node.name);
        outcome.event(&node.key(), &node.uid, false, "NodeNotReady", message);
    }
    let was_ready = node.condition("Ready") == "True";
    let told = Node { conditions, ..node };
    let taints = taints::keep(&told, was_ready, view, request.now, &mut outcome)?;
    if told.condition("Ready") == "Unknown" {
        health::pods_not_ready(&told, view, request.now, &mut outcome)?;
    }
    // Not by taints that come only now: the next run sees whether they had better be taken back.
    eviction::evict(&told, taints, &mut memo.tainted, view, request.now, &mut outcome)?;
    outcome.memo = serde_json::to_vec(&memo)?;
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        sdk::test::cases(super::reconcile, "cases");
    }
}
