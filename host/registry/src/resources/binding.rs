//! `pods/binding`: a pod is given to a node. The scheduler's only write, so it goes straight to the point: one parse, one
//! edit, one transaction; only what a binding can get wrong is checked.

use client::{Outcome, Preconditions, Target};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{Cause, Failure};
use serde_json::{Value, json};

use crate::Registry;
use crate::meta;
use crate::resource::Acting;
use crate::resources::common::{child, put_condition};
use crate::table::{list_at, text_at};

pub(crate) fn bind<'a>(registry: &'a Registry, acting: Acting<'a>) -> BoxFuture<'a, Result<Outcome, Failure>> {
    async move {
        let Acting { job, target, body, .. } = acting;
        let node = text_at(&body, "target.name");
        let kind = text_at(&body, "target.kind");
        let mut wrong = Vec::new();
        if !matches!(kind, "" | "Node") {
            wrong.push(Cause::not_supported(
                "target.kind",
                format!("{kind:?}"),
                &["Node", "<empty>"],
            ));
        }
        if node.is_empty() {
            wrong.push(Cause::required("target.name", ""));
        }
        if !wrong.is_empty() {
            let kind = model::Gvk::new("", "v1", "Binding");
            return Err(Failure::Invalid {
                kind,
                name: target.name.clone(),
                causes: wrong,
            });
        }
        let missing = || Failure::NotFound(job.cache.key(&target.namespace, &target.name));
        let version = meta::version(&body)?;
        let uid = text_at(&body, "metadata.uid");
        let uid = (!uid.is_empty()).then(|| model::Uid(uid.into()));
        let asked = Preconditions { uid, version };
        let mut old = job.old(target, version).await?.ok_or_else(missing)?;
        loop {
            if let Err(failure) = job.hold(&old.object, &asked).and_then(|()| allowed(&old.value, target)) {
                // Not on the word of a cache that may be behind.
                if job.confirm(&mut old).await? {
                    return Err(failure);
                }
                continue;
            }
            let mut pod = old.value;
            assign(&mut pod, node, &body, registry.now());
            if job.options.dry_run {
                return Ok(done());
            }
            match job.replace(&old.object, pod).await? {
                Ok(_) => return Ok(done()),
                Err(now) => old = now,
            }
        }
    }
    .boxed()
}

/// Whether the pod is there to be given away.
fn allowed(pod: &Value, target: &Target) -> Result<(), Failure> {
    let assigned = text_at(pod, "spec.nodeName");
    let reason = if meta::is_dying(pod) {
        format!("pod {} is being deleted, cannot be assigned to a host", target.name)
    } else if !assigned.is_empty() {
        format!("pod {} is already assigned to node {assigned:?}", target.name)
    } else if !list_at(pod, "spec.schedulingGates").is_empty() {
        format!("pod {} has non-empty .spec.schedulingGates", target.name)
    } else {
        return Ok(());
    };
    let resource = model::GroupResource::new("", "pods/binding");
    let object = model::ObjectKey::new(resource, &target.namespace, &target.name);
    Err(Failure::Conflict {
        object,
        reason,
        causes: Vec::new(),
    })
}

fn assign(pod: &mut Value, node: &str, binding: &Value, now: jiff::Timestamp) {
    child(pod, "spec")["nodeName"] = node.into();
    // What the scheduler says about the pod with the binding (volume choices, topology).
    for map in ["annotations", "labels"] {
        for (key, value) in binding["metadata"]
            .get(map)
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            child(child(pod, "metadata"), map)[key] = value.clone();
        }
    }
    put_condition(pod, json!({"type": "PodScheduled", "status": "True"}), now);
    // Whoever was to make room has done so.
    if let Some(status) = pod["status"].as_object_mut() {
        status.remove("nominatedNodeName");
    }
}

fn done() -> Outcome {
    Outcome::Document {
        json: SUCCESS.into(),
        created: true,
    }
}

/// `v1.Status` for things that are done and have nothing to show.
pub(crate) const SUCCESS: &str = r#"{"apiVersion":"v1","kind":"Status","metadata":{},"status":"Success","code":201}"#;
