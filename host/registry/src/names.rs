//! What objects may be called, kind by kind, and the checks of `ObjectMeta` every write passes.

use model::{Cause, text};
use serde_json::{Map, Value};

/// What a kind asks of `metadata.name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NameRule {
    /// DNS-1123 subdomain: most kinds.
    Subdomain,
    /// DNS-1123 label: namespaces.
    Label,
    /// DNS-1035 label.
    Label1035,
    /// Anything that can stand in a URL path: RBAC kinds (`system:node`).
    PathSegment,
    /// An IP address as it is usually written: IPAddresses.
    Address,
}

impl NameRule {
    /// The complaints about one name.
    pub fn complaints(self, name: &str) -> Vec<String> {
        match self {
            NameRule::Subdomain => text::dns1123_subdomain(name),
            NameRule::Label => text::dns1123_label(name),
            NameRule::Label1035 => text::dns1035_label(name),
            NameRule::PathSegment => path_segment(name),
            NameRule::Address => address(name),
        }
    }
}

fn address(name: &str) -> Vec<String> {
    match name.parse::<std::net::IpAddr>() {
        Ok(address) if address.to_string() == name => Vec::new(),
        Ok(address) => vec![format!("must be in canonical form (\"{address}\")")],
        Err(_) => vec![crate::resources::common::NOT_IP.into()],
    }
}

/// The complaints about a name that is to stand in a URL path.
pub(crate) fn path_segment(name: &str) -> Vec<String> {
    match name {
        "." => vec!["may not be '.'".into()],
        ".." => vec!["may not be '..'".into()],
        _ => ['/', '%']
            .iter()
            .filter(|&&c| name.contains(c))
            .map(|c| format!("may not contain '{c}'"))
            .collect(),
    }
}

/// The complaints about a key of a ConfigMap or Secret: it may become the name of a file.
pub fn config_map_key(key: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if key.len() > 253 {
        wrong.push("must be no more than 253 bytes".into());
    }
    if key.is_empty()
        || !key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        wrong.push("a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')".into());
    }
    match key {
        "." => wrong.push("must not be '.'".into()),
        ".." => wrong.push("must not be '..'".into()),
        _ if key.starts_with("..") => wrong.push("must not start with '..'".into()),
        _ => {}
    }
    wrong
}

/// All annotations of an object together, keys and values, in bytes.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;

/// Everything wrong with an object's metadata on its own (`ValidateObjectMeta`).
pub fn validate_meta(meta: &Map<String, Value>, rule: NameRule, namespaced: bool, wrong: &mut Vec<Cause>) {
    let text = |key: &str| meta.get(key).and_then(Value::as_str).unwrap_or_default();
    let name = text("name");
    let generate = text("generateName");
    if !generate.is_empty() {
        // A trailing dash is fine in a prefix: it is judged as if a letter followed.
        let whole = generate
            .strip_suffix('-')
            .map(|front| format!("{front}a"))
            .unwrap_or_else(|| generate.to_owned());
        for complaint in rule.complaints(&whole) {
            wrong.push(Cause::invalid(
                "metadata.generateName",
                format!("{generate:?}"),
                &complaint,
            ));
        }
    }
    if name.is_empty() {
        wrong.push(Cause::required("metadata.name", "name or generateName is required"));
    } else {
        for complaint in rule.complaints(name) {
            wrong.push(Cause::invalid("metadata.name", format!("{name:?}"), &complaint));
        }
    }
    let namespace = text("namespace");
    if namespaced && namespace.is_empty() {
        wrong.push(Cause::required("metadata.namespace", ""));
    } else if namespaced {
        for complaint in text::dns1123_label(namespace) {
            wrong.push(Cause::invalid(
                "metadata.namespace",
                format!("{namespace:?}"),
                &complaint,
            ));
        }
    } else if !namespace.is_empty() {
        wrong.push(Cause::forbidden("metadata.namespace", "not allowed on this type"));
    }
    validate_labels(meta.get("labels"), "metadata.labels", wrong);
    validate_annotations(meta.get("annotations"), "metadata.annotations", wrong);
    validate_owners(meta.get("ownerReferences"), wrong);
    for (i, finalizer) in meta
        .get("finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        let finalizer = finalizer.as_str().unwrap_or_default();
        let field = "metadata.finalizers";
        for complaint in text::qualified_name(finalizer) {
            wrong.push(Cause::invalid(field, format!("{finalizer:?}"), &complaint));
        }
        if !finalizer.contains('/') && !matches!(finalizer, "orphan" | "foregroundDeletion" | "kubernetes") {
            let says = "name is neither a standard finalizer name nor is it fully qualified";
            wrong.push(Cause::invalid(format!("{field}[{i}]"), format!("{finalizer:?}"), says));
        }
    }
}

