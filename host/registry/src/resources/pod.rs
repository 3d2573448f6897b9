//! Pod: containers that live and die together on one node.

use model::Cause;
use serde_json::Value;

use crate::resource::{Deletion, Resource};
use crate::table::{Column, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "Pod", "pods")
        .short(&["po"])
        .categories(&["all"])
        .columns(vec![Column::age()])
        .selectable(&["spec.nodeName", "status.phase"])
        .deletion(Deletion::Graceful(grace))
        .prepare(prepare)
        .validate(validate)
        .status()
}

fn prepare(_new: &mut Value, _old: Option<&Value>) {}

fn validate(_new: &Value, _old: Option<&Value>, _wrong: &mut Vec<Cause>) {}

/// The pod's own grace unless the caller has a wish; none for a pod that runs nowhere or has come to its end.
fn grace(pod: &Value, wish: Option<u64>) -> u64 {
    let phase = text_at(pod, "status.phase");
    if text_at(pod, "spec.nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    wish.unwrap_or_else(|| pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30))
}
