//! The baseline: nothing that is known to lift a pod out of its sandbox.

use std::collections::BTreeSet;

use super::{Violation, containers, found, plural, quoted, setters};
use crate::levels::Version;
use crate::pod::Pod;

/// What containers have anyway (the defaults of container runtimes).
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Those of a pod's own namespaces, which touch neither the node nor other pods, with the version that allows them.
const SYSCTLS: [(u64, &str); 12] = [
    (0, "kernel.shm_rmid_forced"),
    (0, "net.ipv4.ip_local_port_range"),
    (0, "net.ipv4.ip_unprivileged_port_start"),
    (0, "net.ipv4.ping_group_range"),
    (0, "net.ipv4.tcp_syncookies"),
    (27, "net.ipv4.ip_local_reserved_ports"),
    (29, "net.ipv4.tcp_fin_timeout"),
    (29, "net.ipv4.tcp_keepalive_intvl"),
    (29, "net.ipv4.tcp_keepalive_probes"),
    (29, "net.ipv4.tcp_keepalive_time"),
    (32, "net.ipv4.tcp_rmem"),
    (32, "net.ipv4.tcp_wmem"),
];

pub(super) fn capabilities(pod: &Pod, _: Version) -> Option<Violation> {
    let (names, added) = found(pod, |container| {
        let added = container.security_context.capabilities.add.iter().map(String::as_str);
        added.filter(|one| !CAPABILITIES.contains(one))
    });
    let detail = || {
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&names),
            quoted(added)
        )
    };
    (!names.is_empty()).then(|| Violation::new("non-default capabilities", detail()))
}

pub(super) fn host_namespaces(pod: &Pod, _: Version) -> Option<Violation> {
    let spec = &pod.spec;
    let shared = [
        (spec.host_network, "hostNetwork=true"),
        (spec.host_pid, "hostPID=true"),
        (spec.host_ipc, "hostIPC=true"),
    ];
    let shared: Vec<&str> = shared.into_iter().filter_map(|(is, says)| is.then_some(says)).collect();
    (!shared.is_empty()).then(|| Violation::new("host namespaces", shared.join(", ")))
}

pub(super) fn host_path_volumes(pod: &Pod, _: Version) -> Option<Violation> {
    let volumes = pod.spec.volumes.iter().filter(|volume| volume.is("hostPath"));
    let names: Vec<&str> = volumes.map(|volume| volume.name.as_str()).collect();
    let detail = || {
        format!(
            "{} {}",
            plural(names.len(), "volume", "volumes"),
            quoted(names.iter().copied())
        )
    };
    (!names.is_empty()).then(|| Violation::new("hostPath volumes", detail()))
}

pub(super) fn host_ports(pod: &Pod, _: Version) -> Option<Violation> {
    let names = pod.those(|container| container.ports.iter().any(|port| port.host_port != 0));
    let ports = pod.containers().flat_map(|container| &container.ports);
    let ports = ports.filter(|port| port.host_port != 0);
    // Sorted as text, as the sentence has always had them.
    let ports: BTreeSet<String> = ports.map(|port| port.host_port.to_string()).collect();
    let detail = || {
        format!(
            "{} {} {} {}",
            containers(&names),
            plural(names.len(), "uses", "use"),
            plural(ports.len(), "hostPort", "hostPorts"),
            Vec::from_iter(ports.iter().map(String::as_str)).join(", ")
        )
    };
    (!names.is_empty()).then(|| Violation::new("hostPort", detail()))
}

/// The kubelet probes from the node, and reaches what pods cannot (KEP-4940).
pub(super) fn probed_hosts(pod: &Pod, _: Version) -> Option<Violation> {
    let (mut names, hosts) = found(pod, |container| container.probed_hosts());
    names.sort_unstable();
    let detail = || {
        format!(
            "{} {} {} {}",
            containers(&names),
            plural(names.len(), "uses", "use"),
            plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts"),
            quoted(hosts.iter().copied())
        )
    };
    (!names.is_empty()).then(|| Violation::new("probe or lifecycle host", detail()))
}

pub(super) fn privileged(pod: &Pod, _: Version) -> Option<Violation> {
    let names = pod.those(|container| container.security_context.privileged);
    let detail = || format!("{} must not set securityContext.privileged=true", containers(&names));
    (!names.is_empty()).then(|| Violation::new("privileged", detail()))
}

/// Since 1.35 a pod whose root is nobody on the node may see all of its own /proc.
pub(super) fn proc_mount(pod: &Pod, version: Version) -> Option<Violation> {
    if version.has(35) && pod.has_its_own_users() {
        return None;
    }
    any_proc_mount(pod)
}

pub(super) fn any_proc_mount(pod: &Pod) -> Option<Violation> {
    let (names, mounts) = found(pod, |container| {
        let mount = container.security_context.proc_mount.as_deref();
        mount.filter(|mount| *mount != "Default")
    });
    let detail = || {
        format!(
            "{} must not set securityContext.procMount to {}",
            containers(&names),
            quoted(mounts)
        )
    };
    (!names.is_empty()).then(|| Violation::new("procMount", detail()))
}

pub(super) fn sysctls(pod: &Pod, version: Version) -> Option<Violation> {
    let safe = |name: &str| SYSCTLS.iter().any(|(since, one)| version.has(*since) && *one == name);
    let names = pod.spec.security_context.sysctls.iter().map(|one| one.name.as_str());
    let unsafe_ones: Vec<&str> = names.filter(|name| !safe(name)).collect();
    (!unsafe_ones.is_empty()).then(|| Violation::new("forbidden sysctls", unsafe_ones.join(", ")))
}

pub(super) fn windows_host_process(pod: &Pod, _: Version) -> Option<Violation> {
    let names = pod.those(|container| container.security_context.windows_options.host_process);
    let setters = setters(pod.spec.security_context.windows_options.host_process, &names)?;
    let detail = format!("{setters} must not set securityContext.windowsOptions.hostProcess=true");
    Some(Violation::new("hostProcess", detail))
}
