//! What happened, taken into a pod's state. Nothing that is due because of it is ordered here, but what cannot wait.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::spec::{ContainerSpec, Probe};
use super::state::{Cleanup, Container, Ended, Ending, Phase, PodState, Probes, Role, Sandbox, Volumes};
use super::step::{Command, Happened, ProbeKind, later};
use crate::runtime::{ContainerState, Exit, PodFacts};

pub(super) fn absorb(pod: &mut PodState, what: Happened, orders: &mut Vec<Command>) {
    let now = pod.now;
    match what {
        Happened::Spec(new) => {
            if new.metadata.uid == pod.pod.metadata.uid {
                pod.pod = new;
                pod.take_up_added();
            }
            if pod.pod.metadata.deletion_timestamp.is_some() {
                let grace = pod.pod.metadata.deletion_grace_period_seconds;
                end(
                    pod,
                    grace.unwrap_or(pod.pod.spec.termination_grace_period_seconds),
                    false,
                );
            }
        }
        Happened::Removed => end(pod, pod.pod.spec.termination_grace_period_seconds, true),
        Happened::Facts(facts) => take_facts(pod, facts, orders),
        Happened::VolumesReady => {
            pod.volumes = Volumes::Ready;
            pod.volumes_backoff.reset();
        }
        Happened::VolumesFailed(message) => {
            pod.volumes = Volumes::None {
                not_before: later(now, pod.volumes_backoff.failed_briefly()),
            };
            orders.push(Command::Tell {
                warning: true,
                reason: "FailedMount",
                message,
            });
        }
        Happened::SandboxStarted(facts) => {
            pod.sandbox = Sandbox::Ready(facts);
            pod.sandbox_backoff.reset();
        }
        Happened::SandboxFailed(message) => {
            pod.sandbox = Sandbox::None {
                not_before: later(now, pod.sandbox_backoff.failed_briefly()),
            };
            let message = format!("Failed to create pod sandbox: {message}");
            orders.push(Command::Tell {
                warning: true,
                reason: "FailedCreatePodSandBox",
                message,
            });
        }
        Happened::SandboxRemoved => {
            pod.sandbox = if pod.finished() {
                Sandbox::Gone
            } else {
                Sandbox::None { not_before: now }
            };
        }
        Happened::ImageReady { container, image_id } => {
            if let Some(c) = pod.container_mut(&container).filter(|c| c.phase == Phase::Pulling) {
                c.pulls.reset();
                c.image_id = Some(image_id);
                c.wait("", String::new(), now);
            }
        }
        Happened::ImageFailed {
            container,
            reason,
            message,
        } => {
            if let Some(c) = pod.container_mut(&container).filter(|c| c.phase == Phase::Pulling) {
                c.not_before = later(now, c.pulls.failed());
                c.wait(reason, message.clone(), now);
                orders.push(Command::Tell {
                    warning: true,
                    reason: "Failed",
                    message,
                });
            }
        }
        Happened::Started { container, id, attempt } => started(pod, &container, id, attempt, orders),
        Happened::StartFailed {
            container,
            reason,
            message,
        } => {
            if let Some(c) = pod.container_mut(&container).filter(|c| c.phase == Phase::Starting) {
                orders.push(Command::Tell {
                    warning: true,
                    reason: "Failed",
                    message: format!("Error: {message}"),
                });
                if c.role == Role::Ephemeral && reason == "RunContainerError" {
                    // The one start it has: whoever added it is told at once, and adds another.
                    c.end(never_ran(message, now));
                    return;
                }
                // What is missing (a ConfigMap, a key) is often on its way; what cannot run will not soon.
                let wait = match reason {
                    "CreateContainerConfigError" => c.starts.failed_briefly(),
                    _ => c.starts.failed(),
                };
                c.not_before = later(now, wait);
                c.wait(reason, message, now);
            }
        }
        Happened::Probed {
            container,
            id,
            kind,
            success,
            message,
        } => {
            probed(pod, &container, &id, kind, success, message, orders);
        }
        Happened::Cleaned => pod.cleanup = Cleanup::Done,
        Happened::Tick => pod.wake_at = None,
        Happened::Met => {
            for container in &pod.containers {
                begin_probes(pod, &container.name, orders);
            }
        }
    }
}

