//! containerd or CRI-O over its socket (`runtime.v1` of the CRI).
//!
//! Changes are heard from `GetContainerEvents` where the runtime has it (containerd 1.7, CRI-O 1.26), else found by
//! listing once a second, two calls for the whole node. Only sandboxes with our own label are looked at, so that a
//! containerd shared with others keeps theirs.

mod convert;
mod stream;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use client::node::{ExecRequest, Session};
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_cri::v1;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use model::Failure;
use tokio::sync::mpsc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{
    ContainerConfig, ContainerFacts, ExecOutput, ImageFacts, ImageTrouble, ImageWanted, PodFacts, PodRef, PodUsage,
    Runtime, RuntimeInfo, SandboxConfig, SandboxFacts,
};
use crate::pod::spec::PullPolicy;

/// Calls that start nothing answer within this; a runtime that hangs must not hang the node's status.
const QUICK: Duration = Duration::from_secs(30);
/// RunPodSandbox runs network plugins.
const SANDBOX: Duration = Duration::from_secs(240);
/// A pull of a large image over a slow line.
const PULL: Duration = Duration::from_secs(3600);
const RELIST: Duration = Duration::from_secs(1);

pub struct CriRuntime {
    calls: Calls,
    told: Mutex<Option<mpsc::Receiver<PodFacts>>>,
    tell: mpsc::Sender<PodFacts>,
}

#[derive(Clone)]
struct Calls {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    /// The value of [`convert::OWNER`] on what is ours.
    owner: String,
}

impl CriRuntime {
    /// `owner` tells our pods from those of other kubelets on the same socket: the node's name. Connects at the first
    /// call, and again whenever the runtime was restarted.
    ///
    /// # Errors
    /// Never for a path; the signature leaves room for addresses.
    pub fn new(socket: impl Into<PathBuf>, owner: &str) -> Result<Self, Failure> {
        let socket: PathBuf = socket.into();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(tokio::net::UnixStream::connect(socket).await?)) }
        });
        // The address is only a name: the connector knows where to go.
        let endpoint = Endpoint::try_from("http://runtime.invalid").map_err(Failure::internal)?;
        let channel = endpoint.connect_with_connector_lazy(connector);
        let runtime = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(64 << 20);
        let images = ImageServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let (tell, told) = mpsc::channel(1024);
        let calls = Calls {
            runtime,
            images,
            owner: owner.into(),
        };
        Ok(Self {
            calls,
            told: Mutex::new(Some(told)),
            tell,
        })
    }
}

fn failure(status: Status) -> Failure {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Failure::Unavailable {
            what: "the container runtime",
            source: Box::new(status),
        },
        _ => Failure::Internal(status.message().to_owned()),
    }
}

/// A request with a limit: the runtime stops working on it too.
fn within<T>(limit: Duration, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(limit);
    request
}

/// Not there any more is as good as removed.
fn gone_is_fine<T: Default>(result: Result<tonic::Response<T>, Status>) -> Result<(), Failure> {
    match result {
        Err(status) if status.code() != Code::NotFound => Err(failure(status)),
        _ => Ok(()),
    }
}

impl Calls {
    async fn sandboxes(&self, uid: Option<&str>) -> Result<Vec<v1::PodSandbox>, Failure> {
        let filter = v1::PodSandboxFilter {
            label_selector: self.selector(uid),
            ..Default::default()
        };
        let request = within(QUICK, v1::ListPodSandboxRequest { filter: Some(filter) });
        Ok(self
            .runtime
            .clone()
            .list_pod_sandbox(request)
            .await
            .map_err(failure)?
            .into_inner()
            .items)
    }

    async fn containers(&self, uid: Option<&str>) -> Result<Vec<v1::Container>, Failure> {
        let filter = v1::ContainerFilter {
            label_selector: self.selector(uid),
            ..Default::default()
        };
        let request = within(QUICK, v1::ListContainersRequest { filter: Some(filter) });
        Ok(self
            .runtime
            .clone()
            .list_containers(request)
            .await
            .map_err(failure)?
            .into_inner()
            .containers)
    }

