//! CPU and memory of a container as cgroups take them, and the class of service that follows for its pod.

use std::collections::BTreeMap;

use model::Quantity;

use crate::pod::spec::{ContainerSpec, PodSpec, Resources};
use crate::runtime::LinuxResources;

const PERIOD_MICROS: i64 = 100_000;

/// `Guaranteed`, `Burstable` or `BestEffort` (Kubernetes: Pod Quality of Service Classes).
pub fn qos(spec: &PodSpec) -> &'static str {
    let containers = || spec.init_containers.iter().chain(&spec.containers);
    let set = |list: &BTreeMap<String, String>, name: &str| quantity(list, name).filter(|q| !q.is_zero());
    let none = containers().all(|c| {
        ["cpu", "memory"]
            .iter()
            .all(|name| set(&c.resources.requests, name).is_none() && set(&c.resources.limits, name).is_none())
    });
    let full = containers().all(|c| {
        ["cpu", "memory"]
            .iter()
            .all(|name| match set(&c.resources.limits, name) {
                Some(limit) => set(&c.resources.requests, name).is_none_or(|request| request == limit),
                None => false,
            })
    });
    match (none, full) {
        (true, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}

/// A malformed quantity counts as none: the API server has refused those.
pub fn quantity(list: &BTreeMap<String, String>, name: &str) -> Option<Quantity> {
    Quantity::parse(list.get(name)?).ok()
}

/// Requests weigh against other containers, limits cap (KEP-2570 keeps this mapping for cgroup v2 runtimes).
pub fn linux(container: &ContainerSpec, qos: &str, node_memory: u64) -> LinuxResources {
    let Resources { requests, limits } = &container.resources;
    let milli = |list| quantity(list, "cpu").map(Quantity::milli);
    let bytes = |list| quantity(list, "memory").map(Quantity::value);
    let weight = milli(requests).or(milli(limits)).unwrap_or(0);
    let quota = milli(limits)
        .filter(|limit| *limit > 0)
        .map(|limit| (limit * PERIOD_MICROS / 1000).max(1000));
    LinuxResources {
        cpu_shares: (weight * 1024 / 1000).clamp(2, 262_144),
        cpu_quota: quota.unwrap_or(0),
        cpu_period: if quota.is_some() { PERIOD_MICROS } else { 0 },
        memory_limit: bytes(limits).unwrap_or(0),
        oom_score_adj: match qos {
            "Guaranteed" => -997,
            "BestEffort" => 1000,
            // The more memory was asked for, the later the container is killed; 3..=999 keeps it between the others.
            _ => {
                let asked = bytes(requests).or(bytes(limits)).unwrap_or(0);
                (1000 - 1000 * asked / (node_memory.max(1) as i64)).clamp(3, 999)
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> ContainerSpec {
        let map = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        ContainerSpec {
            resources: Resources {
                requests: map(requests),
                limits: map(limits),
            },
            ..ContainerSpec::default()
        }
    }

    #[test]
    fn classes_follow_requests_and_limits() {
        let of = |containers: Vec<ContainerSpec>| {
            qos(&PodSpec {
                containers,
                ..PodSpec::default()
            })
        };
        assert_eq!(of(vec![container(&[], &[])]), "BestEffort");
        let full = [("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(of(vec![container(&[], &full)]), "Guaranteed");
        assert_eq!(of(vec![container(&full, &full)]), "Guaranteed");
        assert_eq!(of(vec![container(&full, &full), container(&[], &[])]), "Burstable");
        assert_eq!(of(vec![container(&[("cpu", "1m")], &[])]), "Burstable");
    }

    #[test]
    fn limits_become_quota_and_bytes() {
        let c = container(
            &[("cpu", "250m"), ("memory", "512Mi")],
            &[("cpu", "500m"), ("memory", "1Gi")],
        );
        let made = linux(&c, "Burstable", 4 << 30);
        assert_eq!(
            (made.cpu_shares, made.cpu_quota, made.cpu_period),
            (256, 50_000, 100_000)
        );
        assert_eq!((made.memory_limit, made.oom_score_adj), (1 << 30, 875));
        let none = linux(&container(&[], &[]), "BestEffort", 4 << 30);
        assert_eq!(
            (none.cpu_shares, none.cpu_quota, none.memory_limit, none.oom_score_adj),
            (2, 0, 0, 1000)
        );
    }
}
