//! The URLs of a kind with the operations they answer to, named and described as kube-apiserver does.

use model::{Gvk, Kind, Subresource, Verb};
use schema::Table;
use serde_json::{Value, json};

use super::Dialect;
use super::definitions::{gvk, name_of};

/// Query parameters by operation: what `kubectl` looks for to learn what the server can do.
const WRITE: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const DELETE: [&str; 5] = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
const SELECT: [&str; 8] = [
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];
const WATCH: [&str; 2] = ["allowWatchBookmarks", "watch"];

const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// Collection, objects, and what is below an object.
pub(super) fn of(kind: &Kind, dialect: Dialect) -> Vec<(String, Value)> {
    let place = if kind.namespaced() {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let root = root(&kind.gvk);
    let collection = format!("{root}{place}/{}", kind.plural);
    let one = format!("{collection}/{{name}}");
    let of = Of {
        kind,
        dialect,
        built_in: Table::builtin().schema(&kind.gvk).is_some(),
    };
    let mut paths = Vec::new();
    let mut add = |path: String, named: bool, operations: Vec<(&str, Value)>| {
        if operations.is_empty() {
            return;
        }
        let mut item = json!({"parameters": of.in_path(&path, named)});
        for (method, operation) in operations {
            item[method] = operation;
        }
        paths.push((path, item));
    };
    let with = |verbs: &[Verb]| -> Vec<(&str, Value)> {
        let served = verbs.iter().filter(|verb| kind.verbs.contains(verb));
        served.map(|verb| of.operation(*verb, None, "Namespaced")).collect()
    };
    if kind.namespaced() && kind.verbs.contains(&Verb::List) {
        let everywhere = of.operation(Verb::List, None, "ForAllNamespaces");
        add(format!("{root}/{}", kind.plural), false, vec![everywhere]);
    }
    add(
        collection,
        false,
        with(&[Verb::List, Verb::Create, Verb::DeleteCollection]),
    );
    add(
        one.clone(),
        true,
        with(&[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete]),
    );
    for sub in &kind.subresources {
        let operations = sub
            .verbs
            .iter()
            .map(|verb| of.operation(*verb, Some(sub), "Namespaced"));
        add(format!("{one}/{}", sub.name), true, operations.collect());
    }
    paths
}

fn root(gvk: &Gvk) -> String {
    match gvk.group.as_str() {
        "" => format!("/api/{}", gvk.version),
        group => format!("/apis/{group}/{}", gvk.version),
    }
}

struct Of<'a> {
    kind: &'a Kind,
    dialect: Dialect,
    built_in: bool,
}

