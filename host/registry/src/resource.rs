//! What the registry knows of a kind: one [`Resource`] per served group, version and plural.
//!
//! A kind's file in `resources/` builds one. Everything here has a default that suits a kind with a spec and nothing
//! special, so such a kind is a page of ten lines.

use std::sync::Arc;
use std::time::Duration;

use client::{Outcome, Target};
use compact_str::CompactString;
use futures::future::BoxFuture;
use jiff::Timestamp;
use model::{Cause, Failure, GroupResource, Gvk, Kind, Object, Scope, Subresource, UserInfo, Verb};
use schema::Schema;
use serde_json::Value;

use crate::Registry;
use crate::allocate::Claims;
use crate::body;
use crate::gates::Notes;
use crate::job::Job;
use crate::names::NameRule;
use crate::table::{self, Column};

/// One served kind: discovery's facts, and the rules its objects live by.
#[derive(Debug, Clone)]
pub struct Resource {
    pub kind: Arc<Kind>,
    pub storage: Storage,
    /// What its objects are made of.
    pub schema: Schema,
    /// Defined by a CustomResourceDefinition.
    pub custom: bool,
    /// The schema says what values must be, and objects are checked against it (custom kinds always are).
    pub(crate) checked: bool,
    /// The stored version's schema, where it has defaults that objects may have been stored without.
    pub(crate) stored_defaults: Option<Schema>,
    /// Tells one set of those defaults from another.
    pub(crate) defaults_from: Option<u64>,
    /// What whoever asks for this version is warned of.
    pub deprecated: Option<String>,
    /// No new objects: the definition is going.
    pub(crate) closed: bool,
    /// What `kubectl get` shows, left to right.
    pub columns: Vec<Column>,
    /// Paths a field selector may name, beside `metadata.name` and `metadata.namespace`.
    pub selectable: Vec<Selectable>,
    pub(crate) rules: Rules,
    pub(crate) doors: Vec<(&'static str, Door)>,
}

/// Where and as what the objects are kept. Two resources that serve the same objects share one.
#[derive(Debug, Clone)]
pub struct Storage {
    /// Names the watch cache; the same for every version of a kind.
    pub resource: GroupResource,
    /// The version that is written.
    pub gvk: Arc<Gvk>,
    /// Kubernetes' own key layout: `/registry/pods/`, followed by `NAMESPACE/NAME` or `NAME`.
    pub prefix: String,
    /// How this resource's own version differs from the stored one.
    pub versions: Versions,
}

/// How a served version becomes the stored one and back.
#[derive(Debug, Clone, Copy)]
pub enum Versions {
    /// Served as stored, or differing in `apiVersion` alone.
    Alike,
    /// Fields are renamed: stored name to served name.
    Renamed(&'static [(&'static str, &'static str)]),
    /// The versions differ in more than names.
    Translated(Translation),
    /// Asks [`crate::gates::Convert`] (CRDs with a conversion).
    Asked,
}

/// What makes one version of the other. Both ways lose nothing, and `apiVersion` is not theirs to change.
#[derive(Debug, Clone, Copy)]
pub struct Translation {
    pub to_served: fn(&mut Value),
    pub to_stored: fn(&mut Value),
}

/// A field that field selectors may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selectable {
    /// As the selector spells it: `spec.nodeName`.
    pub path: String,
    /// What an absent field counts as.
    pub default: &'static str,
    /// Where it is read, the first place that has something; none: at `path`.
    pub places: Vec<String>,
}

/// The functions that make a kind what it is. All are pure but for `claim`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub name: NameRule,
    /// Fills in defaults of the kind that are not in the schema's table, and resets what clients may not set.
    /// Called with the old object for updates.
    pub prepare: fn(&mut Value, Option<&Value>),
    /// Writes into a new object who makes it.
    pub author: Option<fn(&mut Value, &UserInfo)>,
    /// Writes the times that the system sets, through whichever door the object changes.
    pub stamp: Option<fn(&mut Value, Option<&Value>, Timestamp)>,
    /// Marks an object that is asked to go for the first time (a phase, a finalizer of the system's own).
    pub dying: fn(&mut Value, Timestamp),
    /// Everything wrong with a new object, or with a change.
    pub validate: fn(&Value, Option<&Value>, &mut Vec<Cause>),
    /// Takes cluster-wide goods (addresses, ports) for the object and writes them into it.
    pub claim: Option<Claim>,
    /// Objects expire this long after their last write (events).
    pub ttl: Option<Duration>,
    /// Whether `metadata.generation` counts changes of everything outside `metadata` and `status`.
    pub generation: bool,
    /// Whether `status` is written through the `status` door only.
    pub status: bool,
    /// Whether a new object keeps the status it brings.
    pub born_with_status: bool,
    pub deletion: Deletion,
    /// An update without `metadata.resourceVersion` overwrites; otherwise it is refused.
    pub unconditional_update: bool,
    /// An update of a name that is not there creates it.
    pub create_on_update: bool,
}

