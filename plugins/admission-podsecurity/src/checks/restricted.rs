//! The restricted level: as little as a pod can do with, by the practice of hardening.

use std::collections::BTreeSet;

use super::baseline::any_proc_mount;
use super::{Violation, containers, found, plural, quoted, setters};
use crate::levels::Version;
use crate::pod::{Pod, Volume};

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Since 1.25 what only Linux has is not asked of a pod that says it runs on Windows.
fn is_spared(pod: &Pod, version: Version) -> bool {
    version.has(25) && pod.is_windows()
}

pub(super) fn privilege_escalation(pod: &Pod, version: Version) -> Option<Violation> {
    if is_spared(pod, version) {
        return None;
    }
    let names = pod.those(|container| container.security_context.allow_privilege_escalation != Some(false));
    let detail = || {
        format!(
            "{} must set securityContext.allowPrivilegeEscalation=false",
            containers(&names)
        )
    };
    (!names.is_empty()).then(|| Violation::new("allowPrivilegeEscalation != false", detail()))
}

pub(super) fn capabilities(pod: &Pod, version: Version) -> Option<Violation> {
    if is_spared(pod, version) {
        return None;
    }
    let keeping = pod.those(|container| {
        !container
            .security_context
            .capabilities
            .drop
            .iter()
            .any(|one| one == "ALL")
    });
    let (adding, added) = found(pod, |container| {
        let added = container.security_context.capabilities.add.iter().map(String::as_str);
        added.filter(|one| *one != "NET_BIND_SERVICE")
    });
    let mut wrong = Vec::new();
    if !keeping.is_empty() {
        wrong.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers(&keeping)
        ));
    }
    if !adding.is_empty() {
        wrong.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(added)
        ));
    }
    (!wrong.is_empty()).then(|| Violation::new("unrestricted capabilities", wrong.join("; ")))
}

/// What the baseline asked of every pod until 1.34.
pub(super) fn proc_mount(pod: &Pod, _: Version) -> Option<Violation> {
    any_proc_mount(pod)
}

pub(super) fn volumes(pod: &Pod, _: Version) -> Option<Violation> {
    let is_other = |volume: &&Volume| !VOLUMES.iter().any(|kind| volume.is(kind));
    let others: Vec<&Volume> = pod.spec.volumes.iter().filter(is_other).collect();
    let kinds: BTreeSet<&str> = others.iter().map(|volume| volume.kind()).collect();
    let detail = || {
        format!(
            "{} {} {} {} {}",
            plural(others.len(), "volume", "volumes"),
            quoted(others.iter().map(|volume| volume.name.as_str())),
            plural(others.len(), "uses", "use"),
            plural(kinds.len(), "restricted volume type", "restricted volume types"),
            quoted(kinds.iter().copied())
        )
    };
    (!others.is_empty()).then(|| Violation::new("restricted volume types", detail()))
}

/// Since 1.35 who is root may be, in a pod whose root is nobody on the node (KEP-127).
pub(super) fn run_as_non_root(pod: &Pod, version: Version) -> Option<Violation> {
    if version.has(35) && pod.has_its_own_users() {
        return None;
    }
    let of_pod = pod.spec.security_context.run_as_non_root;
    let refusing = pod.those(|container| container.security_context.run_as_non_root == Some(false));
    if let Some(setters) = setters(of_pod == Some(false), &refusing) {
        let detail = format!("{setters} must not set securityContext.runAsNonRoot=false");
        return Some(Violation::new("runAsNonRoot != true", detail));
    }
    let silent = pod.those(|container| container.security_context.run_as_non_root.is_none());
    let detail = || {
        format!(
            "pod or {} must set securityContext.runAsNonRoot=true",
            containers(&silent)
        )
    };
    (of_pod.is_none() && !silent.is_empty()).then(|| Violation::new("runAsNonRoot != true", detail()))
}

/// As [`run_as_non_root`].
pub(super) fn run_as_user(pod: &Pod, version: Version) -> Option<Violation> {
    if version.has(35) && pod.has_its_own_users() {
        return None;
    }
    let names = pod.those(|container| container.security_context.run_as_user == Some(0));
    let setters = setters(pod.spec.security_context.run_as_user == Some(0), &names)?;
    Some(Violation::new(
        "runAsUser=0",
        format!("{setters} must not set runAsUser=0"),
    ))
}
