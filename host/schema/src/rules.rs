//! What a custom kind's schema demands of values, and the complaints when they do not comply, in kube-apiserver's words.

use std::sync::OnceLock;

use model::{Cause, CauseReason};
use regex::Regex;
use serde_json::Value;

use crate::form::{Node, Relation, Scalar, Type};

/// What must be true of the value at one node.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// As the schema spells it (`object`, `integer` …); empty where any type goes.
    pub kind: &'static str,
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    pub checks: Option<Box<Checks>>,
}

#[derive(Debug, Default)]
pub(crate) struct Checks {
    pub required: Vec<String>,
    pub choices: Vec<Value>,
    /// The bound, and whether it is itself excluded.
    pub minimum: Option<(f64, bool)>,
    pub maximum: Option<(f64, bool)>,
    pub multiple_of: Option<f64>,
    pub min_length: Option<u64>,
    pub max_length: Option<u64>,
    pub pattern: Option<Pattern>,
    pub format: String,
    pub min_items: Option<u64>,
    pub max_items: Option<u64>,
    pub unique: bool,
    pub min_members: Option<u64>,
    pub max_members: Option<u64>,
    /// `allOf`, `anyOf`, `oneOf` with their schemas, `not` with its one.
    pub junctions: Vec<(&'static str, Vec<Value>)>,
}

/// Compiled when first needed: most of a schema's patterns never meet a value.
#[derive(Debug, Default)]
pub(crate) struct Pattern {
    pub text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            compiled: OnceLock::new(),
        }
    }

    /// A pattern that does not compile matches everything; a CRD with one is refused before it gets here.
    fn matches(&self, text: &str) -> bool {
        self.compiled
            .get_or_init(|| Regex::new(&self.text).ok())
            .as_ref()
            .is_none_or(|regex| regex.is_match(text))
    }
}

/// Whether null is a value of its own at the place.
pub(crate) fn nullable(of: Type<'_>) -> bool {
    of.rules().is_some_and(|rules| rules.nullable)
}

/// Gathers what is wrong with `value` and everything below. `path` is empty at the root.
pub(crate) fn check(of: Type<'_>, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(rules) = of.rules() {
        if value.is_null() && rules.nullable {
            return;
        }
        if !kind_fits(rules, value) {
            let wanted = if rules.int_or_string {
                "integer,string"
            } else {
                rules.kind
            };
            causes.push(wrong_type(path, wanted, value));
            return;
        }
        if let Some(checks) = &rules.checks {
            checks.check(value, path, causes);
        }
        if rules.embedded {
            for name in ["apiVersion", "kind"] {
                if value.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    causes.push(Cause::required(child(path, name), "must not be empty"));
                }
            }
        }
    }
    match (of.node(), value) {
        (Node::Struct(_) | Node::Map { .. }, Value::Object(members)) => {
            for (key, value) in members {
                if let Some(below) = of.under(key) {
                    let bracketed = matches!(of.node(), Node::Map { .. });
                    let path = if bracketed && !is_name(key) {
                        format!("{path}[{key}]")
                    } else {
                        child(path, key)
                    };
                    check(below, value, &path, causes);
                }
            }
        }
        (Node::List(_), Value::Array(list)) => {
            if let Some(item) = of.item() {
                for (at, value) in list.iter().enumerate() {
                    check(item, value, &format!("{path}[{at}]"), causes);
                }
            }
            if of.rules().is_some() {
                uniqueness(of, list, path, causes);
            }
        }
        _ => {}
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn is_name(key: &str) -> bool {
    !key.contains(['.', '/'])
}

fn kind_fits(rules: &Rules, value: &Value) -> bool {
    if rules.int_or_string {
        return value.is_string() || value.is_i64() || value.is_u64();
    }
    match rules.kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        // `1.0` is an integer to Kubernetes as well.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => true,
    }
}

/// What the value is, as the complaint names it.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn wrong_type(path: &str, wanted: &str, value: &Value) -> Cause {
    let is = kind_of(value);
    let subject = if path.is_empty() {
        String::new()
    } else {
        format!("{path} in body ")
    };
    let message = format!("Invalid value: \"{is}\": {subject}must be of type {wanted}: \"{is}\"");
    Cause {
        reason: CauseReason::TypeInvalid,
        field: path.to_owned(),
        message,
    }
}

