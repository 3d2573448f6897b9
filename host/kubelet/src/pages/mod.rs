//! What a node says of itself, at the paths where a stock kubelet serves it (`nodes/proxy`).
//!
//! Only what this kubelet knows: no figures of cAdvisor's, no files of the machine (`/logs`), no commands (`/run`, `/exec`).

mod metrics;
mod usage;

use std::sync::Arc;

use client::node::Page;
use client::{Collection, ListOptions, ReadVersion};
use jiff::Timestamp;
use model::{Failure, Gvr};
use serde_json::{Value, json};

use self::usage::Seen;
use crate::config::KubeletConfig;
use crate::node::STATUS_EVERY;
use crate::read::Reader;
use crate::runtime::{ContainerState, PodFacts, Runtime};

pub(crate) struct Pages {
    pub config: KubeletConfig,
    pub runtime: Arc<dyn Runtime>,
    pub reader: Reader,
}

impl Pages {
    /// # Errors
    /// `NoSuchResource` for a path where nothing is; what the runtime or the cluster fails with.
    pub async fn page(&self, path: &str) -> Result<Page, Failure> {
        match path.trim_end_matches('/') {
            "/healthz" => self.health().await,
            "/healthz/ping" => Ok(Page::text("ok".into())),
            "/configz" => Ok(Page::json(&configuration(&self.config))),
            "/metrics" => Ok(metrics::page(metrics::kubelet(
                &self.config.node_name,
                &self.runtime.list().await?,
            ))),
            "/metrics/resource" => Ok(metrics::page(metrics::resource(&self.seen().await?))),
            "/pods" => self.bound().await,
            "/runningpods" => Ok(Page::json(&running(&self.runtime.list().await?))),
            "/stats/summary" => Ok(Page::json(&self.seen().await?.summary(&self.config.node_name))),
            _ => Err(Failure::NoSuchResource { asked: path.to_owned() }),
        }
    }

    async fn health(&self) -> Result<Page, Failure> {
        match self.runtime.info().await?.trouble {
            None => Ok(Page::text("ok".into())),
            Some(trouble) => Err(Failure::Internal(trouble)),
        }
    }

    /// The pods that this node is to run.
    async fn bound(&self) -> Result<Page, Failure> {
        let of = Collection::all(Gvr::new("", "v1", "pods"));
        let options = ListOptions {
            fields: format!("spec.nodeName={}", self.config.node_name),
            version: ReadVersion::Any,
            ..ListOptions::default()
        };
        let list = self.reader.cluster.list(&self.reader.caller, &of, &options).await?;
        Ok(Page::json(&pod_list(list.items.iter().map(|pod| pod.value()))))
    }

    async fn seen(&self) -> Result<Seen, Failure> {
        let (pods, used) = tokio::try_join!(self.runtime.list(), self.runtime.usage())?;
        let root = self.config.root.clone();
        tokio::task::spawn_blocking(move || Seen::now(&root, pods, used))
            .await
            .map_err(Failure::internal)
    }
}

/// `KubeletConfiguration` (kubelet.config.k8s.io/v1beta1), as far as there is something to configure.
fn configuration(config: &KubeletConfig) -> Value {
    let taints: Vec<Value> = config
        .taints
        .iter()
        .map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect}))
        .collect();
    // Go reads Rust's durations, which are in seconds where Go's own would be in minutes.
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration",
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "registerNode": true,
        "registerWithTaints": taints,
        "clusterDNS": config.cluster_dns,
        "clusterDomain": config.cluster_domain,
        "maxPods": config.max_pods,
        "nodeLeaseDurationSeconds": config.lease_duration.as_secs(),
        "nodeStatusUpdateFrequency": format!("{:?}", config.heartbeat),
        "nodeStatusReportFrequency": format!("{STATUS_EVERY:?}"),
        "syncFrequency": format!("{:?}", config.volume_refresh),
    }})
}

/// Pods as objects, made from what the runtime holds.
fn running(pods: &[PodFacts]) -> Value {
    pod_list(pods.iter().filter(|facts| facts.sandbox_ready).map(|facts| {
        let containers: Vec<Value> = running_of(facts)
            .map(|(container, _)| json!({"name": container.name, "image": container.image_id, "resources": {}}))
            .collect();
        json!({
            "metadata": {"name": facts.pod.name, "namespace": facts.pod.namespace, "uid": facts.pod.uid},
            "spec": {"containers": containers},
            "status": {},
        })
    }))
}

fn pod_list(items: impl Iterator<Item = Value>) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items.collect::<Vec<_>>()})
}

/// The containers of a pod that run, and since when.
fn running_of(facts: &PodFacts) -> impl Iterator<Item = (&crate::runtime::ContainerFacts, Timestamp)> {
    facts.containers.iter().filter_map(|container| match container.state {
        ContainerState::Running { started } => Some((container, started)),
        ContainerState::Created | ContainerState::Exited(_) => None,
    })
}
