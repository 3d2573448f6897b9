//! Bodies in Kubernetes' protobuf, read into JSON by the numbers of the schema table.
//!
//! A body is the four bytes `k8s\0` and a `runtime.Unknown`: what kind it is, and the kind's own message
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding>). Answers are JSON, which clients
//! that send protobuf accept as well.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use model::{Failure, Gvk};
use schema::{Scalar, Table, Type};
use serde_json::{Map, Value, json};

pub(crate) const MEDIA: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Deeper than any real object; a hostile one must not use up the stack.
const DEPTH: usize = 64;

/// # Errors
/// `BadRequest` for anything that is not a built-in kind, well encoded.
pub(crate) fn json(body: &[u8]) -> Result<Bytes, Failure> {
    let bad = |why: String| Failure::BadRequest(format!("the protobuf body cannot be read: {why}"));
    let envelope = body
        .strip_prefix(MAGIC)
        .ok_or_else(|| bad("it does not begin with the bytes k8s\\0".into()))?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    for field in Fields(envelope) {
        match field.map_err(bad)? {
            (1, Wire::Bytes(meta)) => {
                for field in Fields(meta) {
                    match field.map_err(bad)? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text).map_err(bad)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text).map_err(bad)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(message)) => raw = message,
            _ => {}
        }
    }
    let gvk = Gvk::from_api_version(&api_version, &kind);
    let built_in = match kind.as_str() {
        // Every group sends these as its own.
        "DeleteOptions" => Table::builtin().named("meta/v1.DeleteOptions", gvk.clone()),
        _ => Table::builtin().schema(&gvk),
    };
    let schema = built_in.ok_or_else(|| {
        Failure::UnsupportedMediaType(format!(
            "no protobuf form of {gvk} is known; send it as application/json"
        ))
    })?;
    let mut object = message(schema.root(), &[], raw, DEPTH).map_err(bad)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(serde_json::to_vec(&object).map_err(Failure::internal)?.into())
}

/// One value on the wire.
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order they were written.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("it ends within a number")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number has more than ten bytes".into())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.0.len());
        let (bytes, rest) = self.0.split_at(length.ok_or("it ends within a field")?);
        self.0 = rest;
        Ok(bytes)
    }

    fn field(&mut self) -> Result<(u32, Wire<'a>), String> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes"))),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes"))),
            other => return Err(format!("wire type {other} is not used by Kubernetes")),
        };
        Ok(((tag >> 3) as u32, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// A struct. `outer`: the numbers of the messages that protobuf puts around inlined members, as far as we are inside them.
fn message(of: Type<'_>, outer: &[u32], bytes: &[u8], depth: usize) -> Result<Map<String, Value>, String> {
    let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
    let mut object = Map::new();
    for field in Fields(bytes) {
        let (number, wire) = field?;
        let own = of
            .members()
            .find(|m| m.number() == number && m.within().eq(outer.iter().copied()));
        if let Some(member) = own {
            let at = member.of();
            if at.item().is_some() && !at.is_message_list() {
                let item = value(at.item().expect("just asked"), &wire, depth)?;
                match object.entry(member.name()).or_insert_with(|| json!([])) {
                    Value::Array(list) => list.push(item),
                    _ => return Err(format!("{} is a list and something else", member.name())),
                }
            } else if let Some(values) = at.values() {
                let (key, value) = entry(values, &wire, depth)?;
                object.entry(member.name()).or_insert_with(|| json!({}))[key] = value;
            } else {
                let value = value(at, &wire, depth)?;
                // Go writes every member that is not a pointer, empty or not; JSON leaves those out.
                let left_out = member.omits_empty() && !member.is_pointer() && is_zero(&value);
                if !left_out {
                    object.insert(member.name().to_owned(), value);
                }
            }
            continue;
        }
        let inlined = of.members().any(|m| {
            m.within()
                .take(outer.len() + 1)
                .eq(outer.iter().copied().chain([number]))
        });
        if let (true, Wire::Bytes(bytes)) = (inlined, &wire) {
            let outer: Vec<u32> = outer.iter().copied().chain([number]).collect();
            object.extend(message(of, &outer, bytes, depth)?);
        }
        // Anything else is of a newer Kubernetes: left out, as Go's decoder does.
    }
    Ok(object)
}

fn entry(values: Type<'_>, wire: &Wire<'_>, depth: usize) -> Result<(String, Value), String> {
    let Wire::Bytes(bytes) = wire else {
        return Err("a map entry is not a message".into());
    };
    let mut key = String::new();
    let mut found = None;
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(text)) => key = utf8(text)?,
            (2, wire) => found = Some(value(values, &wire, depth)?),
            _ => {}
        }
    }
    // An entry without a value holds the empty one.
    let found = match found {
        Some(found) => found,
        None => value(values, &Wire::Bytes(&[]), depth)?,
    };
    Ok((key, found))
}

