//! From a message to a value, as loosely as Go would: `conform` brings it into its canonical form afterwards.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use model::time;
use serde_json::{Map, Number, Value};

use super::wire::{Fields, Wire};
use crate::form::{Node, Or, Scalar, Type, Wired};

type Mistake = String;

/// Deeper than any real object; a hostile one must not use up the stack.
const DEPTH: usize = 100;

/// More values than any real object holds (etcd takes 1.5 MB of one). Two bytes on the wire can stand for a struct with
/// all its required members, so the length of a body does not bound what comes of it.
const VALUES: usize = 1_000_000;

/// What a struct counts for, beside its members.
const STRUCT: usize = 10;

/// A struct's message.
pub(super) fn message(of: Type<'_>, bytes: &[u8]) -> Result<Map<String, Value>, Mistake> {
    let mut object = Map::new();
    Reader { left: VALUES }.members(of, of.wired(), 0, bytes, DEPTH, &mut object)?;
    Ok(object)
}

/// Go's zero time, which JSON writes as null.
pub(super) const ZERO_TIME: i64 = -62_135_596_800;

struct Reader {
    /// How many values more are read.
    left: usize,
}

impl Reader {
    fn count(&mut self, values: usize) -> Result<(), Mistake> {
        self.left = self
            .left
            .checked_sub(values)
            .ok_or("it holds more values than any object may")?;
        Ok(())
    }

