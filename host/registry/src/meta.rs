//! What the system decides about `metadata`, whatever the caller wrote there.

use client::Target;
use jiff::Timestamp;
use model::{Failure, ResourceVersion};
use serde_json::{Map, Value};

use crate::resource::{Deletion, Resource};

/// A text field of `metadata`, empty where there is none.
pub(crate) fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|m| m.get(key))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The finalizers, or none.
pub(crate) fn finalizers(object: &Value) -> Vec<&str> {
    let list = object
        .get("metadata")
        .and_then(|m| m.get("finalizers"))
        .and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

pub(crate) fn is_dying(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// `metadata.resourceVersion`, where it is given.
pub(crate) fn version(object: &Value) -> Result<Option<ResourceVersion>, Failure> {
    match text(object, "resourceVersion") {
        "" | "0" => Ok(None),
        version => version.parse().map(Some),
    }
}

/// The metadata as a map; made where it is missing or no map at all.
pub(crate) fn fields(object: &mut Value) -> &mut Map<String, Value> {
    let empty = || Value::Object(Map::new());
    if !object.is_object() {
        *object = empty();
    }
    let meta = object
        .as_object_mut()
        .expect("just made so")
        .entry("metadata")
        .or_insert_with(empty);
    if !meta.is_object() {
        *meta = empty();
    }
    meta.as_object_mut().expect("just made so")
}

/// Sets or removes a member of an object.
pub(crate) fn put(object: &mut Value, key: &str, value: Option<Value>) {
    let Some(map) = object.as_object_mut() else {
        return;
    };
    match value {
        Some(value) => map.insert(key.into(), value),
        None => map.remove(key),
    };
}

/// Checks that a document belongs where it was sent, and fills in what the URL says.
pub(crate) fn address(resource: &Resource, target: &Target, new: &mut Value) -> Result<(), Failure> {
    let expected = &resource.kind.gvk;
    let says = |key: &str| new.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (says("apiVersion"), says("kind"));
    if !api_version.is_empty() && api_version != expected.api_version() {
        return Err(Failure::BadRequest(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            expected.api_version()
        )));
    }
    if !kind.is_empty() && kind != expected.kind {
        return Err(Failure::BadRequest(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            expected.kind
        )));
    }
    let api_version = expected.api_version();
    let kind = expected.kind.to_string();
    if let Some(object) = new.as_object_mut() {
        object.insert("apiVersion".into(), api_version.into());
        object.insert("kind".into(), kind.into());
    }
    address_act(target, new)?;
    if !resource.kind.namespaced() {
        fields(new).remove("namespace");
    }
    fields(new).remove("selfLink");
    Ok(())
}

/// The same for the document of a subresource, which has a kind of its own.
pub(crate) fn address_act(target: &Target, new: &mut Value) -> Result<(), Failure> {
    let (name, namespace) = (text(new, "name").to_owned(), text(new, "namespace").to_owned());
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(Failure::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request".into(),
        ));
    }
    if !target.name.is_empty() && !name.is_empty() && name != target.name {
        return Err(Failure::BadRequest(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            target.name
        )));
    }
    let meta = fields(new);
    if !target.namespace.is_empty() {
        meta.insert("namespace".into(), target.namespace.clone().into());
    }
    if name.is_empty() && !target.name.is_empty() {
        meta.insert("name".into(), target.name.clone().into());
    }
    Ok(())
}

/// A new object: its uid, its time, its first generation; nothing that only an older object can have.
pub(crate) fn born(new: &mut Value, now: Timestamp, uid: &str, generation: bool) {
    let meta = fields(new);
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "resourceVersion",
    ] {
        meta.remove(key);
    }
    meta.insert("uid".into(), uid.into());
    meta.insert("creationTimestamp".into(), model::time::seconds(now).into());
    match generation {
        true => meta.insert("generation".into(), 1.into()),
        false => meta.remove("generation"),
    };
}

/// A changed object: what only the system sets stays as it was.
pub(crate) fn kept(new: &mut Value, old: &Value) {
    let Some(was) = old.get("metadata").and_then(Value::as_object) else {
        return;
    };
    let meta = fields(new);
    for key in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "generateName",
        "resourceVersion",
    ] {
        match was.get(key) {
            Some(value) => meta.insert(key.into(), value.clone()),
            None => meta.remove(key),
        };
    }
    meta.remove("selfLink");
}

/// Raises `metadata.generation` when anything but metadata changed, and but `status` where that has its own door.
pub(crate) fn count_generation(new: &mut Value, old: &Value, status: bool) {
    let (Some(now), Some(was)) = (new.as_object(), old.as_object()) else {
        return;
    };
    let counts = |key: &&String| *key != "metadata" && (*key != "status" || !status);
    let changed = now.keys().filter(counts).any(|key| now.get(key) != was.get(key))
        || was.keys().filter(counts).any(|key| !now.contains_key(key));
    if changed {
        bump_generation(new);
    }
}

pub(crate) fn bump_generation(object: &mut Value) {
    let meta = fields(object);
    let generation = meta.get("generation").and_then(Value::as_i64).unwrap_or_default();
    meta.insert("generation".into(), (generation + 1).into());
}

/// Whether a change takes away the last thing that held a dying object.
pub(crate) fn leaves(resource: &Resource, new: &Value, old: &Value) -> bool {
    let no_grace = old["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .is_none_or(|s| s == 0);
    let held = match resource.rules.deletion {
        Deletion::Namespace => new["spec"]["finalizers"].as_array().is_some_and(|f| !f.is_empty()),
        Deletion::AtOnce | Deletion::Graceful(_) => false,
    };
    is_dying(old) && no_grace && !held && finalizers(new).is_empty()
}
