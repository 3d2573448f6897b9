//! Whether a definition's schema is one: structural (KEP-1693), with defaults that fit and rules that compile and are not
//! too dear. The complaints are kube-apiserver's.

use cel::Shape;
use model::{Cause, CauseReason};
use serde_json::{Map, Value, json};
use std::sync::Arc;

use crate::custom::compile;
use crate::form::Type;
use crate::laws::{Before, Court, Law};
use crate::{rules, schema, shape};

/// What one rule may cost at most.
const RULE_LIMIT: u64 = 10_000_000;
/// What all rules of one schema may cost at most.
const SCHEMA_LIMIT: u64 = 100_000_000;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];
/// What may stand at the root of a schema whose kind has a status of its own, as upstream's types call them.
const AT_ROOT: [(&str, &str); 22] = [
    ("Description", "description"),
    ("Type", "type"),
    ("Format", "format"),
    ("Title", "title"),
    ("Maximum", "maximum"),
    ("ExclusiveMaximum", "exclusiveMaximum"),
    ("Minimum", "minimum"),
    ("ExclusiveMinimum", "exclusiveMinimum"),
    ("MaxLength", "maxLength"),
    ("MinLength", "minLength"),
    ("Pattern", "pattern"),
    ("MaxItems", "maxItems"),
    ("MinItems", "minItems"),
    ("UniqueItems", "uniqueItems"),
    ("MultipleOf", "multipleOf"),
    ("Required", "required"),
    ("Items", "items"),
    ("Properties", "properties"),
    ("ExternalDocs", "externalDocs"),
    ("Example", "example"),
    ("XPreserveUnknownFields", "x-kubernetes-preserve-unknown-fields"),
    ("XValidations", "x-kubernetes-validations"),
];

/// A version's schema, and what its kind adds to the judgement.
#[derive(Debug, Clone, Copy)]
pub struct Definition<'d> {
    pub schema: &'d Value,
    /// The kind has a `status` subresource.
    pub has_status: bool,
    /// The schema is as it was: rules that were let in once may go on being dear.
    pub unchanged: bool,
}

