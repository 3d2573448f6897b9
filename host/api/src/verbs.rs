//! The verbs: a URL and a method become one call of `Cluster`, and its outcome becomes an answer.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use client::{Action, Collection, FieldValidation, Outcome, PatchKind, Preconditions, Target, Write, Written};
use futures::{StreamExt, stream};
use http::{Method, StatusCode, request};
use model::{Cause, Failure, Gvk, Kind, Object, Verb};
use serde_json::json;

use crate::body::Text;
use crate::filters::Asked;
use crate::negotiate::{self, Accepted, View};
use crate::options::{self, Query};
use crate::path::{Addressed, Path};
use crate::reject::Reject;
use crate::{App, body, computed, gzip, protobuf, respond, streams, watch};

/// A watch without `timeoutSeconds` ends after this long, plus up to as long again so that clients do not return together.
const WATCH: u64 = 1800;

/// These kinds answer a delete with the object that went, the others with a `Status` (Kubernetes' `ReturnDeletedObject`).
const RETURN_DELETED: [&str; 8] = [
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "resourcequotas",
    "serviceaccounts",
    "services",
];

/// One request for objects, taken apart.
pub(crate) struct Doing<'a> {
    pub(crate) app: &'a Arc<App>,
    pub(crate) asked: &'a Asked,
    pub(crate) at: &'a Addressed,
    pub(crate) kind: &'a Arc<Kind>,
    pub(crate) query: Query,
}

/// Answers `/api/…` and `/apis/…` where objects are meant; anything else that no route took does not exist.
pub(crate) async fn answer(
    State(app): State<Arc<App>>,
    Extension(asked): Extension<Asked>,
    request: Request,
) -> Result<Response, Reject> {
    let Path::Resource(at) = &*asked.path else {
        return Err(Failure::NoSuchResource {
            asked: request.uri().path().to_owned(),
        }
        .into());
    };
    let served = app.served();
    let kind = served.get(&at.gvr).ok_or_else(|| no_such(at))?;
    let query = Query::parse(request.uri())?;
    let doing = Doing {
        app: &app,
        asked: &asked,
        at,
        kind,
        query,
    };
    Ok(doing.answer(request).await?)
}

/// What the request wants done about keys that JSON cannot show to be there twice. Answers warnings.
fn judge(doubled: Vec<String>, validation: FieldValidation, refused: String) -> Result<Vec<String>, Failure> {
    match validation {
        FieldValidation::Warn => Ok(doubled),
        // As Go's YAML reader sums up what it found.
        FieldValidation::Strict if !doubled.is_empty() => {
            let found = doubled.join("\n  ");
            Err(Failure::BadRequest(format!(
                "{refused}: yaml: unmarshal errors:\n  {found}"
            )))
        }
        FieldValidation::Strict | FieldValidation::Ignore => Ok(Vec::new()),
    }
}

fn no_such(at: &Addressed) -> Failure {
    let slash = if at.subresource.is_empty() { "" } else { "/" };
    Failure::NoSuchResource {
        asked: format!("{}{slash}{}", at.gvr, at.subresource),
    }
}

