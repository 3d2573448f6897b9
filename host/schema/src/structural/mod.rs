//! Whether a definition's schema is one: structural (KEP-1693), with defaults that fit and rules that compile and are not
//! too dear. The complaints are kube-apiserver's.

mod defaults;
mod extensions;
mod invariants;
mod path;
mod rule;
mod walk;

use model::Cause;
use serde_json::Value;

use self::defaults::check_defaults;
use self::invariants::{Level, invariants};
use self::walk::walk;

pub use self::path::field_path;

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
        walk(self.schema, path, self.unchanged, sound, &mut causes);
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
