//! PriorityClass: how much pods of a kind matter when there is not room for all.

use model::Cause;
use serde_json::Value;

use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::table::{Column, int_at};

/// Above this is the system's own.
const HIGHEST: i64 = 1_000_000_000;

/// The system's own classes: what they are worth and what for. Every cluster has them.
pub(crate) const SYSTEM: [(&str, i64, &str); 2] = [
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];

pub(crate) fn resource() -> Resource {
    Resource::cluster("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses")
        .no_generation()
        .short(&["pc"])
        .columns(vec![
            Column::number("Value", "value").about("The priority of pods of this class."),
            Column::boolean("Global-Default", "globalDefault").about("Whether pods without a class get it."),
            Column::age(),
            Column::text_or("PreemptionPolicy", "preemptionPolicy", "").about("Whether its pods push others out."),
        ])
        .prepare(|new, _| {
            default(new, "preemptionPolicy", "PreemptLowerPriority");
            // What counts cannot change, so there is but one.
            child(new, "metadata")["generation"] = 1.into();
        })
        .validate(validate)
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut class = At::new(new, "", wrong);
    let value = int_at(new, "value");
    if let Some(old) = old {
        if value != int_at(old, "value") {
            class.under("value").forbidden("may not be changed in an update.");
        }
        return class.immutable("preemptionPolicy", old);
    }
    let name = class.text("metadata.name");
    if name.starts_with("system-") {
        let known = SYSTEM.iter().find(|(known, ..)| *known == name);
        let error = match known {
            None => Some(format!("{name} is not a known system priority class")),
            Some((_, worth, _)) if *worth != value => Some(format!("value of {name} PriorityClass must be {worth}")),
            Some(_) if new["globalDefault"] == true => {
                Some(format!("globalDefault of {name} PriorityClass must be false"))
            }
            Some(_) => None,
        };
        if let Some(error) = error {
            let says = "priority class names with 'system-' prefix are reserved for system use only. error: ";
            class.under("metadata.name").forbidden(&format!("{says}{error}"));
        }
    } else if value > HIGHEST {
        let says = format!("maximum allowed value of a user defined priority is {HIGHEST}");
        class.under("value").forbidden(&says);
    }
    class.may_be_one_of("preemptionPolicy", &["PreemptLowerPriority", "Never"]);
}
