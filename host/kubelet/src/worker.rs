//! One pod's worker: feeds events to `step` and carries out its commands. Nothing here decides anything.
//!
//! Commands run as tasks of the worker and come back as events; at most one write to the API server is under way, and
//! what became old while it waited is never written. If the process dies, the next one recovers from runtime and status.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Action, DeleteOptions, PatchKind, Preconditions, Target, Write, WriteOptions};
use jiff::Timestamp;
use model::{CauseReason, Failure, Gvr, Uid};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};

use crate::config::KubeletConfig;
use crate::container::{container_config, pod_ref, sandbox_config};
use crate::env::Placed;
use crate::events::{Events, Told};
use crate::files::Layout;
use crate::pod::spec::{ContainerSpec, Pod, Probe};
use crate::pod::state::{NodeFacts, PodState, Sandbox};
use crate::pod::step::{Command, Event, Happened, ProbeKind, step};
use crate::probe::{self, Probed};
use crate::read::Reader;
use crate::runtime::{Credential, ImageWanted, Runtime};
use crate::volume::{self, Upkeep};

/// What all workers share.
pub(crate) struct Shared {
    pub config: Arc<KubeletConfig>,
    pub layout: Layout,
    pub reader: Reader,
    pub runtime: Arc<dyn Runtime>,
    pub node: Arc<NodeFacts>,
    pub allocatable: std::collections::BTreeMap<String, String>,
    pub events: Events,
    /// Held while something heavy is started.
    pub starts: Semaphore,
    pub dns: Vec<String>,
    pub memory: u64,
}

/// What a task of the worker comes back with.
enum Done {
    Happened(Happened),
    Reported(Result<(), Failure>),
    Deleted(Result<(), Failure>),
    Volumes(Result<Upkeep, String>),
    Nothing,
}

struct Worker {
    shared: Arc<Shared>,
    state: PodState,
    tasks: JoinSet<Done>,
    probes: HashMap<(String, ProbeKind), AbortHandle>,
    probe_send: mpsc::Sender<Happened>,
    /// The newest status that was not written yet.
    unwritten: Option<Value>,
    writing: bool,
    /// The object is to be deleted once all is written.
    delete: bool,
    /// How often in a row writing has failed.
    failures: u32,
    upkeep: Upkeep,
    wake: Option<Timestamp>,
    refresh: Option<tokio::time::Instant>,
}

/// Runs until nothing is left of the pod, or the sender of `inbox` is dropped (the kubelet stops; the pod goes on).
pub(crate) async fn run(shared: Arc<Shared>, state: PodState, mut inbox: mpsc::Receiver<Happened>) {
    let (probe_send, mut probed) = mpsc::channel(16);
    let mut worker = Worker {
        shared,
        state,
        tasks: JoinSet::new(),
        probes: HashMap::new(),
        probe_send,
        unwritten: None,
        writing: false,
        delete: false,
        failures: 0,
        upkeep: Upkeep::default(),
        wake: None,
        refresh: None,
    };
    let mut happened = Some(Happened::Met);
    loop {
        if let Some(what) = happened.take() {
            let orders = step(
                &mut worker.state,
                Event {
                    at: Timestamp::now(),
                    what,
                },
            );
            let over = orders.contains(&Command::Forget);
            for order in orders {
                worker.carry_out(order);
            }
            worker.write_next();
            if over {
                return;
            }
        }
        let wake = worker.wake.map(until);
        happened = tokio::select! {
            what = inbox.recv() => match what {
                Some(what) => Some(what),
                None => return,
            },
            Some(what) = probed.recv() => Some(what),
            Some(done) = worker.tasks.join_next() => worker.done(done),
            () = sleep_until(wake) => {
                worker.wake = None;
                Some(Happened::Tick)
            }
            () = sleep_until(worker.refresh) => {
                worker.refresh = None;
                worker.prepare_volumes();
                None
            }
        };
    }
}

fn until(at: Timestamp) -> tokio::time::Instant {
    let left = at
        .duration_since(Timestamp::now())
        .max(jiff::SignedDuration::ZERO)
        .unsigned_abs();
    // A millisecond more, so that the moment is really there when the step looks at the clock.
    tokio::time::Instant::now() + left + Duration::from_millis(1)
}

