//! Our words to the CRI's and back.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use k8s_cri::v1;

use crate::pod::spec::SeccompProfile;
use crate::runtime::{
    ContainerConfig, ContainerFacts, ContainerState, Credential, Exit, LinuxResources, PodUsage, SandboxConfig, Usage,
};

/// Whose sandboxes and containers these are.
pub(super) const OWNER: &str = "pilotis.dev/kubelet";
pub(super) const UID: &str = "io.kubernetes.pod.uid";

/// What a container must not see of the kernel, unless it is privileged (the defaults of Kubernetes and Docker).
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// By pod. The CRI tells of containers; what a pod's sandbox itself uses is left out.
pub(super) fn usage(stats: Vec<v1::ContainerStats>) -> Vec<PodUsage> {
    let mut pods: BTreeMap<String, PodUsage> = BTreeMap::new();
    for v1::ContainerStats {
        attributes,
        cpu,
        memory,
        ..
    } in stats
    {
        let mut of = attributes.unwrap_or_default();
        let Some(uid) = of.labels.remove(UID) else { continue };
        let at = cpu.as_ref().map_or(0, |cpu| cpu.timestamp);
        let used = Usage {
            at: Timestamp::from_nanosecond(at.into()).unwrap_or_default(),
            cpu: cpu.and_then(|cpu| cpu.usage_core_nano_seconds).map(|nanos| nanos.value),
            memory: memory
                .and_then(|memory| memory.working_set_bytes)
                .map(|bytes| bytes.value),
        };
        let pod = pods.entry(uid).or_insert_with_key(|uid| PodUsage {
            uid: uid.clone(),
            ..PodUsage::default()
        });
        pod.containers.insert(of.id, used);
    }
    pods.into_values().collect()
}

