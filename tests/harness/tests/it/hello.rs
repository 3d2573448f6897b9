//! The main job, as a Kubernetes user does it: from `kubectl apply` to `kubectl delete` with nothing left behind.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{TestCluster, eventually, get, root};
use serde_json::Value;

use crate::steps::{LIMIT, address, answer, is_ready, name, pods, rolled_out, settled};

const HELLO: &str = "app=hello";

/// What differs between the runtimes that the story is told on.
pub trait Ground {
    fn cluster(&self) -> &TestCluster;
    /// In `tests/manifests`: a Deployment and a Service named hello, of three pods.
    fn manifest(&self) -> &'static str;
    /// The image it begins with, and the next.
    fn images(&self) -> [&'static str; 2];
    /// Whether the server prints this line when it has answered a request.
    fn tells_of_a_request(&self, line: &str) -> bool;
    /// What runs for pods, as the machine sees it: one for each pod.
    fn containers(&self) -> Vec<String>;
    /// `kill -9` of one of them, behind the kubelet's back.
    fn kill(&self, container: &str);
    /// What the machine still holds of pods.
    fn left(&self) -> Vec<String>;
}

struct Wasm(TestCluster);

impl Ground for Wasm {
    fn cluster(&self) -> &TestCluster {
        &self.0
    }

    fn manifest(&self) -> &'static str {
        "hello.yaml"
    }

    fn images(&self) -> [&'static str; 2] {
        ["hello:v1", "hello:v2"]
    }

    fn tells_of_a_request(&self, line: &str) -> bool {
        line == "/healthz 200"
    }

    fn containers(&self) -> Vec<String> {
        self.0.pod_processes().iter().map(|(pid, _)| pid.to_string()).collect()
    }

    fn kill(&self, container: &str) {
        self.0.kill(container.parse().expect("a process id"));
    }

    fn left(&self) -> Vec<String> {
        self.0.pod_processes().into_iter().map(|(_, line)| line).collect()
    }
}

#[test]
fn hello_on_wasm() {
    story(&Wasm(TestCluster::wasm()), || {});
}

/// `meanwhile` runs while three pods do.
pub fn story(ground: &dyn Ground, meanwhile: impl FnOnce()) {
    let cluster = ground.cluster();
    let manifest = root().join("tests/manifests").join(ground.manifest());
    let manifest = manifest.to_str().expect("UTF-8");
    let [first, second] = ground.images();
    let said = cluster.kubectl(&["apply", "-f", manifest]);
    assert_eq!(said, "deployment.apps/hello created\nservice/hello created\n");
    rolled_out(cluster, "hello");
    let why = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].reason}";
    let why = cluster.kubectl(&["get", "pods", "-l", "app=hello", "-o", why]);
    assert_eq!(why, "", "a pod that is Ready says no more why it was not");
    pods_are_shown(cluster);
    let service = address(cluster, "hello");
    assert!(answer(&service).body.contains("hello from hello-"));
    logs_are_shown(ground);
    the_node_tells_of_itself(ground);
    what_is_used_is_shown(cluster);
    plugins_are_ready(cluster);
    for replicas in [5, 1, 3] {
        cluster.kubectl(&["scale", "deployment/hello", &format!("--replicas={replicas}")]);
        rolled_out(cluster, "hello");
        settled(cluster, HELLO, replicas);
    }
    no_request_fails_while(&service, || {
        cluster.kubectl(&["set", "image", "deployment/hello", &format!("hello={second}")]);
        rolled_out(cluster, "hello");
        settled(cluster, HELLO, 3);
    });
    assert_eq!(images(cluster), [second]);
    no_request_fails_while(&service, || {
        cluster.kubectl(&["rollout", "undo", "deployment/hello"]);
        rolled_out(cluster, "hello");
        settled(cluster, HELLO, 3);
    });
    assert_eq!(images(cluster), [first]);
    meanwhile();
    a_killed_container_is_started_again(ground);
    a_deleted_pod_is_replaced(cluster);
    assert!(answer(&service).body.contains("hello from hello-"));
    cluster.kubectl(&["delete", "-f", manifest]);
    nothing_is_left(ground, &service);
}

fn pods_are_shown(cluster: &TestCluster) {
    let table = cluster.kubectl(&["get", "pods", "-o", "wide"]);
    let mut lines = table.lines();
    let header: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        header[..7],
        ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    );
    let rows: Vec<Vec<&str>> = lines.map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows.len(), 3, "{table}");
    for row in rows {
        assert!(row[0].starts_with("hello-"), "{table}");
        assert_eq!(row[1..4], ["1/1", "Running", "0"], "{table}");
        assert!(row[5].parse::<std::net::IpAddr>().is_ok(), "{table}");
        assert_eq!(row[6], "pilotis", "{table}");
    }
}