impl Checks {
    fn check(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let mut says = |value: &Value, rule: String| {
            causes.push(Cause::invalid(path, value, &format!("{path} in body {rule}")));
        };
        if let Some(number) = value.as_f64().filter(|_| value.is_number()) {
            match self.minimum {
                Some((bound, true)) if number <= bound => says(value, format!("should be greater than {bound}")),
                Some((bound, false)) if number < bound => {
                    says(value, format!("should be greater than or equal to {bound}"))
                }
                _ => {}
            }
            match self.maximum {
                Some((bound, true)) if number >= bound => says(value, format!("should be less than {bound}")),
                Some((bound, false)) if number > bound => {
                    says(value, format!("should be less than or equal to {bound}"))
                }
                _ => {}
            }
            if let Some(factor) = self.multiple_of.filter(|factor| (number / factor).fract() != 0.0) {
                says(value, format!("should be a multiple of {factor}"));
            }
            if self.format == "int32" && value.as_i64().is_some_and(|number| i32::try_from(number).is_err()) {
                says(value, format!("must be of type int32: \"{value}\""));
            }
        }
        if let Value::String(text) = value {
            // Lengths are in characters, as OpenAPI counts them.
            let length = text.chars().count() as u64;
            if let Some(limit) = self.min_length.filter(|limit| length < *limit) {
                says(value, format!("should be at least {limit} chars long"));
            }
            if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
                says(value, format!("should match '{}'", pattern.text));
            }
            if !format_fits(&self.format, text) {
                says(value, format!("must be of type {}: \"{text}\"", self.format));
            }
            if let Some(limit) = self.max_length.filter(|limit| length > *limit) {
                causes.push(Cause::too_long(path, limit as usize));
            }
        }
        let mut says = |value: &Value, rule: String| {
            causes.push(Cause::invalid(path, value, &format!("{path} in body {rule}")));
        };
        if let Value::Array(list) = value {
            let length = list.len() as u64;
            if let Some(limit) = self.min_items.filter(|limit| length < *limit) {
                says(value, format!("should have at least {limit} items"));
            }
            if self.unique && list.iter().enumerate().any(|(at, value)| list[..at].contains(value)) {
                says(value, "shouldn't contain duplicates".into());
            }
            if let Some(limit) = self.max_items.filter(|limit| length > *limit) {
                causes.push(too_many(path, length, limit));
            }
        }
        if let Value::Object(members) = value {
            let length = members.len() as u64;
            if let Some(limit) = self.min_members.filter(|limit| length < *limit) {
                causes.push(Cause::invalid(
                    path,
                    value,
                    &format!("{path} in body should have at least {limit} properties"),
                ));
            }
            if let Some(limit) = self.max_members.filter(|limit| length > *limit) {
                causes.push(too_many(path, length, limit));
            }
            for name in &self.required {
                if !members.contains_key(name) {
                    causes.push(Cause::required(child(path, name), ""));
                }
            }
        }
        if !self.choices.is_empty() && !self.choices.contains(value) {
            let spelled: Vec<String> = self
                .choices
                .iter()
                .map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned))
                .collect();
            let spelled: Vec<&str> = spelled.iter().map(String::as_str).collect();
            causes.push(Cause::not_supported(path, value, &spelled));
        }
        self.junctions(value, path, causes);
    }

    fn junctions(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        for (junction, schemas) in &self.junctions {
            let fitting = schemas.iter().filter(|schema| fits(schema, value)).count();
            let rule = match *junction {
                "allOf" if fitting < schemas.len() => "must validate all the schemas (allOf)",
                "anyOf" if fitting == 0 => "must validate at least one schema (anyOf)",
                "oneOf" if fitting == 0 => "must validate one and only one schema (oneOf). Found none valid",
                "oneOf" if fitting > 1 => "must validate one and only one schema (oneOf)",
                "not" if fitting > 0 => "must not validate the schema (not)",
                _ => continue,
            };
            causes.push(Cause::invalid(path, value, &format!("\"{path}\" {rule}")));
        }
    }
}

/// A schema inside a junction has value validations only, so it is judged as it stands.
fn fits(schema: &Value, value: &Value) -> bool {
    let (rules, _) = crate::custom::rules(schema);
    let mut causes = Vec::new();
    if value.is_null() && rules.nullable {
        return true;
    }
    if !kind_fits(&rules, value) {
        return false;
    }
    if let Some(checks) = &rules.checks {
        checks.check(value, "", &mut causes);
    }
    let below = |schema: Option<&Value>, value: &Value| schema.is_none_or(|schema| fits(schema, value));
    causes.is_empty()
        && match value {
            Value::Object(members) => members.iter().all(|(key, value)| {
                let property = schema.get("properties").and_then(|p| p.get(key));
                below(
                    property.or_else(|| schema.get("additionalProperties").filter(|s| s.is_object())),
                    value,
                )
            }),
            Value::Array(list) => list.iter().all(|value| below(schema.get("items"), value)),
            _ => true,
        }
}

fn too_many(path: &str, actual: u64, limit: u64) -> Cause {
    let items = if limit == 1 { "item" } else { "items" };
    let message = format!("Too many: {actual}: must have at most {limit} {items}");
    Cause {
        reason: CauseReason::TooMany,
        field: path.to_owned(),
        message,
    }
}

/// Sets and map lists hold each element once.
fn uniqueness(of: Type<'_>, list: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let identity: Box<dyn Fn(&Value) -> Value + '_> = match of.relation() {
        Some(Relation::Set) => Box::new(Value::clone),
        Some(Relation::Map) => Box::new(move |value| {
            let keys = of
                .keys()
                .filter_map(|key| Some((key.to_owned(), value.get(key)?.clone())));
            Value::Object(keys.collect())
        }),
        _ => return,
    };
    let identities: Vec<Value> = list.iter().map(identity).collect();
    for (at, value) in identities.iter().enumerate() {
        if identities[..at].contains(value) {
            causes.push(Cause::duplicate(format!("{path}[{at}]"), value));
        }
    }
}

/// The formats whose meaning is beyond doubt; others pass, as OpenAPI says of formats one does not know.
fn format_fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => model::time::parse(text).is_ok(),
        "date" => text.parse::<jiff::civil::Date>().is_ok(),
        "ipv4" => text.parse::<std::net::Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<std::net::Ipv6Addr>().is_ok(),
        "duration" => crate::duration::normalize(text).is_ok(),
        "byte" => crate::decode::base64_complaint(text).is_none(),
        "uuid" => {
            let bare = text.replace('-', "");
            bare.len() == 32 && bare.bytes().all(|b| b.is_ascii_hexdigit())
        }
        _ => true,
    }
}

/// The node for a schema's type.
pub(crate) fn scalar_of(kind: &str) -> Option<Scalar> {
    match kind {
        "string" => Some(Scalar::Text),
        "boolean" => Some(Scalar::Flag),
        "number" => Some(Scalar::Real),
        "integer" => Some(Scalar::Whole),
        _ => None,
    }
}
