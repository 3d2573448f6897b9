//! What a custom kind's schema demands of values, and the complaints when they do not comply, in kube-apiserver's words.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use model::{Cause, CauseReason};
use regex::Regex;
use serde_json::Value;

use crate::form::{Node, Relation, Scalar, Type};
use crate::format;

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
    pub min_members: Option<u64>,
    pub max_members: Option<u64>,
    pub junctions: Vec<(Junction, Vec<Judge>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Junction {
    AllOf,
    AnyOf,
    OneOf,
    Not,
}

/// A schema within a junction: value validations only, without a form of its own.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub rules: Rules,
    pub members: BTreeMap<String, Judge>,
    pub values: Option<Box<Judge>>,
    pub item: Option<Box<Judge>>,
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

    /// A pattern that does not compile matches everything; a definition with one is refused before it gets here.
    fn matches(&self, text: &str) -> bool {
        self.compiled
            .get_or_init(|| cel::pattern::compile(&self.text).ok())
            .as_ref()
            .is_none_or(|regex| regex.is_match(text))
    }
}

/// Whether null is a value of its own at the place.
pub(crate) fn nullable(of: Type<'_>) -> bool {
    of.rules().is_some_and(|rules| rules.nullable)
}

/// Gathers what is wrong with `value` and everything below. `path` is empty at the root.
///
/// `old` is the value that stood in its place, where that can be told: what has not changed is not complained of
/// (ratcheting, KEP-4008).
pub(crate) fn check(of: Type<'_>, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    let before = causes.len();
    if let Some(rules) = of.rules() {
        rules.check(value, path, causes);
        if value.is_null() {
            return forgive(before, value, old, causes);
        }
    }
    match (of.node(), value) {
        (Node::Struct(_) | Node::Map { .. }, Value::Object(members)) => {
            for (key, value) in members {
                let Some(below) = of.under(key) else { continue };
                // The version of an object is what it is asked for in, and says nothing of what was stored.
                let changes = path.is_empty() && matches!(key.as_str(), "apiVersion" | "kind");
                let old = old.and_then(|old| old.get(key)).filter(|_| !changes);
                check(below, value, old, &child(path, key), causes);
            }
        }
        (Node::List(_), Value::Array(list)) => {
            if let Some(item) = of.item() {
                for (at, value) in list.iter().enumerate() {
                    let old = old.and_then(|old| same_item(of, value, old));
                    check(item, value, old, &format!("{path}[{at}]"), causes);
                }
            }
        }
        _ => {}
    }
    forgive(before, value, old, causes);
}

fn forgive(before: usize, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    if causes.len() > before && old == Some(value) {
        causes.truncate(before);
    }
}

/// The item of the old list that has the same keys; only map lists have one.
pub(crate) fn same_item<'v>(list: Type<'_>, item: &Value, old: &'v Value) -> Option<&'v Value> {
    if list.relation() != Some(Relation::Map) {
        return None;
    }
    let keys = |value: &Value| -> Vec<Option<Value>> { list.keys().map(|key| value.get(key).cloned()).collect() };
    let wanted = keys(item);
    old.as_array()?.iter().find(|old| keys(old) == wanted)
}

pub(crate) fn child(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
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
    let message = format!("Invalid value: \"{is}\": {path} in body must be of type {wanted}: \"{is}\"");
    Cause {
        reason: CauseReason::TypeInvalid,
        field: path.to_owned(),
        message,
    }
}

/// A complaint that upstream ties to no field.
pub(crate) fn without_field(says: String) -> Cause {
    Cause::invalid("<nil>", "\"\"", &says)
}

impl Rules {
    fn check(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        if value.is_null() {
            if !self.nullable && (self.int_or_string || !self.kind.is_empty()) {
                causes.push(wrong_type(path, self.wanted(), value));
            }
            if let Some(checks) = &self.checks {
                checks.choices(value, path, causes);
            }
            return;
        }
        if !kind_fits(self, value) {
            causes.push(wrong_type(path, self.wanted(), value));
        }
        match &self.checks {
            Some(checks) => checks.check(self.kind, value, path, causes),
            // A whole number is checked for being one, and that costs no more memory.
            None => causes.extend(range(self.kind, "", value, path).map(without_field)),
        }
        if self.embedded {
            for name in ["apiVersion", "kind"] {
                if value.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                    causes.push(Cause::required(child(path, name), "must not be empty"));
                }
            }
        }
    }

    fn wanted(&self) -> &'static str {
        if self.int_or_string {
            "integer,string"
        } else {
            self.kind
        }
    }
}

