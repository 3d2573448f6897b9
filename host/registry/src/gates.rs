//! The gates every request passes and the sources the registry draws from: traits that others implement and `server` wires.
//!
//! The registry owns them so that no door can leave one out: there is no way to build a [`crate::Registry`] without an
//! [`Authorize`], an [`Admit`] and an [`Audit`], and no way to write that does not call all three.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use client::Target;
use jiff::Timestamp;
use model::{Caller, Failure, Gvk, Kind, Object};
use serde_json::Value;

/// What somebody wants to do, as RBAC and every other authorizer judge it.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    pub caller: &'a Caller,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`, or one of the verbs that stand for
    /// a permission (`bind`, `escalate`, `approve`, `sign`, `use`, `impersonate`).
    pub verb: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Empty for cluster-scoped kinds and for lists over all namespaces.
    pub namespace: &'a str,
    /// Empty for lists, and for a create that does not name its object in the URL.
    pub name: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Allow,
    /// Forbidden whatever other authorizers say. The text is appended to the message where not empty.
    Deny(String),
    /// Not allowed by this authorizer: forbidden, unless another one in the chain allows.
    NoOpinion(String),
}

/// May they? Asked before every read and every write, also those of the cluster's own components.
#[async_trait]
pub trait Authorize: Send + Sync + 'static {
    async fn authorize(&self, what: &Attributes<'_>) -> Decision;
}

/// What kind of change admission is looking at (`admission.k8s.io/v1` `Operation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// `exec`, `attach`, `portforward`, `proxy`: asked by `api` through [`crate::Registry::admit_connect`].
    Connect,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// A write as admission sees it. `target.name` is filled in (generated names included) by the time this is made.
#[derive(Debug)]
pub struct Request<'a> {
    pub caller: &'a Caller,
    pub operation: Operation,
    pub target: &'a Target,
    /// The kind of the resource that is addressed (of `pods` for `pods/binding`).
    pub kind: &'a Arc<Kind>,
    /// What the object in hand is: the resource's own kind, or the subresource's (`v1/Binding`, `autoscaling/v1/Scale`).
    pub gvk: &'a Gvk,
    /// The object before; `None` for a create.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
    /// The options of the write as the API spells them, for `request.options` (`{}` where the caller gave none).
    pub options: &'a Value,
}

/// What admission says beside yes or no.
#[derive(Debug, Default)]
pub struct Notes {
    /// Shown to the caller in `Warning` headers.
    pub warnings: Vec<String>,
    /// For the audit event: `PLUGIN/KEY`, or the key that Kubernetes has for the same, to value.
    pub annotations: BTreeMap<String, String>,
    /// Taken from quotas before the write, given back should it fail.
    pub charges: Vec<Charge>,
}

/// Takes amounts from one ResourceQuota by compare-and-swap.
///
/// The registry adds `add` to `status.used`, refuses the write with kube's `exceeded quota` sentence when a limit in
/// `status.hard` would be passed, and subtracts again if the write then fails. Nothing is taken in a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub namespace: String,
    pub quota: String,
    /// Resource name (`pods`, `requests.cpu`) to a quantity.
    pub add: BTreeMap<String, String>,
}

/// The admission chain. Mutating first, then (on the finished object) validating.
///
/// A refusal is `Failure::Denied` with the plugin's own status, or `Failure::Forbidden`.
#[async_trait]
pub trait Admit: Send + Sync + 'static {
    /// Whether any step wants to see this write; when not, no document is made for it. Must be cheap.
    fn wants(&self, request: &Interest<'_>) -> bool;

    /// May change `object` (the new state; `None` for a delete). Called again from the start when the write is retried
    /// on a newer old object, so it must not keep anything from an earlier call.
    async fn mutate(&self, request: &Request<'_>, object: Option<&mut Value>, notes: &mut Notes)
    -> Result<(), Failure>;

    /// Sees the object as it will be stored.
    async fn validate(&self, request: &Request<'_>, object: Option<&Value>, notes: &mut Notes) -> Result<(), Failure>;
}

/// The part of a [`Request`] that match rules need before any document exists.
#[derive(Debug, Clone, Copy)]
pub struct Interest<'a> {
    pub operation: Operation,
    pub kind: &'a Kind,
    pub subresource: &'a str,
    pub namespace: &'a str,
}

/// Whether a match rule's entries name `text`; `*` names everything.
pub fn one_of(entries: &[String], text: &str) -> bool {
    entries.iter().any(|entry| entry == "*" || entry == text)
}

/// Whether a match rule's entries name a resource: `pods`, `pods/status`, `pods/*`, `*` (any resource, no subresource),
/// `*/status`, `*/*` (admissionregistration/v1 `Rule`). `subresource` is empty for the object itself.
pub fn one_of_resources(entries: &[String], resource: &str, subresource: &str) -> bool {
    entries.iter().any(|entry| {
        let (wanted, sub) = entry.split_once('/').unwrap_or((entry, ""));
        (wanted == "*" || wanted == resource) && (sub == "*" || sub == subresource)
    })
}

/// Turns an object of one version of a kind into another; for kinds whose versions differ in more than their name.
#[async_trait]
pub trait Convert: Send + Sync + 'static {
    /// `object` comes in any served version of `kind`, and leaves with `apiVersion: to`.
    async fn convert(&self, kind: &Kind, object: Value, to: &str) -> Result<Value, Failure>;
}