/// Label keys and values of a map at `field`.
pub fn validate_labels(labels: Option<&Value>, field: &str, wrong: &mut Vec<Cause>) {
    for (key, value) in labels.and_then(Value::as_object).into_iter().flatten() {
        for complaint in text::qualified_name(key) {
            wrong.push(Cause::invalid(field, format!("{key:?}"), &complaint));
        }
        let value = value.as_str().unwrap_or_default();
        for complaint in text::label_value(value) {
            wrong.push(Cause::invalid(field, format!("{value:?}"), &complaint));
        }
    }
}

/// Annotation keys, and the size of all together, of a map at `field`.
pub fn validate_annotations(annotations: Option<&Value>, field: &str, wrong: &mut Vec<Cause>) {
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flatten() {
        size += key.len() + value.as_str().map_or(0, str::len);
        // Annotation keys may be upper case in the prefix, unlike label keys.
        for complaint in text::qualified_name(&key.to_lowercase()) {
            wrong.push(Cause::invalid(field, format!("{key:?}"), &complaint));
        }
    }
    if size > ANNOTATIONS_LIMIT {
        wrong.push(Cause::too_long(field, ANNOTATIONS_LIMIT));
    }
}

fn validate_owners(owners: Option<&Value>, wrong: &mut Vec<Cause>) {
    let mut controller: Option<String> = None;
    for (i, owner) in owners.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let field = |name: &str| format!("metadata.ownerReferences[{i}].{name}");
        let text = |key: &str| owner.get(key).and_then(Value::as_str).unwrap_or_default();
        if text("apiVersion").is_empty() {
            wrong.push(Cause::invalid(field("apiVersion"), "\"\"", "version must not be empty"));
        }
        for (key, says) in [
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(key).is_empty() {
                wrong.push(Cause::invalid(field(key), "\"\"", says));
            }
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            let says = "/v1, Kind=Event is disallowed from being an owner";
            wrong.push(Cause::invalid("metadata.ownerReferences", owner, says));
        }
        if owner.get("controller") == Some(&Value::Bool(true)) {
            let this = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                None => controller = Some(this),
                Some(first) => {
                    let says = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                    );
                    wrong.push(Cause::invalid("metadata.ownerReferences", owner, &says));
                }
            }
        }
    }
}

/// Everything wrong with a change of metadata (`ValidateObjectMetaUpdate`), the object on its own apart.
pub fn validate_meta_update(new: &Map<String, Value>, old: &Map<String, Value>, wrong: &mut Vec<Cause>) {
    for key in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        if new.get(key).unwrap_or(&Value::Null) != old.get(key).unwrap_or(&Value::Null) {
            let value = new.get(key).unwrap_or(&Value::Null);
            wrong.push(Cause::invalid(format!("metadata.{key}"), value, "field is immutable"));
        }
    }
    if old.contains_key("deletionTimestamp") {
        let list = |meta: &Map<String, Value>| -> Vec<String> {
            let all = meta.get("finalizers").and_then(Value::as_array).into_iter().flatten();
            all.filter_map(|f| f.as_str().map(String::from)).collect()
        };
        let before = list(old);
        let added: Vec<String> = list(new).into_iter().filter(|f| !before.contains(f)).collect();
        if !added.is_empty() {
            let shown: Vec<String> = added.iter().map(|f| format!("{f:?}")).collect();
            let says = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                shown.join(", ")
            );
            wrong.push(Cause::forbidden("metadata.finalizers", &says));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn complaints(meta: Value, namespaced: bool) -> Vec<String> {
        let mut wrong = Vec::new();
        validate_meta(meta.as_object().unwrap(), NameRule::Subdomain, namespaced, &mut wrong);
        wrong.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn metadata_is_judged_in_upstreams_words() {
        assert!(complaints(json!({"name": "a.b", "namespace": "x"}), true).is_empty());
        assert!(complaints(json!({"generateName": "a-", "name": "a-xyz"}), false).is_empty());
        let two = json!({"name": "a", "ownerReferences": [
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true},
            {"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "2", "controller": true}]});
        let said = complaints(two, false);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("references for Pod/p and Pod/q"), "{}", said[0]);
        assert_eq!(
            complaints(json!({"name": "a", "finalizers": ["mine"]}), false),
            [
                "metadata.finalizers[0]: Invalid value: \"mine\": name is neither a standard finalizer name nor is it fully qualified"
            ]
        );
        assert_eq!(
            complaints(json!({"namespace": "x"}), true),
            ["metadata.name: Required value: name or generateName is required"]
        );
    }

    #[test]
    fn a_dying_object_takes_no_new_finalizers() {
        let old = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b"]});
        let new = json!({"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["a/b", "c/d"]});
        let mut wrong = Vec::new();
        validate_meta_update(new.as_object().unwrap(), old.as_object().unwrap(), &mut wrong);
        assert_eq!(
            wrong[0].to_string(),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"c/d\"}"
        );
    }
}
