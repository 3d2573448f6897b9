//! `SelfSubjectAccessReview`, `TokenReview` and their like: questions posted as objects, answered by `auth`.

use std::sync::Arc;

use auth::review::{self, Review};
use auth::{Ask, What};
use axum::body::Body;
use axum::response::Response;
use http::{Method, StatusCode, request};
use model::{Failure, Gvr, Kind, Scope, Verb};
use serde_json::Value;

use crate::verbs::Doing;
use crate::{body, negotiate, respond};

/// The kinds as discovery shows them.
pub(crate) fn kinds() -> Vec<Arc<Kind>> {
    let kind = |review: Review| {
        let gvk = review.gvk();
        let singular = gvk.kind.to_lowercase();
        Arc::new(Kind {
            plural: format!("{singular}s").into(),
            singular,
            scope: if review.namespaced() {
                Scope::Namespaced
            } else {
                Scope::Cluster
            },
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: vec![Verb::Create],
            subresources: Vec::new(),
            stored: None,
            gvk,
        })
    };
    Review::ALL.into_iter().map(kind).collect()
}

pub(crate) fn of(gvr: &Gvr) -> Option<Review> {
    if !matches!(gvr.group.as_str(), "authorization.k8s.io" | "authentication.k8s.io") {
        return None;
    }
    Review::ALL.into_iter().find(|review| {
        let gvk = review.gvk();
        gvk.group == gvr.group && gvk.version == gvr.version && gvr.resource == format!("{}s", gvk.kind.to_lowercase())
    })
}

/// # Errors
/// `Forbidden` if the caller may not ask, `BadRequest` for a body that is not such a review, and those of [`review::answer`].
pub(crate) async fn answer(
    doing: &Doing<'_>,
    review: Review,
    parts: &request::Parts,
    body: Body,
) -> Result<Response, Failure> {
    let at = doing.at;
    if parts.method != Method::POST || !at.name.is_empty() {
        return Err(Failure::MethodNotAllowed {
            verb: parts.method.as_str().into(),
            resource: at.gvr.group_resource(),
        });
    }
    let user = doing.asked.caller.user();
    let what = What::Resource {
        group: &at.gvr.group,
        resource: &at.gvr.resource,
        subresource: "",
        namespace: &at.namespace,
        name: "",
    };
    doing.app.rbac.check(&Ask {
        user,
        verb: "create",
        what,
    })?;
    let accepted = negotiate::accepted(&parts.headers, true)?;
    if accepted.view != negotiate::View::Whole {
        // A question has no metadata of its own, and no row.
        return Err(Failure::NotAcceptable(
            "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf"
                .into(),
        ));
    }
    let body = body::json(body::read(body).await?, negotiate::body_encoding(&parts.headers)?)?.json;
    let gvk = review.gvk();
    let mut document: Value = serde_json::from_slice(&body).map_err(|error| {
        Failure::BadRequest(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: {error}",
            gvk.kind
        ))
    })?;
    if !document.is_object() {
        return Err(Failure::BadRequest(format!(
            "the object provided is unrecognized (must be of type {})",
            gvk.kind
        )));
    }
    for (key, expected) in [("kind", gvk.kind.as_str()), ("apiVersion", &gvk.api_version())] {
        match document.get(key).and_then(Value::as_str) {
            None | Some("") => document[key] = expected.into(),
            Some(said) if said == expected => {}
            Some(said) => {
                return Err(Failure::BadRequest(format!(
                    "the {key} in the data ({said}) does not match the expected {key} ({expected})"
                )));
            }
        }
    }
    if document["metadata"].is_null() {
        document["metadata"] = serde_json::json!({});
    }
    let (rbac, authenticators) = (&doing.app.rbac, &doing.app.authenticators);
    let answered = review::answer(review, document, user, &at.namespace, rbac, authenticators).await?;
    let response = respond::document(accepted.format, answered.to_string().into())?;
    Ok(respond::with_code(response, StatusCode::CREATED))
}