/// What a delete does to an object of the kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deletion {
    /// Goes at once, unless finalizers hold it.
    AtOnce,
    /// Stays for a number of seconds, marked; a second delete may shorten them. The function tells how many, given the
    /// caller's wish; 0 removes at once.
    Graceful(fn(&Value, Option<u64>) -> u64),
    /// `spec.finalizers` hold it as well, and `status.phase` tells (namespaces).
    Namespace,
}

/// How a subresource is entered.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    /// Shows the whole object and changes one part of it: the function takes the new and the old object and puts back,
    /// in the new one, all that this door may not change. The last function validates instead of the kind's own.
    Part(fn(&mut Value, &Value), fn(&Value, Option<&Value>, &mut Vec<Cause>)),
    /// `autoscaling/v1 Scale` over these paths.
    Scale(ScalePaths),
    /// Does something of its own on create.
    Act(Act),
    /// A connection that `api` carries; the registry only knows its name.
    Stream,
}

pub(crate) type Claim = fn(&mut Claims<'_>, &mut Value, Option<&Value>) -> Result<(), Failure>;

pub(crate) type Act = for<'a> fn(&'a Registry, Acting<'a>) -> BoxFuture<'a, Result<Outcome, Failure>>;

/// A create on a subresource that acts: already authorised, decoded and admitted.
pub(crate) struct Acting<'a> {
    pub job: &'a Job<'a>,
    pub target: &'a Target,
    pub body: Value,
    pub notes: &'a mut Notes,
}

/// Where a kind keeps what `Scale` shows. Dotted, below the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    pub replicas: CompactString,
    pub status_replicas: CompactString,
    /// A LabelSelector object, or the selector as text. Empty: there is none.
    pub selector: CompactString,
}

impl ScalePaths {
    /// Where most kinds have them.
    pub fn usual() -> Self {
        Self {
            replicas: "spec.replicas".into(),
            status_replicas: "status.replicas".into(),
            selector: "spec.selector".into(),
        }
    }
}

impl Resource {
    /// A namespaced kind with every verb, stored as it is served under `/registry/PLURAL/`.
    pub fn namespaced(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self::new(group, version, kind, plural, Scope::Namespaced)
    }

    /// The same for a cluster-scoped kind.
    pub fn cluster(group: &str, version: &str, kind: &str, plural: &str) -> Self {
        Self::new(group, version, kind, plural, Scope::Cluster)
    }

    fn new(group: &str, version: &str, kind: &str, plural: &str, scope: Scope) -> Self {
        let gvk = Gvk::new(group, version, kind);
        let storage = Storage {
            resource: GroupResource::new(group, plural),
            gvk: Arc::new(gvk.clone()),
            prefix: format!("/registry/{plural}/"),
            versions: Versions::Alike,
        };
        let schema = body::schema_of(&gvk);
        let kind = Kind {
            stored: Some(gvk.clone()),
            gvk,
            plural: plural.into(),
            singular: kind.to_lowercase().into(),
            scope,
            short_names: Vec::new(),
            categories: Vec::new(),
            verbs: Verb::ALL.to_vec(),
            subresources: Vec::new(),
        };
        Self {
            kind: Arc::new(kind),
            storage,
            schema,
            custom: false,
            checked: false,
            stored_defaults: None,
            defaults_from: None,
            deprecated: None,
            closed: false,
            columns: vec![Column::name(), Column::age()],
            selectable: Vec::new(),
            rules: Rules::default(),
            doors: Vec::new(),
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut Kind)) -> Self {
        change(Arc::make_mut(&mut self.kind));
        self
    }

    pub fn short(self, names: &[&str]) -> Self {
        self.edit(|kind| kind.short_names = names.iter().map(|&n| n.into()).collect())
    }

    pub(crate) fn singular(self, name: &str) -> Self {
        self.edit(|kind| kind.singular = name.into())
    }

    pub fn categories(self, names: &[&str]) -> Self {
        self.edit(|kind| kind.categories = names.iter().map(|&n| n.into()).collect())
    }

    pub fn verbs(self, verbs: &[Verb]) -> Self {
        self.edit(|kind| kind.verbs = verbs.to_vec())
    }

