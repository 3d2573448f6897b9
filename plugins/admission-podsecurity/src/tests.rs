//! The cases: what each check says of a pod at each version, and what a request is answered in a namespace.
//!
//! A file is two documents of YAML: the first is written by hand, the second, with a result for each entry of the first, by
//! `BLESS=1 cargo test -p admission-podsecurity`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use sdk::admission::Answer;
use sdk::{Value, json};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::checks::{BASELINE, Check, RESTRICTED};
use crate::levels::{Labels, PREFIX, Standard};
use crate::namespaces::Found;
use crate::pod::{Pod, Text};
use crate::{Object, namespaces, pods};

/// `cases/checks/NAME.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Checked {
    /// `v1.0`, `latest`.
    at: Vec<String>,
    pods: BTreeMap<String, Value>,
}

/// One of `cases/requests/*.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default = "of_pods")]
    resource: String,
    /// Of the namespace, without their prefix.
    #[serde(default)]
    labels: Labels,
    /// Of the Namespace that is updated.
    labels_before: Option<Labels>,
    #[serde(default)]
    object: Value,
    old: Option<Value>,
    /// Those that are in the Namespace. None can be read if it is not there.
    pods: Option<Vec<Value>>,
    /// How many there are, with those that are not looked at.
    total: Option<usize>,
}

fn of_pods() -> String {
    "pods".to_owned()
}

#[test]
fn each_check_says_what_it_asks_for() {
    for check in BASELINE.iter().chain(RESTRICTED) {
        let path = folder("checks").join(check.name).with_extension("yaml");
        let told = file(&path, |case: &Checked| {
            let versions = |pod: &Value| {
                let pod: Pod = serde_json::from_value(pod.clone()).expect("a pod");
                let one = |version: &String| (version.clone(), Value::from(said(check, &pod, version)));
                Value::Object(case.at.iter().map(one).collect())
            };
            let pods = case.pods.iter().map(|(name, pod)| (name.clone(), versions(pod)));
            Value::Object(pods.collect())
        });
        let all = told.as_object().into_iter().flatten();
        let results: Vec<&Value> = all
            .filter_map(|(_, at)| at.as_object())
            .flat_map(|at| at.values())
            .collect();
        let passes = results.iter().filter(|said| **said == "passes").count();
        let silent = results.iter().filter(|said| **said == "no such check").count();
        assert!(passes > 0, "{}: no pod passes", path.display());
        assert!(
            passes + silent < results.len(),
            "{}: no pod violates it",
            path.display()
        );
    }
    let checks = BASELINE.len() + RESTRICTED.len();
    assert_eq!(files("checks").len(), checks, "a file for each check, and no other");
}

fn said(check: &Check, pod: &Pod, version: &str) -> String {
    let standard = Standard::parse(&format!("restricted:{version}")).expect("a version");
    if !check.is_in(standard.version) {
        return "no such check".to_owned();
    }
    check.run(pod, standard.version).map_or_else(
        || "passes".to_owned(),
        |violation| format!("{} ({})", violation.reason, violation.detail),
    )
}

#[test]
fn requests_are_answered_as_kube_apiserver_answers_them() {
    for path in files("requests") {
        file(&path, |cases: &BTreeMap<String, Asked>| {
            let told = cases.iter().map(|(name, asked)| (name.clone(), told(&answer(asked))));
            Value::Object(told.collect())
        });
    }
}

fn answer(asked: &Asked) -> Answer {
    let prefixed = |labels: &Labels| {
        let prefixed = labels
            .iter()
            .map(|(key, value)| (format!("{PREFIX}{key}"), value.clone()));
        prefixed.collect::<Labels>()
    };
    let labels = prefixed(&asked.labels);
    if asked.resource == "namespaces" {
        let before = asked.labels_before.as_ref().map(prefixed);
        let look = |enforce| {
            let pods = asked.pods.as_ref().ok_or_else(|| sdk::Error::internal("no pods"))?;
            let mut found = Found::of(asked.total.unwrap_or(pods.len()));
            for pod in pods {
                let name = pod["metadata"]["name"].as_str().expect("a name").to_owned();
                found.add(name, &serde_json::from_value(pod.clone()).expect("a pod"), enforce);
            }
            Ok(found)
        };
        return namespaces::review("web", &labels, before.as_ref(), look);
    }
    let old = asked.old.as_ref().map(object);
    pods::review(&asked.resource, &object(&asked.object), old.as_ref(), &labels).expect("it can be read")
}

fn object(of: &Value) -> Object {
    let map = |at: &Value| serde_json::from_value(at.clone()).unwrap_or_default();
    Object {
        labels: map(&of["metadata"]["labels"]),
        annotations: map(&of["metadata"]["annotations"]),
        spec: Text(of["spec"].to_string()),
        template: Text(of["template"].to_string()),
    }
}

fn told(answer: &Answer) -> Value {
    let mut told = json!({});
    match &answer.denied {
        Some(denial) => told["denied"] = json!({denial.code.to_string(): denial.message}),
        None => told["admitted"] = true.into(),
    }
    if !answer.warnings.is_empty() {
        told["warnings"] = json!(answer.warnings);
    }
    if !answer.audit.is_empty() {
        told["audit"] = Value::Object(answer.audit.iter().map(|(k, v)| (k.clone(), json!(v))).collect());
    }
    told
}

/// Answers what stands in a file, and compares it with the answer that stands there.
fn file<T: DeserializeOwned>(path: &Path, answer: impl Fn(&T) -> Value) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (input, expected) = text.split_once("\n---\n").unwrap_or((text.trim_end(), ""));
    let case = serde_yaml_ng::from_str(input).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let answer = answer(&case);
    if env::var("BLESS").is_ok_and(|value| value == "1") {
        let answer = serde_yaml_ng::to_string(&answer).expect("JSON is YAML");
        fs::write(path, format!("{input}\n---\n{answer}")).expect("the case can be written");
    } else {
        let expected: Value = serde_yaml_ng::from_str(expected).expect("YAML");
        assert_eq!(
            answer,
            expected,
            "{}: BLESS=1 takes the new answer, which is on the left",
            path.display()
        );
    }
    answer
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cases").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).expect("a folder of cases");
    entries.map(|entry| entry.expect("it can be listed").path()).collect()
}
