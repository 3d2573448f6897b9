//! What the fake holds, and how one write changes it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use model::{Caller, Cause, CauseReason, Failure, Gvr, Kind, Object, ObjectKey, Uid};
use serde_json::{Value, json};

use super::document::{json_patch, merge, selected};
use super::{BeforeWrite, kinds};
use crate::{Action, Collection, DeleteOptions, Outcome, PatchKind, Preconditions, Target, Write, Written};

pub(super) struct State {
    pub(super) kinds: Arc<Vec<Arc<Kind>>>,
    pub(super) kinds_epoch: u64,
    pub(super) version: u64,
    pub(super) objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// Everything that happened since the start; a position in it is a watcher's place.
    pub(super) log: Vec<Change>,
    /// Watches from before this version are refused as `Expired`.
    pub(super) compacted: u64,
    /// Rises when running watches must end.
    pub(super) broken: u64,
    /// What they end with.
    pub(super) ending: Option<fn() -> Failure>,
    /// What the next lists end with.
    pub(super) refused_lists: VecDeque<Failure>,
    /// By resource: watches deliver nothing after this version.
    pub(super) held_at: HashMap<String, u64>,
    pub(super) refuse_first: bool,
    pub(super) refused: HashSet<(Target, &'static str)>,
    pub(super) before_write: Option<BeforeWrite>,
    pub(super) writes: Vec<(Caller, Write)>,
}

/// One write as watchers see it.
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) old: Option<Arc<Object>>,
    /// The new state; for a deletion the last state at the deletion's version.
    pub(super) new: Arc<Object>,
    pub(super) deleted: bool,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            kinds: Arc::new(kinds::built_in()),
            kinds_epoch: 0,
            version: 1,
            objects: BTreeMap::new(),
            log: Vec::new(),
            compacted: 0,
            broken: 0,
            ending: None,
            refused_lists: VecDeque::new(),
            held_at: HashMap::new(),
            refuse_first: false,
            refused: HashSet::new(),
            before_write: None,
            writes: Vec::new(),
        }
    }

    pub(super) fn kind(&self, gvr: &Gvr) -> Result<Arc<Kind>, Failure> {
        let kind = self
            .kinds
            .iter()
            .find(|k| k.gvk.group == gvr.group && k.plural == gvr.resource);
        kind.cloned()
            .ok_or_else(|| Failure::NoSuchResource { asked: gvr.to_string() })
    }

    pub(super) fn key(&self, target: &Target) -> Result<ObjectKey, Failure> {
        Ok(ObjectKey::new(
            self.kind(&target.gvr)?.group_resource(),
            &target.namespace,
            &target.name,
        ))
    }

    pub(super) fn within(&self, kind: &Kind, of: &Collection) -> impl Iterator<Item = &Arc<Object>> {
        let first = ObjectKey::new(kind.group_resource(), "", "");
        let resource = first.resource.clone();
        let namespace = of.namespace.clone();
        let all = self.objects.range(first..).map(|(_, object)| object);
        all.take_while(move |o| o.key.resource == resource)
            .filter(move |o| namespace.as_ref().is_none_or(|n| o.key.namespace == n.as_str()))
    }

    /// Stores `document` as the next version of `key`.
    pub(super) fn commit(
        &mut self,
        kind: &Kind,
        key: ObjectKey,
        mut document: Value,
        old: Option<Arc<Object>>,
    ) -> Result<Arc<Object>, Failure> {
        self.version += 1;
        document["apiVersion"] = json!(kind.gvk.api_version());
        document["kind"] = json!(kind.gvk.kind);
        let now = self.now();
        let meta = &mut document["metadata"];
        if meta["uid"].as_str().is_none_or(str::is_empty) {
            meta["uid"] = json!(format!("uid-{}", self.version));
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = json!(now);
        }
        if meta["generation"].is_null() {
            meta["generation"] = json!(1);
        }
        meta["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(Object::from_value(Arc::new(kind.gvk.clone()), key.clone(), &document)?);
        self.objects.insert(key, object.clone());
        self.log.push(Change {
            version: self.version,
            old,
            new: object.clone(),
            deleted: false,
        });
        Ok(object)
    }

    /// Takes `old` away and answers its last state, at the deletion's version.
    pub(super) fn erase(&mut self, old: Arc<Object>) -> Arc<Object> {
        self.version += 1;
        let mut document = old.value();
        document["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let last = Object::from_value(old.gvk.clone(), old.key.clone(), &document).expect("it was stored");
        let last = Arc::new(last);
        self.objects.remove(&old.key);
        self.log.push(Change {
            version: self.version,
            old: Some(old),
            new: last.clone(),
            deleted: true,
        });
        last
    }

    /// A clock that moves one second with each version, so that equal tests give equal documents.
    fn now(&self) -> String {
        let t = self.version;
        format!(
            "2026-01-{:02}T{:02}:{:02}:{:02}Z",
            1 + t / 86_400 % 31,
            t / 3600 % 24,
            t / 60 % 60,
            t % 60
        )
    }

    pub(super) fn write(&mut self, write: Write) -> Result<Written, Failure> {
        let outcome = self.act(&write)?;
        Ok(Written {
            outcome,
            warnings: Vec::new(),
        })
    }

    fn act(&mut self, write: &Write) -> Result<Outcome, Failure> {
        let target = &write.target;
        let kind = self.kind(&target.gvr)?;
        match &write.action {
            Action::Create(body) => match target.subresource.as_str() {
                "" => self.create(&kind, target, parse(body)?),
                "binding" => self.bind(&kind, target, &parse(body)?),
                "eviction" => {
                    self.delete(target, &DeleteOptions::default())?;
                    Ok(Outcome::Document {
                        json: r#"{"kind":"Status","status":"Success"}"#.into(),
                        created: true,
                    })
                }
                other => Err(Failure::NoSuchResource {
                    asked: format!("{}/{other}", target.gvr),
                }),
            },
            Action::Update { body, preconditions } => {
                let body = parse(body)?;
                self.change(&kind, target, preconditions, |_| Ok(body))
            }
            Action::Patch {
                kind: PatchKind::Apply { .. },
                body,
                preconditions,
            } => {
                let body = parse(body)?;
                let absent = !self.objects.contains_key(&self.key(target)?);
                if absent && target.subresource.is_empty() && preconditions.uid.is_none() {
                    return self.create(&kind, target, body);
                }
                self.change(&kind, target, preconditions, |old| Ok(merge(old, &body)))
            }
            Action::Patch {
                kind: PatchKind::Json,
                body,
                preconditions,
            } => {
                let operations = parse(body)?;
                self.change(&kind, target, preconditions, |old| json_patch(old, &operations))
            }
            Action::Patch {
                kind: PatchKind::Merge | PatchKind::Strategic,
                body,
                preconditions,
            } => {
                let body = parse(body)?;
                self.change(&kind, target, preconditions, |old| Ok(merge(old, &body)))
            }
            Action::Delete(options) => self.delete(target, options),
            Action::DeleteCollection { delete, labels, fields } => {
                let namespace = (!target.namespace.is_empty()).then(|| target.namespace.clone());
                let of = Collection {
                    gvr: target.gvr.clone(),
                    namespace,
                };
                let mut doomed = Vec::new();
                for object in self.within(&kind, &of) {
                    if selected(object, labels, fields)? {
                        doomed.push(object.key.clone());
                    }
                }
                let mut gone = Vec::new();
                for key in doomed {
                    let target = Target::new(target.gvr.clone(), &key.namespace, &key.name);
                    gone.extend(self.delete(&target, delete)?.object().cloned());
                }
                Ok(Outcome::DeletedMany(gone))
            }
        }
    }

    fn create(&mut self, kind: &Kind, target: &Target, mut body: Value) -> Result<Outcome, Failure> {
        if !body["metadata"].is_object() {
            body["metadata"] = json!({});
        }
        let meta = &mut body["metadata"];
        if let (None | Some(""), Some(prefix)) = (meta["name"].as_str(), meta["generateName"].as_str()) {
            meta["name"] = json!(format!("{prefix}{:05x}", self.version + 1));
        }
        let name = match meta["name"].as_str() {
            None | Some("") if !target.name.is_empty() => target.name.clone(),
            None | Some("") => {
                let causes = vec![Cause::required("metadata.name", "name or generateName is required")];
                return Err(Failure::Invalid {
                    kind: kind.gvk.clone(),
                    name: String::new(),
                    causes,
                });
            }
            Some(name) => name.to_owned(),
        };
        meta["name"] = json!(name);
        if kind.namespaced() {
            meta["namespace"] = json!(target.namespace);
        }
        for set_by_the_server in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
            meta.as_object_mut().expect("checked above").remove(set_by_the_server);
        }
        if kind.subresource("status").is_some() {
            body.as_object_mut().expect("metadata was set").remove("status");
        }
        let key = ObjectKey::new(kind.group_resource(), &target.namespace, &name);
        if self.objects.contains_key(&key) {
            return Err(Failure::AlreadyExists(key));
        }
        Ok(Outcome::Created(self.commit(kind, key, body, None)?))
    }

    fn bind(&mut self, kind: &Kind, target: &Target, binding: &Value) -> Result<Outcome, Failure> {
        let key = self.key(target)?;
        let old = self
            .objects
            .get(&key)
            .cloned()
            .ok_or_else(|| Failure::NotFound(key.clone()))?;
        let uid = binding["metadata"]["uid"]
            .as_str()
            .filter(|uid| !uid.is_empty())
            .map(|uid| Uid(uid.into()));
        check(&old, &Preconditions { uid, version: None })?;
        let mut pod = old.value();
        if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|node| !node.is_empty()) {
            let reason = format!("pod {} is already assigned to node \"{node}\"", key.name);
            return Err(Failure::Conflict {
                object: key,
                reason,
                causes: Vec::new(),
            });
        }
        pod["spec"]["nodeName"] = binding["target"]["name"].clone();
        let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.retain(|condition| condition["type"] != "PodScheduled");
        conditions.push(json!({"type": "PodScheduled", "status": "True"}));
        pod["status"]["conditions"] = json!(conditions);
        self.commit(kind, key, pod, Some(old))?;
        Ok(Outcome::Document {
            json: r#"{"kind":"Status","status":"Success"}"#.into(),
            created: true,
        })
    }

    /// Replaces an object by `edit` of it, or the part that `target.subresource` may touch.
    fn change(
        &mut self,
        kind: &Kind,
        target: &Target,
        preconditions: &Preconditions,
        edit: impl FnOnce(&Value) -> Result<Value, Failure>,
    ) -> Result<Outcome, Failure> {
        let key = self.key(target)?;
        let old = self
            .objects
            .get(&key)
            .cloned()
            .ok_or_else(|| Failure::NotFound(key.clone()))?;
        check(&old, preconditions)?;
        let before = old.value();
        if target.subresource == "scale" {
            let scale =
                edit(&json!({"metadata": before["metadata"], "spec": {"replicas": before["spec"]["replicas"]}}))?;
            let mut next = before.clone();
            next["spec"]["replicas"] = scale["spec"]["replicas"].clone();
            next["metadata"]["generation"] = json!(before["metadata"]["generation"].as_u64().unwrap_or(1) + 1);
            self.commit(kind, key, next, Some(old))?;
            let document = serde_json::to_vec(&scale).map_err(Failure::internal)?;
            return Ok(Outcome::Document {
                json: document.into(),
                created: false,
            });
        }
        let wanted = edit(&before)?;
        let sent = wanted["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if !sent.is_empty() && sent != old.version.to_string() {
            return Err(Failure::modified(key));
        }
        if wanted["metadata"]["uid"].as_str().is_some_and(|uid| uid != old.uid.0) {
            return Err(precondition(&old, CauseReason::UidMismatch, "metadata.uid"));
        }
        let mut next = wanted;
        match target.subresource.as_str() {
            "status" => {
                let status = next["status"].take();
                next = before.clone();
                next["status"] = status;
            }
            "" if kind.subresource("status").is_some() => match before.get("status") {
                Some(status) => next["status"] = status.clone(),
                None => drop(next.as_object_mut().and_then(|n| n.remove("status"))),
            },
            "" => {}
            other => {
                return Err(Failure::NoSuchResource {
                    asked: format!("{}/{other}", target.gvr),
                });
            }
        }
        for set_by_the_server in [
            "uid",
            "creationTimestamp",
            "generation",
            "resourceVersion",
            "deletionTimestamp",
        ] {
            next["metadata"][set_by_the_server] = before["metadata"][set_by_the_server].clone();
        }
        if next["metadata"]["deletionTimestamp"].is_null() {
            next["metadata"]
                .as_object_mut()
                .expect("indexed above")
                .remove("deletionTimestamp");
        } else if next["metadata"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty)
            // A pod in its grace period waits for its kubelet's last delete.
            && next["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
        {
            return Ok(Outcome::Deleted(self.erase(old)));
        }
        if next == before {
            return Ok(Outcome::Changed(old)); // A write that changes nothing makes no version, as in Kubernetes.
        }
        if next["spec"] != before["spec"] {
            next["metadata"]["generation"] = json!(before["metadata"]["generation"].as_u64().unwrap_or(1) + 1);
        }
        Ok(Outcome::Changed(self.commit(kind, key, next, Some(old))?))
    }

    /// Marks an object that has finalizers, erases one that has none. There are no grace periods here.
    fn delete(&mut self, target: &Target, options: &DeleteOptions) -> Result<Outcome, Failure> {
        let key = self.key(target)?;
        let old = self
            .objects
            .get(&key)
            .cloned()
            .ok_or_else(|| Failure::NotFound(key.clone()))?;
        check(&old, &options.preconditions)?;
        let mut document = old.value();
        if document["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            return Ok(Outcome::Deleted(self.erase(old)));
        }
        if !document["metadata"]["deletionTimestamp"].is_null() {
            return Ok(Outcome::Changed(old));
        }
        document["metadata"]["deletionTimestamp"] = json!(self.now());
        let kind = self.kind(&target.gvr)?;
        Ok(Outcome::Changed(self.commit(&kind, key, document, Some(old))?))
    }
}

