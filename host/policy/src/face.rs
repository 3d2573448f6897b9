//! A request as a policy sees it: as it was asked, or under another version or group in which the same objects are served
//! (`matchPolicy: Equivalent`).

use std::borrow::Cow;
use std::sync::Arc;

use model::{Failure, Gvk, Gvr, Kind};
use registry::Registry;
use registry::gates::Request;
use serde_json::{Value, json};

/// Every kind that rules may know the request's objects by: the one that was asked for, then the others as they are listed.
pub(crate) fn kinds_of<'k>(request: &Request<'k>, served: &'k [Arc<Kind>]) -> Vec<&'k Kind> {
    let (asked, door) = (&**request.kind, request.target.subresource.as_str());
    let same = |kind: &&Kind| {
        kind.gvk != asked.gvk
            && kind.stored.is_some()
            && kind.stored == asked.stored
            && (door.is_empty() || kind.subresource(door).is_some())
    };
    let others = served.iter().map(|kind| &**kind).filter(same);
    std::iter::once(asked).chain(others).collect()
}

pub(crate) struct Face<'r> {
    pub gvr: Gvr,
    /// What the object in hand is, once it is [`seen`](Face::seen).
    pub gvk: Gvk,
    /// `request`.
    pub document: Value,
    /// `oldObject`.
    pub old: Option<Cow<'r, Value>>,
    asked: Gvr,
    /// The object in hand is one of the resource, and this is not the version it came in.
    converts: bool,
}

impl<'r> Face<'r> {
    /// # Errors
    /// When the old object cannot be converted.
    pub(crate) async fn of(registry: &Registry, request: &Request<'r>, kind: &Kind) -> Result<Self, Failure> {
        let of_resource = *request.gvk == request.kind.gvk;
        let gvk = if of_resource { &kind.gvk } else { request.gvk };
        let mut face = Self {
            gvr: kind.gvr(),
            gvk: gvk.clone(),
            document: Value::Null,
            old: None,
            asked: request.kind.gvr(),
            converts: of_resource && kind.gvk != request.kind.gvk,
        };
        face.document = document(request, &face);
        if let Some(old) = request.old {
            face.old = Some(face.seen(registry, old).await?);
        }
        Ok(face)
    }

    /// An object of the request, in this version.
    ///
    /// # Errors
    /// When it cannot be converted.
    pub(crate) async fn seen<'o>(&self, registry: &Registry, object: &'o Value) -> Result<Cow<'o, Value>, Failure> {
        if !self.converts {
            return Ok(Cow::Borrowed(object));
        }
        let converted = registry.in_version(object.clone(), &self.asked, &self.gvr).await?;
        Ok(Cow::Owned(converted))
    }

    /// The way back of [`seen`](Face::seen).
    ///
    /// # Errors
    /// When it cannot be converted.
    pub(crate) async fn given_back(&self, registry: &Registry, object: Value) -> Result<Value, Failure> {
        if !self.converts {
            return Ok(object);
        }
        registry.in_version(object, &self.gvr, &self.asked).await
    }
}

/// The request as `request` shows it (`admission.k8s.io/v1` `AdmissionRequest`).
fn document(request: &Request<'_>, face: &Face<'_>) -> Value {
    let user = request.caller.user();
    let target = request.target;
    let kind = |of: &Gvk| json!({"group": of.group, "version": of.version, "kind": of.kind});
    let resource = |of: &Gvr| json!({"group": of.group, "version": of.version, "resource": of.resource});
    json!({
        "kind": kind(&face.gvk),
        "resource": resource(&face.gvr),
        "subResource": target.subresource,
        "requestKind": kind(request.gvk),
        "requestResource": resource(&target.gvr),
        "requestSubResource": target.subresource,
        "name": target.name,
        "namespace": target.namespace,
        "operation": request.operation.as_str(),
        "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
        "dryRun": request.dry_run,
        "options": request.options,
    })
}
