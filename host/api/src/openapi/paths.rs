//! The URLs of a kind with the operations they answer to.

use model::{Kind, Verb};
use serde_json::{Value, json};

use super::Dialect;
use super::definitions::{gvk, name_of};

/// Query parameters by operation: what `kubectl` looks for to learn what the server can do.
const WRITE: [&str; 4] = ["pretty", "dryRun", "fieldManager", "fieldValidation"];
const DELETE: [&str; 6] = [
    "pretty",
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
const LIST: [&str; 11] = [
    "pretty",
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];

/// Collection, and object.
pub(super) fn of(kind: &Kind, dialect: Dialect) -> Vec<(String, Value)> {
    let root = match kind.gvk.group.as_str() {
        "" => format!("/api/{}", kind.gvk.version),
        group => format!("/apis/{group}/{}", kind.gvk.version),
    };
    let place = if kind.namespaced() {
        "/namespaces/{namespace}"
    } else {
        ""
    };
    let collection = format!("{root}{place}/{}", kind.plural);
    let one = format!("{collection}/{{name}}");
    let mut paths = vec![
        (
            collection,
            operations(
                kind,
                dialect,
                &[Verb::List, Verb::Create, Verb::DeleteCollection],
                false,
            ),
        ),
        (
            one,
            operations(
                kind,
                dialect,
                &[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete],
                true,
            ),
        ),
    ];
    if kind.namespaced() {
        paths.push((
            format!("{root}/{}", kind.plural),
            operations(kind, dialect, &[Verb::List], false),
        ));
    }
    paths.retain(|(_, operations)| operations.as_object().is_some_and(|o| o.len() > 1));
    paths
}

fn operations(kind: &Kind, dialect: Dialect, verbs: &[Verb], named: bool) -> Value {
    let mut parameters = Vec::new();
    if kind.namespaced() {
        parameters.push(in_path("namespace", dialect));
    }
    if named {
        parameters.push(in_path("name", dialect));
    }
    let mut all = json!({"parameters": parameters});
    for verb in verbs.iter().filter(|verb| kind.verbs.contains(verb)) {
        let (method, action, query): (_, _, &[&str]) = match verb {
            Verb::List => ("get", "list", &LIST),
            Verb::Create => ("post", "post", &WRITE),
            Verb::DeleteCollection => ("delete", "deletecollection", &DELETE),
            Verb::Get => ("get", "get", &["pretty"]),
            Verb::Update => ("put", "put", &WRITE),
            Verb::Patch => ("patch", "patch", &WRITE),
            Verb::Delete => ("delete", "delete", &DELETE),
            Verb::Watch => continue,
        };
        let mut parameters: Vec<Value> = query.iter().map(|name| in_query(name, dialect)).collect();
        if *verb == Verb::Patch {
            parameters.push(in_query("force", dialect));
        }
        let name = name_of(&kind.gvk);
        let answer = match dialect {
            Dialect::V2 => {
                json!({"description": "OK", "schema": {"$ref": format!("#/definitions/{name}")}})
            }
            Dialect::V3 => {
                let schema = json!({"$ref": format!("#/components/schemas/{name}")});
                json!({"description": "OK", "content": {"application/json": {"schema": schema}}})
            }
        };
        // Lists have a type of their own only for built-in kinds; what matters to clients is the kind below.
        let answer = if *verb == Verb::List {
            json!({"description": "OK"})
        } else {
            answer
        };
        all[method] = json!({
            "operationId": format!("{action}{}{}{}", camel(&kind.gvk.group), camel(&kind.gvk.version), kind.gvk.kind),
            "parameters": parameters,
            "responses": {"200": answer},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk(&kind.gvk),
        });
    }
    all
}

fn in_path(name: &str, dialect: Dialect) -> Value {
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "path", "required": true, "type": "string"}),
        Dialect::V3 => {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
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
    match dialect {
        Dialect::V2 => json!({"name": name, "in": "query", "type": kind, "uniqueItems": true}),
        Dialect::V3 => {
            json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
        }
    }
}

fn camel(text: &str) -> String {
    let head = text.split('.').next().unwrap_or_default();
    let mut letters = head.chars();
    letters
        .next()
        .map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
