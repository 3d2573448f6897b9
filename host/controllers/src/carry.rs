//! Carries intents out, in order, as the plugin's own user, up to the first refusal.
//!
//! Every write names its precondition to the cluster itself, so what was decided on an older view cannot hit a newer
//! object. If we stop between two intents, the next view shows the first carried out and the second not, and the
//! controller decides from there: nothing here is remembered across a crash.

use std::sync::Arc;

use bytes::Bytes;
use client::{
    Action, Cluster, Collection, DeleteOptions, ListOptions, PatchKind, Preconditions, ReadVersion, Target, Write,
    WriteOptions,
};
use model::{Caller, Failure, FieldPath, GroupResource, Gvk, Kind, Object, ObjectKey, ResourceVersion, Uid};
use serde_json::{Value, json};
use view::{Floor, RecordedView, Refused, Selection, View, Wanted};

use crate::events::Events;
use crate::intent::{Intent, Key, PatchFormat, Precondition, Propagation};

/// How often a write is made again when somebody else wrote in between and the intent does not mind.
const TRIES: usize = 8;

/// What one controller writes with.
pub(crate) struct Carrier {
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) view: Arc<View>,
    pub(crate) caller: Caller,
    pub(crate) field_manager: String,
    pub(crate) events: Events,
}

/// What came of the intents of one run.
#[derive(Debug, Default)]
pub(crate) struct Carried {
    pub(crate) done: usize,
    pub(crate) refused: Option<(u32, Refused)>,
    /// What the key's next view must show.
    pub(crate) floor: Floor,
}

impl Carrier {
    /// `holds` says before each write whether this process may still write (a leader's term); if not, what is left is
    /// dropped without a refusal, as if the process had stopped here.
    pub(crate) async fn carry(&self, intents: &[Intent], read: &RecordedView, holds: impl Fn() -> bool) -> Carried {
        let mut carried = Carried::default();
        for (position, intent) in intents.iter().enumerate() {
            if !holds() {
                break;
            }
            if let Err(failure) = self.one(intent, read, &mut carried.floor).await {
                tracing::debug!(intent = position, %failure, "an intent was refused");
                let mut why = Refused::from(failure);
                if let Intent::Other(_) = intent {
                    why.reason = "unsupported".into();
                }
                carried.refused = Some((position as u32, why));
                break;
            }
            carried.done += 1;
        }
        carried
    }

    async fn one(&self, intent: &Intent, read: &RecordedView, floor: &mut Floor) -> Result<(), Failure> {
        match intent {
            Intent::Apply { body, when } => {
                let (kind, key) = self.named(body)?;
                if *when == Precondition::Absent {
                    return self
                        .write(&kind, target(&kind, &key, ""), Action::Create(body.clone()), floor)
                        .await;
                }
                let make = |preconditions| Action::Patch {
                    kind: PatchKind::Apply { force: true },
                    body: body.clone(),
                    preconditions,
                };
                self.guarded(&kind, &key, "", when, read, floor, make).await
            }
            Intent::Create { body } => {
                let (kind, key) = self.named(body)?;
                self.write(&kind, target(&kind, &key, ""), Action::Create(body.clone()), floor)
                    .await
            }
            Intent::SetStatus { body, when } => {
                let (kind, key) = self.named(body)?;
                let status = parse(body)?["status"].take();
                // `add` puts the member there or replaces it whole; a merge would leave fields behind that are gone.
                let patch = json!([{"op": "add", "path": "/status", "value": status}]);
                let make = |preconditions| patched(PatchKind::Json, &patch, preconditions);
                self.guarded(&kind, &key, "status", when, read, floor, make).await
            }
            Intent::Patch {
                key,
                when,
                format,
                body,
                subresource,
            } => {
                let kind = self.kind(&key.kind)?;
                let format = match format {
                    PatchFormat::Json => PatchKind::Json,
                    PatchFormat::Merge => PatchKind::Merge,
                    PatchFormat::Strategic => PatchKind::Strategic,
                };
                let make = |preconditions| Action::Patch {
                    kind: format,
                    body: body.clone(),
                    preconditions,
                };
                self.guarded(&kind, key, subresource, when, read, floor, make).await
            }
            Intent::Remove { key, when, propagation } => {
                let kind = self.kind(&key.kind)?;
                let make = |preconditions| Action::Delete(delete_options(preconditions, *propagation));
                absent_is_well(self.guarded(&kind, key, "", when, read, floor, make).await)
            }
            Intent::RemoveAll { kind, which } => self.remove_all(&self.kind(kind)?, which, floor).await,
            Intent::SetScale { key, replicas, when } => {
                let kind = self.kind(&key.kind)?;
                let patch = json!({"spec": {"replicas": replicas}});
                let make = |preconditions| patched(PatchKind::Merge, &patch, preconditions);
                self.guarded(&kind, key, "scale", when, read, floor, make).await
            }
            Intent::RemoveFinalizer { key, finalizer, when } => {
                absent_is_well(self.remove_finalizer(key, finalizer, when, read, floor).await)
            }
            Intent::Evict { key, when } => {
                let kind = self.kind(&key.kind)?;
                let make = |preconditions: Preconditions| {
                    let mut conditions = serde_json::Map::new();
                    conditions.extend(preconditions.uid.map(|uid| ("uid".into(), json!(uid.0))));
                    let version = preconditions
                        .version
                        .map(|v| ("resourceVersion".into(), json!(v.to_string())));
                    conditions.extend(version);
                    Action::Create(bytes(&json!({
                        "apiVersion": "policy/v1", "kind": "Eviction",
                        "metadata": {"name": key.name, "namespace": key.namespace},
                        "deleteOptions": {"preconditions": conditions},
                    })))
                };
                absent_is_well(self.guarded(&kind, key, "eviction", when, read, floor, make).await)?;
                self.note_eviction(&kind, key, floor).await
            }
            Intent::Event(event) => {
                self.events.record(self, event).await;
                Ok(())
            }
            Intent::Other(step) => Err(Failure::BadRequest(format!(
                "this host does not know intent {step}; it is older than the plugin"
            ))),
        }
    }

