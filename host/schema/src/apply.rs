//! Server-side apply and the bookkeeping of every other write: who owns which field (KEP-555).
//!
//! [`apply`] merges a configuration into the live object; [`track_update`] records what any other write changed. Both
//! read and write `metadata.managedFields` and nothing else of the object's metadata; both are pure, so a refused write
//! leaves no trace.

use std::collections::BTreeMap;

use model::{Cause, CauseReason, Failure, Gvk, ObjectKey};
use serde_json::{Map, Value, json};

use crate::Schema;
use crate::fields::Set;
use crate::typed::{self, Comparison};

/// Owners by update beyond this are folded into one, `ancient-changes`.
const MOST_UPDATERS: usize = 10;
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Nobody owns these.
const UNOWNED: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "metadata.name",
    "metadata.namespace",
    "metadata.creationTimestamp",
    "metadata.selfLink",
    "metadata.uid",
    "metadata.clusterName",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
];

/// Who writes, and how.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'w> {
    /// The request's `fieldManager`, or what the user agent says.
    pub manager: &'w str,
    /// Empty for the object itself.
    pub subresource: &'w str,
    /// Now, as `metav1.Time` writes it.
    pub time: &'w str,
    /// Paths that this door does not write, whatever the body says (`status`; `spec` and `metadata` through `/status`):
    /// such fields never become the writer's.
    pub resets: &'w [&'w str],
}

/// Whose a set of fields is. Two writes with equal owners add to one entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    /// `Apply`, otherwise `Update`. Entries are listed in this order.
    by_update: bool,
    manager: String,
    /// Empty for `Apply`, so that it stays one owner when it moves on to another version.
    version: String,
    subresource: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    fields: Set,
    version: String,
    /// Empty: not known.
    time: String,
}

type Owners = BTreeMap<Owner, Entry>;

/// `config` merged into `live` (`None`: there is no such object yet), as the writer's wish for the fields it names.
///
/// What the writer applied before and does not name any more is removed, unless others own it too. Defaulting and
/// [`Schema::conform`] come after; `key` names the object in a refusal.
///
/// # Errors
/// [`Failure::Conflict`] with a cause for each field that another owner has set to another value, unless `force`;
/// [`Failure::BadRequest`] for a configuration of another kind or version, with `managedFields`, or that does not fit the schema.
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    config: &Value,
    writer: Writer<'_>,
    force: bool,
    key: &ObjectKey,
) -> Result<Value, Failure> {
    check_config(schema, config)?;
    let fresh = live.is_none();
    let before = live.cloned().map_or_else(|| blank(schema), Ok)?;
    let mut owners = read_owners(&before);
    let mut live = before;
    strip_managed(&mut live);
    if owners.is_empty() && !fresh {
        // The object was never tracked: whoever made it owns it under a name that says so.
        let made = Owner {
            by_update: true,
            manager: "before-first-apply".into(),
            version: version(schema),
            subresource: String::new(),
        };
        let compared = Comparison::of(schema.root(), &blank(schema)?, &live);
        let fields = owned(compared.added.union(compared.modified));
        owners.insert(
            made,
            Entry {
                fields,
                version: version(schema),
                time: writer.time.to_owned(),
            },
        );
    }
    reconcile(schema, &mut owners);
    let owner = Owner {
        by_update: false,
        manager: writer.manager.into(),
        version: String::new(),
        subresource: writer.subresource.into(),
    };
    let merge = Merge {
        schema,
        live: &live,
        config,
        owners,
        owner,
        writer,
    };
    let (merged, owners) = match merge.run(force) {
        Ok(done) => done,
        Err(conflicts) => {
            let rest = merge.not_of_client_side_apply(conflicts);
            match rest.is_empty() {
                true => merge.run(true).map_err(|conflicts| refusal(&conflicts, key))?,
                false => return Err(refusal(&rest, key)),
            }
        }
    };
    let mut object = merged;
    if writer.manager == "kubectl" {
        renew_last_applied(&mut object, config);
    }
    write_owners(&mut object, owners);
    Ok(object)
}

