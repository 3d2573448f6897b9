//! `step`: all a pod can go through. No clock, no IO: equal states and events give equal commands.
//!
//! An event is first taken in (`absorb`), then the whole pod is looked at afresh and whatever is due is ordered
//! (`decide`). So the order in which events arrive does not matter: a late one finds its place in the state or is dropped.
//! An order that was given is remembered as a state (`Pulling`, `Starting`, `Stopping`) and is not given twice.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::spec::{Pod, Probe};
use super::state::{Cleanup, Container, Ended, Ending, Phase, PodState, Probes, Role, Sandbox, Volumes};
use super::status;
use crate::runtime::{ContainerState, Exit, PodFacts, SandboxFacts};

#[derive(Debug, Clone)]
pub struct Event {
    pub at: Timestamp,
    pub what: Happened,
}

#[derive(Debug, Clone)]
pub enum Happened {
    /// A new revision of the object.
    Spec(Arc<Pod>),
    /// The object is gone from the API server.
    Removed,
    /// What the runtime holds of the pod.
    Facts(PodFacts),
    VolumesReady,
    VolumesFailed(String),
    SandboxStarted(SandboxFacts),
    SandboxFailed(String),
    SandboxRemoved,
    ImageReady {
        container: String,
        image_id: String,
    },
    ImageFailed {
        container: String,
        reason: &'static str,
        message: String,
    },
    Started {
        container: String,
        id: String,
        attempt: u32,
    },
    /// `reason`: `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`, `PostStartHookError`.
    StartFailed {
        container: String,
        reason: &'static str,
        message: String,
    },
    Probed {
        container: String,
        id: String,
        kind: ProbeKind,
        success: bool,
        message: String,
    },
    Cleaned,
    /// A moment asked for by [`Command::WakeAt`] has come.
    Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    PrepareVolumes,
    StartSandbox {
        attempt: u32,
    },
    PullImage {
        container: String,
    },
    StartContainer {
        container: String,
        attempt: u32,
        image_id: String,
    },
    BeginProbe {
        container: String,
        id: String,
        kind: ProbeKind,
    },
    EndProbes {
        container: String,
    },
    /// Runs the preStop hook within `grace`, then stops with what is left of it.
    StopContainer {
        container: String,
        id: String,
        grace: Duration,
    },
    /// An ended instance that a newer one has replaced.
    RemoveContainer {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    /// Takes away volumes and logs.
    Cleanup,
    /// The pod's `status`, whole.
    Report(Value),
    /// Deletes the object with grace 0; its last status was reported before.
    Delete,
    /// A Kubernetes Event about the pod.
    Tell {
        warning: bool,
        reason: &'static str,
        message: String,
    },
    WakeAt(Timestamp),
    /// Nothing is left of the pod.
    Forget,
}

/// Takes in what happened and answers what is to be done.
pub fn step(pod: &mut PodState, event: Event) -> Vec<Command> {
    let mut orders = Vec::new();
    pod.now = pod.now.max(event.at);
    absorb(pod, event.what, &mut orders);
    decide(pod, &mut orders);
    let told = status::of(pod);
    // After the object is gone there is nobody to tell.
    if told != pod.reported && !pod.ending.as_ref().is_some_and(|e| e.removed) && !pod.delete_sent {
        pod.reported = told.clone();
        orders.push(Command::Report(told));
    }
    finish(pod, &mut orders);
    orders
}

fn absorb(pod: &mut PodState, what: Happened, orders: &mut Vec<Command>) {
    let now = pod.now;
    match what {
        Happened::Spec(new) => {
            if new.metadata.uid == pod.pod.metadata.uid {
                pod.pod = new;
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
                // What is missing (a ConfigMap, a key) is often on its way; what cannot run will not soon.
                let wait = match reason {
                    "CreateContainerConfigError" => c.starts.failed_briefly(),
                    _ => c.starts.failed(),
                };
                c.not_before = later(now, wait);
                c.wait(reason, message.clone(), now);
                orders.push(Command::Tell {
                    warning: true,
                    reason: "Failed",
                    message: format!("Error: {message}"),
                });
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
    c.image = spec.image;
    c.starts.reset();
    c.phase = Phase::Running {
        id: id.clone(),
        since: now,
    };
    c.probes = Probes::default();
    c.started = spec.startup_probe.is_none();
    c.ready = c.started && spec.readiness_probe.is_none();
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
pub(crate) fn begin_probes(pod: &PodState, name: &str, orders: &mut Vec<Command>) {
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
    fn wait(&mut self, reason: &'static str, message: String, since: Timestamp) {
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

fn decide(pod: &mut PodState, orders: &mut Vec<Command>) {
    check_deadline(pod, orders);
    if pod.finished() {
        wind_down(pod, orders);
    } else {
        move_on(pod, orders);
    }
    wake(pod, orders);
}

/// `activeDeadlineSeconds`.
fn check_deadline(pod: &mut PodState, orders: &mut Vec<Command>) {
    let Some(deadline) = active_deadline(pod) else {
        return;
    };
    if pod.failed.is_none() && !pod.finished() && pod.now >= deadline {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        orders.push(Command::Tell {
            warning: false,
            reason: "DeadlineExceeded",
            message: message.clone(),
        });
        pod.failed = Some(("DeadlineExceeded", message));
    }
}

fn active_deadline(pod: &PodState) -> Option<Timestamp> {
    let seconds = pod.pod.spec.active_deadline_seconds?;
    Some(later(
        pod.start_time,
        SignedDuration::from_secs(seconds.min(i32::MAX as u64) as i64),
    ))
}

/// Starts what is due: volumes, sandbox and first images at once, then containers in their order.
fn move_on(pod: &mut PodState, orders: &mut Vec<Command>) {
    let now = pod.now;
    if matches!(&pod.volumes, Volumes::None { not_before } if *not_before <= now) {
        pod.volumes = Volumes::Preparing;
        orders.push(Command::PrepareVolumes);
    }
    if matches!(&pod.sandbox, Sandbox::None { not_before } if *not_before <= now) {
        pod.sandbox = Sandbox::Starting;
        orders.push(Command::StartSandbox {
            attempt: pod.sandbox_attempt,
        });
        pod.sandbox_attempt += 1;
    }
    let ground = pod.volumes == Volumes::Ready && matches!(pod.sandbox, Sandbox::Ready(_));
    for at in 0..pod.containers.len() {
        let role = pod.containers[at].role;
        // An init container's turn comes when those before it have ended well, a main one's when all have.
        let turn = match role {
            Role::Init | Role::Sidecar => pod.containers[..at].iter().all(|before| match before.role {
                Role::Init => before.done(),
                Role::Sidecar => before.started || pod.any_main_begun(),
                Role::Main => true,
            }),
            Role::Main => pod.initialized(),
        };
        if turn {
            advance(pod, at, ground, orders);
        }
    }
}

fn advance(pod: &mut PodState, at: usize, ground: bool, orders: &mut Vec<Command>) {
    let (now, grace) = (pod.now, pod.pod.spec.termination_grace_period_seconds);
    let again = pod.restarts(&pod.containers[at]);
    let image = pod
        .spec_of(&pod.containers[at].name)
        .map(|s| s.image.clone())
        .unwrap_or_default();
    let c = &mut pod.containers[at];
    let name = c.name.clone();
    match &c.phase {
        Phase::Running { id, since } if c.image != image => {
            let message = format!("Container {name} definition changed, will be restarted");
            orders.push(Command::Tell {
                warning: false,
                reason: "Killing",
                message,
            });
            orders.push(Command::EndProbes {
                container: name.clone(),
            });
            let grace = Duration::from_secs(grace);
            orders.push(Command::StopContainer {
                container: name,
                id: id.clone(),
                grace,
            });
            let deadline = later(now, SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX));
            c.phase = Phase::Stopping {
                id: id.clone(),
                since: *since,
                deadline,
            };
        }
        Phase::Ended(ended) if again => {
            if c.not_before > now {
                return; // `status` tells it as CrashLoopBackOff.
            }
            c.last = Some(ended.clone());
            c.attempt += 1;
            c.wait("", String::new(), now);
            advance(pod, at, ground, orders);
        }
        Phase::Waiting { .. } if c.not_before > now => {}
        Phase::Waiting { .. } => match c.image_id.clone() {
            None => {
                c.phase = Phase::Pulling;
                orders.push(Command::PullImage { container: name });
            }
            Some(image_id) if ground => {
                c.phase = Phase::Starting;
                orders.push(Command::StartContainer {
                    container: name,
                    attempt: c.attempt,
                    image_id,
                });
            }
            Some(_) => {}
        },
        _ => {}
    }
}

/// Stops what runs: main and init containers at once, then sidecars from the last to the first, then the sandbox.
fn wind_down(pod: &mut PodState, orders: &mut Vec<Command>) {
    let now = pod.now;
    let deadline = match &pod.ending {
        Some(ending) => ending.deadline,
        None => later(
            now,
            SignedDuration::from_secs(pod.pod.spec.termination_grace_period_seconds as i64),
        ),
    };
    let mut others_alive = pod
        .containers
        .iter()
        .any(|c| c.role != Role::Sidecar && (c.alive() || c.in_flight()));
    for at in (0..pod.containers.len()).rev() {
        let c = &mut pod.containers[at];
        if c.role == Role::Sidecar && others_alive {
            continue;
        }
        others_alive |= c.role == Role::Sidecar && (c.alive() || c.in_flight());
        let (id, since, hurry) = match &c.phase {
            Phase::Running { id, since } => (id.clone(), *since, false),
            Phase::Stopping {
                id,
                since,
                deadline: earlier,
            } if deadline < *earlier => (id.clone(), *since, true),
            _ => continue,
        };
        let name = c.name.clone();
        if !hurry {
            let message = format!("Stopping container {name}");
            orders.push(Command::Tell {
                warning: false,
                reason: "Killing",
                message,
            });
            orders.push(Command::EndProbes {
                container: name.clone(),
            });
        }
        let left = deadline.duration_since(now).max(SignedDuration::ZERO).unsigned_abs();
        orders.push(Command::StopContainer {
            container: name,
            id: id.clone(),
            grace: left,
        });
        c.phase = Phase::Stopping { id, since, deadline };
    }
    if pod.containers.iter().any(|c| c.alive() || c.in_flight()) || pod.volumes == Volumes::Preparing {
        return;
    }
    match &pod.sandbox {
        Sandbox::Ready(facts) => {
            orders.push(Command::RemoveSandbox { id: facts.id.clone() });
            pod.sandbox = Sandbox::Removing;
        }
        Sandbox::None { .. } => pod.sandbox = Sandbox::Gone,
        Sandbox::Starting | Sandbox::Removing | Sandbox::Gone => {}
    }
}

/// Once everything of a pod that is to go has stopped: files, then the object, then our memory of it.
fn finish(pod: &mut PodState, orders: &mut Vec<Command>) {
    let Some(ending) = &pod.ending else { return };
    if pod.sandbox != Sandbox::Gone {
        return;
    }
    match pod.cleanup {
        Cleanup::Due => {
            pod.cleanup = Cleanup::Running;
            orders.push(Command::Cleanup);
        }
        Cleanup::Running => {}
        Cleanup::Done if ending.removed => orders.push(Command::Forget),
        Cleanup::Done if !pod.delete_sent => {
            pod.delete_sent = true;
            orders.push(Command::Delete);
        }
        Cleanup::Done => {}
    }
}

/// The next moment at which time alone changes something.
fn wake(pod: &mut PodState, orders: &mut Vec<Command>) {
    let now = pod.now;
    let mut moments: Vec<Timestamp> = Vec::new();
    if !pod.finished() {
        moments.extend(active_deadline(pod));
        match &pod.sandbox {
            Sandbox::None { not_before } => moments.push(*not_before),
            Sandbox::Starting | Sandbox::Ready(_) | Sandbox::Removing | Sandbox::Gone => {}
        }
        if let Volumes::None { not_before } = &pod.volumes {
            moments.push(*not_before);
        }
        for c in &pod.containers {
            match &c.phase {
                Phase::Waiting { reason, since, .. } => {
                    moments.push(c.not_before);
                    if *reason == "ErrImagePull" {
                        moments.push(later(*since, status::PULL_FAILURE_SHOWN));
                    }
                }
                Phase::Ended(_) if pod.restarts(c) => moments.push(c.not_before),
                _ => {}
            }
        }
    }
    let Some(next) = moments.into_iter().filter(|m| *m > now).min() else {
        return;
    };
    if pod.wake_at.is_none_or(|at| at > next || at <= now) {
        pod.wake_at = Some(next);
        orders.push(Command::WakeAt(next));
    }
}

pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
