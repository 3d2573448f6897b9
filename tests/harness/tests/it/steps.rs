//! What the stories do again and again.

use std::time::Duration;

use harness::{Answer, TestCluster, eventually, get, root};
use serde_json::Value;

/// More than anything takes on a small, busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The manifest that the README tells everybody to apply.
pub fn hello_manifest() -> String {
    let path = root().join("tests/manifests/hello.yaml");
    std::fs::read_to_string(path).expect("tests/manifests/hello.yaml")
}

/// `kubectl rollout status`, which watches until the rollout is complete.
#[track_caller]
pub fn rolled_out(cluster: &TestCluster, deployment: &str) {
    let said = cluster.kubectl(&[
        "rollout",
        "status",
        &format!("deployment/{deployment}"),
        "--timeout=100s",
    ]);
    assert!(said.contains("successfully rolled out"), "{said}");
}

/// Where a Service answers: `CLUSTER-IP:PORT`.
#[track_caller]
pub fn address(cluster: &TestCluster, service: &str) -> String {
    cluster.kubectl(&[
        "get",
        "service",
        service,
        "-o",
        "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}",
    ])
}

/// The Service's answer once it gives one.
#[track_caller]
pub fn answer(address: &str) -> Answer {
    eventually("the Service answers", LIMIT, || {
        get(address, "/").and_then(|answer| {
            if answer.status == 200 {
                Ok(answer)
            } else {
                Err(format!("{answer:?}"))
            }
        })
    })
}

/// The pods with these labels that nobody has asked to end.
#[track_caller]
pub fn pods(cluster: &TestCluster, labels: &str) -> Vec<Value> {
    let mut pods = cluster.items(&["get", "pods", "-l", labels]);
    pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    pods
}

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("every object has a name")
}

pub fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions
        .filter(|condition| condition["type"] == "Ready")
        .any(|condition| condition["status"] == "True")
}

/// Waits until exactly `count` pods exist, those that end included, and all are ready.
#[track_caller]
pub fn settled(cluster: &TestCluster, labels: &str, count: usize) -> Vec<Value> {
    eventually(&format!("exactly {count} ready pods"), LIMIT, || {
        let pods = cluster.items(&["get", "pods", "-l", labels]);
        let ready = pods.iter().filter(|pod| is_ready(pod)).count();
        if pods.len() == count && ready == count {
            Ok(pods)
        } else {
            Err(format!("{} pods, {ready} ready", pods.len()))
        }
    })
}

/// The status of a Plugin once it speaks of the newest spec.
#[track_caller]
pub fn plugin_status(cluster: &TestCluster, plugin: &str) -> Value {
    eventually(&format!("plugin {plugin} has been looked at"), LIMIT, || {
        let mut object = cluster.json(&["get", "plugin", plugin]);
        let seen = &object["status"]["observedGeneration"];
        if seen.is_number() && *seen == object["metadata"]["generation"] {
            Ok(object["status"].take())
        } else {
            Err(object.to_string())
        }
    })
}

/// The `Loaded` condition of a Plugin's status: status, reason, message.
pub fn loaded(status: &Value) -> (&str, &str, &str) {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let condition = conditions.find(|condition| condition["type"] == "Loaded");
    let condition = condition.unwrap_or_else(|| panic!("no condition Loaded: {status}"));
    let text = |field: &str| condition[field].as_str().unwrap_or_default();
    (text("status"), text("reason"), text("message"))
}

/// `kubectl patch --type merge`.
#[track_caller]
pub fn patch(cluster: &TestCluster, object: &str, patch: &Value) {
    cluster.kubectl(&["patch", object, "--type", "merge", "-p", &patch.to_string()]);
}
