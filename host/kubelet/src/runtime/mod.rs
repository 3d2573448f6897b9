//! `Runtime`: what the kubelet asks of whoever runs containers.
//!
//! One folder per implementation: [`fake`] holds pods in memory, [`wasm`] runs components in processes of their own,
//! [`cri`] speaks to containerd or CRI-O. Nothing above this trait knows which one it has.

pub mod cri;
pub mod fake;
pub mod wasm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use client::node::{ExecRequest, Session};
use futures::stream::BoxStream;
use jiff::Timestamp;
use model::Failure;
use serde::{Deserialize, Serialize};

/// Runs pods. Every call may take long and may be dropped half-way; all but `start_*` may be repeated.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// # Errors
    /// `Unavailable` while the runtime cannot be reached.
    async fn info(&self) -> Result<RuntimeInfo, Failure>;

    /// All pods this runtime holds, running or not, also those of an earlier process.
    async fn list(&self) -> Result<Vec<PodFacts>, Failure>;

    /// One pod's facts.
    async fn pod(&self, uid: &str) -> Result<Option<PodFacts>, Failure>;

    /// A pod's facts each time something of it changed that no call of ours asked for. Facts may be told twice; a pod
    /// that changes twice quickly may be told once. Called once, at the start.
    fn changes(&self) -> BoxStream<'static, PodFacts>;

    /// Makes the image ready to start and answers its id.
    async fn image(&self, wanted: &ImageWanted) -> Result<String, ImageTrouble>;

    /// Images present, for the node's status.
    async fn images(&self) -> Result<Vec<ImageFacts>, Failure>;

    async fn start_sandbox(&self, config: &SandboxConfig) -> Result<SandboxFacts, Failure>;

    /// Creates and starts; answers the container's id.
    async fn start_container(
        &self,
        sandbox: &SandboxFacts,
        pod: &SandboxConfig,
        config: &ContainerConfig,
    ) -> Result<String, Failure>;

    /// What running pods have used. A pod, container or figure that this runtime does not account for is left out.
    async fn usage(&self) -> Result<Vec<PodUsage>, Failure>;

    /// Asks the container to end and ends it after `grace`. Returns when it has ended.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Failure>;

    /// Forgets an ended container.
    async fn remove_container(&self, id: &str) -> Result<(), Failure>;

    /// Ends what still runs in it and forgets it.
    async fn remove_sandbox(&self, id: &str) -> Result<(), Failure>;

    /// Runs a command to its end; for probes and hooks. At most 16 KiB of output are kept.
    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, Failure>;

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Session, Failure>;

    async fn attach(&self, id: &str, request: &ExecRequest) -> Result<Session, Failure>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// `containerd`, `pilotis-wasm`.
    pub name: String,
    pub version: String,
    /// `None` when it can run pods; else why not, for the node's `Ready` condition.
    pub trouble: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// What a runtime knows of a pod at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    pub pod: PodRef,
    pub sandbox: SandboxFacts,
    pub sandbox_ready: bool,
    /// All attempts that were not removed, in no order.
    pub containers: Vec<ContainerFacts>,
    /// When the runtime was asked: what was started later is not in here.
    pub observed: Timestamp,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFacts {
    pub id: String,
    /// Empty when the pod uses the host's network.
    pub ip: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFacts {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub image_id: String,
    pub state: ContainerState,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerState {
    Created,
    Running { started: Timestamp },
    Exited(Exit),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, …
    pub reason: String,
    pub message: String,
    pub started: Timestamp,
    pub finished: Timestamp,
}

impl Exit {
    /// `Completed` for 0, `Error` for the rest.
    pub fn reason_of(code: i32) -> &'static str {
        if code == 0 { "Completed" } else { "Error" }
    }
}

/// What a pod has used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodUsage {
    pub uid: String,
    /// Where more is known of it than of its containers one by one.
    pub whole: Option<Usage>,
    /// By container id.
    pub containers: BTreeMap<String, Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// When it was measured.
    pub at: Timestamp,
    /// Nanoseconds of processor time since the start, all processors together.
    pub cpu: Option<u64>,
    /// Bytes that could not be taken back under pressure: the working set.
    pub memory: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageWanted {
    pub image: String,
    pub policy: crate::pod::spec::PullPolicy,
    /// In the order they are to be tried.
    pub credentials: Vec<Credential>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    pub registry: String,
    pub username: String,
    pub password: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({} for {})", self.username, self.registry)
    }
}

/// Why an image cannot be used: a waiting reason of Kubernetes and a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageTrouble {
    /// `ErrImagePull`, `ErrImageNeverPull`, `InvalidImageName`.
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFacts {
    pub names: Vec<String>,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxConfig {
    pub pod: PodRef,
    pub attempt: u32,
    pub hostname: String,
    /// Absolute; container logs lie below it.
    pub log_dir: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub dns: Option<Dns>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    /// Containers see each other's processes, where the runtime has such.
    pub share_processes: bool,
    pub ports: Vec<PortMapping>,
    pub security: crate::pod::spec::PodSecurity,
    pub privileged: bool,
    /// Of the cgroup that holds the pod; empty for the runtime's default.
    pub cgroup_parent: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortMapping {
    pub protocol: String,
    pub container: u16,
    pub host: u16,
    pub host_ip: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerConfig {
    pub name: String,
    pub attempt: u32,
    /// As the pod names it.
    pub image: String,
    /// As [`Runtime::image`] answered.
    pub image_id: String,
    pub command: Vec<String>,
    pub args: Vec<String>,
    pub working_dir: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// Below the sandbox's `log_dir`: `NAME/ATTEMPT.log`.
    pub log_path: PathBuf,
    /// Declared TCP ports, in order.
    pub ports: Vec<u16>,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub resources: LinuxResources,
    #[serde(skip)]
    pub security: crate::pod::spec::ContainerSecurity,
    #[serde(skip)]
    pub pod_security: crate::pod::spec::PodSecurity,
    /// Sees the processes of this container of the pod, by id, where the runtime has such.
    #[serde(skip)]
    pub processes_of: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub container_path: String,
    pub host_path: PathBuf,
    pub read_only: bool,
}

/// Limits as cgroups take them; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinuxResources {
    pub cpu_shares: i64,
    /// Microseconds of CPU in each `cpu_period`.
    pub cpu_quota: i64,
    pub cpu_period: i64,
    /// Bytes.
    pub memory_limit: i64,
    pub oom_score_adj: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecOutput {
    pub code: i32,
    pub stdout: Bytes,
    pub stderr: Bytes,
}
