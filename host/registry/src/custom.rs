//! Serving custom kinds: from CustomResourceDefinitions to the catalog and back out of it.
//!
//! One task follows the definitions. For each it compiles the schemas, puts the kinds into the catalog, and only then
//! says `Established`, so whoever waits for that finds the kind served. A definition that is deleted is held by a
//! finalizer until its objects are gone; then its kinds leave the catalog. A crash anywhere leaves definitions that the
//! task looks at anew when the registry opens.

use std::sync::{Arc, Weak};
use std::time::Duration;

use ahash::AHashMap;
use client::{
    Action, Cluster, Collection, DeleteOptions, ListOptions, PatchKind, Preconditions, ReadVersion, Target,
    WatchOptions, WatchStream, Write, WriteOptions, Written,
};
use compact_str::CompactString;
use futures::StreamExt;
use model::{Failure, GroupResource, Gvk, Gvr, ResourceVersion, Scope};
use schema::Schema;
use serde_json::{Value, json};

use crate::Registry;
use crate::bootstrap::system;
use crate::jsonpath::JsonPath;
use crate::meta;
use crate::registry::Inner;
use crate::resource::{Resource, ScalePaths, Selectable, Versions};
use crate::resources::crd::{CLEANUP, GROUP, is_true, set_condition};
use crate::table::{Column, list_at, plain, text_at};

fn definitions() -> Gvr {
    Gvr::new(GROUP, "v1", "customresourcedefinitions")
}

