//! Controllers: what a reconcile is given, and the intents it answers with.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::bindings::controller::exports::pilotis::controller as wit;
use crate::bindings::host::pilotis::core::types::{self, Rule};
use crate::bindings::lifecycle::exports::pilotis::core::lifecycle;
use crate::fields::Fields;
use crate::view::{Selection, View};
use crate::{Error, Instant, ObjectKey, Result, Value};

pub use wit::reconcile::{Event, Intent, Patch, PatchFormat, Precondition, Propagation, Refusal};

/// One run of one key.
#[derive(Debug, Clone)]
pub struct Request {
    pub key: ObjectKey,
    /// What became of the last run's intents, if one was refused.
    pub refused: Option<Refusal>,
    /// What the last run gave back; empty at the start, and whenever the host lost it.
    pub memo: Vec<u8>,
    /// For stamps. Whoever decides by time asks [`View::reached`].
    pub now: Instant,
}

/// What to change, in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Outcome {
    pub intents: Vec<Intent>,
    /// At most 4,096 bytes.
    pub memo: Vec<u8>,
}

impl Outcome {
    pub fn new() -> Self {
        Self::default()
    }

    /// Server-side apply, forced, with the plugin's name as field manager.
    pub fn apply(&mut self, object: &Value, when: Precondition) {
        self.intents.push(Intent::Apply((json(object), when)));
    }

    pub fn create(&mut self, object: &Value) {
        self.intents.push(Intent::Create(json(object)));
    }

    /// Replaces `status`; `object` carries `apiVersion`, `kind`, name and namespace.
    pub fn set_status(&mut self, object: &Value, when: Precondition) {
        self.intents.push(Intent::SetStatus((json(object), when)));
    }

    /// A merge patch (RFC 7386) of the object itself.
    pub fn merge(&mut self, key: ObjectKey, body: &Value, when: Precondition) {
        self.patch(key, PatchFormat::Merge, body, "", when);
    }

    pub fn patch(&mut self, key: ObjectKey, format: PatchFormat, body: &Value, subresource: &str, when: Precondition) {
        let subresource = subresource.to_owned();
        self.intents.push(Intent::Patch(Patch {
            key,
            when,
            format,
            body: json(body),
            subresource,
        }));
    }

    pub fn remove(&mut self, key: ObjectKey, when: Precondition, propagation: Propagation) {
        self.intents.push(Intent::Remove((key, when, propagation)));
    }

    pub fn remove_all(&mut self, kind: &str, which: Selection) {
        self.intents.push(Intent::RemoveAll((kind.to_owned(), which)));
    }

    pub fn set_scale(&mut self, key: ObjectKey, replicas: i32, when: Precondition) {
        self.intents.push(Intent::SetScale((key, replicas, when)));
    }

    pub fn remove_finalizer(&mut self, key: ObjectKey, finalizer: &str, when: Precondition) {
        self.intents
            .push(Intent::RemoveFinalizer((key, finalizer.to_owned(), when)));
    }

    pub fn evict(&mut self, key: ObjectKey, when: Precondition) {
        self.intents.push(Intent::Evict((key, when)));
    }

    /// Something a person should know; `reason` is one word in CamelCase.
    pub fn event(&mut self, about: &ObjectKey, uid: &str, warning: bool, reason: &str, message: impl Into<String>) {
        self.intents.push(Intent::Event(Event {
            about: about.clone(),
            uid: uid.to_owned(),
            warning,
            reason: reason.to_owned(),
            message: message.into(),
        }));
    }

    pub fn is_empty(&self) -> bool {
        self.intents.is_empty()
    }
}

fn json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

/// A function that decides what to do about one object: `fn(Subject, &View) -> Result<Outcome>`, or with the [`Request`]
/// behind it. It is not called for an object that is gone, unless its subject is an `Option`.
pub trait Reconcile<Args> {
    /// # Errors
    /// Whatever the function says.
    fn reconcile(&self, request: &Request, view: &View) -> Result<Outcome>;
}

/// What a function may take first.
pub trait Subject: Sized {
    /// # Errors
    /// Those of the read.
    fn look(view: &View, key: &ObjectKey) -> Result<Option<Self>>;
}

impl<T: Fields> Subject for T {
    fn look(view: &View, key: &ObjectKey) -> Result<Option<Self>> {
        view.get(&key.kind, &key.namespace, &key.name)
    }
}

/// For a function that is to be called for objects that are gone, too.
impl<T: Fields> Subject for Option<T> {
    fn look(view: &View, key: &ObjectKey) -> Result<Option<Self>> {
        T::look(view, key).map(Some)
    }
}

/// For a function that looks at its subject by itself, or not at all.
#[derive(Debug, Clone, Copy)]
pub struct Unread;

impl Subject for Unread {
    fn look(_: &View, _: &ObjectKey) -> Result<Option<Self>> {
        Ok(Some(Unread))
    }
}

impl<F, S> Reconcile<(S,)> for F
where
    S: Subject,
    F: Fn(S, &View) -> Result<Outcome>,
{
    fn reconcile(&self, request: &Request, view: &View) -> Result<Outcome> {
        match S::look(view, &request.key)? {
            Some(subject) => self(subject, view),
            None => Ok(Outcome::new()),
        }
    }
}