impl Definition<'_> {
    /// Everything wrong with the schema. `path` is where it stands: `spec.validation.openAPIV3Schema`.
    pub fn check(&self, path: &str) -> Vec<Cause> {
        let mut causes = Vec::new();
        if self.has_status {
            self.root_of_status(path, &mut causes);
        }
        if is(self.schema, "nullable") {
            causes.push(Cause::forbidden(
                format!("{path}.nullable"),
                "nullable cannot be true at the root",
            ));
        }
        let mut structure = Vec::new();
        invariants(self.schema, Level::Root, path, &mut structure);
        let sound = structure.is_empty();
        structure.sort_by_key(|cause| format!("{cause}"));
        causes.append(&mut structure);
        let mut budget = cel::BUDGET as i64;
        let mut defaults = Vec::new();
        if sound {
            check_defaults(self.schema, path, true, &mut budget, &mut defaults);
        }
        let sound = sound && defaults.is_empty();
        causes.append(&mut defaults);
        let mut walk = Walk {
            unchanged: self.unchanged,
            total: 0,
            dearest: Vec::new(),
        };
        let place = Place {
            defaults: None,
            in_meta: false,
            uncorrelated: None,
            count: sound.then_some(Some(1)),
        };
        let (mut schema, mut cel) = walk.node(self.schema, path, place, true);
        causes.append(&mut schema);
        causes.append(&mut cel);
        if walk.total > SCHEMA_LIMIT {
            for (path, _) in walk.dearest {
                let says = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
                causes.push(Cause::forbidden(path, says));
            }
            let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
            causes.push(Cause::forbidden(path, &too_dear(what, walk.total, SCHEMA_LIMIT)));
        }
        causes
    }

    fn root_of_status(&self, path: &str, causes: &mut Vec<Cause>) {
        let members = self.schema.as_object();
        let set = members.into_iter().flatten().filter(|(_, value)| !is_zero(value));
        for (key, value) in set {
            if key == "type" {
                if value != "object" {
                    let says = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                    causes.push(Cause::invalid(format!("{path}.type"), value, says));
                }
                continue;
            }
            if !AT_ROOT.iter().any(|(_, name)| name == key) {
                let names: Vec<&str> = AT_ROOT.iter().map(|(name, _)| *name).collect();
                let says = format!(
                    "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                    names.join(" ")
                );
                causes.push(Cause::invalid(path, self.schema, &says));
                return;
            }
        }
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn is(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn text<'s>(schema: &'s Value, key: &str) -> &'s str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'s>(schema: &'s Value, key: &str) -> &'s [Value] {
    schema
        .get(key)
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn members(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
}

fn sub<'s>(schema: &'s Value, key: &str) -> Option<&'s Value> {
    schema.get(key).filter(|of| of.is_object())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What makes a schema structural, here and below.
fn invariants(schema: &Value, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let at = |key: &str| format!("{path}.{key}");
    let kind = text(schema, "type");
    let embedded = is(schema, "x-kubernetes-embedded-resource");
    let preserves = is(schema, "x-kubernetes-preserve-unknown-fields");
    let int_or_string = is(schema, "x-kubernetes-int-or-string");
    if kind == "array" && sub(schema, "items").is_none() {
        causes.push(Cause::required(at("items"), "must be specified"));
    }
    if let Some(items) = sub(schema, "items") {
        invariants(items, Level::Item, &at("items"), causes);
    }
    for (name, property) in members(schema) {
        invariants(property, Level::Field, &format!("{path}.properties[{name}]"), causes);
    }
    let additional = schema
        .get("additionalProperties")
        .filter(|of| of.is_object() || of.as_bool() == Some(true));
    if let Some(values) = additional {
        if level == Level::Root {
            causes.push(Cause::forbidden(
                at("additionalProperties"),
                "must not be used at the root",
            ));
        }
        if values.is_object() {
            invariants(values, Level::Field, &at("additionalProperties"), causes);
        }
    }
    if int_or_string && preserves {
        let says = "must be false if x-kubernetes-int-or-string is true";
        causes.push(Cause::invalid(at("x-kubernetes-preserve-unknown-fields"), true, says));
    }
    if int_or_string && embedded {
        let says = "must be false if x-kubernetes-int-or-string is true";
        causes.push(Cause::invalid(at("x-kubernetes-embedded-resource"), true, says));
    }
    let idiom = json!([{"type": "integer"}, {"type": "string"}]);
    let any_of = schema.get("anyOf") == Some(&idiom);
    let all_of = list(schema, "allOf").first().and_then(|first| first.get("anyOf")) == Some(&idiom);
    validations(schema, any_of, all_of, path, causes);
    let says = "must be object if x-kubernetes-embedded-resource is true";
    if embedded && kind.is_empty() {
        causes.push(Cause::required(at("type"), says));
    } else if embedded && kind != "object" {
        causes.push(Cause::invalid(at("type"), format!("{kind:?}"), says));
    } else if kind.is_empty() && !int_or_string && !preserves {
        let says = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(at("type"), says));
    }
    if embedded && additional.is_some() {
        let says = "must not be used if x-kubernetes-embedded-resource is set";
        causes.push(Cause::forbidden(at("additionalProperties"), says));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        causes.push(Cause::invalid(
            at("type"),
            format!("{kind:?}"),
            "must be object at the root",
        ));
    }
    let resource = level == Level::Root || embedded;
    let property = |name: &str| schema.get("properties").and_then(|properties| properties.get(name));
    for name in ["kind", "apiVersion"] {
        if let Some(property) = property(name).filter(|property| resource && text(property, "type") != "string") {
            let kind = text(property, "type");
            let field = format!("{path}.properties[{name}].type");
            causes.push(Cause::invalid(field, format!("{kind:?}"), "must be string"));
        }
    }
    if let Some(metadata) = property("metadata") {
        let place = format!("{path}.properties[metadata]");
        let kind = text(metadata, "type");
        if resource && kind != "object" {
            causes.push(Cause::invalid(
                format!("{place}.type"),
                format!("{kind:?}"),
                "must be object",
            ));
        }
        if level == Level::Root && !says_only_names(metadata) {
            let says =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            causes.push(Cause::forbidden(place, says));
        }
    }
    if embedded && !preserves && members(schema).next().is_none() {
        let says =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        causes.push(Cause::required(at("properties"), says));
    }
}

fn says_only_names(metadata: &Value) -> bool {
    let names = members(metadata).all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let others = metadata
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !is_zero(value));
    names
        && others
            .into_iter()
            .all(|(key, _)| matches!(key.as_str(), "type" | "properties" | "default"))
}

