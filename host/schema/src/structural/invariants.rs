//! What makes a schema structural: types outside the junctions, only value validations within.

use model::Cause;
use serde_json::{Value, json};

use super::{is, is_zero, list, members, sub, text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Root,
    Item,
    Field,
}

/// What makes a schema structural, here and below.
pub(super) fn invariants(schema: &Value, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let at = |key: &str| format!("{path}.{key}");
    let kind = text(schema, "type");
    let embedded = is(schema, "x-kubernetes-embedded-resource");
    let preserves = is(schema, "x-kubernetes-preserve-unknown-fields");
    let int_or_string = is(schema, "x-kubernetes-int-or-string");
    if kind == "array" && sub(schema, "items").is_none() {
        causes.push(Cause::required(at("items"), "must be specified"));
    }
    if let Some(items) = sub(schema, "items") {
        invariants(items, Level::Item, &at("items"), causes);
    }
    for (name, property) in members(schema) {
        invariants(property, Level::Field, &format!("{path}.properties[{name}]"), causes);
    }
    let additional = schema
        .get("additionalProperties")
        .filter(|of| of.is_object() || of.as_bool() == Some(true));
    if let Some(values) = additional {
        if level == Level::Root {
            causes.push(Cause::forbidden(
                at("additionalProperties"),
                "must not be used at the root",
            ));
        }
        if values.is_object() {
            invariants(values, Level::Field, &at("additionalProperties"), causes);
        }
    }
    if int_or_string && preserves {
        let says = "must be false if x-kubernetes-int-or-string is true";
        causes.push(Cause::invalid(at("x-kubernetes-preserve-unknown-fields"), true, says));
    }
    if int_or_string && embedded {
        let says = "must be false if x-kubernetes-int-or-string is true";
        causes.push(Cause::invalid(at("x-kubernetes-embedded-resource"), true, says));
    }
    let idiom = json!([{"type": "integer"}, {"type": "string"}]);
    let any_of = schema.get("anyOf") == Some(&idiom);
    let all_of = list(schema, "allOf").first().and_then(|first| first.get("anyOf")) == Some(&idiom);
    validations(schema, any_of, all_of, path, causes);
    let says = "must be object if x-kubernetes-embedded-resource is true";
    if embedded && kind.is_empty() {
        causes.push(Cause::required(at("type"), says));
    } else if embedded && kind != "object" {
        causes.push(Cause::invalid(at("type"), format!("{kind:?}"), says));
    } else if kind.is_empty() && !int_or_string && !preserves {
        let says = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(at("type"), says));
    }
    if embedded && additional.is_some() {
        let says = "must not be used if x-kubernetes-embedded-resource is set";
        causes.push(Cause::forbidden(at("additionalProperties"), says));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        causes.push(Cause::invalid(
            at("type"),
            format!("{kind:?}"),
            "must be object at the root",
        ));
    }
    let resource = level == Level::Root || embedded;
    let property = |name: &str| schema.get("properties").and_then(|properties| properties.get(name));
    for name in ["kind", "apiVersion"] {
        if let Some(property) = property(name).filter(|property| resource && text(property, "type") != "string") {
            let kind = text(property, "type");
            let field = format!("{path}.properties[{name}].type");
            causes.push(Cause::invalid(field, format!("{kind:?}"), "must be string"));
        }
    }
    if let Some(metadata) = property("metadata") {
        let place = format!("{path}.properties[metadata]");
        let kind = text(metadata, "type");
        if resource && kind != "object" {
            causes.push(Cause::invalid(
                format!("{place}.type"),
                format!("{kind:?}"),
                "must be object",
            ));
        }
        if level == Level::Root && !says_only_names(metadata) {
            let says =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            causes.push(Cause::forbidden(place, says));
        }
    }
    if embedded && !preserves && members(schema).next().is_none() {
        let says =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        causes.push(Cause::required(at("properties"), says));
    }
}

fn says_only_names(metadata: &Value) -> bool {
    let names = members(metadata).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let others = metadata
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !is_zero(value));
    names
        && others
            .into_iter()
            .all(|(key, _)| matches!(key.as_str(), "type" | "properties" | "default"))
}

/// The value validations of a node: what stands in its junctions, and its pattern.
fn validations(schema: &Value, skip_any_of: bool, skip_all_of: bool, path: &str, causes: &mut Vec<Cause>) {
    for (at, schema) in list(schema, "anyOf").iter().enumerate().filter(|_| !skip_any_of) {
        nested(schema, false, &format!("{path}.anyOf[{at}]"), causes);
    }
    for (at, schema) in list(schema, "allOf").iter().enumerate() {
        nested(schema, skip_all_of && at == 0, &format!("{path}.allOf[{at}]"), causes);
    }
    for (at, schema) in list(schema, "oneOf").iter().enumerate() {
        nested(schema, false, &format!("{path}.oneOf[{at}]"), causes);
    }
    if let Some(not) = sub(schema, "not") {
        nested(not, false, &format!("{path}.not"), causes);
    }
    let pattern = text(schema, "pattern");
    if let Err(error) = cel::pattern::check(pattern) {
        let says = format!("must be a valid regular expression, but isn't: {error}");
        causes.push(Cause::invalid(format!("{path}.pattern"), format!("{pattern:?}"), &says));
    }
}

/// Within junctions nothing may say what a value is made of.
fn nested(schema: &Value, skip_any_of: bool, path: &str, causes: &mut Vec<Cause>) {
    validations(schema, skip_any_of, false, path, causes);
    if let Some(items) = sub(schema, "items") {
        nested(items, false, &format!("{path}.items"), causes);
    }
    for (name, property) in members(schema) {
        nested(property, false, &format!("{path}.properties[{name}]"), causes);
    }
    const NOT_HERE: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    for (key, says) in NOT_HERE {
        if schema.get(key).is_some_and(|value| !is_zero(value)) {
            causes.push(Cause::forbidden(format!("{path}.{key}"), says));
        }
    }
    if !list(schema, "x-kubernetes-validations").is_empty() {
        let field = format!("{path}.x-kubernetes-validations");
        causes.push(Cause::forbidden(field, "must be empty to be structural"));
    }
    if members(schema).any(|(name, _)| name == "metadata") {
        let field = format!("{path}.properties[metadata]");
        causes.push(Cause::forbidden(field, "must not be specified in a nested context"));
    }
}
