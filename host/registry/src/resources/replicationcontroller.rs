//! ReplicationController: what ReplicaSet was before selectors had operators.

use model::Cause;
use serde_json::{Value, json};

use crate::names::validate_labels;
use crate::resource::{Resource, ScalePaths};
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::resources::{pod_check, workload};
use crate::table::{Column, at, pairs};

/// What `status.replicas` counts, part by part.
pub(crate) const PARTS: &[&str] = &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

pub(crate) fn resource() -> Resource {
    let mut columns = vec![
        Column::number("Desired", "spec.replicas").about("How many pods are wanted."),
        Column::number("Current", "status.replicas").about("How many there are."),
        Column::number("Ready", "status.readyReplicas").about("How many of them are ready."),
        Column::age(),
    ];
    columns.extend(workload::containers());
    columns.push(Column::computed("Selector", |o, _| pairs(o["spec"].get("selector")).into()).wide());
    Resource::namespaced("", "v1", "ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .categories(&["all"])
        .stored_under("/registry/controllers/")
        .columns(columns)
        .selectable_or("status.replicas", "0")
        .prepare(|new, old| {
            let labels = at(new, "spec.template.metadata.labels").cloned();
            let given = at(new, "spec.template").is_some_and(Value::is_object);
            workload::prepare(new, old, &[("replicas", 1.into())]);
            if !given {
                crate::meta::put(&mut new["spec"], "template", None);
            }
            if let Some(labels) = labels {
                default(&mut new["spec"], "selector", labels.clone());
                if new["metadata"]["labels"].as_object().is_none_or(|l| l.is_empty()) {
                    child(new, "metadata")["labels"] = labels;
                }
            }
            if old.is_none() {
                new["status"]["replicas"] = 0.into();
            }
        })
        .validate(validate)
        .status_checked(validate_status)
        .scale(ScalePaths::usual())
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    spec.at_least("minReadySeconds", 0);
    let selector = spec.value["selector"].as_object().filter(|s| !s.is_empty());
    if selector.is_none() {
        spec.under("selector").required("");
    }
    spec.with("selector", |labels, field, wrong| {
        validate_labels(Some(labels), field, wrong)
    });
    spec.at_least("replicas", 0);
    let template = &spec.value["template"];
    if template.is_null() {
        return spec.under("template").required("");
    }
    let labels = at(template, "metadata.labels");
    let covers = |(key, value): (&String, &Value)| labels.is_some_and(|l| l.get(key) == Some(value));
    if !selector.is_some_and(|s| s.iter().all(covers)) {
        let shown = labels.cloned().unwrap_or(json!({}));
        let cause = Cause::invalid(
            "spec.template.metadata.labels",
            shown,
            "`selector` does not match template `labels`",
        );
        spec.push(cause);
    }
    pod_check::validate_template(template, "spec.template", &["Always"], wrong);
}

fn validate_status(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    workload::validate_replicas(new, PARTS, wrong);
}
