//! From a container of a pod's spec to what a runtime is asked to start.

use std::path::{Path, PathBuf};

use crate::env::{Placed, environment, expand};
use crate::files::{self, Layout};
use crate::pod::spec::{ContainerSpec, Pod};
use crate::read::Reader;
use crate::resources;
use crate::runtime::{ContainerConfig, Dns, Mount, PodRef, PortMapping, SandboxConfig};

pub(crate) fn pod_ref(pod: &Pod) -> PodRef {
    let meta = &pod.metadata;
    PodRef {
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
    }
}

/// `dns` is the cluster's: servers and domain.
pub(crate) fn sandbox_config(pod: &Pod, layout: &Layout, attempt: u32, dns: (&[String], &str)) -> SandboxConfig {
    let spec = &pod.spec;
    let pod_ref = pod_ref(pod);
    let ports = spec
        .containers
        .iter()
        .flat_map(|c| &c.ports)
        .filter(|p| p.host_port != 0)
        .map(|p| PortMapping {
            protocol: if p.protocol.is_empty() {
                "TCP".into()
            } else {
                p.protocol.clone()
            },
            container: p.container_port,
            host: p.host_port,
            host_ip: p.host_ip.clone(),
        });
    SandboxConfig {
        attempt,
        hostname: if spec.hostname.is_empty() {
            short(&pod_ref.name)
        } else {
            spec.hostname.clone()
        },
        log_dir: layout.pod_logs(&pod_ref),
        labels: pod.metadata.labels.clone(),
        annotations: pod.metadata.annotations.clone(),
        dns: resolver(pod, dns),
        host_network: spec.host_network,
        host_pid: spec.host_pid,
        host_ipc: spec.host_ipc,
        ports: if spec.host_network { Vec::new() } else { ports.collect() },
        security: spec.security_context.clone(),
        share_processes: spec.share_process_namespace,
        privileged: spec.all_containers().any(|c| c.security_context.privileged),
        cgroup_parent: String::new(),
        pod: pod_ref,
    }
}

/// A host name has at most 63 characters and ends in a letter or digit.
fn short(name: &str) -> String {
    let cut: String = name.chars().take(63).collect();
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// `None`: the host's own resolver.
fn resolver(pod: &Pod, (servers, domain): (&[String], &str)) -> Option<Dns> {
    let spec = &pod.spec;
    let cluster = match spec.dns_policy.as_str() {
        "None" | "Default" => false,
        "ClusterFirstWithHostNet" => true,
        _ => !spec.host_network,
    };
    let mut dns = Dns::default();
    if cluster && !servers.is_empty() {
        dns.servers = servers.to_vec();
        let namespace = &pod.metadata.namespace;
        dns.searches = vec![
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.into(),
        ];
        dns.options = vec!["ndots:5".into()];
    }
    if let Some(more) = &spec.dns_config {
        dns.servers.extend(more.nameservers.iter().cloned());
        dns.searches.extend(more.searches.iter().cloned());
        dns.options.extend(more.options.iter().map(|o| match &o.value {
            Some(value) => format!("{}:{value}", o.name),
            None => o.name.clone(),
        }));
    }
    (dns != Dns::default()).then_some(dns)
}

/// `processes_of` as in [`ContainerConfig`].
///
/// # Errors
/// A sentence for `CreateContainerConfigError`.
#[expect(
    clippy::too_many_arguments,
    reason = "each is a fact of its own; called in one place"
)]
pub(crate) async fn container_config(
    pod: &Pod,
    spec: &ContainerSpec,
    attempt: u32,
    image_id: &str,
    placed: &Placed,
    layout: &Layout,
    reader: &Reader,
    node_memory: u64,
    processes_of: Option<String>,
) -> Result<ContainerConfig, String> {
    let env = environment(pod, spec, placed, reader).await?;
    let value = |name: &str| env.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let expanded = |list: &[String]| list.iter().map(|text| expand(text, value)).collect();
    Ok(ContainerConfig {
        name: spec.name.clone(),
        attempt,
        image: spec.image.clone(),
        image_id: image_id.into(),
        command: expanded(&spec.command),
        args: expanded(&spec.args),
        working_dir: spec.working_dir.clone(),
        mounts: mounts(pod, spec, layout).await?,
        log_path: Path::new(&spec.name).join(format!("{attempt}.log")),
        ports: spec
            .ports
            .iter()
            .filter(|p| matches!(p.protocol.as_str(), "" | "TCP"))
            .map(|p| p.container_port)
            .collect(),
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        resources: resources::linux(spec, resources::qos(&pod.spec), node_memory),
        security: spec.security_context.clone(),
        pod_security: pod.spec.security_context.clone(),
        processes_of,
        env,
    })
}

async fn mounts(pod: &Pod, spec: &ContainerSpec, layout: &Layout) -> Result<Vec<Mount>, String> {
    let mut mounts = Vec::new();
    for mount in &spec.volume_mounts {
        let volume = pod.spec.volumes.iter().find(|v| v.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume {:?} of a mount does not exist", mount.name))?;
        let mut host_path = match &volume.host_path {
            Some(host) => host.path.clone().into(),
            None => layout.volume(&pod.metadata.uid, &volume.name),
        };
        if !mount.sub_path.is_empty() {
            host_path = sub_path(&host_path, &mount.sub_path).await?;
        }
        // Files of the API server are never written by a pod.
        let ours = volume.empty_dir.is_none() && volume.host_path.is_none();
        let read_only = mount.read_only || ours;
        mounts.push(Mount {
            container_path: mount.mount_path.clone(),
            host_path,
            read_only,
        });
    }
    Ok(mounts)
}

/// A place inside a volume, made if it is not there. Links that a container planted must not lead out of the volume.
async fn sub_path(volume: &Path, path: &str) -> Result<PathBuf, String> {
    let leaves = || format!("subPath {path:?} leaves its volume");
    let place = files::below(volume, path).ok_or_else(leaves)?;
    let root = tokio::fs::canonicalize(volume)
        .await
        .map_err(|e| format!("{}: {e}", volume.display()))?;
    // The part that exists decides where the rest would be made.
    let mut there = place.clone();
    while tokio::fs::symlink_metadata(&there).await.is_err() && there.pop() {}
    let there = tokio::fs::canonicalize(&there).await.map_err(|e| e.to_string())?;
    if !there.starts_with(&root) {
        return Err(leaves());
    }
    if tokio::fs::metadata(&place).await.is_err() {
        tokio::fs::create_dir_all(&place)
            .await
            .map_err(|e| format!("subPath {path:?}: {e}"))?;
    }
    let place = tokio::fs::canonicalize(&place).await.map_err(|e| e.to_string())?;
    if place.starts_with(&root) {
        Ok(place)
    } else {
        Err(leaves())
    }
}
