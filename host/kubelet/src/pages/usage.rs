//! What the machine and its pods use at one moment, and the `Summary` of stats/v1alpha1 made of it.

use std::collections::HashMap;
use std::path::Path;

use jiff::Timestamp;
use model::time::seconds;
use serde_json::{Value, json};

use super::running_of;
use crate::proc;
use crate::runtime::{ContainerFacts, PodFacts, PodUsage, Usage};

/// All that is told of a node's use.
pub(super) struct Seen {
    pub machine: Usage,
    booted: Option<Timestamp>,
    /// Bytes that programs could still have.
    available: Option<u64>,
    /// Bytes that are not free, the cache of files among them.
    taken: Option<u64>,
    disk: Option<Disk>,
    pub pods: Vec<PodSeen>,
}

/// Of the file system that holds the kubelet's folder.
struct Disk {
    capacity: u64,
    free: u64,
    /// Without what is kept back for root.
    available: u64,
    inodes: u64,
    inodes_free: u64,
}

/// A pod that runs.
pub(super) struct PodSeen {
    pub facts: PodFacts,
    used: PodUsage,
}

impl Seen {
    /// Reads `/proc`: not for a thread that serves.
    pub fn now(root: &Path, pods: Vec<PodFacts>, used: Vec<PodUsage>) -> Self {
        let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let disk = nix::sys::statvfs::statvfs(root).ok().map(|disk| {
            let block = disk.fragment_size();
            Disk {
                capacity: disk.blocks() * block,
                free: disk.blocks_free() * block,
                available: disk.blocks_available() * block,
                inodes: disk.files(),
                inodes_free: disk.files_free(),
            }
        });
        let now = Timestamp::now();
        Self {
            disk,
            ..Self::of(&file("/proc/stat"), &file("/proc/meminfo"), pods, used, now)
        }
    }

    /// Without the disk. What the kernel does not tell is left out.
    fn of(stat: &str, meminfo: &str, pods: Vec<PodFacts>, used: Vec<PodUsage>, now: Timestamp) -> Self {
        let memory = |key: &str| proc::bytes(meminfo, key);
        let total = memory("MemTotal:");
        let without = |part: Option<u64>| Some(total?.saturating_sub(part?));
        let available = memory("MemAvailable:");
        let mut used: HashMap<String, PodUsage> = used.into_iter().map(|used| (used.uid.clone(), used)).collect();
        let mut pods: Vec<PodSeen> = pods
            .into_iter()
            .filter(|facts| facts.sandbox_ready)
            .map(|facts| PodSeen {
                used: used.remove(&facts.pod.uid).unwrap_or_default(),
                facts,
            })
            .collect();
        let name = |pod: &PodSeen| (pod.facts.pod.namespace.clone(), pod.facts.pod.name.clone());
        pods.sort_by_key(name);
        Self {
            machine: Usage {
                at: now,
                cpu: proc::busy(stat),
                memory: without(available),
            },
            booted: proc::booted(stat),
            available,
            taken: without(memory("MemFree:")),
            disk: None,
            pods,
        }
    }

    /// `Summary` of stats/v1alpha1.
    pub fn summary(&self, node: &str) -> Value {
        let time = seconds(self.machine.at);
        let mut told = json!({
            "nodeName": node,
            "startTime": self.booted.map(seconds),
            "cpu": cpu(&self.machine),
            "memory": memory(&self.machine),
        });
        told["memory"]["availableBytes"] = self.available.into();
        told["memory"]["usageBytes"] = self.taken.into();
        if let Some(disk) = &self.disk {
            told["fs"] = json!({
                "time": time,
                "availableBytes": disk.available,
                "capacityBytes": disk.capacity,
                "usedBytes": disk.capacity.saturating_sub(disk.free),
                "inodesFree": disk.inodes_free,
                "inodes": disk.inodes,
                "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
            });
        }
        let pods: Vec<Value> = self.pods.iter().map(PodSeen::stats).collect();
        json!({"node": told, "pods": pods})
    }
}

impl PodSeen {
    /// Running containers, since when they run, and what they have used, where that is known.
    pub fn containers(&self) -> impl Iterator<Item = (&ContainerFacts, Timestamp, Option<&Usage>)> {
        running_of(&self.facts).map(|(container, since)| (container, since, self.used.containers.get(&container.id)))
    }

    /// The pod's own figure, or the sum of its containers'.
    pub fn whole(&self) -> Option<Usage> {
        let sum = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
        let of_containers = || {
            self.used.containers.values().copied().reduce(|a, b| Usage {
                at: a.at.max(b.at),
                cpu: sum(a.cpu, b.cpu),
                memory: sum(a.memory, b.memory),
            })
        };
        self.used.whole.or_else(of_containers)
    }

