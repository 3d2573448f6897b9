//! The scheduling policy and a controller are exchanged while a Deployment grows: no pod is lost, none is made or placed twice.

use std::collections::{BTreeMap, BTreeSet};

use harness::{TestCluster, guest};
use serde_json::json;

use crate::steps::{loaded, name, patch, plugin_status, rolled_out, settled};

const REPLICAS: usize = 60;
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
    let cluster = TestCluster::fake(3);
    cluster.apply(WEB);
    rolled_out(&cluster, "web");
    // Every pod that ever is, with each node it is seen on.
    let seen = cluster.scratch("pods.txt");
    let columns = "jsonpath={.metadata.uid} {.spec.nodeName}{\"\\n\"}";
    let mut watch = cluster.kubectl_into(&["get", "pods", "-l", "app=web", "--watch", "-o", columns], &seen);

    let during = std::thread::scope(|scope| {
        let growing = scope.spawn(|| cluster.kubectl(&["scale", "deployment/web", &format!("--replicas={REPLICAS}")]));
        let policy = scope.spawn(|| to_file(&cluster, "scheduler-default"));
        to_file(&cluster, "controller-replicaset");
        policy.join().expect("the policy is changed");
        growing.join().expect("the Deployment is scaled");
        cluster.json(&["get", "deployment", "web"])["status"]["readyReplicas"].as_u64()
    });
    for plugin in ["scheduler-default", "controller-replicaset"] {
        let status = plugin_status(&cluster, plugin);
        assert_eq!(
            (loaded(&status).0, &status["state"]),
            ("True", &json!("Ready")),
            "{plugin}: {status}"
        );
        assert_eq!(status["previous"]["revision"], "1", "{plugin} was swapped: {status}");
        assert_eq!(status["faults"], 0, "{plugin}: {status}");
    }
    rolled_out(&cluster, "web");
    let pods = settled(&cluster, "app=web", REPLICAS);
    assert!(
        during < Some(REPLICAS as u64),
        "all pods were ready before the swaps were; nothing was tested"
    );
    for pod in &pods {
        assert!(pod["spec"]["nodeName"].is_string(), "{} has no node", name(pod));
    }

    // A policy that was swapped and a controller from a file go on: down, and nothing too many goes.
    cluster.kubectl(&["scale", "deployment/web", "--replicas=10"]);
    rolled_out(&cluster, "web");
    settled(&cluster, "app=web", 10);
    let status = plugin_status(&cluster, "controller-replicaset");
    assert!(
        status["source"]
            .as_str()
            .is_some_and(|source| source.starts_with("file:")),
        "{status}"
    );

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

/// The same component again, but from a file and with its grants spelled out: another revision.
fn to_file(cluster: &TestCluster, plugin: &str) {
    let role = cluster.json(&["get", "clusterrole", &format!("system:plugin:{plugin}")]);
    let spec = json!({
        "source": {"embedded": null, "file": guest(plugin)},
        "grants": {"rules": role["rules"]},
    });
    patch(cluster, &format!("plugin/{plugin}"), &json!({"spec": spec}));
}
