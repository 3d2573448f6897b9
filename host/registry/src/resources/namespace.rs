//! Namespace: a name space for namespaced objects. Deleting one begins its end (`Terminating`); the namespace controller
//! empties it and then takes `kubernetes` out of `spec.finalizers` through the `finalize` door, upon which it goes.

use model::{Cause, Verb};
use serde_json::{Value, json};

use crate::meta;
use crate::names::NameRule;
use crate::resource::{Deletion, Door, Resource};
use crate::resources::common::child;
use crate::table::Column;

pub(crate) fn resource() -> Resource {
    Resource::cluster("", "v1", "Namespace", "namespaces")
        .short(&["ns"])
        .verbs(&[
            Verb::Create,
            Verb::Delete,
            Verb::Get,
            Verb::List,
            Verb::Patch,
            Verb::Update,
            Verb::Watch,
        ])
        .names(NameRule::Label)
        .no_generation()
        .columns(vec![
            Column::text_or("Status", "status.phase", "").about("The status of the namespace"),
            Column::age(),
        ])
        .selectable(&["status.phase"])
        .deletion(Deletion::Namespace)
        .dying(|namespace, _| child(namespace, "status")["phase"] = "Terminating".into())
        .prepare(prepare)
        .validate(validate)
        .status()
        .door("finalize", None, &[Verb::Update], Door::Part(only_finalizers, validate))
}

fn prepare(new: &mut Value, old: Option<&Value>) {
    match old {
        None => {
            new["status"] = json!({"phase": "Active"});
            new["spec"] = json!({"finalizers": ["kubernetes"]});
        }
        // Only the finalize door takes finalizers away.
        Some(old) => meta::put(new, "spec", old.get("spec").cloned()),
    }
    // Lets a selector name a namespace; nobody may set it otherwise.
    let name = meta::text(new, "name").to_owned();
    if !name.is_empty() {
        child(child(new, "metadata"), "labels")["kubernetes.io/metadata.name"] = name.into();
    }
}

fn only_finalizers(new: &mut Value, old: &Value) {
    let finalizers = new.pointer_mut("/spec/finalizers").map(Value::take);
    let version = new.pointer("/metadata/resourceVersion").cloned();
    let managed = new.pointer("/metadata/managedFields").cloned();
    *new = old.clone();
    meta::put(
        child(new, "spec"),
        "finalizers",
        finalizers.filter(|f| f.as_array().is_some_and(|f| !f.is_empty())),
    );
    meta::put(child(new, "metadata"), "resourceVersion", version);
    meta::put(child(new, "metadata"), "managedFields", managed);
}

fn validate(new: &Value, old: Option<&Value>, wrong: &mut Vec<Cause>) {
    let (new_list, old_list) = (
        new["spec"]["finalizers"].as_array(),
        old.and_then(|o| o["spec"]["finalizers"].as_array()),
    );
    for (i, finalizer) in new_list.into_iter().flatten().enumerate() {
        let name = finalizer.as_str().unwrap_or_default();
        if !name.contains('/') && name != "kubernetes" && !old_list.is_some_and(|old| old.contains(finalizer)) {
            let says = "name is neither a standard finalizer name nor is it fully qualified";
            wrong.push(Cause::invalid(format!("spec.finalizers[{i}]"), finalizer, says));
        }
    }
    let phase = new["status"]["phase"].as_str().unwrap_or_default();
    let expected = if meta::is_dying(new) { "Terminating" } else { "Active" };
    if old.is_some() && phase != expected {
        let says = if expected == "Active" {
            "may only be 'Active' if `deletionTimestamp` is empty"
        } else {
            "may only be 'Terminating' if `deletionTimestamp` is not empty"
        };
        wrong.push(Cause::invalid("status.Phase", format!("{phase:?}"), says));
    }
}
