//! The version 2 document as protobuf, which is how client-go fetches it (`openapi.v2.Document` of gnostic).

use serde_json::{Map, Value};

/// The media types under which clients ask for it.
pub(super) const MEDIA: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1+protobuf",
];

/// The one of them that answers carry: `@` may not stand in a media type (RFC 6838), and Go's clients mind.
pub(super) const ANSWERED: &str = MEDIA[1];

/// The document in protobuf. What this crate's documents do not use is not encoded.
pub(super) fn document(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    let info = &document["info"];
    out.message(2, |m| {
        m.text(1, &info["title"]);
        m.text(2, &info["version"]);
    });
    out.message(8, |paths| {
        for (name, item) in entries(&document["paths"]) {
            paths.named(2, name, |m| path(m, item));
        }
    });
    out.message(9, |definitions| {
        for (name, one) in entries(&document["definitions"]) {
            definitions.named(1, name, |m| schema(m, one));
        }
    });
    out.0
}

fn path(out: &mut Message, item: &Value) {
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if let Some(one) = item.get(method) {
            out.message(number, |m| operation(m, one));
        }
    }
    parameters(out, 9, &item["parameters"]);
}

fn operation(out: &mut Message, of: &Value) {
    for tag in list(of, "tags") {
        out.text(1, tag);
    }
    out.text(3, &of["description"]);
    out.text(5, &of["operationId"]);
    for media in list(of, "produces") {
        out.text(6, media);
    }
    for media in list(of, "consumes") {
        out.text(7, media);
    }
    parameters(out, 8, &of["parameters"]);
    out.message(9, |responses| {
        for (code, response) in entries(&of["responses"]) {
            responses.named(1, code, |value| {
                value.message(1, |m| {
                    m.text(1, &response["description"]);
                    if let Some(one) = response.get("schema") {
                        m.message(2, |item| item.message(1, |m| schema(m, one)));
                    }
                });
            });
        }
    });
    for scheme in list(of, "schemes") {
        out.text(10, scheme);
    }
    extensions(out, 13, of);
}

fn list<'v>(of: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    of[key].as_array().into_iter().flatten()
}

fn parameters(out: &mut Message, number: u32, of: &Value) {
    for one in of.as_array().into_iter().flatten() {
        out.message(number, |item| {
            item.message(1, |parameter| match one["in"].as_str() {
                Some("body") => parameter.message(1, |m| {
                    m.text(2, &one["name"]);
                    m.text(3, &one["in"]);
                    m.flag(4, &one["required"]);
                    m.message(5, |m| schema(m, &one["schema"]));
                }),
                place => {
                    // NonBodyParameter: then query or path, which differ by one number.
                    let (which, shift) = if place == Some("path") { (4, 0) } else { (3, 1) };
                    parameter.message(2, |non_body| {
                        non_body.message(which, |m| {
                            m.flag(1, &one["required"]);
                            m.text(2, &one["in"]);
                            m.text(3, &one["description"]);
                            m.text(4, &one["name"]);
                            m.text(5 + shift, &one["type"]);
                            m.flag(19 + shift, &one["uniqueItems"]);
                        });
                    });
                }
            });
        });
    }
}

/// Bounds of values, by their numbers in `Schema`: what is a floating number there, and what a whole one.
const REALS: [(u32, &str); 3] = [(6, "multipleOf"), (7, "maximum"), (9, "minimum")];
const WHOLES: [(u32, &str); 6] = [
    (11, "maxLength"),
    (12, "minLength"),
    (14, "maxItems"),
    (15, "minItems"),
    (17, "maxProperties"),
    (18, "minProperties"),
];

fn schema(out: &mut Message, of: &Value) {
    out.text(1, &of["$ref"]);
    out.text(2, &of["format"]);
    out.text(3, &of["title"]);
    out.text(4, &of["description"]);
    if let Some(default) = of.get("default") {
        out.message(5, |any| any.bytes(2, default.to_string().as_bytes()));
    }
    for (number, key) in REALS {
        out.real(number, &of[key]);
    }
    out.flag(8, &of["exclusiveMaximum"]);
    out.flag(10, &of["exclusiveMinimum"]);
    for (number, key) in WHOLES {
        out.whole(number, &of[key]);
    }
    out.text(13, &of["pattern"]);
    out.flag(16, &of["uniqueItems"]);
    for name in list(of, "required") {
        out.text(19, name);
    }
    for value in list(of, "enum") {
        out.message(20, |any| any.bytes(2, value.to_string().as_bytes()));
    }
    match of.get("additionalProperties") {
        Some(Value::Bool(any)) => out.message(21, |item| item.flag(2, &Value::Bool(*any))),
        Some(values) => out.message(21, |item| item.message(1, |m| schema(m, values))),
        None => {}
    }
    if let Some(kind) = of.get("type") {
        out.message(22, |item| item.text(1, kind));
    }
    if let Some(items) = of.get("items") {
        out.message(23, |item| item.message(1, |m| schema(m, items)));
    }
    if let Some(properties) = of.get("properties") {
        out.message(25, |m| {
            for (name, one) in entries(properties) {
                m.named(1, name, |m| schema(m, one));
            }
        });
    }
    extensions(out, 31, of);
}

fn extensions(out: &mut Message, number: u32, of: &Value) {
    for (name, value) in entries(of).filter(|(name, _)| name.starts_with("x-")) {
        out.named(number, name, |any| any.bytes(2, value.to_string().as_bytes()));
    }
}

fn entries(of: &Value) -> impl Iterator<Item = (&String, &Value)> {
    of.as_object().into_iter().flat_map(Map::iter)
}

/// A protobuf message under construction. Everything here is length-delimited or a flag.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn bytes(&mut self, number: u32, bytes: &[u8]) {
        self.varint(u64::from(number) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, number: u32, value: &Value) {
        if let Some(text) = value.as_str() {
            self.bytes(number, text.as_bytes());
        }
    }

    fn flag(&mut self, number: u32, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(u64::from(number) << 3);
            self.varint(1);
        }
    }

    fn whole(&mut self, number: u32, value: &Value) {
        if let Some(value) = value.as_u64() {
            self.varint(u64::from(number) << 3);
            self.varint(value);
        }
    }

    fn real(&mut self, number: u32, value: &Value) {
        if let Some(value) = value.as_f64() {
            self.varint(u64::from(number) << 3 | 1);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
    }

    fn message(&mut self, number: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(number, &inner.0);
    }

    /// Gnostic's maps: a message of a name and a value.
    fn named(&mut self, number: u32, name: &str, fill: impl FnOnce(&mut Message)) {
        self.message(number, |entry| {
            entry.bytes(1, name.as_bytes());
            entry.message(2, fill);
        });
    }
}
