//! Types as OpenAPI schemas: a definition per struct, a reference wherever one is used.

use std::collections::BTreeMap;

use model::{Gvk, Kind};
use schema::{Relation, Scalar, Schema, Table, Type};
use serde_json::{Map, Value, json};

use super::Dialect;

pub(super) struct Definitions {
    dialect: Dialect,
    done: BTreeMap<String, Value>,
}

const GVK: &str = "x-kubernetes-group-version-kind";

impl Definitions {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            done: BTreeMap::new(),
        }
    }

    /// A built-in kind, its list, and everything they are made of.
    pub(super) fn add_kind(&mut self, schema: &Schema, kind: &Kind) {
        self.add(schema.root());
        self.mark(schema.root(), &kind.gvk);
        let list = Gvk {
            kind: kind.list_kind().into(),
            ..kind.gvk.clone()
        };
        if let Some(schema) = Table::builtin().schema(&list) {
            self.add(schema.root());
            self.mark(schema.root(), &list);
        }
        for gvk in kind.subresources.iter().filter_map(|sub| sub.kind.as_ref()) {
            if let Some(schema) = Table::builtin().schema(gvk) {
                self.add(schema.root());
                self.mark(schema.root(), gvk);
            }
        }
    }

    /// A custom kind: its schema as the CRD gives it, with the fields that every object has.
    pub(super) fn add_custom(&mut self, kind: &Kind, schema: &Value) {
        let mut schema = schema.clone();
        if !schema.is_object() {
            schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        }
        for text in ["apiVersion", "kind"] {
            schema["properties"][text] = json!({"type": "string"});
        }
        let any = Gvk::new("", "v1", "ConfigMap");
        if let Some(meta) = Table::builtin()
            .schema(&any)
            .as_ref()
            .and_then(|s| s.root().under("metadata"))
        {
            schema["properties"]["metadata"] = self.refer(meta);
        }
        schema[GVK] = json!([gvk(&kind.gvk)]);
        if self.dialect == Dialect::V2 {
            // Version 2 has no words for some of what version 3 says; clients then check on the server.
            schema = json!({"type": "object", GVK: schema[GVK]});
        }
        self.done.insert(custom_name(&kind.gvk), schema);
    }

    pub(super) fn finish(self) -> Map<String, Value> {
        self.done.into_iter().collect()
    }

    fn mark(&mut self, root: Type<'_>, of: &Gvk) {
        let Some(definition) = root.name().and_then(|name| self.done.get_mut(&full_name(name))) else {
            return;
        };
        match &mut definition[GVK] {
            Value::Array(list) if !list.contains(&gvk(of)) => list.push(gvk(of)),
            Value::Array(_) => {}
            none => *none = json!([gvk(of)]),
        }
    }

    fn add(&mut self, of: Type<'_>) {
        let Some(name) = of.name().map(full_name) else {
            return;
        };
        if self.done.contains_key(&name) {
            return;
        }
        // In place before its members, which may lead back to it.
        self.done.insert(name.clone(), Value::Null);
        let mut definition = json!({"type": "object"});
        let mut properties = Map::new();
        let mut required = Vec::new();
        for member in of.members() {
            let mut property = self.shape(member.of());
            if let Some(default) = member
                .default_json()
                .and_then(|text| serde_json::from_str::<Value>(text).ok())
            {
                property["default"] = default;
            }
            if let Some(key) = member.of().merge_key() {
                property["x-kubernetes-patch-merge-key"] = key.into();
            }
            if let Some(strategy) = strategy(member.of().merges(), member.retains_keys()) {
                property["x-kubernetes-patch-strategy"] = strategy.into();
            }
            if !member.omits_empty() && !member.is_pointer() {
                required.push(Value::from(member.name()));
            }
            properties.insert(member.name().to_owned(), property);
        }
        if !properties.is_empty() {
            definition["properties"] = properties.into();
        }
        if !required.is_empty() && self.dialect == Dialect::V3 {
            definition["required"] = required.into();
        }
        if of.is_atomic() {
            definition["x-kubernetes-map-type"] = "atomic".into();
        }
        self.done.insert(name, definition);
    }

    fn shape(&mut self, of: Type<'_>) -> Value {
        if let Some(scalar) = of.scalar() {
            return self.scalar(scalar);
        }
        if of.is_struct() {
            return self.refer(of);
        }
        if let Some(values) = of.values() {
            return json!({"type": "object", "additionalProperties": self.shape(values)});
        }
        if let Some(item) = of.item() {
            let mut list = json!({"type": "array", "items": self.shape(item)});
            match of.relation() {
                Some(Relation::Atomic) | None => list["x-kubernetes-list-type"] = "atomic".into(),
                Some(Relation::Set) => list["x-kubernetes-list-type"] = "set".into(),
                Some(Relation::Map) => {
                    list["x-kubernetes-list-type"] = "map".into();
                    list["x-kubernetes-list-map-keys"] = of.keys().collect();
                }
            }
            return list;
        }
        json!({"type": "object"})
    }

    fn refer(&mut self, of: Type<'_>) -> Value {
        let Some(name) = of.name() else {
            return json!({"type": "object"});
        };
        self.add(of);
        let name = full_name(name);
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            // Beside a bare `$ref` nothing else may stand, and members carry defaults and strategies.
            Dialect::V3 => json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}]}),
        }
    }

    fn scalar(&self, scalar: Scalar) -> Value {
        let v3 = self.dialect == Dialect::V3;
        match scalar {
            Scalar::Text | Scalar::Duration => json!({"type": "string"}),
            Scalar::Flag => json!({"type": "boolean"}),
            Scalar::Real => json!({"type": "number", "format": "double"}),
            Scalar::Whole => json!({"type": "integer", "format": "int64"}),
            Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
            Scalar::Bytes => json!({"type": "string", "format": "byte"}),
            Scalar::Quantity if v3 => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            Scalar::Quantity => json!({"type": "string"}),
            Scalar::IntOrString if v3 => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            Scalar::IntOrString => json!({"type": "string", "format": "int-or-string"}),
            Scalar::Time | Scalar::MicroTime => json!({"type": "string", "format": "date-time"}),
        }
    }
}