impl Checks {
    fn check(&self, kind: &str, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        self.junctions(value, path, causes);
        let mut says = |value: &Value, rule: String| {
            causes.push(Cause::invalid(path, value, &format!("{path} in body {rule}")));
        };
        if let Value::String(text) = value {
            // Lengths are in characters, as OpenAPI counts them.
            let length = text.chars().count() as u64;
            if let Some(limit) = self.max_length.filter(|limit| length > *limit) {
                causes.push(Cause::too_long(path, limit as usize));
            }
            let mut says = |rule: String| causes.push(Cause::invalid(path, value, &format!("{path} in body {rule}")));
            if let Some(limit) = self.min_length.filter(|limit| length < *limit) {
                says(format!("should be at least {limit} chars long"));
            }
            if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.matches(text)) {
                says(format!("should match '{}'", pattern.text));
            }
            if !format::fits(&self.format, text) {
                says(format!("must be of type {}: {text:?}", self.format));
            }
        } else if let Some(number) = value.as_f64().filter(|_| value.is_number()) {
            if let Some(factor) = self.multiple_of.filter(|factor| !is_multiple(number, *factor)) {
                says(value, format!("should be a multiple of {factor}"));
            }
            match self.maximum {
                Some((bound, true)) if number >= bound => says(value, format!("should be less than {bound}")),
                Some((bound, false)) if number > bound => {
                    says(value, format!("should be less than or equal to {bound}"))
                }
                _ => {}
            }
            match self.minimum {
                Some((bound, true)) if number <= bound => says(value, format!("should be greater than {bound}")),
                Some((bound, false)) if number < bound => {
                    says(value, format!("should be greater than or equal to {bound}"))
                }
                _ => {}
            }
            if let Some(says) = range(kind, &self.format, value, path) {
                causes.push(without_field(says));
            }
        }
        if let Value::Array(list) = value {
            let length = list.len() as u64;
            if let Some(limit) = self.max_items.filter(|limit| length > *limit) {
                causes.push(too_many(path, length, limit));
            }
            if let Some(limit) = self.min_items.filter(|limit| length < *limit) {
                let says = format!("{path} in body should have at least {limit} items");
                causes.push(Cause::invalid(path, length, &says));
            }
        }
        self.choices(value, path, causes);
        if let Value::Object(members) = value {
            let length = members.len() as u64;
            if let Some(limit) = self.min_members.filter(|limit| length < *limit) {
                let says = format!("{path} in body should have at least {limit} properties");
                causes.push(Cause::invalid(path, length, &says));
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
    }

    fn choices(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        if self.choices.is_empty() || self.choices.iter().any(|choice| same_value(choice, value)) {
            return;
        }
        let spelled: Vec<String> = self
            .choices
            .iter()
            .map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned))
            .collect();
        let spelled: Vec<&str> = spelled.iter().map(String::as_str).collect();
        causes.push(Cause::not_supported(path, value, &spelled));
    }

    fn junctions(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        for (junction, judges) in &self.junctions {
            let mut found: Vec<(Vec<Cause>, u64)> = Vec::new();
            for judge in judges {
                let mut wrong = Vec::new();
                let weight = judge.check(value, path, &mut wrong);
                found.push((wrong, weight));
            }
            let fitting = found.iter().filter(|(wrong, _)| wrong.is_empty()).count();
            let rule = match junction {
                Junction::AllOf => {
                    let all = judges.len();
                    causes.extend(found.into_iter().flat_map(|(wrong, _)| wrong));
                    match fitting {
                        fitting if fitting == all => continue,
                        0 => "must validate all the schemas (allOf). None validated".to_owned(),
                        _ => "must validate all the schemas (allOf)".to_owned(),
                    }
                }
                Junction::Not => match fitting {
                    0 => continue,
                    _ => "must not validate the schema (not)".to_owned(),
                },
                Junction::AnyOf if fitting > 0 => continue,
                Junction::OneOf if fitting == 1 => continue,
                Junction::OneOf if fitting > 1 => {
                    format!("must validate one and only one schema (oneOf). Found {fitting} valid alternatives")
                }
                Junction::AnyOf | Junction::OneOf => {
                    // Of the alternatives, the one that had most to look at tells what it lacks.
                    let most = found.iter().map(|(_, weight)| *weight).max();
                    let best = found.into_iter().find(|(_, weight)| Some(*weight) == most);
                    causes.extend(best.into_iter().flat_map(|(wrong, _)| wrong));
                    match junction {
                        Junction::AnyOf => "must validate at least one schema (anyOf)".to_owned(),
                        _ => "must validate one and only one schema (oneOf). Found none valid".to_owned(),
                    }
                }
            };
            causes.push(without_field(format!("{path:?} {rule}")));
        }
    }
}