    fn selector(&self, uid: Option<&str>) -> HashMap<String, String> {
        let mut selector = HashMap::from([(convert::OWNER.to_owned(), self.owner.clone())]);
        if let Some(uid) = uid {
            selector.insert(convert::UID.into(), uid.into());
        }
        selector
    }

    /// Of one pod: its newest sandbox, and every container that was not removed.
    async fn facts(&self, uid: &str) -> Result<Option<PodFacts>, Failure> {
        let observed = Timestamp::now();
        let (sandboxes, containers) = tokio::try_join!(self.sandboxes(Some(uid)), self.containers(Some(uid)))?;
        self.facts_of(sandboxes, containers, observed).await
    }

    async fn facts_of(
        &self,
        mut sandboxes: Vec<v1::PodSandbox>,
        containers: Vec<v1::Container>,
        observed: Timestamp,
    ) -> Result<Option<PodFacts>, Failure> {
        sandboxes.sort_by_key(|s| s.created_at);
        let Some(sandbox) = sandboxes.pop() else {
            return Ok(None);
        };
        let ready = sandbox.state == v1::PodSandboxState::SandboxReady as i32;
        let meta = sandbox.metadata.unwrap_or_default();
        let ip = if ready {
            self.address(&sandbox.id).await?
        } else {
            String::new()
        };
        let mut held = Vec::new();
        for container in containers {
            held.extend(self.container(container).await?);
        }
        Ok(Some(PodFacts {
            pod: PodRef {
                namespace: meta.namespace,
                name: meta.name,
                uid: meta.uid,
            },
            sandbox: SandboxFacts { id: sandbox.id, ip },
            sandbox_ready: ready,
            containers: held,
            observed,
        }))
    }

    async fn address(&self, sandbox: &str) -> Result<String, Failure> {
        let request = v1::PodSandboxStatusRequest {
            pod_sandbox_id: sandbox.into(),
            verbose: false,
        };
        let answer = self
            .runtime
            .clone()
            .pod_sandbox_status(within(QUICK, request))
            .await
            .map_err(failure)?;
        let network = answer.into_inner().status.and_then(|s| s.network);
        Ok(network.map(|n| n.ip).unwrap_or_default())
    }

    /// `None` if it was removed meanwhile.
    async fn container(&self, container: v1::Container) -> Result<Option<ContainerFacts>, Failure> {
        let request = v1::ContainerStatusRequest {
            container_id: container.id.clone(),
            verbose: false,
        };
        match self.runtime.clone().container_status(within(QUICK, request)).await {
            Ok(answer) => Ok(answer.into_inner().status.map(convert::container_facts)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failure(status)),
        }
    }

    /// Tells of changes until nobody listens.
    async fn hear(self, tell: mpsc::Sender<PodFacts>) {
        let mut known: BTreeMap<String, Brief> = BTreeMap::new();
        let mut has_events = true;
        while !tell.is_closed() {
            // A list first, also after an interruption: what happened meanwhile has no event.
            match self.relist(&mut known, &tell).await {
                Ok(()) => {}
                Err(failure) => {
                    tracing::warn!("the container runtime does not list its pods: {failure}")
                }
            }
            if has_events {
                let stream = self.runtime.clone().get_container_events(v1::GetEventsRequest {}).await;
                match stream {
                    Ok(stream) => self.hear_events(stream.into_inner(), &tell).await,
                    Err(status) if status.code() == Code::Unimplemented => has_events = false,
                    Err(_) => {}
                }
            }
            tokio::select! {
                () = tokio::time::sleep(RELIST) => {}
                () = tell.closed() => return,
            }
        }
    }