pub(super) fn sandbox(config: &SandboxConfig, owner: &str) -> v1::PodSandboxConfig {
    let pod = &config.pod;
    let mut labels: HashMap<String, String> = config.labels.clone().into_iter().collect();
    labels.extend(ours(config, owner));
    let host_network = config.host_network;
    v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            namespace: pod.namespace.clone(),
            attempt: config.attempt,
        }),
        hostname: if host_network {
            String::new()
        } else {
            config.hostname.clone()
        },
        log_directory: config.log_dir.to_string_lossy().into_owned(),
        dns_config: config.dns.as_ref().map(|dns| v1::DnsConfig {
            servers: dns.servers.clone(),
            searches: dns.searches.clone(),
            options: dns.options.clone(),
        }),
        port_mappings: config
            .ports
            .iter()
            .map(|p| v1::PortMapping {
                protocol: match p.protocol.as_str() {
                    "UDP" => v1::Protocol::Udp,
                    "SCTP" => v1::Protocol::Sctp,
                    _ => v1::Protocol::Tcp,
                } as i32,
                container_port: p.container.into(),
                host_port: p.host.into(),
                host_ip: p.host_ip.clone(),
            })
            .collect(),
        labels,
        annotations: config.annotations.clone().into_iter().collect(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone(),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(config)),
                run_as_user: config.security.run_as_user.map(int),
                run_as_group: config.security.run_as_user.and(config.security.run_as_group).map(int),
                supplemental_groups: groups(config.security.fs_group, &config.security.supplemental_groups),
                privileged: config.privileged,
                seccomp: Some(seccomp(config.security.seccomp_profile.as_ref())),
                ..Default::default()
            }),
            sysctls: config
                .security
                .sysctls
                .iter()
                .map(|s| (s.name.clone(), s.value.clone()))
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn container(pod: &SandboxConfig, config: &ContainerConfig, owner: &str) -> v1::ContainerConfig {
    let (security, of_pod) = (&config.security, &config.pod_security);
    let mut labels: HashMap<String, String> = ours(pod, owner).collect();
    labels.insert("io.kubernetes.container.name".into(), config.name.clone());
    let list = |paths: &[&str]| {
        if security.privileged {
            Vec::new()
        } else {
            paths.iter().map(|p| (*p).to_owned()).collect()
        }
    };
    let user = security.run_as_user.or(of_pod.run_as_user);
    let of_sandbox = namespaces(pod);
    let capability = |names: &[String]| names.iter().map(|n| n.trim_start_matches("CAP_").to_owned()).collect();
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata {
            name: config.name.clone(),
            attempt: config.attempt,
        }),
        image: Some(v1::ImageSpec {
            image: config.image_id.clone(),
            user_specified_image: config.image.clone(),
            ..Default::default()
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone(),
        envs: config
            .env
            .iter()
            .map(|(k, v)| v1::KeyValue {
                key: k.clone(),
                value: v.clone(),
            })
            .collect(),
        mounts: config
            .mounts
            .iter()
            .map(|m| v1::Mount {
                container_path: m.container_path.clone(),
                host_path: m.host_path.to_string_lossy().into_owned(),
                readonly: m.read_only,
                ..Default::default()
            })
            .collect(),
        labels,
        log_path: config.log_path.to_string_lossy().into_owned(),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(v1::LinuxContainerConfig {
            resources: Some(resources(&config.resources)),
            security_context: Some(v1::LinuxContainerSecurityContext {
                capabilities: Some(v1::Capability {
                    add_capabilities: capability(&security.capabilities.add),
                    drop_capabilities: capability(&security.capabilities.drop),
                    ..Default::default()
                }),
                privileged: security.privileged,
                namespace_options: Some(v1::NamespaceOption {
                    pid: match &config.processes_of {
                        Some(_) => v1::NamespaceMode::Target as i32,
                        None => of_sandbox.pid,
                    },
                    target_id: config.processes_of.clone().unwrap_or_default(),
                    ..of_sandbox
                }),
                run_as_user: user.map(int),
                run_as_group: user.and(security.run_as_group.or(of_pod.run_as_group)).map(int),
                readonly_rootfs: security.read_only_root_filesystem,
                supplemental_groups: groups(of_pod.fs_group, &of_pod.supplemental_groups),
                no_new_privs: security.allow_privilege_escalation == Some(false),
                masked_paths: list(MASKED),
                readonly_paths: list(READ_ONLY),
                seccomp: Some(seccomp(
                    security.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()),
                )),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

fn ours(config: &SandboxConfig, owner: &str) -> impl Iterator<Item = (String, String)> {
    let pod = &config.pod;
    [
        ("io.kubernetes.pod.name", pod.name.as_str()),
        ("io.kubernetes.pod.namespace", &pod.namespace),
        (UID, &pod.uid),
        (OWNER, owner),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into_iter()
}

fn namespaces(config: &SandboxConfig) -> v1::NamespaceOption {
    let of = |host: bool, otherwise: v1::NamespaceMode| if host { v1::NamespaceMode::Node } else { otherwise } as i32;
    let processes = match config.share_processes {
        true => v1::NamespaceMode::Pod,
        false => v1::NamespaceMode::Container,
    };
    v1::NamespaceOption {
        network: of(config.host_network, v1::NamespaceMode::Pod),
        pid: of(config.host_pid, processes),
        ipc: of(config.host_ipc, v1::NamespaceMode::Pod),
        ..Default::default()
    }
}

fn resources(limits: &LinuxResources) -> v1::LinuxContainerResources {
    v1::LinuxContainerResources {
        cpu_period: limits.cpu_period,
        cpu_quota: limits.cpu_quota,
        cpu_shares: limits.cpu_shares,
        memory_limit_in_bytes: limits.memory_limit,
        // No swap beyond the limit: otherwise a limit is none.
        memory_swap_limit_in_bytes: limits.memory_limit,
        oom_score_adj: limits.oom_score_adj,
        ..Default::default()
    }
}

fn seccomp(profile: Option<&SeccompProfile>) -> v1::SecurityProfile {
    use v1::security_profile::ProfileType;
    let (kind, path) = match profile {
        Some(p) if p.r#type == "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        Some(p) if p.r#type == "Localhost" => (ProfileType::Localhost, p.localhost_profile.clone()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    v1::SecurityProfile {
        profile_type: kind as i32,
        localhost_ref: path,
    }
}

fn groups(fs_group: Option<i64>, others: &[i64]) -> Vec<i64> {
    fs_group.into_iter().chain(others.iter().copied()).collect()
}

fn int(value: i64) -> v1::Int64Value {
    v1::Int64Value { value }
}

pub(super) fn auth(credential: &Credential) -> v1::AuthConfig {
    v1::AuthConfig {
        username: credential.username.clone(),
        password: credential.password.clone(),
        server_address: credential.registry.clone(),
        ..Default::default()
    }
}

pub(super) fn container_facts(status: v1::ContainerStatus) -> ContainerFacts {
    let time = |nanos: i64| Timestamp::from_nanosecond(nanos.into()).unwrap_or_default();
    let meta = status.metadata.unwrap_or_default();
    let state = match v1::ContainerState::try_from(status.state) {
        Ok(v1::ContainerState::ContainerRunning) => ContainerState::Running {
            started: time(status.started_at),
        },
        Ok(v1::ContainerState::ContainerCreated) => ContainerState::Created,
        // Unknown is what the runtime says of a container whose process it has lost: it will not come back.
        Ok(v1::ContainerState::ContainerExited | v1::ContainerState::ContainerUnknown) | Err(_) => {
            let code = status.exit_code;
            let reason = if status.reason.is_empty() {
                Exit::reason_of(code).into()
            } else {
                status.reason
            };
            ContainerState::Exited(Exit {
                code,
                reason,
                message: status.message,
                started: time(status.started_at),
                finished: time(status.finished_at),
            })
        }
    };
    ContainerFacts {
        id: status.id,
        name: meta.name,
        attempt: meta.attempt,
        image_id: status.image_ref,
        state,
    }
}