/// Records in `new` what it changes of `live` (`None`: it is created) as the writer's. `new` may carry `managedFields` of
/// its own, which then count instead of the live ones; `[{}]` clears them.
///
/// # Errors
/// [`Failure::BadRequest`] if the kind's own blank form cannot be made; never for what stands in `new`.
pub fn track_update(schema: &Schema, live: Option<&Value>, new: &mut Value, writer: Writer<'_>) -> Result<(), Failure> {
    let nothing;
    let before = match live {
        Some(live) => live,
        None => {
            nothing = blank(schema)?;
            &nothing
        }
    };
    let sent = new.pointer("/metadata/managedFields").and_then(Value::as_array);
    let resets = writer.subresource.is_empty() && sent.is_some_and(|sent| sent.len() == 1 && sent[0] == json!({}));
    let mut owners = if writer.subresource.is_empty() {
        read_owners(new)
    } else {
        Owners::new()
    };
    if owners.is_empty() && !resets {
        owners = read_owners(before);
    }
    // The old ones may stay: that they are gone is nobody's loss.
    strip_managed(new);
    if owners.is_empty() && live.is_some() {
        return Ok(());
    }
    reconcile(schema, &mut owners);
    let compared = Comparison::of(schema.root(), before, new).without(&Set::of_names(writer.resets));
    let changed = compared.modified.union(compared.added);
    for entry in owners.values_mut() {
        entry.fields.subtract(&changed);
        entry.fields.subtract(&compared.removed);
    }
    let fields = owned(changed);
    if !fields.is_empty() {
        let version = version(schema);
        let owner = Owner {
            by_update: true,
            manager: writer.manager.into(),
            version: version.clone(),
            subresource: writer.subresource.into(),
        };
        let entry = owners.entry(owner).or_insert_with(|| Entry {
            fields: Set::default(),
            version,
            time: String::new(),
        });
        entry.fields.extend(fields);
        entry.time = writer.time.to_owned();
    }
    owners.retain(|_, entry| !entry.fields.is_empty());
    fold_ancient(&mut owners);
    write_owners(new, owners);
    Ok(())
}

fn check_config(schema: &Schema, config: &Value) -> Result<(), Failure> {
    let wanted = version(schema);
    let word = |name: &str| config.get(name).and_then(Value::as_str).unwrap_or_default();
    if word("apiVersion") != wanted || word("kind") != schema.gvk().kind {
        let says = format!("invalid object type: {}, Kind={}", word("apiVersion"), word("kind"));
        return Err(Failure::BadRequest(says));
    }
    if config
        .pointer("/metadata/managedFields")
        .is_some_and(|managed| !managed.is_null())
    {
        return Err(Failure::BadRequest("metadata.managedFields must be nil".into()));
    }
    typed::check(Some(schema.root()), config).map_err(|says| {
        let named = |path| config.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (named("/metadata/namespace"), named("/metadata/name"));
        let Gvk { group, version, kind } = schema.gvk();
        Failure::BadRequest(format!(
            "failed to create typed patch object ({namespace}/{name}; {group}/{version}, Kind={kind}): {says}"
        ))
    })
}

struct Merge<'m> {
    schema: &'m Schema,
    live: &'m Value,
    config: &'m Value,
    owners: Owners,
    owner: Owner,
    writer: Writer<'m>,
}

/// A field and the owner who has set it otherwise.
type Conflict = (Owner, String);

