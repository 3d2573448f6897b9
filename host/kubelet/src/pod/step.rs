//! `step`: all a pod can go through. No clock, no IO: equal states and events give equal commands.
//!
//! An event is first taken in ([`absorb`](super::absorb)), then the whole pod is looked at afresh and whatever is due is ordered
//! ([`decide`](super::decide)). So the order in which events arrive does not matter: a late one finds its place in the state or is dropped.
//! An order that was given is remembered as a state (`Pulling`, `Starting`, `Stopping`) and is not given twice.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::absorb::absorb;
use super::decide::{decide, finish};
use super::spec::Pod;
use super::state::PodState;
use super::status;
use crate::runtime::{PodFacts, SandboxFacts};

#[derive(Debug, Clone)]
pub struct Event {
    pub at: Timestamp,
    pub what: Happened,
}

#[derive(Debug, Clone)]
pub enum Happened {
    /// The first of a worker's events: what the runtime already runs is probed (again).
    Met,
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

pub(super) fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(Timestamp::MAX)
}