fn end(pod: &mut PodState, grace: u64, removed: bool) {
    let deadline = later(pod.now, SignedDuration::from_secs(grace.min(i32::MAX as u64) as i64));
    match &mut pod.ending {
        // A second delete may shorten the grace, never lengthen it.
        Some(ending) => {
            ending.deadline = ending.deadline.min(deadline);
            ending.removed |= removed;
        }
        None => pod.ending = Some(Ending { deadline, removed }),
    }
}

/// The end of a container whose program could not be started, in the words and with the code that containerd has for it.
fn never_ran(message: String, now: Timestamp) -> Ended {
    let exit = Exit {
        code: 128,
        reason: "StartError".into(),
        message,
        started: now,
        finished: now,
    };
    Ended {
        id: String::new(),
        exit,
    }
}

fn started(pod: &mut PodState, name: &str, id: String, attempt: u32, orders: &mut Vec<Command>) {
    let now = pod.now;
    let Some(spec) = pod.spec_of(name).cloned() else {
        return;
    };
    let Some(c) = pod.container_mut(name).filter(|c| c.phase == Phase::Starting) else {
        return;
    };
    if let Some(last) = &c.last {
        orders.push(Command::RemoveContainer { id: last.id.clone() });
    }
    c.attempt = attempt;
    c.image.clone_from(&spec.image);
    c.starts.reset();
    c.phase = Phase::Running {
        id: id.clone(),
        since: now,
    };
    c.not_probed_yet(&spec);
    orders.push(Command::Tell {
        warning: false,
        reason: "Started",
        message: format!("Started container {name}"),
    });
    begin_probes(pod, name, orders);
    // The runtime may have told of its end before we took in its start.
    let told = pod.facts.iter().flat_map(|f| &f.containers).find(|c| c.id == id);
    if let Some(ContainerState::Exited(exit)) = told.map(|c| c.state.clone()) {
        exited(pod, name, Ended { id, exit }, orders);
    }
}

/// The probes whose time has come: the startup probe alone, then the other two.
fn begin_probes(pod: &PodState, name: &str, orders: &mut Vec<Command>) {
    let (Some(c), Some(spec)) = (pod.container(name), pod.spec_of(name)) else {
        return;
    };
    let Phase::Running { id, .. } = &c.phase else {
        return;
    };
    let mut begin = |kind, probe: &Option<Probe>| {
        if probe.is_some() {
            orders.push(Command::BeginProbe {
                container: name.into(),
                id: id.clone(),
                kind,
            });
        }
    };
    if !c.started {
        begin(ProbeKind::Startup, &spec.startup_probe);
    } else {
        begin(ProbeKind::Liveness, &spec.liveness_probe);
        begin(ProbeKind::Readiness, &spec.readiness_probe);
    }
}

fn probed(
    pod: &mut PodState,
    name: &str,
    id: &str,
    kind: ProbeKind,
    success: bool,
    message: String,
    orders: &mut Vec<Command>,
) {
    let Some(spec) = pod.spec_of(name).cloned() else {
        return;
    };
    let grace = pod.pod.spec.termination_grace_period_seconds;
    let now = pod.now;
    let Some(c) = pod.container_mut(name) else {
        return;
    };
    // An outcome that was on its way when its instance ended says nothing about the next one.
    let Phase::Running { id: present, since } = &c.phase else {
        return;
    };
    let (present, since) = (present.clone(), *since);
    if present != id {
        return;
    }
    let (probe, streak, word) = match kind {
        ProbeKind::Startup => (spec.startup_probe.clone(), &mut c.probes.startup, "Startup"),
        ProbeKind::Liveness => (spec.liveness_probe, &mut c.probes.liveness, "Liveness"),
        ProbeKind::Readiness => (spec.readiness_probe.clone(), &mut c.probes.readiness, "Readiness"),
    };
    let Some(probe) = probe else { return };
    let length = streak.add(success);
    if !success {
        let message = format!("{word} probe failed: {message}");
        orders.push(Command::Tell {
            warning: true,
            reason: "Unhealthy",
            message,
        });
    }
    let enough = length
        >= if success {
            probe.success_threshold
        } else {
            probe.failure_threshold
        }
        .max(1);
    match kind {
        _ if !enough => {}
        ProbeKind::Startup if success => {
            if !c.started {
                c.started = true;
                c.ready = spec.readiness_probe.is_none();
                orders.push(Command::EndProbes { container: name.into() });
                begin_probes(pod, name, orders);
            }
        }
        ProbeKind::Liveness if success => {}
        ProbeKind::Readiness => c.ready = success,
        ProbeKind::Startup | ProbeKind::Liveness => {
            let grace = Duration::from_secs(probe.termination_grace_period_seconds.unwrap_or(grace));
            let word = word.to_lowercase();
            let message = format!("Container {name} failed {word} probe, will be restarted");
            orders.push(Command::Tell {
                warning: false,
                reason: "Killing",
                message,
            });
            orders.push(Command::EndProbes { container: name.into() });
            orders.push(Command::StopContainer {
                container: name.into(),
                id: present.clone(),
                grace,
            });
            let deadline = later(now, SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX));
            c.ready = false;
            c.phase = Phase::Stopping {
                id: present,
                since,
                deadline,
            };
        }
    }
}