    /// Writes under the precondition. `make` gets what the cluster itself can check.
    #[expect(clippy::too_many_arguments, reason = "the parts of one write")]
    async fn guarded(
        &self,
        kind: &Arc<Kind>,
        key: &Key,
        subresource: &str,
        when: &Precondition,
        read: &RecordedView,
        floor: &mut Floor,
        make: impl Fn(Preconditions) -> Action,
    ) -> Result<(), Failure> {
        let (uid, fields) = match when {
            Precondition::None => (None, None),
            Precondition::Uid(uid) => (Some(Uid(uid.as_str().into())), None),
            Precondition::Version(version) => {
                let preconditions = Preconditions {
                    uid: None,
                    version: Some(version.parse()?),
                };
                return self
                    .write(kind, target(kind, key, subresource), make(preconditions), floor)
                    .await;
            }
            Precondition::FieldsAsRead { uid, fields } => {
                (Some(Uid(uid.as_str().into())), Some(Wanted::parse(fields)?))
            }
            Precondition::Absent => {
                let says = "`absent` goes with apply only: other intents need the object they speak of";
                return Err(Failure::BadRequest(says.into()));
            }
        };
        let Some(fields) = fields else {
            let preconditions = Preconditions { uid, version: None };
            return self
                .write(kind, target(kind, key, subresource), make(preconditions), floor)
                .await;
        };
        let as_read = read
            .peek(&key.kind, &key.namespace, &key.name)
            .ok_or_else(|| conflict(kind, key, "was not read"))?;
        for _ in 0..TRIES {
            let now = self
                .cluster
                .get(&self.caller, &target(kind, key, ""), ReadVersion::Latest)
                .await?;
            if Some(&now.uid) != uid.as_ref() || fields.row(&now) != fields.row(&as_read) {
                return Err(conflict(
                    kind,
                    key,
                    &format!("no longer has the fields that were read: {}", fields.text),
                ));
            }
            // Whoever writes between that look and this write makes it fail, and we look again.
            let preconditions = Preconditions {
                uid: uid.clone(),
                version: Some(now.version),
            };
            match self
                .write(kind, target(kind, key, subresource), make(preconditions), floor)
                .await
            {
                Err(Failure::Conflict { .. }) => {}
                done => return done,
            }
        }
        Err(conflict(
            kind,
            key,
            "is written by others faster than its fields can be compared",
        ))
    }

