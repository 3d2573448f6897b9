//! ReplicaSet: as many pods of one template as it asks for.

use crate::resource::{Resource, ScalePaths};
use crate::resources::replicationcontroller::PARTS;
use crate::resources::workload;
use crate::table::Column;

pub(crate) fn resource() -> Resource {
    let mut columns = vec![
        Column::number("Desired", "spec.replicas").about("Replicas is the number of desired pods."),
        Column::number("Current", "status.replicas").about("Pods that exist."),
        Column::number("Ready", "status.readyReplicas").about("Pods that are ready."),
        Column::age(),
    ];
    columns.extend(workload::wide());
    Resource::namespaced("apps", "v1", "ReplicaSet", "replicasets")
        .short(&["rs"])
        .categories(&["all"])
        .columns(columns)
        .selectable_or("status.replicas", "0")
        .prepare(|new, old| {
            workload::prepare(new, old, &[("replicas", 1.into())]);
            if old.is_none() {
                new["status"]["replicas"] = 0.into();
            }
        })
        .validate(|new, old, wrong| workload::validate(new, old, "deployment", wrong))
        .status_checked(|new, _, wrong| workload::validate_replicas(new, PARTS, wrong))
        .scale(ScalePaths::usual())
}
