//! Where a pod stands: all that `step` remembers of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::backoff::Backoff;
use super::spec::{ContainerSpec, Pod, RestartPolicy};
use crate::runtime::{Exit, PodFacts, SandboxFacts};

/// What a pod's status says of where it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Told as `hostIP`.
    pub ip: String,
    /// The scheme of container ids: `containerd`.
    pub runtime: String,
}

#[derive(Debug, Clone)]
pub struct PodState {
    pub pod: Arc<Pod>,
    pub node: Arc<NodeFacts>,
    /// The time of the newest event.
    pub now: Timestamp,
    pub start_time: Timestamp,
    pub sandbox: Sandbox,
    pub sandbox_attempt: u32,
    pub sandbox_backoff: Backoff,
    pub volumes: Volumes,
    pub volumes_backoff: Backoff,
    /// Init containers and sidecars first, in the order of the spec, then main containers, then ephemeral ones.
    pub containers: Vec<Container>,
    /// The newest facts, for instances whose start is still on its way to us.
    pub facts: Option<PodFacts>,
    /// Reason and message once the pod as a whole has failed (`DeadlineExceeded`).
    pub failed: Option<(&'static str, String)>,
    pub ending: Option<Ending>,
    /// Files and logs are gone (or were never made).
    pub cleanup: Cleanup,
    /// Status and last transition by condition type.
    pub conditions: BTreeMap<&'static str, (bool, Timestamp)>,
    /// What the API server was told last.
    pub reported: Value,
    /// The pod's removal was asked of the API server.
    pub delete_sent: bool,
    /// The last moment asked for by `WakeAt`.
    pub wake_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    None {
        not_before: Timestamp,
    },
    Starting,
    Ready(SandboxFacts),
    Removing,
    /// Gone for good: the pod has ended.
    Gone,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volumes {
    None { not_before: Timestamp },
    Preparing,
    Ready,
}

/// The pod is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// When whatever still runs is killed.
    pub deadline: Timestamp,
    /// The object is gone from the API server already: nobody is told.
    pub removed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    Due,
    Running,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Init,
    Sidecar,
    Main,
    /// Added to a pod that runs. It starts whenever the ground is there, once, and the pod's phase and conditions do not
    /// depend on it (KEP-277).
    Ephemeral,
}

impl Role {
    /// Where the pod's status tells of such containers.
    pub fn statuses(self) -> &'static str {
        match self {
            Role::Init | Role::Sidecar => "initContainerStatuses",
            Role::Main => "containerStatuses",
            Role::Ephemeral => "ephemeralContainerStatuses",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Container {
    pub name: String,
    pub role: Role,
    pub phase: Phase,
    /// The attempt of the present or, if there is none, the next instance; told as `restartCount`.
    pub attempt: u32,
    /// How the instance before ended.
    pub last: Option<Ended>,
    /// Resolved image; `None` until it was pulled for this instance.
    pub image_id: Option<String>,
    /// Not started before this time.
    pub not_before: Timestamp,
    pub crashes: Backoff,
    pub pulls: Backoff,
    pub starts: Backoff,
    /// The startup probe has succeeded, or there is none.
    pub started: bool,
    pub ready: bool,
    pub probes: Probes,
    /// The image of the present instance, to see a change of the spec.
    pub image: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// An empty reason: nothing is wrong, its turn has not come.
    Waiting {
        reason: &'static str,
        message: String,
        since: Timestamp,
    },
    Pulling,
    Starting,
    Running {
        id: String,
        since: Timestamp,
    },
    /// Runs, and was told to stop.
    Stopping {
        id: String,
        since: Timestamp,
        deadline: Timestamp,
    },
    Ended(Ended),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    pub id: String,
    pub exit: Exit,
}

/// How many outcomes in a row were alike, by kind of probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Probes {
    pub startup: Streak,
    pub liveness: Streak,
    pub readiness: Streak,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streak {
    pub success: bool,
    pub length: u32,
}

impl Streak {
    /// Adds an outcome; answers how many like it there are in a row.
    pub fn add(&mut self, success: bool) -> u32 {
        self.length = if self.success == success {
            self.length.saturating_add(1)
        } else {
            1
        };
        self.success = success;
        self.length
    }
}

impl PodState {
    /// A pod as it is met first: what the API server says of it and what the runtime holds of it.
    pub fn new(pod: Arc<Pod>, facts: Option<&PodFacts>, node: Arc<NodeFacts>, now: Timestamp) -> Self {
        let spec = &pod.spec;
        let init = spec.init_containers.iter().map(|c| {
            let role = if c.restart_policy == Some(RestartPolicy::Always) {
                Role::Sidecar
            } else {
                Role::Init
            };
            Container::new(c, role, now)
        });
        let main = spec.containers.iter().map(|c| Container::new(c, Role::Main, now));
        let containers = init.chain(main).collect();
        let mut state = Self {
            node,
            now,
            start_time: now,
            sandbox: Sandbox::None { not_before: now },
            sandbox_attempt: 0,
            sandbox_backoff: Backoff::default(),
            volumes: Volumes::None { not_before: now },
            volumes_backoff: Backoff::default(),
            containers,
            facts: None,
            failed: None,
            ending: None,
            cleanup: Cleanup::Due,
            conditions: BTreeMap::new(),
            reported: Value::Null,
            delete_sent: false,
            wake_at: None,
            pod,
        };
        state.take_up_added();
        super::recover::recover(&mut state, facts);
        state
    }

    /// Ephemeral containers of the spec that are not known yet: they come at any time, and none goes.
    pub fn take_up_added(&mut self) {
        let pod = self.pod.clone();
        for spec in &pod.spec.ephemeral_containers {
            if self.container(&spec.name).is_none() {
                self.containers.push(Container::new(spec, Role::Ephemeral, self.now));
            }
        }
    }

    pub fn container(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|c| c.name == name)
    }

    pub fn container_mut(&mut self, name: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.name == name)
    }

