//! What every request passes before a handler sees it, in this order: count, recognise, become, slow down, allow, time.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use auth::{Ask, Credentials, What, audit, impersonate};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use model::{Caller, Failure, UserInfo};

use crate::computed::{self, Computed};
use crate::limits::Limit;
use crate::options::Query;
use crate::path::Path;
use crate::reject::{self, Reject};
use crate::{App, negotiate, streams};

/// What is known of a connection: who is at the other end.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// Whom the client certificate names, if one was shown.
    pub(crate) certificate: Option<Arc<UserInfo>>,
}

/// A request that has passed: who asks, and for what.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) caller: Caller,
    pub(crate) path: Arc<Path>,
}

/// What the pipeline needs to know of a request before anybody is recognised.
struct Head {
    path: Arc<Path>,
    /// `get`, `list`, `watch`, …, or the method in lower case where no objects are meant.
    verb: &'static str,
    /// May last as long as it likes and does not count as being in flight.
    long: bool,
    uri: String,
    agent: String,
    received: Timestamp,
}

/// The middleware around every route.
pub(crate) async fn pass(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let head = Head::of(&request);
    let audit_id = audit_id(request.headers());
    let accept = negotiate::text(request.headers(), header::ACCEPT);
    let peer = request.extensions().get::<Arc<Peer>>().cloned();
    let mut users = (None, None);
    let work = AssertUnwindSafe(admitted(&app, &head, peer.as_deref(), request, next, &mut users)).catch_unwind();
    let mut response = match work.await {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => Reject(failure).into_response(),
        Err(panic) => {
            let why = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
            let why = why
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(uri = head.uri, why, "a handler panicked");
            let text = "This request caused apiserver to panic. Look in the logs for details.";
            Reject(Failure::Internal(text.into())).into_response()
        }
    };
    response = reject::translate(response, &accept);
    let code = response.status().as_u16();
    app.metrics.answered(&head.path, head.verb, code, started.elapsed());
    if let Ok(id) = HeaderValue::try_from(&audit_id) {
        response.headers_mut().insert(HeaderName::from_static("audit-id"), id);
    }
    // The registry audits what reaches it, whichever door it came through. Here: the rest.
    if users.0.is_none() || !reaches_registry(&head.path) {
        record(&app, head, audit_id, peer.as_deref(), users, code);
    }
    response
}

fn reaches_registry(path: &Path) -> bool {
    match path {
        Path::Plain => false,
        Path::Resource(at) => {
            let stored = computed::of(&at.gvr).is_none_or(Computed::reaches_registry);
            stored && streams::of(&at.gvr, &at.subresource).is_none()
        }
    }
}

/// `users`: who showed credentials, and whom they became.
async fn admitted(
    app: &Arc<App>,
    head: &Head,
    peer: Option<&Peer>,
    mut request: Request,
    next: Next,
    users: &mut (Option<Arc<UserInfo>>, Option<UserInfo>),
) -> Result<Response, Failure> {
    let shown = Credentials {
        certificate: peer.and_then(|peer| peer.certificate.as_ref()),
        bearer: bearer(request.headers()),
    };
    let user = app.authenticators.authenticate(shown).await.map_err(|why| {
        tracing::debug!(%why, uri = head.uri, "not authenticated");
        Failure::Unauthorized("Unauthorized".into())
    })?;
    users.0 = Some(user.clone());
    let wish = wish(request.headers())?;
    let user = if wish.is_empty() {
        (*user).clone()
    } else {
        let other = impersonate::impersonate(&app.rbac, &user, wish)?;
        users.1 = Some(other.clone());
        other
    };
    let caller = Caller::new(user, &head.agent);
    if let Path::Plain = &*head.path {
        let path = request.uri().path();
        app.rbac.check(&Ask {
            user: caller.user(),
            verb: head.verb,
            what: What::Path(path),
        })?;
    }
    let in_flight = if head.long {
        None
    } else {
        Some(
            app.limits
                .enter(&caller.user().name, matches!(head.verb, "get" | "list"))?,
        )
    };
    request.extensions_mut().insert(Asked {
        caller: caller.clone(),
        path: head.path.clone(),
    });
    let answer = next.run(request);
    let response = if head.long {
        answer.await
    } else {
        tokio::time::timeout(app.request_timeout, answer).await.map_err(|_| {
            app.limits.reached(Limit::RequestTime, &caller.user().name);
            Failure::Timeout(
                "Timeout: request did not complete within the allotted time; the change may have been made all the same"
                    .into(),
            )
        })?
    };
    drop(in_flight);
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        app.limits.reached(Limit::BodySize, &caller.user().name);
    }
    Ok(response)
}