/// The readiness probe made some requests.
fn logs_are_shown(ground: &dyn Ground) {
    let cluster = ground.cluster();
    let log = cluster.kubectl(&["logs", "deployment/hello"]);
    assert!(log.lines().any(|line| ground.tells_of_a_request(line)), "{log}");
    let last = cluster.kubectl(&["logs", "deployment/hello", "--tail=1"]);
    assert_eq!(last.lines().count(), 1, "{last}");
}

/// At the paths of a stock kubelet.
fn the_node_tells_of_itself(ground: &dyn Ground) {
    let cluster = ground.cluster();
    let path = |page: &str| format!("/api/v1/nodes/pilotis/proxy/{page}");
    let raw = |page: &str| cluster.kubectl(&["get", "--raw", &path(page)]);
    assert_eq!(raw("healthz"), "ok");
    let json = |page: &str| -> Value { serde_json::from_str(&raw(page)).expect("the page is JSON") };
    let config = json("configz");
    assert_eq!(config["kubeletconfig"]["clusterDomain"], "cluster.local", "{config}");
    let of_hello = |list: &Value| -> Vec<Value> {
        let all = list.as_array().into_iter().flatten().cloned();
        all.filter(|pod| pod.to_string().contains("\"hello-")).collect()
    };
    assert_eq!(of_hello(&json("pods")["items"]).len(), 3);
    assert_eq!(of_hello(&json("runningpods/")["items"]).len(), 3);
    let summary = json("stats/summary");
    assert_eq!(summary["node"]["nodeName"], "pilotis", "{summary}");
    let told = of_hello(&summary["pods"]);
    assert_eq!(told.len(), 3, "{summary}");
    let metrics = raw("metrics/resource");
    for pod in &told {
        // The kernel counts in hundredths of a second, which a young pod may not have used.
        assert!(pod["cpu"]["usageCoreNanoSeconds"].is_u64(), "{pod}");
        assert!(pod["memory"]["workingSetBytes"].as_u64() > Some(0), "{pod}");
        let name = pod["podRef"]["name"].as_str().expect("a name");
        let container = pod["containers"][0]["name"].as_str().expect("a name");
        let log = raw(&format!("containerLogs/default/{name}/{container}"));
        assert!(log.lines().any(|line| ground.tells_of_a_request(line)), "{log}");
        let counted = |line: &str| line.starts_with("pod_cpu_usage_seconds_total{") && line.contains(name);
        assert!(metrics.lines().any(counted), "{metrics}");
    }
    for (asked, said) in [
        (path("nothing"), "the server could not find the requested resource"),
        (
            "/api/v1/nodes/nowhere/proxy/healthz".into(),
            "nodes \"nowhere\" not found",
        ),
    ] {
        let refused = cluster
            .try_kubectl(&["get", "--raw", &asked])
            .expect_err("nothing is there");
        assert!(refused.contains(said), "{asked}: {refused}");
    }
}

/// To one who asks once, and did not ask before.
fn what_is_used_is_shown(cluster: &TestCluster) {
    let rows = |line: &[&str]| -> Vec<Vec<String>> {
        let told = cluster.kubectl(line);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        told.lines().map(words).collect()
    };
    let pods = rows(&["top", "pods", "-l", HELLO, "--containers", "--no-headers"]);
    assert_eq!(pods.len(), 3, "{pods:?}");
    for pod in &pods {
        assert!(pod[0].starts_with("hello-") && pod[1] == "hello", "{pods:?}");
        let cpu = pod[2].strip_suffix('m').and_then(|cpu| cpu.parse::<u32>().ok());
        let memory = pod[3].strip_suffix("Mi").and_then(|memory| memory.parse::<u32>().ok());
        assert!(cpu.is_some() && memory.is_some(), "{pods:?}");
    }
    let nodes = rows(&["top", "nodes", "--no-headers"]);
    assert_eq!((nodes.len(), nodes[0][0].as_str()), (1, "pilotis"), "{nodes:?}");
    assert!(nodes[0][1].ends_with('m') && nodes[0][3].ends_with("Mi"), "{nodes:?}");
}

