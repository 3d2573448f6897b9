//! The node as the cluster sees it: its Node object, kept true, and its Lease, renewed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Action, Cluster, Outcome, PatchKind, Preconditions, ReadVersion, Target, Write, WriteOptions};
use jiff::Timestamp;
use model::time::{micros, seconds};
use model::{Caller, Failure, Gvr, Object};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::KubeletConfig;
use crate::proc;
use crate::runtime::{ImageFacts, Runtime, RuntimeInfo};

/// The status is written this often even when nothing changed, as Kubernetes does; the lease tells that we live.
pub(crate) const STATUS_EVERY: Duration = Duration::from_secs(300);
const IMAGES_TOLD: usize = 50;

pub(crate) struct Node {
    pub config: Arc<KubeletConfig>,
    pub cluster: Arc<dyn Cluster>,
    pub caller: Caller,
    pub runtime: Arc<dyn Runtime>,
    pub capacity: BTreeMap<String, String>,
}

/// What this machine has, unless the configuration says otherwise.
pub(crate) fn capacity(config: &KubeletConfig) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    found.insert("cpu".into(), cpus.to_string());
    found.insert("memory".into(), format!("{}Ki", memory() / 1024));
    found.insert("pods".into(), config.max_pods.to_string());
    let bytes = nix::sys::statvfs::statvfs(&config.root).map_or(0, |s| s.blocks() * s.fragment_size());
    found.insert("ephemeral-storage".into(), format!("{}Ki", bytes / 1024));
    found.extend(config.capacity.clone());
    found
}

/// Bytes of memory that the machine has; 0 where nobody tells.
pub(crate) fn memory() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    proc::bytes(&meminfo, "MemTotal:").unwrap_or(0)
}

