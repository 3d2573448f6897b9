//! From what a client sent to the value that is stored: types checked, unknown fields found, everything written as Go
//! would write it (quantities and times canonical, empty optional fields left out, zero values of required ones filled in).
//!
//! Built-in kinds come out as kube-apiserver's round trip through its Go types would leave them. Custom kinds are pruned
//! by their schema and otherwise kept as sent, their `metadata` excepted; whether they fit is `validate`'s business.

use serde_json::{Map, Value};

use model::{Quantity, time};

use crate::form::{AS_SENT, Member, Node, OMIT_ZERO, Or, Scalar, Type};
use crate::json::MOST_PROBLEMS;
use crate::place::Place;

/// What was wrong with the type of a field, in the words of Go's JSON decoder.
pub(crate) type Mistake = String;

/// Brings `value` into the form of `of`. `unknown` gathers `unknown field "…"`.
pub(crate) fn conform(of: Type<'_>, value: &mut Value, unknown: &mut Vec<String>) -> Result<(), Mistake> {
    Walk { unknown }.value(of, value, &Place::Root, "")
}

struct Walk<'w> {
    unknown: &'w mut Vec<String>,
}

impl Walk<'_> {
    /// `owner`: the innermost struct around the place, for Go's wording.
    fn value(&mut self, of: Type<'_>, value: &mut Value, place: &Place<'_>, owner: &str) -> Result<(), Mistake> {
        // What is validated later is not judged here, but for how Go writes whole numbers.
        if of.rules().is_some() && (of.scalar().is_some() || !shaped_alike(of.node(), value)) {
            if let Value::Number(number) = value
                && let Some(whole) = whole(number)
            {
                *value = whole.into();
            }
            return Ok(());
        }
        match (of.node(), &mut *value) {
            (Node::Any, _) => Ok(()),
            (Node::Union { schema, .. }, Value::Object(_)) => self.alone(of.at(*schema), value, place, owner),
            (
                Node::Union {
                    schema,
                    or: Or::Schemas,
                },
                Value::Array(list),
            ) => list
                .iter_mut()
                .enumerate()
                .try_for_each(|(at, value)| self.alone(of.at(*schema), value, &place.index(at), owner)),
            (Node::Union { .. }, _) => Ok(()),
            (Node::Scalar(kind), _) => scalar(*kind, value, place, owner),
            (Node::Struct(_), Value::Object(members)) => self.members(of, members, place),
            (Node::Map { .. }, Value::Object(members)) => {
                let Some(values) = of.values() else {
                    return Ok(());
                };
                for (key, value) in members.iter_mut() {
                    if value.is_null() && of.rules().is_none() {
                        *value = zero(values);
                    }
                    self.value(values, value, &place.entry(key), owner)?;
                }
                Ok(())
            }
            (Node::List(_), Value::Array(list)) => {
                let Some(item) = of.item() else { return Ok(()) };
                for (at, value) in list.iter_mut().enumerate() {
                    if value.is_null() && of.rules().is_none() {
                        *value = zero(item);
                    }
                    self.value(item, value, &place.index(at), owner)?;
                }
                Ok(())
            }
            (_, Value::Null) => Ok(()),
            _ => Err(mismatch(of, value, place, owner)),
        }
    }

    /// Go decodes unions by code of their own, which drops unknown fields and tells nobody.
    fn alone(&self, of: Type<'_>, value: &mut Value, place: &Place<'_>, owner: &str) -> Result<(), Mistake> {
        let mut unknown = Vec::new();
        Walk { unknown: &mut unknown }.value(of, value, place, owner)
    }

    fn members(&mut self, of: Type<'_>, members: &mut Map<String, Value>, place: &Place<'_>) -> Result<(), Mistake> {
        let name = of.name().and_then(|name| name.rsplit('.').next()).unwrap_or_default();
        let Node::Struct(shape) = of.node() else {
            return Ok(());
        };
        let mut gone: Vec<String> = Vec::new();
        for (key, value) in members.iter_mut() {
            let here = place.key(key);
            let Some(member) = of.member(key) else {
                if !shape.open {
                    if self.unknown.len() < MOST_PROBLEMS {
                        self.unknown.push(format!("unknown field \"{here}\""));
                    }
                    gone.push(key.clone());
                }
                continue;
            };
            if member.has(AS_SENT) {
                self.value(member.of(), value, &here, name)?;
                continue;
            }
            if value.is_null() {
                gone.push(key.clone());
                continue;
            }
            self.value(member.of(), value, &here, name)?;
            let omits =
                member.omits_empty() && !matches!(member.of().node(), Node::Struct(_) | Node::Any | Node::Union { .. });
            if !member.is_pointer() && (omits || member.has(OMIT_ZERO)) && is_empty(value) {
                gone.push(key.clone());
            }
        }
        for key in gone {
            members.remove(&key);
        }
        for member in of.members() {
            if !members.contains_key(member.name())
                && let Some(value) = written_anyway(member)
            {
                members.insert(member.name().to_owned(), value);
            }
        }
        Ok(())
    }
}

