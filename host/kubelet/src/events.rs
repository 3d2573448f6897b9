//! Kubernetes Events about pods: sent by one task, repeated ones counted instead of created again.

use std::collections::HashMap;
use std::sync::Arc;

use client::{Action, Cluster, PatchKind, Preconditions, Target, Write, WriteOptions};
use jiff::Timestamp;
use model::{Caller, Gvr};
use serde_json::json;
use tokio::sync::mpsc;

use crate::runtime::PodRef;

pub(crate) struct Told {
    pub pod: PodRef,
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
    pub at: Timestamp,
}

/// Drops what it cannot take: Events are a courtesy and must not hold up a pod.
#[derive(Clone)]
pub(crate) struct Events(mpsc::Sender<Told>);

/// Beyond so many different Events remembered, all are forgotten and counting starts anew.
const REMEMBERED: usize = 1024;

impl Events {
    /// Starts the task; it ends when the last clone is gone.
    pub fn start(cluster: Arc<dyn Cluster>, caller: Caller, node: String) -> Self {
        let (send, mut receive) = mpsc::channel::<Told>(256);
        tokio::spawn(async move {
            let mut known: HashMap<(String, &'static str, String), (String, u32)> = HashMap::new();
            while let Some(told) = receive.recv().await {
                let key = (told.pod.uid.clone(), told.reason, told.message.clone());
                if known.len() >= REMEMBERED {
                    known.clear();
                }
                let write = match known.get_mut(&key) {
                    Some((name, count)) => {
                        *count += 1;
                        again(&told, name, *count)
                    }
                    None => {
                        let name = format!("{}.{:x}", told.pod.name, told.at.as_nanosecond());
                        let write = first(&told, &name, &node);
                        known.insert(key, (name, 1));
                        write
                    }
                };
                if let Err(failure) = cluster.write(&caller, write).await {
                    tracing::debug!(
                        reason = told.reason,
                        pod = told.pod.name,
                        "event not written: {failure}"
                    );
                }
            }
        });
        Self(send)
    }

    pub fn tell(&self, told: Told) {
        if let Err(mpsc::error::TrySendError::Full(told)) = self.0.try_send(told) {
            tracing::debug!(
                reason = told.reason,
                pod = told.pod.name,
                "too many events, one dropped"
            );
        }
    }
}

fn first(told: &Told, name: &str, node: &str) -> Write {
    let pod = &told.pod;
    let at = model::time::seconds(told.at);
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": pod.namespace},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Pod", "namespace": pod.namespace, "name": pod.name, "uid": pod.uid,
        },
        "type": if told.warning { "Warning" } else { "Normal" },
        "reason": told.reason,
        "message": told.message,
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet",
        "reportingInstance": node,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    });
    let target = Target::new(Gvr::new("", "v1", "events"), &pod.namespace, "");
    Write {
        target,
        action: Action::Create(event.to_string().into()),
        options: WriteOptions::default(),
    }
}

fn again(told: &Told, name: &str, count: u32) -> Write {
    let patch = json!({"count": count, "lastTimestamp": model::time::seconds(told.at)});
    let target = Target::new(Gvr::new("", "v1", "events"), &told.pod.namespace, name);
    let action = Action::Patch {
        kind: PatchKind::Merge,
        body: patch.to_string().into(),
        preconditions: Preconditions::default(),
    };
    Write {
        target,
        action,
        options: WriteOptions::default(),
    }
}
