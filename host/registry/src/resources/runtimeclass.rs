//! RuntimeClass: a name for how a node runs containers.

use model::{Cause, text};
use serde_json::Value;

use crate::names::validate_labels;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::pod_check::validate_tolerations;
use crate::table::Column;

pub(crate) fn resource() -> Resource {
    Resource::cluster("node.k8s.io", "v1", "RuntimeClass", "runtimeclasses")
        .no_generation()
        .columns(vec![
            Column::text_or("Handler", "handler", "").about("What the runtime calls it."),
            Column::age(),
        ])
        .conditional_updates()
        .create_on_update()
        .validate(validate)
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut class = At::new(new, "", wrong);
    if let Some(old) = old {
        return class.immutable("handler", old);
    }
    class.need_fit("handler", text::dns1123_label);
    class.entries("overhead.podFixed", |_, mut amount| amount.quantity_not_negative());
    class.with("scheduling.nodeSelector", |labels, path, wrong| {
        validate_labels(Some(labels), path, wrong);
    });
    class.with("scheduling", |scheduling, path, wrong| {
        validate_tolerations(scheduling, path, wrong);
    });
    let mut seen: Vec<&Value> = Vec::new();
    class.each("scheduling.tolerations", |mut toleration| {
        if seen.contains(&toleration.value) {
            toleration.duplicate();
        }
        seen.push(toleration.value);
    });
}