/// One request, told when it is answered.
#[derive(Debug)]
pub struct AuditEvent<'a> {
    pub caller: &'a Caller,
    pub verb: &'a str,
    pub target: &'a Target,
    pub dry_run: bool,
    pub received: Timestamp,
    pub took: Duration,
    /// What was sent, where the request had a body.
    pub body: Option<&'a [u8]>,
    /// What was answered; `Ok(None)` for lists and watches.
    pub outcome: Result<Option<&'a Object>, &'a Failure>,
    pub annotations: &'a BTreeMap<String, String>,
}

/// Told of every request after it was answered or refused. Must not block: hand over to a bounded queue.
pub trait Audit: Send + Sync + 'static {
    fn record(&self, event: &AuditEvent<'_>);
}

/// What a service-account token is to say (`authentication.k8s.io/v1 TokenRequest`, checked by the registry).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenAsked {
    pub namespace: String,
    pub service_account: String,
    pub service_account_uid: String,
    /// Empty: the issuer's own audiences.
    pub audiences: Vec<String>,
    pub lifetime: Duration,
    pub bound: Option<BoundObject>,
}

/// The object a token dies with. Its uid was compared with the living object's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundObject {
    pub kind: String,
    pub api_version: String,
    pub name: String,
    pub uid: String,
    /// For a bound pod: the node it runs on.
    pub node: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedToken {
    pub token: String,
    pub audiences: Vec<String>,
    pub expires: Timestamp,
}

/// Signs service-account tokens for `serviceaccounts/token`.
#[async_trait]
pub trait SignToken: Send + Sync + 'static {
    async fn sign(&self, asked: &TokenAsked) -> Result<SignedToken, Failure>;
}

/// Figures that are computed when an object is read and never stored, such as a Plugin's calls and p99.
///
/// Asked on the way out of `get` and `list`, once per object; watches show what is stored.
pub trait Figures: Send + Sync + 'static {
    /// Fields to lay over the object's `status`, or `None` where there is nothing to add.
    fn of(&self, object: &Object) -> Option<serde_json::Map<String, Value>>;
}

/// Time as objects record it (`creationTimestamp`, `deletionTimestamp`). Tests stand in with a still one.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// Where uids and the random ends of generated names come from. Tests stand in with a counted one.
pub trait Dice: Send + Sync + 'static {
    /// A new uid, never given before (RFC 4122 version 4).
    fn uid(&self) -> String;
    /// Five letters for `generateName`, from an alphabet that spells no words.
    fn suffix(&self) -> String;
    /// A number below `end`, for picking addresses and ports.
    fn below(&self, end: u64) -> u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_match_as_admission_registration_says() {
        let cases = [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("pods/status", "pods", "status", true),
            ("pods/*", "pods", "", true),
            ("pods/*", "pods", "binding", true),
            ("*", "pods", "", true),
            ("*", "pods", "status", false),
            ("*/status", "pods", "status", true),
            ("*/*", "services", "status", true),
            ("pods", "services", "", false),
        ];
        for (entry, resource, subresource, expected) in cases {
            assert_eq!(
                one_of_resources(&[entry.to_owned()], resource, subresource),
                expected,
                "{entry} on {resource}/{subresource}"
            );
        }
        assert!(!one_of_resources(&[], "pods", ""));
    }
}
