//! `x-kubernetes-…` keywords that say how lists, maps and unknown fields are handled.

use model::Cause;
use serde_json::Value;

use super::{is, list, sub, text};

pub(super) fn extensions(schema: &Value, path: &str, wrong: &mut Vec<Cause>) {
    let at = |key: &str| format!("{path}.{key}");
    let kind = text(schema, "type");
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let says = "must be true or undefined";
        wrong.push(Cause::invalid(at("x-kubernetes-preserve-unknown-fields"), false, says));
    }
    let mut fits = |key: &str, wanted: &str| {
        if schema.get(key).is_some_and(|v| !v.is_null()) && kind != wanted {
            let says = format!("must be {wanted} if {key} is specified");
            wrong.push(match kind {
                "" => Cause::required(at("type"), &says),
                kind => Cause::invalid(at("type"), format!("{kind:?}"), &says),
            });
            return false;
        }
        true
    };
    fits("x-kubernetes-map-type", "object");
    let is_array = fits("x-kubernetes-list-type", "array");
    let map_type = text(schema, "x-kubernetes-map-type");
    if !matches!(map_type, "" | "atomic" | "granular") {
        let supported = ["atomic", "granular"];
        wrong.push(Cause::not_supported(
            at("x-kubernetes-map-type"),
            format!("{map_type:?}"),
            &supported,
        ));
    }
    let list_type = text(schema, "x-kubernetes-list-type");
    let items = sub(schema, "items");
    if let (true, "set", Some(items)) = (is_array, list_type, items) {
        let says = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let inner = items.get("x-kubernetes-list-type");
        match text(items, "type") {
            "array" if !matches!(inner.and_then(Value::as_str), None | Some("atomic")) => {
                let value = inner.unwrap_or(&Value::Null);
                wrong.push(Cause::invalid(at("items.x-kubernetes-list-type"), value, says));
            }
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                let value = inner.unwrap_or(&Value::Null);
                wrong.push(Cause::invalid(at("items.x-kubernetes-map-type"), value, says));
            }
            _ => {}
        }
    }
    if !matches!(list_type, "" | "atomic" | "set" | "map") {
        let supported = ["atomic", "set", "map"];
        wrong.push(Cause::not_supported(
            at("x-kubernetes-list-type"),
            format!("{list_type:?}"),
            &supported,
        ));
    }
    map_list(schema, path, list_type, items, wrong);
}

fn map_list(schema: &Value, path: &str, list_type: &str, items: Option<&Value>, wrong: &mut Vec<Cause>) {
    let at = |key: &str| format!("{path}.{key}");
    let keys = list(schema, "x-kubernetes-list-map-keys");
    if !keys.is_empty() && list_type != "map" {
        let says = "must be map if x-kubernetes-list-map-keys is non-empty";
        wrong.push(match list_type {
            "" => Cause::required(at("x-kubernetes-list-type"), says),
            other => Cause::invalid(at("x-kubernetes-list-type"), format!("{other:?}"), says),
        });
    }
    if list_type == "map" {
        if keys.is_empty() {
            let says = "must not be empty if x-kubernetes-list-type is map";
            wrong.push(Cause::required(at("x-kubernetes-list-map-keys"), says));
        }
        match items {
            None => {
                let says = "must have a schema if x-kubernetes-list-type is map";
                wrong.push(Cause::required(at("items"), says));
            }
            Some(items) if text(items, "type") != "object" => {
                let says = "must be object if parent array's x-kubernetes-list-type is map";
                wrong.push(Cause::invalid(
                    at("items.type"),
                    format!("{:?}", text(items, "type")),
                    says,
                ));
            }
            Some(items) => {
                let shown = Value::Array(keys.to_vec());
                for (i, key) in keys.iter().enumerate() {
                    let name = key.as_str().unwrap_or_default();
                    match items.get("properties").and_then(|properties| properties.get(name)) {
                        Some(property) if matches!(text(property, "type"), "array" | "object") => {
                            let says = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                            let field = format!("{path}.items.properties[{name}].type");
                            wrong.push(Cause::invalid(field, format!("{:?}", text(items, "type")), says));
                        }
                        Some(_) => {}
                        None => {
                            let says = "entries must all be names of item properties";
                            wrong.push(Cause::invalid(at("x-kubernetes-list-map-keys"), &shown, says));
                        }
                    }
                    if keys[..i].contains(key) {
                        let says = "must not contain duplicate entries";
                        wrong.push(Cause::invalid(at("x-kubernetes-list-map-keys"), &shown, says));
                    }
                }
            }
        }
    }
    let Some(items) = items.filter(|_| matches!(list_type, "set" | "map")) else {
        return;
    };
    if is(items, "nullable") {
        let says = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        wrong.push(Cause::forbidden(at("items.nullable"), &says));
    }
    for key in keys.iter().filter_map(Value::as_str).filter(|_| list_type == "map") {
        let Some(property) = items.get("properties").and_then(|properties| properties.get(key)) else {
            continue;
        };
        let place = format!("{path}.items.properties[{key}]");
        let required = list(items, "required").iter().any(|name| name == key);
        if !required && property.get("default").is_none_or(Value::is_null) {
            let says =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            wrong.push(Cause::required(format!("{place}.default"), says));
        }
        if is(property, "nullable") {
            let says = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            wrong.push(Cause::forbidden(format!("{place}.nullable"), says));
        }
    }
}