impl Of<'_> {
    fn in_path(&self, path: &str, named: bool) -> Vec<Value> {
        let mut all = Vec::new();
        if named {
            let says = format!("name of the {}", self.kind.gvk.kind);
            all.push(parameter("name", "path", "string", &says, self.dialect));
        }
        if path.contains("{namespace}") {
            let says = "object name and auth scope, such as for teams and projects";
            all.push(parameter("namespace", "path", "string", says, self.dialect));
        }
        let says = "If 'true', then the output is pretty printed.";
        all.push(parameter("pretty", "query", "string", says, self.dialect));
        all
    }

    /// One method of a path. `scope` is how the operation's id tells where it works.
    fn operation(&self, verb: Verb, sub: Option<&Subresource>, scope: &str) -> (&'static str, Value) {
        let kind = &self.kind.gvk;
        let connects = sub.is_some_and(|s| s.kind.as_ref().is_some_and(|k| k.kind.ends_with("Options")));
        let (method, action, word) = match verb {
            Verb::List | Verb::Watch => ("get", "list", "list"),
            Verb::Create => ("post", "post", "create"),
            Verb::DeleteCollection => ("delete", "deletecollection", "delete"),
            Verb::Get => ("get", "get", "read"),
            Verb::Update => ("put", "put", "replace"),
            Verb::Patch => ("patch", "patch", "patch"),
            Verb::Delete => ("delete", "delete", "delete"),
        };
        let (action, word) = if connects {
            ("connect", "connect")
        } else {
            (action, word)
        };
        let mut parameters = Vec::new();
        let mut query = |names: &[&str]| {
            parameters.extend(names.iter().map(|name| in_query(name, self.dialect)));
        };
        match action {
            "list" => {
                query(&SELECT);
                query(&WATCH);
            }
            "deletecollection" => {
                query(&DELETE);
                query(&SELECT);
            }
            "delete" => query(&DELETE),
            "post" | "put" => query(&WRITE),
            "patch" => {
                query(&WRITE);
                query(&["force"]);
            }
            _ => {}
        }
        let shown = sub.and_then(|s| s.kind.as_ref()).unwrap_or(kind);
        let name = name_of(shown);
        let answer = match action {
            "list" => name_of(&Gvk {
                kind: self.kind.list_kind().into(),
                ..kind.clone()
            }),
            "delete" | "deletecollection" => STATUS.to_owned(),
            _ => name.clone(),
        };
        let body = match action {
            "post" | "put" => Some(name),
            "delete" | "deletecollection" => Some(DELETE_OPTIONS.to_owned()),
            _ => None,
        };
        let id = format!(
            "{word}{}{}{}{}{}{}{}",
            if connects { capital(method) } else { String::new() },
            group_words(&kind.group),
            capital(&kind.version),
            if verb == Verb::DeleteCollection {
                "Collection"
            } else {
                ""
            },
            if self.kind.namespaced() && scope == "Namespaced" {
                scope
            } else {
                ""
            },
            kind.kind,
            match sub {
                Some(sub) => capital(&sub.name),
                None if scope == "Namespaced" => String::new(),
                None => scope.to_owned(),
            },
        );
        let mut operation = json!({
            "description": self.says(action, sub),
            "tags": [tag(kind)],
            "operationId": id,
            "responses": self.responses(action, connects, &answer),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(shown),
        });
        if let Some(name) = &body {
            self.put_body(
                &mut operation,
                &mut parameters,
                name,
                action != "delete" && action != "deletecollection",
            );
        }
        if action == "patch" {
            self.put_patch(&mut operation, &mut parameters);
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if self.dialect == Dialect::V2 {
            operation["schemes"] = json!(["https"]);
            operation["produces"] = json!(self.media());
            if operation["consumes"].is_null() {
                operation["consumes"] = json!(["*/*"]);
            }
        }
        (method, operation)
    }

    fn says(&self, action: &str, sub: Option<&Subresource>) -> String {
        let kind = &self.kind.gvk.kind;
        let part = sub.map(|s| format!("{} of ", s.name)).unwrap_or_default();
        match action {
            "list" => format!("list or watch objects of kind {kind}"),
            "post" => format!("create {part}a {kind}"),
            "deletecollection" => format!("delete collection of {kind}"),
            "get" => format!("read {part}the specified {kind}"),
            "put" => format!("replace {part}the specified {kind}"),
            "patch" => format!("partially update {part}the specified {kind}"),
            "delete" => format!("delete a {kind}"),
            _ => format!("connect requests to {part}{kind}"),
        }
    }

    fn media(&self) -> Vec<&'static str> {
        let mut all = vec!["application/json", "application/yaml"];
        if self.built_in {
            all.push(crate::protobuf::MEDIA);
        }
        all
    }

    fn reference(&self, name: &str) -> Value {
        match self.dialect {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{name}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{name}")}),
        }
    }

    fn responses(&self, action: &str, connects: bool, answer: &str) -> Value {
        let of = |says: &str| match self.dialect {
            _ if connects => json!({"description": says}),
            Dialect::V2 => json!({"description": says, "schema": self.reference(answer)}),
            Dialect::V3 => {
                let mut content = json!({});
                for media in self.media() {
                    content[media] = json!({"schema": self.reference(answer)});
                    if action == "list" && media != "application/yaml" {
                        content[format!("{media};stream=watch")] = json!({"schema": self.reference(answer)});
                    }
                }
                json!({"description": says, "content": content})
            }
        };
        let mut all = json!({"200": of("OK"), "401": {"description": "Unauthorized"}});
        if matches!(action, "post" | "put" | "patch") {
            all["201"] = of("Created");
        }
        if matches!(action, "post" | "delete") {
            all["202"] = of("Accepted");
        }
        all
    }

    fn put_body(&self, operation: &mut Value, parameters: &mut Vec<Value>, name: &str, required: bool) {
        match self.dialect {
            Dialect::V2 => {
                let mut body = json!({"name": "body", "in": "body", "schema": self.reference(name)});
                if required {
                    body["required"] = true.into();
                }
                parameters.insert(0, body);
            }
            Dialect::V3 => {
                operation["requestBody"] = json!({"content": {"*/*": {"schema": self.reference(name)}}});
                if required {
                    operation["requestBody"]["required"] = true.into();
                }
            }
        }
    }

    fn put_patch(&self, operation: &mut Value, parameters: &mut Vec<Value>) {
        let kinds = if self.built_in { &PATCHES[..] } else { &PATCHES[..3] };
        let any = json!({"type": "object"});
        match self.dialect {
            Dialect::V2 => {
                parameters.insert(
                    0,
                    json!({"name": "body", "in": "body", "required": true, "schema": any}),
                );
                operation["consumes"] = json!(kinds);
            }
            Dialect::V3 => {
                let content = kinds.iter().map(|kind| ((*kind).to_owned(), json!({"schema": any})));
                operation["requestBody"] =
                    json!({"required": true, "content": content.collect::<serde_json::Map<_, _>>()});
            }
        }
    }
}

