//! Figures in Prometheus' text format, under the names that a stock kubelet gives them.

use std::fmt::Write;

use client::node::Page;

use super::usage::Seen;
use crate::runtime::{ContainerState, PodFacts, Usage};

pub(super) fn page(text: String) -> Page {
    Page {
        content_type: "text/plain; version=0.0.4; charset=utf-8",
        text,
    }
}

/// `/metrics`: the kubelet itself.
pub(super) fn kubelet(node: &str, pods: &[PodFacts]) -> String {
    let mut text = Text::default();
    text.family("kubelet_node_name", "gauge", "The node's name. The count is always 1.")
        .sample(&[("node", node)], 1);
    let sandboxes = pods.iter().filter(|pod| pod.sandbox_ready).count();
    text.family(
        "kubelet_running_pods",
        "gauge",
        "Number of pods that have a running pod sandbox",
    )
    .sample(&[], sandboxes);
    let (mut created, mut running, mut exited) = (0, 0, 0);
    for container in pods.iter().flat_map(|pod| &pod.containers) {
        *match container.state {
            ContainerState::Created => &mut created,
            ContainerState::Running { .. } => &mut running,
            ContainerState::Exited(_) => &mut exited,
        } += 1;
    }
    let mut states = text.family(
        "kubelet_running_containers",
        "gauge",
        "Number of containers by their state",
    );
    for (state, count) in [("created", created), ("exited", exited), ("running", running)] {
        states.sample(&[("container_state", state)], count);
    }
    text.0
}

/// `/metrics/resource`: what the node, its pods and their containers use.
pub(super) fn resource(seen: &Seen) -> String {
    let mut text = Text::default();
    let pods: Vec<([(&str, &str); 2], Usage)> = seen
        .pods
        .iter()
        .filter_map(|pod| {
            let of = &pod.facts.pod;
            Some(([("namespace", &*of.namespace), ("pod", &*of.name)], pod.whole()?))
        })
        .collect();
    let containers = || {
        seen.pods.iter().flat_map(|pod| {
            let of = &pod.facts.pod;
            pod.containers().map(move |(container, since, used)| {
                let labels = [
                    ("container", &*container.name),
                    ("namespace", &*of.namespace),
                    ("pod", &*of.name),
                ];
                (labels, since, used)
            })
        })
    };
    let mut cpu = text.family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for (labels, _, used) in containers() {
        cpu.cpu(&labels, used);
    }
    let mut memory = text.family(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
    );
    for (labels, _, used) in containers() {
        memory.memory(&labels, used);
    }
    let mut started = text.family(
        "container_start_time_seconds",
        "gauge",
        "Start time of the container since unix epoch in seconds",
    );
    for (labels, since, _) in containers() {
        started.sample(&labels, since.as_millisecond() as f64 / 1e3);
    }
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    text.family("node_cpu_usage_seconds_total", "counter", help)
        .cpu(&[], Some(&seen.machine));
    let help = "Current working set of the node in bytes";
    text.family("node_memory_working_set_bytes", "gauge", help)
        .memory(&[], Some(&seen.machine));
    let mut cpu = text.family(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    for (labels, used) in &pods {
        cpu.cpu(labels, Some(used));
    }
    let mut memory = text.family(
        "pod_memory_working_set_bytes",
        "gauge",
        "Current working set of the pod in bytes",
    );
    for (labels, used) in &pods {
        memory.memory(labels, Some(used));
    }
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    text.family("resource_scrape_error", "gauge", help).sample(&[], 0);
    text.0
}

#[derive(Default)]
struct Text(String);

/// Where the samples of one name go.
struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Text {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family {
            text: &mut self.0,
            name,
        }
    }
}

impl Family<'_> {
    /// The values of labels are names of objects: nothing in them needs escaping.
    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
        let braced = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.text, "{}{braced} {value}", self.name);
    }

    fn cpu(&mut self, labels: &[(&str, &str)], used: Option<&Usage>) {
        if let Some((used, nanos)) = used.and_then(|used| Some((used, used.cpu?))) {
            let at = used.at.as_millisecond();
            self.sample(labels, format_args!("{} {at}", nanos as f64 / 1e9));
        }
    }

    fn memory(&mut self, labels: &[(&str, &str)], used: Option<&Usage>) {
        if let Some((used, bytes)) = used.and_then(|used| Some((used, used.memory?))) {
            self.sample(labels, format_args!("{bytes} {}", used.at.as_millisecond()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::usage::tests::seen;
    use super::*;

    fn samples(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    #[test]
    fn use_is_told_under_the_names_of_kubernetes() {
        let text = resource(&seen());
        assert_eq!(
            samples(&text),
            [
                r#"container_cpu_usage_seconds_total{container="a",namespace="default",pod="web"} 1.5 1700000009000"#,
                r#"container_cpu_usage_seconds_total{container="b",namespace="default",pod="web"} 0.5 1700000009000"#,
                r#"container_memory_working_set_bytes{container="a",namespace="default",pod="web"} 1024 1700000009000"#,
                r#"container_memory_working_set_bytes{container="b",namespace="default",pod="web"} 4096 1700000009000"#,
                r#"container_start_time_seconds{container="main",namespace="default",pod="one"} 1700000005"#,
                r#"container_start_time_seconds{container="a",namespace="default",pod="web"} 1700000005"#,
                r#"container_start_time_seconds{container="b",namespace="default",pod="web"} 1700000005"#,
                "node_cpu_usage_seconds_total 1.5 1700000009000",
                "node_memory_working_set_bytes 409600 1700000009000",
                r#"pod_cpu_usage_seconds_total{namespace="default",pod="one"} 0.000000007 1700000009000"#,
                r#"pod_cpu_usage_seconds_total{namespace="default",pod="web"} 2 1700000009000"#,
                r#"pod_memory_working_set_bytes{namespace="default",pod="one"} 8 1700000009000"#,
                r#"pod_memory_working_set_bytes{namespace="default",pod="web"} 5120 1700000009000"#,
                "resource_scrape_error 0",
            ]
        );
    }

    #[test]
    fn the_kubelet_counts_sandboxes_and_containers() {
        let mut pods: Vec<PodFacts> = seen().pods.into_iter().map(|pod| pod.facts).collect();
        pods[0].sandbox_ready = false;
        pods[0].containers[0].state = ContainerState::Created;
        let text = kubelet("n1", &pods);
        assert_eq!(
            samples(&text),
            [
                r#"kubelet_node_name{node="n1"} 1"#,
                "kubelet_running_pods 1",
                r#"kubelet_running_containers{container_state="created"} 1"#,
                r#"kubelet_running_containers{container_state="exited"} 0"#,
                r#"kubelet_running_containers{container_state="running"} 2"#,
            ]
        );
    }
}
