//! Between the version that is stored and the version that is asked for.

use std::sync::Arc;

use model::{Failure, Object};
use serde_json::Value;

use crate::Registry;
use crate::resource::{Resource, Versions};

/// A stored object as `resource` serves it. Mostly the very same one.
pub(crate) async fn serve(
    registry: &Registry,
    resource: &Resource,
    object: Arc<Object>,
) -> Result<Arc<Object>, Failure> {
    if *object.gvk == resource.kind.gvk {
        return Ok(object);
    }
    let mut value = to_served(registry, resource, object.value()).await?;
    conform(resource, &mut value);
    Object::from_value(Arc::new(resource.kind.gvk.clone()), object.key.clone(), &value).map(Arc::new)
}

/// A document as `from` serves it, turned into what `to` serves: by way of the stored version.
pub(crate) async fn between(
    registry: &Registry,
    from: &Resource,
    to: &Resource,
    value: Value,
) -> Result<Value, Failure> {
    let stored = to_stored(registry, from, value).await?;
    let mut value = to_served(registry, to, stored).await?;
    conform(to, &mut value);
    Ok(value)
}

/// What a converter makes of a custom kind is held to the version's schema.
fn conform(resource: &Resource, value: &mut Value) {
    if resource.custom {
        resource.schema.prune(value);
        resource.schema.default(value);
    }
}

/// A document in the stored version, turned into the served one.
pub(crate) async fn to_served(registry: &Registry, resource: &Resource, mut value: Value) -> Result<Value, Failure> {
    let to = resource.kind.gvk.api_version();
    if value["apiVersion"] == to.as_str() {
        return Ok(value);
    }
    match resource.storage.versions {
        Versions::Alike => {}
        Versions::Renamed(names) => rename(&mut value, names.iter().copied()),
        Versions::Translated(translation) => (translation.to_served)(&mut value),
        Versions::Asked => return asked(registry, resource, value, &to).await,
    }
    value["apiVersion"] = to.into();
    Ok(value)
}

/// A document in the served version, turned into the stored one.
pub(crate) async fn to_stored(registry: &Registry, resource: &Resource, mut value: Value) -> Result<Value, Failure> {
    let to = resource.storage.gvk.api_version();
    if value["apiVersion"] == to.as_str() {
        return Ok(value);
    }
    match resource.storage.versions {
        Versions::Alike => {}
        Versions::Renamed(names) => rename(&mut value, names.iter().map(|&(stored, served)| (served, stored))),
        Versions::Translated(translation) => (translation.to_stored)(&mut value),
        Versions::Asked => return asked(registry, resource, value, &to).await,
    }
    value["apiVersion"] = to.into();
    Ok(value)
}

async fn asked(registry: &Registry, resource: &Resource, value: Value, to: &str) -> Result<Value, Failure> {
    let Some(convert) = &registry.inner.options.convert else {
        let kind = &resource.kind.gvk.kind;
        return Err(Failure::Internal(format!(
            "conversion of {kind} to {to} is asked for, and nothing here converts it"
        )));
    };
    let meta = value.get("metadata").cloned();
    let mut converted = convert.convert(&resource.kind, value, to).await?;
    // A converter may change labels and annotations, and nothing else of the metadata.
    let (Some(Value::Object(mut meta)), Some(new)) = (meta, converted.get("metadata")) else {
        return Err(Failure::Internal(format!("conversion to {to} lost the metadata")));
    };
    for key in ["labels", "annotations"] {
        match new.get(key) {
            Some(changed) => meta.insert(key.into(), changed.clone()),
            None => meta.remove(key),
        };
    }
    converted["metadata"] = Value::Object(meta);
    converted["apiVersion"] = to.into();
    Ok(converted)
}

fn rename<'a>(value: &mut Value, names: impl Iterator<Item = (&'a str, &'a str)>) {
    let Some(fields) = value.as_object_mut() else {
        return;
    };
    for (from, to) in names {
        if let Some(field) = fields.remove(from) {
            fields.insert(to.into(), field);
        }
    }
}
