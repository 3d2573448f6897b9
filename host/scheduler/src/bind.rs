//! Carries out a placement: the `binding` subresource, written as the scheduler's own user.

use client::{Action, Cluster, Target, Write, WriteOptions};
use model::{Caller, Failure, Gvr, Object};
use serde_json::json;

/// Writes the binding. Once it is acknowledged it is durable.
///
/// A binding carries the pod's uid, so a pod deleted and created anew under the same name is never bound by it.
pub(crate) async fn bind(cluster: &dyn Cluster, caller: &Caller, pod: &Object, node: &str) -> Result<(), Failure> {
    let (namespace, name) = (pod.key.namespace.as_str(), pod.key.name.as_str());
    let body = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": { "namespace": namespace, "name": name, "uid": pod.uid.0 },
        "target": { "apiVersion": "v1", "kind": "Node", "name": node },
    });
    let write = Write {
        target: Target::new(pods(), namespace, name).subresource("binding"),
        action: Action::Create(body.to_string().into()),
        options: WriteOptions::default(),
    };
    cluster.write(caller, write).await.map(|_| ())
}

pub(crate) fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

pub(crate) fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}