fn plugins_are_ready(cluster: &TestCluster) {
    let plugins = cluster.items(&["get", "plugins"]);
    let names: BTreeSet<&str> = plugins.iter().map(name).collect();
    for needed in [
        "controller-deployment",
        "controller-endpointslice",
        "controller-replicaset",
        "scheduler-default",
    ] {
        assert!(names.contains(needed), "{names:?}");
    }
    for plugin in &plugins {
        let status = &plugin["status"];
        assert_eq!(status["state"], "Ready", "{}: {status}", name(plugin));
        assert_eq!(status["faults"], 0, "{}: {status}", name(plugin));
    }
    // These have decided about the pods above.
    for worked in ["controller-deployment", "controller-replicaset", "scheduler-default"] {
        let plugin = plugins
            .iter()
            .find(|plugin| name(plugin) == worked)
            .expect("it was there above");
        assert!(
            plugin["status"]["calls"].as_u64() > Some(0),
            "{worked}: {}",
            plugin["status"]
        );
    }
    let table = cluster.kubectl(&["get", "plugins"]);
    let header: Vec<&str> = table.lines().next().unwrap_or_default().split_whitespace().collect();
    assert_eq!(
        header,
        ["NAME", "WORLDS", "REVISION", "STATE", "CALLS", "FAULTS", "P99", "AGE"]
    );
}

/// Asks the Service on one connection after the other, as fast as it answers.
fn no_request_fails_while(service: &str, change: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let (good, bad) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let (mut good, mut bad) = (0, Vec::new());
            while !done.load(Ordering::Relaxed) {
                match get(service, "/") {
                    Ok(answer) if answer.status == 200 && answer.body.contains("hello from") => good += 1,
                    Ok(answer) => bad.push(format!("{answer:?}")),
                    Err(why) => bad.push(why),
                }
            }
            (good, bad)
        });
        // Also when the change fails: the thread must end for the panic to be seen.
        let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(change));
        done.store(true, Ordering::Relaxed);
        let counted = asking.join().expect("the requests were counted");
        changed.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        counted
    });
    assert!(
        bad.is_empty(),
        "{} of {} requests failed, the first: {}",
        bad.len(),
        good + bad.len(),
        bad[0]
    );
    assert!(good >= 20, "only {good} requests: too few to say anything");
}

/// The images of all pods there are, each once.
fn images(cluster: &TestCluster) -> Vec<String> {
    let pods = cluster.items(&["get", "pods", "-l", HELLO]);
    let images = pods.iter().map(|pod| &pod["spec"]["containers"][0]["image"]);
    let images: BTreeSet<&str> = images.filter_map(|image| image.as_str()).collect();
    images.into_iter().map(str::to_owned).collect()
}

/// The pod stays the same pod, and counts the restart.
fn a_killed_container_is_started_again(ground: &dyn Ground) {
    let cluster = ground.cluster();
    let uids = |of: &[serde_json::Value]| of.iter().map(|pod| pod["metadata"]["uid"].clone()).collect::<Vec<_>>();
    let before = uids(&settled(cluster, HELLO, 3));
    let containers = ground.containers();
    assert_eq!(containers.len(), 3, "one for each pod: {containers:?}");
    ground.kill(&containers[0]);
    let after = eventually("the killed container runs again", LIMIT, || {
        let pods = pods(cluster, HELLO);
        let restarts = pods
            .iter()
            .map(|pod| pod["status"]["containerStatuses"][0]["restartCount"].as_u64());
        let restarts: Vec<u64> = restarts.map(Option::unwrap_or_default).collect();
        if restarts.iter().sum::<u64>() == 1 && pods.iter().all(is_ready) {
            Ok(pods)
        } else {
            Err(format!("restarts {restarts:?}"))
        }
    });
    assert_eq!(uids(&after), before);
}

fn a_deleted_pod_is_replaced(cluster: &TestCluster) {
    let victim = name(&settled(cluster, HELLO, 3)[0]).to_owned();
    cluster.kubectl(&["delete", "pod", &victim]);
    let names: Vec<String> = settled(cluster, HELLO, 3)
        .iter()
        .map(|pod| name(pod).to_owned())
        .collect();
    assert!(!names.contains(&victim), "{names:?}");
}

fn nothing_is_left(ground: &dyn Ground, service: &str) {
    const KINDS: &str = "deployments,replicasets,pods,services,endpoints,endpointslices";
    eventually("nothing of hello is left", LIMIT, || {
        let names = ground.cluster().kubectl(&["get", KINDS, "-o", "name"]);
        let left: Vec<&str> = names.lines().filter(|line| line.contains("/hello")).collect();
        if left.is_empty() { Ok(()) } else { Err(left.join(" ")) }
    });
    eventually("the machine holds nothing of a pod", LIMIT, || {
        match ground.left().as_slice() {
            [] => Ok(()),
            left => Err(format!("{left:?}")),
        }
    });
    eventually(
        "nobody answers for the Service",
        Duration::from_secs(10),
        || match get(service, "/") {
            Err(_) => Ok(()),
            Ok(answer) => Err(format!("{answer:?}")),
        },
    );
}