impl Merge<'_> {
    fn run(&self, force: bool) -> Result<(Value, Owners), Vec<Conflict>> {
        let root = Some(self.schema.root());
        let merged = typed::merge(root, Some(self.live), Some(self.config)).unwrap_or(Value::Null);
        let ignored = Set::of_names(self.writer.resets);
        let mut owners = self.owners.clone();
        let last = owners.remove(&self.owner);
        let wanted = typed::fields(root, self.config).deep_difference(&ignored);
        let version = version(self.schema);
        let time = last.as_ref().map(|entry| entry.time.clone()).unwrap_or_default();
        owners.insert(
            self.owner.clone(),
            Entry {
                fields: wanted,
                version,
                time,
            },
        );
        let object = match &last {
            Some(last) if !last.fields.is_empty() => self.prune(&merged, &last.fields, &owners),
            _ => merged,
        };
        let compared = Comparison::of(self.schema.root(), self.live, &object).without(&ignored);
        let changed = compared.modified.union(compared.added);
        let mut conflicts = Vec::new();
        for (owner, entry) in owners.iter_mut().filter(|(owner, _)| **owner != self.owner) {
            let lost = entry.fields.intersection(&changed);
            conflicts.extend(lost.paths().into_iter().map(|path| (owner.clone(), path)));
            entry.fields.subtract(&lost);
            entry.fields.subtract(&compared.removed);
        }
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mine = owners.get_mut(&self.owner).expect("it was just put there");
        mine.fields = owned(std::mem::take(&mut mine.fields));
        // The time tells of a change, so that applying the same again writes nothing.
        let unchanged = last
            .as_ref()
            .is_some_and(|last| last.fields == mine.fields && last.version == mine.version);
        if object != *self.live || !unchanged {
            mine.time = self.writer.time.to_owned();
        }
        owners.retain(|_, entry| !entry.fields.is_empty());
        Ok((object, owners))
    }

    /// Without what the writer applied last time, does not now, and nobody else owns.
    fn prune(&self, merged: &Value, last: &Set, owners: &Owners) -> Value {
        let root = Some(self.schema.root());
        let last = last.with_structs(root);
        let mut pruned = typed::remove(root, merged, &last);
        let all = typed::fields(root, merged).with_structs(root);
        let managed = owners
            .values()
            .fold(Set::default(), |all, entry| all.union(entry.fields.clone()))
            .with_structs(root);
        // Add back what anybody owns …
        let kept = typed::fields(root, &pruned).with_structs(root).union(managed);
        pruned = typed::remove(root, merged, &all.clone().difference(&kept));
        // … and what the writer did not own, though it was inside of something it did.
        let kept = typed::fields(root, &pruned).with_structs(root);
        typed::remove(root, merged, &all.difference(&kept).intersection(&last))
    }

    /// kubectl may take over what its own client-side apply has set, as long as that still stands: without this, moving
    /// to server-side apply would be a conflict with oneself.
    fn not_of_client_side_apply(&self, conflicts: Vec<Conflict>) -> Vec<Conflict> {
        let annotation = self
            .live
            .pointer("/metadata/annotations")
            .and_then(|a| a.get(LAST_APPLIED));
        let applied: Option<Value> = annotation
            .and_then(Value::as_str)
            .and_then(|text| serde_json::from_str(text).ok());
        let version = version(self.schema);
        let Some(applied) = applied.filter(|applied| {
            self.writer.manager == "kubectl" && applied.get("apiVersion").and_then(Value::as_str) == Some(&version)
        }) else {
            return conflicts;
        };
        let compared = Comparison::of(self.schema.root(), &applied, self.live);
        let fields = typed::fields(Some(self.schema.root()), &applied);
        let allowed = fields
            .difference(&compared.modified)
            .difference(&compared.added)
            .difference(&compared.removed)
            .paths();
        conflicts
            .into_iter()
            .filter(|(_, path)| !allowed.contains(path))
            .collect()
    }
}

/// `Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas`.
fn refusal(conflicts: &[Conflict], key: &ObjectKey) -> Failure {
    let reason = match conflicts {
        [(owner, path)] => format!("Apply failed with 1 conflict: conflict with {}: {path}", owner.shown()),
        many => {
            let mut lines = Vec::new();
            let mut last: Option<&Owner> = None;
            for (owner, path) in many {
                if last != Some(owner) {
                    lines.push(format!("conflicts with {}:", owner.shown()));
                }
                lines.push(format!("- {path}"));
                last = Some(owner);
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let cause = |(owner, path): &Conflict| Cause {
        reason: CauseReason::FieldManagerConflict,
        field: path.clone(),
        message: format!("conflict with {}", owner.shown()),
    };
    Failure::Conflict {
        object: key.clone(),
        reason,
        causes: conflicts.iter().map(cause).collect(),
    }
}

impl Owner {
    fn shown(&self) -> String {
        let mut shown = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            shown += &format!(" with subresource {:?}", self.subresource);
        }
        if self.by_update {
            shown += &format!(" using {}", self.version);
        }
        shown
    }
}

fn version(schema: &Schema) -> String {
    schema.gvk().api_version()
}

/// What a new object is compared with: all that its kind writes by itself is nobody's.
fn blank(schema: &Schema) -> Result<Value, Failure> {
    let mut blank = json!({"apiVersion": version(schema), "kind": schema.gvk().kind});
    schema.conform(&mut blank)?;
    Ok(blank)
}

fn owned(fields: Set) -> Set {
    fields.difference(&Set::of_names(UNOWNED))
}

fn reconcile(schema: &Schema, owners: &mut Owners) {
    for entry in owners.values_mut() {
        entry.fields = typed::reconcile(Some(schema.root()), &entry.fields);
    }
}

fn strip_managed(object: &mut Value) {
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        metadata.remove("managedFields");
    }
}

/// Entries that cannot be understood are dropped, as kube-apiserver does: they would refuse every write otherwise.
fn read_owners(object: &Value) -> Owners {
    let mut owners = Owners::new();
    for entry in object
        .pointer("/metadata/managedFields")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let by_update = match text("operation").as_str() {
            "Update" => true,
            "Apply" => false,
            _ => continue,
        };
        let version = text("apiVersion");
        let owner = Owner {
            by_update,
            manager: text("manager"),
            version: if by_update { version.clone() } else { String::new() },
            subresource: text("subresource"),
        };
        let fields = Set::from_v1(entry.get("fieldsV1").unwrap_or(&Value::Null));
        owners.insert(
            owner,
            Entry {
                fields,
                version,
                time: text("time"),
            },
        );
    }
    owners
}