impl Node {
    /// Until `stop`: registers, then keeps status and lease. Failures are tried again; the node stays unready meanwhile.
    pub async fn keep(self, stop: CancellationToken) {
        let work = async {
            let mut pause = Duration::from_millis(100);
            while let Err(failure) = self.register().await {
                tracing::warn!(node = self.config.node_name, "cannot register the node: {failure}");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(7));
            }
            tokio::join!(self.keep_status(), self.keep_lease());
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    fn target(&self) -> Target {
        Target::new(Gvr::new("", "v1", "nodes"), "", &self.config.node_name)
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let arch = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let mut labels = BTreeMap::from([
            ("kubernetes.io/hostname".into(), self.config.node_name.clone()),
            ("kubernetes.io/os".into(), "linux".into()),
            ("kubernetes.io/arch".into(), arch.into()),
            ("beta.kubernetes.io/os".into(), "linux".into()),
            ("beta.kubernetes.io/arch".into(), arch.into()),
        ]);
        labels.extend(self.config.labels.clone());
        labels
    }

    /// Creates the Node, or puts our labels on the one that is there.
    async fn register(&self) -> Result<(), Failure> {
        let taints: Vec<Value> = self
            .config
            .taints
            .iter()
            .map(|(key, value, effect)| json!({"key": key, "value": value, "effect": effect}))
            .collect();
        let node = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.config.node_name, "labels": self.labels()},
            "spec": {"taints": taints},
            "status": self.status(None, Timestamp::now()).await,
        });
        match self
            .write(
                Target {
                    name: String::new(),
                    ..self.target()
                },
                Action::Create(body(&node)),
            )
            .await
        {
            Ok(_) => {}
            Err(Failure::AlreadyExists(_)) => {
                let patch = json!({"metadata": {"labels": self.labels()}});
                self.write(self.target(), patch_of(PatchKind::Merge, &patch)).await?;
            }
            Err(failure) => return Err(failure),
        }
        // A create does not take a status: written right behind, so that the node is ready at once.
        self.report(Timestamp::now()).await.map(drop)
    }

    async fn keep_status(&self) {
        let mut told: Option<Value> = None;
        let mut told_at = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(self.config.heartbeat).await;
            let now = Timestamp::now();
            let fresh = shape(&self.status(None, now).await);
            let unchanged = told.as_ref() == Some(&fresh) && told_at.elapsed() < STATUS_EVERY;
            // Looked at all the same: somebody may have deleted the node while it lives, and then it comes back.
            let outcome = if unchanged {
                let target = self.target();
                self.cluster
                    .get(&self.caller, &target, ReadVersion::Any)
                    .await
                    .map(drop)
            } else {
                self.report(now).await
            };
            match outcome {
                Ok(()) if unchanged => {}
                Ok(()) => (told, told_at) = (Some(fresh), tokio::time::Instant::now()),
                Err(Failure::NotFound(_)) => {
                    if let Err(failure) = self.register().await {
                        tracing::warn!("cannot register the node again: {failure}");
                    }
                }
                Err(failure) => tracing::warn!("cannot write the node's status: {failure}"),
            }
        }
    }

    async fn report(&self, now: Timestamp) -> Result<(), Failure> {
        let node = self
            .cluster
            .get(&self.caller, &self.target(), ReadVersion::Latest)
            .await?;
        let status = self.status(Some(&node.value()["status"]), now).await;
        let patch = json!({"status": status});
        let target = self.target().subresource("status");
        self.write(target, patch_of(PatchKind::Strategic, &patch))
            .await
            .map(drop)
    }

    /// `before` gives the transition times of conditions that did not change.
    async fn status(&self, before: Option<&Value>, now: Timestamp) -> Value {
        let info = self.runtime.info().await;
        let images = self.runtime.images().await.unwrap_or_default();
        let (info, trouble) = match info {
            Ok(info) => {
                let trouble = info.trouble.clone();
                (Some(info), trouble)
            }
            Err(failure) => (None, Some(format!("container runtime is down: {failure}"))),
        };
        let config = &self.config;
        let mut conditions = Vec::new();
        for (name, reason, message) in [
            (
                "MemoryPressure",
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
            (
                "DiskPressure",
                "KubeletHasNoDiskPressure",
                "kubelet has no disk pressure",
            ),
            (
                "PIDPressure",
                "KubeletHasSufficientPID",
                "kubelet has sufficient PID available",
            ),
        ] {
            conditions.push(condition(before, name, false, reason, message, now));
        }
        conditions.push(match trouble {
            None => condition(
                before,
                "Ready",
                true,
                "KubeletReady",
                "kubelet is posting ready status",
                now,
            ),
            Some(trouble) => condition(before, "Ready", false, "KubeletNotReady", &trouble, now),
        });
        json!({
            "capacity": self.capacity,
            "allocatable": self.capacity,
            "conditions": conditions,
            "addresses": [
                {"type": "InternalIP", "address": config.node_ip},
                {"type": "Hostname", "address": config.node_name},
            ],
            "nodeInfo": node_info(info.as_ref()),
            "images": told_images(images),
        })
    }

    /// Server-side, the lease is ours alone: a conflict means that somebody else uses our name, and is told.
    async fn keep_lease(&self) {
        let gvr = Gvr::new("coordination.k8s.io", "v1", "leases");
        let target = Target::new(gvr, "kube-node-lease", &self.config.node_name);
        let mut held: Option<Arc<Object>> = None;
        loop {
            match self.renew(&target, held.take()).await {
                Ok(lease) => held = lease,
                Err(failure) => tracing::warn!(node = self.config.node_name, "cannot renew the lease: {failure}"),
            }
            tokio::time::sleep(self.config.heartbeat).await;
        }
    }

    async fn renew(&self, target: &Target, held: Option<Arc<Object>>) -> Result<Option<Arc<Object>>, Failure> {
        let held = match held {
            Some(lease) => Some(lease),
            None => match self.cluster.get(&self.caller, target, ReadVersion::Latest).await {
                Ok(lease) => Some(lease),
                Err(Failure::NotFound(_)) => None,
                Err(failure) => return Err(failure),
            },
        };
        let spec = json!({
            "holderIdentity": self.config.node_name,
            "leaseDurationSeconds": self.config.lease_duration.as_secs(),
            "renewTime": micros(Timestamp::now()),
        });
        let written = match held {
            Some(lease) => {
                let mut value = lease.value();
                value["spec"] = spec;
                let action = Action::Update {
                    body: body(&value),
                    preconditions: Preconditions::default(),
                };
                self.write(target.clone(), action).await?
            }
            None => {
                let owner = self
                    .cluster
                    .get(&self.caller, &self.target(), ReadVersion::Latest)
                    .await?;
                let lease = json!({
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {
                        "name": self.config.node_name,
                        "namespace": target.namespace,
                        "ownerReferences": [
                            {"apiVersion": "v1", "kind": "Node", "name": self.config.node_name, "uid": owner.uid.0},
                        ],
                    },
                    "spec": spec,
                });
                let target = Target {
                    name: String::new(),
                    ..target.clone()
                };
                self.write(target, Action::Create(body(&lease))).await?
            }
        };
        Ok(written.object().cloned())
    }

    async fn write(&self, target: Target, action: Action) -> Result<Outcome, Failure> {
        let write = Write {
            target,
            action,
            options: WriteOptions::default(),
        };
        Ok(self.cluster.write(&self.caller, write).await?.outcome)
    }
}

