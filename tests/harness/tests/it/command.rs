//! Pods that run to their end: what they are given, what they say, how they end.

use harness::{TestCluster, eventually};
use serde_json::{Value, json};

use crate::steps::LIMIT;

#[test]
fn a_command_runs_to_its_end() {
    let cluster = TestCluster::wasm();
    cluster.kubectl(&[
        "create",
        "configmap",
        "settings",
        "--from-literal=greeting=good morning",
    ]);
    cluster.kubectl(&[
        "create",
        "secret",
        "generic",
        "password",
        "--from-literal=word=swordfish",
    ]);
    for (name, args, phase, code, log) in [
        ("echo", json!(["echo", "hello"]), "Succeeded", 0, "hello\n"),
        // WASI 0.2 knows success and failure, and no numbers.
        ("fails", json!(["exit", "3"]), "Failed", 1, ""),
        ("env", json!(["env", "WORD"]), "Succeeded", 0, "WORD=swordfish\n"),
        (
            "cat",
            json!(["cat", "/settings/greeting"]),
            "Succeeded",
            0,
            // The log is made of lines, whole ones.
            "good morning\n",
        ),
        ("expands", json!(["echo", "$(WORD)"]), "Succeeded", 0, "swordfish\n"),
    ] {
        cluster.apply(&pod(name, &args).to_string());
        let status = eventually(&format!("{name} has ended"), LIMIT, || {
            let mut pod = cluster.json(&["get", "pod", name]);
            match pod["status"]["phase"].as_str() {
                Some("Succeeded" | "Failed") => Ok(pod["status"].take()),
                _ => Err(pod["status"].to_string()),
            }
        });
        assert_eq!(status["phase"], phase, "{name}: {status}");
        let container = &status["containerStatuses"][0];
        assert_eq!(container["state"]["terminated"]["exitCode"], code, "{name}: {status}");
        assert_eq!(container["restartCount"], 0, "{name}: {status}");
        assert_eq!(cluster.kubectl(&["logs", name]), log, "{name}");
    }
    cluster.kubectl(&["delete", "pods", "--all"]);
    assert_eq!(cluster.kubectl(&["get", "pods", "-o", "name"]), "");
}

/// With a variable of a Secret, and a ConfigMap as a folder.
fn pod(name: &str, args: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "main", "image": "job:v1", "args": args,
                "env": [{"name": "WORD", "valueFrom": {"secretKeyRef": {"name": "password", "key": "word"}}}],
                "volumeMounts": [{"name": "settings", "mountPath": "/settings"}],
            }],
            "volumes": [{"name": "settings", "configMap": {"name": "settings"}}],
        },
    })
}
