//! `componentstatuses`, which say how the parts of the control plane are (deprecated since 1.19, and still asked for).

use std::sync::Arc;

use auth::users;
use axum::response::Response;
use client::{Collection, ListOptions};
use http::request;
use model::{Failure, GroupResource, Gvk, Gvr, Kind, Object, ObjectKey, Scope, Verb};
use serde_json::{Value, json};

use crate::tables::Printer;
use crate::verbs::Doing;
use crate::{App, respond};

pub(super) fn kind() -> Kind {
    Kind {
        gvk: Gvk::new("", "v1", "ComponentStatus"),
        plural: "componentstatuses".into(),
        singular: "componentstatus".into(),
        scope: Scope::Cluster,
        short_names: vec!["cs".into()],
        categories: Vec::new(),
        verbs: vec![Verb::Get, Verb::List],
        subresources: Vec::new(),
        stored: None,
    }
}

pub(super) async fn answer(doing: &Doing<'_>, parts: &request::Parts) -> Result<Response, Failure> {
    let store = store_answers(doing.app).await;
    // Scheduler and controllers live and die with the process that answers here.
    let all = [("controller-manager", Ok(())), ("scheduler", Ok(())), ("etcd-0", store)];
    let wanted = &doing.at.name;
    let mut response = if wanted.is_empty() {
        let items = all
            .into_iter()
            .map(|(name, health)| component(name, health).map(Arc::new));
        super::list(doing, parts, items.collect::<Result<_, _>>()?).await?
    } else {
        let found = all.into_iter().find(|(name, _)| name == wanted);
        let (name, health) = found.ok_or_else(|| Failure::NotFound(key(wanted)))?;
        super::object(doing, parts, component(name, health)?)?
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

pub(super) struct Columns;

impl Printer for Columns {
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