fn body(value: &Value) -> bytes::Bytes {
    value.to_string().into()
}

fn patch_of(kind: PatchKind, patch: &Value) -> Action {
    Action::Patch {
        kind,
        body: body(patch),
        preconditions: Preconditions::default(),
    }
}

/// A status without the times that change by themselves.
fn shape(status: &Value) -> Value {
    let mut shape = status.clone();
    for condition in shape["conditions"].as_array_mut().into_iter().flatten() {
        condition["lastHeartbeatTime"] = Value::Null;
        condition["lastTransitionTime"] = Value::Null;
    }
    shape
}

fn condition(before: Option<&Value>, name: &str, held: bool, reason: &str, message: &str, now: Timestamp) -> Value {
    let status = if held { "True" } else { "False" };
    let list = before.and_then(|b| b["conditions"].as_array()).into_iter().flatten();
    let same = list.clone().find(|c| c["type"] == name && c["status"] == status);
    let since = same
        .and_then(|c| c["lastTransitionTime"].as_str())
        .map_or_else(|| seconds(now), Into::into);
    json!({
        "type": name,
        "status": status,
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": seconds(now),
        "lastTransitionTime": since,
    })
}

fn node_info(runtime: Option<&RuntimeInfo>) -> Value {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let release = file("/etc/os-release");
    let pretty = release
        .lines()
        .find_map(|l| l.strip_prefix("PRETTY_NAME="))
        .unwrap_or("Linux")
        .trim_matches('"');
    json!({
        "machineID": file("/etc/machine-id"),
        "systemUUID": file("/etc/machine-id"),
        "bootID": file("/proc/sys/kernel/random/boot_id"),
        "kernelVersion": file("/proc/sys/kernel/osrelease"),
        "osImage": pretty,
        "containerRuntimeVersion": runtime.map_or_else(String::new, |r| format!("{}://{}", r.name, r.version)),
        "kubeletVersion": concat!("v1.36.0+pilotis-", env!("CARGO_PKG_VERSION")),
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
    })
}

/// The largest ones: image locality weighs bytes.
fn told_images(mut images: Vec<ImageFacts>) -> Value {
    images.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.names.cmp(&b.names)));
    images.truncate(IMAGES_TOLD);
    images
        .into_iter()
        .map(|i| json!({"names": i.names, "sizeBytes": i.bytes}))
        .collect()
}