fn in_query(name: &str, dialect: Dialect) -> Value {
    let kind = match name {
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        "allowWatchBookmarks" | "watch" | "sendInitialEvents" | "force" | "orphanDependents" => "boolean",
        "ignoreStoreReadErrorWithClusterBreakingPotential" => "boolean",
        _ => "string",
    };
    parameter(name, "query", kind, "", dialect)
}

fn parameter(name: &str, place: &str, kind: &str, says: &str, dialect: Dialect) -> Value {
    let mut one = json!({"name": name, "in": place});
    if !says.is_empty() {
        one["description"] = says.into();
    }
    if place == "path" {
        one["required"] = true.into();
    }
    match dialect {
        Dialect::V2 => {
            one["type"] = kind.into();
            one["uniqueItems"] = true.into();
        }
        Dialect::V3 => one["schema"] = json!({"type": kind, "uniqueItems": true}),
    }
    one
}

/// `apps_v1`, `core_v1`: how generated clients group operations.
fn tag(gvk: &Gvk) -> String {
    format!("{}_{}", group_words(&gvk.group).to_lowercase(), gvk.version)
}

/// `RbacAuthorization` for `rbac.authorization.k8s.io`, `Core` for the core group.
fn group_words(group: &str) -> String {
    match group {
        "" => "Core".into(),
        group => {
            let short = group.strip_suffix(".k8s.io").unwrap_or(group);
            short.split(['.', '-']).map(capital).collect()
        }
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters
        .next()
        .map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Scope;

    #[test]
    fn operations_are_named_as_upstream_names_them() {
        let kind = Kind {
            gvk: Gvk::new("apps", "v1", "Deployment"),
            plural: "deployments".into(),
            singular: "deployment".into(),
            scope: Scope::Namespaced,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: Verb::ALL.to_vec(),
            stored: None,
            subresources: vec![Subresource {
                name: "scale".into(),
                kind: Some(Gvk::new("autoscaling", "v1", "Scale")),
                verbs: vec![Verb::Get, Verb::Patch, Verb::Update],
            }],
        };
        let mut ids = Vec::new();
        for (_, item) in of(&kind, Dialect::V3) {
            let operations = item.as_object().unwrap().values();
            ids.extend(operations.filter_map(|o| o["operationId"].as_str().map(String::from)));
        }
        ids.sort();
        assert_eq!(
            ids,
            [
                "createAppsV1NamespacedDeployment",
                "deleteAppsV1CollectionNamespacedDeployment",
                "deleteAppsV1NamespacedDeployment",
                "listAppsV1DeploymentForAllNamespaces",
                "listAppsV1NamespacedDeployment",
                "patchAppsV1NamespacedDeployment",
                "patchAppsV1NamespacedDeploymentScale",
                "readAppsV1NamespacedDeployment",
                "readAppsV1NamespacedDeploymentScale",
                "replaceAppsV1NamespacedDeployment",
                "replaceAppsV1NamespacedDeploymentScale",
            ]
        );
    }
}
