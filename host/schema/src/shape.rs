//! What expressions see of a custom kind's schema.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{Field, LARGEST_REQUEST, Order, Shape, ShapeKind, escape};
use serde_json::{Map, Value, json};

/// The shape of a node. `None`: expressions may not look at it (no type, or `x-kubernetes-preserve-unknown-fields`
/// without one). `root`: it is an object of Kubernetes, with type and name.
///
/// `name` is what messages call its type; the sizes are what one request can hold (`apiserver/pkg/cel/common`).
pub(crate) fn of(schema: &Value, root: bool, name: &str) -> Option<Arc<Shape>> {
    let number = |key: &str| schema.get(key).and_then(Value::as_i64).map(|n| n.max(0) as u64);
    let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    let flag = |of: &Value, key: &str| of.get(key).and_then(Value::as_bool).unwrap_or(false);
    let made = |kind, most, least_bytes| {
        Some(Arc::new(Shape {
            kind,
            most,
            least_bytes,
        }))
    };
    let longest = LARGEST_REQUEST - 2;
    if flag(schema, "x-kubernetes-int-or-string") {
        return made(
            ShapeKind::IntOrString,
            number("maxLength").map_or(longest, |n| n * 4),
            1,
        );
    }
    match text("type") {
        "boolean" => made(ShapeKind::Bool, 0, 4),
        "integer" => made(ShapeKind::Int, 0, 1),
        "number" => made(ShapeKind::Double, 0, 1),
        "string" => match text("format") {
            "byte" => made(ShapeKind::Bytes, number("maxLength").unwrap_or(longest), 2),
            "duration" => made(ShapeKind::Duration, 32, 3),
            "date" => made(ShapeKind::Date, 12, 12),
            "date-time" => made(ShapeKind::DateTime, 32, 21),
            _ => {
                let choices = schema.get("enum").and_then(Value::as_array);
                let choice = choices.filter(|c| !c.is_empty()).map(|choices| {
                    let lengths = choices.iter().filter_map(Value::as_str).map(str::len);
                    lengths.max().unwrap_or_default() as u64
                });
                let most = number("maxLength").map(|n| n * 4).or(choice).unwrap_or(longest);
                made(ShapeKind::Text, most, 2)
            }
        },
        "array" => {
            let items = schema.get("items")?;
            let item = of(
                items,
                flag(items, "x-kubernetes-embedded-resource"),
                &format!("{name}.@idx"),
            )?;
            let most = number("maxItems").unwrap_or(longest / (item.least_bytes + 1));
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let order = match text("x-kubernetes-list-type") {
                "set" => Order::Set,
                "map" => Order::Map(
                    keys.into_iter()
                        .flatten()
                        .filter_map(Value::as_str)
                        .map(|key| escape(key).unwrap_or_else(|| key.to_owned()))
                        .collect(),
                ),
                _ => Order::Atomic,
            };
            made(ShapeKind::List(item, order), most, 2)
        }
        "object" => {
            if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object())
                && !root
            {
                let embedded = flag(values, "x-kubernetes-embedded-resource");
                let value = of(values, embedded, &format!("{name}.@elem"))?;
                let most = number("maxProperties").unwrap_or(longest / (value.least_bytes + 6));
                return made(ShapeKind::Map(value), most, 2);
            }
            let (fields, least) = fields(schema, root, name);
            made(ShapeKind::Object(name.into(), fields), 0, least)
        }
        _ => None,
    }
}

fn fields(schema: &Value, root: bool, name: &str) -> (BTreeMap<String, Field>, u64) {
    let empty = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
    let required: Vec<&str> = schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let text = json!({"type": "string"});
    let meta = json!({"type": "object", "properties": {"name": text, "generateName": text}});
    let own = [("apiVersion", &text), ("kind", &text), ("metadata", &meta)];
    let own = own.into_iter().filter(|_| root);
    let given = properties
        .iter()
        .map(|(name, property)| (name.as_str(), property))
        .filter(|(name, _)| !root || !matches!(*name, "apiVersion" | "kind" | "metadata"));
    let mut fields = BTreeMap::new();
    // `{}`.
    let mut least = 2;
    for (key, property) in given.chain(own) {
        let embedded = property.get("x-kubernetes-embedded-resource").and_then(Value::as_bool);
        let escaped = escape(key);
        let below = format!("{name}.{}", escaped.as_deref().unwrap_or(key));
        let Some(shape) = of(property, embedded.unwrap_or(false), &below) else {
            continue;
        };
        // What is filled in need not be sent.
        if required.contains(&key) && property.get("default").is_none() {
            least += key.len() as u64 + shape.least_bytes + 4;
        }
        if let Some(escaped) = escaped {
            let nullable = property.get("nullable").and_then(Value::as_bool).unwrap_or(false);
            fields.insert(
                escaped,
                Field {
                    name: key.to_owned(),
                    shape,
                    nullable,
                },
            );
        }
    }
    (fields, least)
}
