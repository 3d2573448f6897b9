//! PersistentVolumeClaim: a wish for storage. Once bound, all it may change is to ask for more.

use model::{Cause, Quantity, text};
use serde_json::{Value, json};

use crate::meta;
use crate::resource::Resource;
use crate::resources::check::At;
use crate::resources::common::{child, default};
use crate::resources::persistentvolume::{access_modes, modes};
use crate::table::{Column, at, list_at, plain, text_at};

pub(crate) fn resource() -> Resource {
    Resource::namespaced("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .no_generation()
        .columns(vec![
            Column::computed("Status", |o, _| match meta::is_dying(o) {
                true => "Terminating".into(),
                false => text_at(o, "status.phase").into(),
            })
            .about("Whether it is bound."),
            Column::text_or("Volume", "spec.volumeName", "").about("The volume it is bound to."),
            Column::computed("Capacity", |o, _| bound(o, "capacity.storage").into()).about("How much that holds."),
            Column::computed("Access Modes", |o, _| match text_at(o, "spec.volumeName") {
                "" => "".into(),
                _ => modes(list_at(o, "status.accessModes")).into(),
            })
            .about("How it may be mounted."),
            Column::text_or("StorageClass", "spec.storageClassName", "").about("StorageClass of the pvc"),
            Column::text_or("VolumeAttributesClass", "spec.volumeAttributesClassName", "<unset>")
                .about("VolumeAttributesClass of the pvc"),
            Column::age(),
            Column::text_or("VolumeMode", "spec.volumeMode", "<unset>")
                .wide()
                .about("Whether it is a file system or a block device."),
        ])
        .prepare(|new, old| {
            if old.is_none() {
                new["status"] = json!({"phase": "Pending"});
            }
            default_claim(child(new, "spec"));
        })
        .validate(|new, old, wrong| {
            validate_claim(&new["spec"], "spec", wrong);
            if let Some(old) = old {
                validate_change(new, old, wrong);
            }
        })
        .status_checked(validate_status)
}

fn bound(claim: &Value, path: &str) -> String {
    match text_at(claim, "spec.volumeName") {
        "" => String::new(),
        _ => at(&claim["status"], path).map(plain).unwrap_or_default(),
    }
}

/// Fills in the spec of a claim, wherever one stands. The two ways to name a source are kept in step.
pub(crate) fn default_claim(spec: &mut Value) {
    default(spec, "volumeMode", "Filesystem");
    // Other kinds of sources have never worked in the old field, and are taken for none.
    let kind = (
        text_at(&spec["dataSource"], "apiGroup"),
        text_at(&spec["dataSource"], "kind"),
    );
    let known = matches!(
        kind,
        ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
    );
    if spec["dataSource"].is_object() && spec["dataSourceRef"].is_null() && !known {
        meta::put(spec, "dataSource", None);
    }
    let source = |spec: &Value, key: &str| spec.get(key).filter(|s| s.is_object()).cloned();
    match (source(spec, "dataSource"), source(spec, "dataSourceRef")) {
        (Some(old), None) => spec["dataSourceRef"] = old,
        (None, Some(new)) if text_at(&new, "namespace").is_empty() => spec["dataSource"] = new,
        _ => {}
    }
}

/// Everything wrong with the spec of a claim at `field`.
pub(crate) fn validate_claim(spec: &Value, field: &str, wrong: &mut Vec<Cause>) {
    let mut spec = At::new(spec, field, wrong);
    access_modes(&mut spec, "at least 1 access mode is required");
    if spec.has("selector") {
        spec.selector("selector");
    }
    let storage = spec.value["resources"]["requests"].get("storage");
    if storage.is_none() {
        let field = spec.path_of("resources[storage]");
        spec.push(Cause::required(field, ""));
    }
    if let Some(amount) = storage {
        let path = spec.path_of("resources[storage]");
        spec.with("", |_, _, wrong| {
            let mut amount = At::new(amount, path, wrong);
            if amount.quantity().is_some_and(|q| q <= Quantity::default()) {
                amount.invalid("must be greater than zero");
            }
        });
    }
    spec.may_fit("storageClassName", text::dns1123_subdomain);
    spec.may_be_one_of("volumeMode", &["Block", "Filesystem"]);
    spec.may_fit("volumeAttributesClassName", text::dns1123_subdomain);
    for key in ["dataSource", "dataSourceRef"] {
        if !spec.has(key) {
            continue;
        }
        let mut source = spec.under(key);
        source.need("name", "");
        source.need("kind", "");
        let group = source.text("apiGroup");
        if group.is_empty() && !matches!(source.text("kind"), "" | "PersistentVolumeClaim") {
            source.invalid("must be 'PersistentVolumeClaim' when referencing the default apiGroup");
        }
        source.may_fit("apiGroup", text::dns1123_subdomain);
    }
    if spec.has("dataSource") && spec.has("dataSourceRef") {
        let part = |key: &str| ["apiGroup", "kind", "name"].map(|k| spec.value[key][k].clone());
        if part("dataSource") != part("dataSourceRef") {
            spec.invalid("dataSource and dataSourceRef must match");
        }
    }
}

/// A claim that is bound keeps what it asked for, but may ask for more room, or for another quality.
fn validate_change(new: &Value, old: &Value, wrong: &mut Vec<Cause>) {
    let (spec, was) = (&new["spec"], &old["spec"]);
    let storage = |spec: &Value| {
        let text = at(spec, "resources.requests.storage").map(plain).unwrap_or_default();
        Quantity::parse(&text).unwrap_or_default()
    };
    let mut rest = spec.clone();
    let bound = text_at(old, "status.phase") == "Bound";
    // A volume may be named once; a class may be filled in where there is none.
    if text_at(was, "volumeName").is_empty() {
        meta::put(&mut rest, "volumeName", was.get("volumeName").cloned());
    }
    if was["storageClassName"].is_null() {
        meta::put(&mut rest, "storageClassName", None);
    }
    meta::put(
        &mut rest,
        "volumeAttributesClassName",
        was.get("volumeAttributesClassName").cloned(),
    );
    if bound {
        let asked = was["resources"].get("requests").and_then(|r| r.get("storage")).cloned();
        if rest["resources"]["requests"].is_object() {
            meta::put(&mut rest["resources"]["requests"], "storage", asked);
        }
    }
    let fixed =
        "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    if rest != *was {
        wrong.push(Cause::forbidden("spec", fixed));
    }
    let held = at(old, "status.capacity.storage")
        .map(plain)
        .and_then(|t| Quantity::parse(&t).ok());
    if storage(spec) < storage(was) && held.is_none_or(|held| storage(spec) <= held) {
        let says = "field can not be less than status.capacity";
        wrong.push(Cause::forbidden("spec.resources.requests.storage", says));
    }
    let class = |spec: &Value| text_at(spec, "volumeAttributesClassName").to_owned();
    if !class(was).is_empty() && class(spec).is_empty() {
        let says = "update from non-nil value to nil is forbidden";
        wrong.push(Cause::forbidden("spec.volumeAttributesClassName", says));
    }
    if spec.get("volumeMode") != was.get("volumeMode") {
        wrong.push(Cause::invalid(
            "spec.volumeMode",
            &spec["volumeMode"],
            "field is immutable",
        ));
    }
}

fn validate_status(new: &Value, _old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut status = At::new(&new["status"], "status", wrong);
    status.entries("capacity", |_, mut amount| amount.quantity_not_negative());
    status.entries("allocatedResources", |_, mut amount| amount.quantity_not_negative());
}
