//! Serving custom kinds: from CustomResourceDefinitions to the catalog and back out of it.
//!
//! One task follows the definitions. For each it compiles the schemas, puts the kinds into the catalog, and only then
//! says `Established`, so whoever waits for that finds the kind served. A definition that is deleted is held by a
//! finalizer until its objects are gone; then its kinds leave the catalog. A crash anywhere leaves definitions that the
//! task looks at anew when the registry opens.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::Duration;

use client::{
    Action, Cluster, Collection, DeleteOptions, ListOptions, PatchKind, Preconditions, ReadVersion, Target,
    WatchOptions, WatchStream, Write, WriteOptions, Written,
};
use compact_str::CompactString;
use futures::{FutureExt, StreamExt};
use model::{Failure, GroupResource, Gvk, Gvr, Object, ResourceVersion, Scope};
use schema::Schema;
use serde_json::{Value, json};

use crate::Registry;
use crate::bootstrap::system;
use crate::jsonpath::JsonPath;
use crate::meta;
use crate::registry::Inner;
use crate::resource::{Resource, ScalePaths, Selectable, Versions};
use crate::resources::crd::{CLEANUP, GROUP, is_true, set_condition};
use crate::resources::crd_check::{Approval, MUST_APPROVE, approval_of};
use crate::table::{Column, list_at, plain, text_at};

fn definitions() -> Gvr {
    Gvr::new(GROUP, "v1", "customresourcedefinitions")
}

