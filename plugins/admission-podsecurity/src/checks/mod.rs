//! The Pod Security Standards: every check, the version it came with, and what a pod is told that fails it.
//!
//! <https://kubernetes.io/docs/concepts/security/pod-security-standards/>; versions and sentences are those of kube-apiserver,
//! whose sentences people search their logs for.

mod baseline;
mod profiles;
mod restricted;

use std::collections::BTreeSet;

use crate::levels::{Level, Standard, Version};
use crate::pod::{Container, Pod};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// What it is about, for a list of many pods.
    pub(crate) reason: &'static str,
    /// Where in this pod.
    pub(crate) detail: String,
}

impl Violation {
    fn new(reason: &'static str, detail: String) -> Self {
        Self { reason, detail }
    }
}

pub(crate) struct Check {
    pub(crate) name: &'static str,
    /// The first minor version that has it. What it asks for may depend on later ones.
    since: u64,
    /// The check of the baseline that it is a stricter form of: only one of the two speaks.
    instead_of: &'static str,
    run: fn(&Pod, Version) -> Option<Violation>,
}

impl Check {
    const fn new(name: &'static str, since: u64, run: fn(&Pod, Version) -> Option<Violation>) -> Self {
        Self {
            name,
            since,
            instead_of: "",
            run,
        }
    }

    const fn instead_of(mut self, other: &'static str) -> Self {
        self.instead_of = other;
        self
    }

    pub(crate) fn is_in(&self, version: Version) -> bool {
        version.has(self.since)
    }

    pub(crate) fn run(&self, pod: &Pod, version: Version) -> Option<Violation> {
        (self.run)(pod, version)
    }
}

/// In the order in which violations are told.
pub(crate) const BASELINE: &[Check] = &[
    Check::new("appArmorProfile", 0, profiles::app_armor),
    Check::new("capabilities", 0, baseline::capabilities),
    Check::new("hostNamespaces", 0, baseline::host_namespaces),
    Check::new("hostPathVolumes", 0, baseline::host_path_volumes),
    Check::new("hostPorts", 0, baseline::host_ports),
    Check::new("hostProbesAndHostLifecycle", 34, baseline::probed_hosts),
    Check::new("privileged", 0, baseline::privileged),
    Check::new("procMount", 0, baseline::proc_mount),
    Check::new("seLinuxOptions", 0, profiles::se_linux),
    Check::new("seccompProfile", 0, profiles::seccomp),
    Check::new("sysctls", 0, baseline::sysctls),
    Check::new("windowsHostProcess", 0, baseline::windows_host_process),
];

/// After those of the baseline.
pub(crate) const RESTRICTED: &[Check] = &[
    Check::new("allowPrivilegeEscalation", 8, restricted::privilege_escalation),
    Check::new("capabilities_restricted", 22, restricted::capabilities).instead_of("capabilities"),
    Check::new("procMount_restricted", 35, restricted::proc_mount).instead_of("procMount"),
    Check::new("restrictedVolumes", 0, restricted::volumes).instead_of("hostPathVolumes"),
    Check::new("runAsNonRoot", 0, restricted::run_as_non_root),
    Check::new("runAsUser", 23, restricted::run_as_user),
    Check::new("seccompProfile_restricted", 19, profiles::seccomp_restricted).instead_of("seccompProfile"),
];

/// Everything in which a pod violates a standard.
pub(crate) fn violations(standard: Standard, pod: &Pod) -> Vec<Violation> {
    let strict = if standard.level == Level::Restricted {
        RESTRICTED
    } else {
        &[]
    };
    let base = if standard.level == Level::Privileged {
        &[]
    } else {
        BASELINE
    };
    let in_force = |check: &&Check| check.is_in(standard.version);
    let replaced = |check: &&Check| strict.iter().filter(in_force).any(|s| s.instead_of == check.name);
    base.iter()
        .filter(|check| !replaced(check))
        .chain(strict)
        .filter(in_force)
        .filter_map(|check| check.run(pod, standard.version))
        .collect()
}

/// `"a", "b"`.
fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("\"{word}\"")).collect();
    words.join(", ")
}

fn plural(count: usize, one: &'static str, more: &'static str) -> &'static str {
    if count == 1 { one } else { more }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!(
        "{} {}",
        plural(names.len(), "container", "containers"),
        quoted(names.iter().copied())
    )
}

/// Who set something: `pod and container "a"`. `None`: nobody.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    match (pod, names) {
        (false, []) => None,
        (true, []) => Some("pod".to_owned()),
        (false, names) => Some(containers(names)),
        (true, names) => Some(format!("pod and {}", containers(names))),
    }
}

/// The containers of which `bad` says something, and all that it says, sorted.
fn found<'p, I: IntoIterator<Item = &'p str>>(
    pod: &'p Pod,
    bad: impl Fn(&'p Container) -> I,
) -> (Vec<&'p str>, BTreeSet<&'p str>) {
    let (mut names, mut all) = (Vec::new(), BTreeSet::new());
    for container in pod.containers() {
        let mut bad = bad(container).into_iter().peekable();
        if bad.peek().is_some() {
            names.push(container.name.as_str());
        }
        all.extend(bad);
    }
    (names, all)
}
