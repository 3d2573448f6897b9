//! One walk over a schema: its keywords, and its rules with what they may cost where they stand.

use std::sync::Arc;

use cel::Shape;
use model::{Cause, CauseReason};
use serde_json::{Value, json};

use super::extensions::extensions;
use super::rule::{rule_texts, shown, too_dear};
use super::{RULE_LIMIT, SCHEMA_LIMIT, TYPES, is, is_zero, list, members, sub, text};
use crate::laws::Law;
use crate::shape;

/// What is wrong with keywords and rules. What rules cost is told only of a schema that is `sound` so far; one that is
/// `unchanged` may go on being dear.
pub(super) fn walk(schema: &Value, path: &str, unchanged: bool, sound: bool, causes: &mut Vec<Cause>) {
    let mut walk = Walk {
        unchanged,
        total: 0,
        dearest: Vec::new(),
    };
    let place = Place {
        defaults: None,
        in_meta: false,
        uncorrelated: None,
        count: sound.then_some(Some(1)),
    };
    let (wrong, cel) = walk.node(schema, path, place, true);
    causes.extend(wrong.into_iter().chain(cel));
    if walk.total > SCHEMA_LIMIT {
        for (path, _) in walk.dearest {
            let says = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            causes.push(Cause::forbidden(path, says));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        causes.push(Cause::forbidden(path, &too_dear(what, walk.total, SCHEMA_LIMIT)));
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
