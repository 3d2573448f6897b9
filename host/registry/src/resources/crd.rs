//! CustomResourceDefinition: a kind that is served from the moment its definition is established (`custom.rs`).

use jiff::Timestamp;
use model::{Cause, Failure, Gvk};
use schema::Schema;
use serde_json::{Value, json};

use crate::jsonpath::JsonPath;
use crate::meta;
use crate::resource::Resource;
use crate::resources::common::{child, default, immutable};
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
        .validate(validate)
        .status()
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    let spec = child(new, "spec");
    default(child(spec, "conversion"), "strategy", "None");
    let names = child(spec, "names");
    let kind = text_at(names, "kind").to_owned();
    default(names, "singular", kind.to_lowercase());
    default(names, "listKind", format!("{kind}List"));
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

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let (group, plural) = (text_at(spec, "group"), text_at(spec, "names.plural"));
    let name = meta::text(new, "name");
    if name != format!("{plural}.{group}") {
        let says = "must be spec.names.plural+\".\"+spec.group";
        wrong.push(Cause::invalid("metadata.name", format!("{name:?}"), says));
    }
    if group.is_empty() {
        wrong.push(Cause::required("spec.group", ""));
    } else {
        for complaint in model::text::dns1123_subdomain(group) {
            wrong.push(Cause::invalid("spec.group", format!("{group:?}"), &complaint));
        }
        if !group.contains('.') {
            wrong.push(Cause::invalid(
                "spec.group",
                format!("{group:?}"),
                "should be a domain with at least one dot",
            ));
        }
    }
    if !matches!(text_at(spec, "scope"), "Cluster" | "Namespaced") {
        wrong.push(Cause::not_supported(
            "spec.scope",
            &spec["scope"],
            &["Cluster", "Namespaced"],
        ));
    }
    for key in ["plural", "singular", "kind", "listKind"] {
        let field = format!("spec.names.{key}");
        let text = text_at(spec, &format!("names.{key}")).to_lowercase();
        if text.is_empty() {
            wrong.push(Cause::required(field, ""));
            continue;
        }
        for complaint in model::text::dns1035_label(&text) {
            wrong.push(Cause::invalid(field.clone(), &spec["names"][key], &complaint));
        }
    }
    let versions = list_at(spec, "versions");
    let mut seen: Vec<&str> = Vec::new();
    for (i, version) in versions.iter().enumerate() {
        let field = |key: &str| format!("spec.versions[{i}].{key}");
        let name = text_at(version, "name");
        for complaint in model::text::dns1035_label(name) {
            wrong.push(Cause::invalid(field("name"), format!("{name:?}"), &complaint));
        }
        if seen.contains(&name) {
            wrong.push(Cause::invalid(
                "spec.versions",
                format!("{name:?}"),
                "must contain unique version names",
            ));
        }
        seen.push(name);
        let schema = &version["schema"]["openAPIV3Schema"];
        if schema.is_null() {
            wrong.push(Cause::required(field("schema.openAPIV3Schema"), "schemas are required"));
        } else if let Err(failure) = Schema::from_crd(schema, Gvk::new(group, name, text_at(spec, "names.kind"))) {
            match failure {
                Failure::Invalid { causes, .. } => wrong.extend(causes.into_iter().map(|cause| {
                    let at = if cause.field.is_empty() {
                        String::new()
                    } else {
                        format!(".{}", cause.field)
                    };
                    Cause {
                        field: format!("{}{at}", field("schema.openAPIV3Schema")),
                        ..cause
                    }
                })),
                other => wrong.push(Cause::invalid(
                    field("schema.openAPIV3Schema"),
                    "\"\"",
                    &other.to_string(),
                )),
            }
        }
        for (j, column) in list_at(version, "additionalPrinterColumns").iter().enumerate() {
            if let Err(why) = JsonPath::parse(text_at(column, "jsonPath")) {
                let field = format!("spec.versions[{i}].additionalPrinterColumns[{j}].jsonPath");
                wrong.push(Cause::invalid(field, &column["jsonPath"], &why));
            }
        }
    }
    match versions.iter().filter(|v| v["storage"] == true).count() {
        1 => {}
        _ => wrong.push(Cause::invalid(
            "spec.versions",
            spec["versions"].clone(),
            "must have exactly one version marked as storage version",
        )),
    }
    let dropped = list_at(new, "status.storedVersions")
        .iter()
        .filter(|v| !seen.contains(&v.as_str().unwrap_or_default()));
    for (i, version) in dropped.enumerate() {
        let says = "missing from spec.versions; it was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in that version and removes it from status.storedVersions";
        wrong.push(Cause::invalid(format!("status.storedVersions[{i}]"), version, says));
    }
    for path in ["spec.group", "spec.names.plural"] {
        immutable(new, old, path, wrong);
    }
    if old.is_some_and(|old| is_true(old, "Established")) {
        for path in ["spec.scope", "spec.names.kind"] {
            immutable(new, old, path, wrong);
        }
    }
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