/// The value validations of a node: what stands in its junctions, and its pattern.
fn validations(schema: &Value, skip_any_of: bool, skip_all_of: bool, path: &str, causes: &mut Vec<Cause>) {
    for (at, schema) in list(schema, "anyOf").iter().enumerate().filter(|_| !skip_any_of) {
        nested(schema, false, &format!("{path}.anyOf[{at}]"), causes);
    }
    for (at, schema) in list(schema, "allOf").iter().enumerate() {
        nested(schema, skip_all_of && at == 0, &format!("{path}.allOf[{at}]"), causes);
    }
    for (at, schema) in list(schema, "oneOf").iter().enumerate() {
        nested(schema, false, &format!("{path}.oneOf[{at}]"), causes);
    }
    if let Some(not) = sub(schema, "not") {
        nested(not, false, &format!("{path}.not"), causes);
    }
    let pattern = text(schema, "pattern");
    if let Err(error) = cel::pattern::check(pattern) {
        let says = format!("must be a valid regular expression, but isn't: {error}");
        causes.push(Cause::invalid(format!("{path}.pattern"), format!("{pattern:?}"), &says));
    }
}

/// Within junctions nothing may say what a value is made of.
fn nested(schema: &Value, skip_any_of: bool, path: &str, causes: &mut Vec<Cause>) {
    validations(schema, skip_any_of, false, path, causes);
    if let Some(items) = sub(schema, "items") {
        nested(items, false, &format!("{path}.items"), causes);
    }
    for (name, property) in members(schema) {
        nested(property, false, &format!("{path}.properties[{name}]"), causes);
    }
    const NOT_HERE: [(&str, &str); 12] = [
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
    ];
    for (key, says) in NOT_HERE {
        if schema.get(key).is_some_and(|value| !is_zero(value)) {
            causes.push(Cause::forbidden(format!("{path}.{key}"), says));
        }
    }
    if !list(schema, "x-kubernetes-validations").is_empty() {
        let field = format!("{path}.x-kubernetes-validations");
        causes.push(Cause::forbidden(field, "must be empty to be structural"));
    }
    if members(schema).any(|(name, _)| name == "metadata") {
        let field = format!("{path}.properties[metadata]");
        causes.push(Cause::forbidden(field, "must not be specified in a nested context"));
    }
}

/// Defaults hold what their schema knows of, and fit it.
fn check_defaults(schema: &Value, path: &str, root: bool, budget: &mut i64, causes: &mut Vec<Cause>) {
    let default = schema.get("default").filter(|default| !default.is_null());
    if let Some(default) = default {
        let mut own = schema.clone();
        if let (true, Some(members)) = (root, own.as_object_mut()) {
            members.insert("x-kubernetes-embedded-resource".into(), true.into());
        }
        if let Ok((form, id)) = compile(&own, false) {
            let of = Type { form: &form, id };
            let field = format!("{path}.default");
            let mut pruned = default.clone();
            schema::prune(of, &mut pruned);
            if pruned != *default {
                causes.push(Cause::invalid(&field, default, "must not have unknown fields"));
            }
            let mut wrong = Vec::new();
            rules::check(of, default, None, "", &mut wrong);
            if wrong.is_empty() {
                let mut court = Court::new(&mut wrong);
                court.budget = *budget;
                let before = Before {
                    value: None,
                    held: false,
                };
                court.check(of, default, before, "");
                *budget = court.budget;
            }
            causes.extend(wrong.into_iter().map(|cause| below(&field, cause)));
        }
    }
    if let Some(items) = sub(schema, "items") {
        check_defaults(items, &format!("{path}.items"), false, budget, causes);
    }
    for (name, property) in members(schema) {
        check_defaults(property, &format!("{path}.properties[{name}]"), false, budget, causes);
    }
}

