//! How many requests were answered and how fast, under the names kube-apiserver gives these figures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::path::Path;

/// Upper ends of the buckets of request durations, in seconds.
const BUCKETS: [f64; 10] = [0.005, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0];

#[derive(Default)]
pub(crate) struct Metrics {
    /// One short lock a request; contention shows only far above what one server answers.
    requests: Mutex<BTreeMap<Label, Figures>>,
}

/// The labels are few by construction: names never stand in them, and what is not a resource is lumped together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Label {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    /// `resource` for one object, `namespace` or `cluster` for many, empty for what is no resource.
    scope: &'static str,
    code: u16,
}

#[derive(Debug, Default, Clone)]
struct Figures {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

impl Metrics {
    pub(crate) fn answered(&self, path: &Path, verb: &'static str, code: u16, took: Duration) {
        let label = match path {
            // A path that nobody serves must not make a label of its own.
            Path::Resource(at) if code != 404 => Label {
                verb,
                group: at.gvr.group.to_string(),
                version: at.gvr.version.to_string(),
                resource: at.gvr.resource.to_string(),
                subresource: at.subresource.split('/').next().unwrap_or_default().to_owned(),
                scope: match (at.name.is_empty(), at.namespace.is_empty()) {
                    (false, _) => "resource",
                    (true, false) => "namespace",
                    (true, true) => "cluster",
                },
                code,
            },
            _ => Label {
                verb,
                group: String::new(),
                version: String::new(),
                resource: String::new(),
                subresource: String::new(),
                scope: "",
                code,
            },
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let figures = requests.entry(label).or_default();
        let seconds = took.as_secs_f64();
        figures.count += 1;
        figures.seconds += seconds;
        for (bucket, end) in figures.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= end);
        }
    }

    pub(crate) fn text(&self) -> String {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text =
            String::from("# HELP apiserver_request_total Requests answered.\n# TYPE apiserver_request_total counter\n");
        // Writing to a String cannot fail.
        for (label, figures) in &requests {
            let _ = writeln!(
                text,
                "apiserver_request_total{{{},code=\"{}\"}} {}",
                label.text(),
                label.code,
                figures.count
            );
        }
        text += "# HELP apiserver_request_duration_seconds Time until the head of the answer was ready.\n";
        text += "# TYPE apiserver_request_duration_seconds histogram\n";
        let mut timed: BTreeMap<String, Figures> = BTreeMap::new();
        for (label, figures) in requests.iter().filter(|(label, _)| label.verb != "watch") {
            let sum = timed.entry(label.text()).or_default();
            sum.count += figures.count;
            sum.seconds += figures.seconds;
            sum.buckets.iter_mut().zip(figures.buckets).for_each(|(a, b)| *a += b);
        }
        for (label, figures) in &timed {
            let name = "apiserver_request_duration_seconds";
            for (end, count) in BUCKETS.iter().zip(figures.buckets) {
                let _ = writeln!(text, "{name}_bucket{{{label},le=\"{end}\"}} {count}");
            }
            let _ = writeln!(text, "{name}_bucket{{{label},le=\"+Inf\"}} {}", figures.count);
            let _ = writeln!(
                text,
                "{name}_sum{{{label}}} {}\n{name}_count{{{label}}} {}",
                figures.seconds, figures.count
            );
        }
        text
    }
}

impl Label {
    fn text(&self) -> String {
        let Label {
            verb,
            group,
            version,
            resource,
            subresource,
            scope,
            ..
        } = self;
        // As kube-apiserver counts them: by method where there is one for the verb.
        let verb = match *verb {
            "create" => "POST".to_owned(),
            "update" => "PUT".to_owned(),
            verb => verb.to_uppercase(),
        };
        format!(
            "verb=\"{verb}\",component=\"apiserver\",group=\"{group}\",version=\"{version}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\""
        )
    }
}