fn write_owners(object: &mut Value, owners: Owners) {
    let mut sorted: Vec<(Owner, Entry)> = owners.into_iter().collect();
    sorted.sort_by(|(a, x), (b, y)| {
        let order = |owner: &Owner, entry: &Entry| {
            (
                owner.by_update,
                entry.time.clone(),
                owner.manager.clone(),
                entry.version.clone(),
                owner.subresource.clone(),
            )
        };
        order(a, x).cmp(&order(b, y))
    });
    let entries = sorted.into_iter().map(|(owner, entry)| {
        let mut written = Map::new();
        let mut put = |name: &str, value: String| {
            if !value.is_empty() {
                written.insert(name.to_owned(), value.into());
            }
        };
        put("manager", owner.manager);
        put("operation", if owner.by_update { "Update" } else { "Apply" }.to_owned());
        put("apiVersion", entry.version);
        put("time", entry.time);
        put("fieldsType", "FieldsV1".to_owned());
        put("subresource", owner.subresource);
        written.insert("fieldsV1".into(), entry.fields.into_v1());
        Value::Object(written)
    });
    let entries: Vec<Value> = entries.collect();
    let Some(object) = object.as_object_mut() else {
        return;
    };
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if let (Some(metadata), false) = (metadata.as_object_mut(), entries.is_empty()) {
        metadata.insert("managedFields".into(), Value::Array(entries));
    }
}

/// An object that ten thousand programs have touched must not carry ten thousand entries.
fn fold_ancient(owners: &mut Owners) {
    let mut updaters: Vec<(String, Owner)> = owners
        .iter()
        .filter(|(owner, _)| owner.by_update)
        .map(|(owner, entry)| (entry.time.clone(), owner.clone()))
        .collect();
    updaters.sort();
    let mut length = updaters.len();
    let mut firsts: BTreeMap<String, Owner> = BTreeMap::new();
    for (_, owner) in updaters {
        if length <= MOST_UPDATERS {
            return;
        }
        let Some(first) = firsts.get(&owner.version) else {
            firsts.insert(owner.version.clone(), owner);
            continue;
        };
        let bucket = Owner {
            manager: "ancient-changes".into(),
            subresource: String::new(),
            ..owner.clone()
        };
        let earlier = owners.remove(&bucket).or_else(|| owners.remove(first));
        let Some(mut entry) = owners.remove(&owner) else {
            continue;
        };
        if let Some(earlier) = earlier {
            entry.fields.extend(earlier.fields);
        }
        owners.insert(bucket, entry);
        length -= 1;
    }
}

/// Keeps what a client-side `kubectl apply` would compare with in step, where there is such a thing.
fn renew_last_applied(object: &mut Value, config: &Value) {
    let annotations = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    let Some(annotation) = annotations.and_then(|a| a.get_mut(LAST_APPLIED)) else {
        return;
    };
    if annotation.as_str().is_none_or(str::is_empty) {
        return;
    }
    let mut config = config.clone();
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    *annotation = format!("{config}\n").into();
}

/// `config` laid over `live` as structured merge does, without keeping books: what a MutatingAdmissionPolicy applies.
///
/// # Errors
/// A configuration that does not fit the kind, or sets a part that is one value to apply: the rest of it would be lost.
pub fn merge_into(schema: &Schema, live: &Value, config: &Value) -> Result<Value, String> {
    typed::check(Some(schema.root()), config)?;
    let mut atomic = Vec::new();
    typed::atomics(schema.root(), config, "", &mut atomic);
    if !atomic.is_empty() {
        let parts = atomic.join(", ");
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {parts}"
        ));
    }
    let root = schema.root();
    Ok(typed::merge(Some(root), Some(live), Some(config)).unwrap_or_else(|| live.clone()))
}
