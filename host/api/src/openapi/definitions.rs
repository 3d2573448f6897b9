//! Types as OpenAPI schemas: a definition per struct, a reference wherever one is used.

use std::collections::BTreeMap;

use model::{Gvk, Kind};
use schema::{Relation, Scalar, Schema, Table, Type};
use serde_json::{Map, Value, json};

use super::prose::Prose;
use super::{Dialect, structural};

pub(super) struct Definitions {
    dialect: Dialect,
    prose: Prose,
    done: BTreeMap<String, Value>,
}

const GVK: &str = "x-kubernetes-group-version-kind";

impl Definitions {
    pub(super) fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            prose: Prose::read(),
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
        self.add_below(kind);
        self.add_shared();
    }

    /// A custom kind and its list: the schema as the CRD gives it, with the fields that every object has.
    pub(super) fn add_custom(&mut self, kind: &Kind, schema: Option<Value>) {
        let own = self.own(&Gvk::new("", "v1", "ConfigMap"), "io.k8s.api.core.v1.ConfigMap");
        let name = custom_name(&kind.gvk);
        let mut schema = structural::published(schema, &own, self.dialect);
        schema[GVK] = json!([gvk(&kind.gvk)]);
        self.done.insert(name.clone(), schema);
        let list = Gvk {
            kind: kind.list_kind().into(),
            ..kind.gvk.clone()
        };
        // Lists have no words of their own; a Status has the same metadata.
        let mut properties = self.own(
            &Gvk::new("", "v1", "ConfigMapList"),
            "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
        );
        let items = json!({"type": "array", "items": self.reference(&name), "description": format!("List of {}.", kind.plural)});
        properties.insert("items".into(), items);
        let schema = json!({"type": "object", "required": ["items"], "properties": properties, GVK: [gvk(&list)],
            "description": format!("{} is a list of {}", list.kind, kind.gvk.kind)});
        self.done.insert(custom_name(&list), schema);
        self.add_below(kind);
        self.add_shared();
    }

    /// The properties that every object has, of the shapes they have in `like` and in the words used of `told`.
    fn own(&mut self, like: &Gvk, told: &str) -> Map<String, Value> {
        let Some(like) = Table::builtin().schema(like) else {
            return Map::new();
        };
        let mut own = Map::new();
        for name in ["apiVersion", "kind", "metadata"] {
            let Some(of) = like.root().under(name) else { continue };
            let mut property = self.shape(of);
            if let Some(says) = self.prose.of_field(told, name) {
                property["description"] = says.into();
            }
            own.insert(name.into(), property);
        }
        own
    }

    /// What subresources show that is not the object itself.
    fn add_below(&mut self, kind: &Kind) {
        for gvk in kind.subresources.iter().filter_map(|sub| sub.kind.as_ref()) {
            if let Some(schema) = Table::builtin().schema(gvk) {
                self.add(schema.root());
                self.mark(schema.root(), gvk);
            }
        }
    }

    /// What operations of every kind speak of: answers to deletes, and the options of one.
    fn add_shared(&mut self) {
        for kind in ["Status", "DeleteOptions"] {
            if let Some(schema) = Table::builtin().schema(&Gvk::new("", "v1", kind)) {
                self.add(schema.root());
            }
        }
    }

    /// A type that is written as a scalar and has a name of its own.
    fn named(&mut self, name: &str, mut definition: Value) -> Value {
        if let Some(says) = self.prose.of(name) {
            definition["description"] = says.into();
        }
        self.done.entry(name.to_owned()).or_insert(definition);
        self.reference(name)
    }

    fn reference(&self, name: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            // Beside a bare `$ref` nothing else may stand, and members carry defaults and strategies.
            Dialect::V3 => json!({"allOf": [{"$ref": format!("#/components/schemas/{name}")}]}),
        }
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
        if let Some(says) = self.prose.of(&name) {
            definition["description"] = says.into();
        }
        let mut properties = Map::new();
        let mut required = Vec::new();
        for member in of.members() {
            let mut property = self.shape(member.of());
            let says = self.prose.of_field(&name, member.name()).unwrap_or_default();
            let says = format!("{says}{}", possible(member.of()));
            if !says.is_empty() {
                property["description"] = says.trim_start().into();
            }
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
            let always_written = !member.omits_empty() && !member.is_pointer();
            if self.prose.requires(&name, member.name()).unwrap_or(always_written) {
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
            let mut text = self.scalar(scalar);
            let choices: Vec<String> = of.choices().collect();
            if !choices.is_empty() {
                text["enum"] = choices.into();
            }
            return text;
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
        self.reference(&full_name(name))
    }

    fn scalar(&mut self, scalar: Scalar) -> Value {
        let v3 = self.dialect == Dialect::V3;
        match scalar {
            Scalar::Text | Scalar::Duration => json!({"type": "string"}),
            Scalar::Flag => json!({"type": "boolean"}),
            Scalar::Real => json!({"type": "number", "format": "double"}),
            Scalar::Whole => json!({"type": "integer", "format": "int64"}),
            Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
            Scalar::Bytes => json!({"type": "string", "format": "byte"}),
            Scalar::Quantity => {
                let any = json!({"oneOf": [{"type": "string"}, {"type": "number"}]});
                let definition = if v3 { any } else { json!({"type": "string"}) };
                self.named("io.k8s.apimachinery.pkg.api.resource.Quantity", definition)
            }
            Scalar::IntOrString => {
                let any = json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]});
                let text = json!({"type": "string", "format": "int-or-string"});
                self.named(
                    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
                    if v3 { any } else { text },
                )
            }
            Scalar::Time | Scalar::MicroTime => {
                let name = if scalar == Scalar::Time { "Time" } else { "MicroTime" };
                let definition = json!({"type": "string", "format": "date-time"});
                self.named(&format!("io.k8s.apimachinery.pkg.apis.meta.v1.{name}"), definition)
            }
        }
    }
}

