//! From a value to its message, byte for byte as Kubernetes writes it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::time;
use serde_json::{Map, Value};

use super::decode::ZERO_TIME;
use super::wire::{put_bytes, put_message, put_number, put_real};
use crate::form::{Node, Or, Scalar, Type, Wired};

type Mistake = String;

/// A struct's message.
pub(super) fn message(of: Type<'_>, value: &Value) -> Result<Vec<u8>, Mistake> {
    let mut out = Vec::with_capacity(1024);
    members(of, of.wired(), 0, object_of(value)?, &mut out)?;
    Ok(out)
}

/// The members `wired` of a struct, which lie `inside` so many inlined messages.
fn members(
    of: Type<'_>,
    wired: &[Wired],
    inside: usize,
    object: Option<&Map<String, Value>>,
    out: &mut Vec<u8>,
) -> Result<(), Mistake> {
    let mut rest = wired;
    while let Some(first) = rest.first() {
        let number = first.number(inside);
        let alike = rest.partition_point(|w| w.number(inside) == number);
        let run;
        (run, rest) = rest.split_at(alike);
        if first.is_deeper(inside) {
            put_message(out, number, |out| members(of, run, inside + 1, object, out))?;
            continue;
        }
        let member = of.wired_member(first);
        let value = object
            .and_then(|o| o.get(member.name()))
            .filter(|value| !value.is_null());
        if value.is_some() || !member.is_pointer() {
            self::member(member.of(), number, value, out).map_err(|why| format!("{}: {why}", member.name()))?;
        }
    }
    Ok(())
}

/// A member that is no pointer: what is absent has its zero value, and zero values are written.
fn member(of: Type<'_>, number: u32, value: Option<&Value>, out: &mut Vec<u8>) -> Result<(), Mistake> {
    match (of.node(), value) {
        (Node::List(_) | Node::Map { .. } | Node::Scalar(Scalar::Bytes), None) => Ok(()),
        (Node::List(list), Some(Value::Array(items))) if !list.message => {
            let item = of.at(list.item);
            items.iter().try_for_each(|value| self::value(item, number, value, out))
        }
        (Node::Map { value: values, .. }, Some(Value::Object(entries))) => {
            let mut entries: Vec<(&String, &Value)> = entries.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            let values = of.at(*values);
            entries.into_iter().try_for_each(|(key, value)| {
                put_message(out, number, |out| {
                    put_bytes(out, 1, key.as_bytes());
                    let some = Some(value).filter(|value| !value.is_null());
                    member(values, 2, some, out)
                })
            })
        }
        (_, value) => self::value(of, number, value.unwrap_or(&Value::Null), out),
    }
}

/// One value. Null stands for the zero value.
fn value(of: Type<'_>, number: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), Mistake> {
    match of.node() {
        Node::Scalar(kind) => scalar(*kind, number, value, out),
        Node::Struct(_) => {
            let object = object_of(value)?;
            put_message(out, number, |out| members(of, of.wired(), 0, object, out))
        }
        Node::List(list) => {
            let item = of.at(list.item);
            put_message(out, number, |out| {
                let items = value.as_array().into_iter().flatten();
                items.into_iter().try_for_each(|value| self::value(item, 1, value, out))
            })
        }
        Node::Any => put_message(out, number, |out| {
            if !value.is_null() {
                put_bytes(out, 1, value.to_string().as_bytes());
            }
            Ok(())
        }),
        Node::Union { schema, or } => {
            let schema = of.at(*schema);
            put_message(out, number, |out| union(schema, *or, value, out))
        }
        Node::Map { .. } => Err("a map stands where there can be none".into()),
    }
}

/// `JSONSchemaPropsOr…`: Go reads a schema as "allowed" too.
fn union(schema: Type<'_>, or: Or, value: &Value, out: &mut Vec<u8>) -> Result<(), Mistake> {
    match (or, value) {
        (Or::Flag, _) => {
            let allows = value.as_bool().unwrap_or(value.is_object());
            put_number(out, 1, allows.into());
            if value.is_object() {
                self::value(schema, 2, value, out)?;
            }
            Ok(())
        }
        (_, Value::Null) => Ok(()),
        (_, Value::Object(_)) => self::value(schema, 1, value, out),
        (Or::Schemas, Value::Array(list)) => list.iter().try_for_each(|one| self::value(schema, 2, one, out)),
        (Or::Texts, Value::Array(list)) => list.iter().try_for_each(|one| scalar(Scalar::Text, 2, one, out)),
        _ => Err(wrong("a schema or a list", value)),
    }
}

