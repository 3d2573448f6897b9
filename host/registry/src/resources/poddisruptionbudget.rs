//! PodDisruptionBudget: how many pods of a set must stay when others are evicted.

use model::Cause;
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::born_with_status;
use crate::table::Column;

pub(crate) fn resource() -> Resource {
    Resource::namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets")
        .short(&["pdb"])
        .columns(vec![
            Column::text_or("Min Available", "spec.minAvailable", "N/A")
                .about("The minimum number of pods that must be available."),
            Column::text_or("Max Unavailable", "spec.maxUnavailable", "N/A")
                .about("The maximum number of pods that may be unavailable."),
            Column::number("Allowed Disruptions", "status.disruptionsAllowed")
                .about("Calculated number of pods that may be disrupted at this time."),
            Column::age(),
        ])
        .prepare(|new, old| {
            born_with_status(new, old);
            if old.is_none() {
                for count in ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"] {
                    new["status"][count] = 0.into();
                }
            }
        })
        .conditional_updates()
        .validate(validate)
        .status_checked(validate_status)
}

fn validate(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(&new["spec"], "spec", wrong);
    if spec.has("minAvailable") && spec.has("maxUnavailable") {
        spec.invalid("minAvailable and maxUnavailable cannot be both set");
    }
    for key in ["minAvailable", "maxUnavailable"] {
        spec.count_or_share(key);
    }
    spec.selector("selector");
    spec.may_be_one_of("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]);
}

fn validate_status(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut status = At::new(&new["status"], "status", wrong);
    status.with("conditions", super::common::conditions);
    for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
        status.at_least(key, 0);
    }
}
