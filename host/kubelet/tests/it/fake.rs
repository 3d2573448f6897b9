//! The fake runtime: node, lease, restarts, deletion, a kubelet that comes back, and many pods at once.

use std::sync::Arc;

use client::fake::Fake;
use client::node::LogOptions;
use kubelet::runtime::fake::{FakeRuntime, Script};
use model::{Failure, GroupResource, ObjectKey};
use serde_json::json;

use crate::support::{TestNode, condition, looking, state};

fn node() -> (tempfile::TempDir, Arc<FakeRuntime>, TestNode) {
    let dir = tempfile::tempdir().expect("a folder");
    let runtime = Arc::new(FakeRuntime::new());
    let node = TestNode::start(dir.path().join("kubelet"), Fake::new(), runtime.clone());
    (dir, runtime, node)
}

fn web() -> serde_json::Value {
    json!({"containers": [{"name": "web", "image": "web:1"}]})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_registers_and_renews_its_lease() {
    let (_dir, _, mut node) = node();
    let key = ObjectKey::new(GroupResource::new("", "nodes"), "", "n1");
    node.until("the node is ready", |n| {
        n.fake
            .object(&key)
            .is_some_and(|o| condition(&o.value()["status"], "Ready"))
    })
    .await;
    let value = node.fake.object(&key).unwrap().value();
    assert_eq!(value["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(value["status"]["capacity"]["pods"], "10000");
    assert!(
        value["status"]["nodeInfo"]["containerRuntimeVersion"]
            .as_str()
            .unwrap()
            .starts_with("fake://")
    );
    let lease = ObjectKey::new(
        GroupResource::new("coordination.k8s.io", "leases"),
        "kube-node-lease",
        "n1",
    );
    node.until("there is a lease", |n| n.fake.object(&lease).is_some())
        .await;
    let first = node.fake.object(&lease).unwrap().version;
    node.until("it is renewed", |n| {
        n.fake.object(&lease).is_some_and(|o| o.version > first)
    })
    .await;
    node.fake.remove(&key);
    node.until("a deleted node comes back", |n| n.fake.object(&key).is_some())
        .await;
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_runs_is_restarted_and_deleted() {
    let (_dir, runtime, mut node) = node();
    let uid = node.put("p", web());
    node.until_running("p").await;
    let status = node.status("p");
    assert_eq!(status["phase"], "Running");
    assert!(status["podIP"].as_str().unwrap().starts_with("10."));
    assert!(runtime.exit(&uid, "web", 1).await);
    node.until("it was restarted", |n| {
        n.status("p")["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    node.until_running("p").await;
    assert_eq!(
        node.status("p")["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        1
    );
    assert!(runtime.exit(&uid, "web", 1).await);
    node.until("it waits", |n| {
        state(&n.status("p"), 0, "waiting")["reason"] == "CrashLoopBackOff"
    })
    .await;
    node.delete("p", 30);
    node.until_gone("p").await;
    assert_eq!(runtime.count(), 0);
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ephemeral_container_runs_once_and_outlives_the_kubelet() {
    let (_dir, runtime, mut node) = node();
    let uid = node.put("p", web());
    node.until_running("p").await;
    node.look("p", json!({"name": "look", "image": "debug:1"}));
    let runs = |n: &TestNode| !looking(&n.status("p"), 0, "running").is_null();
    node.until("it runs", runs).await;
    let before = node.status("p");
    node.halt().await;
    node.resume();
    node.look("p", json!({"name": "again", "image": "debug:1"}));
    node.until("the second runs", |n| !looking(&n.status("p"), 1, "running").is_null())
        .await;
    assert_eq!(
        node.status("p")["ephemeralContainerStatuses"][0],
        before["ephemeralContainerStatuses"][0]
    );
    assert!(runtime.exit(&uid, "look", 3).await);
    node.until("it has ended", |n| {
        looking(&n.status("p"), 0, "terminated")["exitCode"] == 3
    })
    .await;
    let status = node.status("p");
    assert_eq!(status["phase"], "Running");
    assert!(condition(&status, "Ready"), "{status}");
    assert_eq!(status["containerStatuses"][0]["restartCount"], 0);
    node.delete("p", 30);
    node.until_gone("p").await;
    assert_eq!(runtime.count(), 0);
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_ends_at_once_is_told_as_it_was() {
    let (_dir, runtime, mut node) = node();
    runtime.script(
        "job:1",
        Script {
            exits: Some(3),
            ..Script::default()
        },
    );
    runtime.script(
        "none:1",
        Script {
            missing: true,
            ..Script::default()
        },
    );
    node.put(
        "job",
        json!({"restartPolicy": "Never", "containers": [{"name": "job", "image": "job:1"}]}),
    );
    node.put("none", json!({"containers": [{"name": "none", "image": "none:1"}]}));
    node.until("the job failed", |n| n.status("job")["phase"] == "Failed")
        .await;
    assert_eq!(state(&node.status("job"), 0, "terminated")["exitCode"], 3);
    node.until("the pull backs off", |n| {
        state(&n.status("none"), 0, "waiting")["reason"] == "ImagePullBackOff"
    })
    .await;
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kubelet_that_comes_back_takes_its_pods_up_and_ends_those_deleted_meanwhile() {
    let (_dir, runtime, mut node) = node();
    node.put("stays", web());
    node.put("goes", web());
    node.until_running("stays").await;
    node.until_running("goes").await;
    let before = node.status("stays");
    node.halt().await;
    node.fake
        .remove(&ObjectKey::new(GroupResource::new("", "pods"), "default", "goes"));
    node.resume();
    node.put("new", web());
    node.until_running("new").await;
    crate::support::eventually("the orphan is ended", async || runtime.count() == 2).await;
    let after = node.status("stays");
    assert_eq!(
        after["containerStatuses"], before["containerStatuses"],
        "nothing was restarted"
    );
    assert_eq!(after["podIP"], before["podIP"]);
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_status_is_written_later_and_a_broken_watch_is_taken_up_again() {
    let (_dir, _, mut node) = node();
    node.fake.refuse_first_writes();
    let mut refusals = 2;
    node.fake.before_write(move |_, write| {
        if write.target.subresource == "status" && write.target.gvr.resource == "pods" && refusals > 0 {
            refusals -= 1;
            return Some(Failure::Timeout("the fake is slow".into()));
        }
        None
    });
    node.put("p", web());
    node.until_running("p").await;
    node.fake.break_watches();
    node.put("q", web());
    node.until_running("q").await;
    node.delete("p", 0);
    node.until_gone("p").await;
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_tells_of_itself() {
    let (_dir, _, mut node) = node();
    node.put("web", web());
    node.until_running("web").await;
    assert_eq!(node.streams.page("/healthz").await.unwrap().text, "ok");
    for (path, at, wanted) in [
        ("/pods", "/items/0/spec/containers/0/image", "web:1"),
        ("/runningpods/", "/items/0/metadata/name", "web"),
        ("/stats/summary", "/pods/0/podRef/name", "web"),
        ("/stats/summary", "/node/nodeName", "n1"),
        ("/configz", "/kubeletconfig/kind", "KubeletConfiguration"),
        ("/configz", "/kubeletconfig/nodeStatusUpdateFrequency", "200ms"),
    ] {
        let page = node.streams.page(path).await.unwrap();
        assert_eq!(page.content_type, "application/json", "{path}");
        let value: serde_json::Value = serde_json::from_str(&page.text).unwrap();
        assert_eq!(value.pointer(at), Some(&wanted.into()), "{path}: {value}");
    }
    for (path, line) in [
        ("/metrics", "kubelet_running_pods 1\n"),
        ("/metrics/resource", "resource_scrape_error 0\n"),
    ] {
        let text = node.streams.page(path).await.unwrap().text;
        assert!(text.contains(line), "{path}: {text}");
    }
    for path in ["", "/", "/logs/", "/pods/web", "/metrics/cadvisor"] {
        let none = node.streams.page(path).await;
        assert!(matches!(none, Err(Failure::NoSuchResource { .. })), "{path}: {none:?}");
    }
    let nobody = node.container("nobody", "c");
    let none = node.streams.logs(&nobody, &LogOptions::default()).await.err();
    assert!(matches!(none, Some(Failure::NotFound(_))), "{none:?}");
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_pods_come_and_go() {
    let (_dir, runtime, mut node) = node();
    for at in 0..1000 {
        node.put(&format!("p{at}"), web());
    }
    let ready = |n: &TestNode| {
        n.fake
            .objects("pods")
            .iter()
            .filter(|o| condition(&o.value()["status"], "Ready"))
            .count()
    };
    let begun = std::time::Instant::now();
    crate::support::eventually("all are ready", async || ready(&node) == 1000).await;
    eprintln!("a thousand fake pods ready after {:?}", begun.elapsed());
    for at in 0..1000 {
        node.delete(&format!("p{at}"), 0);
    }
    crate::support::eventually("all are gone", async || node.fake.objects("pods").is_empty()).await;
    assert_eq!(runtime.count(), 0);
    node.halt().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_maps_become_variables_and_a_missing_one_is_waited_for() {
    let (_dir, _, mut node) = node();
    let container = json!({"name": "web", "image": "web:1", "envFrom": [{"configMapRef": {"name": "late"}}]});
    node.put("p", json!({"containers": [container]}));
    node.until("it says what it lacks", |n| {
        let waiting = state(&n.status("p"), 0, "waiting").clone();
        waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == "configmap \"late\" not found"
    })
    .await;
    node.fake
        .put(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"A": "1"}}));
    node.until_running("p").await;
    node.halt().await;
}
