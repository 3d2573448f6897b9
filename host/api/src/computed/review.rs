//! `SelfSubjectAccessReview`, `TokenReview` and their like: questions posted as objects, answered by `auth`.

use auth::review::{self, Review};
use axum::body::Body;
use axum::response::Response;
use http::{StatusCode, request};
use model::{Failure, Gvr, Kind, Scope, Verb};
use serde_json::Value;

use crate::verbs::Doing;
use crate::{body, negotiate, respond};

pub(super) fn kind(review: Review) -> Kind {
    let gvk = review.gvk();
    let singular = gvk.kind.to_lowercase();
    Kind {
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
    }
}

pub(super) fn of(gvr: &Gvr) -> Option<Review> {
    Review::ALL.into_iter().find(|review| {
        let gvk = review.gvk();
        gvk.group == gvr.group && gvk.version == gvr.version && gvr.resource == format!("{}s", gvk.kind.to_lowercase())
    })
}

/// # Errors
/// `BadRequest` for a body that is not such a review, and those of [`review::answer`].
pub(super) async fn answer(
    doing: &Doing<'_>,
    review: Review,
    parts: &request::Parts,
    body: Body,
) -> Result<Response, Failure> {
    let accepted = doing.accepted(parts)?;
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
    let (user, namespace) = (doing.asked.caller.user(), &doing.at.namespace);
    let (rbac, authenticators) = (&doing.app.rbac, &doing.app.authenticators);
    let answered = review::answer(review, document, user, namespace, rbac, authenticators).await?;
    let response = respond::document(accepted.format, answered.to_string().into())?;
    Ok(respond::with_code(response, StatusCode::CREATED))
}