/// A complaint about a default, told where the default stands.
fn below(field: &str, cause: Cause) -> Cause {
    let at = match cause.field.as_str() {
        "" | "<nil>" => field.to_owned(),
        inner if inner.starts_with('[') => format!("{field}{inner}"),
        inner => format!("{field}.{inner}"),
    };
    let message = match cause.reason {
        CauseReason::Required => "Required value".to_owned(),
        _ => cause.message,
    };
    Cause {
        reason: cause.reason,
        field: at,
        message,
    }
}

struct Walk {
    unchanged: bool,
    /// Of all rules so far.
    total: u64,
    /// Those that make the sum, dearest first.
    dearest: Vec<(String, u64)>,
}

/// What a node has from those above it.
#[derive(Clone)]
struct Place {
    /// Why defaults are not allowed here.
    defaults: Option<String>,
    in_meta: bool,
    /// From where on an old value cannot be told.
    uncorrelated: Option<String>,
    /// How often a value can stand here; `Some(None)`: without bound; `None`: rules are not looked at.
    count: Option<Option<u64>>,
}

type Found = (Vec<Cause>, Vec<Cause>);

impl Walk {
    /// What is wrong with the schema proper, and with its rules.
    fn node(&mut self, schema: &Value, path: &str, place: Place, root: bool) -> Found {
        let mut wrong = Vec::new();
        let mut cel = Vec::new();
        let at = |key: &str| format!("{path}.{key}");
        self.keywords(schema, path, &place, &mut wrong);
        let inner = |place: &Place, factor: Option<u64>| Place {
            count: place.count.map(|count| Some(count?.saturating_mul(factor?))),
            ..place.clone()
        };
        let mut go = |walk: &mut Self, schema: &Value, path: String, place: Place, wrong: &mut Vec<Cause>| {
            let (mut a, mut b) = walk.node(schema, &path, place, false);
            wrong.append(&mut a);
            cel.append(&mut b);
        };
        let factor = most_elements(schema);
        let additional = schema.get("additionalProperties");
        if let Some(values) = additional {
            if members(schema).next().is_some() && values.as_bool() != Some(true) {
                let says = "additionalProperties and properties are mutual exclusive";
                wrong.push(Cause::forbidden(at("additionalProperties"), says));
            }
            if values.is_object() {
                let mut place = inner(&place, factor);
                if place.in_meta {
                    place.defaults = Some("inside additionalProperties applying to object metadata".into());
                }
                go(self, values, at("additionalProperties"), place, &mut wrong);
            }
        }
        let resource = root || is(schema, "x-kubernetes-embedded-resource");
        for (name, property) in members(schema) {
            let mut place = inner(&place, factor);
            if !matches!(text(schema, "x-kubernetes-map-type"), "" | "granular" | "atomic") {
                place.uncorrelated.get_or_insert_with(|| path.to_owned());
            }
            if resource && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                place.in_meta = true;
                if root {
                    place.defaults = Some(format!("in top-level {name}"));
                }
            }
            go(self, property, format!("{path}.properties[{name}]"), place, &mut wrong);
        }
        let blind = Place {
            count: None,
            ..place.clone()
        };
        if let Some(not) = sub(schema, "not") {
            go(self, not, at("not"), blind.clone(), &mut wrong);
        }
        for key in ["allOf", "oneOf", "anyOf"] {
            for (i, schema) in list(schema, key).iter().enumerate() {
                go(self, schema, format!("{path}.{key}[{i}]"), blind.clone(), &mut wrong);
            }
        }
        if let Some(items) = sub(schema, "items") {
            let mut place = inner(&place, factor);
            if text(schema, "x-kubernetes-list-type") != "map" {
                place.uncorrelated.get_or_insert_with(|| path.to_owned());
            }
            go(self, items, at("items"), place, &mut wrong);
        }
        extensions(schema, path, &mut wrong);
        rule_texts(schema, path, &mut wrong);
        if wrong.is_empty() && place.count.is_some() {
            self.rules(schema, path, &place, root, &mut cel);
        }
        (wrong, cel)
    }

    fn keywords(&self, schema: &Value, path: &str, place: &Place, wrong: &mut Vec<Cause>) {
        let at = |key: &str| format!("{path}.{key}");
        let kind = text(schema, "type");
        if !kind.is_empty() && !TYPES.contains(&kind) {
            wrong.push(Cause::not_supported(at("type"), format!("{kind:?}"), &TYPES));
        }
        if schema.get("default").is_some_and(|d| !d.is_null())
            && let Some(why) = &place.defaults
        {
            wrong.push(Cause::forbidden(at("default"), &format!("must not be set {why}")));
        }
        for key in [
            "id",
            "additionalItems",
            "patternProperties",
            "definitions",
            "dependencies",
            "$ref",
        ] {
            let set = schema
                .get(key)
                .is_some_and(|value| !is_zero(value) && *value != json!({}));
            if set {
                wrong.push(Cause::forbidden(at(key), &format!("{key} is not supported")));
            }
        }
        if kind == "null" {
            let says = "type cannot be set to null, use nullable as an alternative";
            wrong.push(Cause::forbidden(at("type"), says));
        }
        if schema.get("items").is_some_and(Value::is_array) {
            wrong.push(Cause::forbidden(
                at("items"),
                "items must be a schema object and not an array",
            ));
        }
        if place.in_meta && is(schema, "x-kubernetes-embedded-resource") {
            let says = "must not be used inside of resource meta";
            wrong.push(Cause::forbidden(at("x-kubernetes-embedded-resource"), says));
        }
        if is(schema, "uniqueItems") {
            let says = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            wrong.push(Cause::forbidden(at("uniqueItems"), says));
        }
    }

    fn rules(&mut self, schema: &Value, path: &str, place: &Place, root: bool, wrong: &mut Vec<Cause>) {
        let rules = list(schema, "x-kubernetes-validations");
        if rules.is_empty() {
            return;
        }
        let resource = root || is(schema, "x-kubernetes-embedded-resource");
        let Some(shape) = shape::of(schema, resource, "selfType") else {
            let says = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            wrong.push(Cause {
                reason: CauseReason::Internal,
                field: format!("{path}.x-kubernetes-validations"),
                message: format!("Internal error: {says}"),
            });
            return;
        };
        for (i, rule) in rules.iter().enumerate() {
            self.rule(
                rule,
                &format!("{path}.x-kubernetes-validations[{i}]"),
                &shape,
                place,
                wrong,
            );
        }
    }

    fn rule(&mut self, rule: &Value, path: &str, shape: &Arc<Shape>, place: &Place, wrong: &mut Vec<Cause>) {
        let judged = Law::read(rule, String::new()).judge(shape);
        let (at_rule, at_message) = (format!("{path}.rule"), format!("{path}.messageExpression"));
        let cost = judged.rule.as_ref().map_or(0, |(estimate, _)| estimate.most);
        let times = place.count.flatten().unwrap_or(judged.most);
        let cost = cost.saturating_mul(times);
        if !self.unchanged && cost > RULE_LIMIT {
            wrong.push(Cause::forbidden(
                &at_rule,
                &too_dear("estimated rule cost", cost, RULE_LIMIT),
            ));
        }
        self.spend(&at_rule, cost);
        let uses_old = match &judged.rule {
            Err(error) => {
                wrong.push(Cause::invalid(&at_rule, shown(rule), error));
                false
            }
            Ok((_, uses_old)) => *uses_old,
        };
        match &judged.message {
            Some(Err(error)) => wrong.push(Cause::invalid(&at_message, shown(rule), error)),
            Some(Ok(estimate)) => {
                let cost = estimate.most;
                if !self.unchanged && cost > RULE_LIMIT {
                    let says = too_dear("estimated messageExpression cost", cost, RULE_LIMIT);
                    wrong.push(Cause::forbidden(&at_message, &says));
                }
                self.spend(&at_message, cost);
            }
            None => {}
        }
        if uses_old {
            if let Some(from) = &place.uncorrelated {
                let says = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {from}");
                wrong.push(Cause::invalid(at_rule, &rule["rule"], &says));
            }
        } else if let Some(flag) = rule.get("optionalOldSelf").filter(|flag| flag.is_boolean()) {
            let says = "may not be set if oldSelf is not used in rule";
            wrong.push(Cause::invalid(format!("{path}.optionalOldSelf"), flag, says));
        }
    }

    fn spend(&mut self, path: &str, cost: u64) {
        self.total = self.total.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            self.dearest.push((path.to_owned(), cost));
            self.dearest.sort_by(|(_, a), (_, b)| b.cmp(a));
            self.dearest.truncate(4);
        }
    }
}