fn strategy(merges: bool, retains_keys: bool) -> Option<&'static str> {
    match (merges, retains_keys) {
        (true, true) => Some("merge,retainKeys"),
        (true, false) => Some("merge"),
        (false, true) => Some("retainKeys"),
        (false, false) => None,
    }
}

pub(super) fn gvk(of: &Gvk) -> Value {
    json!({"group": of.group, "version": of.version, "kind": of.kind})
}

/// The name Kubernetes gives a built-in kind's definition, or a custom one's.
pub(super) fn name_of(of: &Gvk) -> String {
    let built_in = Table::builtin().schema(of);
    built_in
        .as_ref()
        .and_then(|schema| schema.root().name())
        .map_or_else(|| custom_name(of), full_name)
}

/// `core/v1.Pod` as `io.k8s.api.core.v1.Pod`.
fn full_name(name: &str) -> String {
    let (package, kind) = name.rsplit_once('.').unwrap_or(("", name));
    let dotted = package.replace('/', ".");
    let home = match package.split('/').next().unwrap_or_default() {
        "meta" => "io.k8s.apimachinery.pkg.apis",
        "apiextensions" => "io.k8s.apiextensions-apiserver.pkg.apis",
        "apiregistration" => "io.k8s.kube-aggregator.pkg.apis",
        _ => "io.k8s.api",
    };
    format!("{home}.{dotted}.{kind}")
}

/// `stable.example.com/v1 CronTab` as `com.example.stable.v1.CronTab`.
fn custom_name(of: &Gvk) -> String {
    let group: Vec<&str> = of.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), of.version, of.kind)
}
