//! CustomResourceDefinition: a kind that is served from the moment its definition is established (`custom.rs`).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::resource::Resource;
use crate::resources::common::{child, default};
use crate::resources::crd_check;
use crate::table::{Column, list_at, text_at};

pub(crate) const GROUP: &str = "apiextensions.k8s.io";

/// Holds a definition until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

pub(crate) fn resource() -> Resource {
    Resource::cluster(GROUP, "v1", "CustomResourceDefinition", "customresourcedefinitions")
        .short(&["crd", "crds"])
        .categories(&["api-extensions"])
        .stored_under("/registry/apiextensions.k8s.io/customresourcedefinitions/")
        .columns(vec![
            Column::text_or("Created At", "metadata.creationTimestamp", "").date(),
        ])
        .prepare(prepare)
        .dying(dying)
        // What the status door lets through: the names it says were accepted.
        .validate(crd_check::status)
        .status()
        .validate(crd_check::all)
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    let spec = child(new, "spec");
    let conversion = child(spec, "conversion");
    default(conversion, "strategy", "None");
    if let Some(service) = conversion
        .pointer_mut("/webhook/clientConfig/service")
        .filter(|s| s.is_object())
    {
        default(service, "port", 443);
    }
    let names = child(spec, "names");
    let kind = text_at(names, "kind").to_owned();
    if !kind.is_empty() {
        default(names, "singular", kind.to_lowercase());
        default(names, "listKind", format!("{kind}List"));
    }
    if old.is_none() {
        new["status"] = json!({"conditions": [], "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": []});
    }
    // Every version that objects may be stored in is remembered until somebody has migrated them.
    let storage = list_at(new, "spec.versions")
        .iter()
        .find(|v| v["storage"] == true)
        .map(|v| v["name"].clone());
    let stored = child(child(new, "status"), "storedVersions");
    if !stored.is_array() {
        *stored = json!([]);
    }
    if let (Some(storage), Some(stored)) = (storage, stored.as_array_mut())
        && !stored.contains(&storage)
    {
        stored.push(storage);
    }
}

fn dying(definition: &mut Value, now: Timestamp) {
    let finalizers = child(child(definition, "metadata"), "finalizers");
    if !finalizers.is_array() {
        *finalizers = json!([]);
    }
    if let Some(list) = finalizers.as_array_mut()
        && !list.iter().any(|f| f == CLEANUP)
    {
        list.push(CLEANUP.into());
    }
    let says = "CustomResource deletion is in progress";
    set_condition(definition, "Terminating", true, "InstanceDeletionInProgress", says, now);
}

pub(crate) fn is_true(definition: &Value, kind: &str) -> bool {
    list_at(definition, "status.conditions")
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

pub(crate) fn set_condition(
    definition: &mut Value,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let status = if holds { "True" } else { "False" };
    let conditions = child(child(definition, "status"), "conditions");
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    let Some(list) = conditions.as_array_mut() else {
        return;
    };
    let mut condition = json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": model::time::seconds(now)});
    match list.iter_mut().find(|c| c["type"] == kind) {
        Some(had) => {
            if had["status"] == status {
                condition["lastTransitionTime"] = had["lastTransitionTime"].clone();
            }
            *had = condition;
        }
        None => list.push(condition),
    }
}