    async fn remove_all(&self, kind: &Arc<Kind>, which: &Selection, floor: &mut Floor) -> Result<(), Failure> {
        let whole_cluster = kind.namespaced() && which.namespace.is_empty();
        if which.equals.is_empty() && !whole_cluster {
            let delete = delete_options(Preconditions::default(), Propagation::Background);
            let action = Action::DeleteCollection {
                delete,
                labels: which.labels.clone(),
                fields: String::new(),
            };
            let key = Key::new(kind.gvk.clone(), &which.namespace, "");
            return self.write(kind, target(kind, &key, ""), action, floor).await;
        }
        let mut paths = Vec::new();
        for (path, value) in &which.equals {
            paths.push((FieldPath::parse(path)?, value));
        }
        let namespace = (!which.namespace.is_empty()).then(|| which.namespace.clone());
        let of = Collection {
            gvr: kind.gvr(),
            namespace,
        };
        let options = ListOptions {
            labels: which.labels.clone(),
            ..ListOptions::default()
        };
        for object in self.cluster.list(&self.caller, &of, &options).await?.items {
            let document = object.value();
            let selected = paths
                .iter()
                .all(|(path, value)| view::reads_as(path, &path.read(&document), value));
            if selected {
                let key = Key::new(kind.gvk.clone(), &object.key.namespace, &object.key.name);
                let preconditions = Preconditions {
                    uid: Some(object.uid.clone()),
                    version: None,
                };
                let action = Action::Delete(delete_options(preconditions, Propagation::Background));
                absent_is_well(self.write(kind, target(kind, &key, ""), action, floor).await)?;
            }
        }
        Ok(())
    }

    async fn remove_finalizer(
        &self,
        key: &Key,
        finalizer: &str,
        when: &Precondition,
        read: &RecordedView,
        floor: &mut Floor,
    ) -> Result<(), Failure> {
        let kind = self.kind(&key.kind)?;
        for _ in 0..TRIES {
            let now = self
                .cluster
                .get(&self.caller, &target(&kind, key, ""), ReadVersion::Latest)
                .await?;
            self.still(&kind, key, when, read, &now)?;
            let mut document = now.value();
            // A namespace keeps its own finalizer in its spec, behind a door of its own.
            let (place, door) = match take(&mut document, "/metadata/finalizers", finalizer) {
                true => ("metadata", ""),
                false if take(&mut document, "/spec/finalizers", finalizer) => ("spec", "finalize"),
                false => return Ok(()),
            };
            let action = match place {
                "metadata" => {
                    let left = &document["metadata"]["finalizers"];
                    let patch = json!({"metadata": {"finalizers": left, "resourceVersion": now.version.to_string()}});
                    patched(
                        PatchKind::Merge,
                        &patch,
                        Preconditions {
                            uid: Some(now.uid.clone()),
                            version: None,
                        },
                    )
                }
                _ => {
                    let preconditions = Preconditions {
                        uid: Some(now.uid.clone()),
                        version: Some(now.version),
                    };
                    Action::Update {
                        body: bytes(&document),
                        preconditions,
                    }
                }
            };
            match self.write(&kind, target(&kind, key, door), action, floor).await {
                Err(Failure::Conflict { .. }) if !matches!(when, Precondition::Version(_)) => {}
                done => return done,
            }
        }
        Err(conflict(
            &kind,
            key,
            "is written by others faster than a finalizer can be taken from it",
        ))
    }

    /// Checks a precondition against an object that was just read.
    fn still(
        &self,
        kind: &Kind,
        key: &Key,
        when: &Precondition,
        read: &RecordedView,
        now: &Object,
    ) -> Result<(), Failure> {
        let holds = match when {
            Precondition::None => true,
            Precondition::Absent => false,
            Precondition::Uid(uid) => now.uid.0 == uid.as_str(),
            Precondition::Version(version) => now.version == version.parse()?,
            Precondition::FieldsAsRead { uid, fields } => {
                let fields = Wanted::parse(fields)?;
                let as_read = read.peek(&key.kind, &key.namespace, &key.name);
                now.uid.0 == uid.as_str() && as_read.is_some_and(|as_read| fields.row(&as_read) == fields.row(now))
            }
        };
        if holds {
            Ok(())
        } else {
            Err(conflict(kind, key, "is not as it was when this was decided"))
        }
    }

    /// The eviction subresource does not say at which version the pod went or was marked.
    async fn note_eviction(&self, kind: &Kind, key: &Key, floor: &mut Floor) -> Result<(), Failure> {
        match self
            .cluster
            .get(&self.caller, &target(kind, key, ""), ReadVersion::Latest)
            .await
        {
            Ok(pod) => floor.at_least(&kind.gvk, pod.version),
            Err(Failure::NotFound(_)) => {
                if let Ok(Some(pod)) = self.view.object(&kind.gvk, &key.namespace, &key.name).await {
                    floor.gone(&kind.gvk, &key.namespace, &key.name, pod.uid.clone());
                }
            }
            Err(_) => self.view.doubt(&kind.gvk, floor),
        }
        Ok(())
    }

