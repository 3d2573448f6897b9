//! Kinds of Kubernetes' first years that nobody stores: `bindings`, posted beside the pod they bind, and
//! `componentstatuses`, which say how the parts of the control plane are.

use std::sync::Arc;

use auth::{Ask, What, users};
use axum::body::Body;
use axum::response::Response;
use client::{Action, Collection, List, ListOptions, Target, Write, Written};
use http::{Method, request};
use model::{Failure, GroupResource, Gvk, Gvr, Kind, Object, ObjectKey, Scope, Verb};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::body::Text;
use crate::tables::Printer;
use crate::verbs::Doing;
use crate::{App, body, negotiate, options, respond};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Legacy {
    Bindings,
    ComponentStatuses,
}

/// The kinds as discovery shows them.
pub(crate) fn kinds() -> [Arc<Kind>; 2] {
    let kind = |kind: &str, plural: &str, scope, short: &[&str], verbs: &[Verb]| {
        Arc::new(Kind {
            gvk: Gvk::new("", "v1", kind),
            plural: plural.into(),
            singular: kind.to_lowercase().into(),
            scope,
            short_names: short.iter().map(|&name| name.into()).collect(),
            categories: Vec::new(),
            verbs: verbs.to_vec(),
            subresources: Vec::new(),
            stored: None,
        })
    };
    [
        kind("Binding", "bindings", Scope::Namespaced, &[], &[Verb::Create]),
        kind(
            "ComponentStatus",
            "componentstatuses",
            Scope::Cluster,
            &["cs"],
            &[Verb::Get, Verb::List],
        ),
    ]
}

pub(crate) fn of(gvr: &Gvr) -> Option<Legacy> {
    match (gvr.group.as_str(), gvr.version.as_str(), gvr.resource.as_str()) {
        ("", "v1", "bindings") => Some(Legacy::Bindings),
        ("", "v1", "componentstatuses") => Some(Legacy::ComponentStatuses),
        _ => None,
    }
}

/// The columns of a kind: its own, or what the registry knows of it.
pub(crate) fn printer(app: &App, of: &Gvr) -> Arc<dyn Printer> {
    match self::of(of) {
        Some(Legacy::ComponentStatuses) => Arc::new(Health),
        Some(Legacy::Bindings) | None => app.tables.printer(of),
    }
}

/// # Errors
/// `Forbidden` if the caller may not ask, `MethodNotAllowed`, and those of the binding itself.
pub(crate) async fn answer(
    doing: &Doing<'_>,
    legacy: Legacy,
    parts: &request::Parts,
    body: Body,
) -> Result<Response, Failure> {
    let at = doing.at;
    let verb = match (legacy, &parts.method, at.name.is_empty()) {
        (Legacy::Bindings, &Method::POST, true) if !at.namespace.is_empty() => "create",
        (Legacy::ComponentStatuses, &Method::GET, true) if !at.watch && !doing.query.flag("watch") => "list",
        (Legacy::ComponentStatuses, &Method::GET, false) if at.subresource.is_empty() => "get",
        _ => {
            return Err(Failure::MethodNotAllowed {
                verb: parts.method.as_str().into(),
                resource: at.gvr.group_resource(),
            });
        }
    };
    let what = What::Resource {
        group: &at.gvr.group,
        resource: &at.gvr.resource,
        subresource: "",
        namespace: &at.namespace,
        name: &at.name,
    };
    let user = doing.asked.caller.user();
    doing.app.rbac.check(&Ask { user, verb, what })?;
    match legacy {
        Legacy::Bindings => bind(doing, parts, body).await,
        Legacy::ComponentStatuses => components(doing, parts).await,
    }
}

