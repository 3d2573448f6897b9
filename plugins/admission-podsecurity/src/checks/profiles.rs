//! What confines a container from outside: AppArmor, SELinux and seccomp, at both levels.

use std::collections::BTreeSet;

use super::{Violation, containers, found, plural, quoted, setters};
use crate::levels::Version;
use crate::pod::{Pod, Profile, SeLinuxOptions};

/// How profiles were named before they had fields (AppArmor until 1.30, seccomp until 1.19).
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

const SE_LINUX_TYPES: [(u64, &str); 5] = [
    (0, ""),
    (0, "container_t"),
    (0, "container_init_t"),
    (0, "container_kvm_t"),
    (31, "container_engine_t"),
];

/// The type of a profile that is neither the runtime's own nor one that the node's administrator put there.
fn loose(profile: &Option<Profile>) -> Option<&str> {
    let kind = profile.as_ref()?.kind.as_str();
    (!matches!(kind, "RuntimeDefault" | "Localhost")).then_some(kind)
}

pub(super) fn app_armor(pod: &Pod, _: Version) -> Option<Violation> {
    let of_pod = loose(&pod.spec.security_context.app_armor_profile);
    let (names, mut kinds) = found(pod, |container| loose(&container.security_context.app_armor_profile));
    kinds.extend(of_pod);
    let fine = |profile: &str| matches!(profile, "" | "runtime/default") || profile.starts_with("localhost/");
    let annotations = pod.metadata.annotations.iter();
    let annotations: BTreeSet<String> = annotations
        .filter(|(key, profile)| key.starts_with(APP_ARMOR) && !fine(profile))
        .map(|(key, profile)| format!("{key}={profile:?}"))
        .collect();
    let mut by = Vec::from_iter(setters(of_pod.is_some(), &names));
    if !annotations.is_empty() {
        by.push(plural(annotations.len(), "annotation", "annotations").to_owned());
    }
    if by.is_empty() {
        return None;
    }
    let values: Vec<&str> = kinds
        .into_iter()
        .chain(annotations.iter().map(String::as_str))
        .collect();
    let reason = plural(
        values.len(),
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
    );
    let detail = format!(
        "{} must not set AppArmor profile type to {}",
        by.join(" and "),
        quoted(values)
    );
    Some(Violation::new(reason, detail))
}

pub(super) fn se_linux(pod: &Pod, version: Version) -> Option<Violation> {
    let allowed = |kind: &str| {
        SE_LINUX_TYPES
            .iter()
            .any(|(since, one)| version.has(*since) && *one == kind)
    };
    let is_bad =
        |options: &SeLinuxOptions| !allowed(&options.kind) || !options.user.is_empty() || !options.role.is_empty();
    let of_pod = &pod.spec.security_context.se_linux_options;
    let names = pod.those(|container| is_bad(&container.security_context.se_linux_options));
    let setters = setters(is_bad(of_pod), &names)?;
    let of_containers = pod
        .containers()
        .map(|container| &container.security_context.se_linux_options);
    let all: Vec<&SeLinuxOptions> = of_containers.chain([of_pod]).collect();
    let kinds = all.iter().map(|options| options.kind.as_str());
    let kinds: BTreeSet<&str> = kinds.filter(|kind| !allowed(kind)).collect();
    let mut wrong = Vec::new();
    if !kinds.is_empty() {
        wrong.push(format!("{} {}", plural(kinds.len(), "type", "types"), quoted(kinds)));
    }
    if all.iter().any(|options| !options.user.is_empty()) {
        wrong.push("user may not be set".to_owned());
    }
    if all.iter().any(|options| !options.role.is_empty()) {
        wrong.push("role may not be set".to_owned());
    }
    let detail = format!(
        "{setters} set forbidden securityContext.seLinuxOptions: {}",
        wrong.join("; ")
    );
    Some(Violation::new("seLinuxOptions", detail))
}

pub(super) fn seccomp(pod: &Pod, version: Version) -> Option<Violation> {
    if version.has(19) {
        loose_seccomp(pod)
    } else {
        seccomp_annotations(pod)
    }
}

fn seccomp_annotations(pod: &Pod) -> Option<Violation> {
    let fine =
        |profile: &str| matches!(profile, "runtime/default" | "docker/default") || profile.starts_with("localhost/");
    let of_containers = pod
        .containers()
        .map(|container| format!("{SECCOMP_CONTAINER}{}", container.name));
    let keys = of_containers.chain([SECCOMP_POD.to_owned()]);
    let loose: BTreeSet<String> = keys
        .filter_map(|key| {
            let profile = pod.metadata.annotations.get(&key).filter(|profile| !fine(profile))?;
            Some(format!("{key}={profile:?}"))
        })
        .collect();
    let detail = || {
        let count = plural(loose.len(), "annotation", "annotations");
        format!(
            "forbidden {count} {}",
            Vec::from_iter(loose.iter().map(String::as_str)).join(", ")
        )
    };
    (!loose.is_empty()).then(|| Violation::new("seccompProfile", detail()))
}

fn loose_seccomp(pod: &Pod) -> Option<Violation> {
    let of_pod = loose(&pod.spec.security_context.seccomp_profile);
    let (names, mut kinds) = found(pod, |container| loose(&container.security_context.seccomp_profile));
    kinds.extend(of_pod);
    let setters = setters(of_pod.is_some(), &names)?;
    let detail = format!(
        "{setters} must not set securityContext.seccompProfile.type to {}",
        quoted(kinds)
    );
    Some(Violation::new("seccompProfile", detail))
}

/// Every container must have a profile, its own or the pod's. (Since 1.25 not on Windows, which has no seccomp.)
pub(super) fn seccomp_restricted(pod: &Pod, version: Version) -> Option<Violation> {
    if version.has(25) && pod.is_windows() {
        return None;
    }
    if let Some(loose) = loose_seccomp(pod) {
        return Some(loose);
    }
    if pod.spec.security_context.seccomp_profile.is_some() {
        return None;
    }
    let names = pod.those(|container| container.security_context.seccomp_profile.is_none());
    let detail = || {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&names)
        )
    };
    (!names.is_empty()).then(|| Violation::new("seccompProfile", detail()))
}