impl Head {
    fn of(request: &Request) -> Self {
        let uri = request.uri();
        let path = Arc::new(Path::parse(uri.path()));
        let query = Query::parse(uri).unwrap_or_default();
        let verb = verb(&path, request.method(), &query);
        let long = verb == "watch"
            || match &*path {
                Path::Resource(at) => streams::of(&at.gvr, &at.subresource).is_some(),
                Path::Plain => false,
            };
        Self {
            path,
            verb,
            long,
            uri: uri.path_and_query().map_or("/", |p| p.as_str()).to_owned(),
            agent: agent(request.headers()),
            received: Timestamp::now(),
        }
    }
}

fn verb(path: &Path, method: &Method, query: &Query) -> &'static str {
    let Path::Resource(at) = path else {
        return match *method {
            Method::GET => "get",
            Method::HEAD => "head",
            Method::POST => "post",
            Method::PUT => "put",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            Method::OPTIONS => "options",
            _ => "other",
        };
    };
    let named = !at.name.is_empty();
    match *method {
        Method::GET | Method::HEAD if at.subresource.is_empty() && (at.watch || query.flag("watch")) => "watch",
        Method::GET | Method::HEAD if named => "get",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named => "delete",
        Method::DELETE => "deletecollection",
        _ => "other",
    }
}

/// The program's name out of `kubectl/v1.33.0 (linux/amd64) …`: what field managers are called by default.
fn agent(headers: &HeaderMap) -> String {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let name = agent.split(['/', ' ']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).take(128).collect();
    if name.is_empty() { "unknown".into() } else { name }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .trim()
        .split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn wish(headers: &HeaderMap) -> Result<impersonate::Wish, Failure> {
    let mut wish = impersonate::Wish::default();
    for (name, value) in headers {
        let Some(what) = name.as_str().strip_prefix("impersonate-") else {
            continue;
        };
        let value = value
            .to_str()
            .map_err(|_| Failure::BadRequest(format!("the header {name} is not readable text")))?
            .to_owned();
        match what {
            "user" => wish.user = value,
            "uid" => wish.uid = value,
            "group" => wish.groups.push(value),
            other => {
                if let Some(key) = other.strip_prefix("extra-") {
                    let key = crate::path::decoded(key).unwrap_or_else(|| key.to_owned());
                    wish.extra.entry(key).or_default().push(value);
                }
            }
        }
    }
    Ok(wish)
}

/// The client's own, if it sent one that can be kept: so that one request can be followed through several servers.
fn audit_id(headers: &HeaderMap) -> String {
    let sent = headers
        .get("audit-id")
        .and_then(|id| id.to_str().ok())
        .filter(|id| !id.is_empty() && id.len() <= 64);
    sent.map_or_else(crate::new_id, str::to_owned)
}

fn record(
    app: &App,
    head: Head,
    audit_id: String,
    peer: Option<&Peer>,
    (user, impersonated_user): (Option<Arc<UserInfo>>, Option<UserInfo>),
    code: u16,
) {
    let object_ref = match &*head.path {
        Path::Plain => None,
        Path::Resource(at) => Some(audit::ObjectRef {
            resource: at.gvr.resource.to_string(),
            namespace: at.namespace.clone(),
            name: at.name.clone(),
            api_group: at.gvr.group.to_string(),
            api_version: at.gvr.version.to_string(),
            subresource: at.subresource.clone(),
        }),
    };
    app.audit.record(&audit::Event {
        audit_id,
        stage: "ResponseComplete",
        request_uri: head.uri,
        verb: head.verb.to_owned(),
        user: user.map(|user| (*user).clone()).unwrap_or_default(),
        impersonated_user,
        source_ips: peer.map(|peer| peer.address.ip().to_string()).into_iter().collect(),
        user_agent: head.agent,
        object_ref,
        response_status: audit::ResponseStatus { code },
        request_received_timestamp: head.received,
        stage_timestamp: Timestamp::now(),
    });
}
