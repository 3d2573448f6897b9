//! A custom resource definition's `openAPIV3Schema`, compiled to the form the built-in kinds have.

use std::borrow::Cow;
use std::sync::Arc;

use ahash::AHashMap;
use model::{Cause, Failure, Gvk};
use serde_json::{Map, Value};

use crate::form::{AS_SENT, Field, Form, List, Node, OMIT_EMPTY, POINTER, Relation, Scalar, Span, Struct};
use crate::laws;
use crate::rules::{Checks, Judge, Junction, Pattern, Rules, scalar_of};
use crate::structural;
use crate::{Schema, Table};

/// Deeper schemas than this are refused rather than walked.
const DEEPEST: usize = 100;

impl Schema {
    /// From a structural schema (KEP-1693 of apiextensions: every node has a type, `x-kubernetes-*` say the rest).
    ///
    /// `apiVersion`, `kind` and `metadata` are those of every object, whatever the schema says of them.
    ///
    /// # Errors
    /// [`Failure::Invalid`] with the place in the schema, for what cannot be compiled: an unknown type, a pattern that is
    /// no regular expression, a map list without keys.
    pub fn from_crd(schema: &Value, gvk: Gvk) -> Result<Schema, Failure> {
        match compile(schema, true) {
            Ok((form, root)) => Ok(Schema::new(Arc::new(form), root, gvk)),
            Err(causes) => Err(Failure::Invalid {
                kind: Gvk::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
                name: gvk.kind.to_string(),
                causes,
            }),
        }
    }

    /// A kind of which nothing is known but that it is an object: all is kept.
    pub fn untyped(gvk: Gvk) -> Schema {
        let schema = serde_json::json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        Self::from_crd(&schema, gvk).expect("the schema is a constant")
    }
}

/// The form of a schema and its root node. `root`: it is of a whole object, which has metadata whatever it says.
pub(crate) fn compile(schema: &Value, root: bool) -> Result<(Form, u32), Vec<Cause>> {
    let mut compiler = Compiler::default();
    let node = compiler.node(schema, "openAPIV3Schema", 0, root);
    if !compiler.causes.is_empty() {
        return Err(compiler.causes);
    }
    let mut form = compiler.form;
    form.text = Cow::Owned(compiler.text.into_boxed_str().into_string());
    form.nodes.shrink_to_fit();
    form.fields.shrink_to_fit();
    form.rules.shrink_to_fit();
    laws::mark(&mut form, node);
    Ok((form, node))
}

#[derive(Default)]
struct Compiler {
    form: Form,
    text: String,
    spans: AHashMap<String, Span>,
    /// Nodes of the built-in form that were copied, by their numbers there.
    grafted: AHashMap<u32, u32>,
    causes: Vec<Cause>,
}

impl Compiler {
    fn span(&mut self, text: &str) -> Span {
        if let Some(span) = self.spans.get(text) {
            return *span;
        }
        let span = Span {
            at: self.text.len() as u32,
            length: text.len() as u32,
        };
        self.text.push_str(text);
        self.spans.insert(text.to_owned(), span);
        span
    }

    fn push(&mut self, node: Node, rules: Option<Rules>) -> u32 {
        let id = self.form.nodes.len() as u32;
        self.form.nodes.push(node);
        if let Some(rules) = rules {
            self.form.rules.insert(id, rules);
        }
        id
    }

    fn node(&mut self, schema: &Value, path: &str, depth: usize, root: bool) -> u32 {
        if depth > DEEPEST {
            self.causes
                .push(Cause::forbidden(path, "the schema is nested too deeply"));
            return self.push(Node::Any, None);
        }
        let (mut rules, wrong) = rules(schema);
        self.causes.extend(
            wrong
                .into_iter()
                .map(|(field, says)| Cause::invalid(format!("{path}.{field}"), "\"\"", &says)),
        );
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
        let preserves = flag("x-kubernetes-preserve-unknown-fields");
        let atomic = schema.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic");
        rules.embedded &= !root;
        let resource = root || rules.embedded;
        let id = self.shaped(schema, path, depth, root, rules, preserves, atomic);
        if let Some(laws) = laws::read(schema, resource, |text| {
            structural::field_path(schema, text, true).ok().map(|(path, _)| path)
        }) {
            self.form.laws.insert(id, laws);
        }
        id
    }

