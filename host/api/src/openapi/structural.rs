//! A CRD's schema as clients are to see it: with what every object has, and for version 2 without what it cannot say.
//!
//! Version 2 is read by older kubectls, which trip over types with both properties and unknown fields, over nullable values
//! and over arrays without items: those places lose their details, and the server checks them alone.

use serde_json::{Map, Value, json};

use super::Dialect;

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";

/// The schema of a whole object. `own`: the properties that every object has (`apiVersion`, `kind`, `metadata`).
pub(super) fn published(schema: Option<Value>, own: &Map<String, Value>, dialect: Dialect) -> Value {
    let v2 = dialect == Dialect::V2;
    let Some(mut schema) = schema.filter(Value::is_object) else {
        return json!({"type": "object"});
    };
    if v2 && schema[PRESERVE] == true {
        return json!({"type": "object"});
    }
    if v2 {
        simplify(&mut schema);
    }
    embed(&mut schema, own, v2);
    give(&mut schema, own);
    schema
}

/// What an object says of itself stands wherever the CRD's author put other words.
fn give(schema: &mut Value, own: &Map<String, Value>) {
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    for (name, property) in own {
        schema["properties"][name] = property.clone();
    }
}

/// The schemas directly below one.
fn below(schema: &mut Map<String, Value>) -> Vec<&mut Value> {
    let mut all = Vec::new();
    for (key, value) in schema.iter_mut() {
        match (key.as_str(), value) {
            ("properties", Value::Object(members)) => all.extend(members.values_mut()),
            ("items" | "additionalProperties", schema @ Value::Object(_)) => all.push(schema),
            _ => {}
        }
    }
    all
}

fn simplify(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    for junction in ["allOf", "oneOf", "anyOf", "not"] {
        fields.remove(junction);
    }
    let nullable = fields.remove("nullable") == Some(Value::Bool(true));
    let preserves = fields.get(PRESERVE) == Some(&Value::Bool(true));
    if nullable || preserves {
        fields.remove("items");
        fields.remove("properties");
    }
    let array = fields.get("type").is_some_and(|t| t == "array");
    let object = fields.get("type").is_some_and(|t| t == "object");
    if nullable || array && !fields.contains_key("items") || preserves && object {
        fields.remove("type");
    }
    let may_be_null = |schema: &Value| schema["nullable"] == true;
    let optional: Vec<String> = fields
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter(|(_, schema)| may_be_null(schema))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(required) = fields.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| !optional.iter().any(|o| name == o.as_str()));
    }
    if fields.get("additionalProperties").is_some_and(may_be_null)
        || fields
            .get("required")
            .is_some_and(|r| r.as_array().is_some_and(Vec::is_empty))
    {
        fields.remove("required");
    }
    below(fields).into_iter().for_each(simplify);
}

/// Objects inside the object have metadata too.
fn embed(schema: &mut Value, own: &Map<String, Value>, v2: bool) {
    if let Some(fields) = schema.as_object_mut() {
        below(fields).into_iter().for_each(|schema| embed(schema, own, v2));
    }
    if schema[EMBEDDED] != true || v2 && schema[PRESERVE] == true {
        return;
    }
    give(schema, own);
    if !schema["required"].is_array() {
        schema["required"] = json!([]);
    }
    if let Some(required) = schema["required"].as_array_mut() {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|r| r == name) {
                required.push(name.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_two_says_what_it_can() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "required": ["a", "b"], "properties": {
                "a": {"type": "string", "nullable": true},
                "b": {"type": "array", "items": {"type": "integer", "anyOf": [{}]}},
                "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
                "t": {"type": "object", "x-kubernetes-embedded-resource": true}}}}});
        let own = json!({"metadata": {"$ref": "M"}, "kind": {"type": "string", "description": "What it is."}});
        let own = own.as_object().unwrap();
        let v2 = published(Some(schema.clone()), own, Dialect::V2);
        assert_eq!(
            v2["properties"]["spec"],
            json!({"type": "object", "required": ["b"], "properties": {
                "a": {}, "b": {"type": "array", "items": {"type": "integer"}}, "c": {PRESERVE: true},
                "t": {"type": "object", EMBEDDED: true, "required": ["kind", "apiVersion"], "properties": {
                    "metadata": {"$ref": "M"}, "kind": {"type": "string", "description": "What it is."}}}}})
        );
        let v3 = published(Some(schema), own, Dialect::V3);
        assert_eq!(v3["properties"]["spec"]["properties"]["a"]["nullable"], true);
        assert_eq!(v3["properties"]["metadata"], own["metadata"]);
        assert_eq!(published(None, own, Dialect::V2), json!({"type": "object"}));
    }
}