    /// The members `wired` of a struct, which lie `inside` so many inlined messages. What is sent twice is merged, as
    /// protobuf has it.
    fn members(
        &mut self,
        of: Type<'_>,
        wired: &[Wired],
        inside: usize,
        bytes: &[u8],
        depth: usize,
        object: &mut Map<String, Value>,
    ) -> Result<(), Mistake> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        for field in Fields(bytes) {
            let (number, wire) = field?;
            let start = wired.partition_point(|w| w.number(inside) < number);
            let known = &wired[start..];
            let known = &known[..known.partition_point(|w| w.number(inside) == number)];
            match (known, &wire) {
                // Of a newer Kubernetes: left out.
                ([], _) => {}
                ([first, ..], Wire::Bytes(bytes)) if first.is_deeper(inside) => {
                    self.members(of, known, inside + 1, bytes, depth, object)?;
                }
                ([first, ..], _) => {
                    let member = of.wired_member(first);
                    let was = object.remove(member.name());
                    let value = self
                        .member(member.of(), &wire, was, depth)
                        .map_err(|why| within(member.name(), why))?;
                    object.insert(member.name().to_owned(), value);
                }
            }
        }
        Ok(())
    }

    /// A member, added to what an earlier field gave it.
    fn member(&mut self, of: Type<'_>, wire: &Wire<'_>, was: Option<Value>, depth: usize) -> Result<Value, Mistake> {
        match of.node() {
            Node::List(list) if !list.message => {
                let mut items = match was {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                self.item(of.at(list.item), wire, depth, &mut items)?;
                Ok(items.into())
            }
            Node::Map { value, .. } => {
                let mut entries = match was {
                    Some(Value::Object(entries)) => entries,
                    _ => Map::new(),
                };
                let (key, value) = self.entry(of.at(*value), bytes_of(wire)?, depth)?;
                entries.insert(key, value);
                Ok(entries.into())
            }
            _ => self.value(of, wire, was, depth),
        }
    }

    /// One item of a list, or several numbers in one field (packed, which Go reads too).
    fn item(&mut self, of: Type<'_>, wire: &Wire<'_>, depth: usize, items: &mut Vec<Value>) -> Result<(), Mistake> {
        let (Some(kind @ (Scalar::Flag | Scalar::Int32 | Scalar::Whole | Scalar::Real)), Wire::Bytes(packed)) =
            (of.scalar(), wire)
        else {
            items.push(self.value(of, wire, None, depth)?);
            return Ok(());
        };
        let mut packed = Fields(packed);
        while !packed.0.is_empty() {
            let one = match kind {
                Scalar::Real => Wire::Fixed64(packed.fixed64()?),
                _ => Wire::Varint(packed.varint()?),
            };
            items.push(self.value(of, &one, None, depth)?);
        }
        Ok(())
    }

    /// A map's entry is a message of key and value; one that is empty is not sent.
    fn entry(&mut self, of: Type<'_>, bytes: &[u8], depth: usize) -> Result<(String, Value), Mistake> {
        let (mut key, mut found) = (String::new(), None);
        for field in Fields(bytes) {
            match field? {
                (1, wire) => key = text(bytes_of(&wire)?)?,
                (2, wire) => found = Some(self.member(of, &wire, found, depth)?),
                _ => {}
            }
        }
        let value = match (found, of.node()) {
            (Some(found), _) => found,
            (None, Node::Scalar(Scalar::Flag | Scalar::Int32 | Scalar::Whole)) => {
                self.value(of, &Wire::Varint(0), None, depth)?
            }
            (None, Node::Scalar(Scalar::Real)) => 0.into(),
            (None, _) => self.value(of, &Wire::Bytes(&[]), None, depth)?,
        };
        Ok((key, value))
    }

    fn value(&mut self, of: Type<'_>, wire: &Wire<'_>, was: Option<Value>, depth: usize) -> Result<Value, Mistake> {
        self.count(1)?;
        match of.node() {
            Node::Scalar(kind) => scalar(*kind, wire),
            Node::Struct(_) => {
                self.count(STRUCT)?;
                let mut object = match was {
                    Some(Value::Object(object)) => object,
                    _ => Map::new(),
                };
                self.members(of, of.wired(), 0, bytes_of(wire)?, depth, &mut object)?;
                Ok(object.into())
            }
            // A list that is a message of its own: the items are field 1.
            Node::List(list) => {
                let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
                let mut items = match was {
                    Some(Value::Array(items)) => items,
                    _ => Vec::new(),
                };
                for field in Fields(bytes_of(wire)?) {
                    if let (1, wire) = field? {
                        self.item(of.at(list.item), &wire, depth, &mut items)?;
                    }
                }
                Ok(items.into())
            }
            Node::Any => match last(bytes_of(wire)?, 1)? {
                Some(Wire::Bytes(raw)) if !raw.is_empty() => self.embedded(raw, depth),
                _ => Ok(Value::Null),
            },
            Node::Union { schema, or } => self.union(of.at(*schema), *or, bytes_of(wire)?, depth),
            Node::Map { .. } => Err("a map stands where there can be none".into()),
        }
    }

    /// What is embedded raw: JSON, or a document in its own envelope.
    fn embedded(&mut self, raw: &[u8], depth: usize) -> Result<Value, Mistake> {
        if !super::is_protobuf(raw) {
            return serde_json::from_slice(raw).map_err(|why| format!("embedded JSON: {why}"));
        }
        let told = |failure: model::Failure| failure.to_string();
        let envelope = super::Envelope::open(raw).map_err(told)?;
        let schema = super::schema_of(&envelope.gvk).map_err(told)?;
        let mut object = Map::new();
        object.insert("apiVersion".into(), envelope.gvk.api_version().into());
        object.insert("kind".into(), envelope.gvk.kind.as_str().into());
        let root = schema.root();
        self.members(root, root.wired(), 0, envelope.raw, depth, &mut object)?;
        let mut value = Value::Object(object);
        schema.conform(&mut value).map_err(told)?;
        Ok(value)
    }

    /// `JSONSchemaPropsOr…`: a schema and something else, of which JSON shows one.
    fn union(&mut self, schema: Type<'_>, or: Or, bytes: &[u8], depth: usize) -> Result<Value, Mistake> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        let (mut one, mut list, mut flag) = (None, Vec::new(), false);
        // The flag of `OrBool` is field 1, the list of the others field 2.
        let (schema_number, other_number) = if or == Or::Flag { (2, 1) } else { (1, 2) };
        for field in Fields(bytes) {
            let (number, wire) = field?;
            if number == schema_number {
                one = Some(self.value(schema, &wire, one, depth)?);
            } else if number == other_number {
                match or {
                    Or::Schemas => list.push(self.value(schema, &wire, None, depth)?),
                    Or::Texts => list.push(text(bytes_of(&wire)?)?.into()),
                    Or::Flag => flag = wire != Wire::Varint(0),
                }
            }
        }
        Ok(match or {
            Or::Flag => one.unwrap_or(flag.into()),
            Or::Schemas | Or::Texts if !list.is_empty() => list.into(),
            Or::Schemas | Or::Texts => one.unwrap_or_default(),
        })
    }
}