fn scalar(kind: Scalar, number: u32, value: &Value, out: &mut Vec<u8>) -> Result<(), Mistake> {
    match (kind, value) {
        (Scalar::Text, Value::String(text)) => put_bytes(out, number, text.as_bytes()),
        (Scalar::Text, Value::Null) => put_bytes(out, number, b""),
        (Scalar::Flag, Value::Bool(flag)) => put_number(out, number, (*flag).into()),
        (Scalar::Flag | Scalar::Int32 | Scalar::Whole, Value::Null) => put_number(out, number, 0),
        (Scalar::Int32 | Scalar::Whole, Value::Number(n)) => put_number(out, number, whole(n)?),
        (Scalar::Real, Value::Null) => put_real(out, number, 0.0),
        (Scalar::Real, Value::Number(n)) => put_real(out, number, n.as_f64().ok_or("it is no 64-bit number")?),
        (Scalar::Bytes, Value::Null) => {}
        (Scalar::Bytes, Value::String(text)) => {
            // Go's decoder takes line breaks; ours wants them gone.
            let digits: Vec<u8> = text.bytes().filter(|b| !matches!(b, b'\n' | b'\r')).collect();
            let bytes = STANDARD.decode(digits).map_err(|why| why.to_string())?;
            put_bytes(out, number, &bytes);
        }
        (Scalar::Quantity, Value::Null) => put_message(out, number, |out| scalar(Scalar::Text, 1, &"0".into(), out))?,
        (Scalar::Quantity, _) => put_message(out, number, |out| scalar(Scalar::Text, 1, value, out))?,
        (Scalar::IntOrString, _) => {
            let (kind, n, text) = match value {
                Value::Null => (0, 0, ""),
                Value::Number(n) => (0, whole(n)?, ""),
                Value::String(text) => (1, 0, text.as_str()),
                _ => return Err(wrong("a number or a text", value)),
            };
            put_message::<Mistake>(out, number, |out| {
                put_number(out, 1, kind);
                put_number(out, 2, n);
                put_bytes(out, 3, text.as_bytes());
                Ok(())
            })?;
        }
        (Scalar::Time | Scalar::MicroTime, Value::Null) => put_bytes(out, number, b""),
        (Scalar::Time | Scalar::MicroTime, Value::String(text)) => {
            let at = time::parse(text).map_err(|failure| failure.to_string())?;
            // Before 1970 a fraction still counts forward.
            let seconds = at.as_nanosecond().div_euclid(1_000_000_000) as i64;
            let nanoseconds = match kind {
                Scalar::MicroTime => at.as_nanosecond().rem_euclid(1_000_000_000) as u64 / 1000 * 1000,
                _ => 0,
            };
            put_message::<Mistake>(out, number, |out| {
                if (seconds, nanoseconds) != (ZERO_TIME, 0) {
                    put_number(out, 1, seconds as u64);
                    put_number(out, 2, nanoseconds);
                }
                Ok(())
            })?;
        }
        (Scalar::Duration, Value::Null | Value::String(_)) => {
            let text = value.as_str().unwrap_or("0");
            let nanoseconds = crate::duration::parse(text).ok_or_else(|| wrong("a duration", value))?;
            put_message::<Mistake>(out, number, |out| {
                put_number(out, 1, nanoseconds as u64);
                Ok(())
            })?;
        }
        _ => return Err(wrong(&format!("{kind:?}"), value)),
    }
    Ok(())
}

/// As Go casts it: a negative one fills all 64 bits.
fn whole(number: &serde_json::Number) -> Result<u64, Mistake> {
    Ok(number.as_i64().ok_or("it is no whole 64-bit number")? as u64)
}

fn object_of(value: &Value) -> Result<Option<&Map<String, Value>>, Mistake> {
    match value {
        Value::Object(object) => Ok(Some(object)),
        Value::Null => Ok(None),
        _ => Err(wrong("an object", value)),
    }
}

/// Without the value: it may be a secret.
fn wrong(wanted: &str, value: &Value) -> Mistake {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a flag",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    format!("{found} stands where {wanted} belongs")
}
