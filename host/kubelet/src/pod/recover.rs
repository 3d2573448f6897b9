//! After a restart of the kubelet: a pod's state from what the runtime still holds and what the API server was told.
//!
//! The runtime is believed where it knows; the status only fills in what the runtime has forgotten (ended containers
//! that were removed, a machine that was switched off).

use jiff::Timestamp;
use serde_json::Value;

use super::state::{Ended, Phase, PodState, Sandbox};
use crate::runtime::{ContainerFacts, ContainerState, Exit, PodFacts};

pub(super) fn recover(pod: &mut PodState, facts: Option<&PodFacts>) {
    let object = pod.pod.clone();
    let told = &object.status;
    if let Some(start) = time(&told["startTime"]) {
        pod.start_time = start;
    }
    for (name, since, held) in conditions(told) {
        pod.conditions.insert(name, (held, since));
    }
    if told["reason"] == "DeadlineExceeded" {
        pod.failed = Some(("DeadlineExceeded", told["message"].as_str().unwrap_or_default().into()));
    }
    if let Some(facts) = facts {
        if facts.sandbox_ready {
            pod.sandbox = Sandbox::Ready(facts.sandbox.clone());
        }
        pod.sandbox_attempt = 1;
    }
    let now = pod.now;
    let begun = pod.start_time;
    for at in 0..pod.containers.len() {
        let name = pod.containers[at].name.clone();
        let said = told[pod.containers[at].role.statuses()]
            .as_array()
            .into_iter()
            .flatten()
            .find(|s| s["name"] == name.as_str());
        let held = facts.into_iter().flat_map(|f| &f.containers).filter(|c| c.name == name);
        let newest = held.max_by_key(|c| c.attempt);
        let c = &mut pod.containers[at];
        if let Some(said) = said {
            c.attempt = said["restartCount"].as_u64().unwrap_or(0) as u32;
            c.last = ended(&said["lastState"]["terminated"], begun);
            c.started = said["started"].as_bool().unwrap_or(false);
            c.ready = said["ready"].as_bool().unwrap_or(false);
        }
        match newest {
            Some(held) => {
                let told_of = said.filter(|said| {
                    !said["state"]["running"].is_null() && without_scheme(&text(&said["containerID"])) == held.id
                });
                adopt(c, held, now);
                // We took it for started a moment after the runtime did. What was told stays.
                if let Some(told) = told_of.and_then(|said| time(&said["state"]["running"]["startedAt"]))
                    && let Phase::Running { since, .. } = &mut c.phase
                {
                    *since = told;
                }
                // Started just before we stopped: what was told, if anything was, is of the time before it.
                if let Some(spec) = object.spec.container(&name).filter(|_| c.alive() && told_of.is_none()) {
                    c.not_probed_yet(spec);
                }
            }
            None => {
                let Some(said) = said else { continue };
                if let Some(ended) = ended(&said["state"]["terminated"], begun) {
                    c.end(ended);
                } else if !said["state"]["running"].is_null() {
                    let started = time(&said["state"]["running"]["startedAt"]).unwrap_or(begun);
                    let id = text(&said["containerID"]);
                    let exit = Exit {
                        code: 137,
                        reason: "ContainerStatusUnknown".into(),
                        message: "The container could not be located when the pod was taken up again. \
                                  It was running before."
                            .into(),
                        started,
                        finished: now,
                    };
                    c.end(Ended {
                        id: without_scheme(&id),
                        exit,
                    });
                    // Nobody saw it crash: it is started at once.
                    c.not_before = now;
                }
            }
        }
    }
}

fn adopt(c: &mut super::state::Container, held: &ContainerFacts, now: Timestamp) {
    c.attempt = held.attempt;
    match &held.state {
        ContainerState::Running { started } => {
            c.phase = Phase::Running {
                id: held.id.clone(),
                since: *started,
            };
            c.image_id = Some(held.image_id.clone());
        }
        ContainerState::Exited(exit) => c.end(Ended {
            id: held.id.clone(),
            exit: exit.clone(),
        }),
        // It never ran; the next start makes another.
        ContainerState::Created => c.not_before = now,
    }
}

fn conditions(told: &Value) -> Vec<(&'static str, Timestamp, bool)> {
    let list = told["conditions"].as_array().into_iter().flatten();
    list.filter_map(|condition| {
        let name = super::status::CONDITIONS
            .iter()
            .find(|name| condition["type"] == **name)?;
        Some((
            *name,
            time(&condition["lastTransitionTime"])?,
            condition["status"] == "True",
        ))
    })
    .collect()
}

fn ended(terminated: &Value, begun: Timestamp) -> Option<Ended> {
    terminated.as_object()?;
    let exit = Exit {
        code: terminated["exitCode"].as_i64().unwrap_or(0) as i32,
        reason: text(&terminated["reason"]),
        message: text(&terminated["message"]),
        started: time(&terminated["startedAt"]).unwrap_or(begun),
        finished: time(&terminated["finishedAt"]).unwrap_or(begun),
    };
    Some(Ended {
        id: without_scheme(&text(&terminated["containerID"])),
        exit,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn time(value: &Value) -> Option<Timestamp> {
    value.as_str()?.parse().ok()
}

/// `containerd://abc` → `abc`.
fn without_scheme(id: &str) -> String {
    id.split_once("://").map_or(id, |(_, id)| id).to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::pod::state::NodeFacts;
    use crate::runtime::{PodRef, SandboxFacts};

    #[test]
    fn the_time_that_was_told_of_a_start_stays() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let pod = json!({
            "metadata": {"name": "p", "uid": "u"},
            "spec": {"containers": [{"name": "told", "image": "i"}, {"name": "untold", "image": "i"}]},
            "status": {"containerStatuses": [{
                "name": "told", "restartCount": 0, "containerID": "test://told.0",
                "state": {"running": {"startedAt": "1970-01-01T00:00:11Z"}},
            }]},
        });
        let held = |name: &str| ContainerFacts {
            id: format!("{name}.0"),
            name: name.into(),
            attempt: 0,
            image_id: "id".into(),
            state: ContainerState::Running { started: at(10) },
        };
        let facts = PodFacts {
            pod: PodRef {
                namespace: "default".into(),
                name: "p".into(),
                uid: "u".into(),
            },
            sandbox: SandboxFacts::default(),
            sandbox_ready: true,
            containers: vec![held("told"), held("untold")],
            observed: at(100),
        };
        let node = Arc::new(NodeFacts {
            ip: "10.0.0.1".into(),
            runtime: "test".into(),
        });
        let pod = Arc::new(serde_json::from_value(pod).unwrap());
        let state = PodState::new(pod, Some(&facts), node, at(100));
        let since = state.containers.iter().map(|c| match c.phase {
            Phase::Running { since, .. } => Some(since),
            _ => None,
        });
        assert_eq!(since.collect::<Vec<_>>(), [Some(at(11)), Some(at(10))]);
    }
}