    async fn hear_events(
        &self,
        mut stream: tonic::Streaming<v1::ContainerEventResponse>,
        tell: &mpsc::Sender<PodFacts>,
    ) {
        while let Ok(Some(event)) = stream.message().await {
            let Some(meta) = event.pod_sandbox_status.and_then(|s| s.metadata) else {
                continue;
            };
            match self.facts(&meta.uid).await {
                Ok(Some(facts)) => {
                    if tell.send(facts).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {}
                Err(failure) => {
                    tracing::warn!("cannot ask for pod {}: {failure}", meta.name);
                    return; // The list that follows tells it.
                }
            }
        }
    }

    async fn relist(&self, known: &mut BTreeMap<String, Brief>, tell: &mpsc::Sender<PodFacts>) -> Result<(), Failure> {
        let observed = Timestamp::now();
        let (sandboxes, containers) = tokio::try_join!(self.sandboxes(None), self.containers(None))?;
        let mut pods: BTreeMap<String, (Vec<v1::PodSandbox>, Vec<v1::Container>)> = BTreeMap::new();
        for sandbox in sandboxes {
            let uid = sandbox.labels.get(convert::UID).cloned().unwrap_or_default();
            pods.entry(uid).or_default().0.push(sandbox);
        }
        for container in containers {
            let uid = container.labels.get(convert::UID).cloned().unwrap_or_default();
            pods.entry(uid).or_default().1.push(container);
        }
        known.retain(|uid, _| pods.contains_key(uid));
        for (uid, (sandboxes, containers)) in pods {
            let brief = brief(&sandboxes, &containers);
            if known.get(&uid) == Some(&brief) {
                continue;
            }
            if let Some(facts) = self.facts_of(sandboxes, containers, observed).await? {
                let _ = tell.send(facts).await;
            }
            known.insert(uid, brief);
        }
        Ok(())
    }
}

/// Id and state of everything of a pod.
type Brief = Vec<(String, i32)>;

fn brief(sandboxes: &[v1::PodSandbox], containers: &[v1::Container]) -> Brief {
    let sandboxes = sandboxes.iter().map(|s| (s.id.clone(), s.state));
    let mut brief: Brief = sandboxes
        .chain(containers.iter().map(|c| (c.id.clone(), c.state)))
        .collect();
    brief.sort();
    brief
}

#[async_trait]
impl Runtime for CriRuntime {
    async fn info(&self) -> Result<RuntimeInfo, Failure> {
        let mut runtime = self.calls.runtime.clone();
        let version = runtime
            .version(within(QUICK, v1::VersionRequest { version: "v1".into() }))
            .await;
        let version = version.map_err(failure)?.into_inner();
        let status = runtime
            .status(within(QUICK, v1::StatusRequest { verbose: false }))
            .await
            .map_err(failure)?;
        let conditions = status.into_inner().status.unwrap_or_default().conditions;
        let bad = conditions.into_iter().find(|c| !c.status);
        let trouble = bad.map(|c| format!("container runtime: {} is false: {} {}", c.r#type, c.reason, c.message));
        Ok(RuntimeInfo {
            name: version.runtime_name,
            version: version.runtime_version,
            trouble,
        })
    }

    async fn list(&self) -> Result<Vec<PodFacts>, Failure> {
        let mut uids: Vec<String> = self
            .calls
            .sandboxes(None)
            .await?
            .into_iter()
            .filter_map(|s| s.labels.get(convert::UID).cloned())
            .collect();
        uids.sort();
        uids.dedup();
        let mut all = Vec::new();
        for uid in uids {
            all.extend(self.calls.facts(&uid).await?);
        }
        Ok(all)
    }

    async fn pod(&self, uid: &str) -> Result<Option<PodFacts>, Failure> {
        self.calls.facts(uid).await
    }

    fn changes(&self) -> BoxStream<'static, PodFacts> {
        let Some(told) = self.told.lock().unwrap_or_else(|e| e.into_inner()).take() else {
            return futures::stream::pending().boxed();
        };
        tokio::spawn(self.calls.clone().hear(self.tell.clone()));
        tokio_stream::wrappers::ReceiverStream::new(told).boxed()
    }

    async fn image(&self, wanted: &ImageWanted) -> Result<String, ImageTrouble> {
        let name = &wanted.image;
        let spec = v1::ImageSpec {
            image: name.clone(),
            ..Default::default()
        };
        let mut images = self.calls.images.clone();
        let pull_failed = |message: String| ImageTrouble {
            reason: "ErrImagePull",
            message: format!("failed to pull image \"{name}\": {message}"),
        };
        let request = v1::ImageStatusRequest {
            image: Some(spec.clone()),
            verbose: false,
        };
        let present = images
            .image_status(within(QUICK, request))
            .await
            .map_err(|s| pull_failed(s.message().into()))?;
        let present = present.into_inner().image.map(|i| i.id);
        match (wanted.policy, present) {
            (PullPolicy::IfNotPresent | PullPolicy::Never, Some(id)) => return Ok(id),
            (PullPolicy::Never, None) => {
                return Err(ImageTrouble {
                    reason: "ErrImageNeverPull",
                    message: format!("Container image \"{name}\" is not present with pull policy of Never"),
                });
            }
            (PullPolicy::IfNotPresent, None) | (PullPolicy::Always, _) => {}
        }
        // Without credentials last: a registry may give more to those it knows.
        let tries = wanted.credentials.iter().map(|c| Some(convert::auth(c))).chain([None]);
        let mut refused = String::new();
        for auth in tries {
            let request = v1::PullImageRequest {
                image: Some(spec.clone()),
                auth,
                sandbox_config: None,
            };
            match images.pull_image(within(PULL, request)).await {
                Ok(answer) => return Ok(answer.into_inner().image_ref),
                Err(status) => refused = status.message().to_owned(),
            }
        }
        Err(pull_failed(refused))
    }

    async fn images(&self) -> Result<Vec<ImageFacts>, Failure> {
        let request = within(QUICK, v1::ListImagesRequest { filter: None });
        let list = self
            .calls
            .images
            .clone()
            .list_images(request)
            .await
            .map_err(failure)?
            .into_inner()
            .images;
        let facts = list.into_iter().map(|i| ImageFacts {
            names: i.repo_digests.into_iter().chain(i.repo_tags).collect(),
            bytes: i.size,
        });
        Ok(facts.filter(|i| !i.names.is_empty()).collect())
    }

    async fn start_sandbox(&self, config: &SandboxConfig) -> Result<SandboxFacts, Failure> {
        // What an earlier attempt left is in the way of its network name.
        for old in self.calls.sandboxes(Some(&config.pod.uid)).await? {
            self.remove_sandbox(&old.id).await?;
        }
        let request = v1::RunPodSandboxRequest {
            config: Some(convert::sandbox(config, &self.calls.owner)),
            runtime_handler: String::new(),
        };
        let answer = self
            .calls
            .runtime
            .clone()
            .run_pod_sandbox(within(SANDBOX, request))
            .await
            .map_err(failure)?;
        let id = answer.into_inner().pod_sandbox_id;
        let ip = self.calls.address(&id).await?;
        Ok(SandboxFacts { id, ip })
    }

    async fn start_container(
        &self,
        sandbox: &SandboxFacts,
        pod: &SandboxConfig,
        config: &ContainerConfig,
    ) -> Result<String, Failure> {
        let mut runtime = self.calls.runtime.clone();
        // A container of this attempt that a crash of ours left half-made would keep the name.
        for held in self.calls.containers(Some(&pod.pod.uid)).await? {
            let meta = held.metadata.unwrap_or_default();
            if meta.name == config.name && meta.attempt == config.attempt {
                self.remove_container(&held.id).await?;
            }
        }
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(convert::container(pod, config, &self.calls.owner)),
            sandbox_config: Some(convert::sandbox(pod, &self.calls.owner)),
        };
        let created = runtime
            .create_container(within(SANDBOX, request))
            .await
            .map_err(failure)?;
        let id = created.into_inner().container_id;
        let request = v1::StartContainerRequest {
            container_id: id.clone(),
        };
        if let Err(status) = runtime.start_container(within(SANDBOX, request)).await {
            self.remove_container(&id).await?;
            return Err(failure(status));
        }
        Ok(id)
    }