fn value(of: Type<'_>, wire: &Wire<'_>, depth: usize) -> Result<Value, String> {
    if let Some(scalar) = of.scalar() {
        return self::scalar(scalar, wire);
    }
    let Wire::Bytes(bytes) = wire else {
        return Err("a number stands where a message belongs".into());
    };
    if of.is_struct() {
        return Ok(message(of, &[], bytes, depth)?.into());
    }
    if let Some(item) = of.item() {
        // A list that is a message of its own: the items are field 1.
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        let items = Fields(bytes).filter_map(|field| match field {
            Ok((1, wire)) => Some(value(item, &wire, depth)),
            Ok(_) => None,
            Err(why) => Some(Err(why)),
        });
        return items.collect::<Result<Vec<_>, _>>().map(Value::from);
    }
    if of.is_any() {
        // RawExtension, JSON, FieldsV1: JSON text as field 1.
        let raw = first(bytes, 1)?;
        return match raw {
            Some(Wire::Bytes(text)) if !text.is_empty() => {
                serde_json::from_slice(text).map_err(|why| format!("embedded JSON: {why}"))
            }
            _ => Ok(Value::Null),
        };
    }
    Err("a map stands within a list".into())
}

fn scalar(scalar: Scalar, wire: &Wire<'_>) -> Result<Value, String> {
    Ok(match (scalar, wire) {
        (Scalar::Text, Wire::Bytes(text)) => utf8(text)?.into(),
        (Scalar::Flag, Wire::Varint(flag)) => (*flag != 0).into(),
        (Scalar::Int32, Wire::Varint(number)) => (*number as i32).into(),
        (Scalar::Whole, Wire::Varint(number)) => (*number as i64).into(),
        (Scalar::Real, Wire::Fixed64(bits)) => f64::from_bits(*bits).into(),
        (Scalar::Real, Wire::Fixed32(bits)) => f64::from(f32::from_bits(*bits)).into(),
        (Scalar::Bytes, Wire::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Scalar::Quantity, Wire::Bytes(message)) => match first(message, 1)? {
            Some(Wire::Bytes(text)) => utf8(text)?.into(),
            _ => "0".into(),
        },
        (Scalar::IntOrString, Wire::Bytes(message)) => match first(message, 1)? {
            Some(Wire::Varint(1)) => match first(message, 3)? {
                Some(Wire::Bytes(text)) => utf8(text)?.into(),
                _ => "".into(),
            },
            _ => match first(message, 2)? {
                Some(Wire::Varint(number)) => (number as i32).into(),
                _ => 0.into(),
            },
        },
        (Scalar::Time | Scalar::MicroTime, Wire::Bytes(message)) => time(scalar, message)?,
        (Scalar::Duration, Wire::Bytes(message)) => match first(message, 1)? {
            Some(Wire::Varint(nanoseconds)) => format!("{}ns", nanoseconds as i64).into(),
            _ => "0s".into(),
        },
        // An entry of a map without a value.
        (Scalar::Flag, Wire::Bytes([])) => false.into(),
        (Scalar::Int32 | Scalar::Whole | Scalar::Real, Wire::Bytes([])) => 0.into(),
        (scalar, _) => return Err(format!("a {scalar:?} is not encoded so")),
    })
}