/// The document names the pod, whose own door then does the rest, and asks again who may.
async fn bind(doing: &Doing<'_>, parts: &request::Parts, body: Body) -> Result<Response, Failure> {
    #[derive(Deserialize)]
    struct Binding {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        name: String,
    }
    let accepted = negotiate::accepted(&parts.headers, true)?;
    let options = options::write(&doing.query, "CreateOptions")?;
    let encoding = negotiate::body_encoding(&parts.headers)?;
    let Text { json, .. } = body::json(body::read(body).await?, encoding)?;
    let Binding { metadata } = serde_json::from_slice(&json)
        .map_err(|error| Failure::BadRequest(format!("a Binding's metadata.name names the pod to bind: {error}")))?;
    if metadata.name.is_empty() {
        return Err(Failure::BadRequest("Name parameter required.".into()));
    }
    let pods = Gvr::new("", "v1", "pods");
    let write = Write {
        target: Target::new(pods, &doing.at.namespace, &metadata.name).subresource("binding"),
        action: Action::Create(json),
        options,
    };
    let Written { outcome, warnings } = doing.app.cluster.write(&doing.asked.caller, write).await?;
    let mut response = doing.written(outcome, accepted).await?;
    respond::warn(&mut response, &warnings);
    Ok(response)
}

async fn components(doing: &Doing<'_>, parts: &request::Parts) -> Result<Response, Failure> {
    let accepted = negotiate::accepted(&parts.headers, true)?;
    let store = store_answers(doing.app).await;
    // Scheduler and controllers live and die with the process that answers here.
    let all = [("controller-manager", Ok(())), ("scheduler", Ok(())), ("etcd-0", store)];
    let mut items = Vec::new();
    for (name, health) in all {
        if doing.at.name.is_empty() || doing.at.name == name {
            items.push(Arc::new(component(name, health)?));
        }
    }
    let mut response = if doing.at.name.is_empty() {
        let list = List {
            version: Default::default(),
            items,
            continue_token: String::new(),
            remaining: None,
        };
        respond::list(doing.app, doing.kind, list, accepted, &doing.query).await?
    } else {
        let object = items.first().ok_or_else(|| Failure::NotFound(key(&doing.at.name)))?;
        respond::object(doing.app, doing.kind, object, accepted, &doing.query)?
    };
    respond::warn(&mut response, &["v1 ComponentStatus is deprecated in v1.19+".into()]);
    Ok(response)
}

/// A read that no cache may answer.
async fn store_answers(app: &App) -> Result<(), String> {
    let options = ListOptions {
        limit: 1,
        ..ListOptions::default()
    };
    let namespaces = Collection::all(Gvr::new("", "v1", "namespaces"));
    let answered = app.cluster.list(&users::api_server(), &namespaces, &options).await;
    answered.map(|_| ()).map_err(|failure| failure.to_string())
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new(GroupResource::new("", "componentstatuses"), "", name)
}

fn component(name: &str, health: Result<(), String>) -> Result<Object, Failure> {
    let condition = match health {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(why) => json!({"type": "Healthy", "status": "False", "message": why}),
    };
    let document = json!({"kind": "ComponentStatus", "apiVersion": "v1",
        "metadata": {"name": name, "creationTimestamp": null}, "conditions": [condition]});
    Object::from_value(Arc::new(Gvk::new("", "v1", "ComponentStatus")), key(name), &document)
}

struct Health;

impl Printer for Health {
    fn definitions(&self) -> Vec<Value> {
        let column = |name: &str, format: &str| json!({"name": name, "type": "string", "format": format, "description": "", "priority": 0});
        vec![
            column("Name", "name"),
            column("Status", ""),
            column("Message", ""),
            column("Error", ""),
        ]
    }

    fn row(&self, object: &Object) -> Vec<Value> {
        let document = object.value();
        let condition = &document["conditions"][0];
        let (status, error) = match condition["status"].as_str() {
            Some("True") => ("Healthy", ""),
            _ => ("Unhealthy", condition["error"].as_str().unwrap_or_default()),
        };
        vec![
            object.key.name.as_str().into(),
            status.into(),
            condition["message"].clone(),
            error.into(),
        ]
    }
}