/// By what a map or list multiplies what is in it. `None`: without bound.
fn most_elements(schema: &Value) -> Option<u64> {
    let count = |key: &str| schema.get(key).and_then(Value::as_i64).map(|n| n.max(0) as u64);
    match text(schema, "type") {
        "object" if schema.get("additionalProperties").is_some() => count("maxProperties"),
        "array" => count("maxItems"),
        _ => Some(1),
    }
}

fn extensions(schema: &Value, path: &str, wrong: &mut Vec<Cause>) {
    let at = |key: &str| format!("{path}.{key}");
    let kind = text(schema, "type");
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        let says = "must be true or undefined";
        wrong.push(Cause::invalid(at("x-kubernetes-preserve-unknown-fields"), false, says));
    }
    let mut fits = |key: &str, wanted: &str| {
        if schema.get(key).is_some_and(|v| !v.is_null()) && kind != wanted {
            let says = format!("must be {wanted} if {key} is specified");
            wrong.push(match kind {
                "" => Cause::required(at("type"), &says),
                kind => Cause::invalid(at("type"), format!("{kind:?}"), &says),
            });
            return false;
        }
        true
    };
    fits("x-kubernetes-map-type", "object");
    let is_array = fits("x-kubernetes-list-type", "array");
    let map_type = text(schema, "x-kubernetes-map-type");
    if !matches!(map_type, "" | "atomic" | "granular") {
        let supported = ["atomic", "granular"];
        wrong.push(Cause::not_supported(
            at("x-kubernetes-map-type"),
            format!("{map_type:?}"),
            &supported,
        ));
    }
    let list_type = text(schema, "x-kubernetes-list-type");
    let items = sub(schema, "items");
    if let (true, "set", Some(items)) = (is_array, list_type, items) {
        let says = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let inner = items.get("x-kubernetes-list-type");
        match text(items, "type") {
            "array" if !matches!(inner.and_then(Value::as_str), None | Some("atomic")) => {
                let value = inner.unwrap_or(&Value::Null);
                wrong.push(Cause::invalid(at("items.x-kubernetes-list-type"), value, says));
            }
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                let value = inner.unwrap_or(&Value::Null);
                wrong.push(Cause::invalid(at("items.x-kubernetes-map-type"), value, says));
            }
            _ => {}
        }
    }
    if !matches!(list_type, "" | "atomic" | "set" | "map") {
        let supported = ["atomic", "set", "map"];
        wrong.push(Cause::not_supported(
            at("x-kubernetes-list-type"),
            format!("{list_type:?}"),
            &supported,
        ));
    }
    map_list(schema, path, list_type, items, wrong);
}