/// What the runtime says of instances that we hold to be alive.
fn take_facts(pod: &mut PodState, facts: PodFacts, orders: &mut Vec<Command>) {
    let lost = match &pod.sandbox {
        Sandbox::Ready(sandbox) => sandbox.id == facts.sandbox.id && !facts.sandbox_ready,
        _ => false,
    };
    for at in 0..pod.containers.len() {
        let c = &pod.containers[at];
        let (Phase::Running { id, since } | Phase::Stopping { id, since, .. }) = &c.phase else {
            continue;
        };
        let unknown = |reason: &str, message: &str| Exit {
            code: 137,
            reason: reason.into(),
            message: message.into(),
            started: *since,
            finished: pod.now,
        };
        let exit = match facts.containers.iter().find(|f| f.id == *id).map(|f| &f.state) {
            Some(ContainerState::Exited(exit)) => exit.clone(),
            _ if lost => unknown("Error", "the pod's sandbox ended"),
            Some(ContainerState::Created | ContainerState::Running { .. }) => continue,
            // The facts may have been gathered before this instance was started.
            None if facts.observed <= *since => continue,
            None => unknown("ContainerStatusUnknown", "the runtime holds this container no longer"),
        };
        let (name, ended) = (c.name.clone(), Ended { id: id.clone(), exit });
        exited(pod, &name, ended, orders);
    }
    if lost {
        pod.sandbox = Sandbox::Removing;
        orders.push(Command::RemoveSandbox {
            id: facts.sandbox.id.clone(),
        });
        let message = "Pod sandbox changed, it will be killed and re-created.".into();
        orders.push(Command::Tell {
            warning: false,
            reason: "SandboxChanged",
            message,
        });
    }
    pod.facts = Some(facts);
}

fn exited(pod: &mut PodState, name: &str, ended: Ended, orders: &mut Vec<Command>) {
    let now = pod.now;
    let image = pod.spec_of(name).map(|s| s.image.clone());
    let Some(c) = pod.container_mut(name) else {
        return;
    };
    orders.push(Command::EndProbes { container: name.into() });
    c.end(ended);
    // It was stopped to be started anew with another image: no crash.
    if image.is_some_and(|image| image != c.image) {
        c.crashes.reset();
        c.not_before = now;
    }
}

impl Container {
    /// An instance that has just started.
    pub(super) fn not_probed_yet(&mut self, spec: &ContainerSpec) {
        self.probes = Probes::default();
        self.started = spec.startup_probe.is_none();
        self.ready = self.started && spec.readiness_probe.is_none();
    }

    pub(super) fn wait(&mut self, reason: &'static str, message: String, since: Timestamp) {
        self.phase = Phase::Waiting { reason, message, since };
    }

    pub(super) fn end(&mut self, ended: Ended) {
        let wait = self.crashes.ended(ended.exit.started, ended.exit.finished);
        self.not_before = later(ended.exit.finished, wait);
        self.phase = Phase::Ended(ended);
        self.started = false;
        self.ready = false;
        self.image_id = None;
    }
}
