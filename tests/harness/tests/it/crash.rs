//! `kill -9` of the whole server in the middle of a rollout: it comes back, finishes, and has lost nothing it acknowledged.

use std::collections::BTreeMap;

use harness::{TestCluster, eventually};
use serde_json::Value;

use crate::steps::{LIMIT, address, answer, hello_manifest, name, rolled_out, settled};

const REPLICAS: usize = 5;

#[test]
fn a_killed_server_comes_back_and_finishes_the_rollout() {
    let mut cluster = TestCluster::wasm();
    let manifest = hello_manifest().replace("replicas: 3", &format!("replicas: {REPLICAS}"));
    assert!(
        manifest.contains("replicas: 5"),
        "the manifest was changed: correct this test"
    );
    cluster.apply(&manifest);
    rolled_out(&cluster, "hello");
    let before = uids(&settled(&cluster, "app=hello", REPLICAS));

    cluster.kubectl(&["set", "image", "deployment/hello", "hello=hello:v2"]);
    let acknowledged = write_until_the_middle(&cluster);
    cluster.kill_server();
    cluster.up();

    for (name, written) in &acknowledged {
        let found = cluster.json(&["get", "configmap", name]);
        assert_eq!(&found, written, "configmap {name} is not as it was acknowledged");
    }
    rolled_out(&cluster, "hello");
    let pods = settled(&cluster, "app=hello", REPLICAS);
    for pod in &pods {
        assert_eq!(
            pod["spec"]["containers"][0]["image"],
            "hello:v2",
            "{} is of the old revision",
            name(pod)
        );
    }
    let after = uids(&pods);
    assert!(
        after.keys().all(|uid| !before.contains_key(uid)),
        "{before:?} {after:?}"
    );
    assert_eq!(cluster.pod_processes().len(), REPLICAS, "one process for each pod");
    assert!(answer(&address(&cluster, "hello")).body.contains("hello from hello-"));
}

/// Creates ConfigMaps until the rollout has begun, and makes sure that it has not ended. Returns what was acknowledged.
fn write_until_the_middle(cluster: &TestCluster) -> BTreeMap<String, Value> {
    let mut acknowledged = BTreeMap::new();
    eventually("the rollout is in its middle", LIMIT, || {
        let name = format!("written-{}", acknowledged.len());
        let written = cluster.json(&["create", "configmap", &name, "--from-literal=by=a test"]);
        acknowledged.insert(name, written);
        let deployment = cluster.json(&["get", "deployment", "hello"]);
        let status = &deployment["status"];
        let (updated, all) = (status["updatedReplicas"].as_u64(), status["replicas"].as_u64());
        let observed = status["observedGeneration"] == deployment["metadata"]["generation"];
        assert!(
            !(observed && updated == Some(REPLICAS as u64) && all == updated),
            "the rollout was over before anybody looked; make it longer: {status}"
        );
        if observed && updated >= Some(1) {
            Ok(())
        } else {
            Err(status.to_string())
        }
    });
    acknowledged
}

fn uids(pods: &[Value]) -> BTreeMap<String, String> {
    let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    pods.iter().map(|pod| (uid(pod), name(pod).to_owned())).collect()
}