    #[allow(clippy::too_many_arguments)]
    fn shaped(
        &mut self,
        schema: &Value,
        path: &str,
        depth: usize,
        root: bool,
        rules: Rules,
        preserves: bool,
        atomic: bool,
    ) -> u32 {
        if rules.int_or_string {
            return self.push(Node::Scalar(Scalar::IntOrString), Some(rules));
        }
        match rules.kind {
            "object" => {
                if let Some(values) = schema
                    .get("additionalProperties")
                    .filter(|v| v.is_object() || v.as_bool() == Some(true))
                {
                    let value = match values {
                        Value::Object(_) => {
                            self.node(values, &format!("{path}.additionalProperties"), depth + 1, false)
                        }
                        _ => self.push(Node::Any, None),
                    };
                    return self.push(Node::Map { value, atomic }, Some(rules));
                }
                let object = root || rules.embedded;
                let shape = self.members(schema, path, depth, object, atomic, preserves);
                self.push(Node::Struct(shape), Some(rules))
            }
            "array" => {
                let item = match schema.get("items") {
                    Some(items) => self.node(items, &format!("{path}.items"), depth + 1, false),
                    None => {
                        self.causes
                            .push(Cause::required(format!("{path}.items"), "must be specified"));
                        self.push(Node::Any, None)
                    }
                };
                let list = self.list(schema, item, path);
                self.push(Node::List(list), Some(rules))
            }
            "" if preserves => self.push(Node::Any, Some(rules)),
            kind => match scalar_of(kind) {
                Some(scalar) => self.push(Node::Scalar(scalar), Some(rules)),
                None => {
                    self.causes.push(Cause::required(
                        format!("{path}.type"),
                        "must not be empty for specified object fields",
                    ));
                    self.push(Node::Any, None)
                }
            },
        }
    }

    fn members(&mut self, schema: &Value, path: &str, depth: usize, object: bool, atomic: bool, open: bool) -> Struct {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        let mut fields = Vec::with_capacity(properties.len() + 3);
        for (name, property) in properties {
            if object && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let node = self.node(property, &format!("{path}.properties[{name}]"), depth + 1, false);
            let default = match property.get("default") {
                Some(default) => self.span(&default.to_string()),
                None => Span::default(),
            };
            fields.push(Field {
                name: self.span(name),
                node,
                number: 0,
                within: [0; 2],
                flags: AS_SENT,
                default,
            });
        }
        if object {
            let text = self.push(Node::Scalar(Scalar::Text), None);
            let (form, id) = Table::builtin()
                .type_form("meta/v1.ObjectMeta")
                .expect("every object has metadata");
            let meta = self.graft(form, id);
            for (name, node) in [("apiVersion", text), ("kind", text), ("metadata", meta)] {
                let flags = OMIT_EMPTY | POINTER;
                fields.push(Field {
                    name: self.span(name),
                    node,
                    number: 0,
                    within: [0; 2],
                    flags,
                    default: Span::default(),
                });
            }
        }
        fields.sort_by(|a, b| self.str(a.name).cmp(self.str(b.name)));
        let first = self.form.fields.len() as u32;
        let count = fields.len() as u32;
        self.form.fields.extend(fields);
        Struct {
            name: Span::default(),
            first,
            count,
            atomic,
            open,
        }
    }

    fn list(&mut self, schema: &Value, item: u32, path: &str) -> List {
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let keys: Vec<&str> = keys.into_iter().flatten().filter_map(Value::as_str).collect();
        let kind = schema
            .get("x-kubernetes-list-type")
            .and_then(Value::as_str)
            .unwrap_or("atomic");
        let relation = match kind {
            "atomic" => Relation::Atomic,
            "set" => Relation::Set,
            "map" if !keys.is_empty() => Relation::Map,
            "map" => {
                let says = "must not be empty if x-kubernetes-list-type is map";
                self.causes
                    .push(Cause::required(format!("{path}.x-kubernetes-list-map-keys"), says));
                Relation::Atomic
            }
            other => {
                let field = format!("{path}.x-kubernetes-list-type");
                self.causes.push(Cause::not_supported(
                    field,
                    format!("\"{other}\""),
                    &["atomic", "map", "set"],
                ));
                Relation::Atomic
            }
        };
        let first_key = self.form.keys.len() as u32;
        for key in &keys {
            let key = self.span(key);
            self.form.keys.push(key);
        }
        List {
            item,
            relation,
            first_key,
            keys: keys.len() as u32,
            merge_key: Span::default(),
            merges: false,
            message: false,
        }
    }

    fn str(&self, span: Span) -> &str {
        &self.text[span.at as usize..(span.at + span.length) as usize]
    }