/// `1.0` is written `1`.
fn whole(number: &serde_json::Number) -> Option<i64> {
    let real = number.as_f64().filter(|_| number.is_f64())?;
    (real.fract() == 0.0 && real.abs() < 1e15).then_some(real as i64)
}

/// A custom value that does not even have the right kind of brackets is left for `validate` to name.
fn shaped_alike(node: &Node, value: &Value) -> bool {
    match node {
        Node::Struct(_) | Node::Map { .. } => value.is_object(),
        Node::List(_) => value.is_array(),
        Node::Any | Node::Union { .. } | Node::Scalar(_) => true,
    }
}

/// What Go writes for a member that was not sent: nothing, or its zero value.
fn written_anyway(member: Member<'_>) -> Option<Value> {
    if member.has(AS_SENT) || member.has(OMIT_ZERO) {
        return None;
    }
    let is_struct = match member.of().node() {
        Node::Struct(_) | Node::Any | Node::Union { .. } => true,
        Node::Scalar(scalar) => {
            matches!(
                scalar,
                Scalar::Time | Scalar::MicroTime | Scalar::Quantity | Scalar::IntOrString | Scalar::Duration
            )
        }
        Node::Map { .. } | Node::List(_) => false,
    };
    match (member.is_pointer(), member.omits_empty()) {
        (_, true) if member.is_pointer() || !is_struct => None,
        (true, _) => Some(Value::Null),
        (false, _) => Some(zero(member.of())),
    }
}

/// Go's zero value as Go writes it.
fn zero(of: Type<'_>) -> Value {
    match of.node() {
        Node::Any | Node::Union { .. } | Node::Map { .. } | Node::List(_) => Value::Null,
        Node::Struct(_) => {
            let members = of.members();
            members
                .filter_map(|m| Some((m.name().to_owned(), written_anyway(m)?)))
                .collect::<Map<_, _>>()
                .into()
        }
        Node::Scalar(scalar) => match scalar {
            Scalar::Text => "".into(),
            Scalar::Flag => false.into(),
            Scalar::Real | Scalar::Whole | Scalar::Int32 | Scalar::IntOrString => 0.into(),
            Scalar::Bytes | Scalar::Time | Scalar::MicroTime => Value::Null,
            Scalar::Quantity => "0".into(),
            Scalar::Duration => "0s".into(),
        },
    }
}

/// What `omitempty` leaves out of a member that is no struct.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