impl Doing<'_> {
    async fn answer(&self, request: Request) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let at = self.at;
        let is_namespace = at.gvr.group.is_empty() && at.gvr.resource == "namespaces";
        if !self.kind.namespaced() && !at.namespace.is_empty() && !is_namespace {
            return Err(no_such(at));
        }
        if !at.subresource.is_empty() {
            let door = at.subresource.split('/').next().unwrap_or_default();
            let subresource = self.kind.subresource(door).ok_or_else(|| no_such(at))?;
            if let Some(stream) = streams::of(&at.gvr, door) {
                let mut response = streams::answer(self, stream, parts, body).await?;
                response.extensions_mut().insert(gzip::Leave);
                return Ok(response);
            }
            self.must_have(&subresource.verbs, &parts.method)?;
        } else {
            self.must_have(&self.kind.verbs, &parts.method)?;
        }
        if self.kind.namespaced() && at.namespace.is_empty() && (!at.name.is_empty() || parts.method != Method::GET) {
            return Err(self.not_allowed(&parts.method));
        }
        if let Some(computed) = computed::of(&at.gvr) {
            return computed.answer(self, &parts, body).await;
        }
        match (&parts.method, at.name.is_empty()) {
            (&Method::GET, false) if !self.wants_watch() => self.get(&parts).await,
            (&Method::GET, _) if self.wants_watch() => self.watch(&parts).await,
            (&Method::GET, true) => self.list(&parts).await,
            (&Method::POST, true) => self.create(&parts, body).await,
            (&Method::POST, false) if !at.subresource.is_empty() => self.create(&parts, body).await,
            (&Method::PUT, false) => self.update(&parts, body).await,
            (&Method::PATCH, false) => self.patch(&parts, body).await,
            (&Method::DELETE, false) => self.delete(&parts, body).await,
            (&Method::DELETE, true) => self.delete_collection(&parts, body).await,
            _ => Err(self.not_allowed(&parts.method)),
        }
    }

    fn wants_watch(&self) -> bool {
        (self.at.watch || self.query.flag("watch")) && self.at.subresource.is_empty()
    }

    fn must_have(&self, verbs: &[Verb], method: &Method) -> Result<(), Failure> {
        let named = !self.at.name.is_empty();
        let verb = match (method, named) {
            (&Method::GET, _) if self.wants_watch() => Verb::Watch,
            (&Method::GET, true) => Verb::Get,
            (&Method::GET, false) => Verb::List,
            (&Method::POST, _) => Verb::Create,
            (&Method::PUT, _) => Verb::Update,
            (&Method::PATCH, _) => Verb::Patch,
            (&Method::DELETE, true) => Verb::Delete,
            (&Method::DELETE, false) => Verb::DeleteCollection,
            _ => return Err(self.not_allowed(method)),
        };
        if verbs.contains(&verb) {
            Ok(())
        } else {
            Err(self.not_allowed(method))
        }
    }

    pub(crate) fn not_allowed(&self, method: &Method) -> Failure {
        Failure::MethodNotAllowed {
            verb: method.as_str().to_owned(),
            resource: self.at.gvr.group_resource(),
        }
    }

    fn target(&self) -> Target {
        // A namespace's own URL names it twice.
        let namespace = if self.kind.namespaced() { &self.at.namespace } else { "" };
        Target::new(self.at.gvr.clone(), namespace, &self.at.name).subresource(&self.at.subresource)
    }

    fn collection(&self) -> Collection {
        let namespace = (!self.at.namespace.is_empty()).then(|| self.at.namespace.clone());
        Collection {
            gvr: self.at.gvr.clone(),
            namespace,
        }
    }

    /// In which form the answer goes out: that of the subresource's own kind, where it has one.
    pub(crate) fn accepted(&self, parts: &request::Parts) -> Result<Accepted, Failure> {
        let door = self.at.subresource.split('/').next().unwrap_or_default();
        let own = self.kind.subresource(door).and_then(|s| s.kind.as_ref());
        negotiate::accepted(&parts.headers, protobuf::has_form(own.unwrap_or(&self.kind.gvk)))
    }

    async fn get(&self, parts: &request::Parts) -> Result<Response, Failure> {
        let accepted = self.accepted(parts)?;
        let version = options::get_version(&self.query)?;
        let object = self
            .app
            .cluster
            .get(&self.asked.caller, &self.target(), version)
            .await?;
        respond::object(self.app, self.kind, &object, accepted, &self.query)
    }

    async fn list(&self, parts: &request::Parts) -> Result<Response, Failure> {
        let accepted = self.accepted(parts)?;
        let options = options::list(&self.query)?;
        let list = self
            .app
            .cluster
            .list(&self.asked.caller, &self.collection(), &options)
            .await?;
        respond::list(self.app, self.kind, list, accepted, &self.query).await
    }

    async fn watch(&self, parts: &request::Parts) -> Result<Response, Failure> {
        let accepted = self.accepted(parts)?;
        let fallback = Duration::from_secs(WATCH + self.app.spread(WATCH));
        let mut options = options::watch(&self.query, fallback)?;
        if !self.at.name.is_empty() {
            let comma = if options.fields.is_empty() { "" } else { "," };
            options.fields = format!("{}{comma}metadata.name={}", options.fields, self.at.name);
        }
        let open = self.app.limits.watch(&self.asked.caller.user().name)?;
        let events = self
            .app
            .cluster
            .watch(&self.asked.caller, &self.collection(), &options)
            .await;
        let events = match events {
            // An event of the watch, as if it had come later: clients look there for the word to list again.
            Err(gone @ Failure::Expired(_)) => stream::once(async { Err(gone) }).boxed(),
            opened => opened?,
        };
        watch::stream(self.app, self.kind, open, events, accepted, self.query.clone())
    }

    async fn create(&self, parts: &request::Parts, body: Body) -> Result<Response, Failure> {
        let encoding = negotiate::body_encoding(&parts.headers)?;
        let options = options::write(&self.query, "CreateOptions")?;
        let Text { json, doubled } = body::json(body::read(body).await?, encoding)?;
        let warnings = judge(doubled, options.validation, self.strictly())?;
        self.write(parts, Action::Create(json), options, warnings).await
    }

    async fn update(&self, parts: &request::Parts, body: Body) -> Result<Response, Failure> {
        let encoding = negotiate::body_encoding(&parts.headers)?;
        let options = options::write(&self.query, "UpdateOptions")?;
        let Text { json, doubled } = body::json(body::read(body).await?, encoding)?;
        let warnings = judge(doubled, options.validation, self.strictly())?;
        let action = Action::Update {
            body: json,
            preconditions: Preconditions::default(),
        };
        self.write(parts, action, options, warnings).await
    }

    /// How a body that is not read strictly enough begins to be refused.
    fn strictly(&self) -> String {
        let Gvk { version, kind, .. } = &self.kind.gvk;
        format!("{kind} in version \"{version}\" cannot be handled as a {kind}: strict decoding error")
    }

    async fn patch(&self, parts: &request::Parts, body: Body) -> Result<Response, Failure> {
        let (kind, encoding) = negotiate::patch_kind(&parts.headers, self.query.flag("force"))?;
        let options = options::write(&self.query, "PatchOptions")?;
        let wrong = |cause| {
            Err(Failure::Invalid {
                kind: Gvk::new("meta.k8s.io", "v1", "PatchOptions"),
                name: String::new(),
                causes: vec![cause],
            })
        };
        match kind {
            PatchKind::Apply { .. } if options.field_manager.is_empty() => {
                return wrong(Cause::required("fieldManager", "is required for apply patch"));
            }
            PatchKind::Json | PatchKind::Merge | PatchKind::Strategic if self.query.has("force") => {
                return wrong(Cause::forbidden("force", "may not be specified for non-apply patch"));
            }
            _ => {}
        }
        let Text { json, doubled } = body::json(body::read(body).await?, encoding)?;
        let refused = "error strict decoding YAML: error converting YAML to JSON".to_owned();
        let warnings = judge(doubled, options.validation, refused)?;
        let action = Action::Patch {
            kind,
            body: json,
            preconditions: Preconditions::default(),
        };
        self.write(parts, action, options, warnings).await
    }

    async fn delete(&self, parts: &request::Parts, body: Body) -> Result<Response, Failure> {
        let (delete, dry_run) = self.delete_options(parts, body).await?;
        let options = client::WriteOptions {
            dry_run,
            ..Default::default()
        };
        self.write(parts, Action::Delete(delete), options, Vec::new()).await
    }

    async fn delete_collection(&self, parts: &request::Parts, body: Body) -> Result<Response, Failure> {
        let (delete, dry_run) = self.delete_options(parts, body).await?;
        let (labels, fields) = (
            self.query.get("labelSelector").to_owned(),
            self.query.get("fieldSelector").to_owned(),
        );
        let options = client::WriteOptions {
            dry_run,
            ..Default::default()
        };
        let action = Action::DeleteCollection { delete, labels, fields };
        self.write(parts, action, options, Vec::new()).await
    }

    async fn delete_options(
        &self,
        parts: &request::Parts,
        body: Body,
    ) -> Result<(client::DeleteOptions, bool), Failure> {
        let body = body::read(body).await?;
        let body = if body.is_empty() {
            body
        } else {
            body::json(body, negotiate::body_encoding(&parts.headers)?)?.json
        };
        options::delete(&self.query, &body)
    }

    async fn write(
        &self,
        parts: &request::Parts,
        action: Action,
        options: client::WriteOptions,
        mut warnings: Vec<String>,
    ) -> Result<Response, Failure> {
        // Before the write: a client that cannot read the answer must not have changed anything.
        let accepted = self.accepted(parts)?;
        let write = Write {
            target: self.target(),
            action,
            options,
        };
        let written: Written = self.app.cluster.write(&self.asked.caller, write).await?;
        warnings.extend(written.warnings);
        let mut response = self.written(written.outcome, accepted).await?;
        respond::warn(&mut response, &warnings);
        Ok(response)
    }

    pub(crate) async fn written(&self, outcome: Outcome, accepted: Accepted) -> Result<Response, Failure> {
        let show = |object: &Arc<Object>| respond::object(self.app, self.kind, object, accepted, &self.query);
        Ok(match outcome {
            Outcome::Created(object) => respond::with_code(show(&object)?, StatusCode::CREATED),
            Outcome::Changed(object) => show(&object)?,
            Outcome::Deleted(object) => {
                let core = self.at.gvr.group.is_empty();
                if core && RETURN_DELETED.contains(&self.at.gvr.resource.as_str()) {
                    show(&object)?
                } else {
                    respond::document(accepted.format, self.deleted(&object).into())?
                }
            }
            Outcome::DeletedMany(items) => {
                let list = client::List {
                    version: Default::default(),
                    items,
                    continue_token: String::new(),
                    remaining: None,
                };
                // A table of what is gone is of no use to anyone.
                let view = if matches!(accepted.view, View::Table(_)) {
                    View::Whole
                } else {
                    accepted.view
                };
                respond::list(self.app, self.kind, list, Accepted { view, ..accepted }, &self.query).await?
            }
            Outcome::Document { json, created } => {
                let code = if created { StatusCode::CREATED } else { StatusCode::OK };
                respond::with_code(respond::document(accepted.format, json)?, code)
            }
        })
    }

    fn deleted(&self, object: &Object) -> String {
        let mut details = json!({"name": object.key.name, "kind": self.at.gvr.resource, "uid": object.uid});
        if !self.at.gvr.group.is_empty() {
            details["group"] = self.at.gvr.group.as_str().into();
        }
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
            .to_string()
    }
}