    async fn usage(&self) -> Result<Vec<PodUsage>, Failure> {
        let filter = v1::ContainerStatsFilter {
            label_selector: self.calls.selector(None),
            ..Default::default()
        };
        let request = within(QUICK, v1::ListContainerStatsRequest { filter: Some(filter) });
        let stats = self.calls.runtime.clone().list_container_stats(request).await;
        Ok(convert::usage(stats.map_err(failure)?.into_inner().stats))
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Failure> {
        let request = v1::StopContainerRequest {
            container_id: id.into(),
            timeout: grace.as_secs() as i64,
        };
        gone_is_fine(
            self.calls
                .runtime
                .clone()
                .stop_container(within(grace + QUICK, request))
                .await,
        )
    }

    async fn remove_container(&self, id: &str) -> Result<(), Failure> {
        let request = v1::RemoveContainerRequest {
            container_id: id.into(),
        };
        gone_is_fine(
            self.calls
                .runtime
                .clone()
                .remove_container(within(QUICK, request))
                .await,
        )
    }

    async fn remove_sandbox(&self, id: &str) -> Result<(), Failure> {
        let mut runtime = self.calls.runtime.clone();
        let request = v1::StopPodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        gone_is_fine(runtime.stop_pod_sandbox(within(SANDBOX, request)).await)?;
        let request = v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.into(),
        };
        gone_is_fine(runtime.remove_pod_sandbox(within(QUICK, request)).await)
    }

