//! `bindings`, posted beside the pod they bind (Kubernetes' first years; schedulers post to the pod's own).

use axum::body::Body;
use axum::response::Response;
use client::{Action, Target, Write, Written};
use http::request;
use model::{Failure, Gvk, Gvr, Kind, Scope, Verb};
use serde::Deserialize;

use crate::body::Text;
use crate::verbs::Doing;
use crate::{body, negotiate, options, respond};

pub(super) fn kind() -> Kind {
    Kind {
        gvk: Gvk::new("", "v1", "Binding"),
        plural: "bindings".into(),
        singular: "binding".into(),
        scope: Scope::Namespaced,
        short_names: Vec::new(),
        categories: Vec::new(),
        verbs: vec![Verb::Create],
        subresources: Vec::new(),
        stored: None,
    }
}

/// The document names the pod, whose own door then does the rest, and asks again who may.
pub(super) async fn answer(doing: &Doing<'_>, parts: &request::Parts, body: Body) -> Result<Response, Failure> {
    #[derive(Deserialize)]
    struct Binding {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        name: String,
    }
    let accepted = doing.accepted(parts)?;
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
