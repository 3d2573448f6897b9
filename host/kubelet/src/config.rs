//! What a kubelet is told when it starts.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use model::Caller;

use crate::files;

/// One node. Every field but `node_name` and `root` has a default that suits a machine of its own.
#[derive(Debug, Clone)]
pub struct KubeletConfig {
    pub node_name: String,
    /// Everything the kubelet keeps on disk; created, and private to its user.
    pub root: PathBuf,
    pub node_ip: IpAddr,
    pub labels: BTreeMap<String, String>,
    /// `(key, value, effect)`, put on a node that registers for the first time.
    pub taints: Vec<(String, String, String)>,
    /// Overrides of what the machine is found to have: `cpu`, `memory`, `pods`, `ephemeral-storage`.
    pub capacity: BTreeMap<String, String>,
    pub lease_duration: Duration,
    /// How often the lease is renewed.
    pub heartbeat: Duration,
    /// The addresses pods ask for names, and the domain of Services.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// How many pods are being started at the same time.
    pub parallel_starts: usize,
    /// Most pods this node takes; `capacity["pods"]` wins.
    pub max_pods: u32,
    /// How long a change of a ConfigMap or Secret may take to be seen in a volume.
    pub volume_refresh: Duration,
}

impl KubeletConfig {
    pub fn new(node_name: &str, root: impl Into<PathBuf>) -> Self {
        Self {
            node_name: node_name.into(),
            root: root.into(),
            node_ip: IpAddr::from([127, 0, 0, 1]),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            capacity: BTreeMap::new(),
            lease_duration: Duration::from_secs(40),
            heartbeat: Duration::from_secs(10),
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            parallel_starts: 16,
            max_pods: 110,
            volume_refresh: Duration::from_secs(60),
        }
    }

    /// As whom the node speaks.
    pub(crate) fn caller(&self) -> Caller {
        Caller::component(&format!("system:node:{}", self.node_name), &["system:nodes"])
    }

    pub(crate) fn files(&self) -> files::Layout {
        files::Layout {
            root: self.root.clone(),
        }
    }
}
