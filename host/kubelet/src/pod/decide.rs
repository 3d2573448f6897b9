//! The whole pod looked at afresh: what is due is ordered, and the moment found at which time alone changes something.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::state::{Cleanup, Phase, PodState, Role, Sandbox, Volumes};
use super::status;
use super::step::{Command, later};

pub(super) fn decide(pod: &mut PodState, orders: &mut Vec<Command>) {
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
        // An init container's turn comes when those before it have ended well, a main one's when all have; an ephemeral
        // one is there to look at a pod that does not get so far, too.
        let turn = match role {
            Role::Init | Role::Sidecar => pod.containers[..at].iter().all(|before| match before.role {
                Role::Init => before.done(),
                Role::Sidecar => before.started || pod.any_main_begun(),
                Role::Main | Role::Ephemeral => true,
            }),
            Role::Main => pod.initialized(),
            Role::Ephemeral => true,
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

/// Stops what runs: all but sidecars at once, then sidecars from the last to the first, then the sandbox.
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
pub(super) fn finish(pod: &mut PodState, orders: &mut Vec<Command>) {
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