fn map_list(schema: &Value, path: &str, list_type: &str, items: Option<&Value>, wrong: &mut Vec<Cause>) {
    let at = |key: &str| format!("{path}.{key}");
    let keys = list(schema, "x-kubernetes-list-map-keys");
    if !keys.is_empty() && list_type != "map" {
        let says = "must be map if x-kubernetes-list-map-keys is non-empty";
        wrong.push(match list_type {
            "" => Cause::required(at("x-kubernetes-list-type"), says),
            other => Cause::invalid(at("x-kubernetes-list-type"), format!("{other:?}"), says),
        });
    }
    if list_type == "map" {
        if keys.is_empty() {
            let says = "must not be empty if x-kubernetes-list-type is map";
            wrong.push(Cause::required(at("x-kubernetes-list-map-keys"), says));
        }
        match items {
            None => {
                let says = "must have a schema if x-kubernetes-list-type is map";
                wrong.push(Cause::required(at("items"), says));
            }
            Some(items) if text(items, "type") != "object" => {
                let says = "must be object if parent array's x-kubernetes-list-type is map";
                wrong.push(Cause::invalid(
                    at("items.type"),
                    format!("{:?}", text(items, "type")),
                    says,
                ));
            }
            Some(items) => {
                let shown = Value::Array(keys.to_vec());
                for (i, key) in keys.iter().enumerate() {
                    let name = key.as_str().unwrap_or_default();
                    match items.get("properties").and_then(|properties| properties.get(name)) {
                        Some(property) if matches!(text(property, "type"), "array" | "object") => {
                            let says = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                            let field = format!("{path}.items.properties[{name}].type");
                            wrong.push(Cause::invalid(field, format!("{:?}", text(items, "type")), says));
                        }
                        Some(_) => {}
                        None => {
                            let says = "entries must all be names of item properties";
                            wrong.push(Cause::invalid(at("x-kubernetes-list-map-keys"), &shown, says));
                        }
                    }
                    if keys[..i].contains(key) {
                        let says = "must not contain duplicate entries";
                        wrong.push(Cause::invalid(at("x-kubernetes-list-map-keys"), &shown, says));
                    }
                }
            }
        }
    }
    let Some(items) = items.filter(|_| matches!(list_type, "set" | "map")) else {
        return;
    };
    if is(items, "nullable") {
        let says = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        wrong.push(Cause::forbidden(at("items.nullable"), &says));
    }
    for key in keys.iter().filter_map(Value::as_str).filter(|_| list_type == "map") {
        let Some(property) = items.get("properties").and_then(|properties| properties.get(key)) else {
            continue;
        };
        let place = format!("{path}.items.properties[{key}]");
        let required = list(items, "required").iter().any(|name| name == key);
        if !required && property.get("default").is_none_or(Value::is_null) {
            let says =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            wrong.push(Cause::required(format!("{place}.default"), says));
        }
        if is(property, "nullable") {
            let says = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            wrong.push(Cause::forbidden(format!("{place}.nullable"), says));
        }
    }
}

