//! A pod's `status`, as the API server is told it: a function of the state alone.

use jiff::{SignedDuration, Timestamp};
use model::time::seconds;
use serde_json::{Map, Value, json};

use super::state::{Container, Ended, Phase, PodState, Role, Sandbox};
use super::step::later;

/// What the kubelet owns of `status.conditions`, in the order it writes them. All others are left to their owners.
pub const CONDITIONS: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// How long a failed pull is told as `ErrImagePull` before it is `ImagePullBackOff`.
pub const PULL_FAILURE_SHOWN: SignedDuration = SignedDuration::from_secs(1);

/// Whether the pod is over, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodPhase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// The status, whole. Notes the time of each condition's change in the state.
pub fn of(pod: &mut PodState) -> Value {
    let phase = phase(pod);
    let mut status = Map::new();
    status.insert("observedGeneration".into(), json!(pod.pod.metadata.generation));
    status.insert("phase".into(), json!(format!("{phase:?}")));
    status.insert("conditions".into(), conditions(pod, phase));
    if let Some((reason, message)) = &pod.failed {
        status.insert("reason".into(), json!(reason));
        status.insert("message".into(), json!(message));
    }
    status.insert("hostIP".into(), json!(pod.node.ip));
    status.insert("hostIPs".into(), json!([{"ip": pod.node.ip}]));
    let ip = match &pod.sandbox {
        Sandbox::Ready(facts) if !facts.ip.is_empty() => Some(facts.ip.clone()),
        Sandbox::Ready(_) => Some(pod.node.ip.clone()),
        _ => None,
    };
    if let Some(ip) = ip {
        status.insert("podIPs".into(), json!([{"ip": ip}]));
        status.insert("podIP".into(), json!(ip));
    }
    status.insert("startTime".into(), json!(seconds(pod.start_time)));
    status.insert("qosClass".into(), json!(crate::resources::qos(&pod.pod.spec)));
    for role in [Role::Init, Role::Main, Role::Ephemeral] {
        let name = role.statuses();
        let of_list = pod.containers.iter().filter(|c| c.role.statuses() == name);
        let list: Vec<Value> = of_list.map(|c| container(pod, c)).collect();
        if !list.is_empty() {
            status.insert(name.into(), list.into());
        }
    }
    status.into()
}

pub fn phase(pod: &PodState) -> PodPhase {
    let still = pod.containers.iter().any(|c| c.alive() || c.in_flight());
    if pod.failed.is_some() || pod.init_failed() {
        return if still { PodPhase::Running } else { PodPhase::Failed };
    }
    let mains: Vec<&Container> = pod.of_role(Role::Main).collect();
    let all_ended = mains.iter().all(|c| matches!(c.phase, Phase::Ended(_)));
    if pod.finished() && all_ended {
        let good = mains.iter().all(|c| c.done());
        return match good {
            // A sidecar that is still ending does not keep a finished pod.
            true => PodPhase::Succeeded,
            false => PodPhase::Failed,
        };
    }
    // Once begun, a pod runs until it is over, whatever its containers wait for.
    if pod.any_main_begun() {
        PodPhase::Running
    } else {
        PodPhase::Pending
    }
}

