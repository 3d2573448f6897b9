//! Objects for this crate's tests.

use std::sync::Arc;

use model::{GroupResource, Gvk, Object, ObjectKey};
use serde_json::{Value, json};

/// A pod of that name in `default` at that version; `more` is merged over it, two levels deep.
pub(crate) fn pod(name: &str, version: u64, more: Value) -> Arc<Object> {
    let mut value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": format!("u-{name}"), "resourceVersion": version.to_string()},
    });
    for (key, part) in more.as_object().into_iter().flatten() {
        match (value.get_mut(key).and_then(Value::as_object_mut), part) {
            (Some(there), Value::Object(part)) => there.extend(part.clone()),
            _ => value[key] = part.clone(),
        }
    }
    let namespace = value["metadata"]["namespace"].as_str().unwrap().to_owned();
    let key = ObjectKey::new(GroupResource::new("", "pods"), &namespace, name);
    Arc::new(Object::from_value(Arc::new(Gvk::new("", "v1", "Pod")), key, &value).unwrap())
}
