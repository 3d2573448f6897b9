//! What `kubectl describe service` shows when a Service cannot be served here.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{Action, Cluster, Target, Write, WriteOptions};
use jiff::Timestamp;
use model::{Caller, Failure, Gvr};
use serde_json::json;

use crate::engine::Unserved;
use crate::facts::World;

/// Writes an Event once for each trouble; a trouble that goes and comes back is told again.
pub struct Teller {
    cluster: Arc<dyn Cluster>,
    caller: Caller,
    node: String,
    told: BTreeSet<Unserved>,
}

impl Teller {
    pub fn new(cluster: Arc<dyn Cluster>, caller: &Caller, node: &str) -> Self {
        Self {
            cluster,
            caller: caller.clone(),
            node: node.into(),
            told: BTreeSet::new(),
        }
    }

    /// Tells of what is new in `unserved`. Best effort: an Event that cannot be written is left to the log.
    pub async fn tell(&mut self, unserved: BTreeSet<Unserved>, world: &World) {
        for trouble in unserved.difference(&self.told) {
            let Unserved {
                namespace,
                service,
                why,
            } = trouble;
            tracing::warn!(%namespace, %service, "not served on this node: {why}");
            if let Err(error) = self.write(trouble, world).await {
                tracing::debug!(%error, "the Event about it was not written");
            }
        }
        self.told = unserved;
    }

    async fn write(&self, trouble: &Unserved, world: &World) -> Result<(), Failure> {
        let Unserved {
            namespace,
            service,
            why,
        } = trouble;
        let same = |s: &&Arc<crate::facts::Service>| s.metadata.namespace == *namespace && s.metadata.name == *service;
        let uid = world.services.iter().find(same).map_or("", |s| &s.metadata.uid);
        let now = Timestamp::now();
        let seconds = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let name = format!("{service}.{:x}", now.as_nanosecond());
        let event = json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": namespace, "name": name},
            "involvedObject": {
                "apiVersion": "v1", "kind": "Service", "namespace": namespace, "name": service, "uid": uid,
            },
            "type": "Warning",
            "reason": "NotServed",
            "message": why,
            "source": {"component": "kube-proxy", "host": self.node},
            "reportingComponent": "kube-proxy",
            "reportingInstance": self.node,
            "firstTimestamp": seconds,
            "lastTimestamp": seconds,
            "count": 1,
        });
        let write = Write {
            target: Target::new(Gvr::new("", "v1", "events"), namespace, &name),
            action: Action::Create(event.to_string().into()),
            options: WriteOptions::default(),
        };
        self.cluster.write(&self.caller, write).await.map(drop)
    }
}