/// What kube-apiserver adds to the words on a field with an enumerated type; it also says of most values what they mean.
fn possible(of: Type<'_>) -> String {
    let mut lines: Vec<String> = of.choices().map(|choice| format!("\n - `{choice:?}`")).collect();
    if of.scalar().is_none() || lines.is_empty() {
        return String::new();
    }
    lines.sort_unstable();
    format!("\n\nPossible enum values:{}", lines.concat())
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
        "metrics" => "io.k8s.metrics.pkg.apis",
        _ => "io.k8s.api",
    };
    format!("{home}.{dotted}.{kind}")
}

/// `stable.example.com/v1 CronTab` as `com.example.stable.v1.CronTab`.
fn custom_name(of: &Gvk) -> String {
    let group: Vec<&str> = of.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), of.version, of.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_with_few_values_name_them() {
        let mut definitions = Definitions::new(Dialect::V3);
        for kind in ["Pod", "PersistentVolume"] {
            let schema = Table::builtin().schema(&Gvk::new("", "v1", kind)).unwrap();
            definitions.add(schema.root());
        }
        let all = definitions.finish();
        let field = |of: &str, field: &str| all[&format!("io.k8s.api.core.v1.{of}")]["properties"][field].clone();
        let says = |property: &Value| property["description"].as_str().unwrap_or_default().to_owned();
        let policy = field("Container", "imagePullPolicy");
        assert_eq!(policy["enum"], json!(["Always", "IfNotPresent", "Never"]));
        let words = says(&policy);
        assert!(words.starts_with("Image pull policy. One of "), "{words}");
        let values = "\n\nPossible enum values:\n - `\"Always\"`\n - `\"IfNotPresent\"`\n - `\"Never\"`";
        assert!(words.ends_with(values), "{words}");
        // Of a list the items are enumerated, and not the field.
        let modes = field("PersistentVolumeSpec", "accessModes");
        assert!(modes["items"]["enum"].is_array(), "{modes}");
        assert!(!says(&modes).contains("Possible enum values"), "{modes}");
        assert!(!says(&field("Container", "image")).contains("Possible"));
    }
}
