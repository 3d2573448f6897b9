//! What the scheduler tells people: the `PodScheduled` condition and events, written aside so that placing never waits.

use std::sync::Arc;

use client::{Action, Cluster, PatchKind, Preconditions, Target, Write, WriteOptions};
use model::{Caller, Failure, Gvr, Object, time};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tracing::debug;

use crate::bind::pods;

/// Reports waiting to be written. Beyond it they are dropped: events are best effort, and a condition is told again with the
/// pod's next try.
const WAITING: usize = 4096;
/// Reports written at a time.
const AT_ONCE: usize = 16;

#[derive(Debug)]
pub(crate) enum Report {
    Scheduled {
        pod: Arc<Object>,
        node: Arc<str>,
    },
    /// Fits nowhere, or was held up by a fault; the message says which.
    Failed {
        pod: Arc<Object>,
        reason: &'static str,
        message: String,
    },
}

/// Where reports are left.
#[derive(Debug, Clone)]
pub(crate) struct Reporter(mpsc::Sender<Report>);

impl Reporter {
    pub(crate) fn start(cluster: Arc<dyn Cluster>, caller: Caller, scheduler: String) -> Self {
        let (to, mut from) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            let slots = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
            while let Some(report) = from.recv().await {
                let Ok(slot) = slots.clone().acquire_owned().await else {
                    return;
                };
                let (cluster, caller, scheduler) = (cluster.clone(), caller.clone(), scheduler.clone());
                tokio::spawn(async move {
                    if let Err(failure) = write(&*cluster, &caller, &scheduler, report).await {
                        debug!(%failure, "a report on a pod was not written");
                    }
                    drop(slot);
                });
            }
        });
        Self(to)
    }

    /// Whether it was taken.
    pub(crate) fn tell(&self, report: Report) -> bool {
        self.0.try_send(report).is_ok()
    }
}

async fn write(cluster: &dyn Cluster, caller: &Caller, scheduler: &str, report: Report) -> Result<(), Failure> {
    let now = time::micros(jiff::Timestamp::now());
    match report {
        Report::Scheduled { pod, node } => {
            let message = format!("Successfully assigned {}/{} to {node}", pod.key.namespace, pod.key.name);
            create(
                cluster,
                caller,
                event(&pod, scheduler, "Normal", "Scheduled", "Binding", &message, &now),
            )
            .await
        }
        Report::Failed { pod, reason, message } => {
            let condition = json!({
                "type": "PodScheduled",
                "status": "False",
                "reason": reason,
                "message": message,
                "lastTransitionTime": time::seconds(jiff::Timestamp::now()),
            });
            let patch = json!({ "status": { "conditions": [condition] } });
            let write = Write {
                target: Target::new(pods(), &pod.key.namespace, &pod.key.name).subresource("status"),
                action: Action::Patch {
                    kind: PatchKind::Strategic,
                    body: patch.to_string().into(),
                    preconditions: Preconditions {
                        uid: Some(pod.uid.clone()),
                        version: None,
                    },
                },
                options: WriteOptions::default(),
            };
            cluster.write(caller, write).await?;
            create(
                cluster,
                caller,
                event(
                    &pod,
                    scheduler,
                    "Warning",
                    "FailedScheduling",
                    "Scheduling",
                    &message,
                    &now,
                ),
            )
            .await
        }
    }
}

async fn create(cluster: &dyn Cluster, caller: &Caller, event: Value) -> Result<(), Failure> {
    let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
    let write = Write {
        target: Target::new(Gvr::new("events.k8s.io", "v1", "events"), namespace, ""),
        action: Action::Create(event.to_string().into()),
        options: WriteOptions::default(),
    };
    cluster.write(caller, write).await.map(|_| ())
}

/// An `events.k8s.io/v1 Event` about a pod. Named after the pod and the moment, as client-go's recorder does.
fn event(pod: &Object, scheduler: &str, kind: &str, reason: &str, action: &str, note: &str, now: &str) -> Value {
    let moment = jiff::Timestamp::now().as_nanosecond();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": { "namespace": pod.key.namespace, "name": format!("{}.{moment:x}", pod.key.name) },
        "eventTime": now,
        "reportingController": scheduler,
        "reportingInstance": scheduler,
        "type": kind,
        "reason": reason,
        "action": action,
        "note": note,
        "regarding": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.key.namespace,
            "name": pod.key.name,
            "uid": pod.uid.0,
            "resourceVersion": pod.version.to_string(),
        },
    })
}