fn time(scalar: Scalar, message: &[u8]) -> Result<Value, String> {
    let number = |number| match first(message, number) {
        Ok(Some(Wire::Varint(value))) => Ok(value as i64),
        Ok(_) => Ok(0),
        Err(why) => Err(why),
    };
    let (seconds, nanoseconds) = (number(1)?, number(2)?);
    if message.is_empty() {
        return Ok(Value::Null);
    }
    let nanoseconds = i32::try_from(nanoseconds).map_err(|_| "a time is out of range")?;
    let time = Timestamp::new(seconds, nanoseconds).map_err(|why| format!("a time is out of range: {why}"))?;
    let form = if scalar == Scalar::MicroTime {
        "%Y-%m-%dT%H:%M:%S.%6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    Ok(time.strftime(form).to_string().into())
}

fn first(message: &[u8], number: u32) -> Result<Option<Wire<'_>>, String> {
    for field in Fields(message) {
        let (found, wire) = field?;
        if found == number {
            return Ok(Some(wire));
        }
    }
    Ok(None)
}

fn utf8(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8".into())
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varint(mut value: u64, out: &mut Vec<u8>) {
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
    }

    fn bytes(number: u64, content: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        varint(number << 3 | 2, &mut out);
        varint(content.len() as u64, &mut out);
        out.extend_from_slice(content);
        out
    }

    fn number(number: u64, value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        varint(number << 3, &mut out);
        varint(value, &mut out);
        out
    }

    fn body(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
        let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
        [MAGIC.to_vec(), bytes(1, &meta), bytes(2, message)].concat()
    }

    #[test]
    fn a_pod_reads_as_its_json() {
        // By the numbers of k8s.io/api/core/v1/generated.proto.
        let label = [bytes(1, b"app"), bytes(2, b"web")].concat();
        let time = number(1, 1_767_355_200);
        let meta = [bytes(1, b"web"), bytes(3, b""), bytes(8, &time), bytes(11, &label)].concat();
        let limit = [bytes(1, b"cpu"), bytes(2, &bytes(1, b"500m"))].concat();
        let port = [number(1, 1), bytes(3, b"http")].concat();
        let get = [bytes(1, b"/healthz"), bytes(2, &port)].concat();
        // `httpGet` is inlined: protobuf puts it in a handler message, field 1 of the probe.
        let probe = [bytes(1, &bytes(2, &get)), number(3, 7)].concat();
        let container = [
            bytes(1, b"main"),
            bytes(3, b"sh"),
            bytes(3, b"-c"),
            bytes(8, &bytes(1, &limit)),
            bytes(10, &probe),
        ]
        .concat();
        // `emptyDir` is inlined in the volume's source, field 2.
        let volume = [bytes(1, b"tmp"), bytes(2, &bytes(2, &bytes(1, b"Memory")))].concat();
        let spec = [bytes(1, &volume), bytes(2, &container), number(4, 30), number(11, 1)].concat();
        let pod = [bytes(1, &meta), bytes(2, &spec), bytes(3, b"")].concat();
        let read: Value = serde_json::from_slice(&json(&body("v1", "Pod", &pod)).unwrap()).unwrap();
        assert_eq!(
            read,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "web", "creationTimestamp": "2026-01-02T12:00:00Z", "labels": {"app": "web"}},
                "spec": {
                    "volumes": [{"name": "tmp", "emptyDir": {"medium": "Memory"}}],
                    "containers": [{
                        "name": "main", "command": ["sh", "-c"], "resources": {"limits": {"cpu": "500m"}},
                        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "timeoutSeconds": 7},
                    }],
                    "terminationGracePeriodSeconds": 30, "hostNetwork": true,
                },
            })
        );
    }

    #[test]
    fn broken_bodies_are_refused_and_never_harm() {
        let whole = body("v1", "Pod", &bytes(1, &bytes(1, b"web")));
        for end in 0..whole.len() {
            // Cut short, it is an error or a smaller pod; what counts is that it ends.
            let _ = json(&whole[..end]);
        }
        let mut deep = bytes(1, b"");
        for _ in 0..5000 {
            deep = bytes(1, &deep);
        }
        let schema = bytes(2, &deep);
        for bad in [
            b"".to_vec(),
            b"{}".to_vec(),
            body("v1", "Pod", &[0xff; 12]),
            body("v1", "Pod", &bytes(1, &[0x0a, 0x7f])),
        ] {
            assert!(matches!(json(&bad), Err(Failure::BadRequest(_))), "{bad:?}");
        }
        assert!(matches!(
            json(&body("x.example.com/v1", "Pet", &schema)),
            Err(Failure::UnsupportedMediaType(_))
        ));
    }
}
