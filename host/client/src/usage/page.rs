//! A kubelet's `/metrics/resource`, as far as use is made of it: the counters of the node and of its containers.

use std::collections::HashMap;

use jiff::Timestamp;

use super::rate::{Batch, Point};

/// What of one node or container was told.
#[derive(Default)]
struct Told {
    cpu: Option<(u64, Timestamp)>,
    memory: Option<u64>,
    started: Option<Timestamp>,
}

impl Told {
    /// `None` where a figure is missing.
    fn point(&self) -> Option<Point> {
        let (cpu, at) = self.cpu?;
        Some(Point {
            at,
            cpu,
            memory: self.memory?,
            started: self.started,
        })
    }
}

/// Adds what the page tells to `batch`. `now` is the time of samples that name none. A pod of whose containers one is not
/// accounted for is left out, since its sum would be wrong.
pub(super) fn read(page: &str, node: &str, now: Timestamp, batch: &mut Batch) {
    let mut whole = Told::default();
    let mut containers: HashMap<(&str, &str, &str), Told> = HashMap::new();
    for sample in page.lines().filter_map(Sample::parse) {
        let told = match sample.name.split_once('_') {
            Some(("node", _)) => &mut whole,
            Some(("container", _)) => match sample.container() {
                Some(of) => containers.entry(of).or_default(),
                None => continue,
            },
            _ => continue,
        };
        match sample.name {
            "node_cpu_usage_seconds_total" | "container_cpu_usage_seconds_total" => {
                told.cpu = Some(((sample.value * 1e9) as u64, sample.at.unwrap_or(now)));
            }
            "node_memory_working_set_bytes" | "container_memory_working_set_bytes" => {
                told.memory = Some(sample.value as u64);
            }
            "container_start_time_seconds" => {
                told.started = Timestamp::from_millisecond((sample.value * 1e3) as i64).ok();
            }
            _ => {}
        }
    }
    batch.nodes.extend(whole.point().map(|point| (node.into(), point)));
    let mut partial = Vec::new();
    for ((namespace, pod, container), told) in containers {
        let key = (namespace.into(), pod.into());
        match told.point() {
            Some(point) => batch.pods.entry(key).or_default().push((container.into(), point)),
            None => partial.push(key),
        }
    }
    for key in partial {
        batch.pods.remove(&key);
    }
}

/// A line of Prometheus' text format: `name{key="value",…} value milliseconds`.
struct Sample<'a> {
    name: &'a str,
    labels: &'a str,
    value: f64,
    at: Option<Timestamp>,
}

impl<'a> Sample<'a> {
    /// `None` for comments, and for values that no counter has.
    fn parse(line: &'a str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let (name, labels, rest) = match line.split_once('{') {
            Some((name, rest)) => rest.rsplit_once('}').map(|(labels, rest)| (name, labels, rest))?,
            None => line.split_once(' ').map(|(name, rest)| (name, "", rest))?,
        };
        let mut words = rest.split_whitespace();
        let value: f64 = words.next()?.parse().ok()?;
        if !value.is_finite() || value < 0.0 {
            return None;
        }
        let at = words.next().and_then(|millis| millis.parse().ok());
        Some(Self {
            name: name.trim(),
            labels,
            value,
            at: at.and_then(|millis| Timestamp::from_millisecond(millis).ok()),
        })
    }

    /// Names of objects: nothing in them is escaped.
    fn label(&self, key: &str) -> Option<&'a str> {
        self.labels.split(',').find_map(|pair| {
            let value = pair.trim().strip_prefix(key)?.strip_prefix("=\"")?;
            value.strip_suffix('"')
        })
    }

    /// Namespace, pod and container.
    fn container(&self) -> Option<(&'a str, &'a str, &'a str)> {
        Some((self.label("namespace")?, self.label("pod")?, self.label("container")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_incomplete_pods_left_out() {
        let page = r#"
# HELP container_cpu_usage_seconds_total [STABLE] Cumulative cpu time consumed by the container in core-seconds
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container="a",namespace="default",pod="web"} 1.5 1700000009500
container_cpu_usage_seconds_total{container="b",namespace="default",pod="web"} 7e-09
container_cpu_usage_seconds_total{container="half",namespace="default",pod="partial"} 1 1700000009000
container_cpu_usage_seconds_total{container="full",namespace="default",pod="partial"} 1 1700000009000
container_cpu_usage_seconds_total{namespace="default",pod="nameless"} 1 1700000009000
container_cpu_usage_seconds_total{container="a",namespace="default",pod="odd"} NaN 1700000009000
container_memory_working_set_bytes{container="a",namespace="default",pod="web"} 1.048576e+06 1700000009500
container_memory_working_set_bytes{container="b",namespace="default",pod="web"} 4096
container_memory_working_set_bytes{container="full",namespace="default",pod="partial"} 1 1700000009000
container_start_time_seconds{container="a",namespace="default",pod="web"} 1.7000000045e+09
node_cpu_usage_seconds_total 123.25 1700000009000
node_memory_working_set_bytes 409600 1700000009000
pod_cpu_usage_seconds_total{namespace="default",pod="web"} 2 1700000009000
resource_scrape_error 0
"#;
        let at = |millis: i64| Timestamp::from_millisecond(1_700_000_000_000 + millis).unwrap();
        let point = |millis, cpu, memory, started| Point {
            at: at(millis),
            cpu,
            memory,
            started,
        };
        let mut batch = Batch::default();
        read(page, "n1", at(60_000), &mut batch);
        assert_eq!(
            batch.nodes,
            HashMap::from([("n1".into(), point(9000, 123_250_000_000, 409_600, None))])
        );
        let keys: Vec<_> = batch.pods.keys().collect();
        assert_eq!(keys, [&("default".into(), "web".into())]);
        let mut web = batch.pods.into_values().next().unwrap();
        web.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            web,
            [
                ("a".into(), point(9500, 1_500_000_000, 1 << 20, Some(at(4500)))),
                ("b".into(), point(60_000, 7, 4096, None)),
            ]
        );
    }
}