/// Serves what is defined already, and goes on following the definitions for as long as the registry lives.
pub(crate) async fn follow(registry: &Registry) -> Result<(), Failure> {
    let mut follower = Follower::default();
    let (known, version) = registry.definitions().await?;
    follower.serve(registry, &known).await;
    let weak = Arc::downgrade(&registry.inner);
    let mut from = version;
    let mut changes = registry
        .watch(&system(), &Collection::all(definitions()), &from_version(from))
        .await?;
    tokio::spawn(async move {
        follower.settle(&weak, &known).await;
        loop {
            let next = changes.next().await;
            let Some(inner) = weak.upgrade() else { return };
            let registry = Registry { inner };
            if let Some(Ok(_)) = next {
                match registry.definitions().await {
                    Ok((known, version)) => {
                        from = version;
                        follower.serve(&registry, &known).await;
                        drop(registry);
                        follower.settle(&weak, &known).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the CustomResourceDefinitions cannot be read")
                    }
                }
                continue;
            }
            // The watch is over: begin a new one from a fresh state.
            match registry
                .watch(&system(), &Collection::all(definitions()), &from_version(from))
                .await
            {
                Ok(again) => changes = again,
                Err(_) => match registry.definitions().await {
                    Ok((known, version)) => {
                        from = version;
                        follower.serve(&registry, &known).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the CustomResourceDefinitions cannot be read");
                        drop(registry);
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
            }
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

impl Registry {
    /// Every definition as it is now.
    async fn definitions(&self) -> Result<(Vec<Value>, ResourceVersion), Failure> {
        let resource = self.find(&definitions())?;
        let cache = self.cache(&resource).await?;
        let (objects, version) = cache.snapshot();
        Ok((objects.values().map(|e| e.object.value()).collect(), version))
    }
}

/// What the task knows from one round to the next.
#[derive(Default)]
struct Follower {
    /// By name: the generation it was compiled at, and what came of it.
    compiled: AHashMap<String, (Value, Vec<Arc<Resource>>)>,
    /// Definitions whose objects are being removed by a task of their own.
    emptying: AHashMap<String, ()>,
}

impl Follower {
    /// Brings the catalog in line with the definitions.
    async fn serve(&mut self, registry: &Registry, known: &[Value]) {
        let mut compiled = AHashMap::new();
        let mut custom = Vec::new();
        for definition in known {
            let name = meta::text(definition, "name").to_owned();
            if let Err((reason, message)) = accept(registry, definition, known) {
                tracing::debug!(%name, reason, %message, "names are not accepted");
                continue;
            }
            let closed = meta::is_dying(definition);
            let spec = json!([definition["spec"], closed, definition["metadata"]["uid"]]);
            let resources = match self.compiled.remove(&name) {
                Some((before, resources)) if before == spec => resources,
                had => {
                    let resources: Vec<Arc<Resource>> = match compile(definition) {
                        Ok(resources) => resources.into_iter().map(Arc::new).collect(),
                        Err(error) => {
                            tracing::error!(%name, %error, "a stored CustomResourceDefinition cannot be served");
                            continue;
                        }
                    };
                    // Watchers stay, unless what the cache reads of each object is another thing now.
                    let reads = |r: &[Arc<Resource>]| r.first().map(|r| (r.selectable.clone(), r.kind.scope));
                    if had.is_some_and(|(_, had)| reads(&had) != reads(&resources)) {
                        registry.drop_cache(&storage_of(definition));
                    }
                    resources
                }
            };
            custom.extend(resources.iter().cloned());
            compiled.insert(name, (spec, resources));
        }
        for (_, (_, gone)) in self.compiled.drain() {
            for resource in gone {
                registry.drop_cache(&resource.storage.resource);
            }
        }
        self.compiled = compiled;
        let before = registry.resources();
        let next = registry.inner.catalog.load().with_custom(custom);
        let same = before.len() == next.all.len() && before.iter().zip(next.all.iter()).all(|(a, b)| Arc::ptr_eq(a, b));
        if !same {
            registry.inner.catalog.store(Arc::new(next));
            registry.inner.catalog_changed.send_modify(|n| *n += 1);
        }
    }

    /// Writes down what became of each definition, and begins to empty those that are to go.
    async fn settle(&mut self, weak: &Weak<Inner>, known: &[Value]) {
        self.emptying
            .retain(|name, ()| known.iter().any(|d| meta::text(d, "name") == name));
        for definition in known {
            let Some(inner) = weak.upgrade() else { return };
            let registry = Registry { inner };
            let name = meta::text(definition, "name").to_owned();
            if meta::is_dying(definition) {
                let held = meta::finalizers(definition).contains(&CLEANUP);
                if held && self.emptying.insert(name, ()).is_none() {
                    tokio::spawn(empty(weak.clone(), definition.clone()));
                }
                continue;
            }
            if let Err(error) = tell(&registry, definition, known).await {
                // The definition changed meanwhile: its event brings us here again.
                tracing::debug!(%name, %error, "the status of a CustomResourceDefinition was not written");
            }
        }
    }
}

/// Whether the definition may have the names it asks for. The elder of two that want the same has them.
fn accept(registry: &Registry, definition: &Value, known: &[Value]) -> Result<(), (&'static str, String)> {
    let spec = &definition["spec"];
    let group = text_at(spec, "group");
    let names = &spec["names"];
    let plural = text_at(names, "plural");
    if registry.inner.catalog.load().is_built_in(group, plural) {
        return Err((
            "PluralConflict",
            format!("{plural:?} is a built-in resource of {group:?}"),
        ));
    }
    let rank = |d: &Value| {
        let accepted = is_true(d, "NamesAccepted");
        (
            !accepted,
            meta::text(d, "creationTimestamp").to_owned(),
            meta::text(d, "name").to_owned(),
        )
    };
    let me = rank(definition);
    for other in known
        .iter()
        .filter(|d| text_at(d, "spec.group") == group && rank(d) < me)
    {
        let theirs = &other["spec"]["names"];
        let mut taken: Vec<String> = vec![plain(&theirs["plural"]), plain(&theirs["singular"])];
        taken.extend(list_at(theirs, "shortNames").iter().map(plain));
        let conflicts = [
            ("PluralConflict", plural),
            ("SingularConflict", text_at(names, "singular")),
        ];
        for (reason, name) in conflicts {
            if taken.iter().any(|t| t == name) {
                return Err((reason, format!("{name:?} is already in use")));
            }
        }
        for short in list_at(names, "shortNames").iter().map(plain) {
            if taken.contains(&short) {
                return Err(("ShortNamesConflict", format!("{short:?} is already in use")));
            }
        }
        for (reason, key) in [("KindConflict", "kind"), ("ListKindConflict", "listKind")] {
            if [&theirs["kind"], &theirs["listKind"]].contains(&&names[key]) {
                return Err((reason, format!("{} is already in use", names[key])));
            }
        }
    }
    Ok(())
}

/// `NamesAccepted` and `Established`.
async fn tell(registry: &Registry, definition: &Value, known: &[Value]) -> Result<(), Failure> {
    let now = registry.now();
    let mut new = definition.clone();
    match accept(registry, definition, known) {
        Ok(()) => {
            new["status"]["acceptedNames"] = definition["spec"]["names"].clone();
            set_condition(
                &mut new,
                "NamesAccepted",
                true,
                "NoConflicts",
                "no conflicts found",
                now,
            );
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
        })
        .collect();
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
            .conditional_updates();
        resource.storage.gvk = stored.clone();
        resource.storage.versions = match text_at(spec, "conversion.strategy") {
            "Webhook" => Versions::Asked,
            _ => Versions::Alike,
        };
        resource.custom = true;
        resource.checked = true;
        resource.closed = meta::is_dying(definition);
        resource.selectable = selectable.clone();
        let document = &version["schema"]["openAPIV3Schema"];
        let gvk = Gvk::new(group, name, kind);
        resource.schema = if spec["preserveUnknownFields"] == true {
            Schema::untyped(gvk)
        } else {
            Schema::from_crd(document, gvk)?
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