/// What can be said of rules without compiling them.
fn rule_texts(schema: &Value, path: &str, wrong: &mut Vec<Cause>) {
    let breaks = |text: &str| text.contains(['\n', '\r']);
    for (i, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
        let at = |key: &str| format!("{path}.x-kubernetes-validations[{i}].{key}");
        let (source, message) = (text(rule, "rule").trim(), text(rule, "message"));
        let shown = |text: &str| Value::from(text).to_string();
        if source.is_empty() {
            wrong.push(Cause::required(at("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            wrong.push(Cause::invalid(
                at("message"),
                shown(message),
                "must be non-empty if specified",
            ));
        } else if breaks(message.trim()) {
            wrong.push(Cause::invalid(
                at("message"),
                shown(message),
                "must not contain line breaks",
            ));
        } else if breaks(source) && message.trim().is_empty() {
            wrong.push(Cause::required(
                at("message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        let expression = text(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let says = "messageExpression must be non-empty if specified";
            wrong.push(Cause::required(at("messageExpression"), says));
        }
        if let Some(reason) = rule
            .get("reason")
            .filter(|r| !r.is_null() && !REASONS.iter().any(|known| r == known))
        {
            wrong.push(Cause::not_supported(at("reason"), reason, &REASONS));
        }
        let field = text(rule, "fieldPath");
        if !field.is_empty() {
            if field.trim().is_empty() {
                wrong.push(Cause::invalid(
                    at("fieldPath"),
                    shown(field),
                    "must be non-empty if specified",
                ));
            }
            if breaks(field) {
                wrong.push(Cause::invalid(
                    at("fieldPath"),
                    shown(field),
                    "must not contain line breaks",
                ));
            }
            if field_path(schema, field, true).is_err() {
                wrong.push(Cause::invalid(at("fieldPath"), shown(field), "must be a valid path"));
            }
        }
    }
}

/// The rule as upstream's complaints print it.
fn shown(rule: &Value) -> String {
    let quoted = |key: &str| {
        let text = Value::from(text(rule, key)).to_string();
        text.replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    };
    let or_null = |key: &str| rule.get(key).unwrap_or(&Value::Null).to_string();
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        quoted("rule"),
        quoted("message"),
        quoted("messageExpression"),
        or_null("reason"),
        quoted("fieldPath"),
        or_null("optionalOldSelf")
    )
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

/// Follows `.a['b'].c` through a schema: the path as complaints spell it, and the schema it leads to.
///
/// # Errors
/// Why it leads nowhere.
pub fn field_path<'s>(schema: &'s Value, path: &str, brackets: bool) -> Result<(String, &'s Value), String> {
    let nowhere = || "does not refer to a valid field".to_owned();
    let mut at = schema;
    let mut out = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        let name;
        if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() {
                return Err("unexpected end of JSON path".into());
            }
            let end = after.find(['.', '[', ']']).unwrap_or(after.len()).max(1);
            name = after[..end].to_owned();
            rest = &after[end..];
        } else if let Some(after) = rest.strip_prefix('[') {
            if !brackets {
                return Err("array notation is not allowed".into());
            }
            let (quoted, after) = quoted(after)?;
            name = quoted;
            rest = after.strip_prefix(']').ok_or("unexpected end of JSON path")?;
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end.max(1)]));
        }
        let empty = Map::new();
        let properties = at.get("properties").and_then(Value::as_object);
        if let Some(properties) = properties.filter(|properties| **properties != empty) {
            at = properties.get(&name).ok_or_else(nowhere)?;
            if !out.is_empty() {
                out.push('.');
            }
            out.push_str(&name);
        } else {
            at = sub(at, "additionalProperties").ok_or_else(nowhere)?;
            out.push_str(&format!("[{name}]"));
        }
    }
    Ok((out, at))
}

/// `'…'` with backslashes, and what follows it.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let inner = text
        .strip_prefix('\'')
        .ok_or_else(|| format!("expected single quoted string but got {text}"))?;
    let mut name = String::new();
    let mut letters = inner.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\'' => return Ok((name, &inner[at + 1..])),
            '\\' => match letters.next() {
                Some((_, 'n')) => name.push('\n'),
                Some((_, 't')) => name.push('\t'),
                Some((_, 'r')) => name.push('\r'),
                Some((_, letter @ ('\'' | '\\'))) => name.push(letter),
                Some((_, other)) => return Err(format!("invalid string literal: invalid escape char \\{other}")),
                None => break,
            },
            letter => name.push(letter),
        }
    }
    Err("unexpected end of JSON path".into())
}