    fn stats(&self) -> Value {
        let containers = self.containers().map(|(container, since, used)| {
            let mut told = json!({"name": container.name, "startTime": seconds(since)});
            tell(&mut told, used);
            told
        });
        let pod = &self.facts.pod;
        let mut told = json!({
            "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "startTime": self.containers().map(|(_, since, _)| since).min().map(seconds),
            "containers": containers.collect::<Vec<_>>(),
        });
        tell(&mut told, self.whole().as_ref());
        told
    }
}

fn tell(told: &mut Value, used: Option<&Usage>) {
    if let Some(used) = used {
        told["cpu"] = cpu(used);
        told["memory"] = memory(used);
    }
}

/// `CPUStats`. The rate, `usageNanoCores`, is left to who asks twice.
fn cpu(used: &Usage) -> Value {
    json!({"time": seconds(used.at), "usageCoreNanoSeconds": used.cpu})
}

/// `MemoryStats`.
fn memory(used: &Usage) -> Value {
    json!({"time": seconds(used.at), "workingSetBytes": used.memory})
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::runtime::{ContainerState, PodRef, SandboxFacts};

    pub fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    fn pod(name: &str, containers: &[&str]) -> PodFacts {
        PodFacts {
            pod: PodRef {
                namespace: "default".into(),
                name: name.into(),
                uid: format!("uid-{name}"),
            },
            sandbox: SandboxFacts::default(),
            sandbox_ready: true,
            containers: containers
                .iter()
                .map(|container| ContainerFacts {
                    id: format!("{name}/{container}"),
                    name: (*container).into(),
                    attempt: 0,
                    image_id: "sha256:0".into(),
                    state: ContainerState::Running { started: at(5) },
                })
                .collect(),
            observed: at(9),
        }
    }

    /// Two pods: of `web` each container is accounted for, of `one` the pod as a whole.
    pub fn seen() -> Seen {
        let stat = "cpu  100 0 50 1000 0 0 0 0 0 0\nbtime 1700000000\n";
        let meminfo = "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 600 kB\n";
        let used = |cpu: u64, memory: u64| Usage {
            at: at(9),
            cpu: Some(cpu),
            memory: Some(memory),
        };
        let of = |name: &str, whole, containers| PodUsage {
            uid: format!("uid-{name}"),
            whole,
            containers,
        };
        let of_web = [("web/a", used(1_500_000_000, 1024)), ("web/b", used(500_000_000, 4096))];
        let of_web = of_web.map(|(id, used)| (id.to_owned(), used)).into();
        let pods = vec![pod("web", &["a", "b"]), pod("one", &["main"])];
        let used = vec![
            of("web", None, of_web),
            of("one", Some(used(7, 8)), BTreeMap::new()),
            of("gone", Some(used(1, 1)), BTreeMap::new()),
        ];
        Seen::of(stat, meminfo, pods, used, at(9))
    }

    #[test]
    fn a_summary_tells_the_machine_and_each_pod() {
        let summary = seen().summary("n1");
        let cpu = |nanos: u64| json!({"time": "2023-11-14T22:13:29Z", "usageCoreNanoSeconds": nanos});
        let memory = |bytes: u64| json!({"time": "2023-11-14T22:13:29Z", "workingSetBytes": bytes});
        let since = "2023-11-14T22:13:25Z";
        let expected = json!({
            "node": {
                "nodeName": "n1",
                "startTime": "2023-11-14T22:13:20Z",
                "cpu": cpu(1_500_000_000),
                "memory": {
                    "time": "2023-11-14T22:13:29Z",
                    "workingSetBytes": 400 * 1024,
                    "availableBytes": 600 * 1024,
                    "usageBytes": 700 * 1024,
                },
            },
            "pods": [
                {
                    "podRef": {"name": "one", "namespace": "default", "uid": "uid-one"},
                    "startTime": since,
                    "containers": [{"name": "main", "startTime": since}],
                    "cpu": cpu(7),
                    "memory": memory(8),
                },
                {
                    "podRef": {"name": "web", "namespace": "default", "uid": "uid-web"},
                    "startTime": since,
                    "containers": [
                        {"name": "a", "startTime": since, "cpu": cpu(1_500_000_000), "memory": memory(1024)},
                        {"name": "b", "startTime": since, "cpu": cpu(500_000_000), "memory": memory(4096)},
                    ],
                    "cpu": cpu(2_000_000_000),
                    "memory": memory(5120),
                },
            ],
        });
        assert_eq!(summary, expected, "{summary:#}");
    }

    #[test]
    fn what_is_not_known_of_one_container_is_not_known_of_its_pod() {
        let mut seen = seen();
        seen.pods[1].used.containers.get_mut("web/a").unwrap().memory = None;
        let whole = seen.pods[1].whole().unwrap();
        assert_eq!((whole.cpu, whole.memory), (Some(2_000_000_000), None));
    }
}