impl<F, S> Reconcile<(S, Request)> for F
where
    S: Subject,
    F: Fn(S, &View, &Request) -> Result<Outcome>,
{
    fn reconcile(&self, request: &Request, view: &View) -> Result<Outcome> {
        match S::look(view, &request.key)? {
            Some(subject) => self(subject, view, request),
            None => Ok(Outcome::new()),
        }
    }
}

/// What the macro says of a controller.
#[doc(hidden)]
pub trait Controller: 'static {
    const SUBJECT: &'static str;
    const ASKS: &'static [&'static str];
    const CONFIG_SCHEMA: &'static str;

    fn reconcile(request: &Request, view: &View) -> Result<Outcome>;
}

/// A controller as the component exports it.
#[doc(hidden)]
pub struct Exported<C>(std::marker::PhantomData<C>);

impl<C: Controller> wit::about::Guest for Exported<C> {
    fn describe() -> wit::about::Description {
        wit::about::Description {
            subject: C::SUBJECT.to_owned(),
            asks: C::ASKS.iter().map(|ask| rule(ask)).collect(),
            config_schema: C::CONFIG_SCHEMA.to_owned(),
        }
    }
}

impl<C: Controller> wit::reconcile::Guest for Exported<C> {
    fn reconcile(request: wit::reconcile::Request) -> std::result::Result<wit::reconcile::Outcome, types::Failure> {
        let request = Request {
            key: request.key,
            refused: request.refused,
            memo: request.memo,
            now: Instant(request.now),
        };
        let outcome = C::reconcile(&request, &View::of_host())?;
        Ok(wit::reconcile::Outcome {
            intents: outcome.intents,
            memo: outcome.memo,
        })
    }
}

impl<C: Controller> lifecycle::Guest for Exported<C> {
    fn configure(config: Vec<u8>) -> std::result::Result<(), types::Failure> {
        set_config(&config)?;
        Ok(())
    }
}

thread_local! {
    static CONFIG: RefCell<Value> = const { RefCell::new(Value::Null) };
}

/// # Errors
/// When it is not JSON; the host has compared it with the schema before.
pub(crate) fn set_config(config: &[u8]) -> Result<()> {
    let config: Value = serde_json::from_slice(config).map_err(|error| Error::invalid(error.to_string()))?;
    CONFIG.set(config);
    Ok(())
}

/// `spec.config` of the Plugin object, as the type that it was declared with.
///
/// # Errors
/// When the declared schema lets pass what the type does not take.
pub fn config<T: serde::de::DeserializeOwned>() -> Result<T> {
    CONFIG
        .with_borrow(|config| serde_json::from_value(config.clone()))
        .map_err(|error| Error::invalid(error.to_string()))
}

/// The merge patch that makes these labels (or annotations) those; `None` if they are.
pub fn relabel(from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Option<Value> {
    let gone = from.keys().filter(|key| !to.contains_key(*key));
    let gone = gone.map(|key| (key.clone(), Value::Null));
    let new = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    let new = new.map(|(key, value)| (key.clone(), value.as_str().into()));
    let change: serde_json::Map<String, Value> = gone.chain(new).collect();
    (!change.is_empty()).then(|| change.into())
}

/// `get create patch pods`, `update replicasets.apps/status`: verbs, then the resource with its group and subresource.
pub(crate) fn rule(text: &str) -> Rule {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let what = words.pop().unwrap_or_default();
    let (whole, subresource) = what.split_once('/').map_or((what, ""), |(whole, sub)| (whole, sub));
    let (plural, group) = whole.split_once('.').unwrap_or((whole, ""));
    let resource = if subresource.is_empty() {
        plural.to_owned()
    } else {
        format!("{plural}/{subresource}")
    };
    let group = if plural == "*" && group.is_empty() { "*" } else { group };
    Rule {
        groups: vec![group.to_owned()],
        resources: vec![resource],
        verbs: words.into_iter().map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_are_read_as_rules() {
        let read = |text: &str| {
            let rule = rule(text);
            (rule.groups[0].clone(), rule.resources[0].clone(), rule.verbs.join(","))
        };
        let is = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
        assert_eq!(read("get create pods"), is("", "pods", "get,create"));
        assert_eq!(
            read("patch replicasets.apps/status"),
            is("apps", "replicasets/status", "patch")
        );
        assert_eq!(
            read("get roles.rbac.authorization.k8s.io"),
            is("rbac.authorization.k8s.io", "roles", "get")
        );
        assert_eq!(read("get *"), is("*", "*", "get"));
    }

    #[test]
    fn labels_are_changed_by_what_differs() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect()
        };
        let from = labels(&[("gone", "1"), ("kept", "2"), ("other", "3")]);
        let to = labels(&[("kept", "2"), ("new", "5"), ("other", "4")]);
        let change = crate::json!({"gone": null, "new": "5", "other": "4"});
        assert_eq!(relabel(&from, &to), Some(change));
        assert_eq!(relabel(&from, &from), None);
    }
}