fn parse(body: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(body).map_err(|e| Failure::BadRequest(format!("the body is not JSON: {e}")))
}

fn check(object: &Object, preconditions: &Preconditions) -> Result<(), Failure> {
    if preconditions.uid.as_ref().is_some_and(|uid| *uid != object.uid) {
        return Err(precondition(object, CauseReason::UidMismatch, "metadata.uid"));
    }
    if preconditions.version.is_some_and(|version| version != object.version) {
        return Err(precondition(
            object,
            CauseReason::ResourceVersionMismatch,
            "metadata.resourceVersion",
        ));
    }
    Ok(())
}

fn precondition(object: &Object, reason: CauseReason, field: &str) -> Failure {
    let cause = Cause {
        reason,
        field: field.into(),
        message: "the precondition does not hold".into(),
    };
    Failure::Conflict {
        object: object.key.clone(),
        reason: format!("Precondition failed: {field} in precondition does not match the object's"),
        causes: vec![cause],
    }
}

/// The verb a write counts as when first writes are refused.
pub(super) fn verb(action: &Action) -> &'static str {
    match action {
        Action::Create(_) => "create",
        Action::Update { .. } => "update",
        Action::Patch { .. } => "patch",
        Action::Delete(_) => "delete",
        Action::DeleteCollection { .. } => "deletecollection",
    }
}
