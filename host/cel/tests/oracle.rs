//! Expressions against the answers of Kubernetes' own CEL environment: types, refusals, estimates, values, costs.
//!
//! The cases are in `cases.json`, a line each; `go run ./cel` in `host/schema/generate` fills in the answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use cel::{CALL_LIMIT, Env, Field, Key, Order, Shape, ShapeKind, Val, escape};
use serde_json::Value;

/// The shape of a schema, as `host/schema` makes it; here for the few forms the cases have.
fn shape(schema: &Value, name: &str) -> Option<Arc<Shape>> {
    let number = |key: &str| schema[key].as_u64();
    let made = |kind, most, least_bytes| {
        Some(Arc::new(Shape {
            kind,
            most,
            least_bytes,
        }))
    };
    let request = cel::LARGEST_REQUEST;
    if schema["x-kubernetes-int-or-string"] == true {
        return made(ShapeKind::IntOrString, request - 2, 1);
    }
    match schema["type"].as_str()? {
        "boolean" => made(ShapeKind::Bool, 0, 4),
        "integer" => made(ShapeKind::Int, 0, 1),
        "number" => made(ShapeKind::Double, 0, 1),
        "string" => match schema["format"].as_str().unwrap_or_default() {
            "byte" => made(ShapeKind::Bytes, number("maxLength").unwrap_or(request - 2), 2),
            "duration" => made(ShapeKind::Duration, 32, 3),
            "date" => made(ShapeKind::Date, 12, 12),
            "date-time" => made(ShapeKind::DateTime, 32, 21),
            _ => {
                let longest = schema["enum"]
                    .as_array()
                    .and_then(|e| e.iter().filter_map(Value::as_str).map(str::len).max());
                let most = number("maxLength").map(|n| n * 4).or(longest.map(|n| n as u64));
                made(ShapeKind::Text, most.unwrap_or(request - 2), 2)
            }
        },
        "array" => {
            let of = shape(&schema["items"], &format!("{name}.@idx"))?;
            let most = number("maxItems").unwrap_or((request - 2) / (of.least_bytes + 1));
            let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            let order = match schema["x-kubernetes-list-type"].as_str() {
                Some("set") => Order::Set,
                Some("map") => Order::Map(keys.filter_map(|k| k.as_str().map(str::to_owned)).collect()),
                _ => Order::Atomic,
            };
            made(ShapeKind::List(of, order), most, 2)
        }
        _ => {
            if schema["additionalProperties"].is_object() {
                let of = shape(&schema["additionalProperties"], &format!("{name}.@elem"))?;
                let most = number("maxProperties").unwrap_or((request - 2) / (of.least_bytes + 6));
                return made(ShapeKind::Map(of), most, 2);
            }
            let mut fields = BTreeMap::new();
            let mut least = 2;
            for (field, of) in schema["properties"].as_object().into_iter().flatten() {
                let escaped = escape(field)?;
                let Some(inner) = shape(of, &format!("{name}.{escaped}")) else {
                    continue;
                };
                let required = schema["required"]
                    .as_array()
                    .is_some_and(|r| r.iter().any(|r| r == field.as_str()));
                if required && of["default"].is_null() {
                    least += field.len() as u64 + inner.least_bytes + 4;
                }
                let nullable = of["nullable"] == true;
                fields.insert(
                    escaped,
                    Field {
                        name: field.clone(),
                        shape: inner,
                        nullable,
                    },
                );
            }
            made(ShapeKind::Object(name.into(), fields), 0, least)
        }
    }
}

fn show(val: &Val<'_>) -> String {
    match val {
        Val::Null => "null".into(),
        Val::Bool(flag) => flag.to_string(),
        Val::Int(number) => number.to_string(),
        Val::Uint(number) => format!("{number}u"),
        Val::Double(number) => format!("double({number})"),
        Val::Text(text) => {
            let text: &str = text;
            // Go quotes control characters alike, and leaves letters beyond ASCII as they are.
            format!("{text:?}")
        }
        Val::Bytes(bytes) => {
            let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            format!("bytes({hex})")
        }
        Val::Timestamp(at) => format!("timestamp({at})"),
        Val::Duration(nanos) => format!("duration({}s,{}ns)", nanos / 1_000_000_000, nanos % 1_000_000_000),
        Val::Optional(None) => "optional.none()".into(),
        Val::Optional(Some(inner)) => format!("optional.of({})", show(inner)),
        Val::List(_) | Val::Map(_) => {
            if let Val::Map(map) = val {
                let mut parts: Vec<String> = map
                    .entries()
                    .map(|(key, val)| {
                        let key = match key {
                            Key::Text(text) => format!("{text:?}"),
                            Key::Int(number) => number.to_string(),
                            Key::Bool(flag) => flag.to_string(),
                        };
                        format!("{key}: {}", show(&val))
                    })
                    .collect();
                parts.sort();
                return format!("{{{}}}", parts.join(", "));
            }
            let Val::List(list) = val else { return String::new() };
            let parts: Vec<String> = list.entries().map(|val| show(&val)).collect();
            format!("[{}]", parts.join(", "))
        }
        Val::Type(of) => format!("type({of})"),
        other => format!("{other:?}"),
    }
}

#[test]
fn answers_as_kubernetes_does() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("cases.json")).expect("the cases are JSON");
    assert!(cases.len() > 200);
    let mut wrong = Vec::new();
    for case in &cases {
        let rule = case["rule"].as_str().unwrap_or_default();
        let empty = serde_json::json!({"type": "object"});
        let schema = if case["schema"].is_null() {
            &empty
        } else {
            &case["schema"]
        };
        let shape = shape(schema, "selfType").expect("the schema has a shape");
        let env = Env::default().shaped("self", &shape);
        let mut differs = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                wrong.push(format!("{rule}\n   {what}\n     ours   {ours}\n     theirs {theirs}"));
            }
        };
        let refused = case["refused"].as_str().unwrap_or_default();
        let program = match env.compile(rule) {
            Ok(program) => program,
            Err(error) => {
                // Where a sentence cannot be read is told alike; what was expected instead is ANTLR's own way to say it.
                let (ours, theirs) = match refused.split_once("Syntax error") {
                    Some((place, _)) => (
                        error.0.split("Syntax error").next().unwrap_or_default().to_owned(),
                        place,
                    ),
                    None => (error.0, refused),
                };
                differs("refused", ours, theirs.to_owned());
                continue;
            }
        };
        differs("accepted", String::new(), refused.to_owned());
        if !refused.is_empty() {
            continue;
        }
        differs(
            "type",
            program.ty().to_string(),
            case["type"].as_str().unwrap_or_default().to_owned(),
        );
        let estimate = env.estimate(&program);
        differs(
            "estimate",
            format!("[{},{}]", estimate.least, estimate.most),
            case["estimate"].to_string(),
        );
        let nothing = serde_json::json!({});
        let own = if case["self"].is_null() {
            &nothing
        } else {
            &case["self"]
        };
        let own = Val::shaped(own, &shape).expect("the value fits");
        let (result, cost) = program.run(&[("self", own)], None, CALL_LIMIT);
        match result {
            Ok(val) => {
                differs(
                    "value",
                    show(&val),
                    case["value"].as_str().unwrap_or_default().to_owned(),
                );
                differs("cost", cost.to_string(), case["cost"].to_string());
            }
            Err(fault) => differs(
                "fault",
                fault.message,
                case["fault"].as_str().unwrap_or_default().to_owned(),
            ),
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}