/// `spec.containers: …`
fn within(member: &str, why: Mistake) -> Mistake {
    match why.split_once(": ") {
        Some((path, _)) if !path.contains(' ') && !path.is_empty() => format!("{member}.{why}"),
        _ => format!("{member}: {why}"),
    }
}

fn bytes_of<'a>(wire: &Wire<'a>) -> Result<&'a [u8], Mistake> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err("a number stands where a message belongs".into()),
    }
}

fn text(bytes: &[u8]) -> Result<String, Mistake> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| "a text is not UTF-8".into())
}

fn last(message: &[u8], number: u32) -> Result<Option<Wire<'_>>, Mistake> {
    let mut found = None;
    for field in Fields(message) {
        let (at, wire) = field?;
        if at == number {
            found = Some(wire);
        }
    }
    Ok(found)
}

fn last_number(message: &[u8], number: u32) -> Result<i64, Mistake> {
    Ok(match last(message, number)? {
        Some(Wire::Varint(value)) => value as i64,
        _ => 0,
    })
}

fn last_text(message: &[u8], number: u32) -> Result<String, Mistake> {
    match last(message, number)? {
        Some(Wire::Bytes(bytes)) => text(bytes),
        _ => Ok(String::new()),
    }
}

fn scalar(kind: Scalar, wire: &Wire<'_>) -> Result<Value, Mistake> {
    Ok(match (kind, wire) {
        (Scalar::Text, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Scalar::Flag, Wire::Varint(flag)) => (*flag != 0).into(),
        (Scalar::Int32, Wire::Varint(number)) => (*number as i32).into(),
        (Scalar::Whole, Wire::Varint(number)) => (*number as i64).into(),
        (Scalar::Real, Wire::Fixed64(bits)) => real(f64::from_bits(*bits))?,
        (Scalar::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Scalar::Quantity, Wire::Bytes(message)) => match last_text(message, 1)? {
            text if text.is_empty() => "0".into(),
            text => text.into(),
        },
        (Scalar::IntOrString, Wire::Bytes(message)) => match last_number(message, 1)? {
            0 => (last_number(message, 2)? as i32).into(),
            1 => last_text(message, 3)?.into(),
            other => return Err(format!("a value is a number (0) or a text (1), not {other}")),
        },
        (Scalar::Time | Scalar::MicroTime, Wire::Bytes(message)) => instant(kind, message)?,
        (Scalar::Duration, Wire::Bytes(message)) => crate::duration::write(last_number(message, 1)?).into(),
        _ => return Err("it is not encoded as its kind of value is".into()),
    })
}

/// Whole numbers as Go writes them, without a point.
fn real(value: f64) -> Result<Value, Mistake> {
    if value.fract() == 0.0 && value.abs() < 9e15 {
        return Ok((value as i64).into());
    }
    let number = Number::from_f64(value).ok_or("a number is not finite")?;
    Ok(Value::Number(number))
}

fn instant(kind: Scalar, message: &[u8]) -> Result<Value, Mistake> {
    let (seconds, nanoseconds) = (last_number(message, 1)?, last_number(message, 2)?);
    if message.is_empty() || seconds == ZERO_TIME && nanoseconds == 0 {
        return Ok(Value::Null);
    }
    let range = "a time is out of range";
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| range)?;
    let at = Timestamp::new(seconds, nanoseconds).map_err(|_| range)?;
    Ok(match kind {
        Scalar::MicroTime => time::micros(at),
        // Fractions are nobody's business: JSON does not show them, so protobuf must not either.
        _ => time::seconds(at),
    }
    .into())
}