impl Judge {
    /// Answers how many places were looked at.
    fn check(&self, value: &Value, path: &str, causes: &mut Vec<Cause>) -> u64 {
        self.rules.check(value, path, causes);
        let mut weight = 1;
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    if let Some(below) = self.members.get(key).or(self.values.as_deref()) {
                        weight += below.check(value, &child(path, key), causes);
                    }
                }
            }
            Value::Array(list) => {
                if let Some(item) = &self.item {
                    for (at, value) in list.iter().enumerate() {
                        weight += item.check(value, &format!("{path}[{at}]"), causes);
                    }
                }
            }
            _ => {}
        }
        weight
    }
}

/// `1` and `1.0` are one value.
fn same_value(a: &Value, b: &Value) -> bool {
    a == b || a.is_number() && b.is_number() && a.as_f64() == b.as_f64()
}

fn is_multiple(number: f64, factor: f64) -> bool {
    let ratio = number / factor;
    (ratio - ratio.round()).abs() < 1e-9
}

/// Numbers that do not fit into the type their schema names.
fn range(kind: &str, format: &str, value: &Value, path: &str) -> Option<String> {
    let number = value.as_f64().filter(|_| value.is_number())?;
    let fits = match (kind, format) {
        ("integer", "int32") => number.fract() == 0.0 && i32::MIN as f64 <= number && number <= i32::MAX as f64,
        ("integer", _) => number.fract() == 0.0,
        ("number", "float") => number.abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if fits {
        return None;
    }
    let of = match (kind, format) {
        ("integer", "int32" | "int64") | ("number", _) => format!("{kind} with format {format}"),
        _ => format!("{kind} (default format)"),
    };
    Some(format!("Checked value must be of type {of} in {path}"))
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

/// Sets and map lists hold each element once, here and below.
pub(crate) fn check_lists(of: Type<'_>, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    match (of.node(), value) {
        (Node::Struct(_) | Node::Map { .. }, Value::Object(members)) => {
            let keyed = matches!(of.node(), Node::Map { .. });
            for (key, value) in members {
                if let Some(below) = of.under(key) {
                    let path = if keyed {
                        format!("{path}[{key}]")
                    } else {
                        child(path, key)
                    };
                    check_lists(below, value, &path, causes);
                }
            }
        }
        (Node::List(_), Value::Array(list)) => {
            if of.rules().is_some() {
                uniqueness(of, list, path, causes);
            }
            if let Some(item) = of.item() {
                for (at, value) in list.iter().enumerate() {
                    check_lists(item, value, &format!("{path}[{at}]"), causes);
                }
            }
        }
        _ => {}
    }
}

fn uniqueness(of: Type<'_>, list: &[Value], path: &str, causes: &mut Vec<Cause>) {
    let identity: Box<dyn Fn(&Value) -> Value + '_> = match of.relation() {
        Some(Relation::Set) => Box::new(Value::clone),
        Some(Relation::Map) => {
            let stranger = list.iter().position(|item| !item.is_null() && !item.is_object());
            if let Some(at) = stranger {
                let says = "must be an object for an array of list-type map";
                causes.push(Cause::invalid(format!("{path}[{at}]"), &list[at], says));
                return;
            }
            Box::new(move |value| {
                let keys = of
                    .keys()
                    .filter_map(|key| Some((key.to_owned(), value.get(key)?.clone())));
                Value::Object(keys.collect())
            })
        }
        _ => return,
    };
    let identities: Vec<Value> = list.iter().map(identity).collect();
    for (at, value) in identities.iter().enumerate() {
        // Of more than two alike, the second is told.
        if identities[..at].iter().filter(|other| *other == value).count() == 1 {
            causes.push(Cause::duplicate(format!("{path}[{at}]"), value));
        }
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