    /// Copies a built-in type and all below it, so that a form never points into another.
    fn graft(&mut self, from: &Form, id: u32) -> u32 {
        if let Some(copied) = self.grafted.get(&id) {
            return *copied;
        }
        // The number is known before what is below it, so that a type may hold itself.
        let copy = self.push(Node::Any, None);
        self.grafted.insert(id, copy);
        let node = match from.nodes[id as usize] {
            Node::Struct(s) => {
                let mut fields = Vec::new();
                for field in &from.fields[s.first as usize..(s.first + s.count) as usize] {
                    let node = self.graft(from, field.node);
                    let name = self.span(from.str(field.name));
                    let default = if field.default.length > 0 {
                        self.span(from.str(field.default))
                    } else {
                        Span::default()
                    };
                    fields.push(Field {
                        name,
                        node,
                        default,
                        ..*field
                    });
                }
                let first = self.form.fields.len() as u32;
                self.form.fields.extend(fields);
                let name = self.span(from.str(s.name));
                Node::Struct(Struct { name, first, ..s })
            }
            Node::Map { value, atomic } => Node::Map {
                value: self.graft(from, value),
                atomic,
            },
            Node::List(list) => {
                let item = self.graft(from, list.item);
                let first_key = self.form.keys.len() as u32;
                for at in list.first_key..list.first_key + list.keys {
                    let key = self.span(from.str(from.keys[at as usize]));
                    self.form.keys.push(key);
                }
                let merge_key = if list.merge_key.length > 0 {
                    self.span(from.str(list.merge_key))
                } else {
                    Span::default()
                };
                Node::List(List {
                    item,
                    first_key,
                    merge_key,
                    ..list
                })
            }
            Node::Union { .. } => Node::Any,
            node @ (Node::Any | Node::Scalar(_)) => node,
        };
        self.form.nodes[copy as usize] = node;
        copy
    }
}

/// The validations of one node, and what is wrong with them (keyword, complaint).
pub(crate) fn rules(schema: &Value) -> (Rules, Vec<(&'static str, String)>) {
    let mut wrong = Vec::new();
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    let count = |name: &str| schema.get(name).and_then(Value::as_u64);
    let number = |name: &str| schema.get(name).and_then(Value::as_f64);
    let list = |name: &str| schema.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let kind = match schema.get("type").and_then(Value::as_str).unwrap_or_default() {
        "object" => "object",
        "array" => "array",
        "string" => "string",
        "boolean" => "boolean",
        "number" => "number",
        "integer" => "integer",
        "" => "",
        other => {
            wrong.push(("type", format!("there is no type {other:?}")));
            ""
        }
    };
    let pattern = schema
        .get("pattern")
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty());
    if let Some(Err(error)) = pattern.map(cel::pattern::check) {
        let says = format!("must be a valid regular expression, but isn't: {error}");
        wrong.push(("pattern", says));
    }
    let int_or_string = flag("x-kubernetes-int-or-string");
    let mut junctions = Vec::new();
    let kinds = [
        ("anyOf", Junction::AnyOf),
        ("oneOf", Junction::OneOf),
        ("allOf", Junction::AllOf),
    ];
    for (name, junction) in kinds {
        let schemas = list(name);
        // The structural idiom `anyOf: [{type: integer}, {type: string}]` says what int-or-string says.
        if !(schemas.is_empty() || int_or_string && junction == Junction::AnyOf) {
            junctions.push((junction, schemas.iter().map(judge).collect()));
        }
    }
    if let Some(not) = schema.get("not").filter(|not| not.is_object()) {
        junctions.push((Junction::Not, vec![judge(not)]));
    }
    let checks = Checks {
        required: list("required")
            .iter()
            .filter_map(|v| v.as_str().map(str::to_owned))
            .collect(),
        choices: list("enum"),
        minimum: number("minimum").map(|bound| (bound, flag("exclusiveMinimum"))),
        maximum: number("maximum").map(|bound| (bound, flag("exclusiveMaximum"))),
        multiple_of: number("multipleOf"),
        min_length: count("minLength"),
        max_length: count("maxLength"),
        pattern: pattern.map(Pattern::new),
        format: schema
            .get("format")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        min_items: count("minItems"),
        max_items: count("maxItems"),
        min_members: count("minProperties"),
        max_members: count("maxProperties"),
        junctions,
    };
    let checks = checks.any().then(|| Box::new(checks));
    let embedded = flag("x-kubernetes-embedded-resource");
    (
        Rules {
            kind,
            nullable: flag("nullable"),
            int_or_string,
            embedded,
            checks,
        },
        wrong,
    )
}

/// A schema within a junction. Its mistakes are told where the definition is checked.
fn judge(schema: &Value) -> Judge {
    let (rules, _) = rules(schema);
    let inner = |name: &str| {
        schema
            .get(name)
            .filter(|of| of.is_object())
            .map(|of| Box::new(judge(of)))
    };
    let members = schema.get("properties").and_then(Value::as_object);
    Judge {
        rules,
        members: members
            .into_iter()
            .flatten()
            .map(|(name, schema)| (name.clone(), judge(schema)))
            .collect(),
        values: inner("additionalProperties"),
        item: inner("items"),
    }
}

impl Checks {
    fn any(&self) -> bool {
        !(self.required.is_empty() && self.choices.is_empty() && self.format.is_empty() && self.junctions.is_empty())
            || self.minimum.is_some()
            || self.maximum.is_some()
            || self.multiple_of.is_some()
            || self.min_length.is_some()
            || self.max_length.is_some()
            || self.pattern.is_some()
            || self.min_items.is_some()
            || self.max_items.is_some()
            || self.min_members.is_some()
            || self.max_members.is_some()
    }
}
