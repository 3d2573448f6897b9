//! Kinds that nobody stores: the answer to each request is worked out on the spot.
//!
//! A file for each: what it is called, and what it answers. Here is what they have in common, up to who may ask.

mod binding;
mod componentstatus;
mod review;
mod usage;

use std::sync::Arc;

use auth::review::Review;
use auth::{Ask, What};
use axum::body::Body;
use axum::response::Response;
use client::List;
use http::{Method, request};
use model::{Failure, Gvr, Kind, Object};

use crate::tables::Printer;
use crate::verbs::Doing;
use crate::{App, respond};
use usage::Measured;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Computed {
    Binding,
    ComponentStatus,
    Review(Review),
    Usage(Measured),
}

/// All of them, as discovery shows them.
pub(crate) fn kinds() -> impl Iterator<Item = (Computed, Arc<Kind>)> {
    let single = [Computed::Binding, Computed::ComponentStatus];
    let all = single
        .into_iter()
        .chain(Review::ALL.map(Computed::Review))
        .chain(Measured::ALL.map(Computed::Usage));
    all.map(|computed| (computed, Arc::new(computed.kind())))
}

pub(crate) fn of(gvr: &Gvr) -> Option<Computed> {
    match gvr.group.as_str() {
        "" if gvr.version == "v1" => match gvr.resource.as_str() {
            "bindings" => Some(Computed::Binding),
            "componentstatuses" => Some(Computed::ComponentStatus),
            _ => None,
        },
        "authentication.k8s.io" | "authorization.k8s.io" => review::of(gvr).map(Computed::Review),
        usage::GROUP => usage::of(gvr).map(Computed::Usage),
        _ => None,
    }
}

/// The columns of a kind: its own, or what the registry knows of it.
pub(crate) fn printer(app: &App, of: &Gvr) -> Arc<dyn Printer> {
    match self::of(of) {
        Some(Computed::ComponentStatus) => Arc::new(componentstatus::Columns),
        Some(Computed::Usage(_)) => Arc::new(usage::Columns),
        Some(Computed::Binding | Computed::Review(_)) | None => app.tables.printer(of),
    }
}

impl Computed {
    fn kind(self) -> Kind {
        match self {
            Computed::Binding => binding::kind(),
            Computed::ComponentStatus => componentstatus::kind(),
            Computed::Review(review) => review::kind(review),
            Computed::Usage(measured) => usage::kind(measured),
        }
    }

    /// Whether a request ends as one to the registry, which then tells the audit log of it.
    pub(crate) fn reaches_registry(self) -> bool {
        self == Computed::Binding
    }

    /// Discovery lists the group after all others, so that nobody who says `pods` is understood to mean these.
    pub(crate) fn comes_last(self) -> bool {
        matches!(self, Computed::Usage(_))
    }

    /// To a method that the kind has.
    ///
    /// # Errors
    /// `Forbidden` if the caller may not ask, and those of the kind itself.
    pub(crate) async fn answer(
        self,
        doing: &Doing<'_>,
        parts: &request::Parts,
        body: Body,
    ) -> Result<Response, Failure> {
        let at = doing.at;
        let verb = match (&parts.method, at.name.is_empty()) {
            (&Method::GET, true) => "list",
            (&Method::GET, false) => "get",
            (&Method::POST, true) => "create",
            _ => return Err(doing.not_allowed(&parts.method)),
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
        match self {
            Computed::Binding => binding::answer(doing, parts, body).await,
            Computed::ComponentStatus => componentstatus::answer(doing, parts).await,
            Computed::Review(review) => review::answer(doing, review, parts, body).await,
            Computed::Usage(measured) => usage::answer(doing, measured, parts).await,
        }
    }
}

/// A list of what was worked out, which has no version.
async fn list(doing: &Doing<'_>, parts: &request::Parts, items: Vec<Arc<Object>>) -> Result<Response, Failure> {
    let list = List {
        version: Default::default(),
        items,
        continue_token: String::new(),
        remaining: None,
    };
    respond::list(doing.app, doing.kind, list, doing.accepted(parts)?, &doing.query).await
}

fn object(doing: &Doing<'_>, parts: &request::Parts, object: Object) -> Result<Response, Failure> {
    let accepted = doing.accepted(parts)?;
    respond::object(doing.app, doing.kind, &Arc::new(object), accepted, &doing.query)
}
