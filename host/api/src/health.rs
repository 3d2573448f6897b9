//! `/healthz`, `/livez`, `/readyz`, `/version` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use model::Failure;
use serde_json::json;

use crate::options::Query;
use crate::reject::Reject;
use crate::{App, negotiate, respond};

/// One thing that must hold. Asked on every call of the page: must be cheap.
pub struct Check {
    pub name: &'static str,
    /// Counts for `/readyz` only: a server that starts or stops is alive and not ready.
    pub ready_only: bool,
    /// `Err` says what does not hold.
    pub holds: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

/// The Kubernetes release whose behaviour this is, and ours.
pub const GIT_VERSION: &str = "v1.36.0+pilotis";

pub(crate) async fn version(headers: HeaderMap) -> Result<Response, Reject> {
    let info = json!({
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION,
        "gitCommit": option_env!("PILOTIS_COMMIT").unwrap_or(""),
        "gitTreeState": "clean",
        "buildDate": option_env!("PILOTIS_BUILD_DATE").unwrap_or("1970-01-01T00:00:00Z"),
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, arch()),
    });
    let accepted = negotiate::accepted(&headers, false)?;
    Ok(respond::document(accepted.format, info.to_string().into())?)
}

/// As Go names it, which is what clients compare.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/livez`, `/readyz/etcd`, `?verbose`, `?exclude=NAME`.
pub(crate) async fn page(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Reject> {
    let query = Query::parse(&uri)?;
    let mut parts = uri.path().trim_matches('/').splitn(2, '/');
    let page = parts.next().unwrap_or_default();
    let one = parts.next().unwrap_or_default();
    let excluded: Vec<&str> = query.all("exclude").collect();
    let mut lines = String::new();
    let mut failed = Vec::new();
    let mut found = false;
    for check in &app.checks {
        if check.ready_only && page != "readyz" || !one.is_empty() && check.name != one {
            continue;
        }
        found = true;
        if excluded.contains(&check.name) {
            lines += &format!("[+]{} excluded: ok\n", check.name);
            continue;
        }
        match (check.holds)() {
            Ok(()) => lines += &format!("[+]{} ok\n", check.name),
            Err(why) => {
                lines += &format!("[-]{} failed: {why}\n", check.name);
                failed.push(check.name);
            }
        }
    }
    if !one.is_empty() && !found {
        return Err(Failure::NoSuchResource {
            asked: uri.path().to_owned(),
        }
        .into());
    }
    if failed.is_empty() {
        let text = if query.has("verbose") {
            format!("{lines}{page} check passed\n")
        } else {
            "ok".to_owned()
        };
        return Ok(respond::plain_text(text));
    }
    tracing::info!(page, ?failed, "not healthy");
    let text = format!("{lines}{page} check failed\n");
    Ok(respond::with_code(
        respond::plain_text(text),
        StatusCode::INTERNAL_SERVER_ERROR,
    ))
}

/// Prometheus' text format: this server's figures, then those of the components that gave a source.
pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let mut text = app.metrics.text();
    app.limits.text(&mut text);
    for source in &app.metric_sources {
        source(&mut text);
    }
    let mut response = respond::plain_text(text);
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The keys by which others can check service-account tokens (OpenID Connect discovery).
pub(crate) async fn openid(State(app): State<Arc<App>>, uri: Uri) -> Result<Response, Reject> {
    let no_tokens = || Failure::NoSuchResource {
        asked: uri.path().to_owned(),
    };
    let tokens = app.tokens.as_ref().ok_or_else(no_tokens)?;
    let (document, kind) = if uri.path().starts_with("/.well-known") {
        let document = json!({
            "issuer": tokens.issuer(),
            "jwks_uri": format!("{}/openid/v1/jwks", tokens.issuer()),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        });
        (document, "application/json")
    } else {
        (tokens.jwks().clone(), "application/jwk-set+json")
    };
    let mut response = respond::as_json(document.to_string().into());
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    Ok(response)
}
