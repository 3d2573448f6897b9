//! The only map from a [`Failure`] to an HTTP status and a Kubernetes `Status` document.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use model::{Cause, Failure};
use serde_json::{Map, Value, json};

use crate::negotiate::{self, Format};
use crate::respond;

/// A failure on its way out.
#[derive(Debug)]
pub(crate) struct Reject(pub(crate) Failure);

impl From<Failure> for Reject {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Reject {
    fn into_response(self) -> Response {
        let failure = self.0;
        let (code, status) = status(&failure);
        if code >= 500 {
            let source: &dyn std::error::Error = &failure;
            tracing::warn!(code, failure = source, "request failed");
        }
        let retry_after = status["details"]["retryAfterSeconds"].as_u64();
        let status = Bytes::from(status.to_string());
        let mut response = Response::new(Body::from(status.clone()));
        *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Said(status));
        response
    }
}

/// The `Status` of a response, as JSON.
#[derive(Debug, Clone)]
struct Said(Bytes);

/// Gives a refusal the form that the client takes. Handlers do not know it when they refuse.
pub(crate) fn translate(mut response: Response, accept: &str) -> Response {
    let Some(Said(status)) = response.extensions_mut().remove() else {
        return response;
    };
    let format = negotiate::of_status(accept);
    if format != Format::Json
        && let Ok(told) = respond::document(format, status)
    {
        let (head, body) = told.into_parts();
        *response.body_mut() = body;
        response.headers_mut().extend(head.headers);
    }
    response
}

/// HTTP code and `Status`. Reasons and details as `k8s.io/apimachinery/pkg/api/errors` fills them in.
pub(crate) fn status(failure: &Failure) -> (u16, Value) {
    let mut details = Map::new();
    let mut about = |name: &str, group: &str, kind: &str| {
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details.insert(key.into(), value.into());
            }
        }
    };
    let mut message = failure.to_string();
    let (code, reason) = match failure {
        Failure::NotFound(key) => {
            about(&key.name, &key.resource.group, &key.resource.resource);
            (404, "NotFound")
        }
        Failure::NoSuchResource { .. } => (404, "NotFound"),
        Failure::AlreadyExists(key) => {
            about(&key.name, &key.resource.group, &key.resource.resource);
            (409, "AlreadyExists")
        }
        Failure::Conflict { object, causes, .. } => {
            about(&object.name, &object.resource.group, &object.resource.resource);
            details_causes(&mut details, causes);
            (409, "Conflict")
        }
        Failure::Invalid { kind, name, causes } => {
            about(name, &kind.group, &kind.kind);
            details_causes(&mut details, causes);
            (422, "Invalid")
        }
        Failure::BadRequest(_) => (400, "BadRequest"),
        Failure::Unauthorized(_) => (401, "Unauthorized"),
        Failure::Forbidden { resource, name, reason } => {
            about(name, &resource.group, &resource.resource);
            if resource.resource.is_empty() {
                message = format!("forbidden: {reason}");
            }
            (403, "Forbidden")
        }
        Failure::Denied { object, code, .. } => {
            about(&object.name, &object.resource.group, &object.resource.resource);
            (*code, reason_of(*code))
        }
        Failure::MethodNotAllowed { resource, .. } => {
            about("", &resource.group, &resource.resource);
            (405, "MethodNotAllowed")
        }
        Failure::NotAcceptable(_) => (406, "NotAcceptable"),
        Failure::UnsupportedMediaType(_) => (415, "UnsupportedMediaType"),
        Failure::Expired(_) => (410, "Expired"),
        Failure::TooLargeVersion { .. } => {
            let cause = json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
            details.insert("causes".into(), json!([cause]));
            details.insert("retryAfterSeconds".into(), 1.into());
            (504, "Timeout")
        }
        Failure::TooLarge { .. } => (413, "RequestEntityTooLarge"),
        Failure::TooManyRequests {
            retry_after, causes, ..
        } => {
            details_causes(&mut details, causes);
            if !retry_after.is_zero() {
                details.insert("retryAfterSeconds".into(), retry_after.as_secs().max(1).into());
            }
            (429, "TooManyRequests")
        }
        Failure::Timeout(_) => (504, "Timeout"),
        Failure::Unavailable { .. } | Failure::Unreached(_) => (503, "ServiceUnavailable"),
        Failure::Plugin { .. } | Failure::Internal(_) => {
            details.insert("causes".into(), json!([{"message": message}]));
            (500, "InternalError")
        }
    };
    let mut status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    });
    if !details.is_empty() {
        status["details"] = details.into();
    }
    (code, status)
}

fn details_causes(details: &mut Map<String, Value>, causes: &[Cause]) {
    let cause = |cause: &Cause| {
        let mut one = json!({"reason": cause.reason.as_str(), "message": cause.message});
        if !cause.field.is_empty() {
            one["field"] = cause.field.clone().into();
        }
        one
    };
    if !causes.is_empty() {
        details.insert("causes".into(), causes.iter().map(cause).collect());
    }
}

/// The reason that goes with a code an admission plugin chose itself.
fn reason_of(code: u16) -> &'static str {
    match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Gone",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        500.. => "InternalError",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use model::CauseReason;

    use super::*;

    #[test]
    fn a_refused_eviction_names_its_budget_and_promises_nothing() {
        let refused = |seconds| Failure::TooManyRequests {
            reason: "no".into(),
            retry_after: Duration::from_secs(seconds),
            causes: vec![Cause {
                reason: CauseReason::DisruptionBudget,
                field: String::new(),
                message: "b".into(),
            }],
        };
        let causes = json!([{"reason": "DisruptionBudget", "message": "b"}]);
        let (code, told) = status(&refused(0));
        assert_eq!((code, &told["details"]), (429, &json!({"causes": causes})));
        let (_, told) = status(&refused(10));
        assert_eq!(told["details"], json!({"causes": causes, "retryAfterSeconds": 10}));
    }
}
