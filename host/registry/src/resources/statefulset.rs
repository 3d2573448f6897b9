//! StatefulSet: pods with names, order and storage of their own.

use model::Cause;
use serde_json::{Value, json};

use crate::resource::{Resource, ScalePaths};
use crate::resources::common::{child, default};
use crate::resources::workload;
use crate::table::{Column, int_at};

pub(crate) fn resource() -> Resource {
    let ready = |o: &Value, _| format!("{}/{}", int_at(o, "status.readyReplicas"), int_at(o, "spec.replicas")).into();
    let mut columns = vec![
        Column::computed("Ready", ready).about("Number of the pod with ready state"),
        Column::age(),
    ];
    columns.extend(workload::containers());
    Resource::namespaced("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .categories(&["all"])
        .columns(columns)
        .prepare(prepare)
        .validate(validate)
        .status()
        .scale(ScalePaths::usual())
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    let keep = json!({"whenDeleted": "Retain", "whenScaled": "Retain"});
    workload::prepare(
        new,
        old,
        &[
            ("replicas", 1.into()),
            ("podManagementPolicy", "OrderedReady".into()),
            ("revisionHistoryLimit", 10.into()),
            ("persistentVolumeClaimRetentionPolicy", keep),
        ],
    );
    if old.is_none() {
        new["status"] = json!({"replicas": 0, "availableReplicas": 0});
    }
    let strategy = child(&mut new["spec"], "updateStrategy");
    default(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        default(child(strategy, "rollingUpdate"), "partition", 0);
    }
    for claim in new["spec"]
        .get_mut("volumeClaimTemplates")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        default(claim, "apiVersion", "v1");
        default(claim, "kind", "PersistentVolumeClaim");
        default(child(claim, "spec"), "volumeMode", "Filesystem");
        default(child(claim, "status"), "phase", "Pending");
    }
}

/// What of a StatefulSet's spec may change.
const CHANGING: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    workload::validate(new, old, &["Always"], wrong);
    let Some(old) = old else { return };
    let fixed = |object: &Value| {
        let spec = object["spec"].as_object().cloned().unwrap_or_default();
        spec.into_iter()
            .filter(|(k, _)| !CHANGING.contains(&k.as_str()))
            .collect::<Vec<_>>()
    };
    if fixed(new) != fixed(old) {
        wrong.push(Cause::forbidden("spec", "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"));
    }
}
