//! `down` leaves no process behind, and the next `up` on the same folder finds everything as it was.

use std::collections::BTreeMap;
use std::time::Duration;

use harness::TestCluster;

use crate::steps::{address, answer, hello_manifest, rolled_out, settled};

/// Everything that people and controllers have written and nobody changes by himself.
const KINDS: &str = "namespaces,configmaps,secrets,serviceaccounts,services,deployments,replicasets,plugins,clusterroles,clusterrolebindings";

#[test]
fn a_second_start_finds_everything_as_it_was() {
    let mut cluster = TestCluster::wasm();
    cluster.apply(&hello_manifest());
    cluster.kubectl(&["create", "namespace", "mine"]);
    cluster.kubectl(&["create", "configmap", "kept", "--namespace=mine", "--from-literal=a=b"]);
    cluster.kubectl(&["label", "plugin", "scheduler-default", "touched=yes"]);
    rolled_out(&cluster, "hello");
    let service = address(&cluster, "hello");
    answer(&service);
    let before = objects(&cluster);
    assert!(before.len() > 20, "{before:?}");

    let twice = cluster
        .pilotis(&["up", "--detach"], Duration::from_secs(30))
        .unwrap_err();
    assert!(
        twice.contains("a cluster is running in") && twice.contains("pilotis down"),
        "{twice}"
    );
    assert!(!cluster.pod_processes().is_empty());

    cluster.down();
    // At once: `down` returns when all have ended.
    assert_eq!(cluster.processes(), [], "left behind by `pilotis down`");
    let mounts = std::fs::read_to_string("/proc/mounts").expect("Linux");
    let dir = cluster.dir();
    let dir = dir.to_str().expect("UTF-8");
    assert!(!mounts.contains(dir), "{mounts}");
    let again = cluster
        .pilotis(&["down"], Duration::from_secs(30))
        .expect("nothing to do is no error");
    assert!(again.contains("no cluster is running"), "{again}");

    cluster.up();
    let after = objects(&cluster);
    for (object, was) in &before {
        assert_eq!(after.get(object), Some(was), "{object}");
    }
    settled(&cluster, "app=hello", 3);
    assert_eq!(address(&cluster, "hello"), service);
    assert!(answer(&service).body.contains("hello from hello-"));
}

/// `kind namespace/name` → uid, generation and data.
fn objects(cluster: &TestCluster) -> BTreeMap<String, String> {
    let items = cluster.items(&["get", KINDS, "--all-namespaces"]);
    let line = |object: &serde_json::Value| {
        let meta = &object["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default().to_owned();
        let kind = object["kind"].as_str().unwrap_or_default();
        let key = format!("{kind} {}/{}", text("namespace"), text("name"));
        (
            key,
            format!(
                "{} {} {} {} {}",
                text("uid"),
                meta["generation"],
                meta["labels"],
                object["data"],
                object["spec"]
            ),
        )
    };
    items.iter().map(line).collect()
}