    async fn exec_sync(&self, id: &str, command: &[String], timeout: Duration) -> Result<ExecOutput, Failure> {
        let request = v1::ExecSyncRequest {
            container_id: id.into(),
            cmd: command.to_vec(),
            timeout: timeout.as_secs().max(1) as i64,
        };
        let answer = self
            .calls
            .runtime
            .clone()
            .exec_sync(within(timeout + QUICK, request))
            .await;
        let answer = answer.map_err(failure)?.into_inner();
        let cut = |mut bytes: Vec<u8>| {
            bytes.truncate(16 << 10);
            bytes.into()
        };
        Ok(ExecOutput {
            code: answer.exit_code,
            stdout: cut(answer.stdout),
            stderr: cut(answer.stderr),
        })
    }

    async fn exec(&self, id: &str, request: &ExecRequest) -> Result<Session, Failure> {
        let request = of_a_terminal(request);
        let ask = v1::ExecRequest {
            container_id: id.into(),
            cmd: request.command.clone(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let answer = self
            .calls
            .runtime
            .clone()
            .exec(within(QUICK, ask))
            .await
            .map_err(failure)?;
        stream::session(&answer.into_inner().url, &request).await
    }

    async fn attach(&self, id: &str, request: &ExecRequest) -> Result<Session, Failure> {
        let request = of_a_terminal(request);
        let ask = v1::AttachRequest {
            container_id: id.into(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let answer = self
            .calls
            .runtime
            .clone()
            .attach(within(QUICK, ask))
            .await
            .map_err(failure)?;
        stream::session(&answer.into_inner().url, &request).await
    }
}

/// A terminal has one output, and the CRI refuses to be asked for two.
fn of_a_terminal(request: &ExecRequest) -> ExecRequest {
    ExecRequest {
        stderr: request.stderr && !request.tty,
        ..request.clone()
    }
}