    pub fn spec_of(&self, name: &str) -> Option<&ContainerSpec> {
        self.pod.spec.container(name)
    }

    pub fn of_role(&self, role: Role) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(move |c| c.role == role)
    }

    /// Whether this container, having ended, is to be started again.
    pub fn restarts(&self, container: &Container) -> bool {
        let Phase::Ended(ended) = &container.phase else {
            return false;
        };
        if self.ending.is_some() || self.failed.is_some() {
            return false;
        }
        let policy = self.pod.spec.restart_policy;
        match container.role {
            Role::Sidecar => !self.mains_finished(),
            // An init container that must not run again but failed has failed the pod.
            Role::Init => ended.exit.code != 0 && policy != RestartPolicy::Never,
            Role::Main => match policy {
                RestartPolicy::Always => !self.init_failed(),
                RestartPolicy::OnFailure => ended.exit.code != 0,
                RestartPolicy::Never => false,
            },
            Role::Ephemeral => false,
        }
    }

    /// An init container failed for good.
    pub fn init_failed(&self) -> bool {
        self.pod.spec.restart_policy == RestartPolicy::Never
            && self
                .of_role(Role::Init)
                .any(|c| matches!(&c.phase, Phase::Ended(e) if e.exit.code != 0))
    }

    fn mains_finished(&self) -> bool {
        if self.init_failed() {
            return true;
        }
        let policy = self.pod.spec.restart_policy;
        self.of_role(Role::Main).all(|c| match &c.phase {
            Phase::Ended(ended) => match policy {
                RestartPolicy::Always => false,
                RestartPolicy::OnFailure => ended.exit.code == 0,
                RestartPolicy::Never => true,
            },
            _ => false,
        })
    }

    /// Nothing will be started any more; what runs is to be stopped.
    pub fn finished(&self) -> bool {
        self.ending.is_some() || self.failed.is_some() || self.mains_finished()
    }

    /// Every init container has ended well, and every sidecar has started once.
    pub fn initialized(&self) -> bool {
        self.containers.iter().all(|c| match c.role {
            Role::Init => c.done(),
            Role::Sidecar => c.started || matches!(c.phase, Phase::Ended(_)) && self.any_main_begun(),
            Role::Main | Role::Ephemeral => true,
        })
    }

    pub fn any_main_begun(&self) -> bool {
        self.of_role(Role::Main)
            .any(|c| c.attempt > 0 || c.last.is_some() || c.id().is_some())
    }
}

impl Container {
    fn new(spec: &ContainerSpec, role: Role, now: Timestamp) -> Self {
        Self {
            name: spec.name.clone(),
            role,
            phase: Phase::Waiting {
                reason: "",
                message: String::new(),
                since: now,
            },
            attempt: 0,
            last: None,
            image_id: None,
            not_before: now,
            crashes: Backoff::default(),
            pulls: Backoff::default(),
            starts: Backoff::default(),
            started: false,
            ready: false,
            probes: Probes::default(),
            image: spec.image.clone(),
        }
    }

    /// An instance exists and may still run.
    pub fn alive(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Stopping { .. })
    }

    /// Being started, so that an instance may appear.
    pub fn in_flight(&self) -> bool {
        matches!(self.phase, Phase::Starting)
    }

    /// Ended with code 0.
    pub fn done(&self) -> bool {
        matches!(&self.phase, Phase::Ended(ended) if ended.exit.code == 0)
    }

    /// The present or last instance of this attempt.
    pub fn id(&self) -> Option<&str> {
        match &self.phase {
            Phase::Running { id, .. } | Phase::Stopping { id, .. } => Some(id),
            Phase::Ended(ended) => Some(&ended.id),
            Phase::Waiting { .. } | Phase::Pulling | Phase::Starting => None,
        }
    }
}