async fn sleep_until(at: Option<tokio::time::Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Worker {
    fn carry_out(&mut self, order: Command) {
        match order {
            Command::PrepareVolumes => self.prepare_volumes(),
            Command::StartSandbox { attempt } => self.start_sandbox(attempt),
            Command::PullImage { container } => self.pull(container),
            Command::StartContainer {
                container,
                attempt,
                image_id,
            } => self.start(container, attempt, image_id),
            Command::BeginProbe { container, id, kind } => self.begin_probe(container, id, kind),
            Command::EndProbes { container } => self.end_probes(&container),
            Command::StopContainer { container, id, grace } => self.stop(container, id, grace),
            Command::RemoveContainer { id } => {
                let runtime = self.shared.runtime.clone();
                self.tasks.spawn(async move {
                    if let Err(failure) = runtime.remove_container(&id).await {
                        tracing::warn!("cannot remove the ended container {id}: {failure}");
                    }
                    Done::Nothing
                });
            }
            Command::RemoveSandbox { id } => {
                let runtime = self.shared.runtime.clone();
                self.tasks.spawn(async move {
                    // Nothing else can be done with the pod before this: tried until it works.
                    while let Err(failure) = runtime.remove_sandbox(&id).await {
                        tracing::warn!("cannot remove the sandbox {id}: {failure}");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Done::Happened(Happened::SandboxRemoved)
                });
            }
            Command::Cleanup => self.clean_up(),
            Command::Report(status) => self.unwritten = Some(status),
            Command::Delete => self.delete = true,
            Command::Tell {
                warning,
                reason,
                message,
            } => {
                let pod = pod_ref(&self.state.pod);
                self.shared.events.tell(Told {
                    pod,
                    warning,
                    reason,
                    message,
                    at: self.state.now,
                });
            }
            Command::WakeAt(at) => self.wake = Some(self.wake.map_or(at, |before| before.min(at))),
            Command::Forget => {
                for (_, probe) in self.probes.drain() {
                    probe.abort();
                }
            }
        }
    }

    fn done(&mut self, done: Result<Done, tokio::task::JoinError>) -> Option<Happened> {
        match done {
            Ok(Done::Happened(what)) => Some(what),
            Ok(Done::Nothing) => None,
            Ok(Done::Volumes(Ok(upkeep))) => {
                self.refresh = self.next_refresh(&upkeep);
                self.upkeep = upkeep;
                Some(Happened::VolumesReady)
            }
            Ok(Done::Volumes(Err(message))) => {
                if self.state.volumes == crate::pod::state::Volumes::Ready {
                    // The pod runs on what it has; the next refresh may find it again.
                    self.refresh = Some(tokio::time::Instant::now() + self.shared.config.volume_refresh);
                    tracing::warn!(pod = self.state.pod.metadata.name, "cannot refresh volumes: {message}");
                    return None;
                }
                Some(Happened::VolumesFailed(message))
            }
            Ok(Done::Reported(result)) => {
                self.writing = false;
                self.failures = if result.is_ok() { 0 } else { self.failures + 1 };
                if let Err(failure) = result {
                    tracing::warn!(pod = self.state.pod.metadata.name, "status not written: {failure}");
                    if failure.worth_retrying() && self.unwritten.is_none() {
                        self.unwritten = Some(self.state.reported.clone());
                    }
                }
                self.write_next();
                None
            }
            Ok(Done::Deleted(result)) => {
                self.writing = false;
                if let Err(failure) = result {
                    self.failures += 1;
                    tracing::warn!(pod = self.state.pod.metadata.name, "pod not deleted: {failure}");
                    self.delete = failure.worth_retrying();
                }
                self.write_next();
                None
            }
            Err(e) => {
                if e.is_panic() {
                    tracing::error!(
                        pod = self.state.pod.metadata.name,
                        "a task of the pod's worker panicked: {e}"
                    );
                }
                None
            }
        }
    }

    fn next_refresh(&self, upkeep: &Upkeep) -> Option<tokio::time::Instant> {
        let now = tokio::time::Instant::now();
        let changes = upkeep.changes.then(|| now + self.shared.config.volume_refresh);
        let renewal = upkeep.renew_at().map(until);
        [changes, renewal].into_iter().flatten().min()
    }

    fn placed(&self) -> Placed {
        let host_ip = self.shared.node.ip.clone();
        let pod_ip = match &self.state.sandbox {
            Sandbox::Ready(facts) if !facts.ip.is_empty() => facts.ip.clone(),
            _ => host_ip.clone(),
        };
        Placed {
            pod_ip,
            host_ip,
            allocatable: self.shared.allocatable.clone(),
        }
    }

    fn prepare_volumes(&mut self) {
        let (shared, pod, placed) = (self.shared.clone(), self.state.pod.clone(), self.placed());
        let before = self.upkeep.clone();
        self.tasks.spawn(async move {
            let now = Timestamp::now();
            Done::Volumes(volume::prepare(&pod, &shared.layout, &placed, &shared.reader, now, before).await)
        });
    }

    fn start_sandbox(&mut self, attempt: u32) {
        let (shared, pod) = (self.shared.clone(), self.state.pod.clone());
        self.tasks.spawn(async move {
            let _turn = shared.starts.acquire().await;
            let config = sandbox_config(
                &pod,
                &shared.layout,
                attempt,
                (&shared.dns, &shared.config.cluster_domain),
            );
            let logs = config.log_dir.clone();
            if let Err(e) = tokio::fs::create_dir_all(&logs).await {
                return Done::Happened(Happened::SandboxFailed(format!("{}: {e}", logs.display())));
            }
            Done::Happened(match shared.runtime.start_sandbox(&config).await {
                Ok(facts) => Happened::SandboxStarted(facts),
                Err(failure) => Happened::SandboxFailed(failure.to_string()),
            })
        });
    }

    fn pull(&mut self, container: String) {
        let Some(spec) = self.state.spec_of(&container) else {
            return;
        };
        let (image, policy) = (spec.image.clone(), spec.image_pull_policy);
        let (shared, pod) = (self.shared.clone(), self.state.pod.clone());
        self.tasks.spawn(async move {
            let _turn = shared.starts.acquire().await;
            let credentials = credentials(&shared.reader, &pod).await;
            let wanted = ImageWanted {
                image,
                policy,
                credentials,
            };
            Done::Happened(match shared.runtime.image(&wanted).await {
                Ok(image_id) => Happened::ImageReady { container, image_id },
                Err(trouble) => Happened::ImageFailed {
                    container,
                    reason: trouble.reason,
                    message: trouble.message,
                },
            })
        });
    }

    fn start(&mut self, container: String, attempt: u32, image_id: String) {
        let Sandbox::Ready(sandbox) = self.state.sandbox.clone() else {
            return;
        };
        let Some(spec) = self.state.spec_of(&container).cloned() else {
            return;
        };
        let (shared, pod, placed) = (self.shared.clone(), self.state.pod.clone(), self.placed());
        let target = self.target_of(&spec);
        self.tasks.spawn(async move {
            let _turn = shared.starts.acquire().await;
            let failed = |container: String, reason, message| {
                Done::Happened(Happened::StartFailed {
                    container,
                    reason,
                    message,
                })
            };
            let made = async {
                container_config(
                    &pod,
                    &spec,
                    attempt,
                    &image_id,
                    &placed,
                    &shared.layout,
                    &shared.reader,
                    shared.memory,
                    target?,
                )
                .await
            };
            let config = match made.await {
                Ok(config) => config,
                Err(message) => return failed(container, "CreateContainerConfigError", message),
            };
            let dns = (shared.dns.as_slice(), shared.config.cluster_domain.as_str());
            let pod_config = sandbox_config(&pod, &shared.layout, 0, dns);
            let folder = pod_config.log_dir.join(&container);
            if let Err(e) = tokio::fs::create_dir_all(&folder).await {
                return failed(container, "CreateContainerError", format!("{}: {e}", folder.display()));
            }
            forget_old_logs(folder, attempt).await;
            let id = match shared.runtime.start_container(&sandbox, &pod_config, &config).await {
                Ok(id) => id,
                Err(failure) => {
                    // A runtime that is not there has not tried.
                    let reason = match failure {
                        Failure::Unavailable { .. } => "CreateContainerError",
                        _ => "RunContainerError",
                    };
                    return failed(container, reason, failure.to_string());
                }
            };
            if let Some(hook) = &spec.lifecycle.post_start {
                let probed = Probed {
                    container: spec.clone(),
                    id: id.clone(),
                    ip: placed.pod_ip,
                    runtime: shared.runtime.clone(),
                };
                // The API sets no limit to a hook but the life of the container.
                if let Err(message) = probe::once(&probed, hook, Duration::from_secs(3600)).await {
                    let grace = Duration::from_secs(pod.spec.termination_grace_period_seconds);
                    let _ = shared.runtime.stop_container(&id, grace).await;
                    let _ = shared.runtime.remove_container(&id).await;
                    return failed(
                        container,
                        "PostStartHookError",
                        format!("PostStartHook failed: {message}"),
                    );
                }
            }
            Done::Happened(Happened::Started { container, id, attempt })
        });
    }

    /// The instance whose processes an ephemeral container is to see, by id; the error is a sentence for its waiting message.
    fn target_of(&self, spec: &ContainerSpec) -> Result<Option<String>, String> {
        let target = spec.target_container_name.as_str();
        if target.is_empty() {
            return Ok(None);
        }
        let id = self.state.container(target).and_then(|c| c.id());
        id.map(|id| Some(id.to_owned()))
            .ok_or_else(|| format!("unable to find target container {target}"))
    }

    fn stop(&mut self, container: String, id: String, grace: Duration) {
        let Some(spec) = self.state.spec_of(&container).cloned() else {
            return;
        };
        let (runtime, ip) = (self.shared.runtime.clone(), self.placed().pod_ip);
        let uid = self.state.pod.metadata.uid.clone();
        self.tasks.spawn(async move {
            let begun = tokio::time::Instant::now();
            if let Some(hook) = &spec.lifecycle.pre_stop
                && !grace.is_zero()
            {
                let probed = Probed {
                    container: spec.clone(),
                    id: id.clone(),
                    ip,
                    runtime: runtime.clone(),
                };
                let hook = probe::once(&probed, hook, grace);
                if let Ok(Err(message)) = tokio::time::timeout(grace, hook).await {
                    tracing::warn!(container, "preStop hook failed: {message}");
                }
            }
            // What the hook left, but never less than two seconds when there was grace at all, as Kubernetes does.
            let left = grace
                .saturating_sub(begun.elapsed())
                .max(grace.min(Duration::from_secs(2)));
            while let Err(failure) = runtime.stop_container(&id, left).await {
                if matches!(failure, Failure::NotFound(_)) {
                    break;
                }
                tracing::warn!("cannot stop the container {id}: {failure}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            // How it ended is told through `changes` too; asking here keeps a lost event from holding up the pod.
            match runtime.pod(&uid).await {
                Ok(Some(facts)) => Done::Happened(Happened::Facts(facts)),
                Ok(None) | Err(_) => Done::Nothing,
            }
        });
    }

    fn clean_up(&mut self) {
        let (shared, pod) = (self.shared.clone(), self.state.pod.clone());
        self.tasks.spawn(async move {
            let (files, logs) = (
                shared.layout.pod(&pod.metadata.uid),
                shared.layout.pod_logs(&pod_ref(&pod)),
            );
            for folder in [files, logs] {
                match tokio::fs::remove_dir_all(&folder).await {
                    Ok(()) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    // A folder that stays costs disk, a pod that stays costs its name.
                    Err(e) => tracing::warn!("cannot remove {}: {e}", folder.display()),
                }
            }
            Done::Happened(Happened::Cleaned)
        });
    }

    fn begin_probe(&mut self, container: String, id: String, kind: ProbeKind) {
        let Some(spec) = self.state.spec_of(&container).cloned() else {
            return;
        };
        let probe: Option<Probe> = match kind {
            ProbeKind::Startup => spec.startup_probe.clone(),
            ProbeKind::Liveness => spec.liveness_probe.clone(),
            ProbeKind::Readiness => spec.readiness_probe.clone(),
        };
        let Some(probe) = probe else { return };
        let probed = Probed {
            container: spec,
            id,
            ip: self.placed().pod_ip,
            runtime: self.shared.runtime.clone(),
        };
        let send = self.probe_send.clone();
        let task = self.tasks.spawn(async move {
            probe::repeat(probed, kind, probe, send).await;
            Done::Nothing
        });
        if let Some(old) = self.probes.insert((container, kind), task) {
            old.abort();
        }
    }

    fn end_probes(&mut self, container: &str) {
        self.probes.retain(|(of, _), probe| {
            if of == container {
                probe.abort();
            }
            of != container
        });
    }

    /// Starts the next write if none is under way: the newest status, or the delete once all is told.
    fn write_next(&mut self) {
        if self.writing {
            return;
        }
        let meta = &self.state.pod.metadata;
        let target = Target::new(Gvr::new("", "v1", "pods"), &meta.namespace, &meta.name);
        let preconditions = Preconditions {
            uid: Some(Uid(meta.uid.as_str().into())),
            version: None,
        };
        let reader = self.shared.reader.clone();
        let pause = Duration::from_millis(if self.failures == 0 {
            0
        } else {
            100 << self.failures.min(8)
        });
        let (write, deletes) = if let Some(status) = self.unwritten.take() {
            let body = json!({"status": as_patch(status, &self.state.pod.status)})
                .to_string()
                .into();
            let action = Action::Patch {
                kind: PatchKind::Strategic,
                body,
                preconditions,
            };
            (
                Write {
                    target: target.subresource("status"),
                    action,
                    options: WriteOptions::default(),
                },
                false,
            )
        } else if std::mem::take(&mut self.delete) {
            let options = DeleteOptions {
                preconditions,
                grace: Some(0),
                propagation: None,
            };
            (
                Write {
                    target,
                    action: Action::Delete(options),
                    options: WriteOptions::default(),
                },
                true,
            )
        } else {
            return;
        };
        self.writing = true;
        self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            let result = match reader.cluster.write(&reader.caller, write).await {
                // Gone, or another pod of the same name: nobody is there to be told.
                Ok(_) | Err(Failure::NotFound(_)) => Ok(()),
                Err(Failure::Conflict { causes, .. })
                    if causes.iter().any(|c| c.reason == CauseReason::UidMismatch) =>
                {
                    Ok(())
                }
                Err(failure) => Err(failure),
            };
            if deletes {
                Done::Deleted(result)
            } else {
                Done::Reported(result)
            }
        });
    }
}

/// A status as a strategic merge patch: conditions of others stay, and what of ours is gone has to be named.
fn as_patch(mut status: Value, before: &Value) -> Value {
    for field in ["podIP", "podIPs", "reason", "message"] {
        if status.get(field).is_none() {
            status[field] = Value::Null;
        }
    }
    // A condition is merged into the one of its type: why it was False would stay when it is True.
    for condition in status["conditions"].as_array_mut().into_iter().flatten() {
        for field in ["reason", "message"] {
            if condition.get(field).is_none() {
                condition[field] = Value::Null;
            }
        }
    }
    // Lists of addresses are merged by address: a new one would stand behind the old one.
    for (one, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let changed = before[one].is_string() && before[one] != status[one];
        if let (true, Some(list)) = (changed, status.get_mut(all).and_then(Value::as_array_mut)) {
            list.insert(0, json!({"$patch": "replace"}));
        }
    }
    status
}

/// The last two attempts are kept: `kubectl logs --previous` asks for no more.
async fn forget_old_logs(folder: std::path::PathBuf, attempt: u32) {
    let work = tokio::task::spawn_blocking(move || {
        for (old, path) in crate::log::attempts(&folder) {
            if old + 1 < attempt {
                let _ = std::fs::remove_file(path.with_extension("log.1"));
                let _ = std::fs::remove_file(path);
            }
        }
    });
    let _ = work.await;
}

/// From `imagePullSecrets` (`kubernetes.io/dockerconfigjson`); those that are missing or malformed are passed over, as
/// Kubernetes does: the pull then says what it lacks.
async fn credentials(reader: &Reader, pod: &Pod) -> Vec<Credential> {
    let mut list = Vec::new();
    for secret in &pod.spec.image_pull_secrets {
        let Ok(Some(keys)) = reader.secret(&pod.metadata.namespace, &secret.name).await else {
            continue;
        };
        let Some(config) = keys.get(".dockerconfigjson") else {
            continue;
        };
        let Ok(config) = serde_json::from_slice::<Value>(config) else {
            continue;
        };
        for (registry, entry) in config["auths"].as_object().into_iter().flatten() {
            let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
            let (mut username, mut password) = (text("username"), text("password"));
            use base64::Engine;
            if username.is_empty()
                && let Ok(bytes) = base64::engine::general_purpose::STANDARD.decode(text("auth"))
                && let Some((user, pass)) = String::from_utf8_lossy(&bytes).split_once(':')
            {
                (username, password) = (user.into(), pass.into());
            }
            list.push(Credential {
                registry: registry.clone(),
                username,
                password,
            });
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_takes_back_what_no_longer_holds() {
        let before = json!({"podIP": "10.0.0.1"});
        let status = json!({
            "podIP": "10.0.0.2", "podIPs": [{"ip": "10.0.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        let expected = json!({
            "podIP": "10.0.0.2", "podIPs": [{"$patch": "replace"}, {"ip": "10.0.0.2"}],
            "reason": null, "message": null,
            "conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}],
        });
        assert_eq!(as_patch(status, &before), expected);
    }
}
