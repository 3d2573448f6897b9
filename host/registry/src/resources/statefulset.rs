//! StatefulSet: pods with names, order and storage of their own.

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
        Column::age(),
    ];
    columns.extend(workload::containers());
    Resource::namespaced("apps", "v1", "StatefulSet", "statefulsets")
        .short(&["sts"])
        .categories(&["all"])
        .columns(columns)
        .prepare(prepare)
        .validate(validate)
        .status_checked(|new, _, wrong| {
            let parts = [
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
            ];
            workload::validate_replicas(new, &parts, wrong);
        })
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
    workload::validate(new, old, "statefulset", wrong);
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if !matches!(spec.text("podManagementPolicy"), "OrderedReady" | "Parallel") {
        spec.under("podManagementPolicy")
            .invalid("must be 'OrderedReady' or 'Parallel'");
    }
    match spec.text("updateStrategy.type") {
        "RollingUpdate" => {
            spec.at_least("updateStrategy.rollingUpdate.partition", 0);
            spec.count_or_share("updateStrategy.rollingUpdate.maxUnavailable");
        }
        "OnDelete" if spec.has("updateStrategy.rollingUpdate") => spec
            .under("updateStrategy.rollingUpdate")
            .invalid("only allowed for updateStrategy 'RollingUpdate'"),
        "OnDelete" => {}
        "" => spec.under("updateStrategy").required(""),
        _ => spec
            .under("updateStrategy")
            .invalid("must be 'RollingUpdate' or 'OnDelete'"),
    }
    for when in ["whenDeleted", "whenScaled"] {
        let field = format!("persistentVolumeClaimRetentionPolicy.{when}");
        spec.may_be_one_of(&field, &["Retain", "Delete"]);
    }
    spec.at_least("ordinals.start", 0);
    spec.at_least("revisionHistoryLimit", 0);
    spec.each("volumeClaimTemplates", |mut claim| {
        claim.need_fit("metadata.name", model::text::dns1123_subdomain);
    });
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