    /// One write, and what it means for the next view.
    pub(crate) async fn write(
        &self,
        kind: &Kind,
        target: Target,
        action: Action,
        floor: &mut Floor,
    ) -> Result<(), Failure> {
        let options = WriteOptions {
            field_manager: self.field_manager.clone(),
            ..WriteOptions::default()
        };
        let gone = |floor: &mut Floor, object: &Object| {
            floor.gone(&kind.gvk, &object.key.namespace, &object.key.name, object.uid.clone());
        };
        match self
            .cluster
            .write(
                &self.caller,
                Write {
                    target,
                    action,
                    options,
                },
            )
            .await
        {
            Ok(written) => match written.outcome {
                client::Outcome::Created(object) | client::Outcome::Changed(object) => {
                    floor.at_least(&kind.gvk, object.version);
                }
                client::Outcome::Deleted(object) => gone(floor, &object),
                client::Outcome::DeletedMany(objects) => {
                    // Some are gone, some only marked: each is shown once it is no longer as it was.
                    for object in objects {
                        match object.value()["metadata"]["deletionTimestamp"].is_null() {
                            true => gone(floor, &object),
                            false => floor.at_least(&kind.gvk, object.version),
                        }
                    }
                }
                client::Outcome::Document { json, .. } => {
                    let document = parse(&json).unwrap_or_default();
                    let version = document["metadata"]["resourceVersion"]
                        .as_str()
                        .and_then(|v| v.parse().ok());
                    floor.at_least(&kind.gvk, version.unwrap_or(ResourceVersion(0)));
                }
            },
            Err(failure) => {
                if matches!(failure, Failure::Unavailable { .. } | Failure::Timeout(_)) {
                    self.view.doubt(&kind.gvk, floor);
                }
                return Err(failure);
            }
        }
        Ok(())
    }

    pub(crate) fn kind(&self, gvk: &Gvk) -> Result<Arc<Kind>, Failure> {
        let kinds = self.cluster.kinds();
        let kind = kinds.iter().find(|kind| kind.gvk == *gvk).cloned();
        kind.ok_or_else(|| Failure::NoSuchResource { asked: gvk.to_string() })
    }

    /// The kind and key that a body names itself.
    fn named(&self, body: &Bytes) -> Result<(Arc<Kind>, Key), Failure> {
        let document = parse(body)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let gvk = Gvk::from_api_version(&text(&document["apiVersion"]), &text(&document["kind"]));
        let kind = self.kind(&gvk)?;
        let meta = &document["metadata"];
        let key = Key {
            kind: gvk,
            namespace: text(&meta["namespace"]),
            name: text(&meta["name"]),
        };
        if kind.namespaced() && key.namespace.is_empty() {
            return Err(Failure::BadRequest(format!(
                "the body of an intent for {} lacks metadata.namespace",
                key.kind
            )));
        }
        Ok((kind, key))
    }
}

fn target(kind: &Kind, key: &Key, subresource: &str) -> Target {
    Target::new(kind.gvr(), &key.namespace, &key.name).subresource(subresource)
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::BadRequest(format!("the body of an intent is not JSON: {error}")))
}

fn bytes(document: &Value) -> Bytes {
    document.to_string().into()
}

fn patched(kind: PatchKind, patch: &Value, preconditions: Preconditions) -> Action {
    Action::Patch {
        kind,
        body: bytes(patch),
        preconditions,
    }
}

fn delete_options(preconditions: Preconditions, propagation: Propagation) -> DeleteOptions {
    let propagation = match propagation {
        Propagation::Background => client::Propagation::Background,
        Propagation::Foreground => client::Propagation::Foreground,
        Propagation::Orphan => client::Propagation::Orphan,
    };
    DeleteOptions {
        preconditions,
        grace: None,
        propagation: Some(propagation),
    }
}

/// What was to go is gone.
fn absent_is_well(done: Result<(), Failure>) -> Result<(), Failure> {
    match done {
        Err(Failure::NotFound(_)) => Ok(()),
        done => done,
    }
}

/// Takes a text out of a list of texts. Whether it was there.
fn take(document: &mut Value, list: &str, text: &str) -> bool {
    let Some(Value::Array(list)) = document.pointer_mut(list) else {
        return false;
    };
    let before = list.len();
    list.retain(|item| item != text);
    list.len() < before
}

fn conflict(kind: &Kind, key: &Key, says: &str) -> Failure {
    let GroupResource { group, resource } = kind.group_resource();
    let object = ObjectKey::new(GroupResource { group, resource }, &key.namespace, &key.name);
    Failure::Conflict {
        object,
        reason: format!("the object {says}"),
        causes: Vec::new(),
    }
}
