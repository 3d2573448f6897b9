//! Lease: who leads, or that a node lives. Written often, so it is small and has no status.

use model::Cause;

use crate::resource::Resource;
use crate::table::Column;

pub(crate) fn resource() -> Resource {
    Resource::namespaced("coordination.k8s.io", "v1", "Lease", "leases")
        .no_generation()
        .columns(vec![
            Column::text_or("Holder", "spec.holderIdentity", "").about("Who holds the lease."),
            Column::age(),
        ])
        .conditional_updates()
        .create_on_update()
        .validate(|new, _, wrong| {
            let spec = &new["spec"];
            if let Some(seconds) = spec["leaseDurationSeconds"].as_i64().filter(|s| *s <= 0) {
                wrong.push(Cause::invalid(
                    "spec.leaseDurationSeconds",
                    seconds,
                    "must be greater than 0",
                ));
            }
            if let Some(count) = spec["leaseTransitions"].as_i64().filter(|n| *n < 0) {
                wrong.push(Cause::invalid(
                    "spec.leaseTransitions",
                    count,
                    "must be greater than or equal to 0",
                ));
            }
            let strategy = spec["strategy"].as_str().unwrap_or_default();
            if spec["preferredHolder"].as_str().is_some_and(|h| !h.is_empty()) && strategy.is_empty() {
                let says = "may only be specified if `strategy` is defined";
                wrong.push(Cause::forbidden("spec.preferredHolder", says));
            }
        })
}
