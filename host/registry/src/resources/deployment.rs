//! Deployment: ReplicaSets one after the other, so that an application changes while it runs.

use model::Cause;
use serde_json::{Value, json};

use crate::resource::{Resource, ScalePaths};
use crate::resources::common::{child, default, not_negative};
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
        .status()
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
    workload::validate(new, old, &["Always"], wrong);
    for path in ["spec.revisionHistoryLimit", "spec.progressDeadlineSeconds"] {
        not_negative(new, path, wrong);
    }
    let strategy = &new["spec"]["strategy"];
    match strategy["type"].as_str() {
        Some("RollingUpdate") => {
            let (unavailable, surge) = (
                &strategy["rollingUpdate"]["maxUnavailable"],
                &strategy["rollingUpdate"]["maxSurge"],
            );
            for (key, value) in [("maxUnavailable", unavailable), ("maxSurge", surge)] {
                int_or_percent(value, &format!("spec.strategy.rollingUpdate.{key}"), wrong);
            }
            if is_zero(unavailable) && is_zero(surge) {
                let says = "may not be 0 when `maxSurge` is 0";
                wrong.push(Cause::invalid(
                    "spec.strategy.rollingUpdate.maxUnavailable",
                    unavailable,
                    says,
                ));
            }
        }
        Some("Recreate") => {
            if !strategy["rollingUpdate"].is_null() {
                let says = "may not be specified when strategy `type` is 'Recreate'";
                wrong.push(Cause::forbidden("spec.strategy.rollingUpdate", says));
            }
        }
        _ => wrong.push(Cause::not_supported(
            "spec.strategy.type",
            &strategy["type"],
            &["Recreate", "RollingUpdate"],
        )),
    }
    let (deadline, ready) = (
        new["spec"]["progressDeadlineSeconds"].as_i64(),
        int_at(new, "spec.minReadySeconds"),
    );
    if let Some(deadline) = deadline.filter(|d| *d <= ready) {
        wrong.push(Cause::invalid(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        ));
    }
}

/// `3` or `25%`.
pub(crate) fn int_or_percent(value: &Value, field: &str, wrong: &mut Vec<Cause>) {
    match value {
        Value::Number(n) if n.as_i64().is_some_and(|n| n < 0) => {
            wrong.push(Cause::invalid(field, n, "must be greater than or equal to 0"));
        }
        Value::String(text) => {
            let digits = text.strip_suffix('%');
            if !digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit())) {
                let says = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                wrong.push(Cause::invalid(field, format!("{text:?}"), says));
            }
        }
        _ => {}
    }
}

fn is_zero(value: &Value) -> bool {
    matches!(value, Value::Null) || *value == json!(0) || *value == json!("0%")
}