fn conditions(pod: &mut PodState, phase: PodPhase) -> Value {
    let over = matches!(phase, PodPhase::Succeeded | PodPhase::Failed);
    let completed = (phase == PodPhase::Succeeded).then_some(("PodCompleted", String::new()));
    let unready: Vec<&str> = pod
        .containers
        .iter()
        .filter(|c| matches!(c.role, Role::Main | Role::Sidecar) && !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    let not_ready = if over {
        Some(completed.clone().unwrap_or(("PodFailed", String::new())))
    } else if unready.is_empty() {
        None
    } else {
        Some((
            "ContainersNotReady",
            format!("containers with unready status: [{}]", unready.join(" ")),
        ))
    };
    let gates: Vec<&str> = pod
        .pod
        .spec
        .readiness_gates
        .iter()
        .map(|gate| gate.condition_type.as_str())
        .filter(|gate| !others(pod).any(|c| c["type"] == **gate && c["status"] == "True"))
        .collect();
    let gated = (!gates.is_empty()).then(|| {
        let message = format!(
            "corresponding condition of pod readiness gate {:?} does not exist or is not True.",
            gates[0]
        );
        ("ReadinessGatesNotReady", message)
    });
    let unstarted: Vec<&str> = pod
        .containers
        .iter()
        .filter(|c| match c.role {
            Role::Init => !c.done(),
            Role::Sidecar => !c.started && !pod.any_main_begun(),
            Role::Main | Role::Ephemeral => false,
        })
        .map(|c| c.name.as_str())
        .collect();
    let initialized = match phase {
        PodPhase::Succeeded => completed,
        _ if unstarted.is_empty() => None,
        _ => Some((
            "ContainersNotInitialized",
            format!("containers with incomplete status: [{}]", unstarted.join(" ")),
        )),
    };
    // A pod that ended well was initialized.
    let was_initialized = initialized.as_ref().is_none_or(|(reason, _)| *reason == "PodCompleted");
    let sandbox = matches!(pod.sandbox, Sandbox::Ready(_));
    let told = [
        ("PodReadyToStartContainers", sandbox, None),
        ("Initialized", was_initialized, initialized),
        (
            "Ready",
            not_ready.is_none() && gated.is_none(),
            not_ready.clone().or(gated),
        ),
        ("ContainersReady", not_ready.is_none(), not_ready),
        ("PodScheduled", true, None),
    ];
    let mut list: Vec<Value> = others(pod).cloned().collect();
    for (name, held, why) in told {
        let since = since(pod, name, held);
        let mut condition = json!({
            "type": name,
            "status": if held { "True" } else { "False" },
            "observedGeneration": pod.pod.metadata.generation,
            "lastProbeTime": null,
            "lastTransitionTime": seconds(since),
        });
        if let Some((reason, message)) = why {
            condition["reason"] = json!(reason);
            if !message.is_empty() {
                condition["message"] = json!(message);
            }
        }
        list.push(condition);
    }
    list.into()
}

fn since(pod: &mut PodState, name: &'static str, held: bool) -> Timestamp {
    let now = pod.now;
    let entry = pod.conditions.entry(name).or_insert((held, now));
    if entry.0 != held {
        *entry = (held, now);
    }
    entry.1
}

/// Conditions that others wrote: readiness gates, `DisruptionTarget`.
fn others(pod: &PodState) -> impl Iterator<Item = &Value> {
    let list = pod.pod.status["conditions"].as_array().into_iter().flatten();
    list.filter(|c| !CONDITIONS.iter().any(|own| c["type"] == **own))
}

fn container(pod: &PodState, c: &Container) -> Value {
    let name = &c.name;
    let image = if c.alive() {
        &c.image
    } else {
        &pod.spec_of(name).unwrap_or(&Default::default()).image.clone()
    };
    let mut last = c.last.as_ref();
    let state = match &c.phase {
        Phase::Waiting { reason, message, since } => match *reason {
            "" => not_yet(pod, c),
            "ErrImagePull" if pod.now >= later(*since, PULL_FAILURE_SHOWN) => {
                let message = format!("Back-off pulling image \"{image}\": ErrImagePull: {message}");
                json!({"waiting": {"reason": "ImagePullBackOff", "message": message}})
            }
            reason => json!({"waiting": {"reason": reason, "message": message}}),
        },
        Phase::Pulling | Phase::Starting => not_yet(pod, c),
        Phase::Running { since, .. } | Phase::Stopping { since, .. } => {
            json!({"running": {"startedAt": seconds(*since)}})
        }
        Phase::Ended(ended) if pod.restarts(c) && c.not_before > pod.now => {
            last = Some(ended);
            let wait = c.not_before.duration_since(ended.exit.finished).as_secs();
            let wait = if wait >= 60 {
                format!("{}m{}s", wait / 60, wait % 60)
            } else {
                format!("{wait}s")
            };
            let meta = &pod.pod.metadata;
            let message = format!(
                "back-off {wait} restarting failed container={name} pod={}_{}({})",
                meta.name, meta.namespace, meta.uid
            );
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": message}})
        }
        Phase::Ended(ended) => terminated(pod, ended),
    };
    let between = c.id().is_none() && c.last.is_some();
    let id = c.id().or(c.last.as_ref().map(|l| l.id.as_str())).unwrap_or_default();
    let mut told = json!({
        "name": name,
        "state": state,
        "lastState": last.map_or_else(|| json!({}), |last| terminated(pod, last)),
        "ready": match c.role {
            Role::Init => c.done(),
            Role::Sidecar | Role::Main => c.ready,
            // Nobody waits for it, and nothing is sent to it.
            Role::Ephemeral => false,
        },
        // Counted when the next instance runs, not when it is decided.
        "restartCount": if between { c.attempt.saturating_sub(1) } else { c.attempt },
        "image": image,
        // Told with the instance: a write to the API server less for each start.
        "imageID": c.image_id.as_deref().filter(|_| c.alive()).unwrap_or_default(),
    });
    if c.role != Role::Ephemeral {
        told["started"] = json!(c.alive() && c.started);
    }
    if !id.is_empty() {
        told["containerID"] = json!(full_id(pod, id));
    }
    told
}

fn not_yet(pod: &PodState, c: &Container) -> Value {
    match &c.last {
        // Between two instances the container still is what it was.
        Some(last) => terminated(pod, last),
        None if c.role == Role::Main && !pod.initialized() => {
            json!({"waiting": {"reason": "PodInitializing"}})
        }
        None if matches!(c.role, Role::Init | Role::Sidecar)
            && !matches!(c.phase, Phase::Pulling | Phase::Starting) =>
        {
            json!({"waiting": {"reason": "PodInitializing"}})
        }
        None => json!({"waiting": {"reason": "ContainerCreating"}}),
    }
}

fn terminated(pod: &PodState, ended: &Ended) -> Value {
    let exit = &ended.exit;
    let mut told = json!({
        "exitCode": exit.code,
        "reason": exit.reason,
        "startedAt": seconds(exit.started),
        "finishedAt": seconds(exit.finished),
    });
    if !ended.id.is_empty() {
        told["containerID"] = json!(full_id(pod, &ended.id));
    }
    if !exit.message.is_empty() {
        told["message"] = json!(exit.message);
    }
    json!({"terminated": told})
}

fn full_id(pod: &PodState, id: &str) -> String {
    format!("{}://{id}", pod.node.runtime)
}
