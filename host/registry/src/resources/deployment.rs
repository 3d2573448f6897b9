//! Deployment: ReplicaSets one after the other, so that an application changes while it runs.

use model::Cause;
use serde_json::{Value, json};

use crate::resource::{Resource, ScalePaths};
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::resources::workload;
use crate::table::{Column, int_at};

pub(crate) fn resource() -> Resource {
    let ready = |o: &Value, _| format!("{}/{}", int_at(o, "status.readyReplicas"), int_at(o, "spec.replicas")).into();
    let mut columns = vec![
        Column::computed("Ready", ready).about("Number of the pod with ready state"),
        Column::number("Up-to-date", "status.updatedReplicas").about("Pods of the newest template"),
        Column::number("Available", "status.availableReplicas").about("Pods ready for at least minReadySeconds"),
        Column::age(),
    ];
    columns.extend(workload::wide());
    Resource::namespaced("apps", "v1", "Deployment", "deployments")
        .short(&["deploy"])
        .categories(&["all"])
        .columns(columns)
        .prepare(prepare)
        .validate(validate)
        .status_checked(|new, _, wrong| {
            let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
            workload::validate_counts(
                new,
                &["observedGeneration", "unavailableReplicas", "terminatingReplicas"],
                wrong,
            );
            workload::validate_replicas(new, &parts, wrong);
        })
        .scale(ScalePaths::usual())
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    workload::prepare(
        new,
        old,
        &[
            ("replicas", 1.into()),
            ("revisionHistoryLimit", 10.into()),
            ("progressDeadlineSeconds", 600.into()),
        ],
    );
    let strategy = child(&mut new["spec"], "strategy");
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = child(strategy, "rollingUpdate");
        default(rolling, "maxUnavailable", "25%");
        default(rolling, "maxSurge", "25%");
    }
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    workload::validate(new, old, "deployment", wrong);
    let mut spec = At::new(&new["spec"], "spec", wrong);
    spec.at_least("revisionHistoryLimit", 0);
    match spec.text("strategy.type") {
        "RollingUpdate" => rolling(spec.under("strategy.rollingUpdate")),
        "Recreate" => {
            if spec.has("strategy.rollingUpdate") {
                let says = "may not be specified when strategy `type` is 'Recreate'";
                spec.under("strategy.rollingUpdate").forbidden(says);
            }
        }
        _ => spec.under("strategy").not_supported(&["Recreate", "RollingUpdate"]),
    }
    if let Some(deadline) = spec.int("progressDeadlineSeconds") {
        spec.at_least("progressDeadlineSeconds", 0);
        if deadline <= spec.int("minReadySeconds").unwrap_or(0) {
            spec.under("progressDeadlineSeconds")
                .invalid("must be greater than minReadySeconds");
        }
    }
}

fn rolling(mut rolling: At<'_, '_>) {
    rolling.count_or_share("maxUnavailable");
    rolling.count_or_percent("maxSurge");
    if is_zero(&rolling.value["maxUnavailable"]) && is_zero(&rolling.value["maxSurge"]) {
        rolling
            .under("maxUnavailable")
            .invalid("may not be 0 when `maxSurge` is 0");
    }
}

fn is_zero(value: &Value) -> bool {
    matches!(value, Value::Null) || *value == json!(0) || *value == json!("0%")
}
