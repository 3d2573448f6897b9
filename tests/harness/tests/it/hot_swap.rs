//! The scheduling policy and a controller are exchanged while a Deployment grows: no pod is lost, none is made or placed twice.

use std::collections::{BTreeMap, BTreeSet};

use harness::{TestCluster, eventually, guest};
use serde_json::{Value, json};

use crate::steps::{LIMIT, loaded, name, patch, plugin_status, rolled_out, settled};

const REPLICAS: usize = 500;
/// Of 110 pods at most each.
const NODES: usize = 6;
const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: 'web:v1'}]}
";

#[test]
fn policy_and_controller_are_swapped_while_a_deployment_grows() {
    let cluster = TestCluster::fake(NODES);
    cluster.apply(WEB);
    rolled_out(&cluster, "web");
    // Every pod that ever is, with each node it is seen on.
    let seen = cluster.scratch("pods.txt");
    let columns = "jsonpath={.metadata.uid} {.spec.nodeName}{\"\\n\"}";
    let mut watch = cluster.kubectl_into(&["get", "pods", "-l", "app=web", "--watch", "-o", columns], &seen);

    eventually("the watch has begun", LIMIT, || {
        let text = std::fs::read_to_string(&seen).unwrap_or_default();
        if text.is_empty() { Err(text) } else { Ok(()) }
    });

    let plugins = ["scheduler-default", "controller-replicaset"];
    let patches = plugins.map(|plugin| (plugin, [from_file(&cluster, plugin), embedded(plugin)]));
    cluster.kubectl(&["scale", "deployment/web", &format!("--replicas={REPLICAS}")]);
    let mut in_the_middle: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    // There and back again for as long as pods are missing.
    for turn in 0.. {
        for (plugin, revisions) in &patches {
            patch(&cluster, &format!("plugin/{plugin}"), &revisions[turn % 2]);
            let status = plugin_status(&cluster, plugin);
            assert_eq!(
                (loaded(&status).0, &status["state"]),
                ("True", &json!("Ready")),
                "{plugin}: {status}"
            );
            let number = status["revision"].as_str().and_then(|n| n.parse().ok());
            assert_eq!(number, Some(turn + 2), "{plugin} was swapped: {status}");
            let placed = cluster.kubectl(&[
                "get",
                "pods",
                "-l",
                "app=web",
                "-o",
                "jsonpath={.items[*].spec.nodeName}",
            ]);
            let placed = placed.split_whitespace().count();
            if (2..REPLICAS).contains(&placed) {
                in_the_middle.entry(plugin).or_default().push(placed);
            }
        }
        if cluster.json(&["get", "deployment", "web"])["status"]["readyReplicas"] == REPLICAS {
            break;
        }
        assert!(turn < 100, "the Deployment does not grow to its end");
    }
    eprintln!("swapped when so many pods were placed: {in_the_middle:?}");
    for plugin in plugins {
        assert!(
            in_the_middle.contains_key(plugin),
            "{plugin}: no swap was done before all pods were placed"
        );
    }
    rolled_out(&cluster, "web");
    let pods = settled(&cluster, "app=web", REPLICAS);
    for pod in &pods {
        assert!(pod["spec"]["nodeName"].is_string(), "{} has no node", name(pod));
    }

    // What was swapped goes on: down, and not one too many goes.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=10"]);
    rolled_out(&cluster, "web");
    settled(&cluster, "app=web", 10);
    for plugin in plugins {
        let status = plugin_status(&cluster, plugin);
        assert_eq!(status["faults"], 0, "{plugin}: {status}");
        assert_eq!(status["state"], "Ready", "{plugin}: {status}");
    }

    // The watch has seen the end when it has seen as much as we have.
    let _ = watch.kill();
    let _ = watch.wait();
    let mut placed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(&seen).expect("the watch wrote").lines() {
        let (uid, node) = line.split_once(' ').unwrap_or_else(|| panic!("{line:?}"));
        let nodes = placed.entry(uid.to_owned()).or_default();
        if !node.is_empty() {
            nodes.insert(node.to_owned());
        }
    }
    assert_eq!(placed.len(), REPLICAS, "pods that ever were: none made twice");
    for (uid, nodes) in &placed {
        assert_eq!(nodes.len(), 1, "pod {uid} was placed on {nodes:?}");
    }
}

/// What built-in Plugins are made with.
fn embedded(plugin: &str) -> Value {
    json!({"spec": {"source": {"embedded": plugin, "file": null}, "grants": null}})
}

/// The same component, but from a file and with its grants spelled out. Another revision.
fn from_file(cluster: &TestCluster, plugin: &str) -> Value {
    let role = cluster.json(&["get", "clusterrole", &format!("system:plugin:{plugin}")]);
    json!({"spec": {
        "source": {"embedded": null, "file": guest(plugin)},
        "grants": {"rules": role["rules"]},
    }})
}
