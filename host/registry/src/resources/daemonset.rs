//! DaemonSet: one pod of a template on every node that fits.

use model::Cause;
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::resources::workload;
use crate::table::{Column, pairs};

pub(crate) fn resource() -> Resource {
    let mut columns = vec![
        Column::number("Desired", "status.desiredNumberScheduled").about("Nodes that should run the pod"),
        Column::number("Current", "status.currentNumberScheduled").about("Nodes that run it and should"),
        Column::number("Ready", "status.numberReady").about("Nodes on which it is ready"),
        Column::number("Up-to-date", "status.updatedNumberScheduled").about("Nodes that run the newest template"),
        Column::number("Available", "status.numberAvailable").about("Nodes on which it is available"),
        Column::computed("Node Selector", |o: &Value, _| {
            pairs(crate::table::at(o, "spec.template.spec.nodeSelector")).into()
        })
        .about("A selector which must be true for the pod to fit on a node."),
        Column::age(),
    ];
    columns.extend(workload::wide());
    Resource::namespaced("apps", "v1", "DaemonSet", "daemonsets")
        .short(&["ds"])
        .categories(&["all"])
        .columns(columns)
        .prepare(|new, old| {
            workload::prepare(new, old, &[("revisionHistoryLimit", 10.into())]);
            if old.is_none() {
                new["status"] = json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0});
            }
            template_generation(new, old);
            let strategy = child(&mut new["spec"], "updateStrategy");
            default(strategy, "type", "RollingUpdate");
            if strategy["type"] == "RollingUpdate" {
                let rolling = child(strategy, "rollingUpdate");
                default(rolling, "maxUnavailable", 1);
                default(rolling, "maxSurge", 0);
            }
        })
        .validate(validate)
        .status_checked(|new, _, wrong| workload::validate_counts(new, COUNTS, wrong))
}

/// How often the template has changed, for programs of before there was `metadata.generation`.
fn template_generation(new: &mut Value, old: Option<&Value>) {
    const KEY: &str = "deprecated.daemonset.template.generation";
    let before = old.and_then(|o| o["metadata"]["annotations"][KEY].as_str()?.parse::<i64>().ok());
    let changed = |old: &Value| old["spec"]["template"] != new["spec"]["template"];
    let now = match (old, before) {
        (Some(old), Some(before)) => before + i64::from(changed(old)),
        _ => 1,
    };
    child(child(new, "metadata"), "annotations")[KEY] = now.to_string().into();
}

const COUNTS: &[&str] = &[
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    workload::validate(new, old, "daemonset", wrong);
    let mut spec = At::new(&new["spec"], "spec", wrong);
    spec.at_least("revisionHistoryLimit", 0);
    match spec.text("updateStrategy.type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let mut rolling = spec.under("updateStrategy.rollingUpdate");
            rolling.count_or_share("maxUnavailable");
            rolling.count_or_share("maxSurge");
            let none = |v: &Value| matches!(v, Value::Null) || *v == 0 || *v == "0%";
            match (none(&rolling.value["maxUnavailable"]), none(&rolling.value["maxSurge"])) {
                (true, true) => rolling
                    .under("maxUnavailable")
                    .required("cannot be 0 when maxSurge is 0"),
                (false, false) => rolling
                    .under("maxSurge")
                    .invalid("may not be set when maxUnavailable is non-zero"),
                _ => {}
            }
        }
        _ => spec
            .under("updateStrategy")
            .not_supported(&["RollingUpdate", "OnDelete"]),
    }
}