fn scalar(kind: Scalar, value: &mut Value, place: &Place<'_>, owner: &str) -> Result<(), Mistake> {
    let wrong = |value: &Value| Err(mismatch_scalar(kind, value, place, owner));
    match (kind, &mut *value) {
        (Scalar::Text, Value::String(_)) | (Scalar::Flag, Value::Bool(_)) | (Scalar::Real, Value::Number(_)) => Ok(()),
        (Scalar::Whole, Value::Number(number)) if number.as_i64().is_some() => Ok(()),
        (Scalar::Int32, Value::Number(number)) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        (Scalar::IntOrString, Value::String(_)) => Ok(()),
        (Scalar::IntOrString, Value::Number(number)) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => {
            Ok(())
        }
        (Scalar::Bytes, Value::String(text)) => base64_complaint(text).map_or(Ok(()), Err),
        (Scalar::Quantity, Value::String(text)) => {
            *text = Quantity::normalize(text.trim()).map_err(str::to_owned)?;
            Ok(())
        }
        (Scalar::Quantity, Value::Number(number)) => {
            *value = Quantity::normalize(&number.to_string()).map_err(str::to_owned)?.into();
            Ok(())
        }
        (Scalar::Time, Value::String(text)) => {
            *text = time::seconds(instant(text)?);
            Ok(())
        }
        (Scalar::MicroTime, Value::String(text)) => {
            *text = time::micros(instant(text)?);
            Ok(())
        }
        (Scalar::Duration, Value::String(text)) => {
            *text = crate::duration::normalize(text)?;
            Ok(())
        }
        (_, Value::Null) => Ok(()),
        (_, value) => wrong(value),
    }
}

fn instant(text: &str) -> Result<jiff::Timestamp, Mistake> {
    time::parse(text).map_err(|_| {
        format!("parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\"")
    })
}

/// Go's standard base64: padded, line breaks allowed.
pub(crate) fn base64_complaint(text: &str) -> Option<Mistake> {
    let bytes: Vec<(usize, u8)> = text
        .bytes()
        .enumerate()
        .filter(|(_, b)| !matches!(b, b'\n' | b'\r'))
        .collect();
    let padding = bytes.iter().rev().take_while(|(_, b)| *b == b'=').count();
    let digits = bytes.len() - padding.min(bytes.len());
    let wrong = bytes[..digits]
        .iter()
        .find(|(_, b)| !b.is_ascii_alphanumeric() && !matches!(b, b'+' | b'/'));
    let at = match wrong {
        Some((at, _)) => *at,
        None if bytes.len().is_multiple_of(4) && padding <= 2 => return None,
        None => text.len(),
    };
    Some(format!("illegal base64 data at input byte {at}"))
}

fn mismatch(of: Type<'_>, value: &Value, place: &Place<'_>, owner: &str) -> Mistake {
    told(&go_type(of), value, place, owner)
}

fn mismatch_scalar(kind: Scalar, value: &Value, place: &Place<'_>, owner: &str) -> Mistake {
    if kind == Scalar::Quantity {
        return "quantities must be strings or numbers".into();
    }
    told(go_scalar(kind), value, place, owner)
}

/// `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
fn told(wanted: &str, value: &Value, place: &Place<'_>, owner: &str) -> Mistake {
    let found = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        // Go shows the number where the kind is right and only the number does not fit.
        Value::Number(number) if wanted.starts_with("int") => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    };
    let members = place.members();
    if members.is_empty() {
        return format!("json: cannot unmarshal {found} into Go value of type {wanted}");
    }
    format!("json: cannot unmarshal {found} into Go struct field {owner}.{members} of type {wanted}")
}

fn go_type(of: Type<'_>) -> String {
    match of.node() {
        Node::Any | Node::Union { .. } => "interface {}".into(),
        Node::Scalar(scalar) => go_scalar(*scalar).into(),
        // `core/v1.Container` is `v1.Container` to Go.
        Node::Struct(_) => of.name().and_then(|n| n.rsplit('/').next()).unwrap_or("struct").into(),
        Node::Map { .. } => format!("map[string]{}", of.values().map(go_type).unwrap_or_default()),
        Node::List(_) => format!("[]{}", of.item().map(go_type).unwrap_or_default()),
    }
}

fn go_scalar(kind: Scalar) -> &'static str {
    match kind {
        Scalar::Text => "string",
        Scalar::Flag => "bool",
        Scalar::Real => "float64",
        Scalar::Whole => "int64",
        Scalar::Int32 => "int32",
        Scalar::Bytes => "[]uint8",
        Scalar::Quantity => "resource.Quantity",
        Scalar::IntOrString => "intstr.IntOrString",
        Scalar::Time => "v1.Time",
        Scalar::MicroTime => "v1.MicroTime",
        Scalar::Duration => "v1.Duration",
    }
}
