//! `autoscaling/v1 Scale`: one window on every kind that has a number of replicas.

use std::sync::Arc;

use bytes::Bytes;
use client::{Outcome, PatchKind, Preconditions, Target};
use model::{Failure, Gvk, Object, Selector};
use serde_json::{Value, json};

use crate::body;
use crate::change::Errand;
use crate::gates::Notes;
use crate::job::Job;
use crate::meta;
use crate::resource::{Resource, ScalePaths};
use crate::table::{Column, at, int_at};
use crate::write::Origin;

/// What is asked of a scale.
pub(crate) enum Change<'a> {
    Replace(&'a Bytes),
    Patch(PatchKind, &'a Bytes),
}

/// The Scale of an object.
pub(crate) fn of(resource: &Resource, object: &Object, paths: &ScalePaths) -> Result<Object, Failure> {
    let scale = document(&object.value(), paths);
    let gvk = Arc::new(Gvk::new("autoscaling", "v1", "Scale"));
    let key = object.key.clone();
    let mut made = Object::from_value(gvk, key, &scale)?;
    made.key.resource = resource.kind.group_resource();
    Ok(made)
}

/// What `kubectl get --subresource=scale` shows.
pub fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::number("Desired", "spec.replicas").about("replicas is the desired number of instances."),
        Column::number("Available", "status.replicas").about("replicas is the observed number of instances."),
        Column::age(),
    ]
}

fn document(object: &Value, paths: &ScalePaths) -> Value {
    let mut metadata = serde_json::Map::new();
    for key in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(key) {
            metadata.insert(key.into(), value.clone());
        }
    }
    let mut spec = json!({});
    let replicas = int_at(object, &paths.replicas);
    if replicas != 0 {
        spec["replicas"] = replicas.into();
    }
    let mut status = json!({"replicas": int_at(object, &paths.status_replicas)});
    let selector = match at(object, &paths.selector) {
        Some(Value::String(text)) => text.clone(),
        Some(selector @ Value::Object(_)) => match selector.get("matchLabels").or(selector.get("matchExpressions")) {
            Some(_) => Selector::from_json(selector).map(|s| s.to_string()).unwrap_or_default(),
            // A map of labels as it is (ReplicationController).
            None => crate::table::pairs(Some(selector)).replace("<none>", ""),
        },
        _ => String::new(),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": metadata, "spec": spec, "status": status})
}

/// Writes the number of replicas through the parent's own rules.
pub(crate) async fn write(
    job: &Job<'_>,
    target: &Target,
    paths: &ScalePaths,
    change: Change<'_>,
    preconditions: &Preconditions,
    notes: &mut Notes,
) -> Result<Outcome, Failure> {
    let gvk = Gvk::new("autoscaling", "v1", "Scale");
    let old = job.old(target, preconditions.version).await?;
    let mut asked = preconditions.clone();
    let mut whole = None;
    if let Change::Replace(body) = &change {
        let mut scale = body::decode_as(&gvk, body, job.options.validation, &mut notes.warnings)?;
        meta::address_act(target, &mut scale)?;
        asked.version = asked.version.or(meta::version(&scale)?);
        if let uid @ [_, ..] = meta::text(&scale, "uid").as_bytes() {
            asked.uid = Some(model::Uid(String::from_utf8_lossy(uid).as_ref().into()));
        }
        whole = Some(scale);
    }
    let hand = job.hand("scale");
    let key = job.cache.key(&target.namespace, &target.name);
    let errand = Errand {
        target,
        door: None,
        asked: &asked,
        origin: Origin::Written,
    };
    let mut warnings = Vec::new();
    let outcome = job
        .change(errand, old, notes, &mut |old| {
            let scale = match (&whole, &change) {
                (Some(scale), _) => scale.clone(),
                (None, Change::Patch(kind, body)) => {
                    warnings.clear();
                    let patch = body::Patch::read_as(&gvk, *kind, body, job.options.validation)?;
                    let before = document(&old.value, paths);
                    let patched = patch.apply(&before, &key, hand, &mut warnings)?;
                    if let Some(version) = meta::version(&patched)?.filter(|v| *v != old.object.version) {
                        tracing::debug!(%version, "a scale patch names another version");
                        return Err(Failure::modified(old.object.key.clone()));
                    }
                    patched
                }
                (None, Change::Replace(_)) => {
                    return Err(Failure::Internal("a scale without a body".into()));
                }
            };
            let replicas = int_at(&scale, "spec.replicas");
            if replicas < 0 {
                let cause = model::Cause::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
                return Err(Failure::Invalid {
                    kind: gvk.clone(),
                    name: target.name.clone(),
                    causes: vec![cause],
                });
            }
            let mut new = old.value.clone();
            set(&mut new, &paths.replicas, replicas.into());
            Ok(new)
        })
        .await?;
    notes.warnings.append(&mut warnings);
    Ok(match outcome {
        Outcome::Changed(object) => Outcome::Changed(Arc::new(of(job.resource, &object, paths)?)),
        other => other,
    })
}

/// Sets a dotted path, making what is missing on the way.
pub(crate) fn set(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for key in path.split('.') {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[key];
    }
    *place = value;
}