    /// The columns after the name.
    pub fn columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = std::iter::once(Column::name()).chain(columns).collect();
        self
    }

    /// Fields a selector may name; an absent one counts as empty text.
    pub fn selectable(mut self, paths: &[&str]) -> Self {
        self.selectable.extend(paths.iter().map(|&path| Selectable {
            path: path.into(),
            default: "",
            places: Vec::new(),
        }));
        self
    }

    pub fn selectable_or(mut self, path: &str, default: &'static str) -> Self {
        self.selectable.push(Selectable {
            path: path.into(),
            default,
            places: Vec::new(),
        });
        self
    }

    /// A name that is no path of its own.
    pub(crate) fn selectable_at(mut self, name: &str, places: &[&str]) -> Self {
        self.selectable.push(Selectable {
            path: name.into(),
            default: "",
            places: places.iter().map(|&place| place.into()).collect(),
        });
        self
    }

    /// A schema of its own, for a kind that Kubernetes does not have.
    pub(crate) fn schema(mut self, schema: Schema) -> Self {
        self.schema = schema;
        self
    }

    /// All columns, for a kind whose first is not the name.
    pub(crate) fn only_columns(mut self, columns: Vec<Column>) -> Self {
        self.columns = columns;
        self
    }

    /// Where kube-apiserver keeps the kind, when that is not `/registry/PLURAL/`.
    pub fn stored_under(mut self, prefix: &str) -> Self {
        self.storage.prefix = prefix.into();
        self
    }

    /// Serves the objects of another resource under this one's version.
    pub(crate) fn translated_from(mut self, other: &Resource, translation: Translation) -> Self {
        self.storage = other.storage.clone();
        self.storage.versions = Versions::Translated(translation);
        self.stored_as(other.storage.gvk.clone())
    }

    /// Serves the objects of another resource under this one's version, with some top-level fields renamed
    /// (stored name, served name). Field selectors name the fields as they are served; the cache, which both faces share,
    /// reads them where they are stored.
    pub fn served_from(mut self, other: &Resource, renamed: &'static [(&'static str, &'static str)]) -> Self {
        self.storage = other.storage.clone();
        self.selectable = other.selectable.clone();
        for field in &mut self.selectable {
            let (first, rest) = field.path.split_once('.').unwrap_or((&field.path, ""));
            if let Some((_, served)) = renamed.iter().find(|(stored, _)| *stored == first) {
                let dot = if rest.is_empty() { "" } else { "." };
                let path = format!("{served}{dot}{rest}");
                let stored = std::mem::replace(&mut field.path, path);
                if field.places.is_empty() {
                    field.places.push(stored);
                }
            }
        }
        self.storage.versions = if renamed.is_empty() {
            Versions::Alike
        } else {
            Versions::Renamed(renamed)
        };
        self.stored_as(other.storage.gvk.clone())
    }

    /// The kind and version that is written.
    pub(crate) fn stored_as(mut self, gvk: Arc<Gvk>) -> Self {
        self.storage.gvk = gvk.clone();
        self.edit(|kind| kind.stored = Some((*gvk).clone()))
    }

    pub(crate) fn names(mut self, rule: NameRule) -> Self {
        self.rules.name = rule;
        self
    }

    pub(crate) fn prepare(mut self, prepare: fn(&mut Value, Option<&Value>)) -> Self {
        self.rules.prepare = prepare;
        self
    }

    pub(crate) fn validate(mut self, validate: fn(&Value, Option<&Value>, &mut Vec<Cause>)) -> Self {
        self.rules.validate = validate;
        self
    }

    pub(crate) fn author(mut self, author: fn(&mut Value, &UserInfo)) -> Self {
        self.rules.author = Some(author);
        self
    }

    pub(crate) fn stamp(mut self, stamp: fn(&mut Value, Option<&Value>, Timestamp)) -> Self {
        self.rules.stamp = Some(stamp);
        self
    }

    pub(crate) fn dying(mut self, dying: fn(&mut Value, Timestamp)) -> Self {
        self.rules.dying = dying;
        self
    }

    pub(crate) fn claim(mut self, claim: Claim) -> Self {
        self.rules.claim = Some(claim);
        self
    }

    pub(crate) fn ttl(mut self, ttl: Duration) -> Self {
        self.rules.ttl = Some(ttl);
        self
    }

    pub(crate) fn deletion(mut self, deletion: Deletion) -> Self {
        self.rules.deletion = deletion;
        self
    }

    /// Data without a spec (`ConfigMap`, `Event`): nothing to count generations of.
    pub(crate) fn no_generation(mut self) -> Self {
        self.rules.generation = false;
        self
    }

    /// Who makes one of the kind knows its status already (a kubelet that registers its node).
    pub(crate) fn born_with_status(mut self) -> Self {
        self.rules.born_with_status = true;
        self
    }

    /// Updates must say which version they change.
    pub(crate) fn conditional_updates(mut self) -> Self {
        self.rules.unconditional_update = false;
        self
    }

    pub(crate) fn create_on_update(mut self) -> Self {
        self.rules.create_on_update = true;
        self
    }

    /// The `status` subresource: `status` changes there and nowhere else, and little else changes there.
    pub(crate) fn status(self) -> Self {
        let validate = self.rules.validate;
        self.status_checked(validate)
    }

    /// The same with rules of its own for what is written there.
    pub(crate) fn status_checked(self, validate: fn(&Value, Option<&Value>, &mut Vec<Cause>)) -> Self {
        let part = if self.custom { only_status } else { status_and_metadata };
        self.status_door(part, validate)
    }

    /// The same, for a kind whose status has parts that do not change there.
    pub(crate) fn status_door(
        mut self,
        part: fn(&mut Value, &Value),
        validate: fn(&Value, Option<&Value>, &mut Vec<Cause>),
    ) -> Self {
        self.rules.status = true;
        let verbs = &[Verb::Get, Verb::Patch, Verb::Update];
        self.door("status", None, verbs, Door::Part(part, validate))
    }

    pub(crate) fn scale(self, paths: ScalePaths) -> Self {
        let kind = Gvk::new("autoscaling", "v1", "Scale");
        self.door(
            "scale",
            Some(kind),
            &[Verb::Get, Verb::Patch, Verb::Update],
            Door::Scale(paths),
        )
    }

    /// A create on `PARENT/name/NAME` that does something of its own with an object of `kind`.
    pub(crate) fn act(self, name: &'static str, kind: Gvk, act: Act) -> Self {
        self.door(name, Some(kind), &[Verb::Create], Door::Act(act))
    }

    pub(crate) fn stream(self, name: &'static str, kind: Option<Gvk>, verbs: &[Verb]) -> Self {
        self.door(name, kind, verbs, Door::Stream)
    }

    pub(crate) fn door(mut self, name: &'static str, kind: Option<Gvk>, verbs: &[Verb], door: Door) -> Self {
        self.doors.push((name, door));
        self.edit(|parent| {
            parent.subresources.push(Subresource {
                name: name.into(),
                kind,
                verbs: verbs.to_vec(),
            });
        })
    }

    pub(crate) fn find_door(&self, name: &str) -> Option<Door> {
        self.doors
            .iter()
            .find(|(door, _)| *door == name)
            .map(|(_, door)| door.clone())
    }

    /// One row of `kubectl get`, a cell per column. `now` is what ages are counted to.
    pub fn table(&self, object: &Object, now: Timestamp) -> Vec<Value> {
        table::row(&self.columns, object, now)
    }

    /// Does the kind have `status` as a part of its own, with the `status` subresource?
    pub fn has_status(&self) -> bool {
        self.rules.status
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            name: NameRule::Subdomain,
            prepare: |_, _| {},
            author: None,
            stamp: None,
            dying: |_, _| {},
            validate: |_, _, _| {},
            claim: None,
            ttl: None,
            generation: true,
            status: false,
            born_with_status: false,
            deletion: Deletion::AtOnce,
            unconditional_update: true,
            create_on_update: false,
        }
    }
}