/// Serves what is defined already, and goes on following the definitions for as long as the registry lives.
pub(crate) async fn follow(registry: &Registry) -> Result<(), Failure> {
    let mut follower = Follower::default();
    let version = follower.look(registry).await?;
    let changed = follower.serve(registry);
    let weak = Arc::downgrade(&registry.inner);
    let mut changes = registry
        .watch(&system(), &Collection::all(definitions()), &from_version(version))
        .await?;
    tokio::spawn(async move {
        follower.settle(&weak, &changed).await;
        loop {
            let next = changes.next().await;
            // What came meanwhile is looked at in one go.
            let mut going = matches!(next, Some(Ok(_)));
            while let Some(more) = changes.next().now_or_never() {
                going &= matches!(more, Some(Ok(_)));
                if !going {
                    break;
                }
            }
            let Some(inner) = weak.upgrade() else { return };
            let registry = Registry { inner };
            let version = match follower.look(&registry).await {
                Ok(version) => version,
                Err(error) => {
                    tracing::warn!(%error, "the CustomResourceDefinitions cannot be read");
                    drop(registry);
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let changed = follower.serve(&registry);
            if !going {
                // The watch is over: begin a new one from this state.
                match registry
                    .watch(&system(), &Collection::all(definitions()), &from_version(version))
                    .await
                {
                    Ok(again) => changes = again,
                    Err(error) => {
                        tracing::warn!(%error, "the CustomResourceDefinitions cannot be watched");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                }
            }
            drop(registry);
            follower.settle(&weak, &changed).await;
        }
    });
    Ok(())
}

fn from_version(from: ResourceVersion) -> WatchOptions {
    WatchOptions {
        from: Some(from),
        ..WatchOptions::default()
    }
}

/// What is kept of a definition between two looks: its document stays in the watch cache, as bytes.
struct Known {
    object: Arc<Object>,
    group: CompactString,
    /// Plural, singular and short names.
    words: Vec<CompactString>,
    kind: CompactString,
    list_kind: CompactString,
    short: usize,
    created: CompactString,
    accepted: bool,
    dying: bool,
    /// What was compiled, and of which spec.
    served: Option<(u64, Vec<Arc<Resource>>)>,
}

impl Known {
    fn read(object: Arc<Object>, value: &Value) -> Self {
        let spec = &value["spec"];
        let names = &spec["names"];
        let shorts = list_at(names, "shortNames");
        let mut words: Vec<CompactString> = vec![text_at(names, "plural").into(), text_at(names, "singular").into()];
        words.extend(shorts.iter().map(|name| CompactString::from(plain(name))));
        Self {
            object,
            group: text_at(spec, "group").into(),
            words,
            kind: text_at(names, "kind").into(),
            list_kind: text_at(names, "listKind").into(),
            short: shorts.len(),
            created: meta::text(value, "creationTimestamp").into(),
            accepted: is_true(value, "NamesAccepted"),
            dying: meta::is_dying(value),
            served: None,
        }
    }

    /// The elder of two that want the same name has it, and whoever has it already before anybody.
    fn rank(&self) -> (bool, &str, &str) {
        (!self.accepted, &self.created, &self.object.key.name)
    }
}

/// What the task knows from one round to the next.
#[derive(Default)]
struct Follower {
    known: BTreeMap<CompactString, Known>,
    /// Those that are new or changed since they were served last.
    fresh: BTreeSet<CompactString>,
    /// Some definition is gone.
    lost: bool,
    /// Definitions whose objects are being removed by a task of their own.
    emptying: BTreeSet<CompactString>,
}

impl Follower {
    /// Reads what has changed since the last look.
    async fn look(&mut self, registry: &Registry) -> Result<ResourceVersion, Failure> {
        let resource = registry.find(&definitions())?;
        let cache = registry.cache(&resource).await?;
        let (objects, version) = cache.snapshot();
        let names: BTreeSet<&CompactString> = objects.values().map(|entry| &entry.object.key.name).collect();
        let gone: Vec<CompactString> = self
            .known
            .keys()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        for name in gone {
            self.lost = true;
            self.emptying.remove(&name);
            if let Some(Known {
                served: Some((_, resources)),
                ..
            }) = self.known.remove(&name)
            {
                for resource in resources {
                    registry.drop_cache(&resource.storage.resource);
                }
            }
        }
        for entry in objects.values() {
            let object = &entry.object;
            let had = self.known.get(&object.key.name);
            if had.is_some_and(|known| Arc::ptr_eq(&known.object, object)) {
                continue;
            }
            let mut known = Known::read(object.clone(), &object.value());
            known.served = self.known.remove(&object.key.name).and_then(|had| had.served);
            self.known.insert(object.key.name.clone(), known);
            self.fresh.insert(object.key.name.clone());
        }
        Ok(version)
    }

    /// Brings the catalog in line with the definitions. Answers those whose status is to be looked at.
    fn serve(&mut self, registry: &Registry) -> BTreeSet<CompactString> {
        let mut changed = std::mem::take(&mut self.fresh);
        // A name that one gave up may be another's now.
        changed.extend(
            self.known
                .iter()
                .filter(|(_, k)| !k.accepted)
                .map(|(name, _)| name.clone()),
        );
        let mut recompiled = std::mem::take(&mut self.lost);
        for name in &changed {
            let Some(known) = self.known.get(name) else { continue };
            if let Err((reason, message)) = accept(registry, known, &self.known) {
                tracing::debug!(%name, reason, %message, "names are not accepted");
                // Kinds that are served already stay as they are.
                continue;
            }
            let definition = known.object.value();
            let spec = fingerprint(&definition);
            if known.served.as_ref().is_some_and(|(before, _)| *before == spec) {
                continue;
            }
            let resources: Vec<Arc<Resource>> = match compile(&definition) {
                Ok(resources) => resources.into_iter().map(Arc::new).collect(),
                Err(error) => {
                    tracing::error!(%name, %error, "a stored CustomResourceDefinition cannot be served");
                    continue;
                }
            };
            // Watchers stay, unless what the cache makes of each object is another thing now.
            let makes = |r: &[Arc<Resource>]| {
                r.first().map(|r| {
                    (
                        r.selectable.clone(),
                        r.kind.scope,
                        r.storage.gvk.clone(),
                        r.defaults_from,
                    )
                })
            };
            if known
                .served
                .as_ref()
                .is_some_and(|(_, had)| makes(had) != makes(&resources))
            {
                registry.drop_cache(&storage_of(&definition));
            }
            recompiled = true;
            if let Some(known) = self.known.get_mut(name) {
                known.served = Some((spec, resources));
            }
        }
        if recompiled {
            let custom = self.known.values().filter_map(|k| k.served.as_ref());
            let custom = custom.flat_map(|(_, resources)| resources.iter().cloned());
            let next = registry.inner.catalog.load().with_custom(custom);
            registry.inner.catalog.store(Arc::new(next));
            registry.inner.catalog_changed.send_modify(|n| *n += 1);
        }
        changed
    }

    /// Writes down what became of each definition, and begins to empty those that are to go.
    async fn settle(&mut self, weak: &Weak<Inner>, changed: &BTreeSet<CompactString>) {
        for name in changed {
            let Some(inner) = weak.upgrade() else { return };
            let registry = Registry { inner };
            let Some(known) = self.known.get(name) else { continue };
            let definition = known.object.value();
            if known.dying {
                let held = meta::finalizers(&definition).contains(&CLEANUP);
                if held && self.emptying.insert(name.clone()) {
                    tokio::spawn(empty(weak.clone(), definition));
                }
                continue;
            }
            let accepted = accept(&registry, known, &self.known);
            if let Err(error) = tell(&registry, &definition, accepted).await {
                // The definition changed meanwhile: its event brings us here again.
                tracing::debug!(%name, %error, "the status of a CustomResourceDefinition was not written");
            }
        }
    }
}

/// Tells specs apart, without keeping them.
fn fingerprint(definition: &Value) -> u64 {
    let mut hasher = ahash::RandomState::with_seeds(1, 2, 3, 4).build_hasher();
    definition["spec"].to_string().hash(&mut hasher);
    (meta::is_dying(definition), meta::text(definition, "uid")).hash(&mut hasher);
    hasher.finish()
}

/// Whether the definition may have the names it asks for.
fn accept(
    registry: &Registry,
    definition: &Known,
    known: &BTreeMap<CompactString, Known>,
) -> Result<(), (&'static str, String)> {
    let plural = &definition.words[0];
    if registry.inner.catalog.load().is_built_in(&definition.group, plural) {
        let says = format!("{plural:?} is a built-in resource of {:?}", definition.group);
        return Err(("PluralConflict", says));
    }
    let in_use = |name: &str| format!("{name:?} is already in use");
    let me = definition.rank();
    let elders = known
        .values()
        .filter(|other| other.group == definition.group && other.rank() < me);
    for other in elders {
        for (at, name) in definition
            .words
            .iter()
            .enumerate()
            .filter(|(_, name)| other.words.contains(name))
        {
            let reason = match at {
                0 => "PluralConflict",
                1 => "SingularConflict",
                at if at < 2 + definition.short => "ShortNamesConflict",
                _ => continue,
            };
            return Err((reason, in_use(name)));
        }
        for (reason, name) in [
            ("KindConflict", &definition.kind),
            ("ListKindConflict", &definition.list_kind),
        ] {
            if [&other.kind, &other.list_kind].contains(&name) {
                return Err((reason, in_use(name)));
            }
        }
    }
    Ok(())
}

/// `NamesAccepted`, `Established`, and for groups of the project's own whether their API was approved.
async fn tell(
    registry: &Registry,
    definition: &Value,
    accepted: Result<(), (&'static str, String)>,
) -> Result<(), Failure> {
    let now = registry.now();
    let mut new = definition.clone();
    match accepted {
        Ok(()) => {
            new["status"]["acceptedNames"] = definition["spec"]["names"].clone();
            let says = "no conflicts found";
            set_condition(&mut new, "NamesAccepted", true, "NoConflicts", says, now);
            let says = "the initial names have been accepted";
            set_condition(&mut new, "Established", true, "InitialNamesAccepted", says, now);
        }
        Err((reason, message)) => {
            set_condition(&mut new, "NamesAccepted", false, reason, &message, now);
            if !is_true(definition, "Established") {
                let says = "not all names are accepted";
                set_condition(&mut new, "Established", false, "NotAccepted", says, now);
            }
        }
    }
    let (holds, reason, says) = match approval_of(definition) {
        Approval::NotNeeded => (None, "", String::new()),
        Approval::Missing => (
            Some(false),
            "MissingAnnotation",
            format!("{MUST_APPROVE}, see https://github.com/kubernetes/enhancements/pull/1111"),
        ),
        Approval::Invalid(text) => (Some(false), "InvalidAnnotation", text),
        Approval::Approved(url) => (Some(true), "ApprovedAnnotation", format!("approved in {url}")),
        Approval::Bypassed(text) => (Some(false), "UnapprovedAnnotation", format!("not approved: {text:?}")),
    };
    if let Some(holds) = holds {
        let condition = "KubernetesAPIApprovalPolicyConformant";
        set_condition(&mut new, condition, holds, reason, &says, now);
    }
    if new["status"] == definition["status"] {
        return Ok(());
    }
    let target = Target::new(definitions(), "", meta::text(definition, "name")).subresource("status");
    let action = Action::Update {
        body: new.to_string().into(),
        preconditions: Preconditions::default(),
    };
    write(registry, target, action).await.map(drop)
}

async fn write(registry: &Registry, target: Target, action: Action) -> Result<Written, Failure> {
    let write = Write {
        target,
        action,
        options: WriteOptions::default(),
    };
    registry.write(&system(), write).await
}

/// Removes a definition's objects, waits until those with finalizers are gone too, and lets the definition go.
async fn empty(weak: Weak<Inner>, definition: Value) {
    let name = meta::text(&definition, "name").to_owned();
    loop {
        let Some(inner) = weak.upgrade() else { return };
        let registry = Registry { inner };
        match step(&registry, &definition).await {
            Ok(None) => return,
            Ok(Some(mut changes)) => {
                drop(registry);
                // Objects that somebody else's finalizer holds: look again when one changes, or after a while.
                let _ = tokio::time::timeout(Duration::from_secs(30), changes.next()).await;
            }
            Err(error) => {
                tracing::warn!(%name, %error, "the objects of a deleted CustomResourceDefinition cannot be removed yet");
                drop(registry);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// One round: `None` when the definition was let go.
async fn step(registry: &Registry, definition: &Value) -> Result<Option<WatchStream>, Failure> {
    let spec = &definition["spec"];
    let storage = list_at(spec, "versions").iter().find(|v| v["served"] == true);
    let version = storage.map(|v| text_at(v, "name")).unwrap_or_default();
    let gvr = Gvr::new(text_at(spec, "group"), version, text_at(spec, "names.plural"));
    if let Some(resource) = registry.resource(&gvr) {
        let collection = Collection::all(gvr.clone());
        let list = registry.list(&system(), &collection, &ListOptions::default()).await?;
        if !list.items.is_empty() {
            let from = WatchOptions {
                from: Some(list.version),
                ..WatchOptions::default()
            };
            let changes = registry.watch(&system(), &collection, &from).await?;
            for object in &list.items {
                let target = Target::new(resource.kind.gvr(), &object.key.namespace, &object.key.name);
                let action = Action::Delete(DeleteOptions::default());
                match write(registry, target, action).await {
                    Ok(_) | Err(Failure::NotFound(_)) => {}
                    Err(failure) => return Err(failure),
                }
            }
            let left = registry.list(&system(), &collection, &ListOptions::default()).await?;
            if !left.items.is_empty() {
                return Ok(Some(changes));
            }
        }
    }
    let resource = registry.find(&definitions())?;
    let name = meta::text(definition, "name");
    let object = crate::read::find(registry, &resource, "", name, ReadVersion::Latest).await;
    let now = match object {
        Ok(object) => object.value(),
        Err(Failure::NotFound(_)) => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let left: Vec<&str> = meta::finalizers(&now).into_iter().filter(|f| *f != CLEANUP).collect();
    let patch = json!({"metadata": {"uid": now["metadata"]["uid"], "resourceVersion": now["metadata"]["resourceVersion"], "finalizers": left}});
    let target = Target::new(definitions(), "", name);
    let action = Action::Patch {
        kind: PatchKind::Merge,
        body: patch.to_string().into(),
        preconditions: Preconditions::default(),
    };
    write(registry, target, action).await?;
    Ok(None)
}

fn storage_of(definition: &Value) -> GroupResource {
    GroupResource::new(
        text_at(definition, "spec.group"),
        text_at(definition, "spec.names.plural"),
    )
}

/// A resource for every served version.
fn compile(definition: &Value) -> Result<Vec<Resource>, Failure> {
    let spec = &definition["spec"];
    let (group, plural, kind) = (
        text_at(spec, "group"),
        text_at(spec, "names.plural"),
        text_at(spec, "names.kind"),
    );
    let versions = list_at(spec, "versions");
    let storage = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map(|v| text_at(v, "name"))
        .unwrap_or_default();
    let stored = Arc::new(Gvk::new(group, storage, kind));
    let words = |path: &str| {
        list_at(spec, path)
            .iter()
            .map(|w| CompactString::from(plain(w)))
            .collect::<Vec<_>>()
    };
    let (shorts, categories) = (words("names.shortNames"), words("names.categories"));
    // All versions are selected by the fields of the stored one, which the cache reads.
    let selectable: Vec<Selectable> = versions
        .iter()
        .filter(|v| v["storage"] == true)
        .flat_map(|v| list_at(v, "selectableFields"))
        .map(|f| Selectable {
            path: text_at(f, "jsonPath").trim_start_matches('.').into(),
            default: "",
            places: Vec::new(),
        })
        .collect();
    // What is read is filled in by the stored version's schema.
    let stored_schema = versions
        .iter()
        .find(|v| v["storage"] == true)
        .map(|v| &v["schema"]["openAPIV3Schema"]);
    let stored_schema = stored_schema.filter(|schema| has_default(schema));
    let stored_defaults = match stored_schema {
        Some(schema) => Some(Schema::from_crd(schema, (*stored).clone())?),
        None => None,
    };
    let defaults_from =
        stored_schema.map(|schema| ahash::RandomState::with_seeds(1, 2, 3, 4).hash_one(schema.to_string()));
    let mut resources = Vec::new();
    for version in versions.iter().filter(|v| v["served"] == true) {
        let name = text_at(version, "name");
        let scope = if text_at(spec, "scope") == "Cluster" {
            Scope::Cluster
        } else {
            Scope::Namespaced
        };
        let mut resource = match scope {
            Scope::Cluster => Resource::cluster(group, name, kind, plural),
            Scope::Namespaced => Resource::namespaced(group, name, kind, plural),
        };
        resource = resource
            .singular(text_at(spec, "names.singular"))
            .stored_under(&format!("/registry/{group}/{plural}/"))
            .short(&shorts.iter().map(CompactString::as_str).collect::<Vec<_>>())
            .categories(&categories.iter().map(CompactString::as_str).collect::<Vec<_>>())
            .conditional_updates()
            .stored_as(stored.clone());
        resource.storage.versions = match text_at(spec, "conversion.strategy") {
            "Webhook" => Versions::Asked,
            _ => Versions::Alike,
        };
        resource.custom = true;
        resource.checked = true;
        resource.closed = meta::is_dying(definition);
        resource.stored_defaults = stored_defaults.clone();
        resource.defaults_from = defaults_from;
        if version["deprecated"] == true {
            let says = format!("{group}/{name} {kind} is deprecated");
            resource.deprecated = Some(version["deprecationWarning"].as_str().map_or(says, str::to_owned));
        }
        resource.selectable = selectable.clone();
        let document = &version["schema"]["openAPIV3Schema"];
        let gvk = Gvk::new(group, name, kind);
        resource.schema = if spec["preserveUnknownFields"] == true {
            Schema::untyped(gvk)
        } else {
            match stored_defaults.as_ref().filter(|_| gvk == *stored) {
                Some(schema) => schema.clone(),
                None => Schema::from_crd(document, gvk)?,
            }
        };
        resource = resource.columns(columns(version));
        let doors = &version["subresources"];
        if !doors["status"].is_null() {
            resource = resource.status();
        }
        if doors["scale"].is_object() {
            let path = |key: &str| CompactString::from(text_at(&doors["scale"], key).trim_start_matches('.'));
            resource = resource.scale(ScalePaths {
                replicas: path("specReplicasPath"),
                status_replicas: path("statusReplicasPath"),
                selector: path("labelSelectorPath"),
            });
        }
        resources.push(resource);
    }
    Ok(resources)
}

fn has_default(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => {
            members.get("default").is_some_and(|default| !default.is_null())
                || ["items", "additionalProperties"]
                    .iter()
                    .filter_map(|key| members.get(*key))
                    .any(has_default)
                || members
                    .get("properties")
                    .and_then(Value::as_object)
                    .is_some_and(|properties| properties.values().any(has_default))
        }
        _ => false,
    }
}

fn columns(version: &Value) -> Vec<Column> {
    let declared = list_at(version, "additionalPrinterColumns");
    if declared.is_empty() {
        return vec![Column::age()];
    }
    declared
        .iter()
        .filter_map(|c| {
            let path = JsonPath::parse(text_at(c, "jsonPath")).ok()?;
            let priority = c["priority"].as_i64().unwrap_or_default() as i32;
            let column = Column::printer(
                text_at(c, "name"),
                text_at(c, "type"),
                text_at(c, "format"),
                priority,
                path,
            );
            Some(column.about(text_at(c, "description")))
        })
        .collect()
}