/// Puts back everything but `status` and what the caller may say of `metadata`: built-in kinds take labels and
/// annotations through this door too, and owners they do not.
pub(crate) fn status_and_metadata(new: &mut Value, old: &Value) {
    let (Some(fields), Some(before)) = (new.as_object_mut(), old.as_object()) else {
        return;
    };
    fields.retain(|key, _| matches!(key.as_str(), "metadata" | "status"));
    for (key, value) in before
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status"))
    {
        fields.insert(key.clone(), value.clone());
    }
    let owners = old.pointer("/metadata/ownerReferences").cloned();
    if let Some(meta) = new.get_mut("metadata") {
        crate::meta::put(meta, "ownerReferences", owners);
    }
}

/// Puts back everything but `status`. Labels and annotations stay as they were too; `managedFields` may follow the change.
pub(crate) fn only_status(new: &mut Value, old: &Value) {
    let status = new.get_mut("status").map(Value::take);
    let managed = new.pointer_mut("/metadata/managedFields").map(Value::take);
    let version = new.pointer_mut("/metadata/resourceVersion").map(Value::take);
    *new = old.clone();
    let put = |at: &mut Value, key: &str, value: Option<Value>| {
        let Some(map) = at.as_object_mut() else {
            return;
        };
        match value {
            Some(value) => map.insert(key.into(), value),
            None => map.remove(key),
        };
    };
    put(new, "status", status);
    if let Some(meta) = new.get_mut("metadata") {
        put(meta, "managedFields", managed);
        put(meta, "resourceVersion", version);
    }
}
